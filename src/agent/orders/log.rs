//! The newest lines of the log by command.

use crate::os::log_tail;

/// The answer is one message.
const LARGEST: usize = 32 << 10;

/// At most so many lines, the oldest of them first; of more than fits into an answer, the newest.
pub(super) fn newest(lines: u16) -> String {
    let mut left = LARGEST;
    let kept = log_tail::tail().newest(usize::from(lines));
    let fits = kept.iter().rev().take_while(|line| {
        left = left.saturating_sub(line.len() + 1);
        left > 0
    });
    let mut lines: Vec<&str> = fits.map(String::as_str).collect();
    lines.reverse();
    lines.join("\n")
}
