//! Wired M-Bus from outside: our master against our line with every fault, and an independent
//! master against our line.

#![cfg(feature = "demo")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may fail loudly"
)]

#[path = "tools/pace.rs"]
mod pace;
#[path = "mbus/plumbing.rs"]
mod plumbing;

mod peers;

use std::process::Command;
use std::time::Duration;

use plumbing::{Reader, SPEED, settings, slave, start, text, volume};
use tokio::net::TcpListener;
use tokio::time::Instant;
use weir::meter::mbus::{Secondary, identify, search};
use weir::model::Quality;
use weir::os::line::{Direction, Endpoint, Line, Speed};
use weir::sim::mbus_meter::{Control, Faults, MbusLine};

/// A slave with three telegrams.
fn three() -> weir::sim::mbus_meter::Slave {
    let mut three = slave(5, 0x1234_5678);
    three.telegrams = (0..3).map(|n| volume(n, 1000 + u32::from(n))).collect();
    three
}

fn volumes(values: &[weir::model::Value]) -> Vec<(&str, &str)> {
    let of = values.iter().filter(|v| v.name.starts_with("volume"));
    of.map(|v| (v.name.as_str(), v.value.as_deref().unwrap())).collect()
}

/// Changes of rate and application resets that slaves understood.
fn switched(control: &Control) -> (u32, u32) {
    let tally = control.state().tally;
    (tally.rate_changes, tally.application_resets)
}

const ALL_THREE: [(&str, &str); 3] = [("volume", "1.000"), ("volume[1]", "1.001"), ("volume[2]", "1.002")];

#[tokio::test(start_paused = true)]
async fn a_reading_names_its_values_and_keeps_their_exact_text() {
    pace::hold();
    let (path, _control) = start(vec![slave(5, 0x1234_5678)]);
    let values = Reader::open(path, &settings("address = 5")).await.read().await.unwrap();
    assert_eq!((text(&values, "meter_id"), text(&values, "meter_manufacturer")), ("12345678", "WEI"));
    assert_eq!((text(&values, "meter_medium"), text(&values, "status")), ("water", "0"));
    assert_eq!(text(&values, "energy"), "12345000");
    assert_eq!(values.iter().find(|v| v.name == "energy").unwrap().unit, "Wh");
    assert_eq!((text(&values, "volume"), text(&values, "flow_temperature")), ("123456.78", "65"));
    assert_eq!(text(&values, "date_time"), "2027-11-22T10:30");
}

#[tokio::test(start_paused = true)]
async fn all_telegrams_are_read_once_whatever_gets_lost() {
    pace::hold();
    let (path, control) = start(vec![three()]);
    let mut reader = Reader::open(path, &settings("address = 5\nretries = 2")).await;
    let no_faults = Faults::default();
    let faults = [
        no_faults,
        Faults { lost: 1, ..no_faults },
        Faults { lost: 2, ..no_faults },
        Faults { bad_checksums: 2, ..no_faults },
        Faults { truncated: 1, ..no_faults },
        Faults { doubled: 9, ..no_faults },
        Faults { echo: true, ..no_faults },
    ];
    for faults in faults {
        control.state().faults = faults;
        let values = reader.read().await.unwrap_or_else(|e| panic!("{faults:?}: {e}"));
        assert_eq!(volumes(&values), ALL_THREE, "{faults:?}");
    }
    let tally = control.state().tally;
    assert_eq!(tally.telegrams, 21, "{tally:?}");
    assert!(tally.repeated >= 2, "{tally:?}");
}

