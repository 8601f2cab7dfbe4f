//! `weir radio`: who is heard, how well, how often, and what is encrypted.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep_until};
use tracing::level_filters::LevelFilter;

use super::failure::Failure;
use super::{log, runtime, table};
use crate::agent::local::{Client, ClientError};
use crate::agent::{self, ask};
use crate::config::{self, Settings};
use crate::os::clock::Clock;
use crate::radio::{self, Health, Survey};

/// Show every radio meter that is heard: signal, interval, encryption, and whether it is forwarded.
///
/// Asks the running agent, which knows everybody since it was started. When none runs, it opens the receivers of
/// the configuration itself and listens for a while; nothing is stored or sent then. The names are those that allow, deny and
/// sample of `[telegrams]` take. Ctrl-C ends it with what was heard so far. Exits with 1 when nobody was heard.
#[derive(Debug, Args)]
pub(super) struct Radio {
    /// How long to listen when no agent runs.
    #[arg(long = "for", value_name = "DURATION", default_value = "2m", value_parser = duration)]
    patience: Duration,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::setting::duration(text).filter(|d| !d.is_zero()).ok_or_else(|| "write it like 90s or 10m".to_owned())
}

impl Radio {
    pub(super) fn run(self, config: PathBuf, level: Option<LevelFilter>) -> Result<(), Failure> {
        let settings = config::load(&config)?.settings;
        let asked = Client::connect(&settings.store.path).and_then(|mut agent| agent.ask(&json!({ "ask": "radio" })));
        let told = match asked {
            Ok(told) => told,
            Err(ClientError::NotRunning(_)) => {
                log::start(level.unwrap_or(LevelFilter::WARN));
                if settings.radio.is_empty() {
                    return Err(Failure::config(format!("{} has no [[radio]]", config.display())));
                }
                runtime()?.block_on(listen(&settings, self.patience))
            }
            Err(error) => return Err(Failure::other(error.to_string())),
        };
        let text = if self.json { format!("{told}\n") } else { shown(&told) };
        let _ = std::io::stdout().write_all(text.as_bytes());
        let heard = told.get("meters").and_then(Json::as_array).is_some_and(|meters| !meters.is_empty());
        if heard { Ok(()) } else { Err(Failure::other("nobody was heard; check aerial, receiver and mode".to_owned())) }
    }
}

