//! What time it is: the one place that asks.
//!
//! [`Clock`] stamps frames with the wall clock's time and with what can mend it later: the boot
//! and the time since then. docs/time.md says what is promised. Start with [`Clock::stamp`].

mod source;

use std::sync::Arc;

use self::source::System;
pub use self::source::{Dial, Source};
use crate::model::{ClockState, Stamp, TimeQuality, Timestamp};

/// Reads the wall clock as it is, right or wrong; whatever is kept or published takes a [`Clock`].
pub fn now() -> Timestamp {
    source::wall()
}

/// A handle to the gateway's clock; clones share it.
#[derive(Debug, Clone)]
pub struct Clock {
    source: Arc<dyn Source>,
}

impl Clock {
    /// The machine's own clock.
    pub fn system() -> Self {
        Self::of(System::new())
    }

    /// The clock that reads this source.
    pub fn of(source: impl Source + 'static) -> Self {
        Self { source: Arc::new(source) }
    }

    /// The time now, for what is kept or published.
    pub fn stamp(&self) -> Stamp {
        let (wall, uptime) = self.source.read();
        Stamp { wall, boot: self.source.boot(), uptime, clock: ClockState::Synced }
    }

    /// The time now, as well as it is known.
    pub fn now(&self) -> Timestamp {
        self.stamp().wall
    }

    /// The best that is known of when `stamp` was made.
    pub fn resolve(&self, stamp: &Stamp) -> (Timestamp, TimeQuality) {
        match stamp.clock {
            ClockState::Synced => (stamp.wall, TimeQuality::Synced),
            ClockState::Unsynced => (stamp.wall, TimeQuality::Unsynced),
        }
    }
}
