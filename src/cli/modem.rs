//! `weir modem`: the cellular modem's state, a message, an AT command.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::level_filters::LevelFilter;

use super::failure::Failure;
use super::{log, patience, runtime, table};
use crate::agent::{self, local};
use crate::board;
use crate::config::{self, Settings};
use crate::modem::{Handle, Modem, ModemSettings, Sent, State, Status};
use crate::os::clock::Clock;
use crate::setting::Setting;

/// Show the state of the cellular modem, send a message, or pass an AT command on.
///
/// While the agent runs it is asked; else the modem's port is opened (or ModemManager is asked, when it has the port).
/// Messages in the modem's storage are left there.
#[derive(Debug, Args)]
pub(super) struct ModemCommand {
    #[command(subcommand)]
    order: Order,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Show model, IMEI, SIM, signal, registration, operator and cell.
    Status {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Send a short message.
    Send {
        /// The number, e.g. +34666123456.
        number: String,
        /// What it says; a long text goes in parts.
        text: String,
    },
    /// Pass one AT command on, e.g. AT+CSQ, and print the answer.
    At {
        /// The command.
        command: String,
    },
}

/// How long a modem may take to start: a SIM alone takes half a minute.
const START: Duration = Duration::from_secs(90);

impl ModemCommand {
    pub(super) fn run(self, config: PathBuf, level: Option<LevelFilter>) -> Result<(), Failure> {
        log::start(level.unwrap_or(LevelFilter::WARN));
        let settings = config::load(&config)?.settings;
        // What is remembered of the PIN is sealed as the gateway is.
        config::follow(&config);
        let told = match local::Client::connect(&settings.store.path) {
            Ok(mut agent) => agent.ask(&self.order.question()).map_err(|error| Failure::other(error.to_string()))?,
            Err(local::ClientError::NotRunning(_)) => runtime()?.block_on(alone(&settings, &self.order))?,
            Err(error) => return Err(Failure::other(error.to_string())),
        };
        self.order.show(&told)
    }
}

impl Order {
    /// What the agent is asked; it answers as [`alone`] does.
    fn question(&self) -> Json {
        match self {
            Self::Status { .. } => json!({ "ask": "modem", "order": "status" }),
            Self::Send { number, text } => json!({ "ask": "modem", "order": "send", "number": number, "text": text }),
            Self::At { command } => json!({ "ask": "modem", "order": "at", "command": command }),
        }
    }

    fn show(&self, told: &Json) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        match self {
            Self::Status { json: true } => drop(writeln!(out, "{told}")),
            Self::Status { json: false } => drop(out.write_all(table::pairs(&rows(told)).as_bytes())),
            Self::Send { .. } => match told.get("refused").and_then(Json::as_str) {
                Some(reason) => {
                    return Err(Failure::other(format!("the message was refused: {}", table::printable(reason))));
                }
                None => drop(writeln!(out, "sent in {}", table::count(parts(told), "part"))),
            },
            Self::At { .. } => {
                for line in told.get("lines").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
                    let _ = writeln!(out, "{}", table::printable(line));
                }
            }
        }
        Ok(())
    }
}

fn parts(told: &Json) -> usize {
    told.get("parts").and_then(Json::as_u64).and_then(|parts| usize::try_from(parts).ok()).unwrap_or(0)
}

/// What is known, a row each; what is not known is left out.
fn rows(told: &Json) -> Vec<(&'static str, String)> {
    let names = [
        ("state", "state", ""),
        ("problem", "fault", ""),
        ("spoken to by", "by", ""),
        ("maker", "maker", ""),
        ("model", "model", ""),
        ("firmware", "firmware", ""),
        ("IMEI", "imei", ""),
        ("SIM", "iccid", ""),
        ("SIM wants", "sim", ""),
        ("signal", "csq", " of 31"),
        ("RSSI", "rssi", " dBm"),
        ("RSRP", "rsrp", " dBm"),
        ("RSRQ", "rsrq", " dB"),
        ("registration", "registration", ""),
        ("technology", "technology", ""),
        ("operator", "operator", ""),
        ("area", "area", ""),
        ("cell", "cell", ""),
    ];
    let text = |value: &Json| match value {
        Json::String(text) => Some(table::printable(text)),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let row = |(name, key, unit): (&'static str, &str, &str)| Some((name, format!("{}{unit}", text(told.get(key)?)?)));
    names.into_iter().filter_map(row).collect()
}

/// Speaks to the modem without an agent.
async fn alone(settings: &Settings, order: &Order) -> Result<Json, Failure> {
    let wanted = settings.modem.clone().or_else(ModemSettings::stand_in);
    let wanted = wanted.ok_or_else(|| Failure::config("there is no [modem]; write one"))?;
    let device = board::load(&settings.gateway.board).map_err(|e| Failure::config(e.to_string()))?.description.modem;
    let (incoming, _taken) = mpsc::channel(1);
    let clock = Clock::open(&settings.clock, &settings.store.path);
    let kept = settings.store.path.join(agent::SESSIONS);
    let (modem, handle) =
        Modem::new(wanted, device, kept, clock, incoming).map_err(|e| Failure::config(e.to_string()))?;
    let run = modem.only_watching().run();
    let work = patience::told("asking the modem", carry_out(&handle, order));
    tokio::select! {
        told = work => told,
        _ = run => Err(Failure::other("the modem is not spoken to any more")),
    }
}

async fn carry_out(handle: &Handle, order: &Order) -> Result<Json, Failure> {
    let failed = |error: crate::modem::ModemError| Failure::other(error.to_string());
    let mut status = handle.status();
    let known = |status: &Status| match status.state {
        State::Ready => !matches!(order, Order::Status { .. }) || status.registration.is_some() || status.csq.is_some(),
        // A modem that was asleep gets another chance; what is missing or locked is told at once.
        State::Absent | State::Locked => status.fault.is_some(),
        State::Silent => true,
    };
    let found = timeout(START, status.wait_for(known)).await;
    let found = match found {
        Ok(Ok(found)) => found.clone(),
        _ => return Err(Failure::other("the modem did not get ready in time")),
    };
    match order {
        Order::Status { .. } => serde_json::to_value(&found).map_err(|error| Failure::other(error.to_string())),
        Order::Send { number, text } => match handle.send(number, text).await.map_err(failed)? {
            Sent::Accepted { parts } => Ok(json!({ "parts": parts })),
            Sent::Refused { parts, reason } => Ok(json!({ "parts": parts, "refused": reason })),
        },
        Order::At { command } => Ok(json!({ "lines": handle.command(command).await.map_err(failed)? })),
    }
}
