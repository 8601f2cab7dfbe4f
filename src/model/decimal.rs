//! Exact decimal numbers: what a register holds times what its scale says, digit for digit.
//!
//! Billing values must not pass through a binary float; [`Decimal`] keeps an integer and a power
//! of ten. docs/decisions/0004-decimal.md says why it is ours.

use std::fmt;
use std::str::FromStr;

/// An exact decimal number: `digits * 10^exponent`, at most 38 digits.
#[derive(Debug, Clone, Copy)]
pub struct Decimal {
    digits: i128,
    exponent: i32,
}

/// Why a text or a float is no [`Decimal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// The text is not a number such as `-12.50` or `1e-3`.
    #[error("not a decimal number: write it like 0.1 or -12.50 or 1e-3")]
    Syntax,
    /// The number needs more than 38 digits or an exponent outside -9999..=9999.
    #[error("the number has more than 38 digits or an exponent beyond 9999")]
    Range,
    /// A float register held infinity or "not a number".
    #[error("the float is infinite or not a number")]
    NotFinite,
}

const EXPONENT_LIMIT: i32 = 9999;
/// Numbers longer than this many places are written with an exponent.
const PLAIN_PLACES: i32 = 40;

impl Decimal {
    /// Makes `digits * 10^exponent`.
    ///
    /// # Errors
    /// [`DecimalError::Range`] when the exponent is outside -9999..=9999.
    pub fn new(digits: i128, exponent: i32) -> Result<Self, DecimalError> {
        if (-EXPONENT_LIMIT..=EXPONENT_LIMIT).contains(&exponent) {
            Ok(Self { digits, exponent })
        } else {
            Err(DecimalError::Range)
        }
    }

    /// Takes the shortest decimal that reads back as the same `f32`, which is what a meter's
    /// display shows; 230.5 stays 230.5.
    ///
    /// # Errors
    /// [`DecimalError::NotFinite`] for infinities and NaN.
    pub fn from_f32(value: f32) -> Result<Self, DecimalError> {
        if value.is_finite() { format!("{value:e}").parse() } else { Err(DecimalError::NotFinite) }
    }

    /// Takes the shortest decimal that reads back as the same `f64`.
    ///
    /// # Errors
    /// [`DecimalError::NotFinite`] for infinities and NaN.
    pub fn from_f64(value: f64) -> Result<Self, DecimalError> {
        if value.is_finite() { format!("{value:e}").parse() } else { Err(DecimalError::NotFinite) }
    }

    /// Multiplies exactly.
    ///
    /// # Errors
    /// [`DecimalError::Range`] when the product does not fit.
    pub fn times(self, other: Self) -> Result<Self, DecimalError> {
        let digits = self.digits.checked_mul(other.digits).ok_or(DecimalError::Range)?;
        Self::new(digits, self.exponent.saturating_add(other.exponent))
    }

    /// Divides exactly; `None` when the quotient has no end within 18 more places, or there is none.
    pub fn divided_by(self, other: Self) -> Option<Self> {
        let shift = self.exponent.checked_sub(other.exponent)?;
        (0..=18).find_map(|places: i32| {
            let digits = self.digits.checked_mul(10i128.checked_pow(places.unsigned_abs())?)?;
            let whole = digits.checked_rem(other.digits)? == 0;
            let quotient = Self::new(digits.checked_div(other.digits)?, shift.checked_sub(places)?).ok()?;
            whole.then_some(quotient)
        })
    }

    /// Subtracts exactly.
    ///
    /// # Errors
    /// [`DecimalError::Range`] when the difference does not fit.
    pub fn minus(self, other: Self) -> Result<Self, DecimalError> {
        let digits = other.digits.checked_neg().ok_or(DecimalError::Range)?;
        self.plus(Self { digits, ..other })
    }

    /// Its text as a whole number, when it is one: 5, 5.00 and 50e-1 are "5".
    pub fn whole(self) -> Option<String> {
        let size = 10i128.checked_pow(self.exponent.unsigned_abs())?;
        let digits = match self.exponent {
            0.. => self.digits.checked_mul(size)?,
            _ if self.digits % size == 0 => self.digits / size,
            _ => return None,
        };
        Some(digits.to_string())
    }

    /// Adds exactly.
    ///
    /// # Errors
    /// [`DecimalError::Range`] when the sum does not fit.
    pub fn plus(self, other: Self) -> Result<Self, DecimalError> {
        let exponent = self.exponent.min(other.exponent);
        let align = |d: Self| -> Option<i128> {
            let shift = u32::try_from(d.exponent.saturating_sub(exponent)).ok()?;
            d.digits.checked_mul(10i128.checked_pow(shift)?)
        };
        let sum = align(self).zip(align(other)).and_then(|(a, b)| a.checked_add(b));
        Self::new(sum.ok_or(DecimalError::Range)?, exponent)
    }
}

impl From<u64> for Decimal {
    fn from(value: u64) -> Self {
        Self { digits: value.into(), exponent: 0 }
    }
}

impl From<i64> for Decimal {
    fn from(value: i64) -> Self {
        Self { digits: value.into(), exponent: 0 }
    }
}

