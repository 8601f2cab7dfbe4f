//! A simulated IEC 62056-21 meter (modes A, B, C with programming mode, the opening of mode E) on a
//! pseudo-terminal.
//!
//! It behaves as a real UART does where a pseudo-terminal does not: what the reader sends counts
//! as received only after its time on the wire, and at the wrong rate both sides get garbage.
//! It lives while its task runs ([`IecMeter::run`]); a [`Control`] reads its counters and breaks it.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::os::clock;
use crate::os::pty::Pty;
use crate::wire::iec62056::data;
use crate::wire::iec62056::{
    Decoder, Event, Identification, Message, Mode, OptionSelect, Parity, SIGN_ON_BAUD, encode,
};

mod programming;
mod recorded;
mod registers;

pub use registers::Registers;

/// How long the meter waits for an acknowledgement and for a repeat request.
const WINDOW: Duration = Duration::from_millis(1500);
const BITS_PER_CHARACTER: u32 = 10;
/// NUL characters that wake a sleeping meter: 2 s at 300 Bd.
const WAKE_UP: usize = 60;
/// The pause that it wants after them, and how long it then stays awake without being spoken to.
const WAKE_UP_PAUSE: Duration = Duration::from_millis(1400);
const AWAKE: Duration = Duration::from_secs(6);

/// What a simulated meter is like.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its address, also its serial number.
    pub address: String,
    /// How it identifies itself; the baud character decides the mode.
    pub identification: Identification,
    /// Whether its characters carry even parity, and whether it demands that.
    pub parity: Parity,
    /// Its reaction time tr.
    pub reaction: Duration,
    /// Whether its bytes come at the pace of the line.
    pub real_time: bool,
    /// What opens its programming mode.
    pub password: String,
    /// Whether it reads nothing without the password.
    pub guarded: bool,
    /// How long it waits for a command before it ends programming mode.
    pub session_timeout: Duration,
    /// Whether it takes the choice of mode E.
    pub mode_e: bool,
    /// The rate at which it hears a sign-on; other than 300 it keeps to it.
    pub sign_on_baud: u32,
    /// Whether it sleeps until it is woken by NUL characters and a pause (battery meters).
    pub sleeps: bool,
}

impl Default for Options {
    /// A mode C meter at 9600 Bd with parity that answers after 200 ms.
    fn default() -> Self {
        let identification =
            Identification { manufacturer: "WEI".into(), baud: '5', enhanced: vec![], model: "SIM1".into() };
        Self {
            address: "12345678".into(),
            identification,
            parity: Parity::Even,
            reaction: Duration::from_millis(200),
            real_time: false,
            password: "00000000".into(),
            guarded: false,
            session_timeout: Duration::from_secs(30),
            mode_e: false,
            sign_on_baud: SIGN_ON_BAUD,
            sleeps: false,
        }
    }
}

/// What is wrong with the meter or its line now; the numbers count down as the fault happens.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Blocks whose check is wrong.
    pub bad_checksums: u32,
    /// Blocks that break off in the middle.
    pub truncated_blocks: u32,
    /// Blocks with one character of the wrong parity and, but for that, of the right check.
    pub parity_errors: u32,
    /// Acknowledgements that do not reach the meter: it then sends at 300 Bd.
    pub lost_acknowledgements: u32,
    /// The optical head gives back all that the reader sends.
    pub echo: bool,
    /// Noise before each identification.
    pub junk: bool,
    /// No answer at all.
    pub silent: bool,
    /// It keeps to 300 Bd whatever it announced and was told.
    pub stays_at_300: bool,
    /// It takes any choice of protocol for a readout at the chosen rate.
    pub takes_any_choice: bool,
    /// Above this rate all that it sends is noise.
    pub clean_up_to: Option<u32>,
    /// Answers of programming mode that are sent twice.
    pub doubled_answers: u32,
    /// Answers of programming mode that are not sent.
    pub lost_answers: u32,
    /// It sends a bare acknowledgement before each block.
    pub bare_acknowledgement: bool,
    /// Its readouts have neither ETX nor check.
    pub no_checks: bool,
}

