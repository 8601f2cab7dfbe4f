//! What a person types, as a value of COSEM.

use super::text::{Scaler, number};
use super::time::octets;
use crate::model::Decimal;
use crate::wire::dlms::{ClockStatus, Data, DataBuf, DateTime, decode};

/// Reads `TYPE:VALUE` with the standard's names of types, such as "long-unsigned:230" or "octet-string:00ff".
///
/// # Errors
/// One sentence.
pub(in crate::meter::dlms) fn typed(text: &str) -> Result<DataBuf, String> {
    let Some((kind, value)) = text.split_once(':') else {
        return match text {
            "null-data" | "" => Ok(DataBuf::Null),
            _ => Err(format!("\"{text}\" has no type: write it like \"long-unsigned:230\" or \"octet-string:00ff\"")),
        };
    };
    let wrong = || format!("\"{value}\" is no {kind}");
    fn of<T: std::str::FromStr>(value: &str) -> Option<T> {
        value.trim().parse().ok()
    }
    let read = match kind.trim() {
        "boolean" => truth(value).map(DataBuf::Boolean),
        "integer" => of(value).map(DataBuf::Integer),
        "long" => of(value).map(DataBuf::Long),
        "double-long" => of(value).map(DataBuf::DoubleLong),
        "long64" => of(value).map(DataBuf::Long64),
        "unsigned" => of(value).map(DataBuf::Unsigned),
        "long-unsigned" => of(value).map(DataBuf::LongUnsigned),
        "double-long-unsigned" => of(value).map(DataBuf::DoubleLongUnsigned),
        "long64-unsigned" => of(value).map(DataBuf::Long64Unsigned),
        "enum" => of(value).map(DataBuf::Enum),
        "float32" => of(value).map(DataBuf::Float32),
        "float64" => of(value).map(DataBuf::Float64),
        "visible-string" => Some(DataBuf::VisibleString(value.as_bytes().to_vec())),
        "utf8-string" => Some(DataBuf::Utf8String(value.as_bytes().to_vec())),
        "octet-string" => hex(value).map(DataBuf::OctetString),
        "date-time" => date_time(value).map(octets),
        "bit-string" => bits(value),
        "coded" => hex(value).and_then(|bytes| match decode::<Data<'_>>(&bytes) {
            Ok((data, [])) => DataBuf::from_data(&data).ok(),
            _ => None,
        }),
        other => {
            return Err(format!(
                "\"{other}\" is no type: write double-long-unsigned, octet-string, enum, boolean, date-time or another of the standard's, or coded for A-XDR in hexadecimal digits"
            ));
        }
    };
    read.ok_or_else(wrong)
}

/// Reads a text as a value of the type that stands there now; a number is divided by the register's scaler.
///
/// # Errors
/// One sentence.
pub(in crate::meter::dlms) fn like(now: &Data<'_>, scaler: Scaler, text: &str) -> Result<DataBuf, String> {
    let kind = match now {
        Data::Boolean(_) => "boolean",
        Data::Integer(_) => "integer",
        Data::Long(_) => "long",
        Data::DoubleLong(_) => "double-long",
        Data::Long64(_) => "long64",
        Data::Unsigned(_) => "unsigned",
        Data::LongUnsigned(_) => "long-unsigned",
        Data::DoubleLongUnsigned(_) => "double-long-unsigned",
        Data::Long64Unsigned(_) => "long64-unsigned",
        Data::Enum(_) => "enum",
        Data::Float32(_) => "float32",
        Data::Float64(_) => "float64",
        Data::VisibleString(_) => "visible-string",
        Data::Utf8String(_) => "utf8-string",
        Data::BitString(_) => "bit-string",
        Data::DateTime(_) => {
            let time =
                date_time(text).ok_or_else(|| format!("\"{text}\" is no time such as 2026-01-15T12:00:00+01:00"))?;
            return Ok(DataBuf::DateTime(time));
        }
        Data::OctetString(bytes) if bytes.len() == 12 && date_time(text).is_some() => "date-time",
        Data::OctetString(bytes) => {
            // A text stays a text, bytes stay bytes.
            let plain = !bytes.is_empty() && bytes.iter().all(|b| (0x20..0x7F).contains(b));
            let value = if plain { Some(text.as_bytes().to_vec()) } else { hex(text) };
            return value.map(DataBuf::OctetString).ok_or_else(|| format!("\"{text}\" is not hexadecimal"));
        }
        _ => return typed(text).map_err(|error| format!("{error}; the attribute holds no plain value")),
    };
    if number(now).is_none() || matches!(now, Data::Float32(_) | Data::Float64(_)) && scaler.power == 0 {
        return typed(&format!("{kind}:{text}"));
    }
    let value: Decimal = text.trim().parse().map_err(|error| format!("\"{text}\": {error}"))?;
    let raw = value.divided_by(scaler.factor()).ok_or_else(|| format!("{text} is too long a number"))?;
    let raw = if kind.starts_with("float") { Some(raw.to_string()) } else { raw.whole() };
    let raw =
        raw.ok_or_else(|| format!("the meter keeps no such places: it counts in steps of {}", scaler.factor()))?;
    typed(&format!("{kind}:{raw}")).map_err(|_| format!("{text} does not fit into a {kind}"))
}

