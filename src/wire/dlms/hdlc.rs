//! HDLC frames of DLMS/COSEM (IEC 62056-46, clause 6): frame format type 3, found by their length.
//!
//! The crate's framer looks through all it holds with every byte that comes, and takes REJ for FRMR: the
//! stream, the frame and the control field are ours, its decoder is the oracle of the tests.

use crc::{CRC_16_IBM_SDLC, Crc};
pub use dlms_cosem_rs::transport::hdlc::Address;

use super::DecodeError;

mod parameters;

pub use parameters::Parameters;

/// What stands before a request's APDU (LLC, IEC 62056-46, clause 5).
pub const LLC_REQUEST: [u8; 3] = [0xE6, 0xE6, 0x00];
/// What stands before a response's APDU.
pub const LLC_RESPONSE: [u8; 3] = [0xE6, 0xE7, 0x00];
/// The longest frame: eleven bits of length, and two flags.
pub const LONGEST: usize = 0x7FF + 2;
/// What a frame needs besides its information: flags, format, the longest addresses, control and both checks.
pub const OVERHEAD: usize = 2 + 2 + 4 + 4 + 1 + 2 + 2;

const FLAG: u8 = 0x7E;
const X25: Crc<u16> = Crc::<u16>::new(&CRC_16_IBM_SDLC);

/// The kind of a frame and its sequence numbers, modulo 8 (clause 6.4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// A piece of an APDU.
    I {
        /// Its number.
        ns: u8,
        /// The number that is expected from the other side next.
        nr: u8,
        /// Poll or final: the other side may send.
        pf: bool,
    },
    /// Receive ready.
    Rr {
        /// The number that is expected next.
        nr: u8,
        /// Poll or final.
        pf: bool,
    },
    /// Receive not ready.
    Rnr {
        /// The number that is expected next.
        nr: u8,
        /// Poll or final.
        pf: bool,
    },
    /// Reject: all from this number on shall come again.
    Rej {
        /// The number that is expected next.
        nr: u8,
        /// Poll or final.
        pf: bool,
    },
    /// Set normal response mode: opens a connection.
    Snrm,
    /// Unnumbered acknowledgement of SNRM or DISC.
    Ua,
    /// Disconnect; from a meter it is the request to be disconnected.
    Disc,
    /// Disconnected mode: there is no connection.
    Dm,
    /// Frame reject: a frame that can't be.
    Frmr,
    /// Unnumbered information: a push.
    Ui,
    /// A kind that DLMS does not use.
    Other(u8),
}

impl Control {
    /// Its byte; the poll bit of unnumbered frames is set.
    pub const fn byte(self) -> u8 {
        const fn numbered(kind: u8, nr: u8, pf: bool) -> u8 {
            ((nr & 7) << 5) | if pf { 0x10 } else { 0 } | kind
        }
        match self {
            Self::I { ns, nr, pf } => numbered((ns & 7) << 1, nr, pf),
            Self::Rr { nr, pf } => numbered(0x01, nr, pf),
            Self::Rnr { nr, pf } => numbered(0x05, nr, pf),
            Self::Rej { nr, pf } => numbered(0x09, nr, pf),
            Self::Snrm => 0x93,
            Self::Ua => 0x73,
            Self::Disc => 0x53,
            Self::Dm => 0x1F,
            Self::Frmr => 0x97,
            Self::Ui => 0x13,
            Self::Other(byte) => byte,
        }
    }

