//! When sessions begin and end, and what the broker's other clients see of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use weir::model::{BootId, Timestamp};
use weir::os::clock::{BUILT, Clock, Dial};
use weir::sim::broker::{Broker, Mode};
use weir::uplink::Pace;

use super::rig::{Agent, Mosquitto, Relay, Subscriber, TOPICS, append, new_store, slow_link};

#[tokio::test(start_paused = true)]
async fn on_demand_connects_only_when_data_waits_and_leaves_when_it_is_delivered() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &[]).await;
    let relay = Relay::start(broker.port, true).await;
    let pace = Pace { idle: Duration::from_millis(200), ..Pace::default() };
    let url = format!("url = \"tcp://127.0.0.1:{}\"", relay.port);
    let mut agent = Agent::start(&url, &format!("{TOPICS}connect = \"on-demand\"\n"), pace, new_store());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(relay.accepted.load(Ordering::SeqCst), 0);
    for round in 1..=2 {
        append(&agent.store, 20, 20, 5).await;
        agent.until_empty().await;
        let health = agent.until("left", |h| h.sessions == round && h.connected_since.is_none()).await;
        assert_eq!((health.failures, relay.accepted.load(Ordering::SeqCst) as u64), (0, round));
    }
    // It said goodbye each time: no will was published.
    let heard = subscriber.until_frames(40).await;
    assert!(heard.iter().all(|m| m.topic != "will/gw1"));
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn on_demand_an_unset_clock_lets_priority_frames_through_and_wakes_nobody_for_the_others() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let relay = Relay::start(broker.port, true).await;
    let url = format!("url = \"tcp://127.0.0.1:{}\"", relay.port);
    let pace = Pace { idle: Duration::from_millis(100), ..Pace::default() };
    let dial = Dial::new(Timestamp::from_millis(0), BootId::new([1; 8]));
    let clock = Clock::of(dial.clone(), Duration::from_hours(1), None);
    let uplink = format!("{TOPICS}connect = \"on-demand\"\n");
    let mut agent = Agent::start_by(clock.clone(), &url, &uplink, new_store(), |uplink| uplink.with_pace(pace));
    append(&agent.store, 16, 20, 0).await;
    append(&agent.store, 4, 20, 1).await;
    let health = agent.until("left", |h| h.sessions == 1 && h.connected_since.is_none()).await;
    assert_eq!(health.acknowledged, 4, "the priority frames");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(relay.accepted.load(Ordering::SeqCst), 1, "it does not connect for frames that wait");
    dial.set(BUILT.plus(Duration::from_hours(1)));
    dial.trust(true);
    dial.pass(Duration::from_secs(1));
    clock.stamp();
    agent.until_empty().await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_gateway_leaves_its_will_and_one_that_shuts_down_does_not() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let relay = Relay::start(broker.port, true).await;
    let url = format!("url = \"tcp://127.0.0.1:{}\"", relay.port);
    let mut agent = Agent::start(&url, TOPICS, Pace::default(), new_store());
    assert_eq!(subscriber.next().await.topic, "status/gw1");
    agent.until("acknowledged", |h| h.messages == 1).await;
    relay.set_open(false);
    let will = subscriber.next().await;
    assert_eq!((will.topic.as_str(), will.payload.as_str()), ("will/gw1", "{\"connected\": 0}"));
    assert_eq!((will.qos.as_str(), will.retain.as_str()), ("1", "0"));
    relay.set_open(true);
    assert_eq!(subscriber.next().await.topic, "status/gw1");
    agent.until("connected", |h| h.messages == 2).await;
    agent.stop().await;
    // The next thing anybody hears is the next agent, not a will.
    let agent = Agent::start(&url, TOPICS, Pace::default(), new_store());
    assert_eq!(subscriber.next().await.topic, "status/gw1");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_agents_with_one_client_id_slow_down_instead_of_fighting_at_full_speed() {
    crate::pace::hold();
    let broker = Broker::plain().await.unwrap();
    let url = format!("url = \"{}\"\nclient_id = \"same\"", broker.url());
    let uplink = format!("{TOPICS}backoff = {{ first = \"200ms\", max = \"60s\", jitter = \"20ms\" }}\n");
    let agents = [(); 2].map(|()| Agent::start(&url, &uplink, Pace::default(), new_store()));
    tokio::time::sleep(Duration::from_secs(4)).await;
    for agent in &agents {
        let health = agent.health.borrow().clone();
        // Doubling from 200 ms there is time for 5 sessions, at a steady 200 ms for 20.
        assert!((1..=6).contains(&health.sessions), "{health:?}");
        assert!(health.failures > 0);
    }
    for agent in agents {
        agent.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_longer_than_the_limit_goes_alone_and_holds_up_nobody() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let store = new_store();
    append(&store, 2, 20, 0).await;
    // Base64 makes it longer than 256 KiB, which is the longest frame the store takes.
    append(&store, 1, 200_000, 0).await;
    append(&store, 2, 20, 0).await;
    let url = format!("url = \"tcp://127.0.0.1:{}\"", broker.port);
    let mut agent = Agent::start(&url, &format!("{TOPICS}max_payload = \"1KiB\"\n"), Pace::default(), store);
    let heard = subscriber.until_frames(5).await;
    let frames: Vec<_> = heard.iter().map(super::rig::Heard::sequences).filter(|s| !s.is_empty()).collect();
    assert_eq!(frames, [vec![1, 2], vec![3], vec![4, 5]]);
    agent.until_empty().await;
    assert_eq!(agent.health.borrow().oversized, 1);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_link_is_not_taken_for_a_dead_one() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    // 300 KiB through 20 KiB/s: were they queued at once, a ping would wait 15 s behind them.
    let port = slow_link(broker.port, 20 << 10).await;
    let store = new_store();
    append(&store, 100, 2200, 0).await;
    let url = format!("url = \"tcp://127.0.0.1:{port}\"\nkeep_alive = \"5s\"");
    let mut agent = Agent::start(&url, &format!("{TOPICS}max_payload = \"32KiB\"\n"), Pace::default(), store);
    agent.until_empty().await;
    let health = agent.health.borrow().clone();
    assert_eq!((health.sessions, health.failures, health.published), (1, 0, 100), "{health:?}");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_acknowledgements_but_not_for_ever() {
    crate::pace::hold();
    let broker = Broker::plain().await.unwrap();
    broker.set_mode(Mode::Withholding);
    let pace = Pace { grace: Duration::from_millis(500), hang_up: Duration::from_millis(500), ..Pace::default() };
    let store = new_store();
    append(&store, 30, 20, 0).await;
    let url = format!("url = \"{}\"", broker.url());
    let mut agent = Agent::start(&url, TOPICS, pace, store.clone());
    agent.until("published", |h| h.published == 30).await;
    let begun = tokio::time::Instant::now();
    agent.stop().await;
    assert!(begun.elapsed() >= Duration::from_millis(500) && begun.elapsed() < Duration::from_secs(30));
    assert_eq!(store.status().borrow().cached, 30);
}

#[tokio::test(start_paused = true)]
async fn a_message_too_long_for_the_broker_is_made_smaller_and_a_frame_too_long_goes_last() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    // mosquitto hangs up on a client of MQTT 3.1.1 that sends a longer packet.
    let limited = "allow_anonymous true\nmax_packet_size 3000";
    let broker = Mosquitto::start(directory.path(), limited).await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let store = new_store();
    append(&store, 100, 40, 0).await;
    append(&store, 1, 4000, 0).await;
    append(&store, 100, 40, 0).await;
    let uplink = format!(
        "{TOPICS}max_payload = \"16KiB\"\nbackoff = {{ first = \"100ms\", max = \"100ms\", jitter = \"0ms\" }}\n"
    );
    let pace = Pace { refused: Duration::from_secs(2), ..Pace::default() };
    let mut agent = Agent::start(&format!("url = \"tcp://127.0.0.1:{}\"", broker.port), &uplink, pace.clone(), store);
    let heard = subscriber.until_frames(200).await;
    let sequences: std::collections::BTreeSet<_> = heard.iter().flat_map(super::rig::Heard::sequences).collect();
    assert_eq!(sequences, (1..=201).filter(|n| *n != 101).collect());
    agent.until("told", |h| h.refused == 1 && h.acknowledged == 200).await;
    assert_eq!(agent.store.status().borrow().cached, 1, "it stays in the store");
    // What comes now does not wait for it.
    append(&agent.store, 20, 40, 0).await;
    agent.until("delivered", |h| h.acknowledged == 220).await;
    let failures = agent.health.borrow().failures;
    agent.until("tried again", |h| h.failures > failures).await;
    append(&agent.store, 20, 40, 0).await;
    agent.until("delivered", |h| h.acknowledged == 240).await;
    agent.stop().await;
}
