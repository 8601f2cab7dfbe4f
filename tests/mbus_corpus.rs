//! Recorded answers of real meters (`../shared/data/libmbus`): every record must be what libmbus says,
//! and whatever is done to such an answer, no decoder panics or takes a damaged frame.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail loudly"
)]

use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::HEXUPPER;
use proptest::prelude::*;
use weir::wire::mbus::{self, Answer, Record, Telegram, answer};

struct Case {
    name: String,
    frame: Vec<u8>,
    expected: String,
}

fn folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let places = [std::env::var_os("WEIR_DATA").map(PathBuf::from), Some(beside), Some("/work/shared/data".into())];
    let found = places.into_iter().flatten().map(|place| place.join("libmbus")).find(|place| place.is_dir());
    if found.is_none() {
        println!("NOTE: no libmbus folder in WEIR_DATA or ../shared/data; the recorded answers were not checked");
    }
    found
}

fn cases() -> Vec<Case> {
    let Some(folder) = folder() else { return Vec::new() };
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.retain(|path| path.extension().is_some_and(|e| e == "hex"));
    assert!(paths.len() > 30);
    let case = |path: PathBuf| {
        let text: String = fs::read_to_string(&path).unwrap().to_uppercase().split_whitespace().collect();
        let expected = fs::read(path.with_extension("norm.xml")).unwrap();
        Case {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            frame: HEXUPPER.decode(text.as_bytes()).unwrap(),
            expected: String::from_utf8_lossy(&expected).into_owned(),
        }
    };
    paths.into_iter().map(case).collect()
}

fn telegram(frame: &[u8]) -> Telegram {
    match answer::decode(&mbus::decode(frame).unwrap()).unwrap() {
        Answer::Telegram(telegram) => telegram,
        other => panic!("{other:?}"),
    }
}

/// The text of the element `name` in `xml`.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once("</")?.0)
}

/// libmbus's normalised unit and the factor that leads to it from ours.
fn normalised(unit: &str) -> (&str, f64) {
    match unit {
        "min" => ("s", 60.0),
        "h" => ("s", 3600.0),
        "d" => ("s", 86_400.0),
        "m³" => ("m^3", 1.0),
        "m³/h" => ("m^3/h", 1.0),
        other => (other, 1.0),
    }
}

/// What our names begin with where libmbus has this quantity.
fn quantity(theirs: &str) -> &str {
    match theirs {
        "Energy" => "energy",
        "Power" => "power",
        "Volume" => "volume",
        "Volume flow" => "volume_flow",
        "Flow temperature" => "flow_temperature",
        "Return temperature" => "return_temperature",
        "Temperature difference" => "temperature_difference",
        "External temperature" => "external_temperature",
        "On time" => "on_time",
        "Operating time" => "operating_time",
        "Averaging Duration" => "averaging_duration",
        "Actuality Duration" => "actuality_duration",
        "Time point (date)" => "date",
        "Time point (date &amp; time)" => "date_time",
        "Fabrication No" => "fabrication_number",
        "H.C.A." => "heat_cost",
        "Voltage" => "voltage",
        "Current" => "current",
        "Customer location" => "customer_location",
        "Digital Input" => "digital_input",
        "Error flags" => "error_flags",
        "Firmware version" => "metrology_firmware_version",
        "Software version" => "other_software_version",
        "Model / Version" => "model",
        "Parameter set identification" => "parameter_set_identification",
        "Manufacturer specific" => "manufacturer",
        "Reserved" => "vif_",
        // A plain-text VIF is its own name.
        own => own,
    }
}

/// Storage, tariff and subunit of a name, as libmbus has them: absent means 0.
fn numbers(name: &str) -> [String; 3] {
    let storage = name.split_once('[').map_or("0", |(_, rest)| rest.split_once(']').unwrap().0);
    let tail = |mark: &str| {
        let parts = name.split(':').skip(1);
        let mut found = parts.filter_map(|part| part.strip_prefix(mark)).filter(|n| n.parse::<u32>().is_ok());
        found.next().unwrap_or("0").to_owned()
    };
    [storage.to_owned(), tail("t"), tail("u")]
}

