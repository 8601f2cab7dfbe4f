use super::parameter;
use super::*;
use crate::config::{Settings, edit, parse};
use crate::tunnel::Mode;

const SCENARIO: &str = include_str!("../../../tests/fixtures/mtx/scenario.txt");

fn translated_with(text: &str, site: &str) -> Translation {
    translate(text.as_bytes(), &Site::parse(site).unwrap(), &|name| format!("/secrets/{name}")).unwrap()
}

fn translated(text: &str) -> Translation {
    translated_with(text, "")
}

fn settings(translation: &Translation) -> Settings {
    parse(&translation.text).unwrap_or_else(|p| panic!("{p:?}\n{}", translation.text)).settings
}

fn lints(translation: &Translation) -> String {
    translation.lints.iter().map(|lint| format!("{}: {}\n", lint.line, lint.message)).collect()
}

fn fate(translation: &Translation, name: &str) -> (Fate, String) {
    let (_, outcome) = translation.parameters.iter().find(|(p, _)| p.name() == name).unwrap();
    (outcome.fate, outcome.became.clone())
}

const BROKER: &str = "MQTT_server: tcp://h:1883\n";

#[test]
fn the_scenario_becomes_what_it_says() {
    let translation =
        translated_with(SCENARIO, "[gateway]\nimei = \"356938035643809\"\n[modem]\ndevice = \"/dev/m\"\n");
    let settings = settings(&translation);
    let broker = settings.broker.iter().next().unwrap();
    assert_eq!((broker.url.to_string().as_str(), broker.keep_alive.seconds()), ("ssl://test.mosquitto.org:8883", 300));
    assert_eq!(broker.client_id.as_written(), "[IMEI]");
    let tunnel = &settings.tunnel[0];
    assert_eq!((&**tunnel.port, tunnel.gather.as_millis()), ("rs485-1", 100));
    assert_eq!((tunnel.rx_topic.as_written(), tunnel.tx_topic.as_written()), ("rxmaster", "txmaster"));
    let topics: Vec<_> = settings.control.at_topics.iter().map(|topic| topic.as_written()).collect();
    assert_eq!(
        (topics, settings.control.reply_topic.as_ref().unwrap().as_written()),
        (vec!["[IMEI]/AT"], "[IMEI]/ATR")
    );
    assert_eq!(*settings.control.sms.allow, ["+34666123456", "+34666123457"]);
    assert!(settings.control.sms.enabled && settings.control.sms.reply && !settings.control.sms.allow_all);
    let status = settings.status.as_ref().unwrap();
    assert_eq!((status.topic.as_written(), status.every.as_secs()), ("[IMEI]/dns", 300));
    let pin = settings.modem.as_ref().unwrap().pin_file.as_ref().unwrap().path().to_owned();
    assert_eq!(pin, Path::new("/secrets/MTX_PIN"));
    let watchdog = settings.watchdog.as_ref().unwrap().ping.as_ref().unwrap();
    assert_eq!(watchdog.after.as_secs(), 35 * 60);
    assert!(!translation.text.contains("0000") && !translation.text.contains("MOVISTAR"), "{}", translation.text);
    assert!(translation.text.contains("gather = \"100ms\"  # line 17: MTX_msToSend"), "{}", translation.text);
    assert!(translation.text.contains("framing = \"8N1\"  # lines 2, 6, 5"), "{}", translation.text);
    let warnings: Vec<_> = translation.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("32:1: warning: there are two MQTT_commrxtopic (lines 31 and 32)"), "{warnings:?}");
    assert_eq!(fate(&translation, "MTX_model").0, Fate::Ignored);
    assert!(fate(&translation, "GPRS_apn").1.contains("gsm.apn movistar.es gsm.username LOGIN gsm.password PASSWORD"));
    assert!(
        translation.parameters.iter().all(|(_, outcome)| outcome.fate != Fate::Unknown && !outcome.became.is_empty())
    );
}

