//! Somebody calls: the broker is tried at once, however long the back-off is.

use std::time::Duration;

use weir::uplink::{Nudge, Pace};

use super::rig::{Agent, Mosquitto, TOPICS, append, new_store};

/// After the first failure nothing is tried for longer than a test may take.
const LONG: &str = "backoff = { first = \"6h\", max = \"6h\", jitter = \"10ms\" }\n";

/// Long enough for another attempt, if one were made.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[tokio::test(start_paused = true)]
async fn a_nudge_in_a_long_back_off_brings_the_session_at_once_and_each_one_attempt_only() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let mut broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    broker.kill();
    let (nudge, url) = (Nudge::default(), format!("url = \"tcp://127.0.0.1:{}\"", broker.port));
    let mut agent = Agent::start_with(&url, &format!("{TOPICS}{LONG}"), new_store(), |uplink| {
        uplink.with_pace(Pace { connect: Duration::from_secs(3), ..Pace::default() }).with_nudge(nudge.clone())
    });
    append(&agent.store, 5, 20, 0).await;
    agent.until("failed", |h| h.failures == 1).await;
    // Many at once are one attempt.
    (0..50).for_each(|_| nudge.now());
    agent.until("tried again", |h| h.failures == 2).await;
    a_while().await;
    assert_eq!(agent.health.borrow().failures, 2);
    // The back-off knows nothing of a broker that is back.
    broker.restart().await;
    a_while().await;
    assert_eq!((agent.health.borrow().failures, agent.health.borrow().sessions), (2, 0));
    nudge.now();
    agent.until("connected", |h| h.sessions == 1).await;
    agent.until_empty().await;
    // What is said during a session asks for nothing, neither then nor after it.
    nudge.now();
    a_while().await;
    assert_eq!(agent.health.borrow().sessions, 1);
    broker.kill();
    agent.until("lost", |h| h.connected_since.is_none() && h.failures == 3).await;
    a_while().await;
    assert_eq!(agent.health.borrow().failures, 3);
    agent.stop().await;
}
