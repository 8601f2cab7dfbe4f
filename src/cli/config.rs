//! `weir config`: changes of the configuration that go back by themselves, and what became of earlier ones.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

mod seal;

use super::failure::Failure;
use super::{runtime, table};
use crate::agent::change::Changer;
use crate::agent::change::order::{Order, carry_out};
use crate::agent::local::{Client, ClientError, user};
use crate::config;
use crate::config::change::{Origin, Refusal, spoken, store_of};
use crate::os::clock::Clock;
use crate::setting::duration;

/// How often the running agent is asked what became of a change.
const LOOK: Duration = Duration::from_millis(500);
/// An agent that does not answer for so many looks is not waited for any more.
const PATIENCE: u32 = 240;

/// Change the configuration so that it goes back by itself unless it proves itself, and see what became of changes.
///
/// A change is on trial: it is kept when the broker was reached with it and, on ports whose settings changed, a meter
/// answered; else the configuration before is taken again after --confirm, also after a crash or a power cut. The file of
/// --config is never written. Asks the running agent; without one the change is on trial from the next start on.
#[derive(Debug, Args)]
pub(super) struct ConfigCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the configuration that runs, or an earlier one.
    Show {
        /// Its number; default: the one that runs.
        number: Option<u64>,
        /// Mask user names and phone numbers.
        #[arg(long, conflicts_with = "number")]
        masked: bool,
    },
    /// Print the value of a key, such as broker.url or port[rs485-1].baud.
    Get {
        /// Its dotted name (docs/changes.md).
        key: String,
    },
    /// Set keys: `weir config set port[rs485-1].baud 19200`.
    Set {
        /// A key, its value, another key, its value ...
        #[arg(required = true, num_args = 2.., value_names = ["KEY", "VALUE"], allow_negative_numbers = true)]
        pairs: Vec<String>,
        #[command(flatten)]
        how: How,
    },
    /// Remove keys, so that their defaults count, or whole tables such as meter[incomer].
    Unset {
        /// Their dotted names.
        #[arg(required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        how: How,
    },
    /// Take a whole file.
    Apply {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        how: How,
    },
    /// Show the last ten configurations: who, when, why, and what became of them.
    History {
        /// Print one JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Show what differs between two configurations.
    Diff {
        /// The older one; default: the one before.
        from: Option<u64>,
        /// The newer one; default: the one that runs.
        to: Option<u64>,
    },
    /// Take an earlier configuration, on trial like any other; ends a trial at once.
    Rollback {
        /// Its number; default: the last one that was kept, before the one that runs.
        number: Option<u64>,
        #[command(flatten)]
        how: How,
    },
    /// Encrypt the configuration and its secrets at rest, so that only this gateway reads them (docs/locked.md).
    Seal {
        /// Seal with this encrypted credential of systemd (TPM 2.0) instead of a key bound to the board.
        #[arg(long, value_name = "FILE")]
        credential: Option<PathBuf>,
        /// Seal with a key that this PKCS#11 token keeps: 'pkcs11:token=LABEL;id=%01?module-path=/MODULE.so&pin-source=file:/PIN'.
        #[arg(long, value_name = "URI", conflicts_with = "credential")]
        pkcs11: Option<String>,
        /// Other files that weir reads, such as passwords and keys.
        files: Vec<PathBuf>,
    },
    /// Make plain files of them again.
    Unseal {
        /// Other files that were sealed.
        files: Vec<PathBuf>,
    },
}

/// How a change is tried.
#[derive(Debug, Args)]
struct How {
    /// Why, for the history.
    #[arg(long, default_value = "")]
    why: String,
    /// How long it has to prove itself, from 10s to 24h; default: control.confirm.
    #[arg(long, value_parser = span)]
    confirm: Option<Duration>,
    /// Keep it as soon as weir has started with it: for a gateway whose broker can't be reached yet.
    #[arg(long, conflicts_with = "confirm")]
    now: bool,
    /// Do not wait for what becomes of it.
    #[arg(long)]
    no_wait: bool,
}

fn span(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| "write a duration such as 10m".to_owned())
}

impl How {
    fn json(&self) -> Json {
        json!({ "why": self.why, "confirm_s": self.confirm.map(|span| span.as_secs()), "now": self.now })
    }
}

