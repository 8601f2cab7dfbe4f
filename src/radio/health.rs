//! How a receiver does: counters and state behind a handle that is cheap to share.

use std::sync::Arc;

use tokio::sync::watch;

use crate::model::Timestamp;

/// Counters of one receiver since weir started. `heard = forwarded + duplicates + unwanted + sampled_out`, but for the
/// telegrams that are held for better receptions or the end of a sampling period, or wait for room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Telegrams with a sound link layer.
    pub heard: u64,
    /// Frames handed on.
    pub forwarded: u64,
    /// Telegrams whose values were handed on.
    pub decoded: u64,
    /// Telegrams that were to be decoded and were handed on as they are: no key, a wrong key, or content that is not sure.
    pub undecoded: u64,
    /// Telegrams dropped because the same one came shortly before, from this receiver or another.
    pub duplicates: u64,
    /// Telegrams of meters that the settings do not want.
    pub unwanted: u64,
    /// Telegrams dropped because a newer one of the same sampling period came.
    pub sampled_out: u64,
    /// Telegrams dropped because length, CRC or form were wrong, or the receiver said so.
    pub damaged: u64,
    /// Lines that were no telegrams.
    pub noise: u64,
    /// Bytes of lines too long to be telegrams.
    pub skipped_bytes: u64,
    /// When the last sound telegram came.
    pub last_heard: Option<Timestamp>,
    /// How often the source was opened.
    pub opened: u64,
    /// How often it could not be opened or ended.
    pub failures: u64,
    /// What it does now.
    pub source: SourceState,
    /// How many senders are connected, when they connect to weir.
    pub senders: usize,
    /// How many connections were refused because too many were there.
    pub refused: u64,
    /// How often it was silent against its own usual rate.
    pub silences: u64,
    /// How often it was opened again because of that.
    pub reopened: u64,
    /// How often its USB device was reset because of that.
    pub resets: u64,
    /// Why its USB device could not be reset, the last time that was tried.
    pub no_reset: Option<String>,
}

/// Whether a receiver's source is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SourceState {
    /// Not opened yet.
    #[default]
    Starting,
    /// Open.
    Open,
    /// Open, and silent against its own usual rate.
    Silent,
    /// Gone; it will be opened again.
    Waiting,
    /// Standard input has ended; it can't be opened again.
    Ended,
}

impl SourceState {
    /// The word that people and programs read.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Open => "open",
            Self::Silent => "silent",
            Self::Waiting => "gone",
            Self::Ended => "ended",
        }
    }
}

/// A handle to one receiver's status; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<watch::Sender<Status>>);

impl Health {
    /// Starts with nothing heard.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counters now.
    pub fn status(&self) -> Status {
        self.0.borrow().clone()
    }

    /// The counters, and a signal whenever they change.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Status)) {
        // Waking nobody is the greater part of the work when telegrams come by the ten thousand.
        self.0.send_if_modified(|status| {
            change(status);
            self.0.receiver_count() > 0
        });
    }
}
