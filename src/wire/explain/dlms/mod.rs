//! DLMS/COSEM in words: what carries an APDU, its ciphering, its service, its objects and values.

use data_encoding::HEXLOWER;
use serde_json::{Map, Value, json};

use super::{Explanation, Layer, Row};
use crate::wire::DecodeError;
use crate::wire::dlms::open::{self, Keys, Sealed, TITLE};
use crate::wire::dlms::push::{Decoder, Event, Frame, is_apdu};
use crate::wire::dlms::{Apdu, Data, GetResponse, decode};

mod carrier;
mod names;
mod service;
mod short;
mod values;

type Json = Map<String, Value>;

/// A layer with what it is in the JSON object.
struct Part {
    layer: Layer,
    json: Json,
}

/// Explains pushes, and requests and answers, in whatever carries them. No password and no key is shown, nor an answer
/// to a request of one that stands before it; an answer without its request, or by a short name, does not tell what it
/// holds and is shown.
///
/// # Errors
/// That nothing in the bytes is DLMS, or what damaged it.
pub fn explain(bytes: &[u8], keys: Option<&Keys>) -> Result<Explanation, DecodeError> {
    explain_of(bytes, keys, None)
}

/// The same of APDUs that tell no system title, as those of one service: it is `title`, unless an AARQ or AARE among
/// the bytes tells it.
///
/// # Errors
/// As [`explain`].
pub fn explain_of(bytes: &[u8], keys: Option<&Keys>, title: Option<[u8; TITLE]>) -> Result<Explanation, DecodeError> {
    let events = events(bytes);
    let mut found = Found { client: title, meter: title, ..Found::default() };
    for event in &events {
        found.add(event, keys);
    }
    if found.messages.is_empty() && found.frames.is_empty() {
        return Err(found.nothing(bytes));
    }
    let what = match found.titles.as_slice() {
        [] if events.iter().any(|event| matches!(event, Event::Block { .. })) => "no whole APDU".to_owned(),
        [] => "frames without an APDU".to_owned(),
        titles => titles.join(", "),
    };
    let mut json = Json::new();
    json.insert("format".into(), json!("dlms"));
    json.insert("length".into(), json!(bytes.len()));
    json.insert("frames".into(), Value::Array(found.frames));
    json.insert("messages".into(), Value::Array(found.messages));
    if !found.lost.is_empty() {
        json.insert("damaged".into(), json!(found.lost));
    }
    if found.skipped > 0 {
        json.insert("skipped".into(), json!(found.skipped));
    }
    Ok(Explanation { title: format!("DLMS/COSEM, {} bytes: {what}", bytes.len()), layers: found.layers, json })
}

/// Whether the bytes are DLMS in something whose lengths and checks all fit.
pub(super) fn is_sure(bytes: &[u8]) -> bool {
    let events = events(bytes);
    let sound =
        |event: &Event| !matches!(event, Event::Damaged(_) | Event::Skipped { .. } | Event::Frame(Frame::Bare(_)));
    events.iter().any(|event| matches!(event, Event::Apdu(_) | Event::Frame(Frame::Hdlc(_))))
        && events.iter().all(sound)
}

/// One sentence for a thing in a stream, for a trace; nothing is decrypted, and no password that is written is told. An
/// answer does not tell what was asked for: it is told even where that is a password, which this client never reads.
/// `None` where there is nothing to say.
pub fn word(event: &Event) -> Option<String> {
    match event {
        Event::Frame(frame) => carrier::words(frame),
        Event::Block { number, last } => Some(format!("block {number}{}", if *last { ", the last" } else { "" })),
        Event::Apdu(apdu) => Some(summary(apdu)),
        Event::Damaged(damage) => Some(damage.to_string()),
        Event::Skipped { bytes } => Some(format!("{bytes} bytes that are no DLMS")),
    }
}

/// The values of a plain push, one line each; none of any other APDU.
pub fn values(apdu: &[u8]) -> Vec<String> {
    values::lines(apdu)
}

/// One sentence for each thing in the bytes; none when nothing in them is DLMS.
pub fn words(bytes: &[u8]) -> Vec<String> {
    let events = events(bytes);
    let any = events.iter().any(|event| matches!(event, Event::Frame(_)));
    if any { events.iter().filter_map(word).collect() } else { Vec::new() }
}

