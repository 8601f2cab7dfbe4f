//! The worker's housekeeping: room on disk, directories out of use, the cursor.

use std::io;

use tokio::time::Instant;
use tracing::{debug, error, info};

use super::super::cursor::{Cursor, LaneCursor};
use super::super::row::{self, Row};
use super::{FIRST_PAUSE, LONGEST_PAUSE, Unreadable, Worker};
use crate::model::{Lane, Sequence};

/// Damaged generations kept aside.
const KEEP: usize = 2;

impl Worker {
    /// Evicts until `wanted` bytes fit: what was kept aside, the oldest ordinary frames, and only
    /// then priority frames.
    pub(super) fn make_room(&mut self, wanted: u64) -> io::Result<()> {
        let mut evicted = 0;
        while self.rows.iter().map(Row::bytes).sum::<u64>() + wanted > self.max {
            let [priority, ordinary] = &mut self.rows;
            let Some(victim) = ordinary.evict().or_else(|| priority.evict()) else { break };
            evicted += victim.frames.saturating_sub(victim.done);
            self.doomed.push(victim);
        }
        self.status.evicted += evicted;
        // A generation given up makes room for many flushes; that is not yet the end of it.
        let goes_on = evicted > 0 || (self.evicting && self.status.disk_bytes > self.max / 4 * 3);
        if evicted > 0 && !self.evicting {
            error!(evicted, max_size = self.max, "the store is full, the oldest frames are given up");
        } else if evicted > 0 {
            debug!(evicted, "frames were given up");
        } else if self.evicting && !goes_on {
            info!(evicted = self.status.evicted, "the store has room again");
        }
        self.evicting = goes_on;
        self.remove_doomed(evicted > 0)
    }

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
    fn remove_doomed(&mut self, crowded: bool) -> io::Result<()> {
        if self.doomed.is_empty() {
            return Ok(());
        }
        self.save()?;
        let keep = if crowded { 0 } else { KEEP };
        while let Some(generation) = self.doomed.last() {
            row::discard(&self.root, generation, keep)?;
            self.doomed.pop();
        }
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
        let mut lanes = [0, 1].map(|i| self.rows.get(i).map(Row::cursor).unwrap_or_default());
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
            lanes,
        };
        self.cursor_file.write(&cursor)?;
        self.serial += 1;
        self.cursor_due = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::sync::watch;

    use super::super::super::{Status, StoreSettings, SyncPolicy};
    use super::*;
    use crate::setting::Size;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_store_that_stays_full_does_not_say_again_and_again_that_it_has_room() {
        let dir = tempfile::tempdir().unwrap();
        let max = 8 << 20;
        let settings = StoreSettings {
            path: dir.path().to_owned(),
            max_size: Size::from_bytes(max),
            sync: SyncPolicy::Every(Duration::from_secs(1)),
        };
        let mut worker = Worker::open(&settings, watch::channel(Status::default()).0).unwrap();
        let page = Page::default();
        let writer = page.clone();
        let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(log, || {
            worker.evicting = true;
            worker.status.disk_bytes = max;
            for _ in 0..10 {
                worker.make_room(0).unwrap();
            }
            assert_eq!(page.0.lock().unwrap().len(), 0);
            worker.status.disk_bytes = 0;
            for _ in 0..10 {
                worker.make_room(0).unwrap();
            }
        });
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("has room again").count(), 1, "{text}");
    }
}
