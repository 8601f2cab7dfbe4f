//! A simulated M-Bus line with any number of slaves, on a pseudo-terminal or a TCP port.
//!
//! Slaves that answer at once disturb each other as on the wire: they begin at different times, and
//! a bit is zero when one of them draws current. A slave hears only what is sent at its own
//! rate. The line lives while its task runs ([`MbusLine::run`]); a [`Control`] reads and breaks it.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::os::pty::Pty;
use crate::wire::mbus::{
    BAUD_SWITCH, CI_APPLICATION_RESET, CI_SELECT, Decoder, Event, FCB, Frame, RSP_UD, SELECTED, encode,
};
use crate::wire::wmbus::Meter;

/// One simulated slave.
#[derive(Debug, Clone)]
pub struct Slave {
    /// Its primary address.
    pub primary: u8,
    /// Its secondary address.
    pub meter: Meter,
    /// Its fabrication number, for the enhanced selection.
    pub fabrication: u32,
    /// The records of each of its telegrams, without the DIF that says that more follow.
    pub telegrams: Vec<Vec<u8>>,
    /// The rate it listens at; unset: any.
    pub baud: Option<u32>,
    /// The status byte of its answers.
    pub status: u8,
    /// The configuration field of its answers; 0x0500 and more says that they are encrypted.
    pub configuration: u16,
    access: u8,
    selected: bool,
    /// The frame count bit of the last request, by primary address and as the selected slave.
    counts: [Option<u8>; 2],
    /// Which telegram was sent last, and its bytes.
    at: usize,
    last: Vec<u8>,
}

impl Slave {
    /// A heat meter with energy, volume, flow temperature and time.
    pub fn new(primary: u8, meter: Meter) -> Self {
        let records = vec![
            0x04, 0x06, 0x39, 0x30, 0x00, 0x00, // 12345 kWh
            0x0C, 0x14, 0x78, 0x56, 0x34, 0x12, // 123456.78 m³
            0x02, 0x5B, 0x41, 0x00, // 65 °C
            0x04, 0x6D, 0x1E, 0x0A, 0x76, 0x3B, // 2027-11-22 10:30
        ];
        Self {
            primary,
            meter,
            fabrication: meter.id,
            telegrams: vec![records],
            baud: None,
            status: 0,
            configuration: 0,
            access: 0,
            selected: false,
            counts: [None; 2],
            at: 0,
            last: Vec::new(),
        }
    }

    /// Whether a selection means this slave; a short one has wildcards at its end.
    fn is_meant(&self, selection: &[u8]) -> bool {
        let Some((address, rest)) = selection.split_first_chunk::<8>() else { return false };
        let [i0, i1, i2, i3, m0, m1, version, medium] = *address;
        let wanted = u32::from_le_bytes([i0, i1, i2, i3]);
        let digit = |id: u32, place: u32| (id >> (4 * place)) & 0xF;
        let same = |wanted: u32, own: u32| (0..8).all(|p| digit(wanted, p) == 0xF || digit(wanted, p) == digit(own, p));
        let manufacturer = u16::from_le_bytes([m0, m1]);
        let fabrication = match rest {
            [] => true,
            [0x0C, 0x78, f0, f1, f2, f3] => same(u32::from_le_bytes([*f0, *f1, *f2, *f3]), self.fabrication),
            _ => false,
        };
        same(wanted, self.meter.id)
            && (manufacturer == 0xFFFF || manufacturer == self.meter.manufacturer)
            && (version == 0xFF || version == self.meter.version)
            && (medium == 0xFF || medium == self.meter.device)
            && fabrication
    }

    /// Whether a frame to `address` reaches it, and under which of its two frame counts.
    fn listens(&self, address: u8) -> Option<usize> {
        match address {
            SELECTED => self.selected.then_some(1),
            254 => Some(0),
            own => (own == self.primary).then_some(0),
        }
    }

