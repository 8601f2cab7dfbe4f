//! No answer that is late, short, doubled, damaged or another's ever becomes a value; nor do crooked blocks.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use weir::meter::{MeterError, Session, WriteOutcome};
use weir::model::{Quality, Timestamp, Value};
use weir::os::line::Line;
use weir::wire::dlms::{Conformance, DataBuf};

use crate::plumbing::connect;
use crate::scripted::{Fault, Key, Meter, Nature};

const OBJECTS: u8 = 6;

const fn register(n: u8, attribute: i8) -> Key {
    (3, [1, 0, n, 8, 0, 255], attribute)
}

/// Registers whose values tell them apart.
fn registers() -> BTreeMap<Key, DataBuf> {
    let scaler = DataBuf::Structure(vec![DataBuf::Integer(-1), DataBuf::Enum(30)]);
    let each = (1..=OBJECTS).flat_map(|n| {
        let value = DataBuf::DoubleLongUnsigned(1000 + u32::from(n));
        [(register(n, 2), value), (register(n, 3), scaler.clone())]
    });
    each.collect()
}

fn settings(timeout: &str) -> String {
    let values: Vec<_> = (1..=OBJECTS).map(|n| format!("\"3/1-0:{n}.8.0*255\"")).collect();
    format!("timeout = \"{timeout}\"\nvalues = [{}]\n[dlms]\nlink = \"wrapper\"\n", values.join(", "))
}

/// The first of them only.
const ONE: &str = "timeout = \"5s\"\nvalues = [\"3/1-0:1.8.0*255\"]\n[dlms]\nlink = \"wrapper\"\n";

async fn started(nature: Nature, timeout: &str, at: usize, fault: Fault) -> (Meter, Box<dyn Session>, Line) {
    let meter = Meter::start(nature, at, fault).await;
    let (session, line) = connect(&meter.port.to_string(), &settings(timeout)).await;
    (meter, session, line)
}

