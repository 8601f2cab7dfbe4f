//! Messages of meters that send by themselves in the shape of IEC 62056-21 mode D: the P1 port of
//! DSMR/ESMR 2.2 to 5 and its relatives, and D0 heads.
//!
//! `/XXXZident CR LF CR LF data ! [CRC] CR LF`. DSMR 4 and later write the CRC-16/ARC of
//! everything from `/` to `!` behind the `!`; before, even parity protects each character. Whether
//! a message had either is told with it, so that who hears it can decide what to believe. Bytes
//! may carry even parity in bit 7; the line runs at eight bits. Start with [`Decoder`]; ciphered
//! messages go through [`Unsealer`] first.

use crc::{CRC_16_ARC, Crc};

use super::iec62056::Parity;
use super::iec62056::data::{self, Line};

mod cipher;
mod decoder;

pub use cipher::{Keys, Sealed, Unsealer};
pub use decoder::Decoder;

/// The longest message; DSMR 5 with its longest texts stays below 8 KiB.
pub const MESSAGE_LIMIT: usize = 16 * 1024;

const ARC: Crc<u16> = Crc::<u16>::new(&CRC_16_ARC);
const SEVEN_BITS: u8 = 0x7F;
/// The longest first line, from `/` to its end.
const HEADER_LIMIT: usize = 64;

/// One message of a meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telegram {
    /// What stood behind the `/`: manufacturer, baud character and type.
    pub ident: String,
    /// The lines of data sets.
    pub lines: Vec<Line>,
    /// Whether it carried a CRC, which was right.
    pub checked: bool,
    /// Whether its characters carried even parity, which was right.
    pub parity: Parity,
}

/// What the stream held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message in which nothing is wrong.
    Telegram(Telegram),
    /// Something that began as a message and was not one in the end.
    Damaged {
        /// What was wrong.
        reason: Damage,
        /// How many bytes were given up.
        bytes: usize,
    },
    /// Noise between messages.
    Skipped {
        /// How many bytes.
        bytes: usize,
    },
}

/// What was wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The CRC behind the `!` is not that of the message.
    #[error("the CRC is wrong")]
    Checksum,
    /// At least one character has the wrong parity.
    #[error("a character has the wrong parity")]
    Parity,
    /// A line is not made of ids and values in parentheses.
    #[error("a line is not an id with values in parentheses")]
    Syntax,
    /// The line fell silent, or another message began, before the end.
    #[error("the message breaks off before its end")]
    Truncated,
    /// No end came within [`MESSAGE_LIMIT`].
    #[error("the message is longer than 16 KiB")]
    TooLong,
    /// The authentication tag does not fit: damaged, or the wrong keys.
    #[error("the message can't be authenticated: it is damaged, or the keys are not those of the meter")]
    Tag,
    /// Its invocation counter is not above that of the message before.
    #[error("the message repeats an invocation counter; it is a replay")]
    Replay,
}

/// Writes a message with its CRC.
pub fn encode(ident: &str, lines: &[Line], to: &mut Vec<u8>) {
    let start = to.len();
    encode_plain(ident, lines, to);
    to.truncate(to.len().saturating_sub(2));
    let crc = ARC.checksum(to.get(start..).unwrap_or_default());
    to.extend(format!("{crc:04X}\r\n").bytes());
}

/// Writes a message without a CRC.
pub fn encode_plain(ident: &str, lines: &[Line], to: &mut Vec<u8>) {
    to.extend(format!("/{ident}\r\n\r\n").bytes());
    data::encode(lines, to);
}

/// Judges one message from its `/` to its `!`, and what stands behind the `!`.
fn judge(raw: &[u8], behind: &[u8]) -> Result<Telegram, Damage> {
    let seven: Vec<u8> = raw.iter().map(|b| b & SEVEN_BITS).collect();
    let whole: Vec<u8> = raw.iter().chain(behind).copied().collect();
    let parity = Parity::of(&whole);
    let behind: String = behind.iter().map(|b| char::from(b & SEVEN_BITS)).collect();
    let behind = behind.trim_end();
    let checked = !behind.is_empty();
    if checked {
        if behind.len() > 4 || !behind.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Damage::Syntax);
        }
        // Some meters leave the leading zeros out.
        let told = u16::from_str_radix(behind, 16).map_err(|_| Damage::Syntax)?;
        let fits = ARC.checksum(raw) == told || (parity == Some(Parity::Even) && ARC.checksum(&seven) == told);
        if !fits {
            return Err(if parity.is_none() { Damage::Parity } else { Damage::Checksum });
        }
    } else if parity.is_none() {
        return Err(Damage::Parity);
    }
    let header = header_length(&seven).ok_or(Damage::Syntax)?;
    let (first, body) = seven.split_at(header);
    let ident = String::from_utf8_lossy(first.get(1..).unwrap_or_default()).trim_end().to_owned();
    let mut lines = Vec::new();
    for line in body.split(|b| *b == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() || line == b"!" {
            continue;
        }
        if well_formed(line) {
            lines.extend(data::decode(line));
        } else if !checked {
            return Err(Damage::Syntax);
        }
    }
    Ok(Telegram { ident, lines, checked, parity: parity.unwrap_or(Parity::Absent) })
}

/// The length of a first line and the empty line behind it, when `seven` begins with both.
fn header_length(seven: &[u8]) -> Option<usize> {
    let near = seven.get(..seven.len().min(HEADER_LIMIT + 4))?;
    let name = near.strip_prefix(b"/")?;
    if name.len() < 3 || !name.iter().take(3).all(u8::is_ascii_alphanumeric) {
        return None;
    }
    let end = near.iter().position(|b| *b == b'\r' || *b == b'\n')?;
    if name.get(..end - 1)?.contains(&b'/') {
        return None;
    }
    let mut ends = 0;
    let mut length = end;
    for byte in near.get(end..)? {
        match byte {
            b'\r' => {}
            b'\n' => ends += 1,
            _ => break,
        }
        length += 1;
    }
    (ends >= 2).then_some(length)
}

/// Whether a line is `id(value)(value)...`, once or several times; the id may be missing at its
/// beginning, as in the second line of a gas reading of DSMR 2.2.
fn well_formed(line: &[u8]) -> bool {
    let mut inside = false;
    let mut closed = false;
    for byte in line {
        match (byte, inside) {
            (b'(', false) => inside = true,
            (b')', true) => (inside, closed) = (false, true),
            (b'(' | b')', _) => return false,
            (0x20..=0x7E, true) => {}
            (b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'.' | b':' | b'*' | b'-' | b'&' | b'_', false) => {
                closed = false
            }
            _ => return false,
        }
    }
    closed && !inside
}

#[cfg(test)]
mod tests;
