//! `weir store check`: is everything in the store as it was written?

use std::io::Write;
use std::path::Path;

use clap::Args;

use super::progress::Progress;
use crate::cli::failure::{Failure, OTHER};
use crate::cli::table;
use crate::model::Lane;
use crate::store::StoreSettings;
use crate::store::check::{self, Report, State, Tally};

/// Read the whole store block by block and report damage; changes nothing.
///
/// Works while the agent runs. Exits with 1 when something is damaged.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self, settings: &StoreSettings) -> Result<(), Failure> {
        let report = look(settings)?;
        let mut out = std::io::stdout().lock();
        let _ = if self.json {
            writeln!(out, "{}", object(&settings.path, &report))
        } else {
            out.write_all(told(&report).as_bytes())
        };
        if report.is_sound() { Ok(()) } else { Err(Failure::silent(OTHER)) }
    }
}

/// Checks with a progress line.
pub(super) fn look(settings: &StoreSettings) -> Result<Report, Failure> {
    let mut progress = Progress::new("checked", check::size(&settings.path)?);
    Ok(check::check(&settings.path, &mut |bytes| progress.set(bytes))?)
}

const fn lane(lane: Lane) -> &'static str {
    match lane {
        Lane::Priority => "priority",
        Lane::Ordinary => "ordinary",
    }
}

const fn state(tally: &Tally) -> &'static str {
    match tally.state {
        State::Gone => "removed meanwhile",
        _ if tally.torn_seal => "seal unreadable",
        _ if tally.damaged > 0 => "DAMAGED",
        State::Sealed => "good",
        State::Open => "good, being written",
    }
}

fn told(report: &Report) -> String {
    let mut text = String::new();
    if !report.generations.is_empty() {
        let row = |g: &Tally| {
            let figures = [g.frames, g.waiting, g.damaged, g.bytes.div_ceil(1024)].map(|n| n.to_string());
            [&[lane(g.lane).to_owned(), g.name.clone()][..], &figures, &[state(g).to_owned()]].concat()
        };
        let head = ["lane", "generation", "frames", "waiting", "lost", "KiB", "state"];
        text += &table::render(&head, &report.generations.iter().map(row).collect::<Vec<_>>());
        text.push('\n');
    }
    advice(report).iter().for_each(|line| text += &format!("{line}\n"));
    let verdict = if report.is_sound() { "the store is sound" } else { "THE STORE IS DAMAGED" };
    let (waiting, lost) = (report.waiting(), report.damaged());
    text + &format!("{verdict}: {waiting} frames wait, {lost} are lost\n")
}

/// What a person should know, and do.
pub(super) fn advice(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    if report.damaged() > 0 {
        lines.push("lost frames can't be read any more: the agent gives them up and counts them when it gets there; \"weir store repair\" does it now".to_owned());
    }
    if report.generations.iter().any(|g| g.torn_seal) {
        lines.push(
            "a seal is unreadable: the next start of the agent, or \"weir store repair\", counts those frames anew"
                .to_owned(),
        );
    }
    if report.counters_lost {
        lines.push("the counters are unreadable: the next start of the agent, or \"weir store repair\", counts anew and sends everything that is here again".to_owned());
    } else if report.counters_good == 1 {
        lines.push("one of the two places of the counters is good, which is enough: a new store has one, a power cut leaves one".to_owned());
    }
    if let Some(problem) = &report.key {
        lines.push(format!("the signing key can't be used ({problem}): the agent puts it aside and makes a new one, to be pinned anew; if you have a copy of the old one put it back first"));
    }
    if let Some(problem) = &report.imports {
        lines.push(format!(
            "{problem}: a file that was imported before may be taken again; \"weir store repair\" puts it aside"
        ));
    }
    if !report.quarantine.is_empty() {
        let bytes: u64 = report.quarantine.iter().map(|(_, bytes)| bytes).sum();
        lines.push(format!("{} directories ({} KiB) of earlier damage are kept for inspection: \"weir store repair --purge\" removes them", report.quarantine.len(), bytes.div_ceil(1024)));
    }
    lines
}

/// The report as JSON.
pub(super) fn object(path: &Path, report: &Report) -> serde_json::Value {
    let generations = report.generations.iter().map(|g| {
        serde_json::json!({
            "lane": lane(g.lane), "name": g.name, "state": state(g), "frames": g.frames,
            "waiting": g.waiting, "damaged": g.damaged, "bytes": g.bytes,
        })
    });
    let named = |list: &[(String, u64)]| {
        list.iter().map(|(name, bytes)| serde_json::json!({ "name": name, "bytes": bytes })).collect::<Vec<_>>()
    };
    serde_json::json!({
        "path": path, "sound": report.is_sound(), "waiting": report.waiting(), "damaged": report.damaged(),
        "counters": if report.counters_lost { "lost" } else { "good" }, "counters_good": report.counters_good,
        "key": report.key.as_deref().unwrap_or("good"), "imports": report.imports.as_deref().unwrap_or("good"),
        "quarantine": named(&report.quarantine), "trash": named(&report.trash),
        "generations": generations.collect::<Vec<_>>(), "advice": advice(report),
    })
}
