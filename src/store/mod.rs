//! Keeps frames until the broker has acknowledged them, through crashes and power cuts.
//!
//! # Invariants
//! 1. A frame with a number up to [`Status::durable`] survives a power cut, or was committed.
//! 2. What [`Store::commit`] was not told comes back from [`Store::peek`], in order within its
//!    lane, until it is evicted (counted) or found damaged (counted).
//! 3. `received = acknowledged + evicted + cached`, in every [`Status`], across restarts. After a
//!    crash `received` is counted anew from what is there.
//! 4. A number is never given twice, crash or not: numbers are reserved on disk ahead of use.
//! 5. A file that an earlier process wrote is never written again, only read and removed whole:
//!    a power cut while recovering can ruin nothing. No synced byte is ever written over.
//! 6. A frame acknowledged before its sync tick never touches flash.
//! 7. After a crash at most the acknowledgements of one tick are forgotten: those frames repeat.
//! 8. Memory does not depend on the backlog: two tails of bounded bytes, per lane the tables of the
//!    newest and of two read generations.
//!
//! # Layout
//! ```text
//! <path>/lock                                  flock: one weir at a time
//! <path>/cursor                                counters, acknowledgements, reserved numbers
//! <path>/key, manifests/                       signs what is told of the numbers, once a day
//! <path>/{priority,ordinary}/gen-<first>-<nonce>/
//!         db                                   blocks, one behind the other
//!         sealed                               last number and frame count, once it is complete
//! <path>/trash-*                               being removed
//! <path>/quarantine-*                          the newest two generations that had damage
//! ```
//! docs/store.md has it byte by byte, docs/decisions/0006-append-only.md why. Start with worker.rs.

mod append;
mod block;
pub mod carry;
pub mod check;
mod cursor;
mod generation;
pub mod key;
mod ledger;
pub mod manifest;
mod recovery;
pub mod repair;
mod request;
mod row;
mod scan;
mod source;
mod survey;
mod tail;
mod worker;
mod writer;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};
use tracing::warn;

use self::key::Key;
use self::request::Request;
use self::worker::{Closing, Worker};
use crate::model::{Lane, Sequence, Stamp, Stored, Timestamp};
use crate::setting::{Node, Printed, Problems, Setting, Shape, Size};
use crate::settings;

settings! {
    /// The durable cache.
    pub struct StoreSettings {
        /// Its directory.
        pub path: PathBuf = "/var/lib/weir/store",
        /// The most it may take on disk; then the oldest ordinary frames go first, counted and
        /// reported, and priority frames last.
        pub max_size: Size = "256MiB",
        /// An ordinary frame is durable at most this long after it arrived, a priority frame at
        /// once. "always": every frame at once.
        pub sync: SyncPolicy = "1s",
    }
}

/// When an ordinary frame becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncPolicy {
    /// At most this long after it arrived.
    Every(Duration),
    /// Before `append` returns.
    Always,
}

impl Setting for SyncPolicy {
    fn shape() -> Shape {
        Shape::Value("duration, e.g. \"1s\", or \"always\"")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        let text = node.text("a duration such as \"1s\", or \"always\"", problems)?;
        if text == "always" { Some(Self::Always) } else { Duration::read(node, problems).map(Self::Every) }
    }

