//! A reading that can't be done whole gives what it has: an object without an answer, a session that is too long.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use weir::meter::{MeterError, Session};
use weir::model::{BootId, Quality, TimeQuality, Timestamp, Value};
use weir::os::clock::{Clock, Dial};
use weir::os::line::Line;
use weir::wire::dlms::{Conformance, DataBuf};

use crate::plumbing::connect;
use crate::scripted::{Fault, Key, Meter, Nature};

const fn register(n: u8, attribute: i8) -> Key {
    (3, [1, 0, n, 8, 0, 255], attribute)
}

fn registers() -> BTreeMap<Key, DataBuf> {
    let scaler = DataBuf::Structure(vec![DataBuf::Integer(-1), DataBuf::Enum(30)]);
    let value = |n: u8| DataBuf::DoubleLongUnsigned(1000 + u32::from(n));
    (1..=6).flat_map(|n| [(register(n, 2), value(n)), (register(n, 3), scaler.clone())]).collect()
}

fn with_mute(mute: &[Key], lists: bool) -> Nature {
    let mut nature = Nature { mute: mute.to_vec(), ..Nature::with(registers()) };
    if lists {
        nature.granted |= Conformance::MULTIPLE_REFERENCES;
    }
    nature
}

async fn started(nature: Nature, lines: &str) -> (Meter, Box<dyn Session>, Line) {
    let meter = Meter::start(nature, usize::MAX, Fault::None).await;
    let values: Vec<_> = (1..=6).map(|n| format!("\"3/1-0:{n}.8.0*255\"")).collect();
    let settings = format!("values = [{}]\n{lines}\ndlms.link = \"wrapper\"\n", values.join(", "));
    let (session, line) = connect(&meter.port.to_string(), &settings).await;
    (meter, session, line)
}

/// Which of the six were read; what was read is right.
fn read(values: &[Value]) -> Vec<u8> {
    let told = (1u8..=6).zip(values).filter(|(_, value)| value.quality == Quality::Good);
    told.map(|(n, value)| {
        assert_eq!((value.value.as_deref(), value.unit.as_str()), (Some(&*format!("100.{n}")), "Wh"));
        n
    })
    .collect()
}

fn associations(meter: &Meter) -> usize {
    meter.heard().iter().filter(|apdu| apdu.starts_with(&[0x60])).count()
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_never_answered_costs_itself_only() {
    crate::pace::hold();
    for (lists, most) in [(false, 3), (true, 3)] {
        for mute in [register(1, 2), register(3, 2), register(6, 2), register(3, 3)] {
            let (meter, mut session, mut line) = started(with_mute(&[mute], lists), "timeout = \"150ms\"").await;
            let values = session.read(&mut line).await;
            let values = values.unwrap_or_else(|error| panic!("{mute:?}, lists: {lists}: {error}"));
            let lost = mute.1[2];
            let others: Vec<u8> = (1..=6).filter(|n| *n != lost).collect();
            assert_eq!(read(&values), others, "{mute:?}, lists: {lists}");
            assert_eq!(values[usize::from(lost) - 1].quality, Quality::NoAnswer);
            assert!(associations(&meter) <= most, "{} associations, {mute:?}, lists: {lists}", associations(&meter));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_dies_in_a_reading_leaves_what_was_read_and_is_not_asked_for_ever() {
    crate::pace::hold();
    let mute = [3, 4, 5, 6].map(|n| register(n, 2));
    let (meter, mut session, mut line) = started(with_mute(&mute, false), "timeout = \"150ms\"").await;
    let values = session.read(&mut line).await.unwrap();
    assert_eq!(read(&values), [1, 2]);
    assert!(values[2..].iter().all(|value| value.quality == Quality::NoAnswer), "{values:?}");
    assert_eq!(associations(&meter), 4);
    // The line is well: the next reading is another one.
    meter.change(|nature| nature.mute.clear());
    assert_eq!(read(&session.read(&mut line).await.unwrap()), [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_too_long_keeps_what_it_read_and_the_next_one_goes_on_there() {
    crate::pace::hold();
    // An association, its name, six scalers and six values: more than a second.
    let mut nature = Nature { slow: Duration::from_millis(80), ..Nature::with(registers()) };
    nature.objects.insert((1, [0, 0, 42, 0, 0, 255], 2), DataBuf::OctetString(b"METER".to_vec()));
    let (_meter, mut session, mut line) = started(nature, "timeout = \"5s\"\ndlms.longest_session = \"1100ms\"").await;
    let begun = Instant::now();
    let first = read(&session.read(&mut line).await.unwrap());
    assert!(begun.elapsed() < Duration::from_millis(1400), "the session took {:?}", begun.elapsed());
    assert!(!first.is_empty() && first.len() < 6, "{first:?}");
    // The scalers are known now: what the first one missed comes first.
    let second = read(&session.read(&mut line).await.unwrap());
    let missing: Vec<u8> = (1..=6).filter(|n| !first.contains(n)).collect();
    assert!(missing.iter().all(|n| second.contains(n)), "{first:?} then {second:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_too_short_for_anything_says_what_to_do() {
    crate::pace::hold();
    let nature = Nature { slow: Duration::from_millis(300), ..Nature::with(registers()) };
    let (_meter, mut session, mut line) = started(nature, "timeout = \"5s\"\ndlms.longest_session = \"400ms\"").await;
    let error = session.read(&mut line).await.unwrap_err();
    let told = error.to_string();
    assert!(matches!(error, MeterError::Unfinished(_)), "{told}");
    assert!(told.contains("longest_session") && told.contains("raise"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_not_answered_spoils_neither_the_reading_nor_the_next_one() {
    crate::pace::hold();
    let nature = with_mute(&[(8, [0, 0, 1, 0, 0, 255], 2)], false);
    let (meter, mut session, mut line) = started(nature, "timeout = \"150ms\"").await;
    let dial = Dial::new(Timestamp::parse("2026-11-22T12:00:00Z").unwrap(), BootId::new([7; 8]));
    dial.trust(true);
    let clock = Clock::of(dial, Duration::ZERO, None);
    clock.stamp();
    assert_eq!(clock.health().state(), TimeQuality::Synced);
    session.tell_time(&clock);
    assert_eq!(read(&session.read(&mut line).await.unwrap()), [1, 2, 3, 4, 5, 6]);
    assert_eq!(meter.heard().iter().filter(|apdu| apdu.starts_with(&[0xC0, 1]) && apdu[4] == 8).count(), 1);
    assert_eq!(read(&session.read(&mut line).await.unwrap()), [1, 2, 3, 4, 5, 6]);
    assert_eq!(meter.connections(), 2, "what may still come is not waited for on the old connection");
}
