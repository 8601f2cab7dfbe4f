//! Registers by name and the values they hold, digit for digit.

use std::fmt;
use std::str::FromStr;

use super::Table;
use crate::model::{Decimal, DecimalError};

/// An entry of a table, written `input:0`; addresses count from 0 as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Register {
    /// The table.
    pub table: Table,
    /// The address of its first register or bit.
    pub address: u16,
}

impl FromStr for Register {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "write input:0, holding:100, coil:3 or discrete:7, with an address from 0 to 65535";
        let (word, number) = text.split_once(':').ok_or(FORM)?;
        let tables = [Table::Coil, Table::Discrete, Table::Holding, Table::Input];
        let table = tables.into_iter().find(|t| t.word() == word).ok_or(FORM)?;
        // A leading + would pass u16's own reader.
        let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let address = number.parse().ok().filter(|_| plain).ok_or(FORM)?;
        Ok(Self { table, address })
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.table.word(), self.address)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    Bool,
    Bcd16,
    Bcd32,
    Bcd64,
    /// So many characters, two in a register.
    Text(u16),
}

/// The order in which the bytes of a value come, A being the highest of four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// ABCD.
    Plain,
    /// CDAB: low word first.
    Words,
    /// BADC: low byte of each word first.
    Bytes,
    /// DCBA: everything from the low end.
    Both,
}

const ORDERS: [(&str, Order); 3] =
    [("-bytes-swapped", Order::Bytes), ("-swapped", Order::Words), ("-reversed", Order::Both)];

/// How registers make a value, written `f32`, `f32-swapped` (low word first), `f32-bytes-swapped`
/// (low byte first in each word) or `f32-reversed` (both).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coding {
    kind: Kind,
    order: Order,
}

/// A field of bits, written `4..7`, or `3` for a single one; bit 0 is the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits {
    first: u8,
    last: u8,
}

impl Bits {
    /// The field's own number.
    pub fn of(self, number: u64) -> u64 {
        let width = u32::from(self.last - self.first) + 1;
        number >> self.first & (u64::MAX >> (64 - width.min(64)))
    }

    /// `number` with `field` in this place; `None` when it is too large.
    pub fn put(self, number: u64, field: u64) -> Option<u64> {
        let mask = self.of(u64::MAX) << self.first;
        (self.of(field << self.first) == field).then_some(number & !mask | field << self.first)
    }

    /// The number of its highest bit.
    pub const fn last(self) -> u8 {
        self.last
    }
}

impl FromStr for Bits {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "write \"4..7\" for bits 4 to 7 or \"3\" for one, counting from 0, the lowest, to 63";
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let number = |t: &str| t.parse().ok().filter(|n| *n < 64 && t.bytes().all(|b| b.is_ascii_digit()));
        let (first, last) = number(first).zip(number(last)).ok_or(FORM)?;
        if first <= last { Ok(Self { first, last }) } else { Err(FORM) }
    }
}

/// What registers hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A number.
    Number(Decimal),
    /// A text, without the blanks and NULs at its end.
    Text(String),
}

const KINDS: [(&str, Kind); 12] = [
    ("u16", Kind::U16),
    ("i16", Kind::I16),
    ("u32", Kind::U32),
    ("i32", Kind::I32),
    ("u64", Kind::U64),
    ("i64", Kind::I64),
    ("f32", Kind::F32),
    ("f64", Kind::F64),
    ("bool", Kind::Bool),
    ("bcd16", Kind::Bcd16),
    ("bcd32", Kind::Bcd32),
    ("bcd64", Kind::Bcd64),
];

