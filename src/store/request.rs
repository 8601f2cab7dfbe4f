//! What the handles ask of the store's thread.

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::worker::Closing;
use crate::model::{Lane, Sequence, Stored};

/// A frame that has room in memory and gets the next number.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) lane: Lane,
    pub(super) bytes: Vec<u8>,
    pub(super) room: OwnedSemaphorePermit,
}

/// What the handles ask of the thread.
#[derive(Debug)]
pub(super) enum Request {
    /// Answered with the number of the first frame; the others have the next ones.
    Append {
        frames: Vec<Append>,
        reply: oneshot::Sender<Sequence>,
    },
    Peek {
        lane: Lane,
        after: Sequence,
        limit: usize,
        reply: oneshot::Sender<Vec<Stored>>,
    },
    Commit {
        lane: Lane,
        sequences: Vec<Sequence>,
        reply: oneshot::Sender<()>,
    },
    Sync(oneshot::Sender<Result<(), String>>),
    CloseBooks(Closing, oneshot::Sender<Result<u64, String>>),
    Close(oneshot::Sender<Result<(), String>>),
    /// Answered when nothing is left to do.
    #[cfg(test)]
    Rest(oneshot::Sender<()>),
}