    fn printed(&self) -> Printed {
        match self {
            Self::Every(period) => period.printed(),
            Self::Always => Printed::text("always"),
        }
    }
}

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its thread has ended; the agent is shutting down.
    #[error("the store is closed")]
    Closed,
    /// The directory can't be used.
    #[error("the store directory {path} can't be used: create it and make it writable for weir ({source})")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds the directory.
    #[error("another weir is using the store {path}: stop it first, or give this one a path of its own")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// There is no store to look into.
    #[error("there is no store in {path}: check [store] path, or start the agent once")]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// Both slots of the cursor file are unreadable.
    #[error("the counters of the store {path} are unreadable: start the agent, it counts anew")]
    Counters {
        /// The directory.
        path: PathBuf,
    },
    /// The frame is larger than a frame may be.
    #[error("a frame of {size} bytes is refused: the store takes at most {limit}; read fewer values at once")]
    FrameTooLarge {
        /// Its encoded size.
        size: usize,
        /// [`MAX_FRAME`].
        limit: usize,
    },
    /// The disk refuses; the frames stay in memory and the store goes on trying.
    #[error("the store's disk fails, frames stay in memory: free space or mend the disk ({0})")]
    Disk(String),
    /// Files written by this user could not be used by the agent.
    #[error("the store {path} belongs to another user: run this as that user, e.g. with sudo -u weir")]
    Owner {
        /// The directory.
        path: PathBuf,
    },
    /// There is no signing key yet.
    #[error("there is no signing key {path} yet: start the agent once")]
    NoKey {
        /// The key's file.
        path: PathBuf,
    },
    /// The signing key can't be used.
    #[error("the signing key {path} can't be used: run this as the agent's user, or see weir store repair ({source})")]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// A file to carry frames in could not be written or read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An export must not replace another.
    #[error("{path} exists already: choose another name, what it holds may be nowhere else")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file is no export, or not whole.
    #[error("{path} can't be taken: {problem}")]
    Export {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: carry::FormatError,
    },
    /// The export is signed by another key than the one given.
    #[error("{path} is signed by the key {found}, not by {expected}: it is not from the gateway it should be from")]
    Signer {
        /// The file.
        path: PathBuf,
        /// Its key in base64.
        found: String,
        /// The key given, in base64.
        expected: String,
    },
    /// Importing would make the store give up frames.
    #[error("the store has no room for {needed} bytes more: raise [store] max_size, or let it drain first")]
    Room {
        /// What the import takes on disk, in bytes.
        needed: u64,
    },
}

/// The largest encoded frame that is taken, in bytes.
pub const MAX_FRAME: usize = block::MAX_FRAME;
/// The most bytes of frames one [`Store::peek`] returns, unless its first frame alone is larger.
pub const PEEK_BYTES: usize = 512 * 1024;

/// Counters of the store. `received = acknowledged + evicted + cached` always holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Frames ever appended; after a crash, as far as they are still accounted for.
    pub received: u64,
    /// Frames ever committed.
    pub acknowledged: u64,
    /// Frames given up because the store was full, or unreadable.
    pub evicted: u64,
    /// Those of `evicted` that were unreadable.
    pub damaged: u64,
    /// Frames waiting, both lanes.
    pub cached: u64,
    /// Priority frames waiting.
    pub cached_priority: u64,
    /// Every frame up to this sequence survives a power cut (or was committed).
    pub durable: Sequence,
    /// What the generations take on disk, in bytes.
    pub disk_bytes: u64,
    /// Why the disk refuses, while it does.
    pub disk_error: Option<String>,
    /// Numbers that no frame has: a crash took them along with the memory, or they were never given.
    pub skipped: u64,
    /// How many manifests were closed.
    pub manifests: u64,
    /// When the last one was; 1970 when there is none.
    pub closed_at: Timestamp,
    /// Those of `evicted` whose meter could be told, since ever, by meter.
    pub evicted_by_meter: Arc<BTreeMap<String, u64>>,
}

impl Status {
    /// The highest number given: every number up to it was received or skipped.
    pub const fn given(&self) -> Sequence {
        self.received + self.skipped
    }
}

/// A handle to the store's own thread; clones share it. When the last one is dropped the store
/// writes what it has and ends.
#[derive(Debug, Clone)]
pub struct Store {
    requests: mpsc::Sender<Request>,
    /// Permits for requests other than appends.
    queue: Arc<Semaphore>,
    /// Bytes that may wait in memory: priority, ordinary.
    rooms: [Arc<Semaphore>; 2],
    status: watch::Receiver<Status>,
}

/// Requests in the queue beside appends.
const QUEUE: usize = 64;
const PRIORITY_ROOM: usize = 1024 * 1024;
const ORDINARY_ROOM: usize = 2 * 1024 * 1024;

const fn index(lane: Lane) -> usize {
    match lane {
        Lane::Priority => 0,
        Lane::Ordinary => 1,
    }
}

