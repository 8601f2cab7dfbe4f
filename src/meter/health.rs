//! Counters of every meter, shared with whoever shows them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::MeterError;
use crate::model::{Quality, Timestamp, Value};

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
    /// How its load profile is read, when it is.
    pub profile: Option<super::ProfileHealth>,
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

    pub(super) fn update<T>(&self, meter: &str, change: impl FnOnce(&mut MeterHealth) -> T) -> T {
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !meters.contains_key(meter) {
            meters.insert(meter.to_owned(), MeterHealth::default());
        }
        change(meters.entry(meter.to_owned()).or_default())
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
                        Quality::NoAnswer | Quality::Good => health.timeouts += 1,
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
        let bad: Vec<&Value> = values.iter().filter(|v| v.quality != Quality::Good).collect();
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
}