fn summary(apdu: &[u8]) -> String {
    let name = names::name(apdu.first().copied().unwrap_or_default());
    match open::sealed(apdu) {
        Ok(Some(sealed)) => format!("{name}, invocation counter {}", sealed.counter),
        _ => service::summary(apdu).unwrap_or_else(|| name.to_owned()),
    }
}

fn events(bytes: &[u8]) -> Vec<Event> {
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    let mut found: Vec<_> = std::iter::from_fn(|| decoder.next()).collect();
    decoder.silence();
    found.extend(std::iter::from_fn(|| decoder.next()));
    // Only pushes are looked for without a carrier; here the bytes are said to be whole.
    let doubtful = !found.iter().any(|event| matches!(event, Event::Frame(_)))
        || found.iter().any(|event| matches!(event, Event::Skipped { .. }));
    if doubtful && bytes.first().copied().is_some_and(is_apdu) && service::is_readable(bytes) {
        return vec![Event::Frame(Frame::Bare(bytes.to_vec())), Event::Apdu(bytes.to_vec())];
    }
    found
}

#[derive(Default)]
struct Found {
    titles: Vec<String>,
    layers: Vec<Layer>,
    frames: Vec<Value>,
    messages: Vec<Value>,
    lost: Vec<String>,
    skipped: usize,
    /// The system titles, where APDUs tell none themselves.
    client: Option<[u8; TITLE]>,
    meter: Option<[u8; TITLE]>,
    /// The blocks of a long answer so far, and how many they are.
    blocks: Vec<u8>,
    newest: u32,
    /// The invoke ids, one bit each, whose newest request is one of a secret.
    asked: u16,
}

impl Found {
    fn add(&mut self, event: &Event, keys: Option<&Keys>) {
        match event {
            Event::Frame(frame) => {
                let part = carrier::explain(frame);
                self.frames.push(Value::Object(part.json));
                self.layers.extend((!part.layer.rows.is_empty()).then_some(part.layer));
            }
            Event::Block { number, last } => {
                let meaning = format!("number {number}{}", if *last { ", the last" } else { ", more follow" });
                let rows = vec![Row { field: "block", bytes: String::new(), meaning }];
                self.layers.push(Layer { title: "general block transfer", rows });
            }
            Event::Apdu(apdu) => self.message(apdu, keys),
            Event::Damaged(damage) => {
                self.lost.push(damage.to_string());
                let rows = vec![Row { field: "lost", bytes: String::new(), meaning: damage.to_string() }];
                self.layers.push(Layer { title: "damage", rows });
            }
            Event::Skipped { bytes } => {
                self.skipped += bytes;
                let meaning = format!("{bytes} bytes that belong to nothing");
                let rows = vec![Row { field: "skipped", bytes: String::new(), meaning }];
                self.layers.push(Layer { title: "noise", rows });
            }
        }
    }

    fn message(&mut self, apdu: &[u8], keys: Option<&Keys>) {
        let mut json = Json::new();
        let name = names::name(apdu.first().copied().unwrap_or_default());
        json.insert("apdu".into(), json!(name));
        self.titles.push(name.to_owned());
        match open::sealed(apdu) {
            Ok(Some(sealed)) => self.sealed(apdu, &sealed, keys, &mut json),
            Ok(None) => self.plain(apdu, keys, &mut json),
            Err(closed) => {
                json.insert("error".into(), json!(closed.to_string()));
                let rows = vec![row("APDU", apdu, closed.to_string())];
                self.layers.push(Layer { title: "APDU", rows });
            }
        }
        self.messages.push(Value::Object(json));
    }

