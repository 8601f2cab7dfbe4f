//! What hardware weir runs on: turns names such as `rs485-1` into devices, from `boards/*.toml`.
//!
//! The boards known when weir was built are inside the binary; a file in `/etc/weir/boards` adds
//! one, or replaces the built-in one of its name. Invariants: boards are data, so no code knows
//! one by name; a file with a mistake is refused whole, with every mistake's line and column.
//! It never opens a device. Start reading at [`load`].

mod description;

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::os::file;
use crate::setting::{Node, Problem, Problems, Setting, Shape};

pub use description::{Adc, Description, Gpio, Led, Port, Turn, Way};

/// Where boards are added on a gateway.
pub const DIRECTORY: &str = "/etc/weir/boards";

/// The boards inside the binary.
const BUILT_IN: &[(&str, &str)] = &[
    ("beaglebone", include_str!("../../boards/beaglebone.toml")),
    ("generic", include_str!("../../boards/generic.toml")),
    ("rpi-cm4", include_str!("../../boards/rpi-cm4.toml")),
];

/// The most bytes of a board's file.
const LARGEST_FILE: u64 = 64 << 10;

/// A board with its name.
#[derive(Debug, Clone)]
pub struct Board {
    /// The file's name without `.toml`.
    pub name: String,
    /// The file it was read from; `None` when it is built in.
    pub file: Option<PathBuf>,
    /// What the file says.
    pub description: Description,
}

/// Why there is no such board.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// Nobody described it.
    #[error(
        "no board is called \"{name}\"; known are {known}; describe a new one in {}/{name}.toml",
        directory.display()
    )]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
        /// Where a new one belongs.
        directory: PathBuf,
    },
    /// The name can't be a file's name.
    #[error("\"{0}\" can't be a board's name; use small letters, digits and dashes")]
    Name(String),
    /// Its file could not be read.
    #[error("cannot read {}: {source}; check that weir may read it", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its file has mistakes.
    #[error("{file} describes no board: {}", listed(problems))]
    Wrong {
        /// The file.
        file: String,
        /// Every mistake with its place.
        problems: Vec<Problem>,
    },
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Board {
    /// The port that weir.toml calls `name`.
    pub fn port(&self, name: &str) -> Option<&Port> {
        self.description.port.iter().find(|port| port.name == name)
    }

    /// The board's serial number as far as it can stand in a topic or client id: letters, digits,
    /// dashes, underscores and dots. `None` when the board has none.
    pub fn serial_number(&self) -> Option<String> {
        identity(self.description.serial_number.as_deref()?)
    }
}

/// The operating system's own id, for boards without a serial number.
pub fn machine_id() -> Option<String> {
    identity(Path::new("/etc/machine-id"))
}

/// Reads an identity: device tree texts end in a NUL, files in a line feed; one of only zeros
/// was never programmed.
fn identity(path: &Path) -> Option<String> {
    let content = file::read_small(path, 256).ok()?;
    let text = String::from_utf8(content).ok()?;
    let usable: String = text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect();
    usable.chars().any(|c| c != '0').then_some(usable)
}

/// Finds a board by name, added ones first.
///
/// # Errors
/// [`BoardError`]: no such name, or the file added for it can't be used.
pub fn load(name: &str) -> Result<Board, BoardError> {
    load_from(name, Path::new(DIRECTORY))
}

/// Finds a board by name, with the added ones in `directory`.
///
/// # Errors
/// As [`load`].
pub fn load_from(name: &str, directory: &Path) -> Result<Board, BoardError> {
    if !is_name(name) {
        return Err(BoardError::Name(name.to_owned()));
    }
    let file = directory.join(format!("{name}.toml"));
    match file::read_small(&file, LARGEST_FILE) {
        Ok(content) => {
            let description = parse(&String::from_utf8_lossy(&content))
                .map_err(|problems| BoardError::Wrong { file: file.display().to_string(), problems })?;
            Ok(Board { name: name.to_owned(), file: Some(file), description })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => built_in(name).unwrap_or_else(|| {
            let known = names(directory).join(", ");
            Err(BoardError::Unknown { name: name.to_owned(), known, directory: directory.to_owned() })
        }),
        Err(source) => Err(BoardError::Unreadable { file, source }),
    }
}

fn built_in(name: &str) -> Option<Result<Board, BoardError>> {
    let (name, text) = BUILT_IN.iter().find(|(known, _)| *known == name)?;
    let board = |description| Board { name: (*name).to_owned(), file: None, description };
    let wrong = |problems| BoardError::Wrong { file: format!("the built-in boards/{name}.toml"), problems };
    Some(parse(text).map(board).map_err(wrong))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The names of all boards, built in and added, in order.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "toml") {
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).filter(|n| is_name(n)).map(str::to_owned));
        }
    }
    names.sort();
    names.dedup();
    names
}

