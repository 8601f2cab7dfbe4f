//! `weir store key`: what the head-end pins.

use std::io::{ErrorKind, Write};

use clap::Args;

use crate::cli::failure::Failure;
use crate::store::key::{self, Key as SigningKey};
use crate::store::{StoreError, StoreSettings};

/// Print the public key that signs this gateway's manifests and exports, to be pinned.
///
/// The agent makes the key at its first start. Needs the right to read it: run as weir or root.
#[derive(Debug, Args)]
pub(super) struct Key {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Key {
    pub(super) fn run(self, settings: &StoreSettings) -> Result<(), Failure> {
        let path = key::path_in(&settings.path);
        let key = SigningKey::open(&path).map_err(|source| match source.kind() {
            ErrorKind::NotFound if !settings.path.exists() => StoreError::Missing { path: settings.path.clone() },
            ErrorKind::NotFound => StoreError::NoKey { path },
            _ => StoreError::Key { path, source },
        })?;
        let mut out = std::io::stdout().lock();
        let _ = if self.json {
            writeln!(out, "{}", serde_json::json!({ "key": key.text(), "algorithm": "Ed25519" }))
        } else {
            writeln!(out, "{}", key.text())
        };
        Ok(())
    }
}
