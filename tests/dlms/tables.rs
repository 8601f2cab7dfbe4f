//! What `weir dlms` tells of each class of object, against a meter on gurux-dlms.

use serde_json::{Value as Json, json};
use weir::meter::MeterError;

use crate::peers::{self, Peer};
use crate::plumbing::connect;

/// What a meter with objects of every class answers to these orders.
async fn told(orders: &[Json]) -> Vec<Result<Json, MeterError>> {
    let port = peers::free_port().to_string();
    let _peer = Peer::python_with("dlms_meter.py", &["--wrapper", &port], &[("METER_FEW", "1")], "ready");
    let (mut session, mut line) = connect(&port, "timeout = \"5s\"\n[dlms]\nlink = \"wrapper\"\n").await;
    let mut answers = Vec::new();
    for order in orders {
        answers.push(session.inspector().unwrap().inspect(&mut line, order).await);
    }
    answers
}

fn object(name: &str) -> Json {
    json!({ "object": name })
}

/// The value of the attribute of this name.
fn value<'a>(answer: &'a Result<Json, MeterError>, name: &str) -> &'a str {
    let answer = answer.as_ref().unwrap();
    let attributes = answer["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {answer:#}"))["value"].as_str().unwrap_or("null")
}

#[tokio::test(start_paused = true)]
async fn objects_of_every_class_are_shown_with_names_and_values() {
    crate::pace::hold();
    let names =
        ["1.8.0", "clock", "0-0:96.3.10*255", "0-0:44.0.0*255", "0-7:25.9.0*255", "0-0:17.0.0*255", "0-1:24.1.0*255"];
    let answers = told(&names.map(object)).await;
    let classes: Vec<&str> = answers.iter().map(|a| a.as_ref().unwrap()["class_name"].as_str().unwrap()).collect();
    assert_eq!(
        classes,
        ["Register", "Clock", "Disconnect control", "Image transfer", "Push setup", "Limiter", "M-Bus client"]
    );
    assert_eq!(value(&answers[0], "value"), "123456.7");
    assert_eq!(value(&answers[1], "time"), "2026-01-15T12:00:00Z");
    assert_eq!(value(&answers[2], "control_state"), "1");
    assert_eq!(value(&answers[3], "image_block_size"), "64");
    // Push setup: what it sends, where to, how often it tries.
    let list = &answers[4].as_ref().unwrap()["attributes"][1];
    assert_eq!(list["columns"], json!(["class", "object", "attribute", "element"]), "{list:#}");
    assert_eq!(
        list["rows"],
        json!([["3 Register", "1-0:1.8.0*255", "2", "0"], ["8 Clock", "0-0:1.0.0*255", "2", "0"]])
    );
    assert_eq!(value(&answers[4], "number_of_retries"), "3");
    assert!(answers[4].as_ref().unwrap().to_string().contains("10.0.0.1:4059"), "{:#}", answers[4].as_ref().unwrap());
    // Limiter: the value it looks at, its thresholds.
    assert_eq!(value(&answers[5], "monitored_value"), "[3, 1-0:1.8.0*255, 2]");
    assert_eq!(value(&answers[5], "threshold_normal"), "500.0");
    assert_eq!(value(&answers[5], "threshold_emergency"), "100.0");
    // M-Bus client: the meter behind.
    assert_eq!(value(&answers[6], "primary_address"), "3");
    assert_eq!(value(&answers[6], "identification_number"), "12345678");
}

#[tokio::test(start_paused = true)]
async fn a_buffer_and_a_list_of_objects_are_tables_with_scaled_values() {
    crate::pace::hold();
    let answers = told(&[object("7/1-0:99.1.0*255:2"), object("15/0-0:40.0.0*255:2")]).await;
    let buffer = &answers[0].as_ref().unwrap()["attributes"][0];
    assert_eq!(buffer["columns"], json!(["0-0:1.0.0*255", "1-0:1.8.0*255 Wh"]));
    let rows = buffer["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 200);
    assert_eq!(rows[1], json!(["2026-01-01T00:15:00Z", "100002.5"]));
    let objects = &answers[1].as_ref().unwrap()["attributes"][0];
    let rows = objects["rows"].as_array().unwrap();
    assert!(rows.iter().any(|row| row[0] == "3 Register" && row[2] == "1-0:1.8.0*255"), "{objects:#}");
    assert!(rows.iter().any(|row| row[0] == "71 Limiter" && row[2] == "0-0:17.0.0*255"), "{objects:#}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_name_is_one_sentence_that_says_how_to_write_it() {
    crate::pace::hold();
    let names = ["hello", "1.8", "99999/1.8.0", "1.8.0:400", "9.9.9", ""];
    for (name, answer) in names.iter().zip(told(&names.map(object)).await) {
        let sentence = answer.unwrap_err().to_string();
        let known = sentence.contains("write \"1.8.0\"") || sentence.contains("has no object");
        assert!(known && !sentence.contains('\n') && !sentence.contains("written:"), "{name}: {sentence}");
    }
}
