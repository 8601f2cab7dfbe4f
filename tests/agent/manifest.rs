//! From telegrams to a verdict: the gateway's signed account against what a head-end has received.

use std::fs;
use std::time::Duration;

use weir::model::{Stamp, Timestamp};
use weir::os::clock;
use weir::setting::Size;
use weir::sim::radio_replay::Lines;
use weir::store::{Store, StoreSettings, SyncPolicy};

use super::rig::{Feed, Home, Mosquitto, Relay, Subscriber, stderr, stdout, until};

const FED: usize = 400;
const DAY: i64 = 86_400_000;

/// Closes the store's books as the agent does at midnight, so many days from now.
async fn close_books(home: &Home, days: i64) {
    let settings = StoreSettings {
        path: home.path("store"),
        max_size: Size::from_bytes(64 << 20),
        sync: SyncPolicy::Every(Duration::from_secs(1)),
    };
    let store = Store::open(&settings).unwrap();
    let now = clock::now().as_millis();
    let began = Timestamp::from_millis(now - 2 * DAY);
    store.close_books("gw1".into(), began, Stamp::synced(Timestamp::from_millis(now + days * DAY))).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_head_end_can_prove_that_it_has_every_frame_although_the_gateway_was_killed() {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let relay = Relay::start(broker.port, true).await;
    // Yesterday's: the agent finds at its start that another day has begun.
    close_books(&home, -1).await;
    let feed = Feed::start(Lines::RtlWmbus, Duration::from_millis(5), FED).await;
    let rest = format!("sync = \"100ms\"\n[clock]\ntrust = \"always\"\n{}", feed.radio("roof", "rtl-wmbus"));
    home.configure(&format!("url = \"tcp://127.0.0.1:{}\"", relay.port), &rest);

    let mut agent = home.run("debug");
    agent.until_said(&["the books are closed"]).await;
    until("frames are acknowledged", || agent.acknowledged() > 20).await;
    relay.set_open(false);
    agent.until_said(&["DEBUG durable"]).await;
    agent.kill().await;
    relay.set_open(true);
    let mut agent = home.run("debug");
    until("the rest is acknowledged", || agent.acknowledged() > 20).await;
    agent.stop().await;
    close_books(&home, 1).await;
    broker.publish("end", "{}").await;
    let mut received = Vec::new();
    loop {
        let heard = subscriber.next().await;
        match heard.topic.as_str() {
            "end" => break,
            "data/gw1" | "event/gw1" => received.push(heard.json().to_string()),
            _ => {}
        }
    }

    let file = home.path("received.jsonl");
    let newest = home.path("store/manifests/000003.json");
    let verify = |lines: &[String]| {
        fs::write(&file, lines.join("\n")).unwrap();
        let (file, newest) = (file.to_str().unwrap(), newest.to_str().unwrap());
        home.weir(&["store", "verify", file, newest, "--received", file])
    };
    let whole = verify(&received);
    assert!(whole.status.success(), "{}{}", stdout(&whole), stderr(&whole));
    // Of the second life: what the killed one had got rid of without flash, its books can't tell.
    let victim = received.iter().rposition(|m| !m.contains("\"Manifest\"")).unwrap();
    let missing: Vec<_> = received.iter().filter(|m| *m != &received[victim]).cloned().collect();
    let holed = verify(&missing);
    assert!(!holed.status.success() && stdout(&holed).contains("MISSING"), "{}{}", stdout(&holed), stderr(&holed));
}
