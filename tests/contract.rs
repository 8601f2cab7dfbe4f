//! docs/mqtt.md shows what the code produces, byte for byte in meaning.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use std::collections::BTreeMap;

use serde_json::Value as Json;
use weir::model::{
    Body, CodedValue, Decoded, Frame, Interval, Lane, Origin, Quality, Reading, Rssi, Sequence, Stamp, Stored,
    Telegram, TelegramKind, TimeQuality, Timestamp, Value,
};
use weir::setting::{Setting, Shape};
use weir::uplink::{Added, Message, UplinkSettings};

/// The fenced blocks of docs/mqtt.md by name.
fn blocks() -> BTreeMap<String, Json> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/mqtt.md")).unwrap();
    let mut found = BTreeMap::new();
    for block in page.split("```json ").skip(1) {
        let (name, rest) = block.split_once('\n').unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        found.insert(name.to_owned(), serde_json::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}")));
    }
    found
}

fn produced(sequence: Sequence, time: &str, body: Body) -> Json {
    produced_as(sequence, (time, TimeQuality::Synced), body, None)
}

fn produced_as(sequence: Sequence, time: (&str, TimeQuality), body: Body, origin: Option<Origin>) -> Json {
    let wall = Timestamp::parse(time.0).unwrap();
    let frame = Frame { time: Stamp::synced(wall), lane: Lane::Ordinary, body, origin };
    let mut message = Message::new(1 << 16);
    assert_eq!(message.add(&Stored { sequence, frame }, (wall, time.1)), Added::Fits);
    serde_json::from_slice(&message.finish().0).unwrap()
}

fn telegram(kind: TelegramKind, bytes: &[u8], rssi: Rssi) -> Body {
    Body::Telegram(Telegram { kind, bytes: bytes.to_vec(), rssi: Some(rssi), corrected_bits: 0 })
}

fn value(name: &str, value: Option<&str>, unit: &str, quality: Quality) -> Value {
    Value { name: name.into(), value: value.map(Into::into), unit: unit.into(), quality }
}

fn default_of(key: &str) -> Json {
    let Shape::Table { fields, .. } = UplinkSettings::shape() else { panic!("a table") };
    let default = fields.iter().find(|f| f.key == key).unwrap().default.unwrap();
    let source = format!("v = {default}");
    let document = toml::de::DeTable::parse(&source).unwrap();
    serde_json::from_str(document.get_ref().get("v").unwrap().get_ref().as_str().unwrap()).unwrap()
}

#[test]
fn every_json_block_of_the_contract_is_what_the_code_produces() {
    let values =
        vec![value("voltage_l1", Some("230.5"), "V", Quality::Good), value("energy", None, "kWh", Quality::NoAnswer)];
    let reading = Body::Reading(Reading { meter: "incomer".into(), values });
    let coded = |value, obis: Option<&str>| CodedValue { value, obis: obis.map(Into::into) };
    let decoded = Body::Decoded(Decoded {
        meter: "KAM.12345678.1b.16".into(),
        address: Some("KAM.87654321.1c.16".into()),
        values: vec![
            coded(value("volume", Some("2850.427"), "m³", Quality::Good), Some("8-0:1.0.0*255")),
            coded(value("error_flags", Some("0"), "", Quality::Good), None),
        ],
        id: [0xa3, 0xd0, 0x4b, 0x03, 0xc1, 0x04, 0x3b, 0x7b],
        rssi: Some(Rssi::Dbm(-87)),
        corrected_bits: 0,
        copies: 2,
    });
    let interval = Interval {
        meter: "incomer".into(),
        profile: "P.01".into(),
        end: Timestamp::parse("2021-11-13T23:15:00Z").unwrap(),
        meter_time: "0211114001500".into(),
        period: 900,
        status: "00".into(),
        values: vec![value("1.5.0", Some("0.250"), "kW", Quality::Good)],
    };
    let mbal = telegram(TelegramKind::OpenlinkIq, &[1, 2, 255], Rssi::Dbm(-87));
    let origin = Some(Origin { gateway: "gw-17".into(), sequence: 4711 });
    let signed = r#"{"manifest":"...","key":"...","signature":"..."}"#;
    let (then, later) = ("2021-11-13T21:54:01Z", "2021-11-13T22:00:00Z");
    let made: BTreeMap<String, Json> = [
        ("openlinkiq", produced(123, then, telegram(TelegramKind::OpenlinkIq, &[1, 2, 255], Rssi::Dbm(-87)))),
        ("wmbus", produced(124, then, telegram(TelegramKind::WirelessMbus, &[0x0A, 0x44], Rssi::Relative(97)))),
        ("reading", produced(125, later, reading)),
        ("imported", produced_as(126, (then, TimeQuality::Corrected), mbal, origin)),
        ("manifest", produced(127, "2021-11-14T00:00:01Z", Body::Manifest(signed.into()))),
        ("decoded", produced(129, then, decoded)),
        ("interval", produced(128, "2021-11-14T00:02:00Z", Body::Interval(interval))),
        ("status", default_of("status_payload")),
        ("will", default_of("will_payload")),
    ]
    .into_iter()
    .map(|(name, json)| (name.to_owned(), json))
    .collect();
    let mut shown = blocks();
    // Its members are compared where it is made: agent::statement.
    assert!(shown.remove("health").is_some() && shown.remove("meter").is_some());
    assert_eq!(shown, made);
}

#[test]
fn every_quality_of_a_time_is_named_in_the_contract() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/mqtt.md")).unwrap();
    for quality in [TimeQuality::Unsynced, TimeQuality::Corrected, TimeQuality::Synced] {
        assert!(page.contains(&format!("`{}`", quality.word())), "{quality:?}");
    }
}

#[test]
fn every_quality_is_named_in_the_contract() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/mqtt.md")).unwrap();
    for quality in [Quality::Good, Quality::NoAnswer, Quality::Refused, Quality::Invalid] {
        assert!(page.contains(&format!("`{}`", quality.word())), "{quality:?}");
    }
}