/// Opens the receivers and listens; what they hear is only looked at.
async fn listen(settings: &Settings, patience: Duration) -> Json {
    let clock = Clock::open(&settings.clock, &settings.store.path);
    let survey = Survey::new();
    let (out, heard) = mpsc::channel(radio::HEARD_WAITING);
    let (frames, mut dropped) = mpsc::channel(radio::HEARD_WAITING);
    let mut tasks = tokio::task::JoinSet::new();
    let mut receivers = Vec::new();
    for one in &settings.radio {
        let health = Health::new();
        receivers.push((one.name.to_string(), health.clone()));
        let (one, out, clock) = (one.clone(), out.clone(), clock.clone());
        tasks.spawn(async move {
            if let Err(error) = radio::run(one, out, clock, health).await {
                tracing::warn!(%error, "a receiver can't be heard");
            }
        });
    }
    let (telegrams, everybody) = (settings.telegrams.clone(), survey.clone());
    tasks.spawn(async move { radio::gather(heard, frames, telegrams, everybody).await });
    let until = Instant::now() + patience;
    let mut ticks = interval(Duration::from_secs(1));
    let terminal = std::io::stderr().is_terminal();
    loop {
        tokio::select! {
            _ = sleep_until(until) => break,
            _ = tokio::signal::ctrl_c() => break,
            _ = dropped.recv() => {}
            _ = ticks.tick(), if terminal => {
                let telegrams: u64 = receivers.iter().map(|(_, health)| health.status().heard).sum();
                let left = until.saturating_duration_since(Instant::now()).as_secs();
                let _ = write!(std::io::stderr(), "\r\x1b[Klistening, {left} s left: {telegrams} telegrams of {} meters", survey.len());
            }
        }
    }
    if terminal {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    ask::survey(agent::receivers(&receivers), &survey, clock.now())
}

const HEAD: &[&str] = &[
    "meter",
    "device",
    "heard",
    "every",
    "best",
    "last",
    "encrypted",
    "urgent",
    "copies",
    "forwarded",
    "last heard",
    "receiver",
];

fn shown(told: &Json) -> String {
    let receivers = told.get("receivers").and_then(Json::as_object);
    let mut out = String::new();
    for (name, status) in receivers.into_iter().flatten() {
        let number = |member: &str| status.get(member).and_then(Json::as_u64).unwrap_or(0);
        let state = status.get("source").and_then(Json::as_str).unwrap_or("-");
        out += &format!(
            "receiver {}: {state}, {} telegrams heard, {} damaged, {} lines of noise",
            table::printable(name),
            number("heard"),
            number("damaged"),
            number("noise")
        );
        if number("silences") > 0 {
            out += &format!(
                "; {} times silent, therefore {} times opened again, its USB device {} times reset",
                number("silences"),
                number("reopened"),
                number("resets")
            );
        }
        if let Some(reason) = status.get("no_reset").and_then(Json::as_str) {
            out += &format!("; {}", table::printable(reason));
        }
        out += "\n";
    }
    let meters = told.get("meters").and_then(Json::as_array);
    let rows: Vec<_> = meters.into_iter().flatten().map(row).collect();
    if !rows.is_empty() {
        out += "\n";
        out += &table::render(HEAD, &rows);
        out += &format!("\n{} meters\n", rows.len());
    }
    out
}

fn row(meter: &Json) -> Vec<String> {
    let text = |member: &str| match meter.get(member) {
        None | Some(Json::Null) => "-".to_owned(),
        Some(Json::String(text)) => table::printable(text),
        Some(other) => other.to_string(),
    };
    let strength = |which: &str| match (text(&format!("rssi_{which}")), text(&format!("rssirelative_{which}"))) {
        (dbm, _) if dbm != "-" => format!("{dbm} dBm"),
        (_, relative) => relative,
    };
    let every = meter.get("interval_s").and_then(Json::as_u64).map_or_else(|| "-".to_owned(), seconds);
    vec![
        text("meter"),
        text("device"),
        text("telegrams"),
        every,
        strength("best"),
        strength("last"),
        text("security").replace("none", "no"),
        text("urgent"),
        text("copies"),
        if meter.get("forwarded") == Some(&json!(true)) { "yes".to_owned() } else { "no".to_owned() },
        text("last_heard"),
        text("receiver"),
    ]
}

/// A number of seconds as a person says it.
fn seconds(all: u64) -> String {
    match all {
        0..=119 => format!("{all} s"),
        120..=7199 => format!("{} min", (all + 30) / 60),
        _ => format!("{} h", (all + 1800) / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_an_installer_signal_interval_and_encryption() {
        let told = json!({
            "receivers": {
                "roof": { "source": "open", "heard": 12, "damaged": 1, "noise": 0, "silences": 0 },
                "yard": { "source": "silent", "silences": 1, "reopened": 3, "resets": 2, "no_reset": "not permitted" },
            },
            "meters": [{ "meter": "KAM.12345678.1b.16", "device": "cold water", "telegrams": 12, "interval_s": 16, "rssi_best": -60,
                "rssi_last": -72, "security": "mode 5", "urgent": 10, "copies": 3, "forwarded": true, "last_heard": "2026-11-22T10:00:00Z",
                "receiver": "roof\u{1b}" }],
        });
        let text = shown(&told);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "receiver roof: open, 12 telegrams heard, 1 damaged, 0 lines of noise");
        assert_eq!(
            lines[1],
            "receiver yard: silent, 0 telegrams heard, 0 damaged, 0 lines of noise; 1 times silent, therefore 3 times opened \
             again, its USB device 2 times reset; not permitted"
        );
        for part in
            ["KAM.12345678.1b.16  cold water  12", "16 s", "-60 dBm", "-72 dBm", "mode 5", " 10 ", "yes", "roof."]
        {
            assert!(lines[4].contains(part), "{part}: {text}");
        }
        assert_eq!([seconds(119), seconds(130), seconds(7200)], ["119 s", "2 min", "2 h"]);
    }
}
