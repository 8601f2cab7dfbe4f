//! Notices that the way to the platform hangs, and decides what is tried next.
//!
//! Invariants: it decides, others do; what is tried has a limit that outlives restarts, so that a gateway never reboots in a
//! loop. Start with [`WatchdogSettings`].

mod settings;

pub use settings::{PingSettings, WatchdogSettings};
