//! Several brokers: the next one when the first is gone, or each frame to all of them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use weir::setting::Topic;
use weir::store::Store;
use weir::uplink::Pace;

use super::line::{Flow, Line};
use super::rig::{Agent, Mosquitto, Subscriber, TOPICS, append, new_store, settings};

const SECOND: Duration = Duration::from_secs(1);

/// Two real brokers, each with a directory of its own.
struct Pair {
    first: Mosquitto,
    second: Mosquitto,
    _directories: [tempfile::TempDir; 2],
}

impl Pair {
    async fn start() -> Self {
        let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let first = Mosquitto::start(directories[0].path(), "allow_anonymous true").await;
        let second = Mosquitto::start(directories[1].path(), "allow_anonymous true").await;
        Self { first, second, _directories: directories }
    }

    fn settings(&self, of_second: &str) -> String {
        let table = |port: u16| format!("[[broker]]\nurl = \"tcp://127.0.0.1:{port}\"\n");
        format!("{}{}{of_second}", table(self.first.port), table(self.second.port))
    }
}

fn pace() -> Pace {
    Pace { connect: 3 * SECOND, stall: 3 * SECOND, settled: 2 * SECOND, ..Pace::default() }
}

const RETURNS: &str = "return_after = \"1s\"\n";
const MIRROR: &str = "brokers = \"mirror\"\n";

fn numbers(heard: &[super::rig::Heard]) -> BTreeSet<u64> {
    heard.iter().flat_map(super::rig::Heard::sequences).collect()
}

