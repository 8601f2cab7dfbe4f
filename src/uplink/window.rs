//! How much may be on its way to the broker at once.
//!
//! Several messages are under way so that latency does not starve throughput, but what lies in
//! the modem's queue delays the ping behind it: on a slow link the window shrinks until an
//! acknowledgement takes no longer than [`SLOW`].

use std::time::Duration;

/// An acknowledgement faster than this lets the window grow.
const FAST: Duration = Duration::from_secs(3);
/// An acknowledgement slower than this halves the window.
const SLOW: Duration = Duration::from_secs(10);

/// The messages and bytes under way, and the most allowed.
#[derive(Debug, Clone)]
pub(super) struct Window {
    most_messages: usize,
    most_bytes: usize,
    /// The present limit in bytes, from one message to `most_bytes`.
    limit: usize,
    smallest: usize,
    messages: usize,
    bytes: usize,
}

impl Window {
    /// Starts small: one message of `payload` bytes.
    pub(super) fn new(most_messages: usize, most_bytes: usize, payload: usize) -> Self {
        let most_bytes = most_bytes.max(payload);
        Self { most_messages, most_bytes, limit: payload, smallest: payload, messages: 0, bytes: 0 }
    }

    /// Whether one more message may be sent; one always may when none is under way.
    pub(super) fn has_room(&self) -> bool {
        self.messages == 0 || (self.messages < self.most_messages && self.bytes < self.limit)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages == 0
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
    }

    pub(super) fn acknowledged(&mut self, bytes: usize, after: Duration) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        if after < FAST {
            self.limit = self.limit.saturating_add(bytes).min(self.most_bytes);
        } else if after > SLOW {
            self.limit = (self.limit / 2).max(self.smallest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_link_gets_many_messages_and_a_slow_one_few() {
        let mut window = Window::new(10, 1000, 100);
        window.sent(100);
        assert!(!window.has_room());
        for _ in 0..20 {
            window.acknowledged(100, Duration::from_millis(50));
            while window.has_room() {
                window.sent(100);
            }
        }
        assert_eq!((window.messages, window.bytes, window.limit), (10, 1000, 1000));
        for _ in 0..8 {
            window.acknowledged(100, Duration::from_secs(11));
        }
        assert_eq!(window.limit, 100);
        assert!(!window.has_room());
        window.acknowledged(100, Duration::from_secs(11));
        window.acknowledged(100, Duration::from_secs(11));
        assert!(window.is_empty() && window.has_room());
    }

    #[test]
    fn small_messages_are_bounded_by_their_number() {
        let mut window = Window::new(3, 1000, 100);
        for _ in 0..3 {
            assert!(window.has_room());
            window.sent(1);
        }
        assert!(!window.has_room());
    }
}
