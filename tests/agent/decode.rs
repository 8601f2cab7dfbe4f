//! Telegrams decoded on the gateway: what a consumer at a real broker gets, and what the log says about keys.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use weir::wire::aes::Aes128;

use super::rig::{Arrived, Consumer, Home, Mosquitto, Subscriber, until};

const RIGHT: &str = "a1a2a3a4a5a6a7a8a9aaabacadaeafa0";
const WRONG: &str = "b1b2b3b4b5b6b7b8b9babbbcbdbebfb0";

/// A telegram of mode 5 as a line: a volume of 2850.427 m³, sealed with [`RIGHT`].
fn line(meter: u8, access: u8, status: u8) -> String {
    let mut body = [0x2F, 0x2F, 0x0C, 0x13, 0x27, 0x04, 0x85, 0x02, 0x02, 0xFD, 0x17, 0, 0, 0x2F, 0x2F, 0x2F];
    let head = [30, 0x44, 0x2D, 0x2C, meter, 0, 0, 0, 0x1B, 0x16, 0x7A, access, status, 0x10, 0x05];
    let iv = [&head[2..10], &[access; 8]].concat().try_into().unwrap();
    let key = data_encoding::HEXLOWER.decode(RIGHT.as_bytes()).unwrap().try_into().unwrap();
    Aes128::new(&key).cbc_encrypt(iv, &mut body);
    format!("{};-71\n", data_encoding::HEXUPPER.encode(&[&head[..], &body].concat()))
}

fn write_keys(path: &Path, second: &str) {
    let fresh = path.with_extension("new");
    fs::write(&fresh, format!("00000001.KAM = {RIGHT}\n00000002 = {second}\n")).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&fresh, path).unwrap();
}

async fn send(source: &mut TcpStream, lines: &[String]) {
    source.write_all(lines.concat().as_bytes()).await.unwrap();
}

fn frames<'a>(consumer: &'a Consumer, kind: &str, meter: u8) -> Vec<&'a Arrived> {
    let of = |arrived: &&Arrived| {
        let reading = arrived.json["meter"] == json!(format!("KAM.{meter:08}.1b.16"));
        let telegram = arrived.json["frame"].is_string() && arrived.bytes()[4] == meter;
        arrived.json["frametype"] == json!(kind) && (reading || telegram)
    };
    consumer.frames.values().filter(of).collect()
}

#[tokio::test]
async fn values_reach_the_broker_beside_the_telegrams_and_a_wrong_key_costs_the_values_alone() {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true\n").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let keys = home.path("meter-keys");
    write_keys(&keys, WRONG);
    home.configure(
        &format!("url = \"tcp://127.0.0.1:{}\"", broker.port),
        &format!(
            "[[radio]]\nname = \"roof\"\nreceiver = \"hex-lines\"\ndevice = \"tcp://{}\"\nforward = \"both\"\nkeys_file = \"{}\"\n",
            listener.local_addr().unwrap(),
            keys.display()
        ),
    );
    let mut agent = home.run("debug");
    let (mut source, _) = listener.accept().await.unwrap();

    send(&mut source, &[line(1, 1, 0), line(1, 2, 3), line(2, 1, 0), line(2, 2, 0), line(2, 3, 0)]).await;
    let mut consumer = Consumer::default();
    consumer.listen(&mut subscriber, |c| c.frames.len() >= 7).await;
    agent.until_said(&["WARN", "key of a meter is wrong"]).await;
    assert_eq!((frames(&consumer, "wM-Bus", 1).len(), frames(&consumer, "wM-Bus", 2).len()), (2, 3));
    let readings = frames(&consumer, "Reading", 1);
    assert_eq!((readings.len(), frames(&consumer, "Reading", 2).len()), (2, 0));
    for reading in readings {
        let values = json!([
            { "name": "volume", "value": "2850.427", "unit": "m³", "quality": "good", "obis": "8-0:1.0.0*255" },
            { "name": "error_flags", "value": "0", "unit": "", "quality": "good" },
        ]);
        assert_eq!((&reading.json["values"], &reading.json["meta"]["rssi"]), (&values, &json!(-71)));
        let id = &reading.json["meta"]["id"];
        let telegram = frames(&consumer, "wM-Bus", 1).into_iter().find(|t| &t.json["meta"]["id"] == id).unwrap();
        assert_eq!(telegram.topic, reading.topic, "the same lane");
        assert_eq!(telegram.json["timestamp"], reading.json["timestamp"]);
        let alarm = telegram.bytes()[12] == 3;
        assert_eq!(reading.topic, if alarm { "event/gw1" } else { "data/gw1" });
    }

    write_keys(&keys, RIGHT);
    let mut access = 10;
    until("the new keys are read", || {
        access = u8::wrapping_add(access, 1);
        let line = line(2, access, 0);
        source.try_write(line.as_bytes()).unwrap();
        !agent.said(&["INFO", "key of a meter is right again"]).is_empty()
    })
    .await;
    consumer.listen(&mut subscriber, |c| !frames(c, "Reading", 2).is_empty()).await;

    let told: Value = serde_json::from_slice(&home.weir(&["radio", "--json"]).stdout).unwrap();
    assert!(told["receivers"]["roof"]["decoded"].as_u64() > Some(2), "{told}");
    assert!(told["receivers"]["roof"]["undecoded"].as_u64() > Some(2), "{told}");
    agent.stop().await;
    assert_eq!(agent.said(&["key of a meter is wrong"]).len(), 1);
    let log = agent.log().join("\n").to_lowercase();
    assert!(!log.contains(&RIGHT[8..16]) && !log.contains(&WRONG[8..16]), "a key is in the log");
}