/// What a [`Control`] shows and changes.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// What is wrong.
    pub faults: Faults,
    /// What it measures.
    pub registers: Registers,
    /// Sign-ons that were meant for it.
    pub sign_ons: u32,
    /// Blocks sent, repetitions included.
    pub blocks: u32,
    /// Repeat requests understood.
    pub repeats: u32,
    /// Transmissions that met a reader at another rate.
    pub wrong_rates: u32,
    /// Sessions of programming mode that were opened.
    pub sessions: u32,
    /// Breaks that ended one.
    pub breaks: u32,
    /// Sessions that the meter ended because no command came.
    pub timeouts: u32,
    /// Passwords that were tried, right or wrong.
    pub passwords: u32,
    /// Commands understood, passwords and breaks not counted.
    pub commands: u32,
    /// What was written, as `id(value)`.
    pub written: Vec<String>,
}

/// A handle to a running meter; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Control(Arc<Mutex<State>>);

impl Control {
    /// The state; hold it only for a moment, never over an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The meter itself.
#[derive(Debug)]
pub struct IecMeter {
    pty: Pty,
    options: Options,
    control: Control,
    baud: u32,
    decoder: Decoder,
    advanced: Instant,
    /// What was sent last in programming mode, for a repeat request.
    last: Option<Message>,
    /// A break came amid the parts of an answer.
    ended: bool,
    /// NUL characters in a row, and when there were enough of them.
    nuls: usize,
    woken: Option<Instant>,
}

impl IecMeter {
    /// Opens its line. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system's error when there are no more pseudo-terminals.
    pub fn open(options: Options) -> io::Result<Self> {
        let mut decoder = Decoder::new();
        if options.parity == Parity::Even {
            decoder.expect(Parity::Even);
        }
        let advanced = Instant::now();
        Ok(Self {
            pty: Pty::open()?,
            baud: options.sign_on_baud,
            options,
            control: Control::default(),
            nuls: 0,
            woken: None,
            decoder,
            advanced,
            last: None,
            ended: false,
        })
    }

    /// The device file that a reader opens.
    pub fn path(&self) -> &Path {
        self.pty.path()
    }

    /// A handle to its registers, counters and faults.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Answers sign-ons until its task is dropped.
    ///
    /// # Errors
    /// The system's error when the line fails.
    pub async fn run(mut self) -> io::Result<()> {
        loop {
            self.baud = self.options.sign_on_baud;
            self.decoder.clear();
            self.decoder.expect_no_options(false);
            if let Message::Request { address } = self.message().await?
                && self.is_mine(&address)
            {
                self.answer().await?;
            }
        }
    }

    /// Leading zeros of an address are not significant (clause 6.3.1).
    fn is_mine(&self, address: &str) -> bool {
        let significant = |text: &str| text.trim_start_matches('0').to_owned();
        address.is_empty() || significant(address) == significant(&self.options.address)
    }

    async fn answer(&mut self) -> io::Result<()> {
        let junk = {
            let mut state = self.control.state();
            state.sign_ons += 1;
            if state.faults.silent {
                return Ok(());
            }
            state.faults.junk
        };
        sleep(self.options.reaction).await;
        if junk {
            self.send_raw(vec![0x00, 0xFF, 0x7F, 0xA5, 0x15]).await?;
        }
        let ident = self.options.identification.clone();
        let mode = ident.mode();
        self.send(&Message::Identification(ident.clone())).await?;
        match mode {
            Mode::A => {}
            Mode::B(baud) => self.baud = baud,
            Mode::C(_) | Mode::Reserved => {
                let Ok(answer) = timeout(WINDOW, self.option_select()).await else { return self.readout().await };
                let option = answer?;
                if option.protocol == '2' && option.mode == '2' && self.options.mode_e {
                    return self.mode_e(option).await;
                }
                let (stays, any) = {
                    let faults = &self.control.state().faults;
                    (faults.stays_at_300, faults.takes_any_choice)
                };
                if !stays && (any || option.protocol == '0') {
                    self.baud = self.chosen(mode, option.baud);
                }
                match (option.protocol, option.mode) {
                    ('0', '1') => return self.programming().await,
                    ('0', '0') => {}
                    _ if any => {}
                    // A choice that it does not know counts as none (clause 6.4.3).
                    _ => self.baud = self.options.sign_on_baud,
                }
            }
        }
        sleep(self.options.reaction).await;
        self.readout().await
    }

