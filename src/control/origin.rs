//! Who asks, and what one may be allowed to do.

use std::fmt;

use crate::choices;

choices! {
    /// What one may be allowed to do; each right is granted by itself.
    pub enum Right {
        /// To see how the gateway does: versions, status, parameters without secrets, logs.
        Observe = "observe",
        /// To have meters read.
        Read = "read",
        /// To write to ports, meters and outputs, to send SMS, to restart.
        Write = "write",
        /// To change the configuration, to lock and unlock.
        Configure = "configure",
        /// To replace the firmware.
        Firmware = "firmware",
    }
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Observe, Self::Read, Self::Write, Self::Configure, Self::Firmware];

    /// Whether what needs it changes something.
    pub const fn changes(self) -> bool {
        matches!(self, Self::Write | Self::Configure | Self::Firmware)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights(u8);

impl Rights {
    /// Those of a list.
    pub fn of(rights: &[Right]) -> Self {
        Self(rights.iter().fold(0, |bits, right| bits | right.bit()))
    }

    /// Those of either.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether a right is among them.
    pub const fn has(self, right: Right) -> bool {
        self.0 & right.bit() != 0
    }
}

/// Where a command came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// A topic, placeholders filled in.
    Topic(String),
    /// A phone number, in international form where the network gives it.
    Phone(String),
    /// Somebody on this machine, by the name of the user.
    Local(String),
    /// What hangs on a port, by the port's name.
    Line(String),
}

/// A phone number of which only the first three and the last two characters are shown.
pub fn masked_number(number: &str) -> String {
    let all: Vec<char> = number.trim().chars().collect();
    let hidden = all.len().saturating_sub(5);
    let shown = |(at, c): (usize, &char)| if at >= 3 && at < 3 + hidden || all.len() <= 5 { '*' } else { *c };
    all.iter().enumerate().map(shown).collect()
}

impl Origin {
    /// As the audit on the disk names it: a phone number is whole.
    pub fn whole(&self) -> String {
        match self {
            Self::Phone(number) => format!("sms:{number}"),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Origin {
    /// As everybody may see it: `topic:gw1/AT`, `sms:+34*******56`, `local:root`, `line:rs232-1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => write!(f, "topic:{topic}"),
            Self::Phone(number) => write!(f, "sms:{}", masked_number(number)),
            Self::Local(user) => write!(f, "local:{user}"),
            Self::Line(port) => write!(f, "line:{port}"),
        }
    }
}
