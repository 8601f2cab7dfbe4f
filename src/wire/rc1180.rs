//! Radiocrafts RC1180-MBUS and RC1180-MBUS3: telegrams without framing, and the configuration memory.
//!
//! A telegram is `L C M A CI ...`, with a byte of signal strength behind it that L does not count when the memory says
//! so ([`Memory::rssi`]). A byte 00 brings the module into configuration, where it answers with `>`, has one-letter commands
//! and hears nothing.

use super::radio_line::{Item, Reception};
use super::unframed::{self, Look, Strength};
use super::wmbus;
use crate::model::{Rssi, TelegramKind};

/// What a host sends.
pub mod command {
    /// Brings the module into configuration.
    pub const ENTER: u8 = 0x00;
    /// Lists the memory.
    pub const LIST: u8 = b'0';
    /// Begins to write memory: pairs of address and value follow.
    pub const WRITE: u8 = b'M';
    /// Ends writing; then the flash memory is written.
    pub const WRITTEN: u8 = 0xFF;
    /// Brings the module back to listening.
    pub const LEAVE: u8 = b'X';
}

/// What the module says when it is ready for a command.
pub const PROMPT: u8 = b'>';

/// The configuration memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory([u8; Memory::LENGTH]);

impl Memory {
    /// Its bytes.
    pub const LENGTH: usize = 256;
    /// The radio's channel.
    pub const CHANNEL: u8 = 0x00;
    /// The radio's data rate.
    pub const RATE: u8 = 0x02;
    /// The mode of wireless M-Bus.
    pub const MODE: u8 = 0x03;
    /// Whether a byte of signal strength is behind telegrams.
    pub const RSSI: u8 = 0x05;
    /// The longest packet: 128 in the module without mode C.
    pub const LONGEST: u8 = 0x0E;
    /// Manufacturer, number, version and type.
    pub const ADDRESS: u8 = 0x19;
    /// The line's speed.
    pub const BAUD: u8 = 0x30;
    /// What is told of a telegram: 0 all of it.
    pub const INTERFACE: u8 = 0x36;
    /// Which meters the third module tells of: 2 all.
    pub const FILTER: u8 = 0x3D;
    /// Whether the third module decrypts.
    pub const DECRYPT: u8 = 0x3F;
    /// The upper half of a listing is empty.
    const EMPTY: usize = 128;

    /// Takes a memory as it is.
    pub const fn new(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// Finds a listing at the end of what a module said: 256 bytes and the prompt, the upper half all FF, at any of the speeds that
    /// the data sheet knows.
    pub fn listed(said: &[u8]) -> Option<Self> {
        let (&prompt, before) = said.split_last()?;
        let (_, bytes) = before.split_last_chunk::<{ Self::LENGTH }>()?;
        let empty = bytes.iter().skip(Self::EMPTY).all(|&byte| byte == 0xFF);
        let memory = Self(*bytes);
        (prompt == PROMPT && empty && (1..=11).contains(&memory.at(Self::BAUD))).then_some(memory)
    }

    /// The byte at an address.
    pub fn at(&self, address: u8) -> u8 {
        self.0.get(usize::from(address)).copied().unwrap_or(0)
    }

    /// Changes a byte.
    pub fn set(&mut self, address: u8, value: u8) {
        if let Some(byte) = self.0.get_mut(usize::from(address)) {
            *byte = value;
        }
    }

    /// All bytes.
    pub const fn bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// Whether telegrams have a byte of signal strength behind.
    pub fn rssi(&self) -> bool {
        self.at(Self::RSSI) != 0
    }

    /// Whether this is the older module, whose packets are at most 128 bytes and which knows S1 and T1 only.
    pub fn is_first(&self) -> bool {
        self.at(Self::LONGEST) == 0x80 && self.at(Self::MODE) <= 1
    }

    /// The address that the module itself has.
    pub fn address(&self) -> wmbus::Meter {
        let start = usize::from(Self::ADDRESS);
        let bytes = self.0.get(start..).and_then(|rest| rest.first_chunk());
        wmbus::Meter::from_wire(bytes.copied().unwrap_or_default())
    }
}

/// The signal strength that a byte means, in dBm (MBUS User Manual, command S); halves are cut off.
pub fn dbm(raw: u8) -> i16 {
    -(i16::from(raw) / 2)
}

/// Where the strength of a telegram is.
const fn strength(rssi: bool) -> Strength {
    if rssi { Strength::Behind } else { Strength::None }
}

/// Appends a telegram in the normal form as the module prints it.
pub fn encode(telegram: &[u8], rssi: Option<u8>, out: &mut Vec<u8>) {
    unframed::encode(telegram, strength(rssi.is_some()), rssi.unwrap_or(0), out);
}

/// Finds telegrams in what a module says. Call [`next`](Self::next) until it is empty after every
/// [`push`](Self::push); then it holds less than 258 bytes.
#[derive(Debug)]
pub struct Decoder {
    rssi: bool,
    buffer: Vec<u8>,
    at: usize,
    skipped: usize,
    in_step: bool,
    silent: bool,
}

impl Decoder {
    /// Starts behind a silence; `rssi`: telegrams have a byte of signal strength behind.
    pub const fn new(rssi: bool) -> Self {
        Self { rssi, buffer: Vec::new(), at: 0, skipped: 0, in_step: true, silent: false }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at.min(self.buffer.len()));
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
        self.silent = false;
    }

