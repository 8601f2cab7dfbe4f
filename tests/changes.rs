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

#[tokio::test]
async fn what_is_sealed_is_sealed_anew_with_a_credential_and_the_configurations_key_counts() {
    let site = Site::new().await;
    let mut agent = site.run().await;
    agent.stop().await;
    let [password, later, old, link] = ["password", "later", "old", "link"].map(|name| site.home.path(name));
    for file in [&password, &later, &old] {
        fs::write(file, "hunter2\n").unwrap();
    }
    std::os::unix::fs::symlink(&later, &link).unwrap();
    fs::create_dir(site.home.path("given")).unwrap();
    fs::write(site.home.path("given/weir-seal"), [9; 32]).unwrap();
    // As systemd gives the credential to the service.
    let weir = |arguments: &[&str]| {
        let mut command = rig::weir();
        command.env("CREDENTIALS_DIRECTORY", site.home.path("given"));
        command.arg("--config").arg(site.home.config()).args(arguments).output().unwrap()
    };
    let head = |file: &std::path::Path| {
        let content = fs::read(file).unwrap();
        String::from_utf8_lossy(&content[..content.iter().position(|byte| *byte == b'\n').unwrap()]).into_owned()
    };
    let base = site.home.path("weir.toml.sealed");
    let all = [base.clone(), password.clone(), site.home.path("store/config/1.toml")];
    let name = |file: &std::path::Path| file.to_str().unwrap().to_owned();
    assert!(weir(&["config", "seal", &name(&password), &name(&old)]).status.success());
    all.iter().for_each(|file| assert!(head(file).starts_with("weir-sealed-1 board"), "{}", head(file)));
    let credential = ["config", "seal", "--credential", "/etc/weir/seal.cred", &name(&password)];
    let sealed = weir(&credential);
    assert!(sealed.status.success() && rig::stdout(&sealed).contains("with the other key"), "{sealed:?}");
    let by_credential = "weir-sealed-1 credential /etc/weir/seal.cred";
    all.iter().for_each(|file| assert_eq!(head(file), by_credential));
    assert!(weir(&["check"]).status.success());
    // What is sealed later gets the configuration's key, also after a file with another one was opened.
    // Nothing is sealed before all can be read.
    let linked = weir(&["config", "seal", &name(&later), &name(&link)]);
    assert!(!linked.status.success() && stderr(&linked).contains("it is a link; name the file itself"), "{linked:?}");
    assert_eq!(fs::read_to_string(&later).unwrap(), "hunter2\n");
    // And before all that has another key is opened.
    let (key, aside) = (site.home.path("store/seal.key"), site.home.path("key"));
    fs::rename(&key, &aside).unwrap();
    let closed = weir(&["config", "seal", &name(&later), &name(&old)]);
    assert!(!closed.status.success() && stderr(&closed).contains("seal.key"), "{closed:?}");
    assert_eq!(fs::read_to_string(&later).unwrap(), "hunter2\n");
    assert!(weir(&["config", "seal", &name(&later)]).status.success());
    assert_eq!(head(&later), by_credential);
    // Nor is anything unsealed.
    let linked = weir(&["config", "unseal", &name(&password), &name(&link)]);
    assert!(!linked.status.success() && stderr(&linked).contains("it is a link; name the file itself"), "{linked:?}");
    all.iter().for_each(|file| assert_eq!(head(file), by_credential));
    assert!(weir(&["config", "unseal", &name(&password), &name(&later)]).status.success());
    assert_eq!(fs::read_to_string(&password).unwrap(), "hunter2\n");
}

