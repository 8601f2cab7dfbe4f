//! Changes of the configuration, from outside: the binary, a real mosquitto, a meter nobody here wrote.

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
#[path = "changes/sealed.rs"]
mod sealed;
#[path = "changes/token.rs"]
mod token;

use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir::os::pty::Pty;

use self::peers::Peer;
use self::peers::broker::{Mosquitto, Subscriber};
use self::peers::free_port;
use self::rig::{Agent, Consumer, Home, stderr, stdout, until};

const METER: &str = "# the one in the cellar
[[meter]]
name = \"incomer\"
port = \"bus\" # by the stairs
protocol = \"modbus-rtu\"
every = \"1s\"
timeout = \"2s\"
retries = 0
register = [{ name = \"voltage\", register = \"holding:100\", type = \"f32\", unit = \"V\" }]
";

/// The speed at which the meter hears something.
const BAUD: u32 = 9600;

struct Site {
    home: Home,
    broker: Mosquitto,
    _bus: Peer,
}

/// A pseudo-terminal joined to a meter that hears only what is sent at its speed, on a thread of its own: the test waits
/// for commands. It ends with the meter.
fn join(port: u16) -> PathBuf {
    let (tell, path) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut pty = Pty::open().unwrap();
            tell.send(pty.path().to_owned()).unwrap();
            let mut meter = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (mut asked, mut answered) = ([0; 512], [0; 512]);
            loop {
                tokio::select! {
                    request = pty.receive(&mut asked) => {
                        let count = request.unwrap();
                        if pty.baud().unwrap() == BAUD && meter.write_all(&asked[..count]).await.is_err() {
                            return;
                        }
                    }
                    answer = meter.read(&mut answered) => match answer {
                        Ok(count) if count > 0 => pty.send(&answered[..count]).await.unwrap(),
                        _ => return,
                    },
                }
            }
        });
    });
    path.recv().unwrap()
}

impl Site {
    async fn new() -> Self {
        let home = Home::new();
        let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
        let free = free_port();
        let bus = Peer::python("modbus_meter.py", &["rtutcp", &free.to_string()], "ready");
        let port = format!("[[port]]\nname = \"bus\"\ndevice = \"{}\"\n{METER}", join(free).display());
        home.configure(&format!("url = \"tcp://127.0.0.1:{}\"", broker.port), &port);
        Self { home, broker, _bus: bus }
    }

    /// Starts the agent and waits until the broker was reached and the meter answered.
    async fn run(&self) -> Agent {
        let agent = self.home.run("debug");
        agent.until_said(&["connected to the broker"]).await;
        until("the meter answers", || self.answers() > 0).await;
        agent
    }

    fn answers(&self) -> u64 {
        let output = self.home.weir(&["meters", "--json"]);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        told["incomer"]["answers"].as_u64().unwrap_or(0)
    }

