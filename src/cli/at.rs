//! `weir at`: a command in AT style for the running agent.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value as Json, json};
use tracing::level_filters::LevelFilter;

use super::failure::{Failure, OTHER};
use super::log;
use crate::agent::local;
use crate::config;

/// Give the running agent a command, as a platform would by MQTT or an authorised phone by SMS.
///
/// AT^WEIR=HELP lists the commands. The answer is printed as it would be sent; a command that was not carried out ends
/// with exit code 1.
#[derive(Debug, Args)]
pub(super) struct At {
    /// The command, e.g. 'AT^WEIR=STATUS'.
    command: String,
}

impl At {
    pub(super) fn run(self, config: PathBuf, level: Option<LevelFilter>) -> Result<(), Failure> {
        log::start(level.unwrap_or(LevelFilter::WARN));
        let settings = config::effective(&config)?.settings;
        let failed = |error: local::ClientError| Failure::other(error.to_string());
        let mut agent = local::Client::connect(&settings.store.path).map_err(failed)?;
        let told = agent.ask(&json!({ "ask": "at", "text": self.command })).map_err(failed)?;
        let reply = told.get("reply").and_then(Json::as_str).unwrap_or_default();
        let _ = writeln!(std::io::stdout().lock(), "{reply}");
        let refused = reply.contains(" ERROR: ") || reply.contains("\"ok\":false");
        if refused { Err(Failure::silent(OTHER)) } else { Ok(()) }
    }
}