    /// What it answers, if anything.
    fn hear(&mut self, frame: &Frame, tally: &mut Tally) -> Option<Vec<u8>> {
        let acknowledge = || Some(vec![crate::wire::mbus::ACKNOWLEDGE]);
        match frame {
            Frame::Acknowledge => None,
            Frame::Short { control: 0x40, address } => {
                let which = self.listens(*address)?;
                tally.resets += 1;
                // The first request after it has the bit set; one without it is a repetition.
                self.set_count(which, Some(0));
                self.at = self.telegrams.len().saturating_sub(1);
                if *address == SELECTED {
                    self.selected = false;
                }
                acknowledge()
            }
            Frame::Short { control, address } if control & 0x4F == 0x4B => {
                let which = self.listens(*address)?;
                let bit = control & FCB;
                let before = self.counts.get(which).copied().flatten();
                if before == Some(bit) && control & 0x10 != 0 {
                    tally.repeated += 1;
                    return Some(self.last.clone());
                }
                self.at = if before.is_some() { (self.at + 1) % self.telegrams.len().max(1) } else { 0 };
                self.set_count(which, Some(bit));
                tally.telegrams += 1;
                self.last = self.telegram();
                Some(self.last.clone())
            }
            Frame::Long { ci: CI_SELECT, address: SELECTED, data, .. } => {
                self.selected = self.is_meant(data);
                tally.selections += u32::from(self.selected);
                self.set_count(1, None);
                if self.selected { acknowledge() } else { None }
            }
            Frame::Long { control, address, ci, .. } if control & 0x4F == 0x43 => {
                let which = self.listens(*address)?;
                self.set_count(which, Some(control & FCB));
                if *ci == CI_APPLICATION_RESET {
                    tally.application_resets += 1;
                    self.at = self.telegrams.len().saturating_sub(1);
                }
                if let Some((baud, _)) = BAUD_SWITCH.iter().find(|(_, code)| code == ci) {
                    tally.rate_changes += 1;
                    self.baud = Some(*baud);
                }
                acknowledge()
            }
            _ => None,
        }
    }

    /// How many characters it waits before it answers; no two meters are equally fast.
    fn reaction(&self) -> usize {
        self.meter.to_wire().iter().map(|byte| usize::from(*byte)).sum::<usize>() % 5
    }

    fn set_count(&mut self, which: usize, bit: Option<u8>) {
        if let Some(count) = self.counts.get_mut(which) {
            *count = bit;
        }
    }

    fn telegram(&mut self) -> Vec<u8> {
        self.access = self.access.wrapping_add(1);
        let [m0, m1, i0, i1, i2, i3, version, medium] = self.meter.to_wire();
        let mut data = vec![i0, i1, i2, i3, m0, m1, version, medium, self.access, self.status];
        data.extend(self.configuration.to_le_bytes());
        data.extend(self.telegrams.get(self.at).into_iter().flatten());
        if self.at + 1 < self.telegrams.len() {
            data.push(0x1F);
        }
        let mut bytes = Vec::new();
        encode(&Frame::Long { control: RSP_UD, address: self.primary, ci: 0x72, data }, &mut bytes);
        bytes
    }
}

/// What was understood so far, over all slaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// SND_NKE that reached a slave.
    pub resets: u32,
    /// Slaves selected.
    pub selections: u32,
    /// Telegrams sent for the first time.
    pub telegrams: u32,
    /// Telegrams sent again because the frame count bit was the same.
    pub repeated: u32,
    /// Application resets.
    pub application_resets: u32,
    /// Changes of rate.
    pub rate_changes: u32,
    /// Frames that nobody understood, and answers to them.
    pub other: u32,
}

/// What is wrong with the line; the numbers count down as the fault happens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The level converter gives back all that the master sends.
    pub echo: bool,
    /// Nobody answers.
    pub silent: bool,
    /// Answers that get lost.
    pub lost: u32,
    /// Answers with a wrong checksum.
    pub bad_checksums: u32,
    /// Answers that break off in the middle.
    pub truncated: u32,
    /// Answers that come twice.
    pub doubled: u32,
    /// It hears no SND_NKE.
    pub ignores_resets: bool,
    /// How much later than at once each answer comes.
    pub delay: Duration,
}

/// What a [`Control`] shows and changes.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The slaves.
    pub slaves: Vec<Slave>,
    /// What is wrong.
    pub faults: Faults,
    /// What was understood.
    pub tally: Tally,
}

/// A handle to a running line; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Control(Arc<Mutex<State>>);

impl Control {
    /// A handle to a line with these slaves, for one that is opened with `MbusLine::with`.
    pub fn new(slaves: Vec<Slave>) -> Self {
        Self(Arc::new(Mutex::new(State { slaves, ..State::default() })))
    }

