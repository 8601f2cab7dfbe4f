//! A real mosquitto, its own subscriber, and a relay before it that can be cut.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::free_port;

/// No wait of these tests may take longer.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A real mosquitto, ended with the test.
pub struct Mosquitto {
    child: Child,
    pub port: u16,
    conf: PathBuf,
}

impl Mosquitto {
    /// Starts it; `extra` are lines of its configuration.
    pub async fn start(directory: &Path, extra: &str) -> Self {
        Self::configured(directory, &format!("persistence false\nlog_type all\n{extra}")).await
    }

    /// Starts one that keeps sessions and messages in `directory` when it ends, and when it is told to.
    pub async fn persistent(directory: &Path, extra: &str) -> Self {
        let keep = format!("persistence true\npersistence_location {}/\nlog_type error\n", directory.display());
        Self::configured(directory, &format!("{keep}{extra}")).await
    }

    async fn configured(directory: &Path, extra: &str) -> Self {
        let port = free_port();
        let conf = directory.join("mosquitto.conf");
        let log = directory.join("mosquitto.log");
        let text = format!(
            "user root\nlistener {port} 127.0.0.1\nlog_dest file {}\nmax_queued_messages 0\n{extra}\n",
            log.display()
        );
        fs::write(&conf, text).unwrap();
        let mut broker = Self { child: Self::spawn(&conf), port, conf };
        broker.ready().await;
        broker
    }

    fn spawn(conf: &Path) -> Child {
        Command::new("/usr/sbin/mosquitto")
            .args(["-c", conf.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is needed: run tests/run, which installs the peers")
    }

    async fn ready(&mut self) {
        let port = self.port;
        let listening = async {
            while !is_answered(port).await {
                assert!(self.child.try_wait().unwrap().is_none(), "mosquitto ended: {}", self.conf.display());
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, listening).await.expect("mosquitto listens");
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([format!("-{name}"), pid]).status().unwrap().success());
    }

    /// Publishes with mosquitto's own client.
    pub async fn publish(&self, topic: &str, payload: &str) {
        publish(self.port, topic, payload.as_bytes(), false).await;
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and its end.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        while self.child.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Makes a persistent one write everything it knows, and returns when it has.
    pub async fn save(&self) {
        let kept = self.conf.with_file_name("mosquitto.db");
        let file = || fs::metadata(&kept).ok().map(|data| (data.ino(), data.modified().ok()));
        let before = file();
        self.signal("USR1");
        let saved = async {
            while file().is_none() || file() == before {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, saved).await.expect("mosquitto saves its sessions");
    }

    pub async fn restart(&mut self) {
        self.child = Self::spawn(&self.conf);
        self.ready().await;
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether somebody listens there. While nobody does, a connection may find its own other end.
async fn is_answered(port: u16) -> bool {
    let stream = TcpStream::connect(("127.0.0.1", port)).await;
    stream.is_ok_and(|stream| stream.local_addr().is_ok_and(|own| own.port() != port))
}

/// Publishes with mosquitto's own client and waits until the broker has it.
pub async fn publish(port: u16, topic: &str, payload: &[u8], retain: bool) {
    let port = port.to_string();
    let mut command = tokio::process::Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic, "-s"]);
    if retain {
        command.arg("-r");
    }
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(payload).await.unwrap();
    let ended = timeout(LIMIT, child.wait()).await.expect("mosquitto_pub ends").unwrap();
    assert!(ended.success(), "mosquitto_pub: {ended}");
}

/// The topic by which who listens knows that he does.
const MARKER: &str = "marker";

/// The payloads of one topic, whole whatever is in them, as a mosquitto_sub of its own hears them.
pub struct Messages {
    _child: tokio::process::Child,
    lines: tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStdout>>,
}

impl Messages {
    /// Returns when it listens.
    pub async fn of(port: u16, topic: &str) -> Self {
        let number = port.to_string();
        let mut child = tokio::process::Command::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &number, "-q", "1", "-t", topic, "-t", MARKER, "-F", "%t\t%x"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto_sub is needed: run tests/run, which installs the peers");
        let lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let mut messages = Self { _child: child, lines };
        // It listens when it hears a retained message.
        publish(port, MARKER, b"here", true).await;
        while messages.line().await.0 != MARKER {}
        messages
    }

    async fn line(&mut self) -> (String, Vec<u8>) {
        let line = timeout(LIMIT, self.lines.next_line()).await.expect("a message comes").unwrap().unwrap();
        let (topic, payload) = line.split_once('\t').unwrap();
        (topic.to_owned(), data_encoding::HEXLOWER_PERMISSIVE.decode(payload.as_bytes()).unwrap())
    }

    pub async fn next(&mut self) -> Vec<u8> {
        loop {
            // Others begin to listen, too.
            let (topic, payload) = self.line().await;
            if topic != MARKER {
                return payload;
            }
        }
    }

    pub async fn text(&mut self) -> String {
        String::from_utf8(self.next().await).unwrap()
    }

    /// The bytes of as many messages as it takes.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            bytes.extend(self.next().await);
        }
        bytes
    }
}

/// A message as mosquitto_sub printed it.
#[derive(Debug, Clone)]
pub struct Heard {
    pub topic: String,
    pub qos: String,
    pub retain: String,
    pub payload: String,
}

impl Heard {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.payload).unwrap_or_else(|e| panic!("{e}: {}", self.payload))
    }

