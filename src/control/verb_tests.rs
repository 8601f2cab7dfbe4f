use super::*;

fn read(name: &str, arguments: &str) -> Option<Command> {
    VERBS.iter().find(|verb| verb.name == name).and_then(|verb| (verb.read)(arguments))
}

#[test]
fn the_vendors_own_examples_are_understood() {
    let named = |name: &str| Some(Command::Get(vec![name.to_owned()]));
    assert_eq!(read("GETPARAM", " GPRS_apn"), named("GPRS_apn"));
    let change = Change { name: "OUTPUT_config2".into(), value: "1;30;2;45".into() };
    assert_eq!(
        read("SETPARAM", "OUTPUT_config2,1;30;2;45"),
        Some(Command::Set { changes: vec![change], confirm: None })
    );
    let bytes = b"\x01\x02OPE1\x03".to_vec();
    assert_eq!(
        read("RS232", "0,<HEX>0102</HEX>OPE1<HEX>03</HEX>"),
        Some(Command::Send { place: Place::Number(0), bytes })
    );
    let registers = Modbus { place: None, unit: 1, register: 10, function: 3, count: 1 };
    assert_eq!(read("GETMODBUS", "1;10;1;3"), Some(Command::ReadModbus(registers)));
    let put = Put { place: None, unit: 1, register: 16, function: 6, values: vec![1] };
    assert_eq!(read("SETMODBUS", "1;16;1"), Some(Command::WriteModbus(put)));
    assert_eq!(read("SETIO", "2,1"), Some(Command::SetOutput(Output { name: "2".into(), on: true })));
    let fast = Command::Speed { place: Place::Number(1), baud: 9600, framing: None };
    assert_eq!(read("SETBAUDRATE", "1,9600"), Some(fast));
}

#[test]
fn our_own_forms_are_understood() {
    let put =
        Put { place: Some(Place::Name("rs485-1".into())), unit: 0, register: 7, function: 16, values: vec![1, 65535] };
    assert_eq!(read("SETMODBUS", "0;7;1,65535;16;rs485-1"), Some(Command::WriteModbus(put)));
    let Some(Command::Set { changes, confirm }) = read("SETPARAMS", "{\"a.b\":5,\"c\":true,\"confirm\":\"90s\"}")
    else {
        panic!("it is understood")
    };
    assert_eq!(confirm, Some(Duration::from_secs(90)));
    assert_eq!(changes.iter().map(|c| c.value.as_str()).collect::<Vec<_>>(), ["5", "true"]);
    let within = Some(Duration::from_mins(5));
    let target = "centre.example:4059".to_owned();
    assert_eq!(
        read("CALLBACK", "0,centre.example:4059,5m"),
        Some(Command::CallBack { place: Place::Number(0), target, within })
    );
    assert_eq!(read("AUTORESET", "03:05"), Some(Command::DailyReset(Some(185))));
    assert_eq!(read("AUTORESET", "off"), Some(Command::DailyReset(None)));
    assert_eq!(read("RESET", ""), Some(Command::Restart(Restart::Gateway)));
    let (sha256, signature) = ("ab".repeat(32), "A".repeat(86) + "==");
    let update = |url: &str, signature: Option<&String>| {
        Some(Command::Update { url: url.to_owned(), sha256: sha256.clone(), signature: signature.cloned() })
    };
    assert_eq!(read("UPDATEFW", &format!("https://h/a,b, {}", sha256.to_uppercase())), update("https://h/a,b", None));
    assert_eq!(read("UPDATEFW", &format!("file:///a,{sha256},{signature}")), update("file:///a", Some(&signature)));
    assert_eq!(read("UPDATEFW", &format!("https://h/a,{sha256},short")), None);
    let speed = Command::Speed { place: Place::Name("a".into()), baud: 300, framing: Some("7E1".into()) };
    assert_eq!(read("SETBAUDRATE", "a,300,7E1"), Some(speed));
    assert!(
        matches!(read("CERT", "CA,-----BEGIN CERTIFICATE-----\\nAA"), Some(Command::Certificate { pem, .. }) if pem.contains('\n'))
    );
}

#[test]
fn what_makes_no_sense_is_no_command() {
    for (name, arguments) in [
        ("VERSION", "x"),
        ("GETPARAM", "a,,b"),
        ("SETPARAM", "a"),
        ("SETPARAMS", "{}"),
        ("SETPARAMS", "{\"a\":[1]}"),
        ("SETBAUDRATE", "0,fast"),
        ("RS232", "0,"),
        ("RS232", "0,<HEX>1</HEX>"),
        ("GETMODBUS", "0;1;1;3"),
        ("GETMODBUS", "1;1;126;3"),
        ("GETMODBUS", "1;1;1;6"),
        ("SETMODBUS", "1;1;2;5"),
        ("SETMODBUS", "1;1;65536"),
        ("SETIO", "1,2"),
        ("SMS", "abc,hello"),
        ("CALLBACK", "0,host"),
        ("TRACE", "0,301"),
        ("LOG", "0"),
        ("AUTORESET", "24:00"),
        ("CERT", "ca,hello"),
        ("UPDATEFW", "http://a/b,00"),
        ("ROLLBACK", "x"),
    ] {
        assert_eq!(read(name, arguments), None, "{name},{arguments}");
    }
}

#[test]
fn secrets_are_known_by_the_name_of_their_parameter() {
    let verb = VERBS.iter().find(|verb| verb.name == "SETPARAM").unwrap();
    assert!((verb.private)("MQTT_password,hunter2") && (verb.private)("MTX_PIN,0000"));
    assert!(!(verb.private)("COMM_baudrate,9600"));
}
