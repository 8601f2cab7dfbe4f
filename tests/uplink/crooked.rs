//! A broker that acknowledges twice, late or never, and dies between: what it did not take in
//! must not be given up.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use rand::RngExt;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, PubAck};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use weir::os::random::repeatable;
use weir::setting::Topic;
use weir::uplink::{Pace, Policy};

use super::rig::{Agent, TOPICS, append, new_store};

/// Sequences in messages that the broker has taken in before it acknowledged them.
type Taken = Arc<Mutex<BTreeSet<u64>>>;

fn take_in(payload: &[u8], taken: &Taken) {
    let json: serde_json::Value = serde_json::from_slice(payload).unwrap();
    let frames = json["frames"].as_array().cloned().unwrap_or_default();
    taken.lock().unwrap().extend(frames.iter().map(|f| f["meta"]["sequence"].as_u64().unwrap()));
}

/// How the broker misbehaves in one connection.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Hangs up after so many messages, with the last of them neither taken in nor acknowledged.
    Dies(u32),
    /// Acknowledges every message twice at once.
    Twice,
    /// Acknowledges this message again, so many messages later.
    Again(u32, u32),
    /// Hangs up on every message whose topic begins with one of these.
    Denies([&'static str; 2]),
    /// Never acknowledges this message; it was taken in.
    Never(u32),
    /// Takes in nothing from this message on, but acknowledges all after it, as copies of old
    /// PUBACKs do whose packet ids are in use again; hangs up after five of them.
    Stale(u32),
    None,
}

/// After so many messages every faulty connection ends, so that there are many of them.
const MOST: u32 = 90;

async fn converse(mut stream: TcpStream, fault: Fault, taken: &Taken) -> std::io::Result<()> {
    let mut incoming = BytesMut::new();
    let (mut messages, mut kept) = (0, None);
    loop {
        let packet = loop {
            match Packet::read(&mut incoming, 1 << 24) {
                Ok(packet) => break packet,
                Err(_) if stream.read_buf(&mut incoming).await? > 0 => {}
                Err(_) => return Ok(()),
            }
        };
        let mut answers = Vec::new();
        match packet {
            Packet::Connect(_) => answers.push(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))),
            Packet::PingReq => answers.push(Packet::PingResp),
            Packet::Publish(publish) => {
                messages += 1;
                let ack = Packet::PubAck(PubAck::new(publish.pkid));
                match fault {
                    Fault::Dies(after) if messages >= after => return Ok(()),
                    Fault::Twice | Fault::Again(..) if messages >= MOST => return Ok(()),
                    Fault::Denies(topics) if topics.iter().any(|t| publish.topic.starts_with(t.as_bytes())) => {
                        return Ok(());
                    }
                    Fault::Stale(from) if messages > from + 5 => return Ok(()),
                    Fault::Stale(from) if messages == from => continue,
                    Fault::Stale(from) if messages > from => {
                        let mut outgoing = BytesMut::new();
                        ack.write(&mut outgoing, usize::MAX).unwrap();
                        stream.write_all(&outgoing).await?;
                        continue;
                    }
                    Fault::Twice => answers.push(ack.clone()),
                    Fault::Again(which, _) if messages == which => kept = Some(ack.clone()),
                    _ => {}
                }
                take_in(&publish.payload, taken);
                if !matches!(fault, Fault::Never(which) if messages == which) {
                    answers.push(ack);
                }
                if let Fault::Again(which, later) = fault
                    && messages == which + later
                {
                    answers.extend(kept.take());
                }
            }
            _ => return Ok(()),
        }
        for answer in answers {
            let mut outgoing = BytesMut::new();
            answer.write(&mut outgoing, usize::MAX).unwrap();
            stream.write_all(&outgoing).await?;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_lost_puback_among_many_that_come_gets_a_new_session() {
    crate::pace::hold();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("url = \"tcp://{}\"", listener.local_addr().unwrap());
    let broker = tokio::spawn(async move {
        for connection in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let fault = if connection == 0 { Fault::Never(4) } else { Fault::None };
            let _ = converse(stream, fault, &Taken::default()).await;
        }
    });
    let pace = Pace { stall: Duration::from_secs(1), ..Pace::default() };
    let mut agent = Agent::start(&url, TOPICS, pace, new_store());
    let began = tokio::time::Instant::now();
    while agent.health.borrow().failures == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", agent.health.borrow());
        append(&agent.store, 1, 30, 0).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(agent.health.borrow().published > 20, "the others went on all the time");
    agent.until_empty().await;
    assert_eq!(agent.health.borrow().sessions, 2);
    agent.stop().await;
    broker.abort();
}

#[test]
fn news_do_not_starve_a_session_that_is_to_be_made_anew() {
    let (tell, ended) = std::sync::mpsc::channel();
    // In a thread of its own: what is starved could not end the test either.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("url = \"tcp://{}\"", listener.local_addr().unwrap());
            let broker = tokio::spawn(async move {
                for connection in 0.. {
                    let (stream, _) = listener.accept().await.unwrap();
                    let fault = if connection == 0 { Fault::Never(1) } else { Fault::None };
                    let _ = converse(stream, fault, &Taken::default()).await;
                }
            });
            let (policy, kept) = watch::channel(Policy::default());
            let (document, newest) = watch::channel(Some("{\"n\":1}".to_owned()));
            let topic = Topic::parse("about").unwrap();
            let pace = Pace { stall: Duration::from_secs(1), ..Pace::default() };
            let topics = "data_topic = \"data\"\nevent_topic = \"event\"\n";
            let mut agent = Agent::start_with(&url, topics, new_store(), |uplink| {
                uplink.with_pace(pace).with_policy(kept).with_status(&topic, newest).unwrap()
            });
            append(&agent.store, 1, 20, 0).await;
            agent.until("published", |h| h.published == 1).await;
            policy.send_replace(Policy { quiet: Some(900), ..Policy::default() });
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            document.send_replace(Some("{\"n\":2}".to_owned()));
            agent.until("connected anew", |h| h.sessions == 2 && h.messages >= 2).await;
            agent.stop().await;
            broker.abort();
        });
        tell.send(()).unwrap();
    });
    ended.recv_timeout(Duration::from_secs(120)).expect("the uplink goes on");
}