impl ConfigCommand {
    pub(super) fn run(self, config: PathBuf) -> Result<(), Failure> {
        match &self.command {
            Command::Seal { credential, pkcs11, files } => {
                return seal::seal(&config, credential.clone(), pkcs11.as_deref(), files);
            }
            Command::Unseal { files } => return seal::unseal(&config, files),
            _ => {}
        }
        let base = config::own(&config)?.text;
        let store = store_of(&base)
            .ok_or_else(|| Failure::config(format!("{} does not tell where the store is", config.display())))?;
        let place = Place { base, store };
        match self.command {
            Command::Show { number, masked } => {
                place.print(&json!({ "order": "show", "number": number, "masked": masked }), "text")
            }
            Command::Diff { from, to } => place.print(&json!({ "order": "diff", "from": from, "to": to }), "text"),
            Command::Get { key } => {
                let told = place.ask(&json!({ "order": "get", "key": key }))?;
                match told.get("value").and_then(Json::as_str) {
                    Some(value) => print(&format!("{value}\n")),
                    None => return Err(Failure::other(format!("{key} is unset and has no default"))),
                }
                Ok(())
            }
            Command::History { json } => {
                let told = place.ask(&json!({ "order": "history" }))?;
                print(&if json { format!("{told}\n") } else { history(&told) });
                Ok(())
            }
            Command::Set { pairs, how } => {
                if pairs.len() % 2 != 0 {
                    return Err(Failure::usage("each KEY needs a VALUE; to remove a key: weir config unset KEY"));
                }
                let changes: Vec<_> = pairs.chunks(2).map(|pair| json!(pair)).collect();
                place.change(&json!({ "order": "set", "changes": changes, "how": how.json() }), &how)
            }
            Command::Unset { keys, how } => {
                let changes: Vec<_> = keys.iter().map(|key| json!([key, null])).collect();
                place.change(&json!({ "order": "set", "changes": changes, "how": how.json() }), &how)
            }
            Command::Apply { file, how } => {
                let source = config::source(&file)?;
                source.parse().map_err(|problems| config::ConfigError::Wrong { path: file, problems })?;
                let text = source.text;
                place.change(&json!({ "order": "apply", "text": text, "how": how.json() }), &how)
            }
            Command::Rollback { number, how } => {
                place.change(&json!({ "order": "rollback", "number": number, "how": how.json() }), &how)
            }
            // Done above, where the file need not be readable.
            Command::Seal { .. } | Command::Unseal { .. } => Ok(()),
        }
    }
}

/// A word beside what was asked for.
fn note(sentence: &str) {
    let _ = writeln!(std::io::stderr(), "{sentence}");
}

fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn history(told: &Json) -> String {
    let text = |entry: &Json, key: &str| {
        entry.get(key).map_or_else(String::new, |value| match value {
            Json::String(text) => table::printable(text),
            Json::Null => String::new(),
            other => other.to_string(),
        })
    };
    let row = |entry: &Json| {
        let (outcome, reason) = (text(entry, "outcome"), text(entry, "reason"));
        let outcome = if reason.is_empty() { outcome } else { format!("{outcome}: {reason}") };
        vec![text(entry, "number"), text(entry, "at"), text(entry, "who"), outcome, text(entry, "why")]
    };
    let rows: Vec<_> = told.as_array().into_iter().flatten().map(row).collect();
    table::render(&["number", "time", "who", "outcome", "why"], &rows)
}

/// The gateway: its base file and its store.
struct Place {
    base: String,
    store: PathBuf,
}

impl Place {
    /// Asks the running agent.
    fn running(&self, order: &Json) -> Result<Json, ClientError> {
        let mut question = order.clone();
        if let Some(members) = question.as_object_mut() {
            members.insert("ask".into(), json!("config"));
        }
        Client::connect(&self.store).and_then(|mut agent| agent.ask(&question))
    }

    /// Asks the running agent, or looks without one.
    fn ask(&self, order: &Json) -> Result<Json, Failure> {
        match self.running(order) {
            Err(ClientError::NotRunning(_)) => {
                let changer = Changer::look(&self.base, &self.store, Clock::system());
                self.offline(&changer.map_err(|e| Failure::other(e.to_string()))?, order)
            }
            told => told.map_err(|e| Failure::other(e.to_string())),
        }
    }

    fn offline(&self, changer: &Changer, order: &Json) -> Result<Json, Failure> {
        let order: Order = serde_json::from_value(order.clone()).map_err(|e| Failure::other(e.to_string()))?;
        let who = Origin::local(&user(rustix::process::geteuid().as_raw()));
        let told = runtime()?.block_on(carry_out(changer, order, who));
        told.map(|(told, _)| told).map_err(Failure::other)
    }

