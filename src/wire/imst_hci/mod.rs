//! What IMST's iM871A and iM170A say and are told (WMBus HCI 1.6).
//!
//! A message is `A5`, a byte of flags (high half) and endpoint (low half), an identifier, the length
//! of the payload, the payload, then, as the flags say, a time stamp of 4 bytes, an RSSI byte and an
//! FCS; numbers are little endian. A telegram is a message of the radio link whose length is the L
//! field and whose payload begins with the C field; the module has checked and removed its CRCs.
//!
//! Only what the FCS protects is sure: a message without one must look like one that the module is
//! known to send, and must not have a message with a good FCS inside; a telegram without one is not
//! believed after one that had it.

use crc::{CRC_16_IBM_SDLC, Crc};

use super::radio_line::{Item, Reception};
use super::{DecodeError, wmbus};
use crate::model::{Rssi, TelegramKind};

/// The endpoint of questions about the module and its settings.
pub const DEVICE: u8 = 1;
/// The endpoint of telegrams.
pub const RADIO: u8 = 2;

/// Identifiers of the endpoint [`DEVICE`]; an answer has the question's plus one.
pub mod device {
    /// Is anybody there?
    pub const PING: u8 = 0x01;
    /// Changes settings.
    pub const SET_CONFIG: u8 = 0x03;
    /// Asks for the settings.
    pub const GET_CONFIG: u8 = 0x05;
    /// Restarts the module.
    pub const RESET: u8 = 0x07;
    /// Who is it?
    pub const INFO: u8 = 0x0F;
}

/// The identifier of a telegram at the endpoint [`RADIO`].
pub const TELEGRAM: u8 = 0x03;

const START: u8 = 0xA5;
const HEADER: usize = 4;
const STAMP: usize = 4;
const FCS: usize = 2;
const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_IBM_SDLC);

const RESERVED: u8 = 0x10;
const HAS_STAMP: u8 = 0x20;
const HAS_RSSI: u8 = 0x40;
const HAS_FCS: u8 = 0x80;

/// One message, in either direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// 1 device, 2 radio link, 3 link test, 4 hardware test.
    pub endpoint: u8,
    /// What it is about.
    pub id: u8,
    /// At most 255 bytes.
    pub payload: Vec<u8>,
    /// The module's own clock.
    pub stamp: Option<u32>,
    /// Signal strength on the module's scale.
    pub rssi: Option<u8>,
    /// Whether an FCS protects it.
    pub checked: bool,
}

impl Message {
    /// A question or order to the module.
    pub fn request(id: u8, payload: &[u8]) -> Self {
        Self { endpoint: DEVICE, id, payload: payload.to_vec(), ..Self::default() }
    }

    /// The telegram in it; `None` when it is no telegram.
    pub fn item(&self) -> Option<Item> {
        self.is_telegram().then(|| self.telegram().map_or_else(Item::Damaged, Item::Heard))
    }

    const fn is_telegram(&self) -> bool {
        self.endpoint == RADIO && self.id == TELEGRAM
    }

    fn telegram(&self) -> Result<Reception, DecodeError> {
        let mut bytes = Vec::with_capacity(self.payload.len() + 1);
        bytes.push(u8::try_from(self.payload.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(&self.payload);
        wmbus::decode(&bytes)?;
        let rssi = self.rssi.map(|raw| Rssi::Dbm(dbm(raw)));
        Ok(Reception { kind: TelegramKind::WirelessMbus, bytes, rssi, corrected_bits: 0, time: None })
    }
}

/// Turns the module's figure into dBm: `raw * 80 / 150 - (100 + 4000 / 150)`, rounded.
pub fn dbm(raw: u8) -> i16 {
    (i16::from(raw) * 80 - 19_000 + 75).div_euclid(150)
}

/// The module's figure for a signal strength, as near as it comes.
pub fn raw_rssi(dbm: i16) -> u8 {
    let raw = (dbm.clamp(-126, 9) * 15 + 1_900 + 4).div_euclid(8);
    u8::try_from(raw).unwrap_or(0)
}

/// Appends a message.
///
/// # Errors
/// When the payload has more than 255 bytes, or the endpoint is none of 1 to 4.
pub fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let length = u8::try_from(message.payload.len())
        .map_err(|_| DecodeError::new(3, "at most 255 bytes", message.payload.len().to_string()))?;
    if !(1..=4).contains(&message.endpoint) {
        return Err(DecodeError::new(1, "an endpoint of 1 to 4", message.endpoint.to_string()));
    }
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    let flags = flag(message.stamp.is_some(), HAS_STAMP)
        | flag(message.rssi.is_some(), HAS_RSSI)
        | flag(message.checked, HAS_FCS);
    let start = out.len() + 1;
    out.extend([START, flags | message.endpoint, message.id, length]);
    out.extend_from_slice(&message.payload);
    out.extend(message.stamp.into_iter().flat_map(u32::to_le_bytes));
    out.extend(message.rssi);
    if message.checked {
        out.extend(CRC.checksum(out.get(start..).unwrap_or_default()).to_le_bytes());
    }
    Ok(())
}

/// What comes out of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message.
    Message(Message),
    /// Something with the form of a message and a wrong FCS.
    Damaged(DecodeError),
    /// Bytes that belong to no message.
    Skipped {
        /// How many.
        bytes: usize,
    },
}

