//! `weir read METER`: one reading now.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value as Json, json};
use tracing::level_filters::LevelFilter;

use super::failure::Failure;
use super::{log, patience, runtime, table};
use crate::agent::ask;
use crate::agent::local::{Client, ClientError};
use crate::config::Settings;
use crate::meter::bus::{self, Meter};
use crate::meter::{self, MeterError, MeterSettings, listen};
use crate::model::{Quality, Value};
use crate::os::clock::Clock;
use crate::os::line::LineError;
use crate::{agent, board, config};

/// How long a meter that sends by itself is waited for: DSMR 2.2 to 4 send each ten seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Read one meter now and show its values.
///
/// While the agent runs it is asked for the reading; else the meter's port is opened. Exits with 1
/// when the meter does not answer or a value could not be read.
#[derive(Debug, Args)]
pub(super) struct Read {
    /// The meter's name in the configuration.
    meter: String,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Read {
    pub(super) fn run(self, config: PathBuf, level: Option<LevelFilter>) -> Result<(), Failure> {
        log::start(level.unwrap_or(LevelFilter::WARN));
        let settings = config::effective(&config)?.settings;
        let object = match beside(&settings, &self.meter)? {
            Some(object) => object,
            None => {
                let values = runtime()?.block_on(read(&settings, &self.meter))?;
                let now = Clock::open(&settings.clock, &settings.store.path).now();
                ask::reading(&self.meter, now, &values)
            }
        };
        let values = object.get("values").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
        let bad = values.iter().filter(|v| is_fault(member(v, "quality"))).count();
        let text = if self.json { format!("{object}\n") } else { shown(values) };
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
        if bad == 0 {
            Ok(())
        } else {
            Err(Failure::other(format!("{bad} of {} values could not be read", values.len())))
        }
    }
}

/// Has the running agent read the meter; `None` when none runs.
fn beside(settings: &Settings, name: &str) -> Result<Option<Json>, Failure> {
    known(settings, name)?;
    match Client::connect(&settings.store.path) {
        Ok(mut agent) => {
            let answer = agent.ask(&json!({ "ask": "read", "meter": name }));
            answer.map(Some).map_err(|e| Failure::other(e.to_string()))
        }
        Err(ClientError::NotRunning(_)) => Ok(None),
        Err(error) => Err(Failure::other(error.to_string())),
    }
}

/// The settings of a meter by its name.
pub(super) fn known<'s>(settings: &'s Settings, name: &str) -> Result<&'s MeterSettings, Failure> {
    settings.meter.iter().find(|m| *m.name == name).ok_or_else(|| {
        let known: Vec<_> = settings.meter.iter().map(|m| m.name.as_str()).collect();
        let known = if known.is_empty() { "there is no [[meter]]".to_owned() } else { known.join(", ") };
        Failure::usage(format!("no meter is called \"{name}\"; known: {known}"))
    })
}

/// The port of a meter, as the board has it.
pub(super) fn port_of(settings: &Settings, meter: &MeterSettings) -> Result<bus::Port, Failure> {
    let port = settings.port.iter().find(|p| *p.name == *meter.port);
    let port = port.ok_or_else(|| Failure::config(format!("port \"{}\" is not defined", *meter.port)))?;
    let board = board::load(&settings.gateway.board).map_err(|e| Failure::config(e.to_string()))?;
    agent::resolve_port(port, &board).map_err(|e| Failure::config(e.to_string()))
}

async fn read(settings: &Settings, name: &str) -> Result<Vec<Value>, Failure> {
    let meter = known(settings, name)?;
    let port = port_of(settings, meter)?;
    let what = format!("reading \"{name}\" on {}", port.endpoint);
    let read = if meter::protocol(&meter.protocol).is_some_and(meter::Protocol::listens) {
        let kept = settings.store.path.join(agent::SESSIONS);
        let mut listener = listen::Meter::new(meter).map_err(Failure::config)?.kept_in(&kept);
        patience::told(&what, listen::read_once(&port, &mut listener, PATIENCE)).await
    } else {
        let kept = settings.store.path.join(agent::SESSIONS);
        let mut session = Meter::new(meter).map_err(Failure::config)?.kept_in(&kept);
        patience::told(&what, bus::read_once(&port, &mut session)).await
    };
    read.map_err(|e| {
        let told = format!("meter \"{name}\" on {}: {e}{}", port.endpoint, hint(&e, &port.name));
        // A file that it needs is not there: the configuration must be put right, not the line.
        if matches!(e, MeterError::Unasked(_)) { Failure::config(told) } else { Failure::other(told) }
    })
}

/// What to try when a meter says nothing or nonsense.
pub(super) fn hint(error: &MeterError, port: &str) -> String {
    match error {
        MeterError::Line(LineError::Silent(_)) | MeterError::Damaged(_) => {
            format!("; check power, wires, address and speed, or let \"weir scan {port}\" find what is there")
        }
        _ => String::new(),
    }
}

/// A text in an answer.
pub(super) fn member<'v>(value: &'v Json, name: &str) -> &'v str {
    value.get(name).and_then(Json::as_str).unwrap_or_default()
}

/// Whether a quality, by its word, is a failure of the reading.
fn is_fault(word: &str) -> bool {
    ![Quality::Good, Quality::Unavailable].iter().any(|fine| fine.word() == word)
}

fn shown(values: &[Json]) -> String {
    let row = |v: &Json| {
        let quality = if member(v, "quality") == Quality::Good.word() { "" } else { member(v, "quality") };
        let value = v.get("value").and_then(Json::as_str).unwrap_or("-");
        [member(v, "name"), value, member(v, "unit"), quality].map(table::printable).to_vec()
    };
    table::render(&["name", "value", "unit", ""], &values.iter().map(row).collect::<Vec<_>>())
}
