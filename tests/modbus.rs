//! Modbus from outside: our reader against our simulator with every fault, against pymodbus,
//! and mbpoll against our simulator.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]
#![cfg(feature = "demo")]

#[path = "tools/pace.rs"]
mod pace;
mod peers;

#[path = "modbus/device.rs"]
mod device;
#[path = "modbus/functions.rs"]
mod functions;
#[path = "modbus/mishaps.rs"]
mod mishaps;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peers::Peer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use toml::de::{DeTable, DeValue};
use weir::meter::bus::{self, Handle, Meter, Port};
use weir::meter::{Health, MeterSettings};
use weir::model::{Body, Frame, Quality, Value};
use weir::os::clock::Clock;
use weir::os::line::{Endpoint, Framing, Speed};
use weir::setting::{Node, Problems, Setting};
use weir::sim::modbus_meter::{Fault, ModbusMeters, Served};

/// A meter as it would stand in weir.toml; never due by itself unless `every` says so.
fn meter(name: &str, rest: &str, registers: &[(&str, &str)]) -> Meter {
    let every = if rest.contains("every") { "" } else { "every = \"3650d\"\n" };
    let protocol = if rest.contains("protocol") { "" } else { "protocol = \"modbus-rtu\"\n" };
    let mut text = format!("name = \"{name}\"\nport = \"p\"\n{every}{protocol}{rest}\n");
    for (register, coding) in registers {
        text += &format!("[[register]]\nname = \"{register}\"\nregister = \"{register}\"\ntype = \"{coding}\"\n");
    }
    let document = DeTable::parse(&text).unwrap();
    let value = DeValue::Table(document.get_ref().clone());
    let mut problems = Problems::new();
    let settings = MeterSettings::read(&Node::new(&value, 0..0, "meter"), &mut problems);
    let settings = settings.unwrap_or_else(|| panic!("{:?}", problems.located(&text)));
    Meter::new(&settings).unwrap()
}

fn port(endpoint: Endpoint, baud: u32) -> Port {
    let speed = Speed { baud, framing: Framing::EIGHT_N_ONE };
    Port::plain("p", endpoint, speed)
}

/// A bus under test.
struct Bus {
    jobs: Handle,
    frames: mpsc::Receiver<Frame>,
    health: Health,
    task: JoinHandle<()>,
}

impl Bus {
    fn start(endpoint: Endpoint, baud: u32, meters: Vec<Meter>) -> Self {
        let (frames_in, frames) = mpsc::channel(64);
        let (jobs, jobs_out) = Handle::new("p");
        let health = Health::new();
        let run = bus::run(port(endpoint, baud), meters, frames_in, jobs_out, Clock::system(), health.clone());
        Self { jobs, frames, health, task: tokio::spawn(run) }
    }

    /// A simulated meter of unit 1 and a bus with this one meter, which reads holding 0 and 1.
    fn with_simulator(rest: &str, registers: &[(&str, &str)]) -> (ModbusMeters, Served, Self) {
        let meters = ModbusMeters::new(&[1]);
        let (path, served) = meters.serve_rtu().unwrap();
        let bus = Self::start(Endpoint::Device(path), 9600, vec![meter("m", rest, registers)]);
        (meters, served, bus)
    }

    async fn read(&self, meter: &str) -> Result<Vec<Value>, String> {
        tokio::time::timeout(Duration::from_secs(30), self.jobs.read(meter)).await.expect("the bus answers")
    }