impl Store {
    /// Opens the store, creating it when there is none, and starts its thread. Blocks for the
    /// time it takes to look at two generations, whatever the backlog.
    ///
    /// # Errors
    /// [`StoreError::Directory`] or [`StoreError::Locked`]; damage inside never stops it.
    pub fn open(settings: &StoreSettings) -> Result<Self, StoreError> {
        let (status_out, status) = watch::channel(Status::default());
        let worker = Worker::open(settings, status_out)?;
        // Made now, so that the head-end can pin it before the first manifest.
        if let Err(error) = Key::open_or_create(&key::path_in(&settings.path)) {
            warn!(%error, "the signing key can't be made; it is tried again with the first manifest");
        }
        let (requests, inbox) = mpsc::channel();
        let thread = std::thread::Builder::new().name("store".into());
        let failed = |source| StoreError::Directory { path: settings.path.clone(), source };
        thread.spawn(move || worker.run(&inbox)).map_err(failed)?;
        let rooms = [PRIORITY_ROOM, ORDINARY_ROOM].map(|room| Arc::new(Semaphore::new(room)));
        Ok(Self { requests, queue: Arc::new(Semaphore::new(QUEUE)), rooms, status })
    }

    /// Returns up to `limit` waiting frames of `lane` with numbers above `after`, oldest first,
    /// and no more than [`PEEK_BYTES`] of them.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn peek(&self, lane: Lane, after: Sequence, limit: usize) -> Result<Vec<Stored>, StoreError> {
        self.ask(|reply| Request::Peek { lane, after, limit, reply }).await
    }

    /// Gives up frames that the broker has acknowledged, in any order. Unknown numbers are ignored.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn commit(&self, lane: Lane, sequences: Vec<Sequence>) -> Result<(), StoreError> {
        self.ask(|reply| Request::Commit { lane, sequences, reply }).await
    }

    /// Makes everything appended and committed so far durable and returns when it is.
    ///
    /// # Errors
    /// [`StoreError::Closed`]; [`StoreError::Disk`] when the disk refuses just now.
    pub async fn sync(&self) -> Result<(), StoreError> {
        self.ask(Request::Sync).await?.map_err(StoreError::Disk)
    }

    /// Writes what is in memory, ends the store's thread and frees the directory. Every other
    /// handle answers [`StoreError::Closed`] from then on.
    ///
    /// # Errors
    /// [`StoreError::Closed`] when it was closed before; [`StoreError::Disk`] when the disk
    /// refuses and what is in memory is lost.
    pub async fn close(self) -> Result<(), StoreError> {
        self.ask(Request::Close).await?.map_err(StoreError::Disk)
    }

    /// Closes the books: writes and signs a manifest of every number given so far, keeps it in
    /// `manifests/` and adds it as an ordinary frame. `began` is when counting began, for the first
    /// one. Returns the manifest's number.
    ///
    /// # Errors
    /// [`StoreError::Closed`]; [`StoreError::Disk`] when the disk refuses: nothing is closed then.
    pub async fn close_books(&self, gateway: String, began: Timestamp, now: Stamp) -> Result<u64, StoreError> {
        let closing = Closing { gateway, began, now };
        self.ask(|reply| Request::CloseBooks(closing, reply)).await?.map_err(StoreError::Disk)
    }

    /// The counters, and a signal whenever they change (a frame came, was committed, became durable).
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, StoreError> {
        let _turn = self.queue.acquire().await.map_err(|_| StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }
}

/// Reads the counters of a store without opening it, whether an agent runs or not. While one
/// runs they are up to one and a half minutes old.
///
/// # Errors
/// [`StoreError::Missing`], [`StoreError::Counters`], [`StoreError::Directory`].
pub fn inspect(path: &Path) -> Result<Status, StoreError> {
    match cursor::read(&path.join("cursor")) {
        Ok(cursor::Found::Good(cursor)) => Ok(cursor.status()),
        Ok(cursor::Found::Nothing) => Err(StoreError::Missing { path: path.to_owned() }),
        Ok(cursor::Found::Damaged) => Err(StoreError::Counters { path: path.to_owned() }),
        Err(source) => Err(StoreError::Directory { path: path.to_owned(), source }),
    }
}

/// Tells whether a running weir holds the store in `path`; changes nothing.
pub fn is_in_use(path: &Path) -> bool {
    recovery::is_held(path)
}

#[cfg(test)]
mod tests;