    fn print(&self, order: &Json, what: &str) -> Result<(), Failure> {
        let told = self.ask(order)?;
        print(told.get(what).and_then(Json::as_str).unwrap_or_default());
        Ok(())
    }

    /// Has something changed and waits for what becomes of it.
    fn change(&self, order: &Json, how: &How) -> Result<(), Failure> {
        let told = match self.running(order) {
            Err(ClientError::NotRunning(_)) => {
                owned(&self.store)?;
                match Changer::open(&self.base, &self.store, Clock::system()) {
                    Ok(changer) => {
                        let told = self.offline(&changer, order)?;
                        let sentence = told.get("sentence").and_then(Json::as_str).unwrap_or_default();
                        print(&format!("{sentence}; no agent runs, so its time begins with the next start\n"));
                        return Ok(());
                    }
                    // One that was just starting has it, and answers by now.
                    Err(held @ Refusal::Held) => self.running(order).map_err(|error| match error {
                        ClientError::NotRunning(_) => Failure::other(held.to_string()),
                        error => Failure::other(error.to_string()),
                    })?,
                    Err(error) => return Err(Failure::other(error.to_string())),
                }
            }
            told => told.map_err(|e| Failure::other(e.to_string()))?,
        };
        let sentence = told.get("sentence").and_then(Json::as_str).unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "{sentence}");
        match told.get("number").and_then(Json::as_u64) {
            Some(number) if !how.no_wait => self.follow(number),
            _ => Ok(()),
        }
    }

    /// Waits for the outcome of a trial; its agent is stopped and started meanwhile.
    fn follow(&self, number: u64) -> Result<(), Failure> {
        let mut shown = Progress { last: String::new(), terminal: std::io::stderr().is_terminal() };
        let mut silent = 0;
        loop {
            match self.running(&json!({ "order": "state", "number": number })) {
                Ok(told) => {
                    silent = 0;
                    let entry = told.get("asked").cloned().unwrap_or(Json::Null);
                    let text = |key: &str| entry.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
                    match text("outcome").as_str() {
                        "on-trial" => shown.show(&told),
                        "went-back" => {
                            shown.end();
                            let reason = text("reason");
                            return Err(Failure::other(format!("configuration {number} went back: {reason}")));
                        }
                        outcome => {
                            shown.end();
                            let reason =
                                if text("reason").is_empty() { String::new() } else { format!(": {}", text("reason")) };
                            print(&format!("configuration {number} is {outcome}{reason}\n"));
                            return Ok(());
                        }
                    }
                }
                Err(error) if silent >= PATIENCE => {
                    shown.end();
                    return Err(Failure::other(format!("{error}; the trial goes on: see weir config history")));
                }
                Err(_) => silent += 1,
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// How the wait is shown: one line that changes on a terminal, else a line for each change.
struct Progress {
    last: String,
    terminal: bool,
}

impl Progress {
    fn show(&mut self, told: &Json) {
        let left = told.pointer("/trial/left_s").and_then(Json::as_u64).unwrap_or(0);
        let waiting = told.pointer("/trial/waiting_for").and_then(Json::as_array).cloned().unwrap_or_default();
        let waiting: Vec<_> = waiting.iter().filter_map(Json::as_str).map(|what| format!(", {what} yet")).collect();
        let waiting = table::printable(&waiting.concat());
        let line = format!("on trial: {} left{waiting}", spoken(Duration::from_secs(left)));
        let mut out = std::io::stderr();
        if self.terminal {
            let _ = write!(out, "\r\u{1b}[K{line}");
            let _ = out.flush();
        } else if self.last != waiting || self.last.is_empty() {
            let _ = writeln!(out, "{line}");
        }
        self.last = if waiting.is_empty() { " ".to_owned() } else { waiting };
    }

    fn end(&self) {
        if self.terminal && !self.last.is_empty() {
            let _ = writeln!(std::io::stderr());
        }
    }
}

/// What is written beside the store must belong to the agent's user.
fn owned(store: &Path) -> Result<(), Failure> {
    let owner = std::fs::metadata(store).map_err(|_| {
        Failure::other(format!("there is no store in {} yet: edit the base file, then start weir", store.display()))
    })?;
    if owner.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(Failure::other(format!(
        "no agent runs, and {} belongs to another user: run this as that user, e.g. with sudo -u weir",
        store.display()
    )))
}
