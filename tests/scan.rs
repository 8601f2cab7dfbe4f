//! `weir scan` from outside: meters at their own speed only, peers nobody here wrote, nothing but
//! reading on the line, and a proposal that `weir check` accepts.

#![cfg(feature = "demo")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

#[path = "scan/dlms.rs"]
mod dlms;
#[path = "tools/pace.rs"]
mod pace;
#[path = "scan/paste.rs"]
mod paste;
mod peers;
#[path = "scan/rare.rs"]
mod rare;
#[path = "scan/wire.rs"]
mod wire;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use peers::Peer;
use weir::meter::Address;
use weir::meter::scan::{self, Depth, End, Event, Found, Place, Wish};
use weir::os::line::{Direction, Endpoint};
use weir::os::pty::Pty;
use weir::sim::iec_meter::{IecMeter, Options};
use weir::sim::mbus_meter::{Control, MbusLine, Slave};
use weir::sim::modbus_meter::ModbusMeters;
use weir::wire::modbus::rtu;
use weir::wire::wmbus::Meter;
use wire::Wire;

/// What a scan told.
#[derive(Default)]
struct Told {
    found: Vec<Found>,
    warnings: Vec<String>,
    tried: Vec<String>,
    last_progress: u32,
}

async fn scanned(endpoint: &Endpoint, wish: &Wish) -> Told {
    let mut told = Told::default();
    let steps = scan::plan(wish, endpoint);
    let mut tell = |event| match event {
        Event::Found(found) => told.found.push(*found),
        Event::Warning(sentence) => told.warnings.push(sentence),
        Event::Tried(probe, how) => told.tried.push(format!("{probe} {how}")),
        Event::Progress(now, _) => {
            assert!(now >= told.last_progress, "the progress goes back from {} to {now}", told.last_progress);
            told.last_progress = now;
        }
    };
    let limit = Duration::from_secs(120);
    let end = scan::run(endpoint, Direction::Automatic, wish, &steps, limit, &mut tell).await.unwrap();
    assert_eq!(end, End::Finished);
    told
}

fn wish(protocol: &str, bauds: &[u32], units: &[u32]) -> Wish {
    Wish {
        protocols: vec![protocol.to_owned()],
        bauds: bauds.to_vec(),
        addresses: units.iter().copied().map(Address::Number).collect(),
        ..Wish::new(Depth::Usual)
    }
}

fn shown(found: &[Found]) -> Vec<String> {
    let one = |f: &Found| {
        let address = f.address.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        format!("{} {} {address} {}", f.protocol, f.speed.baud, f.who)
    };
    found.iter().map(one).collect()
}

/// The proposal for what was found stands in a file that `weir check` accepts.
fn accepted(place: &Place, found: &[Found]) -> String {
    let proposal = scan::configuration(place, found);
    let text = format!("[broker]\nurl = \"ssl://broker.example.com:8883\"\n\n{}", proposal.text);
    let loaded = weir::config::parse(&text).unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"));
    let commented = proposal.text.matches("\n# [[meter]]").count();
    assert_eq!(loaded.settings.meter.len() + commented, found.len(), "{text}");
    proposal.text
}

fn place(endpoint: &Endpoint) -> Place {
    Place {
        name: "line".into(),
        device: Some(endpoint.to_string()),
        endpoint: endpoint.clone(),
        direction: None,
        known: None,
    }
}

