//! Each frame to every broker: a session with each over the same store.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::course::Course;
use super::failover::Failover;
use super::ledger::Ledger;
use super::source::{SharedLedger, lock};
use super::{UplinkError, progress};
use crate::model::Lane;
use crate::store::{Store, StoreError};

/// How often the progress is written while something waits: seldom, for the flash's sake.
const WRITE_EVERY: Duration = Duration::from_mins(1);
/// Frames looked at together.
const PAGE: usize = 500;

/// What the brokers of a mirror share.
#[derive(Debug)]
pub(super) struct Mirror {
    store: Store,
    ledger: SharedLedger,
    file: Option<PathBuf>,
    failing: bool,
}

impl Mirror {
    /// Opens the accounts of the brokers, given by key and whether they are required.
    pub(super) fn new(store: Store, file: Option<PathBuf>, brokers: impl IntoIterator<Item = (u64, bool)>) -> Self {
        let durable = store.status().borrow().durable;
        let earlier = file.as_deref().map(|path| progress::read(path, durable)).unwrap_or_default();
        let ledger = Arc::new(Mutex::new(Ledger::new(brokers, &earlier)));
        Self { store, ledger, file, failing: false }
    }

    pub(super) fn ledger(&self) -> SharedLedger {
        Arc::clone(&self.ledger)
    }

    /// Keeps a session with each broker until the agent shuts down.
    ///
    /// # Errors
    /// [`UplinkError::Store`].
    pub(super) async fn run(
        mut self,
        courses: Vec<Course>,
        shutdown: watch::Receiver<bool>,
    ) -> Result<(), UplinkError> {
        self.sweep().await?;
        let mut sessions = JoinSet::new();
        for course in courses {
            sessions.spawn(Failover::new(vec![course], Duration::MAX, shutdown.clone()).run());
        }
        let mut outcome = Ok(());
        loop {
            tokio::select! {
                biased;
                ended = sessions.join_next() => match ended {
                    None => break,
                    Some(Ok(Ok(()))) => {}
                    Some(Ok(Err(error))) => outcome = Err(error),
                    Some(Err(panic)) => {
                        sessions.shutdown().await;
                        if let Ok(panic) = panic.try_into_panic() {
                            // The supervisor starts the uplink again.
                            std::panic::resume_unwind(panic);
                        }
                    }
                },
                () = sleep(WRITE_EVERY) => {
                    // Without frames in the store an old record repeats nothing.
                    let waits = self.store.status().borrow().cached > 0;
                    if waits && !*shutdown.borrow() {
                        self.write().await;
                    }
                }
            }
        }
        self.write().await;
        outcome
    }

    /// Gives up what every required broker had acknowledged before a crash kept the store from
    /// being told, or before the configuration required fewer brokers: no session asks for it.
    async fn sweep(&self) -> Result<(), StoreError> {
        for lane in [Lane::Priority, Lane::Ordinary] {
            let (mut after, end) = (0, lock(&self.ledger).settled_below(lane));
            let mut given_up = 0;
            while after < end {
                let page = self.store.peek(lane, after, PAGE).await?;
                let Some(last) = page.last() else { break };
                after = last.sequence;
                let mut done: Vec<_> = page.into_iter().map(|frame| frame.sequence).collect();
                {
                    let ledger = lock(&self.ledger);
                    done.retain(|frame| ledger.is_settled(lane, *frame));
                }
                given_up += done.len();
                if !done.is_empty() {
                    self.store.commit(lane, done).await?;
                }
            }
            if given_up > 0 {
                info!(frames = given_up, ?lane, "frames that every required broker had before are given up");
            }
        }
        Ok(())
    }

    /// Writes what the brokers have acknowledged, as far as it survives a power cut.
    async fn write(&mut self) {
        let Some(path) = self.file.clone() else { return };
        let durable = self.store.status().borrow().durable;
        let Some(record) = lock(&self.ledger).progress(durable) else { return };
        // A card may take its time, and nothing else must wait for it.
        let written = spawn_blocking(move || progress::write(&path, &record)).await;
        if !matches!(written, Ok(Ok(()))) {
            lock(&self.ledger).not_kept();
        }
        match written {
            Ok(Ok(())) if std::mem::take(&mut self.failing) => info!("the brokers' progress can be written again"),
            Ok(Ok(())) => debug!("the brokers' progress is written"),
            Ok(Err(error)) if !self.failing => {
                self.failing = true;
                warn!(%error, "the brokers' progress can't be written; a restart now repeats frames");
            }
            Ok(Err(error)) => debug!(%error, "the brokers' progress can't be written, again"),
            Err(_) => {}
        }
    }
}
