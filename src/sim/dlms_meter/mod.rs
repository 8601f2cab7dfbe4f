//! Simulated DLMS/COSEM meters: HDLC on a pseudo-terminal that is as slow as a wire, also behind mode E, and the
//! wrapper over TCP.
//!
//! What a client sends counts as received only after its time on the wire, and an answer comes byte by byte at the
//! rate that the client has set; without pace all comes at once. Several logical devices share the line. A
//! [`Control`] breaks it and counts. [`Content`] is what it holds.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::os::alarm::Alarm;
use crate::os::line::{Framing, Speed};
use crate::os::pty::Pty;
use crate::wire::dlms::hdlc::{Decoder, Event, Parameters};
use crate::wire::dlms::wrapper;

mod content;
mod opening;
mod secondary;
mod server;

pub use content::Content;
use opening::Opening;
use secondary::{Deed, Secondary, take_one};
use server::{Manner, Server};

/// What a simulated line of meters is like.
#[derive(Debug, Clone)]
pub struct Options {
    /// The logical and physical device of each; with physical device 0 an address of one byte will do.
    pub devices: Vec<(u8, u8, Content)>,
    /// The most that it takes and sends in a frame, and in a row.
    pub limits: Parameters,
    /// The longest APDU that it takes and sends.
    pub max_pdu: u16,
    /// The password of all clients but the public one.
    pub password: Option<String>,
    /// The answer to a password does not name the mechanism.
    pub unnamed: bool,
    /// Whether its bytes come at the pace of the line.
    pub paced: bool,
    /// It is opened by mode E and speaks at this rate then.
    pub mode_e: Option<u32>,
    /// How long it takes to answer.
    pub delay: Duration,
}

impl Default for Options {
    /// One meter with an address of one byte, at once, with frames of up to 2,030 bytes.
    fn default() -> Self {
        let limits = Parameters { transmit: 2030, receive: 2030, window_transmit: 7, window_receive: 7 };
        Self {
            devices: vec![(1, 0, Content::default())],
            limits,
            max_pdu: 4096,
            password: None,
            unnamed: false,
            paced: false,
            mode_e: None,
            delay: Duration::ZERO,
        }
    }
}

/// What is wrong with the meters or their line now; the numbers count down as the fault happens.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Frames of meters that get lost.
    pub lost: u32,
    /// Frames of meters of which a bit changes.
    pub corrupt: u32,
    /// Frames of meters that come twice.
    pub doubled: u32,
    /// Frames of meters of which only the first half comes.
    pub truncated: u32,
    /// Frames of another meter that come before those of this one.
    pub foreign: u32,
    /// Pushes that come before an answer.
    pub pushes: u32,
    /// Polls that are answered by "not ready".
    pub not_ready: u32,
    /// Requests that are answered by "not connected"; the connection is gone then.
    pub dm: u32,
    /// Requests that are answered by a frame reject.
    pub frmr: u32,
    /// Answers that come a second late.
    pub late: u32,
    /// The parameters of an SNRM are refused.
    pub no_parameters: bool,
    /// Nothing is answered.
    pub silent: bool,
}

/// What a [`Control`] shows and changes.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// What is wrong.
    pub faults: Faults,
    /// Connections opened, and ended by the client.
    pub opened: u32,
    /// Connections ended by DISC.
    pub closed: u32,
    /// Requests carried out.
    pub requests: u32,
    /// Bytes from the client, and to it.
    pub bytes: (u64, u64),
    /// What all these bytes and the delays of the meter need at least.
    pub least: Duration,
    /// Bytes that came at a wrong rate.
    pub wrong_rate: u64,
}

/// A handle to running meters; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Control(Arc<Mutex<State>>);

impl Control {
    /// The state; hold it only for a moment, never over an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One logical device with its connection and its association.
#[derive(Debug)]
struct Device {
    secondary: Secondary,
    server: Server,
    content: Content,
}

/// Meters on a pseudo-terminal.
#[derive(Debug)]
pub struct DlmsMeter {
    pty: Pty,
    options: Options,
    devices: Vec<Device>,
    manner: Manner,
    control: Control,
    alarm: Alarm,
    opening: Option<Opening>,
}

impl DlmsMeter {
    /// Opens their line. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system's error when there are no more pseudo-terminals.
    pub fn open(options: Options) -> io::Result<Self> {
        let device = |(logical, physical, content): &(u8, u8, Content)| Device {
            secondary: Secondary::new(*logical, *physical, options.limits),
            server: Server::default(),
            content: content.clone(),
        };
        Ok(Self {
            pty: Pty::open()?,
            devices: options.devices.iter().map(device).collect(),
            manner: manner(&options),
            control: Control::default(),
            alarm: Alarm::new(),
            opening: options.mode_e.map(Opening::new),
            options,
        })
    }

    /// The device file that a reader opens.
    pub fn path(&self) -> PathBuf {
        Path::to_owned(self.pty.path())
    }

