//! Links that are dead without being closed, and acknowledgements that go missing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use weir::uplink::Pace;

use super::line::{Flow, Line};
use super::rig::{Agent, Mosquitto, Subscriber, TOPICS, append, new_store};

const SECOND: Duration = Duration::from_secs(1);

fn pace() -> Pace {
    Pace { stall: 2 * SECOND, connect: 2 * SECOND, ..Pace::default() }
}

/// A link that stalls silently is given up within the stated time and made anew from the store.
async fn rebuilt_after(flow: Flow) {
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let line = Line::start(broker.port, Duration::ZERO).await;
    // No message is longer than a kibibyte, so that none may take longer than a second more.
    let mut agent = Agent::start(&line.url(), &format!("{TOPICS}max_payload = \"1KiB\"\n"), pace(), new_store());
    append(&agent.store, 20, 40, 0).await;
    agent.until_empty().await;
    line.set(flow);
    let stalled = Instant::now();
    append(&agent.store, 30, 40, 10).await;
    let health = agent.until("given up", |h| h.failures > 0).await;
    let took = stalled.elapsed();
    assert!(took >= 2 * SECOND && took < 20 * SECOND, "{took:?}");
    assert!(health.last_error.unwrap().contains("acknowledged nothing for"));
    assert_eq!(agent.store.status().borrow().cached, 30, "nothing was acknowledged, nothing is given up");
    line.set(Flow::ALL);
    agent.until_empty().await;
    subscriber.until_frames(50).await;
    assert!(line.accepted.load(Ordering::SeqCst) >= 2);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_stalls_in_both_directions_is_made_anew() {
    crate::pace::hold();
    rebuilt_after(Flow::NONE).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_stalls_towards_the_broker_is_made_anew() {
    crate::pace::hold();
    rebuilt_after(Flow { to_broker: false, ..Flow::ALL }).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_whose_acknowledgements_get_lost_is_made_anew() {
    crate::pace::hold();
    rebuilt_after(Flow { to_agent: false, ..Flow::ALL }).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_link_that_died_silently_is_found_out_by_the_next_frame() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let line = Line::start(broker.port, Duration::ZERO).await;
    let mut agent = Agent::start(&line.url(), TOPICS, pace(), new_store());
    agent.until("connected", |h| h.messages == 1).await;
    line.set(Flow::NONE);
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(agent.health.borrow().failures, 0, "silence without a frame under way is no stall");
    append(&agent.store, 1, 40, 0).await;
    agent.until("given up", |h| h.failures > 0).await;
    line.set(Flow::ALL);
    agent.until_empty().await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_link_that_died_silently_is_found_out_by_the_ping() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let line = Line::start(broker.port, Duration::ZERO).await;
    let settings = format!("{}keep_alive = \"5s\"\n", line.url());
    let mut agent = Agent::start(&settings, TOPICS, pace(), new_store());
    agent.until("connected", |h| h.messages == 1).await;
    line.set(Flow::NONE);
    let health = agent.until("given up", |h| h.failures > 0).await;
    assert!(health.last_error.unwrap().contains("did not answer a ping"));
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_when_the_link_was_cut_is_not_given_up() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let line = Line::start(broker.port, Duration::ZERO).await;
    let mut agent = Agent::start(&line.url(), TOPICS, Pace::default(), new_store());
    agent.until("connected", |h| h.messages == 1).await;
    line.set(Flow { to_broker: false, ..Flow::ALL });
    append(&agent.store, 40, 40, 10).await;
    agent.until("published", |h| h.published >= 10).await;
    line.set(Flow::CUT);
    agent.until("lost", |h| h.failures > 0).await;
    // The session has returned: whatever it collected last is committed by now.
    let status = agent.store.status().borrow().clone();
    assert_eq!((status.cached, status.acknowledged), (40, 0));
    assert_eq!(agent.health.borrow().acknowledged, 0);
    line.set(Flow::ALL);
    agent.until_empty().await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_breaks_at_once_does_not_start_the_back_off_anew_but_a_good_one_does() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let line = Line::start(broker.port, Duration::ZERO).await;
    let uplink = format!("{TOPICS}backoff = {{ first = \"100ms\", max = \"60s\", jitter = \"0ms\" }}\n");
    let settled = Duration::from_millis(1500);
    let mut agent = Agent::start(&line.url(), &uplink, Pace { settled, ..Pace::default() }, new_store());
    let mut waits = Vec::new();
    for session in 1..=5 {
        agent.until("connected", |h| h.sessions == session && h.connected_since.is_some()).await;
        if session == 5 {
            // This one is left alone until it has proved itself.
            agent.until("settled", |h| h.failures == 0).await;
        }
        line.set(Flow::CUT);
        agent.until("lost", |h| h.connected_since.is_none()).await;
        line.set(Flow::ALL);
        let lost = Instant::now();
        agent.until("connected again", |h| h.sessions == session + 1).await;
        waits.push(lost.elapsed().as_millis());
    }
    assert!(waits.iter().zip([100, 200, 400, 800, 100]).all(|(wait, least)| wait + 20 >= least), "{waits:?}");
    assert!(waits[4] < 1600 - 20, "not another doubling: {waits:?}");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_backlog_drains_without_any_new_frame() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let store = new_store();
    append(&store, 3000, 40, 30).await;
    store.sync().await.unwrap();
    let line = Line::start(broker.port, Duration::from_millis(20)).await;
    let uplink = format!("{TOPICS}batch = 7\n");
    let mut agent = Agent::start(&line.url(), &uplink, Pace::default(), store);
    agent.until_empty().await;
    assert_eq!(agent.health.borrow().sessions, 1);
    agent.stop().await;
}