    /// The rate that a host chose: a lower one than announced is taken too, as many meters do.
    fn chosen(&self, mode: Mode, character: char) -> u32 {
        if self.options.sign_on_baud != SIGN_ON_BAUD {
            return self.options.sign_on_baud;
        }
        let chosen = Identification { baud: character, ..self.options.identification.clone() }.mode();
        match (mode, chosen) {
            (Mode::C(offered), Mode::C(chosen)) if chosen <= offered => chosen,
            _ => SIGN_ON_BAUD,
        }
    }

    /// Agrees to mode E and answers the first HDLC frame (SNRM) as a recorded meter did.
    async fn mode_e(&mut self, option: OptionSelect) -> io::Result<()> {
        const SNRM: &[u8] = &[0x7E, 0xA0, 0x07, 0x03, 0x21, 0x93, 0x0F, 0x01, 0x7E];
        const UA: &[u8] = &[
            0x7E, 0xA0, 0x1E, 0x21, 0x03, 0x73, 0xC3, 0x7A, 0x81, 0x80, 0x12, 0x05, 0x01, 0x80, 0x06, 0x01, 0x80, 0x07,
            0x04, 0x00, 0x00, 0x00, 0x01, 0x08, 0x04, 0x00, 0x00, 0x00, 0x01, 0x53, 0x3B, 0x7E,
        ];
        sleep(self.options.reaction).await;
        self.send(&Message::OptionSelect(option)).await?;
        self.baud = self.chosen(self.options.identification.mode(), option.baud);
        let (mut heard, mut buffer) = (Vec::new(), [0; 64]);
        while let Ok(count) = timeout(WINDOW, self.pty.receive(&mut buffer)).await {
            heard.extend_from_slice(buffer.get(..count?).unwrap_or_default());
            if heard == SNRM && self.pty.baud()? == self.baud {
                self.send_raw(UA.to_vec()).await?;
            }
        }
        Ok(())
    }

    async fn option_select(&mut self) -> io::Result<OptionSelect> {
        loop {
            if let Message::OptionSelect(option) = self.message().await? {
                let mut state = self.control.state();
                match state.faults.lost_acknowledgements {
                    0 => return Ok(option),
                    left => state.faults.lost_acknowledgements = left - 1,
                }
            }
        }
    }

    async fn readout(&mut self) -> io::Result<()> {
        loop {
            self.block().await?;
            match timeout(WINDOW, self.message()).await {
                Ok(Ok(Message::Repeat)) => self.control.state().repeats += 1,
                Ok(Err(error)) => return Err(error),
                Ok(Ok(_)) | Err(_) => return Ok(()),
            }
        }
    }

