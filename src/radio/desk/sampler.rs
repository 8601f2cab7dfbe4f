//! The newest telegram of each period, for meters of which not every one is wanted.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Timestamp;
use crate::wire::wmbus::Meter;

/// The most meters that are sampled at once; telegrams of more are all forwarded.
const MOST: usize = 16_384;

/// Holds the newest telegram of each meter until its period ends.
#[derive(Debug)]
pub(super) struct Sampler<T> {
    held: HashMap<Meter, Held<T>>,
    ends: BTreeSet<(Instant, Meter)>,
}

#[derive(Debug)]
struct Held<T> {
    end: Instant,
    /// The number of the period that it was heard in.
    period: i64,
    telegram: T,
}

/// What became of a telegram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome<T> {
    /// It is the first of its period and held.
    Held,
    /// It is held instead of this one, which is dropped.
    Replaced(T),
    /// It is the first of its period and held; this one of the period before must be forwarded.
    Next(T),
    /// It must be forwarded: there is no room.
    Full(T),
}

impl<T> Sampler<T> {
    pub(super) fn new() -> Self {
        Self { held: HashMap::new(), ends: BTreeSet::new() }
    }

    /// Takes a telegram heard at `now`, when the wall clock showed `wall`; periods of `every` are aligned to that clock, and what
    /// was heard in one may be taken up to `late` after its end.
    pub(super) fn take(
        &mut self,
        meter: Meter,
        telegram: T,
        (now, wall): (Instant, Timestamp),
        (every, late): (Duration, Duration),
    ) -> Outcome<T> {
        let length = i64::try_from(every.as_millis()).unwrap_or(i64::MAX).max(1);
        let period = wall.as_millis().div_euclid(length);
        if let Some(held) = self.held.get_mut(&meter).filter(|held| held.period == period) {
            return Outcome::Replaced(std::mem::replace(&mut held.telegram, telegram));
        }
        if self.held.len() >= MOST && !self.held.contains_key(&meter) {
            return Outcome::Full(telegram);
        }
        let rest = length - wall.as_millis().rem_euclid(length);
        let end = now + Duration::from_millis(u64::try_from(rest).unwrap_or(0)) + late;
        let former = self.held.insert(meter, Held { end, period, telegram });
        if let Some(former) = &former {
            self.ends.remove(&(former.end, meter));
        }
        self.ends.insert((end, meter));
        former.map_or(Outcome::Held, |former| Outcome::Next(former.telegram))
    }

    /// When the next period ends.
    pub(super) fn due(&self) -> Option<Instant> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// The next telegram whose period has ended, or any when `all` are wanted.
    pub(super) fn release(&mut self, now: Instant, all: bool) -> Option<T> {
        let (end, meter) = *self.ends.first()?;
        if !all && end > now {
            return None;
        }
        self.ends.remove(&(end, meter));
        self.held.remove(&meter).map(|held| held.telegram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(id: u32) -> Meter {
        Meter { manufacturer: 1, id, version: 1, device: 7 }
    }

    #[tokio::test]
    async fn the_newest_of_a_period_comes_at_its_end_by_the_clock() {
        let mut sampler = Sampler::new();
        let start = Instant::now();
        let at = |seconds| {
            (
                start + Duration::from_secs(seconds),
                Timestamp::from_millis(1_800_000_100_000 + i64::try_from(seconds).unwrap() * 1000),
            )
        };
        // 1,800,000,100 s is 100 s into a quarter of an hour.
        let every = (Duration::from_mins(15), Duration::ZERO);
        assert_eq!(sampler.take(meter(1), 'a', at(0), every), Outcome::Held);
        assert_eq!(sampler.take(meter(1), 'b', at(700), every), Outcome::Replaced('a'));
        assert_eq!(sampler.take(meter(2), 'x', at(750), every), Outcome::Held);
        assert_eq!(sampler.due(), Some(start + Duration::from_secs(800)));
        assert_eq!(sampler.release(at(799).0, false), None);
        let mut out: Vec<_> = std::iter::from_fn(|| sampler.release(at(800).0, false)).collect();
        out.sort_unstable();
        assert_eq!((out, sampler.due()), (vec!['b', 'x'], None));
        assert_eq!(sampler.take(meter(1), 'c', at(801), every), Outcome::Held);
        assert_eq!(sampler.release(at(801).0, true), Some('c'), "the end of weir is the end of every period");
    }

    #[tokio::test]
    async fn meters_without_room_are_forwarded() {
        let mut sampler = Sampler::new();
        let now = (Instant::now(), Timestamp::from_millis(0));
        let last = u32::try_from(MOST).unwrap();
        for id in 0..last {
            assert_eq!(sampler.take(meter(id), id, now, (Duration::from_secs(1), Duration::ZERO)), Outcome::Held);
        }
        assert_eq!(sampler.take(meter(last), last, now, (Duration::from_secs(1), Duration::ZERO)), Outcome::Full(last));
        assert_eq!(sampler.take(meter(0), last, now, (Duration::from_secs(1), Duration::ZERO)), Outcome::Replaced(0));
    }
}