    /// The sequence numbers of the frames in it; none for a status.
    pub fn sequences(&self) -> Vec<u64> {
        let json = self.json();
        let frames = json["frames"].as_array().cloned().unwrap_or_default();
        frames.iter().map(|f| f["meta"]["sequence"].as_u64().unwrap()).collect()
    }
}

/// A real mosquitto_sub on all topics.
pub struct Subscriber {
    child: Child,
    heard: mpsc::UnboundedReceiver<Heard>,
}

impl Subscriber {
    /// Starts it and waits until the broker has confirmed the subscription.
    pub async fn start(port: u16, extra: &[&str]) -> Self {
        // Line by line, although its output is a pipe.
        let mut child = Command::new("stdbuf")
            .args([
                "-oL",
                "mosquitto_sub",
                "-h",
                "127.0.0.1",
                "-p",
                &port.to_string(),
                "-t",
                "#",
                "-d",
                "-F",
                "==\t%t\t%q\t%r\t%p",
            ])
            .args(extra)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto_sub is needed: run tests/run, which installs the peers");
        let output = child.stdout.take().unwrap();
        let (tell, heard) = mpsc::unbounded_channel();
        let (tell_ready, mut ready) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.contains("SUBACK") {
                    let _ = tell_ready.send(());
                }
                if let ["==", topic, qos, retain, payload] = line.splitn(5, '\t').collect::<Vec<_>>()[..] {
                    let [topic, qos, retain, payload] = [topic, qos, retain, payload].map(str::to_owned);
                    let _ = tell.send(Heard { topic, qos, retain, payload });
                }
            }
        });
        timeout(LIMIT, ready.recv()).await.expect("mosquitto_sub subscribes").expect("mosquitto_sub runs");
        Self { child, heard }
    }

    pub async fn next(&mut self) -> Heard {
        timeout(LIMIT, self.heard.recv()).await.expect("a message comes").expect("mosquitto_sub runs")
    }

    /// The next message at a topic.
    pub async fn next_of(&mut self, topic: &str) -> Heard {
        loop {
            let heard = self.next().await;
            if heard.topic == topic {
                return heard;
            }
        }
    }

    /// Takes messages until `count` different frames were heard.
    pub async fn until_frames(&mut self, count: usize) -> Vec<Heard> {
        let mut all = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < count {
            let heard = self.next().await;
            seen.extend(heard.sequences());
            all.push(heard);
        }
        all
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A TCP relay before a broker that can be closed: then it hangs up and lets nobody in.
pub struct Relay {
    pub port: u16,
    pub accepted: Arc<AtomicUsize>,
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Relay {
    pub async fn start(to: u16, open: bool) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, gate) = watch::channel(open);
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut gate = gate.clone();
                if !*gate.borrow() {
                    continue;
                }
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(("127.0.0.1", to)).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = async { gate.wait_for(|open| !open).await.is_ok() } => {}
                    }
                });
            }
        });
        Self { port, accepted, open, task }
    }

    pub fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
