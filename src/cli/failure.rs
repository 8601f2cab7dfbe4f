//! How a command fails: one sentence on standard error and an exit code as in sysexits.h.

use std::io::Write;
use std::process::ExitCode;

use crate::config::ConfigError;

/// EX_USAGE: the arguments are wrong.
pub(super) const USAGE: u8 = 64;
/// EX_CONFIG: the configuration is wrong.
pub(super) const CONFIG: u8 = 78;
/// Anything else.
pub(super) const OTHER: u8 = 1;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    sentence: String,
}

impl Failure {
    /// The arguments make no sense together.
    pub(super) fn usage(sentence: impl Into<String>) -> Self {
        Self { code: USAGE, sentence: sentence.into() }
    }

    /// The configuration is wrong.
    pub(super) fn config(sentence: impl Into<String>) -> Self {
        Self { code: CONFIG, sentence: sentence.into() }
    }

    /// Anything else went wrong.
    pub(super) fn other(sentence: impl Into<String>) -> Self {
        Self { code: OTHER, sentence: sentence.into() }
    }

    /// The command has said everything itself.
    pub(super) fn silent(code: u8) -> Self {
        Self { code, sentence: String::new() }
    }

    /// Tells the person and gives the exit code.
    pub(super) fn report(self) -> ExitCode {
        if !self.sentence.is_empty() {
            let _ = writeln!(std::io::stderr(), "weir: {}", self.sentence);
        }
        ExitCode::from(self.code)
    }
}

impl From<ConfigError> for Failure {
    /// Every problem of the file on a line of its own: `file:line:column: error: ...`.
    fn from(error: ConfigError) -> Self {
        let sentence = error.to_string();
        if let ConfigError::Wrong { path, problems } = &error {
            let mut out = std::io::stderr().lock();
            for problem in problems {
                let _ = writeln!(out, "{}:{problem}", path.display());
            }
        }
        Self::config(sentence)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::other(format!("{error:#}"))
    }
}
