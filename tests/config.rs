//! Stories about weir.toml: every mistake at once, with its place and what to do about it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::path::Path;

use weir::config;
use weir::setting::Severity;

fn complaints(text: &str) -> Vec<String> {
    config::parse(text).map_or_else(|p| p, |l| l.warnings).iter().map(ToString::to_string).collect()
}

const MINIMAL: &str = "[broker]\nurl = \"ssl://localhost:8883\"\n";

#[test]
fn the_smallest_file_names_only_the_broker() {
    let loaded = config::parse(MINIMAL).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(loaded.settings.store.max_size.bytes(), 256 << 20);
}

#[test]
fn every_mistake_is_reported_at_once_with_its_place() {
    let text = "version = 2
[store]
max_size = \"lots\"
snyc = \"1s\"
[broker]
url = \"ssl://localhost:8883\"
[[port]]
name = \"a\"
baud = \"fast\"
framing = \"9N1\"
[[meter]]
name = \"m\"
port = \"b\"
protocol = \"modbus-rtu\"
every = \"0s\"
[[meter]]
name = \"m\"
protocol = \"modbus-rtu\"
";
    let found = complaints(text);
    for expected in [
        "1:11: error: version is 2, but this version of weir knows only 1",
        "3:12: error: store.max_size is \"lots\", but must be a size",
        "4:1: error: unknown key \"snyc\" in [store]; did you mean \"sync\"?",
        "9:8: error: port[0].baud must be a whole number, but this is a string",
        "10:11: error: port[0].framing is \"9N1\"",
        "13:8: error: meter \"m\" names port \"b\", which is not defined; known: a",
        "16:1: error: meter[1].port is missing",
        "17:8: error: there is already a meter named \"m\"",
    ] {
        assert!(found.iter().any(|f| f.starts_with(expected)), "missing: {expected}\nfound: {found:#?}");
    }
}

#[test]
fn whatever_run_would_refuse_check_refuses_with_its_place() {
    let found = |text: &str| complaints(&format!("{MINIMAL}{text}")).join("\n");
    let board = found("[gateway]\nboard = \"nosuch\"\n");
    assert!(board.starts_with("4:9: error: no board is called \"nosuch\"; known are beaglebone"), "{board}");
    let port = found("[[port]]\nname = \"p\"\n");
    assert!(port.contains("4:8: error: port \"p\" has no device: set device"), "{port}");
    let form = found("[[port]]\nname = \"p\"\ndevice = \"tcp://meter\"\n");
    assert!(form.contains("5:10: error: device \"tcp://meter\" must be tcp://host:port"), "{form}");
    let imei = found("client_id = \"w-{imei}\"\n");
    assert!(imei.starts_with("3:13: error: a topic, id or payload uses {imei}"), "{imei}");
    let id = found("[gateway]\nid = \"a+b\"\n");
    assert!(id.contains("can't be published to"), "{id}");
    assert_eq!(found("[gateway]\nimei = \"1\"\n[uplink]\ndata_topic = \"{imei}\"\n"), "");
}

#[test]
fn a_serial_device_has_one_owner_and_a_server_may_have_many() {
    let two = |device: &str| {
        format!(
            "{MINIMAL}[[port]]\nname = \"a\"\ndevice = \"{device}\"\n[[port]]\nname = \"b\"\ndevice = \"{device}\"\n[[radio]]\nname = \"r\"\nreceiver = \"hex-lines\"\ndevice = \"{device}\"\n"
        )
    };
    let errors: Vec<_> = complaints(&two("/dev/ttyS1")).into_iter().filter(|c| c.contains("error")).collect();
    assert_eq!(errors.len(), 2, "{errors:#?}");
    assert!(errors[0].starts_with("8:10: error: port \"b\" has the device /dev/ttyS1 of port \"a\""), "{errors:#?}");
    assert!(!complaints(&two("tcp://h:502")).iter().any(|c| c.contains("error")));
}