#[tokio::test(start_paused = true)]
async fn a_refused_frame_that_must_wait_makes_no_sessions() {
    crate::pace::hold();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("url = \"tcp://{}\"", listener.local_addr().unwrap());
    let broker = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = converse(stream, Fault::Denies(["data", "data"]), &Taken::default()).await;
        }
    });
    let (policy, kept) = watch::channel(Policy::default());
    let topics = "data_topic = \"data\"\nevent_topic = \"event\"\nconnect = \"on-demand\"\n";
    let pace = Pace { idle: Duration::from_millis(20), refused: Duration::from_millis(400), ..Pace::default() };
    let mut agent = Agent::start_with(&url, topics, new_store(), |u| u.with_pace(pace).with_policy(kept));
    append(&agent.store, 1, 20, 0).await;
    agent.until("set aside", |h| h.refused == 1).await;
    policy.send_replace(Policy { defer: true, ..Policy::default() });
    agent.until("left", |h| h.connected_since.is_none()).await;
    let before = agent.health.borrow().sessions;
    // Long enough for the frame's time to come, and then for dozens of sessions.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(agent.health.borrow().sessions <= before + 1, "{:?}", agent.health.borrow());
    policy.send_replace(Policy::default());
    agent.until("tried again", |h| h.sessions > before + 1).await;
    agent.stop().await;
    broker.abort();
}

#[tokio::test(start_paused = true)]
async fn no_frame_is_given_up_that_a_crooked_broker_did_not_take_in() {
    crate::pace::hold();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("url = \"tcp://{}\"", listener.local_addr().unwrap());
    let taken = Taken::default();
    let seen = taken.clone();
    let broker = tokio::spawn(async move {
        let mut random = repeatable(11);
        for connection in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let n = random.random_range(2..60);
            let fault = match connection % 6 {
                _ if connection > 40 => Fault::None,
                0 => Fault::Dies(n),
                1 => Fault::Twice,
                2 => Fault::Again(n, random.random_range(1..30)),
                3 => Fault::Stale(n),
                4 => Fault::Dies(2 * n),
                _ => Fault::Again(n, 1),
            };
            let _ = converse(stream, fault, &seen).await;
        }
    });
    let store = new_store();
    append(&store, 6000, 30, 40).await;
    let pace = Pace { stall: Duration::from_millis(500), ..Pace::default() };
    let uplink = format!(
        "{TOPICS}max_payload = \"1KiB\"\nbackoff = {{ first = \"100ms\", max = \"100ms\", jitter = \"0ms\" }}\n"
    );
    let mut agent = Agent::start(&url, &uplink, pace, store);
    let mut status = agent.store.status();
    while agent.store.status().borrow().cached > 0 {
        let acknowledged = agent.store.status().borrow().acknowledged;
        let known = taken.lock().unwrap().len() as u64;
        assert!(acknowledged <= known, "{acknowledged} given up, {known} taken in");
        tokio::time::timeout(super::rig::LIMIT, status.changed()).await.expect("it goes on").unwrap();
    }
    agent.until("acknowledged", |h| h.acknowledged >= 6000).await;
    assert_eq!(*taken.lock().unwrap(), (1..=6000).collect());
    assert!(agent.health.borrow().sessions > 20, "{:?}", agent.health.borrow());
    agent.stop().await;
    broker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_ends_the_session_holds_up_no_other_topic() {
    crate::pace::hold();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("url = \"tcp://{}\"", listener.local_addr().unwrap());
    let taken = Taken::default();
    let (seen, allow) = (taken.clone(), Arc::new(Mutex::new(false)));
    let allowed = allow.clone();
    let broker = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let fault = if *allowed.lock().unwrap() { Fault::None } else { Fault::Denies(["event/", "status/"]) };
            let _ = converse(stream, fault, &seen).await;
        }
    });
    let store = new_store();
    // Numbers 1, 11, 21 ... are priority frames.
    append(&store, 200, 30, 10).await;
    let pace = Pace { refused: Duration::from_secs(2), ..Pace::default() };
    let uplink = format!(
        "{TOPICS}max_payload = \"1KiB\"\nbackoff = {{ first = \"100ms\", max = \"100ms\", jitter = \"0ms\" }}\n"
    );
    let mut agent = Agent::start(&url, &uplink, pace, store);
    agent.until("delivered", |h| h.acknowledged == 180).await;
    let expected: BTreeSet<u64> = (1..=200).filter(|n| n % 10 != 1).collect();
    assert_eq!(*taken.lock().unwrap(), expected);
    assert_eq!(agent.store.status().borrow().cached_priority, 20, "nothing is dropped");
    append(&agent.store, 5, 30, 0).await;
    agent.until("delivered at once", |h| h.acknowledged == 185).await;
    *allow.lock().unwrap() = true;
    agent.until_empty().await;
    assert_eq!(*taken.lock().unwrap(), (1..=205).collect());
    agent.stop().await;
    broker.abort();
}
