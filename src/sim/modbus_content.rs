//! What the simulated Modbus meters hold.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use crate::wire::modbus::{Answer, Exception, Identity, Level, Request, Table};

/// What was written, by unit and address.
#[derive(Debug, Default)]
pub(super) struct Memory {
    holding: BTreeMap<(u8, u16), u16>,
    coils: BTreeMap<(u8, u16), bool>,
}

const ILLEGAL_ADDRESS: Answer = Answer::Refused(Exception(2));
/// Coils, and holding registers, that are there without having been made.
const COILS: u16 = 16;
const REGISTERS: u16 = 10;

impl Memory {
    pub(super) fn set(&mut self, unit: u8, address: u16, words: &[u16]) {
        self.holding.extend((address..).zip(words).map(|(a, word)| ((unit, a), *word)));
    }

    /// Does what is asked.
    pub(super) fn answer(&mut self, unit: u8, seconds: f64, request: &Request) -> Answer {
        match request {
            Request::Read { table: Table::Holding, address, quantity } => self.words(unit, *address, *quantity),
            Request::Read { table: Table::Input, address, quantity } => {
                registers((0..*quantity).map(|i| input(seconds, address.checked_add(i)?)))
            }
            Request::Read { address, quantity, .. } => self.bits(unit, *address, *quantity),
            Request::WriteCoil { address, on } => self.write_coils(unit, *address, &[*on]),
            Request::WriteCoils { address, states } => self.write_coils(unit, *address, states),
            Request::WriteRegister { address, word } => self.write(unit, *address, &[*word]),
            Request::WriteRegisters { address, words } => self.write(unit, *address, words),
            Request::ReadWrite { address, quantity, write_address, words } => {
                match self.write(unit, *write_address, words) {
                    Answer::Written => self.words(unit, *address, *quantity),
                    refused => refused,
                }
            }
            Request::Identify { .. } => Answer::Refused(Exception(1)),
        }
    }

    fn word(&self, unit: u8, address: u16) -> Option<u16> {
        let born_with = || (address < REGISTERS).then(|| 1000u16.wrapping_mul(unit.into()).wrapping_add(address));
        self.holding.get(&(unit, address)).copied().or_else(born_with)
    }

    fn words(&self, unit: u8, address: u16, quantity: u16) -> Answer {
        registers((0..quantity).map(|i| self.word(unit, address.checked_add(i)?)))
    }

    fn write(&mut self, unit: u8, address: u16, words: &[u16]) -> Answer {
        let there = (address..).zip(words).all(|(a, _)| self.word(unit, a).is_some());
        if !there {
            return ILLEGAL_ADDRESS;
        }
        self.set(unit, address, words);
        Answer::Written
    }

    fn bits(&self, unit: u8, address: u16, quantity: u16) -> Answer {
        if u32::from(address) + u32::from(quantity) > u32::from(COILS) {
            return ILLEGAL_ADDRESS;
        }
        // Every second one is set, beginning with the first.
        let state = |a: u16| self.coils.get(&(unit, a)).copied().unwrap_or(a.is_multiple_of(2));
        let states: Vec<bool> = (address..address + quantity).map(state).collect();
        let byte = |eight: &[bool]| eight.iter().rev().fold(0u8, |byte, on| byte << 1 | u8::from(*on));
        Answer::Data(states.chunks(8).map(byte).collect())
    }

    fn write_coils(&mut self, unit: u8, address: u16, states: &[bool]) -> Answer {
        if usize::from(address) + states.len() > usize::from(COILS) {
            return ILLEGAL_ADDRESS;
        }
        self.coils.extend((address..).zip(states).map(|(a, on)| ((unit, a), *on)));
        Answer::Written
    }
}

fn registers(words: impl Iterator<Item = Option<u16>>) -> Answer {
    let words: Option<Vec<u16>> = words.collect();
    words.map_or(ILLEGAL_ADDRESS, |words| Answer::Data(words.into_iter().flat_map(u16::to_be_bytes).collect()))
}

const OBJECTS: [(u8, &str); 6] =
    [(0, "weir"), (1, "SIM"), (2, "1.0"), (4, "simulated meter"), (128, "own object"), (129, "another")];

