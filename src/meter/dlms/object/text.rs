//! A value as exact text.

use std::fmt::Write;

use super::time::{moment, time_text};
use crate::model::Decimal;
use crate::wire::dlms::Data;
use crate::wire::unit;

/// The longest text of a structured value.
const LONGEST: usize = 64 * 1024;

/// The power of ten and the unit of a register (IEC 62056-6-2, clause 4.3.2.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::meter::dlms) struct Scaler {
    /// The power of ten.
    pub(in crate::meter::dlms) power: i8,
    /// The code of the unit.
    pub(in crate::meter::dlms) unit: u8,
}

impl Scaler {
    /// Nothing to scale.
    pub(in crate::meter::dlms) const PLAIN: Self = Self { power: 0, unit: 255 };

    /// Reads an attribute scaler_unit.
    pub(in crate::meter::dlms) fn of(data: &Data<'_>) -> Option<Self> {
        let fields = data.as_structure()?;
        let (power, unit) = (fields.get(0).ok()?.as_i64()?, fields.get(1).ok()?.as_i64()?);
        Some(Self { power: power.try_into().ok()?, unit: unit.try_into().ok()? })
    }

    /// The unit as the standard spells it.
    pub(in crate::meter::dlms) const fn unit(self) -> &'static str {
        unit::name(self.unit)
    }

    /// The power of ten as a factor.
    pub(in crate::meter::dlms) fn factor(self) -> Decimal {
        Decimal::new(1, self.power.into()).unwrap_or_else(|_| Decimal::from(1u64))
    }
}

/// A number exactly as it is; `None` when the value is none.
pub(in crate::meter::dlms) fn number(data: &Data<'_>) -> Option<Decimal> {
    match *data {
        Data::Long64Unsigned(value) => Some(value.into()),
        Data::Float32(value) => Decimal::from_f32(value).ok(),
        Data::Float64(value) => Decimal::from_f64(value).ok(),
        Data::Bcd(_) => data.as_bcd().map(|digits| u64::from(digits).into()),
        // Not the delta types: they are no values of their own.
        _ if data.is_delta() => None,
        _ => data.as_i64().map(Decimal::from),
    }
}

/// The text of a register's value; numbers, also those of an array, are scaled exactly, everything else is as [`shown`].
pub(in crate::meter::dlms) fn scaled(data: &Data<'_>, scaler: Scaler) -> Option<String> {
    let times = |number: Decimal| number.times(scaler.factor()).ok().map(|scaled| scaled.to_string());
    match (number(data), data) {
        (Some(number), _) => times(number),
        (None, Data::Array(items)) if items.iter().all(|item| item.is_ok_and(|item| number(&item).is_some())) => {
            let texts = items.iter().map(|item| number(&item.ok()?).and_then(times));
            let text = format!("[{}]", texts.collect::<Option<Vec<_>>>()?.join(", "));
            (text.len() <= LONGEST).then_some(text)
        }
        _ => shown(data),
    }
}

/// The text of a value: numbers exactly, truth as 0 or 1, times readable, strings as they are, other bytes as hexadecimal
/// digits, structures in brackets. `None` for no value, and for one that would be longer than 64 KiB.
pub(in crate::meter::dlms) fn shown(data: &Data<'_>) -> Option<String> {
    let mut out = String::new();
    if matches!(data, Data::Null | Data::DontCare) {
        return None;
    }
    write_value(&mut out, data)?;
    Some(out)
}

fn write_value(out: &mut String, data: &Data<'_>) -> Option<()> {
    if out.len() > LONGEST {
        return None;
    }
    if let Some(number) = number(data) {
        return write!(out, "{number}").ok();
    }
    if let Some(moment) = moment(data).filter(|_| !is_printable(data)) {
        return write!(out, "{moment}").ok();
    }
    match *data {
        Data::Null => out.push('-'),
        Data::DontCare => out.push('*'),
        Data::Boolean(value) => out.push(if value { '1' } else { '0' }),
        Data::VisibleString(bytes) | Data::Utf8String(bytes) => out.push_str(&String::from_utf8_lossy(bytes)),
        Data::OctetString(bytes) if is_printable(data) => out.push_str(&String::from_utf8_lossy(bytes)),
        Data::OctetString(bytes) => out.push_str(&data_encoding::HEXLOWER.encode(bytes)),
        Data::BitString(bits) => out.extend((0..bits.len()).map(|n| if bits.bit(n) { '1' } else { '0' })),
        Data::Date(date) => write!(out, "{date}").ok()?,
        Data::Time(time) => out.push_str(&time_text(time)),
        Data::Array(items) | Data::Structure(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push_str(", ");
                }
                write_part(out, &item.ok()?)?;
            }
            out.push(']');
        }
        Data::CompactArray(items) => {
            let mut row = None;
            out.push('[');
            let walked = items.for_each_leaf(|leaf| {
                if row.is_some() {
                    out.push_str(if row == Some(leaf.row) { ", " } else { "], [" });
                } else {
                    out.push('[');
                }
                row = Some(leaf.row);
                let stop = || crate::wire::dlms::CodecError::new(crate::wire::dlms::CodecFault::WorkExceeded, 0);
                write_part(out, &leaf.value).ok_or_else(stop)
            });
            walked.ok()?;
            out.push_str(if row.is_some() { "]]" } else { "]" });
        }
        _ if data.is_delta() => write!(out, "{:+}", data.as_i64()?).ok()?,
        // A float that is no number.
        _ => out.push_str("NaN"),
    }
    (out.len() <= LONGEST).then_some(())
}

