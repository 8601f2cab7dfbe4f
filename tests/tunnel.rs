//! The tunnel, from outside: weir between a pseudo-terminal and a real mosquitto, with real programs at both ends.

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

#[path = "tunnel/bench.rs"]
mod bench;
#[path = "tunnel/once.rs"]
mod once;
#[path = "tunnel/programs.rs"]
mod programs;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;
use weir::os::pty::Pty;

use self::peers::Peer;
use self::peers::broker::{LIMIT, Messages, Mosquitto, publish};
use self::peers::line::{random, read};
use self::rig::{Agent, Home, stderr, stdout, weir};

fn settings(device: &Path, more: &str) -> String {
    format!(
        "[[port]]\nname = \"line\"\ndevice = \"{}\"\n[[tunnel]]\nport = \"line\"\ngather = \"20ms\"\n{more}",
        device.display()
    )
}

async fn listening(agent: &Agent) {
    rig::until("the tunnel listens", || !agent.said(&["the broker lets weir listen"]).is_empty()).await;
}

struct Site {
    home: Home,
    broker: Mosquitto,
    pty: Pty,
}

impl Site {
    async fn new() -> Self {
        let home = Home::new();
        let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
        Self { home, broker, pty: Pty::open().unwrap() }
    }

    fn run(&self, more: &str) -> Agent {
        let url = format!("url = \"tcp://127.0.0.1:{}\"", self.broker.port);
        self.home.configure(&url, &settings(self.pty.path(), more));
        self.home.run_with("debug", &[])
    }
}

#[tokio::test]
async fn bytes_cross_both_ways_as_they_are() {
    let mut site = Site::new().await;
    let mut messages = Messages::of(site.broker.port, "gw1/tx").await;
    let agent = site.run("max_age = \"1min\"\n");
    listening(&agent).await;
    let (down, up) = (random(1, 3000), random(2, 20_000));
    publish(site.broker.port, "gw1/rx", &down, false).await;
    assert_eq!(read(&mut site.pty, down.len()).await, down);
    for chunk in up.chunks(777) {
        site.pty.send(chunk).await.unwrap();
    }
    assert_eq!(messages.bytes(up.len()).await, up);
}

#[tokio::test]
async fn what_belongs_together_is_one_message_and_a_retained_request_is_none() {
    let mut site = Site::new().await;
    publish(site.broker.port, "gw1/rx", b"from the past", true).await;
    let mut messages = Messages::of(site.broker.port, "gw1/tx").await;
    let agent = site.run("max_age = \"1min\"\n");
    listening(&agent).await;
    publish(site.broker.port, "gw1/rx", b"now", false).await;
    assert_eq!(read(&mut site.pty, 3).await, b"now");
    for byte in b"one frame" {
        site.pty.send(&[*byte]).await.unwrap();
    }
    assert_eq!(messages.next().await, b"one frame");
    site.pty.send(b"another").await.unwrap();
    assert_eq!(messages.next().await, b"another");
}

#[tokio::test]
async fn a_broker_that_comes_back_finds_the_tunnel_again() {
    let mut site = Site::new().await;
    let agent = site.run("max_age = \"1min\"\n");
    listening(&agent).await;
    site.broker.kill();
    rig::until("the session breaks", || !agent.said(&["WARN"]).is_empty()).await;
    site.broker.restart().await;
    rig::until("the tunnel listens again", || agent.said(&["the broker lets weir listen"]).len() > 1).await;
    publish(site.broker.port, "gw1/rx", b"again", false).await;
    assert_eq!(read(&mut site.pty, 5).await, b"again");
}

/// `weir tunnel open` beside the agent, and the line that it made.
async fn operator(site: &Site) -> (tokio::process::Child, PathBuf) {
    let link = site.home.path("near");
    let mut command = tokio::process::Command::from(weir());
    command.arg("--config").arg(site.home.config()).args(["tunnel", "open", "gw1", "line", "--link"]).arg(&link);
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert!(line.contains(link.to_str().unwrap()) && line.contains("gateway gw1"), "{line}");
    (child, link)
}

