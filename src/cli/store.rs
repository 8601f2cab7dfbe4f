//! `weir store`: what is in the cache.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::table;
use crate::{config, store};

/// Look at the durable cache.
#[derive(Debug, Args)]
pub(super) struct StoreCommand {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Show how many frames were received, acknowledged and evicted, and how many wait.
    ///
    /// Works while the agent runs; its figures are then up to a minute old.
    Status {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

impl StoreCommand {
    pub(super) fn run(self, config: PathBuf) -> Result<(), Failure> {
        let loaded = config::load(&config)?;
        let path = &loaded.settings.store.path;
        let Sub::Status { json } = self.command;
        let status = store::inspect(path).map_err(|e| Failure::other(e.to_string()))?;
        let mut out = std::io::stdout().lock();
        if json {
            let object = serde_json::json!({
                "path": path, "received": status.received, "acknowledged": status.acknowledged,
                "evicted": status.evicted, "cached": status.cached, "cached_priority": status.cached_priority,
                "damaged": status.damaged, "durable": status.durable, "disk_bytes": status.disk_bytes,
            });
            let _ = writeln!(out, "{object}");
            return Ok(());
        }
        let rows = [
            ("store", path.display().to_string()),
            ("received", status.received.to_string()),
            ("acknowledged", status.acknowledged.to_string()),
            ("evicted", format!("{} ({} unreadable)", status.evicted, status.damaged)),
            ("cached", format!("{} ({} with priority)", status.cached, status.cached_priority)),
        ];
        let _ = out.write_all(table::pairs(&rows).as_bytes());
        Ok(())
    }
}