    /// The state; hold it only for a moment, never over an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the slaves together answer to `frame`, sent at `baud` (unset: at their own); empty for silence.
    pub fn hear(&self, frame: &Frame, baud: Option<u32>) -> Vec<u8> {
        let mut state = self.state();
        let State { slaves, faults, tally } = &mut *state;
        let mut answers: Vec<(usize, Vec<u8>)> = Vec::new();
        for slave in slaves {
            if matches!(frame, Frame::Short { control: 0x40, .. }) && faults.ignores_resets {
                continue;
            }
            if faults.silent || slave.baud.is_some_and(|own| baud.is_some_and(|baud| baud != own)) {
                continue;
            }
            let reaction = slave.reaction();
            answers.extend(slave.hear(frame, tally).map(|answer| (reaction, answer)));
        }
        let mut joined = join(&answers);
        tally.other += u32::from(joined.is_empty());
        spoil(&mut joined, faults);
        joined
    }
}

/// What a master hears of answers that begin after so many characters: silence is FF, and zeros win.
fn join(answers: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let first = answers.iter().map(|(start, _)| *start).min().unwrap_or(0);
    let mut joined: Vec<u8> = Vec::new();
    for (start, answer) in answers {
        let end = start - first + answer.len();
        joined.resize(joined.len().max(end), 0xFF);
        joined.iter_mut().skip(start - first).zip(answer).for_each(|(there, byte)| *there &= byte);
    }
    joined
}

fn spoil(answer: &mut Vec<u8>, faults: &mut Faults) {
    let strikes = |left: &mut u32| {
        let strikes = *left > 0;
        *left = left.saturating_sub(1);
        strikes
    };
    if answer.is_empty() {
        return;
    }
    if strikes(&mut faults.lost) {
        answer.clear();
    } else if strikes(&mut faults.bad_checksums) {
        let place = answer.len().saturating_sub(2);
        answer.get_mut(place).into_iter().for_each(|check| *check ^= 1);
    } else if strikes(&mut faults.truncated) {
        answer.truncate(answer.len() / 2);
    } else if strikes(&mut faults.doubled) {
        answer.extend_from_within(..);
    }
}

enum End {
    Pty(Box<Pty>),
    Tcp(TcpStream),
}

impl End {
    async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Pty(pty) => pty.receive(buffer).await,
            Self::Tcp(stream) => stream.read(buffer).await,
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Pty(pty) => pty.send(bytes).await,
            Self::Tcp(stream) => stream.write_all(bytes).await,
        }
    }

    fn baud(&self) -> io::Result<Option<u32>> {
        match self {
            Self::Pty(pty) => pty.baud().map(Some),
            Self::Tcp(_) => Ok(None),
        }
    }
}

/// The simulated line.
pub struct MbusLine {
    end: End,
    control: Control,
}

impl MbusLine {
    /// Opens a pseudo-terminal. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system's error when there are no more pseudo-terminals.
    pub fn open(control: Control) -> io::Result<Self> {
        Ok(Self { end: End::Pty(Box::new(Pty::open()?)), control })
    }

    /// Waits for a master on `listener`, as a level converter with TCP does; rates are not known.
    ///
    /// # Errors
    /// The system's error.
    pub async fn accept(listener: &TcpListener, control: Control) -> io::Result<Self> {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok(Self { end: End::Tcp(stream), control })
    }

    /// The device file that a master opens; none over TCP.
    pub fn path(&self) -> Option<&Path> {
        match &self.end {
            End::Pty(pty) => Some(pty.path()),
            End::Tcp(_) => None,
        }
    }

    /// Answers until its task is dropped or, over TCP, the master is gone.
    ///
    /// # Errors
    /// The system's error when the line fails.
    pub async fn run(mut self) -> io::Result<()> {
        let mut decoder = Decoder::new();
        let mut buffer = [0; 512];
        loop {
            let count = self.end.receive(&mut buffer).await?;
            let bytes = buffer.get(..count).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(());
            }
            let faults = self.control.state().faults;
            if faults.echo {
                self.end.send(bytes).await?;
            }
            decoder.push(bytes);
            while let Some(event) = decoder.next() {
                let Event::Frame(frame) = event else { continue };
                let answer = self.control.hear(&frame, self.end.baud()?);
                sleep(faults.delay).await;
                self.end.send(&answer).await?;
            }
        }
    }
}
