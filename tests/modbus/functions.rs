//! Writes, broadcasts, identification, limits and SunSpec, with our simulator and with pymodbus.

use std::time::Duration;

use weir::meter::modbus::{Framing, broadcast, identify};
use weir::meter::{MeterError, WriteOutcome};
use weir::os::line::Endpoint;
use weir::sim::modbus_meter::{Fault, ModbusMeters};
use weir::wire::modbus::{Level, Request};

use crate::device::{Device, line};
use crate::peers::{self, Peer};

const LIMIT: Duration = Duration::from_secs(60);

/// A simulated meter of unit 1, and a session with it; `rest` ends its settings.
async fn simulated(protocol: &str, rest: &str) -> (ModbusMeters, weir::sim::modbus_meter::Served, Device) {
    let meters = ModbusMeters::new(&[1]);
    let (endpoint, served) = match protocol {
        "modbus-ascii" => meters.serve_ascii().map(|(path, served)| (Endpoint::Device(path), served)).unwrap(),
        "modbus-tcp" => {
            let (address, served) = meters.serve_tcp().await.unwrap();
            (Endpoint::Tcp(address.to_string()), served)
        }
        _ => meters.serve_rtu().map(|(path, served)| (Endpoint::Device(path), served)).unwrap(),
    };
    let text = format!("protocol = \"{protocol}\"\nretries = 0\n{rest}");
    (meters, served, Device::open(endpoint, &text).await)
}

const REGISTERS: &str = "timeout = \"2s\"\nregister = [\n\
    { name = \"limit\", register = \"holding:2\", scale = 0.1, offset = 5 },\n\
    { name = \"long\", register = \"holding:4\", type = \"u32-swapped\" },\n\
    { name = \"mode\", register = \"holding:6\", bits = \"4..7\", names = { 0 = \"off\", 3 = \"eco\" } },\n\
    { name = \"relay\", register = \"coil:1\", type = \"bool\" },\n\
    { name = \"measured\", register = \"input:70\", type = \"f32\" },\n]\n";

