//! `weir store repair`: what the agent's start does, at once and for the whole store.

use std::io::Write;

use clap::Args;
use tracing::level_filters::LevelFilter;

use super::check::{advice, look, object};
use super::progress::Progress;
use crate::cli::failure::Failure;
use crate::cli::{log, runtime};
use crate::store::repair::repair;
use crate::store::{StoreSettings, check};

/// Recover what can be read, give up and count what can't, rebuild lost counters, tidy up.
///
/// The agent does the same when it starts and when it gets to the damage; this does all of it
/// now. The agent must be stopped, but not for --dry-run.
#[derive(Debug, Args)]
pub(super) struct Repair {
    /// Remove what was put aside because of damage, too.
    #[arg(long)]
    purge: bool,

    /// Only say what is wrong; change nothing.
    #[arg(long)]
    dry_run: bool,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Repair {
    pub(super) fn run(self, settings: &StoreSettings) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        if self.dry_run {
            let report = look(settings)?;
            if self.json {
                let _ = writeln!(out, "{}", object(&settings.path, &report));
                return Ok(());
            }
            for line in advice(&report) {
                let _ = writeln!(out, "{line}");
            }
            let _ = if report.is_sound() {
                writeln!(out, "nothing is damaged; nothing was changed")
            } else {
                writeln!(out, "{} frames would be given up; nothing was changed", report.damaged())
            };
            return Ok(());
        }
        log::start(LevelFilter::OFF);
        let mut progress = Progress::new("checked", check::size(&settings.path)?);
        let done = runtime()?.block_on(repair(settings, self.purge, &mut |bytes| progress.set(bytes)));
        drop(progress);
        let done = done?;
        if self.json {
            let report = serde_json::json!({
                "done": done.done, "given_up": done.given_up, "cached": done.status.cached,
                "before": object(&settings.path, &done.before), "after": object(&settings.path, &done.after),
            });
            let _ = writeln!(out, "{report}");
        } else {
            for line in &done.done {
                let _ = writeln!(out, "{line}");
            }
            if done.done.is_empty() {
                let _ = writeln!(out, "nothing had to be done");
            }
            let _ = writeln!(out, "{} frames wait", done.status.cached);
        }
        if done.after.is_sound() {
            return Ok(());
        }
        Err(Failure::other("the store is still damaged: see weir store check"))
    }
}
