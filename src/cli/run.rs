//! `weir run`: the agent.

use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing::{info, warn};

use super::failure::Failure;
use super::{log, runtime};
use crate::agent::{self, AgentError};
use crate::config;

/// Run the agent until SIGTERM or SIGINT.
///
/// Logs to standard error; under systemd it reports readiness and feeds the watchdog.
#[derive(Debug, Args)]
pub(super) struct Run {}

impl Run {
    pub(super) fn run(self, config: PathBuf, level: Option<LevelFilter>) -> Result<(), Failure> {
        log::start(level.unwrap_or(LevelFilter::INFO));
        let loaded = config::load(&config)?;
        for warning in &loaded.warnings {
            let (line, column, problem) = (warning.line, warning.column, &warning.message);
            warn!(file = %config.display(), line, column, problem, "the configuration can be used, but somebody should look");
        }
        info!(version = env!("CARGO_PKG_VERSION"), file = %config.display(), work = loaded.settings.summary(), "starting");
        let runtime = runtime()?;
        let outcome = runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).map_err(|e| Failure::other(e.to_string()))?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| Failure::other(e.to_string()))?;
            // Signals are taken before anything is opened, so that a stop is never sudden.
            let agent = agent::start(&loaded.settings).map_err(|e| match e {
                AgentError::Store(_) => Failure::other(e.to_string()),
                _ => Failure::config(e.to_string()),
            })?;
            let stop = async {
                tokio::select! {
                    _ = terminate.recv() => info!("SIGTERM received"),
                    _ = interrupt.recv() => info!("SIGINT received"),
                }
            };
            agent.serve(stop).await.map_err(|e| Failure::other(e.to_string()))
        });
        // A name lookup that hangs in the system must not hold up the end.
        runtime.shutdown_background();
        outcome
    }
}
