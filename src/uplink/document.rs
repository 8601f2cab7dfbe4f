//! The status document that others write and the uplink publishes: only ever the newest.

use tokio::sync::watch;

/// A document that changes from time to time, and where it goes.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub(super) topic: String,
    newest: watch::Receiver<Option<String>>,
    /// There is one that was not taken yet.
    fresh: bool,
}

impl Document {
    /// What is there already counts as new.
    pub(super) fn new(topic: String, newest: watch::Receiver<Option<String>>) -> Self {
        Self { topic, newest, fresh: true }
    }

    /// Returns when there is something new to [`Document::take`]. Cancelling it loses nothing.
    pub(super) async fn news(&mut self) {
        if !self.fresh && self.newest.changed().await.is_err() {
            // Nobody writes it any more.
            std::future::pending::<()>().await;
        }
        self.fresh = true;
    }

    /// The newest document, unless it was taken before.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        let changed = self.newest.has_changed().unwrap_or(false);
        if !std::mem::take(&mut self.fresh) && !changed {
            return None;
        }
        self.newest.borrow_and_update().as_ref().map(|text| text.clone().into_bytes())
    }

    /// What was taken last did not arrive; the newest is to be sent again.
    pub(super) fn again(&mut self) {
        self.fresh = true;
    }
}
