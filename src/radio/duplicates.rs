//! Forgets nothing for a second: finds telegrams that a receiver gives twice.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The last telegrams of one receiver. Holds at most [`REMEMBERED`], however many meters there
/// are; more than that in a second is beyond what the channel can carry.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    recent: VecDeque<(Instant, Vec<u8>)>,
}

/// How long a telegram is remembered.
const WINDOW: Duration = Duration::from_secs(1);
const REMEMBERED: usize = 64;

impl Duplicates {
    /// Tells whether the same bytes came within the last second, and remembers them if not.
    pub(super) fn is_repeat(&mut self, bytes: &[u8], arrival: Instant) -> bool {
        while self.recent.front().is_some_and(|(first, _)| arrival.saturating_duration_since(*first) >= WINDOW) {
            self.recent.pop_front();
        }
        if self.recent.iter().any(|(_, known)| known == bytes) {
            return true;
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((arrival, bytes.to_vec()));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_telegram_is_a_repeat_within_a_second_and_new_after_it() {
        let mut duplicates = Duplicates::default();
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        assert!(!duplicates.is_repeat(b"a", start));
        assert!(duplicates.is_repeat(b"a", after(1)) && !duplicates.is_repeat(b"b", after(1)));
        assert!(duplicates.is_repeat(b"a", after(999)));
        assert!(!duplicates.is_repeat(b"a", after(1000)), "the first one counts, not its repeats");
        assert!(duplicates.is_repeat(b"a", after(1999)));
    }

    #[tokio::test]
    async fn memory_is_bounded_and_the_oldest_is_forgotten_first() {
        let mut duplicates = Duplicates::default();
        let now = Instant::now();
        for number in 0..1000u16 {
            assert!(!duplicates.is_repeat(&number.to_be_bytes(), now));
        }
        assert_eq!(duplicates.recent.len(), REMEMBERED);
        assert!(duplicates.is_repeat(&999u16.to_be_bytes(), now) && !duplicates.is_repeat(&0u16.to_be_bytes(), now));
    }
}
