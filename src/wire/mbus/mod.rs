//! Wired M-Bus: frames of the link layer (EN 13757-2, clause 5) and what answers say (EN 13757-3).
//!
//! [`Decoder`] finds frames in a stream of bytes; [`answer::decode`] makes records of a user data
//! response. Numbers stay exact: integers and BCD become decimals, never binary floats.

use super::DecodeError;

pub mod answer;
pub mod compact;
mod data;
mod decoder;
mod fixed;
mod name;
mod record;

pub use answer::{Answer, Header, Telegram};
pub use decoder::{Decoder, Event};
pub use record::{Record, Records, readable};

/// The single character by which a slave acknowledges.
pub const ACKNOWLEDGE: u8 = 0xE5;
/// Reaches the slave that was selected by its secondary address.
pub const SELECTED: u8 = 253;
/// Reaches every slave, and every slave answers: for a single slave on the line.
pub const POINT_TO_POINT: u8 = 254;
/// The longest frame: L = 255 and six bytes around it.
pub const LONGEST_FRAME: usize = 261;

/// Control field of SND_NKE, which initialises a slave's link layer.
pub const SND_NKE: u8 = 0x40;
/// Control field of SND_UD with FCV = 1 and FCB = 0.
pub const SND_UD: u8 = 0x53;
/// Control field of REQ_UD2 with FCV = 1 and FCB = 0.
pub const REQ_UD2: u8 = 0x5B;
/// The frame count bit.
pub const FCB: u8 = 0x20;
/// Control field of RSP_UD, without the bits ACD and DFC.
pub const RSP_UD: u8 = 0x08;

/// CI field that selects a slave by its secondary address.
pub const CI_SELECT: u8 = 0x52;
/// CI field of an application reset or of the choice of a sub-telegram.
pub const CI_APPLICATION_RESET: u8 = 0x50;

/// The rates that a slave can be told, with their CI fields (EN 13757-3, table 2).
pub const BAUD_SWITCH: &[(u32, u8)] =
    &[(300, 0xB8), (600, 0xB9), (1200, 0xBA), (2400, 0xBB), (4800, 0xBC), (9600, 0xBD), (19_200, 0xBE), (38_400, 0xBF)];

/// A frame of the link layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The single character E5.
    Acknowledge,
    /// A short frame: control and address only.
    Short {
        /// The control field.
        control: u8,
        /// The address field.
        address: u8,
    },
    /// A long frame; without data it is what the standard calls a control frame.
    Long {
        /// The control field.
        control: u8,
        /// The address field.
        address: u8,
        /// The control information field.
        ci: u8,
        /// What follows the CI field, at most 252 bytes.
        data: Vec<u8>,
    },
}

/// Appends a frame; of data longer than 252 bytes only those are sent.
pub fn encode(frame: &Frame, out: &mut Vec<u8>) {
    match frame {
        Frame::Acknowledge => out.push(ACKNOWLEDGE),
        Frame::Short { control, address } => {
            out.extend([0x10, *control, *address, control.wrapping_add(*address), 0x16])
        }
        Frame::Long { control, address, ci, data } => {
            let data = data.get(..252).unwrap_or(data);
            let length = u8::try_from(data.len() + 3).unwrap_or(u8::MAX);
            out.extend([0x68, length, length, 0x68, *control, *address, *ci]);
            out.extend(data);
            let sum = sum(&[*control, *address, *ci]).wrapping_add(sum(data));
            out.extend([sum, 0x16]);
        }
    }
}

/// Reads exactly one whole frame.
///
/// # Errors
/// Where the bytes break the rules of EN 13757-2, clause 5.4.
pub fn decode(bytes: &[u8]) -> Result<Frame, DecodeError> {
    match look(bytes) {
        Look::Frame(frame, length) if length == bytes.len() => Ok(frame),
        Look::Frame(_, length) => {
            Err(DecodeError::new(length, "the end of the frame", format!("{} bytes more", bytes.len() - length)))
        }
        Look::More => Err(DecodeError::new(bytes.len(), "the rest of the frame", "the end")),
        Look::Noise => {
            let found = bytes.first().map_or("nothing".to_owned(), |b| format!("{b:02X}"));
            Err(DecodeError::new(0, "E5, 10 or 68 and a length twice", found))
        }
        Look::Damaged(error) => Err(error),
    }
}

/// What stands at the start of some bytes.
enum Look {
    Frame(Frame, usize),
    /// A frame may have begun.
    More,
    /// No frame begins here.
    Noise,
    /// A frame was there, but it is wrong.
    Damaged(DecodeError),
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn look(bytes: &[u8]) -> Look {
    match bytes {
        [] | [0x10] | [0x68] => Look::More,
        [ACKNOWLEDGE, ..] => Look::Frame(Frame::Acknowledge, 1),
        [0x10, control, address, check, stop, ..] => {
            let frame = Frame::Short { control: *control, address: *address };
            closed(frame, 5, control.wrapping_add(*address), *check, *stop)
        }
        [0x10, ..] => Look::More,
        [0x68, length, ..] if *length < 3 => Look::Noise,
        [0x68, length, again, ..] if length != again => Look::Noise,
        [0x68, _, _, start, ..] if *start != 0x68 => Look::Noise,
        [0x68, length, ..] => {
            let end = 4 + usize::from(*length);
            match (bytes.get(4..end), bytes.get(end), bytes.get(end + 1)) {
                (Some(body @ [control, address, ci, data @ ..]), Some(check), Some(stop)) => {
                    let frame = Frame::Long { control: *control, address: *address, ci: *ci, data: data.to_vec() };
                    closed(frame, end + 2, sum(body), *check, *stop)
                }
                _ => Look::More,
            }
        }
        _ => Look::Noise,
    }
}

fn closed(frame: Frame, length: usize, computed: u8, check: u8, stop: u8) -> Look {
    if check != computed {
        let found = format!("{check:02X} where {computed:02X} fits the bytes");
        return Look::Damaged(DecodeError::new(length - 2, "the checksum of the bytes before it", found));
    }
    if stop != 0x16 {
        return Look::Damaged(DecodeError::new(length - 1, "the stop character 16", format!("{stop:02X}")));
    }
    Look::Frame(frame, length)
}
