//! Reads what a head-end has kept: signed lines, messages as mosquitto_sub prints them, numbers.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli::failure::Failure;
use crate::model::Sequence;
use crate::store::manifest::{ManifestError, Signed};

/// What came in of a gateway's numbers.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    pub(super) numbers: Vec<Sequence>,
    pub(super) repeats: u64,
    /// Lines that are neither messages nor numbers.
    pub(super) unreadable: u64,
}

/// The manifests in `files`, in the order they stand there.
pub(super) fn manifests(files: &[PathBuf]) -> Result<Vec<Signed>, Failure> {
    let mut found = Vec::new();
    for path in files {
        lines(path, |at, line| {
            let wrong = |e: ManifestError| Failure::other(format!("{}:{at}: {e}", path.display()));
            let value: Value = serde_json::from_str(payload(line)).map_err(|_| wrong(ManifestError::Line))?;
            for signed in signed_in(&value) {
                found.push(signed.map_err(wrong)?);
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// A manifest's number as its text has it, verified or not.
pub(super) fn number(signed: &Signed) -> u64 {
    let text: Option<Value> = serde_json::from_str(&signed.text).ok();
    text.and_then(|t| t.get("number")?.as_u64()).unwrap_or(u64::MAX)
}

/// The numbers of `gateway` in what arrived from it, and in what others have carried.
pub(super) fn arrived(gateway: &str, received: &[PathBuf], carried: &[PathBuf]) -> Result<Arrived, Failure> {
    let mut all = Arrived::default();
    for (path, own) in received.iter().map(|p| (p, true)).chain(carried.iter().map(|p| (p, false))) {
        lines(path, |_, line| {
            all.line(line, gateway, own);
            Ok(())
        })?;
    }
    Ok(all)
}

impl Arrived {
    fn line(&mut self, line: &str, gateway: &str, own: bool) {
        let value: Option<Value> = serde_json::from_str(payload(line)).ok();
        match value {
            Some(Value::Number(number)) if own && number.is_u64() => self.numbers.extend(number.as_u64()),
            Some(Value::Object(message)) => {
                for meta in
                    message.get("frames").and_then(Value::as_array).into_iter().flatten().filter_map(|f| f.get("meta"))
                {
                    let sequence = |at: &Value| at.get("sequence").and_then(Value::as_u64);
                    self.numbers.extend(sequence(meta).filter(|_| own));
                    let origin =
                        meta.get("origin").filter(|o| o.get("gateway").and_then(Value::as_str) == Some(gateway));
                    self.numbers.extend(origin.and_then(sequence));
                }
            }
            _ => self.unreadable += 1,
        }
    }
}

/// A line of `mosquitto_sub -v` has the topic before the payload.
fn payload(line: &str) -> &str {
    let line = line.trim();
    match line.find('{') {
        Some(at) if !line.starts_with(['{', '[']) => line.get(at..).unwrap_or(line),
        _ => line,
    }
}

/// A signed line, or every manifest of a message; nothing in any other object.
fn signed_in(value: &Value) -> Vec<Result<Signed, ManifestError>> {
    let one = |v: &Value| match v {
        Value::String(line) => Signed::parse(line),
        other => Signed::parse(&other.to_string()),
    };
    match (value.get("frames").and_then(Value::as_array), value) {
        (Some(frames), _) => frames
            .iter()
            .filter(|f| f.get("frametype").and_then(Value::as_str) == Some("Manifest"))
            .map(|f| f.get("manifest").map_or(Err(ManifestError::Line), one))
            .collect(),
        (None, Value::Object(members)) if members.contains_key("manifest") => vec![one(value)],
        (None, Value::Object(_)) => Vec::new(),
        _ => vec![Err(ManifestError::Line)],
    }
}

/// Passes every line of a file that is not empty to `take`, with its number.
fn lines(path: &Path, mut take: impl FnMut(usize, &str) -> Result<(), Failure>) -> Result<(), Failure> {
    let wrong = |e: std::io::Error| Failure::other(format!("{}: {e}", path.display()));
    let file = File::open(path).map_err(wrong)?;
    for (at, line) in (1..).zip(BufReader::new(file).split(b'\n')) {
        let line = line.map_err(wrong)?;
        let line = String::from_utf8_lossy(&line);
        if !line.trim().is_empty() {
            take(at, &line)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(lines: &[&str], own: bool) -> (Vec<u64>, u64) {
        let mut all = Arrived::default();
        lines.iter().for_each(|line| all.line(line, "KAM1", own));
        (all.numbers, all.unreadable)
    }

    #[test]
    fn numbers_are_read_from_messages_with_or_without_topic_and_from_plain_lines() {
        let message = r#"{"version":1,"frames":[{"meta":{"sequence":4}},{"meta":{"sequence":5}},{"meta":{}}]}"#;
        let lines = ["17", message, &format!("/device/KAM1/data {message}"), "{\"connected\":1}", "rubbish", "-3"];
        assert_eq!(taken(&lines, true), (vec![17, 4, 5, 4, 5], 2));
    }

    #[test]
    fn a_frame_that_another_gateway_carried_counts_by_its_origin_only() {
        let carried = r#"{"version":1,"frames":[{"meta":{"sequence":900,"origin":{"gateway":"KAM1","sequence":7}}},
            {"meta":{"sequence":901,"origin":{"gateway":"KAM3","sequence":8}}},{"meta":{"sequence":902}}]}"#;
        assert_eq!(taken(&[carried], false), (vec![7], 0));
        assert_eq!(taken(&[carried], true), (vec![900, 7, 901, 902], 0));
    }
}
