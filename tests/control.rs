//! Commands from outside: weir between a real mosquitto and a pseudo-terminal, a simulated modem beside it.

#![cfg(feature = "demo")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test may fail loudly"
)]

#[path = "peers/mod.rs"]
mod peers;
#[expect(dead_code, unused_imports, reason = "the stories of tests/agent use more of it")]
#[path = "agent/rig.rs"]
mod rig;

use std::path::Path;
use std::process::Stdio;

use serde_json::Value as Json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;
use weir::model::Timestamp;
use weir::os::pty::Pty;
use weir::sim::modbus_meter::ModbusMeters;
use weir::sim::modem::{Make, Modem};
use weir::sim::stick::plug;

use self::peers::broker::{LIMIT, Mosquitto};
use self::rig::{Agent, Home, stdout};

/// A platform: gives commands at a topic and hears the answers, whole.
struct Platform {
    port: u16,
    _child: tokio::process::Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Platform {
    async fn listen(broker: &Mosquitto) -> Self {
        let port = broker.port.to_string();
        let mut child = tokio::process::Command::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", "gw1/ATR", "-t", "marker", "-F", "%j"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto_sub is needed: run tests/run, which installs the peers");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut platform = Self { port: broker.port, _child: child, lines };
        platform.publish("marker", "here", true).await;
        assert_eq!(platform.answer().await, "here");
        platform
    }

