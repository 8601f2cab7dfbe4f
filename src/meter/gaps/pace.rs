//! How much to ask for at once: what fits into the bus time that is left.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Over this time the budget holds, wherever it begins.
const HOUR: Duration = Duration::from_hours(1);
/// A piece should not hold the bus longer, so that a person who asks for a reading gets it.
const LONGEST: Duration = Duration::from_secs(15);
/// Units in the first piece, before anything is known of the meter.
const FIRST: u32 = 8;
/// The most units while no answer has told yet how long one takes.
const UNKNOWN: u32 = 96;
/// The most units in a piece.
const MOST: u32 = 4096;
/// Entries in the account of the last hour; older ones are joined, which only makes it stricter.
const ENTRIES: usize = 256;

/// The time that pieces took, and the size of the next one. A unit is one interval's period.
#[derive(Debug)]
pub(super) struct Pace {
    budget: Duration,
    spent: VecDeque<(Instant, Duration)>,
    /// What a unit took when the meter last gave any.
    per_unit: Option<Duration>,
    most: u32,
}

impl Pace {
    pub(super) const fn new(budget: Duration) -> Self {
        Self { budget, spent: VecDeque::new(), per_unit: None, most: FIRST }
    }

    /// What of the budget is left in the hour that ends at `now`.
    fn left(&mut self, now: Instant) -> Duration {
        while self.spent.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= HOUR) {
            self.spent.pop_front();
        }
        self.budget.saturating_sub(self.spent.iter().map(|(_, took)| *took).sum())
    }

    /// How many units fit in now; `None` when the budget is used up or not even one fits into
    /// `time_left`. One unit that alone is longer than the budget is asked for once an hour.
    pub(super) fn size(&mut self, now: Instant, time_left: Duration) -> Option<u32> {
        let left = self.left(now);
        let untouched = self.spent.is_empty();
        if left.is_zero() && !untouched {
            return None;
        }
        let Some(per_unit) = self.per_unit else { return Some(self.most.min(UNKNOWN)) };
        let room = if untouched { left.max(per_unit) } else { left };
        let target = room.min(time_left).min(LONGEST.max(per_unit));
        let fitting = target.as_micros() / per_unit.as_micros().max(1);
        let fitting = u32::try_from(fitting).unwrap_or(u32::MAX).min(self.most);
        (fitting > 0).then_some(fitting)
    }

    /// Learns from a piece of `units` that gave `intervals`.
    pub(super) fn answered(&mut self, now: Instant, took: Duration, units: u32, intervals: usize) {
        self.spend(now, took);
        self.most = self.most.max(units.saturating_mul(2)).min(MOST);
        if let Ok(intervals @ 1..) = u32::try_from(intervals) {
            self.per_unit = Some((took / intervals).max(Duration::from_micros(1)));
        }
    }

    /// Learns from a piece of `units` that failed: the next one is half as large.
    pub(super) fn failed(&mut self, now: Instant, took: Duration, units: u32) {
        self.spend(now, took);
        self.most = (units / 2).max(1);
    }

    /// Sets how many units the next piece has at most.
    pub(super) fn limit(&mut self, units: u32) {
        self.most = units.clamp(1, MOST);
    }

    fn spend(&mut self, now: Instant, took: Duration) {
        self.spent.push_back((now, took));
        if self.spent.len() > ENTRIES
            && let Some((_, oldest)) = self.spent.pop_front()
            && let Some((_, next)) = self.spent.front_mut()
        {
            *next += oldest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pieces_grow_until_they_take_their_time_and_shrink_when_they_fail() {
        let mut pace = Pace::new(Duration::from_hours(1));
        let now = Instant::now();
        let mut sizes = Vec::new();
        for _ in 0..8 {
            let units = pace.size(now, Duration::MAX).unwrap();
            sizes.push(units);
            // Two seconds to sign on, then 50 ms an interval.
            pace.answered(now, Duration::from_secs(2) + Duration::from_millis(50) * units, units, units as usize);
        }
        assert!(sizes.is_sorted() && (200..=260).contains(sizes.last().unwrap()), "{sizes:?}");
        assert!(pace.size(now, Duration::from_secs(3)).unwrap() <= 60);
        assert_eq!(pace.size(now, Duration::from_millis(1)), None);
        pace.failed(now, Duration::from_secs(1), 10);
        assert_eq!(pace.size(now, Duration::MAX), Some(5));
    }

    #[tokio::test(start_paused = true)]
    async fn no_hour_has_more_than_the_budget_and_one_unit() {
        let (budget, unit) = (Duration::from_secs(60), Duration::from_secs(7));
        let mut pace = Pace::new(budget);
        let mut log = Vec::new();
        for _ in 0..3000 {
            let now = Instant::now();
            if let Some(units) = pace.size(now, Duration::MAX) {
                tokio::time::advance(unit * units).await;
                pace.answered(Instant::now(), unit * units, units, units as usize);
                log.push((Instant::now(), unit * units));
            } else {
                tokio::time::advance(Duration::from_secs(5)).await;
            }
        }
        for (from, _) in &log {
            let hour: Duration = log.iter().filter(|(at, _)| at >= from && *at < *from + HOUR).map(|(_, t)| *t).sum();
            assert!(hour <= budget + unit, "{hour:?}");
        }
        assert!(log.len() > 8);
        let mut tight = Pace::new(Duration::from_secs(1));
        tight.answered(Instant::now(), unit, 1, 1);
        assert_eq!(tight.size(Instant::now(), Duration::MAX), None);
        tokio::time::advance(HOUR).await;
        assert_eq!(tight.size(Instant::now(), Duration::MAX), Some(1), "longer than the budget, but not never");
    }
}
