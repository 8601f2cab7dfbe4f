//! DLMS meters are found by the public client, who only reads, shows no password and is done in a bounded time;
//! what is proposed for them can be read.

use weir::sim::dlms_meter::{Content, Control as Meters, DlmsMeter, Options as Dlms, serve_wrapper};
use weir::wire::dlms::hdlc::{self, Decoder};

use crate::*;

fn small(name: &str) -> Content {
    Content { name: name.to_owned(), rows: 10, channels: 3, ..Content::default() }
}

fn simulated(options: Dlms) -> (std::path::PathBuf, Meters) {
    let meter = DlmsMeter::open(options).unwrap();
    let (path, control) = (meter.path(), meter.control());
    tokio::spawn(meter.run());
    (path, control)
}

fn one(logical: u8, physical: u8) -> Dlms {
    Dlms { devices: vec![(logical, physical, small("WEI0000000000001"))], ..Dlms::default() }
}

/// Every HDLC frame of the scan belongs to a connection of client 16 that reads and shows nothing; tells how many
/// associations were asked for.
pub(crate) fn associations(bytes: &[u8]) -> usize {
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    let mut count = 0;
    while let Some(event) = decoder.next() {
        let hdlc::Event::Frame(frame) = event else { continue };
        assert_eq!(frame.source, hdlc::Address::Single(16), "{frame:?}");
        let apdu = frame.information.strip_prefix(&[0xE6, 0xE6, 0x00][..]);
        match (frame.control, apdu) {
            (hdlc::Control::Snrm | hdlc::Control::Disc | hdlc::Control::Rr { .. }, _) => {}
            (hdlc::Control::I { .. }, Some([0x60, ..])) => {
                // Neither a mechanism (8B) nor an authentication value (AC) behind the context's name.
                assert!(!frame.information.windows(3).any(|w| w == [0x8B, 0x07, 0x60]), "{frame:02x?}");
                assert!(!frame.information.contains(&0xAC), "{frame:02x?}");
                count += 1;
            }
            // GET and its next blocks; RLRQ.
            (hdlc::Control::I { .. }, Some([0xC0 | 0x62, ..])) => {}
            other => panic!("no reading message: {other:02x?}"),
        }
    }
    count
}

