//! Closing the books: a signed manifest of every number given so far.
//!
//! Order is everything: first what it speaks of is durable, counters included; then the manifest's
//! file; then the frame that carries it, and the cursor that begins the next period. A start that
//! finds a manifest newer than its cursor takes it over and sends it again.

use std::fs;
use std::io;
use std::path::PathBuf;

use tokio::time::Instant;
use tracing::{error, info};

use super::super::block;
use super::super::key::{self, Key};
use super::super::ledger::Spans;
use super::super::manifest::{Clock, Counts, MAX_TEXT, Manifest, Signed, VERSION};
use super::super::tail::Held;
use super::{COUNTERS_EVERY, RESERVE, Worker};
use crate::model::{Body, ClockState, Frame, Lane, Sequence, Stamp, Timestamp};
use crate::os::file::{read_small, sync_directory, write_atomic};

const DIRECTORY: &str = "manifests";
/// So many manifests are kept: two months.
const KEEP: u64 = 62;

/// What a manifest needs to know of the world.
#[derive(Debug)]
pub(in super::super) struct Closing {
    pub(in super::super) gateway: String,
    pub(in super::super) began: Timestamp,
    pub(in super::super) now: Stamp,
}

impl Worker {
    /// Writes, signs and sends a manifest.
    pub(super) fn close_books(&mut self, closing: &Closing) -> io::Result<u64> {
        for lane in [Lane::Priority, Lane::Ordinary] {
            self.flush(lane)?;
        }
        self.count_damage();
        self.save()?;
        // The manifest's own number first: one that is written is also sent.
        if self.next > self.reserved {
            self.reserve(RESERVE)?;
        }
        let manifest = self.manifest(closing);
        if let Err(error) = manifest.check() {
            error!(%error, "the books do not add up; the manifest says so to whoever checks it");
        }
        let signed = Signed::sign(&manifest, self.key()?);
        let directory = self.root.join(DIRECTORY);
        if !directory.exists() {
            fs::create_dir(&directory)?;
            sync_directory(&self.root)?;
        }
        let path = self.manifest_path(manifest.number);
        // One that counts as not written must not be taken over by a later start.
        write_atomic(&path, signed.line().as_bytes(), 0o640).inspect_err(|_| drop(fs::remove_file(&path)))?;
        self.ledger.closed(&manifest, signed.digest());
        self.status.manifests = manifest.number;
        self.status.closed_at = manifest.to;
        self.push_manifest(&(signed, manifest.clone()));
        if let Some(old) = manifest.number.checked_sub(KEEP) {
            let _ = fs::remove_file(self.manifest_path(old));
        }
        // Should one of these fail, the next tick tries again, and after a crash the file is adopted.
        self.flush(Lane::Ordinary).and_then(|()| self.save()).unwrap_or_else(|e| self.failed(&e));
        let Manifest { number, last, .. } = manifest;
        info!(number, last, "the books are closed");
        Ok(number)
    }

    fn manifest(&self, closing: &Closing) -> Manifest {
        let (status, ledger) = (&self.status, &self.ledger);
        let mut pending = Spans::default();
        for (first, last, frames) in self.rows.iter().flat_map(|row| row.pending().collect::<Vec<_>>()) {
            pending.add(first, last, frames);
        }
        Manifest {
            manifest: VERSION,
            gateway: closing.gateway.clone(),
            number: ledger.manifests + 1,
            previous: ledger.previous,
            from: if ledger.manifests == 0 { closing.began } else { Timestamp::from_millis(ledger.since) },
            to: closing.now.wall,
            clock: match closing.now.clock {
                ClockState::Synced => Clock::Synced,
                ClockState::Unsynced => Clock::Unsynced,
            },
            first: ledger.closed + 1,
            last: self.next.saturating_sub(1),
            counts: Counts {
                received: status.received,
                acknowledged: status.acknowledged,
                evicted: status.evicted,
                damaged: status.damaged,
                skipped: status.skipped,
                pending: status.cached,
            },
            evicted: ledger.evicted.told(),
            skipped: ledger.skipped.told(),
            pending: pending.told(),
            evicted_by_meter: ledger.meters.clone(),
        }
    }

    fn key(&mut self) -> io::Result<&Key> {
        let key = match self.key.take() {
            Some(key) => key,
            None => Key::open_or_create(&key::path_in(&self.root))?,
        };
        Ok(self.key.insert(key))
    }

    fn manifest_path(&self, number: u64) -> PathBuf {
        self.root.join(DIRECTORY).join(format!("{number:06}.json"))
    }

    /// Adds a manifest as a frame; it needs no room of the inputs'.
    pub(super) fn push_manifest(&mut self, (signed, manifest): &(Signed, Manifest)) {
        let clock = match manifest.clock {
            Clock::Synced => ClockState::Synced,
            Clock::Unsynced => ClockState::Unsynced,
        };
        let time = Stamp { clock, ..Stamp::synced(manifest.to) };
        let frame = Frame { time, lane: Lane::Ordinary, body: Body::Manifest(signed.line()), origin: None };
        if self.next > self.reserved && self.reserve(RESERVE).is_err() {
            return;
        }
        let (Some(bytes), [_, ordinary]) = (block::encode_frame(&frame), &mut self.tails) else { return };
        let sequence: Sequence = self.next;
        self.next += 1;
        self.status.received += 1;
        ordinary.push(sequence, Held { bytes, since: Instant::now(), _room: None });
        self.touch(COUNTERS_EVERY);
        self.refresh();
    }

    /// Takes over a manifest whose writing a crash cut off before the cursor knew of it.
    pub(super) fn adopt(&mut self) -> Option<(Signed, Manifest)> {
        let line = read_small(&self.manifest_path(self.ledger.manifests + 1), 2 * MAX_TEXT as u64).ok()?;
        let signed = Signed::parse(&String::from_utf8(line).ok()?).ok()?;
        let manifest = signed.verify().ok()?;
        let own = self.key().ok()?.public() == signed.key;
        let follows = manifest.number == self.ledger.manifests + 1 && manifest.previous == self.ledger.previous;
        if !own || !follows {
            return None;
        }
        info!(number = manifest.number, "a manifest was cut off by a crash and is sent again");
        self.ledger.closed(&manifest, signed.digest());
        self.status.manifests = manifest.number;
        self.status.closed_at = manifest.to;
        Some((signed, manifest))
    }
}
