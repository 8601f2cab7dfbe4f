//! From telegrams to values: the header first, then the records of all telegrams.

use std::collections::HashMap;

use crate::model::{Quality, Value};
use crate::wire::mbus::{Header, Telegram};

/// The values of a reading; with names wanted exactly those, in that order, and a missing one null
/// and refused.
pub(super) fn values(telegrams: &[Telegram], wanted: &[String]) -> Vec<Value> {
    let mut all = telegrams.iter().find_map(|telegram| telegram.header).map(header).unwrap_or_default();
    let mut count: HashMap<&str, usize> = HashMap::new();
    for record in telegrams.iter().flat_map(|telegram| &telegram.records) {
        let number = count.entry(&record.name).and_modify(|n| *n += 1).or_insert(1);
        let name = if *number == 1 { record.name.clone() } else { format!("{}#{number}", record.name) };
        let quality = if record.value.is_some() { Quality::Good } else { Quality::Invalid };
        all.push(Value { name, value: record.value.clone(), unit: record.unit.clone(), quality });
    }
    if wanted.is_empty() {
        return all;
    }
    let missing =
        |name: &String| Value { name: name.clone(), value: None, unit: String::new(), quality: Quality::Refused };
    wanted.iter().map(|name| all.iter().find(|v| v.name == *name).cloned().unwrap_or_else(|| missing(name))).collect()
}

/// Who the meter says it is.
fn header(header: Header) -> Vec<Value> {
    let meter = header.meter;
    let medium = meter.device_name().map_or_else(|| meter.device.to_string(), str::to_owned);
    let pairs = [
        ("meter_id", meter.number().to_uppercase()),
        ("meter_manufacturer", meter.letters()),
        ("meter_version", meter.version.to_string()),
        ("meter_medium", medium),
        ("access_number", header.access.to_string()),
        ("status", header.status.to_string()),
    ];
    let value = |(name, value): (&str, String)| Value {
        name: name.into(),
        value: Some(value),
        unit: String::new(),
        quality: Quality::Good,
    };
    pairs.into_iter().map(value).collect()
}