#[test]
fn a_meter_that_sends_by_itself_has_its_port_and_server_for_itself() {
    let port =
        |name: &str, device: &str, more: &str| format!("[[port]]\nname = \"{name}\"\ndevice = \"{device}\"\n{more}\n");
    let meter = |name: &str, port: &str, protocol: &str| {
        format!("[[meter]]\nname = \"{name}\"\nport = \"{port}\"\nprotocol = \"{protocol}\"\n")
    };
    let site = |parts: &[String]| complaints(&format!("{MINIMAL}{}", parts.concat()));
    let alone = [port("a", "/dev/ttyUSB0", ""), meter("m", "a", "dsmr-p1")];
    assert_eq!(site(&alone), Vec::<String>::new());
    let shared = [port("a", "/dev/ttyUSB0", ""), meter("m", "a", "sml"), meter("n", "a", "iec62056-21")];
    let found = site(&shared);
    assert!(found.len() == 1 && found[0].contains("meter \"n\" needs a port of its own"), "{found:#?}");
    let twice = [port("a", "/dev/ttyUSB0", ""), meter("m", "a", "sml"), meter("n", "a", "iec-d0")];
    assert_eq!(site(&twice).len(), 1);
    let parity = [port("a", "/dev/ttyUSB0", "framing = \"7E1\""), meter("m", "a", "iec-d0")];
    let found = site(&parity);
    assert!(found.len() == 1 && found[0].contains("leave framing at \"8N1\""), "{found:#?}");
    // HAN ports and M-Bus have even parity besides eight bits.
    let han = |framing: &str| {
        site(&[port("a", "/dev/ttyUSB0", &format!("framing = \"{framing}\"")), meter("m", "a", "dlms-push")])
    };
    assert_eq!((han("8E1"), han("8N1")), (Vec::new(), Vec::new()));
    assert!(han("7E1")[0].contains("eight data bits"), "{:#?}", han("7E1"));
    let server = "tcp://10.0.0.9:5000";
    let both = [port("a", server, ""), port("b", server, ""), meter("m", "a", "sml"), meter("n", "b", "sml")];
    let found = site(&both);
    assert!(found.len() == 1 && found[0].contains("only one of them can open it"), "{found:#?}");
    let key = [port("a", "/dev/ttyUSB0", ""), meter("m", "a", "sml"), "key_file = \"/k\"\n".to_owned()];
    assert!(site(&key)[0].contains("key_file is for DSMR P1, DLMS and DLMS pushes, not for sml"));
}

#[test]
fn decoding_and_what_needs_it_are_looked_at_over_all_receivers() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    std::fs::write(&keys, "").unwrap();
    std::fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let keys = format!("keys_file = \"{}\"\n", keys.display());
    let radio = |number: u32, more: &str| {
        format!("[[radio]]\nname = \"r{number}\"\nreceiver = \"hex-lines\"\ndevice = \"/dev/ttyUSB{number}\"\n{more}\n")
    };
    let site = |parts: &[String]| complaints(&format!("{MINIMAL}{}", parts.concat()));
    let flags = "[telegrams]\nurgent = [\"alarm-status\", \"error-flags\"]\n".to_owned();
    let both = "forward = \"both\"\n";
    assert_eq!(site(&[radio(1, &keys), radio(2, both), flags.clone()]), Vec::<String>::new());
    let raw = site(&[radio(1, &keys), radio(2, ""), flags]);
    assert_eq!(raw.len(), 2, "{raw:#?}");
    assert!(raw[0].contains("keys_file has no effect") && raw[1].contains("error-flags has no effect"), "{raw:#?}");
    let keyless = site(&[radio(1, ""), radio(2, both)]);
    assert!(keyless.len() == 1 && keyless[0].contains("without any keys_file"), "{keyless:#?}");
}

#[test]
fn a_file_that_is_no_toml_is_told_where() {
    let found = complaints("[broker\nurl = \"ssl://x:1\"\n[store]\npath = 5\n");
    assert!(found[0].starts_with("1:8: error: not valid TOML"), "{found:#?}");
    assert!(found.iter().any(|f| f.contains("store.path must be a path")), "{found:#?}");
    assert!(!found.iter().any(|f| f.contains("missing")), "a broken file hides keys: {found:#?}");
}

