//! Watchdogs from outside: weir with a broker that falls silent, hosts that answer or not, and the real helper, whose
//! systemctl only notes what it is asked.

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

#[expect(dead_code, reason = "tests/helper.rs uses more of it")]
#[path = "helper/bench.rs"]
mod bench;
#[path = "peers/mod.rs"]
mod peers;
#[expect(dead_code, unused_imports, reason = "the stories of tests/agent use more of it")]
#[path = "agent/rig.rs"]
mod rig;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use weir::sim::authority::Authority;

use self::bench::Bench;
use self::peers::broker::Mosquitto;
use self::peers::{Peer, free_port};
use self::rig::{Home, stdout};

/// What weir-request.path does: starts the helper when there is a request.
struct PathUnit {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PathUnit {
    fn start(bench: Arc<Bench>) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let until = ended.clone();
        let thread = std::thread::spawn(move || {
            let requests = bench.path("run/request");
            while !until.load(Ordering::SeqCst) {
                let words = ["reboot", "network-restart", "update", "update-confirm"];
                if words.iter().any(|word| requests.join(word).exists()) {
                    bench.judge();
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { ended, thread: Some(thread) }
    }
}

impl Drop for PathUnit {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn helper() -> (Arc<Bench>, PathUnit) {
    let bench = Arc::new(Bench::new());
    let unit = PathUnit::start(bench.clone());
    (bench, unit)
}

/// A home whose gateway asks this bench's helper; `more` follows `[store]`.
async fn home(helper: &Path, more: &str) -> (Home, Mosquitto) {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let url = format!("url = \"tcp://127.0.0.1:{}\"\nkeep_alive = \"5s\"", broker.port);
    home.configure(&url, more);
    let text = fs::read_to_string(home.config()).unwrap();
    let told = format!("[gateway]\nhelper = \"{}\"\n", helper.join("run").display());
    fs::write(home.config(), text.replace("[gateway]\n", &told)).unwrap();
    (home, broker)
}

fn uptime() -> f64 {
    fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap()
}

fn watchdog(hosts: &str, ladder: &str) -> String {
    format!(
        "[watchdog]\nladder = {ladder}\npause = \"1s\"\n[watchdog.ping]\nafter = \"1s\"\nevery = \"1s\"\nfailures = 2\nhosts = [{hosts}]\n"
    )
}

#[tokio::test]
async fn a_broker_that_falls_silent_and_hosts_that_do_not_answer_climb_the_ladder() {
    let (bench, _unit) = helper();
    let hosts = format!("\"127.0.0.1:{}\", \"127.0.0.2:{}\"", free_port(), free_port());
    let ladder = "[\"modem-register\", \"network-restart\", \"agent-restart\"]";
    let (_home, broker) = home(bench.home.path(), &watchdog(&hosts, ladder)).await;
    let agent = _home.run("debug");
    agent.until_said(&["connected to the broker"]).await;
    broker.signal("STOP");
    agent.until_said(&["no broker is reached, and no host answers"]).await;
    agent.until_said(&["leaves out a step", "modem-register", "no modem"]).await;
    agent.until_said(&["the helper did what was asked", "network-restart"]).await;
    assert!(bench.asked().contains(&"restart NetworkManager.service".to_owned()));
    agent.until_said(&["tries a step", "agent-restart"]).await;
    agent.until_said(&["why weir started", "reason=\"watchdog\""]).await;
    broker.signal("CONT");
    agent.until_said(&["the watchdog's ladder has ended"]).await;
}

/// What the log tells of the ladder, in its order.
fn ladder(agent: &rig::Agent) -> Vec<&'static str> {
    let words = [
        ("the watchdog's ladder begins", "begins"),
        ("the watchdog tries a step step=\"network-restart\"", "network"),
        ("the watchdog tries a step step=\"agent-restart\"", "agent"),
        ("the gateway is rebooted", "reboot"),
        ("the watchdog's ladder has ended", "ends"),
    ];
    let log = agent.log();
    log.iter().filter_map(|line| words.iter().find(|(told, _)| line.contains(told)).map(|(_, word)| *word)).collect()
}

#[tokio::test]
async fn the_ladder_goes_step_by_step_ends_with_the_broker_and_has_one_reboot_in_its_limit_over_restarts() {
    if uptime() < 600.0 {
        peers::not_checked(
            "the rounds of the ladder: this machine runs for less than 10 minutes, in which nothing is rebooted",
        );
        return;
    }
    let (bench, _unit) = helper();
    let steps = "[\"network-restart\", \"agent-restart\", \"reboot\"]\nreboots = 1";
    let (home, broker) = home(bench.home.path(), &watchdog(&format!("\"127.0.0.1:{}\"", free_port()), steps)).await;
    let mut agent = home.run("debug");
    agent.until_said(&["connected to the broker"]).await;
    broker.signal("STOP");
    rig::until("a reboot", || ladder(&agent).contains(&"reboot")).await;
    // Two failures in a row, both times.
    assert_eq!(ladder(&agent), ["begins", "network", "agent", "begins", "reboot"]);
    rig::until("the helper reboots", || bench.asked().contains(&"reboot".to_owned())).await;
    broker.signal("CONT");
    rig::until("the end", || ladder(&agent).last() == Some(&"ends")).await;
    broker.signal("STOP");
    rig::until("the second round", || ladder(&agent).len() == 10).await;
    assert_eq!(ladder(&agent)[5..], ["ends", "begins", "network", "agent", "begins"]);
    // The limit holds, also in another process.
    let tests = |agent: &rig::Agent| agent.said(&["the way to the world was tested"]).len();
    let before = tests(&agent);
    rig::until("tests", || tests(&agent) >= before + 3).await;
    agent.kill().await;
    let agent = home.run("debug");
    rig::until("tests", || tests(&agent) >= 3).await;
    assert_eq!(ladder(&agent), ["begins"]);
    assert!(!bench.asked().contains(&"reboot".to_owned()));
    broker.signal("CONT");
    rig::until("the end", || ladder(&agent).last() == Some(&"ends")).await;
}

#[tokio::test]
async fn a_host_that_answers_keeps_the_gateway_as_it_is() {
    let (bench, _unit) = helper();
    let listener = tokio::net::TcpListener::bind("127.0.0.3:0").await.unwrap();
    let hosts = format!("\"127.0.0.1:{}\", \"{}\"", free_port(), listener.local_addr().unwrap());
    let (home, broker) = home(bench.home.path(), &watchdog(&hosts, "[\"network-restart\"]")).await;
    let agent = home.run("debug");
    agent.until_said(&["connected to the broker"]).await;
    broker.signal("STOP");
    rig::until("several tests", || agent.said(&["the way to the world was tested", "failures=0"]).len() >= 4).await;
    assert!(agent.said(&["tries a step"]).is_empty());
    broker.signal("CONT");
}

#[tokio::test]
async fn a_reboot_by_command_is_asked_of_the_helper_and_refused_where_there_is_none() {
    let (bench, unit) = helper();
    let (home, _broker) = home(bench.home.path(), "").await;
    let mut agent = home.run("info");
    agent.until_said(&["ready"]).await;
    let mut reason = "stop";
    let told = stdout(&home.weir(&["at", "AT^WEIR=RESET"]));
    if told.contains("runs for less than 10 minutes") {
        assert!(uptime() < 700.0, "{told}");
    } else {
        assert_eq!(told, "AT^WEIR=RESET the gateway starts anew\nOK\n");
        agent.until_said(&["the gateway is rebooted", "by command of local:"]).await;
        rig::until("the helper reboots", || bench.asked() == ["reboot"]).await;
        reason = "command";
    }
    drop(unit);
    fs::remove_dir_all(bench.path("run/request")).unwrap();
    let told = stdout(&home.weir(&["at", "AT^WEIR=RESET,GATEWAY"]));
    assert!(told.contains("ERROR: this gateway has no helper"), "{told}");
    let told = stdout(&home.weir(&["at", "AT^WEIR=RESET,MODEM"]));
    assert!(told.contains("ERROR: this gateway has no modem; set [modem]"), "{told}");
    agent.stop().await;
    // What the next start tells.
    let run = fs::read_to_string(home.directory.path().join("store/sessions/run")).unwrap();
    assert!(run.ends_with(&format!("\"ended\":\"{reason}\"}}")), "{run}");
}

#[tokio::test]
async fn the_switches_are_changes_of_the_configuration_on_trial() {
    let (bench, _unit) = helper();
    let (home, _broker) = home(bench.home.path(), "").await;
    let agent = home.run("info");
    agent.until_said(&["ready"]).await;
    for (round, (command, key, value)) in (1..).zip([
        ("AUTORESET,04:15", "watchdog.daily_reset", "04:15"),
        ("WATCHDOG,ON", "watchdog.ping.after", "35m"),
        ("WATCHDOG,OFF", "watchdog.enabled", "false"),
        ("AUTORESET,OFF", "watchdog.daily_reset", "off"),
    ]) {
        let told = stdout(&home.weir(&["at", &format!("AT^WEIR={command}")]));
        assert!(told.contains("is on trial") && told.ends_with("OK\n"), "{told}");
        rig::until("it is confirmed", || agent.said(&["was confirmed"]).len() == round).await;
        let told = stdout(&home.weir(&["at", &format!("AT^WEIR=GETPARAM,{key}")]));
        assert!(told.contains(&format!("{key}: {value}\n")), "{told}");
    }
}

#[tokio::test]
async fn inputs_and_outputs_of_a_board_without_such_lines_are_told_by_name() {
    let (bench, _unit) = helper();
    let (home, _broker) = home(bench.home.path(), "").await;
    let text = fs::read_to_string(home.config()).unwrap();
    fs::write(home.config(), text.replace("[gateway]\n", "[gateway]\nboard = \"rpi-cm4\"\n")).unwrap();
    let agent = home.run("info");
    agent.until_said(&["ready"]).await;
    let told = stdout(&home.weir(&["at", "AT^WEIR=SETIO,lamp,1"]));
    assert!(told.contains("there is no output \"lamp\"; known are: 0 = relay-1"), "{told}");
    if Path::new("/dev/gpiochip0").exists() {
        eprintln!("note: this machine has GPIO lines; they are left alone");
        return;
    }
    let told = stdout(&home.weir(&["at", "AT^WEIR=SETIO,0,1"]));
    assert!(told.contains("the line \"GPIO17\" is not there"), "{told}");
    let told = stdout(&home.weir(&["at", "AT^WEIR=GETIOS"]));
    assert!(told.contains("out0 relay-1=-\nin0 input-1=? (the line"), "{told}");
}

/// A copy of the program, and its hash.
fn firmware(bench: &Bench) -> (PathBuf, String) {
    let file = bench.path("next-weir");
    fs::copy(env!("CARGO_BIN_EXE_weir"), &file).unwrap();
    let output = Command::new("sha256sum").arg(&file).output().unwrap();
    (file, stdout(&output)[..64].to_owned())
}

fn control(bench: &Bench, more: &str) -> String {
    format!("[control.firmware]\nlargest = \"60MiB\"\nfolder = \"{}\"\n{more}", bench.path("firmware").display())
}

#[tokio::test]
async fn a_firmware_is_judged_installed_on_trial_and_kept_once_it_has_reached_its_broker() {
    let (bench, _unit) = helper();
    let (home, _broker) = home(bench.home.path(), &control(&bench, "")).await;
    // A session that waits for data would never come: in a trial it is kept.
    let text = fs::read_to_string(home.config()).unwrap();
    fs::write(home.config(), text.replace("[uplink]\n", "[uplink]\nconnect = \"on-demand\"\n")).unwrap();
    // The largest that this board takes; the program of the tests has all its debugging information.
    let (file, sha256) = firmware(&bench);
    let size = fs::metadata(&file).unwrap().len();
    let mut agent = home.run("info");
    agent.until_said(&["ready"]).await;
    let update = |url: &str, hash: &str| stdout(&home.weir(&["at", &format!("AT^WEIR=UPDATEFW,{url},{hash}")]));
    let file_url = format!("file://{}", file.display());
    if size > 60 << 20 {
        let told = update(&file_url, &sha256);
        assert!(told.contains("more than the 62914560 bytes"), "{told}");
        strip(&file);
    }
    let sha256 = stdout(&Command::new("sha256sum").arg(&file).output().unwrap())[..64].to_owned();
    let told = update(&file_url, &"0".repeat(64));
    assert!(told.contains("not what was asked for; nothing was installed"), "{told}");
    let script = bench.path("script");
    fs::write(&script, "#!/bin/sh\necho weir 9\n").unwrap();
    let hash = stdout(&Command::new("sha256sum").arg(&script).output().unwrap())[..64].to_owned();
    let told = update(&format!("file://{}", script.display()), &hash);
    assert!(told.contains("the file is no program"), "{told}");
    let told = update(&file_url, &sha256);
    assert!(told.contains("is installed and on trial") && told.ends_with("OK\n"), "{told}");
    assert!(!bench.path("firmware/weir.new").exists(), "what was fetched is removed");
    assert!(update(&file_url, &sha256).contains("a firmware is on trial"));
    let installed = bench.path("weir");
    assert_eq!(fs::metadata(&installed).unwrap().permissions().mode() & 0o777, 0o755);
    agent.stop().await;
    let home_config = home.config();
    let mut next = Command::new(&installed)
        .arg("--config")
        .arg(&home_config)
        .arg("run")
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    rig::until("it is kept", || bench.read("state/outcome") == format!("confirmed {sha256}\n")).await;
    next.kill().unwrap();
    next.wait().unwrap();
    // The helper writes what became of it first.
    rig::until("the trial is over", || !bench.path("state/trial").exists()).await;
}

/// Leaves out what only debuggers read.
fn strip(file: &Path) {
    let stripped = Command::new("strip").arg(file).status().expect("strip (binutils) is needed: run tests/run");
    assert!(stripped.success());
    assert!(fs::metadata(file).unwrap().len() <= 60 << 20, "still too large");
}

/// Python's own web server, by TLS, over a folder.
const SERVER: &str = "
import http.server, ssl, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        if self.path == '/moved':
            self.send_response(302)
            self.send_header('Location', '/weir')
            self.send_header('Content-Length', '0')
            self.end_headers()
        else:
            super().do_GET()
server = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
print('ready', flush=True)
server.serve_forever()
";

#[tokio::test]
async fn a_firmware_comes_by_https_from_a_server_that_is_trusted() {
    let (bench, _unit) = helper();
    let authority = Authority::new("firmware").unwrap();
    let issued = authority.issue(&["localhost"], None).unwrap();
    let (certificate, key) = issued.write(bench.home.path(), "server").unwrap();
    let ca = bench.path("ca.pem");
    fs::write(&ca, authority.pem()).unwrap();
    let (home, _broker) = home(bench.home.path(), &control(&bench, &format!("ca_file = \"{}\"\n", ca.display()))).await;
    let (file, _) = firmware(&bench);
    strip(&file);
    let folder = bench.path("served");
    fs::create_dir(&folder).unwrap();
    fs::rename(&file, folder.join("weir")).unwrap();
    let hash = stdout(&Command::new("sha256sum").arg(folder.join("weir")).output().unwrap())[..64].to_owned();
    let port = free_port();
    let mut python = Command::new("python3");
    python.args(["-c", SERVER, &port.to_string()]).arg(&certificate).arg(&key).current_dir(&folder);
    let _server = Peer::start(&mut python, "ready");
    let mut agent = home.run("info");
    agent.until_said(&["ready"]).await;
    let update = |host: &str, path: &str| {
        stdout(&home.weir(&["at", &format!("AT^WEIR=UPDATEFW,https://{host}:{port}/{path},{hash}")]))
    };
    assert!(update("127.0.0.1", "weir").contains("its certificate is for another name"));
    assert!(update("localhost", "moved").contains("elsewhere"));
    assert!(update("localhost", "none").contains("answered 404"));
    let told = update("localhost", "weir");
    assert!(told.contains("is installed and on trial"), "{told}");
    let size = fs::metadata(folder.join("weir")).unwrap().len();
    assert_eq!(fs::read(bench.path("weir")).unwrap(), fs::read(folder.join("weir")).unwrap());
    // It counts in the data budget, with its TLS as good as to the byte.
    agent.stop().await;
    let traffic: serde_json::Value = serde_json::from_slice(&home.weir(&["traffic", "--json"]).stdout).unwrap();
    let received = traffic["total"]["received"].as_u64().unwrap();
    assert!(received > size && received < size + size / 100 + 50_000, "{traffic}");
}
