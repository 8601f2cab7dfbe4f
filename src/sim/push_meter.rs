//! A simulated meter that sends by itself on a pseudo-terminal: P1 (also of DSMR 2.2, and
//! ciphered), D0, SML and DLMS.
//!
//! It sends at its pace until its task is dropped ([`PushMeter::run`]); a [`Control`] tells what it
//! sent and breaks it.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::iec_meter::Registers;
use crate::os::clock;
use crate::os::pty::Pty;
use crate::wire::iec62056::Parity;
use crate::wire::iec62056::data::{DataSet, DataValue, Line};
use crate::wire::p1::{self, Keys};

pub mod dlms;
mod sml;

/// How it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// DSMR 5: with a CRC.
    P1,
    /// DSMR 2.2: even parity, no CRC, the gas reading on a line of its own.
    P1Old,
    /// DSMR 5 inside AES-GCM.
    P1Ciphered {
        /// The encryption key.
        encryption: [u8; 16],
        /// The authentication key.
        authentication: [u8; 16],
    },
    /// IEC 62056-21 mode D: even parity.
    D0,
    /// SML 1.04.
    Sml,
    /// A DLMS push.
    Dlms {
        /// What carries it, and how it is arranged.
        form: dlms::Form,
        /// The keys under which it is ciphered.
        keys: Option<dlms::Keys>,
    },
}

/// The system title of the ciphered meter.
pub const TITLE: [u8; 8] = *b"WEI\0\0\x12\x34\x56";

/// What is wrong with the meter or its line now; the numbers count down as the fault happens.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Messages with one flipped bit in the middle.
    pub flipped: u32,
    /// Messages that break off in the middle.
    pub truncated: u32,
    /// Messages sent twice.
    pub doubled: u32,
    /// Messages that are preceded by noise.
    pub junk: u32,
    /// Nothing is sent at all.
    pub silent: bool,
}

/// What a [`Control`] shows and changes.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// What is wrong.
    pub faults: Faults,
    /// What it measures.
    pub registers: Registers,
    /// The energy of each message sent, tariff 1, as its text says it.
    pub sent: Vec<String>,
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
pub struct PushMeter {
    pty: Pty,
    kind: Kind,
    every: Duration,
    control: Control,
    advanced: Instant,
    counter: u32,
}

impl PushMeter {
    /// Opens its line. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system's error when there are no more pseudo-terminals.
    pub fn open(kind: Kind, every: Duration) -> io::Result<Self> {
        let pty = Pty::open()?;
        Ok(Self { pty, kind, every, control: Control::default(), advanced: Instant::now(), counter: 1 })
    }

    /// The device file that a reader opens.
    pub fn path(&self) -> &Path {
        self.pty.path()
    }

    /// A handle to its registers, faults and what it sent.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Sends messages until its task is dropped.
    ///
    /// # Errors
    /// The system's error when the line fails.
    pub async fn run(mut self) -> io::Result<()> {
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let bytes = self.message();
            self.pty.send(&bytes).await?;
        }
    }

    /// What goes onto the line next, faults included.
    fn message(&mut self) -> Vec<u8> {
        let elapsed = std::mem::replace(&mut self.advanced, Instant::now()).elapsed();
        let mut state = self.control.state();
        if state.faults.silent {
            return Vec::new();
        }
        state.registers.advance(elapsed);
        let energy = energy(&state.registers);
        self.counter = self.counter.wrapping_add(1);
        let mut bytes = encode(self.kind, &state.registers, &clock::now().to_string(), self.counter);
        state.sent.push(energy);
        let faults = &mut state.faults;
        let strikes = |left: &mut u32| std::mem::replace(left, left.saturating_sub(1)) > 0;
        if strikes(&mut faults.flipped) {
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 0x04;
            }
        }
        if strikes(&mut faults.truncated) {
            bytes.truncate(bytes.len() / 2);
        }
        if strikes(&mut faults.doubled) {
            bytes.extend_from_within(..);
        }
        if strikes(&mut faults.junk) {
            bytes.splice(..0, [0x00, 0xFF, 0x2F, 0x1B, 0xDB, 0x21]);
        }
        bytes
    }
}