impl FromStr for Coding {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const KNOWN: &str = "known are u16 i16 u32 i32 u64 i64 f32 f64 bool bcd16 bcd32 bcd64 and string:N (N \
                             characters, 1 to 250), with -swapped where the low word comes first, -bytes-swapped \
                             where each word has its low byte first, -reversed for both";
        let found = ORDERS.iter().find_map(|(end, order)| Some((text.strip_suffix(end)?, *order)));
        let (word, order) = found.unwrap_or((text, Order::Plain));
        let kind = match word.strip_prefix("string:") {
            Some(count) => Kind::Text(count.parse().ok().filter(|n| (1..=250).contains(n)).ok_or(KNOWN)?),
            None => KINDS.iter().find(|(name, _)| *name == word).ok_or(KNOWN)?.1,
        };
        let coding = Self { kind, order };
        if matches!(order, Order::Words | Order::Both) && coding.registers() == 1 {
            return Err("it is a single register, so there is no word order to swap; leave -swapped away");
        }
        Ok(coding)
    }
}

impl Coding {
    /// One unsigned register.
    pub const U16: Self = Self { kind: Kind::U16, order: Order::Plain };
    /// One signed register.
    pub const I16: Self = Self { kind: Kind::I16, order: Order::Plain };
    /// One truth value.
    pub const BOOL: Self = Self { kind: Kind::Bool, order: Order::Plain };

    /// How many registers (or bits of a bit table) it takes.
    pub const fn registers(self) -> u16 {
        match self.kind {
            Kind::U16 | Kind::I16 | Kind::Bool | Kind::Bcd16 => 1,
            Kind::U32 | Kind::I32 | Kind::F32 | Kind::Bcd32 => 2,
            Kind::U64 | Kind::I64 | Kind::F64 | Kind::Bcd64 => 4,
            Kind::Text(characters) => characters.div_ceil(2),
        }
    }

    /// Whether it is a single truth value, the only coding a bit table has.
    pub const fn is_bool(self) -> bool {
        matches!(self.kind, Kind::Bool)
    }

    /// Whether it is a text, which takes no scale.
    pub const fn is_text(self) -> bool {
        matches!(self.kind, Kind::Text(_))
    }

    /// Whether it is an unsigned integer, whose bits can be told apart.
    pub const fn is_unsigned(self) -> bool {
        matches!(self.kind, Kind::U16 | Kind::U32 | Kind::U64)
    }

    /// Whether it is an integer.
    pub const fn is_integer(self) -> bool {
        self.is_unsigned() || matches!(self.kind, Kind::I16 | Kind::I32 | Kind::I64)
    }

    /// The bytes of its words from the highest to the lowest; its own inverse.
    fn ordered(self, words: &[u16]) -> Vec<u8> {
        let bytes = |word: u16| match self.order {
            Order::Plain | Order::Words => word.to_be_bytes(),
            Order::Bytes | Order::Both => word.to_le_bytes(),
        };
        match self.order {
            Order::Plain | Order::Bytes => words.iter().flat_map(|w| bytes(*w)).collect(),
            Order::Words | Order::Both => words.iter().rev().flat_map(|w| bytes(*w)).collect(),
        }
    }

    /// Its registers as one unsigned number, whatever they hold, for bits and for the numbers that
    /// mean "not available". `None` for texts and when there are too few words.
    pub fn raw(self, words: &[u16]) -> Option<u64> {
        let words = words.get(..usize::from(self.registers()))?;
        let number = || self.ordered(words).iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        (!self.is_text()).then(number)
    }

    /// Reads the value; a truth value is 0 or 1. `None` when the registers hold no value of this
    /// coding: not a number, infinite, a digit above 9 in BCD, no printable text, too few words.
    pub fn decode(self, words: &[u16]) -> Option<Content> {
        let words = words.get(..usize::from(self.registers()))?;
        let bytes = self.ordered(words);
        // Sign extension of a short integer: its own width decides, not the 64 bits below.
        let unsigned = bytes.iter().take(8).fold(0u64, |n, b| n << 8 | u64::from(*b));
        let spare = 64u32.saturating_sub(8 * u32::try_from(bytes.len()).ok()?);
        let number = match self.kind {
            Kind::U16 | Kind::U32 | Kind::U64 => Decimal::from(unsigned),
            Kind::I16 | Kind::I32 | Kind::I64 => Decimal::from((unsigned << spare).cast_signed() >> spare),
            Kind::F32 => Decimal::from_f32(f32::from_bits(u32::try_from(unsigned).ok()?)).ok()?,
            Kind::F64 => Decimal::from_f64(f64::from_bits(unsigned)).ok()?,
            Kind::Bool => Decimal::from(u64::from(unsigned != 0)),
            Kind::Bcd16 | Kind::Bcd32 | Kind::Bcd64 => Decimal::from(bcd(&bytes)?),
            Kind::Text(characters) => return text(bytes.get(..usize::from(characters))?).map(Content::Text),
        };
        Some(Content::Number(number))
    }

