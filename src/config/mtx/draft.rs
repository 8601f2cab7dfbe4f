//! The weir.toml that a config.txt becomes: keys with the lines they come from, then text.

use super::form::{elements, list, quoted};
use super::understand::Understood;
use crate::config::edit::{self, Edit};

/// A key that is wanted.
#[derive(Debug, Clone)]
struct Wanted {
    key: String,
    value: String,
    /// Which parameters it comes from.
    from: Vec<usize>,
    /// What else is said behind it.
    note: &'static str,
}

/// A meter, as text.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// Its lines; `@` at the end of one stands for where it comes from.
    pub(super) text: String,
    /// Which parameters it comes from.
    pub(super) from: Vec<usize>,
}

/// What weir.toml is to have.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    wanted: Vec<Wanted>,
    /// The ports, the first one first.
    pub(super) ports: Vec<String>,
    /// The ports that have a tunnel.
    pub(super) tunnels: Vec<String>,
    /// Whether there is a modem.
    pub(super) modem: bool,
    pub(super) blocks: Vec<Block>,
}

/// The tables in the order of the file; lists stand for themselves.
const TABLES: [&str; 5] = ["control", "control.sms", "status", "watchdog", "watchdog.ping"];

impl Draft {
    /// Wants a key; one that is wanted already gets this value and one parameter more that it comes from.
    pub(super) fn set(&mut self, key: &str, value: &str, from: Option<usize>, note: &'static str) {
        match self.wanted.iter_mut().find(|wanted| wanted.key == key) {
            Some(there) => {
                value.clone_into(&mut there.value);
                there.from.extend(from);
            }
            None => self.wanted.push(Wanted {
                key: key.to_owned(),
                value: value.to_owned(),
                from: from.into_iter().collect(),
                note,
            }),
        }
    }