/// The energy of tariff 1 as P1 writes it.
fn energy(registers: &Registers) -> String {
    let watt_hours = registers.energy.first().copied().unwrap_or_default() / 1000;
    format!("{:06}.{:03}", watt_hours / 1000, watt_hours % 1000)
}

/// One message of a new meter.
pub fn one(kind: Kind) -> Vec<u8> {
    encode(kind, &Registers::default(), &clock::now().to_string(), 1)
}

/// The bytes of one message; `now` is written as RFC 3339.
fn encode(kind: Kind, registers: &Registers, now: &str, counter: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    match kind {
        Kind::P1 => p1::encode("WEI5\\2SIMULATED", &lines(registers, now), &mut bytes),
        Kind::P1Ciphered { encryption, authentication } => {
            p1::encode("WEI5\\2SIMULATED", &lines(registers, now), &mut bytes);
            let keys = Keys::new(&encryption, &authentication);
            return keys.and_then(|keys| keys.seal(TITLE, counter, &bytes)).unwrap_or_default();
        }
        Kind::P1Old => {
            p1::encode_plain("WEI3\\2SIMULATED", &old_lines(registers, now), &mut bytes);
            Parity::Even.apply(&mut bytes);
        }
        Kind::D0 => {
            let sets = [
                DataSet::new("1-0:0.0.0*255", "12345678", ""),
                DataSet::new("1-0:1.8.0*255", energy(registers), "kWh"),
                DataSet::new("1-0:1.7.0*255", format!("{:06}.00", registers.power), "W"),
                DataSet::new("1-0:96.5.5*255", "82", ""),
            ];
            let lines: Vec<Line> = sets.into_iter().map(|set| vec![set]).collect();
            p1::encode_plain("WEI5SIM1004", &lines, &mut bytes);
            Parity::Even.apply(&mut bytes);
        }
        Kind::Sml => sml::encode(registers, counter, &mut bytes),
        Kind::Dlms { form, keys } => return dlms::encode(form, keys, registers, now, counter),
    }
    bytes
}

fn stamp(now: &str) -> String {
    now.get(2..19).unwrap_or_default().chars().filter(char::is_ascii_digit).collect()
}

fn measured(registers: &Registers) -> Vec<DataSet> {
    let second = registers.energy.get(1).copied().unwrap_or_default() / 1000;
    vec![
        DataSet::new("1-0:1.8.1", energy(registers), "kWh"),
        DataSet::new("1-0:1.8.2", format!("{:06}.{:03}", second / 1000, second % 1000), "kWh"),
        DataSet::new("1-0:2.8.1", "000000.000", "kWh"),
        DataSet::new("0-0:96.14.0", "0001", ""),
        DataSet::new("1-0:1.7.0", format!("{:02}.{:03}", registers.power / 1000, registers.power % 1000), "kW"),
    ]
}

fn lines(registers: &Registers, now: &str) -> Vec<Line> {
    let time = format!("{}W", stamp(now));
    let mut gas = DataSet::new("0-1:24.2.1", time.clone(), "");
    gas.values.push(DataValue { text: "00872.234".into(), unit: "m3".into() });
    let mut sets = vec![
        DataSet::new("1-3:0.2.8", "50", ""),
        DataSet::new("0-0:1.0.0", time, ""),
        DataSet::new("0-0:96.1.1", "4B384547303034303436333935353037", ""),
    ];
    sets.extend(measured(registers));
    sets.push(DataSet::new("1-0:32.7.0", format!("{}.{}", registers.voltage / 10, registers.voltage % 10), "V"));
    sets.push(DataSet::new("0-1:24.1.0", "003", ""));
    sets.push(gas);
    sets.into_iter().map(|set| vec![set]).collect()
}

fn old_lines(registers: &Registers, now: &str) -> Vec<Line> {
    let mut gas = DataSet::new("0-1:24.3.0", stamp(now), "");
    let texts = ["00", "60", "1", "0-1:24.2.1", "m3"];
    gas.values.extend(texts.map(|text| DataValue { text: text.into(), unit: String::new() }));
    let mut sets = measured(registers);
    sets.push(gas);
    sets.push(DataSet::new("", "00872.234", ""));
    sets.into_iter().map(|set| vec![set]).collect()
}
