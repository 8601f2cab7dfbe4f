//! A meter that changes between two readings, or refuses something for now: no value and no interval becomes wrong.

use serde_json::{Value as Json, json};
use weir::meter::MeterError;
use weir::model::{Interval, Quality, Timestamp, Value};
use weir::wire::dlms::{Conformance, DataBuf};

use crate::plumbing::{Meter, connect, hex};
use crate::scripted::{self, Fault, Nature};

const WRAPPER: &str = "[dlms]\nlink = \"wrapper\"\n";
const PROFILE: &str =
    "load_profile = { id = \"1-0:99.1.0*255\" }\nutc_offset = \"+01:00\"\n[dlms]\nlink = \"wrapper\"\n";
const NAME: &str = "1/0.0.42.0.0.255/2";
const SCALER: &str = "3/1.0.1.8.0.255/3";
const LIST: &str = "15/0.0.40.0.0.255/2";
const CAPTURED: &str = "7/1.0.99.1.0.255/3";
const CLOCK: &str = "8/0.0.1.0.0.255/2";
const SORT: &str = "7/1.0.99.1.0.255/5";

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn scaler(power: i8) -> String {
    hex(&DataBuf::Structure(vec![DataBuf::Integer(power), DataBuf::Enum(30)]))
}

fn name(text: &str) -> String {
    hex(&DataBuf::OctetString(text.as_bytes().to_vec()))
}

/// capture_objects: the clock, then registers by their group C.
fn captured(registers: &[u8]) -> String {
    let object = |class: u16, name: [u8; 6]| {
        let name = DataBuf::OctetString(name.to_vec());
        DataBuf::Structure(vec![DataBuf::LongUnsigned(class), name, DataBuf::Integer(2), DataBuf::LongUnsigned(0)])
    };
    let registers = registers.iter().map(|c| object(3, [1, 0, *c, 8, 0, 255]));
    hex(&DataBuf::Array([object(8, [0, 0, 1, 0, 0, 255])].into_iter().chain(registers).collect()))
}

/// A row's time: what the clock showed, minutes west, status.
fn time(face: &str, west: i16, status: u8) -> String {
    let number = |range: std::ops::Range<usize>| face[range].parse::<u16>().unwrap();
    let [year1, year0] = number(0..4).to_be_bytes();
    let byte = |range| u8::try_from(number(range)).unwrap();
    let [west1, west0] = west.to_be_bytes();
    let (month, day) = (byte(5..7), byte(8..10));
    let time = [year1, year0, month, day, 255, byte(11..13), byte(14..16), byte(17..19), 255, west1, west0, status];
    hex(&DataBuf::OctetString(time.to_vec()))
}

/// What the meter's clock shows now.
fn winter() -> String {
    time("2026-01-17T12:00:00", -60, 0)
}

fn count(value: u32) -> String {
    hex(&DataBuf::DoubleLongUnsigned(value))
}

/// Rows of quarters of an hour behind `begin`, in winter time one hour east, each with the number it has in UTC.
fn quarters(begin: &str, rows: u32) -> Vec<Json> {
    let begin = at(begin);
    let row = |n: u32| {
        let end = begin.plus(std::time::Duration::from_secs(900) * n);
        let face = end.plus(std::time::Duration::from_secs(3600)).to_string();
        let value = u32::try_from(end.as_millis() / 900_000 % 100_000).unwrap();
        json!([&face[..19], [time(&face, -60, 0), count(value)]])
    };
    (1..=rows).map(row).collect()
}

async fn piece(meter: &mut Meter, after: &str, until: &str) -> Result<Vec<Interval>, MeterError> {
    meter.session.profile().unwrap().read(&mut meter.line, at(after), at(until)).await
}

fn ends(intervals: &[Interval]) -> Vec<String> {
    intervals.iter().map(|i| i.end.to_string()[11..16].to_owned()).collect()
}

/// Every value is the number of its interval's end.
fn is_right(interval: &Interval) -> bool {
    let raw = interval.end.as_millis() / 900_000 % 100_000;
    interval.values[0].value == Some(format!("{}.{}", raw / 10, raw % 10))
}

