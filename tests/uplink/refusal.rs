//! What a technician reads when there is no session: one clear sentence for each cause.

use std::fs;

use weir::sim::authority::Authority;
use weir::uplink::Pace;

use super::peers::site::{Site, passwords};
use super::rig::{Agent, Mosquitto, TOPICS, append, free_port, new_store};

async fn delivers(broker: &str) {
    let mut agent = Agent::start(broker, TOPICS, Pace::default(), new_store());
    append(&agent.store, 3, 20, 2).await;
    agent.until_empty().await;
    agent.stop().await;
}

async fn refused(broker: &str, words: &[&str]) {
    let mut agent = Agent::start(broker, TOPICS, Pace::default(), new_store());
    append(&agent.store, 3, 20, 2).await;
    let health = agent.until("refused", |h| h.failures >= 2).await;
    let sentence = health.last_error.unwrap();
    for word in words {
        assert!(sentence.contains(word), "\"{word}\" is missing in: {sentence}");
    }
    assert_eq!((health.sessions, agent.store.status().borrow().cached), (0, 3));
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn tls_and_mutual_tls_and_a_password_are_accepted() {
    crate::pace::hold();
    let site = Site::new();
    let extra = format!("{}{}", site.server(&["localhost", "127.0.0.1"], None), site.mutual());
    let broker = Mosquitto::start(site.directory.path(), &extra).await;
    delivers(&format!("{}{}", site.broker_settings(broker.port), site.client(&site.authority, "client"))).await;

    let site = Site::new();
    let server = site.server(&["localhost"], None).replace("allow_anonymous true\n", "");
    let extra = format!("{server}{}", passwords(site.directory.path()));
    let broker = Mosquitto::start(site.directory.path(), &extra).await;
    let password = site.path("right");
    let settings = site.broker_settings(broker.port).replace("127.0.0.1", "localhost");
    delivers(&format!("{settings}username = \"meters\"\npassword_file = \"{}\"", password.display())).await;
    for tls_version in ["tlsv1.2", "tlsv1.3"] {
        let extra = format!("{}tls_version {tls_version}", site.server(&["127.0.0.1"], None));
        let broker = Mosquitto::start(site.directory.path(), &extra).await;
        delivers(&site.broker_settings(broker.port)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_ca_is_refused() {
    crate::pace::hold();
    let (site, stranger) = (Site::new(), Site::new());
    let broker = Mosquitto::start(site.directory.path(), &site.server(&["127.0.0.1"], None)).await;
    refused(&stranger.broker_settings(broker.port), &["not issued by the CA in", "ca.pem", "broker.ca_file"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_expired_or_future_certificate_is_refused_with_a_hint_at_the_clock() {
    crate::pace::hold();
    let site = Site::new();
    let broker = Mosquitto::start(site.directory.path(), &site.server(&["127.0.0.1"], Some(2010..2015))).await;
    refused(&site.broker_settings(broker.port), &["has expired on 2015-01-01", "the gateway's clock"]).await;
    let broker = Mosquitto::start(site.directory.path(), &site.server(&["127.0.0.1"], Some(2090..2095))).await;
    refused(&site.broker_settings(broker.port), &["not valid before 2090-01-01", "the gateway's clock"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_for_another_host_is_refused_with_its_names() {
    crate::pace::hold();
    let site = Site::new();
    let broker = Mosquitto::start(site.directory.path(), &site.server(&["broker.example.com"], None)).await;
    refused(&site.broker_settings(broker.port), &["is for", "broker.example.com", "not for 127.0.0.1"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_or_strange_client_certificate_is_told() {
    crate::pace::hold();
    let site = Site::new();
    for version in ["tlsv1.2", "tlsv1.3"] {
        let extra = format!("{}{}tls_version {version}", site.server(&["127.0.0.1"], None), site.mutual());
        let broker = Mosquitto::start(site.directory.path(), &extra).await;
        let settings = site.broker_settings(broker.port);
        refused(&settings, &["require", "client certificate"]).await;
        let stranger = site.client(&Authority::new("another CA").unwrap(), "stranger");
        refused(&format!("{settings}{stranger}"), &["refused the client certificate"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_and_a_missing_one_are_told_without_showing_it() {
    crate::pace::hold();
    let directory = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(directory.path(), &passwords(directory.path())).await;
    let settings = format!("url = \"tcp://127.0.0.1:{}\"\n", broker.port);
    let wrong = directory.path().join("wrong");
    let words = &["authorized", "broker.username", "password_file"];
    refused(&format!("{settings}username = \"meters\"\npassword_file = \"{}\"", wrong.display()), words).await;
    refused(&settings, words).await;
    let absent = format!("{settings}username = \"meters\"\npassword_file = \"/nowhere/secret\"");
    refused(&absent, &["/nowhere/secret", "can't be read"]).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_there_an_unknown_name_and_the_wrong_kind_of_port_are_told() {
    crate::pace::hold();
    refused(&format!("url = \"tcp://127.0.0.1:{}\"", free_port()), &["nobody listens at tcp://127.0.0.1"]).await;
    refused("url = \"tcp://no-such-host.invalid\"", &["the name no-such-host.invalid has no address"]).await;
    let site = Site::new();
    let broker = Mosquitto::start(site.directory.path(), "allow_anonymous true").await;
    refused(&site.broker_settings(broker.port), &["TLS"]).await;
    let broker = Mosquitto::start(site.directory.path(), &site.server(&["127.0.0.1"], None)).await;
    refused(&format!("url = \"tcp://127.0.0.1:{}\"", broker.port), &["if it is a TLS port, use ssl://"]).await;
}

#[tokio::test(start_paused = true)]
async fn files_that_can_not_be_used_are_told_before_anything_is_sent() {
    crate::pace::hold();
    let site = Site::new();
    let settings = "url = \"ssl://127.0.0.1:1\"\n";
    refused(&format!("{settings}ca_file = \"/nowhere/ca.pem\""), &["the CA file /nowhere/ca.pem can't be read"]).await;
    let junk = site.path("junk.pem");
    fs::write(&junk, "hello").unwrap();
    refused(&format!("{settings}ca_file = \"{}\"", junk.display()), &["no certificate", "BEGIN CERTIFICATE"]).await;
    let ca = format!("{settings}ca_file = \"{}\"\n", site.path("ca.pem").display());
    let (own, _) = (site.client(&site.authority, "own"), site.client(&site.authority, "other"));
    let mixed = own.replace("own.key", "other.key");
    refused(&format!("{ca}{mixed}"), &["other.key does not match the client certificate"]).await;
    let no_key = own.replace("own.key", "junk.pem");
    refused(&format!("{ca}{no_key}"), &["the client key", "BEGIN PRIVATE KEY"]).await;
}
