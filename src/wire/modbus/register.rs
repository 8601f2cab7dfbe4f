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
    /// So many characters, two in a register.
    Text(u16),
}

/// How registers make a value, written `f32` or `f32-swapped`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coding {
    kind: Kind,
    swapped: bool,
}

/// What registers hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A number.
    Number(Decimal),
    /// A text, without the blanks and NULs at its end.
    Text(String),
}

const KINDS: [(&str, Kind); 11] = [
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
];

impl FromStr for Coding {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const KNOWN: &str = "known are u16 i16 u32 i32 u64 i64 f32 f64 bool bcd16 bcd32 and string:N (N characters, \
                             1 to 250), with -swapped where the low word comes first";
        let (word, swapped) = text.strip_suffix("-swapped").map_or((text, false), |w| (w, true));
        let kind = match word.strip_prefix("string:") {
            Some(count) => Kind::Text(count.parse().ok().filter(|n| (1..=250).contains(n)).ok_or(KNOWN)?),
            None => KINDS.iter().find(|(name, _)| *name == word).ok_or(KNOWN)?.1,
        };
        let coding = Self { kind, swapped };
        if swapped && coding.registers() == 1 {
            return Err("it is a single register, so there is no word order to swap; leave -swapped away");
        }
        Ok(coding)
    }
}

