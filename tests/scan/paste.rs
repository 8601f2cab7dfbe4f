//! What a scan proposes for each kind of meter is pasted, accepted by `weir check`, and `weir read` shows
//! values of the same meter.

use std::fs;

use serde_json::Value;
use weir::sim::push_meter::dlms::Form;
use weir::sim::push_meter::{Control as Pushed, Kind, PushMeter};

use crate::*;

/// Pastes the proposal as it is, checks it, and reads each meter; gives the values by name.
pub(crate) async fn read_as_proposed(endpoint: &Endpoint, found: &[Found]) -> Vec<Vec<(String, String)>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weir.toml");
    let store = directory.path().join("store");
    let text = scan::configuration(&place(endpoint), found).text;
    let head = format!("[broker]\nurl = \"ssl://b.example.com:8883\"\n[store]\npath = \"{}\"\n", store.display());
    fs::write(&path, format!("{head}{text}")).unwrap();
    let command = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(["--config", path.to_str().unwrap()]).args(arguments).stdin(Stdio::null());
        command
    };
    let checked = peers::run(&mut command(&["check"])).await;
    let err = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success() && !err.contains("warning"), "{err}\n{text}");
    let names: Vec<&str> =
        text.split("[[meter]]\nname = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(names.len(), found.len(), "{text}");
    let mut all = Vec::new();
    for name in names {
        let output = peers::run(&mut command(&["read", name, "--json"])).await;
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{err}\n{text}");
        let reading: Value = serde_json::from_slice(&output.stdout).unwrap();
        let values = reading["values"].as_array().unwrap().iter().map(|value| {
            assert!(matches!(value["quality"].as_str(), Some("good" | "unavailable")), "{value}");
            (value["name"].as_str().unwrap().to_owned(), value["value"].as_str().unwrap_or_default().to_owned())
        });
        all.push(values.collect());
    }
    all
}

fn value<'v>(values: &'v [(String, String)], name: &str) -> &'v str {
    values.iter().find(|(n, _)| n == name).map_or_else(|| panic!("no {name} in {values:?}"), |(_, value)| value)
}

