//! Where a session's frames come from, and who is told that they were acknowledged.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::intervals::Span;
use super::ledger::Ledger;
use crate::model::{Lane, Sequence, Stored};
use crate::store::{Status, Store, StoreError};

/// The mirror's ledger, shared by its brokers. It is never held across a wait.
pub(super) type SharedLedger = Arc<Mutex<Ledger>>;

pub(super) fn lock(ledger: &SharedLedger) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The store as one broker sees it.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// What this broker acknowledges is given up.
    Alone(Store),
    /// What all required brokers acknowledge is given up.
    Mirror {
        store: Store,
        ledger: SharedLedger,
        /// Which one this is.
        broker: usize,
    },
}

/// Frames still to be sent.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) frames: Vec<Stored>,
    /// The store holds nothing else for this broker up to here.
    pub(super) through: Sequence,
}

impl Source {
    fn store(&self) -> &Store {
        match self {
            Self::Alone(store) | Self::Mirror { store, .. } => store,
        }
    }

    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.store().status()
    }

    /// The number up to which this broker lacks nothing of the lane.
    pub(super) fn begin(&self, lane: Lane) -> Sequence {
        match self {
            Self::Alone(_) => 0,
            Self::Mirror { ledger, broker, .. } => lock(ledger).covered_to(*broker, lane, 0),
        }
    }

    /// Returns the next frames behind `after` that this broker has not acknowledged; none when
    /// there are no more now.
    pub(super) async fn peek(&self, lane: Lane, after: Sequence, limit: usize) -> Result<Page, StoreError> {
        let Self::Mirror { store, ledger, broker } = self else {
            let frames = self.store().peek(lane, after, limit).await?;
            let through = frames.last().map_or(after, |last| last.sequence);
            return Ok(Page { frames, through });
        };
        let mut through = after;
        loop {
            through = lock(ledger).covered_to(*broker, lane, through);
            let mut frames = store.peek(lane, through, limit).await?;
            if frames.is_empty() {
                return Ok(Page { frames, through });
            }
            let mut ledger = lock(ledger);
            frames.retain(|frame| {
                let has = ledger.has(*broker, lane, frame.sequence);
                if has {
                    // Between two frames of a lane there is nothing, or it is gone.
                    ledger.close_gap(*broker, lane, Span { after: through, last: frame.sequence });
                }
                through = frame.sequence;
                !has
            });
            if !frames.is_empty() {
                return Ok(Page { frames, through });
            }
        }
    }

    /// Notes a message's PUBACK and gives up what may be given up.
    pub(super) async fn acknowledge(
        &self,
        lane: Lane,
        spans: &[Span],
        frames: Vec<Sequence>,
    ) -> Result<(), StoreError> {
        let done = match self {
            Self::Alone(_) => frames,
            Self::Mirror { ledger, broker, .. } => lock(ledger).acknowledge(*broker, lane, spans, frames),
        };
        if done.is_empty() { Ok(()) } else { self.store().commit(lane, done).await }
    }

    /// Reads one frame again; `None` when it is gone.
    pub(super) async fn one(&self, lane: Lane, frame: Sequence) -> Result<Option<Stored>, StoreError> {
        let found = self.store().peek(lane, frame.saturating_sub(1), 1).await?;
        Ok(found.into_iter().find(|found| found.sequence == frame))
    }
}
