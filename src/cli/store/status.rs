//! `weir store status`: the counters.

use std::io::Write;

use clap::Args;

use crate::cli::failure::Failure;
use crate::cli::table;
use crate::store::{self, StoreSettings};

/// Show how many frames were received, acknowledged and evicted, and how many wait.
///
/// Works while the agent runs; its figures are then up to one and a half minutes old.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(self, settings: &StoreSettings) -> Result<(), Failure> {
        let path = &settings.path;
        let status = store::inspect(path)?;
        let mut out = std::io::stdout().lock();
        if self.json {
            let object = serde_json::json!({
                "path": path, "received": status.received, "acknowledged": status.acknowledged,
                "evicted": status.evicted, "cached": status.cached, "cached_priority": status.cached_priority,
                "damaged": status.damaged, "durable": status.durable, "disk_bytes": status.disk_bytes,
                "skipped": status.skipped, "manifests": status.manifests,
                "evicted_by_meter": status.evicted_by_meter.as_ref(),
            });
            let _ = writeln!(out, "{object}");
            return Ok(());
        }
        let rows = [
            ("store", path.display().to_string()),
            ("received", status.received.to_string()),
            ("acknowledged", status.acknowledged.to_string()),
            ("evicted", format!("{} ({} unreadable)", status.evicted, status.damaged)),
            ("skipped", format!("{} numbers without a frame", status.skipped)),
            ("manifests", status.manifests.to_string()),
            ("cached", format!("{} ({} with priority)", status.cached, status.cached_priority)),
        ];
        let _ = out.write_all(table::pairs(&rows).as_bytes());
        Ok(())
    }
}
