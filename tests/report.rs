//! `weir report` from outside: a sheet that passes, one whose every fault is named, and what the
//! broker saw of it.

#![cfg(feature = "demo")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly"
)]

mod peers;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use peers::broker::Mosquitto;
use peers::site::{Site, passwords};
use serde_json::Value;
use weir::sim::dlms_meter::{Content, DlmsMeter, Options};
use weir::sim::modbus_meter::{Fault, ModbusMeters};

async fn report(config: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(["report", "--config", config.to_str().unwrap()]).args(arguments);
    peers::run(&mut command).await
}

/// A gateway with two meters on `device`, a broker with TLS and passwords.
fn configure(site: &Site, port: u16, device: &str, password: &str) -> std::path::PathBuf {
    let path = site.path("weir.toml");
    let text = format!(
        "[gateway]\nid = \"GW7\"\n[broker]\n{}username = \"meters\"\npassword_file = \"{}\"\n\
         [uplink]\nwill_topic = \"will\"\nstatus_topic = \"status\"\n[store]\npath = \"{}\"\n\
         [[port]]\nname = \"line\"\ndevice = \"{device}\"\n\
         [[meter]]\nname = \"one\"\nport = \"line\"\nprotocol = \"modbus-rtu\"\naddress = 1\ntimeout = \"3s\"\n\
         register = [{{ name = \"a\", register = \"holding:1\" }}]\n\
         [[meter]]\nname = \"two\"\nport = \"line\"\nprotocol = \"modbus-rtu\"\naddress = 2\ntimeout = \"3s\"\n\
         register = [{{ name = \"b\", register = \"holding:2\" }}]\n",
        site.broker_settings(port),
        site.path(password).display(),
        site.path("store").display(),
    );
    fs::write(&path, text).unwrap();
    path
}

fn check<'a>(sheet: &'a Value, subject: &str) -> &'a Value {
    let checks = sheet["checks"].as_array().unwrap();
    checks.iter().find(|c| c["subject"].as_str().unwrap().starts_with(subject)).unwrap_or_else(|| panic!("{sheet:#}"))
}

#[tokio::test]
async fn a_sheet_tells_every_value_and_every_fault_with_what_to_do() {
    let site = Site::new();
    let extra = format!(
        "{}{}",
        site.server(&["127.0.0.1"], None).replace("allow_anonymous true\n", ""),
        passwords(site.directory.path())
    );
    let broker = Mosquitto::start(site.directory.path(), &extra).await;
    let meters = ModbusMeters::new(&[1, 2]);
    let (device, _served) = meters.serve_rtu().unwrap();
    let config = configure(&site, broker.port, device.to_str().unwrap(), "right");

    let output = report(&config, &["--json", "--rounds", "2"]).await;
    let sheet: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(sheet["report"]["gateway"], "GW7");
    let one = check(&sheet, "meter one");
    assert_eq!((one["verdict"].as_str(), one["detail"]["answered"].as_u64()), (Some("PASS"), Some(2)), "{one:#}");
    assert_eq!(
        (one["values"][0]["value"].as_str(), one["values"][0]["quality"].as_str()),
        (Some("1001"), Some("good"))
    );
    assert_eq!(check(&sheet, "meter two")["values"][0]["value"], "2002");
    assert_eq!(check(&sheet, "port line")["verdict"], "PASS");
    let link = check(&sheet, "broker");
    assert!(link["verdict"] == "PASS" && link["told"].as_str().unwrap().contains("TLS"), "{link:#}");
    // The clock of the machine that tests may be confirmed by nobody; all else is well.
    let failed = u64::from(check(&sheet, "clock")["verdict"] == "FAIL");
    assert_eq!(sheet["failed"].as_u64(), Some(failed), "{sheet:#}");
    assert_eq!(output.status.success(), failed == 0);
    // The broker writes that down a moment after the command has ended.
    let mut log = String::new();
    for _ in 0..6000 {
        log = fs::read_to_string(site.path("mosquitto.log")).unwrap();
        if log.contains("Received DISCONNECT") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(log.contains("as GW7 ") && log.contains("Received DISCONNECT from GW7"), "{log}");
    assert!(!log.contains("Received PUBLISH") && !log.contains("Will message specified"), "{log}");

    meters.set_fault(1, Some(Fault::Flip));
    meters.set_fault(2, Some(Fault::Silent));
    let config = configure(&site, broker.port, device.to_str().unwrap(), "wrong");
    let file = site.path("report.txt");
    let output = report(&config, &["--rounds", "2", "--output", file.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(1));
    let text = fs::read_to_string(&file).unwrap();
    for words in ["FAIL  meter one", "answers are damaged", "FAIL  meter two", "weir scan line", "Accepted by"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    assert!(text.contains("FAIL  broker ssl://") && text.contains("password_file"), "{text}");
    assert!(!text.contains("right\n"), "no secret in it");
    assert!(String::from_utf8_lossy(&output.stderr).contains("written to"));
}

#[tokio::test]
async fn a_port_that_is_not_there_fails_its_meters_too() {
    let site = Site::new();
    fs::write(site.path("right"), "right\n").unwrap();
    let config = configure(&site, peers::free_port(), "/dev/nowhere", "right");
    let output = report(&config, &["--rounds", "1"]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("FAIL  port line: cannot open /dev/nowhere"), "{text}");
    assert!(text.contains("FAIL  meter one: not read: port line can't be opened"), "{text}");
    assert!(text.contains("PASS  store") && text.contains("FAIL  broker"), "{text}");
}

#[tokio::test]
async fn a_meter_behind_mode_e_is_read_and_says_who_it_is() {
    let site = Site::new();
    fs::write(site.path("right"), "right\n").unwrap();
    let content = Content { name: "WEI0000000000001".to_owned(), rows: 10, channels: 3, ..Content::default() };
    let options = Options { mode_e: Some(9600), devices: vec![(1, 0, content)], ..Options::default() };
    let meter = DlmsMeter::open(options).unwrap();
    let device = meter.path();
    tokio::spawn(meter.run());
    let config = configure(&site, peers::free_port(), device.to_str().unwrap(), "right");
    let text = fs::read_to_string(&config).unwrap();
    let (head, _) = text.split_once("[[meter]]").unwrap();
    let own = "[[meter]]\nname = \"incomer\"\nport = \"line\"\nprotocol = \"dlms\"\n\
               values = [\"1-0:1.8.0*255\"]\ndlms = { link = \"hdlc-mode-e\" }\n";
    fs::write(&config, format!("{head}{own}")).unwrap();
    let output = report(&config, &["--json", "--rounds", "1"]).await;
    let sheet: Value = serde_json::from_slice(&output.stdout).unwrap();
    let incomer = check(&sheet, "meter incomer");
    assert_eq!(incomer["verdict"], "PASS", "{incomer:#}");
    assert_eq!((&incomer["detail"]["maker"], &incomer["detail"]["model"]), (&"WEI".into(), &"0000000000001".into()));
    assert!(incomer["told"].as_str().unwrap().starts_with("WEI 0000000000001"), "{incomer:#}");
}
