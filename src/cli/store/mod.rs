//! `weir store`: look at the cache, prove it, carry it, mend it. One file for each command.

mod check;
mod export;
mod import;
mod key;
mod progress;
mod repair;
mod status;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::failure::Failure;
use crate::config::{self, Settings};
use crate::store::StoreError;
use crate::{agent, board};

/// Look at the durable cache, prove it complete, carry it by hand, mend it.
#[derive(Debug, Args)]
pub(super) struct StoreCommand {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Subcommand)]
enum Sub {
    Status(status::Status),
    Verify(verify::Verify),
    Key(key::Key),
    Check(check::Check),
    Export(export::Export),
    Import(import::Import),
    Repair(repair::Repair),
}

impl StoreCommand {
    pub(super) fn run(self, config: PathBuf) -> Result<(), Failure> {
        // A head-end that verifies has no gateway's configuration.
        if let Sub::Verify(command) = self.command {
            return command.run();
        }
        let settings = config::effective(&config)?.settings;
        match self.command {
            Sub::Verify(_) => Ok(()),
            Sub::Status(command) => command.run(&settings.store),
            Sub::Key(command) => command.run(&settings.store),
            Sub::Check(command) => command.run(&settings.store),
            Sub::Export(command) => command.run(&settings),
            Sub::Import(command) => command.run(&settings),
            Sub::Repair(command) => command.run(&settings.store),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::other(error.to_string())
    }
}

/// This gateway's id, as the agent finds it.
fn gateway(settings: &Settings) -> Result<String, Failure> {
    let board = board::load(&settings.gateway.board).map_err(|e| Failure::config(e.to_string()))?;
    Ok(agent::identity(settings, &board).id)
}

/// A public key as `weir store key` prints it.
fn public(text: &str) -> Result<crate::store::key::Public, String> {
    crate::store::key::public_of(text)
        .ok_or_else(|| "a key is 32 bytes in base64, as weir store key prints it".to_owned())
}