    /// A handle to their counters and faults.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Answers until its task is dropped. Where it is paced it wants a thread of its own, to be on time.
    ///
    /// # Errors
    /// The system's error when the line fails.
    pub async fn run(mut self) -> io::Result<()> {
        let mut decoder = Decoder::new();
        let mut buffer = [0; 4096];
        let (mut begun, mut length) = (Instant::now(), 0);
        loop {
            let count = self.pty.receive(&mut buffer).await?;
            let came = buffer.get(..count).unwrap_or_default();
            if let Some(opening) = &mut self.opening
                && !opening.is_done()
            {
                opening.take(came, &mut self.pty, &self.control).await?;
                continue;
            }
            if self.options.mode_e.is_some_and(|baud| self.pty.baud().is_ok_and(|now| now != baud)) {
                // A sign-on: the client has forgotten its connection, or it came to the wrong time.
                self.control.state().wrong_rate += count as u64;
                continue;
            }
            if length == 0 {
                begun = Instant::now();
            }
            length += count;
            decoder.push(came);
            let mut said = Vec::new();
            while let Some(event) = decoder.next() {
                if let Event::Frame(frame) = event {
                    said.extend(self.answer(&frame));
                }
            }
            if decoder.in_frame() {
                continue;
            }
            self.say(begun, length, said).await?;
            length = 0;
        }
    }

    fn answer(&mut self, frame: &crate::wire::dlms::hdlc::Frame) -> Vec<Vec<u8>> {
        let mut state = self.control.state();
        if state.faults.silent {
            return Vec::new();
        }
        for device in &mut self.devices {
            match device.secondary.take(frame, &mut state.faults) {
                Deed::Nothing => {}
                Deed::Say(frames) => {
                    state.opened += u32::from(frame.control == crate::wire::dlms::hdlc::Control::Snrm);
                    return frames;
                }
                Deed::Closed(frames) => {
                    state.closed += 1;
                    if let Some(opening) = &mut self.opening {
                        opening.again();
                    }
                    return frames;
                }
                Deed::Carry { client, apdu, polled } => {
                    state.requests += 1;
                    let answer = device.server.answer(&device.content, &self.manner, client, &apdu);
                    return device.secondary.answer(&answer, polled, &mut state.faults);
                }
            }
        }
        Vec::new()
    }

    /// Sends frames after the request's time on the wire, at the pace of the line.
    async fn say(&mut self, begun: Instant, length: usize, said: Vec<Vec<u8>>) -> io::Result<()> {
        let (bytes, late) = {
            let mut state = self.control.state();
            let late = !said.is_empty() && take_one(&mut state.faults.late);
            (said.iter().flat_map(|frame| faulty(frame, &mut state.faults)).collect::<Vec<_>>(), late)
        };
        let speed = Speed { baud: self.pty.baud()?, framing: Framing::EIGHT_N_ONE };
        {
            let mut state = self.control.state();
            state.bytes.0 += length as u64;
            state.bytes.1 += bytes.len() as u64;
            state.least += speed.time_of(length) + speed.time_of(bytes.len()) + self.options.delay;
        }
        if late {
            sleep(Duration::from_secs(1)).await;
        }
        if !self.options.paced {
            sleep(self.options.delay).await;
            return self.pty.send(&bytes).await;
        }
        let start = begun + speed.time_of(length) + self.options.delay;
        for (sent, byte) in bytes.iter().enumerate() {
            self.alarm.until(start + speed.time_of(sent + 1)).await;
            self.pty.send(std::slice::from_ref(byte)).await?;
        }
        Ok(())
    }
}

fn manner(options: &Options) -> Manner {
    let password = options.password.as_ref().map(|text| text.clone().into_bytes());
    Manner { password, max_pdu: options.max_pdu, unnamed: options.unnamed }
}

/// What comes of a frame with the faults of now.
fn faulty(frame: &[u8], faults: &mut Faults) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    if take_one(&mut faults.lost) {
        return Vec::new();
    }
    if take_one(&mut faults.corrupt)
        && let Some(byte) = bytes.get_mut(frame.len() / 2)
    {
        *byte ^= 4;
    } else if take_one(&mut faults.truncated) {
        bytes.truncate(frame.len() / 2);
    } else if take_one(&mut faults.doubled) {
        bytes.extend_from_slice(frame);
    }
    if take_one(&mut faults.foreign) {
        let others = crate::wire::dlms::hdlc::Frame {
            segmented: false,
            destination: crate::wire::dlms::hdlc::Address::Single(16),
            source: crate::wire::dlms::hdlc::Address::Double { upper: 1, lower: 99 },
            control: crate::wire::dlms::hdlc::Control::I { ns: 0, nr: 1, pf: true },
            information: vec![0xE6, 0xE7, 0, 0xC4, 1, 0xC1, 0, 0x09, 1, 0x21],
        };
        bytes.splice(0..0, others.encode().unwrap_or_default());
    }
    bytes
}

/// Serves the first device of `options` over the wrapper, to one client after the other, until its task is dropped.
///
/// # Errors
/// The system's error when no connection can be taken.
pub async fn serve_wrapper(listener: TcpListener, options: Options, control: Control) -> io::Result<()> {
    let manner = manner(&options);
    loop {
        let (mut stream, _) = listener.accept().await?;
        let Some((logical, _, content)) = options.devices.first() else { return Ok(()) };
        let (mut decoder, mut server) = (wrapper::Decoder::new(), Server::default());
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            decoder.push(buffer.get(..count).unwrap_or_default());
            while let Some(event) = decoder.next() {
                let wrapper::Event::Unit(unit) = event else { continue };
                if unit.destination != u16::from(*logical) || control.state().faults.silent {
                    continue;
                }
                control.state().requests += 1;
                let apdu = server.answer(content, &manner, unit.source, &unit.apdu);
                let answer = wrapper::Unit { source: unit.destination, destination: unit.source, apdu };
                let late = take_one(&mut control.state().faults.late);
                sleep(options.delay + if late { Duration::from_secs(1) } else { Duration::ZERO }).await;
                if stream.write_all(&answer.encode().unwrap_or_default()).await.is_err() {
                    break;
                }
            }
        }
    }
}
