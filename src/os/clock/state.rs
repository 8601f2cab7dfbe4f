//! What is believed of the clock: pure, fed with readings.
//!
//! Invariants: no time that is given out lies before [`BUILT`]; while nobody vouches for the wall
//! clock, what is known of this boot counts before what the wall clock says.

use std::time::Duration;

use super::book::{Book, TOLERANCE, offset};
use super::health::{Basis, Health};
use crate::model::{BootId, ClockState, Stamp, TimeQuality, Timestamp};

/// No clock is right that shows a time before this: the day of this release, or what the build
/// says in `SOURCE_DATE_EPOCH`. A constant of the source, so that builds are reproducible.
pub const BUILT: Timestamp = Timestamp::from_millis(built(option_env!("SOURCE_DATE_EPOCH")));
/// 2026-11-21T00:00:00Z.
const RELEASED: i64 = 1_795_219_200_000;

/// A wall clock further behind the reckoned time has not been set yet.
const BEHIND: Duration = Duration::from_mins(1);
/// How long what the trust was found to be counts while the clock runs evenly.
const TRUST_AGAIN: u64 = 60_000;
const DOUBT_AGAIN: u64 = 1000;
/// The last good time in the book is at most this old while the clock is trusted, so that flash
/// is written once an hour.
const GOOD_EVERY: Duration = Duration::from_hours(1);
/// Jumps are logged at most so often.
const TELL_AGAIN: u64 = 60_000;

const fn built(epoch: Option<&str>) -> i64 {
    let Some(text) = epoch else { return RELEASED };
    let mut digits = text.as_bytes();
    let mut seconds: i64 = 0;
    while let [digit, rest @ ..] = digits {
        if !digit.is_ascii_digit() || seconds > 100_000_000_000 {
            return RELEASED;
        }
        seconds = seconds * 10 + (*digit - b'0') as i64;
        digits = rest;
    }
    if seconds * 1000 > RELEASED { seconds * 1000 } else { RELEASED }
}

/// What the clocks show at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) wall: Timestamp,
    pub(super) uptime: u64,
}

/// The clock was set while nobody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Jump {
    /// By how much, in milliseconds.
    pub(super) by: i64,
    /// Worth a line in the log.
    pub(super) tell: bool,
}

/// What is known.
#[derive(Debug)]
pub(super) struct State {
    boot: BootId,
    started: u64,
    patience: u64,
    pub(super) book: Book,
    /// Somebody vouched for the clock when last asked.
    vouched: bool,
    /// Vouched for, and not before [`BUILT`].
    trusted: bool,
    asked: Option<u64>,
    seen: Option<Reading>,
    jumps: u64,
    told: Option<u64>,
    turn_told: Option<u64>,
    saved_good: Option<Timestamp>,
    /// The book knows what its file does not.
    pub(super) unsaved: bool,
}

impl State {
    pub(super) fn new(boot: BootId, started: u64, patience: Duration, book: Book) -> Self {
        Self {
            boot,
            started,
            patience: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
            saved_good: book.good(),
            book,
            vouched: false,
            trusted: false,
            asked: None,
            seen: None,
            jumps: 0,
            told: None,
            turn_told: None,
            unsaved: false,
        }
    }

    /// Whether it is time to ask again who vouches for the clock.
    pub(super) fn must_ask(&self, uptime: u64) -> bool {
        let interval = if self.trusted { TRUST_AGAIN } else { DOUBT_AGAIN };
        self.asked.is_none_or(|at| uptime.saturating_sub(at) >= interval)
    }

    /// Takes the answer to that question.
    pub(super) fn answered(&mut self, uptime: u64, vouched: bool) {
        self.asked = Some(uptime);
        self.vouched = vouched;
    }

    /// Takes a reading; tells when the clock was set since the last one.
    pub(super) fn jumped(&mut self, now: Reading) -> Option<Jump> {
        let before = self.seen.replace(now)?;
        let by = offset(now.wall, now.uptime).saturating_sub(offset(before.wall, before.uptime));
        if by.unsigned_abs() <= TOLERANCE {
            return None;
        }
        self.jumps += 1;
        let tell = self.told.is_none_or(|at| now.uptime.saturating_sub(at) >= TELL_AGAIN);
        if tell {
            self.told = Some(now.uptime);
        }
        Some(Jump { by, tell })
    }

