//! How the watchdog is doing, for the status.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::model::Timestamp;

/// What the watchdog tells about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether the way to the world is tested.
    pub enabled: bool,
    /// How long there was no session with a broker, when it was last looked.
    pub silence: Duration,
    /// Tests of all hosts since the start, and how many failed.
    pub tests: (u64, u64),
    /// Failures in a row.
    pub failures: u32,
    /// Steps tried since the last success.
    pub rung: usize,
    /// The last step, when, and what became of it.
    pub step: Option<(&'static str, Timestamp, String)>,
    /// Reboots that weir asked for in the last 24 hours.
    pub reboots: usize,
    /// Who feeds the hardware watchdog: `weir`, `other`, `nobody`.
    pub hardware: &'static str,
}

/// Shares [`Status`]; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Health {
    shared: Arc<Mutex<Status>>,
}

impl Health {
    /// What is known now.
    pub fn status(&self) -> Status {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says who feeds the hardware watchdog.
    pub fn hardware(&self, who: &'static str) {
        self.note(|status| status.hardware = who);
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
