//! Bytes counted, and what the data budget's policy does to sessions, against a real mosquitto.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use weir::model::Timestamp;
use weir::uplink::{BudgetSettings, Pace, Policy, Traffic};

use super::peers::site::Site;
use super::rig::{Agent, LIMIT, Mosquitto, Subscriber, TOPICS, append, new_store, settings};

/// What an observer on the wire sees: bytes from the agent, bytes to it, sessions that are over.
#[derive(Default)]
struct Seen {
    from_agent: AtomicU64,
    to_agent: AtomicU64,
    over: AtomicU64,
}

/// A relay that counts.
async fn observed(to: u16) -> (u16, Arc<Seen>) {
    async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, count: &AtomicU64) {
        let mut chunk = vec![0; 4096];
        while let Ok(bytes @ 1..) = from.read(&mut chunk).await {
            if to.write_all(&chunk[..bytes]).await.is_err() {
                break;
            }
            count.fetch_add(bytes as u64, Ordering::SeqCst);
        }
        let _ = to.shutdown().await;
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Seen::default());
    let counts = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let counts = Arc::clone(&counts);
            tokio::spawn(async move {
                let far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::join!(pass(near_in, far_out, &counts.from_agent), pass(far_in, near_out, &counts.to_agent));
                counts.over.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    (port, seen)
}

fn account(directory: &Path) -> Traffic {
    let budget: BudgetSettings = settings("");
    Traffic::open(directory, &budget, || Timestamp::parse("2026-11-22T10:00:00Z").unwrap())
}

async fn over(seen: &Seen, sessions: u64) {
    let ended = async {
        while seen.over.load(Ordering::SeqCst) < sessions {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, ended).await.expect("the session is over");
}

#[tokio::test(start_paused = true)]
async fn the_counters_are_what_an_observer_sees_on_the_wire_tls_included() {
    crate::pace::hold();
    let site = Site::new();
    let broker = Mosquitto::start(site.directory.path(), &site.server(&["127.0.0.1"], None)).await;
    let (port, seen) = observed(broker.port).await;
    let traffic = account(site.directory.path());
    let mut totals = Vec::new();
    for (session, frames) in [(1, 0), (2, 30), (3, 900)] {
        let store = new_store();
        append(&store, frames, 100, 7).await;
        let connect = |uplink: weir::uplink::Uplink| uplink.with_traffic(&traffic);
        let mut agent = Agent::start_with(&site.broker_settings(port), TOPICS, store, connect);
        agent.until("acknowledged", |h| h.messages > 0).await;
        agent.until_empty().await;
        agent.stop().await;
        over(&seen, session).await;
        let of = |count: &AtomicU64| count.load(Ordering::SeqCst);
        // The observer may see the end of the broker's goodbye a moment before weir does.
        let give_up = tokio::time::Instant::now() + LIMIT;
        let total = loop {
            traffic.settle();
            let total = traffic.account().total;
            if total.received >= of(&seen.to_agent) || tokio::time::Instant::now() > give_up {
                break total;
            }
            sleep(Duration::from_millis(5)).await;
        };
        assert_eq!((total.sent, total.received), (of(&seen.from_agent), of(&seen.to_agent)), "session {session}");
        totals.push(total);
    }
    println!("a session with a status only: {:?}", totals[0]);
    // A handshake has certificates in it, and 900 frames have more bytes than 30.
    assert!(totals[0].received > 800 && totals[0].sent > 400, "{totals:?}");
    assert!(totals[2].sent - totals[1].sent > 900 * 100, "{totals:?}");
}

#[tokio::test(start_paused = true)]
async fn priority_frames_pass_while_ordinary_ones_wait_and_none_is_lost() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    for connect in ["always", "on-demand"] {
        let (policy, defer) = watch::channel(Policy { defer: true, ..Policy::default() });
        let url = format!("url = \"tcp://127.0.0.1:{}\"", broker.port);
        let uplink = format!("data_topic = \"data\"\nevent_topic = \"event\"\nconnect = \"{connect}\"\n");
        let store = new_store();
        append(&store, 50, 20, 0).await;
        let pace = Pace { idle: Duration::from_millis(100), ..Pace::default() };
        let mut agent = Agent::start_with(&url, &uplink, store, |u| u.with_pace(pace).with_policy(defer));
        for n in 51..=53 {
            append(&agent.store, 1, 20, 1).await;
            let heard = subscriber.next().await;
            assert_eq!((heard.topic.as_str(), heard.sequences()), ("event", vec![n]));
        }
        agent.until("acknowledged", |h| h.acknowledged == 3).await;
        assert_eq!(agent.store.status().borrow().cached, 50);
        if connect == "on-demand" {
            agent.until("left", |h| h.connected_since.is_none()).await;
        }
        policy.send_replace(Policy::default());
        let heard = subscriber.until_frames(50).await;
        assert!(heard.iter().all(|m| m.topic == "data"));
        assert_eq!(
            heard.iter().flat_map(super::rig::Heard::sequences).collect::<Vec<_>>(),
            (1..=50).collect::<Vec<_>>()
        );
        agent.until_empty().await;
        agent.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn gathered_frames_go_in_few_messages_and_alarms_between_them_at_once() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    for connect in ["always", "on-demand"] {
        let gather = Duration::from_secs(5);
        let (_policy, batch) = watch::channel(Policy { gather: Some(gather), ..Policy::default() });
        let url = format!("url = \"tcp://127.0.0.1:{}\"", broker.port);
        let uplink = format!("data_topic = \"data\"\nevent_topic = \"event\"\nconnect = \"{connect}\"\n");
        let pace = Pace { idle: Duration::from_millis(50), ..Pace::default() };
        let mut agent = Agent::start_with(&url, &uplink, new_store(), |u| u.with_pace(pace).with_policy(batch));
        append(&agent.store, 1, 20, 0).await;
        assert_eq!(subscriber.next().await.sequences(), [1]);
        // The gate is closed: what comes now waits for the next opening, all together.
        append(&agent.store, 40, 20, 0).await;
        append(&agent.store, 1, 20, 1).await;
        let alarm = subscriber.next().await;
        assert_eq!((alarm.topic.as_str(), alarm.sequences()), ("event", vec![42]));
        assert_eq!(subscriber.next().await.sequences(), (2..=41).collect::<Vec<_>>(), "the others waited");
        agent.until_empty().await;
        agent.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_quieter_keep_alive_takes_a_new_session_and_no_will() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let (policy, batch) = watch::channel(Policy::default());
    let url = format!("url = \"tcp://127.0.0.1:{}\"", broker.port);
    let mut agent = Agent::start_with(&url, TOPICS, new_store(), |u| u.with_policy(batch));
    assert_eq!(subscriber.next().await.topic, "status/gw1");
    // Another change of policy leaves the session alone; this one needs its own keep-alive.
    let gather = Some(Duration::from_millis(1));
    policy.send_replace(Policy { gather, ..Policy::default() });
    append(&agent.store, 1, 20, 0).await;
    agent.until("acknowledged", |h| h.acknowledged == 1).await;
    assert_eq!(agent.health.borrow().sessions, 1);
    policy.send_replace(Policy { gather, quiet: Some(900), ..Policy::default() });
    let health = agent.until("connected anew", |h| h.sessions == 2).await;
    assert_eq!(health.failures, 0);
    agent.until("said hello", |h| h.messages == 3).await;
    agent.stop().await;
    let topics = [subscriber.next().await.topic, subscriber.next().await.topic];
    assert_eq!(topics, ["data/gw1", "status/gw1"], "no will between them");
    let log = std::fs::read_to_string(directory.path().join("mosquitto.log")).unwrap();
    let keep_alives: Vec<_> = log.lines().filter(|l| l.contains(" as gw1 ")).collect();
    assert!(keep_alives.len() == 2 && keep_alives[0].contains("k60"), "{keep_alives:?}");
    assert!(keep_alives[1].contains("k900"), "{keep_alives:?}");
}

/// tests/peers/consumer.py: paho-mqtt and the code of docs/mqtt.md.
struct Consumer {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Consumer {
    async fn start(port: u16) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new(super::peers::python())
            .arg(root.join("tests/peers/consumer.py"))
            .arg(port.to_string())
            .arg(root.join("docs/mqtt.md"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let (tell, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let mut consumer = Self { child, lines };
        assert_eq!(consumer.line().await, "ready", "tests/run installs paho-mqtt");
        consumer
    }

    async fn line(&mut self) -> String {
        timeout(LIMIT, self.lines.recv()).await.expect("it says something").expect("tests/run installs paho-mqtt")
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(start_paused = true)]
async fn a_python_consumer_reads_compressed_and_plain_messages_as_the_same_frames() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let mut consumer = Consumer::start(broker.port).await;
    let url = format!("url = \"tcp://127.0.0.1:{}\"", broker.port);
    let mut seen: Vec<(Vec<Value>, u64)> = Vec::new();
    for compression in ["none", "deflate"] {
        let store = new_store();
        append(&store, 300, 50, 10).await;
        let uplink = format!(
            "data_topic = \"data\"\nevent_topic = \"event\"\nstatus_topic = \"status\"\nmax_payload = \"16KiB\"\ncompression = \"{compression}\"\n"
        );
        let mut agent = Agent::start(&url, &uplink, Pace::default(), store);
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while frames.len() < 300 {
            let message: Value = serde_json::from_str(&consumer.line().await).unwrap();
            let carried = message["frames"].as_array().unwrap();
            assert_eq!(
                message["compressed"],
                Value::Bool(compression == "deflate" && !carried.is_empty()),
                "{message}"
            );
            frames.extend(carried.iter().cloned());
            bytes += message["bytes"].as_u64().unwrap();
        }
        agent.until_empty().await;
        agent.stop().await;
        frames.sort_by_key(|f| f["meta"]["sequence"].as_u64());
        seen.push((frames, bytes));
    }
    assert_eq!(seen[0].0, seen[1].0);
    assert_eq!(seen[0].0.iter().map(|f| f["meta"]["sequence"].as_u64()).collect::<BTreeSet<_>>().len(), 300);
    assert!(seen[1].1 * 3 < seen[0].1, "{} of {} bytes", seen[1].1, seen[0].1);
}

/// The figures of docs/budget.md: `cargo test --test uplink what_traffic -- --nocapture` prints them.
// In real time: the broker hangs up on a client whose pings come later than half as much again.
#[tokio::test]
async fn what_traffic_is_spent_on_is_what_the_budget_page_says() {
    let site = Site::new();
    let broker = Mosquitto::start(site.directory.path(), &site.server(&["127.0.0.1"], None)).await;
    let traffic = account(site.directory.path());
    let cost = |what: &str| {
        traffic.settle();
        let now = traffic.account().total;
        println!(
            "{what:45} {:7} sent {:6} received {:4} packets {:7} billed",
            now.sent,
            now.received,
            now.packets,
            now.billed(52)
        );
        now
    };
    let pinging = format!("{}keep_alive = \"10s\"", site.broker_settings(broker.port));
    let uplink = format!("{TOPICS}connect = \"always\"\n");
    let mut agent = Agent::start_with(&pinging, &uplink, new_store(), |u| u.with_traffic(&traffic));
    agent.until("said hello", |h| h.messages == 1).await;
    let hello = cost("TLS handshake, CONNECT, status");
    let pinged = async |before: u64| {
        while traffic.account().total.received == before {
            sleep(Duration::from_millis(20)).await;
            traffic.settle();
        }
    };
    // One after the other: the first may have been under way already.
    timeout(LIMIT, pinged(hello.received)).await.expect("it pings");
    let first = cost("and a ping");
    timeout(LIMIT, pinged(first.received)).await.expect("it pings again");
    let ping = cost("and another");
    assert_eq!((ping.sent - first.sent, ping.received - first.received, ping.packets - first.packets), (24, 24, 3));
    agent.stop().await;

    // No ping between these.
    let url = format!("{}keep_alive = \"10m\"", site.broker_settings(broker.port));
    let mut agent = Agent::start_with(&url, &uplink, new_store(), |u| u.with_traffic(&traffic));
    agent.until("said hello", |h| h.messages == 1).await;
    let ready = cost("the goodbye and another session");
    for n in 1..=20 {
        append(&agent.store, 1, 100, 0).await;
        agent.until("acknowledged", |h| h.acknowledged == n).await;
    }
    let single = cost("and 20 frames of 100 bytes, one by one");
    let each = (single.billed(52) - ready.billed(52)) / 20;
    agent.stop().await;

    let before = cost("and the goodbye");
    let store = new_store();
    append(&store, 500, 100, 0).await;
    let mut agent = Agent::start_with(&url, &uplink, store, |u| u.with_traffic(&traffic));
    agent.until_empty().await;
    let gathered = cost("a second session with 500 frames");
    let each_gathered = (gathered.billed(52) - before.billed(52) - hello.billed(52)) / 500;
    println!("a frame alone is billed with {each} bytes, gathered with {each_gathered}");
    assert!((450..550).contains(&each) && each_gathered < each * 3 / 5, "{each} {each_gathered}");
    agent.stop().await;
}
