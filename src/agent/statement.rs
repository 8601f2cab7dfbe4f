//! The status document: what the rooms tell about themselves, for the platform (docs/mqtt.md).

use std::convert::Infallible;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Evidence;
use crate::model::{ClockState, Timestamp};
use crate::store::{Status, Store};

/// More often would cost more than it tells.
const SHORTEST: Duration = Duration::from_secs(1);

/// Writes the document every `every`, until nobody reads it any more.
pub(super) async fn run(
    store: Store,
    evidence: Evidence,
    gateway: String,
    (every, extended): (Duration, bool),
    out: watch::Sender<Option<String>>,
) -> Result<(), Infallible> {
    let started = Instant::now();
    while !out.is_closed() {
        let status = store.status().borrow().clone();
        let document = document(&status, &evidence, &gateway, started.elapsed(), extended);
        out.send_replace(Some(document.to_string()));
        sleep(every.max(SHORTEST)).await;
    }
    Ok(())
}

fn document(status: &Status, evidence: &Evidence, gateway: &str, running: Duration, extended: bool) -> Value {
    let now = evidence.clock.stamp();
    let mut document = json!({
        "gateway": gateway,
        "timestamp": now.wall.to_string(),
        "clock": if now.clock == ClockState::Synced { "synced" } else { "unsynced" },
        "version": env!("CARGO_PKG_VERSION"),
        "running": running.as_secs(),
        "store": store(status),
        "uplink": evidence.brokers().iter().map(broker).collect::<Vec<_>>(),
    });
    if let (true, Some(members)) = (extended, document.as_object_mut()) {
        members.insert("evicted_by_meter".into(), json!(*status.evicted_by_meter));
        members.insert("meters".into(), meters(evidence));
        members.insert("receivers".into(), receivers(evidence));
    }
    document
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
        "last_error": health.last_error,
    })
}

fn meters(evidence: &Evidence) -> Value {
    let meters = evidence.meters.meters().into_iter().map(|(name, health)| {
        let (error_at, error) = health.last_error.unzip();
        let told = json!({
            "answers": health.answers,
            "timeouts": health.timeouts,
            "damaged": health.damaged,
            "refused": health.refused,
            "failing": health.failing,
            "last_answer": time(health.last_answer),
            "last_error": error,
            "last_error_at": time(error_at),
        });
        (name, told)
    });
    Value::Object(meters.collect::<Map<_, _>>())
}

fn receivers(evidence: &Evidence) -> Value {
    let receivers = evidence.receivers.iter().map(|(name, health)| {
        let status = health.status();
        let told = json!({
            "heard": status.heard,
            "forwarded": status.forwarded,
            "duplicates": status.duplicates,
            "damaged": status.damaged,
            "failures": status.failures,
            "last_heard": time(status.last_heard),
        });
        (name.clone(), told)
    });
    Value::Object(receivers.collect::<Map<_, _>>())
}