/// Finds messages in a stream. Call [`next`](Self::next) until it is empty after every
/// [`push`](Self::push); then it holds less than two of the longest messages.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    skipped: usize,
    silent: bool,
    /// A telegram came with an FCS: the module protects them all.
    protects: bool,
}

/// What the bytes from a start byte on are.
enum Found {
    /// No message.
    Nothing,
    /// The beginning of one.
    Part,
    /// One that is so long.
    Whole(usize, Message),
    /// One whose FCS is wrong.
    Wrong(DecodeError),
}

impl Decoder {
    /// Starts anywhere in a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.silent = false;
    }

    /// Says that the line fell silent: what is not complete now never will be.
    pub const fn silence(&mut self) {
        self.silent = true;
    }

    /// Whether the beginning of a message waits for its rest.
    pub const fn is_incomplete(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Returns what comes next, or `None` when more bytes are needed.
    #[expect(
        clippy::should_implement_trait,
        reason = "every decoder of the house has push and next; it is no iterator"
    )]
    pub fn next(&mut self) -> Option<Event> {
        loop {
            let start = self.buffer.iter().position(|byte| *byte == START).unwrap_or(self.buffer.len());
            self.skip(start);
            match self.look() {
                Found::Part if self.buffer.is_empty() || self.silent => {
                    if self.buffer.is_empty() {
                        return self.skipped();
                    }
                    self.skip(1);
                }
                Found::Part => return None,
                Found::Nothing => self.skip(1),
                Found::Whole(..) | Found::Wrong(_) if self.skipped > 0 => return self.skipped(),
                Found::Whole(bytes, message) => {
                    self.protects |= message.checked && message.is_telegram();
                    self.buffer.drain(..bytes.min(self.buffer.len()));
                    return Some(Event::Message(message));
                }
                Found::Wrong(fault) => {
                    // Only the start byte is taken: the length may be wrong, and the next message inside.
                    self.skip(1);
                    self.skipped = 0;
                    return Some(Event::Damaged(fault));
                }
            }
        }
    }

    fn skip(&mut self, bytes: usize) {
        let bytes = bytes.min(self.buffer.len());
        self.buffer.drain(..bytes);
        self.skipped = self.skipped.saturating_add(bytes);
    }

    fn skipped(&mut self) -> Option<Event> {
        match std::mem::take(&mut self.skipped) {
            0 => None,
            bytes => Some(Event::Skipped { bytes }),
        }
    }

    /// Looks at the message that begins the buffer.
    fn look(&self) -> Found {
        let found = message(&self.buffer);
        let Found::Whole(length, outer) = &found else { return found };
        if outer.checked {
            return found;
        }
        if self.protects && outer.is_telegram() {
            return Found::Nothing;
        }
        // What nothing protects may be noise around the next message.
        let inside = self.buffer.get(1..*length).unwrap_or_default();
        for at in inside.iter().enumerate().filter_map(|(at, byte)| (*byte == START).then_some(at + 1)) {
            match message(self.buffer.get(at..).unwrap_or_default()) {
                Found::Whole(_, inner) if inner.checked => return Found::Nothing,
                Found::Part if !self.silent && self.is_checked(at) => return Found::Part,
                _ => {}
            }
        }
        found
    }

    /// Whether what begins at `at` would be protected by an FCS.
    fn is_checked(&self, at: usize) -> bool {
        self.buffer.get(at + 1).is_none_or(|flags| flags & HAS_FCS != 0)
    }
}

/// Reads the message that begins at the first byte, a start byte.
fn message(bytes: &[u8]) -> Found {
    if bytes.get(1).is_some_and(|flags| flags & RESERVED != 0 || !(1..=4).contains(&(flags & 0x0F))) {
        return Found::Nothing;
    }
    let Some((&[_, flags, id, length], rest)) = bytes.split_first_chunk::<HEADER>() else { return Found::Part };
    let endpoint = flags & 0x0F;
    let has = |flag: u8, bytes: usize| if flags & flag != 0 { bytes } else { 0 };
    if !is_plausible(endpoint, id, length, flags & HAS_FCS != 0) {
        return Found::Nothing;
    }
    let Some((payload, rest)) = rest.split_at_checked(length.into()) else { return Found::Part };
    let Some((stamp, rest)) = rest.split_at_checked(has(HAS_STAMP, STAMP)) else { return Found::Part };
    let Some((rssi, rest)) = rest.split_at_checked(has(HAS_RSSI, 1)) else { return Found::Part };
    let Some((told, rest)) = rest.split_at_checked(has(HAS_FCS, FCS)) else { return Found::Part };
    let whole = bytes.len() - rest.len();
    if let [low, high] = *told {
        let summed = CRC.checksum(bytes.get(1..whole - FCS).unwrap_or_default());
        if summed != u16::from_le_bytes([low, high]) {
            let found = format!("{:04x} where {summed:04x} belongs", u16::from_le_bytes([low, high]));
            return Found::Wrong(DecodeError::new(whole - FCS, "the FCS of the message", found));
        }
    }
    let message = Message {
        endpoint,
        id,
        payload: payload.to_vec(),
        stamp: stamp.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)),
        rssi: rssi.first().copied(),
        checked: !told.is_empty(),
    };
    // Noise that no FCS unmasks must at least be a telegram.
    if !message.checked && matches!(message.item(), Some(Item::Damaged(_))) {
        return Found::Nothing;
    }
    Found::Whole(whole, message)
}

