//! `weir import-mtx`: a config.txt of the vendor's modems becomes a weir.toml, line by line.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::table;
use crate::config::mtx::{self, Fate, Translation};
use crate::config::{self, ConfigError};
use crate::os::file::write_atomic;

/// Show what becomes of each line of a config.txt, and write the weir.toml that it becomes.
///
/// What a config.txt can't say (the board, devices, a CA) is taken from a site.toml beside it. Secrets go into files of their
/// own beside the weir.toml, which only their owner can read. `weir run --config config.txt` needs none of this.
/// Exits with 0 when there is something usable, with 78 when there is not.
#[derive(Debug, Args)]
pub(super) struct ImportMtx {
    /// The config.txt.
    #[arg(value_name = "CONFIG.TXT")]
    file: PathBuf,

    /// Write the weir.toml there.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Write over files that are there.
    #[arg(long, requires = "out")]
    force: bool,

    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

impl ImportMtx {
    pub(super) fn run(self) -> Result<(), Failure> {
        let bytes = config::whole(&self.file)?;
        let site = config::site(&self.file)?;
        let unusable = |why| ConfigError::Unusable { path: self.file.clone(), why };
        let folder = self.out.as_deref().or(Some(&self.file)).and_then(Path::parent).unwrap_or(Path::new(""));
        let folder = std::path::absolute(if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
        let folder = folder.map_err(|e| Failure::other(format!("the folder can't be found: {e}")))?;
        let place = |name: &str| folder.join(name.to_ascii_lowercase().replace('_', "-")).display().to_string();
        let translation = mtx::translate(&bytes, &site, &place).map_err(unusable)?;
        // What would not run is not written.
        let source = config::Source { text: translation.text.clone(), translation: Some(translation.clone()) };
        source.parse().map_err(|problems| ConfigError::Wrong { path: self.file.clone(), problems })?;
        let mut written = Vec::new();
        if let Some(out) = &self.out {
            let secrets = translation
                .secrets
                .iter()
                .map(|(name, value)| (PathBuf::from(place(name)), format!("{value}\n"), 0o600));
            let files: Vec<_> = secrets.chain([(out.clone(), translation.text.clone(), 0o644)]).collect();
            if let Some((there, ..)) = files.iter().find(|(path, ..)| path.exists()).filter(|_| !self.force) {
                return Err(Failure::other(format!(
                    "{} exists already; nothing was written: give --force or another --out",
                    there.display()
                )));
            }
            for (path, content, mode) in files {
                write_atomic(&path, content.as_bytes(), mode)
                    .map_err(|e| Failure::other(format!("{} can't be written: {e}", path.display())))?;
                written.push(path);
            }
        }
        let mut output = std::io::stdout().lock();
        let text =
            if self.json { as_json(&translation, &written) } else { as_tables(&translation, &written, &self.file) };
        let _ = output.write_all(text.as_bytes());
        Ok(())
    }
}

fn value<'a>(name: &str, value: &'a str) -> &'a str {
    if mtx::is_secret(name) && !value.is_empty() { "***" } else { value }
}

/// What became of it, without a secret that stands in it.
fn became(parameter: &mtx::Understood, text: &str) -> String {
    let secret = mtx::is_secret(parameter.name()) && !parameter.value.is_empty();
    if secret { text.replace(&format!("\"{}\"", parameter.value), "***") } else { text.to_owned() }
}

fn as_tables(translation: &Translation, written: &[PathBuf], file: &Path) -> String {
    let row = |(parameter, outcome): &(mtx::Understood, mtx::Outcome)| {
        let name = if parameter.name() == parameter.spelled {
            parameter.spelled.clone()
        } else {
            format!("{} ({})", parameter.spelled, parameter.name())
        };
        vec![
            parameter.line.to_string(),
            table::printable(&name),
            table::printable(value(parameter.name(), &parameter.value)),
            outcome.fate.word().to_owned(),
            table::printable(&became(parameter, &outcome.became)),
        ]
    };
    let rows: Vec<_> = translation.parameters.iter().map(row).collect();
    let mut text = table::render(&["line", "name", "value", "fate", "what it became, or why not"], &rows);
    let counted = |fate: Fate| translation.parameters.iter().filter(|(_, outcome)| outcome.fate == fate).count();
    let counts: Vec<_> = [Fate::Used, Fate::Mapped, Fate::Ignored, Fate::Unknown]
        .into_iter()
        .map(|fate| format!("{} {}", counted(fate), fate.word()))
        .collect();
    text.push_str(&format!("\n{}: {}\n", file.display(), counts.join(", ")));
    for lint in &translation.lints {
        let word = if lint.warning { "warning" } else { "note" };
        let place = if lint.line == 0 { String::new() } else { format!(":{}", lint.line) };
        text.push_str(&format!("{}{place}: {word}: {}\n", file.display(), table::printable(&lint.message)));
    }
    for path in written {
        text.push_str(&format!("written: {}\n", path.display()));
    }
    text
}

fn as_json(translation: &Translation, written: &[PathBuf]) -> String {
    let parameters: Vec<_> = translation
        .parameters
        .iter()
        .map(|(parameter, outcome)| {
            json!({
                "line": parameter.line,
                "spelled": parameter.spelled,
                "name": parameter.name(),
                "value": value(parameter.name(), &parameter.value),
                "fate": outcome.fate.word(),
                "became": became(parameter, &outcome.became),
            })
        })
        .collect();
    let lints: Vec<_> = translation
        .lints
        .iter()
        .map(|lint| {
            let line = (lint.line > 0).then_some(lint.line);
            json!({ "line": line, "severity": if lint.warning { "warning" } else { "note" }, "message": lint.message })
        })
        .collect();
    let written: Vec<_> = written.iter().map(|path| path.display().to_string()).collect();
    format!("{}\n", json!({ "parameters": parameters, "lints": lints, "written": written }))
}
