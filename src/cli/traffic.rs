//! `weir traffic`: what was sent and received.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value as Json, json};

use super::failure::Failure;
use super::table;
use crate::config;
use crate::os::clock;
use crate::uplink::{self, Account, Amount, Step};

/// Show how much data was sent and received by day and month, and how the budget stands.
///
/// Works while the agent runs; its figures are then up to ten minutes old. Sent and received are
/// bytes of TCP, TLS included; "billed" adds the estimated headers of the packets.
#[derive(Debug, Args)]
pub(super) struct Traffic {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Traffic {
    pub(super) fn run(self, config: PathBuf) -> Result<(), Failure> {
        let settings = config::effective(&config)?.settings;
        let headers = settings.budget.headers.bytes();
        let account = uplink::inspect_traffic(&settings.store.path, &settings.budget, clock::now())
            .map_err(|e| Failure::other(e.to_string()))?;
        let mut out = std::io::stdout().lock();
        if self.json {
            let _ = writeln!(out, "{}", object(&account, headers));
            return Ok(());
        }
        let text = [rows("day (UTC)", &account.days, headers), rows("month", &account.months, headers)].join("\n");
        let _ = out.write_all(text.as_bytes());
        let _ = writeln!(out, "\n{}", table::pairs(&standing(&account)).trim_end());
        Ok(())
    }
}

fn rows(name: &str, entries: &[(String, Amount)], headers: u64) -> String {
    let rows: Vec<_> = entries
        .iter()
        .map(|(when, a)| {
            let when = if when.starts_with("1970") { "no clock yet" } else { when };
            vec![when.to_owned(), a.sent.to_string(), a.received.to_string(), a.billed(headers).to_string()]
        })
        .collect();
    table::render(&[name, "sent", "received", "billed"], &rows)
}

fn words(steps: &[Step]) -> String {
    let words: Vec<_> = steps.iter().map(|s| s.word()).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn standing(account: &Account) -> Vec<(&'static str, String)> {
    let mut pairs = vec![("as of", account.written.to_string())];
    let Some(standing) = &account.standing else {
        pairs.push(("SIM's month", "unknown: the clock is not set".to_owned()));
        return pairs;
    };
    pairs.push(("SIM's month", format!("{} to {}, without its last day", standing.period.first, standing.period.next)));
    pairs.push(("used in it", standing.used.to_string()));
    pairs.push(("forecast", standing.forecast.to_string()));
    match account.monthly {
        None => pairs.push(("budget", "none".to_owned())),
        Some(budget) => {
            let percent = u128::from(standing.used) * 100 / u128::from(budget.max(1));
            pairs.push(("budget", format!("{budget} ({percent} % used)")));
            pairs.push(("steps taken", words(&account.steps)));
        }
    }
    pairs
}

fn object(account: &Account, headers: u64) -> Json {
    let amount = |a: &Amount| json!({ "sent": a.sent, "received": a.received, "packets": a.packets, "billed": a.billed(headers) });
    let book = |entries: &[(String, Amount)]| -> Map<String, Json> {
        entries.iter().map(|(when, a)| (when.clone(), amount(a))).collect()
    };
    let month = account.standing.as_ref().map(|s| {
        json!({
            "first": s.period.first.to_string(), "next": s.period.next.to_string(), "used": s.used,
            "forecast": s.forecast, "budget": account.monthly,
            "steps": account.steps.iter().map(|s| s.word()).collect::<Vec<_>>(),
        })
    });
    json!({
        "as_of": account.written.to_string(), "days": book(&account.days), "months": book(&account.months),
        "total": amount(&account.total), "sim_month": month,
    })
}