    async fn texts(&self, meter: &str) -> Vec<String> {
        self.read(meter).await.unwrap().into_iter().map(|v| v.value.unwrap_or(v.quality.word().to_owned())).collect()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const TWO: &[(&str, &str)] = &[("holding:0", "u16"), ("holding:1", "u16")];
const APART: &[(&str, &str)] = &[("holding:0", "u16"), ("holding:5", "u16")];

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_never_taken_for_the_answer_to_the_next_request() {
    pace::hold();
    let (meters, _served, bus) = Bus::with_simulator("timeout = \"500ms\"\nretries = 0", APART);
    meters.set_fault(1, Some(Fault::Late(Duration::from_millis(800))));
    let error = bus.read("m").await.unwrap_err();
    assert!(error.contains("no answer within 500 ms"), "{error}");
    // The same request again may take the late answer, 300 ms from now, which is an answer to
    // it. Its own comes 100 ms after that, when a careless reader has already asked for holding 5.
    meters.set_fault(1, Some(Fault::Late(Duration::from_millis(400))));
    let recover = async {
        tokio::time::sleep(Duration::from_millis(750)).await;
        meters.set_fault(1, None);
    };
    let (texts, ()) = tokio::join!(bus.texts("m"), recover);
    assert_eq!(texts, ["1000", "1005"]);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_not_taken_by_another_entry_for_the_same_unit() {
    pace::hold();
    let meters = ModbusMeters::new(&[1]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let first = meter("first", "timeout = \"250ms\"\nretries = 0", &[("holding:0", "u16")]);
    let second = meter("second", "timeout = \"2s\"\nretries = 0", &[("holding:5", "u16")]);
    let bus = Bus::start(Endpoint::Device(path), 9600, vec![first, second]);
    meters.set_fault(1, Some(Fault::Late(Duration::from_millis(400))));
    bus.read("first").await.unwrap_err();
    assert_eq!(bus.texts("second").await, ["1005"]);
}

#[tokio::test(start_paused = true)]
async fn over_tcp_too_a_late_answer_is_not_taken_by_another_entry_for_the_same_unit() {
    pace::hold();
    let meters = ModbusMeters::new(&[1]);
    let (address, _served) = meters.serve_tcp().await.unwrap();
    let entry = |name, timeout, register| {
        let rest = format!("protocol = \"modbus-tcp\"\ntimeout = \"{timeout}\"\nretries = 0");
        meter(name, &rest, &[(register, "u16")])
    };
    let both = vec![entry("first", "250ms", "holding:0"), entry("second", "2s", "holding:5")];
    let bus = Bus::start(Endpoint::Tcp(address.to_string()), 9600, both);
    meters.set_fault(1, Some(Fault::Late(Duration::from_millis(400))));
    bus.read("first").await.unwrap_err();
    assert_eq!(bus.texts("second").await, ["1005"]);
}

#[tokio::test(start_paused = true)]
async fn three_and_a_half_characters_of_silence_stand_between_answer_and_request() {
    pace::hold();
    let meters = ModbusMeters::new(&[1]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let registers = [("holding:0", "u16"), ("holding:2", "u16"), ("holding:4", "u16"), ("holding:6", "u16")];
    let bus = Bus::start(Endpoint::Device(path), 1200, vec![meter("m", "", &registers)]);
    assert_eq!(bus.texts("m").await, ["1000", "1002", "1004", "1006"]);
    let gaps: Vec<_> = meters.seen().iter().filter_map(|s| s.gap).collect();
    assert_eq!(gaps.len(), 3);
    // 3.5 characters of 10 bits at 1200 bits per second.
    assert!(gaps.iter().all(|g| *g >= Duration::from_micros(29_166)), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn damage_is_reported_long_before_the_time_limit_and_says_what_was_found() {
    pace::hold();
    let (meters, _served, bus) = Bus::with_simulator("timeout = \"10s\"\nretries = 0", TWO);
    for (fault, words) in [(Fault::Flip, "CRC"), (Fault::WrongLength, "2, not 4")] {
        meters.set_fault(1, Some(fault));
        let start = Instant::now();
        let error = bus.read("m").await.unwrap_err();
        assert!(error.starts_with("damaged answer") && error.contains(words), "{error}");
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }
    meters.set_fault(1, None);
    assert_eq!(bus.texts("m").await, ["1000", "1001"]);
    let health = bus.health.meters()["m"].clone();
    assert_eq!((health.damaged, health.answers, health.failing), (2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn answers_of_others_echoes_and_noise_are_skipped() {
    pace::hold();
    let (meters, _served, bus) = Bus::with_simulator("timeout = \"5s\"\nretries = 0", TWO);
    for fault in [Fault::OtherUnitFirst, Fault::Echo, Fault::Noise] {
        meters.set_fault(1, Some(fault));
        assert_eq!(bus.texts("m").await, ["1000", "1001"], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_a_value_and_the_other_registers_are_read() {
    pace::hold();
    let registers = [("holding:8", "u16"), ("holding:9", "u16"), ("holding:10", "u16"), ("coil:2", "bool")];
    let (meters, _served, bus) = Bus::with_simulator("", &registers);
    assert_eq!(bus.texts("m").await, ["1008", "1009", "refused", "1"]);
    let asked_first = meters.seen().len();
    assert_eq!(bus.texts("m").await, ["1008", "1009", "refused", "1"]);
    assert_eq!((asked_first, meters.seen().len() - asked_first), (6, 4), "what was refused is not asked for again");
    meters.set_fault(1, Some(Fault::Refuse(4)));
    assert_eq!(bus.texts("m").await, ["refused"; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_meter_delays_the_others_by_its_own_time_limit_only() {
    pace::hold();
    let meters = ModbusMeters::new(&[1, 2]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let dead = meter("dead", "address = 1\ntimeout = \"200ms\"\nretries = 2", APART);
    let well = meter("well", "address = 2\nevery = \"1s\"\ntimeout = \"200ms\"", TWO);
    let mut bus = Bus::start(Endpoint::Device(path), 9600, vec![dead, well]);
    meters.set_fault(1, Some(Fault::Silent));
    let start = Instant::now();
    bus.read("dead").await.unwrap_err();
    let held = start.elapsed();
    assert!(held >= Duration::from_millis(600) && held < Duration::from_millis(1100), "{held:?}");
    let frame = bus.frames.recv().await.unwrap();
    let Body::Reading(reading) = frame.body else { panic!() };
    assert_eq!((reading.meter.as_str(), reading.values[1].value.as_deref()), ("well", Some("2001")));
    assert!(start.elapsed() < held + Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_port_that_vanishes_gives_nulls_and_is_found_again() {
    pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().join("tty");
    let meters = ModbusMeters::new(&[1]);
    let (path, served) = meters.serve_rtu().unwrap();
    std::os::unix::fs::symlink(path, &name).unwrap();
    let m = meter("m", "every = \"1s\"\ntimeout = \"200ms\"", TWO);
    let mut bus = Bus::start(Endpoint::Device(name.clone()), 9600, vec![m]);
    frame_with(&mut bus, Quality::Good).await;
    drop(served);
    std::fs::remove_file(&name).unwrap();
    frame_with(&mut bus, Quality::NoAnswer).await;
    let (path, _served) = meters.serve_rtu().unwrap();
    std::os::unix::fs::symlink(path, &name).unwrap();
    frame_with(&mut bus, Quality::Good).await;
}

async fn frame_with(bus: &mut Bus, quality: Quality) {
    for _ in 0..20 {
        let frame =
            tokio::time::timeout(Duration::from_secs(10), bus.frames.recv()).await.expect("frames go on").unwrap();
        let Body::Reading(reading) = frame.body else { panic!() };
        if reading.values.iter().all(|v| v.quality == quality) {
            return;
        }
    }
    panic!("no frame with quality {quality:?}");
}

#[tokio::test(start_paused = true)]
async fn tcp_skips_late_answers_and_opens_a_damaged_connection_again() {
    pace::hold();
    let meters = ModbusMeters::new(&[1]);
    let (address, _served) = meters.serve_tcp().await.unwrap();
    let m = meter("m", "protocol = \"modbus-tcp\"\ntimeout = \"250ms\"\nretries = 0", APART);
    let bus = Bus::start(Endpoint::Tcp(address.to_string()), 9600, vec![m]);
    meters.set_fault(1, Some(Fault::OtherUnitFirst));
    assert_eq!(bus.texts("m").await, ["1000", "1005"]);
    meters.set_fault(1, Some(Fault::Late(Duration::from_millis(400))));
    assert!(bus.read("m").await.unwrap_err().contains("no answer"));
    meters.set_fault(1, Some(Fault::Flip));
    let error = bus.read("m").await.unwrap_err();
    assert!(error.contains("protocol 0") && error.contains("opened again"), "{error}");
    meters.set_fault(1, Some(Fault::WrongLength));
    assert!(bus.read("m").await.unwrap_err().contains("byte count"));
    meters.set_fault(1, None);
    let mut texts = bus.read("m").await;
    // After two attempts on a broken connection the bus waits a second before the next.
    while texts.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        texts = bus.read("m").await;
    }
    assert_eq!(texts.unwrap()[1].value.as_deref(), Some("1005"));
}

#[tokio::test(start_paused = true)]
async fn a_connection_closed_while_idle_costs_no_reading() {
    pace::hold();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        for value in 1u8.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 12];
            stream.read_exact(&mut request).await.unwrap();
            let answer = [request[0], request[1], 0, 0, 0, 5, 1, 3, 2, 0, value];
            stream.write_all(&answer).await.unwrap();
        }
    });
    let m = meter("m", "protocol = \"modbus-tcp\"\ntimeout = \"5s\"", &[("holding:0", "u16")]);
    let bus = Bus::start(Endpoint::Tcp(address), 9600, vec![m]);
    for value in ["1", "2", "3"] {
        assert_eq!(bus.texts("m").await, [value]);
    }
    server.abort();
}

/// Where a test's log goes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_repeats_is_logged_once_and_its_end_with_the_count() {
    pace::hold();
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (meters, _served, bus) = Bus::with_simulator("timeout = \"100ms\"\nretries = 0", TWO);
    meters.set_fault(1, Some(Fault::Silent));
    for _ in 0..3 {
        bus.read("m").await.unwrap_err();
    }
    meters.set_fault(1, None);
    for _ in 0..2 {
        bus.read("m").await.unwrap();
    }
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains("WARN") && lines[0].contains("no answer within 100 ms"), "{text}");
    assert!(lines[1].contains("INFO") && lines[1].contains("failed_readings=3"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_profile_reads_the_whole_simulated_meter() {
    pace::hold();
    let (_meters, _served, bus) = Bus::with_simulator("profile = \"eastron-sdm630\"", &[]);
    let values = bus.read("m").await.unwrap();
    assert!(values.len() > 25 && values.iter().all(|v| v.quality == Quality::Good), "{values:?}");
    let voltage: f64 = values[0].value.as_ref().unwrap().parse().unwrap();
    assert!((220.0..240.0).contains(&voltage) && values[0].unit == "V");
}

const PYMODBUS: &[(&str, &str)] = &[
    ("holding:0", "u16"),
    ("holding:1", "u32"),
    ("holding:100", "f32"),
    ("input:10", "u16"),
    ("coil:0", "bool"),
    ("coil:1", "bool"),
    ("discrete:2", "bool"),
    ("holding:900", "u16"),
];
const PYMODBUS_VALUES: [&str; 8] = ["100", "6619238", "230.5", "210", "1", "0", "1", "refused"];

#[tokio::test(start_paused = true)]
async fn pymodbus_is_read_over_rtu() {
    pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let (_socat, ours, theirs) = Peer::socat_pair(directory.path());
    let _peer = Peer::python("modbus_meter.py", &["rtu", theirs.to_str().unwrap()], "ready");
    let m = meter("m", "timeout = \"10s\"", PYMODBUS);
    let bus = Bus::start(Endpoint::Device(ours), 9600, vec![m]);
    assert_eq!(bus.texts("m").await, PYMODBUS_VALUES);
}

#[tokio::test(start_paused = true)]
async fn pymodbus_is_read_over_ascii() {
    pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let (_socat, ours, theirs) = Peer::socat_pair(directory.path());
    let _peer = Peer::python("modbus_meter.py", &["ascii", theirs.to_str().unwrap()], "ready");
    let m = meter("m", "protocol = \"modbus-ascii\"\ntimeout = \"10s\"", PYMODBUS);
    let bus = Bus::start(Endpoint::Device(ours), 9600, vec![m]);
    assert_eq!(bus.texts("m").await, PYMODBUS_VALUES);
}

#[tokio::test(start_paused = true)]
async fn pymodbus_is_read_over_tcp_and_over_rtu_in_tcp() {
    pace::hold();
    for (mode, protocol) in [("tcp", "modbus-tcp"), ("rtutcp", "modbus-rtu")] {
        let number = peers::free_port();
        let _peer = Peer::python("modbus_meter.py", &[mode, &number.to_string()], "ready");
        let m = meter("m", &format!("protocol = \"{protocol}\"\ntimeout = \"10s\""), PYMODBUS);
        let bus = Bus::start(Endpoint::Tcp(format!("127.0.0.1:{number}")), 9600, vec![m]);
        assert_eq!(bus.texts("m").await, PYMODBUS_VALUES, "{mode}");
    }
}

async fn mbpoll(arguments: &[&str], place: &str) -> String {
    let output = peers::run(Command::new("mbpoll").args(["-1", "-o", "5"]).args(arguments).arg(place)).await;
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(start_paused = true)]
async fn mbpoll_reads_the_simulated_meter_over_rtu() {
    pace::hold();
    let meters = ModbusMeters::new(&[7]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let rtu = ["-m", "rtu", "-a", "7", "-b", "9600", "-P", "none"];
    // mbpoll is libmodbus: function 6 for one register, 16 for several, 5 for a coil.
    let at = Path::new(&path).to_str().unwrap();
    for (write, values) in [(&["-t", "4", "-r", "6"][..], &["4242"][..]), (&["-t", "4", "-r", "8"], &["1", "2"])] {
        let done =
            peers::run(Command::new("mbpoll").args(["-o", "5"]).args(rtu).args(write).arg(at).args(values)).await;
        assert!(String::from_utf8_lossy(&done.stdout).contains("Written"), "{done:?}");
    }
    let written = mbpoll(&[&rtu[..], &["-t", "4", "-r", "6", "-c", "4"]].concat(), at).await;
    assert!(["[6]: \t4242", "[7]: \t7006", "[8]: \t1", "[9]: \t2"].iter().all(|l| written.contains(l)), "{written}");
    let place = Path::new(&path).to_str().unwrap();
    let holding = mbpoll(&[&rtu[..], &["-t", "4", "-r", "1", "-c", "3"]].concat(), place).await;
    assert!(holding.contains("[3]: \t7002"), "{holding}");
    let float = mbpoll(&[&rtu[..], &["-t", "3:float", "-B", "-r", "31", "-c", "1"]].concat(), place).await;
    assert!(float.contains("0.95"), "{float}");
    let refused = mbpoll(&[&rtu[..], &["-t", "4", "-r", "900", "-c", "1"]].concat(), place).await;
    assert!(refused.contains("Illegal data address"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn mbpoll_reads_the_simulated_meter_over_tcp() {
    pace::hold();
    let meters = ModbusMeters::new(&[1]);
    let (address, _served) = meters.serve_tcp().await.unwrap();
    let number = address.port().to_string();
    let holding = mbpoll(&["-m", "tcp", "-p", &number, "-a", "1", "-t", "4", "-r", "6", "-c", "2"], "127.0.0.1").await;
    assert!(holding.contains("[6]: \t1005") && holding.contains("[7]: \t1006"), "{holding}");
}