#[tokio::test(start_paused = true)]
async fn what_is_proposed_for_modbus_rtu_can_be_read() {
    crate::pace::hold();
    let meters = ModbusMeters::new(&[2, 5]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let wire = Wire::before(&path, Some(19_200)).await;
    let told = scanned(&wire.endpoint(), &wish("modbus-rtu", &[9600, 19_200], &[2, 5])).await;
    let read = read_as_proposed(&wire.endpoint(), &told.found).await;
    assert_eq!((value(&read[0], "first"), value(&read[1], "first")), ("2000", "5000"));
}

#[tokio::test(start_paused = true)]
async fn what_is_proposed_for_modbus_ascii_can_be_read() {
    crate::pace::hold();
    let meters = ModbusMeters::new(&[3, 9]);
    let (path, _served) = meters.serve_ascii().unwrap();
    let wire = Wire::before(&path, Some(19_200)).await;
    let told = scanned(&wire.endpoint(), &wish("modbus-ascii", &[9600, 19_200], &[1, 3, 9])).await;
    assert_eq!(shown(&told.found), [3, 9].map(|unit| format!("modbus-ascii 19200 {unit} weir SIM version 1.0")));
    assert!(told.warnings.is_empty(), "{:?}", told.warnings);
    assert_reads_only(&wire.record.lock().unwrap());
    let text = accepted(&place(&wire.endpoint()), &told.found);
    assert!(text.contains("baud = 19200\nframing = \"7E1\""), "{text}");
    let read = read_as_proposed(&wire.endpoint(), &told.found).await;
    assert_eq!((value(&read[0], "first"), value(&read[1], "first")), ("3000", "9000"));
}

#[tokio::test(start_paused = true)]
async fn what_is_proposed_for_modbus_tcp_can_be_read() {
    crate::pace::hold();
    let meters = ModbusMeters::new(&[4]);
    let (address, _served) = meters.serve_tcp().await.unwrap();
    let endpoint = Endpoint::Tcp(address.to_string());
    let told = scanned(&endpoint, &wish("modbus-tcp", &[], &[4])).await;
    let read = read_as_proposed(&endpoint, &told.found).await;
    assert_eq!(value(&read[0], "first"), "4000");
}

#[tokio::test(start_paused = true)]
async fn what_is_proposed_for_iec_62056_21_can_be_read() {
    crate::pace::hold();
    let meter = IecMeter::open(Options::default()).unwrap();
    let endpoint = Endpoint::Device(meter.path().to_owned());
    tokio::spawn(meter.run());
    let told = scanned(&endpoint, &wish("iec62056-21", &[], &[])).await;
    let read = read_as_proposed(&endpoint, &told.found).await;
    assert_eq!(value(&read[0], "0.0.0"), "12345678");
}

#[tokio::test(start_paused = true)]
async fn what_is_proposed_for_m_bus_can_be_read() {
    crate::pace::hold();
    let meter = |id| Meter { manufacturer: Meter::manufacturer_code("LUG").unwrap(), id, version: 4, device: 4 };
    let slave = |primary, id| Slave::new(primary, meter(id));
    let line = MbusLine::open(Control::new(vec![slave(3, 0x1234_5678), slave(77, 0x2000_0001)])).unwrap();
    let endpoint = Endpoint::Device(line.path().unwrap().to_owned());
    tokio::spawn(line.run());
    let told = scanned(&endpoint, &wish("m-bus", &[2400], &[])).await;
    assert_eq!(told.found.len(), 2);
    let read = read_as_proposed(&endpoint, &told.found).await;
    assert_eq!((value(&read[0], "meter_id"), value(&read[1], "meter_id")), ("12345678", "20000001"));
}

/// A meter that sends by itself at this speed only.
async fn pushed(kind: Kind, baud: u32, protocol: &str, id: &str, per_kwh: f64) {
    let meter = PushMeter::open(kind, Duration::from_millis(1000)).unwrap();
    let (path, control) = (meter.path().to_owned(), meter.control());
    tokio::spawn(meter.run());
    let wire = Wire::before(&path, Some(baud)).await;
    let told = scanned(&wire.endpoint(), &Wish::new(Depth::Quick)).await;
    assert_eq!((told.found.len(), told.found[0].protocol), (1, protocol), "{:?}", told.warnings);
    assert_eq!(told.found[0].speed.baud, baud);
    let read = read_as_proposed(&wire.endpoint(), &told.found).await;
    let energy = value(&read[0], id);
    let sent = control.state().sent.clone();
    let number = |text: &str| text.parse::<f64>().unwrap();
    assert!(
        sent.iter().any(|text| (number(text) - number(energy) / per_kwh).abs() < 0.001),
        "{energy} was not sent: {sent:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_proposed_for_p1_can_be_read() {
    crate::pace::hold();
    pushed(Kind::P1, 115_200, "dsmr-p1", "1-0:1.8.1", 1.0).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_proposed_for_d0_can_be_read() {
    crate::pace::hold();
    pushed(Kind::D0, 2400, "iec-d0", "1-0:1.8.0*255", 1.0).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_proposed_for_sml_can_be_read() {
    crate::pace::hold();
    pushed(Kind::Sml, 9600, "sml", "1-0:1.8.0*255", 1000.0).await;
}

/// The meter pushes DLMS in this form; the proposal passes `weir check`.
async fn pushed_by_dlms(form: Form, keys: Option<([u8; 16], [u8; 16])>, baud: u32) -> (Told, Wire, Pushed) {
    let meter = PushMeter::open(Kind::Dlms { form, keys }, Duration::from_millis(1000)).unwrap();
    let (path, control) = (meter.path().to_owned(), meter.control());
    tokio::spawn(meter.run());
    let wire = Wire::before(&path, Some(baud)).await;
    let told = scanned(&wire.endpoint(), &Wish::new(Depth::Quick)).await;
    assert_eq!((told.found.len(), told.found[0].protocol), (1, "dlms-push"), "{form:?}: {:?}", told.warnings);
    assert_eq!(told.found[0].speed.baud, baud);
    let text = accepted(&place(&wire.endpoint()), &told.found);
    assert!(text.contains("protocol = \"dlms-push\""), "{text}");
    assert!(wire.record.lock().unwrap().is_empty(), "a line on which a meter pushes is only listened to");
    (told, wire, control)
}

#[tokio::test(start_paused = true)]
async fn what_is_proposed_for_dlms_pushes_can_be_read() {
    crate::pace::hold();
    for (form, baud) in [(Form::Frame, 2400), (Form::Segments, 9600), (Form::Mbus, 2400), (Form::Wrapper, 115_200)] {
        let (told, wire, control) = pushed_by_dlms(form, None, baud).await;
        assert_eq!(told.found[0].speed.framing.to_string(), if form == Form::Mbus { "8E1" } else { "8N1" });
        let read = read_as_proposed(&wire.endpoint(), &told.found).await;
        let energy = value(&read[0], "1-0:1.8.0*255");
        let number = |text: &str| text.parse::<f64>().unwrap();
        let sent = control.state().sent.clone();
        let one = |text: &String| (number(text) - number(energy) / 1000.0).abs() < 0.001;
        assert!(sent.iter().any(one), "{form:?}: {energy} was not sent: {sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ciphered_push_is_proposed_with_a_word_about_its_keys() {
    crate::pace::hold();
    for form in [Form::Frame, Form::Mbus, Form::Blocks] {
        let (told, wire, _) = pushed_by_dlms(form, Some(([0xAA; 16], [0x11; 16])), 2400).await;
        let found = &told.found[0];
        assert!(found.notes[0].contains("ciphered") && found.who.maker.as_deref() == Some("WEI"), "{found:?}");
        let text = accepted(&place(&wire.endpoint()), &told.found);
        assert!(text.contains("# key_file = "), "{text}");
    }
}
