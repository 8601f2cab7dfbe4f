//! Why weir started: a small file in the store says how the run before ended.
//!
//! It is written twice a run: at the start, and when weir ends in order. A run that left no word of its end was cut off.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::model::BootId;
use crate::os::file::{read_small, write_atomic};

/// Why weir, or its configuration, started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It never ran here before, or nobody knows.
    First,
    /// It was stopped in order, and started again in the same boot.
    Stop,
    /// The system was rebooted in order.
    Reboot,
    /// It was killed or crashed.
    Crash,
    /// The power failed, or the machine was reset, while it ran.
    PowerLoss,
    /// A watchdog, of weir or of the hardware, did it.
    Watchdog,
    /// By command.
    Command,
    /// The configuration was changed, or a change was taken back.
    Configuration,
    /// The modem's IMEI became known, or another one.
    Imei,
    /// The store or the radio desk ended by itself.
    Failure,
}

impl Reason {
    /// The word of status messages.
    pub const fn word(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Stop => "stop",
            Self::Reboot => "reboot",
            Self::Crash => "crash",
            Self::PowerLoss => "power-loss",
            Self::Watchdog => "watchdog",
            Self::Command => "command",
            Self::Configuration => "configuration",
            Self::Imei => "imei",
            Self::Failure => "failure",
        }
    }
}

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Word {
    boot: String,
    /// How it ended; `None`: it has not, or left no word.
    ended: Option<Reason>,
}

/// This run; clones are the same.
#[derive(Debug, Clone)]
pub struct Runs {
    file: PathBuf,
    boot: String,
    reason: Reason,
    started: Instant,
    intended: Arc<Mutex<Option<Reason>>>,
    again: Arc<Notify>,
}

impl Runs {
    /// Begins a run: finds out why, and writes down that it runs. A file that can't be written is told and costs the
    /// reason of the next start.
    pub(in crate::agent) fn begin(folder: &Path, boot: BootId, by_watchdog: impl FnOnce() -> bool) -> Self {
        let (file, boot) = (folder.join("run"), boot.to_string());
        let before = read_small(&file, 4096).ok().and_then(|text| serde_json::from_slice::<Word>(&text).ok());
        let reason = reason(before.as_ref(), &boot, by_watchdog);
        info!(reason = reason.word(), "why weir started");
        let runs =
            Self { file, boot, reason, started: Instant::now(), intended: Arc::default(), again: Arc::default() };
        if let Err(error) = runs.write(None) {
            warn!(%error, "that weir runs can't be written down; the reason of its next start will not be known");
        }
        runs
    }

    /// Why it started.
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// When it started.
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// Says why it is about to end; who says so first is believed.
    pub fn because(&self, reason: Reason) {
        self.intended.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }

    /// It does not end for this reason after all.
    pub fn not_because(&self, reason: Reason) {
        self.intended.lock().unwrap_or_else(PoisonError::into_inner).take_if(|intended| *intended == reason);
    }

    /// Has the agent started anew in this process.
    pub fn again(&self, reason: Reason) {
        self.because(reason);
        self.again.notify_one();
    }

    /// Waits until somebody wants the agent started anew.
    pub(in crate::agent) async fn wanted_again(&self) {
        self.again.notified().await;
    }

    /// Writes down that it ended in order, `otherwise` when nobody said why.
    pub(in crate::agent) fn end(&self, otherwise: Reason) {
        let reason = self.intended.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(otherwise);
        if let Err(error) = self.write(Some(reason)) {
            warn!(%error, "that weir ended in order can't be written down");
        }
    }

    fn write(&self, ended: Option<Reason>) -> io::Result<()> {
        if let Some(folder) = self.file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        write_atomic(&self.file, &serde_json::to_vec(&Word { boot: self.boot.clone(), ended })?, 0o644)
    }
}

fn reason(before: Option<&Word>, boot: &str, by_watchdog: impl FnOnce() -> bool) -> Reason {
    let Some(before) = before else { return Reason::First };
    match (before.ended, before.boot == boot) {
        (Some(Reason::Stop), false) => Reason::Reboot,
        (Some(reason), _) => reason,
        (None, true) => Reason::Crash,
        (None, false) if by_watchdog() => Reason::Watchdog,
        (None, false) => Reason::PowerLoss,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_run_ended_is_why_the_next_one_starts() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (BootId::new([1; 8]), BootId::new([2; 8]));
        let begin = |boot, dog: bool| Runs::begin(folder.path(), boot, || dog);
        let run = begin(one, false);
        assert_eq!(run.reason(), Reason::First);
        run.end(Reason::Stop);
        let run = begin(one, false);
        assert_eq!(run.reason(), Reason::Stop);
        run.end(Reason::Stop);
        assert_eq!(begin(two, false).reason(), Reason::Reboot);
        // It left no word.
        assert_eq!(begin(two, true).reason(), Reason::Crash);
        assert_eq!(begin(one, false).reason(), Reason::PowerLoss);
        let run = begin(two, true);
        assert_eq!(run.reason(), Reason::Watchdog);
        run.because(Reason::Imei);
        run.not_because(Reason::Watchdog);
        run.not_because(Reason::Imei);
        run.because(Reason::Command);
        run.because(Reason::Configuration);
        run.end(Reason::Stop);
        assert_eq!(begin(one, false).reason(), Reason::Command);
        std::fs::write(folder.path().join("run"), "garbage").unwrap();
        assert_eq!(begin(one, false).reason(), Reason::First);
    }
}
