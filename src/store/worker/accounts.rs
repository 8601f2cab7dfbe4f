//! Accounts: every number belongs to a frame that is acknowledged, evicted or cached, or was skipped.

use std::sync::Arc;

use tracing::error;

use super::super::Status;
use super::super::ledger::{Losses, Spans};
use super::super::row::Row;
use super::Worker;
use crate::model::Sequence;

impl Worker {
    /// Accounts for every number up to the highest one after a start: those that belong to no frame
    /// were not yet given at a crash, or went with the memory. When the cursor was written, `given`
    /// was the highest number given, and all up to `durable` were safe.
    pub(super) fn account(&mut self, durable: Sequence, given: Sequence) {
        let status = &mut self.status;
        status.received = status.acknowledged + status.evicted + status.cached;
        // Frames that came back although they had been counted: the numbers must go on adding up.
        self.reserved = self.reserved.max(status.given());
        self.next = self.reserved.saturating_add(1);
        let unknown = self.reserved.saturating_sub(status.given());
        status.skipped += unknown;
        status.durable = self.reserved;
        let given = given.max(durable);
        let mut known = Spans::default();
        for (first, last, frames) in self.rows.iter().flat_map(|row| row.above(given)) {
            known.add(first, last, frames);
        }
        // Behind `given` nothing was acknowledged that the disk does not show: there the numbers are
        // known one by one. Before it only how many there are.
        let behind = known.rest(given.saturating_add(1), self.reserved);
        match unknown.checked_sub(behind.iter().map(|span| span.frames).sum()) {
            Some(before) if before <= given - durable => {
                self.ledger.skipped.add(durable.saturating_add(1), given, before);
                behind.iter().for_each(|s| self.ledger.skipped.add(s.first, s.last, s.frames));
            }
            _ => {
                // Among them may be frames that were on disk and are no more.
                let first = durable.min(self.reserved - unknown).saturating_add(1);
                self.ledger.skipped.add(first, self.reserved, unknown);
            }
        }
    }

    /// Counts what turned out unreadable while opening. Some of it may have been done with, or been
    /// counted by an earlier start: no more is counted than there are numbers nothing is known of.
    pub(super) fn count_damage_found(&mut self) {
        self.refresh();
        for at in 0..self.rows.len() {
            let Status { acknowledged, evicted, cached, skipped, .. } = self.status;
            let unknown = self.reserved.saturating_sub(acknowledged + evicted + cached + skipped);
            let lost = self.rows.get_mut(at).map(Row::take_damaged).unwrap_or_default();
            self.lose(&lost.at_most(unknown));
        }
    }

    /// Counts what turned out unreadable.
    pub(super) fn count_damage(&mut self) {
        for at in 0..self.rows.len() {
            let lost = self.rows.get_mut(at).map(Row::take_damaged).unwrap_or_default();
            self.lose(&lost);
        }
    }

    /// Counts unreadable frames.
    pub(super) fn lose(&mut self, lost: &Losses) {
        if lost.frames > 0 {
            error!(lost = lost.frames, "frames in the store are unreadable and given up");
            self.status.evicted += lost.frames;
            self.status.damaged += lost.frames;
            self.ledger.lose(lost);
            self.status.evicted_by_meter = Arc::new(self.ledger.meters.clone());
            self.touch(self.period());
        }
    }
}