#[tokio::test(start_paused = true)]
async fn what_is_written_is_read_back_over_every_framing() {
    crate::pace::hold();
    for protocol in ["modbus-rtu", "modbus-ascii", "modbus-tcp"] {
        let (_meters, _served, mut device) = simulated(protocol, REGISTERS).await;
        let cases = [("limit", "12.5"), ("long", "70000"), ("mode", "eco"), ("relay", "1"), ("holding:9", "65535")];
        for (name, text) in cases {
            let written = device.write(name, text).await.unwrap();
            assert_eq!(written.outcome, WriteOutcome::Done, "{protocol} {name}: {written:?}");
            assert_eq!(written.now.value.as_deref(), Some(text), "{protocol} {name}");
            assert_ne!(written.before.value.as_deref(), Some(text), "{protocol} {name}");
        }
        let texts = device.texts().await;
        assert_eq!(texts[..4], ["12.5", "70000", "eco", "1"], "{protocol}");
        let mode = device.write("holding:6", "1").await.unwrap();
        assert_eq!(mode.before.value.as_deref(), Some("830"), "the other bits stayed: 1006 is 3EEh, 830 is 33Eh");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_makes_no_sense_sends_nothing() {
    crate::pace::hold();
    let (meters, _served, mut device) = simulated("modbus-rtu", REGISTERS).await;
    let before = meters.seen().len();
    for (name, text) in [("measured", "1"), ("nobody", "1"), ("input:3", "1"), ("coil:1 u16", "1")] {
        assert!(matches!(device.write(name, text).await, Err(MeterError::Order(_))), "{name} {text}");
    }
    assert_eq!(meters.seen().len(), before);
    // These need a look at what is there, but nothing is written.
    for (name, text) in [("limit", "12.55"), ("limit", "-1"), ("long", "1.5"), ("mode", "16"), ("relay", "2")] {
        assert!(matches!(device.write(name, text).await, Err(MeterError::Order(_))), "{name} {text}");
    }
    assert!(meters.seen().iter().all(|seen| !seen.request.writes()));
}

#[tokio::test(start_paused = true)]
async fn the_result_of_a_write_is_what_is_there_and_not_what_was_confirmed() {
    crate::pace::hold();
    let (meters, _served, mut device) =
        simulated("modbus-rtu", "timeout = \"300ms\"\nregister = [{ name = \"a\", register = \"holding:1\" }]").await;
    meters.set_fault(1, Some(Fault::Ignore));
    let ignored = device.write("a", "7").await.unwrap();
    assert_eq!((ignored.outcome, ignored.now.value.as_deref()), (WriteOutcome::Different, Some("1001")));
    meters.set_fault(1, Some(Fault::Deaf));
    let deaf = device.write("a", "8").await.unwrap();
    assert_eq!((deaf.outcome, deaf.now.value.as_deref()), (WriteOutcome::Done, Some("8")), "its answer was lost");
    let writes = meters.seen().iter().filter(|seen| seen.request.writes()).count();
    assert_eq!(writes, 2, "a write whose answer is lost is not sent again");
    meters.set_fault(1, Some(Fault::Unknown(6)));
    assert_eq!(device.write("a", "9").await.unwrap().outcome, WriteOutcome::Done, "function 16 instead of 6");
    meters.set_fault(1, None);
    let refused = device.write("holding:12", "1").await.unwrap();
    assert!(matches!(&refused.outcome, WriteOutcome::Refused(why) if why.contains("exception 2")), "{refused:?}");
    meters.set_fault(1, Some(Fault::Echo));
    meters.set_holding(1, 1, &[5]);
    let echoed = device.write("a", "6").await.unwrap();
    assert_eq!((echoed.outcome, echoed.now.value.as_deref()), (WriteOutcome::Done, Some("6")));
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_reaches_every_meter_and_waits_for_none() {
    crate::pace::hold();
    for framing in [Framing::Rtu, Framing::Ascii] {
        let meters = ModbusMeters::new(&[1, 2]);
        let serve = if framing == Framing::Rtu { meters.serve_rtu() } else { meters.serve_ascii() };
        let (path, _served) = serve.unwrap();
        let mut line = line(&Endpoint::Device(path.clone())).await;
        let begun = tokio::time::Instant::now();
        broadcast(&mut line, framing, &Request::WriteRegister { address: 3, word: 77 }).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(200), "the turnaround delay is kept");
        let read = Request::Read { table: weir::wire::modbus::Table::Holding, address: 3, quantity: 1 };
        assert!(matches!(broadcast(&mut line, framing, &read).await, Err(MeterError::Order(_))));
        drop(line);
        let protocol = if framing == Framing::Rtu { "modbus-rtu" } else { "modbus-ascii" };
        for unit in [1, 2] {
            let rest = format!(
                "protocol = \"{protocol}\"\naddress = {unit}\nregister = [{{ name = \"a\", register = \"holding:3\" }}]"
            );
            let mut device = Device::open(Endpoint::Device(path.clone()), &rest).await;
            assert_eq!(device.texts().await, ["77"], "{framing:?} unit {unit}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_identification_is_told_at_every_level_however_many_answers_it_takes() {
    crate::pace::hold();
    let meters = ModbusMeters::new(&[1]);
    let (path, _served) = meters.serve_ascii().unwrap();
    let (address, _tcp) = meters.serve_tcp().await.unwrap();
    let (device, _rtu) = meters.serve_rtu().unwrap();
    let places = [
        (Framing::Rtu, Endpoint::Device(device)),
        (Framing::Ascii, Endpoint::Device(path)),
        (Framing::Tcp, Endpoint::Tcp(address.to_string())),
    ];
    for (framing, endpoint) in places {
        let mut line = line(&endpoint).await;
        for (level, ids) in [
            (Level::Basic, &[0, 1, 2][..]),
            (Level::Regular, &[0, 1, 2, 4]),
            (Level::Extended, &[0, 1, 2, 4, 128, 129]),
        ] {
            let found = identify(&mut line, framing, 1, level, LIMIT).await.unwrap();
            assert_eq!(found.objects.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids, "{framing:?} {level:?}");
            assert_eq!(found.objects[1].1, "SIM");
        }
        meters.set_fault(1, Some(Fault::Unknown(43)));
        let refused = identify(&mut line, framing, 1, Level::Basic, LIMIT).await;
        assert!(matches!(refused, Err(MeterError::Refused(why)) if why.contains("exception 1")));
        meters.set_fault(1, None);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_keep_to_the_limits_and_a_split_is_remembered() {
    crate::pace::hold();
    let names: Vec<String> =
        (0..10).filter(|a| a % 3 != 1).map(|a| format!("{{ name = \"r{a}\", register = \"holding:{a}\" }}")).collect();
    let rest = format!("max_gap = 1\nmax_registers = 8\nregister = [{}]", names.join(", "));
    let (meters, _served, mut device) = simulated("modbus-rtu", &rest).await;
    let good = ["1000", "1002", "1003", "1005", "1006", "1008", "1009"];
    assert_eq!(device.texts().await, good);
    let quantities = |from: usize| -> Vec<u16> {
        let seen = meters.seen();
        let quantity = |request: &Request| match request {
            Request::Read { quantity, .. } => *quantity,
            other => panic!("{other:?}"),
        };
        seen[from..].iter().map(|s| quantity(&s.request)).collect()
    };
    assert_eq!(quantities(0), [7, 2]);
    // A meter that gives fewer at once: gaps first, then halves, and never more from then on.
    meters.set_fault(1, Some(Fault::RefuseOver(1)));
    assert_eq!(device.texts().await, good);
    let so_far = meters.seen().len();
    assert_eq!(device.texts().await, good);
    assert_eq!(quantities(so_far), [1; 7]);
    meters.set_fault(1, None);
    assert_eq!(device.texts().await, good);
}

#[tokio::test(start_paused = true)]
async fn pymodbus_tells_its_identification_and_takes_writes() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let (_socat, ours, theirs) = Peer::socat_pair(directory.path());
    let _rtu = Peer::python("modbus_meter.py", &["rtu", theirs.to_str().unwrap()], "ready");
    let (_socat, ascii_ours, theirs) = {
        let other = directory.path().join("ascii");
        std::fs::create_dir(&other).unwrap();
        Peer::socat_pair(&other)
    };
    let _ascii = Peer::python("modbus_meter.py", &["ascii", theirs.to_str().unwrap()], "ready");
    let number = peers::free_port();
    let _tcp = Peer::python("modbus_meter.py", &["tcp", &number.to_string()], "ready");
    let places = [
        ("modbus-rtu", Framing::Rtu, Endpoint::Device(ours)),
        ("modbus-ascii", Framing::Ascii, Endpoint::Device(ascii_ours)),
        ("modbus-tcp", Framing::Tcp, Endpoint::Tcp(format!("127.0.0.1:{number}"))),
    ];
    for (protocol, framing, endpoint) in places {
        let text = format!(
            "protocol = \"{protocol}\"\ntimeout = \"10s\"\nregister = [{{ name = \"a\", register = \"holding:100\", type = \"f32\" }}]"
        );
        let mut device = Device::open(endpoint, &text).await;
        let basic = identify(&mut device.line, framing, 1, Level::Basic, LIMIT).await.unwrap();
        let texts: Vec<&str> = basic.objects.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["Vendor", "PC1", "3.16"], "{protocol}");
        let regular = identify(&mut device.line, framing, 1, Level::Regular, LIMIT).await.unwrap();
        let model = regular.objects.iter().find(|(id, _)| *id == 5);
        assert_eq!(model.map(|(_, text)| text.as_str()), Some("Model"), "{protocol}: it comes with the second answer");
        for (name, text) in
            [("a", "-12.25"), ("holding:3", "4711"), ("coil:5", "1"), ("holding:6 u32-reversed", "99999")]
        {
            let written = device.write(name, text).await.unwrap();
            assert_eq!(
                (written.outcome, written.now.value.as_deref()),
                (WriteOutcome::Done, Some(text)),
                "{protocol} {name}"
            );
        }
        let refused = device.write("holding:900", "1").await.unwrap();
        assert!(matches!(refused.outcome, WriteOutcome::Refused(_)), "{refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_models_of_a_sunspec_device_are_found_and_read_with_their_exponents() {
    crate::pace::hold();
    let number = peers::free_port();
    let _peer = Peer::python("modbus_meter.py", &["tcp", &number.to_string(), "sunspec"], "ready");
    let endpoint = Endpoint::Tcp(format!("127.0.0.1:{number}"));
    let mut device =
        Device::open(endpoint, "protocol = \"modbus-tcp\"\ntimeout = \"10s\"\nprofile = \"sunspec\"").await;
    let values = device.read().await.unwrap();
    let value = |name: &str| {
        let found = values.iter().find(|v| v.name == name).unwrap_or_else(|| panic!("{name} in {values:?}"));
        (found.value.clone().unwrap_or_else(|| found.quality.word().to_owned()), found.unit.clone())
    };
    for (name, text, unit) in [
        ("manufacturer", "Maker", ""),
        ("serial_number", "42", ""),
        ("current_total", "12.3", "A"),
        ("current_l3", "unavailable", "A"),
        ("voltage_l1", "230.1", "V"),
        ("voltage_l1_l2", "unavailable", "V"),
        ("frequency", "50.00", "Hz"),
        ("power_total", "-2500", "W"),
        ("power_l2", "0", "W"),
        ("apparent_power_total", "unavailable", "VA"),
        ("energy_export", "1234000", "Wh"),
        ("energy_import", "65536000", "Wh"),
    ] {
        assert_eq!(value(name), (text.to_owned(), unit.to_owned()), "{name}");
    }
    assert!(values.iter().all(|v| !v.quality.is_fault()), "{values:?}");
    assert_eq!(device.read().await.unwrap(), values);
}

#[tokio::test(start_paused = true)]
async fn a_device_without_sunspec_says_so_and_one_at_another_place_is_found() {
    crate::pace::hold();
    let (meters, _served, mut device) = simulated("modbus-rtu", "profile = \"sunspec\"").await;
    assert!(matches!(device.read().await, Err(MeterError::Refused(why)) if why.contains("no SunSpec map")));
    let mut words = vec![0x5375, 0x6E53, 213, 124];
    words.extend([0x7FC0, 0].repeat(62));
    words[4..6].copy_from_slice(&[0x4148, 0]);
    // A model that nobody describes, and the end.
    words.extend([64_001, 2, 0, 0, 0xFFFF, 0]);
    meters.set_holding(1, 50_000, &words);
    let values = device.read().await.unwrap();
    assert_eq!((values[0].name.as_str(), values[0].value.as_deref()), ("current_total", Some("12.5")));
    assert!(values.len() > 30 && values.iter().all(|v| !v.quality.is_fault()));
}

/// A SunSpec map at 40000 with the common model (cut short) and two meters.
fn two_meters() -> Vec<u16> {
    let mut words = vec![0x5375, 0x6E53];
    for current in [0x4148, 0x41A0] {
        words.extend([213, 124]);
        words.extend([current, 0]);
        words.extend([0x7FC0, 0].repeat(61));
    }
    words.extend([0xFFFF, 0]);
    words
}

#[tokio::test(start_paused = true)]
async fn the_values_of_a_second_model_of_a_kind_have_names_of_their_own() {
    crate::pace::hold();
    let (meters, _served, mut device) = simulated("modbus-rtu", "profile = \"sunspec\"").await;
    let mut words = two_meters();
    meters.set_holding(1, 40_000, &words);
    let check = |values: &[weir::model::Value]| {
        let names: std::collections::BTreeSet<_> = values.iter().map(|v| v.name.clone()).collect();
        assert_eq!(names.len(), values.len(), "{names:?}");
        let text = |name: &str| values.iter().find(|v| v.name == name).unwrap().value.clone().unwrap();
        assert_eq!((text("current_total"), text("current_total_2")), ("12.5".to_owned(), "20".to_owned()));
    };
    check(&device.read().await.unwrap());
    // The same list without an end mark: the registers after it are not there.
    words.truncate(words.len() - 2);
    let (meters, _served, mut device) = simulated("modbus-rtu", "profile = \"sunspec\"").await;
    meters.set_holding(1, 40_000, &words);
    check(&device.read().await.unwrap());
    let asked = meters.seen().len();
    check(&device.read().await.unwrap());
    assert!(meters.seen()[asked..].iter().all(|s| !is_walk(&s.request)), "it is not walked again");
}

fn is_walk(request: &Request) -> bool {
    matches!(request, Request::Read { quantity: 2, .. })
}

#[tokio::test(start_paused = true)]
async fn a_refusal_amid_the_list_of_models_does_not_cut_it_short_for_ever() {
    crate::pace::hold();
    let (meters, _served, mut device) = simulated("modbus-rtu", "profile = \"sunspec\"").await;
    meters.set_holding(1, 40_000, &two_meters());
    let second = 40_002 + 126;
    // The device is busy, or fails, just when the second model is asked for.
    meters.set_fault(1, Some(Fault::RefuseAt(second, 4)));
    let some = device.read().await.unwrap();
    assert!(some.iter().any(|v| v.name == "current_total") && some.iter().all(|v| v.name != "current_total_2"));
    meters.set_fault(1, Some(Fault::RefuseAt(40_002, 4)));
    assert!(matches!(device.read().await, Err(MeterError::Refused(_))), "of no model at all there is no reading");
    meters.set_fault(1, None);
    let all = device.read().await.unwrap();
    assert!(all.iter().any(|v| v.name == "current_total_2"), "the next reading goes the way again");
    let asked = meters.seen().len();
    device.read().await.unwrap();
    assert!(meters.seen()[asked..].iter().all(|s| !is_walk(&s.request)), "and then no more");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_finds_nobody_behind_it_is_silence_and_not_asked_for_every_block() {
    crate::pace::hold();
    for code in [10, 11] {
        let registers =
            "register = [{ name = \"a\", register = \"holding:0\" }, { name = \"b\", register = \"holding:5\" }]";
        let (meters, _served, mut device) = simulated("modbus-tcp", registers).await;
        meters.set_fault(1, Some(Fault::Refuse(code)));
        let error = device.read().await.unwrap_err();
        assert_eq!(error.quality(), weir::model::Quality::NoAnswer, "{code}: {error}");
        assert!(!error.must_reopen());
        assert_eq!(meters.seen().len(), 1, "{code}");
        meters.set_fault(1, Some(Fault::RefuseAt(5, code)));
        let values = device.read().await.unwrap();
        assert_eq!(device_texts(&values), ["1000", "no-answer"], "{code}: what came before is kept");
    }
}

fn device_texts(values: &[weir::model::Value]) -> Vec<String> {
    crate::device::texts(values)
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_late_answer_that_is_dropped_half_way_is_waited_again() {
    crate::pace::hold();
    let registers = "timeout = \"2s\"\nregister = [{ name = \"a\", register = \"holding:0\" }]";
    let (meters, _served, mut device) = simulated("modbus-rtu", registers).await;
    meters.set_fault(1, Some(Fault::Late(Duration::from_millis(3400))));
    assert!(device.read().await.is_err());
    // The next answers come soon, but later than the one that is still out.
    meters.set_fault(1, Some(Fault::Late(Duration::from_millis(1500))));
    // Until four seconds after the request its answer may still come; whoever waits for that gives up early.
    let dropped = tokio::time::timeout(Duration::from_millis(100), device.write("holding:5", "7")).await;
    assert!(dropped.is_err() && meters.seen().len() == 1, "nothing else was sent yet");
    let written = device.write("holding:5", "7").await.unwrap();
    assert_eq!(written.before.value.as_deref(), Some("1005"), "and not the late answer to another request");
}
