//! Meters that send by themselves, from outside: our listening port against our meters with every
//! fault, over a pseudo-terminal and TCP, and independent readers against our meters.

#![cfg(feature = "demo")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

#[path = "tools/pace.rs"]
mod pace;
#[path = "peers/mod.rs"]
mod peers;
#[path = "push/torn.rs"]
mod torn;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use weir::meter::bus::{Handle, Port};
use weir::meter::{Health, Listener, MeterSettings, listen, protocol as protocol_row};
use weir::model::{Body, Frame, Quality, Value};
use weir::os::clock::Clock;
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};
use weir::sim::push_meter::dlms::Form;
use weir::sim::push_meter::{Control, Kind, PushMeter};

const CIPHERED: Kind = Kind::P1Ciphered { encryption: [0xAA; 16], authentication: [0x11; 16] };
const LIMIT: Duration = Duration::from_secs(120);
const SPEED: Speed = Speed { baud: 115_200, framing: Framing::EIGHT_N_ONE };

/// A meter that pushes by DLMS, ciphered or not.
const fn pushed(form: Form, ciphered: bool) -> Kind {
    Kind::Dlms { form, keys: if ciphered { Some(([0xAA; 16], [0x11; 16])) } else { None } }
}

/// Every kind with its protocol, the name of its energy and how the energy is spelt.
const KINDS: [(Kind, &str, &str); 11] = [
    (Kind::P1, "dsmr-p1", "1-0:1.8.1"),
    (Kind::P1Old, "dsmr-p1", "1-0:1.8.1"),
    (CIPHERED, "dsmr-p1", "1-0:1.8.1"),
    (Kind::D0, "iec-d0", "1-0:1.8.0*255"),
    (Kind::Sml, "sml", "1-0:1.8.0*255"),
    (pushed(Form::Frame, false), "dlms-push", "1-0:1.8.0*255"),
    (pushed(Form::Frame, true), "dlms-push", "1-0:1.8.0*255"),
    (pushed(Form::Segments, true), "dlms-push", "1-0:1.8.0*255"),
    (pushed(Form::Mbus, true), "dlms-push", "1-0:1.8.0*255"),
    (pushed(Form::Blocks, true), "dlms-push", "1-0:1.8.0*255"),
    (pushed(Form::Wrapper, true), "dlms-push", "1-0:1.8.0*255"),
];

/// The meter on a task of the test's runtime.
fn meter(kind: Kind, millis: u64) -> (PathBuf, Control, JoinHandle<std::io::Result<()>>) {
    let meter = PushMeter::open(kind, Duration::from_millis(millis)).unwrap();
    let (path, control) = (meter.path().to_owned(), meter.control());
    // It counts quickly, so that every message has another energy.
    control.state().registers.energy[0] = 834_100_000;
    (path, control, tokio::spawn(meter.run()))
}

/// Settings of a meter; a ciphered one finds its keys in `folder`.
fn settings(kind: Kind, protocol: &str, folder: &Path) -> MeterSettings {
    let mut text = format!("name = \"m\"\nport = \"p\"\nprotocol = \"{protocol}\"\nevery = \"1s\"\n");
    if kind == CIPHERED || matches!(kind, Kind::Dlms { keys: Some(_), .. }) {
        for (key, digits) in [("key_file", "AA"), ("authentication_key_file", "11")] {
            std::fs::write(folder.join(key), digits.repeat(16)).unwrap();
            text += &format!("{key} = \"{}\"\n", folder.join(key).display());
        }
    }
    MeterSettings::parse(&text).unwrap()
}

/// The energy of a reading as P1 spells it, whatever the protocol.
fn energy(values: &[Value], name: &str) -> Option<String> {
    let value = values.iter().find(|v| v.name == name)?;
    let text = value.value.clone()?;
    if value.unit != "Wh" {
        return Some(text);
    }
    let (whole, tenth) = text.split_once('.').unwrap();
    assert_eq!(tenth.len(), 1);
    Some(format!("{:0>6}.{}", &whole[..whole.len() - 3], &whole[whole.len() - 3..]))
}

fn reading(frame: Frame) -> Vec<Value> {
    let Body::Reading(reading) = frame.body else { panic!() };
    assert_eq!(reading.meter, "m");
    reading.values
}

/// A listening port on a task; its frames come out of the receiver.
fn start(endpoint: Endpoint, settings: &MeterSettings) -> (mpsc::Receiver<Frame>, Health, JoinHandle<()>) {
    let port = Port::plain("p", endpoint, SPEED);
    let (frames, inbox) = mpsc::channel(4);
    let health = Health::new();
    let meter = listen::Meter::new(settings).unwrap();
    let task = tokio::spawn(listen::run(port, meter, frames, Handle::new("p").1, Clock::system(), health.clone()));
    (inbox, health, task)
}

