//! A config.txt of the vendor's modems, from outside: the scenario as it was published, run, imported and changed.

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

#[path = "mtx/alone.rs"]
mod alone;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Output;

use serde_json::Value as Json;
use tokio::time::timeout;
use weir::config::{self, mtx};
use weir::os::pty::Pty;
use weir::sim::modbus_meter::ModbusMeters;

use self::peers::broker::{Heard, LIMIT, Mosquitto, Relay, Subscriber, publish};
use self::peers::line::read;
use self::peers::site::Site;
use self::rig::{Agent, Home, stderr, stdout, weir};

/// As it stands in the issue and on the vendor's page, misprint included.
const SCENARIO: &str = include_str!("fixtures/mtx/scenario.txt");
const IMEI: &str = "356938035643809";

/// Puts a config.txt where the rig expects the configuration (its name tells nothing), and the site.toml beside it.
fn install(home: &Home, config: &str, site: &str) {
    fs::write(home.config(), config).unwrap();
    let store = format!("[store]\npath = \"{}\"\n", home.path("store").display());
    fs::write(home.path("site.toml"), format!("{site}{store}")).unwrap();
}

/// The pseudo-terminal as the first port of the board.
fn on_port(pty: &Pty) -> String {
    format!(
        "[gateway]\nimei = \"{IMEI}\"\n[uplink]\nbackoff = {{ first = \"100ms\", max = \"500ms\", jitter = \"50ms\" }}\n\
         [[port]]\nname = \"rs485-1\"\ndevice = \"{}\"\n",
        pty.path().display()
    )
}

/// What the agent tells systemd.
struct Notices(UnixDatagram);

impl Notices {
    fn new(home: &Home) -> Self {
        let socket = UnixDatagram::bind(home.path("notify")).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self(socket)
    }

    async fn until_ready(self) {
        let ready = move || {
            let mut buffer = [0; 4096];
            loop {
                let count = self.0.recv(&mut buffer).expect("the agent gets ready");
                if String::from_utf8_lossy(&buffer[..count]).lines().any(|line| line == "READY=1") {
                    return;
                }
            }
        };
        tokio::task::spawn_blocking(ready).await.unwrap();
    }
}

fn import(home: &Home, arguments: &[&str]) -> Output {
    weir().arg("import-mtx").arg(home.config()).args(arguments).output().unwrap()
}

#[tokio::test]
async fn the_published_scenario_runs_byte_for_byte() {
    let (home, pty) = (Home::new(), Pty::open().unwrap());
    install(&home, SCENARIO, &on_port(&pty));
    assert_eq!(fs::read(home.config()).unwrap(), SCENARIO.as_bytes());
    let check = home.weir(&["check"]);
    assert!(check.status.success(), "{}", stderr(&check));
    assert!(
        stderr(&check).contains(":32:1: warning: there are two MQTT_commrxtopic (lines 31 and 32)"),
        "{}",
        stderr(&check)
    );
    assert!(stdout(&check).contains("to ssl://test.mosquitto.org:8883"), "{}", stdout(&check));
    let notices = Notices::new(&home);
    let mut agent = home.run_with("info", &[("NOTIFY_SOCKET", home.path("notify").to_str().unwrap())]);
    notices.until_ready().await;
    assert!(agent.is_running());
    agent.stop().await;
    assert!(!agent.log().join("\n").contains("MOVISTAR"));
}

/// A broker with TLS for weir, and a plain door for who looks on.
async fn broker(home: &Home, certificates: &Site) -> (Mosquitto, u16) {
    let plain = peers::free_port();
    let extra = format!("{}listener {plain} 127.0.0.1\n", certificates.server(&["127.0.0.1"], None));
    let broker = Mosquitto::start(home.directory.path(), &extra).await;
    // It waits for the first door only.
    let open = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", plain)).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, open).await.expect("the plain door opens");
    (broker, plain)
}