    /// Says that the line fell silent: what is not complete now never will be.
    pub const fn silence(&mut self) {
        self.silent = true;
    }

    /// Whether something incomplete is there.
    pub const fn is_waiting(&self) -> bool {
        self.at < self.buffer.len() || self.skipped > 0
    }

    /// Returns what comes next, or `None` when more bytes are needed.
    #[expect(
        clippy::should_implement_trait,
        reason = "every decoder of the house has push and next; it is no iterator"
    )]
    pub fn next(&mut self) -> Option<Item> {
        loop {
            let rest = self.buffer.get(self.at..).unwrap_or_default();
            match unframed::look(rest, strength(self.rssi), self.in_step) {
                Look::Telegram(_) if self.skipped > 0 => return self.skipped(),
                Look::Telegram(total) => {
                    let found = rest.get(..total).unwrap_or_default();
                    let (telegram, raw) = unframed::split(found, strength(self.rssi));
                    self.at += total;
                    self.in_step = true;
                    return Some(reception(telegram, raw));
                }
                Look::More if !self.silent => return None,
                Look::More if rest.is_empty() => {
                    self.in_step = true;
                    return self.skipped();
                }
                Look::More | Look::Nothing => {
                    self.at += 1;
                    self.skipped = self.skipped.saturating_add(1);
                    self.in_step = false;
                }
            }
        }
    }

    fn skipped(&mut self) -> Option<Item> {
        match std::mem::take(&mut self.skipped) {
            0 => None,
            bytes => Some(Item::Skipped { bytes }),
        }
    }
}

