//! What a telegram says, opened with a key when it needs one: its values and why it is urgent.

use data_encoding::HEXLOWER;
use serde_json::{Value as Json, json};

use super::{Explanation, Layer, Row, layers};
use crate::model::TelegramKind;
use crate::wire::mbal;
use crate::wire::mbus::{self, Answer, Frame, answer};
use crate::wire::telegram::facts;
use crate::wire::wmbus::{
    self, Content, Formats, How, Keys, LINK_HEADER, Locked, Meter, Opened, Reasons, Upper, Value, open_link, upper,
};

/// The M-Bus layers of a telegram and who sent them.
struct Inner<'a> {
    sender: Meter,
    layers: &'a [u8],
    offset: usize,
}

/// Appends what a wireless M-Bus telegram in the normal form says.
pub(super) fn of_telegram(found: &mut Explanation, telegram: &[u8], keys: &Keys, formats: &mut Formats) {
    let Some((facts, layers)) = facts(TelegramKind::WirelessMbus, telegram).zip(telegram.get(LINK_HEADER..)) else {
        return;
    };
    let inner = Inner { sender: facts.meter, layers, offset: LINK_HEADER };
    let told = append(found, &inner, keys, formats);
    complete(found);
    let reasons = wmbus::urgency(&facts).found.or(told);
    found.json.insert("priority".into(), json!(!reasons.is_empty()));
    urgent(found, reasons);
}

/// Appends what an MBAL frame says; its priority is that of its control field alone.
pub(super) fn of_mbal(found: &mut Explanation, frame: &[u8], keys: &Keys, formats: &mut Formats) {
    let Some((facts, layers)) = facts(TelegramKind::OpenlinkIq, frame).zip(frame.get(mbal::HEADER..)) else { return };
    let inner = Inner { sender: facts.meter, layers, offset: mbal::HEADER };
    let told = append(found, &inner, keys, formats);
    complete(found);
    urgent(found, wmbus::urgency(&facts).found.or(told));
}

/// Gives every telegram these members, so that a program need not ask.
fn complete(found: &mut Explanation) {
    for (member, none) in [("ci", Json::Null), ("security_mode", Json::Null), ("records", json!([]))] {
        found.json.entry(member).or_insert(none);
    }
}

/// Appends what an encrypted answer of wired M-Bus says; a clear one has been told already.
pub(super) fn of_wired(found: &mut Explanation, frame: &[u8], keys: &Keys, formats: &mut Formats) {
    let Ok(frame) = mbus::decode(frame) else { return };
    let (Ok(Answer::Encrypted(header)), Frame::Long { ci, data, .. }) = (answer::decode(&frame), &frame) else {
        return;
    };
    let layers = [&[*ci], data.as_slice()].concat();
    const CI: usize = 6;
    append(found, &Inner { sender: header.meter, layers: &layers, offset: CI }, keys, formats);
}

fn urgent(found: &mut Explanation, reasons: Reasons) {
    let words: Vec<_> = reasons.words().collect();
    if !words.is_empty() {
        let rows = vec![row("reasons", words.join(", "))];
        found.layers.push(Layer { title: "urgent", rows });
    }
    found.json.insert("urgency".into(), json!(words));
}

/// Appends the values, or why there are none; returns the reasons of urgency among them.
fn append(found: &mut Explanation, inner: &Inner<'_>, keys: &Keys, formats: &mut Formats) -> Reasons {
    let mut link_decrypted = false;
    if let Ok((opened, How::Decrypted)) = open_link(inner.sender, inner.layers, keys) {
        link_decrypted = true;
        below_is_open(found, &opened, inner.offset);
    }
    let opened = wmbus::open(inner.sender, inner.layers, inner.offset, keys);
    let decrypted = link_decrypted || matches!(&opened, Ok(opened) if opened.how == How::Decrypted);
    found.json.insert("decrypted".into(), json!(decrypted));
    match opened {
        Ok(opened) => values(found, &opened, decrypted, formats),
        // The layers above have already said so.
        Err(Locked::Unreadable(_)) => Reasons::NONE,
        Err(locked) => {
            found.json.insert("locked".into(), json!(locked.to_string()));
            let rows = vec![row("locked", locked.to_string())];
            found.layers.push(Layer { title: "application layer (EN 13757-3)", rows });
            Reasons::NONE
        }
    }
}

/// Puts the layers that an opened extended link layer showed in the place of "not read further".
fn below_is_open(found: &mut Explanation, opened: &[u8], offset: usize) {
    found.json.remove("unread");
    found.layers.retain(|layer| layer.title != layers::UNREAD);
    let above = Upper { ell: None, ..upper(opened, offset) };
    found.layers.extend(layers::upper(&above, opened, &mut found.json));
    found.json.insert("ell_payload_crc".into(), json!(true));
}

