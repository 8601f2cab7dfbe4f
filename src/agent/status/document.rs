//! The status document: what the rooms tell about themselves, for the platform (docs/mqtt.md).

use std::time::Duration;

use data_encoding::HEXLOWER;
use serde_json::{Map, Value, json};

use super::facts::{Facts, Teller};
use crate::agent::Evidence;
use crate::meter::{MeterHealth, ProfileHealth};
use crate::model::Timestamp;
use crate::radio;
use crate::store::Status;
use crate::uplink::{Account, Amount, Field};

/// So many bytes of a meter's last exchange are shown each way, so that many meters fit.
const SHOWN: usize = 64;

/// The figures of all rooms at one moment.
pub(super) fn document(facts: &Facts, teller: &Teller) -> Value {
    let mut members = always(facts);
    let evidence = &teller.evidence;
    if let Some(standing) = &facts.standing {
        members.insert("configuration".into(), crate::agent::change::order::standing(standing));
    }
    members.insert("ports".into(), crate::agent::ports::told(evidence));
    if teller.extended {
        members.insert("evicted_by_meter".into(), json!(*facts.status.evicted_by_meter));
        members.insert("meters".into(), meters(evidence));
        members.insert("receivers".into(), receivers(&evidence.receivers));
        members.insert("tunnels".into(), tunnels(evidence));
        members.insert("io".into(), crate::agent::io::shown(&teller.evidence.dogs));
        members.insert("watchdog".into(), crate::agent::dogs::shown(evidence));
    }
    Value::Object(members)
}

/// Fields of the table that stand in the document by their own names.
const PLAIN: [Field; 9] = [
    Field::Version,
    Field::Running,
    Field::Imei,
    Field::Ip,
    Field::Board,
    Field::Uptime,
    Field::Restart,
    Field::Temperature,
    Field::Locked,
];

/// Those of the modem's member.
const MODEM: [Field; 9] = [
    Field::Csq,
    Field::Rssi,
    Field::Rsrp,
    Field::Rsrq,
    Field::Technology,
    Field::Operator,
    Field::Registration,
    Field::Area,
    Field::Cell,
];

fn always(facts: &Facts) -> Map<String, Value> {
    let members = [
        ("gateway", facts.value(Field::Id)),
        ("timestamp", facts.value(Field::Time)),
        ("clock", json!(if facts.is_synced() { "synced" } else { "unsynced" })),
        ("modem", facts.modem.as_ref().map_or(Value::Null, |_| modem(facts))),
        ("disk", facts.disk.map_or(Value::Null, |(free, total)| json!({ "free": free, "total": total }))),
        ("store", store(&facts.status)),
        ("uplink", facts.brokers.iter().map(broker).collect()),
        ("traffic", traffic(&facts.account)),
    ];
    let plain = PLAIN.iter().map(|field| (field.name(), facts.value(*field)));
    members.into_iter().chain(plain).map(|(name, value)| (name.to_owned(), value)).collect()
}

fn modem(facts: &Facts) -> Value {
    let state = [("state".to_owned(), facts.value(Field::Modem))];
    let figures = MODEM.iter().map(|field| (field.name().to_owned(), facts.value(*field)));
    Value::Object(state.into_iter().chain(figures).collect())
}

fn traffic(account: &Account) -> Value {
    let bytes = |amount: &Amount| json!({ "sent": amount.sent, "received": amount.received });
    json!({
        "today": bytes(&account.today),
        "this_month": bytes(&account.this_month),
        "monthly": account.monthly,
        "steps": account.steps.iter().map(|step| step.word()).collect::<Vec<_>>(),
    })
}

fn store(status: &Status) -> Value {
    json!({
        "received": status.received,
        "acknowledged": status.acknowledged,
        "evicted": status.evicted,
        "pending": status.cached,
        "pending_priority": status.cached_priority,
        "damaged": status.damaged,
        "skipped": status.skipped,
        "given": status.given(),
        "durable": status.durable,
        "disk_bytes": status.disk_bytes,
        "disk_error": status.disk_error,
        "manifests": status.manifests,
        "closed_at": (status.manifests > 0).then(|| status.closed_at.to_string()),
    })
}

fn time(time: Option<Timestamp>) -> Option<String> {
    time.map(|t| t.to_string())
}

fn broker(health: &crate::uplink::Health) -> Value {
    json!({
        "broker": health.broker,
        "connected_since": time(health.connected_since),
        "reconnects": health.reconnects(),
        "failures": health.failures,
        "published": health.published,
        "acknowledged": health.acknowledged,
        "messages": health.messages,
        "oversized": health.oversized,
        "refused": health.refused,
        "last_error": health.last_error,
    })
}

pub(in crate::agent) fn meters(evidence: &Evidence) -> Value {
    evidence.meters.meters().into_iter().map(|(name, health)| (name, meter(&health))).collect::<Map<_, _>>().into()
}

