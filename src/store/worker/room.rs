//! Room on disk: who gives up frames when the store is full.

use std::io;
use std::sync::Arc;

use rand::Rng;
use tracing::{debug, error, info};

use super::super::cursor::Swap;
use super::super::row::{self, Eviction, Row};
use super::Worker;

impl Worker {
    /// Evicts until `wanted` bytes fit, with room to replace a generation beside it: what was kept
    /// aside first, then ordinary frames, and priority frames when hardly anything else is left.
    pub(super) fn make_room(&mut self, wanted: u64) -> io::Result<()> {
        let before = self.status.evicted;
        let room = wanted + 2 * self.limit;
        while self.taken() + room > self.max {
            if self.aside > 0 {
                row::sweep(&self.root, 0)?;
                self.aside = row::aside_bytes(&self.root);
                continue;
            }
            // One after the other: the cursor names one swap, and what it replaces must be gone first.
            self.remove_doomed(true)?;
            let Some(eviction) = self.evict((self.taken() + room - self.max).max(2 * self.limit))? else { break };
            self.status.evicted += eviction.losses.frames;
            self.ledger.lose(&eviction.losses);
            self.status.evicted_by_meter = Arc::new(self.ledger.meters.clone());
            self.doomed.extend(eviction.doomed);
            self.swap = eviction.swap;
            self.count_damage();
            self.remove_doomed(true)?;
        }
        let evicted = self.status.evicted - before;
        // A generation given up makes room for many flushes; that is not yet the end of it.
        let goes_on = evicted > 0 || (self.evicting && self.status.disk_bytes > self.max / 4 * 3);
        if evicted > 0 && !self.evicting {
            error!(
                evicted,
                max_size = self.max,
                "the store is full, the oldest frames of those who have most are given up"
            );
        } else if evicted > 0 {
            debug!(evicted, "frames were given up");
        } else if self.evicting && !goes_on {
            info!(evicted = self.status.evicted, "the store has room again");
        }
        self.evicting = goes_on;
        Ok(())
    }

    /// What the generations and what was kept aside take on disk.
    fn taken(&self) -> u64 {
        self.rows.iter().map(Row::bytes).sum::<u64>() + self.aside
    }

    /// Takes frames out of one row. Where the disk has no room for what is to be kept of a run, the
    /// oldest generation goes whole: a store that fills its own disk must come out of it.
    fn evict(&mut self, wanted: u64) -> io::Result<Option<Eviction>> {
        let [priority, ordinary] = &self.rows;
        let keeps_ordinary = ordinary.bytes() <= self.max / 16 && priority.bytes() > 0;
        let lane = usize::from(!keeps_ordinary);
        let (limit, random) = (self.limit, &mut self.random);
        let Some(row) = self.rows.get_mut(lane) else { return Ok(None) };
        let evicted = match row.evict(wanted, limit, &mut || random.next_u64()) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => row.evict_oldest().map(Some),
            other => other,
        };
        let lane = |mut e: Eviction| {
            e.swap = e.swap.map(|s| Swap { lane, ..s });
            e
        };
        Ok(evicted?.map(lane))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use tokio::sync::watch;

    use super::super::super::tail::Held;
    use super::super::super::{Status, StoreSettings, SyncPolicy, block};
    use super::*;
    use crate::model::{Body, Frame, Lane, Reading, Stamp, Timestamp};
    use crate::setting::Size;

    impl Worker {
        /// Adds an ordinary frame.
        fn put(&mut self, number: i64) {
            let reading = Reading { meter: format!("{:700}", number % 7), values: Vec::new() };
            let time = Stamp::synced(Timestamp::from_millis(number));
            let frame = Frame { time, lane: Lane::Ordinary, body: Body::Reading(reading), origin: None };
            let bytes = block::encode_frame(&frame).unwrap();
            self.tails[1].push(self.next, Held { bytes, since: tokio::time::Instant::now(), _room: None });
            self.next += 1;
            self.status.received += 1;
        }
    }

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

    fn worker(path: &Path) -> Worker {
        let settings = StoreSettings {
            path: path.to_owned(),
            max_size: Size::from_bytes(4 << 20),
            sync: SyncPolicy::Every(Duration::from_secs(1)),
        };
        Worker::open(&settings, watch::channel(Status::default()).0).unwrap()
    }

    #[test]
    fn while_what_was_given_up_cannot_be_removed_nothing_else_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut worker = worker(dir.path());
        for number in 0..1500i64 {
            worker.put(number);
        }
        worker.flush(Lane::Ordinary).unwrap();
        worker.random = StdRng::seed_from_u64(7);
        let nonce = StdRng::seed_from_u64(7).next_u64();
        // Where what is kept of the run is to go in the end.
        let taken = dir.path().join(format!("ordinary/gen-{:020}-{nonce:016x}", 1));
        std::fs::create_dir_all(taken.join("in the way")).unwrap();
        let max = worker.max;
        worker.make_room(max - worker.taken()).unwrap_err();
        let (swap, evicted) = (worker.swap, worker.status.evicted);
        assert!(swap.is_some_and(|s| s.nonce == nonce) && evicted > 0);
        worker.make_room(max - worker.taken()).unwrap_err();
        assert_eq!((worker.swap, worker.status.evicted), (swap, evicted));
        std::fs::remove_dir_all(&taken).unwrap();
        worker.make_room(max - worker.taken()).unwrap();
        assert!(worker.swap.is_none());
    }

    #[test]
    fn what_is_done_with_goes_also_while_nothing_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut worker = worker(dir.path());
        for number in 0..100 {
            worker.put(number);
        }
        worker.flush(Lane::Ordinary).unwrap();
        worker.rows[1].close();
        worker.commit(Lane::Ordinary, (1..=worker.next).collect());
        worker.put(100);
        worker.random = StdRng::seed_from_u64(7);
        let nonce = StdRng::seed_from_u64(7).next_u64();
        let taken = dir.path().join(format!("ordinary/gen-{:020}-{nonce:016x}", worker.next - 1));
        std::fs::create_dir_all(&taken).unwrap();
        worker.work(tokio::time::Instant::now(), true, false).unwrap_err();
        assert_eq!(worker.rows[1].waiting() + worker.rows[1].bytes(), 0);
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