fn function(name: &str) -> &'static str {
    let has = |word: &str| name.split(':').skip(1).any(|part| part == word);
    match () {
        () if has("max") => "Maximum value",
        () if has("min") => "Minimum value",
        () if has("error") => "Value during error state",
        () => "Instantaneous value",
    }
}

fn same_value(ours: &Record, theirs: &str, unit_factor: f64) -> bool {
    let Some(value) = &ours.value else {
        // What the meter marks as no date, and a date that is none: libmbus makes one of it.
        return theirs.starts_with("1900-01-") || theirs.starts_with("2000-00-00");
    };
    if let Some(day) = value.strip_prefix("--") {
        // Every year (127): libmbus makes 2027 of it.
        return theirs.strip_prefix("2027-").is_some_and(|theirs| theirs.starts_with(day));
    }
    if ours.name.starts_with("date") {
        return *value == theirs || format!("{value}:00Z") == theirs;
    }
    let (Ok(number), Ok(expected)) = (value.parse::<f64>(), theirs.parse::<f64>()) else {
        return value.trim() == theirs.trim();
    };
    let number = number * unit_factor;
    // A float is printed by libmbus with the digits of a double.
    let near = ours.real && (number - expected).abs() <= expected.abs() * 1e-7;
    format!("{number:.6}") == format!("{expected:.6}") || near
}

/// Records whose VIFE libmbus reads and leaves aside: it calls a date a temperature, a duration a
/// flow. (case, name, value, unit) as EN 13757-3, table 15 has them.
const VIFE_IGNORED: &[(&str, &str, Option<&str>, &str)] = &[
    ("EFE_Engelmann-WaterStar", "volume", Some("0.000008"), "m³/input_pulse_0"),
    ("SEN_Pollustat", "volume_flow:duration_of_first_lower_limit_exceed", Some("11582321"), "s"),
    ("SEN_Pollustat", "volume_flow:duration_of_first_upper_limit_exceed", Some("756"), "s"),
    ("engelmann_sensostar2c", "volume", Some("0.100000"), "m³/input_pulse_0"),
    ("landis+gyr_ultraheat_t230", "power:date_of_end_last:max:t1", None, ""),
    ("landis+gyr_ultraheat_t230", "volume_flow:date_of_end_last:max:t1", None, ""),
    ("landis+gyr_ultraheat_t230", "flow_temperature:date_of_end_last:max:t1", Some("2011-08-26T20:50"), ""),
    ("landis+gyr_ultraheat_t230", "return_temperature:date_of_end_last:max:t1", Some("2011-08-09T11:43"), ""),
];