fn reception(bytes: Vec<u8>, raw: Option<u8>) -> Item {
    match wmbus::decode(&bytes) {
        Ok(_) => Item::Heard(Reception {
            kind: TelegramKind::WirelessMbus,
            bytes,
            rssi: raw.map(|raw| Rssi::Dbm(dbm(raw))),
            corrected_bits: 0,
            time: None,
        }),
        Err(fault) => Item::Damaged(fault),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(rssi: bool, chunks: &[&[u8]]) -> Vec<Item> {
        let mut decoder = Decoder::new(rssi);
        let mut found = Vec::new();
        for chunk in chunks {
            decoder.push(chunk);
            found.extend(std::iter::from_fn(|| decoder.next()));
            assert!(decoder.buffer.len() - decoder.at < 258);
        }
        decoder.silence();
        found.extend(std::iter::from_fn(|| decoder.next()));
        assert!(!decoder.is_waiting());
        found
    }

    fn heard(telegram: &[u8], rssi: bool) -> Item {
        Item::Heard(Reception {
            kind: TelegramKind::WirelessMbus,
            bytes: telegram.to_vec(),
            rssi: rssi.then_some(Rssi::Dbm(-90)),
            corrected_bits: 0,
            time: None,
        })
    }

    fn printed(telegram: &[u8], rssi: bool) -> Vec<u8> {
        let mut out = Vec::new();
        encode(telegram, rssi.then_some(0xB4), &mut out);
        out
    }

    #[test]
    fn a_listing_is_256_bytes_and_a_prompt_behind_anything() {
        let mut bytes = [0xFF; 256];
        bytes[..8].copy_from_slice(&[0x0C, 5, 3, 1, 0, 1, 0x64, 0]);
        bytes[0x0E] = 0x80;
        bytes[0x19..0x21].copy_from_slice(&[0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 1, 7]);
        bytes[0x30] = 5;
        let said = [&b"noise>"[..], &bytes, b">"].concat();
        let memory = Memory::listed(&said).unwrap();
        assert!(memory.rssi() && memory.is_first() && *memory.bytes() == bytes);
        assert_eq!(memory.address().to_string(), "KAM 12345678 v01 t07");
        assert!(Memory::listed(&said[..said.len() - 1]).is_none());
        bytes[200] = 0;
        assert!(Memory::listed(&[&bytes[..], b">"].concat()).is_none());
    }

    #[test]
    fn the_signal_strength_is_minus_half_of_the_byte() {
        assert_eq!([0, 1, 180, 255].map(dbm), [0, 0, -90, -127]);
    }

    /// Telegrams of any length and content with a function of the standard.
    fn telegrams() -> impl Strategy<Value = Vec<u8>> {
        let control = prop_oneof![Just(0x44u8), Just(0x46), Just(0x48), Just(0x08), Just(0xC4)];
        (control, proptest::collection::vec(any::<u8>(), 9..254))
            .prop_map(|(control, rest)| [vec![u8::try_from(rest.len() + 1).unwrap(), control], rest].concat())
    }

    proptest! {
        #[test]
        fn what_is_printed_is_heard_however_it_is_cut(
            telegrams in proptest::collection::vec(telegrams(), 1..4),
            rssi in any::<bool>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let stream: Vec<u8> = telegrams.iter().flat_map(|telegram| printed(telegram, rssi)).collect();
            let expected: Vec<_> = telegrams.iter().map(|telegram| heard(telegram, rssi)).collect();
            let (head, tail) = stream.split_at(cut.index(stream.len()));
            prop_assert_eq!(&items(rssi, &[head, tail]), &expected);
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(&items(rssi, &bytes), &expected);
        }

        #[test]
        fn any_bytes_give_the_same_however_they_are_cut_and_the_next_telegram_is_found_after_a_silence(
            noise in proptest::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(0x44)], 0..400),
            telegram in telegrams(),
            rssi in any::<bool>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let (head, tail) = noise.split_at(cut.index(noise.len() + 1));
            prop_assert_eq!(&items(rssi, &[head, tail]), &items(rssi, &[&noise]));
            let mut decoder = Decoder::new(rssi);
            decoder.push(&noise);
            while decoder.next().is_some() {}
            decoder.silence();
            while decoder.next().is_some() {}
            decoder.push(&printed(&telegram, rssi));
            prop_assert_eq!(decoder.next(), Some(heard(&telegram, rssi)));
        }

        #[test]
        fn a_telegram_right_behind_noise_that_holds_no_function_is_found(
            noise in proptest::collection::vec(0xA9u8..0xB8, 0..100),
            rest in proptest::collection::vec(any::<u8>(), 1..100),
        ) {
            let length = u8::try_from(rest.len() + 10).unwrap();
            // Else the last byte of the noise and L could be L and C.
            prop_assume!(wmbus::Control::known(length).is_none());
            let telegram = [&[length, 0x48, 0x2D, 0x2C, 1, 2, 3, 4, 5, 6, 0x7A], &rest[..]].concat();
            let found = items(true, &[&[noise, printed(&telegram, true)].concat()]);
            prop_assert_eq!(found.last(), Some(&heard(&telegram, true)));
        }
    }
}