#[tokio::test(start_paused = true)]
async fn the_frame_count_goes_on_when_a_slave_does_not_confirm_its_reset() {
    pace::hold();
    let (path, control) = start(vec![slave(5, 0x1234_5678)]);
    let mut reader = Reader::open(path, &settings("address = 5\nretries = 0")).await;
    for round in 0..4_u32 {
        control.state().slaves[0].telegrams = vec![volume(0, round)];
        // The first answer of each reading is the E5.
        control.state().faults.lost = 1;
        let values = reader.read().await.unwrap();
        assert_eq!(text(&values, "volume"), format!("0.00{round}"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_telegram_is_never_taken_for_a_new_one_when_the_reset_is_not_heard() {
    pace::hold();
    for telegrams in [1_u8, 3] {
        let (path, control) = start(vec![slave(5, 0x1234_5678)]);
        let mut reader = Reader::open(path.clone(), &settings("address = 5\nretries = 0")).await;
        let fresh = |round: u32| {
            let one = |n: u8| volume(n, 1000 * (round + 1) + u32::from(n));
            control.state().slaves[0].telegrams = (0..telegrams).map(one).collect();
        };
        let first = |values: &[weir::model::Value]| text(values, "volume").to_owned();
        control.state().faults.ignores_resets = true;
        for round in 0..8_u32 {
            fresh(round);
            // The answer to the data request of every second reading gets lost.
            if round % 2 == 0 {
                assert_eq!(first(&reader.read().await.unwrap()), format!("{}.000", round + 1), "{telegrams}");
            } else {
                control.state().faults.lost = 1;
                reader.read().await.unwrap_err();
            }
        }
        // A new process does not know what the last one heard.
        drop(reader);
        let mut reader = Reader::open(path, &settings("address = 5\nretries = 0")).await;
        fresh(20);
        assert_eq!(first(&reader.read().await.unwrap()), "21.000", "{telegrams}");
        // Nor which telegram a reading that was dropped amid its requests had got to.
        fresh(21);
        control.state().faults.delay = Duration::from_millis(100);
        assert!(tokio::time::timeout(Duration::from_millis(280), reader.read()).await.is_err());
        control.state().faults.delay = Duration::ZERO;
        fresh(22);
        assert_eq!(first(&reader.read().await.unwrap()), "23.000", "{telegrams}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_change_of_rate_the_frame_count_goes_on() {
    pace::hold();
    let mut slave = slave(5, 0x1234_5678);
    slave.baud = Some(9600);
    let (path, control) = start(vec![slave]);
    let mut reader = Reader::open(path, &settings("address = 5\nswitch_baud = 38400")).await;
    control.state().faults.ignores_resets = true;
    for round in 0..4_u32 {
        control.state().slaves[0].telegrams = vec![volume(0, round)];
        assert_eq!(text(&reader.read().await.unwrap(), "volume"), format!("0.00{round}"));
    }
    assert_eq!(switched(&control).0, 8);
    // The order to change is numbered as the requests are: none of them was taken for a repetition.
    assert_eq!(control.state().tally.repeated, 0);
}

#[tokio::test(start_paused = true)]
async fn a_meter_is_read_by_who_it_is_and_left_deselected() {
    pace::hold();
    let mut twin = slave(0, 0x1234_5678);
    twin.meter.version = 2;
    twin.telegrams = vec![volume(0, 7)];
    let (path, control) = start(vec![slave(0, 0x1234_5678), twin, slave(0, 0x8765_4321)]);
    let read = |address: &'static str| {
        let path = path.clone();
        async move { Reader::open(path, &settings(&format!("address = \"{address}\""))).await.read().await }
    };
    assert_eq!(text(&read("12345678.WEI.02.07").await.unwrap(), "volume"), "0.007");
    assert_eq!(text(&read("12345678.WEI.01").await.unwrap(), "volume"), "123456.78");
    assert_eq!(text(&read("87FFFFFF").await.unwrap(), "meter_id"), "87654321");
    assert_eq!(text(&read("87654321.*.*.*.87654321").await.unwrap(), "meter_id"), "87654321");
    // Two at once are no answer.
    assert_eq!(read("12345678").await.unwrap_err().quality(), Quality::Invalid);
    assert_eq!(read("11111111").await.unwrap_err().quality(), Quality::NoAnswer);
    assert_eq!(control.state().tally.resets, 4);
}

#[tokio::test(start_paused = true)]
async fn wanted_names_are_given_in_order_and_a_missing_one_is_null() {
    pace::hold();
    let (path, _control) = start(vec![slave(5, 1)]);
    let mut reader = Reader::open(path, &settings("values = [\"volume\", \"power\", \"energy\"]")).await;
    let values = reader.read().await.unwrap();
    let names: Vec<_> = values.iter().map(|v| (v.name.as_str(), v.quality)).collect();
    assert_eq!(names, [("volume", Quality::Good), ("power", Quality::Refused), ("energy", Quality::Good)]);
    assert_eq!(reader.session.absent(Quality::NoAnswer).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn rate_and_sub_telegram_are_chosen_only_when_configured() {
    pace::hold();
    let mut slave = three();
    slave.baud = Some(9600);
    let (path, control) = start(vec![slave]);
    let mut plain = Reader::open(path.clone(), &settings("address = 5")).await;
    assert_eq!(volumes(&plain.read().await.unwrap()), ALL_THREE);
    assert_eq!(switched(&control), (0, 0));
    drop(plain);
    let mut reader = Reader::open(path, &settings("address = 5\nswitch_baud = 38400\napplication_reset = 16")).await;
    for _ in 0..2 {
        assert_eq!(volumes(&reader.read().await.unwrap()), ALL_THREE);
        assert_eq!(control.state().slaves[0].baud, Some(9600));
    }
    assert_eq!(switched(&control), (4, 2));
    // A slave that stayed at the other rate is found there.
    control.state().slaves[0].baud = Some(38_400);
    assert_eq!(volumes(&reader.read().await.unwrap()), ALL_THREE);
}

#[tokio::test(start_paused = true)]
async fn a_level_converter_is_reached_by_tcp() {
    pace::hold();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::Tcp(listener.local_addr().unwrap().to_string());
    let control = Control::new(vec![three()]);
    tokio::spawn(async move { MbusLine::accept(&listener, control).await.unwrap().run().await });
    let mut reader = Reader::on(endpoint, &settings("address = 254")).await;
    assert_eq!(volumes(&reader.read().await.unwrap()), ALL_THREE);
}

#[tokio::test(start_paused = true)]
async fn an_encrypted_answer_and_a_dead_meter_are_told_apart() {
    pace::hold();
    let (path, control) = start(vec![slave(5, 1)]);
    let mut reader = Reader::open(path.clone(), &settings("address = 6\nretries = 0")).await;
    let start = Instant::now();
    assert_eq!(reader.read().await.unwrap_err().quality(), Quality::NoAnswer);
    assert!(start.elapsed() < Duration::from_millis(800), "{:?}", start.elapsed());
    assert_eq!(control.state().tally.telegrams, 0);
    drop(reader);
    control.state().slaves[0].configuration = 0x0510;
    let mut reader = Reader::open(path, &settings("address = 5")).await;
    let error = reader.read().await.unwrap_err();
    assert!(error.quality() == Quality::Refused && error.to_string().contains("encrypted (mode 5)"), "{error}");
    // It was understood: asking again would not help.
    assert_eq!(control.state().tally.telegrams, 1);
}

#[tokio::test(start_paused = true)]
async fn a_search_finds_every_meter_and_says_which_can_not_be_told_apart() {
    pace::hold();
    let ids = [0x1234_5678, 0x1234_5679, 0x1234_0000, 0x9999_9999, 0x0000_0001];
    let mut slaves: Vec<_> = ids.iter().map(|id| slave(0, *id)).collect();
    slaves.push(slave(0, 0x5000_0000));
    let mut twin = slave(0, 0x5000_0000);
    twin.meter.manufacturer ^= 0x0AAA;
    twin.meter.version = 9;
    slaves.push(twin);
    let (path, control) = start(slaves);
    let fast = Speed { baud: 38_400, ..SPEED };
    for echo in [false, true] {
        control.state().faults.echo = echo;
        let mut line = Line::open(&Endpoint::Device(path.clone()), fast, Direction::Automatic).await.unwrap();
        let mut last = 0;
        let until = Instant::now() + Duration::from_secs(60);
        let found = search(&mut line, Duration::from_millis(20), until, |progress| {
            assert!(progress.covered >= last && progress.covered <= 1_000_000);
            last = progress.covered;
        });
        let found = found.await.unwrap();
        assert!(found.complete && last == 1_000_000);
        let mut expected = ids;
        expected.sort_unstable();
        assert_eq!(found.meters.iter().map(|meter| meter.id).collect::<Vec<_>>(), expected);
        assert_eq!(found.unclear, [Secondary::parse("50000000").unwrap()]);
    }
    // It changed nothing, and stops when its time is over.
    assert_eq!(switched(&control), (0, 0));
    let mut line = Line::open(&Endpoint::Device(path.clone()), SPEED, Direction::Automatic).await.unwrap();
    let found = search(&mut line, Duration::from_millis(20), Instant::now() + Duration::from_millis(300), |_| {});
    assert!(!found.await.unwrap().complete);
}

#[tokio::test(start_paused = true)]
async fn a_primary_address_tells_who_it_is() {
    pace::hold();
    let (path, _control) = start(vec![slave(5, 0x1234_5678), slave(6, 0x8765_4321)]);
    let mut line = Line::open(&Endpoint::Device(path), SPEED, Direction::Automatic).await.unwrap();
    let limit = Duration::from_millis(20);
    assert_eq!(identify(&mut line, limit, 6).await.unwrap().unwrap().id, 0x8765_4321);
    assert_eq!(identify(&mut line, limit, 7).await.unwrap(), None);
}

async fn master(arguments: &[&str]) -> Vec<serde_json::Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/mbus_master.py");
    let output = peers::run(Command::new(peers::python()).arg(script).args(arguments)).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_independent_master_reads_and_finds_our_meters() {
    pace::hold();
    let (path, _control) = start(vec![three(), slave(6, 0x1299_0000), slave(7, 0x8765_4321)]);
    let device = path.to_str().unwrap();
    let frames = master(&[device, "read", "5"]).await;
    let values = frames.iter().map(|frame| frame["body"]["records"][0]["value"].as_f64().unwrap());
    // It counts in binary floats.
    assert_eq!(values.map(|value| format!("{value:.3}")).collect::<Vec<_>>(), ["1.000", "1.001", "1.002"]);
    let frames = master(&[device, "read", "87654321A95C0107"]).await;
    assert_eq!(frames[0]["body"]["header"]["identification"], "0x87, 0x65, 0x43, 0x21");
    let found = master(&[device, "search"]).await;
    let mut found: Vec<_> = found.iter().map(|line| line["found"].as_str().unwrap()[..8].to_owned()).collect();
    found.sort();
    assert_eq!(found, ["12345678", "12990000", "87654321"]);
}
