//! What carries an APDU, found at the beginning of some bytes.

use crc::{CRC_16_IBM_SDLC, Crc, Table};

use super::super::hdlc::{self, Address, Control};
use super::super::{open, wrapper};
use super::Damage;
use crate::wire::mbus;

const FLAG: u8 = 0x7E;
const CHECK: Crc<u16, Table<1>> = Crc::<u16, Table<1>>::new(&CRC_16_IBM_SDLC);

/// One unit of what carries APDUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// HDLC (IEC 62056-46).
    Hdlc(hdlc::Frame),
    /// A long frame of wired M-Bus with a segment of an APDU (IEC 62056-7-3), as Austrian meters push.
    Mbus(Segment),
    /// The wrapper (IEC 62056-47).
    Wrapper(wrapper::Unit),
    /// Nothing: the APDU as it is.
    Bare(Vec<u8>),
}

/// A segment of an APDU in a frame of wired M-Bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The control field.
    pub control: u8,
    /// The address field; 255 is everybody.
    pub address: u8,
    /// The segment's number, counting from 0.
    pub number: u8,
    /// Whether it is the last one.
    pub last: bool,
    /// The sender's service access point.
    pub source: u8,
    /// The receiver's.
    pub destination: u8,
    /// A part of the APDU.
    pub data: Vec<u8>,
}

/// What stands at the beginning of some bytes.
pub(super) enum Look {
    /// No frame begins here.
    No,
    /// A frame may have begun.
    More,
    /// A frame, and how many bytes it takes.
    Frame(Frame, usize),
    /// A frame was there, but it is wrong.
    Damaged(Damage),
}

/// Looks for a frame that carries a check of its own.
pub(super) fn checked(bytes: &[u8]) -> Look {
    match bytes {
        [FLAG, ..] => frame(bytes),
        [0x68, ..] => segment(bytes),
        _ => Look::No,
    }
}

/// An HDLC frame without its closing flag, which may be the opening one of the next. The header's own check
/// tells soon that a flag begins none, so that noise does not hold up what follows.
fn frame(bytes: &[u8]) -> Look {
    let &[_, high, low, ref rest @ ..] = bytes else {
        return if matches!(bytes, [_] | [_, 0xA0..=0xAF]) { Look::More } else { Look::No };
    };
    if high & 0xF0 != 0xA0 {
        return Look::No;
    }
    let length = usize::from(u16::from_be_bytes([high & 0x07, low]));
    let Some((destination, after)) = address(rest) else { return unfinished(rest) };
    let after_destination = rest.get(after..).unwrap_or_default();
    let Some((source, more)) = address(after_destination) else { return unfinished(after_destination) };
    // Format, addresses and control field.
    let header = 2 + after + more + 1;
    if length < header + 2 || length == header + 3 {
        return Look::No;
    }
    let (Some(head), Some(check)) = (bytes.get(1..=header), bytes.get(1 + header..3 + header)) else {
        return Look::More;
    };
    if CHECK.checksum(head).to_le_bytes() != check {
        return Look::No;
    }
    let (Some(body), Some(check)) = (bytes.get(1..length - 1), bytes.get(length - 1..=length)) else {
        return Look::More;
    };
    if CHECK.checksum(body).to_le_bytes() != check {
        return Look::Damaged(Damage::Check);
    }
    let control = Control::of(head.last().copied().unwrap_or_default());
    let information = bytes.get(3 + header..length - 1).unwrap_or_default().to_vec();
    let frame = hdlc::Frame { segmented: high & 0x08 != 0, destination, source, control, information };
    Look::Frame(Frame::Hdlc(frame), 1 + length)
}

/// An address of one, two or four bytes, of which the last is odd, and how many they are.
fn address(bytes: &[u8]) -> Option<(Address, usize)> {
    let half = |high: u8, low: u8| u16::from(high >> 1) << 7 | u16::from(low >> 1);
    match *bytes {
        [a, ..] if a & 1 == 1 => Some((Address::Single(a >> 1), 1)),
        [a, b, ..] if b & 1 == 1 => Some((Address::Double { upper: a >> 1, lower: b >> 1 }, 2)),
        [a, b, c, d, ..] if c & 1 == 0 && d & 1 == 1 => {
            Some((Address::Quad { upper: half(a, b), lower: half(c, d) }, 4))
        }
        _ => None,
    }
}

fn unfinished(address: &[u8]) -> Look {
    if address.len() < 4 && address.iter().all(|b| b & 1 == 0) { Look::More } else { Look::No }
}