async fn next(inbox: &mut mpsc::Receiver<Frame>) -> Vec<Value> {
    reading(timeout(LIMIT, inbox.recv()).await.unwrap().unwrap())
}

/// The next frame with values that are all good.
async fn next_good(inbox: &mut mpsc::Receiver<Frame>) -> Vec<Value> {
    let until = Instant::now() + LIMIT;
    loop {
        let values = next(inbox).await;
        if !values.is_empty() && values.iter().all(|v| v.quality == Quality::Good) {
            return values;
        }
        assert!(Instant::now() < until, "nothing good came");
    }
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_meter_gives_one_reading_an_interval_however_often_it_sends() {
    pace::hold();
    let folder = tempfile::tempdir().unwrap();
    let check = |kind: Kind, protocol: &'static str, name: &'static str| {
        let settings = settings(kind, protocol, folder.path());
        async move {
            let (path, control, _meter) = meter(kind, 100);
            let (mut inbox, health, _port) = start(Endpoint::Device(path), &settings);
            let values = next_good(&mut inbox).await;
            let energy = energy(&values, name).unwrap();
            assert!(control.state().sent.contains(&energy), "{kind:?}: {energy}");
            let (before, mut slots) = (control.state().sent.len(), Vec::new());
            while control.state().sent.len() < before + 20 || slots.len() < 3 {
                let frame = timeout(LIMIT, inbox.recv()).await.unwrap().unwrap();
                slots.push(frame.time.wall.as_millis() / 1000);
            }
            // One that stands in the queue may be told late, in the second of the next one.
            let seconds = slots[slots.len() - 1] - slots[0] + 1;
            assert!(slots.len() as i64 <= seconds + 1, "{kind:?}: {} frames in {seconds} s", slots.len());
            assert!(health.meters()["m"].answers >= 10);
        }
    };
    let mut all = Vec::new();
    for (kind, protocol, name) in KINDS {
        all.push(tokio::spawn(check(kind, protocol, name)));
    }
    for one in all {
        one.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn no_fault_of_the_line_gives_a_value_that_the_meter_did_not_send() {
    pace::hold();
    let folder = tempfile::tempdir().unwrap();
    for (kind, protocol, name) in KINDS {
        let (path, control, _meter) = meter(kind, 10);
        let settings = settings(kind, protocol, folder.path());
        let mut listener = self::protocol(protocol).listener(&settings).unwrap();
        let mut line = Line::open(&Endpoint::Device(path), SPEED, Direction::Automatic).await.unwrap();
        // The shape of what has no checksum must be known before the faults begin.
        hear(&mut line, listener.as_mut(), 2, 0).await;
        for turn in 0..8 {
            let faults = weir::sim::push_meter::Faults {
                flipped: u32::from(turn % 4 == 0),
                truncated: u32::from(turn % 4 == 1),
                doubled: u32::from(turn % 4 == 2),
                junk: u32::from(turn % 4 == 3),
                silent: false,
            };
            control.state().faults = faults;
            let good = hear(&mut line, listener.as_mut(), 3, usize::from(turn % 4 < 2)).await;
            for values in good {
                let energy = energy(&values, name).unwrap();
                assert!(control.state().sent.contains(&energy), "{kind:?} {turn}: {energy}");
            }
        }
    }
}

fn protocol(name: &str) -> &'static weir::meter::Protocol {
    protocol_row(name).unwrap()
}

/// Hears until there are `count` good messages and `faulty` damaged ones: some may have been under way before the meter began to fault.
async fn hear(line: &mut Line, listener: &mut dyn Listener, count: usize, faulty: usize) -> Vec<Vec<Value>> {
    let until = Instant::now() + LIMIT;
    let (mut good, mut damaged) = (Vec::new(), 0);
    let mut buffer = [0; 256];
    while good.len() < count || damaged < faulty {
        assert!(Instant::now() < until, "{} good and {damaged} damaged ones came", good.len());
        let read = line.receive(&mut buffer, until).await.unwrap();
        for result in listener.push(&buffer[..read]) {
            match result {
                Ok(values) => good.push(values),
                Err(_) => damaged += 1,
            }
        }
    }
    good
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_falls_silent_gives_nulls_and_is_heard_again() {
    pace::hold();
    let folder = tempfile::tempdir().unwrap();
    let (path, control, _meter) = meter(Kind::P1, 100);
    let (mut inbox, health, _port) = start(Endpoint::Device(path), &settings(Kind::P1, "dsmr-p1", folder.path()));
    let good = next_good(&mut inbox).await;
    control.state().faults.silent = true;
    let until = Instant::now() + LIMIT;
    let silent = loop {
        let values = next(&mut inbox).await;
        if values[0].quality == Quality::NoAnswer {
            break values;
        }
        assert!(Instant::now() < until);
    };
    let names = |values: &[Value]| values.iter().map(|v| (v.name.clone(), v.unit.clone())).collect::<Vec<_>>();
    assert_eq!(names(&silent), names(&good), "nulls have the names and units of the last message");
    assert!(silent.iter().all(|v| v.value.is_none()));
    assert!(health.meters()["m"].failing >= 1);
    control.state().faults.silent = false;
    next_good(&mut inbox).await;
    assert_eq!(health.meters()["m"].failing, 0);
}

#[tokio::test(start_paused = true)]
async fn a_port_that_is_unplugged_is_opened_again_without_a_restart() {
    pace::hold();
    let folder = tempfile::tempdir().unwrap();
    let device = folder.path().join("meter");
    let (path, _control, first) = meter(Kind::Sml, 100);
    std::os::unix::fs::symlink(path, &device).unwrap();
    let (mut inbox, _, _port) = start(Endpoint::Device(device.clone()), &settings(Kind::Sml, "sml", folder.path()));
    next_good(&mut inbox).await;
    first.abort();
    std::fs::remove_file(&device).unwrap();
    let until = Instant::now() + LIMIT;
    while next(&mut inbox).await[0].quality == Quality::Good {
        assert!(Instant::now() < until);
    }
    let (path, control, _second) = meter(Kind::Sml, 100);
    std::os::unix::fs::symlink(path, &device).unwrap();
    let energy = energy(&next_good(&mut inbox).await, "1-0:1.8.0*255").unwrap();
    assert!(control.state().sent.contains(&energy));
}

#[tokio::test(start_paused = true)]
async fn over_tcp_a_server_that_hangs_up_is_called_again() {
    pace::hold();
    let folder = tempfile::tempdir().unwrap();
    let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = server.local_addr().unwrap().to_string();
    let (path, control, _meter) = meter(Kind::P1, 50);
    let serve = async {
        let mut line = Line::open(&Endpoint::Device(path), SPEED, Direction::Automatic).await.unwrap();
        let mut calls = 0;
        loop {
            let (mut caller, _) = server.accept().await.unwrap();
            calls += 1;
            let hang_up = Instant::now() + Duration::from_millis(1200);
            let mut buffer = [0; 64];
            while let Ok(count) = line.receive(&mut buffer, hang_up + LIMIT).await {
                if caller.write_all(&buffer[..count]).await.is_err() || (Instant::now() > hang_up && calls < 3) {
                    break;
                }
            }
        }
    };
    let (mut inbox, _, _port) = start(Endpoint::Tcp(address), &settings(Kind::P1, "dsmr-p1", folder.path()));
    let look = async {
        for _ in 0..4 {
            let energy = energy(&next_good(&mut inbox).await, "1-0:1.8.1").unwrap();
            assert!(control.state().sent.contains(&energy));
        }
    };
    tokio::select! {
        () = serve => {}
        () = look => {}
    }
}

/// One whole message of a meter, as its bytes are, and our reading of it.
async fn one_message(kind: Kind, protocol: &str, folder: &Path) -> (Vec<u8>, Vec<Value>) {
    let (path, _, _meter) = meter(kind, 200);
    let mut line = Line::open(&Endpoint::Device(path), SPEED, Direction::Automatic).await.unwrap();
    let mut listener = self::protocol(protocol).listener(&settings(kind, protocol, folder)).unwrap();
    let mut buffer = [0; 4096];
    let mut bytes = Vec::new();
    let mut good = Vec::new();
    let until = Instant::now() + LIMIT;
    while good.is_empty() {
        let pause = (Instant::now() + Duration::from_millis(60)).min(until);
        match line.receive(&mut buffer, pause).await {
            Ok(count) => {
                bytes.extend_from_slice(&buffer[..count]);
                good = listener.push(&buffer[..count]);
            }
            Err(_) => bytes.clear(),
        }
        assert!(Instant::now() < until);
    }
    (bytes, good.remove(0).unwrap())
}

/// What an independent library reads from the bytes.
fn theirs(kind: &str, keys: &[&str], bytes: &[u8]) -> BTreeMap<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/push_reader.py");
    let mut command = Command::new(peers::python());
    command.arg(script).arg(kind).args(keys).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "push_reader.py {kind} failed; tests/run installs its libraries");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The same number, however many zeros it has.
fn number(text: &str) -> String {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap();
    let value: f64 = digits.parse().unwrap();
    format!("{:.3}", value * 10_f64.powi(exponent))
}

#[tokio::test(start_paused = true)]
async fn an_independent_p1_reader_reads_the_same_of_our_meters() {
    pace::hold();
    let folder = tempfile::tempdir().unwrap();
    let keys = ["AA".repeat(16), "11".repeat(16)];
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    for (kind, word, keys) in
        [(Kind::P1, "p1", &[][..]), (Kind::P1Old, "p1-old", &[]), (CIPHERED, "p1-ciphered", &keys)]
    {
        let (bytes, ours) = one_message(kind, "dsmr-p1", folder.path()).await;
        let theirs = theirs(word, keys, &bytes);
        let text = |name: &str| ours.iter().find(|v| v.name == name).unwrap().value.clone().unwrap();
        for (name, obis) in [
            ("ELECTRICITY_USED_TARIFF_1", "1-0:1.8.1"),
            ("ELECTRICITY_USED_TARIFF_2", "1-0:1.8.2"),
            ("CURRENT_ELECTRICITY_USAGE", "1-0:1.7.0"),
        ] {
            assert_eq!(number(&theirs[name]), number(&text(obis)), "{word} {name}: {theirs:?}");
        }
        assert_eq!(theirs["ELECTRICITY_ACTIVE_TARIFF"], text("0-0:96.14.0"));
        assert!(theirs.values().any(|v| number_or_none(v) == Some(number(&text("0-1:24.2.1")))), "{word}: {theirs:?}");
    }
}

fn number_or_none(text: &str) -> Option<String> {
    text.parse::<f64>().ok().map(|value| format!("{value:.3}"))
}

#[tokio::test(start_paused = true)]
async fn an_independent_sml_reader_reads_the_same_of_our_meter() {
    pace::hold();
    let folder = tempfile::tempdir().unwrap();
    let (bytes, ours) = one_message(Kind::Sml, "sml", folder.path()).await;
    let theirs = theirs("sml", &[], &bytes);
    for name in ["1-0:1.8.0*255", "1-0:2.8.0*255", "1-0:16.7.0*255", "1-0:1.8.0*255#status"] {
        let value = ours.iter().find(|v| v.name == name).unwrap();
        assert_eq!(number(&theirs[name]), number(value.value.as_deref().unwrap()), "{name}: {theirs:?}");
    }
    let octets = ours.iter().find(|v| v.name == "129-129:199.130.5*255").unwrap().value.clone().unwrap();
    assert_eq!(theirs["129-129:199.130.5*255"].to_uppercase(), octets);
}

#[tokio::test(start_paused = true)]
async fn an_independent_dlms_reader_reads_the_same_of_our_meters() {
    pace::hold();
    let folder = tempfile::tempdir().unwrap();
    let keys = ["AA".repeat(16), "11".repeat(16)];
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    for (form, ciphered, word) in [
        (Form::Frame, false, "dlms-hdlc"),
        (Form::Frame, true, "dlms-hdlc"),
        (Form::Segments, false, "dlms-hdlc"),
        (Form::Segments, true, "dlms-hdlc"),
        (Form::Blocks, true, "dlms-hdlc"),
        (Form::Mbus, true, "dlms-mbus"),
        (Form::Wrapper, false, "dlms-wrapper"),
        (Form::Wrapper, true, "dlms-wrapper"),
    ] {
        let (bytes, ours) = one_message(pushed(form, ciphered), "dlms-push", folder.path()).await;
        let theirs = theirs(word, if ciphered { &keys } else { &[] }, &bytes);
        for name in ["1-0:1.8.0*255", "1-0:1.7.0*255", "1-0:32.7.0*255"] {
            let value = ours.iter().find(|v| v.name == name).unwrap();
            let same = theirs.get(name).map(|text| number(text));
            assert_eq!(same, value.value.as_deref().map(number), "{form:?} {name}: {theirs:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_that_was_read_once_is_a_replay_after_a_restart() {
    pace::hold();
    let folder = tempfile::tempdir().unwrap();
    let kind = pushed(Form::Frame, true);
    let (bytes, _) = one_message(kind, "dlms-push", folder.path()).await;
    let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = Port::plain("p", Endpoint::Tcp(server.local_addr().unwrap().to_string()), SPEED);
    // Whoever calls hears the same recorded push.
    let _recorder = tokio::spawn(async move {
        let mut callers = Vec::new();
        while let Ok((mut caller, _)) = server.accept().await {
            caller.write_all(&bytes).await.unwrap();
            callers.push(caller);
        }
    });
    let settings = settings(kind, "dlms-push", folder.path());
    let read = async |kept: &str| {
        let mut meter = listen::Meter::new(&settings).unwrap().kept_in(&folder.path().join(kept));
        listen::read_once(&port, &mut meter, Duration::from_secs(1)).await
    };
    assert!(read("one").await.is_ok());
    let again = read("one").await.unwrap_err().to_string();
    assert!(again.contains("replay"), "{again}");
    assert!(read("two").await.is_ok(), "where nothing is kept it is new");
}
