//! What `mmcli -J` tells: `--` stands for what is not known.

use serde_json::Value as Json;

use crate::model::Timestamp;
use crate::modem::{State, Status};

/// A text at a path such as `/modem/3gpp/imei`.
pub(super) fn text(json: &Json, at: &str) -> Option<String> {
    let text = json.pointer(at)?.as_str()?.trim();
    (!text.is_empty() && text != "--").then(|| text.chars().take(2000).collect())
}

/// The texts of a list.
pub(super) fn list(json: &Json, at: &str) -> Vec<String> {
    let items = json.pointer(at).and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Json::as_str).map(str::to_owned).take(500).collect()
}

/// Whether one of its ports is the device of this name.
pub(super) fn has_port(modem: &Json, device: &str) -> bool {
    // "ttyUSB2 (at)"
    list(modem, "/modem/generic/ports").iter().any(|port| port.split(' ').next() == Some(device))
}

fn whole(json: &Json, at: &str) -> Option<i16> {
    let text = text(json, at)?;
    // Signals are told as "-85.00".
    let number = text.split_once('.').map_or(text.as_str(), |(whole, _)| whole);
    number.parse().ok().filter(|dbm| (-200..0).contains(dbm))
}

/// Writes down what a modem's reply tells.
pub(super) fn note(
    modem: &Json,
    signal: Option<&Json>,
    location: Option<&Json>,
    sim: Option<&Json>,
    status: &mut Status,
) {
    status.maker = text(modem, "/modem/generic/manufacturer");
    status.model = text(modem, "/modem/generic/model");
    status.firmware = text(modem, "/modem/generic/revision");
    let imei = || text(modem, "/modem/generic/equipment-identifier");
    status.imei = text(modem, "/modem/3gpp/imei").or_else(imei);
    status.operator = text(modem, "/modem/3gpp/operator-name").or_else(|| text(modem, "/modem/3gpp/operator-code"));
    status.registration = text(modem, "/modem/3gpp/registration-state").map(|word| registration(&word));
    let used = list(modem, "/modem/generic/access-technologies");
    status.technology = used.iter().rev().find_map(|word| technology(word));
    let kinds = ["5g", "lte", "umts", "gsm"];
    let of = |name: &str| kinds.iter().find_map(|kind| whole(signal?, &format!("/modem/signal/{kind}/{name}")));
    (status.rssi, status.rsrp, status.rsrq) = (of("rssi"), of("rsrp"), of("rsrq"));
    let percent = text(modem, "/modem/generic/signal-quality/value").and_then(|value| value.parse::<u8>().ok());
    // ModemManager makes the percentage of the CSQ: 100 % is 31.
    let by_percent = percent.filter(|percent| *percent <= 100).map(|percent| u16::from(percent) * 31 / 100);
    let by_rssi = status.rssi.map(|rssi| u16::try_from((rssi.clamp(-113, -51) + 113) / 2).unwrap_or(0));
    status.csq = by_rssi.or(by_percent).and_then(|csq| u8::try_from(csq).ok());
    let place = |name: &str| text(location?, &format!("/modem/location/3gpp/{name}"));
    let known = |code: &String| !code.trim_start_matches('0').is_empty();
    status.area = place("tac").filter(known).or_else(|| place("lac").filter(known));
    status.cell = place("cid").filter(known);
    status.iccid = sim.and_then(|sim| text(sim, "/sim/properties/iccid"));
    let wants = text(modem, "/modem/generic/unlock-required");
    status.sim = Some(match wants.as_deref() {
        None | Some("sim-pin2" | "sim-puk2") => "ready".to_owned(),
        Some("sim-pin") => "pin".to_owned(),
        Some("sim-puk") => "puk".to_owned(),
        Some(other) => other.to_owned(),
    });
    let state = text(modem, "/modem/generic/state").unwrap_or_default();
    status.state = match state.as_str() {
        "locked" | "failed" => State::Locked,
        _ => State::Ready,
    };
    status.fault = (status.state == State::Locked).then(|| {
        let reason = text(modem, "/modem/generic/state-failed-reason").or(wants).unwrap_or(state);
        format!("ModemManager says: {reason}")
    });
}