fn segment(bytes: &[u8]) -> Look {
    match bytes {
        [_] => return Look::More,
        [_, length, rest @ ..] if *length >= 5 => match rest {
            [] => return Look::More,
            [again] if again == length => return Look::More,
            [again, 0x68, ..] if again == length => {}
            _ => return Look::No,
        },
        _ => return Look::No,
    }
    let whole = usize::from(bytes.get(1).copied().unwrap_or_default()) + 6;
    let Some(whole_frame) = bytes.get(..whole) else { return Look::More };
    match mbus::decode(whole_frame) {
        Ok(mbus::Frame::Long { control, address, ci: ci @ 0x00..=0x1F, data }) => match data.as_slice() {
            &[source, destination, ref data @ ..] => {
                let (number, last, data) = (ci & 0x0F, ci & 0x10 != 0, data.to_vec());
                let segment = Segment { control, address, number, last, source, destination, data };
                Look::Frame(Frame::Mbus(segment), whole)
            }
            _ => Look::No,
        },
        // Another M-Bus application.
        Ok(_) => Look::No,
        Err(_) => Look::Damaged(Damage::Sum),
    }
}

/// How far an APDU reaches that nothing checks.
#[derive(Clone, Copy)]
pub(super) enum Extent {
    /// None begins here.
    No,
    /// One may have begun.
    More,
    /// In a wrapper unit of so many bytes.
    Unit(usize),
    /// By itself, so many bytes.
    Bare(usize),
}

/// Looks for an APDU that nothing checks: in a wrapper, or, where a message must begin, bare when it tells
/// its own length.
pub(super) fn unchecked(bytes: &[u8], begins: bool) -> Extent {
    match bytes {
        [0] | [0, 1] => Extent::More,
        [0, 1, ..] => unit(bytes),
        [tag, ..] if begins && open::is_sealed(*tag) => match open::length(bytes) {
            Ok(Some(length)) if length <= bytes.len() => Extent::Bare(length),
            Ok(Some(length)) if length > super::LONGEST => Extent::No,
            Ok(_) => Extent::More,
            Err(()) => Extent::No,
        },
        // It ends where the line falls silent.
        [tag, ..] if begins && is_push(*tag) && bytes.len() <= super::LONGEST => Extent::More,
        _ => Extent::No,
    }
}

/// The tag of data-notification.
pub(super) const PLAIN_PUSH: u8 = 0x0F;
/// The tag of event-notification-request.
pub(super) const PLAIN_EVENT: u8 = 0xC2;
/// The tag of general-block-transfer.
pub(super) const BLOCK: u8 = 0xE0;

fn unit(bytes: &[u8]) -> Extent {
    let Some((&[.., high, low], rest)) = bytes.split_first_chunk::<{ wrapper::HEADER }>() else { return Extent::More };
    let length = usize::from(u16::from_be_bytes([high, low]));
    match rest.first() {
        None if length > 0 => Extent::More,
        Some(tag) if length > 0 && is_apdu(*tag) && length <= rest.len() => Extent::Unit(wrapper::HEADER + length),
        Some(tag) if length > 0 && is_apdu(*tag) => Extent::More,
        _ => Extent::No,
    }
}

/// The unit whose bytes these are.
pub(super) fn take_unit(bytes: &[u8]) -> Option<Frame> {
    let (&[_, _, s1, s0, d1, d0, ..], apdu) = bytes.split_first_chunk::<{ wrapper::HEADER }>()?;
    let (source, destination) = (u16::from_be_bytes([s1, s0]), u16::from_be_bytes([d1, d0]));
    Some(Frame::Wrapper(wrapper::Unit { source, destination, apdu: apdu.to_vec() }))
}

/// Whether a push, or a block of one, begins with this tag.
pub(super) const fn is_push(tag: u8) -> bool {
    matches!(tag, PLAIN_PUSH | PLAIN_EVENT | BLOCK) || open::is_sealed(tag)
}

/// Whether an APDU may begin with this tag (IEC 62056-5-3, clause 8).
pub const fn is_apdu(tag: u8) -> bool {
    matches!(
        tag,
        0x01 | 0x05 | 0x06 | 0x08 | 0x0C..=0x0F | 0x16 | 0x18 | 0x21..=0x2E | 0x36 | 0x38 | 0x41..=0x4E | 0x56 | 0x58
            | 0x60..=0x63 | 0xC0..=0xDD | 0xDF | 0xE0
    )
}