/// Every byte that left belongs to a message that can only read.
fn assert_reads_only(bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let seven: Vec<u8> = rest.iter().map(|b| b & 0x7F).collect();
        let length = if seven[0] == 0 {
            // The wake-up of a battery meter: a NUL says nothing.
            1
        } else if seven[0] == b':' {
            let end = seven.windows(2).position(|w| w == b"\r\n").expect("an ASCII frame has an end");
            let (unit, pdu) = weir::wire::modbus::ascii::decode(&seven[1..end]).unwrap();
            assert!(unit != 0 && (matches!(pdu[0], 3 | 4) || pdu[..3] == [43, 14, 1]), "{pdu:02x?}");
            end + 2
        } else if seven.starts_with(b"/?") {
            let end = seven.windows(3).position(|w| w == b"!\r\n").expect("a sign-on has an end");
            assert!(end <= 34, "a sign-on has at most 32 characters");
            end + 3
        } else if rest.len() >= 8 && rtu::decode(&rest[..8]).is_ok() {
            assert!(matches!(rest[1], 3 | 4) && rest[0] != 0, "{:02x?}", &rest[..8]);
            8
        } else if rest.len() >= 7 && rtu::decode(&rest[..7]).is_ok() {
            assert_eq!(rest[1..4], [43, 14, 1], "{:02x?}", &rest[..7]);
            assert_ne!(rest[0], 0);
            7
        } else if rest[0] == 0x7E {
            // HDLC: the length stands behind the flag and counts neither flag.
            let end = 2 + (usize::from(rest[1] & 7) << 8 | usize::from(rest[2]));
            assert_eq!(rest[end - 1], 0x7E, "a frame has an end");
            dlms::associations(&rest[..end]);
            end
        } else if seven.len() >= 6 && seven[0] == 6 {
            // The option select: Y = 0 is the readout; 1 would be programming mode.
            assert!(seven[1] == b'0' && seven[3] == b'0' && seven[4..6] == *b"\r\n", "{:?}", &seven[..6]);
            6
        } else if rest.len() >= 5 && rest[0] == 0x10 && rest[4] == 0x16 {
            // M-Bus: SND_NKE, REQ_UD2 with either FCB.
            assert!(matches!(rest[1], 0x40 | 0x5B | 0x7B), "{:02x?}", &rest[..5]);
            5
        } else if rest.len() >= 17 && rest[0] == 0x68 && rest[1] == 11 && rest[16] == 0x16 {
            // M-Bus: the selection by secondary address.
            assert!(matches!(rest[4], 0x53 | 0x73) && rest[5] == 0xFD && rest[6] == 0x52, "{:02x?}", &rest[..17]);
            17
        } else {
            panic!("these bytes are no reading message: {:02x?}", &rest[..rest.len().min(20)]);
        };
        rest = &rest[length..];
    }
}