/// What is not as libmbus says, one sentence each.
fn differences(case: &Case) -> Vec<String> {
    let telegram = telegram(&case.frame);
    let mut wrong = Vec::new();
    let mut ours = telegram.records.iter();
    for theirs in case.expected.split("<DataRecord ").skip(1) {
        let kind = element(theirs, "Function").unwrap();
        let value = element(theirs, "Value").unwrap();
        if kind == "More records follow" || kind == "Manufacturer specific" {
            if kind == "More records follow" && !telegram.more {
                wrong.push("more records follow".to_owned());
            }
            if !value.is_empty() {
                let same = ours.next().is_some_and(|r| r.value.as_deref() == Some(&value.replace(' ', "")));
                if !same {
                    wrong.push(format!("manufacturer data {value}"));
                }
            }
            continue;
        }
        let Some(record) = ours.next() else {
            wrong.push(format!("nothing where libmbus has {theirs}"));
            continue;
        };
        let shown = (case.name.as_str(), record.name.as_str(), record.value.as_deref(), record.unit.as_str());
        if VIFE_IGNORED.contains(&shown) {
            continue;
        }
        let (unit, factor) = normalised(&record.unit);
        let expected_unit = match element(theirs, "Unit").unwrap() {
            "-" | "Units for H.C.A." | "Reserved" => "",
            unit => unit,
        };
        let fixed = kind == "Actual value";
        let (expected_unit, factor) = match expected_unit {
            "kWh" if fixed => ("Wh", factor / 1000.0),
            "l" if fixed => ("m^3", factor * 1000.0),
            unit => (unit, factor),
        };
        let their_numbers =
            ["StorageNumber", "Tariff", "Device"].map(|name| element(theirs, name).unwrap_or("0").to_owned());
        let same = unit == expected_unit
            && same_value(record, value, factor)
            && element(theirs, "Quantity").is_none_or(|q| record.name.starts_with(quantity(q).trim()))
            && (fixed || (function(&record.name) == kind && numbers(&record.name) == their_numbers));
        if !same {
            wrong.push(format!(
                "{record:?} where libmbus has {}",
                theirs.split_whitespace().collect::<Vec<_>>().join(" ")
            ));
        }
    }
    wrong.extend(ours.map(|record| format!("{record:?} where libmbus has nothing")));
    let header = telegram.header.unwrap();
    let id = element(&case.expected, "Id").unwrap();
    if header.meter.number().trim_start_matches('0') != id.trim_start_matches('0').to_lowercase() {
        wrong.push(format!("id {} where libmbus has {id}", header.meter.number()));
    }
    let same = |name: &str, own: String| element(&case.expected, name).is_none_or(|theirs| theirs == own);
    let same_header = same("Version", header.meter.version.to_string())
        && same("AccessNumber", header.access.to_string())
        && same("Status", format!("{:02X}", header.status))
        && same("Manufacturer", header.meter.letters());
    if !same_header {
        wrong.push(format!("{header:?}"));
    }
    wrong
}

#[test]
fn every_recorded_answer_gives_the_records_that_libmbus_gives() {
    let wrong: Vec<_> = cases().iter().map(|case| (case.name.clone(), differences(case))).collect();
    let told: Vec<_> = wrong.iter().flat_map(|(name, w)| w.iter().map(move |w| format!("{name}: {w}"))).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn a_recorded_answer_with_one_byte_changed_or_missing_is_refused() {
    for case in cases() {
        for at in 0..case.frame.len() {
            let mut changed = case.frame.clone();
            changed[at] ^= 0x41;
            assert!(mbus::decode(&changed).is_err(), "{} byte {at} changed", case.name);
            assert!(mbus::decode(&case.frame[..at]).is_err(), "{} cut at {at}", case.name);
        }
    }
}

/// A frame around `data` whose checksum is right, so that the records are reached.
fn answered(ci: u8, data: Vec<u8>) -> Result<Answer, weir::wire::DecodeError> {
    answer::decode(&mbus::Frame::Long { control: 0x08, address: 1, ci, data })
}

proptest! {
    #[test]
    fn any_records_never_panic_and_stay_small(
        ci in prop_oneof![Just(0x72), Just(0x73), Just(0x7A), Just(0x78), any::<u8>()],
        data in proptest::collection::vec(any::<u8>(), 0..252),
    ) {
        if let Ok(Answer::Telegram(telegram)) = answered(ci, data) {
            prop_assert!(telegram.records.len() <= 126);
            prop_assert!(telegram.records.iter().all(|r| r.name.len() < 400 && r.value.as_ref().is_none_or(|v| v.len() < 600)));
        }
    }

    #[test]
    fn mutated_records_of_real_meters_never_panic(which in any::<usize>(), at in any::<usize>(), to in any::<u8>(), cut in any::<usize>()) {
        let cases = cases();
        if let Some(case) = cases.get(which % cases.len().max(1)) {
            let mbus::Frame::Long { ci, mut data, .. } = mbus::decode(&case.frame).unwrap() else { panic!() };
            let at = at % data.len();
            data[at] = to;
            data.truncate(cut % data.len() + 1);
            let _ = answered(ci, data);
        }
    }
}