fn check(values: &[Value]) -> Result<(), TestCaseError> {
    for (n, value) in (1..=OBJECTS).zip(values) {
        if value.quality == Quality::Good {
            prop_assert_eq!(value.value.clone().unwrap(), format!("100.{n}"));
            prop_assert_eq!(value.unit.as_str(), "Wh");
        }
    }
    Ok(())
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        (90u64..260).prop_map(|ms| Fault::Late(Duration::from_millis(ms))),
        (0usize..30).prop_map(Fault::Short),
        Just(Fault::Doubled),
        (0usize..11, 1u8..=255).prop_map(|(at, with)| Fault::Head(at, with)),
        (any::<usize>(), any::<bool>()).prop_map(|(which, instead)| Fault::Earlier { which, instead }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_value_is_the_one_that_the_meter_has_or_none(
        at in 0usize..20, fault in fault(), lists in any::<bool>(), block in prop_oneof![Just(8usize), Just(400)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            crate::pace::hold();
            let mut nature = Nature { block, ..Nature::with(registers()) };
            if lists { nature.granted |= Conformance::MULTIPLE_REFERENCES; }
            let (meter, mut session, mut line) = started(nature, "120ms", at, fault).await;
            // As the bus does it: a new connection when the session asks for one.
            for _ in 0..3 {
                match session.read(&mut line).await {
                    Ok(values) => check(&values)?,
                    Err(error) if error.must_reopen() => {
                        line = connect(&meter.port.to_string(), &settings("120ms")).await.1;
                    }
                    Err(_) => {}
                }
            }
            line = connect(&meter.port.to_string(), &settings("120ms")).await.1;
            if let Ok(values) = session.read(&mut line).await { check(&values)?; }
            Ok::<(), TestCaseError>(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_meter_says_behind_a_value_is_left_out_and_lists_are_given_up_for_it() {
    crate::pace::hold();
    let mut nature = Nature { behind: vec![9, 0x0F, 9, 1, 2], ..Nature::with(registers()) };
    nature.granted |= Conformance::MULTIPLE_REFERENCES;
    let (meter, mut session, mut line) = started(nature, "5s", usize::MAX, Fault::None).await;
    let values = session.read(&mut line).await.unwrap();
    assert!(values.iter().all(|v| v.quality == Quality::Good), "{values:?}");
    assert_eq!(meter.heard().iter().filter(|apdu| apdu.starts_with(&[0xC0, 3])).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn blocks_that_skip_repeat_or_never_end_are_no_value() {
    crate::pace::hold();
    for (number, says) in [
        ((|n| n * 2) as fn(u32) -> u32, "block 2 came"),
        (|_| 1, "block 1 came, not block 2"),
        (|n| if n == 3 { 4 } else { n }, "not block 3"),
    ] {
        let mut objects = registers();
        objects.insert(register(1, 2), DataBuf::OctetString(vec![7; 1000]));
        let nature = Nature { number, ..Nature::with(objects) };
        let (meter, mut session, mut line) = started(nature, "5s", usize::MAX, Fault::None).await;
        let values = session.read(&mut line).await.unwrap();
        assert_eq!((values[0].value.as_deref(), values[0].quality), (None, Quality::Invalid));
        assert!(values[1..].iter().all(|value| value.quality == Quality::Good), "{values:?}");
        let (mut session, mut line) = connect(&meter.port.to_string(), ONE).await;
        let error = session.read(&mut line).await.unwrap_err();
        assert!(matches!(&error, MeterError::Damaged(why) if why.contains(says)), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_beyond_a_mebibyte_is_given_up() {
    crate::pace::hold();
    let mut objects = registers();
    objects.insert(register(1, 2), DataBuf::OctetString(vec![7; 1_200_000]));
    let (meter, ..) = started(Nature::with(objects), "5s", usize::MAX, Fault::None).await;
    let (mut session, mut line) = connect(&meter.port.to_string(), ONE).await;
    let error = session.read(&mut line).await.unwrap_err();
    assert!(error.to_string().contains("longer than 1 MiB"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_long_value_is_written_in_blocks_that_the_meter_takes() {
    crate::pace::hold();
    let key = (1, [0, 0, 96, 1, 0, 255], 2);
    let mut nature = Nature { max_pdu: 64, ..Nature::with(BTreeMap::from([(key, DataBuf::OctetString(vec![0; 4]))])) };
    nature.granted |= Conformance::SET | Conformance::BLOCK_TRANSFER_WITH_SET_OR_WRITE;
    let (meter, mut session, mut line) = started(nature, "5s", usize::MAX, Fault::None).await;
    let text: String = (0..300u32).map(|n| format!("{:02x}", n % 251)).collect();
    let written = session.writer().unwrap().write(&mut line, "1/0-0:96.1.0*255", &text).await.unwrap();
    assert_eq!(written.outcome, WriteOutcome::Done);
    assert_eq!(meter.holds(key), Some(DataBuf::OctetString((0..300u32).map(|n| (n % 251) as u8).collect())));
    assert!(meter.heard().iter().all(|apdu| apdu.starts_with(&[0x60]) || apdu.len() <= 64));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_where_the_meter_grants_no_writing() {
    crate::pace::hold();
    let (meter, mut session, mut line) = started(Nature::with(registers()), "5s", usize::MAX, Fault::None).await;
    let error = session.writer().unwrap().write(&mut line, "3/1-0:1.8.0*255", "5").await.unwrap_err();
    assert!(matches!(&error, MeterError::Order(why) if why.contains("SET")), "{error}");
    assert!(!meter.heard().iter().any(|apdu| apdu.starts_with(&[0xC1])));
}

const PROFILE: [u8; 6] = [1, 0, 99, 1, 0, 255];

fn captured(class: u16, name: [u8; 6]) -> DataBuf {
    let (name, attribute) = (DataBuf::OctetString(name.to_vec()), DataBuf::Integer(2));
    DataBuf::Structure(vec![DataBuf::LongUnsigned(class), name, attribute, DataBuf::LongUnsigned(0)])
}

/// A profile of four quarters whose meter selects nothing, with these registers captured.
fn profile(captures: &[u8]) -> BTreeMap<Key, DataBuf> {
    let mut objects = registers();
    let clock = captured(8, [0, 0, 1, 0, 0, 255]);
    let columns = captures.iter().map(|n| captured(3, [1, 0, *n, 8, 0, 255]));
    objects.insert((7, PROFILE, 3), DataBuf::Array([clock].into_iter().chain(columns).collect()));
    objects.insert((7, PROFILE, 4), DataBuf::DoubleLongUnsigned(900));
    let row = |n: u8| {
        let time = DataBuf::OctetString(vec![0x07, 0xEA, 1, 1, 4, 0, 15 * n, 0, 0, 0, 0, 0]);
        let time = if n == 0 { time } else { DataBuf::Null };
        let cells = captures.iter().map(|c| DataBuf::DoubleLongUnsigned(u32::from(*c) * 100 + u32::from(n)));
        DataBuf::Structure([time].into_iter().chain(cells).collect())
    };
    objects.insert((7, PROFILE, 2), DataBuf::Array((0..4).map(row).collect()));
    objects
}

#[tokio::test(start_paused = true)]
async fn a_changed_capture_list_puts_no_value_into_another_column() {
    crate::pace::hold();
    let nature = Nature { block: 60, ..Nature::with(profile(&[1, 2])) };
    let meter = Meter::start(nature, usize::MAX, Fault::None).await;
    let settings = "load_profile = { id = \"1-0:99.1.0*255\" }\n[dlms]\nlink = \"wrapper\"";
    let (mut session, mut line) = connect(&meter.port.to_string(), settings).await;
    let (after, until) =
        (Timestamp::parse("2025-12-31T23:00:00Z").unwrap(), Timestamp::parse("2026-01-02T00:00:00Z").unwrap());
    let first = session.profile().unwrap().read(&mut line, after, until).await.unwrap();
    let told = |values: &[Value]| {
        values.iter().map(|v| format!("{} {}", v.name, v.value.as_deref().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(
        (first.len(), told(&first[1].values)),
        (4, vec!["1-0:1.8.0*255 10.1".to_owned(), "1-0:2.8.0*255 20.1".to_owned()])
    );
    meter.change(|nature| nature.objects = profile(&[3, 1]));
    let then = session.profile().unwrap().read(&mut line, after, until).await.unwrap();
    assert_eq!(told(&then[1].values), ["1-0:3.8.0*255 30.1", "1-0:1.8.0*255 10.1"]);
    // Rows of the new list with the old list's columns are no rows.
    meter.change(|nature| {
        let rows = nature.objects[&(7, PROFILE, 2)].clone();
        nature.objects = profile(&[1, 2, 3]);
        nature.objects.insert((7, PROFILE, 2), rows);
    });
    let error = session.profile().unwrap().read(&mut line, after, until).await.unwrap_err();
    assert!(error.to_string().contains("3 columns where 4"), "{error}");
}