impl Coding {
    /// How many registers (or bits of a bit table) it takes.
    pub const fn registers(self) -> u16 {
        match self.kind {
            Kind::U16 | Kind::I16 | Kind::Bool | Kind::Bcd16 => 1,
            Kind::U32 | Kind::I32 | Kind::F32 | Kind::Bcd32 => 2,
            Kind::U64 | Kind::I64 | Kind::F64 => 4,
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

    /// Reads the value; a truth value is 0 or 1. `None` when the registers hold no value of this
    /// coding: not a number, infinite, a digit above 9 in BCD, no printable text, too few words.
    pub fn decode(self, words: &[u16]) -> Option<Content> {
        let words = words.get(..usize::from(self.registers()))?;
        let bytes: Vec<u8> = if self.swapped {
            words.iter().rev().flat_map(|w| w.to_be_bytes()).collect()
        } else {
            words.iter().flat_map(|w| w.to_be_bytes()).collect()
        };
        // Sign extension of a short integer: its own width decides, not the 64 bits below.
        let unsigned = bytes.iter().take(8).fold(0u64, |n, b| n << 8 | u64::from(*b));
        let spare = 64u32.saturating_sub(8 * u32::try_from(bytes.len()).ok()?);
        let number = match self.kind {
            Kind::U16 | Kind::U32 | Kind::U64 => Decimal::from(unsigned),
            Kind::I16 | Kind::I32 | Kind::I64 => Decimal::from((unsigned << spare).cast_signed() >> spare),
            Kind::F32 => Decimal::from_f32(f32::from_bits(u32::try_from(unsigned).ok()?)).ok()?,
            Kind::F64 => Decimal::from_f64(f64::from_bits(unsigned)).ok()?,
            Kind::Bool => Decimal::from(u64::from(unsigned != 0)),
            Kind::Bcd16 | Kind::Bcd32 => Decimal::from(bcd(&bytes)?),
            Kind::Text(characters) => return text(bytes.get(..usize::from(characters))?).map(Content::Text),
        };
        Some(Content::Number(number))
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Text(characters) => write!(f, "string:{characters}")?,
            kind => f.write_str(KINDS.iter().find(|(_, k)| *k == kind).map_or("", |(name, _)| name))?,
        }
        f.write_str(if self.swapped { "-swapped" } else { "" })
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(coding: &str, words: &[u16]) -> Option<String> {
        let content = coding.parse::<Coding>().unwrap().decode(words)?;
        Some(content.scaled(Decimal::from(1u64), Decimal::from(0u64)).unwrap())
    }

    #[test]
    fn every_coding_reads_its_registers_exactly() {
        let cases: [(&str, &[u16], &str); 16] = [
            ("u16", &[0xFFFF], "65535"),
            ("i16", &[0xFFFE], "-2"),
            ("u32", &[0x0001, 0x0002], "65538"),
            ("u32-swapped", &[0x0002, 0x0001], "65538"),
            ("i32", &[0xFFFF, 0xFFFF], "-1"),
            ("u64", &[0xFFFF; 4], "18446744073709551615"),
            ("i64", &[0x8000, 0, 0, 0], "-9223372036854775808"),
            ("f32", &[0x4366, 0x8000], "230.5"),
            ("f32-swapped", &[0x8000, 0x4366], "230.5"),
            ("f64", &[0x406C, 0xD000, 0, 0], "230.5"),
            ("f64-swapped", &[0, 0, 0xD000, 0x406C], "230.5"),
            ("bool", &[7], "1"),
            ("bcd16", &[0x1234], "1234"),
            ("bcd32", &[0x0012, 0x3456], "123456"),
            ("string:5", &[0x4142, 0x4344, 0x4500], "ABCDE"),
            ("string:4", &[0x4142, 0x2000], "AB"),
        ];
        for (coding, words, value) in cases {
            assert_eq!(read(coding, words).as_deref(), Some(value), "{coding}");
            assert_eq!(coding.parse::<Coding>().unwrap().to_string(), coding);
        }
    }

    #[test]
    fn what_is_no_value_is_none() {
        assert_eq!(read("f32", &[0x7FC0, 0]), None);
        assert_eq!(read("f32", &[0xFF80, 0]), None);
        assert_eq!(read("f64", &[0x7FF0, 0, 0, 0]), None);
        assert_eq!(read("bcd16", &[0x123A]), None);
        assert_eq!(read("string:2", &[0x0141]), None);
        assert_eq!(read("u32", &[1]), None);
    }

    #[test]
    fn scale_and_offset_are_exact() {
        let raw = "u32".parse::<Coding>().unwrap().decode(&[0, 12345]).unwrap();
        let scaled = raw.scaled("0.001".parse().unwrap(), "-0.1".parse().unwrap());
        assert_eq!(scaled.unwrap(), "12.245");
        let raw = "f64".parse::<Coding>().unwrap().decode(&[0x7FEF, 0xFFFF, 0xFFFF, 0xFFFF]).unwrap();
        assert!(raw.scaled(Decimal::from(1u64), Decimal::from(0u64)).is_ok());
    }

    #[test]
    fn registers_and_codings_are_read_or_refused_with_a_hint() {
        assert_eq!("holding:100".parse::<Register>().unwrap().to_string(), "holding:100");
        for wrong in ["input", "input:", "input:65536", "input:-1", "input:+1", "register:0", "Input:0", ":3"] {
            assert!(wrong.parse::<Register>().is_err(), "{wrong}");
        }
        for wrong in ["f16", "string", "string:0", "string:251", "u16-swapped", "swapped", ""] {
            assert!(wrong.parse::<Coding>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_swapped_coding_is_the_coding_of_the_reversed_words(words in prop::collection::vec(any::<u16>(), 4)) {
            for name in ["u32", "i32", "u64", "i64", "f32", "f64", "bcd32"] {
                let plain = name.parse::<Coding>().unwrap();
                let used = &words[..plain.registers().into()];
                let reversed: Vec<u16> = used.iter().rev().copied().collect();
                let swapped = format!("{name}-swapped").parse::<Coding>().unwrap();
                prop_assert_eq!(plain.decode(used), swapped.decode(&reversed));
            }
        }

        #[test]
        fn integers_and_floats_survive(number in any::<i64>(), float in any::<f32>()) {
            let words: Vec<u16> = number.to_be_bytes().chunks(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect();
            prop_assert_eq!(read("i64", &words), Some(number.to_string()));
            let bits = float.to_bits();
            let text = read("f32", &[(bits >> 16) as u16, bits as u16]);
            prop_assert_eq!(text.map(|t| t.parse::<f32>().unwrap()), float.is_finite().then_some(float));
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,30}") {
            let _ = text.parse::<Register>();
            let _ = text.parse::<Coding>();
        }
    }
}