fn registration(word: &str) -> &'static str {
    match word {
        "home" | "home-sms-only" | "home-csfb-not-preferred" => "home",
        "roaming" | "roaming-sms-only" | "roaming-csfb-not-preferred" => "roaming",
        "searching" => "searching",
        "denied" => "denied",
        "idle" => "idle",
        "emergency-only" => "emergency-only",
        _ => "unknown",
    }
}

fn technology(word: &str) -> Option<&'static str> {
    Some(match word {
        "gsm" | "gsm-compact" | "gprs" | "edge" => "2g",
        "umts" | "hsdpa" | "hsupa" | "hspa" | "hspa-plus" => "3g",
        "lte" => "4g",
        "lte-cat-m" => "lte-m",
        "lte-nb-iot" => "nb-iot",
        "5gnr" => "5g",
        _ => return None,
    })
}

/// A message as ModemManager keeps it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) state: String,
    pub(super) from: String,
    /// `None`: it is no text.
    pub(super) text: Option<String>,
    pub(super) at: Option<Timestamp>,
}

pub(super) fn message(json: &Json) -> Option<Kept> {
    let state = text(json, "/sms/properties/state")?;
    let whole = json.pointer("/sms/content/text").and_then(Json::as_str).filter(|text| *text != "--");
    let hex = || {
        let hex = text(json, "/sms/content/data")?;
        let octets = data_encoding::HEXUPPER_PERMISSIVE.decode(hex.as_bytes()).ok()?;
        Some(String::from_utf8(octets.clone()).unwrap_or_else(|_| octets.iter().map(|o| char::from(*o)).collect()))
    };
    Some(Kept {
        state,
        from: text(json, "/sms/content/number").unwrap_or_default(),
        text: whole.map(str::to_owned).or_else(hex),
        at: text(json, "/sms/properties/timestamp").and_then(|at| clock(&at)),
    })
}

/// Reads `2026-11-22T15:00:00+01`, whose zone has no minutes, and RFC 3339.
fn clock(text: &str) -> Option<Timestamp> {
    let zone = text.rfind(['+', '-']).filter(|at| *at > 10);
    let short = zone.is_some_and(|at| text.len() == at + 3);
    Timestamp::parse(&if short { format!("{text}:00") } else { text.to_owned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_modem_tells_becomes_the_status() {
        let modem = json!({"modem": {
            "3gpp": {"imei": "356938035643809", "operator-code": "21407", "operator-name": "Movistar", "registration-state": "roaming"},
            "generic": {"manufacturer": "Quectel", "model": "EC25", "revision": "--", "state": "registered", "unlock-required": "sim-pin2",
                "access-technologies": ["gsm", "lte"], "signal-quality": {"recent": "yes", "value": "65"}, "ports": ["cdc-wdm0 (qmi)", "ttyUSB2 (at)"]},
        }});
        let signal = json!({"modem": {"signal": {"lte": {"rsrp": "-95.00", "rsrq": "-10.50", "rssi": "-67.00"}, "gsm": {"rssi": "--"}}}});
        let location = json!({"modem": {"location": {"3gpp": {"cid": "0001A2B3", "lac": "0000", "tac": "00C3"}}}});
        let mut status = Status::default();
        note(&modem, Some(&signal), Some(&location), None, &mut status);
        assert_eq!((status.registration, status.technology), (Some("roaming"), Some("4g")));
        assert_eq!((status.rssi, status.rsrp, status.csq), (Some(-67), Some(-95), Some(23)));
        assert_eq!((status.area.as_deref(), status.cell.as_deref()), (Some("00C3"), Some("0001A2B3")));
        assert_eq!((status.sim.as_deref(), status.state, status.firmware.clone()), (Some("ready"), State::Ready, None));
        note(&modem, None, None, None, &mut status);
        assert_eq!((status.rssi, status.csq), (None, Some(20)));
        assert!(has_port(&modem, "ttyUSB2") && !has_port(&modem, "ttyUSB"));
    }

    #[test]
    fn a_message_is_read_with_its_time() {
        let json = json!({"sms": {"content": {"data": "--", "number": "+34666", "text": "--"},
            "properties": {"state": "received", "timestamp": "2026-11-22T15:00:00+01"}}});
        let kept = message(&json).unwrap();
        assert_eq!((kept.text, kept.at), (None, Timestamp::parse("2026-11-22T14:00:00Z")));
        assert_eq!(clock("2026-11-22T15:00:00+01:00"), kept.at);
        assert_eq!(clock("2026-11-22"), None);
    }
}