#[test]
fn effective_values_read_back_as_the_same_settings() {
    let text = format!(
        "{MINIMAL}username = \"u\"\npassword_file = \"/etc/weir/secret\"\n[[port]]\nname = \"a\\\"b\"\ndevice = \"/dev/x\"\n[[meter]]\nname = \"m\"\nport = \"a\\\"b\"\nprotocol = \"modbus-rtu\"\naddress = 7\nevery = \"90s\"\n[[meter.register]]\nname = \"u\"\nregister = \"input:0\"\nscale = 0.10\n"
    );
    let effective = config::parse(&text).unwrap().settings.effective();
    assert!(effective.contains("scale = 0.10"), "{effective}");
    assert!(effective.contains("content masked"), "{effective}");
    let again = config::parse(&effective).unwrap_or_else(|p| panic!("{p:#?}\n{effective}"));
    assert_eq!(again.settings.effective(), effective);
}

const TWO: &str = "[[broker]]
url = \"ssl://one.example\"
[[broker]]
url = \"ssl://two.example:8884\"
client_id = \"w-{id}\"
username = \"u\"
password_file = \"/dev/null\"
keep_alive = \"30s\"
required = false
";

#[test]
fn several_brokers_are_read_in_their_order_and_printed_as_they_were() {
    let text = format!("{TWO}[uplink]\nbrokers = \"mirror\"\n");
    let settings = config::parse(&text).unwrap_or_else(|p| panic!("{p:#?}")).settings;
    let urls: Vec<_> = settings.broker.iter().map(|b| b.url.to_string()).collect();
    assert_eq!(urls, ["ssl://one.example:8883", "ssl://two.example:8884"]);
    assert!(settings.summary().ends_with("to ssl://one.example:8883 and ssl://two.example:8884"));
    let effective = settings.effective();
    assert_eq!((effective.matches("[[broker]]").count(), effective.matches("content masked").count()), (2, 1));
    assert!(effective.contains("keep_alive = \"30s\"\nrequired = false"), "{effective}");
    assert_eq!(config::parse(&effective).unwrap().settings.effective(), effective);
    assert!(config::parse(MINIMAL).unwrap().settings.effective().contains("\n[broker]\n"));
}

#[test]
fn mistakes_in_one_of_several_brokers_are_told_with_their_place() {
    let found = complaints(
        "[[broker]]
url = \"ssl://one\"
[[broker]]
url = \"tcp://two\"
keep_alive = \"1s\"
kee = 1
[[broker]]
client_id = \"x\"
[uplink]
brokers = \"miror\"
return_after = \"0s\"
",
    );
    for expected in [
        "5:14: error: broker[1].keep_alive must be whole seconds",
        "6:1: error: unknown key \"kee\" in [broker[1]]",
        "7:1: error: broker[2].url is missing",
        "10:11: error: uplink.brokers is \"miror\", but must be one of \"failover\", \"mirror\" (did you mean \"mirror\"?)",
        "11:16: error: uplink.return_after must be at least 1s",
    ] {
        assert!(found.iter().any(|f| f.starts_with(expected)), "missing: {expected}\nfound: {found:#?}");
    }
    let found = complaints(&format!("{TWO}[[broker]]\nurl = \"ssl://one.example:8883\"\n"));
    assert!(found.iter().any(|f| f.starts_with("9:12: warning: broker.required is only used")), "{found:#?}");
    assert!(found.iter().any(|f| f.starts_with("11:7: error: there is already a broker with this url")), "{found:#?}");
    let none = TWO.replace("[[broker]]\nurl = \"ssl://one.example\"\n", "") + "[uplink]\nbrokers = \"mirror\"\n";
    let found = complaints(&none);
    assert!(found.iter().any(|f| f.starts_with("9:11: error: no broker is required")), "{found:#?}");
    assert!(found.iter().any(|f| f.starts_with("9:11: warning: ") && f.contains("only one broker")), "{found:#?}");
    assert!(complaints("broker = []").iter().any(|f| f.contains("broker must name from 1 to 8 brokers")));
    let wrong = complaints("[[broker]]\nurl = \"tcp://b\"\n[[broker]]\nurl = \"tcp://c\"\nclient_id = \"{imei}\"\n");
    assert!(wrong.iter().any(|f| f.starts_with("5:13: error: a topic, id or payload uses {imei}")), "{wrong:#?}");
}

