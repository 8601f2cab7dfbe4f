//! Values of pushes as text: numbers exactly, octets as characters where they are some, times as ISO 8601.

use std::fmt;

use data_encoding::HEXUPPER;

use super::entry::{Entry, Name, clock};
use super::notification::Node;
use super::{CodecError, CodecFault, CompactArray, Data, DateTime};
use crate::model::Decimal;
use crate::wire::unit;

impl fmt::Display for Name {
    /// `1-0:1.8.0*255`; an attribute that is not value or state with its number behind `#`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object { object, attribute: None } => write!(f, "{object}"),
            Self::Object { object, attribute: Some(attribute) } => write!(f, "{object}#attribute{attribute}"),
            Self::Place(number) => write!(f, "value-{number}"),
        }
    }
}

impl Entry<'_> {
    /// The value with its scaler applied; `None` when the meter has none, or a number beyond all bounds.
    pub fn text(&self) -> Option<String> {
        text(self.value, self.scaler)
    }

    /// Whether the meter says that it has no value.
    pub const fn is_null(&self) -> bool {
        matches!(self.value, Node::Leaf(Data::Null | Data::DontCare))
    }

    /// The unit as the standard spells it; empty for a number without one.
    pub const fn unit(&self) -> &'static str {
        unit::name(self.unit)
    }
}

/// A value as text.
pub fn text(node: &Node<'_>, scaler: i8) -> Option<String> {
    match node {
        Node::Leaf(data) => leaf(node, data, scaler),
        Node::Array(parts) | Node::Structure(parts) => {
            let parts: Vec<_> = parts.iter().map(|part| text(part, 0).unwrap_or_else(|| "null".to_owned())).collect();
            Some(format!("[{}]", parts.join(", ")))
        }
        Node::Descriptor(d) => Some(format!("{} (class {}, attribute {})", d.instance_id, d.class_id, d.attribute_id)),
    }
}

fn leaf(node: &Node<'_>, data: &Data<'_>, scaler: i8) -> Option<String> {
    let scaled = |number: i128| Decimal::new(number, scaler.into()).ok().map(|d| d.to_string());
    let float = |number: Result<Decimal, _>| {
        let ten = Decimal::new(1, scaler.into()).ok()?;
        number.ok()?.times(ten).ok().map(|d| d.to_string())
    };
    if let Some(number) = number(data) {
        return scaled(number);
    }
    match *data {
        Data::Null | Data::DontCare => None,
        Data::Boolean(truth) => Some(u8::from(truth).to_string()),
        Data::Float32(number) => float(Decimal::from_f32(number)),
        Data::Float64(number) => float(Decimal::from_f64(number)),
        Data::BitString(bits) => Some((0..bits.len()).map(|at| if bits.bit(at) { '1' } else { '0' }).collect()),
        Data::Date(date) => Some(date.to_string()),
        Data::Time(time) => Some(time.to_string()),
        Data::CompactArray(array) => Some(rows(&array).unwrap_or_else(|| HEXUPPER.encode(array.contents()))),
        Data::OctetString(octets) | Data::VisibleString(octets) | Data::Utf8String(octets) => {
            Some(clock(node).map_or_else(|| characters(octets), written))
        }
        Data::DateTime(time) => Some(written(time)),
        _ => None,
    }
}

/// The most characters for each byte of a compact array: values without bytes, such as arrays of null-data, could be
/// without number.
const WIDEST: usize = 32;

/// The rows of a compact array, as those of an array are written; `None` when they don't fit their description.
fn rows(array: &CompactArray<'_>) -> Option<String> {
    let longest = WIDEST * (1 + array.contents().len());
    let mut text = String::new();
    let mut before = None;
    let walked = array.for_each_leaf(|leaf| {
        text.push_str(match before {
            None => "[[",
            Some(row) if row == leaf.row => ", ",
            Some(_) => "], [",
        });
        before = Some(leaf.row);
        text.push_str(&self::text(&Node::Leaf(leaf.value), 0).unwrap_or_else(|| "null".to_owned()));
        if text.len() > longest { Err(CodecError::new(CodecFault::WorkExceeded, 0)) } else { Ok(()) }
    });
    walked.ok()?;
    text.push_str(if before.is_some() { "]]" } else { "[]" });
    Some(text)
}

/// A time as ISO 8601 writes it; `*` where the meter doesn't say.
pub fn written(time: DateTime) -> String {
    time.to_string()
}

/// A whole number; an enumeration is one.
fn number(data: &Data<'_>) -> Option<i128> {
    match *data {
        Data::Long64Unsigned(number) => Some(number.into()),
        Data::Bcd(_) => data.as_bcd().map(Into::into),
        _ => data.as_i64().map(Into::into),
    }
}

/// Printable octets as characters, without the NULs that fill a field up; others as hexadecimal digits.
fn characters(octets: &[u8]) -> String {
    let end = octets.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    let (text, filled) = octets.split_at(end);
    let printable = |b: &u8| matches!(b, b' '..=b'~');
    if !text.iter().all(printable) || (text.is_empty() && !filled.is_empty()) {
        return std::str::from_utf8(text)
            .ok()
            .filter(|text| !text.is_empty() && text.chars().all(|c| !c.is_control()) && !text.is_ascii())
            .map_or_else(|| HEXUPPER.encode(octets), str::to_owned);
    }
    String::from_utf8_lossy(text).into_owned()
}
