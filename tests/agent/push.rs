//! Meters that send by themselves, through the whole agent.

use std::fs;
use std::path::Path;
use std::time::Duration;

use weir::sim::push_meter::{Control, Kind, PushMeter};

use super::rig::{Consumer, Home, Mosquitto, Subscriber, stderr, stdout};

const CIPHERED: Kind = Kind::P1Ciphered { encryption: [0xAA; 16], authentication: [0x11; 16] };

/// A meter on a task of the test's runtime and its part of the configuration.
fn meter(name: &str, kind: Kind, protocol: &str, more: &str) -> (String, Control) {
    let meter = PushMeter::open(kind, Duration::from_millis(100)).unwrap();
    let text = format!(
        "[[port]]\nname = \"{name}\"\ndevice = \"{}\"\nbaud = 115200\n[[meter]]\nname = \"{name}\"\nport = \"{name}\"\n\
         protocol = \"{protocol}\"\nevery = \"1s\"\n{more}\n",
        meter.path().display()
    );
    let control = meter.control();
    tokio::spawn(meter.run());
    (text, control)
}

fn keys(folder: &Path) -> String {
    let key = |name: &str| format!("{name} = \"{}\"\n", folder.join(name).display());
    key("key_file") + &key("authentication_key_file")
}

fn is_good(consumer: &Consumer, meter: &str) -> bool {
    consumer.readings(meter).last().is_some_and(|r| r["values"][0]["quality"] == "good")
}

#[tokio::test]
async fn readings_arrive_and_a_key_that_comes_late_stops_nobody_else() {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let values = "values = [\"1-0:1.8.1\", \"0-1:24.2.1\"]\n";
    let (house, sent) = meter("house", Kind::P1, "dsmr-p1", values);
    let (pump, _) = meter("pump", Kind::Sml, "sml", "values = [\"1.8.0\"]");
    let (cellar, _) = meter("cellar", CIPHERED, "dsmr-p1", &(keys(home.directory.path()) + values));
    home.configure(&format!("url = \"tcp://127.0.0.1:{}\"", broker.port), &(house + &pump + &cellar));
    let mut agent = home.run("info");
    let mut consumer = Consumer::default();
    consumer.listen(&mut subscriber, |c| is_good(c, "house") && is_good(c, "pump")).await;
    let reading = consumer.readings("house").pop().unwrap();
    assert!(sent.state().sent.iter().any(|text| reading["values"][0]["value"] == *text), "{reading}");
    assert_eq!(reading["values"][1]["value"], "00872.234");
    assert_eq!(reading["values"][1]["unit"], "m3");
    assert_eq!(reading["values"][2]["name"], "0-1:24.2.1#time");
    assert!(!is_good(&consumer, "cellar"));

    fs::write(home.path("key_file"), "AA".repeat(16)).unwrap();
    fs::write(home.path("authentication_key_file"), "11".repeat(16)).unwrap();
    consumer.listen(&mut subscriber, |c| is_good(c, "cellar")).await;
    assert!(agent.is_running());
    assert!(!agent.log().iter().any(|line| line.contains(&"AA".repeat(16))), "no key is ever logged");
}

#[tokio::test]
async fn read_waits_for_the_next_message() {
    let home = Home::new();
    let (cellar, sent) = meter("cellar", CIPHERED, "dsmr-p1", &keys(home.directory.path()));
    home.configure("url = \"tcp://127.0.0.1:1\"", &cellar);
    let read = || {
        let home = home.config();
        tokio::task::spawn_blocking(move || {
            super::rig::weir().arg("--config").arg(home).args(["read", "cellar"]).output().unwrap()
        })
    };
    let output = read().await.unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    assert!(stderr(&output).contains("can't be read"), "{}", stderr(&output));
    fs::write(home.path("key_file"), "AA".repeat(16)).unwrap();
    fs::write(home.path("authentication_key_file"), "11".repeat(16)).unwrap();
    let output = read().await.unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let shown = stdout(&output);
    assert!(sent.state().sent.iter().any(|text| shown.contains(&format!("1-0:1.8.1        {text}"))), "{shown}");
}