    fn sealed(&mut self, apdu: &[u8], sealed: &Sealed<'_>, keys: Option<&Keys>, json: &mut Json) {
        let part = service::ciphering(apdu, sealed);
        let mut layer = part.layer;
        let mut inside = part.json;
        // A person who decodes wants to see it, tag or not; what it is worth is told.
        let tag = apdu.first().copied().unwrap_or_default();
        let title = if names::is_of_client(tag) { self.client } else { self.meter };
        let opened = keys.map(|keys| sealed.open(keys, title, true));
        let (state, meaning) = match &opened {
            None => ("closed", "no key was given (--key, --auth-key)".to_owned()),
            Some(Err(closed)) => ("closed", closed.to_string()),
            Some(Ok(opened)) if opened.verified => ("verified", "opened; its tag is right".to_owned()),
            Some(Ok(_)) if sealed.control.authenticated() => {
                ("unverified", "opened; its tag was not looked at, for there is no authentication key".to_owned())
            }
            Some(Ok(_)) => ("untagged", "opened; it has no tag, so anybody may have written it".to_owned()),
        };
        inside.insert("state".into(), json!(state));
        if let Some(Err(closed)) = &opened {
            inside.insert("error".into(), json!(closed.to_string()));
        }
        json.insert("ciphering".into(), Value::Object(inside));
        // What is explained below need not be shown as it was; what is only authenticated could hold a password.
        let (shown, veil) = match opened {
            Some(Ok(_)) => (&[][..], ""),
            _ if sealed.control.encrypted() => (sealed.payload, ""),
            _ => (&[][..], " (not shown)"),
        };
        layer.rows.push(row("content", shown, format!("{} bytes{veil}, {meaning}", sealed.payload.len())));
        self.layers.push(layer);
        if let Some(Err(closed)) = &opened {
            self.titles.push(format!("not opened ({closed})"));
        }
        if let Some(Ok(opened)) = opened {
            let name = names::name(opened.apdu.first().copied().unwrap_or_default());
            json.insert("inside".into(), json!(name));
            self.titles.push(name.to_owned());
            self.plain(&opened.apdu, keys, json);
        }
    }

    fn plain(&mut self, apdu: &[u8], keys: Option<&Keys>, json: &mut Json) {
        let invoked = names::invoked(apdu);
        let hides = invoked.is_some_and(|(id, answers)| answers && self.asked & id != 0);
        let (parts, asks) = values::explain(apdu).map_or_else(|| service::explain(apdu, hides), |parts| (parts, None));
        if let (Some((id, _)), Some(secret)) = (invoked, asks) {
            self.asked = if secret { self.asked | id } else { self.asked & !id };
        }
        for part in parts {
            json.extend(part.json);
            self.layers.push(part.layer);
        }
        let information = match decode::<Apdu<'_>>(apdu) {
            Ok((Apdu::Aarq(aarq), _)) => {
                self.client = aarq.calling_ap_title.and_then(|title| title.try_into().ok()).or(self.client);
                aarq.user_information
            }
            Ok((Apdu::Aare(aare), _)) => {
                self.meter = aare.responding_ap_title.and_then(|title| title.try_into().ok()).or(self.meter);
                aare.user_information
            }
            Ok((Apdu::GetResponse(GetResponse::WithDataBlock { block, .. }), _)) => {
                let bytes = block.result.unwrap_or_default();
                let part = self.block(block.block_number, block.last_block, bytes, hides);
                if let Some(part) = part {
                    json.extend(part.json);
                    self.layers.push(part.layer);
                }
                return;
            }
            _ => return,
        };
        // An association under a cipher proposes and grants under it, too.
        if let Some(apdu) = information
            && let Ok(Some(sealed)) = open::sealed(apdu)
        {
            let mut inside = Json::new();
            self.sealed(apdu, &sealed, keys, &mut inside);
            json.insert("information".into(), Value::Object(inside));
        }
    }

    /// Puts a long answer together, and tells its value with its last block.
    fn block(&mut self, number: u32, last: bool, bytes: &[u8], hides: bool) -> Option<Part> {
        if number == 1 {
            (self.blocks, self.newest) = (Vec::new(), 0);
        }
        if self.newest.checked_add(1) != Some(number) {
            return None;
        }
        self.newest = number;
        self.blocks.extend_from_slice(bytes);
        let (value, _) = decode::<Data<'_>>(&self.blocks).ok().filter(|_| last)?;
        Some(service::long(&value, number, self.blocks.len(), hides))
    }

    /// Why nothing was found.
    fn nothing(&self, bytes: &[u8]) -> DecodeError {
        let found = match (self.lost.first(), bytes) {
            (Some(lost), _) => lost.clone(),
            (None, []) => "nothing".to_owned(),
            (None, _) => format!("{} bytes that are none of these", bytes.len()),
        };
        DecodeError::new(0, "DLMS in HDLC, M-Bus or wrapper frames, or an APDU", found)
    }
}

fn row(field: &'static str, bytes: &[u8], meaning: String) -> Row {
    Row { field, bytes: HEXLOWER.encode(bytes), meaning }
}

#[cfg(test)]
mod tests;