    async fn publish(&self, topic: &str, text: &str, retain: bool) {
        let port = self.port.to_string();
        let mut command = tokio::process::Command::new("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic, "-m", text]);
        if retain {
            command.arg("-r");
        }
        assert!(command.status().await.unwrap().success());
    }

    async fn answer(&mut self) -> String {
        let line = timeout(LIMIT, self.lines.next_line()).await.expect("an answer comes").unwrap().unwrap();
        serde_json::from_str::<Json>(&line).unwrap()["payload"].as_str().unwrap().to_owned()
    }

    async fn ask(&mut self, command: &str) -> String {
        self.publish("gw1/AT", command, false).await;
        self.answer().await
    }
}

const CONTROL: &str = "[control]\nat_topics = [\"{id}/AT\", \"fleet/AT\"]\nreply_topic = \"{id}/ATR\"\n";

async fn site(more: &str) -> (Home, Mosquitto, Agent, Platform) {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let platform = Platform::listen(&broker).await;
    let url = format!("url = \"tcp://127.0.0.1:{}\"", broker.port);
    home.configure(&url, more);
    // One that the broker kept from before is of the past.
    platform.publish("fleet/AT", "AT^WEIR=RESET,AGENT", true).await;
    let agent = home.run_with("debug", &[]);
    rig::until("it listens", || !agent.said(&["the broker lets weir listen"]).is_empty()).await;
    (home, broker, agent, platform)
}

fn tunnel(device: &Path) -> String {
    format!("[[port]]\nname = \"line\"\ndevice = \"{}\"\n[[tunnel]]\nport = \"line\"\n{CONTROL}", device.display())
}

#[tokio::test]
async fn a_platform_commands_and_every_command_is_answered_and_audited() {
    let pty = Pty::open().unwrap();
    let (home, _broker, _agent, mut platform) = site(&tunnel(pty.path())).await;
    assert_eq!(platform.ask("AT").await, "AT OK");
    let version = format!("#a7 at^mtxtunnel=VERSION weir {}\nOK", env!("CARGO_PKG_VERSION"));
    assert_eq!(platform.ask("#a7 at^mtxtunnel=version").await, version);
    assert!(platform.ask("AT^MTXTUNNEL=NONSENSE").await.ends_with("AT^MTXTUNNEL=HELP lists them"));
    let answer: Json =
        serde_json::from_str(&platform.ask("{\"id\":\"x\",\"at\":\"AT^WEIR=GETPARAM,uplink.batch\"}").await).unwrap();
    assert_eq!(
        (&answer["id"], &answer["ok"], &answer["reply"]),
        (&"x".into(), &true.into(), &"uplink.batch: 500".into())
    );
    // One for another gateway is nobody's business.
    platform.publish("fleet/AT", "{\"device\":\"gw2\",\"at\":\"AT\"}", false).await;
    platform.publish("fleet/AT", "AT", false).await;
    assert_eq!(platform.answer().await, "AT OK");
    let audit = platform.ask("AT^WEIR=AUDIT,100").await;
    let audited = |what: &str| audit.lines().filter(|line| line.contains(what)).count();
    let counts = (audited("VERSION"), audited("\"outcome\":\"refused\""), audited("gw2"), audited("RESET"));
    assert_eq!(counts, (1, 1, 0, 0), "{audit}");
    let local = home.weir(&["at", "AT^WEIR=VERSION"]);
    assert!(local.status.success() && stdout(&local).contains("weir "), "{local:?}");
    assert_eq!(home.weir(&["at", "AT^WEIR=UPDATEFW,x"]).status.code(), Some(1));
}

#[tokio::test]
async fn a_port_takes_commands_between_the_tunnels_own_bytes() {
    let mut pty = Pty::open().unwrap();
    let (_home, _broker, _agent, mut platform) = site(&tunnel(pty.path())).await;
    assert_eq!(
        platform.ask("AT^MTXTUNNEL=SETBAUDRATE,0,19200").await,
        "AT^MTXTUNNEL=SETBAUDRATE,0,19200 line has 19200 baud, 8N1\nOK"
    );
    assert_eq!(pty.baud().unwrap(), 19_200);
    platform.publish("gw1/AT", "AT^MTXTUNNEL=RS232,0,<HEX>0102</HEX>OPE1<HEX>03</HEX>", false).await;
    let mut asked = Vec::new();
    let mut buffer = [0; 64];
    while asked.len() < 7 {
        let count = timeout(LIMIT, pty.receive(&mut buffer)).await.expect("the port is written to").unwrap();
        asked.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(asked, b"\x01\x02OPE1\x03");
    assert_eq!(pty.baud().unwrap(), 19_200, "at the speed that was set");
    pty.send(b"fine\x06").await.unwrap();
    assert_eq!(platform.answer().await, "AT^MTXTUNNEL=RS232,0,*** fine<HEX>06</HEX>\nOK");
    // The tunnel has its line again.
    platform.publish("gw1/rx", "through", false).await;
    let count = timeout(LIMIT, pty.receive(&mut buffer)).await.expect("the tunnel carries").unwrap();
    assert_eq!(&buffer[..count], b"through");
}

#[tokio::test]
async fn registers_are_read_and_written_beside_the_schedule() {
    let meters = ModbusMeters::new(&[7]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let meter = "[[meter]]\nname = \"m\"\nport = \"line\"\nprotocol = \"modbus-rtu\"\naddress = 7\nevery = \"1h\"\n[[meter.register]]\nname = \"v\"\nregister = \"holding:0\"\ntype = \"u16\"\n";
    let port = format!("[[port]]\nname = \"line\"\ndevice = \"{}\"\n{meter}{CONTROL}", path.display());
    let (_home, _broker, _agent, mut platform) = site(&port).await;
    let written = platform.ask("AT^MTXTUNNEL=SETMODBUS,7;3;4711").await;
    assert_eq!(written, "AT^MTXTUNNEL=SETMODBUS,7;3;4711 OK");
    assert_eq!(platform.ask("AT^MTXTUNNEL=GETMODBUS,7;3;1;3").await, "AT^MTXTUNNEL=GETMODBUS,7;3;1;3 4711\nOK");
    assert!(platform.ask("AT^MTXTUNNEL=GETMODBUS,9;3;1;3").await.contains("ERROR: slave 9 on port \"line\""));
    assert!(platform.ask("AT^WEIR=READ,m").await.contains("\"name\":\"v\""));
}

#[tokio::test]
async fn a_changed_parameter_is_on_trial_and_a_locked_gateway_changes_nothing() {
    let pty = Pty::open().unwrap();
    let (home, _broker, agent, mut platform) = site(&tunnel(pty.path())).await;
    let taken = platform.ask("AT^WEIR=SETPARAM,uplink.batch,400").await;
    assert!(taken.contains("is on trial") && taken.ends_with("\nOK"), "{taken}");
    rig::until("it is confirmed", || !agent.said(&["was confirmed"]).is_empty()).await;
    assert_eq!(
        platform.ask("AT^WEIR=GETPARAM,uplink.batch").await,
        "AT^WEIR=GETPARAM,uplink.batch uplink.batch: 400\nOK"
    );
    assert!(platform.ask("AT^WEIR=HISTORY").await.contains("topic:gw1/AT"));
    assert_eq!(platform.ask("AT^WEIR=LOCK").await, "AT^WEIR=LOCK locked\nOK");
    let refused = home.weir(&["at", "AT^WEIR=SETPARAM,uplink.batch,300"]);
    assert!(stdout(&refused).contains("the gateway is locked"), "{refused:?}");
    let refused = home.weir(&["config", "set", "uplink.batch", "300"]);
    assert!(!refused.status.success() && rig::stderr(&refused).contains("the gateway is locked"), "{refused:?}");
    assert_eq!(platform.ask("AT^WEIR=UNLOCK").await, "AT^WEIR=UNLOCK unlocked\nOK");
}

#[tokio::test]
async fn an_authorised_phone_commands_and_a_stranger_hears_nothing() {
    let modem = plug(Modem::new(Make::default())).unwrap();
    let more = format!(
        "[modem]\ndevice = \"{}\"\nmanager = \"none\"\n[control.sms]\nallow = [\"+34666123456\"]\nreply = true\nalias = [\"how are you>AT^WEIR=VERSION\"]\n",
        modem.path().display()
    );
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    home.configure(&format!("url = \"tcp://127.0.0.1:{}\"", broker.port), &more);
    let _agent = home.run_with("debug", &[]);
    let at = Timestamp::parse("2026-11-22T12:00:00Z").unwrap();
    let texts = [("+34600000000", "MTXTUNNEL AT"), ("+34666123456", "mtxtunnel AT"), ("+34666123456", "How are you")];
    for (number, text) in texts.into_iter().chain([("+34666123456", "MTXTUNNEL AT+CSQ")]) {
        let said = modem.stick().deliver(number, text, at);
        modem.say(said);
    }
    timeout(LIMIT, modem.until(|modem| modem.sent.len() >= 3)).await.expect("all three are answered");
    let mut texts: Vec<_> = modem.stick().sent.iter().map(|sent| sent.data.body.text()).collect();
    texts.sort();
    assert!(texts[0].starts_with("AT OK") && texts[1].starts_with("AT+CSQ +CSQ: "), "{texts:?}");
    assert_eq!(texts[2], format!("AT^WEIR=VERSION weir {}\nOK", env!("CARGO_PKG_VERSION")));
}
