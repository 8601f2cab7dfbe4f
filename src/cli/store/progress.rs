//! How far a long command is, on a terminal only.

use std::io::{IsTerminal, Write};

/// A line on standard error that is written again when it has changed by a percent.
pub(super) struct Progress {
    what: &'static str,
    total: u64,
    shown: Option<u64>,
    terminal: bool,
}

impl Progress {
    /// Begins; a `total` of 0 is one that nobody knows.
    pub(super) fn new(what: &'static str, total: u64) -> Self {
        Self { what, total, shown: None, terminal: std::io::stderr().is_terminal() }
    }

    /// Shows that `done` of the total is done.
    pub(super) fn set(&mut self, done: u64) {
        let figure = match self.total {
            0 => done - done % 1000,
            total => done.min(total).saturating_mul(100) / total,
        };
        if !self.terminal || self.shown == Some(figure) {
            return;
        }
        self.shown = Some(figure);
        let figure = if self.total == 0 { format!("{figure}") } else { format!("{figure} %") };
        let _ = write!(std::io::stderr(), "\r{} {figure}", self.what);
    }
}

impl Drop for Progress {
    /// Leaves the terminal's line as it was.
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
