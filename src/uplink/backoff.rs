//! How long to wait before the next attempt to connect.
//!
//! The wait starts anew only after a session proved itself ([`Backoff::ended`]), not at each
//! CONNACK: two gateways with one client id throw each other out within milliseconds, both of
//! them successfully connected each time, and must not do so at full speed.

use std::time::Duration;

use rand::{Rng, RngExt};

use super::settings::BackoffSettings;
use crate::choices;

choices! {
    /// How the wait grows with the number n of failed attempts, counting from 0.
    pub enum Growth {
        /// first * 2^n.
        Exponential = "exponential",
        /// 2 * n * first: the OpenlinkIQ document as printed. The first retry waits only the random part.
        Linear = "linear",
        /// For thousands of gateways that lose one broker: any time from first to max. The first
        /// wait, and the one before the first connect after a start, is the gateway's own place
        /// in that range, which comes from its id; later waits are random. jitter is not used.
        Fleet = "fleet",
    }
}

/// Waits never get shorter than this, whatever the settings say.
const SHORTEST: Duration = Duration::from_millis(100);

/// The state of the back-off: how many attempts failed in a row.
#[derive(Debug, Clone)]
pub struct Backoff {
    growth: Growth,
    first: Duration,
    max: Duration,
    jitter: Duration,
    /// A session that lasted this long was a good one.
    settled: Duration,
    failures: u32,
    /// The device's own place in the range of waits, in 2^-64 of it.
    phase: u64,
}

impl Backoff {
    /// Starts with no failure; a session that lasts `settled` is a good one. `device` is the
    /// gateway's id, from which its place among a fleet comes.
    pub fn new(settings: &BackoffSettings, settled: Duration, device: &str) -> Self {
        let BackoffSettings { shape, first, max, jitter } = settings;
        Self { growth: *shape, first: *first, max: *max, jitter: *jitter, settled, failures: 0, phase: hash(device) }
    }

    /// Returns the wait before the first attempt after a start: none, but for a fleet that gets
    /// its power back all at once.
    pub fn initial(&self) -> Duration {
        if self.growth == Growth::Fleet { self.place(self.phase) } else { Duration::ZERO }
    }

    /// The wait at a place in the range from `first` to `max`, in 2^-64 of it.
    fn place(&self, share: u64) -> Duration {
        let range = self.max.saturating_sub(self.first).as_millis();
        let part = u64::try_from((range * u128::from(share)) >> 64).unwrap_or(u64::MAX);
        self.first.saturating_add(Duration::from_millis(part)).max(SHORTEST)
    }

    /// Returns the wait before the next attempt and counts it.
    pub fn next(&mut self, random: &mut impl Rng) -> Duration {
        let factor = match self.growth {
            Growth::Exponential => 1u32.checked_shl(self.failures).unwrap_or(u32::MAX),
            Growth::Linear => self.failures.saturating_mul(2),
            Growth::Fleet => {
                let share = if self.failures == 0 { self.phase } else { random.random() };
                self.failures = self.failures.saturating_add(1);
                return self.place(share);
            }
        };
        let wait = self.first.checked_mul(factor).unwrap_or(Duration::MAX).min(self.max);
        // Beyond 31 doublings nothing grows any more; the shift must not wrap.
        self.failures = self.failures.saturating_add(1).min(31);
        let jitter = u64::try_from(self.jitter.as_millis()).unwrap_or(u64::MAX);
        let random = Duration::from_millis(random.random_range(0..=jitter));
        wait.saturating_add(random).max(SHORTEST)
    }

    /// Notes that a session ended after `lasted`. It starts the wait anew when it lasted long
    /// enough, or when we ended it ourselves with nothing left to send (`finished`).
    pub fn ended(&mut self, lasted: Duration, finished: bool) {
        if finished || lasted >= self.settled {
            self.failures = 0;
        }
    }
}

