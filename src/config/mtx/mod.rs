//! `config.txt` of the vendor's modems, understood as a weir.toml; and the vendor's names for weir's settings.
//!
//! `understand` (which line counts, what slips of the pen mean) → `build` (parameters to keys, by the one table in `table`
//! and the converters in `form`) → `draft` (text with the line behind each key) → `site` (what only this gateway knows, over it).
//! Invariants: no line is dropped silently; no unknown name stops anything; what a weir.toml can't hold costs its own line
//! only; no secret gets into the text, a `*_file` names where it is; the same files give the same text. Start with [`translate`];
//! [`parameter`] is GETPARAM and SETPARAM.

use std::path::Path;

mod build;
mod draft;
mod form;
mod modbus;
mod page;
pub mod parameter;
mod site;
mod table;
#[cfg(test)]
mod tests;
mod understand;

pub use build::{Fate, Outcome};
pub use page::{rows_of_the_page, without_rows};
pub use site::{FILE as SITE, Site};
pub use table::is_secret;
pub use understand::{Lint, Understood, is_config_txt};

use self::build::{Built, Gateway, build};
use crate::board;
use crate::setting::{Problem, Severity};

/// So many times what a weir.toml can't hold is left out.
const ROUNDS: usize = 8;

/// A config.txt as weir understands it.
#[derive(Debug, Clone)]
pub struct Translation {
    /// The weir.toml that it becomes.
    pub text: String,
    /// Its parameters, and what became of each.
    pub parameters: Vec<(Understood, Outcome)>,
    /// What is told about its lines, in their order.
    pub lints: Vec<Lint>,
    /// The parameters whose values are secrets that a file holds.
    pub secrets: Vec<(String, String)>,
}

impl Translation {
    /// Turns a problem of the text into one of config.txt, where a line of it is to blame.
    pub fn place(&self, problem: Problem) -> Problem {
        let toml = problem.line.checked_sub(1).and_then(|at| self.text.lines().nth(at));
        match toml.and_then(draft::line_of) {
            Some(line) => Problem { line, column: 1, ..problem },
            None => match toml {
                Some(toml) => {
                    let toml = toml.trim();
                    Problem {
                        line: 0,
                        column: 0,
                        message: format!("{} (`{toml}` of what it becomes, or of {SITE})", problem.message),
                        ..problem
                    }
                }
                None => problem,
            },
        }
    }

    /// The warnings among the lints, as problems of config.txt.
    pub fn warnings(&self) -> Vec<Problem> {
        let warning = |lint: &Lint| Problem {
            severity: Severity::Warning,
            line: lint.line,
            column: usize::from(lint.line > 0),
            message: lint.message.clone(),
        };
        self.lints.iter().filter(|lint| lint.warning).map(warning).collect()
    }
}

/// Why nothing usable comes out of a config.txt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "it names no broker that weir can use{why}: weir sends everything to one; write a line such as MQTT_server: ssl://host:8883, or [broker] url into {SITE} beside it"
)]
pub struct NoBroker {
    why: String,
}

impl NoBroker {
    fn of(all: &[Understood], lints: &[Lint]) -> Self {
        let told = lints.iter().find(|lint| lint.message.starts_with("MQTT_server does not count"));
        let off = all.iter().any(|p| p.name() == "MQTT_enabled" && p.value.eq_ignore_ascii_case("off"));
        let why = match (told, off) {
            (Some(lint), _) => format!(" (line {}: {})", lint.line, lint.message),
            (None, true) => " (MQTT_enabled is off)".to_owned(),
            (None, false) => String::new(),
        };
        Self { why }
    }
}

/// Where a secret of a parameter is kept while config.txt itself is what runs: in it.
pub fn inside(file: &Path) -> impl Fn(&str) -> String {
    // The folder only: of a sealed one the file itself is not there.
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = match (folder.canonicalize(), file.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => file.to_owned(),
    };
    move |name| format!("{}#{name}", file.display())
}

/// Translates a config.txt. `secret` says in which file the secret of a parameter is.
///
/// # Errors
/// [`NoBroker`]; nothing else stops it.
pub fn translate(bytes: &[u8], site: &Site, secret: &dyn Fn(&str) -> String) -> Result<Translation, NoBroker> {
    let (all, mut lints) = understand::understand(bytes);
    let name = site.text(&["gateway", "board"]).unwrap_or("generic");
    // A board that is not known is told by the check of the whole.
    let board = board::load(name).ok();
    let own = |board: &board::Board| board.description.port.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
    let modem = site.has(&["modem"]) || board.as_ref().is_some_and(|board| board.description.modem.is_some());
    let imei = site.has(&["gateway", "imei"]) || modem;
    let gateway = Gateway {
        board: name,
        ports: site.ports.clone().or_else(|| board.as_ref().map(own)).unwrap_or_default(),
        modem,
        imei,
        centre: site.tunnel_has(&["connect", "targets"]),
        secret,
    };
    let mut built = build(&all, &gateway);
    if !imei
        && let Some(first) = all.iter().find(|p| p.instead.is_none() && p.value.to_ascii_lowercase().contains("[imei]"))
    {
        let message = format!(
            "the gateway's id stands for [IMEI], as there is no modem to ask: write [gateway] imei or [modem] into {SITE}"
        );
        built.lints.push(Lint::warning(first.line, message));
    }
    let text = rendered(&mut built, &all, site);
    if built.draft.value("broker[1].url").is_none() && !site.has(&["broker"]) {
        return Err(NoBroker::of(&all, &built.lints));
    }
    lints.append(&mut built.lints);
    lints.sort_by_key(|lint| lint.line);
    lints.dedup();
    let is_kept = |p: &&Understood, outcome: &Option<Outcome>| {
        let secret = p.found.as_ref().is_some_and(|f| matches!(f.row.becomes, table::Becomes::Secret(_)));
        secret && outcome.as_ref().is_some_and(|outcome| outcome.fate == Fate::Mapped)
    };
    let kept = all.iter().zip(&built.outcomes).filter(|(p, outcome)| is_kept(p, outcome));
    let secrets = kept.map(|(p, _)| (p.name().to_owned(), p.value.clone())).collect();
    let outcomes = std::mem::take(&mut built.outcomes);
    let empty = || Outcome { fate: Fate::Ignored, became: String::new() };
    let outcomes: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(empty)).collect();
    Ok(Translation { text, parameters: all.into_iter().zip(outcomes).collect(), lints, secrets })
}

/// The text; what a weir.toml can't hold is left out of the draft, and told.
fn rendered(built: &mut Built<'_>, all: &[Understood], site: &Site) -> String {
    let head = "# Made by weir from config.txt: behind each key stands the line that it comes from.\n";
    let mut text = String::new();
    let allowed = |port: &str| site.allows(port);
    for _ in 0..ROUNDS {
        built.guard(&allowed);
        let (rendered, mut blamed) = built.draft.render(all, head);
        text = site.over(&rendered);
        for problem in super::parse(&text).err().unwrap_or_default() {
            let line = problem.line.checked_sub(1).and_then(|at| text.lines().nth(at)).and_then(draft::line_of);
            if let Some(line) = line.filter(|_| problem.severity == Severity::Error) {
                let from = built.draft.blamed(line, &problem.message, all);
                blamed.push((from, problem.message));
            }
        }
        let mut dropped = false;
        for (from, why) in blamed {
            for at in from {
                dropped |= built.draft.forget(at);
                built.reject(at, &why);
            }
        }
        if !dropped {
            break;
        }
    }
    if built.guard(&allowed) {
        text = site.over(&built.draft.render(all, head).0);
    }
    text
}
