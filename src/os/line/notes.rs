//! What a line remembers of its last job, so that "cable or gateway?" can be answered.

use std::time::Duration;

/// The most bytes kept of each way of an exchange.
const MOST_BYTES: usize = 256;
/// The most delays kept of one job.
const MOST_DELAYS: usize = 64;

/// The last request and what came after it, echoes included; at most 256 bytes each way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// The first bytes that were sent.
    pub sent: Vec<u8>,
    /// The first bytes that came.
    pub received: Vec<u8>,
    /// How many bytes were sent in all.
    pub sent_bytes: usize,
    /// How many bytes came in all.
    pub received_bytes: usize,
}

/// What happened on a line since the notes were taken last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Requests sent.
    pub requests: u32,
    /// Requests after which nothing came that is no echo.
    pub unanswered: u32,
    /// Answers that the asker found damaged, those included that were mended by asking again.
    pub damaged: u32,
    /// Echoes recognised and removed.
    pub echoes: u32,
    /// Echoes that came back damaged: somebody else was sending.
    pub collisions: u32,
    /// From the end of a request to the first byte of its answer; the first 64 of a job.
    pub delays: Vec<Duration>,
    /// The last request and what came after it.
    pub exchange: Exchange,
    waiting: bool,
}

impl Notes {
    /// A request begins.
    pub(super) fn begin(&mut self) {
        self.requests = self.requests.saturating_add(1);
        self.end();
        self.waiting = true;
        self.exchange.sent.clear();
        self.exchange.received.clear();
        (self.exchange.sent_bytes, self.exchange.received_bytes) = (0, 0);
    }

    /// No more is expected for the request.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.unanswered = self.unanswered.saturating_add(1);
        }
    }

    /// The first bytes of an answer came, so long after its request.
    pub(super) fn answered(&mut self, delay: Duration) {
        if std::mem::take(&mut self.waiting) && self.delays.len() < MOST_DELAYS {
            self.delays.push(delay);
        }
    }

    pub(super) fn sent(&mut self, bytes: &[u8]) {
        keep(&mut self.exchange.sent, &mut self.exchange.sent_bytes, bytes);
    }

    pub(super) fn received(&mut self, bytes: &[u8]) {
        keep(&mut self.exchange.received, &mut self.exchange.received_bytes, bytes);
    }
}

fn keep(kept: &mut Vec<u8>, all: &mut usize, bytes: &[u8]) {
    *all = all.saturating_add(bytes.len());
    kept.extend(bytes.iter().take(MOST_BYTES.saturating_sub(kept.len())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_is_the_last_request_and_its_answer_within_bounds() {
        let mut notes = Notes::default();
        notes.begin();
        notes.sent(b"first");
        notes.begin();
        notes.sent(&[7; 300]);
        notes.received(&[8; 200]);
        notes.answered(Duration::from_millis(3));
        notes.received(&[9; 200]);
        notes.end();
        assert_eq!((notes.requests, notes.unanswered, notes.delays.len()), (2, 1, 1));
        let exchange = &notes.exchange;
        assert_eq!((exchange.sent.len(), exchange.sent_bytes), (256, 300));
        assert_eq!((exchange.received.len(), exchange.received_bytes), (256, 400));
        assert!(exchange.received.ends_with(&[9; 56]));
    }
}
