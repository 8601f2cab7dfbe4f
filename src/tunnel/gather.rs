//! Makes messages of what comes from a line: bytes that follow each other closely belong together.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes on their way to a message.
#[derive(Debug)]
pub(super) struct Gatherer {
    bytes: Vec<u8>,
    /// When the last of them came.
    last: Instant,
    largest: usize,
}

impl Gatherer {
    /// Makes messages of `largest` bytes at most.
    pub(super) fn new(largest: usize) -> Self {
        Self { bytes: Vec::new(), last: Instant::now(), largest }
    }

    /// Whether there is nothing.
    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes fit in before a message must go.
    pub(super) const fn room(&self) -> usize {
        self.largest.saturating_sub(self.bytes.len())
    }

    /// Takes what came at `now`, at most [`Gatherer::room`] bytes of it.
    pub(super) fn push(&mut self, bytes: &[u8], now: Instant) {
        self.bytes.extend_from_slice(bytes.get(..self.room()).unwrap_or(bytes));
        self.last = now;
    }

    /// When the message is whole if nothing more comes: after a silence of `gap`, at once when it is full.
    pub(super) fn due(&self, gap: Duration) -> Option<Instant> {
        if self.bytes.is_empty() { None } else { Some(if self.room() == 0 { self.last } else { self.last + gap }) }
    }

    /// Takes the message.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// What was sent and must come back before anything else does.
#[derive(Debug, Default)]
pub(super) struct Echoes {
    expected: std::collections::VecDeque<u8>,
}

impl Echoes {
    /// These bytes were sent; remembered up to 64 KiB.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        let room = (1usize << 16).saturating_sub(self.expected.len());
        self.expected.extend(bytes.iter().take(room));
    }

    /// How many of these are an echo; with the first byte that is none, all that follows is none.
    pub(super) fn strip(&mut self, came: &[u8]) -> usize {
        let echoed = came.iter().zip(&self.expected).take_while(|(a, b)| a == b).count();
        if echoed < came.len() {
            self.expected.clear();
        } else {
            self.expected.drain(..echoed);
        }
        echoed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_after_the_gap_or_when_it_is_full() {
        let (start, gap) = (Instant::now(), Duration::from_millis(100));
        let mut gatherer = Gatherer::new(8);
        assert_eq!((gatherer.due(gap), gatherer.room()), (None, 8));
        gatherer.push(b"abc", start);
        assert_eq!(gatherer.due(gap), Some(start + gap));
        gatherer.push(b"de", start + gap / 2);
        assert_eq!(gatherer.due(gap), Some(start + gap / 2 + gap), "the gap begins anew with each byte");
        gatherer.push(b"fgh", start + gap);
        assert_eq!((gatherer.due(gap), gatherer.room()), (Some(start + gap), 0));
        assert_eq!(gatherer.take(), b"abcdefgh");
        assert_eq!(gatherer.due(gap), None);
    }

    #[test]
    fn an_echo_is_taken_out_and_what_only_looks_like_one_later_is_not() {
        let mut echoes = Echoes::default();
        echoes.sent(b"ping");
        assert_eq!(echoes.strip(b"pi"), 2);
        assert_eq!(echoes.strip(b"ngpong"), 2);
        assert_eq!(echoes.strip(b"ping"), 0, "it was sent once");
        echoes.sent(b"ping");
        assert_eq!(echoes.strip(b"pXng"), 1);
        assert_eq!(echoes.strip(b"ing"), 0, "after a damaged echo everything is passed on");
    }
}