impl PartialEq for Decimal {
    /// Compares the digits as written: 1.0 and 1.00 differ, as a meter's resolution does.
    fn eq(&self, other: &Self) -> bool {
        self.digits == other.digits && self.exponent == other.exponent
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;

    fn from_str(text: &str) -> Result<Self, DecimalError> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((m, e)) => (m, e.parse::<i32>().map_err(|_| DecimalError::Syntax)?),
            None => (text, 0),
        };
        let (negative, unsigned) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
        };
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
            return Err(DecimalError::Syntax);
        }
        let mut digits: i128 = 0;
        for byte in whole.bytes().chain(fraction.bytes()) {
            let digit = i128::from(byte.wrapping_sub(b'0'));
            digits = digits.checked_mul(10).and_then(|d| d.checked_add(digit)).ok_or(DecimalError::Range)?;
        }
        let places = i32::try_from(fraction.len()).map_err(|_| DecimalError::Range)?;
        Self::new(if negative { -digits } else { digits }, exponent.saturating_sub(places))
    }
}

impl fmt::Display for Decimal {
    /// Writes plain digits; with an exponent only where that would take more than 40 places.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.digits.unsigned_abs().to_string();
        let sign = if self.digits < 0 { "-" } else { "" };
        if !(-PLAIN_PLACES..=PLAIN_PLACES).contains(&self.exponent) {
            return write!(f, "{sign}{magnitude}e{}", self.exponent);
        }
        let places = usize::try_from(self.exponent.unsigned_abs()).unwrap_or(0);
        if self.exponent >= 0 {
            let zeros = if self.digits == 0 { 0 } else { places };
            return write!(f, "{sign}{magnitude}{}", "0".repeat(zeros));
        }
        let padded = format!("{magnitude:0>width$}", width = places + 1);
        let (whole, fraction) = padded.split_at(padded.len() - places);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn d(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn a_scaled_register_keeps_every_digit() {
        assert_eq!(Decimal::from(123_456u64).times(d("0.1")).unwrap().to_string(), "12345.6");
        assert_eq!(Decimal::from(5u64).times(d("0.001")).unwrap().to_string(), "0.005");
        assert_eq!(Decimal::from(u64::MAX).times(d("0.001")).unwrap().to_string(), "18446744073709551.615");
        assert_eq!(Decimal::from(-7i64).times(d("1000")).unwrap().to_string(), "-7000");
        assert_eq!(d("1.5").plus(d("-0.25")).unwrap().to_string(), "1.25");
    }

    #[test]
    fn what_was_scaled_can_be_scaled_back_exactly_or_not_at_all() {
        let over = |a: &str, b: &str| d(a).divided_by(d(b)).map(|q| q.to_string());
        assert_eq!(over("12.5", "0.1").as_deref(), Some("125"));
        assert_eq!(over("1", "8").as_deref(), Some("0.125"));
        assert_eq!(over("-7000", "1e3").as_deref(), Some("-7.000"));
        assert_eq!((over("1", "3"), over("1", "0")), (None, None));
        assert_eq!(d("1.5").minus(d("0.25")).unwrap().to_string(), "1.25");
        let whole: Vec<_> = ["5.00", "50e-1", "-3e2", "0.5"].iter().map(|t| d(t).whole()).collect();
        assert_eq!(whole, [Some("5".to_owned()), Some("5".to_owned()), Some("-300".to_owned()), None]);
    }

    #[test]
    fn a_float_register_shows_what_the_meter_shows() {
        assert_eq!(Decimal::from_f32(230.5).unwrap().to_string(), "230.5");
        assert_eq!(Decimal::from_f32(0.1).unwrap().to_string(), "0.1");
        assert_eq!(Decimal::from_f32(-1e-7).unwrap().to_string(), "-0.0000001");
        assert_eq!(Decimal::from_f32(f32::MAX).unwrap().to_string(), "340282350000000000000000000000000000000");
        assert_eq!(Decimal::from_f64(f64::MIN_POSITIVE).unwrap().to_string(), "22250738585072014e-324");
        assert_eq!(Decimal::from_f32(f32::NAN), Err(DecimalError::NotFinite));
    }

    #[test]
    fn bad_numbers_are_refused_with_their_reason() {
        for text in ["", ".", "-", "1,5", "0x10", "1e", "1 2", "--1"] {
            assert_eq!(text.parse::<Decimal>(), Err(DecimalError::Syntax), "{text}");
        }
        assert_eq!("9".repeat(40).parse::<Decimal>(), Err(DecimalError::Range));
        assert_eq!("1e99999".parse::<Decimal>(), Err(DecimalError::Range));
        assert_eq!(d("9e30").times(d("9e9990")), Err(DecimalError::Range));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,60}") {
            if let Ok(number) = text.parse::<Decimal>() {
                let printed = number.to_string();
                prop_assert_eq!(printed.parse::<Decimal>().unwrap().to_string(), printed);
            }
        }

        #[test]
        fn every_finite_float_survives_the_way_to_text(bits in any::<u32>()) {
            let float = f32::from_bits(bits);
            if float.is_finite() {
                let text = Decimal::from_f32(float).unwrap().to_string();
                prop_assert_eq!(text.parse::<f32>().unwrap(), float);
            }
        }
    }
}
