//! What a tunnel with `trace = true` has written, shown as a trace of now is.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::show::Show;
use crate::agent::recorded;
use crate::cli::failure::Failure;

/// Everything that is recorded of a port, the oldest first; times go on where the agent was started anew.
pub(super) fn shown(store: &Path, port: &str, show: &mut Show) -> Result<String, Failure> {
    let file = recorded(store, port);
    let mut text = String::new();
    let (mut before, mut last, mut events) = (0, 0, 0);
    for path in [file.with_extension("1"), file.clone()] {
        let content = match std::fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(Failure::other(format!("{} can't be read: {error}", path.display()))),
        };
        let lines = String::from_utf8_lossy(&content);
        for mut event in lines.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok()) {
            let at = event.get("at").and_then(Json::as_u64).unwrap_or(0);
            if before + at < last {
                before = last;
            }
            last = before + at;
            if events == 0 {
                let from = event.get("time").and_then(Json::as_str).unwrap_or_default();
                text += &show.event(&json!({ "at": 0, "what": format!("recorded from {from} on") }));
            }
            if let Some(at) = event.get_mut("at") {
                *at = json!(last);
            }
            events += 1;
            text += &show.event(&event);
        }
    }
    if events == 0 {
        let sentence = format!("nothing is recorded of port \"{port}\"; set trace = true in its [[tunnel]]");
        return Err(Failure::other(sentence));
    }
    Ok(text + &show.flush())
}
