//! Counters of every meter, shared with whoever shows them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::MeterError;
use crate::model::{Quality, Timestamp, Value};
use crate::os::line::{Exchange, Notes};

/// How one meter has been doing since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MeterHealth {
    /// Readings in which every value was good.
    pub answers: u64,
    /// Readings with values that got no answer.
    pub timeouts: u64,
    /// Readings with damaged values.
    pub damaged: u64,
    /// Readings with values that the meter refused.
    pub refused: u64,
    /// Failed readings since the last good one.
    pub failing: u64,
    /// When it last gave a reading without fault.
    pub last_answer: Option<Timestamp>,
    /// The last error, in one sentence, and when.
    pub last_error: Option<(Timestamp, String)>,
    /// Requests sent, repeats included.
    pub requests: u64,
    /// Requests after which nothing came.
    pub unanswered: u64,
    /// Answers that were damaged, those included that asking again mended.
    pub damaged_answers: u64,
    /// Echoes removed: the adapter sends back what it is given.
    pub echoes: u64,
    /// Echoes that came back damaged: two senders at once.
    pub collisions: u64,
    /// From the end of a request to the first byte of its answer.
    pub delays: Delays,
    /// The last request and what came after it, and when.
    pub exchange: Option<(Timestamp, Exchange)>,
    /// How many times longer than configured its interval is, because it is silent.
    pub stretch: u32,
    /// Slots in which it was not asked: it was left alone, or the line was lent.
    pub not_asked: u64,
    /// How its load profile is read, when it is.
    pub profile: Option<super::ProfileHealth>,
}

/// How long answers took, counted in 68 classes; a figure read from it is at most a quarter too
/// large, and never too small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delays {
    classes: [u32; Self::CLASSES],
    longest: Duration,
}

impl Default for Delays {
    fn default() -> Self {
        Self { classes: [0; Self::CLASSES], longest: Duration::ZERO }
    }
}

impl Delays {
    const CLASSES: usize = 68;

    /// Counts one.
    pub fn add(&mut self, delay: Duration) {
        // In quarter milliseconds: four classes for each doubling.
        let quarters = u32::try_from(delay.as_micros() / 250).unwrap_or(u32::MAX);
        let class = if quarters < 4 {
            quarters
        } else {
            let doublings = quarters.ilog2();
            4 * (doublings - 1) + ((quarters >> (doublings - 2)) & 3)
        };
        let class = usize::try_from(class).unwrap_or(usize::MAX).min(Self::CLASSES - 1);
        if let Some(count) = self.classes.get_mut(class) {
            *count = count.saturating_add(1);
        }
        self.longest = self.longest.max(delay);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.classes.iter().copied().map(u64::from).sum()
    }