/// The highest identifier of an endpoint.
const fn last_id(endpoint: u8) -> u8 {
    match endpoint {
        DEVICE => 0x27,
        RADIO => 0x05,
        3 => 0x07,
        _ => 0x02,
    }
}

/// Whether a module sends such a message, or is sent it.
fn is_plausible(endpoint: u8, id: u8, length: u8, checked: bool) -> bool {
    // The longest of them is the system status.
    const LONGEST_OTHER: u8 = 64;
    let telegram = endpoint == RADIO && id == TELEGRAM;
    (1..=last_id(endpoint)).contains(&id) && (checked || telegram || length <= LONGEST_OTHER)
}

/// Who a module says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// 0x33 is an iM871A, 0x36 an iM170A.
    pub module: u8,
    /// 0 listens to meters, 1 plays a meter.
    pub mode: u8,
    /// The firmware's version, a digit each half.
    pub firmware: u8,
    /// The version of this protocol, likewise.
    pub hci: u8,
    /// The serial number.
    pub serial: u32,
}

impl Info {
    /// Reads the payload of the answer to [`device::INFO`]; further bytes are passed over.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (&[module, mode, firmware, hci, s0, s1, s2, s3], _) = payload.split_first_chunk()?;
        Some(Self { module, mode, firmware, hci, serial: u32::from_le_bytes([s0, s1, s2, s3]) })
    }

    /// What [`Self::read`] reads.
    pub fn payload(&self) -> Vec<u8> {
        let mut payload = vec![self.module, self.mode, self.firmware, self.hci];
        payload.extend(self.serial.to_le_bytes());
        payload
    }
}

/// Settings of a module: those that are there. Two bytes of flags stand before the fields of each group of eight.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    fields: [Option<Vec<u8>>; 16],
}

/// A setting, in the order of the flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// 0 listens to meters, 1 plays a meter.
    DeviceMode = 0,
    /// What it listens to.
    LinkMode = 1,
    /// Whether it sleeps when it can.
    PowerSaving = 11,
    /// Whether each telegram has its signal strength.
    Rssi = 12,
    /// Whether each telegram has a time stamp.
    Stamp = 13,
}

/// How many bytes each field has.
const WIDTHS: [usize; 16] = [1, 1, 1, 2, 4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];

impl Config {
    /// Reads the payload of the answer to [`device::GET_CONFIG`], or what follows the first byte of
    /// [`device::SET_CONFIG`]; further bytes are passed over.
    pub fn read(mut payload: &[u8]) -> Option<Self> {
        let mut config = Self::default();
        for (fields, widths) in config.fields.chunks_mut(8).zip(WIDTHS.chunks(8)) {
            let (flags, mut rest) = payload.split_first()?;
            for (bit, (field, width)) in fields.iter_mut().zip(widths).enumerate() {
                if flags >> bit & 1 != 0 {
                    let (value, behind) = rest.split_at_checked(*width)?;
                    *field = Some(value.to_vec());
                    rest = behind;
                }
            }
            payload = rest;
        }
        Some(config)
    }

    /// What [`Self::read`] reads.
    pub fn payload(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        for fields in self.fields.chunks(8) {
            let flags = fields.iter().rev().fold(0, |flags, field| flags << 1 | u8::from(field.is_some()));
            payload.push(flags);
            payload.extend(fields.iter().flatten().flatten());
        }
        payload
    }

    /// A setting, when it is there.
    pub fn field(&self, field: Field) -> Option<u8> {
        self.fields.get(field as usize)?.as_ref()?.first().copied()
    }

    /// With a setting put to `value`.
    #[must_use]
    pub fn with(mut self, field: Field, value: u8) -> Self {
        if let Some(place) = self.fields.get_mut(field as usize) {
            *place = Some(vec![value]);
        }
        self
    }

    /// With every setting that `other` has.
    #[must_use]
    pub fn changed_by(mut self, other: &Self) -> Self {
        for (place, field) in self.fields.iter_mut().zip(&other.fields) {
            if field.is_some() {
                place.clone_from(field);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests;
