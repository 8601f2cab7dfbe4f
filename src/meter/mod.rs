//! Asks wired meters: one owner task per port, one session per meter, one file per protocol.
//!
//! Invariants: nobody but [`bus`] touches a port; a silent meter holds the bus no longer than its
//! own time limit; a value is never taken from an answer that was not checked against its
//! request. A refusal by the meter is a value ([`Quality::Refused`]), not an error. To add a
//! protocol: write its session in a file of its own and add one row to [`PROTOCOLS`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::{Interval, Quality, Timestamp, Value};
use crate::os::clock::Clock;
use crate::os::line::{Line, LineError};
use crate::setting::Problems;

pub mod bus;
mod d0;
pub mod dlms;
pub mod gaps;
mod health;
mod heard;
#[cfg(test)]
mod hello;
pub mod iec62056;
mod kept;
pub mod listen;
pub mod mbus;
pub mod modbus;
mod owner;
mod p1;
pub mod scan;
mod settings;
mod sml;

pub use gaps::ProfileHealth;
pub use health::{Delays, Health, MeterHealth};
pub use kept::Kept;
pub use owner::printed;
pub use settings::{
    Address, EchoSetting, Level, LoadProfileSettings, MeterSettings, Names, PortSettings, RegisterSettings,
    Rs485Direction, Rs485Settings, UtcOffset,
};

/// What a read gives: the values, also those that were refused.
pub type Reply<'a> = Pin<Box<dyn Future<Output = Result<Vec<Value>, MeterError>> + Send + 'a>>;

/// A dialogue with one meter; owns what must be remembered between reads.
pub trait Session: Send {
    /// Reads the meter once over `line`, which is open and belongs to the caller. Reads away what
    /// is left on it before asking; leaves the line's speed as it likes (the bus restores it).
    fn read<'a>(&'a mut self, line: &'a mut Line) -> Reply<'a>;

    /// The values a reading has when the meter gave none, each null with `quality`.
    fn absent(&self, quality: Quality) -> Vec<Value>;

    /// Until when an answer to an abandoned request may still come that could be taken for the
    /// answer of another session with the same address; `None` when there is no such danger.
    fn late_until(&self) -> Option<Instant> {
        None
    }

    /// The silence that the line needs between this meter and any other, before and after.
    fn guard(&self) -> Duration {
        Duration::ZERO
    }

    /// Tells where to keep what must outlive a restart; called before the first read, when there is such a place.
    fn keep_in(&mut self, _kept: Kept) {}

    /// Tells the gateway's clock, for a protocol that looks after the meter's; called before the first read.
    fn tell_time(&mut self, _clock: &Clock) {}

    /// The way to change something in the meter, when the protocol has one.
    fn writer(&mut self) -> Option<&mut dyn Writer> {
        None
    }

    /// The way to look at single things in the meter, when the protocol has one.
    fn inspector(&mut self) -> Option<&mut dyn Inspector> {
        None
    }

    /// The meter's load profile, when it keeps one and the settings want it.
    fn profile(&mut self) -> Option<&mut dyn Profile> {
        None
    }
}

/// What a piece of a load profile gives: its intervals, oldest first.
pub type ProfileReply<'a> = Pin<Box<dyn Future<Output = Result<Vec<Interval>, MeterError>> + Send + 'a>>;

/// A load profile or event log that a meter keeps by itself, read piece by piece.
pub trait Profile: Send {
    /// Reads the intervals that ended after `after` and not later than `until`, by the meter's
    /// clock, in UTC. An interval that the meter does not have is left out.
    fn read<'a>(&'a mut self, line: &'a mut Line, after: Timestamp, until: Timestamp) -> ProfileReply<'a>;
}

/// What an order gives, as the protocol's own command shows it.
pub type InspectReply<'a> = Pin<Box<dyn Future<Output = Result<serde_json::Value, MeterError>> + Send + 'a>>;

