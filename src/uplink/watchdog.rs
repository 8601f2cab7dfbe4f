//! Whether the broker still makes progress with what is under way.
//!
//! Two things must not last longer than the patience: that nothing at all is acknowledged, and
//! that one message is not while a later one was. A broker acknowledges in order (MQTT 3.1.1,
//! 4.6), so the second means that a PUBACK was lost, and would never be noticed while others come.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// The messages under way and what was last heard of them.
#[derive(Debug)]
pub(super) struct Watchdog {
    stall: Duration,
    /// Messages under way by number, with their length.
    under_way: BTreeMap<u64, usize>,
    next: u64,
    /// When the last PUBACK came, or the first message was sent after a pause.
    progress: Instant,
    /// The oldest message and since when a later one is acknowledged.
    overtaken: Option<(u64, Instant)>,
}

impl Watchdog {
    pub(super) fn new(stall: Duration, now: Instant) -> Self {
        Self { stall, under_way: BTreeMap::new(), next: 0, progress: now, overtaken: None }
    }

    /// Notes a message and returns its number.
    pub(super) fn sent(&mut self, bytes: usize, now: Instant) -> u64 {
        if self.under_way.is_empty() {
            self.progress = now;
        }
        let number = self.next;
        self.next += 1;
        self.under_way.insert(number, bytes);
        number
    }

    /// Notes the PUBACK of a message.
    pub(super) fn acknowledged(&mut self, number: u64, now: Instant) {
        self.under_way.remove(&number);
        self.progress = now;
        let oldest = self.under_way.first_key_value().map(|(number, _)| *number);
        if self.overtaken.is_some_and(|(waits, _)| oldest != Some(waits)) {
            self.overtaken = None;
        }
        if let Some(oldest) = oldest.filter(|oldest| *oldest < number)
            && self.overtaken.is_none()
        {
            self.overtaken = Some((oldest, now));
        }
    }

    /// Notes that time was spent here, not at the broker.
    pub(super) fn excuse(&mut self, now: Instant) {
        self.progress = now;
    }

    /// The oldest message under way.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.under_way.first_key_value().map(|(number, _)| *number)
    }

    /// How long the next PUBACK may take: a link that moves a kibibyte a second is slow, not stuck.
    pub(super) fn patience(&self) -> Duration {
        let longest = self.under_way.values().max().copied().unwrap_or(0);
        self.stall + Duration::from_secs((longest / 1024) as u64)
    }

    /// When the session is to be given up unless something is acknowledged before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.oldest()?;
        let silent = self.progress + self.patience();
        Some(self.overtaken.map_or(silent, |(_, since)| silent.min(since + self.stall)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn silence_with_messages_under_way_has_an_end_and_a_pause_has_none() {
        let start = Instant::now();
        let mut dog = Watchdog::new(60 * SECOND, start);
        assert_eq!(dog.deadline(), None);
        let first = dog.sent(10, start + 100 * SECOND);
        assert_eq!(dog.deadline(), Some(start + 160 * SECOND));
        let second = dog.sent(2048, start + 120 * SECOND);
        assert_eq!(dog.deadline(), Some(start + 162 * SECOND), "two seconds for two kibibytes");
        dog.acknowledged(first, start + 130 * SECOND);
        assert_eq!(dog.deadline(), Some(start + 192 * SECOND));
        dog.acknowledged(second, start + 131 * SECOND);
        assert_eq!(dog.deadline(), None);
    }

    #[test]
    fn one_lost_puback_is_noticed_although_all_others_come() {
        let start = Instant::now();
        let mut dog = Watchdog::new(60 * SECOND, start);
        let lost = dog.sent(10, start);
        for second in 1..59 {
            let other = dog.sent(10, start + second * SECOND);
            dog.acknowledged(other, start + second * SECOND);
        }
        assert_eq!(dog.deadline(), Some(start + 61 * SECOND), "60 s after it was overtaken");
        dog.acknowledged(lost, start + 59 * SECOND);
        assert_eq!(dog.deadline(), None);
    }

    #[test]
    fn a_message_that_was_overtaken_but_comes_gives_the_next_its_own_time() {
        let start = Instant::now();
        let mut dog = Watchdog::new(60 * SECOND, start);
        let [a, b, c] = [(); 3].map(|()| dog.sent(10, start));
        dog.acknowledged(c, start + SECOND);
        dog.acknowledged(a, start + 50 * SECOND);
        assert_eq!(dog.deadline(), Some(start + 110 * SECOND));
        dog.acknowledged(b, start + 51 * SECOND);
        assert_eq!(dog.deadline(), None);
    }
}
