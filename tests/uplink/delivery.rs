//! What arrives, in which form and order, whatever happens to the broker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use weir::model::{Body, Frame, Lane, Quality, Reading, Stamp, Telegram, TelegramKind, Timestamp, Value};
use weir::sim::broker::{Broker, Mode};
use weir::uplink::Pace;

use super::rig::{Agent, Heard, Mosquitto, Relay, Subscriber, TOPICS, append, new_store};

fn url(port: u16) -> String {
    format!("url = \"tcp://127.0.0.1:{port}\"")
}

/// Every frame once per sequence; a repeat must be the same frame.
fn collect(heard: &[Heard]) -> BTreeMap<u64, serde_json::Value> {
    let mut all = BTreeMap::new();
    for message in heard {
        for frame in message.json()["frames"].as_array().into_iter().flatten() {
            let sequence = frame["meta"]["sequence"].as_u64().unwrap();
            let before = all.insert(sequence, frame.clone());
            assert!(before.is_none_or(|b| b == *frame), "sequence {sequence} was used for two frames");
        }
    }
    all
}

#[tokio::test(start_paused = true)]
async fn mosquitto_sub_receives_every_frame_exactly_in_contract_form() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let store = new_store();
    let time = Stamp::synced(Timestamp::parse("2021-11-13T21:54:01Z").unwrap());
    let telegram = Telegram { kind: TelegramKind::OpenlinkIq, bytes: vec![1, 2, 255], rssi: None, corrected_bits: 3 };
    let value = Value { name: "energy".into(), value: Some("1.50".into()), unit: "kWh".into(), quality: Quality::Good };
    let reading = Reading { meter: "incomer".into(), values: vec![value] };
    store.append(Frame { time, lane: Lane::Ordinary, body: Body::Reading(reading), origin: None }).await.unwrap();
    store.append(Frame { time, lane: Lane::Priority, body: Body::Telegram(telegram), origin: None }).await.unwrap();
    let mut agent = Agent::start(&url(broker.port), TOPICS, Pace::default(), store);

    let status = subscriber.next().await;
    assert_eq!((status.topic.as_str(), status.payload.as_str()), ("status/gw1", "{\"connected\": 1}"));
    let event = subscriber.next().await;
    assert_eq!((event.topic.as_str(), event.qos.as_str(), event.retain.as_str()), ("event/gw1", "1", "0"));
    let meta =
        json!({"rssi": null, "noofcorrectedbits": 3, "id": "a3d04b03c1043b7b", "sequence": 2, "clock": "synced"});
    let frame = json!({"frametype": "OpenlinkIQ", "timestamp": "2021-11-13T21:54:01Z", "frame": "AQL/", "meta": meta});
    assert_eq!(event.json(), json!({"version": 1, "frames": [frame]}));
    let data = subscriber.next().await;
    assert_eq!((data.topic.as_str(), data.qos.as_str(), data.retain.as_str()), ("data/gw1", "1", "0"));
    let values = json!([{"name": "energy", "value": "1.50", "unit": "kWh", "quality": "good"}]);
    let frame = json!({"frametype": "Reading", "timestamp": "2021-11-13T21:54:01Z", "meter": "incomer",
        "values": values, "meta": {"sequence": 1, "clock": "synced"}});
    assert_eq!(data.json(), json!({"version": 1, "frames": [frame]}));

    agent.until_empty().await;
    // Connected and drained: a new frame goes at once, without a second one to push it.
    append(&agent.store, 1, 10, 0).await;
    assert_eq!(subscriber.next().await.sequences(), [3]);
    agent.until_empty().await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_backlog_goes_out_priority_first_and_no_message_is_too_long() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let store = new_store();
    append(&store, 1200, 60, 10).await;
    let uplink = format!("{TOPICS}max_payload = \"4KiB\"\nbatch = 500\n");
    let mut agent = Agent::start(&url(broker.port), &uplink, Pace::default(), store);
    let heard = subscriber.until_frames(1200).await;
    assert!(heard.iter().all(|m| m.payload.len() <= 4096));
    assert!(heard.iter().any(|m| m.payload.len() > 3900), "messages are filled");
    let lanes: Vec<_> = heard.iter().filter(|m| m.topic != "status/gw1").map(|m| m.topic.as_str()).collect();
    assert!(lanes.is_sorted_by_key(|topic| *topic != "event/gw1"), "{lanes:?}");
    for topic in ["event/gw1", "data/gw1"] {
        let order: Vec<_> = heard.iter().filter(|m| m.topic == topic).flat_map(Heard::sequences).collect();
        assert!(order.is_sorted_by(|a, b| a < b), "{topic} out of order or repeated");
    }
    assert_eq!(collect(&heard).len(), 1200);
    agent.until_empty().await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_killed_while_draining_loses_nothing() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    // The relay opens only when the subscriber of the new broker listens, so that a loss would be ours.
    let relay = Relay::start(broker.port, false).await;
    let store = new_store();
    append(&store, 6000, 40, 50).await;
    let uplink = format!("{TOPICS}max_payload = \"1KiB\"\n");
    let mut agent = Agent::start(&url(relay.port), &uplink, Pace::default(), store);
    let mut heard = Vec::new();
    for round in 1..=3 {
        let mut subscriber = Subscriber::start(broker.port, &[]).await;
        relay.set_open(true);
        for _ in 0..40 {
            heard.push(subscriber.next().await);
        }
        assert!(agent.store.status().borrow().cached > 0, "killed too late in round {round}");
        broker.kill();
        relay.set_open(false);
        let health = agent.until("noticed", |h| h.connected_since.is_none()).await;
        // mosquitto hands a QoS 0 subscriber each message before it acknowledges it.
        while collect(&heard).len() < usize::try_from(health.acknowledged).unwrap() {
            heard.push(subscriber.next().await);
        }
        broker.restart().await;
    }
    let mut subscriber = Subscriber::start(broker.port, &[]).await;
    relay.set_open(true);
    agent.until_empty().await;
    agent.stop().await;
    while heard.iter().flat_map(Heard::sequences).collect::<BTreeSet<_>>().len() < 6000 {
        heard.push(subscriber.next().await);
    }
    assert_eq!(collect(&heard).into_keys().collect::<Vec<_>>(), (1..=6000).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_frozen_broker_delays_but_loses_nothing() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let mut agent = Agent::start(&url(broker.port), TOPICS, Pace::default(), new_store());
    agent.until("connected", |h| h.messages == 1).await;
    broker.signal("STOP");
    append(&agent.store, 300, 40, 10).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(agent.store.status().borrow().acknowledged, 0);
    broker.signal("CONT");
    agent.until_empty().await;
    let heard = subscriber.until_frames(300).await;
    assert_eq!(collect(&heard).len(), 300);
    assert_eq!(agent.health.borrow().sessions, 1, "the session survived the pause");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_frozen_beyond_the_watchdog_gets_a_new_session_and_everything() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let second = Duration::from_secs(1);
    let pace = Pace { stall: second, connect: second, ..Pace::default() };
    let mut agent = Agent::start(&url(broker.port), TOPICS, pace, new_store());
    agent.until("connected", |h| h.messages == 1).await;
    broker.signal("STOP");
    append(&agent.store, 300, 40, 10).await;
    let health = agent.until("given up twice", |h| h.failures >= 2).await;
    assert!(health.last_error.unwrap().contains("did not accept the session within 1 s"));
    broker.signal("CONT");
    agent.until_empty().await;
    assert_eq!(collect(&subscriber.until_frames(300).await).len(), 300);
    assert!(agent.health.borrow().reconnects() >= 1);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_committed_without_its_own_puback() {
    crate::pace::hold();
    let broker = Broker::plain().await.unwrap();
    let mut received = broker.observe();
    broker.set_mode(Mode::Withholding);
    let pace = Pace { stall: Duration::from_secs(2), ..Pace::default() };
    let store = new_store();
    append(&store, 50, 20, 0).await;
    let mut agent = Agent::start(&format!("url = \"{}\"", broker.url()), TOPICS, pace, store);
    let status = received.recv().await.unwrap();
    assert_eq!(status.topic, "status/gw1");
    let data = received.recv().await.unwrap();
    assert_eq!(data.topic, "data/gw1");
    let health = agent.until("stalled", |h| h.failures == 1).await;
    assert!(health.last_error.unwrap().contains("acknowledged nothing for"));
    let stored = agent.store.status().borrow().clone();
    assert_eq!((stored.cached, stored.acknowledged, health.acknowledged), (50, 0, 0));
    broker.set_mode(Mode::Serving);
    tokio::spawn(async move { while received.recv().await.is_some() {} });
    agent.until_empty().await;
    agent.until("counted", |h| h.acknowledged == 50).await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_link_cut_again_and_again_loses_nothing() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::tls(directory.path()).await.unwrap();
    let mut received = broker.observe();
    let settings = format!("url = \"{}\"\nca_file = \"{}\"", broker.url(), broker.ca_file().unwrap().display());
    let store = new_store();
    append(&store, 4000, 40, 30).await;
    let uplink = format!("{TOPICS}max_payload = \"1KiB\"\n");
    let mut agent = Agent::start(&settings, &uplink, Pace::default(), store);
    let (mut seen, mut messages, mut cuts) = (BTreeSet::new(), 0, 0);
    let mut health = agent.health.clone();
    while seen.len() < 4000 {
        let message = tokio::time::timeout(super::rig::LIMIT, received.recv()).await.unwrap().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        let frames = json["frames"].as_array().cloned().unwrap_or_default();
        seen.extend(frames.iter().map(|f| f["meta"]["sequence"].as_u64().unwrap()));
        messages += 1;
        if messages % 37 == 0 && cuts < 6 {
            cuts += 1;
            let sessions = health.borrow_and_update().sessions;
            broker.set_mode(Mode::Forgetting);
            health.wait_for(|h| h.published >= h.acknowledged + 20).await.unwrap();
            broker.set_mode(Mode::Cut);
            health.wait_for(|h| h.connected_since.is_none() || h.sessions > sessions).await.unwrap();
            broker.set_mode(Mode::Serving);
        }
    }
    tokio::spawn(async move { while received.recv().await.is_some() {} });
    assert_eq!((cuts, seen.into_iter().collect::<Vec<_>>()), (6, (1..=4000).collect()));
    agent.until_empty().await;
    agent.stop().await;
}