#[test]
fn without_an_imei_the_gateways_id_stands_for_it_and_it_is_told() {
    let translation = translated(SCENARIO);
    let settings = settings(&translation);
    assert_eq!(settings.control.at_topics.first().unwrap().as_written(), "{id}/AT");
    assert!(lints(&translation).contains("27: the gateway's id stands for [IMEI]"), "{}", lints(&translation));
    assert!(settings.modem.is_none() && lints(&translation).contains("names no modem"), "{}", lints(&translation));
}

#[test]
fn inverted_ports_change_places_and_site_toml_may_name_others() {
    let port = |text: &str, site: &str| {
        let translation = translated_with(&format!("{BROKER}MTX_mode: mqtt\n{text}"), site);
        settings(&translation).port.iter().map(|p| p.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(port("", ""), ["rs485-1"]);
    assert_eq!(port("MTX_invertedCom: on\n", ""), ["rs485-2"]);
    assert_eq!(port("", "[mtx]\nports = [\"rs232-1\", \"rs485-1\"]\n"), ["rs232-1"]);
    assert_eq!(port("MTX_invertedCom: on\n", "[mtx]\nports = [\"rs232-1\", \"rs485-1\"]\n"), ["rs485-1"]);
}

#[test]
fn modbus_groups_become_meters_on_the_second_port() {
    let text = format!(
        "{BROKER}MTX_mode: none\nMTX_portAux: modbusmaster\nCOMM2_baudrate: 19200\nMODBUS_address: 1;2\nMODBUS_start: 10;20\nMODBUS_numWords: 2\n\
         MODBUS_period: 60\nMODBUS_readCommand: 1;3\nMODBUS_custom: BIN;WORD\nLOGGER_enabled: on\nLOGGER_numRegistersFlash: 1500\n"
    );
    let translation = translated(&text);
    let settings = settings(&translation);
    let meters: Vec<_> =
        settings.meter.iter().map(|m| (m.name.to_string(), m.port.to_string(), m.every.as_secs())).collect();
    let meter = |name: &str| (name.to_owned(), "rs485-2".to_owned(), 60);
    assert_eq!(meters, [meter("modbus-1"), meter("modbus-2")]);
    assert_eq!((settings.meter[0].register.len(), settings.port[1].baud.value()), (2, 19_200));
    assert!(settings.tunnel.is_empty());
    assert!(fate(&translation, "LOGGER_enabled").1.contains("keeps readings"));
    let commanded = translated(&format!("{BROKER}MTX_mode: none\nMTX_portAux: modbusmaster\n"));
    assert!(commanded.text.contains("{id}/rx2"), "{}", commanded.text);
    assert_eq!(*super::tests::settings(&commanded).tunnel[0].mode, Mode::Mqtt);
}

#[test]
fn the_other_modes_become_tunnels_of_the_network() {
    let tunnel = |text: &str, site: &str| {
        let translation = translated_with(&format!("{BROKER}{text}"), site);
        settings(&translation).tunnel.into_iter().next().unwrap()
    };
    let server = tunnel(
        "MTX_mode: server\nFIREWALL_enabled: on\nFIREWALL_IP1: 80.1.2.3\nFIREWALL_IP2: 80.1.2.4\nMTX_flushSerialBuffers: off\n",
        "",
    );
    assert_eq!((*server.mode, server.allow.len(), server.flush), (Mode::TcpServer, 2, false));
    assert_eq!(server.listen.as_ref().unwrap().0.port(), 20_010);
    let master =
        tunnel("MTX_mode: udp\nUDP_IP: 10.1.1.10@1,10.1.1.20@2\nUDP_ localPort: 20010\nUDP_remotePort: 20011\n", "");
    assert_eq!((*master.mode, master.routes.len()), (Mode::Udp, 2));
    let slave = tunnel("MTX_mode: udp\nUDP_IP: 10.1.1.1\nUDP_localPort: 20010\nUDP_remotePort: 20010\n", "");
    assert_eq!((slave.routes.len(), slave.allow.len()), (0, 1));
    let centre = "[[tunnel]]\nport = \"rs485-1\"\ntargets = [\"centre.example.com:4059\"]\n";
    let called = tunnel("MTX_mode: none\nMTX_ATEmbedded: temporalclient\n", centre);
    assert_eq!((*called.mode, called.targets.len()), (Mode::CallBack, 1));
    let without = translated(&format!("{BROKER}MTX_mode: client\n"));
    assert!(
        settings(&without).tunnel.is_empty() && lints(&without).contains("write [[tunnel]] with connect"),
        "{}",
        lints(&without)
    );
}

#[test]
fn a_firewall_that_names_nobody_closes_the_door() {
    for walls in [
        "FIREWALL_enabled: on\n",
        "FIREWALL_enabled: yes\n",
        "FIREWALL_enabled: on\nFIREWALL_IP1: 80.1.2\n",
        "FIREWALL_enabled: on\nFIREWALL_IP1: host.example.com\nFIREWALL_IP2: 80.1.2\n",
        "FIREWALL_IP1: 80.1.2.300\n",
        "FIREWALL_enabled: on\nFIREWALL_IP1:\n",
    ] {
        let translation = translated(&format!("{BROKER}MTX_mode: server\nMTX_ATMux: on\n{walls}"));
        assert!(settings(&translation).tunnel.is_empty(), "{walls}{}", translation.text);
        let told = lints(&translation);
        assert!(told.contains("there is no tunnel on the first port: FIREWALL_enabled is not off"), "{walls}{told}");
        assert_eq!(fate(&translation, "MTX_mode").0, Fate::Ignored);
        let site = "[[tunnel]]\nport = \"rs485-1\"\nallow = [\"10.0.0.1\"]\n";
        let named = translated_with(&format!("{BROKER}MTX_mode: server\n{walls}"), site);
        assert_eq!(settings(&named).tunnel[0].allow.len(), 1, "{walls}{}", named.text);
    }
    let text = format!("{BROKER}MTX_mode: server\nFIREWALL_enabled: yes\nFIREWALL_IP1: 80.1.2.3\nFIREWALL_IP2: 80.1\n");
    let translation = translated(&text);
    let tunnel = settings(&translation).tunnel.remove(0);
    let allow: Vec<_> = tunnel.allow.iter().map(ToString::to_string).collect();
    assert_eq!(allow, ["80.1.2.3"], "{}", lints(&translation));
    let open = translated(&format!("{BROKER}MTX_mode: server\nFIREWALL_enabled: OFF\nFIREWALL_IP1: 80.1\n"));
    assert!(settings(&open).tunnel[0].allow.is_empty());
    assert!(settings(&translated(&format!("{BROKER}MTX_mode: server\n"))).tunnel[0].allow.is_empty());
}

#[test]
fn a_tunnel_that_can_not_have_its_mode_is_no_tunnel() {
    for text in [
        "MTX_mode: udp\nUDP_IP: 10.1.1.300\nUDP_localPort: 20010\nMTX_msToSend: 50\n",
        "MTX_mode: udp\nUDP_IP: 10.1.1.10@1,10.1.1.20\nUDP_localPort: 20010\nMTX_ATMux: on\n",
        "MTX_mode: udp\n",
        "MTX_mode: server\nTCP_port: 70000\n",
    ] {
        let translation = translated(&format!("{BROKER}{text}"));
        assert!(settings(&translation).tunnel.is_empty(), "{text}{}", translation.text);
        let told = lints(&translation);
        assert!(told.contains("2: there is no tunnel on the first port: it can't have the mode"), "{text}{told}");
        assert!(!translation.text.contains("[[tunnel]]") && !translation.text.contains("line_ports"));
    }
}

#[test]
fn a_period_of_0_is_no_status_message() {
    let text = format!("{BROKER}DNS_enabled: on\nDNS_mode: mqtt\nDNS_mqttTopic: t\nDNS_period: 0\n");
    let translation = translated(&text);
    assert!(settings(&translation).status.is_none(), "{}", translation.text);
    assert!(lints(&translation).contains("5: there is no status message: DNS_period is 0"), "{}", lints(&translation));
    let toml = "[broker]\nurl = \"ssl://h\"\n[status]\ntopic = \"t\"\nevery = \"0s\"\n";
    let problem = parse(toml).unwrap_err().remove(0);
    assert!(problem.line == 5 && problem.message.contains("must be more than 0s"), "{problem:?}");
}

#[test]
fn a_family_has_64_members_and_each_shows_itself_only() {
    let phones: String = (1..=70).map(|n| format!("SMS_validPhone{n}: 0034666{n:06}\n")).collect();
    let translation = translated(&format!("{BROKER}MQTT_attopic1: [imei]/AT\n{phones}"));
    let settings = settings(&translation);
    assert_eq!(settings.control.sms.allow.len(), 64);
    assert_eq!(settings.control.sms.allow[1], "+34666000002");
    assert_eq!(settings.control.at_topics[0].as_written(), "{id}/AT");
    assert!(
        lints(&translation).contains("67: more than 64 SMS_validPhone#: 6 lines do not count"),
        "{}",
        lints(&translation)
    );
    assert_eq!(fate(&translation, "SMS_validPhone64").1, "control.sms.allow has \"+34666000064\"");
    assert_eq!(fate(&translation, "SMS_validPhone70"), (Fate::Ignored, "more than 64 of them".to_owned()));
    let unknown: String = (0..101).map(|n| format!("MQTT_keepalif{n}: 1\n")).collect();
    let hints = lints(&translated(&format!("{BROKER}{unknown}"))).matches("did you mean").count();
    assert_eq!(hints, 100);
}

#[test]
fn what_weir_can_not_hold_costs_its_own_line_only() {
    let text = format!(
        "{BROKER}MQTT_keepalive: 0\nCOMM_baudrate: fast\nCOMM_parity: mark\nMTX_mode: mqtt\nMTX_msToSend: 99999\nSMS_validPhone1: 12x\nSMS_validPhone2: +34666123456\nDNS_enabled: maybe\n"
    );
    let translation = translated(&text);
    let settings = settings(&translation);
    assert_eq!(settings.tunnel[0].gather.as_millis(), 100, "the default");
    assert_eq!(*settings.control.sms.allow, ["+34666123456"], "{}", translation.text);
    let told = lints(&translation);
    for line in [
        "2: MQTT_keepalive does not count",
        "3: COMM_baudrate must be",
        "4: COMM_parity must be",
        "6: MTX_msToSend does not count",
        "7: SMS_validPhone1 does not count",
        "9: DNS_enabled must be",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
}

#[test]
fn only_a_missing_broker_stops_it_with_one_sentence() {
    let fails = |text: &str, site: &str| {
        translate(text.as_bytes(), &Site::parse(site).unwrap(), &|_| String::new())
            .map(|t| t.text)
            .unwrap_err()
            .to_string()
    };
    assert!(fails("MTX_mode: mqtt\n", "").contains("names no broker that weir can use: weir sends"));
    assert!(fails("MQTT_enabled: off\nMQTT_server: tcp://h\n", "").contains("MQTT_enabled is off"));
    assert!(fails("MQTT_server: wss://h\n", "").contains("line 1: MQTT_server does not count"));
    let site = "[broker]\nurl = \"ssl://h:8883\"\n";
    let translation = translated_with("FOO_bar: 1\nMTX_mode: mqtt\nLOGGER_server: www.metering.es/json\n", site);
    assert!(lints(&translation).contains("1: FOO_bar is unknown"));
    assert_eq!(settings(&translation).broker.len(), 1);
}

#[test]
fn a_problem_of_the_text_is_placed_at_its_line_of_config_txt() {
    let translation = translated(&format!("# mine\n{BROKER}"));
    let line = translation.text.lines().position(|line| line.starts_with("url")).unwrap() + 1;
    let problem = |line| Problem { severity: Severity::Warning, line, column: 5, message: "m".into() };
    assert_eq!(translation.place(problem(line)).line, 2);
    let elsewhere = translation.place(problem(2));
    assert_eq!((elsewhere.line, elsewhere.message.contains("version = 1")), (0, true));
}

#[test]
fn parameters_are_read_and_set_by_the_vendors_names_on_any_configuration() {
    let text = "[broker]\nurl = \"ssl://h:8883\"\nkeep_alive = \"5m\"\n[[port]]\nname = \"line\"\ndevice = \"/dev/x\"\nframing = \"7E1\"\n[[tunnel]]\nport = \"line\"\n[control.sms]\nallow = [\"+341\"]\n";
    let get = |name: &str| parameter::value(text, name);
    for (name, value) in [
        ("MQTT_keepalive", "300"),
        ("mtx_MSTOSEND", "100"),
        ("COMM_parity", "even"),
        ("COMM_baudrate", "9600"),
        ("MTX_mode", "mqtt"),
        ("SMS_validPhone1", "+341"),
        ("SMS_validPhone2", ""),
        ("SMS_ATEnabled", "on"),
        ("MTX_ATMux", "off"),
        ("MQTT_password", ""),
        ("MQTT_commrxtopic", "{id}/rx"),
        ("MTX_ping", ""),
    ] {
        assert_eq!(get(name).as_deref(), Ok(value), "{name}");
    }
    for (name, why) in [
        ("GPRS_apn", "GPRS_apn does nothing on weir"),
        ("MTX_invertedCom", "no setting of its own"),
        ("MQTT_will", "MQTT_will is no parameter that weir knows"),
        ("COMM2_baudrate", "no second port"),
    ] {
        assert!(get(name).unwrap_err().contains(why), "{name}: {:?}", get(name));
    }
    let set = |name: &str, value: &str| edit::edited(text, &parameter::edits(text, name, value).unwrap()).unwrap();
    for (name, value) in [
        ("MQTT_keepalive", "60"),
        ("MTX_msToSend", "200"),
        ("COMM_stopbits", "2"),
        ("SMS_validPhone2", "+34666123457"),
        ("SMS_allPhones", "on"),
        ("MTX_ATMux", "on"),
        ("MTX_ping", "30"),
        ("MTX_pingIP", "8.8.8.8"),
        ("DNS_mqttTopic", "[IMEI]/dns"),
        ("MTX_mode", "server"),
        ("MTX_mode", "none"),
        ("SMS_alias1", "on>AT^MTXTUNNEL=SETIO,1,1"),
    ] {
        let after = set(name, value);
        assert_eq!(parameter::value(&after, name).as_deref(), Ok(value), "{name}: {after}");
    }
    let none = set("MTX_mode", "none");
    assert!(parameter::edits(&none, "MTX_mode", "none").unwrap_err().contains("none already"));
    let server = edit::edited(&none, &parameter::edits(&none, "MTX_mode", "server").unwrap()).unwrap();
    assert_eq!(parameter::value(&server, "TCP_port").as_deref(), Ok("20010"), "{server}");
    assert!(parse(&server).is_ok(), "{server}");
    assert_eq!(parameter::value(&set("MTX_ping", "0"), "MTX_ping").as_deref(), Ok(""));
    assert!(parameter::edits(text, "MTX_PIN", "1234").unwrap_err().contains("is a secret"));
    assert!(
        parameter::edits(text, "MQTT_keepalive", "long").unwrap_err().contains("MQTT_keepalive must be a whole number")
    );
    assert!(
        parameter::is_meant("MQTT_will")
            && !parameter::is_meant("uplink.batch")
            && !parameter::is_meant("port[a_b].baud")
    );
}
