//! A notification in words: its values by their OBIS ids.

use serde_json::{Value, json};

use super::{Json, Part, row};
use crate::wire::dlms::entry::{Entry, Finder};
use crate::wire::dlms::{notification, shown};
use crate::wire::explain::Layer;

/// The layers of a plain notification; `None` when it is none.
pub(super) fn explain(apdu: &[u8]) -> Option<Vec<Part>> {
    let notification = notification::decode(apdu).ok()?;
    let mut json = Json::new();
    let mut rows = Vec::new();
    if let Some(invoke) = notification.invoke {
        json.insert("invoke_id".into(), json!(invoke));
        rows.push(row("invoke id", &invoke.to_be_bytes(), (invoke & 0x00FF_FFFF).to_string()));
    }
    let time = notification.time.map(shown::written);
    json.insert("time".into(), json!(time));
    rows.push(row("date-time", &[], time.unwrap_or_else(|| "none".to_owned())));
    if notification.left > 0 {
        json.insert("left".into(), json!(notification.left));
        rows.push(row("rest", &[], format!("{} bytes follow that belong to nothing", notification.left)));
    }
    let head = Part { layer: Layer { title: "notification (IEC 62056-5-3)", rows }, json };
    let entries = Finder::new().entries(&notification);
    let listed: Vec<Value> = entries.iter().map(as_json).collect();
    let width = entries.iter().map(|entry| entry.name.to_string().len()).max().unwrap_or(0);
    let rows = entries.iter().map(|entry| row("value", &[], in_words(entry, width))).collect();
    let mut json = Json::new();
    json.insert("values".into(), Value::Array(listed));
    Some(vec![head, Part { layer: Layer { title: "values", rows }, json }])
}

/// The values of a plain notification, one line each; none of another APDU.
pub(super) fn lines(apdu: &[u8]) -> Vec<String> {
    let Ok(notification) = notification::decode(apdu) else { return Vec::new() };
    Finder::new().entries(&notification).iter().map(|entry| in_words(entry, 0)).collect()
}

fn as_json(entry: &Entry<'_>) -> Value {
    let mut value = json!({ "name": entry.name.to_string(), "value": entry.text(), "unit": entry.unit() });
    if let (Some(time), Some(value)) = (entry.time, value.as_object_mut()) {
        value.insert("time".into(), json!(shown::written(time)));
    }
    value
}

fn in_words(entry: &Entry<'_>, width: usize) -> String {
    let text = entry.text().unwrap_or_else(|| "no value".to_owned());
    let time = entry.time.map(|time| format!(" at {}", shown::written(time))).unwrap_or_default();
    let name = entry.name.to_string();
    format!("{name:width$} = {text} {}", entry.unit()).trim_end().to_owned() + &time
}