/// Spreads texts evenly over all 64-bit numbers (FNV-1a, then the finalizer of MurmurHash3,
/// because FNV alone leaves texts that differ in the last digit close together).
pub(super) fn hash(text: &str) -> u64 {
    let fnv = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::os::random::repeatable;

    fn settings(shape: Growth) -> BackoffSettings {
        let (first, max) = (Duration::from_secs(1), Duration::from_secs(64));
        BackoffSettings { shape, first, max, jitter: Duration::from_millis(999) }
    }

    fn seconds(shape: Growth) -> Vec<u64> {
        let mut random = repeatable(7);
        let mut backoff = Backoff::new(&settings(shape), Duration::from_secs(60), "gw1");
        (0..9).map(|_| backoff.next(&mut random).as_secs()).collect()
    }

    #[test]
    fn the_wait_doubles_from_one_second_to_sixty_four_and_stays_there() {
        assert_eq!(seconds(Growth::Exponential), [1, 2, 4, 8, 16, 32, 64, 64, 64]);
    }

    #[test]
    fn the_linear_reading_grows_by_two_seconds() {
        assert_eq!(seconds(Growth::Linear), [0, 2, 4, 6, 8, 10, 12, 14, 16]);
    }

    #[test]
    fn the_random_part_covers_zero_to_the_jitter() {
        let mut random = repeatable(1);
        let mut parts: Vec<_> = (0..5000)
            .map(|_| {
                let mut backoff = Backoff::new(&settings(Growth::Exponential), Duration::ZERO, "gw1");
                backoff.next(&mut random).as_millis() - 1000
            })
            .collect();
        parts.sort_unstable();
        assert!(parts.first().unwrap() < &5 && parts.last().unwrap() > &994 && parts.last().unwrap() <= &999);
    }

    #[test]
    fn a_short_session_does_not_start_the_wait_anew_but_a_long_or_finished_one_does() {
        let mut random = repeatable(3);
        let mut backoff = Backoff::new(&settings(Growth::Exponential), Duration::from_secs(60), "gw1");
        for _ in 0..4 {
            backoff.next(&mut random);
            backoff.ended(Duration::from_secs(59), false);
        }
        assert_eq!(backoff.next(&mut random).as_secs(), 16);
        backoff.ended(Duration::from_secs(60), false);
        assert_eq!(backoff.next(&mut random).as_secs(), 1);
        backoff.next(&mut random);
        backoff.ended(Duration::ZERO, true);
        assert_eq!(backoff.next(&mut random).as_secs(), 1);
    }

    #[test]
    fn a_fleet_spreads_its_first_retries_evenly_and_a_gateway_keeps_its_place() {
        let first = |id: u32| {
            let mut backoff = Backoff::new(&settings(Growth::Fleet), Duration::ZERO, &format!("KAM7347{id:05}"));
            let initial = backoff.initial();
            let wait = backoff.next(&mut repeatable(id.into()));
            assert_eq!(initial, wait);
            wait
        };
        let mut seconds = [0u32; 64];
        for id in 0..6300 {
            let wait = first(id);
            assert_eq!(wait, first(id));
            seconds[usize::try_from(wait.as_secs()).unwrap()] += 1;
        }
        assert_eq!(seconds[0], 0);
        // 100 a second on average; five standard deviations.
        assert!(seconds[1..].iter().all(|n| (50..=150).contains(n)), "{seconds:?}");
    }

    #[test]
    fn later_waits_of_a_fleet_cover_the_whole_range_at_random() {
        let (mut backoff, mut random) = (Backoff::new(&settings(Growth::Fleet), Duration::ZERO, "a"), repeatable(9));
        backoff.next(&mut random);
        let waits: Vec<_> = (0..2000).map(|_| backoff.next(&mut random).as_millis()).collect();
        let (low, high) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!((1000..1300).contains(low) && (63_700..=64_000).contains(high), "{low} {high}");
    }

    proptest! {
        #[test]
        fn no_settings_and_no_number_of_failures_break_it(
            first in 0..u64::MAX, max in 0..u64::MAX, jitter in 0..u64::MAX, failures in 0..80, shape in 0..3usize,
        ) {
            let shape = [Growth::Linear, Growth::Exponential, Growth::Fleet][shape];
            let [first, max, jitter] = [first, max, jitter].map(Duration::from_millis);
            let mut backoff = Backoff::new(&BackoffSettings { shape, first, max, jitter }, Duration::ZERO, "gw1");
            for _ in 0..failures {
                let wait = backoff.next(&mut repeatable(0));
                let most = if shape == Growth::Fleet { max.max(first) } else { max.saturating_add(jitter) };
                prop_assert!(wait >= SHORTEST && wait <= most.max(SHORTEST));
            }
        }
    }
}