    /// What a byte says.
    pub const fn of(byte: u8) -> Self {
        let (nr, pf) = (byte >> 5, byte & 0x10 != 0);
        if byte & 1 == 0 {
            return Self::I { ns: (byte >> 1) & 7, nr, pf };
        }
        match byte & 0x0F {
            0x01 => return Self::Rr { nr, pf },
            0x05 => return Self::Rnr { nr, pf },
            0x09 => return Self::Rej { nr, pf },
            _ => {}
        }
        match byte & !0x10 {
            0x83 => Self::Snrm,
            0x63 => Self::Ua,
            0x43 => Self::Disc,
            0x0F => Self::Dm,
            0x87 => Self::Frmr,
            0x03 => Self::Ui,
            _ => Self::Other(byte),
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Whether the next frame continues it.
    pub segmented: bool,
    /// The receiver.
    pub destination: Address,
    /// The sender.
    pub source: Address,
    /// Its kind and sequence numbers.
    pub control: Control,
    /// What it carries.
    pub information: Vec<u8>,
}

impl Frame {
    /// Its bytes with both flags and both checks.
    ///
    /// # Errors
    /// When it carries more than eleven bits of length can say.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let mut bytes = vec![FLAG, 0, 0];
        write_address(self.destination, &mut bytes);
        write_address(self.source, &mut bytes);
        bytes.push(self.control.byte());
        let checks = if self.information.is_empty() { 2 } else { 4 };
        let length = bytes.len() - 1 + self.information.len() + checks;
        let format = u16::try_from(length).ok().filter(|length| *length <= 0x7FF).ok_or_else(|| {
            DecodeError::new(0, "at most 2047 bytes between the flags of an HDLC frame", length.to_string())
        })? | if self.segmented { 0xA800 } else { 0xA000 };
        for (place, byte) in bytes.iter_mut().skip(1).zip(format.to_be_bytes()) {
            *place = byte;
        }
        if !self.information.is_empty() {
            write_check(&mut bytes);
            bytes.extend_from_slice(&self.information);
        }
        write_check(&mut bytes);
        bytes.push(FLAG);
        Ok(bytes)
    }
}

/// Appends the check of all that stands behind the flag.
fn write_check(bytes: &mut Vec<u8>) {
    let check = X25.checksum(bytes.get(1..).unwrap_or_default());
    bytes.extend(check.to_le_bytes());
}

#[expect(clippy::cast_possible_truncation, reason = "seven bits of a number at a time")]
fn write_address(address: Address, bytes: &mut Vec<u8>) {
    const fn seven(number: u16) -> u8 {
        ((number & 0x7F) << 1) as u8
    }
    match address {
        Address::Single(one) => bytes.push((one << 1) | 1),
        Address::Double { upper, lower } => bytes.extend([upper << 1, (lower << 1) | 1]),
        Address::Quad { upper, lower } => {
            bytes.extend([seven(upper >> 7), seven(upper), seven(lower >> 7), seven(lower) | 1]);
        }
    }
}

/// What a [`Decoder`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A frame whose checks are right.
    Frame(Frame),
    /// So many bytes that are no part of one; flags are not counted.
    Noise(usize),
}

/// What the bytes behind a flag are.
enum Candidate {
    /// The beginning of what may be a header.
    Begun,
    /// No header.
    Not,
    /// A header whose check is right, or that has none of its own.
    Header { frame: Frame, information: usize, whole: usize },
}

/// Cuts a stream into frames.
///
/// It holds at most one frame and what was pushed last. A header is believed when its check is right, and its frame
/// is then waited for; every byte is looked at once more for each such header that lied, not for every flag.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// How much of the buffer was dealt with.
    start: usize,
    /// A frame at `start` has so many bytes, and they are not all there.
    awaited: Option<usize>,
    /// Nothing more comes to what is held.
    ended: bool,
    broke: bool,
}

impl Decoder {
    /// Begins with nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes as they come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Tells that nothing comes any more that could complete what is held: it is looked through for
    /// whole frames, the rest is noise.
    pub const fn silence(&mut self) {
        self.ended = true;
    }

    /// Whether a frame has begun whose end has not come.
    pub const fn in_frame(&self) -> bool {
        self.awaited.is_some()
    }

    /// Whether a frame was seen since the last call whose header was right and whose rest was not.
    pub const fn take_broken(&mut self) -> bool {
        std::mem::replace(&mut self.broke, false)
    }

