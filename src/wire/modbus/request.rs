//! Requests and what their answers must look like.

use super::{Answer, Exception, Identity, Level, REFUSED, Table, identity};
use crate::wire::DecodeError;

/// The most registers function 16 writes (clause 6.12), and function 23 (clause 6.17).
const MOST_WRITTEN: usize = 123;
const MOST_WRITTEN_WITH_READ: usize = 121;
/// The most coils function 15 writes (clause 6.11).
const MOST_COILS: usize = 1968;
/// What a coil that is on is written as (clause 6.5).
const ON: u16 = 0xFF00;

/// What is asked of a server: a request PDU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Reads entries of a table (functions 1 to 4).
    Read {
        /// The table.
        table: Table,
        /// The first entry, counting from 0 as on the wire.
        address: u16,
        /// How many entries, from 1 to [`Table::most`].
        quantity: u16,
    },
    /// Writes one coil (function 5).
    WriteCoil {
        /// The coil.
        address: u16,
        /// Its new state.
        on: bool,
    },
    /// Writes one holding register (function 6).
    WriteRegister {
        /// The register.
        address: u16,
        /// Its new content.
        word: u16,
    },
    /// Writes coils (function 15).
    WriteCoils {
        /// The first coil.
        address: u16,
        /// Their new states, from 1 to 1968.
        states: Vec<bool>,
    },
    /// Writes holding registers (function 16).
    WriteRegisters {
        /// The first register.
        address: u16,
        /// Their new contents, from 1 to 123.
        words: Vec<u16>,
    },
    /// Writes holding registers, then reads holding registers, at once (function 23).
    ReadWrite {
        /// The first register to read.
        address: u16,
        /// How many to read, from 1 to 125.
        quantity: u16,
        /// The first register to write.
        write_address: u16,
        /// Their new contents, from 1 to 121.
        words: Vec<u16>,
    },
    /// Asks for the device's identification (function 43 with MEI type 14).
    Identify {
        /// How much of it.
        level: Level,
        /// The object to begin with; the only one for [`Level::One`].
        object: u8,
    },
}

impl Request {
    /// Its function code.
    pub const fn function(&self) -> u8 {
        match self {
            Self::Read { table, .. } => table.read_function(),
            Self::WriteCoil { .. } => 5,
            Self::WriteRegister { .. } => 6,
            Self::WriteCoils { .. } => 15,
            Self::WriteRegisters { .. } => 16,
            Self::ReadWrite { .. } => 23,
            Self::Identify { .. } => 43,
        }
    }

    /// Whether it changes something in the server.
    pub const fn writes(&self) -> bool {
        !matches!(self, Self::Read { .. } | Self::Identify { .. })
    }