/// Carries out the orders of a protocol's own command, such as `weir dlms`.
pub trait Inspector: Send {
    /// Carries out one order, once; what the meter refuses is in the answer where the order says what was asked for.
    fn inspect<'a>(&'a mut self, line: &'a mut Line, order: &'a serde_json::Value) -> InspectReply<'a>;

    /// How far a long order has come: parts done, and all of them.
    fn progress(&self) -> Option<watch::Receiver<(u32, u32)>> {
        None
    }
}

/// What a write gives.
pub type WriteReply<'a> = Pin<Box<dyn Future<Output = Result<Written, MeterError>> + Send + 'a>>;

/// Changes something in a meter, and looks whether it is changed.
pub trait Writer: Send {
    /// Writes `text` as the value called `name` (its name in the map, or what the protocol calls it), once, and
    /// reads it back. A refusal by the meter is in the result.
    fn write<'a>(&'a mut self, line: &'a mut Line, name: &'a str, text: &'a str) -> WriteReply<'a>;
}

/// What came of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Whether it was taken.
    pub outcome: WriteOutcome,
    /// What was there before; null when it could not be read.
    pub before: Value,
    /// What is there now; null when it could not be read.
    pub now: Value,
}

/// Whether a write was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    /// What was written is there now.
    Done,
    /// The meter refused, in its own words.
    Refused(String),
    /// The meter did not refuse, but something else is there now.
    Different,
    /// The meter did not refuse, but does not let it be read.
    Unverified,
}

/// Understands a meter that sends by itself; does not wait and does not send.
pub trait Listener: Send {
    /// Takes the bytes of one read and gives the values of every message they complete.
    fn push(&mut self, bytes: &[u8]) -> Vec<Result<Vec<Value>, MeterError>>;

    /// Tells that nothing came for longer than a pause inside a message lasts.
    fn silence(&mut self) -> Vec<Result<Vec<Value>, MeterError>>;

    /// The values a reading has when nothing was heard, each null with `quality`.
    fn absent(&self, quality: Quality) -> Vec<Value>;

    /// The longest pause inside one message; at first the longest gap between two characters of one (IEC 62056-21,
    /// clause 6.4.3).
    fn pause(&self) -> Duration {
        Duration::from_millis(1500)
    }

    /// What must outlive a restart, when it has changed since it was asked for last.
    fn to_keep(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// Takes over what outlived a restart.
    fn take_over(&mut self, _kept: &[u8]) {}
}

/// How a protocol's meters are read.
pub enum Driver {
    /// They answer requests: makes a session, or says in one sentence what is wrong.
    Asks(fn(&MeterSettings) -> Result<Box<dyn Session>, String>),
    /// They send by themselves: makes a listener, or says in one sentence what is wrong.
    Listens(fn(&MeterSettings) -> Result<Box<dyn Listener>, String>),
}

/// One row of the table of protocols.
pub struct Protocol {
    /// The word in `protocol = "..."`.
    pub name: &'static str,
    /// How its meters are read.
    pub driver: Driver,
    /// Tells every mistake in the settings of one meter, for `weir check`.
    pub check: fn(&MeterSettings, &mut Problems),
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Every protocol this build can speak.
pub const PROTOCOLS: &[Protocol] = &[
    modbus::RTU,
    modbus::ASCII,
    modbus::TCP,
    iec62056::ROW,
    dlms::ROW,
    dlms::push::ROW,
    mbus::ROW,
    p1::ROW,
    d0::ROW,
    sml::ROW,
];

impl Protocol {
    /// Makes a session with one meter.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the settings, or that its meters send by themselves.
    pub fn session(&self, settings: &MeterSettings) -> Result<Box<dyn Session>, String> {
        match self.driver {
            Driver::Asks(make) => make(settings),
            Driver::Listens(_) => Err(format!("a {} meter can't be asked; it sends by itself", self.name)),
        }
    }

