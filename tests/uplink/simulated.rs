//! The demo's own broker, judged by clients nobody here wrote.

use std::process::Command;

use weir::sim::broker::Broker;
use weir::uplink::Pace;

use super::rig::{Agent, Subscriber, TOPICS, append, new_store};

#[tokio::test(start_paused = true)]
async fn mosquittos_clients_publish_and_subscribe_over_tls() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::tls(directory.path()).await.unwrap();
    let mut received = broker.observe();
    let ca = broker.ca_file().unwrap().to_str().unwrap().to_owned();
    let mut subscriber = Subscriber::start(broker.port(), &["-q", "1", "--cafile", &ca]).await;
    let port = broker.port().to_string();
    for (qos, payload) in [("0", "zero"), ("1", "one")] {
        let (port, ca) = (port.clone(), ca.clone());
        let publish = tokio::task::spawn_blocking(move || {
            let args = ["-h", "localhost", "-p", &port, "--cafile", &ca, "-t", "a/b", "-q", qos, "-m", payload];
            Command::new("mosquitto_pub").args(args).status().unwrap()
        });
        let heard = subscriber.next().await;
        assert_eq!((heard.topic.as_str(), heard.payload.as_str(), heard.qos.as_str()), ("a/b", payload, qos));
        let seen = received.recv().await.unwrap();
        assert_eq!((seen.topic.as_str(), &seen.payload[..], seen.will), ("a/b", payload.as_bytes(), false));
        assert!(publish.await.unwrap().success());
    }
}

#[tokio::test(start_paused = true)]
async fn the_demo_runs_end_to_end_with_the_simulated_broker() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::tls(directory.path()).await.unwrap();
    let ca = broker.ca_file().unwrap().to_str().unwrap().to_owned();
    let mut subscriber = Subscriber::start(broker.port(), &["-q", "1", "--cafile", &ca]).await;
    let store = new_store();
    append(&store, 700, 30, 20).await;
    let settings = format!("url = \"{}\"\nca_file = \"{ca}\"", broker.url());
    let mut agent = Agent::start(&settings, TOPICS, Pace::default(), store);
    let heard = subscriber.until_frames(700).await;
    assert_eq!(heard.first().unwrap().topic, "status/gw1");
    agent.until_empty().await;
    agent.stop().await;
}