    async fn block(&mut self) -> io::Result<()> {
        let elapsed = std::mem::replace(&mut self.advanced, Instant::now()).elapsed();
        let mut body = Vec::new();
        let faults = {
            let mut state = self.control.state();
            state.registers.advance(elapsed);
            state.blocks += 1;
            data::encode(&state.registers.lines(&self.options.address, &clock::now().to_string()), &mut body);
            let now = state.faults.clone();
            let left = &mut state.faults;
            left.bad_checksums = left.bad_checksums.saturating_sub(1);
            left.truncated_blocks = left.truncated_blocks.saturating_sub(1);
            left.parity_errors = left.parity_errors.saturating_sub(1);
            now
        };
        let mut bytes = Vec::new();
        encode(&Message::Block(body), &mut bytes);
        if faults.bad_checksums > 0
            && let Some(check) = bytes.last_mut()
        {
            *check ^= 1;
        }
        if faults.truncated_blocks > 0 {
            bytes.truncate(bytes.len() / 2);
        }
        if faults.no_checks {
            bytes.truncate(bytes.len().saturating_sub(2));
        }
        if faults.bare_acknowledgement {
            bytes.splice(..0, *b"\x06\r\n");
        }
        self.options.parity.apply(&mut bytes);
        if faults.parity_errors > 0
            && let Some(character) = bytes.get_mut(10)
        {
            *character ^= 0x80;
        }
        self.send_raw(bytes).await
    }

    async fn send(&mut self, message: &Message) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode(message, &mut bytes);
        self.options.parity.apply(&mut bytes);
        self.send_raw(bytes).await
    }

    async fn send_raw(&mut self, mut bytes: Vec<u8>) -> io::Result<()> {
        if self.pty.baud()? != self.baud {
            self.control.state().wrong_rates += 1;
        }
        let clean = self.control.state().faults.clean_up_to.is_none_or(|limit| self.baud <= limit);
        let size = if self.options.real_time { 1 } else { bytes.len().max(1) };
        let mut due = Instant::now();
        for chunk in bytes.chunks_mut(size) {
            if self.pty.baud()? != self.baud || !clean {
                // What a receiver at another rate makes of the bits: noise, never a clean character.
                chunk.iter_mut().for_each(|b| *b = b.rotate_left(3) | 0x61);
            }
            self.pty.send(chunk).await?;
            if self.options.real_time {
                due += self.time_of(chunk.len());
                sleep_until(due).await;
            }
        }
        Ok(())
    }

    fn time_of(&self, characters: usize) -> Duration {
        let bits = BITS_PER_CHARACTER.saturating_mul(u32::try_from(characters).unwrap_or(u32::MAX));
        Duration::from_secs(1) * bits / self.baud
    }

    /// Whether a meter that sleeps hears what came: after a wake-up and the pause after it (clause 5).
    fn is_awake(&mut self, count: usize, nul: bool) -> bool {
        if !self.options.sleeps {
            return true;
        }
        let now = Instant::now();
        if nul {
            self.nuls += count;
            self.woken = (self.nuls >= WAKE_UP).then_some(now);
            return false;
        }
        self.nuls = 0;
        let awake = self
            .woken
            .is_some_and(|woken| now.duration_since(woken) >= WAKE_UP_PAUSE && now.duration_since(woken) < AWAKE);
        self.woken = if awake { Some(now - WAKE_UP_PAUSE) } else { None };
        awake
    }

    /// The next message that the reader sent at the meter's rate.
    async fn message(&mut self) -> io::Result<Message> {
        let mut buffer = [0; 256];
        loop {
            while let Some(event) = self.decoder.next() {
                if let Event::Message(message, _) = event {
                    return Ok(message);
                }
            }
            let count = self.pty.receive(&mut buffer).await?;
            let bytes = buffer.get(..count).unwrap_or_default();
            let bytes_are_nul = bytes.iter().all(|byte| *byte == 0);
            // A pseudo-terminal delivers at once; on a wire the last character is still coming
            // when nine tenths of the time are over, and the reader must not have changed its rate.
            let on_the_wire = self.time_of(count);
            sleep(on_the_wire * 9 / 10).await;
            let understood = self.pty.baud()? == self.baud;
            sleep(on_the_wire / 10).await;
            let echo = self.control.state().faults.echo;
            if echo {
                self.pty.send(bytes).await?;
            }
            if understood && self.is_awake(count, bytes_are_nul) {
                self.decoder.push(bytes);
            } else {
                self.control.state().wrong_rates += 1;
            }
        }
    }
}