    /// Appends the PDU to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.function());
        let mut pair = |a: u16, b: u16| out.extend([a.to_be_bytes(), b.to_be_bytes()].as_flattened());
        match self {
            Self::Read { address, quantity, .. } => pair(*address, *quantity),
            Self::WriteCoil { address, on } => pair(*address, if *on { ON } else { 0 }),
            Self::WriteRegister { address, word } => pair(*address, *word),
            Self::WriteCoils { address, states } => {
                pair(*address, count(states.len()));
                let bytes = packed(states);
                out.push(short(bytes.len()));
                out.extend(bytes);
            }
            Self::WriteRegisters { address, words } => {
                pair(*address, count(words.len()));
                put(words, out);
            }
            Self::ReadWrite { address, quantity, write_address, words } => {
                pair(*address, *quantity);
                pair(*write_address, count(words.len()));
                put(words, out);
            }
            Self::Identify { level, object } => out.extend([Identity::MEI, level.code(), *object]),
        }
    }

    /// Reads a request PDU.
    ///
    /// # Errors
    /// When the function is not known here, the length is wrong, or the quantity or the last
    /// address is out of range.
    pub fn decode(pdu: &[u8]) -> Result<Self, DecodeError> {
        let length = |expected| DecodeError::new(0, expected, format!("{} bytes", pdu.len()));
        let range = || DecodeError::new(3, "a quantity within the table", "another one");
        let (&function, rest) = pdu.split_first().ok_or_else(|| length("a function code"))?;
        if function == 43 {
            return match rest {
                [Identity::MEI, code, object] => match Level::of_code(*code) {
                    Some(level) => Ok(Self::Identify { level, object: *object }),
                    None => Err(DecodeError::new(2, "read device id code 1 to 4", code.to_string())),
                },
                _ => Err(length("4 bytes of a request for identification")),
            };
        }
        let (&[a, b, c, d], rest) = rest.split_first_chunk().ok_or_else(|| length("address and quantity"))?;
        let (address, second) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let fits = |address: u16, quantity: usize| usize::from(address) + quantity <= 0x1_0000;
        let request = match (function, rest) {
            (1..=4, []) => {
                let table = Table::of_function(function).ok_or_else(range)?;
                let sound = second > 0 && second <= table.most() && fits(address, second.into());
                sound.then_some(Self::Read { table, address, quantity: second })
            }
            (5, []) => matches!(second, 0 | ON).then_some(Self::WriteCoil { address, on: second == ON }),
            (6, []) => Some(Self::WriteRegister { address, word: second }),
            (15, [bytes, data @ ..]) => {
                let states = usize::from(second);
                let sound = (1..=MOST_COILS).contains(&states) && fits(address, states);
                let whole = data.len() == states.div_ceil(8) && usize::from(*bytes) == data.len();
                (sound && whole).then(|| Self::WriteCoils { address, states: unpacked(data, states) })
            }
            (16, [bytes, data @ ..]) => {
                let words = words(data, second, *bytes, MOST_WRITTEN);
                words.filter(|w| fits(address, w.len())).map(|words| Self::WriteRegisters { address, words })
            }
            (23, [a, b, c, d, bytes, data @ ..]) => {
                let (write_address, written) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
                let sound = second > 0 && second <= Table::Holding.most() && fits(address, second.into());
                let words = words(data, written, *bytes, MOST_WRITTEN_WITH_READ);
                words.filter(|w| sound && fits(write_address, w.len())).map(|words| Self::ReadWrite {
                    address,
                    quantity: second,
                    write_address,
                    words,
                })
            }
            (1..=6, _) => return Err(length("5 bytes of a request")),
            (15 | 16 | 23, _) => return Err(length("a byte count")),
            _ => return Err(DecodeError::new(0, "function 1 to 6, 15, 16, 23 or 43", format!("function {function}"))),
        };
        request.ok_or_else(range)
    }

    /// How long a PDU that begins like `start` is, as far as that can be told yet: for a server,
    /// which has no length from the line. `None` when its function is not known here.
    pub fn length(start: &[u8]) -> Option<usize> {
        match start.first()? {
            1..=6 => Some(5),
            15 | 16 => Some(start.get(5).map_or(6, |bytes| 6 + usize::from(*bytes))),
            23 => Some(start.get(9).map_or(10, |bytes| 10 + usize::from(*bytes))),
            43 => Some(4),
            _ => None,
        }
    }

    /// The byte count that the answer must name; `None` when its answer has none.
    pub const fn answer_bytes(&self) -> Option<u8> {
        let bytes = match self {
            Self::Read { table, quantity, .. } if table.is_bits() => quantity.div_ceil(8),
            Self::Read { quantity, .. } | Self::ReadWrite { quantity, .. } => quantity.saturating_mul(2),
            _ => return None,
        };
        Some(if bytes > 250 { 250 } else { bytes as u8 })
    }

    /// The length that the PDU of a regular answer must have, as far as `pdu`, its beginning, tells;
    /// `None` while it does not. A refusal always has 2 bytes.
    pub fn answer_length(&self, pdu: &[u8]) -> Option<usize> {
        match self {
            Self::Identify { .. } => Identity::length(pdu),
            _ => Some(self.longest_answer()),
        }
    }

    /// The length that the PDU of its answer has at most.
    pub fn longest_answer(&self) -> usize {
        match (self, self.answer_bytes()) {
            (_, Some(bytes)) => 2 + usize::from(bytes),
            (Self::Identify { .. }, None) => identity::LONGEST,
            _ => 5,
        }
    }

    /// Checks what is there of an answer PDU: the first byte that is wrong is told at once.
    ///
    /// # Errors
    /// When the function, the byte count or what was to be written does not belong to this request.
    pub fn check_start(&self, pdu: &[u8]) -> Result<(), DecodeError> {
        let function = self.function();
        match pdu.first() {
            Some(&found) if found != function && found != function | REFUSED => {
                return Err(DecodeError::new(0, "the function of the request", format!("{found}, not {function}")));
            }
            Some(&found) if found & REFUSED != 0 => return Ok(()),
            _ => {}
        }
        if let Some(bytes) = self.answer_bytes() {
            return match pdu.get(1) {
                Some(&found) if found != bytes => {
                    Err(DecodeError::new(1, "the byte count that was asked for", format!("{found}, not {bytes}")))
                }
                _ => Ok(()),
            };
        }
        let mut ours = Vec::new();
        self.encode(&mut ours);
        // Address, and value or quantity, come back as they were sent; of an identification the
        // MEI type and the level.
        let same = if matches!(self, Self::Identify { .. }) { 3 } else { 5 };
        match ours.iter().take(same).zip(pdu).position(|(sent, found)| sent != found) {
            Some(at) => {
                let found = pdu.get(at).copied().unwrap_or_default();
                let found = format!("{found}, not {}", ours.get(at).copied().unwrap_or_default());
                Err(DecodeError::new(at, "what the request says there", found))
            }
            None => Ok(()),
        }
    }

    /// Reads a whole answer PDU.
    ///
    /// # Errors
    /// When function, byte count, content or length do not belong to this request.
    pub fn decode_answer(&self, pdu: &[u8]) -> Result<Answer, DecodeError> {
        self.check_start(pdu)?;
        let length = || DecodeError::new(pdu.len(), "a PDU of the length asked for", format!("{} bytes", pdu.len()));
        match pdu {
            [function, code] if function & REFUSED != 0 => Ok(Answer::Refused(Exception(*code))),
            [function, ..] if function & REFUSED != 0 => Err(length()),
            _ if self.answer_length(pdu) != Some(pdu.len()) => Err(length()),
            _ if matches!(self, Self::Identify { .. }) => Ok(Answer::Identity(Identity::decode(pdu)?)),
            [_, _, data @ ..] if self.answer_bytes().is_some() => Ok(Answer::Data(data.to_vec())),
            _ => Ok(Answer::Written),
        }
    }
}

fn count(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

fn short(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

fn put(words: &[u16], out: &mut Vec<u8>) {
    out.push(short(words.len().saturating_mul(2)));
    out.extend(words.iter().flat_map(|w| w.to_be_bytes()));
}

fn words(data: &[u8], quantity: u16, bytes: u8, most: usize) -> Option<Vec<u16>> {
    let quantity = usize::from(quantity);
    let whole = data.len() == 2 * quantity && usize::from(bytes) == data.len();
    let (pairs, _) = data.as_chunks();
    ((1..=most).contains(&quantity) && whole).then(|| pairs.iter().map(|p| u16::from_be_bytes(*p)).collect())
}

/// Bits as bytes, the first as the lowest bit of the first byte (clause 6.11).
pub(super) fn packed(states: &[bool]) -> Vec<u8> {
    let byte = |eight: &[bool]| eight.iter().rev().fold(0u8, |byte, on| byte << 1 | u8::from(*on));
    states.chunks(8).map(byte).collect()
}

fn unpacked(bytes: &[u8], count: usize) -> Vec<bool> {
    bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 != 0)).take(count).collect()
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