    /// The words that hold `text`, a number or a text of this coding; a float is the nearest there
    /// is. `None` when it does not fit.
    pub fn encode(self, text: &str) -> Option<Vec<u16>> {
        let bytes: Vec<u8> = match self.kind {
            Kind::U16 => text.parse::<u16>().ok()?.to_be_bytes().to_vec(),
            Kind::I16 => text.parse::<i16>().ok()?.to_be_bytes().to_vec(),
            Kind::U32 => text.parse::<u32>().ok()?.to_be_bytes().to_vec(),
            Kind::I32 => text.parse::<i32>().ok()?.to_be_bytes().to_vec(),
            Kind::U64 => text.parse::<u64>().ok()?.to_be_bytes().to_vec(),
            Kind::I64 => text.parse::<i64>().ok()?.to_be_bytes().to_vec(),
            Kind::F32 => text.parse::<f32>().ok().filter(|f| f.is_finite())?.to_be_bytes().to_vec(),
            Kind::F64 => text.parse::<f64>().ok().filter(|f| f.is_finite())?.to_be_bytes().to_vec(),
            Kind::Bool => u16::from(text.parse::<u8>().ok().filter(|b| *b < 2)?).to_be_bytes().to_vec(),
            Kind::Bcd16 | Kind::Bcd32 | Kind::Bcd64 => {
                let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                let digits = usize::from(self.registers()) * 4;
                let padded = format!("{text:0>digits$}");
                let number =
                    (plain && text.len() <= digits).then(|| u64::from_str_radix(&padded, 16).ok()).flatten()?;
                number.to_be_bytes().get(8 - digits / 2..)?.to_vec()
            }
            Kind::Text(characters) => {
                let room = usize::from(self.registers()) * 2;
                let fits = text.len() <= usize::from(characters) && !text.chars().any(char::is_control);
                fits.then(|| text.bytes().chain(std::iter::repeat(0)).take(room).collect())?
            }
        };
        let (pairs, _) = bytes.as_chunks();
        let words: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
        let ordered = self.ordered(&words);
        let (pairs, _) = ordered.as_chunks();
        Some(pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Text(characters) => write!(f, "string:{characters}")?,
            kind => f.write_str(KINDS.iter().find(|(_, k)| *k == kind).map_or("", |(name, _)| name))?,
        }
        f.write_str(ORDERS.iter().find(|(_, order)| *order == self.order).map_or("", |(end, _)| end))
    }
}

impl Content {
    /// The exact text of the value times `scale` plus `offset`; a text stays as it is.
    ///
    /// # Errors
    /// [`DecimalError::Range`] when the result has too many digits.
    pub fn scaled(self, scale: Decimal, offset: Decimal) -> Result<String, DecimalError> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Number(number) => {
                let product = number.times(scale)?;
                // Adding nothing must not cost digits: f64 reaches further than the sum does.
                let sum = if offset == Decimal::from(0u64) { product } else { product.plus(offset)? };
                Ok(sum.to_string())
            }
        }
    }
}

fn bcd(bytes: &[u8]) -> Option<u64> {
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).try_fold(0u64, |n, digit| {
        let digit = Some(digit).filter(|d| *d <= 9)?;
        n.checked_mul(10)?.checked_add(digit.into())
    })
}

fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches(['\0', ' ']);
    (!text.chars().any(char::is_control)).then(|| text.to_owned())
}

#[cfg(test)]
#[path = "register_tests.rs"]
mod tests;
