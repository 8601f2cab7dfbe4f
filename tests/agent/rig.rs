//! What these tests share: a home for one agent, the running binary and its log, telegrams by TCP.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use weir::model::Timestamp;
use weir::os::clock;
use weir::sim::radio_replay::{Lines, RadioReplay};

pub use super::peers::broker::{Heard, LIMIT, Mosquitto, Relay, Subscriber};

/// Polls until `condition` holds; after [`LIMIT`] it fails with `what`.
pub async fn until(what: &str, condition: impl FnMut() -> bool) {
    within(LIMIT, || what.to_owned(), condition).await;
}

async fn within(limit: Duration, what: impl Fn() -> String, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < give_up, "never: {}", what());
        sleep(Duration::from_millis(10)).await;
    }
}

/// The binary (cargo's own, or the one that `WEIR_BINARY` names), with nothing of the surroundings
/// that it would listen to.
pub fn weir() -> Command {
    let binary = std::env::var_os("WEIR_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_weir").into());
    let mut command = Command::new(binary);
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"] {
        command.env_remove(name);
    }
    command
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A directory with a configuration and a store.
pub struct Home {
    pub directory: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("weir.toml")
    }

    /// Writes a configuration whose broker is at `url`; `rest` is what follows `[store]`'s path.
    pub fn configure(&self, broker: &str, rest: &str) {
        let text = format!(
            "version = 1\n[gateway]\nid = \"gw1\"\n[broker]\n{broker}\n[uplink]\ndata_topic = \"data/{{id}}\"\n\
             event_topic = \"event/{{id}}\"\nstatus_topic = \"status/{{id}}\"\nwill_topic = \"will/{{id}}\"\n\
             backoff = {{ first = \"100ms\", max = \"500ms\", jitter = \"50ms\" }}\n[store]\npath = \"{}\"\n{rest}",
            self.path("store").display()
        );
        fs::write(self.config(), text).unwrap();
    }

    /// Runs a command with this configuration to its end.
    pub fn weir(&self, arguments: &[&str]) -> Output {
        weir().arg("--config").arg(self.config()).args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// The counters as `weir store status --json` prints them.
    pub fn counters(&self) -> Value {
        let output = self.weir(&["store", "status", "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn run(&self, level: &str) -> Agent {
        self.run_with(level, &[])
    }

    pub fn run_with(&self, level: &str, environment: &[(&str, &str)]) -> Agent {
        self.run_as(weir(), level, environment)
    }

    /// Starts it by another command, which becomes the binary.
    pub fn run_as(&self, mut command: Command, level: &str, environment: &[(&str, &str)]) -> Agent {
        command.arg("--config").arg(self.config()).args(["--log", level, "run"]);
        command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stream, page) = (child.stderr.take().unwrap(), log.clone());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                page.lock().unwrap().push(line);
            }
        });
        Agent { child, log, reader: Some(reader) }
    }
}

/// The number behind `field` in a log line.
pub fn number(line: &str, field: &str) -> u64 {
    let word = line.split_whitespace().find_map(|w| w.strip_prefix(field)).unwrap_or_else(|| panic!("{field} {line}"));
    word.parse().unwrap()
}

/// `weir run`, ended with the test.
pub struct Agent {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Agent {
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The lines that have all of `words`.
    pub fn said(&self, words: &[&str]) -> Vec<String> {
        self.log().into_iter().filter(|line| words.iter().all(|word| line.contains(word))).collect()
    }

    pub async fn until_said(&self, words: &[&str]) -> String {
        let told = || format!("the agent said {words:?}; it said:\n{}", self.log().join("\n"));
        within(LIMIT, told, || !self.said(words).is_empty()).await;
        self.said(words).remove(0)
    }

    /// Frames that the broker acknowledged in this life; needs the level debug.
    pub fn acknowledged(&self) -> usize {
        self.said(&["acknowledged by the broker"]).iter().map(|line| number(line, "frames=") as usize).sum()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for the end; afterwards the log is complete.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("the agent ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        self.reader.take().into_iter().for_each(|reader| reader.join().unwrap());
        status.unwrap()
    }

    /// SIGTERM, and exit code 0.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        let status = self.ended().await;
        assert!(status.success(), "{status:?}:\n{}", self.log().join("\n"));
    }