#[test]
fn a_data_budget_that_makes_no_sense_is_refused_with_its_place() {
    let found = |budget: &str| complaints(&format!("{MINIMAL}[budget]\n{budget}\n")).join("\n");
    assert_eq!(found("monthly = \"50MB\"\nrenews = 31\norder = [\"defer\", \"batch\"]"), "");
    assert!(found("monthly = \"50kB\"").starts_with("4:11: error: budget.monthly is below 100 kB"));
    assert!(found("renews = 32").contains("4:10: error: budget.renews is 32, but must be from 1 to 31"));
    assert!(found("order = [\"batch\", \"batch\"]").starts_with("4:9: error: budget.order names a step twice"));
    assert!(found("order = [\"bach\"]").contains("did you mean \"batch\"?"));
    assert!(found("monthly = \"1MB\"\norder = []").contains("warning: budget.order is empty"));
    assert!(
        complaints(&format!("{MINIMAL}[uplink]\ncompression = \"zip\"\n"))
            .join("")
            .contains("one of \"none\", \"deflate\"")
    );
}

#[test]
fn what_a_line_or_a_meter_on_it_can_not_do_is_refused() {
    let found = |port: &str, meter: &str| {
        let port = format!("[[port]]\nname = \"p\"\ndevice = \"/dev/ttyS1\"\n{port}\n");
        let meter = format!("[[meter]]\nname = \"m\"\nport = \"p\"\n{meter}\n");
        complaints(&format!("{MINIMAL}{port}{meter}")).join("\n")
    };
    let rtu = "protocol = \"modbus-rtu\"\nprofile = \"eastron-sdm630\"\nbaud = 2400\nframing = \"8E1\"\nstretch = 4";
    let kernel = "echo = \"yes\"\nguard = \"50ms\"\nrs485 = { direction = \"kernel\", rts_on_send = \"low\", delay_after_send = \"2ms\" }";
    assert_eq!(found(kernel, rtu), "");
    for (port, expected) in [
        ("rs485 = { direction = \"kernel\", delay_before_send = \"200ms\" }", "at most \"100ms\""),
        ("rs485 = { direction = \"auto\", rts_on_send = \"low\" }", "direction = \"kernel\""),
        ("echo = \"maybe\"", "one of \"auto\", \"yes\", \"no\""),
    ] {
        assert!(found(port, rtu).contains(expected), "{}", found(port, rtu));
    }
    let iec = found("", "protocol = \"iec62056-21\"\nbaud = 9600");
    assert!(iec.contains("not for iec62056-21: it has a speed of its own"), "{iec}");
}

#[test]
fn the_configuration_page_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.md");
    let made = config::markdown();
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "docs/config.md is stale; run: WEIR_BLESS=1 cargo test --test config");
}

#[test]
fn the_shipped_example_can_be_used_as_it_is() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/example.toml")).unwrap();
    let loaded = config::parse(&text).unwrap_or_else(|p| panic!("{p:#?}"));
    let missing_files = |p: &&weir::setting::Problem| !p.message.ends_with("does not exist yet");
    assert_eq!(loaded.warnings.iter().filter(missing_files).count(), 0, "{:#?}", loaded.warnings);
}

/// The contract of names, when the reference lies beside the checkout: every name in it is known,
/// and the only errors are of what this version says it does not do.
#[test]
fn the_contract_of_names_is_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places =
        [root.join("../shared/reference/example-config.toml"), "/work/shared/reference/example-config.toml".into()];
    let Some(text) = places.iter().find_map(|p| std::fs::read_to_string(p).ok()) else {
        println!("NOT CHECKED: example-config.toml is not beside the checkout");
        return;
    };
    let found = config::parse(&text).map_or_else(|p| p, |l| l.warnings);
    let errors: Vec<_> = found.iter().filter(|p| p.severity == Severity::Error).map(ToString::to_string).collect();
    assert!(errors.iter().all(|e| e.contains("this version of weir does not drive the receiver")), "{errors:#?}");
    assert!(errors.len() <= 1, "{errors:#?}");
}