/// All boards that can be used, in order of their names; an added file with mistakes is logged
/// and left out.
pub fn all() -> Vec<Board> {
    let (boards, wrong) = survey(Path::new(DIRECTORY));
    for error in wrong {
        tracing::warn!(%error, "a board's file cannot be used");
    }
    boards
}

/// All boards with the added ones in `directory`, and what is wrong with those left out.
pub fn survey(directory: &Path) -> (Vec<Board>, Vec<BoardError>) {
    let mut boards = Vec::new();
    let mut wrong = Vec::new();
    for name in names(directory) {
        match load_from(&name, directory) {
            Ok(board) => boards.push(board),
            Err(error) => wrong.push(error),
        }
    }
    (boards, wrong)
}

/// Reads a board's file.
///
/// # Errors
/// Every mistake with its line and column.
pub fn parse(text: &str) -> Result<Description, Vec<Problem>> {
    let mut problems = Problems::new();
    let (document, mistakes) = DeTable::parse_recoverable(text);
    for mistake in mistakes {
        problems.syntax(mistake.span(), mistake.message().to_owned());
    }
    let span = document.span();
    let root = DeValue::Table(document.into_inner());
    let description = Description::read(&Node::new(&root, span, ""), &mut problems);
    if let Some(description) = description.as_ref().filter(|_| !problems.has_errors()) {
        check(description, &mut problems);
    }
    match description {
        Some(description) if !problems.has_errors() => Ok(description),
        _ => Err(problems.located(text)),
    }
}

/// The rules that no single key can check.
fn check(description: &Description, problems: &mut Problems) {
    if description.targets.is_empty() {
        problems.error_overall("targets is empty; name at least one Rust target");
    }
    let lists = [
        ("port", description.port.iter().map(|p| &p.name).collect::<Vec<_>>()),
        ("led", description.led.iter().map(|l| &l.name).collect()),
        ("gpio", description.gpio.iter().map(|g| &g.name).collect()),
        ("adc", description.adc.iter().map(|a| &a.name).collect()),
    ];
    for (kind, mut names) in lists {
        names.sort();
        for pair in names.windows(2) {
            if let [one, other] = pair
                && one == other
            {
                problems
                    .error_overall(format!("two entries of [[{kind}]] are called \"{one}\"; give each its own name"));
            }
        }
    }
}

/// The keys of a board's file as a Markdown table, for boards/README.md.
pub fn schema() -> String {
    let mut out = String::from("| key | what | default |\n| --- | --- | --- |\n");
    rows(&Description::shape(), "", &mut out);
    out
}

fn rows(shape: &Shape, path: &str, out: &mut String) {
    let Shape::Table { fields, .. } = shape else { return };
    for field in fields {
        let key = if path.is_empty() { field.key.to_owned() } else { format!("{path}.{}", field.key) };
        if let Shape::List(element) = &field.shape
            && matches!(**element, Shape::Table { .. })
        {
            rows(element, &format!("[[{key}]]"), out);
            continue;
        }
        let what = field.doc.split_whitespace().collect::<Vec<_>>().join(" ");
        let words = match &field.shape {
            Shape::Choice(words) => {
                words.iter().map(|(word, doc)| format!(" `{word}`: {}", doc.trim())).collect::<String>()
            }
            _ => String::new(),
        };
        let default = match (field.default, field.required) {
            (Some(default), _) => format!("`{default}`"),
            (None, true) => "required".to_owned(),
            (None, false) => "none".to_owned(),
        };
        let _ = writeln!(out, "| `{key}` | {what}{words} | {default} |");
    }
}

#[cfg(test)]
mod tests;
