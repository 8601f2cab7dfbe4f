//! Who has a port, since when and until when, for everybody to see.

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

/// Where it is written who has a port; clones are the same place.
#[derive(Debug, Clone, Default)]
pub(in crate::meter) struct Holder(Arc<Mutex<Option<Hold>>>);

impl Holder {
    /// Who has the port now.
    pub(in crate::meter) fn now(&self) -> Option<Hold> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Somebody has the port until what is given back is dropped.
    pub(in crate::meter) fn begin(&self, owner: Owner, until: Option<Instant>) -> Held {
        let hold = Hold { owner, since: Instant::now(), until };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(hold);
        Held(self.clone())
    }
}

/// As long as it lives the port is held.
#[derive(Debug)]
pub(in crate::meter) struct Held(Holder);

impl Drop for Held {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
