//! Who has each port, and what its tunnels did: for `weir ports`, the status document and the platform.

use serde_json::{Map, Value as Json, json};
use tokio::time::Instant;

use super::Evidence;
use crate::meter::bus::{Handle, Hold};
use crate::model::Timestamp;

/// Every open port: who has it, since when and until when, and who else wants or hears it.
pub(super) fn told(evidence: &Evidence) -> Json {
    let (now, at) = (evidence.clock.now(), Instant::now());
    evidence
        .buses
        .iter()
        .map(|bus| (bus.port().to_owned(), port(evidence, bus, (now, at))))
        .collect::<Map<_, _>>()
        .into()
}

fn port(evidence: &Evidence, bus: &Handle, now: (Timestamp, Instant)) -> Json {
    let tunnel = evidence.tunnels.iter().find(|tunnel| tunnel.port == bus.port());
    json!({
        "held": bus.hold().map(|hold| held(&hold, now)),
        "waiting": bus.waiting(),
        "traced": bus.tap().listeners(),
        "read_away": bus.read_away(),
        "peer": tunnel.and_then(|tunnel| tunnel.health.status().peer),
    })
}

fn held(hold: &Hold, (now, at): (Timestamp, Instant)) -> Json {
    let until = hold.until.map(|until| now.plus(until.saturating_duration_since(at)).to_string());
    json!({
        "for": hold.owner.purpose.word(),
        "by": &*hold.owner.name,
        "since": now.minus(at.saturating_duration_since(hold.since)).to_string(),
        "until": until,
    })
}