#[tokio::test(start_paused = true)]
async fn the_second_broker_takes_over_and_the_first_gets_the_session_back() {
    crate::pace::hold();
    let mut pair = Pair::start().await;
    let mut on_second = Subscriber::start(pair.second.port, &["-q", "1"]).await;
    let uplink = format!("{TOPICS}{RETURNS}");
    let mut agent = Agent::start(&pair.settings("client_id = \"other\""), &uplink, pace(), new_store());
    append(&agent.store, 10, 20, 0).await;
    agent.until_empty().await;
    agent.until_of(0, "used", |h| h.acknowledged == 10).await;
    pair.first.kill();
    append(&agent.store, 10, 20, 0).await;
    agent.until_of(1, "connected", |h| h.connected_since.is_some()).await;
    agent.until_empty().await;
    assert_eq!(numbers(&on_second.until_frames(10).await), (11..=20).collect());
    // Probes of the first do not disturb the session with the second.
    agent.until_of(0, "tried", |h| h.failures >= 5).await;
    append(&agent.store, 10, 20, 0).await;
    agent.until_empty().await;
    assert_eq!(agent.healths[1].borrow().sessions, 1);
    pair.first.restart().await;
    let mut on_first = Subscriber::start(pair.first.port, &["-q", "1"]).await;
    agent.until_of(0, "back", |h| h.connected_since.is_some()).await;
    let second = agent.until_of(1, "left", |h| h.connected_since.is_none()).await;
    append(&agent.store, 10, 20, 0).await;
    assert_eq!(numbers(&on_first.until_frames(10).await), (31..=40).collect());
    agent.until_empty().await;
    assert_eq!(second.acknowledged, 20);
    // It said goodbye to the second: no will, there only the frames and one status.
    on_second.until_frames(10).await;
    pair.second.publish("end", "{}").await;
    assert_eq!(on_second.next().await.topic, "end");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_first_broker_that_hangs_is_left_and_returned_to_only_when_it_accepts() {
    crate::pace::hold();
    let pair = Pair::start().await;
    let uplink = format!("{TOPICS}{RETURNS}");
    let mut agent = Agent::start(&pair.settings(""), &uplink, pace(), new_store());
    agent.until_of(0, "connected", |h| h.messages == 1).await;
    pair.first.signal("STOP");
    append(&agent.store, 50, 20, 5).await;
    agent.until_empty().await;
    agent.until_of(1, "acknowledged", |h| h.acknowledged == 50).await;
    // The kernel still accepts connections for the stopped broker; that is no session.
    let failures = agent.healths[0].borrow().failures;
    agent.until_of(0, "tried twice", |h| h.failures >= failures + 2).await;
    assert_eq!(agent.healths[1].borrow().sessions, 1);
    pair.first.signal("CONT");
    agent.until_of(0, "back", |h| h.connected_since.is_some() && h.sessions == 2).await;
    append(&agent.store, 10, 20, 5).await;
    agent.until_empty().await;
    agent.until_of(0, "used", |h| h.acknowledged >= 10).await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn on_demand_takes_the_second_broker_and_tries_the_first_when_it_is_time() {
    crate::pace::hold();
    let mut pair = Pair::start().await;
    pair.first.kill();
    let uplink = format!("{TOPICS}{RETURNS}connect = \"on-demand\"\n");
    let pace = Pace { idle: Duration::from_millis(200), ..pace() };
    let mut agent = Agent::start(&pair.settings(""), &uplink, pace, new_store());
    append(&agent.store, 5, 20, 0).await;
    agent.until_empty().await;
    agent.until_of(1, "left", |h| h.sessions == 1 && h.connected_since.is_none()).await;
    pair.first.restart().await;
    tokio::time::sleep(2 * SECOND).await;
    append(&agent.store, 5, 20, 0).await;
    agent.until_empty().await;
    agent.until_of(0, "used", |h| h.acknowledged == 5).await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_mirror_deletes_a_frame_when_both_required_brokers_have_it() {
    crate::pace::hold();
    let mut pair = Pair::start().await;
    let mut on_first = Subscriber::start(pair.first.port, &["-q", "1"]).await;
    pair.second.kill();
    let mut agent =
        Agent::start(&pair.settings("client_id = \"other\""), &format!("{TOPICS}{MIRROR}"), pace(), new_store());
    append(&agent.store, 300, 20, 7).await;
    assert_eq!(numbers(&on_first.until_frames(300).await).len(), 300);
    agent.until_of(0, "acknowledged", |h| h.acknowledged == 300).await;
    assert_eq!(agent.store.status().borrow().cached, 300, "the second has none of them");
    pair.second.restart().await;
    let mut on_second = Subscriber::start(pair.second.port, &["-q", "1"]).await;
    append(&agent.store, 50, 20, 7).await;
    agent.until_empty().await;
    // The subscriber may have come after the agent's session; the broker's word counts.
    agent.until_of(1, "acknowledged", |h| h.acknowledged == 350).await;
    let first = agent.until_of(0, "acknowledged", |h| h.acknowledged == 350).await;
    assert_eq!((first.published, first.sessions), (350, 1), "the first got nothing twice");
    append(&agent.store, 10, 20, 0).await;
    on_second.until_frames(10).await;
    agent.until_empty().await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_not_required_holds_up_nobody() {
    crate::pace::hold();
    let mut pair = Pair::start().await;
    pair.second.kill();
    let mut agent = Agent::start(&pair.settings("required = false"), &format!("{TOPICS}{MIRROR}"), pace(), new_store());
    append(&agent.store, 100, 20, 7).await;
    agent.until_empty().await;
    pair.second.restart().await;
    agent.until_of(1, "connected", |h| h.connected_since.is_some()).await;
    append(&agent.store, 20, 20, 7).await;
    agent.until_empty().await;
    // It gets what comes while it is there, as far as the others leave it in the store.
    agent.until_of(0, "acknowledged", |h| h.acknowledged == 120).await;
    agent.stop().await;
}

/// A mirror with its record beside the store, the second broker gone.
fn mirror(settings: &str, store: Store, record: PathBuf) -> Agent {
    Agent::start_with(settings, &format!("{TOPICS}{MIRROR}"), store, |uplink| {
        uplink.with_pace(pace()).with_mirror_file(record)
    })
}

fn open(path: &std::path::Path) -> Store {
    Store::open(&settings(&format!("path = \"{}\"", path.display()))).unwrap()
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_healthy_broker_is_not_sent_everything_again() {
    crate::pace::hold();
    let mut pair = Pair::start().await;
    pair.second.kill();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    append(&store, 400, 20, 9).await;
    store.sync().await.unwrap();
    let mut agent = mirror(&pair.settings(""), store.clone(), path.join("mirror"));
    agent.until_of(0, "acknowledged", |h| h.acknowledged == 400).await;
    agent.stop().await;
    store.close().await.unwrap();

    let store = open(&path);
    let mut agent = mirror(&pair.settings(""), store.clone(), path.join("mirror"));
    append(&agent.store, 20, 20, 0).await;
    let health = agent.until_of(0, "acknowledged", |h| h.acknowledged == 20).await;
    assert_eq!(health.published, 20, "only what is new");
    pair.second.restart().await;
    agent.until_empty().await;
    agent.until_of(1, "acknowledged", |h| h.acknowledged == 420).await;
    agent.stop().await;
    store.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_record_that_outlived_its_store_skips_no_frame() {
    crate::pace::hold();
    let mut pair = Pair::start().await;
    pair.second.kill();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let record = directory.path().join("record");
    let store = open(&directory.path().join("one"));
    append(&store, 400, 20, 9).await;
    store.sync().await.unwrap();
    let mut agent = mirror(&pair.settings(""), store.clone(), record.clone());
    agent.until_of(0, "acknowledged", |h| h.acknowledged == 400).await;
    agent.stop().await;
    store.close().await.unwrap();
    assert!(record.exists());

    // Another store, whose numbers start again.
    let store = open(&directory.path().join("other"));
    let mut agent = mirror(&pair.settings(""), store.clone(), record.clone());
    append(&agent.store, 50, 20, 9).await;
    agent.until_of(0, "acknowledged", |h| h.acknowledged == 50).await;
    agent.stop().await;
    store.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_both_had_before_a_crash_is_given_up_at_the_next_start() {
    crate::pace::hold();
    let pair = Pair::start().await;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    append(&store, 100, 20, 9).await;
    store.sync().await.unwrap();
    let saved = directory.path().join("saved");
    assert!(std::process::Command::new("cp").args(["-r"]).args([&path, &saved]).status().unwrap().success());
    let mut agent = mirror(&pair.settings(""), store.clone(), path.join("mirror"));
    agent.until_empty().await;
    agent.stop().await;
    store.close().await.unwrap();
    // The store forgets the acknowledgements, as after a power cut; the record does not.
    std::fs::copy(path.join("mirror"), saved.join("mirror")).unwrap();
    let store = open(&saved);
    assert_eq!(store.status().borrow().cached, 100);
    let mut agent = mirror(&pair.settings(""), store.clone(), saved.join("mirror"));
    agent.until_empty().await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_mirror_on_demand_leaves_the_broker_that_has_everything() {
    crate::pace::hold();
    let pair = Pair::start().await;
    let line = Line::start(pair.first.port, Duration::ZERO).await;
    let settings = pair.settings("").replace(&format!(":{}\"", pair.second.port), ":1\"");
    let settings = settings.replace(&format!(":{}\"", pair.first.port), &format!(":{}\"", line.port));
    let uplink = format!("{TOPICS}{MIRROR}connect = \"on-demand\"\n");
    let pace = Pace { idle: Duration::from_millis(200), ..pace() };
    let mut agent = Agent::start(&settings, &uplink, pace, new_store());
    append(&agent.store, 30, 20, 4).await;
    agent.until_of(0, "left", |h| h.acknowledged == 30 && h.connected_since.is_none()).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(agent.healths[0].borrow().sessions, 1, "frames that wait for the other do not bring it back");
    append(&agent.store, 1, 20, 0).await;
    agent.until_of(0, "left again", |h| h.acknowledged == 31 && h.connected_since.is_none()).await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_newest_status_document_goes_before_the_backlog_and_again_after_a_reconnect() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let line = Line::start(broker.port, Duration::ZERO).await;
    let store = new_store();
    append(&store, 100, 20, 0).await;
    let (write, document) = watch::channel(None);
    let topic = Topic::parse("about/{id}").unwrap();
    write.send_replace(Some("{\"n\": 1}".to_owned()));
    let mut agent = Agent::start_with(&line.url(), TOPICS, store, |uplink| {
        uplink.with_pace(pace()).with_status(&topic, document).unwrap()
    });
    let heard = subscriber.until_frames(100).await;
    let order: Vec<_> = heard.iter().map(|h| h.topic.as_str()).take(3).collect();
    assert_eq!(order, ["status/gw1", "about/gw1", "data/gw1"]);
    assert_eq!((heard[1].payload.as_str(), heard[1].qos.as_str()), ("{\"n\": 1}", "1"));
    agent.until("acknowledged", |h| h.messages >= 3).await;
    write.send_replace(Some("{\"n\": 2}".to_owned()));
    assert_eq!(subscriber.next().await.payload, "{\"n\": 2}");
    // Lost on the way: it comes again.
    line.set(Flow { to_broker: false, ..Flow::ALL });
    write.send_replace(Some("{\"n\": 3}".to_owned()));
    // The session has one task; once it has sent this frame, it has sent the document before.
    let published = agent.health.borrow().published;
    append(&agent.store, 1, 20, 0).await;
    agent.until("published", |h| h.published > published).await;
    line.set(Flow::CUT);
    agent.until("lost", |h| h.connected_since.is_none()).await;
    line.set(Flow::ALL);
    let mut payloads = Vec::new();
    while payloads.last().is_none_or(|p| p != "{\"n\": 3}") {
        payloads.push(subscriber.next().await.payload);
    }
    agent.until_empty().await;
    // Of two that were written while there was no session only the newest is sent.
    line.set(Flow::CUT);
    agent.until("lost", |h| h.connected_since.is_none()).await;
    write.send_replace(Some("{\"n\": 4}".to_owned()));
    write.send_replace(Some("{\"n\": 5}".to_owned()));
    line.set(Flow::ALL);
    while payloads.last().is_none_or(|p| p != "{\"n\": 5}") {
        payloads.push(subscriber.next().await.payload);
    }
    assert!(!payloads.contains(&"{\"n\": 4}".to_owned()), "{payloads:?}");
    // PUBACKs come in order: with this frame's, the document's has come.
    append(&agent.store, 1, 20, 0).await;
    agent.until("acknowledged", |h| h.acknowledged >= 102).await;
    assert_eq!(subscriber.next().await.topic, "data/gw1");
    line.set(Flow::CUT);
    agent.until("lost", |h| h.connected_since.is_none()).await;
    line.set(Flow::ALL);
    // Nothing new: after this connect there is only the status payload.
    let mut topics = vec![subscriber.next().await.topic, subscriber.next().await.topic];
    topics.sort();
    assert_eq!(topics, ["status/gw1", "will/gw1"]);
    append(&agent.store, 1, 20, 0).await;
    assert_eq!(subscriber.next().await.topic, "data/gw1");
    drop(write);
    append(&agent.store, 1, 20, 0).await;
    assert_eq!(subscriber.next().await.topic, "data/gw1");
    agent.stop().await;
}
