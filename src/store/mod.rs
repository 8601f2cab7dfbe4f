//! Keeps frames until the broker has acknowledged them.
//!
//! Foundation of the interface only: the frames live in memory; the layout on disk follows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::model::{Frame, Lane, Sequence, Stored};
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
    /// Its task has ended; the agent is shutting down.
    #[error("the store is closed")]
    Closed,
}

/// Counters of the store. `received = acknowledged + evicted + cached` always holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Frames ever appended.
    pub received: u64,
    /// Frames ever committed.
    pub acknowledged: u64,
    /// Frames given up because the store was full.
    pub evicted: u64,
    /// Frames waiting, both lanes.
    pub cached: u64,
    /// Priority frames waiting.
    pub cached_priority: u64,
    /// Every frame up to this sequence survives a power cut (or was committed).
    pub durable: Sequence,
}

/// A handle to the store's own thread; clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Status>,
}

#[derive(Debug)]
enum Request {
    Append(Frame, oneshot::Sender<Sequence>),
    Peek(Lane, Sequence, usize, oneshot::Sender<Vec<Stored>>),
    Commit(Lane, Vec<Sequence>, oneshot::Sender<()>),
    Sync(oneshot::Sender<()>),
}

impl Store {
    /// Opens the store and starts its thread.
    ///
    /// # Errors
    /// When the directory can't be used.
    pub fn open(_settings: &StoreSettings) -> Result<Self, StoreError> {
        let (requests, mut inbox) = mpsc::channel(256);
        let (status_out, status) = watch::channel(Status::default());
        std::thread::spawn(move || {
            let mut lanes: BTreeMap<Lane, BTreeMap<Sequence, Frame>> = BTreeMap::new();
            while let Some(request) = inbox.blocking_recv() {
                match request {
                    Request::Append(frame, reply) => status_out.send_modify(|s| {
                        s.received += 1;
                        s.cached += 1;
                        s.durable = s.received;
                        s.cached_priority += u64::from(frame.lane == Lane::Priority);
                        lanes.entry(frame.lane).or_default().insert(s.received, frame);
                        let _ = reply.send(s.received);
                    }),
                    Request::Peek(lane, after, limit, reply) => {
                        let waiting = lanes.entry(lane).or_default().range(after + 1..).take(limit);
                        let frames = waiting.map(|(&sequence, f)| Stored { sequence, frame: f.clone() });
                        let _ = reply.send(frames.collect());
                    }
                    Request::Commit(lane, sequences, reply) => status_out.send_modify(|s| {
                        for sequence in sequences {
                            if lanes.entry(lane).or_default().remove(&sequence).is_some() {
                                s.acknowledged += 1;
                                s.cached -= 1;
                                s.cached_priority -= u64::from(lane == Lane::Priority);
                            }
                        }
                        let _ = reply.send(());
                    }),
                    Request::Sync(reply) => {
                        let _ = reply.send(());
                    }
                }
            }
        });
        Ok(Self { requests, status })
    }

    /// Adds a frame and returns its number. The frame is durable when [`Status::durable`]
    /// reaches that number: at once for priority frames, within `sync` otherwise.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn append(&self, frame: Frame) -> Result<Sequence, StoreError> {
        self.ask(|reply| Request::Append(frame, reply)).await
    }

    /// Returns up to `limit` waiting frames of `lane` with numbers above `after`, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn peek(&self, lane: Lane, after: Sequence, limit: usize) -> Result<Vec<Stored>, StoreError> {
        self.ask(|reply| Request::Peek(lane, after, limit, reply)).await
    }

    /// Gives up frames that the broker has acknowledged. Unknown numbers are ignored.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn commit(&self, lane: Lane, sequences: Vec<Sequence>) -> Result<(), StoreError> {
        self.ask(|reply| Request::Commit(lane, sequences, reply)).await
    }

    /// Makes everything appended so far durable and returns when it is.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub async fn sync(&self) -> Result<(), StoreError> {
        self.ask(Request::Sync).await
    }

    /// The counters, and a signal whenever they change (a frame came, was committed, became durable).
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }
}
