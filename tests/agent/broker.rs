//! A broker that is killed, restarted, frozen and thawed under load, and an agent that stays.

use std::time::Duration;

use weir::sim::radio_replay::Lines;

use super::rig::{Agent, Consumer, Feed, Home, Mosquitto, Relay, Subscriber, until};

const PACE: Duration = Duration::from_millis(5);

fn fed(feeds: &[&Feed]) -> usize {
    feeds.iter().map(|feed| feed.fed().len()).sum()
}

/// Waits until so many more telegrams were fed.
async fn load(feeds: &[&Feed], more: usize) {
    let enough = fed(feeds) + more;
    until("the feeds go on", || fed(feeds) >= enough).await;
}

/// Stops the agent and holds its counters to what arrived.
async fn balance(mut agent: Agent, home: &Home, consumer: &Consumer, feeds: &[&Feed]) {
    assert!(agent.is_running(), "no restart was needed");
    agent.stop().await;
    let counters = home.counters();
    let expected = fed(feeds) as u64;
    assert_eq!(counters["received"], expected, "{counters}");
    assert_eq!((&counters["acknowledged"], &counters["cached"]), (&expected.into(), &0.into()), "{counters}");
    let arrived = consumer.telegrams();
    assert_eq!(arrived.len() as u64, expected);
    assert!(feeds.iter().flat_map(|f| f.fed()).all(|fed| arrived.get(&fed.bytes) == Some(&1)));
}

#[tokio::test]
async fn a_broker_killed_and_restarted_under_load_loses_nothing() {
    let home = Home::new();
    let mut broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &[]).await;
    // The relay opens only when the subscriber of the new broker listens, so that a loss would be ours.
    let relay = Relay::start(broker.port, true).await;
    let roof = Feed::start(Lines::RtlWmbus, PACE, 1200).await;
    let street = Feed::start(Lines::OpenlinkIq, PACE, 1200).await;
    let feeds = [&roof, &street];
    home.configure(
        &format!("url = \"tcp://127.0.0.1:{}\"", relay.port),
        &format!("{}{}", roof.radio("roof", "rtl-wmbus"), street.radio("street", "openlinkiq")),
    );
    let agent = home.run("debug");
    let mut consumer = Consumer::default();
    for _ in 1..=3 {
        let mut session = Consumer::default();
        let before = agent.acknowledged();
        session.listen(&mut subscriber, |c| c.frames.len() >= 100).await;
        let failures = agent.said(&["no session with the broker"]).len();
        broker.kill();
        relay.set_open(false);
        until("the agent noticed", || agent.said(&["no session with the broker"]).len() > failures).await;
        // mosquitto hands a QoS 0 subscriber each message before it acknowledges it.
        session.listen(&mut subscriber, |c| c.frames.len() >= agent.acknowledged() - before).await;
        consumer.merge(session);
        load(&feeds, 100).await;
        broker.restart().await;
        subscriber = Subscriber::start(broker.port, &[]).await;
        relay.set_open(true);
    }
    consumer.listen(&mut subscriber, |c| c.frames.len() >= 2400).await;
    until("all fed", || fed(&feeds) == 2400).await;
    // Each kind of failure is told once until a session has proved itself: lost, refused by the relay.
    let warnings = agent.said(&[" WARN ", "no session with the broker"]);
    assert!((1..=4).contains(&warnings.len()), "{warnings:?}");
    balance(agent, &home, &consumer, &feeds).await;
}

#[tokio::test]
async fn a_broker_frozen_and_thawed_under_load_loses_nothing() {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let street = Feed::start(Lines::OpenlinkIq, 2 * PACE, 1200).await;
    home.configure(
        &format!("url = \"tcp://127.0.0.1:{}\"\nkeep_alive = \"15s\"", broker.port),
        &street.radio("street", "openlinkiq"),
    );
    let agent = home.run("debug");
    let mut consumer = Consumer::default();
    // Shorter than the keep-alive: the session survives.
    consumer.listen(&mut subscriber, |c| c.frames.len() >= 50).await;
    broker.signal("STOP");
    let before = street.fed().len();
    load(&[&street], 100).await;
    assert!(agent.acknowledged() <= before, "a frozen broker acknowledges nothing");
    broker.signal("CONT");
    consumer.listen(&mut subscriber, |c| c.frames.len() >= 200).await;
    assert_eq!(agent.said(&["connected to the broker"]).len(), 1);
    // Longer: the agent gives the session up and makes another.
    broker.signal("STOP");
    agent.until_said(&["no session with the broker", "WARN"]).await;
    broker.signal("CONT");
    consumer.listen(&mut subscriber, |c| c.frames.len() == 1200).await;
    assert_eq!(agent.said(&["connected to the broker"]).len(), 2);
    balance(agent, &home, &consumer, &[&street]).await;
}