/// The identification from `object` on, two objects in an answer.
pub(super) fn identity(level: Level, object: u8) -> Answer {
    const AT_ONCE: usize = 2;
    let last = match level {
        Level::Basic => 2,
        Level::Regular => 6,
        Level::Extended => u8::MAX,
        Level::One => object,
    };
    let wanted: Vec<_> = OBJECTS.iter().filter(|(id, _)| *id >= object && *id <= last).collect();
    if wanted.is_empty() {
        return ILLEGAL_ADDRESS;
    }
    let objects = wanted.iter().take(AT_ONCE).map(|(id, text)| (*id, text.as_bytes().to_vec())).collect();
    let more_from = wanted.get(AT_ONCE).map(|(id, _)| *id);
    Answer::Identity(Identity { code: level.code(), conformity: 0x83, more_from, objects, last_next: 0 })
}

/// One register of the SDM630 subset.
fn input(seconds: f64, address: u16) -> Option<u16> {
    let value = measured(seconds, address & !1)?;
    #[expect(clippy::cast_possible_truncation, reason = "the meter measures in single precision")]
    let bits = (value as f32).to_bits();
    let [a, b, c, d] = bits.to_be_bytes();
    Some(if address & 1 == 0 { u16::from_be_bytes([a, b]) } else { u16::from_be_bytes([c, d]) })
}

/// The quantity that starts at `address`: a load that swings over five minutes.
fn measured(seconds: f64, address: u16) -> Option<f64> {
    const POWER_FACTOR: f64 = 0.95;
    let swing = |phase: f64| (TAU * (seconds / 300.0 + phase)).sin();
    let voltage = |line: f64| 230.0 + 2.5 * swing(line / 3.0);
    let current = |line: f64| 10.0 + 4.0 * swing(line / 3.0 + 0.1);
    let apparent = |line: f64| voltage(line) * current(line);
    let sum = |of: &dyn Fn(f64) -> f64| (0..3).map(|line| of(f64::from(line))).sum::<f64>();
    let reactive_share = (1.0 - POWER_FACTOR * POWER_FACTOR).sqrt();
    // 10 A at 230 V on three lines, since the meter was put in.
    let energy = 12_345.6 + 3.0 * 230.0 * 10.0 * POWER_FACTOR * seconds / 3_600_000.0;
    let line = f64::from(address % 6 / 2);
    Some(match address {
        0..=5 => voltage(line),
        6..=11 => current(line),
        12..=17 => apparent(line) * POWER_FACTOR,
        18..=23 => apparent(line),
        24..=29 => apparent(line) * reactive_share,
        30..=35 | 62 => POWER_FACTOR,
        48 => sum(&current),
        52 => sum(&apparent) * POWER_FACTOR,
        56 => sum(&apparent),
        60 => sum(&apparent) * reactive_share,
        70 => 50.0 + 0.02 * swing(0.5),
        72 | 342 => energy,
        74 | 78 => 0.0,
        76 | 344 => energy * 0.3,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulated_quantities_belong_together() {
        let at = |address| measured(100.0, address).unwrap();
        assert!((at(12) / at(18) - at(30)).abs() < 1e-9);
        assert!((at(52) - at(12) - at(14) - at(16)).abs() < 1e-6);
        assert!(measured(7200.0, 72).unwrap() > measured(0.0, 72).unwrap() + 1.0);
        assert_eq!(measured(0.0, 44), None);
    }

    #[test]
    fn what_is_not_there_is_refused_and_what_was_written_stays() {
        let mut memory = Memory::default();
        let read = |table, address, quantity| Request::Read { table, address, quantity };
        let words = |memory: &mut Memory, request: &Request| memory.answer(3, 0.0, request);
        assert_eq!(words(&mut memory, &read(Table::Holding, 8, 2)), Answer::Data(vec![0x0B, 0xC0, 0x0B, 0xC1]));
        assert_eq!(words(&mut memory, &read(Table::Holding, 9, 2)), ILLEGAL_ADDRESS);
        assert_eq!(words(&mut memory, &read(Table::Coil, 1, 4)), Answer::Data(vec![0b1010]));
        let both = Request::ReadWrite { address: 8, quantity: 1, write_address: 8, words: vec![7] };
        assert_eq!(words(&mut memory, &both), Answer::Data(vec![0, 7]));
        assert_eq!(words(&mut memory, &Request::WriteRegister { address: 10, word: 1 }), ILLEGAL_ADDRESS);
        assert_eq!(words(&mut memory, &Request::WriteCoil { address: 1, on: true }), Answer::Written);
        assert_eq!(words(&mut memory, &read(Table::Coil, 1, 4)), Answer::Data(vec![0b1011]));
    }
}
