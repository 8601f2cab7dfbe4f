//! The frames that are in memory only, until the next sync: most are acknowledged before it and
//! never touch flash.

use std::collections::BTreeMap;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::model::Sequence;

/// What a waiting frame takes in memory beside its bytes.
pub(super) const OVERHEAD: usize = 64;

/// A frame in memory with its share of the memory bound, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Vec<u8>,
    pub(super) since: Instant,
    /// `None` only in tests.
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

/// The frames of one lane that are not on disk, oldest first.
#[derive(Debug, Default)]
pub(super) struct Tail {
    frames: BTreeMap<Sequence, Held>,
    bytes: usize,
}

impl Tail {
    /// Adds the newest frame.
    pub(super) fn push(&mut self, sequence: Sequence, held: Held) {
        self.bytes += held.bytes.len() + OVERHEAD;
        self.frames.insert(sequence, held);
    }

    /// Drops an acknowledged frame; false when it is not here.
    pub(super) fn remove(&mut self, sequence: Sequence) -> bool {
        let removed = self.frames.remove(&sequence);
        self.bytes -= removed.as_ref().map_or(0, |held| held.bytes.len() + OVERHEAD);
        removed.is_some()
    }

    /// Drops every frame up to `last`: they are on disk now.
    pub(super) fn release(&mut self, last: Sequence) {
        self.frames = self.frames.split_off(&last.saturating_add(1));
        self.bytes = self.frames.values().map(|held| held.bytes.len() + OVERHEAD).sum();
    }

    /// The frames above `after`, oldest first.
    pub(super) fn after(&self, after: Sequence) -> impl Iterator<Item = (Sequence, &[u8])> {
        self.frames.range(after.saturating_add(1)..).map(|(s, held)| (*s, held.bytes.as_slice()))
    }

    /// The oldest frame's number.
    pub(super) fn first(&self) -> Option<Sequence> {
        self.frames.keys().next().copied()
    }

    /// When the oldest frame came.
    pub(super) fn since(&self) -> Option<Instant> {
        self.frames.values().next().map(|held| held.since)
    }

    /// How many frames wait here.
    pub(super) fn len(&self) -> u64 {
        self.frames.len() as u64
    }

    /// How much of the memory bound is in use.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_leaves_when_it_is_acknowledged_or_on_disk() {
        let mut tail = Tail::default();
        for s in 1..=6u64 {
            tail.push(s, Held { bytes: vec![0; 10], since: Instant::now(), _room: None });
        }
        assert!(tail.remove(2) && !tail.remove(2));
        tail.release(3);
        assert_eq!(tail.after(4).map(|(s, _)| s).collect::<Vec<_>>(), [5, 6]);
        assert_eq!((tail.first(), tail.len(), tail.bytes()), (Some(4), 3, 3 * (10 + OVERHEAD)));
    }
}
