//! The newest lines of the log, kept in memory for who can't look at the gateway's own.
//!
//! Bounded by [`LARGEST`]; the oldest line goes first. What must not be in the log is not here either, and lines below INFO, which
//! may hold what meters and platforms say, are not kept.

use std::collections::VecDeque;
use std::io;
use std::sync::{LazyLock, Mutex, PoisonError};

/// The most bytes that are kept.
pub const LARGEST: usize = 64 << 10;
/// The longest line that is kept whole.
const LONGEST_LINE: usize = 4 << 10;

static TAIL: LazyLock<Tail> = LazyLock::new(Tail::default);

/// The tail of this process's log; there is one log, so there is one tail.
pub fn tail() -> &'static Tail {
    &TAIL
}

/// Lines, the newest last.
#[derive(Debug, Default)]
pub struct Tail(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    /// Keeps a line; control characters in it are made visible.
    pub fn push(&self, line: &str) {
        let line = line.trim_end_matches(['\r', '\n']);
        let mut line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if line.len() > LONGEST_LINE {
            line.truncate(line.floor_char_boundary(LONGEST_LINE));
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += line.len();
        kept.lines.push_back(line);
        while kept.bytes > LARGEST {
            let Some(gone) = kept.lines.pop_front() else { break };
            kept.bytes -= gone.len();
        }
    }

    /// The newest lines, at most so many, the oldest of them first.
    pub fn newest(&self, lines: usize) -> Vec<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.lines.iter().skip(kept.lines.len().saturating_sub(lines)).cloned().collect()
    }
}

/// Takes the lines of a log: each write is one.
#[derive(Debug, Clone, Copy)]
pub struct Writer;

impl io::Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        tail().push(&String::from_utf8_lossy(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_lines_are_kept_and_no_line_breaks_another() {
        let tail = Tail::default();
        tail.push("first\n");
        tail.push("a\u{1b}[31mb\nc\n");
        assert_eq!(tail.newest(5), ["first", "a [31mb c"]);
        assert_eq!(tail.newest(1), ["a [31mb c"]);
        for number in 0..1000 {
            tail.push(&format!("{number} {}", "x".repeat(200)));
        }
        tail.push(&"é".repeat(10_000));
        let kept = tail.newest(10_000);
        let bytes: usize = kept.iter().map(String::len).sum();
        assert!(bytes <= LARGEST && bytes > LARGEST / 2, "{bytes}");
        assert!(kept[kept.len() - 2].starts_with("999 ") && kept[kept.len() - 1].len() <= LONGEST_LINE);
    }
}
