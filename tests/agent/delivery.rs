//! Every reading and every telegram reaches a consumer, in contract form and exactly once.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use weir::model::Timestamp;
use weir::sim::radio_replay::Lines;

use super::peers::site::Site;
use super::peers::{self, Peer};
use super::rig::{Arrived, Consumer, Fed, Feed, Home, Mosquitto, Subscriber};

const TELEGRAMS: usize = 150;
const PACE: Duration = Duration::from_millis(40);

const METERS: &str = r#"
[[meter]]
name = "incomer"
port = "bus"
protocol = "modbus-rtu"
address = 1
every = "2s"
timeout = "10s"
register = [
  { name = "voltage", register = "holding:100", type = "f32", unit = "V" },
  { name = "energy", register = "input:0", type = "u32", unit = "kWh", scale = 0.01 },
]
[[meter]]
name = "dead"
port = "bus"
protocol = "modbus-rtu"
address = 9
every = "2s"
timeout = "300ms"
retries = 0
register = [{ name = "power", register = "input:7", unit = "W" }]
[[meter]]
name = "heat-pump"
port = "lan"
protocol = "modbus-tcp"
every = "2s"
timeout = "10s"
register = [{ name = "on", register = "coil:0", type = "bool" }, { name = "level", register = "holding:3", scale = -0.5, offset = 1.25 }]
[[meter]]
name = "billing"
port = "head"
protocol = "iec62056-21"
every = "5s"
timeout = "20s"
values = ["1.8.0", "0.0.0", "32.7.0"]
"#;

fn port(name: &str, device: &str, baud: u32) -> String {
    format!("[[port]]\nname = \"{name}\"\ndevice = \"{device}\"\nbaud = {baud}\n")
}

/// The slots, in units of `every`, in which a meter's readings were taken.
fn slots(consumer: &Consumer, meter: &str, every: i64) -> Vec<i64> {
    let time = |r: &serde_json::Value| Timestamp::parse(r["timestamp"].as_str().unwrap()).unwrap().as_millis();
    consumer.readings(meter).iter().map(|r| time(r) / 1000 / every).collect()
}

fn value(name: &str, value: &str, unit: &str) -> serde_json::Value {
    json!({"name": name, "value": value, "unit": unit, "quality": "good"})
}

#[tokio::test]
async fn every_frame_of_every_input_arrives_in_contract_form() {
    let (home, site) = (Home::new(), Site::new());
    let tls_port = peers::free_port();
    let extra = format!(
        "allow_anonymous true\nlistener {tls_port} 127.0.0.1\n{}{}",
        site.server(&["localhost", "127.0.0.1"], None),
        site.mutual()
    );
    let broker = Mosquitto::start(site.directory.path(), &extra).await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;

    let (_line, ours, theirs) = Peer::socat_pair(home.directory.path());
    let _bus = Peer::python("modbus_meter.py", &["rtu", theirs.to_str().unwrap()], "ready");
    let lan_port = peers::free_port();
    let _lan = Peer::python("modbus_meter.py", &["tcp", &lan_port.to_string()], "ready");
    let head = home.path("head");
    let arguments = ["--link", head.to_str().unwrap(), "--strict-baud", "--parity"];
    let _head = Peer::python("iec_meter.py", &arguments, "meter on");
    let roof = Feed::start(Lines::RtlWmbus, PACE, TELEGRAMS).await;
    let street = Feed::start(Lines::OpenlinkIq, PACE, TELEGRAMS).await;

    home.configure(
        &format!("{}{}", site.broker_settings(tls_port), site.client(&site.authority, "client")),
        &[
            port("bus", ours.to_str().unwrap(), 9600),
            port("lan", &format!("tcp://127.0.0.1:{lan_port}"), 9600),
            port("head", head.to_str().unwrap(), 300),
            METERS.to_owned(),
            roof.radio("roof", "rtl-wmbus"),
            street.radio("street", "openlinkiq"),
        ]
        .concat(),
    );
    let mut agent = home.run("info");
    agent.until_said(&["connected to the broker"]).await;
    let mut consumer = Consumer::default();
    let complete = |c: &Consumer| {
        c.telegrams().len() == 2 * TELEGRAMS && c.readings("billing").len() >= 2 && c.readings("dead").len() >= 5
    };
    consumer.listen(&mut subscriber, complete).await;

    telegrams_are_as_fed(&consumer, &roof, &street);
    readings_are_exact(&consumer);
    // The dead meter costs its 300 ms; nobody else misses a slot for it. (A machine that stands still costs all theirs.)
    let dead = slots(&consumer, "dead", 2).len();
    for (meter, every) in [("incomer", 2), ("dead", 2), ("heat-pump", 2), ("billing", 5)] {
        let slots = slots(&consumer, meter, every);
        assert!(slots.is_sorted_by(|one, next| one < next), "{meter} was read twice in a slot: {slots:?}");
        assert!(every > 2 || 4 * slots.len() >= 3 * dead, "{meter} missed slots: {slots:?} while dead had {dead}");
    }
    assert_eq!(consumer.repeats, 0, "one session, no repeats");
    assert_eq!(
        consumer.frames.keys().copied().collect::<Vec<_>>(),
        (1..=consumer.frames.len() as u64).collect::<Vec<_>>()
    );
    let first = &consumer.others[0];
    assert_eq!((first.topic.as_str(), first.payload.as_str()), ("status/gw1", "{\"connected\": 1}"));
    assert_eq!(consumer.others.len(), 1);
    let complaints = [agent.said(&[" WARN "]), agent.said(&[" ERROR "])].concat();
    assert!(complaints.len() == 1 && complaints[0].contains("dead"), "{complaints:?}");

    agent.kill().await;
    consumer.listen(&mut subscriber, |c| c.others.len() == 2).await;
    assert_eq!(
        (consumer.others[1].topic.as_str(), consumer.others[1].payload.as_str()),
        ("will/gw1", "{\"connected\": 0}")
    );
}

