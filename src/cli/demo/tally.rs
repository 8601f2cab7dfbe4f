//! What a consumer at the broker sees, and what it all comes to.

use std::collections::HashSet;
use std::fmt::Write;

use serde_json::Value;

use crate::model::Sequence;
use crate::sim::broker::Received;

/// What arrived at the broker, as a consumer of docs/mqtt.md reads it.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// Sequence numbers seen; each is one frame.
    pub(super) seen: HashSet<Sequence>,
    /// Frames that came again after a reconnect.
    pub(super) repeats: u64,
    /// Messages with frames.
    pub(super) messages: u64,
    /// Frames of the event topic.
    pub(super) priority: u64,
    /// The newest value of a wired meter, in words.
    pub(super) newest: String,
}

impl Arrivals {
    /// Takes in one message.
    pub(super) fn take(&mut self, message: &Received) {
        let Ok(payload) = serde_json::from_slice::<Value>(&message.payload) else { return };
        let Some(frames) = payload.get("frames").and_then(Value::as_array) else { return };
        self.messages += 1;
        for frame in frames {
            let sequence = frame.get("meta").and_then(|m| m.get("sequence")).and_then(Value::as_u64);
            let Some(sequence) = sequence else { continue };
            if self.seen.insert(sequence) {
                self.priority += u64::from(message.topic.ends_with("/event"));
            } else {
                self.repeats += 1;
            }
            self.note_reading(frame);
        }
    }

    fn note_reading(&mut self, frame: &Value) {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("-").to_owned();
        let Some(values) = frame.get("values").and_then(Value::as_array) else { return };
        let with_unit = values.iter().find(|v| v.get("unit").and_then(Value::as_str).is_some_and(|u| !u.is_empty()));
        let Some(value) = with_unit else { return };
        self.newest.clear();
        let _ = write!(
            self.newest,
            "{} {} = {} {}",
            text(frame.get("meter")),
            text(value.get("name")),
            text(value.get("value")),
            text(value.get("unit"))
        );
    }
}

/// The last line of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    /// Frames the store took in.
    pub(super) received: u64,
    /// Frames the broker acknowledged.
    pub(super) acknowledged: u64,
    /// Frames still in the cache.
    pub(super) cached: u64,
    /// Frames that came again after the cut.
    pub(super) repeats: u64,
    /// Telegrams sent by the simulated receivers that never became a frame, frames missing from
    /// the store's sum, and acknowledged frames that no consumer saw.
    pub(super) lost: u64,
}

impl Count {
    /// The line for machines.
    pub(super) fn json(&self) -> String {
        let Self { received, acknowledged, cached, lost, .. } = self;
        format!(r#"{{"received":{received},"acknowledged":{acknowledged},"cached":{cached},"lost":{lost}}}"#)
    }

    /// The lines for people.
    pub(super) fn sentence(&self) -> String {
        let Self { received, acknowledged, cached, repeats, lost } = self;
        let sign = if received == &(acknowledged + cached) { "=" } else { "is not" };
        let again = if *repeats == 0 {
            "no frame came twice".to_owned()
        } else {
            format!(
                "{repeats} came twice, their acknowledgement was cut off; consumers drop repeats by sequence number"
            )
        };
        format!(
            "received {received} {sign} acknowledged {acknowledged} + still cached {cached}, lost {lost}\n({again})\n"
        )
    }
}