    /// Whether a change of the trust is worth a line in the log: a clock that flaps gets one a minute.
    pub(super) fn tells_turn(&mut self, now: Reading) -> bool {
        let tell = self.turn_told.is_none_or(|at| now.uptime.saturating_sub(at) >= TELL_AGAIN);
        if tell {
            self.turn_told = Some(now.uptime);
        }
        tell
    }

    /// Decides whether the wall clock is believed, and keeps the book; true when that changed.
    pub(super) fn judge(&mut self, now: Reading) -> bool {
        let trusted = self.vouched && now.wall >= BUILT;
        if trusted {
            self.unsaved |= self.book.note(self.boot, now.wall, now.uptime);
            self.unsaved |=
                self.saved_good.is_none_or(|saved| now.wall.since(saved).max(saved.since(now.wall)) >= GOOD_EVERY);
        }
        std::mem::replace(&mut self.trusted, trusted) != trusted
    }

    /// The book's file is as new as the book was when it held this good time.
    pub(super) fn saved(&mut self, good: Option<Timestamp>) {
        self.saved_good = good;
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Somebody vouches for a clock that can't be right.
    pub(super) fn is_refused(&self) -> bool {
        self.vouched && !self.trusted
    }

    /// The earliest it can be: the last good time of an earlier boot and all of this one, or the
    /// day weir was built and the time since its start.
    fn floor(&self, uptime: u64) -> (Timestamp, Basis) {
        let built = BUILT.plus(Duration::from_millis(uptime.saturating_sub(self.started)));
        match self.book.good_before(self.boot).map(|good| good.plus(Duration::from_millis(uptime))) {
            Some(good) if good > built => (good, Basis::LastGood),
            _ => (built, Basis::Built),
        }
    }

    /// The time, as well as it is known, and where that knowledge comes from.
    fn reckoned(&self, now: Reading) -> (Timestamp, Basis) {
        if self.trusted {
            return (now.wall, Basis::Clock);
        }
        if let Some(known) = self.book.time(self.boot, now.uptime).filter(|t| *t >= BUILT) {
            return (known, Basis::Book);
        }
        let (floor, basis) = self.floor(now.uptime);
        if now.wall >= floor { (now.wall, Basis::Unconfirmed) } else { (floor, basis) }
    }

    pub(super) fn stamp(&self, now: Reading) -> Stamp {
        let clock = if self.trusted { ClockState::Synced } else { ClockState::Unsynced };
        Stamp { wall: self.reckoned(now).0, boot: self.boot, uptime: now.uptime, clock }
    }

    pub(super) fn resolve(&self, stamp: &Stamp) -> (Timestamp, TimeQuality) {
        if stamp.clock == ClockState::Synced {
            return (stamp.wall, TimeQuality::Synced);
        }
        match self.book.time(stamp.boot, stamp.uptime).filter(|t| *t >= BUILT) {
            Some(mended) => (mended, TimeQuality::Corrected),
            None => (stamp.wall.max(BUILT), TimeQuality::Unsynced),
        }
    }

    /// How long ordinary frames should still wait for the clock; `None` when they need not.
    pub(super) fn hold(&self, now: Reading) -> Option<Duration> {
        let (_, basis) = self.reckoned(now);
        let unset = matches!(basis, Basis::LastGood | Basis::Built) && now.wall.plus(BEHIND) < self.floor(now.uptime).0;
        let left = self.patience.saturating_sub(now.uptime.saturating_sub(self.started));
        (unset && left > 0).then(|| Duration::from_millis(left))
    }

    pub(super) fn health(&self, now: Reading) -> Health {
        let (time, basis) = self.reckoned(now);
        Health { time, basis, jumps: self.jumps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_flaps_is_told_of_once_a_minute() {
        let mut state = State::new(BootId::UNKNOWN, 0, Duration::ZERO, Book::default());
        let at = |uptime| Reading { wall: BUILT, uptime };
        let told = (0..180).filter(|second| state.tells_turn(at(second * 1000))).count();
        assert_eq!(told, 3);
    }
}
