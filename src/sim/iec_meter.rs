//! A simulated IEC 62056-21 meter (modes A, B, C) on a pseudo-terminal.
//!
//! It behaves as a real UART does where a pseudo-terminal does not: what the reader sends counts
//! as received only after its time on the wire, and at the wrong rate both sides get garbage.
//! It lives while its task runs ([`IecMeter::run`]); a [`Control`] reads its counters and breaks it.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::pty::Pty;
use crate::os::clock;
use crate::wire::iec62056::data::{self, DataSet, DataValue, Line};
use crate::wire::iec62056::{
    Decoder, Event, Identification, Message, Mode, OptionSelect, Parity, SIGN_ON_BAUD, encode,
};

/// How long the meter waits for an acknowledgement and for a repeat request.
const WINDOW: Duration = Duration::from_millis(1500);
const BITS_PER_CHARACTER: u32 = 10;

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
}

/// The energy registers and what moves them.
#[derive(Debug, Clone)]
pub struct Registers {
    /// Energy drawn in tariff 1 and 2, milliwatt-hours.
    pub energy: [u64; 2],
    /// Power drawn now, watts.
    pub power: u32,
    /// Mains voltage, tenths of a volt.
    pub voltage: u32,
    noise: u32,
}

impl Default for Registers {
    fn default() -> Self {
        Self { energy: [834_100_000, 400_467_000], power: 640, voltage: 2304, noise: 0x2F6E_2B1D }
    }
}

impl Registers {
    /// Lets `elapsed` pass: energy grows by the power drawn, then power and voltage wander.
    pub fn advance(&mut self, elapsed: Duration) {
        let drawn = u128::from(self.power) * elapsed.as_millis() / 3600;
        if let Some(energy) = self.energy.first_mut() {
            *energy = energy.saturating_add(u64::try_from(drawn).unwrap_or(u64::MAX));
        }
        self.power = (self.power + self.random(120)).saturating_sub(60).clamp(180, 4200);
        self.voltage = (self.voltage + self.random(7)).saturating_sub(3).clamp(2250, 2360);
    }

    /// Registers and voltage as the meter's table shows them.
    fn lines(&self, address: &str, now: &str) -> Vec<Line> {
        let digits = |range: std::ops::Range<usize>| {
            now.get(range).unwrap_or_default().chars().filter(char::is_ascii_digit).collect::<String>()
        };
        let energy = |milliwatt_hours: u64| {
            let wh = milliwatt_hours / 1000;
            format!("{:06}.{:03}", wh / 1000, wh % 1000)
        };
        let kilowatts = format!("{:02}.{:03}", self.power / 1000, self.power % 1000);
        let mut maximum = DataSet::new("1.6.1", "04.211", "kW");
        maximum.values.push(DataValue { text: "2601121545".into(), unit: String::new() });
        let [first, second] = self.energy;
        let sets = [
            DataSet::new("F.F", "00000000", ""),
            DataSet::new("0.0.0", address, ""),
            DataSet::new("0.9.1", digits(11..19), ""),
            DataSet::new("0.9.2", digits(2..10), ""),
            DataSet::new("1.8.0", energy(first.saturating_add(second)), "kWh"),
            DataSet::new("1.8.1", energy(first), "kWh"),
            DataSet::new("1.8.2", energy(second), "kWh"),
            DataSet::new("2.8.0", "000000.000", "kWh"),
            maximum,
            DataSet::new("1.8.0*01", "001100.000", "kWh"),
            DataSet::new("1.7.0", kilowatts, "kW"),
            DataSet::new("32.7.0", format!("{}.{}", self.voltage / 10, self.voltage % 10), "V"),
        ];
        sets.into_iter().map(|set| vec![set]).collect()
    }

    /// A number below `limit`; always the same row, so that a demo repeats itself.
    fn random(&mut self, limit: u32) -> u32 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 17;
        self.noise ^= self.noise << 5;
        self.noise % limit
    }
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
        Ok(Self { pty: Pty::open()?, options, control: Control::default(), baud: SIGN_ON_BAUD, decoder, advanced })
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
            self.baud = SIGN_ON_BAUD;
            self.decoder.clear();
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
                if let Mode::C(baud) = mode
                    && option.baud == ident.baud
                {
                    self.baud = baud;
                }
                if option.mode != '0' {
                    return Ok(());
                }
            }
        }
        sleep(self.options.reaction).await;
        self.readout().await
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
        let size = if self.options.real_time { 1 } else { bytes.len().max(1) };
        let mut due = Instant::now();
        for chunk in bytes.chunks_mut(size) {
            if self.pty.baud()? != self.baud {
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
            if understood {
                self.decoder.push(bytes);
            } else {
                self.control.state().wrong_rates += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energy_grows_by_the_power_drawn_and_the_total_is_the_sum() {
        let mut registers = Registers { power: 3600, ..Registers::default() };
        registers.advance(Duration::from_secs(10));
        assert_eq!(registers.energy, [834_110_000, 400_467_000]);
        for _ in 0..1000 {
            registers.advance(Duration::from_secs(1));
            assert!((180..=4200).contains(&registers.power) && (2250..=2360).contains(&registers.voltage));
        }
        let lines = registers.lines("00012345", "2026-11-21T22:32:18Z");
        let text = |id: &str| lines.iter().flatten().find(|s| s.id == id).unwrap().values[0].text.clone();
        let number = |id: &str| text(id).replace('.', "").parse::<u64>().unwrap();
        assert!(number("1.8.0").abs_diff(number("1.8.1") + number("1.8.2")) <= 1);
        assert_eq!(
            (text("0.9.1"), text("0.9.2"), text("0.0.0")),
            ("223218".into(), "261121".into(), "00012345".into())
        );
    }
}
