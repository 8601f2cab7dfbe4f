//! What a person sees of a scan.

use std::io::Write;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::print;
use crate::cli::table;
use crate::meter::Address;
use crate::meter::scan::{End, Event, Found, Place, configuration};
use crate::os::line::Endpoint;

/// Shows a scan and keeps what it found.
pub(super) struct Screen {
    json: bool,
    terminal: bool,
    /// The meters so far.
    pub(super) found: Vec<Found>,
    warnings: Vec<String>,
    /// Each probe and the ways in which it was tried.
    tried: Vec<(&'static str, Vec<String>)>,
    /// The progress line that stands on the terminal now.
    line: String,
}

impl Screen {
    pub(super) fn new(json: bool, terminal: bool) -> Self {
        Self { json, terminal, found: Vec::new(), warnings: Vec::new(), tried: Vec::new(), line: String::new() }
    }

    /// Tells how long it will take.
    pub(super) fn begin(&mut self, endpoint: &Endpoint, estimate: Duration, limit: Duration) {
        if self.json {
            let object = json!({
                "event": "begin", "port": endpoint.to_string(),
                "estimate_seconds": estimate.as_secs(), "limit_seconds": limit.as_secs(),
            });
            print(&format!("{object}\n"));
            return;
        }
        let bound = if estimate > limit {
            format!("about {}, ended after {} (--limit)", span(estimate), span(limit))
        } else {
            format!("at most about {}", span(estimate))
        };
        self.say(&format!("scanning {endpoint}: {bound}; only reads; Ctrl-C shows what was found so far"));
    }

    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Progress(thousandths, what) => self.progress(thousandths, &what),
            Event::Tried(probe, how) => self.tried(probe, how),
            Event::Warning(sentence) => {
                if self.json {
                    print(&format!("{}\n", json!({ "event": "warning", "message": sentence })));
                } else {
                    self.say(&format!("  ! {}", table::printable(&sentence)));
                }
                self.warnings.push(sentence);
            }
            Event::Found(found) => {
                if self.json {
                    print(&format!("{}\n", object(&found)));
                } else {
                    self.say(&format!("  + {}", line(&found)));
                }
                self.found.push(*found);
            }
        }
    }

    fn tried(&mut self, probe: &'static str, how: String) {
        match self.tried.iter_mut().find(|(name, _)| *name == probe) {
            Some((_, ways)) if ways.contains(&how) => {}
            Some((_, ways)) => ways.push(how),
            None => self.tried.push((probe, vec![how])),
        }
    }

    fn progress(&mut self, thousandths: u32, what: &str) {
        const WIDTH: u32 = 24;
        if !self.terminal || self.json {
            return;
        }
        let full = (thousandths * WIDTH / 1000).min(WIDTH);
        let bar: String = (0..WIDTH).map(|n| if n < full { '#' } else { '.' }).collect();
        // A terminal of 80 columns must not wrap it.
        let what: String = table::printable(what).chars().take(44).collect();
        let line = format!("[{bar}] {:>3} % {what}", thousandths / 10);
        if line != self.line {
            let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
            self.line = line;
        }
    }

    /// Writes a line above the progress.
    fn say(&mut self, text: &str) {
        self.clear();
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    fn clear(&mut self) {
        if !std::mem::take(&mut self.line).is_empty() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    /// Prints the tables to paste, and how it ended.
    pub(super) fn end(&mut self, place: &Place, ended: Option<End>, took: Duration, failed: bool) {
        self.clear();
        let proposal = configuration(place, &self.found);
        let word = match ended {
            Some(End::Finished) => "finished",
            Some(End::OutOfTime) => "out of time",
            None if failed => "failed",
            None => "stopped",
        };
        if self.json {
            let object = json!({
                "event": "end", "how": word, "seconds": took.as_secs_f64().round(), "found": self.found.len(),
                "tried": self.tried.iter().map(|(probe, ways)| ((*probe).to_owned(), json!(ways))).collect::<Map<_, _>>(),
                "warnings": self.warnings.iter().chain(&proposal.warnings).collect::<Vec<_>>(),
                "configuration": if self.found.is_empty() { String::new() } else { proposal.text },
            });
            print(&format!("{object}\n"));
            return;
        }
        let count = match proposal.meters {
            1 => "1 meter".to_owned(),
            n => format!("{n} meters"),
        };
        // The reason follows, when it could not even begin.
        if !(failed && self.found.is_empty() && self.tried.is_empty()) {
            self.say(&format!("{word} after {}: {count}", span(took)));
        }
        for (probe, ways) in &self.tried {
            let _ = writeln!(std::io::stderr(), "  tried {probe}: {}", ways.join(", "));
        }
        for warning in &proposal.warnings {
            let _ = writeln!(std::io::stderr(), "  ! {}", table::printable(warning));
        }
        if !self.found.is_empty() {
            let _ = writeln!(std::io::stderr(), "paste this into weir.toml:\n");
            print(&proposal.text);
        }
    }
}

fn speed(found: &Found) -> String {
    found.at().map_or_else(String::new, |speed| format!(" {speed}"))
}

fn line(found: &Found) -> String {
    let speed = speed(found);
    let address = match (&found.address, &found.own_address) {
        (Some(Address::Number(n)), _) => format!(" address {n}"),
        (Some(Address::Text(text)), _) => format!(" address {text}"),
        (None, Some(own)) => format!(" (address {own})"),
        (None, None) => String::new(),
    };
    let how = if found.answered_in.is_zero() {
        "heard".to_owned()
    } else {
        format!("answered in {} ms", found.answered_in.as_millis())
    };
    table::printable(&format!("{}{speed}{address}: {}, {how}", found.protocol, found.who))
}

fn object(found: &Found) -> Value {
    json!({
        "event": "found", "protocol": found.protocol, "baud": found.speed.baud,
        "framing": found.speed.framing.to_string(), "address": found.address.as_ref().map(ToString::to_string),
        "own_address": found.own_address, "maker": found.who.maker, "model": found.who.model,
        "version": found.who.version, "serial": found.who.serial, "profile": found.profile,
        "answered_ms": found.answered_in.as_millis(), "notes": found.notes,
    })
}

/// A duration as a person says it.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}
