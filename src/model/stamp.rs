//! When a frame was made, so that its time can still be set right later.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Which boot of a machine: the first 8 bytes of the kernel's boot id. All zero: unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct BootId([u8; 8]);

impl BootId {
    /// No boot that anything is known of.
    pub const UNKNOWN: Self = Self([0; 8]);

    /// Makes one of its bytes.
    pub const fn new(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Reads the first 16 hexadecimal digits of a text such as
    /// `6b2c0c9e-1f0a-4b9e-9d56-0d2a7c6f1e11`; `None` when there are not so many, or all are 0.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.trim().chars().filter(|c| *c != '-').take(16).collect();
        if digits.len() != 16 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        let number = u64::from_str_radix(&digits, 16).ok().filter(|n| *n != 0)?;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for BootId {
    /// Writes 16 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// Whether the wall clock was trusted when a stamp was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClockState {
    /// It was.
    Synced,
    /// It was not: the wall time of the stamp is reckoned, boot and uptime can mend it.
    Unsynced,
}

/// A point in time as the gateway knew it: wall clock, and what mends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The wall clock's time; reckoned while the clock was not trusted.
    pub wall: Timestamp,
    /// The boot that `uptime` counts from.
    pub boot: BootId,
    /// Milliseconds since that boot, sleep included (`CLOCK_BOOTTIME`).
    pub uptime: u64,
    /// Whether the wall clock was trusted.
    pub clock: ClockState,
}

impl Stamp {
    /// A stamp of a trusted clock in an unknown boot: frames of earlier versions, and tests.
    pub const fn synced(wall: Timestamp) -> Self {
        Self { wall, boot: BootId::UNKNOWN, uptime: 0, clock: ClockState::Synced }
    }
}

/// How good the time of a published frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeQuality {
    /// Reckoned; the clock has not been trusted since that boot.
    Unsynced,
    /// Mended: counted from the time the clock showed when it was trusted in the same boot.
    Corrected,
    /// The clock was trusted when the frame was made.
    Synced,
}

impl TimeQuality {
    /// The word used in the frames JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unsynced => "unsynced",
            Self::Corrected => "corrected",
            Self::Synced => "synced",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_the_first_half_of_the_kernels_and_reads_back() {
        let id = BootId::parse("6b2c0c9e-1f0a-4b9e-9d56-0d2a7c6f1e11\n").unwrap();
        assert_eq!(id.to_string(), "6b2c0c9e1f0a4b9e");
        assert_eq!(BootId::parse(&id.to_string()), Some(id));
        for bad in ["", "6b2c0c9e-1f0a", "6b2c0c9e-1f0a-4b9x", "+b2c0c9e1f0a4b9e", "0000000000000000"] {
            assert_eq!(BootId::parse(bad), None, "{bad}");
        }
    }
}
