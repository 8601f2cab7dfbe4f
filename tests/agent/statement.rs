//! The status document tells the platform what became of every frame.

use std::time::Duration;

use weir::sim::radio_replay::Lines;

use super::rig::{Feed, Home, Mosquitto, Subscriber};

#[tokio::test]
async fn the_status_document_adds_up_and_names_what_is_wrong() {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let feed = Feed::start(Lines::RtlWmbus, Duration::from_millis(5), 40).await;
    home.configure(
        &format!("url = \"tcp://127.0.0.1:{}\"", broker.port),
        &format!(
            "[status]\ntopic = \"health/{{id}}\"\nevery = \"1s\"\nextended = true\n{}",
            feed.radio("roof", "rtl-wmbus")
        ),
    );
    let mut agent = home.run("info");
    let document = loop {
        let heard = subscriber.next().await;
        if heard.topic == "health/gw1" {
            let document = heard.json();
            let count = |name: &str| document["store"][name].as_u64().unwrap();
            assert_eq!(count("received"), count("acknowledged") + count("evicted") + count("pending"), "{document}");
            assert_eq!(count("given"), count("received") + count("skipped"), "{document}");
            if count("acknowledged") == 40 {
                break document;
            }
        }
    };
    assert_eq!(document["gateway"], "gw1");
    assert_eq!(document["receivers"]["roof"]["forwarded"], 40);
    assert_eq!(document["uplink"][0]["broker"], format!("tcp://127.0.0.1:{}", broker.port));
    assert!(document["uplink"][0]["connected_since"].is_string() && document["store"]["disk_error"].is_null());
    agent.stop().await;
}
