//! `weir meters`: how every meter has been doing.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value as Json, json};

use super::failure::Failure;
use super::table;
use crate::agent::local::Client;
use crate::config;

/// Show how every meter has been doing since the agent was started.
///
/// Asks the running agent. Latency is the time from the end of a request to the first byte of its
/// answer: what half and what 95 % of the answers did not exceed, and the longest. With METER it shows all that is
/// known of that one, with the bytes of its last exchange. Exits with 1 when no agent runs.
#[derive(Debug, Args)]
pub(super) struct Meters {
    /// One meter, whole.
    meter: Option<String>,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Meters {
    pub(super) fn run(self, config: PathBuf) -> Result<(), Failure> {
        let settings = config::effective(&config)?.settings;
        let told = Client::connect(&settings.store.path)
            .and_then(|mut agent| agent.ask(&json!({ "ask": "meters" })))
            .map_err(|e| Failure::other(e.to_string()))?;
        let told = match &self.meter {
            None => told,
            Some(name) => told.get(name).cloned().ok_or_else(|| {
                let known: Vec<_> = told.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                Failure::usage(format!("the running agent has no meter \"{name}\"; known: {}", known.join(", ")))
            })?,
        };
        let text = match (self.json, &self.meter) {
            (true, _) => format!("{told}\n"),
            (false, None) => shown(&told),
            (false, Some(name)) => whole(name, &told),
        };
        let _ = std::io::stdout().write_all(text.as_bytes());
        Ok(())
    }
}

const HEAD: &[&str] = &[
    "meter",
    "port",
    "state",
    "last answer",
    "answers",
    "timeouts",
    "damaged",
    "refused",
    "echo",
    "latency ms",
    "profile until",
    "absent",
    "last error",
];

/// So many columns are there in any case.
const ALWAYS: usize = 8;

fn shown(told: &Json) -> String {
    let rows: Vec<_> = told.as_object().into_iter().flatten().map(|(name, meter)| row(name, meter)).collect();
    if rows.is_empty() {
        return "there is no [[meter]]\n".to_owned();
    }
    // A terminal is narrow: what no meter has is left out.
    let told = |column: usize| rows.iter().any(|row| row.get(column).is_some_and(|cell| cell != "-"));
    let kept: Vec<usize> = (0..HEAD.len()).filter(|column| *column < ALWAYS || told(*column)).collect();
    let head: Vec<&str> = kept.iter().filter_map(|column| HEAD.get(*column).copied()).collect();
    let cells = |row: &Vec<String>| kept.iter().filter_map(|column| row.get(*column).cloned()).collect();
    table::render(&head, &rows.iter().map(cells).collect::<Vec<Vec<String>>>())
}

/// Everything that is told of one meter, a line each.
fn whole(name: &str, meter: &Json) -> String {
    fn walk(value: &Json, path: &str, lines: &mut Vec<(String, String)>) {
        match value {
            Json::Object(members) => {
                for (name, inner) in members {
                    let path = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
                    walk(inner, &path, lines);
                }
            }
            Json::Null => lines.push((path.to_owned(), "-".to_owned())),
            Json::String(text) => lines.push((path.to_owned(), table::printable(text))),
            other => lines.push((path.to_owned(), other.to_string())),
        }
    }
    let mut lines = vec![("meter".to_owned(), table::printable(name)), ("state".to_owned(), state(meter))];
    walk(meter, "", &mut lines);
    let pairs: Vec<_> = lines.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    table::pairs(&pairs)
}

fn row(name: &str, meter: &Json) -> Vec<String> {
    let cell = |path: &str| match meter.pointer(path) {
        None | Some(Json::Null) => "-".to_owned(),
        Some(Json::String(text)) => table::printable(text),
        Some(other) => other.to_string(),
    };
    let delay = |name: &str| cell(&format!("/line/delay_ms/{name}"));
    let latency = format!("{}/{}/{}", delay("p50"), delay("p95"), delay("max"));
    let error = match (cell("/last_error"), cell("/profile/last_error")) {
        (reading, profile) if reading == "-" && profile != "-" => format!("profile: {profile}"),
        (reading, _) => reading,
    };
    vec![
        table::printable(name),
        cell("/port"),
        state(meter),
        cell("/last_answer"),
        cell("/answers"),
        cell("/timeouts"),
        cell("/damaged"),
        cell("/refused"),
        cell("/line/echoes"),
        if latency == "-/-/-" { "-".to_owned() } else { latency },
        cell("/profile/newest"),
        cell("/profile/absent"),
        error,
    ]
}

/// One word: what an installer looks for first.
fn state(meter: &Json) -> String {
    let number = |path: &str| meter.pointer(path).and_then(Json::as_u64).unwrap_or(0);
    if meter.pointer("/last_answer").is_none_or(Json::is_null) && number("/failing") == 0 {
        return "waiting".to_owned();
    }
    match (number("/failing"), number("/stretch")) {
        (0, _) => "ok".to_owned(),
        (failing, 0 | 1) => format!("failing ({failing})"),
        (failing, stretch) => format!("failing ({failing}), asked {stretch}x less often"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_what_an_installer_needs_and_a_dash_for_what_is_not_known() {
        let told = json!({
            "a": { "port": "bus", "answers": 3, "timeouts": 1, "damaged": 0, "refused": 0, "failing": 0,
                   "last_answer": "2026-11-22T10:00:00Z", "last_error": "no answer\u{1b}",
                   "line": { "echoes": 2, "delay_ms": { "p50": 12, "p95": 30, "max": 31 } } },
            "b": { "port": "bus" },
            "c": { "port": "bus", "failing": 4, "stretch": 8, "profile": { "last_error": "refused", "absent": 3 } },
        });
        let text = shown(&told);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].contains("absent") && !lines[0].contains("profile until"), "{text}");
        assert!(lines[1].contains("ok") && lines[1].contains("12/30/31") && lines[1].ends_with("no answer."), "{text}");
        assert!(lines[2].starts_with("b      bus   waiting"), "{text}");
        assert!(
            lines[3].contains("failing (4), asked 8x less often") && lines[3].ends_with("profile: refused"),
            "{text}"
        );
        assert_eq!(shown(&json!({})), "there is no [[meter]]\n");
        let all = whole("a", &told["a"]);
        let lines: Vec<_> = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for line in ["meter a", "state ok", "line delay_ms p95 30", "last_error no answer."] {
            assert!(lines.iter().any(|l| l == line), "{line}: {all}");
        }
    }
}
