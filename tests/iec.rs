//! IEC 62056-21 from outside: our reader against our meter with every fault, against an
//! independent meter, and an independent reader against our meter.

#![cfg(feature = "demo")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may fail loudly"
)]

#[path = "iec/answers.rs"]
mod answers;
#[path = "iec/babble.rs"]
mod babble;
#[path = "iec/deviations.rs"]
mod deviations;
#[path = "iec/independent.rs"]
mod independent;
#[path = "iec/left_alone.rs"]
mod left_alone;
#[path = "iec/mode_e.rs"]
mod mode_e;
#[path = "tools/pace.rs"]
mod pace;
#[path = "iec/plumbing.rs"]
mod plumbing;
#[path = "iec/programming.rs"]
mod programming;
#[path = "iec/rates.rs"]
mod rates;
#[path = "iec/scripted.rs"]
mod scripted;

use std::time::Duration;

use plumbing::{Reader, settings, text};
use tokio::time::Instant;
use weir::meter::{Address, MeterError};
use weir::model::Quality;
use weir::setting::{At, Count};
use weir::sim::iec_meter::{Control, Faults, IecMeter, Options};
use weir::wire::iec62056::{Identification, Parity};

/// Starts our meter on a task of the test's runtime.
fn meter(options: Options) -> (std::path::PathBuf, Control) {
    let meter = IecMeter::open(options).unwrap();
    let (path, control) = (meter.path().to_owned(), meter.control());
    tokio::spawn(meter.run());
    (path, control)
}

fn with(faults: Faults) -> (std::path::PathBuf, Control) {
    let (path, control) = meter(Options::default());
    control.state().faults = faults;
    (path, control)
}

fn identification(baud: char) -> Identification {
    Identification { manufacturer: "WEI".into(), baud, enhanced: vec!['2'], model: "SIM 1".into() }
}