    /// What so many percent of the answers did not exceed; `None` before the first.
    pub fn percentile(&self, percent: u32) -> Option<Duration> {
        let wanted = (self.count() * u64::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        let mut classes = (0u32..).zip(&self.classes);
        let (class, _) = classes.find(|(_, count)| {
            seen += u64::from(**count);
            seen >= wanted
        })?;
        if class + 1 == u32::try_from(Self::CLASSES).unwrap_or(0) {
            return Some(self.longest);
        }
        let end = if class < 4 { class + 1 } else { (5 + class % 4) << (class / 4 - 1) };
        Some((Duration::from_micros(250) * end).min(self.longest))
    }

    /// The longest.
    pub fn longest(&self) -> Option<Duration> {
        (self.count() > 0).then_some(self.longest)
    }
}

/// A cheap handle to the counters of all meters; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, MeterHealth>>>);

impl Health {
    /// Starts with no meters.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counters of every meter that was asked so far, by name.
    pub fn meters(&self) -> BTreeMap<String, MeterHealth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The names of the meters that failed so often in a row, or more often.
    pub fn failing(&self, times: u64) -> Vec<String> {
        let meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        meters.iter().filter(|(_, health)| health.failing >= times).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn update<T>(&self, meter: &str, change: impl FnOnce(&mut MeterHealth) -> T) -> T {
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !meters.contains_key(meter) {
            meters.insert(meter.to_owned(), MeterHealth { stretch: 1, ..MeterHealth::default() });
        }
        change(meters.entry(meter.to_owned()).or_default())
    }

    /// Adds what the line noted while the meter had it.
    pub(super) fn note(&self, meter: &str, time: Timestamp, notes: Notes) {
        self.update(meter, |health| {
            health.requests += u64::from(notes.requests);
            health.unanswered += u64::from(notes.unanswered);
            health.damaged_answers += u64::from(notes.damaged);
            health.echoes += u64::from(notes.echoes);
            health.collisions += u64::from(notes.collisions);
            for delay in notes.delays {
                health.delays.add(delay);
            }
            if notes.requests > 0 {
                health.exchange = Some((time, notes.exchange));
            }
        });
    }

    /// Notes how much a meter's interval is stretched.
    pub(super) fn stretched(&self, meter: &str, factor: u32) {
        self.update(meter, |health| health.stretch = factor);
    }

    /// Counts a slot in which a meter was not asked.
    pub(super) fn not_asked(&self, meter: &str) {
        self.update(meter, |health| health.not_asked += 1);
    }

    /// Counts a reading; returns how many had failed in a row before it.
    pub(super) fn count(&self, meter: &str, time: Timestamp, outcome: &Outcome) -> u64 {
        self.update(meter, |health| {
            let before = health.failing;
            match outcome {
                Outcome::Good => {
                    health.answers += 1;
                    health.failing = 0;
                    health.last_answer = Some(time);
                }
                Outcome::Bad(quality, sentence) => {
                    match quality {
                        Quality::NoAnswer | Quality::Good | Quality::Unavailable => health.timeouts += 1,
                        Quality::Invalid => health.damaged += 1,
                        Quality::Refused => health.refused += 1,
                    }
                    health.failing += 1;
                    health.last_error = Some((time, sentence.clone()));
                }
            }
            before
        })
    }
}

/// What a reading came to, for counting and logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Every value is good.
    Good,
    /// The worst quality and one sentence.
    Bad(Quality, String),
}

impl Outcome {
    /// Judges what a session gave.
    pub(super) fn of(result: &Result<Vec<Value>, MeterError>) -> Self {
        let values = match result {
            Err(error) => return Self::Bad(error.quality(), error.to_string()),
            Ok(values) => values,
        };
        let bad: Vec<&Value> = values.iter().filter(|v| v.quality.is_fault()).collect();
        let Some(first) = bad.first() else { return Self::Good };
        let sentence = format!(
            "{} of {} values could not be read, the first is {} ({})",
            bad.len(),
            values.len(),
            first.name,
            first.quality.word()
        );
        Self::Bad(first.quality, sentence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_kind_and_their_end_is_told() {
        let health = Health::new();
        let at = Timestamp::from_millis(1000);
        let bad = Outcome::of(&Err(MeterError::Damaged("x".to_owned())));
        assert_eq!(health.count("m", at, &bad), 0);
        assert_eq!(health.count("m", at, &bad), 1);
        assert_eq!(health.count("m", at, &Outcome::of(&Ok(Vec::new()))), 2);
        let meter = health.meters().remove("m").unwrap();
        assert_eq!((meter.answers, meter.damaged, meter.failing), (1, 2, 0));
        assert_eq!(meter.last_error.unwrap().1, "damaged answer: x");
    }

    #[test]
    fn percentiles_are_never_too_small_and_at_most_a_quarter_too_large() {
        let mut delays = Delays::default();
        assert_eq!((delays.percentile(50), delays.longest()), (None, None));
        for micros in (1..=2000u64).map(|n| n * n) {
            delays.add(Duration::from_micros(micros));
        }
        for percent in [1, 10, 50, 95, 99, 100] {
            let exact = Duration::from_micros((u64::from(percent) * 20).pow(2));
            let found = delays.percentile(percent).unwrap();
            assert!(
                found >= exact && found <= exact * 5 / 4 + Duration::from_micros(250),
                "{percent}: {found:?} {exact:?}"
            );
        }
        assert_eq!((delays.count(), delays.longest()), (2000, Some(Duration::from_secs(4))));
        delays.add(Duration::MAX);
        assert_eq!(delays.percentile(100), Some(Duration::MAX));
    }
}
