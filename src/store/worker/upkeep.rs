//! The worker's housekeeping: directories out of use, the cursor, what cannot be read just now.

use std::io;

use tokio::time::Instant;
use tracing::{error, info};

use super::super::cursor::{Cursor, LaneCursor};
use super::super::row;
use super::{FIRST_PAUSE, LONGEST_PAUSE, Unreadable, Worker};
use crate::model::{Lane, Sequence};

/// Damaged generations kept aside.
const KEEP: usize = 2;

impl Worker {
    /// Notes that reading fails. Writing goes on meanwhile.
    pub(super) fn read_failed(&mut self, lane: Lane, after: Sequence, error: &io::Error) {
        let now = Instant::now();
        self.status.disk_error = Some(error.to_string());
        match &mut self.unreadable {
            None => {
                error!(%error, path = %self.root.display(), "the store cannot read what it holds; it is tried again");
                let pause = FIRST_PAUSE;
                self.unreadable = Some(Unreadable { lane, after, again: now + pause, pause });
            }
            Some(known) if known.again <= now => {
                known.pause = (known.pause * 2).min(LONGEST_PAUSE);
                known.again = now + known.pause;
            }
            Some(_) => {}
        }
    }

    /// Notes that reading works again, when it read `whole` what it could not read before.
    pub(super) fn read_worked(&mut self, lane: Lane, after: Sequence, whole: bool) {
        let mends = |u: &mut Unreadable| whole && u.lane == lane && after <= u.after;
        if self.unreadable.take_if(mends).is_some() {
            info!("the store can be read again");
            if self.retry.is_none() {
                self.status.disk_error = None;
            }
        }
    }

    /// Removes generations that hold nothing waiting.
    pub(super) fn tidy(&mut self, ending: bool) -> io::Result<()> {
        for row in &mut self.rows {
            self.doomed.extend(row.finished(ending));
        }
        self.remove_doomed(false)
    }

    /// Removes directories, after the cursor says that they are done with.
    pub(super) fn remove_doomed(&mut self, crowded: bool) -> io::Result<()> {
        if self.doomed.is_empty() {
            return Ok(());
        }
        self.save()?;
        for row in &mut self.rows {
            row.settle()?;
        }
        let keep = if crowded { 0 } else { KEEP };
        while let Some(generation) = self.doomed.last() {
            row::discard(&self.root, generation, keep)?;
            if generation.damaged {
                self.aside = row::aside_bytes(&self.root);
            }
            self.doomed.pop();
        }
        self.swap = None;
        Ok(())
    }

    /// Reserves numbers ahead, on disk.
    pub(super) fn reserve(&mut self, ahead: u64) -> io::Result<()> {
        let old = std::mem::replace(&mut self.reserved, self.next.saturating_add(ahead));
        self.save().inspect_err(|_| self.reserved = old)
    }

    /// Writes the cursor.
    pub(super) fn save(&mut self) -> io::Result<()> {
        self.refresh();
        let mut lanes = [0, 1].map(|i| self.rows.get(i).map(row::Row::cursor).unwrap_or_default());
        let forgotten: u64 = lanes.iter_mut().map(LaneCursor::shorten).sum();
        let status = &self.status;
        let cursor = Cursor {
            serial: self.serial + 1,
            reserved: self.reserved,
            acknowledged: status.acknowledged.saturating_sub(forgotten),
            evicted: status.evicted,
            damaged: status.damaged,
            cached: status.cached,
            cached_priority: status.cached_priority,
            durable: status.durable,
            disk_bytes: status.disk_bytes,
            skipped: status.skipped,
            lanes,
            swap: self.swap,
            ledger: self.ledger.clone(),
        };
        self.cursor_file.write(&cursor)?;
        self.serial += 1;
        self.cursor_due = None;
        Ok(())
    }
}
