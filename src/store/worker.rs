//! The store's thread: takes requests, writes at ticks, keeps the counters.
//!
//! It sleeps until a request comes or something falls due; a batch of requests that wait together
//! is written and synced together.

mod accounts;
mod books;
mod room;
mod upkeep;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

pub(super) use self::books::Closing;
use super::cursor::{CursorFile, Swap};
use super::generation::Generation;
use super::key::Key;
use super::ledger::{Ledger, Losses, OTHERS};
use super::recovery::{self, Recovered};
use super::request::{Append, Request};
use super::row::{self, Row};
use super::tail::{Held, Tail};
use super::{ORDINARY_ROOM, PEEK_BYTES, Status, StoreError, StoreSettings, SyncPolicy, block, index};
use crate::model::{Lane, Sequence, Stored};
use crate::os::random;

/// Numbers reserved on disk at a time.
const RESERVE: u64 = 65_536;
/// Counters that changed without a change on disk are written this often.
const COUNTERS_EVERY: Duration = Duration::from_secs(90);
/// A tick beyond this would only overflow the clock.
const LONGEST_TICK: Duration = Duration::from_hours(24);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Requests handled between two syncs.
const BATCH: usize = 1024;
const MIB: u64 = 1024 * 1024;

/// The first and the last of consecutive numbers.
type Numbers = (Sequence, Sequence);

/// Reading fails: of which lane, behind which number, and when it is tried again.
#[derive(Debug)]
struct Unreadable {
    lane: Lane,
    after: Sequence,
    again: Instant,
    pause: Duration,
}

/// The state of the thread.
#[derive(Debug)]
pub(super) struct Worker {
    root: PathBuf,
    policy: SyncPolicy,
    max: u64,
    /// Payload after which a generation is sealed.
    limit: u64,
    /// A tail of more bytes does not wait for its tick.
    early: usize,
    rows: [Row; 2],
    tails: [Tail; 2],
    cursor_file: CursorFile,
    serial: u64,
    reserved: Sequence,
    next: Sequence,
    status: Status,
    out: watch::Sender<Status>,
    random: StdRng,
    /// Appends that wait for numbers or, with "always", for the disk.
    unnumbered: Vec<Request>,
    unanswered: Vec<(Numbers, oneshot::Sender<Sequence>)>,
    syncs: Vec<oneshot::Sender<Result<(), String>>>,
    /// Generations out of use that are still to be removed.
    doomed: Vec<Generation>,
    /// What replaces some of them.
    swap: Option<Swap>,
    /// What was kept aside takes on disk.
    aside: u64,
    ledger: Ledger,
    key: Option<Key>,
    cursor_due: Option<Instant>,
    retry: Option<Instant>,
    pause: Duration,
    failures: u64,
    unreadable: Option<Unreadable>,
    evicting: bool,
    _lock: std::fs::File,
}

impl Worker {
    /// Opens the directory and finds out what waits there.
    pub(super) fn open(settings: &StoreSettings, out: watch::Sender<Status>) -> Result<Self, StoreError> {
        let Recovered { lock, cursor_file, cursor, rows, replaced, highest } = recovery::open(&settings.path)?;
        let max = settings.max_size.bytes().max(4 * MIB);
        if max != settings.max_size.bytes() {
            warn!(max_size = max, "store.max_size is too small, the smallest store is used");
        }
        let reserved = cursor.reserved.max(highest);
        let status = cursor.status();
        let (durable, given) = (cursor.durable, status.given());
        let mut worker = Self {
            root: settings.path.clone(),
            policy: settings.sync,
            max,
            limit: (max / 32).clamp(128 * 1024, 4 * MIB),
            early: usize::try_from(max / 16).unwrap_or(usize::MAX).min(ORDINARY_ROOM / 2),
            rows,
            tails: Default::default(),
            cursor_file,
            serial: cursor.serial,
            reserved,
            next: reserved.saturating_add(1),
            status,
            out,
            random: random::generator(),
            unnumbered: Vec::new(),
            unanswered: Vec::new(),
            syncs: Vec::new(),
            doomed: replaced,
            swap: cursor.swap,
            aside: row::aside_bytes(&settings.path),
            ledger: cursor.ledger,
            key: None,
            cursor_due: None,
            retry: None,
            pause: FIRST_PAUSE,
            failures: 0,
            unreadable: None,
            evicting: false,
            _lock: lock,
        };
        let unfinished = worker.adopt();
        worker.count_damage_found();
        worker.refresh();
        worker.account(durable, given);
        worker.reserve(RESERVE).map_err(|source| StoreError::Directory { path: settings.path.clone(), source })?;
        if let Some(manifest) = unfinished {
            worker.push_manifest(&manifest);
        }
        if let Err(error) = worker.tidy(false) {
            worker.failed(&error);
        }
        worker.refresh();
        let Status { cached, damaged, .. } = worker.status;
        info!(cached, damaged, next = worker.next, "the store is open");
        worker.publish();
        Ok(worker)
    }

