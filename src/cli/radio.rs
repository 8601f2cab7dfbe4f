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
use crate::model::Stamp;
use crate::os::clock::Clock;
use crate::os::file;
use crate::radio::{self, Forward, Health, Survey};
use crate::setting::At;

mod survey;

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

    /// Write a survey of the site instead: who is at the edge, which receiver hears whom, what is encrypted. As text, or as
    /// JSON with --json; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::setting::duration(text).filter(|d| !d.is_zero()).ok_or_else(|| "write it like 90s or 10m".to_owned())
}

/// Who knows everybody.
enum Source {
    Agent(Client),
    Own { receivers: Vec<(String, Health)>, survey: Survey, now: Stamp },
}

/// The pages of a survey: each holds the head and some meters.
struct Pages {
    source: Source,
    store: PathBuf,
    page: Option<Json>,
}

impl Pages {
    fn ask(&mut self, after: Option<&str>) -> Result<Json, Failure> {
        let failed = |error: ClientError| Failure::other(error.to_string());
        match &mut self.source {
            Source::Own { receivers, survey, now } => {
                ask::survey(agent::receivers(receivers), survey, *now, after).map_err(Failure::other)
            }
            Source::Agent(agent) => {
                let question = json!({ "ask": "radio", "after": after });
                match agent.ask(&question) {
                    // Whoever reads a page for more than a minute was hung up on.
                    Err(ClientError::Broken(_)) => {
                        *agent = Client::connect(&self.store).map_err(failed)?;
                        agent.ask(&question).map_err(failed)
                    }
                    answer => answer.map_err(failed),
                }
            }
        }
    }

    /// The meters of the next page; `None` after the last one.
    fn meters(&mut self) -> Result<Option<Vec<Json>>, Failure> {
        let Some(mut page) = self.page.take() else { return Ok(None) };
        let meters = page.get_mut("meters").map(Json::take);
        if let Some(next) = page.get("next").and_then(Json::as_str) {
            self.page = Some(self.ask(Some(next))?);
        }
        match meters {
            Some(Json::Array(meters)) => Ok(Some(meters)),
            _ => Ok(None),
        }
    }
}

impl Radio {
    pub(super) fn run(self, config: PathBuf, level: Option<LevelFilter>) -> Result<(), Failure> {
        let settings = config::effective(&config)?.settings;
        let source = match Client::connect(&settings.store.path) {
            Ok(agent) => Source::Agent(agent),
            Err(ClientError::NotRunning(_)) => {
                log::start(level.unwrap_or(LevelFilter::WARN));
                if settings.radio.is_empty() {
                    return Err(Failure::config(format!("{} has no [[radio]]", config.display())));
                }
                runtime()?.block_on(listen(&settings, self.patience))
            }
            Err(error) => return Err(Failure::other(error.to_string())),
        };
        let mut pages = Pages { source, store: settings.store.path.to_path_buf(), page: None };
        let first = pages.ask(None)?;
        let head = json!({ "timestamp": first.get("timestamp"), "receivers": first.get("receivers") });
        pages.page = Some(first);
        let heard = match &self.report {
            Some(path) => report(&head, &mut pages, path, self.json)?,
            None if self.json => objects(&head, &mut pages)?,
            None => tables(&head, &mut pages)?,
        };
        if heard > 0 {
            Ok(())
        } else {
            Err(Failure::other("nobody was heard; check aerial, receiver and mode".to_owned()))
        }
    }
}

/// Whoever closed the output wants to hear no more.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints one object as the pages come; returns the number of meters.
fn objects(head: &Json, pages: &mut Pages) -> Result<usize, Failure> {
    let opened = head.to_string();
    print(opened.strip_suffix('}').unwrap_or_default());
    print(",\"meters\":[");
    let mut heard = 0;
    while let Some(meters) = pages.meters()? {
        for meter in meters {
            let comma = if heard > 0 { "," } else { "" };
            print(&format!("{comma}{meter}"));
            heard += 1;
        }
    }
    print("]}\n");
    Ok(heard)
}

