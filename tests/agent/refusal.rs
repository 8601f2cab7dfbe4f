//! What a technician reads in the log when the broker or the store can't be used, and what nobody may read.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use weir::sim::authority::Authority;
use weir::sim::radio_replay::Lines;

use super::peers;
use super::peers::site::{Site, passwords};
use super::rig::{Consumer, Feed, Home, Mosquitto, Subscriber, stderr};

/// Runs an agent that no broker accepts: the log must have one warning with all of `words`, and
/// what is heard meanwhile must be in the store.
async fn refused(broker: &str, words: &[&str]) {
    let home = Home::new();
    let feed = Feed::start(Lines::OpenlinkIq, Duration::from_millis(1), 50).await;
    home.configure(broker, &feed.radio("street", "openlinkiq"));
    let mut agent = home.run("debug");
    agent.until_said(&["no session with the broker, again"]).await;
    agent.until_said(&["durable through=50"]).await;
    let told = agent.said(&[" WARN ", "no session with the broker"]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(words.iter().all(|word| told[0].contains(word)), "{words:?} in {}", told[0]);
    agent.stop().await;
    assert_eq!(home.counters()["cached"], json!(50));
}

#[tokio::test]
async fn a_broker_with_the_wrong_certificate_is_told_and_frames_wait() {
    let (site, stranger) = (Site::new(), Site::new());
    let cases = [
        (&["127.0.0.1"][..], None, stranger.path("ca.pem"), &["not issued by the CA", "broker.ca_file"][..]),
        (&["127.0.0.1"], Some(2010..2015), site.path("ca.pem"), &["has expired on 2015-01-01", "gateway's clock"]),
        (&["broker.example.com"], None, site.path("ca.pem"), &["is for broker.example.com", "not for 127.0.0.1"]),
    ];
    for (names, years, ca, words) in cases {
        let broker = Mosquitto::start(site.directory.path(), &site.server(names, years)).await;
        let settings = format!("url = \"ssl://127.0.0.1:{}\"\nca_file = \"{}\"\n", broker.port, ca.display());
        refused(&settings, words).await;
    }
    let extra = format!("{}{}", site.server(&["127.0.0.1"], None), site.mutual());
    let broker = Mosquitto::start(site.directory.path(), &extra).await;
    let settings = site.broker_settings(broker.port);
    refused(&settings, &["require", "client certificate"]).await;
    let strange = site.client(&Authority::new("another CA").unwrap(), "stranger");
    refused(&format!("{settings}{strange}"), &["refused the client certificate"]).await;
}

#[tokio::test]
async fn a_wrong_password_is_told_and_mended_without_a_restart_and_never_shown() {
    const SECRETS: [&str; 2] = ["Sesame-open-7431", "Sesame-wrong-9920"];
    let (home, site) = (Home::new(), Site::new());
    passwords(site.directory.path());
    let made = std::process::Command::new("mosquitto_passwd")
        .args(["-b", site.path("passwords").to_str().unwrap(), "weir", SECRETS[0]])
        .status();
    assert!(made.unwrap().success());
    let server = site.server(&["localhost", "127.0.0.1"], None).replace("allow_anonymous true\n", "");
    let extra = format!("{server}allow_anonymous false\npassword_file {}\n", site.path("passwords").display());
    let broker = Mosquitto::start(site.directory.path(), &extra).await;
    let ca = site.path("ca.pem").display().to_string();
    let login = ["-q", "1", "--cafile", &ca, "-u", "meters", "-P", "right"];
    let mut subscriber = Subscriber::start(broker.port, &login).await;
    let feed = Feed::start(Lines::OpenlinkIq, Duration::from_millis(1), 50).await;
    let secret = home.path("secret");
    fs::write(&secret, SECRETS[1]).unwrap();
    home.configure(
        &format!(
            "{}{}username = \"weir\"\npassword_file = \"{}\"\n",
            site.broker_settings(broker.port),
            site.client(&site.authority, "client"),
            secret.display()
        ),
        &feed.radio("street", "openlinkiq"),
    );
    let mut agent = home.run("trace");
    let told = agent.until_said(&["WARN", "no session with the broker"]).await;
    assert!(told.contains("authorized") && told.contains("password_file"), "{told}");
    agent.until_said(&["durable through=50"]).await;
    fs::write(&secret, format!("{}\n", SECRETS[0])).unwrap();
    let mut consumer = Consumer::default();
    consumer.listen(&mut subscriber, |c| c.frames.len() == 50).await;
    agent.stop().await;
    assert_eq!(home.counters()["acknowledged"], json!(50));

    let key = fs::read_to_string(site.path("client.key")).unwrap();
    let secrets = SECRETS.into_iter().chain(key.lines().filter(|l| !l.starts_with("--")));
    let log = agent.log().join("\n");
    assert!(log.contains("TRACE"), "the log is at trace");
    for secret in secrets {
        let bytes: Vec<String> = secret.bytes().map(|b| b.to_string()).collect();
        let bytes = bytes.join(", ");
        let hex = data_encoding::HEXLOWER.encode(secret.as_bytes());
        let base64 = data_encoding::BASE64.encode(secret.as_bytes());
        for form in [secret, &bytes, &hex, &base64] {
            assert!(!log.contains(form), "a secret stands in the log as {form}");
        }
    }
    let print = home.weir(&["check", "--print"]);
    assert!(print.status.success() && !String::from_utf8_lossy(&print.stdout).contains("Sesame"));
}

#[tokio::test]
async fn a_store_that_is_locked_or_can_not_be_written_is_told_in_one_sentence() {
    let home = Home::new();
    let broker = format!("url = \"tcp://127.0.0.1:{}\"", peers::free_port());
    home.configure(&broker, "");
    let agent = home.run("info");
    agent.until_said(&["INFO ready"]).await;
    let second = home.weir(&["run"]);
    assert_eq!(second.status.code(), Some(1));
    let said = stderr(&second);
    let last = said.lines().last().unwrap();
    assert!(last.contains("another weir is using the store") && last.contains("stop it first"), "{said}");

    // Root writes everywhere but into a file and into the kernel's own tree.
    let file = home.path("file");
    fs::write(&file, "").unwrap();
    for path in [file.as_path(), &file.join("store"), Path::new("/proc/weir-store")] {
        let other = Home::new();
        other.configure(&broker, "");
        let text = fs::read_to_string(other.config()).unwrap();
        let text = text.replace(&other.path("store").display().to_string(), path.to_str().unwrap());
        fs::write(other.config(), text).unwrap();
        let output = other.weir(&["run"]);
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        let last = said.lines().last().unwrap();
        assert!(last.contains(path.to_str().unwrap()) && last.contains("writable"), "{said}");
    }
}
