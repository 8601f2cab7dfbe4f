//! Who has a port, since when and until when, for everybody to see.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// What a port is held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A meter is being read.
    Reading,
    /// A meter carries out an order.
    Order,
    /// A load profile is read back.
    Background,
    /// A meter that sends by itself is heard.
    Listening,
    /// A tunnel carries bytes.
    Tunnel,
    /// A command has the line for itself.
    Command,
    /// Somebody else borrowed it.
    Lease,
}

impl Purpose {
    /// One word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Order => "order",
            Self::Background => "background",
            Self::Listening => "listening",
            Self::Tunnel => "tunnel",
            Self::Command => "command",
            Self::Lease => "lease",
        }
    }
}

/// Who wants a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// For what.
    pub purpose: Purpose,
    /// The meter, the peer, or who gave the command.
    pub name: Arc<str>,
}

impl Owner {
    /// Names somebody.
    pub fn new(purpose: Purpose, name: &str) -> Self {
        Self { purpose, name: name.into() }
    }
}

/// A port that somebody has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Who.
    pub owner: Owner,
    /// Since when.
    pub since: Instant,
    /// When it is taken back at the latest; `None`: its end is its owner's affair.
    pub until: Option<Instant>,
}

/// Where it is written who has a port, and what nobody got; clones are the same place.
#[derive(Debug, Clone, Default)]
pub(in crate::meter) struct Holder {
    hold: Arc<Mutex<Option<Hold>>>,
    read_away: Arc<AtomicU64>,
}

impl Holder {
    /// Who has the port now.
    pub(in crate::meter) fn now(&self) -> Option<Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes that were read away in leases and after them.
    pub(in crate::meter) fn read_away(&self) -> u64 {
        self.read_away.load(Ordering::Relaxed)
    }

    /// Counts more of them.
    pub(in crate::meter) fn note_read_away(&self, bytes: u64) {
        self.read_away.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Somebody has the port until what is given back is dropped.
    pub(in crate::meter) fn begin(&self, owner: Owner, until: Option<Instant>) -> Held {
        let hold = Hold { owner, since: Instant::now(), until };
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = Some(hold);
        Held(self.clone())
    }
}

/// As long as it lives the port is held.
#[derive(Debug)]
pub(in crate::meter) struct Held(Holder);

impl Drop for Held {
    fn drop(&mut self) {
        *self.0.hold.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
