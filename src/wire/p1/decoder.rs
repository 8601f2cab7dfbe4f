//! Finds messages in a stream of bytes, whatever else is in it.

use super::{Damage, Event, MESSAGE_LIMIT, SEVEN_BITS, header_length, judge};

/// What may stand behind the `!`: four hexadecimal digits, CR and LF.
const BEHIND_LIMIT: usize = 6;

/// A decoder of a meter's messages. Call [`next`](Self::next) until it is empty after every
/// [`push`](Self::push); then it holds no more than [`MESSAGE_LIMIT`] bytes and one push.
#[derive(Debug, Default)]
pub struct Decoder {
    pub(super) buffer: Vec<u8>,
    /// Bytes of an unfinished message that were looked at already.
    scanned: usize,
    skipped: usize,
    silent: bool,
}

enum Step {
    More,
    Skip(usize),
    /// A message from its `/` to before what follows its line end, with the place of its `!`.
    Judge {
        bang: usize,
        end: usize,
    },
    Give(usize, Damage),
}

impl Decoder {
    /// Starts between two messages.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.silent = false;
    }

    /// Says that the line fell silent: what is not complete now never will be.
    pub fn silence(&mut self) {
        self.silent = true;
    }

    /// Returns what comes next in the stream, or `None` when more bytes are needed.
    #[expect(
        clippy::should_implement_trait,
        reason = "every decoder of the house has push and next; it is no iterator"
    )]
    pub fn next(&mut self) -> Option<Event> {
        loop {
            match self.step() {
                Step::More if self.silent && !self.buffer.is_empty() => {
                    let bytes = self.buffer.len();
                    self.consume(bytes);
                    return Some(Event::Damaged { reason: Damage::Truncated, bytes });
                }
                Step::More if self.silent => return self.skipped(),
                Step::More => return None,
                Step::Skip(count) => {
                    let waste = self.buffer.iter().take(count).filter(|b| !matches!(*b & SEVEN_BITS, b'\r' | b'\n'));
                    self.skipped = self.skipped.saturating_add(waste.count());
                    self.consume(count);
                }
                Step::Judge { .. } | Step::Give(..) if self.skipped > 0 => return self.skipped(),
                Step::Judge { bang, end } => {
                    let (raw, behind) = self.buffer.get(..end).unwrap_or_default().split_at(bang.min(end));
                    let event = match judge(raw, behind) {
                        Ok(telegram) => Event::Telegram(telegram),
                        Err(reason) => Event::Damaged { reason, bytes: end },
                    };
                    self.consume(end);
                    return Some(event);
                }
                Step::Give(count, reason) => {
                    self.consume(count);
                    return Some(Event::Damaged { reason, bytes: count });
                }
            }
        }
    }

    fn skipped(&mut self) -> Option<Event> {
        match std::mem::take(&mut self.skipped) {
            0 => None,
            bytes => Some(Event::Skipped { bytes }),
        }
    }

    fn consume(&mut self, count: usize) {
        self.buffer.drain(..count.min(self.buffer.len()));
        self.scanned = self.scanned.saturating_sub(count);
    }

    fn step(&mut self) -> Step {
        let is = |wanted: u8| move |b: &u8| *b & SEVEN_BITS == wanted;
        match self.buffer.iter().position(is(b'/')) {
            Some(0) => {}
            Some(place) => return Step::Skip(place),
            None if self.buffer.is_empty() => return Step::More,
            None => return Step::Skip(self.buffer.len()),
        }
        let from = self.scanned.max(1);
        let bang = self.buffer.windows(2).enumerate().skip(from - 1).find_map(|(at, pair)| match pair {
            [before, b] if b & SEVEN_BITS == b'!' && matches!(before & SEVEN_BITS, b'\n' | b'\r') => Some(at + 1),
            _ => None,
        });
        let Some(bang) = bang else {
            self.scanned = self.buffer.len();
            if self.buffer.len() > MESSAGE_LIMIT {
                return Step::Give(self.next_start(1, self.buffer.len()), Damage::TooLong);
            }
            return Step::More;
        };
        self.scanned = bang;
        let start = self.last_header(bang);
        match start {
            Some(0) => {}
            Some(start) => return Step::Give(start, Damage::Truncated),
            None => return Step::Give(bang + 1, Damage::Syntax),
        }
        let behind = self.buffer.get(bang + 1..).unwrap_or_default();
        let line_end = behind.iter().take(BEHIND_LIMIT).position(|b| matches!(b & SEVEN_BITS, b'\r' | b'\n'));
        match line_end {
            Some(length) => Step::Judge { bang: bang + 1, end: bang + 1 + length + 1 },
            None if behind.len() >= BEHIND_LIMIT => Step::Give(bang + 1, Damage::Syntax),
            // A CRC whose line end got lost is as good as any; no CRC and no line end is a cut.
            None if self.silent && !behind.is_empty() => Step::Judge { bang: bang + 1, end: self.buffer.len() },
            None => Step::More,
        }
    }

    /// The next place at or after `from` where a message may begin, or `end`.
    fn next_start(&self, from: usize, end: usize) -> usize {
        let found = self.buffer.iter().skip(from).position(|b| b & SEVEN_BITS == b'/');
        found.map_or(end, |place| from + place)
    }

    /// The last place before `bang` where a message begins: an earlier one was cut off.
    fn last_header(&self, bang: usize) -> Option<usize> {
        let before = self.buffer.get(..bang)?;
        let starts = before.iter().enumerate().rev().filter(|(_, b)| **b & SEVEN_BITS == b'/');
        starts.map(|(place, _)| place).find(|place| {
            let near = before.iter().skip(*place).take(super::HEADER_LIMIT + 4);
            header_length(&near.map(|b| b & SEVEN_BITS).collect::<Vec<_>>()).is_some()
        })
    }
}
