//! The records of real telegrams as weir reads them against those that the application layer of m-bus-parser reads
//! (m-bus-application-layer; docs/decisions/0011-m-bus.md): how many there are, values, units. Every disagreement must be one that is known, with who is right.
//! The telegrams are test data kept outside the project; where they are missing the test says so and passes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may fail loudly, and says when its data is missing"
)]

use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use m_bus_application_layer::data_information::{DataType, SingleEveryOrInvalid as Part, TextUnit};
use m_bus_application_layer::data_record::DataRecord;
use m_bus_application_layer::value_information::{UnitName, ValueInformation};
use m_bus_application_layer::{DataRecords, parse_application_layer};
use serde_json::Value as Json;
use weir::wire::mbus::Record;
use weir::wire::wmbus::{Formats, How, Keys, LINK_HEADER, decode, records};

fn corpus() -> Vec<(Vec<u8>, Keys)> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let places = [std::env::var_os("WEIR_DATA").map(PathBuf::from), Some(beside), Some("/work/shared/data".into())];
    let found =
        places.into_iter().flatten().map(|place| place.join("wmbus/telegrams.jsonl")).find(|file| file.exists());
    let Some(file) = found else {
        eprintln!("note: wmbus/telegrams.jsonl is not there (set WEIR_DATA to its directory); nothing was compared");
        return Vec::new();
    };
    let read = |line: &str| {
        let entry: Json = serde_json::from_str(line).unwrap();
        let key = entry["key"].as_str().filter(|_| entry["decrypts"] == true).and_then(Keys::key);
        (hex(entry["telegram"].as_str().unwrap()), key.map_or_else(Keys::none, Keys::for_any))
    };
    fs::read_to_string(file).unwrap().lines().map(read).collect()
}

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap()
}

/// Their records, when they read all of them.
fn theirs(body: &[u8]) -> Option<Vec<DataRecord<'_>>> {
    DataRecords::new(body, None).collect::<Result<Vec<_>, _>>().ok()
}

fn number(value: f64, meaning: &ValueInformation<'_>) -> f64 {
    let scale = i32::try_from(meaning.decimal_scale_exponent).unwrap();
    let offset = i32::try_from(meaning.decimal_offset_exponent).unwrap();
    let scaled = if scale < 0 { value / 10_f64.powi(-scale) } else { value * 10_f64.powi(scale) };
    if offset == 0 { scaled } else { scaled + 10_f64.powi(offset) }
}

fn part<T: ToString>(part: &Part<T>) -> String {
    match part {
        Part::Single(value) => format!("{:0>2}", value.to_string()),
        Part::Every() => "every".to_owned(),
        _ => "invalid".to_owned(),
    }
}

fn date<D: ToString, M: Clone, Y: ToString>(
    day: &Part<D>,
    month: &Part<M>,
    year: &Part<Y>,
    number: fn(M) -> u8,
) -> String {
    let month = match month {
        Part::Single(month) => Part::Single(number(month.clone())),
        Part::Every() => Part::Every(),
        _ => Part::Invalid(),
    };
    format!("{}-{}-{}", part(year), part(&month), part(day))
}

/// What theirs says, in weir's words; `None` when it says that there is no value.
fn value(record: &DataRecord<'_>) -> Option<String> {
    let meaning = record.value_information();
    let month = |month| month as u8 + 1;
    Some(match record.value()? {
        DataType::Number(value) | DataType::LossyNumber(value) => {
            meaning.map_or(*value, |meaning| number(*value, meaning)).to_string()
        }
        DataType::Date(d, m, y) => date(d, m, y, month),
        DataType::DateTime(d, m, y, hour, minute) => {
            format!("{}T{}:{}", date(d, m, y, month), part(hour), part(minute))
        }
        DataType::DateTimeWithSeconds(d, m, y, hour, minute, second) => {
            format!("{}T{}:{}:{}", date(d, m, y, month), part(hour), part(minute), part(second))
        }
        DataType::Time(second, minute, hour) => format!("{}:{}:{}", part(hour), part(minute), part(second)),
        DataType::ManufacturerSpecific(bytes) => HEXLOWER.encode(bytes),
        other => format!("{other:?}"),
    })
}

/// Their units in the symbols of the SI.
fn unit(meaning: &ValueInformation<'_>) -> String {
    let (mut above, mut below) = (String::new(), String::new());
    for unit in meaning.units() {
        let symbol = match unit.name {
            UnitName::Watt => "W",
            UnitName::Joul => "J",
            UnitName::Meter => "m",
            UnitName::Celsius => "°C",
            UnitName::Kelvin => "K",
            UnitName::Bar => "bar",
            UnitName::Second => "s",
            UnitName::Minute => "min",
            UnitName::Hour => "h",
            UnitName::Day => "d",
            UnitName::Month => "month",
            UnitName::Year => "a",
            UnitName::Liter => "l",
            UnitName::Volt => "V",
            UnitName::Ampere => "A",
            UnitName::Percent => "%",
            UnitName::Hertz => "Hz",
            UnitName::DecibelMilliWatt => "dBm",
            UnitName::ReactiveWatt => "var",
            UnitName::ApparentWatt => "VA",
            _ => "",
        };
        let power = ["", "", "²", "³"][unit.exponent.unsigned_abs() as usize];
        if unit.exponent < 0 { below += &format!("/{symbol}{power}") } else { above += &format!("{symbol}{power}") }
    }
    above + &below
}

