//! When hosts are asked, which step is next, and when not: no clock, no network, no disk.
//!
//! Invariants: a step is tried once until a host answers or a broker is reached; never more reboots in 24 hours than the limit,
//! over any restarts, power cuts and clocks that jump while nobody trusts them.

use std::time::Duration;

use super::book::Book;
use super::settings::{Step, WatchdogSettings, minute_of_day};
use crate::model::{ClockState, Stamp};

/// How often is looked while there is a session.
const SELDOM: Duration = Duration::from_mins(1);
/// How often is looked otherwise.
const OFTEN: Duration = Duration::from_secs(10);
/// A daily reset that could not be done for so long is left out.
const DAILY_WINDOW: i64 = 3_600_000;
const DAY: i64 = 86_400_000;

/// What the settings say.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// After so long a silence hosts are asked this often, and so many failures begin the ladder; `None`: never.
    pub(super) ping: Option<(Duration, Duration, u32)>,
    pub(super) ladder: Vec<Step>,
    pub(super) pause: Duration,
    pub(super) reboots: u32,
    /// The minute of the day.
    pub(super) daily: Option<u16>,
}

impl Rules {
    pub(super) fn new(settings: Option<&WatchdogSettings>) -> Self {
        const USUAL: u32 = 3;
        let Some(settings) = settings else {
            return Self { ping: None, ladder: Vec::new(), pause: Duration::ZERO, reboots: USUAL, daily: None };
        };
        let ping = settings.ping.as_ref().filter(|_| settings.enabled);
        Self {
            ping: ping.map(|ping| (*ping.after, *ping.every, ping.failures.value())),
            ladder: settings.ladder.to_vec(),
            pause: *settings.pause,
            reboots: settings.reboots.value(),
            daily: minute_of_day(&settings.daily_reset).unwrap_or_default(),
        }
    }
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Nothing for so long.
    Wait(Duration),
    /// Ask the hosts.
    Test,
    /// Try this step.
    Try(Step),
    /// Reboot because of the time of day.
    DailyReset,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// It was tried, well or badly.
    Tried,
    /// This gateway can't.
    Skipped,
    /// Not now; it is tried again after the pause.
    Postponed,
}

/// The course of the watchdog. Times are uptimes in milliseconds.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) rules: Rules,
    pub(super) book: Book,
    started: u64,
    /// The last session with a broker.
    heard: u64,
    tested: Option<u64>,
    /// Failures in a row.
    pub(super) failures: u32,
    /// Steps tried since the last success.
    pub(super) rung: usize,
    stepped: Option<u64>,
}

impl Course {
    pub(super) fn new(rules: Rules, book: Book, now: &Stamp) -> Self {
        let rung = book.climbed(now.boot);
        // A ladder that is being climbed goes on: its own restart of weir is no news of the world.
        let silent = rules.ping.filter(|_| rung > 0).map_or(0, |(after, ..)| millis(after));
        let heard = now.uptime.saturating_sub(silent);
        let stepped = (rung > 0).then_some(now.uptime);
        Self { rules, book, started: now.uptime, heard, tested: None, failures: 0, rung, stepped }
    }

    /// What is to be done now; `busy`: a trial runs that a reboot would end.
    pub(super) fn next(&mut self, now: &Stamp, connected: bool, busy: bool) -> Task {
        if self.daily_is_due(now) && !busy {
            return Task::DailyReset;
        }
        let Some((after, every, failures)) = self.rules.ping else { return Task::Wait(SELDOM) };
        if connected {
            self.success(now);
            self.heard = now.uptime;
            return Task::Wait(SELDOM.min(after / 4).max(Duration::from_millis(100)));
        }
        let waits = |since: u64, time: Duration| millis(time).saturating_sub(now.uptime.saturating_sub(since));
        let silent = waits(self.heard, after);
        if silent > 0 {
            return Task::Wait(Duration::from_millis(silent).min(OFTEN));
        }
        if self.failures >= failures
            && let Some(step) = self.rules.ladder.get(self.rung)
            && self.stepped.is_none_or(|at| waits(at, self.rules.pause) == 0)
            && (*step != Step::Reboot || !busy && self.may_reboot(now))
        {
            return Task::Try(*step);
        }
        match self.tested.map_or(0, |at| waits(at, every)) {
            0 => Task::Test,
            left => Task::Wait(Duration::from_millis(left).min(OFTEN)),
        }
    }

    /// Notes how a test of all hosts ended.
    pub(super) fn tested(&mut self, now: &Stamp, answered: bool) {
        self.tested = Some(now.uptime);
        if answered {
            self.success(now);
        } else {
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// Notes what became of a step.
    pub(super) fn stepped(&mut self, now: &Stamp, done: Done) {
        if done != Done::Skipped {
            self.stepped = Some(now.uptime);
        }
        if done != Done::Postponed {
            self.rung += 1;
            self.book.climb(now.boot, self.rung);
        }
    }

    /// Whether one more reboot is allowed.
    pub(super) fn may_reboot(&self, now: &Stamp) -> bool {
        self.book.allows(now, self.rules.reboots)
    }

    /// The daily reset is done, or left out today.
    pub(super) fn daily_is_done(&mut self, now: &Stamp) {
        self.book.daily = self.day(now).map(|(day, _)| day);
    }

    /// How long no broker was heard.
    pub(super) fn silence(&self, now: &Stamp) -> Duration {
        Duration::from_millis(now.uptime.saturating_sub(self.heard))
    }

    fn success(&mut self, now: &Stamp) {
        self.failures = 0;
        if self.rung > 0 {
            self.rung = 0;
            self.book.climb(now.boot, 0);
        }
    }

    /// The day, which begins at the time of the reset, and how much of it has passed.
    fn day(&self, now: &Stamp) -> Option<(i64, i64)> {
        let minute = self.rules.daily?;
        let since = now.wall.as_millis() - i64::from(minute) * 60_000;
        Some((since.div_euclid(DAY), since.rem_euclid(DAY)))
    }

    fn daily_is_due(&self, now: &Stamp) -> bool {
        let Some((day, passed)) = self.day(now).filter(|_| now.clock == ClockState::Synced) else { return false };
        // Who starts after the time waits for the next day: a setting that was changed reboots nothing at once.
        let ran = now.uptime.saturating_sub(self.started);
        let before = u64::try_from(passed).is_ok_and(|passed| ran >= passed);
        passed < DAILY_WINDOW && before && self.book.daily != Some(day)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "course_tests.rs"]
mod tests;