    /// The next thing in what was pushed.
    #[expect(clippy::should_implement_trait, reason = "the verb of every codec; a stream may go on after nothing")]
    pub fn next(&mut self) -> Option<Event> {
        loop {
            let held = self.buffer.get(self.start..).unwrap_or_default();
            if self.awaited.is_some_and(|whole| held.len() < whole) && !self.ended {
                return self.wait(self.awaited);
            }
            let noise = held.iter().take_while(|byte| **byte != FLAG).count();
            if noise > 0 {
                self.start += noise;
                return Some(Event::Noise(noise));
            }
            let Some((_flag, behind)) = held.split_first() else {
                self.ended = false;
                return self.wait(None);
            };
            match candidate(behind) {
                // One flag may end a frame and begin the next one.
                Candidate::Begun if behind.is_empty() && !self.ended => return self.wait(None),
                Candidate::Begun if !self.ended => return self.wait(None),
                Candidate::Header { whole, .. } if held.len() < whole && !self.ended => {
                    return self.wait(Some(whole));
                }
                Candidate::Begun | Candidate::Not => self.start += 1,
                Candidate::Header { mut frame, information, whole } => {
                    self.awaited = None;
                    if let Some(carried) = carried(held, information, whole) {
                        frame.information = carried.to_vec();
                        self.start += whole - 1;
                        return Some(Event::Frame(frame));
                    }
                    self.broke = true;
                    self.start += 1;
                }
            }
        }
    }

    /// Keeps what may still become a frame, and nothing else.
    fn wait(&mut self, awaited: Option<usize>) -> Option<Event> {
        self.awaited = awaited;
        self.buffer.drain(..self.start.min(self.buffer.len()));
        self.start = 0;
        None
    }
}

/// What a whole frame carries, when its end is right; `held` begins with its flag.
fn carried(held: &[u8], information: usize, whole: usize) -> Option<&[u8]> {
    let (body, end) = held.get(1..whole)?.split_at_checked(whole.checked_sub(4)?)?;
    let &[low, high, FLAG] = end else { return None };
    (X25.checksum(body) == u16::from_le_bytes([low, high])).then(|| body.get(information - 1..).unwrap_or_default())
}

/// Reads the header behind a flag.
fn candidate(behind: &[u8]) -> Candidate {
    let [format, rest @ ..] = behind else { return Candidate::Begun };
    if format & 0xF0 != 0xA0 {
        return Candidate::Not;
    }
    let [low, rest @ ..] = rest else { return Candidate::Begun };
    let length = usize::from(u16::from_be_bytes([format & 0x07, *low]));
    let (Some((destination, rest)), true) = (address(rest), length >= 7) else { return Candidate::Not };
    let Some(destination) = destination else { return Candidate::Begun };
    let Some((source, rest)) = address(rest) else { return Candidate::Not };
    let Some(source) = source else { return Candidate::Begun };
    let [control, rest @ ..] = rest else { return Candidate::Begun };
    let header = behind.len() - rest.len();
    let control = Control::of(*control);
    let frame = Frame { segmented: format & 0x08 != 0, destination, source, control, information: Vec::new() };
    let whole = 1 + length + 1;
    match length.checked_sub(header) {
        Some(2) => Candidate::Header { frame, information: 1 + header, whole },
        Some(4..) => match (rest, behind.get(..header)) {
            ([low, high, ..], Some(bytes)) if X25.checksum(bytes) == u16::from_le_bytes([*low, *high]) => {
                Candidate::Header { frame, information: 1 + header + 2, whole }
            }
            ([] | [_], _) => Candidate::Begun,
            _ => Candidate::Not,
        },
        _ => Candidate::Not,
    }
}

/// Reads an address, whose last byte is odd; the inner `None` when it is not all there, the outer when it is none.
fn address(bytes: &[u8]) -> Option<(Option<Address>, &[u8])> {
    let wide = |high: u8, low: u8| (u16::from(high >> 1) << 7) | u16::from(low >> 1);
    match bytes {
        [one, rest @ ..] if one & 1 == 1 => Some((Some(Address::Single(one >> 1)), rest)),
        [upper, lower, rest @ ..] if lower & 1 == 1 => {
            Some((Some(Address::Double { upper: upper >> 1, lower: lower >> 1 }), rest))
        }
        // Three bytes are no address.
        [_, _, third, ..] if third & 1 == 1 => None,
        [a, b, c, d, rest @ ..] if d & 1 == 1 => {
            Some((Some(Address::Quad { upper: wide(*a, *b), lower: wide(*c, *d) }), rest))
        }
        [_, _, _, _, ..] => None,
        _ => Some((None, &[])),
    }
}

#[cfg(test)]
mod tests;