/// A text, or bytes that are none.
fn is_text(ours: &str, theirs: &TextUnit<'_>) -> bool {
    let bytes = HEXLOWER_PERMISSIVE.decode(ours.as_bytes()).unwrap_or_default();
    *theirs == *ours || *theirs == TextUnit::new(&bytes)
}

/// What both say of a record when they disagree: weir, m-bus-parser, and the record.
fn disagreement(ours: &Record, theirs: &DataRecord<'_>) -> Option<[String; 3]> {
    let said = value(theirs);
    let same = match (&ours.value, theirs.value(), &said) {
        (Some(ours), Some(DataType::Text(theirs)), _) => is_text(ours, theirs),
        (Some(ours), _, Some(theirs)) => match (ours.parse::<f64>(), theirs.parse::<f64>()) {
            (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
            // A day of every year.
            _ => ours.eq_ignore_ascii_case(&theirs.replacen("every-", "--", 1)),
        },
        (ours, _, theirs) => ours.is_none() && theirs.is_none(),
    };
    let units = theirs.value_information().map_or_else(String::new, unit);
    let counted = ours.value.as_deref().is_some_and(|value| value.parse::<f64>().is_ok());
    if same && (!counted || ours.unit == units) {
        return None;
    }
    let said = said.unwrap_or_else(|| "no value".to_owned());
    let value = ours.value.clone().unwrap_or_else(|| "no value".to_owned());
    let record = format!("{} {}", HEXLOWER.encode(theirs.raw_bytes()), ours.name);
    Some([format!("{value} {}", ours.unit), format!("{said} {units}"), record])
}

/// Where they differ and weir is right, and why.
fn is_known([ours, theirs, record]: &[String; 3]) -> bool {
    // The 31st is a day like others; every day is day 0.
    let the_31st = ours.replace("-31T", "-everyT") == *theirs;
    // Month 0 or 15 is no month: there is no date.
    let no_date = ours.starts_with("no value") && theirs.contains("-invalid-");
    // A duration has the unit of time that its VIFE says, not one of the quantity's too.
    let duration = record.contains(":duration_of_") && ["s", "min", "h", "d"].iter().any(|unit| ours.ends_with(unit));
    // FD 31 is a time in minutes; the library takes it for a container without a unit.
    let tariff = record.contains(" duration_of_tariff") && *ours == format!("{theirs}min");
    the_31st || no_date || duration || tariff
}

#[test]
fn the_records_of_every_real_telegram_are_those_that_m_bus_parser_reads() {
    let (mut telegrams, mut compared, mut known, mut wrong) = (0, 0, 0, Vec::new());
    for (bytes, keys) in corpus() {
        let Ok(opened) = decode(&bytes).unwrap().open(&keys) else { continue };
        if !matches!(opened.ci, 0x72 | 0x78 | 0x7A) {
            continue;
        }
        let content = records(&opened, &mut Formats::default()).unwrap();
        let Some(theirs) = theirs(&opened.body) else {
            // One record that is no value (BCD digits above 9) ends their reading of it, not weir's.
            eprintln!("m-bus-parser does not read {}, weir: {:?}", HEXLOWER.encode(&bytes), content.fault);
            continue;
        };
        assert!(content.fault.is_none(), "only m-bus-parser reads {}", HEXLOWER.encode(&bytes));
        assert_eq!(content.values.len(), theirs.len(), "{}", HEXLOWER.encode(&bytes));
        telegrams += 1;
        for (ours, theirs) in content.values.iter().zip(&theirs) {
            compared += 1;
            match disagreement(&ours.record, theirs) {
                Some(told) if is_known(&told) => known += 1,
                Some(told) => wrong.push(told),
                None => {}
            }
        }
    }
    eprintln!("{telegrams} telegrams, {compared} records, {known} known disagreements");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(telegrams == 0 || (telegrams > 50 && compared > 400));
}

/// Where m-bus-parser finds the way to the records by itself, it finds the same body.
#[test]
fn clear_telegrams_have_the_same_body_by_both_ways() {
    let (mut same, mut other) = (0, Vec::new());
    for (bytes, _) in corpus() {
        let Ok(opened) = decode(&bytes).unwrap().open(&Keys::none()) else { continue };
        let Ok(theirs) = parse_application_layer(&bytes[LINK_HEADER..]) else { continue };
        let (Some(theirs), true) = (theirs.data_records(), opened.how == How::Clear) else { continue };
        let bytes_of = |records: DataRecords<'_>| -> Vec<u8> {
            records.flatten().flat_map(|record| record.raw_bytes().to_vec()).collect()
        };
        if bytes_of(theirs) == bytes_of(DataRecords::new(&opened.body, None)) {
            same += 1
        } else {
            other.push(HEXLOWER.encode(&bytes))
        }
    }
    eprintln!("{same} telegrams");
    assert!(other.is_empty(), "{other:#?}");
}
