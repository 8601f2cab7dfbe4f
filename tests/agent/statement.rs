//! The status document tells the platform what became of every frame.

use std::time::Duration;

use serde_json::{Value, json};
use weir::sim::radio_replay::Lines;

use super::rig::{Feed, Home, Mosquitto, Subscriber, stderr, stdout};

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

/// The next status message.
async fn told(subscriber: &mut Subscriber) -> Value {
    loop {
        let heard = subscriber.next().await;
        if heard.topic == "health/gw1" {
            return heard.json();
        }
    }
}

#[tokio::test]
async fn a_template_is_published_answered_by_command_and_tells_why_weir_started() {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let template = "{\"gw\":\"{id}\",\"v\":\"{version}\",\"why\":\"{restart}\",\"csq\":{csq},\"q\":{queue_priority}}";
    home.configure(
        &format!("url = \"tcp://127.0.0.1:{}\"", broker.port),
        &format!("[status]\ntopic = \"health/{{id}}\"\nevery = \"1h\"\ntemplate = '{template}'\n"),
    );
    let text = |why: &str| json!({"gw": "gw1", "v": env!("CARGO_PKG_VERSION"), "why": why, "csq": null, "q": 0});
    let mut agent = home.run("info");
    assert_eq!(told(&mut subscriber).await, text("first"));
    let answered = stdout(&home.weir(&["at", "AT^WEIR=STATUS"]));
    let answered = answered.lines().next().unwrap().strip_prefix("AT^WEIR=STATUS ").unwrap();
    assert_eq!(serde_json::from_str::<Value>(answered).unwrap(), text("first"));
    agent.stop().await;
    let mut agent = home.run("info");
    assert_eq!(told(&mut subscriber).await, text("stop"));
    agent.kill().await;
    let mut agent = home.run("info");
    assert_eq!(told(&mut subscriber).await, text("crash"));
    agent.stop().await;
}

#[tokio::test]
async fn a_change_worth_telling_is_published_long_before_the_next_message_is_due() {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    home.configure(
        &format!("url = \"tcp://127.0.0.1:{}\"", broker.port),
        "[status]\ntopic = \"health/{id}\"\nevery = \"1h\"\ntemplate = \"mtx\"\nextended = true\n",
    );
    let mut agent = home.run("info");
    assert_eq!(told(&mut subscriber).await["LOCK"], "false");
    assert!(home.weir(&["at", "AT^WEIR=LOCK"]).status.success());
    while told(&mut subscriber).await["LOCK"] != "true" {}
    agent.stop().await;
}

#[test]
fn a_template_with_an_unknown_field_is_a_mistake_with_its_place() {
    let home = Home::new();
    home.configure("url = \"tcp://127.0.0.1:1\"", "[status]\ntopic = \"h\"\ntemplate = '{imie} {rsspi}'\n");
    let output = home.weir(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    let said = format!("{}{}", stdout(&output), stderr(&output));
    assert!(said.contains("{imie}") && said.contains("nearest are \"imei\"") && said.contains("{rsspi}"), "{said}");
}