fn telegrams_are_as_fed(consumer: &Consumer, roof: &Feed, street: &Feed) {
    let fed: Vec<_> = roof.fed().into_iter().chain(street.fed()).collect();
    let arrived = consumer.telegrams();
    assert_eq!(arrived.keys().cloned().collect::<BTreeSet<_>>(), fed.iter().map(|f| f.bytes.clone()).collect());
    assert!(arrived.values().all(|count| *count == 1), "a telegram became two frames");
    for (feed, kind) in [(roof, "wM-Bus"), (street, "OpenlinkIQ")] {
        let mine: Vec<_> = consumer.frames.values().filter(|f| f.json["frametype"] == kind).collect();
        // An ordinary telegram waits a moment for better receptions; an urgent one overtakes it.
        let (urgent, ordinary): (Vec<_>, Vec<_>) = mine.iter().partition(|frame| frame.topic == "event/gw1");
        let (expected_urgent, expected): (Vec<_>, Vec<_>) = feed.fed().into_iter().partition(|fed| fed.priority);
        let order = |frames: &[&&Arrived]| frames.iter().map(|f| f.bytes()).collect::<Vec<_>>();
        let fed = |fed: &[Fed]| fed.iter().map(|f| f.bytes.clone()).collect::<Vec<_>>();
        assert_eq!(order(&urgent), fed(&expected_urgent), "urgent {kind} in the order heard");
        assert_eq!(order(&ordinary), fed(&expected), "ordinary {kind} in the order heard");
        let arrived = urgent.into_iter().chain(ordinary);
        for (frame, fed) in arrived.zip(expected_urgent.into_iter().chain(expected)) {
            assert_eq!(frame.topic, if fed.priority { "event/gw1" } else { "data/gw1" });
            let meta = &frame.json["meta"];
            assert_eq!(meta["rssi"].is_null(), kind == "wM-Bus", "{meta}");
            assert_eq!(meta["rssirelative"].is_i64(), kind == "wM-Bus", "{meta}");
            assert!(meta["noofcorrectedbits"].is_u64(), "{meta}");
        }
    }
    assert!(street.fed().iter().any(|f| f.priority));
}

fn readings_are_exact(consumer: &Consumer) {
    for reading in consumer.readings("incomer") {
        // Input registers 0 and 1 hold 200 and 201: 200 * 65536 + 201 hundredths.
        assert_eq!(reading["values"], json!([value("voltage", "230.5", "V"), value("energy", "131074.01", "kWh")]));
    }
    for reading in consumer.readings("dead") {
        let absent = json!([{"name": "power", "value": null, "unit": "W", "quality": "no-answer"}]);
        assert_eq!(reading["values"], absent);
    }
    for reading in consumer.readings("heat-pump") {
        assert_eq!(reading["values"], json!([value("on", "1", ""), value("level", "-50.25", "")]));
    }
    for reading in consumer.readings("billing") {
        let values =
            [value("0.0.0", "12345678", ""), value("1.8.0", "001234.567", "kWh"), value("32.7.0", "230.4", "V")];
        let found: Vec<_> = reading["values"].as_array().unwrap().clone();
        assert_eq!(found.len(), 3, "{reading}");
        assert!(values.iter().all(|v| found.contains(v)), "{reading}");
    }
}

#[tokio::test]
async fn the_store_knows_what_is_left_while_the_agent_runs_and_after() {
    let home = Home::new();
    let feed = Feed::start(Lines::OpenlinkIq, Duration::from_millis(1), 200).await;
    home.configure(&format!("url = \"tcp://127.0.0.1:{}\"", peers::free_port()), &feed.radio("street", "openlinkiq"));
    let absent = home.weir(&["store", "status"]);
    assert_eq!(absent.status.code(), Some(1));
    let mut agent = home.run("debug");
    agent.until_said(&["durable", "through=200"]).await;
    let running = home.weir(&["store", "status"]);
    assert!(running.status.success(), "{running:?}");
    let second = home.run("info").ended().await;
    assert_eq!(second.code(), Some(1), "a second agent on the same store");
    agent.stop().await;
    let after = home.counters();
    assert_eq!((after["received"].clone(), after["cached"].clone()), (json!(200), json!(200)));
    assert_eq!((after["acknowledged"].clone(), after["cached_priority"].clone()), (json!(0), json!(20)));
    let output =
        Command::new(env!("CARGO_BIN_EXE_weir")).arg("-c").arg(home.config()).args(["store", "status"]).output();
    let table = super::rig::stdout(&output.unwrap());
    assert!(table.contains("cached") && table.contains("200 (20 with priority)"), "{table}");
}