fn told(values: &[Value]) -> Vec<(&str, Option<&str>, Quality)> {
    values.iter().map(|v| (v.name.as_str(), v.value.as_deref(), v.quality)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_was_exchanged_is_read_with_its_own_scalers() {
    crate::pace::hold();
    let settings = format!("values = [\"1.8.0\", \"3/1-0:32.7.0*255\"]\n{WRAPPER}");
    let serial = "1/0.0.96.1.0.255/2";
    let mut meter = Meter::with_nature(&settings, &json!({ "raw": { serial: name("76") } }), &[]).await;
    let values = meter.session.read(&mut meter.line).await.unwrap();
    assert_eq!(told(&values)[0], ("1.8.0", Some("123456.7"), Quality::Good));
    meter.become_so(&json!({ "raw": { NAME: name("GRX0000000000002"), SCALER: scaler(0), serial: name("76") } }));
    let values = meter.session.read(&mut meter.line).await.unwrap();
    assert_eq!(told(&values)[0], ("1.8.0", Some("1234567"), Quality::Good));
    // One whose name is the same but whose serial number differs.
    meter.become_so(&json!({ "raw": { NAME: name("GRX0000000000002"), SCALER: scaler(-2), serial: name("77") } }));
    let values = meter.session.read(&mut meter.line).await.unwrap();
    assert_eq!(told(&values)[0], ("1.8.0", Some("12345.67"), Quality::Good));
    // For now it keeps its name back; its serial number is enough.
    let raw = json!({ SCALER: scaler(-2), serial: name("77") });
    meter.become_so(&json!({ "refuse": { NAME: 2 }, "raw": raw }));
    let values = meter.session.read(&mut meter.line).await.unwrap();
    assert_eq!(told(&values)[0], ("1.8.0", Some("12345.67"), Quality::Good));
    // One that says nothing of itself is never taken for the one before.
    let refuse = json!({ NAME: 3, serial: 3 });
    for (power, text) in [(0, "1234567"), (-1, "123456.7")] {
        meter.become_so(&json!({ "refuse": refuse, "raw": { SCALER: scaler(power) } }));
        let values = meter.session.read(&mut meter.line).await.unwrap();
        assert_eq!(told(&values)[0], ("1.8.0", Some(text), Quality::Good));
    }
}

#[tokio::test(start_paused = true)]
async fn an_exchanged_meter_is_not_written_with_the_scaler_of_the_one_before() {
    crate::pace::hold();
    let settings = format!("values = [\"1-0:32.7.0*255\"]\n{WRAPPER}");
    let mut meter = Meter::with_nature(&settings, &json!({}), &[]).await;
    let values = meter.session.read(&mut meter.line).await.unwrap();
    assert_eq!(values[0].value.as_deref(), Some("230.4"));
    let scaler = hex(&DataBuf::Structure(vec![DataBuf::Integer(0), DataBuf::Enum(35)]));
    meter.become_so(&json!({ "raw": { NAME: name("GRX0000000000002"), "3/1.0.32.7.0.255/3": scaler } }));
    let writer = meter.session.writer().unwrap();
    let written = writer.write(&mut meter.line, "1-0:32.7.0*255", "231").await.unwrap();
    assert_eq!((written.before.value.as_deref(), written.now.value.as_deref()), (Some("2304"), Some("231")));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_now_is_asked_again_at_the_next_reading() {
    crate::pace::hold();
    let settings = format!("values = [\"1.8.0\", \"1-0:32.7.0*255\"]\n{WRAPPER}");
    let refuse = json!({ "refuse": { SCALER: 2, LIST: 2, "3/1.0.32.7.0.255/1": 2 } });
    let mut meter = Meter::with_nature(&settings, &refuse, &[]).await;
    let values = meter.session.read(&mut meter.line).await.unwrap();
    assert_eq!(told(&values)[0], ("1.8.0", Some("1234567"), Quality::Invalid));
    assert_eq!(told(&values)[1], ("1-0:32.7.0*255", None, Quality::Refused));
    meter.become_so(&json!({}));
    let values = meter.session.read(&mut meter.line).await.unwrap();
    assert_eq!(told(&values)[0], ("1.8.0", Some("123456.7"), Quality::Good));
    assert_eq!(told(&values)[1], ("1-0:32.7.0*255", Some("230.4"), Quality::Good));
}

#[tokio::test(start_paused = true)]
async fn a_list_of_objects_that_is_refused_for_now_is_read_the_next_time() {
    crate::pace::hold();
    let mut meter = Meter::with_nature(WRAPPER, &json!({ "refuse": { LIST: 2 } }), &[]).await;
    assert_eq!(meter.session.read(&mut meter.line).await.unwrap().len(), 1);
    meter.become_so(&json!({}));
    assert!(meter.session.read(&mut meter.line).await.unwrap().len() > 5);
}

/// A register of a meter of our own.
fn register() -> Nature {
    let scaler = DataBuf::Structure(vec![DataBuf::Integer(-1), DataBuf::Enum(30)]);
    let name = [1, 0, 1, 8, 0, 255];
    Nature::with([((3, name, 2), DataBuf::DoubleLongUnsigned(7)), ((3, name, 3), scaler)].into())
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_could_not_answer_a_list_is_asked_for_one_again_after_an_hour() {
    crate::pace::hold();
    let mut nature = register();
    nature.granted |= Conformance::MULTIPLE_REFERENCES;
    nature.behind = vec![0xEE];
    let meter = scripted::Meter::start(nature, usize::MAX, Fault::None).await;
    let settings = format!("timeout = \"5s\"\nvalues = [\"3/1-0:1.8.0*255\", \"3/1-0:1.8.0*255:3\"]\n{WRAPPER}");
    let (mut session, mut line) = connect(&meter.port.to_string(), &settings).await;
    let lists = || meter.heard().iter().filter(|apdu| apdu.starts_with(&[0xC0, 3])).count();
    for _ in 0..2 {
        let values = session.read(&mut line).await.unwrap();
        assert_eq!((values[0].value.as_deref(), lists()), (Some("0.7"), 1));
    }
    tokio::time::advance(std::time::Duration::from_secs(3601)).await;
    meter.change(|nature| nature.behind.clear());
    for wanted in [2, 3] {
        let values = session.read(&mut line).await.unwrap();
        assert_eq!((values[0].value.as_deref(), lists()), (Some("0.7"), wanted));
    }
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_takes_no_request_as_long_as_a_block_is_not_written_in_shreds() {
    crate::pace::hold();
    let mut nature = register();
    nature.granted |= Conformance::SET | Conformance::BLOCK_TRANSFER_WITH_SET_OR_WRITE;
    nature.max_pdu = 14;
    let meter = scripted::Meter::start(nature, usize::MAX, Fault::None).await;
    let (mut session, mut line) = connect(&meter.port.to_string(), &format!("timeout = \"5s\"\n{WRAPPER}")).await;
    let writer = session.writer().unwrap();
    let error = writer.write(&mut line, "3/1-0:1.8.0*255", "0.9").await.unwrap_err();
    assert!(error.to_string().contains("no request that is long enough"), "{error}");
    assert!(!meter.heard().iter().any(|apdu| apdu.first() == Some(&0xC1)));
}

#[tokio::test(start_paused = true)]
async fn thresholds_have_the_scaler_of_what_is_watched() {
    crate::pace::hold();
    let watched = |attribute| {
        let name = DataBuf::OctetString(vec![1, 0, 1, 8, 0, 255]);
        hex(&DataBuf::Structure(vec![DataBuf::LongUnsigned(3), name, DataBuf::Integer(attribute)]))
    };
    let number = |value| DataBuf::DoubleLongUnsigned(value);
    let (limiter, monitor) = ("71/0.0.17.0.0.255", "21/0.0.16.1.0.255");
    let nature = json!({ "raw": {
        format!("{limiter}/2"): watched(2), format!("{limiter}/3"): hex(&number(50_005)),
        format!("{limiter}/4"): hex(&number(50_005)), format!("{limiter}/6"): hex(&number(30)),
        format!("{monitor}/3"): watched(2),
        format!("{monitor}/2"): hex(&DataBuf::Array(vec![number(10_001), number(20_002)])),
    } });
    let values = ["71/0-0:17.0.0*255:3", "0-0:17.0.0*255:6", "0-0:16.1.0*255"];
    let mut meter = Meter::with_nature(&format!("values = {values:?}\n{WRAPPER}"), &nature, &[]).await;
    let read = meter.session.read(&mut meter.line).await.unwrap();
    let found: Vec<_> = read.iter().map(|v| (v.value.as_deref(), v.unit.as_str(), v.quality)).collect();
    let good = |text, unit| (Some(text), unit, Quality::Good);
    assert_eq!(found, [good("5000.5", "Wh"), good("30", ""), good("[1000.1, 2000.2]", "Wh")]);
    let inspector = meter.session.inspector().unwrap();
    let told = inspector.inspect(&mut meter.line, &json!({ "object": "0-0:17.0.0*255:4" })).await.unwrap();
    assert_eq!((&told["attributes"][0]["value"], &told["attributes"][0]["unit"]), (&json!("5000.5"), &json!("Wh")));
    let writer = meter.session.writer().unwrap();
    let error = writer.write(&mut meter.line, "0-0:17.0.0*255:3", "10.55").await.unwrap_err();
    assert!(error.to_string().contains("steps of 0.1"), "{error}");
}

/// A buffer of the 15th of January whose clock was a day ahead for two hours, then an hour for a while.
fn jumping() -> Vec<Json> {
    let mut rows = quarters("2026-01-15T00:00:00Z", 40);
    rows.extend(quarters("2026-01-16T10:00:00Z", 8));
    rows.extend(quarters("2026-01-15T12:00:00Z", 8));
    // Set back an hour at 14:00.
    rows.extend(quarters("2026-01-15T13:00:00Z", 40));
    rows
}

#[tokio::test(start_paused = true)]
async fn by_entries_each_interval_is_found_once_whatever_the_clock_did_and_however_they_are_sorted() {
    crate::pace::hold();
    for newest_first in [false, true] {
        let mut rows = jumping();
        if newest_first {
            rows.reverse();
        }
        let sort = if newest_first { "1602" } else { "1601" };
        let nature =
            json!({ "rows": rows, "no_range": 1, "raw": { CLOCK: winter(), CAPTURED: captured(&[1]), SORT: sort } });
        let mut meter = Meter::with_nature(PROFILE, &nature, &[]).await;
        let found = piece(&mut meter, "2026-01-15T02:00:00Z", "2026-01-15T03:00:00Z").await.unwrap();
        assert_eq!(ends(&found), ["02:15", "02:30", "02:45", "03:00"], "{newest_first}");
        // What the clock showed twice is there twice, nothing is left out.
        let found = piece(&mut meter, "2026-01-15T09:30:00Z", "2026-01-15T15:00:00Z").await.unwrap();
        let hour = |hour: &str, minutes: &[&str]| minutes.iter().map(|m| format!("{hour}:{m}")).collect::<Vec<_>>();
        let twice = ["15", "15", "30", "30", "45", "45"];
        let wanted = [
            hour("09", &["45"]),
            hour("10", &["00"]),
            hour("12", &["15", "30", "45"]),
            hour("13", &["00"]),
            hour("13", &twice),
            hour("14", &["00", "00", "15", "30", "45"]),
            hour("15", &["00"]),
        ];
        assert_eq!(ends(&found), wanted.concat(), "{newest_first}");
        assert!(found.iter().all(is_right), "{found:?}");
        let found = piece(&mut meter, "2026-01-15T15:00:00Z", "2026-01-17T00:00:00Z").await.unwrap();
        assert_eq!(found.len(), 32 + 8, "{newest_first}");
        assert!(found.iter().all(is_right), "{found:?}");
        assert!(meter.log("ENTRIES").len() > 3);
    }
}

#[tokio::test(start_paused = true)]
async fn by_entries_only_the_rows_that_are_wanted_are_fetched() {
    crate::pace::hold();
    let nature = json!({ "rows": quarters("2026-01-01T00:00:00Z", 600), "no_range": 1, "raw": { CLOCK: winter(), CAPTURED: captured(&[1]) } });
    let mut meter = Meter::with_nature(PROFILE, &nature, &[("METER_PDU", "200")]).await;
    let found = piece(&mut meter, "2026-01-05T00:00:00Z", "2026-01-05T01:00:00Z").await.unwrap();
    assert_eq!(ends(&found), ["00:15", "00:30", "00:45", "01:00"]);
    assert!(found.iter().all(is_right), "{found:?}");
    let rows = |line: &String| {
        let numbers: Vec<u32> = line.split(' ').map(|n| n.parse().unwrap()).collect();
        numbers[1] - numbers[0] + 1
    };
    let fetched: u32 = meter.log("ENTRIES").iter().map(rows).sum();
    assert!(fetched < 40, "{:?}", meter.log("ENTRIES"));
    assert!(piece(&mut meter, "2026-02-05T00:00:00Z", "2026-02-06T00:00:00Z").await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_goes_back_an_hour_shifts_no_value_by_range() {
    crate::pace::hold();
    for (begin, sort) in [("2026-01-15T10:00:00Z", "1601"), ("2026-01-15T10:00:00Z", "1602")] {
        let mut rows = quarters(begin, 8);
        // Behind the jump only changes are written.
        let mut behind = quarters("2026-01-15T11:00:00Z", 8);
        if sort == "1602" {
            rows.reverse();
            behind.reverse();
        }
        for row in behind.iter_mut().skip(1) {
            row[1][0] = json!("00");
        }
        let rows = if sort == "1602" { [behind, rows].concat() } else { [rows, behind].concat() };
        let nature = json!({ "rows": rows, "raw": { CLOCK: winter(), CAPTURED: captured(&[1]), SORT: sort } });
        let mut meter = Meter::with_nature(PROFILE, &nature, &[]).await;
        let found = piece(&mut meter, "2026-01-15T09:00:00Z", "2026-01-15T14:00:00Z").await.unwrap();
        assert_eq!(found.len(), 16, "{sort}");
        assert!(found.iter().all(is_right), "{sort} {found:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_without_a_time_is_left_out_and_the_others_are_read() {
    crate::pace::hold();
    let mut rows = quarters("2026-01-15T10:00:00Z", 12);
    // Which time the rows behind it have, nothing tells any more.
    rows[3][1][0] = json!(time("2026-01-15T12:00:00", -60, 0).replace("07ea01", "ffffff"));
    rows[4][1][0] = json!("00");
    rows[8][1] = json!([time("2026-01-15T13:15:00", -60, 0)]);
    rows[9][1][1] = json!("00");
    let mut nature = json!({ "rows": rows, "raw": { CLOCK: winter(), CAPTURED: captured(&[1]) } });
    for no_range in [false, true] {
        if no_range {
            nature["no_range"] = json!(1);
        }
        let mut meter = Meter::with_nature(PROFILE, &nature, &[]).await;
        let found = piece(&mut meter, "2026-01-15T10:00:00Z", "2026-01-15T13:00:00Z").await.unwrap();
        let wanted = ["10:15", "10:30", "10:45", "11:30", "11:45", "12:00", "12:30", "12:45", "13:00"];
        assert_eq!(ends(&found), wanted, "{no_range}");
        // Behind a row that can't be understood, "as before" is not known.
        assert_eq!((found[6].values[0].value.as_deref(), found[6].values[0].quality), (None, Quality::Unavailable));
        assert!(found.iter().enumerate().all(|(n, i)| n == 6 || is_right(i)), "{found:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_capture_list_that_changes_between_two_readings_moves_no_value_into_another_column() {
    crate::pace::hold();
    let first =
        json!({ "rows": quarters("2026-01-15T10:00:00Z", 4), "raw": { CLOCK: winter(), CAPTURED: captured(&[1]) } });
    let mut meter = Meter::with_nature(PROFILE, &first, &[]).await;
    let found = piece(&mut meter, "2026-01-15T10:00:00Z", "2026-01-15T11:00:00Z").await.unwrap();
    assert_eq!((found.len(), found[0].values[0].name.as_str()), (4, "1-0:1.8.0*255"));
    let mut rows = quarters("2026-01-15T10:00:00Z", 8);
    for row in rows.iter_mut().skip(4) {
        row[1].as_array_mut().unwrap().insert(1, json!(count(7)));
    }
    meter.become_so(&json!({ "rows": rows, "raw": { CLOCK: winter(), CAPTURED: captured(&[2, 1]) } }));
    let found = piece(&mut meter, "2026-01-15T10:00:00Z", "2026-01-15T12:00:00Z").await.unwrap();
    assert_eq!(ends(&found), ["11:15", "11:30", "11:45", "12:00"]);
    for interval in found {
        let names: Vec<_> = interval.values.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["1-0:2.8.0*255", "1-0:1.8.0*255"]);
        assert!(is_right(&Interval { values: vec![interval.values[1].clone()], ..interval }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_capture_list_that_changes_between_the_look_and_the_rows_is_noticed() {
    crate::pace::hold();
    for variables in [&[][..], &[("METER_SN", "1")]] {
        let rows = quarters("2026-01-15T10:00:00Z", 4);
        let then = json!({ "rows": rows, "raw": { CLOCK: winter(), CAPTURED: captured(&[2]) } });
        let nature = json!({ "rows": rows, "raw": { CLOCK: winter(), CAPTURED: captured(&[1]) }, "then": then });
        let short = if variables.is_empty() { "" } else { "referencing = \"short-names\"\n" };
        let mut meter = Meter::with_nature(&format!("{PROFILE}{short}"), &nature, variables).await;
        let found = piece(&mut meter, "2026-01-15T10:00:00Z", "2026-01-15T11:00:00Z").await.unwrap();
        assert_eq!((found.len(), found[0].values[0].name.as_str()), (4, "1-0:2.8.0*255"), "{variables:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rows_of_the_other_season_are_found_when_the_meter_does_not_tell_whether_it_has_one() {
    crate::pace::hold();
    let clock = time("2026-07-15T14:00:00", -120, 0x80);
    let nature = json!({
        "rows": quarters("2026-01-15T10:00:00Z", 16),
        "raw": { CAPTURED: captured(&[1]), CLOCK: clock },
        "refuse": { "8/0.0.1.0.0.255/8": 2 },
    });
    let mut meter = Meter::with_nature(PROFILE, &nature, &[]).await;
    let found = piece(&mut meter, "2026-01-15T11:00:00Z", "2026-01-15T12:00:00Z").await.unwrap();
    assert_eq!(ends(&found), ["11:15", "11:30", "11:45", "12:00"]);
}

#[tokio::test(start_paused = true)]
async fn a_profile_of_a_meter_that_was_exchanged_has_its_own_scalers() {
    crate::pace::hold();
    let rows = quarters("2026-01-15T10:00:00Z", 4);
    let mut nature =
        json!({ "rows": rows, "raw": { CLOCK: winter(), CAPTURED: captured(&[1]) }, "refuse": { SCALER: 2 } });
    let mut meter = Meter::with_nature(PROFILE, &nature, &[]).await;
    let (after, until) = ("2026-01-15T10:00:00Z", "2026-01-15T11:00:00Z");
    let found = piece(&mut meter, after, until).await.unwrap();
    assert_eq!(found[0].values[0].quality, Quality::Invalid);
    nature["refuse"] = json!({});
    meter.become_so(&nature);
    assert!(piece(&mut meter, after, until).await.unwrap().iter().all(is_right));
    nature["raw"][NAME] = json!(name("GRX0000000000002"));
    nature["raw"][SCALER] = json!(scaler(0));
    meter.become_so(&nature);
    let found = piece(&mut meter, after, until).await.unwrap();
    let raw = found[0].end.as_millis() / 900_000 % 100_000;
    assert_eq!(found[0].values[0].value, Some(raw.to_string()));
}