    /// Works until the last handle is gone or one asks to close.
    pub(super) fn run(mut self, inbox: &Receiver<Request>) {
        loop {
            let first = match self.deadline() {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            let mut closing = None;
            let more = std::iter::from_fn(|| inbox.try_recv().ok());
            match first {
                Ok(request) => {
                    for request in std::iter::once(request).chain(more.take(BATCH)) {
                        if let Request::Close(reply) = request {
                            closing = Some(Some(reply));
                            break;
                        }
                        self.handle(request);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => closing = Some(None),
            }
            if let Some(reply) = closing {
                let outcome = self.finish();
                drop(self);
                if let Some(reply) = reply {
                    let _ = reply.send(outcome);
                }
                return;
            }
            self.settle();
        }
    }

    fn handle(&mut self, request: Request) {
        match request {
            Request::Append { .. } => self.append(request),
            Request::Peek { lane, after, limit, reply } => {
                let found = self.peek(lane, after, limit);
                self.refresh();
                self.publish();
                let _ = reply.send(found);
            }
            Request::Commit { lane, sequences, reply } => {
                let count = self.commit(lane, sequences);
                self.status.acknowledged += count;
                self.refresh();
                self.publish();
                let _ = reply.send(());
            }
            Request::CloseBooks(closing, reply) => {
                let outcome = self.close_books(&closing).map_err(|e| e.to_string());
                let _ = reply.send(outcome);
            }
            Request::Sync(reply) | Request::Close(reply) => self.syncs.push(reply),
            #[cfg(test)]
            Request::Rest(reply) => {
                self.settle();
                let _ = reply.send(());
            }
        }
    }

    fn append(&mut self, request: Request) {
        let Request::Append { frames, reply } = request else { return };
        let (first, after) = (self.next, self.next + frames.len() as u64);
        if !self.unnumbered.is_empty() || after > self.reserved.saturating_add(1) {
            self.unnumbered.push(Request::Append { frames, reply });
            return;
        }
        let since = Instant::now();
        self.status.received += frames.len() as u64;
        for (Append { lane, bytes, room }, sequence) in frames.into_iter().zip(first..) {
            let [priority, ordinary] = &mut self.tails;
            let tail = if lane == Lane::Priority { priority } else { ordinary };
            tail.push(sequence, Held { bytes, since, _room: Some(room) });
        }
        self.next = after;
        self.touch(COUNTERS_EVERY);
        match self.policy {
            SyncPolicy::Always => self.unanswered.push(((first, after - 1), reply)),
            SyncPolicy::Every(_) => {
                self.refresh();
                self.publish();
                let _ = reply.send(first);
            }
        }
    }

    fn peek(&mut self, lane: Lane, after: Sequence, limit: usize) -> Vec<Stored> {
        let mut found: Vec<Stored> = Vec::new();
        let mut budget = PEEK_BYTES;
        let mut strange = Vec::new();
        let mut take = |sequence: Sequence, bytes: &[u8]| {
            if found.len() == limit || (bytes.len() > budget && !found.is_empty()) {
                return false;
            }
            budget = budget.saturating_sub(bytes.len());
            match block::decode_frame(bytes) {
                Some(frame) => found.push(Stored { sequence, frame }),
                None => strange.push(sequence),
            }
            true
        };
        let (row, tail) = self.lane(lane);
        let outcome = row.peek(after, &mut take);
        if let Ok(true) = outcome {
            let _ = tail.after(after).all(|(sequence, bytes)| take(sequence, bytes));
        }
        match outcome {
            Err(error) => self.read_failed(lane, after, &error),
            Ok(whole) => self.read_worked(lane, after, whole),
        }
        if !strange.is_empty() {
            let mut lost = Losses::default();
            for sequence in strange {
                // What can't be given up just now comes again.
                if self.commit(lane, vec![sequence]) > 0 {
                    lost.add(sequence, OTHERS);
                }
            }
            self.lose(&lost);
        }
        self.count_damage();
        found
    }

    fn commit(&mut self, lane: Lane, mut sequences: Vec<Sequence>) -> u64 {
        sequences.sort_unstable();
        let (row, tail) = self.lane(lane);
        let before = sequences.len();
        sequences.retain(|s| !tail.remove(*s));
        let in_memory = (before - sequences.len()) as u64;
        let mut on_disk = 0;
        if let Err(error) = row.commit(&sequences, &mut on_disk) {
            self.read_failed(lane, 0, &error);
        }
        if in_memory > 0 {
            self.touch(COUNTERS_EVERY);
        }
        if on_disk > 0 {
            self.touch(self.period());
        }
        self.count_damage();
        in_memory + on_disk
    }

    fn lane(&mut self, lane: Lane) -> (&mut Row, &mut Tail) {
        let ([row, ordinary_row], [tail, ordinary_tail]) = (&mut self.rows, &mut self.tails);
        if index(lane) == 0 { (row, tail) } else { (ordinary_row, ordinary_tail) }
    }

    fn period(&self) -> Duration {
        match self.policy {
            SyncPolicy::Every(period) => period.min(LONGEST_TICK),
            SyncPolicy::Always => Duration::ZERO,
        }
    }

    /// The cursor is to be written at most `within` from now.
    fn touch(&mut self, within: Duration) {
        let at = Instant::now() + within;
        self.cursor_due = Some(self.cursor_due.map_or(at, |due| due.min(at)));
    }

    /// When a lane's tail must be on disk: at its tick, and before appends have to wait for room.
    fn tail_due(&self, lane: Lane) -> Option<Instant> {
        let tail = self.tails.get(index(lane))?;
        let since = tail.since()?;
        let at_once = lane == Lane::Priority || tail.bytes() > self.early;
        Some(if at_once { since } else { since + self.period() })
    }

    fn deadline(&self) -> Option<Instant> {
        if self.retry.is_some() {
            return self.retry;
        }
        let reread = self.unreadable.as_ref().filter(|_| self.status.disk_error.is_some()).map(|u| u.again);
        let dues = [self.tail_due(Lane::Priority), self.tail_due(Lane::Ordinary), self.cursor_due, reread];
        dues.into_iter().flatten().min()
    }

    /// Does what is due after a batch of requests.
    fn settle(&mut self) {
        let now = Instant::now();
        let asked = !self.syncs.is_empty();
        let mut outcome = Ok(());
        if asked || self.retry.is_none_or(|at| at <= now) {
            let was_failing = self.retry.take().is_some();
            if let Err(error) = self.work(now, asked, was_failing) {
                self.failed(&error);
                outcome = Err(error.to_string());
            } else if was_failing {
                info!(failures = self.failures, "the store's disk works again");
                (self.status.disk_error, self.pause, self.failures) = (None, FIRST_PAUSE, 0);
            }
        }
        if self.retry.is_none() && self.unreadable.as_ref().is_some_and(|u| u.again <= now) {
            // The change of the status tells whoever reads to try again.
            self.status.disk_error = None;
        }
        self.refresh();
        self.publish();
        for reply in self.syncs.drain(..) {
            let _ = reply.send(outcome.clone());
        }
        self.answer();
    }

    /// Answers the appends that wait for the disk and are durable.
    fn answer(&mut self) {
        let durable = self.status.durable;
        for ((first, last), reply) in std::mem::take(&mut self.unanswered) {
            if last <= durable {
                let _ = reply.send(first);
            } else {
                self.unanswered.push(((first, last), reply));
            }
        }
    }

    fn work(&mut self, now: Instant, asked: bool, was_failing: bool) -> io::Result<()> {
        if self.reserved.saturating_sub(self.next) < RESERVE / 2 {
            let reserving = self.reserve(RESERVE);
            if !self.unnumbered.is_empty() || self.next > self.reserved {
                reserving?;
            }
            for request in std::mem::take(&mut self.unnumbered) {
                self.append(request);
            }
        }
        let mut outcome = Ok(());
        for lane in [Lane::Priority, Lane::Ordinary] {
            if self.tail_due(lane).is_some_and(|due| asked || was_failing || due <= now) {
                outcome = outcome.and(self.flush(lane));
            }
        }
        // Also when nothing can be written: what is done with may be the very room that is missing.
        outcome.and(self.tidy(false))?;
        if self.cursor_due.is_some_and(|due| asked || was_failing || due <= now) {
            self.save()?;
        }
        Ok(())
    }

    /// Writes a lane's tail and releases what became durable.
    pub(super) fn flush(&mut self, lane: Lane) -> io::Result<()> {
        let pending = self.tails.get(index(lane)).map_or(0, |t| t.bytes() as u64);
        self.make_room(3 * pending + MIB)?;
        let limit = self.limit;
        let (row, tail, random) = {
            let ([row, ordinary_row], [tail, ordinary_tail]) = (&mut self.rows, &mut self.tails);
            if index(lane) == 0 {
                (row, tail, &mut self.random)
            } else {
                (ordinary_row, ordinary_tail, &mut self.random)
            }
        };
        let frames: Vec<_> = tail.after(0).collect();
        let mut durable = 0;
        let outcome = row.write(&frames, limit, &mut || random.next_u64(), &mut durable);
        drop(frames);
        tail.release(durable);
        self.touch(COUNTERS_EVERY);
        self.refresh();
        debug!(through = self.status.durable, "durable");
        outcome
    }

    pub(super) fn refresh(&mut self) {
        let [priority, ordinary] =
            [0, 1].map(|i| self.rows.get(i).map_or(0, Row::waiting) + self.tails.get(i).map_or(0, Tail::len));
        self.status.cached = priority + ordinary;
        self.status.cached_priority = priority;
        self.status.disk_bytes = self.rows.iter().map(Row::bytes).sum::<u64>() + self.aside;
        let oldest = self.tails.iter().filter_map(Tail::first).min();
        self.status.durable = oldest.unwrap_or(self.next).saturating_sub(1);
    }

    fn publish(&self) {
        self.out.send_if_modified(|seen| {
            let changed = *seen != self.status;
            if changed {
                seen.clone_from(&self.status);
            }
            changed
        });
    }

    fn failed(&mut self, error: &io::Error) {
        if self.failures == 0 {
            error!(%error, path = %self.root.display(), "the store's disk fails, frames stay in memory");
        }
        self.failures += 1;
        self.status.disk_error = Some(error.to_string());
        self.retry = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Writes everything and gives back the numbers not used.
    fn finish(&mut self) -> Result<(), String> {
        let mut outcome = Ok(());
        for lane in [Lane::Priority, Lane::Ordinary] {
            if self.tails.get(index(lane)).is_some_and(|t| t.len() > 0) {
                outcome = outcome.and(self.flush(lane));
            }
        }
        outcome = outcome.and(self.tidy(true));
        self.rows.iter_mut().for_each(Row::close);
        self.reserved = self.next.saturating_sub(1);
        outcome = outcome.and(self.save());
        self.publish();
        self.answer();
        let lost: u64 = self.tails.iter().map(Tail::len).sum();
        match outcome {
            Ok(()) => info!(cached = self.status.cached, "the store is closed"),
            Err(ref error) => error!(%error, lost, "the store is closed, frames in memory are lost"),
        }
        outcome.map_err(|e| e.to_string())
    }
}
