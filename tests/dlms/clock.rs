//! A meter's clock that is wrong is set between two intervals, and keeps whatever else it shows.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use weir::model::{BootId, Quality, Timestamp};
use weir::os::clock::{Clock, Source};

use crate::plumbing::Meter;

/// A wall clock of the test's own that runs, and that somebody vouches for.
#[derive(Debug)]
struct Wall {
    begun: Instant,
    at: Timestamp,
}

impl Source for Wall {
    fn read(&self) -> (Timestamp, u64) {
        let passed = self.begun.elapsed();
        (self.at.plus(passed), u64::try_from(passed.as_millis()).unwrap())
    }

    fn boot(&self) -> BootId {
        BootId::new([7; 8])
    }

    fn is_trusted(&self) -> bool {
        true
    }
}

fn wall(at: &str) -> Clock {
    let wall = Wall { begun: Instant::now(), at: Timestamp::parse(at).unwrap() };
    Clock::of(wall, Duration::ZERO, None)
}

fn settings(more: &str) -> String {
    format!(
        "values = [\"1.8.0\"]\nutc_offset = \"+01:00\"\n[dlms]\nlink = \"wrapper\"\n[dlms.clock]\ntolerance = \"2s\"\n{more}"
    )
}

/// What the meter was set to, its 12 bytes, and what it showed before; one reading with weir's clock at `at`.
async fn read(nature: &Json, more: &str, at: &str) -> Vec<(Vec<u8>, String)> {
    let mut meter = Meter::with_nature(&settings(more), nature, &[]).await;
    meter.session.tell_time(&wall(at));
    let values = meter.session.read(&mut meter.line).await.unwrap();
    assert_eq!((values[0].value.as_deref(), values[0].quality), (Some("123456.7"), Quality::Good));
    set(&meter)
}

fn set(meter: &Meter) -> Vec<(Vec<u8>, String)> {
    let each = meter.log("CLOCK").into_iter().map(|line| {
        let (bytes, before) = line.split_once(' ').unwrap();
        (data_encoding::HEXLOWER.decode(bytes.as_bytes()).unwrap(), before.to_owned())
    });
    each.collect()
}

#[tokio::test(start_paused = true)]
async fn a_slow_clock_is_set_as_soon_as_it_has_passed_the_end_of_the_period_too() {
    crate::pace::hold();
    // A reading on the hour: the meter is 8 s behind, and in summer time.
    let clock = json!({ "at": "2027-07-15T13:59:53", "deviation": -120, "status": 0x80, "weekday": 255 });
    let set = read(&json!({ "clock": clock }), "set = true", "2027-07-15T12:00:01Z").await;
    let [(bytes, before)] = &set[..] else { panic!("{set:?}") };
    assert!(before.as_str() >= "2027-07-15T14:00:00", "{before}");
    // The weekday that it does not tell, the hundredths, deviation and summer time stay as they are.
    assert_eq!((&bytes[..7], &bytes[8..]), (&[0x07, 0xEB, 7, 15, 255, 14, 0][..], &[255, 0xFF, 0x88, 0x80][..]));
    assert!((8..20).contains(&bytes[7]), "{bytes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fast_clock_that_tells_no_deviation_is_set_at_once_in_its_own_season() {
    crate::pace::hold();
    let clock = json!({ "at": "2027-07-15T14:05:20", "status": 0x80 });
    let set = read(&json!({ "clock": clock }), "set = true", "2027-07-15T12:05:00Z").await;
    let [(bytes, _)] = &set[..] else { panic!("{set:?}") };
    assert_eq!((&bytes[..7], &bytes[8..]), (&[0x07, 0xEB, 7, 15, 4, 14, 5][..], &[255, 0x80, 0, 0x80][..]));
    assert!(bytes[7] < 20, "not when the meter shows a full minute: {bytes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_profile_of_a_minute_makes_the_clock_wait_for_the_minute() {
    crate::pace::hold();
    let nature = json!({
        "clock": { "at": "2027-01-15T12:00:56", "deviation": 0 },
        "raw": { "7/1.0.99.1.0.255/4": "060000003c" },
    });
    let set = read(&nature, "set = true", "2027-01-15T12:01:01Z").await;
    assert!(matches!(&set[..], [(_, before)] if before.as_str() >= "2027-01-15T12:01:00"), "{set:?}");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_by_more_than_a_period_is_set_only_where_that_is_allowed() {
    crate::pace::hold();
    let nature = json!({ "clock": { "at": "2027-01-15T12:20:00", "deviation": 0 } });
    let at = "2027-01-15T12:00:30Z";
    assert_eq!(read(&nature, "set = true", at).await, []);
    assert_eq!(read(&nature, "set = true\nlimit = \"1h\"", at).await, []);
    let set = read(&nature, "set = true\nlimit = \"1h\"\nskip_intervals = true", at).await;
    assert!(matches!(&set[..], [(bytes, _)] if bytes[5..7] == [12, 0]), "{set:?}");
}

#[tokio::test(start_paused = true)]
async fn a_person_who_sets_the_clock_is_told_what_is_in_the_way() {
    crate::pace::hold();
    let order = json!({ "object": "clock", "set_clock": true });
    let mut nature = json!({ "clock": { "at": "2027-01-15T12:20:00", "deviation": 0 } });
    for (more, why) in [("", "raise dlms.clock.limit"), ("limit = \"1h\"", "dlms.clock.skip_intervals")] {
        let mut meter = Meter::with_nature(&settings(more), &nature, &[]).await;
        meter.session.tell_time(&wall("2027-01-15T12:00:30Z"));
        let inspector = meter.session.inspector().unwrap();
        let error = inspector.inspect(&mut meter.line, &order).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    nature["clock"] = json!({ "at": "2027-01-15T12:00:55", "deviation": 0, "read_only": 1 });
    let mut meter = Meter::with_nature(&settings(""), &nature, &[]).await;
    meter.session.tell_time(&wall("2027-01-15T12:00:30Z"));
    let inspector = meter.session.inspector().unwrap();
    let error = inspector.inspect(&mut meter.line, &order).await.unwrap_err();
    assert!(error.to_string().contains("its clock"), "{error}");
    nature["clock"] = json!({ "at": "2027-01-15T12:00:55", "deviation": 0 });
    meter.become_so(&nature);
    let inspector = meter.session.inspector().unwrap();
    let told = inspector.inspect(&mut meter.line, &order).await.unwrap();
    assert!(told["was_ahead_by_seconds"].as_i64().unwrap() > 20, "{told}");
    assert!(told["is_ahead_by_seconds"].as_i64().unwrap().abs() <= 1, "{told}");
}