/// Rows that are lined up together; the head comes again for the next ones.
const BLOCK: usize = 512;

/// Prints tables as the pages come; returns the number of meters.
fn tables(head: &Json, pages: &mut Pages) -> Result<usize, Failure> {
    print(&receivers(head));
    let (mut heard, mut rows, mut last) = (0, Vec::new(), false);
    while !last {
        match pages.meters()? {
            Some(meters) => rows.extend(meters.iter().map(row)),
            None => last = true,
        }
        if rows.len() >= BLOCK || (last && !rows.is_empty()) {
            heard += rows.len();
            print(&format!("\n{}", table::render(HEAD, &rows)));
            rows.clear();
        }
    }
    if heard > 0 {
        print(&format!("\n{}\n", table::count(heard, "meter")));
    }
    Ok(heard)
}

/// Writes the survey; returns the number of meters.
fn report(head: &Json, pages: &mut Pages, path: &std::path::Path, as_json: bool) -> Result<usize, Failure> {
    let mut survey = survey::Report::new(head);
    while let Some(meters) = pages.meters()? {
        meters.into_iter().for_each(|meter| survey.add(meter));
    }
    let text = if as_json { format!("{}\n", survey.to_json()) } else { survey.to_text() };
    if path.as_os_str() == "-" {
        print(&text);
    } else {
        file::write_atomic(path, text.as_bytes(), 0o644)
            .map_err(|error| Failure::other(format!("{} can't be written: {error}", path.display())))?;
        print(&format!("{} in {}\n", survey.in_short(), path.display()));
    }
    Ok(survey.heard())
}

/// Opens the receivers and listens; what they hear is only looked at.
async fn listen(settings: &Settings, patience: Duration) -> Source {
    let clock = Clock::open(&settings.clock, &settings.store.path);
    let survey = Survey::new();
    let (out, heard) = mpsc::channel(radio::HEARD_WAITING);
    let (frames, mut dropped) = mpsc::channel(radio::HEARD_WAITING);
    let mut tasks = tokio::task::JoinSet::new();
    let mut receivers = Vec::new();
    for one in &settings.radio {
        let health = Health::new();
        receivers.push((one.name.to_string(), health.clone()));
        // Nobody wants values here.
        let mut one = one.clone();
        one.forward = At::nowhere(Forward::Raw);
        let (out, clock) = (out.clone(), clock.clone());
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
    Source::Own { receivers, survey, now: clock.stamp() }
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

/// A line a receiver.
fn receivers(head: &Json) -> String {
    let mut out = String::new();
    for (name, status) in head.get("receivers").and_then(Json::as_object).into_iter().flatten() {
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
    out
}

/// A member as a cell.
fn text(meter: &Json, member: &str) -> String {
    match meter.get(member) {
        None | Some(Json::Null) => "-".to_owned(),
        Some(Json::String(text)) => table::printable(text),
        Some(other) => other.to_string(),
    }
}

/// The best, worst, median or last strength.
fn strength(meter: &Json, which: &str) -> String {
    match (text(meter, &format!("rssi_{which}")), text(meter, &format!("rssirelative_{which}"))) {
        (dbm, _) if dbm != "-" => format!("{dbm} dBm"),
        (_, relative) => relative,
    }
}

fn every(meter: &Json) -> String {
    meter.get("interval_s").and_then(Json::as_u64).map_or_else(|| "-".to_owned(), seconds)
}

fn row(meter: &Json) -> Vec<String> {
    let text = |member| text(meter, member);
    vec![
        text("meter"),
        text("device"),
        text("telegrams"),
        every(meter),
        strength(meter, "best"),
        strength(meter, "last"),
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
        let rows: Vec<_> = told["meters"].as_array().unwrap().iter().map(row).collect();
        let text = format!("{}\n{}", receivers(&told), table::render(HEAD, &rows));
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
