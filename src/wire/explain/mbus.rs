//! A wired M-Bus frame in words: its link layer, who sent it, its records.

use serde_json::{Map, Value, json};

use super::{Explanation, Layer, Row};
use crate::wire::DecodeError;
use crate::wire::mbus::{self, Answer, FCB, Frame, Header, POINT_TO_POINT, Record, SELECTED, answer};

type Json = Map<String, Value>;

pub(super) fn explain(bytes: &[u8]) -> Result<Explanation, DecodeError> {
    let frame = mbus::decode(bytes)?;
    let mut json = Json::new();
    json.insert("format".into(), json!("mbus"));
    json.insert("length".into(), json!(bytes.len()));
    let kind = match &frame {
        Frame::Acknowledge => "single character E5 (acknowledge)",
        Frame::Short { .. } => "short frame",
        Frame::Long { data, .. } if data.is_empty() => "control frame",
        Frame::Long { .. } => "long frame",
    };
    let mut layers = vec![link(&frame, &mut json)];
    if let Frame::Long { control, ci, data, .. } = &frame {
        json.insert("ci".into(), json!(format!("{ci:02x}")));
        match answer::decode(&frame) {
            Ok(found) => layers.extend(application(*ci, found, &mut json)),
            Err(fault) => {
                let meaning = if control & 0x40 != 0 { meaning_of_ci(*ci).to_owned() } else { fault.to_string() };
                let rows = vec![row("CI", &[*ci], meaning), row("data", data, String::new())];
                layers.push(Layer { title: "application layer", rows });
            }
        }
    }
    Ok(Explanation { title: format!("wired M-Bus {kind}, {} bytes, its checksum is good", bytes.len()), layers, json })
}

fn row(field: &'static str, bytes: &[u8], meaning: String) -> Row {
    Row { field, bytes: data_encoding::HEXLOWER.encode(bytes), meaning }
}

fn link(frame: &Frame, json: &mut Json) -> Layer {
    let rows = match frame {
        Frame::Acknowledge => vec![row("E5", &[mbus::ACKNOWLEDGE], "the slave has understood, or has no data".into())],
        Frame::Short { control, address } | Frame::Long { control, address, .. } => {
            json.insert("function".into(), json!(function(*control)));
            json.insert("address".into(), json!(address));
            let bits = if control & 0x50 == 0x50 { if control & FCB == 0 { ", FCB 0" } else { ", FCB 1" } } else { "" };
            vec![
                row("C", &[*control], format!("{}{bits}", function(*control))),
                row("A", &[*address], address_in_words(*address)),
            ]
        }
    };
    Layer { title: "link layer (EN 13757-2)", rows }
}

const fn function(control: u8) -> &'static str {
    match control & 0x4F {
        0x40 => "SND_NKE",
        0x43 => "SND_UD",
        0x4A => "REQ_UD1",
        0x4B => "REQ_UD2",
        0x08 => "RSP_UD",
        _ => "unknown function",
    }
}

fn address_in_words(address: u8) -> String {
    match address {
        SELECTED => "253: the slave selected by its secondary address".into(),
        POINT_TO_POINT => "254: the only slave on the line".into(),
        255 => "255: all slaves, none answers".into(),
        own => format!("slave {own}"),
    }
}

const fn meaning_of_ci(ci: u8) -> &'static str {
    match ci {
        mbus::CI_APPLICATION_RESET => "application reset or choice of a sub-telegram",
        mbus::CI_SELECT => "selection by secondary address",
        0x51 => "data to the slave",
        0xB8..=0xBF => "change of rate",
        _ => "to the slave",
    }
}

fn application(ci: u8, answer: Answer, json: &mut Json) -> Vec<Layer> {
    let mut head = vec![row("CI", &[ci], "answer with user data".into())];
    let mut layers = Vec::new();
    match answer {
        Answer::Refused(why) => {
            json.insert("refused".into(), json!(why));
            head.push(row("error", &[], why));
        }
        Answer::Encrypted(header) => {
            head.extend(header_rows(&header, json));
            head.push(row("records", &[], format!("encrypted, mode {}", header.security_mode())));
        }
        Answer::Telegram(telegram) => {
            if let Some(header) = &telegram.header {
                head.extend(header_rows(header, json));
            }
            let records: Vec<_> = telegram.records.iter().map(as_json).collect();
            json.insert("records".into(), json!(records));
            json.insert("more_follows".into(), json!(telegram.more));
            let mut rows: Vec<_> = telegram.records.iter().map(|r| row("record", &[], in_words(r))).collect();
            if telegram.more {
                rows.push(row("1F", &[0x1F], "more records follow in another telegram".into()));
            }
            layers.push(Layer { title: "records (EN 13757-3)", rows });
        }
    }
    layers.insert(0, Layer { title: "application layer (EN 13757-3)", rows: head });
    layers
}

fn header_rows(header: &Header, json: &mut Json) -> Vec<Row> {
    let meter = header.meter;
    json.insert("id".into(), json!(meter.number()));
    json.insert("manufacturer".into(), json!(meter.letters()));
    json.insert("version".into(), json!(meter.version));
    json.insert("type".into(), json!(meter.device));
    json.insert("access_number".into(), json!(header.access));
    json.insert("status".into(), json!(header.status));
    vec![
        row("id", &meter.id.to_le_bytes(), meter.number()),
        row("manufacturer", &meter.manufacturer.to_le_bytes(), meter.letters()),
        row("version", &[meter.version], meter.version.to_string()),
        row("medium", &[meter.device], meter.device_name().unwrap_or("unknown").to_owned()),
        row("access number", &[header.access], header.access.to_string()),
        row("status", &[header.status], format!("{:08b}", header.status)),
    ]
}

fn as_json(record: &Record) -> Value {
    json!({ "name": record.name, "value": record.value, "unit": record.unit })
}

fn in_words(record: &Record) -> String {
    let value = record.value.as_deref().unwrap_or("no value");
    format!("{} = {value} {}", record.name, record.unit).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::{Format, explain};

    fn explained(hex: &str) -> super::Explanation {
        explain(&data_encoding::HEXUPPER.decode(hex.as_bytes()).unwrap(), None).unwrap()
    }

    #[test]
    fn an_answer_is_recognised_and_its_records_are_named() {
        // The example of the M-Bus documentation, clause 6.3.
        let found = explained("681F1F680802727856341224400107550000000313153100DA023B13018B60043718021816");
        let (json, text) = (found.to_json(), found.to_string());
        assert_eq!((&json["format"], &json["id"]), (&"mbus".into(), &"12345678".into()));
        assert_eq!(json["records"][0]["value"], "12.565");
        assert!(
            text.contains("volume_flow[5]:max = 0.113 m³/h") && text.contains("energy:t2:u1 = 218370 Wh"),
            "{text}"
        );
    }

    #[test]
    fn what_a_master_sends_is_explained_too() {
        let text = explained("107BFD7816").to_string();
        assert!(text.contains("REQ_UD2, FCB 1") && text.contains("253"), "{text}");
        let text = explained("680B0B6853FD5278563412FFFFFFFFB216").to_string();
        assert!(text.contains("selection by secondary address"), "{text}");
        assert!(explain(&[0xE5], Some(Format::Mbus)).unwrap().to_string().contains("acknowledge"));
    }
}