    /// SIGKILL.
    pub async fn kill(&mut self) {
        self.child.kill().unwrap();
        self.ended().await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the agent's log ended with:");
            self.log().iter().rev().take(40).rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// A telegram that was fed.
#[derive(Debug, Clone)]
pub struct Fed {
    pub bytes: Vec<u8>,
    pub priority: bool,
    pub time: Timestamp,
}

/// A receiver on a TCP port whose lines come from the test; whoever connects hears what follows.
pub struct Feed {
    pub port: u16,
    fed: Arc<Mutex<Vec<Fed>>>,
    /// How many may be fed until more are allowed.
    allowed: watch::Sender<usize>,
    task: tokio::task::JoinHandle<()>,
}

impl Feed {
    /// Sends one telegram each `pace`, `count` of them, over as many connections as it takes.
    pub async fn start(lines: Lines, pace: Duration, count: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let fed = Arc::new(Mutex::new(Vec::new()));
        let list = fed.clone();
        let (allowed, mut allowance) = watch::channel(usize::MAX);
        let task = tokio::spawn(async move {
            let mut replay = RadioReplay::new(lines);
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                while list.lock().unwrap().len() < count {
                    allowance.wait_for(|allowed| list.lock().unwrap().len() < *allowed).await.unwrap();
                    let time = clock::now();
                    let step = replay.next(time);
                    list.lock().unwrap().push(Fed { bytes: step.telegram, priority: step.priority, time });
                    if stream.write_all(step.text.as_bytes()).await.is_err() {
                        break;
                    }
                    sleep(pace).await;
                }
                if list.lock().unwrap().len() == count {
                    // Nothing more to say, but the line stays.
                    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                }
            }
        });
        Self { port, fed, allowed, task }
    }

    /// Feeds no more than so many in all until it is called again.
    pub fn allow(&self, count: usize) {
        self.allowed.send_replace(count);
    }

    pub fn fed(&self) -> Vec<Fed> {
        self.fed.lock().unwrap().clone()
    }

    /// Hangs up for ever and tells what was fed.
    pub fn end(self) -> Vec<Fed> {
        self.fed()
    }

    /// The tables of the configuration for it.
    pub fn radio(&self, name: &str, receiver: &str) -> String {
        radio(name, receiver, self.port)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn radio(name: &str, receiver: &str, port: u16) -> String {
    format!("[[radio]]\nname = \"{name}\"\nreceiver = \"{receiver}\"\ndevice = \"tcp://127.0.0.1:{port}\"\n")
}

/// A frame as a consumer has it, with the topic it came on.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrived {
    pub topic: String,
    pub json: Value,
}

impl Arrived {
    pub fn bytes(&self) -> Vec<u8> {
        data_encoding::BASE64.decode(self.json["frame"].as_str().unwrap().as_bytes()).unwrap()
    }
}

/// What a consumer has received, by sequence number; a repeat must be the same frame.
#[derive(Default)]
pub struct Consumer {
    pub frames: BTreeMap<u64, Arrived>,
    /// Messages without frames.
    pub others: Vec<Heard>,
    pub repeats: usize,
}

impl Consumer {
    pub fn take(&mut self, heard: Heard) {
        let json = heard.json();
        let Some(frames) = json["frames"].as_array() else {
            self.others.push(heard);
            return;
        };
        assert_eq!((json["version"].as_u64(), heard.retain.as_str()), (Some(1), "0"));
        for frame in frames {
            let sequence = frame["meta"]["sequence"].as_u64().unwrap();
            self.take_frame(sequence, Arrived { topic: heard.topic.clone(), json: frame.clone() });
        }
    }

    fn take_frame(&mut self, sequence: u64, arrived: Arrived) {
        if let Some(before) = self.frames.insert(sequence, arrived.clone()) {
            assert_eq!(before, arrived, "sequence {sequence} was given to two frames");
            self.repeats += 1;
        }
    }

    /// Takes over what another has received.
    pub fn merge(&mut self, other: Self) {
        other.frames.into_iter().for_each(|(sequence, arrived)| self.take_frame(sequence, arrived));
    }

    /// Takes messages until `enough`.
    pub async fn listen(&mut self, subscriber: &mut Subscriber, enough: impl Fn(&Self) -> bool) {
        let give_up = Instant::now() + 2 * LIMIT;
        while !enough(self) {
            assert!(Instant::now() < give_up, "not enough after {} frames", self.frames.len());
            self.take(subscriber.next().await);
        }
    }

    /// Takes everything that the broker had for the subscriber when this was called.
    pub async fn listen_to_the_end(&mut self, subscriber: &mut Subscriber, broker: &Mosquitto) {
        broker.publish("the-end", "{}").await;
        self.listen(subscriber, |c| c.others.iter().any(|heard| heard.topic == "the-end")).await;
        self.others.retain(|heard| heard.topic != "the-end");
    }

    /// The telegrams by content: how often each was given a number.
    pub fn telegrams(&self) -> BTreeMap<Vec<u8>, usize> {
        let mut all = BTreeMap::new();
        for frame in self.frames.values().filter(|f| f.json["frametype"] != "Reading") {
            *all.entry(frame.bytes()).or_insert(0) += 1;
        }
        all
    }

    /// The readings of one meter, in order.
    pub fn readings(&self, meter: &str) -> Vec<Value> {
        let of_meter = self.frames.values().filter(|f| f.json["meter"] == meter);
        of_meter.map(|f| f.json.clone()).collect()
    }
}