#[tokio::test]
async fn a_plain_file_in_place_of_a_sealed_one_is_told_in_log_and_audit() {
    let site = Site::new().await;
    let mut agent = site.run().await;
    agent.stop().await;
    let (plain, first) = (site.home.config(), site.home.path("store/config/1.toml"));
    let (before, text) = (fs::read(&first).unwrap(), fs::read(&plain).unwrap());
    assert!(site.home.weir(&["config", "seal"]).status.success());
    let told = |agent: &Agent| agent.said(&["a plain file stands where a sealed one should"]);
    let mut agent = site.run().await;
    assert!(told(&agent).is_empty(), "{:?}", told(&agent));
    agent.stop().await;
    fs::write(&first, before).unwrap();
    let mut agent = site.run().await;
    assert!(
        told(&agent).len() == 1 && told(&agent)[0].contains("1.toml is plain on a sealed gateway"),
        "{:?}",
        told(&agent)
    );
    agent.stop().await;
    // One beside it counts before it.
    fs::write(&plain, text).unwrap();
    let agent = site.run().await;
    assert!(told(&agent)[0].contains("weir.toml is plain and counts before"), "{:?}", told(&agent));
    let audit = || stdout(&site.home.weir(&["at", "AT^WEIR=AUDIT"]));
    let lines = |audit: &str| audit.lines().filter(|line| line.contains("\"outcome\":\"warned\"")).count();
    until("both are in the audit", || lines(&audit()) == 2).await;
}

#[tokio::test]
async fn a_sealed_configuration_runs_here_and_nothing_of_it_can_be_read_elsewhere() {
    let site = Site::new().await;
    let mut agent = site.run().await;
    agent.stop().await;
    let sealed = site.home.weir(&["config", "seal"]);
    assert!(sealed.status.success(), "{sealed:?}");
    let (plain, beside) = (site.home.config(), site.home.path("weir.toml.sealed"));
    assert!(!plain.exists() && beside.exists());
    let mut agent = site.home.run("debug");
    agent.until_said(&["connected to the broker"]).await;
    // A change is taken as ever, and is sealed on the disk.
    let changed = site.changes(&["set", "meter.incomer.every", "2s"]).await.unwrap();
    assert!(changed.status.success(), "{changed:?}");
    assert_eq!(site.value("meter.incomer.every"), "2s");
    agent.stop().await;
    let folder = site.home.path("store/config");
    for file in fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).chain([beside.clone()]) {
        let content = fs::read(&file).unwrap();
        assert!(!content.windows(7).any(|bytes| bytes == b"incomer") || file.ends_with("book"), "{}", file.display());
    }
    // Without the board's key nothing opens, and weir says why.
    let (key, aside) = (site.home.path("store/seal.key"), site.home.path("key"));
    fs::rename(&key, &aside).unwrap();
    let refused = site.home.weir(&["check"]);
    assert!(!refused.status.success() && stderr(&refused).contains("its key"), "{refused:?}");
    fs::write(&key, [7; 32]).unwrap();
    let refused = site.home.weir(&["check"]);
    assert!(stderr(&refused).contains("sealed for another gateway, or damaged"), "{refused:?}");
    fs::rename(&aside, &key).unwrap();
    let back = site.home.weir(&["config", "unseal"]);
    assert!(back.status.success() && !beside.exists(), "{back:?}");
    assert!(fs::read_to_string(&plain).unwrap().contains("incomer"));
    assert!(fs::read_to_string(folder.join("2.toml")).unwrap().contains("2s"));
}