#[tokio::test(start_paused = true)]
async fn a_readout_has_every_value_with_its_exact_text() {
    pace::hold();
    let (path, control) = meter(Options::default());
    let values = Reader::open(&path, &settings()).await.read().await.unwrap();
    assert_eq!(values.len(), 13);
    assert_eq!(text(&values, "F.F"), "00000000");
    assert_eq!(text(&values, "2.8.0"), "000000.000");
    assert_eq!((text(&values, "1.6.1"), text(&values, "1.6.1#2")), ("04.211", "2601121545"));
    assert_eq!(values.iter().find(|v| v.name == "1.8.1").unwrap().unit, "kWh");
    let state = control.state();
    assert_eq!((state.sign_ons, state.blocks, state.repeats, state.wrong_rates), (1, 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_meter_in_real_time_is_read_at_every_rate_with_and_without_parity() {
    pace::hold();
    let read = |baud: char, parity: Parity| async move {
        let options = Options { identification: identification(baud), parity, real_time: true, ..Options::default() };
        let (path, control) = meter(options);
        let values = Reader::open(&path, &settings()).await.read().await.unwrap();
        assert_eq!(text(&values, "0.0.0"), "12345678", "{baud} {parity:?}");
        assert_eq!(control.state().wrong_rates, 0, "{baud} {parity:?}");
    };
    // Mode C at three rates, mode B, mode A.
    tokio::join!(
        read('3', Parity::Even),
        read('5', Parity::Absent),
        read('6', Parity::Even),
        read('E', Parity::Even),
        read('0', Parity::Even),
        read('Z', Parity::Absent),
    );
}

#[tokio::test(start_paused = true)]
async fn wanted_ids_are_given_in_order_and_an_unknown_one_is_null() {
    pace::hold();
    let (path, _control) = meter(Options::default());
    let values = ["1.7.0", "9.9.9", "1.8.0"].map(str::to_owned).to_vec();
    let mut reader = Reader::open(&path, &weir::meter::MeterSettings { values, ..settings() }).await;
    let read = reader.read().await.unwrap();
    let names: Vec<_> = read.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names, ["1.7.0", "9.9.9", "1.8.0"]);
    assert_eq!((read[1].value.as_deref(), read[1].quality), (None, Quality::Refused));
    let absent = reader.session.absent(Quality::NoAnswer);
    assert!(absent.len() == 3 && absent.iter().all(|v| v.value.is_none() && v.quality == Quality::NoAnswer));
}

#[tokio::test(start_paused = true)]
async fn only_the_meter_with_the_address_answers() {
    pace::hold();
    let (path, control) = meter(Options::default());
    let own = Some(At::nowhere(Address::Text("0012345678".into())));
    let other = Some(At::nowhere(Address::Number(999)));
    let retries = Count::clamped(0);
    let mut reader = Reader::open(&path, &weir::meter::MeterSettings { address: other, retries, ..settings() }).await;
    assert_eq!(reader.read().await.unwrap_err().quality(), Quality::NoAnswer);
    assert_eq!(control.state().sign_ons, 0);
    drop(reader);
    let mut reader = Reader::open(&path, &weir::meter::MeterSettings { address: own, ..settings() }).await;
    assert!(reader.read().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_second_readout_waits_until_the_meter_listens_again() {
    pace::hold();
    let (path, control) = meter(Options::default());
    let mut reader = Reader::open(&path, &settings()).await;
    reader.read().await.unwrap();
    let before = reader.line.last_byte();
    reader.read().await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(2));
    let state = control.state();
    assert_eq!((state.sign_ons, state.wrong_rates), (2, 0), "no sign-on was sent in vain");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_block_is_asked_for_again() {
    pace::hold();
    for faults in [Faults { bad_checksums: 2, ..Faults::default() }, Faults { parity_errors: 1, ..Faults::default() }] {
        let wrong = faults.bad_checksums + faults.parity_errors;
        let (path, control) = with(faults);
        let values = Reader::open(&path, &settings()).await.read().await.unwrap();
        assert_eq!(text(&values, "0.0.0"), "12345678");
        let state = control.state();
        assert_eq!((state.sign_ons, state.blocks, state.repeats), (1, 1 + wrong, wrong));
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_that_stays_damaged_is_given_up_and_nothing_of_it_is_used() {
    pace::hold();
    let (path, control) = with(Faults { bad_checksums: 100, ..Faults::default() });
    let error = Reader::open(&path, &settings()).await.read().await.unwrap_err();
    assert!(matches!(&error, MeterError::Damaged(text) if text.contains("after 2 repeat requests")), "{error}");
    assert_eq!(error.quality(), Quality::Invalid);
    assert_eq!(control.state().blocks, 3);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_breaks_off_is_read_by_a_repetition_or_a_new_sign_on() {
    pace::hold();
    let (path, _control) = with(Faults { truncated_blocks: 1, ..Faults::default() });
    let values = Reader::open(&path, &settings()).await.read().await.unwrap();
    assert_eq!(values.len(), 13);
}

#[tokio::test(start_paused = true)]
async fn echo_and_junk_are_no_hindrance() {
    pace::hold();
    let (path, control) = with(Faults { echo: true, junk: true, bad_checksums: 1, ..Faults::default() });
    let values = Reader::open(&path, &settings()).await.read().await.unwrap();
    assert_eq!(values.len(), 13);
    let state = control.state();
    assert_eq!((state.sign_ons, state.repeats), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_dead_meter_costs_its_time_limit_and_no_more() {
    pace::hold();
    let (path, control) = with(Faults { silent: true, ..Faults::default() });
    let mut reader = Reader::open(&path, &settings()).await;
    let start = Instant::now();
    let error = reader.read().await.unwrap_err();
    // Two sign-ons of five characters and 1.6 s each, and what a busy machine adds.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(error.quality(), Quality::NoAnswer);
    // The second one was sent without parity, which this meter does not understand.
    assert_eq!(control.state().sign_ons, 1);
    control.state().faults.silent = false;
    assert!(reader.read().await.is_ok(), "and it is read as soon as it lives again");
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_missed_the_acknowledgement_is_read_at_300() {
    pace::hold();
    let (path, control) = with(Faults { lost_acknowledgements: 1, ..Faults::default() });
    let values = Reader::open(&path, &settings()).await.read().await.unwrap();
    assert_eq!(values.len(), 13);
    let state = control.state();
    assert_eq!((state.sign_ons, state.repeats, state.wrong_rates), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_rate_above_max_baud_is_not_taken() {
    pace::hold();
    let (path, control) = meter(Options::default());
    let max_baud = Count::clamped(4800);
    let mut reader = Reader::open(&path, &weir::meter::MeterSettings { max_baud, ..settings() }).await;
    assert_eq!(reader.read().await.unwrap().len(), 13);
    assert_eq!((reader.line.speed().baud, control.state().wrong_rates), (300, 0));
    drop(reader);
    let (path, _control) = meter(Options { identification: identification('E'), ..Options::default() });
    let mut reader = Reader::open(&path, &weir::meter::MeterSettings { max_baud, ..settings() }).await;
    assert_eq!(reader.read().await.unwrap_err().quality(), Quality::Refused);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_rate_that_comes_too_late_ends_in_a_reading_all_the_same() {
    pace::hold();
    let (path, control) = meter(Options::default());
    let baud_change_delay = Duration::from_millis(400);
    let mut reader = Reader::open(&path, &weir::meter::MeterSettings { baud_change_delay, ..settings() }).await;
    assert_eq!(reader.read().await.unwrap().len(), 13);
    assert!(control.state().wrong_rates > 0, "the first block was lost");
}
