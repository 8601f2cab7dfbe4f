//! What must outlive restarts and power cuts: reboots of the last day, and how far the ladder was climbed.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::model::{BootId, ClockState, Stamp};
use crate::os::file::{read_small, write_atomic};

/// The name of the file in the store's folder.
pub const BOOK: &str = "watchdog";
const LARGEST: u64 = 64 << 10;
/// A day in milliseconds.
pub(super) const DAY: u64 = 86_400_000;
/// The gateway runs at least so long between two reboots.
pub(super) const LEAST_UPTIME: u64 = 600_000;
/// No more reboots are remembered: the limit is 24.
const MOST: usize = 32;

/// The kept file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Book {
    /// Every reboot that was asked for in the last day.
    reboots: Vec<Stamp>,
    /// The file was damaged when it was read in this boot: nobody knows what it said.
    lost: Option<Stamp>,
    /// Steps tried since the last success, in this boot.
    climbed: Option<(BootId, usize)>,
    /// The day of the last daily reset, counted from 1970.
    pub(super) daily: Option<i64>,
}

impl Book {
    /// Reads the book of a store; a damaged one is taken for one that allows no reboot today.
    pub(super) fn read(store: &Path, now: &Stamp) -> Self {
        let lost = || Self { lost: Some(*now), ..Self::default() };
        match read_small(&store.join(BOOK), LARGEST) {
            Ok(content) => serde_json::from_slice(&content).unwrap_or_else(|error| {
                tracing::warn!(%error, "the watchdog's book is damaged; weir reboots nothing for a day");
                lost()
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                tracing::warn!(%error, "the watchdog's book can't be read; weir reboots nothing for a day");
                lost()
            }
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn write(&self, store: &Path) -> std::io::Result<()> {
        let text = serde_json::to_vec(self).map_err(std::io::Error::other)?;
        write_atomic(&store.join(BOOK), &text, 0o644)
    }

    /// How many steps were tried in this boot since the last success.
    pub(super) fn climbed(&self, boot: BootId) -> usize {
        self.climbed.filter(|(of, _)| *of == boot).map_or(0, |(_, steps)| steps)
    }

    pub(super) fn climb(&mut self, boot: BootId, steps: usize) {
        self.climbed = (steps > 0).then_some((boot, steps));
    }

    /// Reboots that may have been within the last day.
    pub(super) fn recent(&self, now: &Stamp) -> usize {
        self.reboots.iter().filter(|at| !is_old(at, now)).count()
    }

    /// Whether one more is allowed.
    pub(super) fn allows(&self, now: &Stamp, limit: u32) -> bool {
        let known = self.lost.is_none_or(|at| is_old(&at, now));
        known && now.uptime >= LEAST_UPTIME && (self.recent(now) as u64) < u64::from(limit)
    }

    /// Notes a reboot that is about to be asked for.
    pub(super) fn note_reboot(&mut self, now: &Stamp) {
        self.reboots.retain(|at| !is_old(at, now));
        let surplus = (self.reboots.len() + 1).saturating_sub(MOST);
        self.reboots.drain(..surplus);
        self.reboots.push(*now);
        self.lost = self.lost.filter(|at| !is_old(at, now));
    }
}

/// Whether a moment is surely more than a day ago. Only a clock that was trusted then and is now tells that across boots; else
/// it is at least as long ago as this boot runs.
fn is_old(at: &Stamp, now: &Stamp) -> bool {
    if at.boot == now.boot {
        return now.uptime.saturating_sub(at.uptime) >= DAY;
    }
    let both = at.clock == ClockState::Synced && now.clock == ClockState::Synced;
    now.uptime >= DAY || both && now.wall.as_millis().saturating_sub(at.wall.as_millis()) >= DAY.cast_signed()
}
