//! Changes of the configuration that go back by themselves unless they prove themselves.
//!
//! What runs is the base file, or an accepted change that was made from exactly that base file, or a proposal on
//! trial. A proposal is kept when the broker was reached (and on every port whose settings changed a meter answered) within
//! its time; else the one before is taken again, also after crashes and power cuts. What did not work before need not work
//! after. Invariants: the base file is never written; every text on disk was valid when it was taken; a power cut leaves
//! the old book or the new one; the store's frames are never touched. Start with [`prepare`] and [`History`].

use std::time::Duration;

mod book;
mod difference;
mod history;
mod mask;
#[cfg(test)]
mod tests;

pub use crate::control::{LONGEST_TRIAL, SHORTEST_TRIAL};
pub use book::{Book, Entry, Origin, Outcome, Proposal, REMEMBERED, STARTS, Trial};
pub use difference::unified;
pub use history::{History, effective, is_kept, running, running_file, store_of};
pub use mask::masked;

use super::Loaded;
use crate::setting::{Problem, Severity};

/// Why a change is not taken; each is one sentence for whoever wanted it.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// A key or value that can't be set.
    #[error(transparent)]
    Key(#[from] super::edit::EditError),
    /// The whole would be wrong.
    #[error("the configuration would be wrong: {}", sentences(.0))]
    Wrong(Vec<Problem>),
    /// What only a person at the gateway changes, in the base file.
    #[error(
        "{0} can't be changed this way, because the gateway would be another one; edit the base file and restart weir"
    )]
    Fixed(&'static str),
    /// Nothing would change.
    #[error("nothing is changed by this: that is the configuration already")]
    Same,
    /// One change at a time.
    #[error("configuration {number} is on trial for another {}; wait for its end, or take it back first", spoken(*.left))]
    OnTrial {
        /// The one on trial.
        number: u64,
        /// The time it has left.
        left: Duration,
    },
    /// Too short or too long a trial.
    #[error("a change can be tried for 10 seconds to 24 hours, not for {}", spoken(*.0))]
    Limit(Duration),
    /// No such configuration.
    #[error("there is no configuration {number}; known: {known}")]
    Unknown {
        /// What was asked for.
        number: u64,
        /// What there is.
        known: String,
    },
    /// Nothing to go back to.
    #[error("there is no earlier configuration that was kept")]
    NothingBefore,
    /// Another process changes the configuration.
    #[error("another weir holds this configuration: stop it first, or give this one a store of its own")]
    Held,
    /// The disk refuses; nothing was changed.
    #[error("{what}: {source}; nothing was changed")]
    Disk {
        /// What could not be done.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// weir is ending.
    #[error("weir is ending; try again when it runs")]
    Ending,
}

impl Refusal {
    fn unknown(number: u64, book: &Book) -> Self {
        let known: Vec<_> = book.entries().iter().map(|entry| entry.number.to_string()).collect();
        Self::Unknown { number, known: known.join(", ") }
    }
}

/// All errors, one behind the other, without their places: the text is not the asker's.
fn sentences(problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    errors.map(|problem| problem.message.clone()).collect::<Vec<_>>().join("; ")
}

/// A duration as a person says it: the two largest units.
pub fn spoken(span: Duration) -> String {
    let seconds = span.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, 0) => format!("{m} min"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, 0, _) => format!("{h} h"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

/// A proposal that was found to be sound.
#[derive(Debug)]
pub struct Prepared {
    /// What it says.
    pub loaded: Loaded,
    /// Its text's hash.
    pub hash: String,
    /// The ports whose settings it changes and that have meters.
    pub ports: Vec<String>,
}

/// Sees whether `text` can follow `current`; a person who edits the base file may make another gateway of it, but
/// while it runs its store stays where it is.
///
/// # Errors
/// [`Refusal::Wrong`], [`Refusal::Fixed`], [`Refusal::Same`].
pub fn prepare(current: &str, text: &str, who: &Origin) -> Result<Prepared, Refusal> {
    if current == text {
        return Err(Refusal::Same);
    }
    let loaded = super::parse(text).map_err(Refusal::Wrong)?;
    let mut ports = Vec::new();
    if let Ok(before) = super::parse(current) {
        let (old, new) = (&before.settings, &loaded.settings);
        let fixed = difference::fixed(old, new).filter(|key| !who.is_file() || *key == "store.path");
        if let Some(key) = fixed {
            return Err(Refusal::Fixed(key));
        }
        ports = difference::ports(old, new);
    }
    Ok(Prepared { loaded, hash: history::hash(text), ports })
}

/// Sees that a trial has a sensible length.
///
/// # Errors
/// [`Refusal::Limit`].
pub fn bounded(limit: Duration) -> Result<Duration, Refusal> {
    if (SHORTEST_TRIAL..=LONGEST_TRIAL).contains(&limit) { Ok(limit) } else { Err(Refusal::Limit(limit)) }
}
