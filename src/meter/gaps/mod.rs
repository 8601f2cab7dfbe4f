//! Load profiles: which intervals were delivered, and what to ask for next.
//!
//! Invariants: times are the meter's, in UTC. A stretch of time is dealt with only when the meter
//! answered for it *and* has recorded something later: what it may not have closed yet stays open,
//! and weir's own clock decides nothing but how far to ask. The oldest open stretch goes first; one
//! that the meter refuses even alone is left out for a day. What was delivered is written to disk
//! only after the frames are durable ([`Keeper`]), so that a crash repeats intervals and never
//! skips one. Nothing is delivered twice while its content is among the last 512; another content
//! at the same time always is. Start with [`Gaps`], which is pure; [`Reader`] does what it
//! plans, and [`ReadBack`] is the background work of a port.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::LoadProfileSettings;
use crate::model::{Interval, Timestamp};

mod background;
mod covered;
mod keeper;
mod pace;
mod reader;
mod state;

pub use background::ReadBack;
use covered::Covered;
pub use keeper::{Keeper, Marker};
use pace::Pace;
pub use reader::{ProfileHealth, Reader};
pub use state::State;

/// The first pause after a failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_mins(1);
/// The longest after silence or damage.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// The longest after a refusal: the meter is there, and the stretch that it refuses is looked for.
const LONGEST_AFTER_REFUSAL: Duration = Duration::from_mins(5);
/// The longest between rounds in which everything failed; also how long a refused stretch is left out.
const DAY: Duration = Duration::from_hours(24);
/// Intervals before the newest that are asked for again, for a meter's clock that is set back a little.
const OVERLAP: i64 = 4;
/// What did not fit is looked at again after this time.
const LOOK: Duration = Duration::from_secs(10);
/// Work that never fits between the readings is done nevertheless after this time.
const STARVED: Duration = Duration::from_mins(15);

/// The present, as planning needs it.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The wall clock's time.
    pub wall: Timestamp,
    /// Whether the wall clock is trusted.
    pub trusted: bool,
    /// The time that pauses and budgets are reckoned in.
    pub at: Instant,
}

/// A stretch of the profile to ask the meter for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Intervals that ended after this.
    pub after: Timestamp,
    /// Intervals that ended not later than this.
    pub until: Timestamp,
}

/// Why a piece gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The meter refused it.
    Refused,
    /// The answer was damaged.
    Damaged,
    /// There was no answer, or no line.
    Silent,
}

/// One pass from the oldest open stretch to the present.
#[derive(Debug)]
struct Round {
    /// Everything before was asked for in this round.
    cursor: i64,
    until: i64,
    /// What was answered without a break, the last one ending at the cursor.
    run: Option<(i64, i64)>,
    /// The newest end that was known when the round began; the overlap is asked for once.
    known: Option<i64>,
    overlap: bool,
    trusted: bool,
    succeeded: bool,
}

/// A piece that is under way.
#[derive(Debug, Clone, Copy)]
struct Asked {
    piece: Piece,
    /// Where the open stretch begins; the piece may begin before.
    open: i64,
    units: u32,
}