    /// The value that is wanted of a key.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.wanted.iter().find(|wanted| wanted.key == key).map(|wanted| wanted.value.as_str())
    }

    /// The parameters that a complaint about what a line became is about: of a list the elements that it quotes, when it does.
    pub(super) fn blamed(&self, line: usize, complaint: &str, all: &[Understood]) -> Vec<usize> {
        let from_line = |from: &[usize]| from.first().and_then(|at| all.get(*at)).is_some_and(|p| p.line == line);
        // Behind it stands what is right, often with an example.
        let wrong = complaint.split_once(", but ").map_or(complaint, |(wrong, _)| wrong);
        let mut found = Vec::new();
        for wanted in self.wanted.iter().filter(|wanted| from_line(&wanted.from)) {
            let texts = elements(&wanted.value);
            let pairs = wanted.from.iter().zip(&texts).filter(|_| texts.len() == wanted.from.len());
            let quoted = pairs.filter(|(_, text)| wrong.contains(&format!("\"{text}\""))).map(|(at, _)| *at);
            let quoted: Vec<_> = quoted.collect();
            found.extend(if quoted.is_empty() { wanted.from.clone() } else { quoted });
        }
        found.extend(self.blocks.iter().filter(|block| from_line(&block.from)).flat_map(|block| block.from.clone()));
        found
    }

    /// Drops a port's tunnel with all that it has; which parameters that came from.
    pub(super) fn without_tunnel(&mut self, port: &str) -> Vec<usize> {
        self.tunnels.retain(|tunnel| tunnel != port);
        let stem = format!("tunnel[{port}].");
        let is_its = |wanted: &Wanted| wanted.key.starts_with(&stem) || wanted.key == "control.line_ports";
        let (its, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.wanted).into_iter().partition(is_its);
        self.wanted = others;
        its.into_iter().flat_map(|wanted| wanted.from).collect()
    }

    /// Drops what comes from a parameter, of a list only its element; false when nothing does.
    pub(super) fn forget(&mut self, parameter: usize) -> bool {
        let mut dropped = false;
        self.wanted.retain_mut(|wanted| {
            let Some(at) = wanted.from.iter().position(|from| *from == parameter) else { return true };
            dropped = true;
            let mut texts = elements(&wanted.value);
            if texts.len() != wanted.from.len() || texts.len() < 2 {
                return false;
            }
            texts.remove(at);
            wanted.from.remove(at);
            wanted.value = list(texts.iter().map(String::as_str));
            true
        });
        let before = self.blocks.len();
        self.blocks.retain(|block| !block.from.contains(&parameter));
        dropped || self.blocks.len() != before
    }

    /// The text, and the keys that no weir.toml can have, with why.
    pub(super) fn render(&mut self, all: &[Understood], head: &str) -> (String, Vec<(Vec<usize>, String)>) {
        let mut text = self.skeleton(head);
        let mut refused = Vec::new();
        let mut kept = Vec::new();
        for wanted in std::mem::take(&mut self.wanted) {
            match edit::edited(&text, &[Edit::Set(wanted.key.clone(), wanted.value.clone())]) {
                Ok(edited) => {
                    text = edited;
                    kept.push(wanted);
                }
                Err(why) => refused.push((wanted.from, why.to_string())),
            }
        }
        self.wanted = kept;
        (self.annotated(&text, all), refused)
    }

    fn skeleton(&self, head: &str) -> String {
        let mut text = format!("{head}version = 1\n\n[broker]\n");
        for port in &self.ports {
            text.push_str(&format!("\n[[port]]\nname = {}\n", quoted(port)));
        }
        for port in &self.tunnels {
            text.push_str(&format!("\n[[tunnel]]\nport = {}\n", quoted(port)));
        }
        for (number, _) in self.blocks.iter().enumerate() {
            text.push_str(&format!("\n#block {number}\n"));
        }
        if self.modem {
            text.push_str("\n[modem]\n");
        }
        for table in TABLES {
            text.push_str(&format!("\n[{table}]\n"));
        }
        text
    }

    /// Writes behind each key where it comes from, puts the meters in and leaves empty tables out.
    fn annotated(&self, text: &str, all: &[Understood]) -> String {
        let mut out = String::new();
        let mut header = String::new();
        let mut counts = (0usize, 0usize);
        // An empty table's head waits until something stands in it.
        let mut waiting = String::new();
        for line in text.lines() {
            if let Some(number) = line.strip_prefix("#block ") {
                let block = number.parse().ok().and_then(|number: usize| self.blocks.get(number));
                for line in block.into_iter().flat_map(|block| block.text.lines().map(move |line| (line, block))) {
                    match line.0.strip_suffix('@') {
                        Some(plain) => out.push_str(&format!("{plain}{}\n", origin(&line.1.from, all, ""))),
                        None => out.push_str(&format!("{}\n", line.0)),
                    }
                }
                continue;
            }
            if line.starts_with('[') {
                header = line.trim_matches(['[', ']']).to_owned();
                waiting = format!("{line}\n");
                match line {
                    "[[port]]" => counts.0 += 1,
                    "[[tunnel]]" => counts.1 += 1,
                    "[modem]" => out.push_str(&std::mem::take(&mut waiting)),
                    _ => {}
                }
                continue;
            }
            if line.is_empty() {
                if waiting.is_empty() && !out.ends_with("\n\n") {
                    out.push('\n');
                }
                continue;
            }
            out.push_str(&std::mem::take(&mut waiting));
            let member =
                |names: &[String], count: usize| names.get(count.saturating_sub(1)).cloned().unwrap_or_default();
            let table = match header.as_str() {
                "port" => format!("port[{}]", member(&self.ports, counts.0)),
                "tunnel" => format!("tunnel[{}]", member(&self.tunnels, counts.1)),
                "broker" => "broker[1]".to_owned(),
                other => other.to_owned(),
            };
            let key = line.split_once(" = ").map(|(key, _)| format!("{table}.{key}"));
            let wanted = key.and_then(|key| self.wanted.iter().find(|wanted| wanted.key == key));
            out.push_str(line);
            out.push_str(&wanted.map_or_else(String::new, |wanted| origin(&wanted.from, all, wanted.note)));
            out.push('\n');
        }
        format!("{}\n", out.trim_end())
    }
}

/// The comment that tells where a key comes from.
fn origin(from: &[usize], all: &[Understood], note: &str) -> String {
    let parameters: Vec<_> = from.iter().filter_map(|at| all.get(*at)).collect();
    let lines: Vec<_> = parameters.iter().map(|p| p.line.to_string()).collect();
    let names: Vec<_> = parameters.iter().map(|p| p.name().to_owned()).collect();
    let note = if note.is_empty() { String::new() } else { format!("; {note}") };
    match lines.len() {
        0 if note.is_empty() => String::new(),
        0 => format!("  # {}", note.trim_start_matches("; ")),
        1 => format!("  # line {}: {}{note}", lines.concat(), names.concat()),
        _ => format!("  # lines {}: {}{note}", lines.join(", "), names.join(", ")),
    }
}

/// The line of config.txt that a line of the text comes from.
pub(super) fn line_of(text: &str) -> Option<usize> {
    let (_, behind) = text.rsplit_once("  # line")?;
    let digits = behind.strip_prefix("s ").or_else(|| behind.strip_prefix(' '))?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end)?.parse().ok()
}
