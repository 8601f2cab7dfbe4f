//! How a tunnel does: counters behind a handle that is cheap to share.

use std::sync::Arc;

use tokio::sync::watch;

/// Counters of one tunnel since weir started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Bytes written to the port.
    pub to_port: u64,
    /// Bytes published.
    pub from_port: u64,
    /// Requests written.
    pub requests: u64,
    /// Messages published.
    pub answers: u64,
    /// Requests dropped because they were too old when the line was free, or too many.
    pub dropped_requests: u64,
    /// Answers dropped because nobody took them in time.
    pub dropped_answers: u64,
    /// Whether the tunnel has the line now.
    pub holds_line: bool,
    /// How often it got the line.
    pub sessions: u64,
    /// Connections with peers of the network that were made; by UDP the addresses that were heard.
    pub peers: u64,
    /// Peers and orders that were refused.
    pub refused: u64,
    /// Who is connected now.
    pub peer: Option<String>,
}

/// A handle to one tunnel's status; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<watch::Sender<Status>>);

impl Health {
    /// Starts with nothing carried.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counters now.
    pub fn status(&self) -> Status {
        self.0.borrow().clone()
    }

    /// A request found no place.
    pub fn dropped_request(&self) {
        self.change(|status| status.dropped_requests += 1);
    }

    /// Tells of changes.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Status)) {
        self.0.send_modify(change);
    }
}