#[tokio::test]
async fn a_meter_program_here_reads_a_meter_there_while_the_agent_reads_it_too() {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let (_line, ours, theirs) = Peer::socat_pair(home.directory.path());
    let theirs = theirs.display().to_string();
    let _meter = Peer::python("modbus_bus.py", &[&theirs, "1"], "ready");
    let meter = "hold = \"200ms\"\n[[meter]]\nname = \"incomer\"\nport = \"line\"\nprotocol = \"modbus-rtu\"\nevery = \"1s\"\n\
        timeout = \"500ms\"\nregister = [{ name = \"voltage\", register = \"holding:3\", type = \"u16\", unit = \"V\" }]\n";
    let url = format!("url = \"tcp://127.0.0.1:{}\"", broker.port);
    home.configure(&url, &settings(&ours, meter));
    let agent = home.run_with("debug", &[]);
    listening(&agent).await;
    let site = Site { home, broker, pty: Pty::open().unwrap() };
    let (_operator, near) = operator(&site).await;
    for _ in 0..5 {
        let arguments =
            ["-m", "rtu", "-b", "9600", "-P", "none", "-a", "1", "-t", "4:hex", "-r", "1", "-c", "2", "-1", "-o", "3"];
        let output = peers::run(Command::new("mbpoll").args(arguments).arg(&near)).await;
        assert!(
            output.status.success() && stdout(&output).contains("0x0064"),
            "{}{}",
            stdout(&output),
            stderr(&output)
        );
    }
    // The agent's own readings went on: it was lent the line again in between.
    let output = peers::run(weir().arg("--config").arg(site.home.config()).args(["read", "incomer", "--json"])).await;
    assert!(output.status.success() && stdout(&output).contains("voltage"), "{}{}", stdout(&output), stderr(&output));
}

#[tokio::test]
async fn the_near_end_can_be_a_tcp_port() {
    let mut site = Site::new().await;
    let agent = site.run("max_age = \"1min\"\n");
    listening(&agent).await;
    let mut command = tokio::process::Command::from(weir());
    command.arg("--config").arg(site.home.config()).args(["tunnel", "open", "gw1", "line", "--tcp", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
    let address = line.split(' ').next().unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let bytes = random(3, 10_000);
    stream.write_all(&bytes).await.unwrap();
    assert_eq!(read(&mut site.pty, bytes.len()).await, bytes);
    site.pty.send(b"and back").await.unwrap();
    let mut back = [0; 8];
    timeout(LIMIT, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"and back");
}

#[tokio::test]
async fn a_request_that_waited_too_long_never_reaches_the_meter() {
    let mut site = Site::new().await;
    // The meter on the line never answers, so the line is taken for long.
    let more = "max_age = \"200ms\"\n[[meter]]\nname = \"dead\"\nport = \"line\"\nprotocol = \"modbus-rtu\"\nevery = \"1h\"\ntimeout = \"3s\"\n\
        retries = 0\nregister = [{ name = \"level\", register = \"holding:3\" }]\n";
    let agent = site.run(more);
    listening(&agent).await;
    let config = site.home.config();
    let reading =
        tokio::spawn(async move { peers::run(weir().arg("--config").arg(config).args(["read", "dead"])).await });
    let asked = read(&mut site.pty, 8).await;
    assert_eq!(asked[..2], [1, 3], "the agent asks its meter");
    publish(site.broker.port, "gw1/rx", b"late", false).await;
    assert!(!reading.await.unwrap().status.success());
    rig::until("the request is dropped", || !agent.said(&["waited too long for the line"]).is_empty()).await;
    publish(site.broker.port, "gw1/rx", b"fresh", false).await;
    assert_eq!(read(&mut site.pty, 5).await, b"fresh");
}