fn values(found: &mut Explanation, opened: &Opened, decrypted: bool, formats: &mut Formats) -> Reasons {
    let mut rows = Vec::new();
    match opened.how {
        _ if decrypted => {
            found.json.insert("plain".into(), json!(HEXLOWER.encode(&opened.body)));
            let bytes = HEXLOWER.encode(&opened.body);
            rows.push(Row { field: "opened", bytes, meaning: "with the meter's key, which is proven right".into() });
        }
        How::ClearAgainstHeader => {
            let note = "clear, although the header says encrypted: somebody opened it before";
            found.json.insert("note".into(), json!(note));
            rows.push(row("body", note.to_owned()));
        }
        How::Clear | How::Decrypted => {}
    }
    let reasons = match wmbus::records(opened, formats) {
        Ok(content) => {
            rows.extend(content.values.iter().map(|value| row("record", in_words(value))));
            to_json(found, &content);
            if let Some(fault) = &content.fault {
                rows.push(row("broken", fault.to_string()));
            }
            if content.more {
                rows.push(row("1F", "more records follow in another telegram".to_owned()));
            }
            wmbus::of_values(&content).found
        }
        Err(unread) => {
            found.json.insert("unread".into(), json!(unread.to_string()));
            rows.push(row("content", unread.to_string()));
            Reasons::NONE
        }
    };
    if !rows.is_empty() {
        found.layers.push(Layer { title: "application layer (EN 13757-3)", rows });
    }
    reasons
}

fn to_json(found: &mut Explanation, content: &Content) {
    let records: Vec<_> = content.values.iter().map(as_json).collect();
    found.json.insert("records".into(), json!(records));
    if content.more {
        found.json.insert("more_follows".into(), json!(true));
    }
    if let Some(fault) = &content.fault {
        found.json.insert("fault".into(), json!(fault.to_string()));
    }
}

fn as_json(value: &Value) -> Json {
    let record = &value.record;
    let mut object = json!({ "name": record.name, "value": record.value, "unit": record.unit });
    if let (Some(code), Some(members)) = (&value.obis, object.as_object_mut()) {
        members.insert("obis".into(), json!(code));
    }
    object
}

fn in_words(value: &Value) -> String {
    let record = &value.record;
    let text = format!("{} = {} {}", record.name, record.value.as_deref().unwrap_or("no value"), record.unit);
    match &value.obis {
        Some(code) => format!("{}  ({code})", text.trim_end()),
        None => text.trim_end().to_owned(),
    }
}

fn row(field: &'static str, meaning: String) -> Row {
    Row { field, bytes: String::new(), meaning }
}

#[cfg(test)]
mod tests {
    use super::super::{Explainer, Explanation};
    use crate::wire::aes::Aes128;
    use crate::wire::mbus;
    use crate::wire::wmbus::Keys;

    const KEY: [u8; 16] = [0x42; 16];

    /// A telegram of mode 5 with one volume, or what stands in its place.
    fn telegram(body: &[u8; 16]) -> Vec<u8> {
        let mut body = *body;
        let address = [0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x1B, 0x16];
        let iv = [&address[..], &[9; 8]].concat().try_into().unwrap();
        Aes128::new(&KEY).cbc_encrypt(iv, &mut body);
        [&[30, 0x44], &address[..], &[0x7A, 9, 0x03, 0x10, 0x05], &body].concat()
    }

    const BODY: [u8; 16] = [0x2F, 0x2F, 0x0C, 0x13, 0x27, 0x04, 0x85, 0x02, 0x02, 0xFD, 0x17, 1, 0, 0x2F, 0x2F, 0x2F];

    fn explained(keys: Keys) -> Explanation {
        Explainer::new(keys).explain(&telegram(&BODY), None).unwrap()
    }

    #[test]
    fn with_the_key_the_values_are_told_and_why_it_is_urgent() {
        let found = explained(Keys::for_any(KEY));
        let (json, text) = (found.to_json(), found.to_string());
        assert_eq!((&json["decrypted"], &json["priority"]), (&true.into(), &true.into()));
        assert_eq!(json["records"][0]["value"], "2850.427");
        assert_eq!(json["records"][0]["obis"], "8-0:1.0.0*255");
        assert_eq!(json["urgency"], serde_json::json!(["alarm-status", "error-flags"]));
        assert!(text.contains("volume = 2850.427 m³  (8-0:1.0.0*255)") && text.contains("proven right"), "{text}");
        assert!(!text.contains("4242"), "the key is not shown");
    }

    #[test]
    fn an_encrypted_answer_of_a_wired_meter_is_opened_too() {
        let mut body = BODY;
        let address = [0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x1B, 0x07];
        let iv = [&address[..], &[9; 8]].concat().try_into().unwrap();
        Aes128::new(&KEY).cbc_encrypt(iv, &mut body);
        let data = [&address[2..6], &address[..2], &address[6..], &[9, 0, 0x10, 0x05], &body].concat();
        let mut frame = Vec::new();
        mbus::encode(&mbus::Frame::Long { control: 0x08, address: 1, ci: 0x72, data }, &mut frame);
        let found = Explainer::new(Keys::for_any(KEY)).explain(&frame, None).unwrap().to_json();
        assert_eq!((&found["format"], &found["decrypted"]), (&"mbus".into(), &true.into()));
        assert_eq!(found["records"][0]["value"], "2850.427");
        let locked = Explainer::new(Keys::none()).explain(&frame, None).unwrap().to_json();
        assert!(locked["locked"].as_str().unwrap().contains("has no key"));
    }

    #[test]
    fn without_the_key_or_with_another_it_says_so_and_tells_the_rest() {
        for (keys, word) in [(Keys::none(), "has no key"), (Keys::for_any([1; 16]), "is wrong")] {
            let found = explained(keys);
            let json = found.to_json();
            assert_eq!((&json["decrypted"], &json["id"]), (&false.into(), &"12345678".into()));
            assert!(json["locked"].as_str().unwrap().contains(word) && found.to_string().contains(word));
            assert_eq!(json["records"], serde_json::json!([]));
        }
    }
}
