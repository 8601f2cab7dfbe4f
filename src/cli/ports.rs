//! `weir ports`: who has each port.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value as Json, json};

use super::failure::Failure;
use super::table;
use crate::agent::local::Client;
use crate::config;

/// Show who has each serial port now, since when and until when.
///
/// Asks the running agent. A port is held for a reading, an order to a meter, a load profile, a tunnel or a command; "until" is when the
/// line is taken back at the latest. Exits with 1 when no agent runs.
#[derive(Debug, Args)]
pub(super) struct Ports {
    /// Show the newest sessions of the tunnels, too: who had a port, when, how many bytes went each way, why it ended.
    #[arg(long, value_name = "LINES", num_args = 0..=1, default_missing_value = "20")]
    sessions: Option<usize>,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Ports {
    pub(super) fn run(self, config: PathBuf) -> Result<(), Failure> {
        let settings = config::effective(&config)?.settings;
        let told = Client::connect(&settings.store.path)
            .and_then(|mut agent| agent.ask(&json!({ "ask": "ports", "sessions": self.sessions })))
            .map_err(|e| Failure::other(e.to_string()))?;
        let text = if self.json { format!("{told}\n") } else { shown(&told) };
        let _ = std::io::stdout().write_all(text.as_bytes());
        Ok(())
    }
}

fn shown(told: &Json) -> String {
    let ports = told.get("ports").and_then(Json::as_object);
    let rows: Vec<Vec<String>> = ports.into_iter().flatten().map(|(name, port)| row(name, port)).collect();
    if rows.is_empty() {
        return "no port is open: none has a meter or a tunnel\n".to_owned();
    }
    let mut text =
        table::render(&["port", "held for", "by", "since", "until", "waiting", "traced", "read away", "peer"], &rows);
    if let Some(sessions) = told.get("sessions").and_then(Json::as_array) {
        let rows: Vec<Vec<String>> = sessions
            .iter()
            .map(|session| {
                ["time", "session", "port", "who", "to_port", "from_port", "why"]
                    .map(|name| cell(session.get(name)))
                    .to_vec()
            })
            .collect();
        text.push('\n');
        text += &table::render(&["time", "session", "port", "peer", "to port", "from port", "why"], &rows);
    }
    text
}

fn row(name: &str, port: &Json) -> Vec<String> {
    let held = |member: &str| cell(port.get("held").and_then(|held| held.get(member)));
    let mut row = vec![table::printable(name)];
    row.extend(["for", "by", "since", "until"].map(held));
    row.extend(["waiting", "traced", "read_away", "peer"].map(|member| cell(port.get(member))));
    row
}

fn cell(value: Option<&Json>) -> String {
    match value {
        None | Some(Json::Null) => "-".to_owned(),
        Some(Json::String(text)) => table::printable(text),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_shows_its_holder_and_a_free_one_dashes() {
        let told = json!({ "ports": {
            "a": { "held": { "for": "tunnel", "by": "1.2.3.4:5", "since": "S", "until": null }, "waiting": 1, "traced": 0, "read_away": 3, "peer": "1.2.3.4:5" },
            "b": { "held": null, "waiting": 0, "traced": 0, "read_away": 0, "peer": null },
        }, "sessions": [{ "time": "T", "session": "ended", "port": "a", "who": "x", "to_port": 3, "from_port": 4, "why": "the peer hung up" }] });
        let text = shown(&told);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["a", "tunnel", "1.2.3.4:5", "S", "-", "1", "0", "3", "1.2.3.4:5"]);
        assert_eq!(lines[2], ["b", "-", "-", "-", "-", "0", "0", "0", "-"]);
        assert_eq!(lines[5][..6], ["T", "ended", "a", "x", "3", "4"]);
    }
}