/// The counters of every tunnel, by its port.
fn tunnels(evidence: &Evidence) -> Value {
    let shown = |door: &crate::agent::TunnelDoor| {
        let status = door.health.status();
        let counters = json!({
            "holds_line": status.holds_line,
            "sessions": status.sessions,
            "requests": status.requests,
            "answers": status.answers,
            "to_port": status.to_port,
            "from_port": status.from_port,
            "dropped_requests": status.dropped_requests,
            "dropped_answers": status.dropped_answers,
            "peers": status.peers,
            "refused": status.refused,
            "peer": status.peer,
        });
        (door.port.clone(), counters)
    };
    evidence.tunnels.iter().map(shown).collect::<Map<_, _>>().into()
}

fn meter(health: &MeterHealth) -> Value {
    let (error_at, error) = health.last_error.clone().unzip();
    json!({
        "answers": health.answers,
        "timeouts": health.timeouts,
        "damaged": health.damaged,
        "refused": health.refused,
        "failing": health.failing,
        "last_answer": time(health.last_answer),
        "last_error": error,
        "last_error_at": time(error_at),
        "stretch": health.stretch,
        "not_asked": health.not_asked,
        "line": on_the_line(health),
        "profile": health.profile.as_ref().map(profile),
    })
}

/// How far its load profile was read.
fn profile(health: &ProfileHealth) -> Value {
    let (error_at, error) = health.last_error.clone().unzip();
    json!({
        "delivered": health.delivered,
        "absent": health.absent,
        "newest": time(health.newest),
        "failing": health.failing,
        "last_error": error,
        "last_error_at": time(error_at),
    })
}

/// What settles whether it is the meter, the cable or the gateway.
fn on_the_line(health: &MeterHealth) -> Value {
    let millis = |delay: Option<Duration>| delay.map(|d| d.as_micros().div_ceil(1000));
    let hex = |bytes: &[u8]| HEXLOWER.encode(bytes.get(..SHOWN).unwrap_or(bytes));
    let delays = &health.delays;
    let exchange = health.exchange.as_ref().map(|(at, exchange)| {
        json!({
            "at": time(Some(*at)),
            "sent": hex(&exchange.sent),
            "sent_bytes": exchange.sent_bytes,
            "received": hex(&exchange.received),
            "received_bytes": exchange.received_bytes,
        })
    });
    json!({
        "requests": health.requests,
        "unanswered": health.unanswered,
        "damaged": health.damaged_answers,
        "echoes": health.echoes,
        "collisions": health.collisions,
        "delay_ms": {
            "p50": millis(delays.percentile(50)), "p95": millis(delays.percentile(95)), "max": millis(delays.longest()),
        },
        "exchange": exchange,
    })
}

/// Every receiver's counters by its name.
pub fn receivers(receivers: &[(String, radio::Health)]) -> Value {
    let receivers = receivers.iter().map(|(name, health)| {
        let status = health.status();
        let told = json!({
            "heard": status.heard,
            "forwarded": status.forwarded,
            "decoded": status.decoded,
            "undecoded": status.undecoded,
            "duplicates": status.duplicates,
            "unwanted": status.unwanted,
            "sampled_out": status.sampled_out,
            "damaged": status.damaged,
            "noise": status.noise,
            "source": status.source.word(),
            "failures": status.failures,
            "silences": status.silences,
            "reopened": status.reopened,
            "resets": status.resets,
            "no_reset": status.no_reset,
            "last_heard": time(status.last_heard),
        });
        (name.clone(), told)
    });
    Value::Object(receivers.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::line::Exchange;

    /// The names of a document's members, all levels.
    fn members(value: &Value, path: &str, out: &mut Vec<String>) {
        for (name, inner) in value.as_object().into_iter().flatten() {
            let path = format!("{path}/{name}");
            members(inner, &path, out);
            out.push(path);
        }
    }

    #[test]
    fn the_contract_shows_every_member_of_the_document() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/mqtt.md")).unwrap();
        let (_, block) = page.split_once("```json health\n").unwrap();
        let shown: Value = serde_json::from_str(block.split("```").next().unwrap()).unwrap();
        let made = always(&Facts {
            brokers: vec![crate::uplink::Health::default()],
            modem: Some(crate::modem::Status::default()),
            disk: Some((0, 0)),
            ..Facts::default()
        });
        let (_, block) = page.split_once("```json meter\n").unwrap();
        let of_meter: Value = serde_json::from_str(block.split("```").next().unwrap()).unwrap();
        let exchange = Some((Timestamp::default(), Exchange::default()));
        let profile = Some(ProfileHealth::default());
        let made_of_meter = meter(&MeterHealth { exchange, profile, ..MeterHealth::default() });
        let made = Value::Object(made);
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        members(&shown, "", &mut theirs);
        members(&shown["uplink"][0], "uplink", &mut theirs);
        members(&of_meter, "meter", &mut theirs);
        members(&made_of_meter, "meter", &mut ours);
        members(&made, "", &mut ours);
        members(&made["uplink"][0], "uplink", &mut ours);
        theirs.sort();
        ours.sort();
        assert_eq!(theirs, ours);
    }
}
