//! Values, profiles and writes against a meter on gurux-dlms.

use weir::meter::{MeterError, WriteOutcome};
use weir::model::{Interval, Quality, Timestamp, Value};

use crate::plumbing::Meter;

const WRAPPER: &str = "[dlms]\nlink = \"wrapper\"\n";

fn told(values: &[Value]) -> Vec<(&str, Option<&str>, &str, Quality)> {
    values.iter().map(|v| (v.name.as_str(), v.value.as_deref(), v.unit.as_str(), v.quality)).collect()
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn values_are_scaled_and_named_as_they_were_asked_for() {
    crate::pace::hold();
    let settings = format!(
        "values = [\"1.8.0\", \"3/1-0:32.7.0*255:2\", \"0-0:42.0.0*255\", \"0-0:1.0.0*255\", \"1-0:9.9.9*255\", \"1-0:1.8.0*255:3\"]\n{WRAPPER}"
    );
    let mut meter = Meter::start(&settings, &[]).await;
    let values = meter.session.read(&mut meter.line).await.unwrap();
    assert_eq!(
        told(&values),
        [
            ("1.8.0", Some("123456.7"), "Wh", Quality::Good),
            ("3/1-0:32.7.0*255:2", Some("230.4"), "V", Quality::Good),
            ("0-0:42.0.0*255", Some("GRX0000000000001"), "", Quality::Good),
            ("0-0:1.0.0*255", Some("2026-01-15T12:00:00Z"), "", Quality::Good),
            ("1-0:9.9.9*255", None, "", Quality::Refused),
            ("1-0:1.8.0*255:3", Some("[-1, 30]"), "", Quality::Good),
        ]
    );
    // Classes and scalers are known now; nothing else changes.
    assert_eq!(meter.session.read(&mut meter.line).await.unwrap(), values);
}

#[tokio::test(start_paused = true)]
async fn a_reading_of_everything_walks_the_list_of_objects() {
    crate::pace::hold();
    let mut meter = Meter::start(WRAPPER, &[]).await;
    let values = meter.session.read(&mut meter.line).await.unwrap();
    let told = told(&values);
    for wanted in [
        ("0-0:42.0.0*255", Some("GRX0000000000001"), "", Quality::Good),
        ("1-0:1.8.0*255", Some("123456.7"), "Wh", Quality::Good),
        ("1-0:32.7.0*255", Some("230.4"), "V", Quality::Good),
        ("1-0:1.6.0*255", Some("5250"), "W", Quality::Good),
        ("1-0:1.6.0*255:5", Some("2026-01-14T17:45:00Z"), "", Quality::Good),
        ("1-0:1.4.0*255:3", Some("45.6"), "W", Quality::Good),
        ("0-0:96.3.10*255:3", Some("1"), "", Quality::Good),
    ] {
        assert!(told.contains(&wanted), "{wanted:?} in {told:?}");
    }
}

const PROFILE: &str = "load_profile = { id = \"1-0:99.1.0*255\" }\n";

async fn piece(meter: &mut Meter, after: &str, until: &str) -> Result<Vec<Interval>, MeterError> {
    meter.session.profile().unwrap().read(&mut meter.line, at(after), at(until)).await
}

#[tokio::test(start_paused = true)]
async fn a_profile_is_read_by_range_in_blocks() {
    crate::pace::hold();
    let mut meter = Meter::start(&format!("{PROFILE}{WRAPPER}"), &[]).await;
    let hour = piece(&mut meter, "2026-01-01T00:45:00Z", "2026-01-01T02:00:00Z").await.unwrap();
    let told: Vec<_> = hour.iter().map(|i| (i.end.to_string(), i.values[0].value.as_deref().unwrap())).collect();
    assert_eq!(told[0], ("2026-01-01T01:00:00Z".to_owned(), "100010.0"));
    assert_eq!(told.len(), 5, "{told:?}");
    assert_eq!(
        (hour[0].period, hour[0].profile.as_str(), hour[0].values[0].unit.as_str()),
        (900, "1-0:99.1.0*255", "Wh")
    );
    let all = piece(&mut meter, "2025-12-31T00:00:00Z", "2026-02-01T00:00:00Z").await.unwrap();
    assert_eq!((all.len(), all[199].values[0].value.as_deref()), (200, Some("100497.5")));
}

#[tokio::test(start_paused = true)]
async fn a_disconnector_is_opened_and_looked_at_and_a_value_written() {
    crate::pace::hold();
    let mut meter = Meter::start(WRAPPER, &[]).await;
    let writer = meter.session.writer().unwrap();
    let written = writer.write(&mut meter.line, "1-0:32.7.0*255", "231.5").await.unwrap();
    assert_eq!((written.outcome, written.before.value.as_deref()), (WriteOutcome::Done, Some("230.4")));
    assert_eq!(written.now.value.as_deref(), Some("231.5"));
    let error = writer.write(&mut meter.line, "1-0:32.7.0*255", "231.55").await.unwrap_err();
    assert!(error.to_string().contains("steps of 0.1"), "{error}");
    let written = writer.write(&mut meter.line, "0-0:96.3.10*255", "disconnect").await.unwrap();
    assert_eq!((written.outcome, written.now.value.as_deref()), (WriteOutcome::Done, Some("0")));
}

#[tokio::test(start_paused = true)]
async fn an_object_is_explained_by_name_and_an_image_is_taken_block_by_block() {
    crate::pace::hold();
    let mut meter = Meter::start(WRAPPER, &[]).await;
    let inspector = meter.session.inspector().unwrap();
    let told = inspector.inspect(&mut meter.line, &serde_json::json!({ "object": "1.8.0" })).await.unwrap();
    assert_eq!(
        (told["class_name"].as_str(), told["attributes"][1]["value"].as_str()),
        (Some("Register"), Some("123456.7"))
    );
    assert_eq!(told["attributes"][2]["words"], "times 0.1 Wh");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("firmware.bin");
    std::fs::write(&path, vec![7; 1000]).unwrap();
    let image = serde_json::json!({ "path": path, "identifier": "FW1", "activate": true });
    let order = serde_json::json!({ "object": "0-0:44.0.0*255", "image": image });
    let told = inspector.inspect(&mut meter.line, &order).await.unwrap();
    assert_eq!((told["blocks"].as_i64(), told["words"].as_str()), (Some(16), Some("activation successful")));
    let wrong = serde_json::json!({ "object": "9.9.9" });
    assert!(inspector.inspect(&mut meter.line, &wrong).await.unwrap_err().to_string().contains("no object"));
}

#[tokio::test(start_paused = true)]
async fn a_register_is_read_in_each_association_of_the_meter() {
    crate::pace::hold();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    let password = format!("password_file = {:?}\n", file("password", "Gurux\n"));
    let keys = format!(
        "key_file = {:?}\nauthentication_key_file = {:?}\n",
        file("key", "000102030405060708090a0b0c0d0e0f\n"),
        file("authentication", "d0d1d2d3d4d5d6d7d8d9dadbdcdddedf\n")
    );
    let ciphered = "security = \"authenticated-encrypted\"\n";
    for (client, authentication, secrets, more) in [
        (16, "none", "", ""),
        (17, "low", &*password, ""),
        (18, "manufacturer", &*password, ""),
        (19, "md5", &*password, ""),
        (20, "sha1", &*password, ""),
        (21, "sha256", &*password, ""),
        (1, "gmac", &*keys, ciphered),
    ] {
        let settings = format!(
            "values = [\"1.0.1.8.0.255\", \"1-0:32.7.0*255\"]\n{secrets}{WRAPPER}client = {client}\n\
             authentication = \"{authentication}\"\n{more}"
        );
        let mut meter = Meter::start(&settings, &[]).await;
        meter.session.keep_in(weir::meter::Kept::new(folder.path().join(authentication)));
        let values = meter.session.read(&mut meter.line).await.unwrap();
        let wanted = [
            ("1.0.1.8.0.255", Some("123456.7"), "Wh", Quality::Good),
            ("1-0:32.7.0*255", Some("230.4"), "V", Quality::Good),
        ];
        assert_eq!(told(&values), wanted, "{authentication}");
    }
}
