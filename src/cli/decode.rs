//! `weir decode HEX`: a frame in words.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::PossibleValuesParser;
use data_encoding::HEXLOWER_PERMISSIVE;

use super::failure::{Failure, OTHER};
use super::table;
use crate::os::file;
use crate::wire::dlms::open::Keys;
use crate::wire::explain::{Explanation, Format, explain_with};

/// Lines longer than this are no telegram.
const LONGEST_LINE: usize = 1 << 16;

/// Explain a frame layer by layer.
///
/// Takes wireless M-Bus telegrams (with or without link CRCs), MBAL frames, frames of wired
/// M-Bus, and DLMS/COSEM in HDLC, M-Bus or wrapper frames or as it is. Without HEX it reads one a line from standard input and explains each; a bad one does not stop the rest.
/// Exits with 1 when a frame could not be explained.
#[derive(Debug, Args)]
pub(super) struct Decode {
    /// The frame in hex; spaces, `:` and `_` may stand between digits.
    #[arg(value_name = "HEX")]
    hex: Vec<String>,

    /// What it is; found out by lengths and CRCs when not given.
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(Format::ALL.iter().map(|(word, _)| *word)))]
    format: Option<String>,

    #[command(flatten)]
    keys: DlmsKeys,

    /// Print one JSON object a frame; {"error": ...} for a bad one.
    #[arg(long)]
    json: bool,
}

impl Decode {
    pub(super) fn run(self) -> Result<(), Failure> {
        let format = self.format.as_deref().and_then(Format::parse);
        let keys = self.keys.read().map_err(Failure::usage)?;
        let keys = keys.as_ref();
        if !self.hex.is_empty() {
            return self.one(&self.hex.concat(), format, keys);
        }
        let mut bad = false;
        // As bytes: a line that is no text is a bad line, not the end.
        for line in std::io::stdin().lock().split(b'\n') {
            let line = line.map_err(|e| Failure::other(format!("standard input: {e}")))?;
            let line = String::from_utf8_lossy(&line);
            if !line.trim().is_empty() {
                bad |= self.show(&line, format, keys).is_err();
            }
        }
        if bad { Err(Failure::silent(OTHER)) } else { Ok(()) }
    }

    fn one(&self, hex: &str, format: Option<Format>, keys: Option<&Keys>) -> Result<(), Failure> {
        match self.show(hex, format, keys) {
            Ok(()) => Ok(()),
            Err(()) => Err(Failure::silent(OTHER)),
        }
    }

    /// Prints the explanation, or why there is none.
    fn show(&self, hex: &str, format: Option<Format>, keys: Option<&Keys>) -> Result<(), ()> {
        let mut out = std::io::stdout().lock();
        match decode(hex, format, keys) {
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

fn decode(hex: &str, format: Option<Format>, keys: Option<&Keys>) -> Result<Explanation, String> {
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
    explain_with(&bytes, format, keys).map_err(|e| e.to_string())
}

/// The keys of a meter whose DLMS is ciphered; never shown.
#[derive(Args)]
struct DlmsKeys {
    /// The key that encrypts, 32 hex digits; a file keeps it out of the shell's history.
    #[arg(long, value_name = "HEX", conflicts_with = "key_file")]
    key: Option<String>,

    /// The file with that key.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,

    /// The authentication key, 32 hex digits, to verify tags.
    #[arg(long, value_name = "HEX", conflicts_with = "auth_key_file")]
    auth_key: Option<String>,

    /// The file with that key.
    #[arg(long, value_name = "FILE")]
    auth_key_file: Option<PathBuf>,
}

impl std::fmt::Debug for DlmsKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DlmsKeys")
    }
}

impl DlmsKeys {
    /// The keys that were given, or what is wrong with one without repeating it.
    fn read(&self) -> Result<Option<Keys>, String> {
        let encryption = one("--key", self.key.as_deref(), self.key_file.as_deref())?;
        let authentication = one("--auth-key", self.auth_key.as_deref(), self.auth_key_file.as_deref())?;
        match (encryption, authentication) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err("--auth-key verifies what --key opens; give --key too".to_owned()),
            (Some(encryption), authentication) => Ok(Keys::new(&encryption, authentication.as_ref())),
        }
    }
}

fn one(name: &str, given: Option<&str>, path: Option<&Path>) -> Result<Option<[u8; 16]>, String> {
    let text = match (given, path) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(path)) => {
            file::read_small(path, 256).map_err(|e| format!("{name}-file {}: {e}", path.display()))?
        }
        (None, None) => return Ok(None),
    };
    let bytes = HEXLOWER_PERMISSIVE.decode(text.trim_ascii()).ok();
    let key = bytes.and_then(|bytes| bytes.try_into().ok());
    key.map(Some).ok_or_else(|| format!("{name} is no key: give 32 hexadecimal digits"))
}
