//! `weir report`: the acceptance report of a gateway, for the installer to hand over.

mod beside;
mod meters;
mod radio;
mod sheet;
mod site;
mod who;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tracing::level_filters::LevelFilter;

use self::sheet::{Check, Sheet, Verdict};
use super::failure::{Failure, OTHER};
use super::{log, runtime, table};
use crate::config::{self, Settings};
use crate::os::clock::Clock;
use crate::os::file::write_atomic;
use crate::{agent, board, store};

/// Try everything once and write the acceptance report: clock, ports, meters, receivers, store,
/// brokers, each with PASS or FAIL and what to do.
///
/// Reads each configured meter several times and only reads. While the agent runs it is asked to read its meters
/// and what its receivers heard; else the ports and receivers are opened. Exits with 1 when something failed.
#[derive(Debug, Args)]
pub(super) struct Report {
    /// How often each meter is read.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// How long each receiver is listened to when no agent runs.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    listen: u64,

    /// Write to this file instead of standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Write one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

impl Report {
    pub(super) fn run(self, config: PathBuf, level: Option<LevelFilter>) -> Result<(), Failure> {
        log::start(level.unwrap_or(LevelFilter::ERROR));
        let loaded = config::effective(&config)?;
        let sheet = runtime()?.block_on(self.fill(&loaded.settings, loaded.warnings.len()))?;
        let text = if self.json { format!("{:#}\n", sheet.object()) } else { sheet.text() };
        match &self.output {
            Some(path) => {
                write_atomic(path, text.as_bytes(), 0o644)
                    .map_err(|e| Failure::other(format!("cannot write {}: {e}", path.display())))?;
                say(&format!("{}; written to {}", sheet.summary(), path.display()));
            }
            None => {
                let _ = std::io::stdout().lock().write_all(text.as_bytes());
            }
        }
        if sheet.failed() == 0 { Ok(()) } else { Err(Failure::silent(OTHER)) }
    }

    async fn fill(&self, settings: &Settings, warnings: usize) -> Result<Sheet, Failure> {
        let board = board::load(&settings.gateway.board).map_err(|e| Failure::config(e.to_string()))?;
        let identity = agent::identity(settings, &board);
        let clock = Clock::open(&settings.clock, &settings.store.path);
        let running = store::is_in_use(&settings.store.path);
        let mut sheet = Sheet::new(
            vec![
                ("gateway", identity.id.clone()),
                ("weir", env!("CARGO_PKG_VERSION").to_owned()),
                ("board", format!("{} ({})", board.name, board.description.title)),
                ("time", clock.now().to_string()),
                ("agent", if running { "running" } else { "not running" }.to_owned()),
                ("readings of each meter", self.rounds.to_string()),
            ],
            warnings,
        );
        sheet.add(site::clock(&clock));
        // Only a running agent keeps its door open; who may not ask it is told so.
        let mut beside = if running { beside::Agent::of(&settings.store.path).map_err(Failure::other)? } else { None };
        let mut opened = Vec::new();
        for port in &settings.port {
            say(&format!("port {}", *port.name));
            opened.push((port.name.to_string(), site::port(port, &board, running, beside.is_some(), &mut sheet).await));
        }
        let kept = settings.store.path.join(agent::SESSIONS);
        for meter in &settings.meter {
            say(&format!(
                "meter {} ({})",
                *meter.name,
                table::count(usize::try_from(self.rounds).unwrap_or(0), "reading")
            ));
            if let Some(agent) = &mut beside {
                sheet.add(agent.meter(meter, self.rounds));
                continue;
            }
            let port = opened.iter().find(|(name, _)| *name == **meter.port).and_then(|(_, port)| port.as_ref());
            sheet.add(meters::check(meter, port, self.rounds, &kept, &clock).await);
        }
        for radio in &settings.radio {
            sheet.add(match &mut beside {
                Some(agent) => agent.receiver(radio),
                None => {
                    say(&format!("receiver {} ({} s)", *radio.name, self.listen));
                    radio::check(radio, &clock, Duration::from_secs(self.listen)).await
                }
            });
        }
        sheet.add(site::store(&settings.store, running));
        for broker in settings.broker.iter() {
            say(&format!("broker {}", *broker.url));
            sheet.add(site::broker(broker, &settings.uplink, &identity, &clock, running).await);
        }
        if settings.meter.is_empty() && settings.radio.is_empty() {
            sheet.add(Check {
                subject: "meters".to_owned(),
                verdict: Verdict::Fail,
                told: "the configuration has no meter and no receiver".to_owned(),
                todo: "find the meters with weir scan PORT and paste what it proposes".to_owned(),
                detail: json!({}),
                values: Vec::new(),
            });
        }
        Ok(sheet)
    }
}

/// Tells the person who waits what is tried now.
fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what} ...");
}