/// The plan of one meter's profile.
#[derive(Debug)]
pub struct Gaps {
    /// The length of an interval in milliseconds; 0 for events.
    period: i64,
    every: Duration,
    history: i64,
    state: State,
    pace: Pace,
    due: Option<Timestamp>,
    round: Option<Round>,
    asked: Option<Asked>,
    not_before: Option<Instant>,
    /// Since when there is work that did not fit, and when to look again.
    starving: Option<(Instant, Instant)>,
    failures: u32,
    /// Rounds in a row without any answer.
    barren: u32,
    /// The meter refuses stretches: the next good one is looked for.
    searching: bool,
    /// Failures in a row at the smallest size.
    stuck: u32,
    /// What is left out, and since when.
    refused: (Covered, Option<Instant>),
    /// What was dealt with once and is looked at again.
    reopened: Covered,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Gaps {
    /// Plans on from a state.
    pub fn new(settings: &LoadProfileSettings, state: State) -> Self {
        Self {
            period: millis(settings.period),
            every: *settings.every,
            history: millis(settings.history),
            state,
            pace: Pace::new(settings.budget),
            due: None,
            round: None,
            asked: None,
            not_before: None,
            starving: None,
            failures: 0,
            barren: 0,
            searching: false,
            stuck: 0,
            refused: (Covered::default(), None),
            reopened: Covered::default(),
        }
    }

    /// What was delivered and is dealt with.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The end of the newest interval that the meter gave.
    pub fn newest(&self) -> Option<Timestamp> {
        self.state.covered.end().map(Timestamp::from_millis)
    }

    /// Goes back to an older state: frames after it were lost.
    pub fn restore(&mut self, state: State) {
        self.state = state;
        self.round = None;
        self.asked = None;
        self.due = None;
    }

    /// How long [`next`](Self::next) has nothing to ask for.
    pub fn idle(&self, now: &Now) -> Duration {
        let look = self.starving.map(|(_, look)| look);
        let pause = self.not_before.max(look).map_or(Duration::ZERO, |at| at.saturating_duration_since(now.at));
        let slot = match (&self.round, self.due) {
            (Some(_), _) | (None, None) => Duration::ZERO,
            (None, Some(due)) => due.since(now.wall),
        };
        pause.max(slot)
    }

    /// The oldest stretch that is missing, no larger than the budget and `time_left` (until the bus
    /// is needed for readings) allow; `None` when there is nothing to do now.
    pub fn next(&mut self, now: &Now, time_left: Duration) -> Option<Piece> {
        if self.not_before.is_some_and(|at| now.at < at) {
            return None;
        }
        if self.refused.1.is_some_and(|since| now.at.saturating_duration_since(since) >= DAY) {
            self.refused = (Covered::default(), None);
        }
        if self.round.is_none() {
            // A clock that was set back moves the slots with it.
            let slot = now.wall.next_aligned(self.step());
            self.due = self.due.map(|due| due.min(slot));
            if self.due.is_some_and(|due| now.wall < due) {
                return None;
            }
            self.round = Some(self.begin(now));
        }
        let Some((open, end)) = self.open() else {
            self.end_round(now);
            return None;
        };
        let since = self.starving.map(|(since, _)| since);
        let starved = since.is_some_and(|since| now.at.saturating_duration_since(since) >= STARVED);
        let Some(units) = self.pace.size(now.at, if starved { Duration::MAX } else { time_left }) else {
            self.starving = Some((since.unwrap_or(now.at), now.at + LOOK));
            return None;
        };
        self.starving = None;
        let round = self.round.as_ref()?;
        let overlap = if round.overlap && round.known == Some(open) { OVERLAP * self.unit() } else { 0 };
        let until = open.saturating_add(self.unit().saturating_mul(i64::from(units))).min(end);
        let piece =
            Piece { after: Timestamp::from_millis(open.saturating_sub(overlap)), until: Timestamp::from_millis(until) };
        self.asked = Some(Asked { piece, open, units });
        Some(piece)
    }

    /// Takes what the meter answered to the last piece and returns what of it is to be delivered,
    /// oldest first.
    pub fn delivered(&mut self, mut intervals: Vec<Interval>, took: Duration, now: &Now) -> Vec<Interval> {
        let Some(Asked { piece, open, units }) = self.asked.take() else { return Vec::new() };
        self.failures = 0;
        self.not_before = None;
        self.barren = 0;
        self.stuck = 0;
        self.searching = false;
        intervals.retain(|i| i.end > piece.after && i.end <= piece.until);
        intervals.sort_by_key(|i| i.end);
        self.pace.answered(now.at, took, units, intervals.len());
        let ends: Vec<i64> = intervals.iter().map(|i| i.end.as_millis()).collect();
        let newest = ends.last().copied().filter(|end| *end > open);
        let fresh = self.fresh(intervals);
        self.state.delivered = self.state.delivered.saturating_add(fresh.len() as u64);
        if let Some(round) = &mut self.round
            && newest.is_none()
            && !ends.is_empty()
            && piece.until.as_millis() < round.until
        {
            // Only what overlaps came: the meter may not give more at once.
            round.overlap = false;
            return fresh;
        }
        if self.period > 0
            && let Some(known) = self.round.as_ref().and_then(|round| round.known)
            && known == open
            && fresh.first().is_some_and(|first| first.end.as_millis() <= known)
        {
            // Something new where all was known: the meter's clock was set back.
            self.reopen(known, 0);
        }
        self.close(open, piece.until.as_millis(), newest, &ends);
        let last = self.round.as_ref().is_some_and(|round| round.cursor >= round.until);
        let until = piece.until.as_millis();
        let whole = newest.is_none_or(|end| fresh.is_empty() || end.saturating_add(2 * self.unit()) >= until);
        if let Some(round) = &mut self.round
            && let Some(newest) = newest
            && !(until == round.until && whole)
        {
            // The meter may have given the beginning only: it is asked on from there.
            round.cursor = newest;
        } else if last {
            self.notice_lag();
            self.end_round(now);
        }
        fresh
    }

    /// Takes that the last piece gave nothing.
    pub fn failed(&mut self, failure: Failure, took: Duration, now: &Now) {
        let Some(Asked { piece, open, units }) = self.asked.take() else { return };
        self.failures = self.failures.saturating_add(1);
        let longest = if failure == Failure::Refused { LONGEST_AFTER_REFUSAL } else { LONGEST_PAUSE };
        let pause = FIRST_PAUSE.saturating_mul(1 << (self.failures - 1).min(10)).min(longest);
        self.not_before = Some(now.at + pause);
        self.pace.failed(now.at, took, units);
        if failure == Failure::Silent {
            return;
        }
        // Refused or damaged: is it this stretch, or the meter?
        self.stuck = if units <= 1 { self.stuck + 1 } else { 0 };
        if self.searching || self.stuck >= 3 {
            self.searching = true;
            self.pace.limit(units.saturating_mul(2));
            self.refused.0.add(open, piece.until.as_millis());
            self.refused.0.bound(64);
            self.refused.1.get_or_insert(now.at);
        }
    }

    /// What times are asked in: the period, or an hour for events.
    const fn unit(&self) -> i64 {
        if self.period > 0 { self.period } else { 3_600_000 }
    }

    fn begin(&self, now: &Now) -> Round {
        let (wall, known) = (now.wall.as_millis(), self.state.covered.end());
        let floor = wall.saturating_sub(self.history);
        // A clock that nobody trusts must not make weir skip anything, nor stop it.
        let (cursor, until) = match known {
            Some(end) if !now.trusted => (self.state.covered.start().unwrap_or(end), wall.max(end + millis(DAY))),
            _ => (floor, wall),
        };
        Round { cursor, until, run: None, known, overlap: true, trusted: now.trusted, succeeded: false }
    }

    /// The first stretch from the cursor on that is neither dealt with nor left out.
    fn open(&self) -> Option<(i64, i64)> {
        let round = self.round.as_ref()?;
        let mut from = round.cursor;
        while let Some((start, end)) = self.state.covered.first_open(from, round.until) {
            if let Some(open) = self.refused.0.first_open(start, end) {
                return Some(open);
            }
            from = end;
        }
        None
    }

    fn end_round(&mut self, now: &Now) {
        let until = self.round.as_ref().map(|round| round.until);
        if let Some(round) = self.round.take()
            && !round.succeeded
            && self.failures > 0
        {
            self.barren = self.barren.saturating_add(1);
        }
        // What came meanwhile is asked for at once when the round has lasted long.
        let late = until.is_some_and(|until| now.wall.as_millis().saturating_sub(until) >= millis(self.every));
        self.due = if late && self.barren == 0 { None } else { Some(now.wall.next_aligned(self.step())) };
    }

    /// From one round to the next: longer when nothing was had.
    fn step(&self) -> Duration {
        self.every.saturating_mul(1 << self.barren.min(5)).min(DAY.max(self.every))
    }

    /// Those of an answer that were not delivered before.
    fn fresh(&mut self, intervals: Vec<Interval>) -> Vec<Interval> {
        let mut same: HashMap<(i64, u64), u64> = HashMap::new();
        let state = &mut self.state;
        let is_new = |interval: &Interval| {
            let nth = same.entry((interval.end.as_millis(), state::print(interval, 0))).or_default();
            *nth += 1;
            state.is_new(interval, *nth - 1)
        };
        intervals.into_iter().filter(is_new).collect()
    }

    /// Closes what the answer to `(open, until]` shows to be dealt with, and moves the cursor.
    fn close(&mut self, open: i64, until: i64, newest: Option<i64>, ends: &[i64]) {
        let known = self.state.covered.end();
        let Some(round) = &mut self.round else { return };
        if round.known == Some(open) {
            round.overlap = false;
        }
        round.succeeded = true;
        let start = round.run.filter(|(_, end)| *end == open).map_or(open, |(start, _)| start);
        round.cursor = until;
        let closed = match newest {
            Some(newest) => newest,
            None if known.is_some_and(|end| until <= end) => until,
            None => {
                round.run = Some((start, until));
                return;
            }
        };
        round.run = Some((start, closed));
        let new = self.state.covered.add(start, closed);
        // Before the first interval that it ever gave, the meter may not have had a profile.
        let since = if known.is_some() { i64::MIN } else { ends.first().map_or(i64::MAX, |first| first - 1) };
        self.count_absent(&new, since, ends);
        for hole in self.state.bound() {
            self.count_absent(&[hole], since, &[]);
        }
    }

    fn count_absent(&mut self, new: &[(i64, i64)], since: i64, ends: &[i64]) {
        let period = self.period;
        if period <= 0 {
            return;
        }
        // Which interval an end belongs to: a meter closes one early when its clock is set.
        let slot = |end: i64| end.saturating_sub(1).div_euclid(period);
        for (after, until) in new {
            let mut from = (*after).max(since);
            // What was opened again was counted before.
            while let Some((after, until)) = self.reopened.first_open(from, *until) {
                let expected = slot(until).saturating_sub(slot(after)).max(0);
                let mut had: Vec<i64> = ends.iter().filter(|e| **e > after && **e <= until).map(|e| slot(*e)).collect();
                had.dedup();
                let missing = expected.saturating_sub(i64::try_from(had.len()).unwrap_or(i64::MAX)).max(0);
                self.state.absent = self.state.absent.saturating_add(u64::try_from(missing).unwrap_or(0));
                from = until;
            }
        }
    }

    /// A meter whose newest interval lags more than ever had its clock set back: what it recorded
    /// since then stands among times that are dealt with, and they are opened again.
    fn notice_lag(&mut self) {
        let Some(Round { known, until, trusted: true, .. }) = self.round else { return };
        let newest = self.state.covered.end().filter(|end| known.is_none_or(|known| *end > known));
        let (Some(newest), true) = (newest, self.period > 0) else { return };
        // From the beginning of the round on, which may be long ago: nothing newer was asked for.
        let lag = until.saturating_sub(newest);
        let Some((least, followed)) = self.state.lag else {
            self.state.lag = Some((lag, lag));
            return;
        };
        if lag > followed.saturating_add(2 * self.period)
            && let Some(known) = known
        {
            self.reopen(known, lag.saturating_sub(least).saturating_add(2 * self.period));
        }
        self.state.lag = Some((least.min(lag), lag.max(least)));
    }

    /// Opens what was dealt with before `known` again, a day of it at least.
    fn reopen(&mut self, known: i64, back: i64) {
        let from = self.state.covered.start().unwrap_or(known).max(known.saturating_sub(back.max(millis(DAY))));
        self.state.covered.remove(from, known);
        self.reopened.add(from, known);
        self.reopened.bound(1);
    }
}

#[cfg(test)]
mod tests;
