//! `weir decode HEX`: a frame in words.

use std::cell::RefCell;
use std::io::{BufRead, Read, Write};
use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use data_encoding::HEXLOWER_PERMISSIVE;

use super::failure::{Failure, OTHER};
use super::table;
use crate::os::file;
use crate::wire::dlms::open;
use crate::wire::dlms::secret::Secret;
use crate::wire::explain::{Explainer, Explanation, Format};
use crate::wire::wmbus::{Keys, LARGEST_FILE};

/// Lines longer than this are no telegram.
const LONGEST_LINE: usize = 1 << 16;

/// Explain a frame layer by layer.
///
/// Takes wireless M-Bus telegrams (with or without link CRCs), OpenlinkIQ's frames on the air and the MBAL
/// frames in them, frames of wired M-Bus, and DLMS/COSEM in HDLC, M-Bus or wrapper frames or as it is. Without HEX it reads
/// one a line from standard input and answers each by one JSON object a line; a bad one does not stop the rest.
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
    keys: GivenKeys,

    /// Print one JSON object, {"error": ...} for a bad frame; always so for lines from standard input.
    #[arg(long)]
    json: bool,
}

impl Decode {
    pub(super) fn run(self) -> Result<(), Failure> {
        let format = self.format.as_deref().and_then(Format::parse);
        let explainer = RefCell::new(self.keys.explainer().map_err(Failure::usage)?);
        let explain = |hex: &str| decode(hex, format, &explainer);
        let sound = if self.hex.is_empty() {
            lines(&mut std::io::stdin().lock(), &mut std::io::stdout().lock(), explain)
                .map_err(|e| Failure::other(format!("standard input or output: {e}")))?
        } else {
            self.one(explain(&self.hex.concat()))
        };
        if sound { Ok(()) } else { Err(Failure::silent(OTHER)) }
    }

    /// Prints the explanation, or why there is none.
    fn one(&self, found: Result<Explanation, String>) -> bool {
        let mut out = std::io::stdout().lock();
        let sound = found.is_ok();
        // Whoever closed the output wants to hear no more.
        let _ = match found {
            found if self.json => writeln!(out, "{}", object(found)),
            Ok(explanation) => writeln!(out, "{explanation}"),
            Err(sentence) => writeln!(std::io::stderr(), "weir: {}", table::printable(&sentence)),
        };
        sound
    }
}

fn object(found: Result<Explanation, String>) -> serde_json::Value {
    found.map_or_else(|sentence| serde_json::json!({ "error": sentence }), |explanation| explanation.to_json())
}

/// Answers each line that is not empty by one JSON object; tells whether all were sound.
fn lines(
    input: &mut impl BufRead,
    out: &mut impl Write,
    explain: impl Fn(&str) -> Result<Explanation, String>,
) -> std::io::Result<bool> {
    let (mut line, mut sound) = (Vec::new(), true);
    loop {
        line.clear();
        if input.take(LONGEST_LINE as u64 + 1).read_until(b'\n', &mut line)? == 0 {
            return Ok(sound);
        }
        if line.len() > LONGEST_LINE && !line.ends_with(b"\n") {
            input.skip_until(b'\n')?;
        }
        // As bytes: a line that is no text is a bad line, not the end.
        let text = String::from_utf8_lossy(&line);
        if text.trim().is_empty() {
            continue;
        }
        let found = explain(&text);
        sound &= found.is_ok();
        match writeln!(out, "{}", object(found)) {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(sound),
            written => written?,
        }
    }
}

fn decode(hex: &str, format: Option<Format>, explainer: &RefCell<Explainer>) -> Result<Explanation, String> {
    if hex.len() > LONGEST_LINE {
        return Err("the line is too long for a frame".to_owned());
    }
    // The last is the mark that some editors begin a file with.
    let blank = |c: &char| c.is_whitespace() || matches!(c, ':' | '_' | '|' | '\u{FEFF}');
    let digits: String = hex.chars().filter(|c| !blank(c)).collect();
    let digits = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")).unwrap_or(&digits);
    if let Some((at, wrong)) = digits.chars().enumerate().find(|(_, c)| !c.is_ascii_hexdigit()) {
        return Err(format!("'{wrong}' (character {}) is no hex digit; give the frame's bytes as 0-9 and A-F", at + 1));
    }
    let bytes = HEXLOWER_PERMISSIVE
        .decode(digits.as_bytes())
        .map_err(|_| format!("{} hex digits are no whole bytes; one digit is missing or too many", digits.len()))?;
    explainer.borrow_mut().explain(&bytes, format).map_err(|e| e.to_string())
}

/// The keys to open frames with; never shown.
#[derive(Args)]
struct GivenKeys {
    /// The meter's key, in 32 hex digits, or a file of keys as `keys_file` of `[[radio]]` names it; for DLMS the encryption
    /// key (64 digits with security suite 2).
    #[arg(long, value_name = "KEY", conflicts_with = "key_file")]
    key: Option<String>,

    /// A file with that key alone; it keeps it out of the shell's history.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,

    /// DLMS: the authentication key, 32 hex digits (64 with suite 2), to verify tags.
    #[arg(long, value_name = "KEY", conflicts_with = "auth_key_file")]
    auth_key: Option<String>,

