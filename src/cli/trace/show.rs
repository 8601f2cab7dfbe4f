//! How a trace looks: bytes that followed each other without a pause, with their time.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::words::{Way, Words};

/// A pause that ends a burst.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// A burst is shown in parts of this size at the latest.
const LONGEST: usize = 1024;
/// Bytes in a row.
const ROW: usize = 16;

/// Collects events and shows them.
#[derive(Debug)]
pub(super) struct Show {
    words: Words,
    colours: bool,
    json: bool,
    burst: Option<Burst>,
    /// When the burst before ended, in microseconds.
    ended: Option<u64>,
}

#[derive(Debug)]
struct Burst {
    way: Way,
    from: u64,
    to: u64,
    bytes: Vec<u8>,
}

impl Show {
    pub(super) const fn new(words: Words, colours: bool, json: bool) -> Self {
        Self { words, colours, json, burst: None, ended: None }
    }

    /// Whether something waits to be shown.
    pub(super) const fn waits(&self) -> bool {
        self.burst.is_some()
    }

    /// Takes one event as the agent tells it, and returns what can be shown by now.
    pub(super) fn event(&mut self, event: &Json) -> String {
        let at = event.get("at").and_then(Json::as_u64).unwrap_or(0);
        let word = event.get("what").and_then(Json::as_str).unwrap_or_default();
        let way = match word {
            "sent" => Way::Sent,
            "received" => Way::Received,
            _ => return self.flush() + &self.other(at, word, event),
        };
        let hex = event.get("hex").and_then(Json::as_str).unwrap_or_default();
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).unwrap_or_default();
        let joins = self.burst.as_ref().is_some_and(|b| {
            b.way == way && b.bytes.len() < LONGEST && u128::from(at.saturating_sub(b.to)) < PAUSE.as_micros()
        });
        let shown = if joins { String::new() } else { self.flush() };
        let burst = self.burst.get_or_insert_with(|| Burst { way, from: at, to: at, bytes: Vec::new() });
        burst.to = at;
        burst.bytes.extend(bytes);
        shown
    }

    /// Shows what waits.
    pub(super) fn flush(&mut self) -> String {
        let Some(Burst { way, from, to, bytes }) = self.burst.take() else { return String::new() };
        let gap = self.ended.map(|ended| from.saturating_sub(ended));
        self.ended = Some(to);
        let told = self.words.explain(way, &bytes);
        let word = if way == Way::Sent { "sent" } else { "received" };
        if self.json {
            let hex = data_encoding::HEXLOWER.encode(&bytes);
            let object = json!({ "at": from, "until": to, "gap": gap, "what": word, "hex": hex, "decoded": told });
            return format!("{object}\n");
        }
        let arrow = if way == Way::Sent { "->" } else { "<-" };
        let gap = gap.map_or_else(String::new, |gap| format!("  +{}", milliseconds(gap)));
        let head = format!("{} {arrow} {word} {} bytes{gap}", seconds(from), bytes.len());
        let mut text = self.coloured(if way == Way::Sent { "36" } else { "32" }, &head);
        for row in bytes.chunks(ROW) {
            let hex: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
            let _ = writeln!(text, "      {:<47}  {}", hex.join(" "), readable(row));
        }
        for sentence in told {
            text += &self.coloured("2", &format!("      {}", crate::cli::table::printable(&sentence)));
        }
        text
    }

    fn other(&mut self, at: u64, word: &str, event: &Json) -> String {
        if word != "speed" {
            self.words.forget();
        }
        if self.json {
            return format!("{event}\n");
        }
        let speed = event.get("speed").and_then(Json::as_str).unwrap_or_default();
        let sentence = match word {
            "opened" => format!("the port is opened at {speed}"),
            "closed" => "the port is closed".to_owned(),
            "lost" => {
                let why = event.get("why").and_then(Json::as_str).unwrap_or_default();
                format!("the agent is not heard any more ({why}); waiting for it")
            }
            "speed" => format!("the speed is now {speed}"),
            "missed" => {
                let events = event.get("events").and_then(Json::as_u64).unwrap_or(0);
                format!("{events} events were missed: this terminal is too slow")
            }
            other => other.to_owned(),
        };
        self.coloured("33", &format!("{} -- {}", seconds(at), crate::cli::table::printable(&sentence)))
    }

    fn coloured(&self, colour: &str, line: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{line}\x1b[0m\n") } else { format!("{line}\n") }
    }
}

fn seconds(micros: u64) -> String {
    format!("{:>6}.{:04}", micros / 1_000_000, micros % 1_000_000 / 100)
}

fn milliseconds(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}

/// Printable characters as they are, seven bits each: IEC 62056-21 has parity in the eighth.
fn readable(row: &[u8]) -> String {
    let character = |byte: &u8| match byte & 0x7F {
        seven @ 0x20..=0x7E => char::from(seven),
        _ => '.',
    };
    row.iter().map(character).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: u64, what: &str, hex: &str) -> Json {
        json!({ "at": at, "what": what, "hex": hex })
    }

    #[test]
    fn bytes_without_a_pause_are_one_burst_with_its_gap_and_meaning() {
        let mut show = Show::new(Words::new(&["modbus-rtu"]), false, false);
        let mut text = show.event(&json!({ "at": 0, "what": "opened", "speed": "9600 8N1" }));
        text += &show.event(&event(1000, "sent", "010300640002"));
        text += &show.event(&event(2000, "sent", "85d4"));
        text += &show.event(&event(22_000, "received", "01030443"));
        text += &show.event(&event(24_000, "received", "668000"));
        assert!(show.waits());
        text += &show.event(&json!({ "at": 30_000, "what": "closed" }));
        let expected = "     \
     0.0000 -- the port is opened at 9600 8N1
     0.0010 -> sent 8 bytes
      01 03 00 64 00 02 85 d4                          ...d...T
      Modbus unit 1: read holding registers, 2 from 100 on; CRC right
     0.0220 <- received 7 bytes  +20.0 ms
      01 03 04 43 66 80 00                             ...Cf..
      not a whole Modbus frame, or its CRC is wrong (unit 1, function 3, if it is one)
     0.0300 -- the port is closed
";
        assert_eq!(text.trim_start(), expected.trim_start());
        assert!(!show.waits());
    }

    #[test]
    fn colours_come_only_when_wanted_and_json_is_one_object_a_burst() {
        let mut show = Show::new(Words::default(), true, false);
        show.event(&event(0, "sent", "1b"));
        assert!(show.flush().starts_with("\x1b[36m"));
        let mut show = Show::new(Words::default(), false, true);
        show.event(&event(0, "sent", "1b"));
        show.event(&event(70_000, "sent", "1c"));
        let object: Json = serde_json::from_str(&show.flush()).unwrap();
        assert_eq!((object["gap"].as_u64(), object["hex"].as_str()), (Some(70_000), Some("1c")));
    }
}
