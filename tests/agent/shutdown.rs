//! How the agent starts and ends: service manager, SIGTERM, farewell to the broker.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use weir::sim::radio_replay::Lines;

use super::peers;
use super::rig::{Consumer, Feed, Home, LIMIT, Mosquitto, Subscriber};

/// A service manager's end of NOTIFY_SOCKET.
struct Manager(UnixDatagram);

impl Manager {
    fn new(home: &Home) -> (Self, String) {
        let path = home.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        (Self(socket), path.display().to_string())
    }

    /// Reads until a datagram has the line `word`; returns all lines on the way.
    async fn until(self, word: &'static str) -> (Self, Vec<String>) {
        let read = move || {
            let (mut buffer, mut all) = ([0; 4096], Vec::new());
            let give_up = Instant::now() + LIMIT;
            while Instant::now() < give_up {
                let count = match self.0.recv(&mut buffer) {
                    Ok(count) => count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => panic!("no {word} after {all:?}: {error}"),
                };
                all.extend(String::from_utf8_lossy(&buffer[..count]).lines().map(str::to_owned));
                if all.iter().any(|line| line == word) {
                    return (self, all);
                }
            }
            panic!("no {word}: {all:?}");
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }
}

#[tokio::test]
async fn the_service_manager_hears_ready_after_the_store_is_open_then_watchdog_then_stopping() {
    let home = Home::new();
    home.configure(&format!("url = \"tcp://127.0.0.1:{}\"", peers::free_port()), "");
    let (manager, path) = Manager::new(&home);
    let mut agent = home.run_with("info", &[("NOTIFY_SOCKET", &path), ("WATCHDOG_USEC", "20000000")]);
    let (manager, lines) = manager.until("READY=1").await;
    assert!(!lines.iter().any(|l| l == "WATCHDOG=1"), "{lines:?}");
    assert!(home.path("store/cursor").exists() && home.path("store/lock").exists(), "the store is open by then");
    let (manager, _) = manager.until("WATCHDOG=1").await;
    let begun = Instant::now();
    let (manager, lines) = manager.until("WATCHDOG=1").await;
    assert!(begun.elapsed() < Duration::from_secs(20), "the watchdog is fed in time");
    let status = lines.iter().find(|l| l.starts_with("STATUS=")).unwrap();
    assert_eq!(status, "STATUS=not connected; received 0, acknowledged 0, cached 0");
    agent.signal("TERM");
    let _ = manager.until("STOPPING=1").await;
    assert!(agent.ended().await.success());
    agent.until_said(&["SIGTERM received"]).await;
}

#[tokio::test]
async fn without_a_watchdog_readiness_is_all_that_is_told() {
    let home = Home::new();
    home.configure(&format!("url = \"tcp://127.0.0.1:{}\"", peers::free_port()), "");
    let (manager, path) = Manager::new(&home);
    let agent = home.run_with("info", &[("NOTIFY_SOCKET", &path)]);
    // Without WATCHDOG_USEC nothing is promised and nothing is sent early.
    let (_manager, lines) = manager.until("READY=1").await;
    assert_eq!(lines, ["READY=1"]);
    agent.until_said(&["ready"]).await;
}

#[tokio::test]
async fn sigterm_drains_into_the_store_and_says_goodbye_so_that_no_will_is_published() {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let feed = Feed::start(Lines::OpenlinkIq, Duration::from_millis(2), usize::MAX).await;
    home.configure(
        &format!("url = \"tcp://127.0.0.1:{}\"", broker.port),
        &format!("sync = \"1h\"\n{}", feed.radio("street", "openlinkiq")),
    );
    let mut consumer = Consumer::default();
    for round in 1..=2 {
        let mut agent = home.run("debug");
        // What the first round left unsent could be enough for the second before it listens to signals.
        agent.until_said(&["connected to the broker"]).await;
        consumer.listen(&mut subscriber, |c| c.frames.len() >= round * 100).await;
        agent.stop().await;
        assert_eq!(agent.said(&["disconnected from the broker"]).len(), 1);
        assert_eq!(agent.said(&["INFO stopped"]).len(), 1);
        assert!(agent.said(&["still running at shutdown"]).is_empty());
        let counters = home.counters();
        let count = |name: &str| counters[name].as_u64().unwrap();
        assert_eq!(count("received"), count("acknowledged") + count("cached"), "{counters}");
        assert_eq!(counters["evicted"], json!(0));
    }
    let arrived = |topic: &'static str| move |c: &Consumer| c.others.iter().any(|heard| heard.topic == topic);
    consumer.listen_to_the_end(&mut subscriber, &broker).await;
    assert!(!arrived("will/gw1")(&consumer), "a farewell, and yet a will");
    let counters = home.counters();
    assert_eq!(counters["acknowledged"], json!(consumer.frames.len()), "{counters}");
    // The same will comes when there is no farewell.
    let mut agent = home.run("debug");
    agent.until_said(&["connected to the broker"]).await;
    agent.kill().await;
    consumer.listen(&mut subscriber, arrived("will/gw1")).await;
}

#[tokio::test]
async fn a_broker_that_hangs_does_not_hold_up_the_end() {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let feed = Feed::start(Lines::OpenlinkIq, Duration::from_millis(2), 300).await;
    feed.allow(20);
    home.configure(&format!("url = \"tcp://127.0.0.1:{}\"", broker.port), &feed.radio("street", "openlinkiq"));
    let mut agent = home.run("debug");
    agent.until_said(&["acknowledged by the broker"]).await;
    broker.signal("STOP");
    feed.allow(300);
    agent.until_said(&["durable through=300"]).await;
    let begun = Instant::now();
    agent.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    broker.signal("CONT");
    let counters = home.counters();
    assert_eq!(counters["received"], json!(300), "{counters}");
    assert!(counters["cached"].as_u64().unwrap() > 200, "{counters}");
}
