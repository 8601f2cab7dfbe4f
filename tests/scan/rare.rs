//! Meters that most scans would miss: asleep, at a rate of their own, in hex; and what a person is told
//! was tried.

use crate::*;

async fn iec(options: Options, wish: &Wish) -> (Told, Vec<u8>, Endpoint) {
    let meter = IecMeter::open(options).unwrap();
    let path = meter.path().to_owned();
    tokio::spawn(meter.run());
    let wire = Wire::before(&path, None).await;
    let told = scanned(&wire.endpoint(), wish).await;
    let record = wire.record.lock().unwrap().clone();
    assert_reads_only(&record);
    (told, record, Endpoint::Device(path))
}

#[tokio::test(start_paused = true)]
async fn a_battery_meter_is_woken_only_when_nobody_answers_without() {
    crate::pace::hold();
    let sleeper = Options { sleeps: true, ..Options::default() };
    let (told, record, endpoint) = iec(sleeper, &wish("iec62056-21", &[], &[])).await;
    assert_eq!(shown(&told.found), ["iec62056-21 300 - WEI SIM1 serial number 12345678"], "{:?}", told.warnings);
    assert!(record.windows(60).any(|bytes| bytes.iter().all(|b| *b == 0)), "it was woken");
    assert!(told.tried.iter().any(|how| how == "iec62056-21 300 after a wake-up"), "{:?}", told.tried);
    let text = accepted(&place(&endpoint), &told.found);
    assert!(text.contains("wake_up = true"), "{text}");
    let (told, record, _) = iec(Options::default(), &wish("iec62056-21", &[], &[])).await;
    assert_eq!(told.found.len(), 1);
    assert!(!record.contains(&0), "a meter that is awake is not woken");
    assert!(told.tried.iter().all(|how| !how.contains("9600")), "other rates need not be tried: {:?}", told.tried);
}

#[tokio::test(start_paused = true)]
async fn a_meter_that_keeps_to_9600_is_found_and_can_be_read() {
    crate::pace::hold();
    let fixed = Options { sign_on_baud: 9600, ..Options::default() };
    let (told, _, endpoint) = iec(fixed, &wish("iec62056-21", &[], &[])).await;
    assert_eq!(shown(&told.found), ["iec62056-21 9600 - WEI SIM1 serial number 12345678"], "{:?}", told.warnings);
    assert!(told.found[0].notes.iter().any(|note| note.contains("values")), "{:?}", told.found);
    let text = accepted(&place(&endpoint), &told.found);
    assert!(text.contains("sign_on_baud = 9600"), "{text}");
    let read = paste::read_as_proposed(&endpoint, &told.found).await;
    assert!(read[0].iter().any(|(name, _)| name == "1.8.0"), "{read:?}");
}

#[test]
fn the_rarer_ways_keep_the_scan_within_its_time() {
    let endpoint = Endpoint::parse("/dev/ttyS1");
    for (depth, most) in [(Depth::Quick, 4), (Depth::Usual, 25), (Depth::Thorough, 60)] {
        let wish = Wish { protocols: vec!["iec62056-21".into()], ..Wish::new(depth) };
        let took = scan::estimate(&scan::plan(&wish, &endpoint)).as_secs();
        assert!(took <= most, "{depth:?}: {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn modbus_ascii_is_left_out_where_rtu_meters_answer() {
    crate::pace::hold();
    let meters = ModbusMeters::new(&[1]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let endpoint = Endpoint::Device(path);
    let both = Wish { protocols: vec!["modbus-rtu".into(), "modbus-ascii".into()], ..wish("", &[9600], &[1]) };
    let told = scanned(&endpoint, &both).await;
    assert_eq!(told.found.len(), 1);
    assert!(told.tried.iter().all(|how| how.starts_with("modbus-rtu")), "{:?}", told.tried);
}

#[tokio::test(start_paused = true)]
async fn the_direction_of_a_transceiver_is_given_on_the_command_line() {
    crate::pace::hold();
    let pty = Pty::open().unwrap();
    let port = pty.path().to_str().unwrap().to_owned();
    let arguments = ["scan", &port, "--protocol", "modbus-rtu", "--baud", "9600", "--addresses", "1"];
    let with = |who: &'static str| [&arguments[..], &["--rs485", who]].concat();
    let output = peers::run(&mut weir(&with("kernel"))).await;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && err.contains("RS485"), "a pseudo-terminal has no RS485: {err}");
    let output = peers::run(&mut weir(&with("auto"))).await;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(err.contains("no meter answered") && err.contains("tried modbus-rtu: 9600 8N1, 9600 8E1"), "{err}");
    let output = peers::run(&mut weir(&with("perhaps"))).await;
    assert_eq!(output.status.code(), Some(64));
    let tcp = ["scan", "tcp://127.0.0.1:1", "--rs485", "kernel"];
    assert_eq!(peers::run(&mut weir(&tcp)).await.status.code(), Some(64));
}

#[tokio::test(start_paused = true)]
async fn a_port_without_a_speed_gives_each_meter_once_and_says_why() {
    crate::pace::hold();
    let meters = ModbusMeters::new(&[2, 5]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let told = scanned(&Endpoint::Device(path), &wish("modbus-rtu", &[9600, 19_200, 4800], &[2, 5])).await;
    assert_eq!(shown(&told.found), [2, 5].map(|unit| format!("modbus-rtu 9600 {unit} weir SIM version 1.0")));
    assert!(told.warnings.len() == 1 && told.warnings[0].contains("has no speed of its own"), "{:?}", told.warnings);
    let meter =
        Meter { manufacturer: Meter::manufacturer_code("LUG").unwrap(), id: 0x1234_5678, version: 4, device: 4 };
    let line = MbusLine::open(Control::new(vec![Slave::new(3, meter)])).unwrap();
    let endpoint = Endpoint::Device(line.path().unwrap().to_owned());
    tokio::spawn(line.run());
    let told = scanned(&endpoint, &wish("m-bus", &[2400, 9600], &[])).await;
    assert_eq!(told.found.len(), 1, "{:?}", shown(&told.found));
}

#[tokio::test(start_paused = true)]
async fn meters_of_two_makers_with_the_same_number_are_two() {
    crate::pace::hold();
    let meter = |letters: &str| Meter {
        manufacturer: Meter::manufacturer_code(letters).unwrap(),
        id: 0x1234_5678,
        version: 4,
        device: 4,
    };
    let slave = |letters, primary, baud| {
        let mut slave = Slave::new(primary, meter(letters));
        slave.baud = Some(baud);
        slave
    };
    let line = MbusLine::open(Control::new(vec![slave("LUG", 3, 2400), slave("KAM", 200, 9600)])).unwrap();
    let endpoint = Endpoint::Device(line.path().unwrap().to_owned());
    tokio::spawn(line.run());
    let told = scanned(&endpoint, &wish("m-bus", &[2400, 9600], &[])).await;
    let makers: Vec<_> = told.found.iter().filter_map(|f| f.who.maker.as_deref()).collect();
    assert_eq!(makers, ["LUG", "KAM"], "{:?}", shown(&told.found));
}