fn truth(text: &str) -> Option<bool> {
    match text.trim() {
        "1" | "true" | "on" | "yes" => Some(true),
        "0" | "false" | "off" | "no" => Some(false),
        _ => None,
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok()
}

fn bits(text: &str) -> Option<DataBuf> {
    let text = text.trim();
    if !text.bytes().all(|b| matches!(b, b'0' | b'1')) {
        return None;
    }
    let byte = |some: &[u8]| some.iter().enumerate().fold(0, |sum, (n, b)| sum | (u8::from(*b == b'1') << (7 - n)));
    Some(DataBuf::BitString { bits: text.len(), bytes: text.as_bytes().chunks(8).map(byte).collect() })
}

/// A time such as 2026-01-15T12:00:00+01:00.
fn date_time(text: &str) -> Option<DateTime> {
    let at = time::OffsetDateTime::parse(text.trim(), &time::format_description::well_known::Rfc3339).ok()?;
    let west = -i16::from(at.offset().whole_hours()) * 60 - i16::from(at.offset().minutes_past_hour());
    let utc = crate::model::Timestamp::from_millis(at.unix_timestamp().saturating_mul(1000));
    Some(super::time::coded(utc, Some(west), 0, ClockStatus(0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_typed_value_is_what_it_says() {
        assert_eq!(typed("long-unsigned:230"), Ok(DataBuf::LongUnsigned(230)));
        assert_eq!(typed("octet-string:00 ff"), Ok(DataBuf::OctetString(vec![0, 255])));
        assert_eq!(typed("bit-string:101"), Ok(DataBuf::BitString { bits: 3, bytes: vec![0xA0] }));
        assert_eq!(typed("coded:0f05"), Ok(DataBuf::Integer(5)));
        let time = vec![0x07, 0xEA, 1, 15, 4, 12, 0, 0, 0, 0xFF, 0xC4, 0];
        assert_eq!(typed("date-time:2026-01-15T12:00:00+01:00"), Ok(DataBuf::OctetString(time)));
        for bad in ["5", "integer:200", "boolean:maybe", "what:1", "coded:0f", "coded:0f0500", "octet-string:0"] {
            assert!(typed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_is_written_in_the_steps_of_the_register() {
        let tenths = Scaler { power: -1, unit: 35 };
        assert_eq!(like(&Data::LongUnsigned(0), tenths, "230.5"), Ok(DataBuf::LongUnsigned(2305)));
        assert!(like(&Data::LongUnsigned(0), tenths, "230.55").unwrap_err().contains("steps of 0.1"));
        assert!(like(&Data::LongUnsigned(0), tenths, "99999").unwrap_err().contains("does not fit"));
        assert_eq!(like(&Data::Boolean(false), Scaler::PLAIN, "on"), Ok(DataBuf::Boolean(true)));
        assert_eq!(like(&Data::OctetString(b"old"), Scaler::PLAIN, "new"), Ok(DataBuf::OctetString(b"new".to_vec())));
        assert_eq!(like(&Data::OctetString(&[0, 1]), Scaler::PLAIN, "00ff"), Ok(DataBuf::OctetString(vec![0, 255])));
        assert_eq!(like(&Data::Null, Scaler::PLAIN, "enum:1"), Ok(DataBuf::Enum(1)));
    }

    proptest! {
        #[test]
        fn any_text_is_a_value_or_refused(text in ".{0,40}", power in any::<i8>()) {
            let _ = (typed(&text), like(&Data::DoubleLong(0), Scaler { power, unit: 0 }, &text));
        }
    }
}
