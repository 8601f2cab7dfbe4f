//! Our simulated meter: an independent client reads it, and our client reads it with every fault.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::sync::mpsc;
use weir::meter::bus::{self, Meter, Port};
use weir::meter::{Health, MeterError, MeterSettings};
use weir::model::{Body, Quality};
use weir::os::clock::Clock;
use weir::os::line::{Endpoint, Framing, Speed};
use weir::sim::dlms_meter::{Content, Control, DlmsMeter, Faults, Options, serve_wrapper};
use weir::wire::dlms::hdlc::Parameters;

use crate::link::Reader;
use crate::peers;

/// A meter on a task of the test's runtime.
fn meter(options: Options) -> (std::path::PathBuf, Control) {
    let meter = DlmsMeter::open(options).unwrap();
    let (path, control) = (meter.path(), meter.control());
    tokio::spawn(meter.run());
    (path, control)
}

fn small() -> Content {
    Content { rows: 200, channels: 3, ..Content::default() }
}

/// What the client of gurux says that it read.
async fn gurux(arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/dlms_client.py");
    let output = peers::run(Command::new(peers::python()).arg(script).args(arguments)).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

const WHAT: [&str; 5] = ["--list", "--entry", "3,4", "--range", "2026-01-01T01:00:00,2026-01-01T02:00:00"];

fn gurux_has_it_all(said: &str) {
    for part in [
        "ASSOCIATED",
        "register 1.0.1.8.0.255",
        "('1.0.3.8.0.255', 2)",
        "profile rows 200 first",
        "entry 3 4 -> 4",
        "range -> 5 ",
        "list ->",
    ] {
        assert!(said.contains(part), "no \"{part}\" in {said}");
    }
    let reading = small().reading(0, 2);
    assert!(said.contains(&reading.to_string()), "the third row's reading, {reading}: {said}");
}

#[tokio::test(start_paused = true)]
async fn an_independent_client_reads_it_over_hdlc_in_frames_of_every_size() {
    crate::pace::hold();
    for (size, window, max_pdu) in [(128, 1, 512), (40, 1, 100), (2030, 7, 4096)] {
        let limits = Parameters { transmit: size, receive: size, window_transmit: window, window_receive: window };
        let (path, control) = meter(Options { devices: vec![(1, 0, small())], limits, max_pdu, ..Options::default() });
        let path = path.display().to_string();
        gurux_has_it_all(&gurux(&[&["--tty", &path, "--sap", "16"], &WHAT[..]].concat()).await);
        let state = control.state();
        assert_eq!((state.opened, state.closed), (1, 1), "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_independent_client_reads_it_over_the_wrapper_with_and_without_password() {
    crate::pace::hold();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let devices = vec![(1, 0, small())];
    let options = Options { devices, password: Some("Gurux".to_owned()), ..Options::default() };
    tokio::spawn(serve_wrapper(listener, options, Control::default()));
    let tcp = ["--tcp", &address, "--wrapper", "--sap"];
    gurux_has_it_all(&gurux(&[&tcp[..], &["16"], &WHAT[..]].concat()).await);
    gurux_has_it_all(&gurux(&[&tcp[..], &["17", "--auth", "LOW", "--pw", "Gurux"], &WHAT[..]].concat()).await);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/dlms_client.py");
    let wrong = [&tcp[..], &["17", "--auth", "LOW", "--pw", "wrong"]].concat();
    let output = peers::run(Command::new(peers::python()).arg(script).args(wrong)).await;
    assert!(!output.status.success(), "a wrong password is refused");
}

/// Reads once; the name of the device must be among the values.
async fn reads(reader: &mut Reader, name: &str) -> Result<(), MeterError> {
    let values = reader.read().await?;
    assert!(values.iter().any(|v| v.value.as_deref() == Some(name)), "{values:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_the_line_is_mended_without_a_wrong_value() {
    crate::pace::hold();
    let one = Faults::default();
    let faults = [
        ("lost", Faults { lost: 1, ..one.clone() }),
        ("corrupt", Faults { corrupt: 1, ..one.clone() }),
        ("doubled", Faults { doubled: 20, ..one.clone() }),
        ("truncated", Faults { truncated: 1, ..one.clone() }),
        ("foreign", Faults { foreign: 20, ..one.clone() }),
        ("pushes", Faults { pushes: 3, ..one.clone() }),
        ("not ready", Faults { not_ready: 4, ..one.clone() }),
        ("late", Faults { late: 1, ..one.clone() }),
        ("no parameters", Faults { no_parameters: true, ..one.clone() }),
    ];
    for (what, faults) in faults {
        let (path, control) = meter(Options { devices: vec![(1, 0, small())], ..Options::default() });
        let mut reader =
            Reader::device(&path, "timeout = \"300ms\"\nretries = 3\ndlms.octet_timeout = \"100ms\"").await;
        control.state().faults = faults;
        for _ in 0..2 {
            if let Err(error) = reads(&mut reader, "WEI0000000000001").await {
                panic!("{what}: {error}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_loses_the_connection_is_opened_once_more_and_then_an_error_tells_it() {
    crate::pace::hold();
    let (path, control) = meter(Options { devices: vec![(1, 0, small())], ..Options::default() });
    let mut reader = Reader::device(&path, "timeout = \"300ms\"").await;
    for faults in [Faults { dm: 1, ..Faults::default() }, Faults { frmr: 1, ..Faults::default() }] {
        control.state().faults = faults;
        reads(&mut reader, "WEI0000000000001").await.unwrap();
    }
    control.state().faults.dm = u32::MAX;
    let error = reader.read().await.unwrap_err();
    assert!(error.to_string().contains("not connected (DM)"), "{error}");
    control.state().faults.dm = 0;
    reads(&mut reader, "WEI0000000000001").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn after_an_opening_by_mode_e_it_is_read_and_after_a_session_that_broke_off_too() {
    crate::pace::hold();
    let options = Options { devices: vec![(1, 0, small())], mode_e: Some(9600), ..Options::default() };
    let (path, control) = meter(options);
    let settings = "timeout = \"500ms\"\ndlms = { link = \"hdlc-mode-e\", mode_e_pause = \"50ms\" }";
    let mut reader = Reader::device(&path, settings).await;
    reads(&mut reader, "WEI0000000000001").await.unwrap();
    let state = control.state().clone();
    assert_eq!((state.opened, state.closed, state.wrong_rate), (1, 1, 0));
    // It breaks off: the meter does not hear the DISC either, and stays at its rate.
    control.state().faults.not_ready = u32::MAX;
    reader.read().await.unwrap_err();
    control.state().faults = Faults::default();
    reads(&mut reader, "WEI0000000000001").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_meters_and_two_logical_devices_work_side_by_side_on_one_line() {
    crate::pace::hold();
    let device = |logical, physical, name: &str| (logical, physical, Content { name: name.to_owned(), ..small() });
    let devices = vec![device(1, 17, "ONE"), device(2, 17, "TWO"), device(1, 18, "THREE")];
    let (path, control) = meter(Options { devices, ..Options::default() });
    let settings = |name: &str, lines: &str| {
        let text = format!("name = \"{name}\"\nport = \"p\"\nprotocol = \"dlms\"\nevery = \"1s\"\n{lines}");
        MeterSettings::parse(&text).unwrap()
    };
    let meters = [
        settings("ONE", "address = 17"),
        settings("TWO", "address = 17\ndlms.server = 2"),
        settings("THREE", "address = 18\ndlms.address_bytes = 4"),
    ];
    let meters = meters.iter().map(|settings| Meter::new(settings).unwrap()).collect();
    let speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
    let port = Port::plain("p", Endpoint::Device(path), speed);
    let (frames, mut taken) = mpsc::channel(8);
    let (_door, jobs) = bus::Handle::new("p");
    let running = tokio::spawn(bus::run(port, meters, frames, jobs, Clock::system(), Health::new()));
    for _ in 0..6 {
        let frame = tokio::time::timeout(Duration::from_secs(30), taken.recv()).await.unwrap().unwrap();
        let Body::Reading(reading) = &frame.body else { panic!("{frame:?}") };
        let own = |v: &weir::model::Value| v.quality == Quality::Good && v.value.as_deref() == Some(&*reading.meter);
        assert!(reading.values.iter().any(own), "{reading:?}");
    }
    running.abort();
    assert!(control.state().opened >= 6);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_late_on_the_wrapper_closes_the_connection() {
    crate::pace::hold();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let control = Control::default();
    let options = Options { devices: vec![(1, 0, small())], ..Options::default() };
    tokio::spawn(serve_wrapper(listener, options, control.clone()));
    let settings = "timeout = \"300ms\"\ndlms.link = \"wrapper\"";
    let mut reader = Reader::tcp(port, settings).await;
    reads(&mut reader, "WEI0000000000001").await.unwrap();
    control.state().faults.late = 1;
    let error = reader.read().await.unwrap_err();
    assert!(error.is_silence() && error.must_reopen(), "{error}");
    drop(reader);
    // It takes the next client when it has done with this one.
    let mut reader = Reader::tcp(port, "timeout = \"10s\"\ndlms.link = \"wrapper\"").await;
    reads(&mut reader, "WEI0000000000001").await.unwrap();
}
