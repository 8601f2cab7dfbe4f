//! `weir read METER`: one reading now.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tracing::level_filters::LevelFilter;

use super::failure::Failure;
use super::{log, runtime, table};
use crate::config::Settings;
use crate::meter::bus::{self, Meter};
use crate::meter::{self, MeterError, listen};
use crate::model::{Quality, Timestamp, Value};
use crate::os::clock::Clock;
use crate::os::line::LineError;
use crate::{agent, board, config};

/// How long a meter that sends by itself is waited for: DSMR 2.2 to 4 send each ten seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Read one meter now and show its values.
///
/// Opens the meter's port itself; while the agent holds the port it says so. Exits with 1 when
/// the meter does not answer or a value could not be read.
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
        let settings = config::load(&config)?.settings;
        let values = runtime()?.block_on(read(&settings, &self.meter))?;
        let bad = values.iter().filter(|v| v.quality.is_fault()).count();
        let mut out = std::io::stdout().lock();
        let now = || Clock::open(&settings.clock, &settings.store.path).now();
        let text = if self.json { json(&self.meter, now(), &values) } else { shown(&values) };
        let _ = out.write_all(text.as_bytes());
        if bad == 0 {
            Ok(())
        } else {
            Err(Failure::other(format!("{bad} of {} values could not be read", values.len())))
        }
    }
}

async fn read(settings: &Settings, name: &str) -> Result<Vec<Value>, Failure> {
    let Some(meter) = settings.meter.iter().find(|m| *m.name == name) else {
        let known: Vec<_> = settings.meter.iter().map(|m| m.name.as_str()).collect();
        let known = if known.is_empty() { "there is no [[meter]]".to_owned() } else { known.join(", ") };
        return Err(Failure::usage(format!("no meter is called \"{name}\"; known: {known}")));
    };
    let port = settings.port.iter().find(|p| *p.name == *meter.port);
    let port = port.ok_or_else(|| Failure::config(format!("port \"{}\" is not defined", *meter.port)))?;
    let board = board::load(&settings.gateway.board).map_err(|e| Failure::config(e.to_string()))?;
    let port = agent::resolve_port(port, &board).map_err(|e| Failure::config(e.to_string()))?;
    let read = if meter::protocol(&meter.protocol).is_some_and(meter::Protocol::listens) {
        let mut listener = listen::Meter::new(meter).map_err(Failure::config)?;
        listen::read_once(&port, &mut listener, PATIENCE).await
    } else {
        let mut session = Meter::new(meter).map_err(Failure::config)?;
        bus::read_once(&port, &mut session).await
    };
    read.map_err(|e| Failure::other(format!("meter \"{name}\" on {}: {e}{}", port.endpoint, hint(&e, &port.name))))
}

/// What to try when a meter says nothing or nonsense.
fn hint(error: &MeterError, port: &str) -> String {
    match error {
        MeterError::Line(LineError::Silent(_)) | MeterError::Damaged(_) => {
            format!("; check power, wires, address and speed, or let \"weir scan {port}\" find what is there")
        }
        _ => String::new(),
    }
}

fn shown(values: &[Value]) -> String {
    let row = |v: &Value| {
        let quality = if v.quality == Quality::Good { String::new() } else { v.quality.word().to_owned() };
        let value = v.value.as_deref().unwrap_or("-");
        vec![table::printable(&v.name), table::printable(value), table::printable(&v.unit), quality]
    };
    table::render(&["name", "value", "unit", ""], &values.iter().map(row).collect::<Vec<_>>())
}

fn json(meter: &str, time: Timestamp, values: &[Value]) -> String {
    let value = |v: &Value| serde_json::json!({ "name": v.name, "value": v.value, "unit": v.unit, "quality": v.quality.word() });
    let object = serde_json::json!({
        "meter": meter, "timestamp": time.to_string(), "values": values.iter().map(value).collect::<Vec<_>>(),
    });
    format!("{object}\n")
}
