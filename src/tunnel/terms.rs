//! On which terms a peer has the port, and how its time ends.

use std::time::Duration;

/// What holds for every peer.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) gather: Duration,
    pub(super) largest: usize,
    pub(super) max_age: Duration,
    /// `None`: nobody else wants the line, or none may have it meanwhile.
    pub(super) hold: Option<Duration>,
    /// `None`: a silent connection is not ended.
    pub(super) idle: Option<Duration>,
    pub(super) flush: bool,
    pub(super) rfc2217: bool,
    pub(super) remove_echo: bool,
    /// It calls back on an order.
    pub(super) calls: bool,
}

/// Why a peer is served no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    Left,
    Lost(String),
    Idle,
    TimeIsOver,
    TakenOver,
    /// It takes no bytes.
    Stuck,
    NoLine(String),
    /// A command wanted the line while there was no peer.
    GivenAway,
    /// Nobody has the tunnel any more.
    Closed,
}

impl Why {
    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Left => "the peer hung up".to_owned(),
            Self::Lost(error) => format!("the connection broke: {error}"),
            Self::Idle => "nothing was carried for the idle limit".to_owned(),
            Self::TimeIsOver => "its time is over".to_owned(),
            Self::TakenOver => "another client took the port over".to_owned(),
            Self::Stuck => "the peer took no bytes for a minute".to_owned(),
            Self::NoLine(reason) => format!("the port is not there: {reason}"),
            Self::GivenAway => "a command has the port".to_owned(),
            Self::Closed => "weir ends".to_owned(),
        }
    }
}

/// How the time with the line ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// Others want the line; the peer is still there.
    Yielded,
    Over(Why),
}
