//! The fixed data structure of old meters (EN 13757-3:2004, CI = 73; withdrawn since).

use super::data::{self, Number};
use super::record::Record;
use crate::model::Decimal;

/// The unit code for "as the first counter, but stored at a date".
const SAME_BUT_STORED: u8 = 0x3E;

/// The records of both counters; `binary` says that they are integers and not BCD.
pub(super) fn records(units: [u8; 2], first: [u8; 4], second: [u8; 4], binary: bool, stored: bool) -> Vec<Record> {
    let [one, two] = units.map(|unit| unit & 0x3F);
    let storage = u8::from(stored);
    let (two, two_storage) = if two == SAME_BUT_STORED { (one, 1) } else { (two, storage) };
    let counters = [record(one, first, binary, storage), record(two, second, binary, two_storage)];
    let [a, mut b] = counters;
    if a.name == b.name {
        b.name.push_str(":u1");
    }
    vec![a, b]
}

/// The medium as the device type of the variable structure: two bits of each unit byte.
pub(super) const fn medium(units: [u8; 2]) -> u8 {
    let [one, two] = units;
    (one >> 6) | ((two >> 6) << 2)
}

fn record(unit: u8, bytes: [u8; 4], binary: bool, storage: u8) -> Record {
    let number = if binary { data::integer(&bytes, true) } else { data::bcd(&bytes) };
    let (quantity, symbol, scale) = meaning(unit);
    let value = match number {
        Number::Exact(digits) => Decimal::new(1, scale).and_then(|one| digits.times(one)).ok().map(|d| d.to_string()),
        Number::Invalid => None,
    };
    let name = if storage > 0 { format!("{quantity}[{storage}]") } else { quantity.to_owned() };
    Record { name, value, unit: symbol.to_owned(), real: false }
}

/// Quantity, unit and power of ten of the six-bit unit codes.
fn meaning(unit: u8) -> (&'static str, &'static str, i32) {
    let code = i32::from(unit);
    match unit {
        0x02..=0x0A => ("energy", "Wh", code - 0x02),
        0x0B..=0x13 => ("energy", "J", code - 0x0B + 3),
        0x14..=0x1C => ("power", "W", code - 0x14),
        0x1D..=0x25 => ("power", "J/h", code - 0x1D + 3),
        0x26..=0x2E => ("volume", "m³", code - 0x26 - 6),
        0x2F..=0x37 => ("volume_flow", "m³/h", code - 0x2F - 6),
        0x38 => ("temperature", "°C", -3),
        0x39 => ("heat_cost", "", 0),
        _ => ("counter", "", 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_counters_get_their_units_and_a_stored_one_its_number() {
        let found = records([0x05, 0x69], [0x31, 0x65, 0, 0], [0x69, 0, 0, 0], false, false);
        let shown: Vec<_> = found.iter().map(|r| (r.name.as_str(), r.value.as_deref(), r.unit.as_str())).collect();
        assert_eq!(shown, [("energy", Some("6531000"), "Wh"), ("volume", Some("0.069"), "m³")]);
        let found = records([0xE9, 0x7E], [1, 0, 0, 0], [0xFF, 0xFF, 0xFF, 0xFF], true, false);
        let shown: Vec<_> = found.iter().map(|r| (r.name.as_str(), r.value.as_deref())).collect();
        assert_eq!(shown, [("volume", Some("0.001")), ("volume[1]", Some("-0.001"))]);
        assert_eq!((medium([0xE9, 0x7E]), medium([0x05, 0x69])), (7, 4));
    }
}