#[tokio::test]
async fn a_plain_file_that_is_applied_or_not_taken_up_does_not_undo_the_seal() {
    let site = Site::new().await;
    let mut agent = site.run().await;
    agent.stop().await;
    let (plain, store) = (site.home.config(), site.home.path("store/config"));
    let text = fs::read_to_string(&plain).unwrap();
    // A configuration that is a link is refused before anything is sealed.
    let aside = site.home.path("aside.toml");
    fs::rename(&plain, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &plain).unwrap();
    let linked = site.home.weir(&["config", "seal"]);
    assert!(!linked.status.success() && stderr(&linked).contains("it is a link"), "{linked:?}");
    let is_sealed = |name: &str| fs::read(store.join(name)).unwrap().starts_with(b"weir-sealed-1 ");
    assert!(!is_sealed("1.toml"));
    fs::rename(&aside, &plain).unwrap();
    assert!(site.home.weir(&["config", "seal"]).status.success());
    // Applied while weir does not run.
    fs::write(&aside, text.replace("\"1s\"", "\"2s\"")).unwrap();
    let applied = site.home.weir(&["config", "apply", "--no-wait", aside.to_str().unwrap()]);
    assert!(applied.status.success(), "{applied:?}");
    assert!(is_sealed("2.toml"));
    // Laid beside it with a mistake, and not taken up.
    let mut agent = site.run().await;
    agent.until_said(&["was confirmed", "number=2"]).await;
    fs::write(&plain, text.replace("every = \"1s\"", "evry = \"1s\"")).unwrap();
    agent.signal("HUP");
    agent.until_said(&["the base file can't be taken up"]).await;
    let changed = site.changes(&["set", "meter.incomer.every", "3s"]).await.unwrap();
    assert!(changed.status.success(), "{changed:?}");
    assert!(is_sealed("3.toml"));
    agent.until_said(&["was confirmed", "number=3"]).await;
    agent.stop().await;
    // At a start with it the sealed one runs, too, and so does a command without an agent.
    let unset = site.home.weir(&["config", "set", "--now", "meter.incomer.every", "4s"]);
    assert!(unset.status.success() && is_sealed("4.toml"), "{unset:?}");
    let agent = site.run().await;
    assert!(!agent.said(&["weir.toml is plain and counts before"]).is_empty());
    let changed = site.changes(&["set", "meter.incomer.every", "5s"]).await.unwrap();
    assert!(changed.status.success() && is_sealed("5.toml"), "{changed:?}");
}

/// The host's key stands for a TPM's: systemd's tool makes the credential, and systemd gives it to the service in a folder.
#[tokio::test]
async fn a_configuration_sealed_by_a_credential_of_systemd_opens_with_that_only() {
    let site = Site::new().await;
    let mut agent = site.run().await;
    agent.stop().await;
    let (given, credential) = (site.home.path("given"), site.home.path("seal.cred"));
    fs::create_dir(&given).unwrap();
    fs::write(given.join("weir-seal"), [42; 32]).unwrap();
    let mut program = std::process::Command::new("systemd-creds");
    program.args(["encrypt", "--with-key=host", "--name=weir-seal"]).arg(given.join("weir-seal")).arg(&credential);
    let made = program.output().expect("systemd-creds comes with systemd: tests/run installs it");
    if !made.status.success() {
        peers::not_checked(&format!(
            "sealing by a credential: systemd-creds has no key of this host: {}",
            stderr(&made)
        ));
        return;
    }
    let sealed = site.home.weir(&["config", "seal", "--credential", credential.to_str().unwrap()]);
    assert!(sealed.status.success(), "{sealed:?}");
    assert!(!site.home.config().exists());
    let seal = fs::read(site.home.path("weir.toml.sealed")).unwrap();
    assert!(!seal.windows(7).any(|bytes| bytes == b"incomer"));
    // A command outside the service asks systemd's tool; the service needs none.
    let checked = site.home.weir(&["check"]);
    assert!(checked.status.success(), "{checked:?}");
    let aside = site.home.path("aside.cred");
    fs::rename(&credential, &aside).unwrap();
    let refused = site.home.weir(&["check"]);
    assert!(!refused.status.success() && stderr(&refused).contains("a credential of systemd"), "{refused:?}");
    let mut agent = site.home.run_with("debug", &[("CREDENTIALS_DIRECTORY", given.to_str().unwrap())]);
    agent.until_said(&["connected to the broker"]).await;
    agent.stop().await;
    fs::write(given.join("weir-seal"), [43; 32]).unwrap();
    let mut agent = site.home.run_with("debug", &[("CREDENTIALS_DIRECTORY", given.to_str().unwrap())]);
    assert!(!agent.ended().await.success(), "another key opens nothing");
    fs::rename(&aside, &credential).unwrap();
    let back = site.home.weir(&["config", "unseal"]);
    assert!(back.status.success(), "{back:?}");
    assert!(fs::read_to_string(site.home.config()).unwrap().contains("incomer"));
}
