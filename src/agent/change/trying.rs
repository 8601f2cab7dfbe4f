//! How long a change has to prove itself.

use std::time::Duration;

use crate::config::Settings;
use crate::config::change::{Refusal, bounded};

/// How long a change is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trying {
    /// As long as `control.confirm` says.
    #[default]
    Usual,
    /// So long.
    For(Duration),
    /// Not at all: it is kept as soon as weir has started with it. Only for a person at the gateway.
    Not,
}

impl From<Option<Duration>> for Trying {
    fn from(limit: Option<Duration>) -> Self {
        limit.map_or(Self::Usual, Self::For)
    }
}

impl Trying {
    pub(super) fn limit(self, settings: &Settings) -> Result<Option<Duration>, Refusal> {
        match self {
            Self::Usual => Ok(Some(*settings.control.confirm)),
            Self::For(limit) => bounded(limit).map(Some),
            Self::Not => Ok(None),
        }
    }
}
