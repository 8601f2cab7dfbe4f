//! `weir store export`: the backlog as a file.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::progress::Progress;
use crate::cli::failure::{Failure, OTHER};
use crate::cli::runtime;
use crate::config::Settings;
use crate::os::clock;
use crate::store::carry::{self, ExportRequest};
use crate::store::key;

/// Write what waits into a signed file, to be carried by hand and imported elsewhere.
///
/// Without --take the store is only read, whether the agent runs or not, and the gateway goes on
/// to deliver these frames itself. With --take the agent must be stopped, and the frames leave
/// the store when the file is safe.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// The file to write; it must not exist.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,

    /// Take the frames out of the store.
    #[arg(long)]
    take: bool,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Export {
    pub(super) fn run(self, settings: &Settings) -> Result<(), Failure> {
        let gateway = super::gateway(settings)?;
        let (store, to, take) = (&settings.store, self.to.as_path(), self.take);
        let request = ExportRequest { store, gateway: &gateway, time: clock::now(), to, take };
        let mut progress = Progress::new("exported", 0);
        let done = runtime()?.block_on(carry::export(&request, &mut |frames| progress.set(frames)));
        drop(progress);
        let done = done?;
        let mut out = std::io::stdout().lock();
        let signer = key::text(&done.signer);
        let totals = done.totals;
        if self.json {
            let object = serde_json::json!({
                "file": if totals.frames > 0 { Some(&self.to) } else { None }, "gateway": gateway, "key": signer,
                "frames": totals.frames, "priority": totals.priority, "bytes": done.bytes,
                "taken": done.taken, "damaged": done.damaged,
            });
            let _ = writeln!(out, "{object}");
        } else if totals.frames == 0 {
            let _ = writeln!(out, "nothing waits, so no file is written");
        } else {
            let file = self.to.display();
            let (frames, priority, bytes) = (totals.frames, totals.priority, done.bytes);
            let _ = writeln!(
                out,
                "{file}: {frames} frames of {gateway} ({priority} with priority), {bytes} bytes, signed by {signer}"
            );
            let _ = if self.take {
                writeln!(out, "{} frames were taken out of the store: this file is the only copy of them", done.taken)
            } else {
                writeln!(
                    out,
                    "the frames are still in the store: this gateway will deliver them, too, with the same numbers"
                )
            };
        }
        if done.damaged > 0 {
            let _ = writeln!(
                std::io::stderr(),
                "weir: {} frames can't be read and are not in the file: see weir store check",
                done.damaged
            );
            return Err(Failure::silent(OTHER));
        }
        Ok(())
    }
}