struct Stage {
    home: Home,
    _broker: Mosquitto,
    plain: u16,
    subscriber: Subscriber,
    pty: Pty,
    agent: Agent,
}

/// The scenario with nothing changed but its server; its CA is in site.toml.
async fn stage() -> Stage {
    let (home, pty, certificates) = (Home::new(), Pty::open().unwrap(), Site::new());
    let (broker, plain) = broker(&home, &certificates).await;
    let subscriber = Subscriber::start(plain, &["-q", "1"]).await;
    fs::copy(certificates.path("ca.pem"), home.path("ca.pem")).unwrap();
    let here = format!("ssl://127.0.0.1:{}", broker.port);
    let site = format!("{}[broker]\nca_file = \"{}\"\n", on_port(&pty), home.path("ca.pem").display());
    install(&home, &SCENARIO.replace("ssl://test.mosquitto.org:8883", &here), &site);
    let agent = home.run_with("debug", &[]);
    agent.until_said(&["the broker lets weir listen"]).await;
    Stage { home, _broker: broker, plain, subscriber, pty, agent }
}

#[tokio::test]
async fn over_tls_the_scenario_carries_bytes_commands_and_its_status() {
    let mut stage = stage().await;
    let status = stage.subscriber.next_of(&format!("{IMEI}/dns")).await;
    assert!(!status.payload.is_empty());
    publish(stage.plain, "rxmaster", b"/?12345678!", false).await;
    assert_eq!(read(&mut stage.pty, 11).await, b"/?12345678!");
    stage.pty.send(b"/ISk5ME162-0033").await.unwrap();
    assert_eq!(stage.subscriber.next_of("txmaster").await.payload, "/ISk5ME162-0033");
    publish(stage.plain, &format!("{IMEI}/AT"), b"AT^MTXTUNNEL=VERSION", false).await;
    let answer = stage.subscriber.next_of(&format!("{IMEI}/ATR")).await;
    assert_eq!(answer.payload, format!("AT^MTXTUNNEL=VERSION weir {}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn parameters_have_the_vendors_names_and_changes_are_on_trial_also_after_the_file_was_edited() {
    let mut stage = stage().await;
    let commands = format!("{IMEI}/AT");
    let answers = format!("{IMEI}/ATR");
    let local = |command: &str| stdout(&stage.home.weir(&["at", command]));
    assert!(local("AT^MTXTUNNEL=GETPARAM,MQTT_keepalive").contains("MQTT_keepalive: 300"));
    let refused = local("AT^MTXTUNNEL=GETPARAM,GPRS_apn");
    assert!(refused.contains("ERROR: GPRS_apn does nothing on weir: the cellular connection"), "{refused}");
    assert!(local("AT^MTXTUNNEL=SETPARAM,MQTT_will,x").contains("ERROR: MQTT_will is no parameter that weir knows"));
    publish(stage.plain, &commands, b"AT^MTXTUNNEL=SETPARAM,MTX_msToSend,200", false).await;
    let taken = stage.subscriber.next_of(&answers).await.payload;
    assert!(taken.contains("configuration 2 is on trial"), "{taken}");
    stage.agent.until_said(&["was confirmed", "number=2"]).await;
    let both = "AT^MTXTUNNEL=SETPARAMS,{\"COMM_parity\":\"even\",\"COMM_bitsperchar\":\"7\"}";
    publish(stage.plain, &commands, both.as_bytes(), false).await;
    let taken = stage.subscriber.next_of(&answers).await.payload;
    assert!(taken.contains("COMM_parity"), "{taken}");
    stage.agent.until_said(&["was confirmed", "number=3"]).await;
    let local = |command: &str| stdout(&stage.home.weir(&["at", command]));
    let values = local("AT^MTXTUNNEL=GETPARAM,MTX_msToSend,COMM_parity,COMM_bitsperchar,COMM_stopbits");
    for value in ["MTX_msToSend: 200", "COMM_parity: even", "COMM_bitsperchar: 7", "COMM_stopbits: 1"] {
        assert!(values.contains(value), "{values}");
    }
    let shown = stdout(&stage.home.weir(&["config", "get", "tunnel[rs485-1].gather"]));
    assert_eq!(shown.trim(), "200ms");
    // Who edits config.txt proposes it, as with a weir.toml.
    let edited = fs::read_to_string(stage.home.config()).unwrap().replace("MTX_msToSend: 100", "MTX_msToSend: 150");
    fs::write(stage.home.config(), edited).unwrap();
    stage.agent.signal("HUP");
    stage.agent.until_said(&["was confirmed", "number=4"]).await;
    assert!(stdout(&stage.home.weir(&["at", "AT^MTXTUNNEL=GETPARAM,MTX_msToSend"])).contains("MTX_msToSend: 150"));
}

#[tokio::test]
async fn modbus_and_logger_groups_become_a_meter_whose_readings_wait_for_the_broker() {
    let (home, pty) = (Home::new(), Pty::open().unwrap());
    let meters = ModbusMeters::new(&[7]);
    let (line, _served) = meters.serve_rtu().unwrap();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let relay = Relay::start(broker.port, false).await;
    let config = format!(
        "MQTT_server: tcp://127.0.0.1:{}\nMTX_mode: none\nMTX_portAux: modbusmaster\nMODBUS_address: 7\nMODBUS_start: 3\n\
         MODBUS_numWords: 2\nMODBUS_period: 1\nMODBUS_readCommand: 3\nMODBUS_custom: VOLT\nLOGGER_enabled: on\n\
         LOGGER_numRegistersFlash: 1500\n",
        relay.port
    );
    let second = format!("[[port]]\nname = \"rs485-2\"\ndevice = \"{}\"\n", line.display());
    install(&home, &config, &format!("{}{second}", on_port(&pty)));
    let agent = home.run_with("debug", &[]);
    // Readings are kept while there is no broker.
    let kept = || agent.said(&["durable through="]).iter().any(|line| rig::number(line, "through=") >= 2);
    rig::until("readings wait", kept).await;
    relay.set_open(true);
    let heard = subscriber.until_frames(2).await;
    let numbers: Vec<_> = heard.iter().flat_map(Heard::sequences).collect();
    assert!(numbers.contains(&1) && numbers.contains(&2), "{numbers:?}");
    let readings = heard.iter().map(|heard| heard.payload.as_str()).collect::<String>();
    assert!(readings.contains("VOLT-3") && readings.contains("VOLT-4"), "{readings}");
}

#[test]
fn an_import_tells_of_every_line_and_writes_a_file_that_check_accepts() {
    let home = Home::new();
    let config = SCENARIO.replace("ssl://test.mosquitto.org:8883", "ssl://127.0.0.1:8883");
    let config = format!("{config}MQTT_login: user\nMQTT_password: s3cret\nFOO_bar: 1\n");
    install(&home, &config, "[modem]\ndevice = \"/dev/ttyUSB2\"\n");
    let out = home.path("new/weir.toml");
    fs::create_dir(home.path("new")).unwrap();
    let output = import(&home, &["--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let table = stdout(&output);
    for part in [
        "FOO_bar",
        "unknown",
        "tunnel[rs485-1].tx_topic = \"txmaster\"",
        "nmcli connection add type gsm",
        ":32: warning: there are two",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert!(table.lines().filter(|line| line.contains(" *** ")).count() >= 4, "{table}");
    for file in ["new/mtx-pin", "new/mqtt-password"] {
        assert_eq!(fs::metadata(home.path(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
    assert_eq!(fs::read_to_string(home.path("new/mqtt-password")).unwrap(), "s3cret\n");
    let written = fs::read_to_string(&out).unwrap();
    for secret in ["s3cret", "MOVISTAR", "\"0000\""] {
        assert!(!table.contains(secret) && !written.contains(secret), "{table}{written}");
    }
    let check = weir().arg("check").arg(&out).output().unwrap();
    assert!(check.status.success(), "{}", stderr(&check));
    let again = import(&home, &["--out", out.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("exists already; nothing was written"), "{}", stderr(&again));
    assert!(import(&home, &["--out", out.to_str().unwrap(), "--force"]).status.success());
    let told: Json = serde_json::from_slice(&import(&home, &["--json"]).stdout).unwrap();
    let of = |name: &str| told["parameters"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap().clone();
    assert_eq!((&of("MTX_PIN")["value"], &of("MTX_PIN")["fate"]), (&"***".into(), &"mapped".into()));
    assert_eq!((&of("FOO_bar")["line"], &of("FOO_bar")["fate"]), (&40.into(), &"unknown".into()));
}

#[tokio::test]
async fn a_sealed_config_txt_still_holds_its_secrets() {
    let home = Home::new();
    let hashed = home.path("users");
    fs::write(&hashed, "").unwrap();
    fs::set_permissions(&hashed, fs::Permissions::from_mode(0o600)).unwrap();
    let made =
        std::process::Command::new("mosquitto_passwd").arg("-b").arg(&hashed).args(["meters", "s3cret"]).status();
    assert!(made.unwrap().success(), "mosquitto_passwd comes with mosquitto");
    let rules = format!("allow_anonymous false\npassword_file {}", hashed.display());
    let broker = Mosquitto::start(home.directory.path(), &rules).await;
    let config = format!("MQTT_server: tcp://127.0.0.1:{}\nMQTT_login: meters\nMQTT_password: s3cret\n", broker.port);
    install(&home, &config, "");
    let mut agent = home.run_with("debug", &[]);
    agent.until_said(&["connected to the broker"]).await;
    agent.stop().await;
    let sealed = home.weir(&["config", "seal"]);
    assert!(sealed.status.success() && !home.config().exists(), "{sealed:?}");
    let mut agent = home.run_with("debug", &[]);
    agent.until_said(&["connected to the broker"]).await;
    agent.stop().await;
}

#[test]
fn a_file_without_a_broker_is_refused_with_one_sentence() {
    let home = Home::new();
    install(&home, "MTX_mode: server\nLOGGER_server: www.example.com\n", "");
    for output in [import(&home, &[]), home.weir(&["check"]), home.weir(&["run"])] {
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        let words = stderr(&output);
        assert!(
            words.contains("names no broker that weir can use") && words.contains("MQTT_server: ssl://host:8883"),
            "{words}"
        );
        assert_eq!(words.lines().count(), 1, "{words}");
    }
    fs::write(home.path("site.toml"), "[broker]\nurl =\n").unwrap();
    let output = home.weir(&["check"]);
    assert!(stderr(&output).contains("site.toml:2:") && output.status.code() == Some(78), "{}", stderr(&output));
}

#[test]
fn the_page_shows_every_row_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/mtx.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, behind) = mtx::without_rows(&page).expect("the marks stand in docs/mtx.md");
    let made = format!("{before}{}{behind}", mtx::rows_of_the_page());
    if std::env::var_os("WEIR_BLESS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    assert!(
        page == made || std::env::var_os("WEIR_BLESS").is_some(),
        "docs/mtx.md is stale; run: WEIR_BLESS=1 cargo test --test mtx"
    );
}

#[test]
fn a_config_txt_is_known_by_what_stands_in_it() {
    let home = Home::new();
    fs::write(home.config(), "version = 1\n[broker]\nurl = \"ssl://h:8883\"\n").unwrap();
    assert!(config::source(&home.config()).unwrap().translation.is_none());
    fs::write(home.config(), "\u{feff}COMM_baudrate: 9600\r\nMQTT_server: ssl://h:8883\r\n").unwrap();
    assert!(config::source(&home.config()).unwrap().translation.is_some());
}
