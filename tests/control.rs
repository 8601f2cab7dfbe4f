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

#[path = "control/alerts.rs"]
mod alerts;
#[path = "control/calls.rs"]
mod calls;
#[path = "control/full_disk.rs"]
mod full_disk;
#[path = "control/hang_up.rs"]
mod hang_up;
#[path = "control/registers.rs"]
mod registers;
#[path = "control/tags.rs"]
mod tags;
#[path = "control/turns.rs"]
mod turns;

use std::path::Path;

use serde_json::Value as Json;
use tokio::time::timeout;
use weir::model::Timestamp;
use weir::os::pty::Pty;
use weir::sim::modbus_meter::ModbusMeters;
use weir::sim::modem::{Make, Modem};
use weir::sim::stick::plug;

use self::peers::broker::{LIMIT, Messages, Mosquitto, publish};
use self::peers::line::{heard, read};
use self::rig::{Agent, Home, stdout};

/// A platform: gives commands at a topic and hears the answers, whole.
struct Platform {
    port: u16,
    answers: Messages,
}

impl Platform {
    async fn listen(broker: &Mosquitto) -> Self {
        Self { port: broker.port, answers: Messages::of(broker.port, "gw1/ATR").await }
    }

    async fn publish(&self, topic: &str, text: &str, retain: bool) {
        publish(self.port, topic, text.as_bytes(), retain).await;
    }

