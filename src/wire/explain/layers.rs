//! One function a layer: its fields as rows of the table and as keys of the JSON object.

use data_encoding::HEXLOWER;
use serde_json::{Map, Value, json};

use super::{Layer, Row};
use crate::wire::mbal::Mbal;
use crate::wire::wmbus::{Afl, Ell, Meter, Telegram, Tpl, Upper, ci_name, mode_name};

type Json = Map<String, Value>;

/// The title of what could not be read.
pub(super) const UNREAD: &str = "not read further";

/// The link layer of a telegram in the normal form.
pub(super) fn link(telegram: &Telegram<'_>, bytes: &[u8], json: &mut Json) -> Layer {
    let control = telegram.control;
    put(json, "c", json!(format!("{:02x}", control.byte())));
    put(json, "function", json!(control.function()));
    if control.is_relayed() {
        put(json, "relayed", json!(true));
    }
    let relayed = if control.is_relayed() { ", sent on by a repeater" } else { "" };
    let mut rows = vec![
        row("L", &[bytes.first().copied().unwrap_or(0)], format!("{} bytes follow", bytes.len().saturating_sub(1))),
        row("C", &[control.byte()], format!("{}: {}{relayed}", control.function(), control.meaning())),
    ];
    rows.extend(meter(telegram.meter, json));
    Layer { title: "link layer (EN 13757-4)", rows }
}

/// The header of an MBAL frame.
pub(super) fn mbal(frame: &Mbal<'_>, bytes: &[u8], json: &mut Json) -> Layer {
    put(json, "control", json!(format!("{:02x}", frame.control)));
    put(json, "priority", json!(frame.is_priority()));
    let unknown = if frame.control > 1 { ", other bits have no public meaning" } else { "" };
    let priority = if frame.is_priority() { "prioritised" } else { "ordinary" };
    let mut rows = vec![row("control", &[frame.control], format!("{priority}{unknown}"))];
    rows.extend(meter(frame.meter, json));
    put(json, "command", json!(format!("{:02x}", frame.command)));
    put(json, "function", json!(frame.function()));
    rows.push(row("command", &[frame.command], frame.function().unwrap_or("unknown function").to_owned()));
    rows.push(row("CRC", bytes.get(10..12).unwrap_or(&[]), "good".to_owned()));
    put(json, "mbus", json!(HEXLOWER.encode(frame.mbus)));
    Layer { title: "MBAL header (OpenlinkIQ)", rows }
}

/// Everything above, as far as it can be read.
pub(super) fn upper(upper: &Upper<'_>, payload: &[u8], json: &mut Json) -> Vec<Layer> {
    let mut found = Vec::new();
    found.extend(upper.ell.map(|ell| extended_link(ell, json)));
    found.extend(upper.afl.map(|afl| authentication(afl, json)));
    found.extend(upper.tpl.as_ref().map(|tpl| transport(tpl, json)));
    if let Some(fault) = &upper.fault {
        put(json, "unread", json!(fault.to_string()));
        // Only the first CI field is sure when the walk stopped.
        let ci = payload.first().copied();
        put(json, "ci", json!(ci.map(|ci| format!("{ci:02x}"))));
        let rows = vec![row("payload", payload, fault.to_string())];
        found.push(Layer { title: UNREAD, rows });
    }
    found
}

fn meter(meter: Meter, json: &mut Json) -> Vec<Row> {
    let meant = meter.as_meant();
    put(json, "manufacturer", json!(meant.letters()));
    put(json, "id", json!(meant.number()));
    put(json, "version", json!(meant.version));
    put(json, "type", json!(meant.device));
    put(json, "type_name", json!(meant.device_name()));
    let mut rows = address(meter);
    if meant != meter {
        rows.push(row("as meant", &[], format!("{meant}: such meters send version and type first")));
    }
    rows
}

fn address(meter: Meter) -> Vec<Row> {
    let local = if meter.is_globally_unique() { "" } else { ", not unique world-wide" };
    vec![
        row("manufacturer", &meter.manufacturer.to_le_bytes(), format!("{}{local}", meter.letters())),
        row("number", &meter.id.to_le_bytes(), meter.number()),
        row("version", &[meter.version], meter.version.to_string()),
        row("type", &[meter.device], meter.device_name().unwrap_or("unknown type").to_owned()),
    ]
}

