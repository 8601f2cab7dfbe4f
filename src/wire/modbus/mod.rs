//! Modbus: requests, the answers they must have, and the values in registers.
//!
//! Invariants: an answer is checked against its request (function, length, byte count) before
//! anybody sees its data; it is complete with its last byte, not after a silence. Framing is in
//! [`rtu`] and [`ascii`] (serial) and [`tcp`] (MBAP), values are in [`Register`] and [`Coding`]. Clause numbers
//! are those of "MODBUS Application Protocol Specification V1.1b3". To add a function: add a variant
//! to [`Request`] and its arm in each of its methods.

use std::fmt;

use super::DecodeError;

mod answer;
pub mod ascii;
mod identity;
mod register;
mod request;
pub mod rtu;
pub mod tcp;

pub use answer::Answer;
pub use identity::{Identity, Level};
pub use register::{Bits, Coding, Content, Register};
pub use request::Request;

/// The four tables of a Modbus server (clause 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Single bits that can be written, function 1.
    Coil,
    /// Single bits that can only be read, function 2.
    Discrete,
    /// 16-bit registers that can be written, function 3.
    Holding,
    /// 16-bit registers that can only be read, function 4.
    Input,
}

impl Table {
    /// The function code that reads it.
    pub const fn read_function(self) -> u8 {
        match self {
            Self::Coil => 1,
            Self::Discrete => 2,
            Self::Holding => 3,
            Self::Input => 4,
        }
    }

    /// The table that a function code reads.
    pub const fn of_function(function: u8) -> Option<Self> {
        match function {
            1 => Some(Self::Coil),
            2 => Some(Self::Discrete),
            3 => Some(Self::Holding),
            4 => Some(Self::Input),
            _ => None,
        }
    }

    /// Whether its entries are single bits.
    pub const fn is_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }

    /// The most entries one request may ask for (clauses 6.1 to 6.4).
    pub const fn most(self) -> u16 {
        if self.is_bits() { 2000 } else { 125 }
    }

    /// The word used in weir.toml.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Coil => "coil",
            Self::Discrete => "discrete",
            Self::Holding => "holding",
            Self::Input => "input",
        }
    }
}

/// The bit in the function code that marks a refusal (clause 7).
pub const REFUSED: u8 = 0x80;

/// An exception code (clause 7): why a server refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception(pub u8);

impl Exception {
    /// The address or the quantity is not one the server has: smaller requests may work.
    pub const fn is_about_range(self) -> bool {
        matches!(self.0, 2 | 3)
    }

    /// A gateway says that the unit behind it does not answer (10 and 11).
    pub const fn is_gateways(self) -> bool {
        matches!(self.0, 10 | 11)
    }

    /// The server is busy; the same request may work later.
    pub const fn is_busy(self) -> bool {
        self.0 == 6
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = match self.0 {
            1 => "illegal function",
            2 => "illegal data address",
            3 => "illegal data value",
            4 => "device failure",
            5 => "acknowledged, still working",
            6 => "device busy",
            8 => "memory parity error",
            10 => "gateway path unavailable",
            11 => "gateway got no answer from the device",
            _ => "unknown code",
        };
        write!(f, "exception {} ({meaning})", self.0)
    }
}

/// What a decoder of answers knows after the bytes it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The answer is not complete.
    More,
    /// The PDU of the answer, checked.
    Answer(Vec<u8>),
    /// It can't become a right answer.
    Damaged(Damage),
}

/// Why bytes are no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Expected and found.
    pub error: DecodeError,
    /// Whether the whole answer has come, so that nothing more of it is under way.
    pub whole: bool,
}