    async fn answer(&mut self) -> String {
        self.answers.text().await
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

/// A port with a Modbus meter.
fn meter_on(device: &Path, every: &str) -> String {
    format!(
        "[[port]]\nname = \"line\"\ndevice = \"{}\"\n[[meter]]\nname = \"m\"\nport = \"line\"\nprotocol = \"modbus-rtu\"\naddress = 7\n\
         every = \"{every}\"\ntimeout = \"10s\"\nretries = 0\nregister = [{{ name = \"v\", register = \"holding:0\", type = \"u16\" }}]\n",
        device.display()
    )
}

/// The texts that a modem has sent.
fn texts(modem: &Modem) -> Vec<String> {
    modem.sent.iter().map(|sent| sent.data.body.text()).collect()
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
    assert_eq!(read(&mut pty, 7).await, b"\x01\x02OPE1\x03");
    assert_eq!(pty.baud().unwrap(), 19_200, "at the speed that was set");
    pty.send(b"fine\x06").await.unwrap();
    assert_eq!(platform.answer().await, "AT^MTXTUNNEL=RS232,0,*** fine<HEX>06</HEX>\nOK");
    // The tunnel has its line again.
    platform.publish("gw1/rx", "through", false).await;
    assert_eq!(read(&mut pty, 7).await, b"through");
}

#[tokio::test]
async fn registers_are_read_and_written_beside_the_schedule() {
    let meters = ModbusMeters::new(&[7]);
    let (path, _served) = meters.serve_rtu().unwrap();
    let (_home, _broker, _agent, mut platform) = site(&format!("{}{CONTROL}", meter_on(&path, "1h"))).await;
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
async fn a_command_that_waits_its_turn_is_refused_when_the_gateway_is_locked_meanwhile() {
    let mut pty = Pty::open().unwrap();
    let more = format!(
        "{}serial_answer = \"1m\"\n[[control.grant]]\nwho = \"topic:gw1/AT\"\nrights = [\"write\", \"configure\"]\n\
         [[control.grant]]\nwho = \"topic:fleet/AT\"\nrights = [\"observe\", \"configure\"]\nunlock = true\n",
        tunnel(pty.path())
    );
    let (_home, _broker, agent, mut platform) = site(&more).await;
    platform.publish("gw1/AT", "AT^WEIR=RS232,0,first", false).await;
    assert_eq!(heard(&mut pty, "first").await, "first");
    // It is accepted, and waits until the device has answered the one before.
    platform.publish("gw1/AT", "AT^WEIR=SETPARAM,uplink.batch,400", false).await;
    platform.publish("gw1/AT", "AT^WEIR=STATUS", false).await;
    assert!(platform.answer().await.contains("may not observe"), "judged behind the one that waits");
    platform.publish("fleet/AT", "AT^WEIR=LOCK", false).await;
    assert_eq!(platform.answer().await, "AT^WEIR=LOCK locked\nOK");
    pty.send(b"done").await.unwrap();
    assert_eq!(platform.answer().await, "AT^WEIR=RS232,0,*** done\nOK", "what was begun is done");
    assert!(platform.answer().await.contains("SETPARAM,uplink.batch,400 ERROR: the gateway is locked"));
    platform.publish("fleet/AT", "AT^WEIR=AUDIT,20", false).await;
    let audit = platform.answer().await;
    let of = |what: &str| audit.lines().find(|line| line.contains("SETPARAM") && line.contains(what)).is_some();
    assert!(of("\"refused\"") && !of("\"begun\""), "{audit}");
    assert!(agent.said(&["is on trial"]).is_empty());
}

#[tokio::test]
async fn while_a_firmware_is_on_its_way_its_senders_other_commands_are_answered() {
    let (pty, home) = (Pty::open().unwrap(), Home::new());
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut platform = Platform::listen(&broker).await;
    let grant = "[[control.grant]]\nwho = \"topic:gw1/AT\"\nrights = [\"observe\", \"configure\", \"firmware\"]\nunlock = true\n";
    let more = format!("{}{grant}[control.firmware]\nfolder = \"{}\"\n", tunnel(pty.path()), home.path("fw").display());
    home.configure(&format!("url = \"tcp://127.0.0.1:{}\"", broker.port), &more);
    std::fs::create_dir_all(home.path("helper/request")).unwrap();
    let text = std::fs::read_to_string(home.config()).unwrap();
    let helper = format!("[gateway]\nhelper = \"{}\"\n", home.path("helper").display());
    std::fs::write(home.config(), text.replace("[gateway]\n", &helper)).unwrap();
    let agent = home.run_with("debug", &[]);
    rig::until("it listens", || !agent.said(&["the broker lets weir listen"]).is_empty()).await;
    // A server that takes the call and says nothing.
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://127.0.0.1:{}/weir", server.local_addr().unwrap().port());
    let update = |id: &str| format!("#{id} AT^WEIR=UPDATEFW,{url},{}", "0".repeat(64));
    platform.publish("gw1/AT", &update("u1"), false).await;
    let (call, _) = timeout(LIMIT, server.accept()).await.expect("it is fetched").unwrap();
    assert_eq!(platform.ask("AT").await, "AT OK");
    let second = platform.ask(&update("u2")).await;
    assert!(second.starts_with("#u2 ") && second.contains("ERROR: a firmware is being fetched"), "{second}");
    // What starts weir anew would break it off.
    let changed = platform.ask("AT^WEIR=SETPARAM,uplink.batch,400").await;
    assert!(changed.contains("ERROR: a firmware is being fetched, and this would break that off"), "{changed}");
    let changed = home.weir(&["config", "set", "uplink.batch", "400"]);
    assert!(!changed.status.success() && rig::stderr(&changed).contains("a firmware is being fetched"), "{changed:?}");
    assert_eq!(platform.ask("AT^WEIR=LOCK").await, "AT^WEIR=LOCK locked\nOK");
    drop(call);
    let told = platform.answer().await;
    assert!(told.starts_with("#u1 ") && told.contains("ERROR: "), "{told}");
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
    let said = [("+34600000000", "MTXTUNNEL AT"), ("+34666123456", "mtxtunnel AT"), ("+34666123456", "How are you")];
    for (number, text) in said.into_iter().chain([("+34666123456", "MTXTUNNEL AT+CSQ")]) {
        let said = modem.stick().deliver(number, text, at);
        modem.say(said);
    }
    timeout(LIMIT, modem.until(|modem| modem.sent.len() >= 3)).await.expect("all three are answered");
    let mut texts = texts(&modem.stick());
    texts.sort();
    assert!(texts[0].starts_with("AT OK") && texts[1].starts_with("AT+CSQ +CSQ: "), "{texts:?}");
    assert_eq!(texts[2], format!("AT^WEIR=VERSION weir {}\nOK", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_phone_hears_alerts_calls_weir_up_and_speaks_to_a_port() {
    let mut pty = Pty::open().unwrap();
    let modem = plug(Modem::new(Make::default())).unwrap();
    let sms = "[control.sms]\nallow = [\"+34666123456\"]\ntunnel_prefix = \"PORT \"\nsend_ip = true\n";
    let alert = "[[control.sms.alert]]\non = \"start\"\nto = [\"+34666123456\"]\ntext = \"{id} {what} {detail}\"\n";
    let port =
        format!("[[port]]\nname = \"line\"\ndevice = \"{}\"\n[[tunnel]]\nport = \"line\"\n", pty.path().display());
    let room = format!("[modem]\ndevice = \"{}\"\nmanager = \"none\"\n", modem.path().display());
    let (_home, _broker, agent, _platform) = site(&format!("{port}{room}{CONTROL}{sms}{alert}")).await;
    timeout(LIMIT, modem.until(|modem| modem.sent.len() == 1)).await.expect("the alert is sent");
    assert_eq!(texts(&modem.stick()), ["gw1 start (first)"]);
    // A stranger's call is hung up, and nothing else; so is one without a number.
    let known = "an authorised number called";
    for (number, who) in [(Some("+34600000000"), "nobody"), (Some("666123456"), known)] {
        let said = modem.stick().ring(number);
        modem.say(said);
        agent.until_said(&[if who == known { known } else { "a call of nobody who is known" }]).await;
    }
    timeout(LIMIT, modem.until(|modem| modem.sent.len() == 2)).await.expect("the address is told");
    let told = texts(&modem.stick()).remove(1);
    assert!(told.starts_with("gw1: ") && told.contains("connected to tcp://127.0.0.1"), "{told}");
    assert_eq!(agent.said(&[known]).len(), 1);
    // Bytes for the port, and the answer; the same message from the storage once more is not obeyed twice.
    let at = weir::os::clock::now();
    let said = modem.stick().deliver("+34666123456", "port hello<HEX>0D</HEX>", at);
    modem.say(said);
    assert_eq!(read(&mut pty, 6).await, b"hello\r");
    pty.send(b"pong").await.unwrap();
    timeout(LIMIT, modem.until(|modem| modem.sent.len() == 3)).await.expect("the answer comes back");
    assert_eq!(texts(&modem.stick())[2], "pong");
    let said = modem.stick().deliver("+34666123456", "port hello<HEX>0D</HEX>", at);
    modem.say(said);
    agent.until_said(&["it is not obeyed twice"]).await;
}

#[tokio::test]
async fn what_hangs_on_a_port_commands_inside_tags_and_all_else_passes() {
    let mut pty = Pty::open().unwrap();
    let more = format!("{}line_ports = [\"line\"]\n", tunnel(pty.path()));
    let (home, broker, agent, _platform) = site(&more).await;
    let mut passed = peers::broker::Subscriber::start(broker.port, &[]).await;
    rig::until("the tunnel has the line", || !agent.said(&["the line is lent"]).is_empty()).await;
    pty.send(b"before<MTX<MTXTUNNEL>AT^WEIR=VER").await.unwrap();
    pty.send(b"SION</MTXTUNNEL>behind").await.unwrap();
    let version = format!("<MTXTUNNEL>AT^WEIR=VERSION weir {}\nOK</MTXTUNNEL>", env!("CARGO_PKG_VERSION"));
    assert_eq!(heard(&mut pty, "</MTXTUNNEL>").await, version);
    let mut data = Vec::new();
    while data.len() < "before<MTXbehind".len() {
        let heard = passed.next().await;
        if heard.topic == "gw1/tx" {
            data.extend(heard.payload.into_bytes());
        }
    }
    assert_eq!(String::from_utf8_lossy(&data), "before<MTXbehind");
    // What hangs on a port may only look, and that is in the audit.
    pty.send(b"<MTXTUNNEL>AT^WEIR=LOCK</MTXTUNNEL>").await.unwrap();
    assert!(heard(&mut pty, "</MTXTUNNEL>").await.contains("ERROR: line:line may not configure"));
    let audit = stdout(&home.weir(&["at", "AT^WEIR=AUDIT"]));
    assert!(audit.contains("\"who\":\"line:line\"") && audit.contains("refused"), "{audit}");
    let log = stdout(&home.weir(&["at", "AT^WEIR=LOG,200"]));
    assert!(log.contains("a command was given") && log.ends_with("OK\n") && !log.contains("DEBUG"), "{log}");
}

#[tokio::test]
async fn a_command_has_the_port_between_the_frames_of_a_peer_who_keeps_his_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut pty = Pty::open().unwrap();
    let at = format!("127.0.0.1:{}", peers::free_port());
    let more = format!(
        "[[port]]\nname = \"line\"\ndevice = \"{}\"\n[[tunnel]]\nport = \"line\"\nmode = \"tcp-server\"\nlisten = \"{at}\"\ntrace = true\n{CONTROL}",
        pty.path().display()
    );
    let (home, _broker, agent, mut platform) = site(&more).await;
    rig::until("the tunnel listens", || !agent.said(&["the tunnel waits for a client"]).is_empty()).await;
    let mut peer = tokio::net::TcpStream::connect(&at).await.unwrap();
    peer.write_all(b"ask1").await.unwrap();
    assert_eq!(heard(&mut pty, "ask1").await, "ask1");
    pty.send(b"answer1").await.unwrap();
    let mut answer = [0; 7];
    timeout(LIMIT, peer.read_exact(&mut answer)).await.unwrap().unwrap();
    let ports: Json = serde_json::from_str(&stdout(&home.weir(&["ports", "--json"]))).unwrap();
    let held = &ports["ports"]["line"]["held"];
    let name = peer.local_addr().unwrap().to_string();
    assert_eq!(
        (&held["for"], &held["by"], &held["until"]),
        (&"tunnel".into(), &name.as_str().into(), &Json::Null),
        "{ports}"
    );
    platform.publish("gw1/AT", "AT^WEIR=RS232,line,now", false).await;
    assert_eq!(heard(&mut pty, "now").await, "now");
    let ports: Json = serde_json::from_str(&stdout(&home.weir(&["ports", "--json"]))).unwrap();
    let held = &ports["ports"]["line"]["held"];
    assert_eq!((&held["for"], &held["by"]), (&"command".into(), &"topic:gw1/AT".into()), "{ports}");
    assert!(held["until"].is_string(), "an exclusive lease has an end: {ports}");
    // What the peer says meanwhile waits.
    peer.write_all(b"ask2").await.unwrap();
    pty.send(b"yes").await.unwrap();
    assert_eq!(platform.answer().await, "AT^WEIR=RS232,line,*** yes\nOK");
    assert_eq!(heard(&mut pty, "ask2").await, "ask2");
    drop(peer);
    rig::until("the peer has gone", || !agent.said(&["the peer is gone"]).is_empty()).await;
    let told = || serde_json::from_str::<Json>(&stdout(&home.weir(&["ports", "--json", "--sessions"]))).unwrap();
    rig::until("the end is in the audit", || told()["sessions"].as_array().unwrap().len() == 2).await;
    let ended = told()["sessions"][1].clone();
    assert_eq!((&ended["who"], &ended["to_port"], &ended["from_port"]), (&name.as_str().into(), &8.into(), &7.into()));
    assert_eq!(ended["why"], "the peer hung up");
    let recorded = || stdout(&home.weir(&["trace", "line", "--recorded"]));
    rig::until("the bytes are recorded", || recorded().contains("61 73 6b 32")).await;
    assert!(recorded().contains("recorded from 20") && recorded().contains("answer1"), "{}", recorded());
}

#[tokio::test]
async fn one_judge_stands_before_every_door_and_the_audit_tells_what_began() {
    let pty = Pty::open().unwrap();
    let home = Home::new();
    let key = home.path("ops.key");
    let made = home.weir(&["at", "--new-key", key.to_str().unwrap(), "--key", "ops"]);
    assert!(made.status.success() && stdout(&made).starts_with("ops "), "{made:?}");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).unwrap().permissions()) & 0o777, 0o600);
    assert!(!home.weir(&["at", "--new-key", key.to_str().unwrap(), "--key", "ops"]).status.success(), "never over one");
    std::fs::write(home.path("keys"), stdout(&made)).unwrap();
    let trust = format!(
        "{}[[control.grant]]\nwho = \"local:*\"\nrights = [\"observe\"]\n[[control.grant]]\nwho = \"topic:gw1/AT\"\nrights = [\"observe\"]\n\
         [[control.grant]]\nwho = \"key:ops\"\nrights = [\"observe\", \"read\", \"write\", \"configure\"]\nunlock = true\n\
         [control.signatures]\nkeys_file = \"{}\"\n",
        tunnel(pty.path()),
        home.path("keys").display()
    );
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut platform = Platform::listen(&broker).await;
    home.configure(&format!("url = \"tcp://127.0.0.1:{}\"", broker.port), &trust);
    let agent = home.run_with("debug", &[]);
    rig::until("it listens", || !agent.said(&["the broker lets weir listen"]).is_empty()).await;
    // Neither a text nor any other order of this machine may do more than its row says.
    for (order, may_not) in [
        (&["at", "AT^WEIR=LOCK"][..], "may not configure"),
        (&["config", "set", "uplink.batch", "400"], "may not configure"),
        (&["modem", "at", "AT+CFUN=0"], "no modem"),
        (&["trace", "line", "--seconds", "1"], "may not read"),
    ] {
        let refused = home.weir(order);
        let said = stdout(&refused) + &rig::stderr(&refused);
        assert!(!refused.status.success() && said.contains(may_not), "{order:?}: {said}");
    }
    // Signed, the same is done; a replay of it is not, and weir was started long enough ago only after half a minute.
    let challenge = platform.ask("AT^WEIR=CHALLENGE").await;
    let nonce = challenge.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
    let sign = ["at", "AT^WEIR=LOCK", "--sign", key.to_str().unwrap(), "--nonce", &nonce, "--id", "l1", "--print"];
    let signed = stdout(&home.weir(&sign));
    let answer: Json = serde_json::from_str(&platform.ask(signed.trim()).await).unwrap();
    assert_eq!(
        (&answer["id"], &answer["ok"], &answer["reply"]),
        (&"l1".into(), &true.into(), &"locked".into()),
        "{answer}"
    );
    let again: Json = serde_json::from_str(&platform.ask(signed.trim()).await).unwrap();
    assert_eq!(again["ok"], false, "{again}");
    let audit = stdout(&home.weir(&["at", "AT^WEIR=AUDIT,100"]));
    let of = |outcome: &str, what: &str| {
        audit.lines().filter(|l| l.contains(what) && l.contains(&format!("\"outcome\":\"{outcome}\""))).count()
    };
    assert_eq!((of("begun", "LOCK"), of("done", "LOCK")), (1, 1), "{audit}");
    assert_eq!((of("refused", "config set uplink.batch"), of("refused", "trace line")), (1, 1), "{audit}");
    assert!(audit.contains("\"key\":\"ops\"") && audit.contains("\"who\":\"local:"), "{audit}");
}

#[tokio::test]
async fn a_certificate_by_command_is_on_trial_and_a_wrong_one_goes_back() {
    use weir::sim::authority::Authority;
    let (pty, home) = (Pty::open().unwrap(), Home::new());
    let directory = home.directory.path();
    let authority = Authority::new("test CA").unwrap();
    std::fs::write(home.path("ca.pem"), authority.pem()).unwrap();
    let (certificate, key) = authority.issue(&["127.0.0.1"], None).unwrap().write(directory, "server").unwrap();
    let tls = format!("certfile {}\nkeyfile {}\nallow_anonymous true", certificate.display(), key.display());
    let broker = Mosquitto::start(directory, &tls).await;
    let url = format!("url = \"ssl://127.0.0.1:{}\"\nca_file = \"{}\"", broker.port, home.path("ca.pem").display());
    home.configure(&url, &format!("{}confirm = \"30s\"\n", tunnel(pty.path())));
    let agent = home.run_with("debug", &[]);
    rig::until("it is connected", || !agent.said(&["connected to the broker"]).is_empty()).await;
    let give = |which: &str, pem: &str| {
        let told = home.weir(&["at", &format!("AT^WEIR=CERT,{which},{}", pem.replace('\n', "\\n"))]);
        assert!(!stdout(&told).contains("BEGIN"), "{told:?}");
        stdout(&told)
    };
    let history = || stdout(&home.weir(&["config", "history", "--json"]));
    let outcome = |number: usize| {
        let told: Json = serde_json::from_str(&history()).unwrap_or_default();
        told[number - 1]["outcome"].as_str().unwrap_or_default().to_owned()
    };
    let ca_file = || stdout(&home.weir(&["config", "get", "broker[1].ca_file"]));
    assert!(give("CA", &authority.pem()).contains("configuration 2 is on trial"));
    rig::until("the broker was reached with it", || outcome(2) == "confirmed").await;
    assert!(ca_file().contains("/store/tls/ca-1.pem"), "{}", ca_file());
    // An authority that never signed the broker's certificate costs half a minute, not a drive.
    rig::until("it is connected again", || agent.said(&["connected to the broker"]).len() >= 2).await;
    assert!(give("CA", &Authority::new("another CA").unwrap().pem()).contains("configuration 3 is on trial"));
    rig::until("it has gone back", || outcome(3) == "went-back").await;
    assert!(ca_file().contains("/store/tls/ca-1.pem"), "{}", ca_file());
    rig::until("it is connected as before", || agent.said(&["connected to the broker"]).len() >= 3).await;
    // A key alone waits for its certificate, and leaves no trace in the answers, the audit and the log.
    let (_, own) = authority.issue(&["gw1"], None).unwrap().write(directory, "own").unwrap();
    let own = std::fs::read_to_string(own).unwrap();
    assert!(give("KEY", &own).contains("kept aside"));
    assert!(
        give("KEY", "-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n")
            .contains("ERROR: the private key")
    );
    let secret = own.lines().nth(1).unwrap().to_owned();
    let audit = stdout(&home.weir(&["at", "AT^WEIR=AUDIT,100"])) + &stdout(&home.weir(&["at", "AT^WEIR=LOG,500"]));
    assert!(audit.contains("CERT,KEY,***") && !audit.contains(&secret), "{audit}");
    assert!(agent.said(&[&secret]).is_empty());
}
