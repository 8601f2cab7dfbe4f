//! How the clock is doing, for the status message.

use crate::model::{TimeQuality, Timestamp};

/// Where the time that weir goes by comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Basis {
    /// The wall clock, which is trusted.
    Clock,
    /// What the wall clock showed in this boot while it was trusted, and the time since.
    Book,
    /// The wall clock, which nobody vouches for but which may be right.
    Unconfirmed,
    /// The last good time of an earlier boot and the uptime.
    LastGood,
    /// The day weir was built.
    Built,
}

impl Basis {
    /// The word for the status message.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Book => "book",
            Self::Unconfirmed => "unconfirmed",
            Self::LastGood => "last-good",
            Self::Built => "built",
        }
    }
}

/// The state of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// The time weir goes by.
    pub time: Timestamp,
    /// Where that comes from.
    pub basis: Basis,
    /// How often the wall clock was set by more than 2 s since weir started.
    pub jumps: u64,
}

impl Health {
    /// How good the time of a frame made now is.
    pub const fn state(&self) -> TimeQuality {
        match self.basis {
            Basis::Clock => TimeQuality::Synced,
            Basis::Book => TimeQuality::Corrected,
            Basis::Unconfirmed | Basis::LastGood | Basis::Built => TimeQuality::Unsynced,
        }
    }
}
