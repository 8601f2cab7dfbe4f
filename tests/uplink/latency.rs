//! Throughput over a link with half a second of round trip.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use weir::uplink::Pace;

use super::line::Line;
use super::rig::{Agent, Mosquitto, TOPICS, append, new_store};

const HALF: Duration = Duration::from_millis(250);

/// Frames a second with which a backlog goes out, the first connect included.
async fn drain(delay: Duration, frames: usize, max_payload: &str, pace: &Pace) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true\nlog_type error").await;
    let line = Line::start(broker.port, delay).await;
    let store = new_store();
    append(&store, frames, 100, 0).await;
    let begun = Instant::now();
    let uplink = format!("{TOPICS}max_payload = \"{max_payload}\"\n");
    let mut agent = Agent::start(&line.url(), &uplink, pace.clone(), store);
    agent.until_empty().await;
    let rate = frames as f64 / begun.elapsed().as_secs_f64();
    agent.stop().await;
    rate
}

/// With 200 frames a second: the most that wait in the store, sampled, and the messages it took.
async fn live(delay: Duration, pace: &Pace) -> (u64, u64) {
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true\nlog_type error").await;
    let line = Line::start(broker.port, delay).await;
    let mut agent = Agent::start(&line.url(), TOPICS, pace.clone(), new_store());
    agent.until("connected", |h| h.messages == 1).await;
    let mut tick = interval(Duration::from_millis(5));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut most = 0;
    for n in 0..1000 {
        tick.tick().await;
        append(&agent.store, 1, 100, 0).await;
        if n > 400 {
            most = most.max(agent.store.status().borrow().cached);
        }
    }
    agent.until_empty().await;
    let messages = agent.health.borrow().messages;
    agent.stop().await;
    (most, messages)
}

#[tokio::test]
async fn half_a_second_of_round_trip_starves_neither_a_backlog_nor_live_frames() {
    let pace = Pace::default();
    for (delay, least_big, least_small) in [(Duration::ZERO, 1000.0, 1000.0), (HALF, 1000.0, 300.0)] {
        let big = drain(delay, 10_000, "128KiB", &pace).await;
        let small = drain(delay, 4_000, "4KiB", &pace).await;
        let (waiting, sent) = live(delay, &pace).await;
        println!(
            "round trip {} ms: backlog {big:.0} frames/s in 128 KiB, {small:.0} in 4 KiB; \
             at 200 frames/s at most {waiting} wait, {sent} messages",
            2 * delay.as_millis()
        );
        assert!(big > least_big && small > least_small, "{big} {small}");
        // Those of one round trip, and of another second on a busy machine.
        assert!(waiting < 300, "{waiting}");
    }
}
