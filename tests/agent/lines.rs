//! Lines that are missing, vanish, or bring garbage: the rest goes on and the log stays short.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use weir::os::clock;
use weir::sim::radio_replay::{Lines, RadioReplay};

use super::peers::{self, Peer};
use super::rig::{Consumer, Feed, Home, Mosquitto, Subscriber, radio, until};

fn meter(name: &str, device: &str, timeout: &str) -> String {
    format!(
        "[[port]]\nname = \"{name}\"\ndevice = \"{device}\"\n[[meter]]\nname = \"{name}\"\nport = \"{name}\"\n\
         protocol = \"modbus-rtu\"\nevery = \"1s\"\ntimeout = \"{timeout}\"\nretries = 0\n\
         register = [{{ name = \"level\", register = \"holding:3\" }}]\n"
    )
}

fn is_read(consumer: &Consumer, meter: &str) -> bool {
    consumer.readings(meter).last().is_some_and(|r| r["values"][0]["value"] == "103")
}

fn is_absent(consumer: &Consumer, meter: &str) -> bool {
    consumer.readings(meter).last().is_some_and(|r| r["values"][0]["quality"] == "no-answer")
}

#[tokio::test]
async fn a_serial_port_that_is_missing_or_vanishes_is_told_once_and_opened_again() {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let (line, ours, theirs) = Peer::socat_pair(home.directory.path());
    let bus = Peer::python("modbus_meter.py", &["rtu", theirs.to_str().unwrap()], "ready");
    let missing = home.path("ttyUSB9");
    home.configure(
        &format!("url = \"tcp://127.0.0.1:{}\"", broker.port),
        &format!(
            "{}{}",
            meter("bus", ours.to_str().unwrap(), "10s"),
            meter("missing", missing.to_str().unwrap(), "10s")
        ),
    );
    let mut agent = home.run("info");
    let mut consumer = Consumer::default();
    consumer.listen(&mut subscriber, |c| is_read(c, "bus") && is_absent(c, "missing")).await;
    let told = agent.said(&["port=missing"]);
    assert!(told.len() == 1 && told[0].contains("ttyUSB9: No such file"), "{told:?}");

    drop((bus, line));
    consumer.listen(&mut subscriber, |c| is_absent(c, "bus")).await;
    let seen = consumer.readings("bus").len();
    consumer.listen(&mut subscriber, |c| c.readings("bus").len() >= seen + 3).await;
    assert!(is_absent(&consumer, "bus"));
    let (_line, _, theirs) = Peer::socat_pair(home.directory.path());
    let _bus = Peer::python("modbus_meter.py", &["rtu", theirs.to_str().unwrap()], "ready");
    consumer.listen(&mut subscriber, |c| is_read(c, "bus")).await;
    agent.until_said(&["the port is back", "port=bus"]).await;

    assert_eq!(agent.said(&["port=missing"]).len(), 1, "still told once");
    let log = agent.log();
    assert!(log.len() <= 12, "a flood:\n{}", log.join("\n"));
    assert!(agent.is_running());
    agent.stop().await;
}

#[tokio::test]
async fn garbage_and_cut_telegrams_on_the_radio_line_cost_nothing_but_themselves() {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    home.configure(
        &format!("url = \"tcp://127.0.0.1:{}\"", broker.port),
        &radio("roof", "rtl-wmbus", listener.local_addr().unwrap().port()),
    );
    let mut agent = home.run("info");
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut replay = RadioReplay::new(Lines::RtlWmbus);
    let mut sound = Vec::new();
    let mut noise = 12_345u32;
    for _ in 0..200 {
        let step = replay.next(clock::now());
        // A cut copy, bytes of every value without a line end, a very long line: then the sound one.
        let mut text = step.text.as_bytes()[..step.text.len() / 3].to_vec();
        text.push(b'\n');
        text.extend((0..300).map(|_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        }));
        text.push(b'\n');
        text.extend([b'x'; 5000]);
        text.push(b'\n');
        text.extend(step.text.as_bytes());
        stream.write_all(&text).await.unwrap();
        sound.push(step.telegram);
    }
    let mut consumer = Consumer::default();
    consumer.listen(&mut subscriber, |c| c.telegrams().len() >= 200).await;
    let arrived: Vec<_> = consumer.frames.values().map(super::rig::Arrived::bytes).collect();
    assert_eq!(arrived, sound);
    // Nothing but noise, for long: one line, and one when it is over.
    for _ in 0..2000 {
        stream.write_all(b"nothing that is a telegram\n").await.unwrap();
    }
    agent.until_said(&["receiver brings nothing but noise"]).await;
    let step = replay.next(clock::now());
    stream.write_all(step.text.as_bytes()).await.unwrap();
    agent.until_said(&["receiver brings telegrams again"]).await;
    // Eight of the start, two of the noise.
    assert!(agent.log().len() <= 10, "a flood:\n{}", agent.log().join("\n"));
    agent.stop().await;
}

#[tokio::test]
async fn garbage_on_the_meters_line_gives_nulls_and_one_warning() {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let feed = Feed::start(Lines::OpenlinkIq, Duration::from_millis(20), usize::MAX).await;
    home.configure(
        &format!("url = \"tcp://127.0.0.1:{}\"", broker.port),
        &format!(
            "{}{}",
            meter("noisy", &format!("tcp://127.0.0.1:{port}"), "300ms"),
            feed.radio("street", "openlinkiq")
        ),
    );
    let babble = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut byte = 0u8;
            while stream.write_all(&[byte; 16]).await.is_ok() {
                byte = byte.wrapping_mul(5).wrapping_add(77);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let mut agent = home.run("info");
    let mut consumer = Consumer::default();
    consumer.listen(&mut subscriber, |c| c.readings("noisy").len() >= 4 && c.telegrams().len() >= 100).await;
    for reading in consumer.readings("noisy") {
        assert!(reading["values"][0]["value"].is_null() && reading["values"][0]["quality"] != "good", "{reading}");
    }
    let told = agent.said(&["meter=noisy"]);
    assert!((1..=3).contains(&told.len()), "{told:?}");
    agent.stop().await;
    babble.abort();
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_told_in_words_and_once() {
    let home = Home::new();
    home.configure(
        &format!("url = \"tcp://127.0.0.1:{}\"", peers::free_port()),
        "[[radio]]\nname = \"roof\"\nreceiver = \"rtl-wmbus\"\ncommand = [\"sh\", \"-c\", \"/nowhere/rtl_sdr -f 868.95M\"]\n\
         [[radio]]\nname = \"attic\"\nreceiver = \"rtl-wmbus\"\ncommand = [\"/nowhere/rtl_wmbus\"]\n",
    );
    let mut agent = home.run("debug");
    for receiver in ["roof", "attic"] {
        until("tried again", || !agent.said(&["receiver is still gone", receiver]).is_empty()).await;
        let told = agent.said(&[" WARN ", receiver]);
        assert!(told.len() == 1 && (told[0].contains("installed") || told[0].contains("/nowhere")), "{told:?}");
    }
    agent.stop().await;
}