#[tokio::test(start_paused = true)]
async fn simulated_modbus_meters_are_found_at_their_own_speed_only() {
    pace::hold();
    let meters = ModbusMeters::new(&[1, 7, 40]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let wire = Wire::before(&path, Some(19_200)).await;
    let units = [1, 2, 7, 39, 40, 41];
    let told = scanned(&wire.endpoint(), &wish("modbus-rtu", &[9600, 19_200, 38_400], &units)).await;
    let expected = [1, 7, 40].map(|unit| format!("modbus-rtu 19200 {unit} weir SIM version 1.0"));
    assert_eq!(shown(&told.found), expected);
    assert!(told.warnings.is_empty(), "{:?}", told.warnings);
    assert!(told.found.iter().all(|f| f.register.as_deref() == Some("holding:0")));
    let text = accepted(&place(&wire.endpoint()), &told.found);
    assert!(text.contains("baud = 19200") && text.contains("address = 40"), "{text}");
    let wrong = scanned(&wire.endpoint(), &wish("modbus-rtu", &[9600, 38_400], &units)).await;
    assert!(wrong.found.is_empty(), "{:?}", shown(&wrong.found));
    assert_reads_only(&wire.record.lock().unwrap());
}

#[tokio::test(start_paused = true)]
async fn where_one_meter_answers_all_others_at_that_speed_are_found() {
    pace::hold();
    let meters = ModbusMeters::new(&[3, 200]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let wire = Wire::before(&path, Some(115_200)).await;
    let usual = Wish { protocols: vec!["modbus-rtu".into()], ..Wish::new(Depth::Usual) };
    let steps = scan::plan(&usual, &wire.endpoint());
    assert!(scan::estimate(&steps) < Duration::from_mins(10));
    let told = scanned(&wire.endpoint(), &Wish { bauds: vec![115_200], ..usual }).await;
    assert_eq!(told.found.iter().map(|f| f.address.clone().unwrap().to_string()).collect::<Vec<_>>(), ["3", "200"]);
}

#[tokio::test(start_paused = true)]
async fn pymodbus_units_are_found_and_say_who_they_are() {
    pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let (_socat, ours, theirs) = Peer::socat_pair(directory.path());
    let _peer = Peer::python("modbus_bus.py", &[theirs.to_str().unwrap(), "2,5,31"], "ready");
    let wire = Wire::before(&ours, Some(4800)).await;
    let told = scanned(&wire.endpoint(), &wish("modbus-rtu", &[9600, 4800], &[1, 2, 5, 6, 31])).await;
    let expected = [2, 5, 31].map(|unit| format!("modbus-rtu 4800 {unit} Pymodbus PM version 3.16"));
    assert_eq!(shown(&told.found), expected);
    let text = accepted(&place(&wire.endpoint()), &told.found);
    assert!(text.contains("name = \"pm-31\""), "{text}");
    assert_reads_only(&wire.record.lock().unwrap());
}

#[tokio::test(start_paused = true)]
async fn modbus_tcp_is_found_and_absent_units_are_not() {
    pace::hold();
    let meters = ModbusMeters::new(&[1, 9]);
    let (address, _served) = meters.serve_tcp().await.unwrap();
    let endpoint = Endpoint::Tcp(address.to_string());
    let told = scanned(&endpoint, &wish("modbus-tcp", &[], &[1, 2, 9])).await;
    assert_eq!(shown(&told.found), [1, 9].map(|unit| format!("modbus-tcp 9600 {unit} weir SIM version 1.0")));
    let text = accepted(&place(&endpoint), &told.found);
    assert!(text.contains(&format!("device = \"tcp://{address}\"")) && !text.contains("baud"), "{text}");
    let number = peers::free_port();
    let _peer = Peer::python("modbus_bus.py", &["tcp", &number.to_string(), "1,4"], "ready");
    let told = scanned(&Endpoint::Tcp(format!("127.0.0.1:{number}")), &wish("modbus-tcp", &[], &[1, 2, 4])).await;
    assert_eq!(shown(&told.found), [1, 4].map(|unit| format!("modbus-tcp 9600 {unit} Pymodbus PM version 3.16")));
}

#[tokio::test(start_paused = true)]
async fn our_iec_meter_is_found_with_its_serial_number() {
    pace::hold();
    let meter = IecMeter::open(Options::default()).unwrap();
    let (path, control) = (meter.path().to_owned(), meter.control());
    tokio::spawn(meter.run());
    let wire = Wire::before(&path, None).await;
    let told = scanned(&wire.endpoint(), &wish("iec62056-21", &[], &[])).await;
    assert_eq!(shown(&told.found), ["iec62056-21 300 - WEI SIM1 serial number 12345678"], "{:?}", told.warnings);
    assert!(told.found[0].notes[0].contains("values"), "{:?}", told.found);
    assert_eq!(control.state().sign_ons, 1);
    assert_reads_only(&wire.record.lock().unwrap());
    let text = accepted(&place(&wire.endpoint()), &told.found);
    assert!(text.contains("# address = \"12345678\""), "{text}");
}

#[tokio::test(start_paused = true)]
async fn m_bus_meters_are_found_by_primary_and_by_secondary_address() {
    pace::hold();
    let meter = |id| Meter { manufacturer: Meter::manufacturer_code("LUG").unwrap(), id, version: 4, device: 4 };
    let slave = |primary, id| {
        let mut slave = Slave::new(primary, meter(id));
        slave.baud = Some(2400);
        slave
    };
    let line = MbusLine::open(Control::new(vec![slave(3, 0x1234_5678), slave(77, 0x2000_0001)])).unwrap();
    let path = line.path().unwrap().to_owned();
    tokio::spawn(line.run());
    let wire = Wire::before(&path, Some(2400)).await;
    let told = scanned(&wire.endpoint(), &wish("m-bus", &[2400, 9600], &[])).await;
    let expected = [
        "m-bus 2400 3 LUG heat (return) meter version 4 serial number 12345678",
        "m-bus 2400 20000001.LUG.04.04 LUG heat (return) meter version 4 serial number 20000001",
    ];
    assert_eq!(shown(&told.found), expected, "{:?}", told.warnings);
    assert_reads_only(&wire.record.lock().unwrap());
    let text = accepted(&place(&wire.endpoint()), &told.found);
    assert!(text.contains("framing = \"8E1\"") && text.contains("address = \"20000001.LUG.04.04\""), "{text}");
    let named = scanned(&wire.endpoint(), &wish("m-bus", &[2400], &[77])).await;
    assert_eq!(named.found.len(), 1);
}

/// The independent meter, which looks at the host's speed.
fn python_meter(arguments: &[&str]) -> (tempfile::TempDir, std::path::PathBuf, Peer) {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("meter");
    let all = [&["--link", link.to_str().unwrap(), "--strict-baud"], arguments].concat();
    let peer = Peer::python("iec_meter.py", &all, "meter on");
    (directory, link, peer)
}

#[tokio::test(start_paused = true)]
async fn an_independent_iec_meter_is_found_by_any_sign_on_and_by_its_address() {
    pace::hold();
    let (_directory, link, _peer) = python_meter(&["--parity", "--addr", "00004711"]);
    let endpoint = Endpoint::Device(link);
    let told = scanned(&endpoint, &wish("iec62056-21", &[], &[])).await;
    assert_eq!(shown(&told.found), ["iec62056-21 300 - TST SIM-1.0 serial number 12345678"], "{:?}", told.warnings);
    let told = scanned(&endpoint, &wish("iec62056-21", &[], &[4711, 4712])).await;
    assert_eq!(shown(&told.found), ["iec62056-21 300 4711 TST SIM-1.0 serial number 12345678"]);
    accepted(&place(&endpoint), &told.found);
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_sends_by_itself_is_heard_at_its_speed_and_nothing_is_asked() {
    pace::hold();
    let (_directory, link, _peer) = python_meter(&["--mode", "D", "--period", "1"]);
    let wire = Wire::before(&link, None).await;
    let told = scanned(&wire.endpoint(), &Wish::new(Depth::Quick)).await;
    assert_eq!(shown(&told.found), ["iec-d0 2400 - TST SIM-1.0 serial number 12345678"], "{:?}", told.warnings);
    assert!(wire.record.lock().unwrap().is_empty(), "a line on which a meter talks is left alone");
    accepted(&place(&wire.endpoint()), &told.found);
}

/// Answers at one unit with what `answer` makes of a request's PDU, until the test ends.
fn device(unit: u8, answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> Endpoint {
    let mut pty = Pty::open().unwrap();
    let endpoint = Endpoint::Device(pty.path().to_owned());
    tokio::spawn(async move {
        let mut buffer = [0; 256];
        while let Ok(count) = pty.receive(&mut buffer).await {
            let Ok((asked, pdu)) = rtu::decode(&buffer[..count]) else { continue };
            if asked == unit {
                let bytes = answer(pdu);
                pty.send(&bytes).await.unwrap();
            }
        }
    });
    endpoint
}

fn framed(unit: u8, pdu: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    rtu::encode(unit, pdu, &mut out);
    out
}

fn registers(words: &[u16]) -> Vec<u8> {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
    [&[3, bytes.len() as u8][..], &bytes].concat()
}

#[tokio::test(start_paused = true)]
async fn a_meter_is_known_by_its_code_and_gets_its_register_map() {
    pace::hold();
    let endpoint = device(1, |pdu| match pdu {
        [3, 0xFC, 0x02, 0, 1] => framed(1, &registers(&[0x0070])),
        [3, 0, 0, 0, 1] => framed(1, &registers(&[7])),
        [function, ..] => framed(1, &[function | 0x80, 2]),
        [] => Vec::new(),
    });
    let told = scanned(&endpoint, &wish("modbus-rtu", &[9600], &[1, 2])).await;
    assert_eq!(shown(&told.found), ["modbus-rtu 9600 1 Eastron SDM630"]);
    let text = accepted(&place(&endpoint), &told.found);
    assert!(text.contains("profile = \"eastron-sdm630\"") && !text.contains("[[meter.register]]"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_sunspec_device_says_who_it_is() {
    pace::hold();
    let text = |text: &str, registers: usize| -> Vec<u16> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(2 * registers, 0);
        bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
    };
    let common =
        [vec![1, 66], text("Fronius", 16), text("Symo", 16), text("", 8), text("0.3", 8), text("4711", 16)].concat();
    let endpoint = device(1, move |pdu| match pdu {
        [3, 0x9C, 0x40, 0, 2] => framed(1, &registers(&[0x5375, 0x6E53])),
        [3, 0x9C, 0x42, 0, 66] => framed(1, &registers(&common[..66])),
        [function, ..] => framed(1, &[function | 0x80, 2]),
        [] => Vec::new(),
    });
    let told = scanned(&endpoint, &wish("modbus-rtu", &[9600], &[1])).await;
    assert_eq!(shown(&told.found), ["modbus-rtu 9600 1 Fronius Symo version 0.3 serial number 4711"]);
    let text = accepted(&place(&endpoint), &told.found);
    assert!(text.contains("SunSpec"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn two_meters_at_one_address_are_told_of() {
    pace::hold();
    let endpoint = device(1, |_| vec![0x01, 0x03, 0xFF, 0x00, 0x7E, 0x00, 0x01]);
    let told = scanned(&endpoint, &wish("modbus-rtu", &[9600], &[1])).await;
    assert!(told.found.is_empty());
    assert!(told.warnings[0].contains("two meters with this address"), "{:?}", told.warnings);
}

#[tokio::test(start_paused = true)]
async fn several_iec_meters_that_answer_at_once_are_told_of() {
    pace::hold();
    let mut pty = Pty::open().unwrap();
    let endpoint = Endpoint::Device(pty.path().to_owned());
    tokio::spawn(async move {
        let mut buffer = [0; 64];
        while let Ok(count) = pty.receive(&mut buffer).await {
            if buffer[..count].last().map(|b| b & 0x7F) == Some(b'\n') {
                pty.send(b"/T\xD3\x54\x7F5S\x00M\xC9\x0E\x7F2").await.unwrap();
            }
        }
    });
    let told = scanned(&endpoint, &wish("iec62056-21", &[], &[])).await;
    assert!(told.found.is_empty(), "{:?}", told.found);
    assert!(told.warnings[0].contains("several meters answer at once"), "{:?}", told.warnings);
}

#[tokio::test(start_paused = true)]
async fn whatever_is_scanned_for_only_reading_messages_leave_the_line() {
    pace::hold();
    // A port that never answers: every probe sends all it has.
    let mut pty = Pty::open().unwrap();
    let endpoint = Endpoint::Device(pty.path().to_owned());
    let record = wire::Record::default();
    let sink = std::sync::Arc::clone(&record);
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok(count) = pty.receive(&mut buffer).await {
            sink.lock().unwrap().extend(&buffer[..count]);
        }
    });
    for address in [None, Some(Address::Number(5)), Some(Address::Number(12_345_678))] {
        let depth = Depth::Thorough;
        let wish = Wish { bauds: vec![19_200], addresses: address.clone().into_iter().collect(), ..Wish::new(depth) };
        let mut steps = scan::plan(&wish, &endpoint);
        if address.is_none() {
            // Listening and sign-ons; the sweep of all units is the same message with other numbers.
            steps.retain(|step| step.estimate < Duration::from_secs(20));
        }
        let limit = Duration::from_secs(35);
        scan::run(&endpoint, Direction::Automatic, &wish, &steps, limit, &mut |_| {}).await.unwrap();
    }
    let record = record.lock().unwrap();
    assert!(record.windows(2).any(|w| w == [5, 3]), "units were asked");
    assert_reads_only(&record);
}

#[test]
#[should_panic(expected = "no reading message")]
fn a_write_would_be_noticed() {
    let mut frame = Vec::new();
    rtu::encode(1, &[16, 0, 0, 0, 1, 2, 0, 5], &mut frame);
    assert_reads_only(&frame);
}

fn weir(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(["--config", "/nowhere/weir.toml"]).args(arguments).stdin(Stdio::null());
    command
}

#[tokio::test(start_paused = true)]
async fn the_command_prints_a_configuration_without_having_one() {
    pace::hold();
    let meters = ModbusMeters::new(&[2]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let port = path.to_str().unwrap();
    let arguments = ["scan", port, "--protocol", "modbus-rtu", "--baud", "9600", "--addresses", "1-3"];
    let output = peers::run(&mut weir(&arguments)).await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    assert!(err.contains("only reads") && err.contains("+ modbus-rtu 9600 8N1 address 2"), "{err}");
    let text = format!("[broker]\nurl = \"ssl://b.example.com:8883\"\n{out}");
    assert_eq!(weir::config::parse(&text).unwrap().settings.meter.len(), 1, "{text}");
    let output = peers::run(&mut weir(&[&arguments[..], &["--json"]].concat())).await;
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let events: Vec<serde_json::Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let words: Vec<_> = events.iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert_eq!(words, ["begin", "warning", "found", "end"], "{lines}");
    assert!(events[1]["message"].as_str().unwrap().contains("carries no parity"), "{lines}");
    assert_eq!((events[2]["address"].as_str(), events[3]["how"].as_str()), (Some("2"), Some("finished")));
    assert!(events[3]["tried"]["modbus-rtu"][0].as_str().unwrap().starts_with("9600 8N1"), "{lines}");
}

#[tokio::test(start_paused = true)]
async fn nothing_found_and_a_port_in_use_are_told_with_what_to_do() {
    pace::hold();
    let pty = Pty::open().unwrap();
    let port = pty.path().to_str().unwrap().to_owned();
    let arguments = ["scan", &port, "--protocol", "modbus-rtu", "--baud", "9600", "--addresses", "1"];
    let output = peers::run(&mut weir(&arguments)).await;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(err.contains("no meter answered") && err.contains("swap the wires"), "{err}");
    let endpoint = Endpoint::Device(Path::new(&port).to_owned());
    let speed = weir::os::line::Speed { baud: 9600, framing: weir::os::line::Framing::EIGHT_N_ONE };
    let _held = weir::os::line::Line::open(&endpoint, speed, Direction::Automatic).await.unwrap();
    let output = peers::run(&mut weir(&arguments)).await;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(err.contains("systemctl stop weir"), "{err}");
    let output = peers::run(&mut weir(&["scan", "rs485-9"])).await;
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no port is called \"rs485-9\""));
}

#[tokio::test(start_paused = true)]
async fn ctrl_c_shows_what_was_found_so_far() {
    pace::hold();
    use tokio::io::AsyncBufReadExt;
    let meters = ModbusMeters::new(&[1]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let command = weir(&["scan", path.to_str().unwrap(), "--protocol", "modbus-rtu", "--thorough", "--limit", "2h"]);
    let mut command = tokio::process::Command::from(command);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = tokio::io::BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("+ modbus-rtu") {
            break;
        }
    }
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::INT).unwrap();
    let output = tokio::time::timeout(Duration::from_secs(20), child.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("address = 1"));
}