    /// Makes what understands one meter.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the settings, or that its meters must be asked.
    pub fn listener(&self, settings: &MeterSettings) -> Result<Box<dyn Listener>, String> {
        match self.driver {
            Driver::Listens(make) => make(settings),
            Driver::Asks(_) => Err(format!("a {} meter does not send by itself; it must be asked", self.name)),
        }
    }

    /// Whether its meters send by themselves.
    pub const fn listens(&self) -> bool {
        matches!(self.driver, Driver::Listens(_))
    }
}

/// Finds a protocol by its name.
pub fn protocol(name: &str) -> Option<&'static Protocol> {
    PROTOCOLS.iter().find(|p| p.name == name)
}

/// Tells every mistake in one `[[meter]]` that its own table shows.
pub fn check(settings: &MeterSettings, problems: &mut Problems) {
    if let Some(protocol) = protocol(&settings.protocol) {
        owner::check(settings, protocol, problems);
        (protocol.check)(settings, problems);
    } else {
        let known = PROTOCOLS.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
        let message = format!("protocol is \"{}\", but this build speaks {known}", *settings.protocol);
        problems.error(settings.protocol.span(), message);
    }
    if settings.every.is_zero() {
        problems.error(settings.every.span(), "every is zero; write how often to read, such as \"15m\"");
    }
    if settings.timeout.is_zero() {
        let message =
            format!("timeout of meter \"{}\" is zero; write how long to wait, such as \"1s\"", *settings.name);
        problems.error(settings.name.span(), message);
    }
}

/// Why a meter could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MeterError {
    /// The line failed or stayed silent.
    #[error(transparent)]
    Line(#[from] LineError),
    /// What came was damaged: wrong checksum, wrong length, wrong meter.
    #[error("damaged answer: {0}")]
    Damaged(String),
    /// What came can't be cut into answers any more; the connection must be opened again.
    #[error("damaged answer: {0}; the connection is closed and opened again")]
    OutOfStep(String),
    /// Nothing came in time, and what comes later could be taken for another answer: the connection must be opened again.
    #[error("no answer within {} ms; the connection is closed and opened again", .0.as_millis())]
    Unanswered(Duration),
    /// The meter gave the connection up when it was shown a password or key: whoever asks again at once shows it once more.
    #[error("{0}")]
    HungUp(String),
    /// The meter refused.
    #[error("the meter refused: {0}")]
    Refused(String),
    /// It could not be asked: something is missing on our side, such as a key's file; nothing was sent.
    #[error("the meter was not asked: {0}")]
    Unasked(String),
    /// The time for it was over; one sentence that says what to do.
    #[error("{0}")]
    Unfinished(String),
    /// What was ordered can't be carried out with this meter; nothing was sent.
    #[error("that can't be done: {0}")]
    Order(String),
}

impl MeterError {
    /// The quality of the values that this error left unread.
    pub const fn quality(&self) -> Quality {
        match self {
            Self::Line(LineError::Collision) => Quality::Invalid,
            Self::Line(_) | Self::Unanswered(_) | Self::Unfinished(_) => Quality::NoAnswer,
            Self::Damaged(_) | Self::OutOfStep(_) => Quality::Invalid,
            Self::HungUp(_) | Self::Refused(_) | Self::Unasked(_) | Self::Order(_) => Quality::Refused,
        }
    }

    /// Whether the meter stayed silent.
    pub const fn is_silence(&self) -> bool {
        matches!(self, Self::Line(LineError::Silent(_)) | Self::Unanswered(_))
    }

    /// Whether the meter may be asked once more when the line was opened again.
    pub const fn may_repeat(&self) -> bool {
        !self.is_silence() && !matches!(self, Self::HungUp(_))
    }

    /// Whether the line must be closed and opened again.
    pub const fn must_reopen(&self) -> bool {
        match self {
            Self::Line(error) => error.must_reopen(),
            Self::OutOfStep(_) | Self::Unanswered(_) | Self::HungUp(_) => true,
            Self::Damaged(_) | Self::Refused(_) | Self::Unasked(_) | Self::Unfinished(_) | Self::Order(_) => false,
        }
    }
}
