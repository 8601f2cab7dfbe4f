//! Notices that the way to the platform hangs, and decides what is tried next.
//!
//! Invariants: it decides, others do ([`Hands`]); what is tried has a limit that outlives restarts, so that a gateway never reboots in a
//! loop; a reboot that can't be noted is not done. Start with [`Dog`], then `course.rs`.

mod book;
mod course;
mod dog;
mod health;
mod host;
mod settings;

pub use book::BOOK;
pub use dog::{Cause, Dog, Hands, Refusal};
pub use health::{Health, Status};
pub use host::Host;
pub use settings::{Hardware, PingSettings, Step, WatchdogSettings, check, minute_of_day};

/// Why the gateway was not rebooted.
#[derive(Debug, thiserror::Error)]
pub enum WatchdogError {
    /// The limit.
    #[error(
        "{reboots} of {limit} reboots in 24 hours are used up, or the gateway runs for less than 10 minutes; raise watchdog.reboots or wait"
    )]
    Limit {
        /// Reboots that may have been in the last 24 hours.
        reboots: usize,
        /// The limit.
        limit: u32,
    },
    /// Nobody here can.
    #[error("{0}")]
    Cannot(String),
    /// The helper refused.
    #[error("the reboot was refused: {0}")]
    Refused(String),
    /// The book can't be kept.
    #[error("the reboot can't be noted, so it is not done: {why}; see to the disk")]
    Book {
        /// What the system said.
        why: String,
    },
    /// The store can't be synced.
    #[error("the store can't be synced, so the gateway is not rebooted: {0}")]
    NotSynced(String),
}