#[tokio::test(start_paused = true)]
async fn a_simulated_meter_is_found_at_its_speed_without_a_password_and_can_be_read() {
    crate::pace::hold();
    let (path, control) = simulated(Dlms { password: Some("12345678".into()), ..one(1, 0) });
    let wire = Wire::before(&path, Some(9600)).await;
    let told = scanned(&wire.endpoint(), &wish("dlms", &[], &[])).await;
    assert_eq!(shown(&told.found), ["dlms 9600 - WEI serial number 0000000000001"], "{:?}", told.warnings);
    assert_eq!(associations(&wire.record.lock().unwrap()), 1, "one association, of the public client");
    let state = control.state().clone();
    assert_eq!(state.opened, state.closed, "every connection was ended");
    let text = accepted(&place(&wire.endpoint()), &told.found);
    assert!(text.contains("baud = 9600") && text.contains("1-0:1.8.0*255"), "{text}");
    let read = paste::read_as_proposed(&wire.endpoint(), &told.found).await;
    assert!(read[0].iter().any(|(name, value)| name == "1-0:1.8.0*255" && !value.is_empty()), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn meters_with_physical_addresses_are_found_and_keep_them() {
    crate::pace::hold();
    let device = |physical, name| (1, physical, small(name));
    let devices = vec![device(16, "WEI0000000000016"), device(17, "WEI0000000000017")];
    let (path, _control) = simulated(Dlms { devices, ..Dlms::default() });
    let wire = Wire::before(&path, Some(2400)).await;
    let told = scanned(&wire.endpoint(), &wish("dlms", &[2400], &[])).await;
    let expected = [17, 16].map(|n| format!("dlms 2400 {n} WEI serial number 00000000000{n}"));
    assert_eq!(shown(&told.found), expected, "{:?}", told.warnings);
    let read = paste::read_as_proposed(&wire.endpoint(), &told.found).await;
    assert_eq!(read.len(), 2);
    let named = scanned(&wire.endpoint(), &wish("dlms", &[2400], &[16])).await;
    assert_eq!(named.found.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_meter_behind_mode_e_is_found_after_its_sign_on_and_can_be_read() {
    crate::pace::hold();
    let (path, _control) = simulated(Dlms { mode_e: Some(9600), ..one(1, 0) });
    let wire = Wire::before(&path, None).await;
    let told = scanned(&wire.endpoint(), &wish("dlms", &[300], &[])).await;
    assert_eq!(shown(&told.found), ["dlms 300 - WEI serial number 0000000000001"], "{:?}", told.warnings);
    let text = accepted(&place(&wire.endpoint()), &told.found);
    assert!(text.contains("link = \"hdlc-mode-e\""), "{text}");
    let read = paste::read_as_proposed(&wire.endpoint(), &told.found).await;
    assert!(read[0].iter().any(|(name, _)| name == "1-0:1.8.0*255"), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn mode_e_is_tried_where_a_sign_on_announced_it_and_nowhere_else() {
    crate::pace::hold();
    let both = Wish { protocols: vec!["iec62056-21".into(), "dlms".into()], ..wish("", &[300], &[]) };
    let selected =
        |record: &[u8]| record.windows(4).any(|w| w[0] & 0x7F == 6 && w[1] & 0x7F == b'2' && w[3] & 0x7F == b'2');
    let (path, _control) = simulated(Dlms { mode_e: Some(9600), ..one(1, 0) });
    let wire = Wire::before(&path, None).await;
    let told = scanned(&wire.endpoint(), &both).await;
    let dlms = |f: &Found| f.protocol == "dlms" && f.also[0].contains("hdlc-mode-e");
    assert!(told.found.iter().any(dlms), "{:?}", told.found);
    assert!(selected(&wire.record.lock().unwrap()));
    let meter = IecMeter::open(Options::default()).unwrap();
    let path = meter.path().to_owned();
    tokio::spawn(meter.run());
    let wire = Wire::before(&path, None).await;
    let told = scanned(&wire.endpoint(), &both).await;
    assert!(told.found.iter().all(|f| f.protocol == "iec62056-21") && told.found.len() == 1, "{:?}", told.found);
    assert!(!selected(&wire.record.lock().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn every_logical_device_that_a_meter_names_is_proposed_and_can_be_read() {
    crate::pace::hold();
    let names = [(1, "WEI0000000000001"), (2, "WEI0000000000002")];
    let list: Vec<(u16, String)> = names.iter().map(|(sap, name)| (*sap, (*name).to_owned())).collect();
    let content = |name| Content { devices: list.clone(), ..small(name) };
    let devices = vec![(1, 17, content(names[0].1)), (2, 17, content(names[1].1))];
    let (path, _control) = simulated(Dlms { devices, ..Dlms::default() });
    let endpoint = Endpoint::Device(path);
    let told = scanned(&endpoint, &wish("dlms", &[9600], &[17])).await;
    let expected = [1, 2].map(|n| format!("dlms 9600 17 WEI serial number 000000000000{n}"));
    assert_eq!(shown(&told.found), expected, "{:?}", told.warnings);
    assert!(scan::configuration(&place(&endpoint), &told.found).warnings.is_empty());
    let read = paste::read_as_proposed(&endpoint, &told.found).await;
    assert_eq!(read.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_meter_over_the_wrapper_is_found_and_can_be_read() {
    crate::pace::hold();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let endpoint = Endpoint::Tcp(listener.local_addr().unwrap().to_string());
    tokio::spawn(serve_wrapper(listener, one(1, 0), Meters::default()));
    let told = scanned(&endpoint, &wish("dlms", &[], &[])).await;
    assert_eq!(shown(&told.found), ["dlms 300 - WEI serial number 0000000000001"], "{:?}", told.warnings);
    let read = paste::read_as_proposed(&endpoint, &told.found).await;
    assert!(read[0].iter().any(|(name, _)| name == "1-0:1.8.0*255"), "{read:?}");
}

/// Every association that the independent meter was asked for, as its log tells.
fn logged(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap().lines().filter(|l| l.starts_with("AARQ")).map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn an_independent_meter_on_a_line_is_found_by_the_public_client_only_and_can_be_read() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let (_socat, ours, theirs) = Peer::socat_pair(directory.path());
    let variables = [("METER_LOG", log.to_str().unwrap())];
    let _peer = Peer::python_with("dlms_meter.py", &["--tty", theirs.to_str().unwrap()], &variables, "ready");
    let wire = Wire::before(&ours, Some(9600)).await;
    let told = scanned(&wire.endpoint(), &wish("dlms", &[9600], &[])).await;
    assert_eq!(shown(&told.found), ["dlms 9600 - GRX serial number 0000000000001"], "{:?}", told.warnings);
    associations(&wire.record.lock().unwrap());
    let asked = logged(&log);
    assert!(!asked.is_empty() && asked.iter().all(|line| line == "AARQ 16"), "{asked:?}");
    let read = paste::read_as_proposed(&wire.endpoint(), &told.found).await;
    assert!(read[0].iter().any(|(name, value)| name == "1-0:1.8.0*255" && value == "123456.7"), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn an_independent_meter_over_the_wrapper_is_found_by_the_public_client_only_and_can_be_read() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let port = peers::free_port();
    let variables = [("METER_LOG", log.to_str().unwrap())];
    let _peer = Peer::python_with("dlms_meter.py", &["--wrapper", &port.to_string()], &variables, "ready");
    let endpoint = Endpoint::Tcp(format!("127.0.0.1:{port}"));
    let told = scanned(&endpoint, &wish("dlms", &[], &[])).await;
    assert_eq!(shown(&told.found), ["dlms 300 - GRX serial number 0000000000001"], "{:?}", told.warnings);
    assert_eq!(logged(&log), ["AARQ 16"]);
    let read = paste::read_as_proposed(&endpoint, &told.found).await;
    assert!(read[0].iter().any(|(name, value)| name == "1-0:1.8.0*255" && value == "123456.7"), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn an_independent_meter_behind_a_serial_server_is_found_over_hdlc_and_can_be_read() {
    crate::pace::hold();
    let port = peers::free_port();
    let _peer = Peer::python("dlms_meter.py", &["--hdlc", &port.to_string()], "ready");
    let endpoint = Endpoint::Tcp(format!("127.0.0.1:{port}"));
    let told = scanned(&endpoint, &wish("dlms", &[], &[])).await;
    assert_eq!(shown(&told.found), ["dlms 9600 - GRX serial number 0000000000001"], "{:?}", told.warnings);
    let read = paste::read_as_proposed(&endpoint, &told.found).await;
    assert!(read[0].iter().any(|(name, value)| name == "1-0:1.8.0*255" && value == "123456.7"), "{read:?}");
}

/// Answers every frame to address 1 as `answer` says, until the test ends.
fn scripted(answer: impl Fn(&hdlc::Frame) -> Option<hdlc::Frame> + Send + 'static) -> Endpoint {
    let mut pty = Pty::open().unwrap();
    let endpoint = Endpoint::Device(pty.path().to_owned());
    tokio::spawn(async move {
        let (mut decoder, mut buffer) = (Decoder::new(), [0; 512]);
        while let Ok(count) = pty.receive(&mut buffer).await {
            decoder.push(&buffer[..count]);
            while let Some(event) = decoder.next() {
                let hdlc::Event::Frame(frame) = event else { continue };
                if frame.destination != hdlc::Address::Single(1) {
                    continue;
                }
                if let Some(said) = answer(&frame) {
                    pty.send(&said.encode().unwrap()).await.unwrap();
                }
            }
        }
    });
    endpoint
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_refuses_the_public_client_is_still_found_and_says_what_it_needs() {
    crate::pace::hold();
    // AARE: rejected, no reason given.
    const NO: &[u8] = &[
        0xE6, 0xE7, 0x00, 0x61, 0x17, 0xA1, 0x09, 0x06, 0x07, 0x60, 0x85, 0x74, 0x05, 0x08, 0x01, 0x01, 0xA2, 0x03,
        0x02, 0x01, 0x01, 0xA3, 0x05, 0xA1, 0x03, 0x02, 0x01, 0x01,
    ];
    let endpoint = scripted(|frame| {
        let (control, information) = match frame.control {
            hdlc::Control::Snrm | hdlc::Control::Disc => (hdlc::Control::Ua, Vec::new()),
            hdlc::Control::I { ns, .. } => (hdlc::Control::I { ns: 0, nr: (ns + 1) % 8, pf: true }, NO.to_vec()),
            _ => return None,
        };
        let (destination, source) = (frame.source, frame.destination);
        Some(hdlc::Frame { segmented: false, destination, source, control, information })
    });
    let told = scanned(&endpoint, &wish("dlms", &[9600], &[])).await;
    assert_eq!(shown(&told.found), ["dlms 9600 - make unknown"], "{:?}", told.warnings);
    assert!(told.found[0].notes[0].contains("refuses the public client"), "{:?}", told.found);
    let text = accepted(&place(&endpoint), &told.found);
    assert!(text.contains("another dlms.client and a password"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_refuses_every_connection_is_still_found() {
    crate::pace::hold();
    let endpoint = scripted(|frame| {
        let (destination, source) = (frame.source, frame.destination);
        Some(hdlc::Frame { segmented: false, destination, source, control: hdlc::Control::Dm, information: Vec::new() })
    });
    let told = scanned(&endpoint, &wish("dlms", &[9600], &[])).await;
    assert!(told.found.len() == 1 && told.found[0].notes[0].contains("refuses"), "{:?}", told.found);
}

#[tokio::test(start_paused = true)]
async fn a_line_on_which_nobody_speaks_dlms_costs_no_more_than_was_said() {
    crate::pace::hold();
    let meters = ModbusMeters::new(&[1]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let endpoint = Endpoint::Device(path);
    let quick = Wish { protocols: vec!["dlms".into()], ..Wish::new(Depth::Quick) };
    let estimate = scan::estimate(&scan::plan(&quick, &endpoint));
    let began = tokio::time::Instant::now();
    let told = scanned(&endpoint, &quick).await;
    assert!(told.found.is_empty(), "{:?}", told.found);
    assert!(estimate <= Duration::from_secs(10), "{estimate:?}");
    let took = began.elapsed();
    assert!(took < estimate + Duration::from_secs(10), "{took:?} instead of {estimate:?}");
}
