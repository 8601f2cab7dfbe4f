//! Transmissions in a stream of bytes (annex IV, clause 8): start, escapes, end, CRC.

use super::{List, X25, decode};

/// The longest transmission; those of meters stay below 1 KiB.
pub const FILE_LIMIT: usize = 16 * 1024;

const ESCAPE: [u8; 4] = [0x1B; 4];
const BEGIN: [u8; 8] = [0x1B, 0x1B, 0x1B, 0x1B, 1, 1, 1, 1];
const RESTART: [u8; 4] = [1; 4];
const END: u8 = 0x1A;

/// What the stream held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A transmission in which nothing is wrong, with its lists of values.
    Lists(Vec<List>),
    /// Something that began as a transmission and was not one in the end.
    Damaged(Damage),
    /// Noise between transmissions.
    Skipped {
        /// How many bytes.
        bytes: usize,
    },
}

/// What was wrong with a transmission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The CRC of the transmission differs.
    #[error("the CRC is wrong")]
    Checksum,
    /// An escape sequence that there is none of.
    #[error("an escape sequence is wrong")]
    Escape,
    /// The line fell silent, or another transmission began, before the end.
    #[error("the transmission breaks off before its end")]
    Truncated,
    /// No end came within [`FILE_LIMIT`].
    #[error("the transmission is longer than 16 KiB")]
    TooLong,
    /// The CRC is right, but what is inside are no messages.
    #[error("the messages can't be read: {0}")]
    Content(crate::wire::DecodeError),
}

/// A decoder of transmissions. Call [`next`](Self::next) until it is empty after every
/// [`push`](Self::push); then it holds no more than [`FILE_LIMIT`] bytes and one push.
#[derive(Debug, Default)]
pub struct Decoder {
    pub(super) buffer: Vec<u8>,
    /// Where in the buffer the next byte to look at is.
    at: usize,
    /// What was unescaped so far.
    content: Vec<u8>,
    skipped: usize,
    silent: bool,
}

enum Step {
    More,
    Skip(usize),
    /// A transmission: where it ends, and how much of the content is no padding.
    Take(usize, usize),
    Give(usize, Damage),
}

impl Decoder {
    /// Starts between two transmissions.
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
                Step::More if self.silent && self.buffer.starts_with(&BEGIN) => {
                    self.consume(BEGIN.len());
                    return Some(Event::Damaged(Damage::Truncated));
                }
                Step::More if self.silent => {
                    self.skipped = self.skipped.saturating_add(self.buffer.len());
                    self.consume(self.buffer.len());
                    return self.skipped();
                }
                Step::More => return None,
                Step::Skip(count) => {
                    self.skipped = self.skipped.saturating_add(count);
                    self.consume(count);
                }
                Step::Take(..) | Step::Give(..) if self.skipped > 0 => return self.skipped(),
                Step::Take(end, kept) => {
                    let lists = decode(self.content.get(..kept).unwrap_or_default());
                    self.consume(end);
                    return Some(lists.map_or_else(|e| Event::Damaged(Damage::Content(e)), Event::Lists));
                }
                Step::Give(count, reason) => {
                    self.consume(count);
                    return Some(Event::Damaged(reason));
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
        self.at = 0;
        self.content.clear();
    }

    fn step(&mut self) -> Step {
        if !self.buffer.starts_with(&BEGIN) {
            return self.search();
        }
        self.at = self.at.max(BEGIN.len());
        loop {
            let rest = self.buffer.get(self.at..).unwrap_or_default();
            let Some(&byte) = rest.first() else { return self.short() };
            if !ESCAPE.starts_with(rest.get(..rest.len().min(4)).unwrap_or_default()) {
                self.content.push(byte);
                self.at += 1;
                continue;
            }
            let Some((_, rest)) = rest.split_first_chunk::<4>() else { return self.short() };
            let Some((&payload, _)) = rest.split_first_chunk::<4>() else { return self.short() };
            match payload {
                ESCAPE => {
                    self.content.extend(ESCAPE);
                    self.at += 8;
                }
                RESTART => return Step::Give(self.at, Damage::Truncated),
                [END, padding, low, high] => return self.end(padding, u16::from_le_bytes([low, high])),
                // The content ended with 1B before the true escape, which stands at a multiple of four.
                _ if !self.at.is_multiple_of(4) => {
                    self.content.push(byte);
                    self.at += 1;
                }
                _ => return Step::Give(BEGIN.len(), Damage::Escape),
            }
        }
    }

    fn short(&self) -> Step {
        if self.buffer.len() > FILE_LIMIT { Step::Give(BEGIN.len(), Damage::TooLong) } else { Step::More }
    }

    fn end(&self, padding: u8, told: u16) -> Step {
        let summed = self.buffer.get(..self.at + 6).unwrap_or_default();
        let kept = self.content.len().checked_sub(padding.into()).filter(|_| padding < 4);
        match kept {
            Some(kept) if X25.checksum(summed) == told => Step::Take(self.at + 8, kept),
            _ => Step::Give(BEGIN.len(), Damage::Checksum),
        }
    }

    /// Looks for the beginning of a transmission behind the front of the buffer.
    fn search(&self) -> Step {
        let found = self.buffer.windows(BEGIN.len()).position(|window| window == BEGIN);
        let keep = BEGIN.len() - 1;
        match found {
            Some(place) => Step::Skip(place),
            None if self.buffer.len() > keep => Step::Skip(self.buffer.len() - keep),
            None => Step::More,
        }
    }
}