    fn history(&self) -> Value {
        let output = self.home.weir(&["config", "history", "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn value(&self, key: &str) -> String {
        stdout(&self.home.weir(&["config", "get", key])).trim().to_owned()
    }

    /// A command that waits for the end of a trial; the test goes on meanwhile.
    fn changes(&self, arguments: &[&str]) -> tokio::task::JoinHandle<Output> {
        let mut command = rig::weir();
        command.arg("--config").arg(self.home.config()).arg("config").args(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    }

    fn refused(&self, arguments: &[&str], words: &str) {
        let output = self.home.weir(&[&["config"][..], arguments].concat());
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{words}: {}", stderr(&output));
    }
}

/// The number and what became of it, of each.
fn outcomes(history: &Value) -> Vec<(u64, &str)> {
    let entries = history.as_array().unwrap().iter();
    entries.map(|entry| (entry["number"].as_u64().unwrap(), entry["outcome"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn a_dead_broker_goes_back_by_itself_and_costs_no_frame() {
    let site = Site::new().await;
    let mut subscriber = Subscriber::start(site.broker.port, &[]).await;
    let base = fs::read_to_string(site.home.config()).unwrap();
    let mut agent = site.run().await;
    let dead = format!("tcp://127.0.0.1:{}", free_port());
    let change = site.changes(&["set", "broker.url", &dead, "--confirm", "30s", "--why", "a typo"]);
    until("the trial", || agent.said(&["starting", "configuration=2"]).len() == 1).await;
    // Frames are made and cached while nobody takes them.
    until("the meter is read in the trial", || site.answers() > 1).await;
    let in_trial = site.answers();
    site.refused(&["set", "meter.incomer.every", "2s"], "configuration 2 is on trial");
    let output = change.await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("configuration 2 went back: the broker was not reached in time"),
        "{}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("the broker was not reached yet"), "{}", stderr(&output));
    until("the one before runs", || agent.said(&["connected to the broker"]).len() == 2).await;
    until("the meter answers again", || site.answers() > 0).await;
    let history = site.history();
    assert_eq!(outcomes(&history), [(1, "first"), (2, "went-back")]);
    assert_eq!((history[1]["who"].as_str(), history[1]["why"].as_str()), (Some("local:root"), Some("a typo")));
    assert_eq!(site.value("broker[1].url"), format!("tcp://127.0.0.1:{}", site.broker.port));
    assert_eq!(fs::read_to_string(site.home.config()).unwrap(), base, "the base file is never written");
    agent.stop().await;
    // What could not be sent in the trial has its number and is sent by the next session, if not before.
    let mut again = site.run().await;
    until("the backlog is gone", || !again.said(&["acknowledged by the broker"]).is_empty()).await;
    again.stop().await;
    let counters = site.home.counters();
    let count = |name: &str| counters[name].as_u64().unwrap();
    assert_eq!(count("received"), count("acknowledged") + count("cached"), "{counters}");
    assert_eq!(count("evicted"), 0);
    let mut consumer = Consumer::default();
    consumer.listen_to_the_end(&mut subscriber, &site.broker).await;
    assert!(consumer.frames.len() as u64 >= count("acknowledged"), "{} arrived; {counters}", consumer.frames.len());
    let readings = consumer.readings("incomer");
    assert!(readings.len() as u64 >= in_trial, "{} readings, {in_trial} of them in the trial", readings.len());
}

#[tokio::test]
async fn a_port_that_falls_silent_goes_back_and_one_that_answers_is_kept_over_a_restart_and_rolled_back() {
    let site = Site::new().await;
    let mut agent = site.run().await;
    let silent = ["set", "port[bus].baud", "19200", "--confirm", "15s"];
    let output = site.changes(&silent).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("no meter on port bus has answered in time"), "{}", stderr(&output));
    until("the meter answers again", || site.answers() > 0).await;

    let good = [
        "set",
        "meter.incomer.every",
        "2s",
        "meter.incomer.timeout",
        "3s",
        "--confirm",
        "10m",
        "--why",
        "less traffic",
    ];
    let output = site.changes(&good).await.unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("configuration 3 is confirmed: it has proved itself"), "{}", stdout(&output));
    agent.stop().await;
    let mut agent = site.run().await;
    assert_eq!(agent.said(&["starting", "configuration=3"]).len(), 1);
    assert_eq!((site.value("meter[incomer].every"), site.value("port.bus.baud")), ("2s".into(), "9600".into()));
    let shown = stdout(&site.home.weir(&["config", "show"]));
    for kept in ["# the one in the cellar", "port = \"bus\" # by the stairs", "every = \"2s\"", "timeout = \"3s\""] {
        assert!(shown.contains(kept), "{kept}: {shown}");
    }
    let difference = stdout(&site.home.weir(&["config", "diff", "1", "3"]));
    assert!(difference.contains("\n-every = \"1s\"\n") && difference.contains("\n+every = \"2s\"\n"), "{difference}");

    site.refused(&["set", "store.path", "/tmp"], "store.path can't be changed");
    site.refused(&["set", "gateway.id", "other"], "gateway.id can't be changed");
    site.refused(&["set", "meter.incomer.evry", "1s"], "did you mean \"every\"");
    site.refused(&["set", "meter.incomer.every", "soon"], "the configuration would be wrong");
    site.refused(&["set", "meter.incomer.every", "2s"], "nothing is changed");
    site.refused(&["set", "meter.incomer.every", "3s", "--confirm", "1s"], "10 seconds to 24 hours");

    let output = site.changes(&["rollback"]).await.unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(outcomes(&site.history()), [(1, "first"), (2, "went-back"), (3, "confirmed"), (4, "confirmed")]);
    assert_eq!(site.value("meter[incomer].every"), "1s");
    assert_eq!(stdout(&site.home.weir(&["config", "diff", "1", "4"])), "");
    agent.stop().await;
    // Without an agent the change is tried at the next start.
    let output = site.home.weir(&["config", "set", "meter.incomer.every", "2s"]);
    assert!(stdout(&output).contains("begins with the next start"), "{}", stderr(&output));
    let mut agent = site.run().await;
    agent.until_said(&["was confirmed", "number=5"]).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_configuration_that_kills_weir_is_given_up_after_three_starts() {
    let site = Site::new().await;
    let mut agent = site.run().await;
    let dead = format!("tcp://127.0.0.1:{}", free_port());
    let output = site.home.weir(&["config", "set", "broker.url", &dead, "--confirm", "2h", "--no-wait"]);
    assert!(output.status.success(), "{}", stderr(&output));
    agent.until_said(&["starting", "configuration=2"]).await;
    until("it runs", || agent.said(&["ready"]).len() > 1).await;
    agent.kill().await;
    for _ in 0..2 {
        let mut agent = site.home.run("debug");
        agent.until_said(&["starting", "configuration=2"]).await;
        agent.until_said(&["ready"]).await;
        agent.kill().await;
    }
    let mut agent = site.run().await;
    agent.until_said(&["was given up", "number=2", "3 times"]).await;
    assert_eq!(agent.said(&["starting", "configuration=1"]).len(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn a_change_that_comes_while_an_agent_starts_reaches_it() {
    let site = Site::new().await;
    let mut agent = site.run().await;
    // As it is before the door is open: the agent has the book already, and nobody can ask it.
    let (door, away) = (site.home.path("store/weir.sock"), site.home.path("store/away"));
    fs::rename(&door, &away).unwrap();
    let mut command = rig::weir();
    command.arg("--config").arg(site.home.config()).args(["config", "set", "uplink.batch", "7", "--no-wait"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let opened = PathBuf::from(format!("/proc/{}/fd", child.id()));
    let lock = site.home.path("store/config/lock");
    let has_lock = || {
        let files = fs::read_dir(&opened).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| file == lock)
    };
    until("the command waits for the book", has_lock).await;
    fs::rename(&away, &door).unwrap();
    let told = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert!(told.status.success() && stderr(&told).contains("configuration 2 is on trial"), "{}", stderr(&told));
    agent.stop().await;
}

#[tokio::test]
async fn an_edited_base_file_is_on_trial_too_and_one_with_mistakes_stops_nothing() {
    let site = Site::new().await;
    let mut agent = site.run().await;
    let base = fs::read_to_string(site.home.config()).unwrap();
    agent.signal("HUP");
    agent.until_said(&["the base file is as it was"]).await;
    fs::write(site.home.config(), base.replace("every = \"1s\"", "every = \"2s\"")).unwrap();
    agent.signal("HUP");
    agent.until_said(&["the base file was edited; it is on trial"]).await;
    agent.until_said(&["was confirmed", "number=2"]).await;
    assert_eq!(site.value("meter.incomer.every"), "2s");
    fs::write(site.home.config(), base.replace("every = \"1s\"", "evry = \"3s\"")).unwrap();
    agent.signal("HUP");
    agent.until_said(&["can't be taken up", "did you mean"]).await;
    assert!(agent.is_running());
    agent.stop().await;
    let mut agent = site.home.run("debug");
    agent.until_said(&["can't be taken up", "what was accepted before runs on"]).await;
    agent.until_said(&["starting", "configuration=2"]).await;
    agent.until_said(&["connected to the broker"]).await;
    let meters = site.home.weir(&["meters"]);
    assert!(meters.status.success() && stdout(&meters).contains("incomer"), "it asks what runs: {meters:?}");
    let history = site.history();
    assert_eq!(outcomes(&history), [(1, "first"), (2, "confirmed")]);
    assert_eq!(history[1]["who"], "file");
    agent.stop().await;
}
