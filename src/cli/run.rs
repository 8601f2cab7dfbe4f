//! `weir run`: the agent.

use std::path::{Path, PathBuf};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing::{error, info, warn};

use super::failure::Failure;
use super::{log, runtime};
use crate::agent::change::Changer;
use crate::agent::{self, Agent, AgentError, End};
use crate::config::change::{effective, is_kept, store_of};
use crate::config::{self, ConfigError, Loaded, Source};
use crate::os::clock::Clock;

/// Run the agent until SIGTERM or SIGINT.
///
/// Logs to standard error; under systemd it reports readiness and feeds the watchdog.
#[derive(Debug, Args)]
pub(super) struct Run {}

impl Run {
    pub(super) fn run(self, config: PathBuf, level: Option<LevelFilter>) -> Result<(), Failure> {
        log::start(level.unwrap_or(LevelFilter::INFO));
        let source = config::own(&config)?;
        let (store, base) = base(&config, &source)?;
        let runtime = runtime()?;
        let outcome = runtime.block_on(live(&config, &source.text, &store, base));
        // A name lookup that hangs in the system must not hold up the end.
        runtime.shutdown_background();
        outcome
    }
}

/// The base file and its store. With mistakes it is no obstacle when an accepted configuration is kept.
fn base(config: &Path, source: &Source) -> Result<(PathBuf, Option<Loaded>), Failure> {
    match source.parse() {
        Ok(loaded) => {
            warn_of(config, &loaded);
            Ok((loaded.settings.store.path.clone(), Some(loaded)))
        }
        Err(problems) => match store_of(&source.text).filter(|store| is_kept(store)) {
            Some(store) => Ok((store, None)),
            None => Err(ConfigError::Wrong { path: config.to_owned(), problems }.into()),
        },
    }
}

fn warn_of(config: &Path, loaded: &Loaded) {
    for warning in &loaded.warnings {
        let (line, column, problem) = (warning.line, warning.column, &warning.message);
        warn!(file = %config.display(), line, column, problem, "the configuration can be used, but somebody should look");
    }
}

/// The signals that concern an agent; taken before anything is opened, so that a stop is never sudden.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let take = |kind| signal(kind).map_err(|e| Failure::other(e.to_string()));
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hang_up: take(SignalKind::hangup())?,
        })
    }

    /// Waits for the end, or for a change of the configuration.
    async fn end(&mut self, config: &Path, changer: Option<(&Changer, u64)>) -> End {
        loop {
            let restarted = async {
                match changer {
                    Some((changer, since)) => changer.restarted(since).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.terminate.recv() => {
                    info!("SIGTERM received");
                    return End::Stop;
                }
                _ = self.interrupt.recv() => {
                    info!("SIGINT received");
                    return End::Stop;
                }
                _ = self.hang_up.recv() => reload(config, changer.map(|(changer, _)| changer)).await,
                () = restarted => return End::Restart,
            }
        }
    }
}

/// Takes up the base file again; its mistakes cost nothing.
async fn reload(config: &Path, changer: Option<&Changer>) {
    let Some(changer) = changer else {
        warn!("SIGHUP received, but the store's directory can't be used: restart weir to take up the configuration");
        return;
    };
    let taken = match config::read(config) {
        Ok(base) => changer.reload(base).await.map_err(|refusal| refusal.to_string()),
        Err(error) => Err(error.to_string()),
    };
    // A file that is not taken up does not decide how what runs is kept.
    if taken.is_ok() {
        config::follow(config);
    }
    match taken {
        Ok(true) => info!("SIGHUP received: the base file is taken up"),
        Ok(false) => info!("SIGHUP received: the base file is as it was, nothing changes"),
        Err(problem) => error!(problem, "SIGHUP received, but the base file can't be taken up; what runs goes on"),
    }
}

/// Runs one agent after the other, each with the settings that count then.
async fn live(config: &Path, text: &str, store: &Path, base: Option<Loaded>) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let changer = match Changer::open(text, store, Clock::system()) {
        Ok(changer) => Some(changer),
        Err(problem) => {
            warn!(%problem, "the configuration can't be changed while weir runs");
            None
        }
    };
    loop {
        let (loaded, since) = match (&changer, &base) {
            (Some(changer), _) => changer.begin(text).await.map_err(|e| Failure::config(e.to_string()))?,
            (None, base) => {
                // What was accepted counts also when it can't be changed just now.
                let accepted = effective(store, text).and_then(|text| config::parse(&text).ok());
                let mistakes = "the base file has mistakes, and what was accepted can't be read";
                (accepted.or_else(|| base.clone()).ok_or_else(|| Failure::config(mistakes))?, 0)
            }
        };
        let number = changer.as_ref().map(|changer| changer.state().number);
        info!(version = env!("CARGO_PKG_VERSION"), file = %config.display(), configuration = number, work = loaded.settings.summary(), "starting");
        let agent = match start(&loaded, changer.as_ref()) {
            Ok(agent) => agent,
            Err(error) => {
                if let Some(changer) = &changer
                    && changer.go_back(&error.to_string()).await.unwrap_or(false)
                {
                    continue;
                }
                return Err(match error {
                    AgentError::Store(_) => Failure::other(error.to_string()),
                    _ => Failure::config(error.to_string()),
                });
            }
        };
        let end = agent.serve(signals.end(config, changer.as_ref().map(|changer| (changer, since)))).await;
        match end.map_err(|e| Failure::other(e.to_string()))? {
            End::Stop => return Ok(()),
            End::Restart => {}
        }
    }
}

fn start(loaded: &Loaded, changer: Option<&Changer>) -> Result<Agent, AgentError> {
    match changer {
        Some(changer) => agent::start_changeable(&loaded.settings, changer.clone()),
        None => agent::start(&loaded.settings),
    }
}
