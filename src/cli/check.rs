//! `weir check`: is the configuration right?

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use crate::config;

/// Check the configuration and report every mistake at once, with its line and column.
///
/// Exits with 0 when the agent can run with it (warnings are printed), with 78 when it can't.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The file to check instead of --config.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    /// Print the effective values, defaults included; secrets are masked.
    #[arg(long)]
    print: bool,
}

impl Check {
    pub(super) fn run(self, config: PathBuf) -> Result<(), Failure> {
        let path = self.file.unwrap_or(config);
        let loaded = config::load(&path)?;
        let mut err = std::io::stderr().lock();
        for warning in &loaded.warnings {
            let _ = writeln!(err, "{}:{warning}", path.display());
        }
        let mut out = std::io::stdout().lock();
        if self.print {
            let _ = out.write_all(loaded.settings.effective().as_bytes());
            return Ok(());
        }
        let _ = writeln!(out, "{}: ok ({})", path.display(), loaded.settings.summary());
        Ok(())
    }
}