/// A part of a structure: six bytes are mostly a logical name there.
fn write_part(out: &mut String, data: &Data<'_>) -> Option<()> {
    match data.as_obis() {
        Some(name) if matches!(data, Data::OctetString([0..=15, .., 255])) => write!(out, "{name}").ok(),
        _ => write_value(out, data),
    }
}

/// Whether a string of bytes is a text for people.
fn is_printable(data: &Data<'_>) -> bool {
    data.as_bytes().is_some_and(|bytes| !bytes.is_empty() && bytes.iter().all(|b| (0x20..0x7F).contains(b)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::dlms::{DataBuf, decode, encode};

    fn of(value: &DataBuf) -> Option<String> {
        let bytes = encode(value).unwrap();
        shown(&decode::<Data<'_>>(&bytes).unwrap().0)
    }

    #[test]
    fn a_register_is_scaled_digit_for_digit() {
        let scale = |data: &Data<'_>, power| scaled(data, Scaler { power, unit: 30 }).unwrap();
        assert_eq!(scale(&Data::DoubleLongUnsigned(1_234_567), -1), "123456.7");
        assert_eq!(scale(&Data::Long64Unsigned(u64::MAX), -3), "18446744073709551.615");
        assert_eq!(scale(&Data::Long(-5), 3), "-5000");
        assert_eq!(scale(&Data::Float32(230.5), 0), "230.5");
        assert_eq!(scale(&Data::Bcd(0x25), 0), "25");
        let two = decode::<Data<'_>>(&[1, 2, 17, 7, 18, 1, 0]).unwrap().0;
        assert_eq!(scale(&two, -1), "[0.7, 25.6]");
        assert_eq!(Scaler::of(&decode::<Data<'_>>(&[2, 2, 15, 0xFF, 22, 30]).unwrap().0).unwrap().unit(), "Wh");
    }

    #[test]
    fn values_of_every_kind_have_a_text() {
        assert_eq!(of(&DataBuf::OctetString(b"GRX0000000000001".to_vec())).unwrap(), "GRX0000000000001");
        assert_eq!(of(&DataBuf::OctetString(vec![0, 1, 0xFE])).unwrap(), "0001fe");
        assert_eq!(of(&DataBuf::BitString { bits: 3, bytes: vec![0xA0] }).unwrap(), "101");
        assert_eq!(of(&DataBuf::Boolean(true)).unwrap(), "1");
        assert_eq!(of(&DataBuf::Null), None);
        let time = vec![0x07, 0xEA, 1, 15, 4, 12, 0, 0, 0, 0xFF, 0xC4, 0];
        assert_eq!(of(&DataBuf::OctetString(time)).unwrap(), "2026-01-15T12:00:00+01:00");
        let nested = DataBuf::Structure(vec![DataBuf::Unsigned(1), DataBuf::Array(vec![DataBuf::Null])]);
        assert_eq!(of(&nested).unwrap(), "[1, [-]]");
        // Two rows of (unsigned, long-unsigned).
        let compact = decode::<Data<'_>>(&[19, 2, 2, 17, 18, 6, 1, 0, 2, 3, 0, 4]).unwrap().0;
        assert_eq!(shown(&compact).unwrap(), "[[1, 2], [3, 4]]");
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_text_of_bounded_length(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok((data, _)) = decode::<Data<'_>>(&bytes) {
                let _ = shown(&data).is_none_or(|text| text.len() <= LONGEST);
                let _ = scaled(&data, Scaler { power: i8::MIN, unit: 0 });
            }
        }
    }
}
