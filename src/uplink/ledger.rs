//! Mirror: which broker has acknowledged what, and what may therefore be given up.
//!
//! Invariants: a frame is given up only when every required broker has acknowledged it; a broker
//! is never taken to have a frame that it did not acknowledge in a message of its own. Forgetting an
//! acknowledgement only repeats frames.

use crate::model::{Lane, Sequence};

use super::intervals::{Intervals, Span};

/// What one broker has acknowledged of the priority and of the ordinary lane.
pub(super) type Lanes = [Intervals; 2];

/// One broker's account.
#[derive(Debug, Clone)]
struct Account {
    /// Stands for the broker in the progress file.
    key: u64,
    required: bool,
    lanes: Lanes,
}

/// The accounts of all brokers, in the order of the configuration.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    accounts: Vec<Account>,
    /// Something was acknowledged since [`Ledger::progress`] was last asked.
    changed: bool,
}

const fn index(lane: Lane) -> usize {
    match lane {
        Lane::Priority => 0,
        Lane::Ordinary => 1,
    }
}

fn of(lanes: &Lanes, lane: Lane) -> &Intervals {
    let [priority, ordinary] = lanes;
    if index(lane) == 0 { priority } else { ordinary }
}

fn of_mut(lanes: &mut Lanes, lane: Lane) -> &mut Intervals {
    let [priority, ordinary] = lanes;
    if index(lane) == 0 { priority } else { ordinary }
}

impl Ledger {
    /// Opens accounts for brokers, given by key and whether they are required; a broker finds its
    /// earlier progress by its key.
    pub(super) fn new(brokers: impl IntoIterator<Item = (u64, bool)>, progress: &[(u64, Lanes)]) -> Self {
        let earlier = |key| progress.iter().find(|(k, _)| *k == key).map(|(_, lanes)| lanes.clone());
        let account = |(key, required)| Account { key, required, lanes: earlier(key).unwrap_or_default() };
        Self { accounts: brokers.into_iter().map(account).collect(), changed: false }
    }

    /// Notes that broker number `broker` acknowledged a message: the spans it closes and the
    /// frames it carried. Returns those of them that every required broker has acknowledged now.
    pub(super) fn acknowledge(
        &mut self,
        broker: usize,
        lane: Lane,
        spans: &[Span],
        mut frames: Vec<Sequence>,
    ) -> Vec<Sequence> {
        if let Some(account) = self.accounts.get_mut(broker) {
            for span in spans {
                of_mut(&mut account.lanes, lane).insert(*span);
            }
            self.changed = true;
        }
        frames.retain(|frame| self.is_settled(lane, *frame));
        frames
    }

    /// Notes that the lane holds nothing in these spans that the broker still lacks.
    pub(super) fn close_gap(&mut self, broker: usize, lane: Lane, span: Span) {
        if let Some(account) = self.accounts.get_mut(broker) {
            of_mut(&mut account.lanes, lane).insert(span);
        }
    }

    /// Whether the broker has acknowledged the frame.
    pub(super) fn has(&self, broker: usize, lane: Lane, frame: Sequence) -> bool {
        self.accounts.get(broker).is_some_and(|a| of(&a.lanes, lane).contains(frame))
    }

    /// The number up to which the broker lacks nothing behind `after`.
    pub(super) fn covered_to(&self, broker: usize, lane: Lane, after: Sequence) -> Sequence {
        self.accounts.get(broker).map_or(after, |a| of(&a.lanes, lane).covered_to(after))
    }

    /// Whether every required broker has acknowledged the frame.
    pub(super) fn is_settled(&self, lane: Lane, frame: Sequence) -> bool {
        let mut required = self.accounts.iter().filter(|a| a.required).peekable();
        required.peek().is_some() && required.all(|a| of(&a.lanes, lane).contains(frame))
    }

    /// No frame above this number is settled.
    pub(super) fn settled_below(&self, lane: Lane) -> Sequence {
        let required = self.accounts.iter().filter(|a| a.required);
        required.map(|a| of(&a.lanes, lane).highest()).min().unwrap_or(0)
    }

    /// What is worth keeping on disk, if anything changed since the last time; nothing above
    /// `limit`.
    pub(super) fn progress(&mut self, limit: Sequence) -> Option<Vec<(u64, Lanes)>> {
        std::mem::take(&mut self.changed).then(|| {
            let cut = |a: &Account| (a.key, a.lanes.each_ref().map(|lane| lane.up_to(limit)));
            self.accounts.iter().map(cut).collect()
        })
    }
}