    /// A file with that key.
    #[arg(long, value_name = "FILE")]
    auth_key_file: Option<PathBuf>,

    /// DLMS: the system title of the sender, 16 hex digits, for messages that don't tell it (glo-get-response and the like)
    /// without the AARQ and AARE before them.
    #[arg(long, value_name = "TITLE")]
    title: Option<String>,
}

impl std::fmt::Debug for GivenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GivenKeys")
    }
}

impl GivenKeys {
    /// What explains with them, or what is wrong with one without repeating it.
    fn explainer(&self) -> Result<Explainer, String> {
        let alone = match &self.key_file {
            Some(path) => Some(read("--key-file", path)?),
            None => self.key.as_deref().and_then(key),
        };
        let authentication = match (&self.auth_key, &self.auth_key_file) {
            (Some(text), _) => {
                Some(key(text).ok_or_else(|| "--auth-key is no key: give 32 hexadecimal digits, or 64".to_owned())?)
            }
            (None, Some(path)) => Some(read("--auth-key-file", path)?),
            (None, None) => None,
        };
        let dlms = match (&alone, &authentication) {
            (None, Some(_)) => return Err("--auth-key verifies what --key opens; give --key too".to_owned()),
            (Some(one), Some(other)) if one.bytes().len() != other.bytes().len() => {
                return Err("--key and --auth-key are of two security suites: give 32 digits each, or 64".to_owned());
            }
            (Some(one), other) => open::Keys::of(one.bytes(), other.as_ref().map(Secret::bytes)),
            (None, None) => None,
        };
        let radio = match (&alone, &self.key) {
            (Some(key), _) => key.bytes().try_into().map_or_else(|_| Keys::none(), Keys::for_any),
            (None, Some(path)) => many(path)?,
            (None, None) => Keys::none(),
        };
        Ok(Explainer::new(radio).with_dlms(dlms).with_title(self.title.as_deref().map(title).transpose()?))
    }
}

/// A key of 32 hexadecimal digits, or of the 64 of security suite 2.
fn key(text: &str) -> Option<Secret> {
    let long = || HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().filter(|bytes| bytes.len() == 32);
    Keys::key(text).map(|key| key.to_vec()).or_else(long).map(Secret::new)
}

fn title(text: &str) -> Result<[u8; open::TITLE], String> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| "--title is no system title: give 16 hexadecimal digits".to_owned())
}

/// A file with one key.
fn read(name: &str, path: &std::path::Path) -> Result<Secret, String> {
    let text = file::read_small(path, 256).map_err(|e| format!("{name} {}: {e}", path.display()))?;
    let found = std::str::from_utf8(&text).ok().and_then(|text| key(text.trim()));
    found.ok_or_else(|| format!("{name} {}: is no key, which is 32 hexadecimal digits, or 64", path.display()))
}

/// A file of many meters' keys. What was given may be a key with a mistake: it is not repeated.
fn many(path: &str) -> Result<Keys, String> {
    let text = file::read_small(path.as_ref(), LARGEST_FILE)
        .map_err(|e| format!("--key is neither 32 hex digits nor a file that can be read: {e}"))?;
    let (keys, faults) = Keys::parse(&String::from_utf8_lossy(&text));
    match faults.first() {
        None => Ok(keys),
        Some(fault) => Err(format!("the file of keys: {fault}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(input: &[u8]) -> (bool, Vec<serde_json::Value>) {
        let mut out = Vec::new();
        let explainer = RefCell::new(Explainer::new(Keys::none()));
        let sound = lines(&mut &input[..], &mut out, |hex| decode(hex, None, &explainer)).unwrap();
        let text = String::from_utf8(out).unwrap();
        (sound, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    #[test]
    fn each_line_has_one_object_and_a_bad_one_stops_nothing() {
        let (sound, objects) =
            answers(b"e5\n\n\xEF\xBB\xBF0b 44 2d2c 78563412 1b16 a001\r\n zz\n\xFF\xFE\n0b442d2c785634121b16a001");
        assert!(!sound);
        let errors: Vec<bool> = objects.iter().map(|object| object["error"].is_string()).collect();
        assert_eq!(errors, [true, false, true, true, false]);
        assert_eq!(objects[1]["id"], "12345678");
        assert_eq!(answers(b"\n \n"), (true, vec![]));
    }

    #[test]
    fn a_line_without_an_end_is_one_error_and_no_memory() {
        let mut input = vec![b'0'; 10 * LONGEST_LINE];
        input.extend(b"\n0b442d2c785634121b16a001\n");
        let (sound, objects) = answers(&input);
        assert_eq!((sound, objects.len()), (false, 2));
        assert!(objects[0]["error"].as_str().unwrap().contains("too long") && objects[1]["error"].is_null());
    }

    #[test]
    fn a_reader_that_leaves_ends_it_without_a_fault() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let endless = std::iter::repeat_n(b"e5\n", 1000).flatten().copied().collect::<Vec<u8>>();
        let explainer = RefCell::new(Explainer::new(Keys::none()));
        assert!(!lines(&mut &endless[..], &mut Closed, |hex| decode(hex, None, &explainer)).unwrap());
    }
}