fn extended_link(ell: Ell, json: &mut Json) -> Layer {
    put(json, "ell", json!(format!("{:02x}", ell.ci)));
    put(json, "ell_control", json!(format!("{:02x}", ell.control)));
    put(json, "ell_priority", json!(ell.is_priority()));
    let flags = [
        (0x80, "bidirectional"),
        (0x40, "fast response"),
        (0x20, "synchronous"),
        (0x10, "relayed"),
        (0x08, "high priority"),
        (0x04, "accessible"),
        (0x02, "repeated"),
        (0x01, "extended"),
    ];
    let set: Vec<_> = flags.into_iter().filter(|(bit, _)| ell.control & bit != 0).map(|(_, word)| word).collect();
    let mut rows = vec![
        row("CI", &[ell.ci], named(ell.ci)),
        row("CC", &[ell.control], if set.is_empty() { "nothing special".to_owned() } else { set.join(", ") }),
        row("ACC", &[ell.access], format!("access number {}", ell.access)),
    ];
    rows.extend(ell.meter.map(address).unwrap_or_default());
    if let Some(session) = ell.session {
        put(json, "ell_encryption", json!(ell.encryption()));
        let encryption = match ell.encryption() {
            0 => "not encrypted",
            1 => "AES-128-CTR",
            _ => "unknown encryption",
        };
        rows.push(row("SN", &session.to_le_bytes(), encryption.to_owned()));
    }
    if let Some(fits) = ell.payload_crc_fits {
        put(json, "ell_payload_crc", json!(fits));
        let meaning = if fits { "fits: what follows is clear" } else { "does not fit: encrypted or damaged" };
        rows.push(Row { field: "payload CRC", bytes: String::new(), meaning: meaning.to_owned() });
    }
    Layer { title: "extended link layer (EN 13757-4)", rows }
}

fn authentication(afl: Afl<'_>, json: &mut Json) -> Layer {
    put(json, "afl", json!(HEXLOWER.encode(&afl.control.to_le_bytes())));
    let more = if afl.more_fragments() { ", more follow" } else { "" };
    let meaning = match afl.fragment() {
        0 => "message in one piece".to_owned(),
        number => format!("fragment {number}{more}"),
    };
    let mut rows = vec![row("FCL", &afl.control.to_le_bytes(), meaning)];
    if let Some(length) = afl.message_length {
        rows.push(row("ML", &length.to_le_bytes(), format!("{length} bytes in the whole message")));
    }
    if !afl.mac.is_empty() {
        put(json, "mac", json!(HEXLOWER.encode(afl.mac)));
        rows.push(row("MAC", afl.mac, "authentication code".to_owned()));
    }
    if let Some(counter) = afl.counter {
        put(json, "message_counter", json!(counter));
        rows.push(row("MCR", &counter.to_le_bytes(), format!("message counter {counter}")));
    }
    Layer { title: "authentication and fragmentation layer (EN 13757-7)", rows }
}

fn transport(tpl: &Tpl<'_>, json: &mut Json) -> Layer {
    put(json, "ci", json!(format!("{:02x}", tpl.ci)));
    let mut rows = vec![row("CI", &[tpl.ci], named(tpl.ci))];
    if let Some(meter) = tpl.meter {
        put(json, "tpl_address", json!(meter.to_string()));
        rows.extend(address(meter));
    }
    let mut hidden = false;
    if let Some(header) = tpl.header {
        let mode = header.security_mode();
        hidden = mode != 0;
        put(json, "access_number", json!(header.access));
        put(json, "status_byte", json!(format!("{:02x}", header.status)));
        put(json, "status", json!(header.status_words()));
        put(json, "alarm", json!(header.is_alarm()));
        put(json, "security_mode", json!(mode));
        let words = header.status_words();
        rows.push(row("ACC", &[header.access], format!("access number {}", header.access)));
        let status = if words.is_empty() { "no error".to_owned() } else { words.join(", ") };
        rows.push(row("status", &[header.status], status));
        let security = format!("security mode {mode}: {}", mode_name(mode));
        rows.push(row("configuration", &header.configuration.to_le_bytes(), security));
    }
    put(json, "body", json!(HEXLOWER.encode(tpl.body)));
    let what = if hidden { "may be encrypted" } else { "application data" };
    rows.push(row("body", tpl.body, format!("{} bytes, {what}", tpl.body.len())));
    Layer { title: "transport layer (EN 13757-7)", rows }
}

fn named(ci: u8) -> String {
    ci_name(ci).unwrap_or("reserved").to_owned()
}

fn row(field: &'static str, bytes: &[u8], meaning: String) -> Row {
    Row { field, bytes: HEXLOWER.encode(bytes), meaning }
}

fn put(json: &mut Json, key: &str, value: Value) {
    if !value.is_null() {
        json.insert(key.to_owned(), value);
    }
}
