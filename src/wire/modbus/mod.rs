//! Modbus: requests, the answers they must have, and the values in registers.
//!
//! Invariants: an answer is checked against its request (function, length, byte count) before
//! anybody sees its data; it is complete with its last byte, not after a silence. Framing is in
//! [`rtu`] (serial) and [`tcp`] (MBAP), values are in [`Register`] and [`Coding`]. Clause numbers
//! are those of "MODBUS Application Protocol Specification V1.1b3". To add functions 5, 6, 15
//! and 16: add a variant to [`Request`] and its arm in each of its methods.

use std::fmt;

use super::DecodeError;

mod register;
pub mod rtu;
pub mod tcp;

pub use register::{Coding, Content, Register};

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
}

impl Request {
    /// Its function code.
    pub const fn function(&self) -> u8 {
        match self {
            Self::Read { table, .. } => table.read_function(),
        }
    }

    /// Appends the PDU to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Read { table, address, quantity } => {
                out.push(table.read_function());
                out.extend(address.to_be_bytes());
                out.extend(quantity.to_be_bytes());
            }
        }
    }

    /// Reads a request PDU.
    ///
    /// # Errors
    /// When the function is not known here, the length is wrong, or the quantity or the last
    /// address is out of range.
    pub fn decode(pdu: &[u8]) -> Result<Self, DecodeError> {
        let &[function, a, b, c, d] = pdu else {
            return Err(DecodeError::new(0, "5 bytes of a read request", format!("{} bytes", pdu.len())));
        };
        let table = Table::of_function(function)
            .ok_or_else(|| DecodeError::new(0, "function 1 to 4", format!("function {function}")))?;
        let (address, quantity) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let fits = u32::from(address) + u32::from(quantity) <= 0x1_0000;
        if quantity == 0 || quantity > table.most() || !fits {
            return Err(DecodeError::new(3, "a quantity within the table", quantity.to_string()));
        }
        Ok(Self::Read { table, address, quantity })
    }

    /// The byte count that the answer must name.
    pub const fn answer_bytes(&self) -> u8 {
        match self {
            Self::Read { table, quantity, .. } => {
                let bytes = if table.is_bits() { quantity.div_ceil(8) } else { quantity.saturating_mul(2) };
                if bytes > 250 { 250 } else { bytes as u8 }
            }
        }
    }

    /// The length that the PDU of a regular answer must have; a refusal always has 2 bytes.
    pub const fn answer_length(&self) -> usize {
        match self {
            Self::Read { .. } => 2 + self.answer_bytes() as usize,
        }
    }

    /// Checks what is there of an answer PDU: the first byte that is wrong is told at once.
    ///
    /// # Errors
    /// When the function or byte count does not belong to this request.
    pub fn check_start(&self, pdu: &[u8]) -> Result<(), DecodeError> {
        let function = self.function();
        match pdu.first() {
            Some(&found) if found != function && found != function | REFUSED => {
                return Err(DecodeError::new(0, "the function of the request", format!("{found}, not {function}")));
            }
            Some(&found) if found & REFUSED != 0 => return Ok(()),
            _ => {}
        }
        match pdu.get(1) {
            Some(&found) if found != self.answer_bytes() => {
                let found = format!("{found}, not {}", self.answer_bytes());
                Err(DecodeError::new(1, "the byte count that was asked for", found))
            }
            _ => Ok(()),
        }
    }

    /// Reads a whole answer PDU.
    ///
    /// # Errors
    /// When function, byte count or length do not belong to this request.
    pub fn decode_answer(&self, pdu: &[u8]) -> Result<Answer, DecodeError> {
        self.check_start(pdu)?;
        match pdu {
            [function, code] if function & REFUSED != 0 => Ok(Answer::Refused(Exception(*code))),
            [function, _, data @ ..] if function & REFUSED == 0 && pdu.len() == self.answer_length() => {
                Ok(Answer::Data(data.to_vec()))
            }
            _ => Err(DecodeError::new(pdu.len(), "a PDU of the length asked for", format!("{} bytes", pdu.len()))),
        }
    }
}

/// The bit in the function code that marks a refusal (clause 7).
pub const REFUSED: u8 = 0x80;

/// A checked answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The bytes after the byte count.
    Data(Vec<u8>),
    /// The server refused.
    Refused(Exception),
}

impl Answer {
    /// Appends the PDU that answers `function` to `out`; data beyond 255 bytes is cut.
    pub fn encode(&self, function: u8, out: &mut Vec<u8>) {
        match self {
            Self::Data(data) => {
                let count = u8::try_from(data.len()).unwrap_or(u8::MAX);
                out.extend([function, count]);
                out.extend(data.iter().take(count.into()));
            }
            Self::Refused(Exception(code)) => out.extend([function | REFUSED, *code]),
        }
    }
}

/// An exception code (clause 7): why a server refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception(pub u8);

impl Exception {
    /// The address or the quantity is not one the server has: smaller requests may work.
    pub const fn is_about_range(self) -> bool {
        matches!(self.0, 2 | 3)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const READ_TWO: Request = Request::Read { table: Table::Input, address: 0, quantity: 2 };

    #[test]
    fn a_request_says_how_long_its_answer_must_be() {
        let mut pdu = Vec::new();
        READ_TWO.encode(&mut pdu);
        assert_eq!(pdu, [4, 0, 0, 0, 2]);
        assert_eq!(READ_TWO.answer_length(), 6);
        let coils = Request::Read { table: Table::Coil, address: 5, quantity: 9 };
        assert_eq!((coils.answer_bytes(), coils.answer_length()), (2, 4));
    }

    #[test]
    fn an_answer_of_another_length_or_function_is_refused() {
        assert_eq!(READ_TWO.decode_answer(&[4, 4, 1, 2, 3, 4]), Ok(Answer::Data(vec![1, 2, 3, 4])));
        assert_eq!(READ_TWO.decode_answer(&[0x84, 2]), Ok(Answer::Refused(Exception(2))));
        for wrong in [&[4, 2, 1, 2][..], &[3, 4, 1, 2, 3, 4], &[4, 4, 1, 2, 3], &[0x83, 2], &[0x84], &[]] {
            assert!(READ_TWO.decode_answer(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_request_beyond_the_table_is_refused() {
        for wrong in [[4, 0, 0, 0, 0], [4, 0, 0, 0, 126], [4, 0xFF, 0xFF, 0, 2], [7, 0, 0, 0, 1]] {
            assert!(Request::decode(&wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(request) = Request::decode(&bytes) {
                let mut again = Vec::new();
                request.encode(&mut again);
                prop_assert_eq!(&again, &bytes);
            }
            if let Ok(answer) = READ_TWO.decode_answer(&bytes) {
                let mut again = Vec::new();
                answer.encode(4, &mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
