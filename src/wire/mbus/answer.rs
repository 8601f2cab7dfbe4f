//! What a user data response says: who sent it and its records (EN 13757-3).

use super::record::{self, Record};
use super::{Frame, RSP_UD, data, fixed};
use crate::wire::DecodeError;
use crate::wire::wmbus::Meter;

/// Who sent an answer, and in which state it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The secondary address.
    pub meter: Meter,
    /// A number that grows with each answer.
    pub access: u8,
    /// The status byte (EN 13757-3, table 6).
    pub status: u8,
    /// The configuration field: how the answer is encrypted.
    pub configuration: u16,
}

impl Header {
    /// The encryption mode; 0 when there is none.
    pub fn security_mode(&self) -> u8 {
        self.configuration.to_be_bytes()[0] & 0x1F
    }
}

/// An answer with records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telegram {
    /// Who sent it; a short or absent header names no one.
    pub header: Option<Header>,
    /// Its records in the order of the wire.
    pub records: Vec<Record>,
    /// More records follow in the next telegram.
    pub more: bool,
}

/// What a user data response is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Values.
    Telegram(Telegram),
    /// Encrypted values: only the header can be read.
    Encrypted(Header),
    /// An application error (CI = 70), in words.
    Refused(String),
}

/// Security modes of EN 13757-7 that encrypt; other values are signatures of old meters.
const ENCRYPTING: &[u8] = &[2, 3, 4, 5, 7, 8, 9, 10, 13];

/// Reads the answer that a frame carries.
///
/// # Errors
/// When it is no user data response, its CI field is not known, or its records are broken.
pub fn decode(frame: &Frame) -> Result<Answer, DecodeError> {
    let Frame::Long { control, ci, data, .. } = frame else {
        return Err(DecodeError::new(0, "a long frame", format!("{frame:?}")));
    };
    // ACD and DFC may be set; no other bit.
    if control & !0x30 != RSP_UD {
        return Err(DecodeError::new(4, "the control field 08 of a user data response", format!("{control:02X}")));
    }
    const AFTER_CI: usize = 7;
    match ci {
        0x72 => {
            let (bytes, rest) = data.split_first_chunk::<12>().ok_or_else(|| too_short(data))?;
            variable(Some(long_header(*bytes)), rest, AFTER_CI + 12)
        }
        0x7A => {
            let (_, rest) = data.split_first_chunk::<4>().ok_or_else(|| too_short(data))?;
            variable(None, rest, AFTER_CI + 4)
        }
        0x78 => variable(None, data, AFTER_CI),
        0x73 => fixed_structure(data),
        0x70 => Ok(Answer::Refused(application_error(data.first().copied()))),
        0x71 => Ok(Answer::Telegram(Telegram {
            header: None,
            records: vec![Record::text("alarm_status", data::hex(data))],
            more: false,
        })),
        0x76 | 0x77 => {
            let found = format!("{ci:02X} (high byte first, withdrawn from the standard)");
            Err(DecodeError::new(6, "low byte first", found))
        }
        other => Err(DecodeError::new(6, "CI 70, 71, 72, 73, 78 or 7A", format!("{other:02X}"))),
    }
}

fn too_short(data: &[u8]) -> DecodeError {
    DecodeError::new(7, "a data header", format!("{} bytes", data.len()))
}

const fn long_header(bytes: [u8; 12]) -> Header {
    let [i0, i1, i2, i3, m0, m1, version, medium, access, status, c0, c1] = bytes;
    let meter = Meter::from_wire([m0, m1, i0, i1, i2, i3, version, medium]);
    Header { meter, access, status, configuration: u16::from_le_bytes([c0, c1]) }
}

fn variable(header: Option<Header>, bytes: &[u8], at: usize) -> Result<Answer, DecodeError> {
    if let Some(header) = header
        && ENCRYPTING.contains(&header.security_mode())
        && !bytes.starts_with(&[0x2F, 0x2F])
    {
        return Ok(Answer::Encrypted(header));
    }
    let found = record::decode(bytes, at)?;
    Ok(Answer::Telegram(Telegram { header, records: found.records, more: found.more }))
}

fn fixed_structure(data: &[u8]) -> Result<Answer, DecodeError> {
    let [i0, i1, i2, i3, access, status, u0, u1, counters @ ..] = data else { return Err(too_short(data)) };
    let [a0, a1, a2, a3, b0, b1, b2, b3] = counters else {
        return Err(DecodeError::new(15, "two counters of 4 bytes", format!("{} bytes", counters.len())));
    };
    let units = [*u0, *u1];
    let medium = fixed::medium(units);
    let meter = Meter { manufacturer: 0, id: u32::from_le_bytes([*i0, *i1, *i2, *i3]), version: 0, device: medium };
    let header = Header { meter, access: *access, status: *status, configuration: 0 };
    let (first, second) = ([*a0, *a1, *a2, *a3], [*b0, *b1, *b2, *b3]);
    let records = fixed::records(units, first, second, status & 0x01 != 0, status & 0x02 != 0);
    Ok(Answer::Telegram(Telegram { header: Some(header), records, more: false }))
}

/// An application error in words.
pub(in crate::wire) fn application_error(code: Option<u8>) -> String {
    let words = match code {
        None | Some(0) => "an unspecified application error",
        Some(1) => "it does not know this CI field",
        Some(2) => "its buffer is too small",
        Some(3) => "too many records",
        Some(4) => "premature end of a record",
        Some(5) => "more than 10 DIFEs",
        Some(6) => "more than 10 VIFEs",
        Some(8) => "it is too busy",
        Some(9) => "too many requests",
        Some(other) => return format!("application error {other}"),
    };
    words.to_owned()
}
