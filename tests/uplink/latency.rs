//! Throughput over a link with half a second of round trip.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use weir::uplink::Pace;

use super::line::Line;
use super::rig::{Agent, Mosquitto, TOPICS, append, new_store};

const HALF: Duration = Duration::from_millis(250);

/// How long a backlog takes to go out, the first connect included.
async fn drain(delay: Duration, frames: usize, max_payload: &str, pace: &Pace) -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true\nlog_type error").await;
    let line = Line::start(broker.port, delay).await;
    let store = new_store();
    append(&store, frames, 100, 0).await;
    let begun = Instant::now();
    let uplink = format!("{TOPICS}max_payload = \"{max_payload}\"\n");
    let mut agent = Agent::start(&line.url(), &uplink, pace.clone(), store);
    agent.until_empty().await;
    let took = begun.elapsed();
    agent.stop().await;
    took
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

#[tokio::test(start_paused = true)]
async fn half_a_second_of_round_trip_starves_neither_a_backlog_nor_live_frames() {
    crate::pace::hold();
    let pace = Pace::default();
    let mut drained = Vec::new();
    for delay in [Duration::ZERO, HALF] {
        let big = drain(delay, 10_000, "128KiB", &pace).await;
        let small = drain(delay, 4_000, "4KiB", &pace).await;
        let (waiting, sent) = live(delay, &pace).await;
        println!(
            "round trip {} ms: 10,000 frames in {big:?} in 128 KiB, 4,000 in {small:?} in 4 KiB; \
             at 200 frames/s at most {waiting} wait, {sent} messages",
            2 * delay.as_millis()
        );
        // Those of one round trip, and of two seconds on a busy machine; it would be nearly all of the thousand.
        assert!(waiting < 500, "{waiting}");
        drained.push((big, small));
    }
    // The machine's own work is in both. One message each round trip would take 10 s and 2 minutes more.
    let [(big, small), (far_big, far_small)] = drained[..] else { panic!("{drained:?}") };
    assert!(far_big < 2 * big + Duration::from_secs(5), "{drained:?}");
    assert!(far_small < 2 * small + Duration::from_secs(30), "{drained:?}");
}
