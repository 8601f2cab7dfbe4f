//! `weir decode HEX`: a frame in words.

use std::cell::RefCell;
use std::io::{BufRead, Write};

use clap::Args;
use clap::builder::PossibleValuesParser;
use data_encoding::HEXLOWER_PERMISSIVE;

use super::failure::{Failure, OTHER};
use super::table;
use crate::os::file;
use crate::wire::explain::{Explainer, Explanation, Format};
use crate::wire::wmbus::{Keys, LARGEST_FILE};

/// Lines longer than this are no telegram.
const LONGEST_LINE: usize = 1 << 16;

/// Explain a frame layer by layer.
///
/// Takes wireless M-Bus telegrams (with or without link CRCs), MBAL frames and frames of wired
/// M-Bus. Without HEX it reads one a line from standard input and explains each; a bad one does not stop the rest.
/// Exits with 1 when a frame could not be explained.
#[derive(Debug, Args)]
pub(super) struct Decode {
    /// The frame in hex; spaces, `:` and `_` may stand between digits.
    #[arg(value_name = "HEX")]
    hex: Vec<String>,

    /// What it is; found out by lengths and CRCs when not given.
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(Format::ALL.iter().map(|(word, _)| *word)))]
    format: Option<String>,

    /// The meter's key to open it with, in 32 hex digits, or a file of keys as `keys_file` of [[radio]] names it.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,

    /// Print one JSON object a frame; {"error": ...} for a bad one.
    #[arg(long)]
    json: bool,
}

impl Decode {
    pub(super) fn run(self) -> Result<(), Failure> {
        let format = self.format.as_deref().and_then(Format::parse);
        let explainer = RefCell::new(Explainer::new(self.key.as_deref().map_or(Ok(Keys::none()), keys)?));
        if !self.hex.is_empty() {
            return self.one(&self.hex.concat(), format, &explainer);
        }
        let mut bad = false;
        // As bytes: a line that is no text is a bad line, not the end.
        for line in std::io::stdin().lock().split(b'\n') {
            let line = line.map_err(|e| Failure::other(format!("standard input: {e}")))?;
            let line = String::from_utf8_lossy(&line);
            if !line.trim().is_empty() {
                bad |= self.show(&line, format, &explainer).is_err();
            }
        }
        if bad { Err(Failure::silent(OTHER)) } else { Ok(()) }
    }

    fn one(&self, hex: &str, format: Option<Format>, explainer: &RefCell<Explainer>) -> Result<(), Failure> {
        match self.show(hex, format, explainer) {
            Ok(()) => Ok(()),
            Err(()) => Err(Failure::silent(OTHER)),
        }
    }

    /// Prints the explanation, or why there is none.
    fn show(&self, hex: &str, format: Option<Format>, explainer: &RefCell<Explainer>) -> Result<(), ()> {
        let mut out = std::io::stdout().lock();
        match decode(hex, format, explainer) {
            Ok(explanation) if self.json => {
                let _ = writeln!(out, "{}", explanation.to_json());
            }
            Ok(explanation) => {
                let _ = writeln!(out, "{explanation}");
            }
            Err(sentence) => {
                if self.json {
                    let _ = writeln!(out, "{}", serde_json::json!({ "error": sentence }));
                } else {
                    let _ = writeln!(std::io::stderr(), "weir: {}", table::printable(&sentence));
                }
                return Err(());
            }
        }
        Ok(())
    }
}

fn decode(hex: &str, format: Option<Format>, explainer: &RefCell<Explainer>) -> Result<Explanation, String> {
    if hex.len() > LONGEST_LINE {
        return Err("the line is too long for a frame".to_owned());
    }
    let digits: String = hex.chars().filter(|c| !c.is_whitespace() && !matches!(c, ':' | '_' | '|')).collect();
    let digits = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")).unwrap_or(&digits);
    if let Some((at, wrong)) = digits.chars().enumerate().find(|(_, c)| !c.is_ascii_hexdigit()) {
        return Err(format!("'{wrong}' (character {}) is no hex digit; give the frame's bytes as 0-9 and A-F", at + 1));
    }
    let bytes = HEXLOWER_PERMISSIVE
        .decode(digits.as_bytes())
        .map_err(|_| format!("{} hex digits are no whole bytes; one digit is missing or too many", digits.len()))?;
    explainer.borrow_mut().explain(&bytes, format).map_err(|e| e.to_string())
}

/// The keys that `--key` gives: one, or those of a file.
fn keys(given: &str) -> Result<Keys, Failure> {
    if let Some(key) = Keys::key(given) {
        return Ok(Keys::for_any(key));
    }
    // What was given may be a key with a mistake: it is not repeated.
    let text = file::read_small(given.as_ref(), LARGEST_FILE)
        .map_err(|e| Failure::usage(format!("--key is neither 32 hex digits nor a file that can be read: {e}")))?;
    let (keys, faults) = Keys::parse(&String::from_utf8_lossy(&text));
    match faults.first() {
        None => Ok(keys),
        Some(fault) => Err(Failure::usage(format!("the file of keys: {fault}"))),
    }
}
