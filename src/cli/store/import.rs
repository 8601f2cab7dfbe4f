//! `weir store import`: a file of another gateway's backlog, to be delivered from here.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::progress::Progress;
use crate::cli::failure::{Failure, OTHER};
use crate::cli::{runtime, table};
use crate::config::Settings;
use crate::store::carry::{self, ImportRequest};
use crate::store::key::{self, Public};

/// Take the frames of an export into this store, each once, to be delivered from here.
///
/// The whole file is verified before anything is taken. A frame keeps its time, its lane and where
/// it comes from (meta.origin); taking the same file again takes only what is new. The agent must
/// be stopped.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The export.
    file: PathBuf,

    /// The key that must have signed it: what weir store key prints on the other gateway.
    #[arg(long, value_name = "BASE64", value_parser = super::public)]
    key: Option<Public>,

    /// Verify the file and say what would be taken; take nothing. The agent may run.
    #[arg(long)]
    dry_run: bool,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Import {
    pub(super) fn run(self, settings: &Settings) -> Result<(), Failure> {
        let gateway = super::gateway(settings)?;
        let (store, file) = (&settings.store, self.file.as_path());
        let request = ImportRequest { store, gateway: &gateway, file, key: self.key, dry_run: self.dry_run };
        let mut progress = Progress::new("imported", 0);
        let done = runtime()?.block_on(carry::import(&request, &mut |frames| progress.set(frames)));
        drop(progress);
        let done = done?;
        let mut out = std::io::stdout().lock();
        let (signer, pinned) = (key::text(&done.signer), self.key.is_some());
        let origin = table::printable(&done.header.gateway);
        if self.json {
            let object = serde_json::json!({
                "file": self.file, "gateway": done.header.gateway, "time": done.header.time, "key": signer,
                "pinned": pinned, "frames": done.totals.frames, "priority": done.totals.priority,
                "taken": if self.dry_run { 0 } else { done.taken }, "new": done.taken, "known": done.known,
                "refused": done.refused, "dry_run": self.dry_run,
            });
            let _ = writeln!(out, "{object}");
        } else {
            let (frames, time) = (done.totals.frames, table::printable(&done.header.time));
            let trust = if pinned { "the key you gave" } else { "not pinned: compare it, or give --key" };
            let _ = writeln!(out, "{}: {frames} frames of {origin}, written {time}", self.file.display());
            let _ = writeln!(out, "signed by {signer} ({trust})");
            let verb = if self.dry_run { "would be taken" } else { "were taken" };
            let _ = writeln!(out, "{} {verb}, {} were known already", done.taken, done.known);
            if done.header.gateway == gateway {
                let _ = writeln!(
                    out,
                    "they are this gateway's own: each gets a new number here and carries its old one as its origin"
                );
            }
        }
        if done.refused.is_empty() {
            return Ok(());
        }
        let list: Vec<_> = done.refused.iter().take(10).map(u64::to_string).collect();
        let (count, list) = (done.refused.len(), list.join(", "));
        let _ = writeln!(
            std::io::stderr(),
            "weir: {count} frames are too large to carry their origin and were not taken: {list}"
        );
        Err(Failure::silent(OTHER))
    }
}
