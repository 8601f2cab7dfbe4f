//! When a receiver has been silent for too long, and what is tried then. Pure: time is an argument.
//!
//! What is usual is learnt: the mean interval between telegrams, and the second longest gap between two, which a
//! street that sends in working hours only has every night and one lost evening has not. A gap that ended by
//! itself is learnt, one that ended soon after something was tried was a fault. Nothing is kept over a restart.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::settings::OnSilence;

/// How patient a watch is.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Silences up to this are never told.
    pub shortest: Duration,
    /// The silence that is told of a receiver of which little is known.
    pub unlearnt: Duration,
    /// What is waited at least after the first thing that was tried; each time twice as long.
    pub pause: Duration,
    /// After so long without a telegram a receiver that forgets what it was told is told again, over the open line.
    pub retell: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            shortest: Duration::from_mins(10),
            unlearnt: Duration::from_hours(24),
            pause: Duration::from_mins(2),
            retell: RETELL,
        }
    }
}

/// Seldom enough for a receiver that is deaf for a moment while it is told, often enough for one that restarted.
const RETELL: Duration = Duration::from_mins(5);
/// Intervals until the rate counts as known.
const LEARNT: u32 = 16;
/// So many intervals the mean remembers.
const MEMORY: f64 = 32.0;
/// So many mean intervals without a telegram: by chance once in millions.
const INTERVALS: f64 = 16.0;
/// So many times the second longest gap.
const GAPS: f64 = 1.5;
/// Telegrams nearer than this are one: both demodulators, a burst.
const BURST: Duration = Duration::from_secs(1);
/// A gap counts half after this time.
const GAP_HALVES: f64 = 28.0 * 86_400.0;
/// The longest silence that is waited for, and the longest pause between two attempts.
const LONGEST_SILENCE: Duration = Duration::from_hours(14 * 24);
const LONGEST_PAUSE: Duration = Duration::from_hours(12);
/// Attempts within a day.
const MOST_A_DAY: usize = 12;
/// Introductions that are told within a day.
const MOST_INTRODUCED: u32 = 16;
const DAY: Duration = Duration::from_hours(24);
/// What is looked at again while the receiver is held back by others.
const AGAIN: Duration = Duration::from_secs(1);

/// What is to be done about a silent receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Only told: it is not to be touched, or was touched too often today.
    Nothing,
    /// Its source is closed and opened again.
    Reopen,
    /// Its USB device is taken off the bus and put back, then it is opened again.
    Reset,
}

/// A step against a silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// The silence begins with it.
    pub(super) first: bool,
    pub(super) action: Action,
    /// How long nothing was heard.
    pub(super) silent: Duration,
    /// The longest silence that is usual; `None` when little is known.
    pub(super) usual: Option<Duration>,
    /// The attempt's number in this silence, from 1.
    pub(super) attempt: u32,
}

/// A silence that is too long.
#[derive(Debug, Clone, Copy)]
struct Episode {
    attempts: u32,
    acted: Instant,
    next: Instant,
}

/// What is known about one receiver's rate, and its present silence.
#[derive(Debug)]
pub(super) struct Watch {
    rules: Rules,
    limit: OnSilence,
    /// When the last telegram came, or the source was opened after it had been away.
    since: Instant,
    /// The last telegram whose interval to the next one tells something.
    last: Option<Instant>,
    /// Seconds.
    mean: f64,
    intervals: u32,
    /// The two longest gaps, in seconds.
    longest: [f64; 2],
    /// Readers that wait for room or for a decoder: their silence is ours.
    busy: u32,
    episode: Option<Episode>,
    attempts: VecDeque<Instant>,
    /// When the log was last told of nothing but noise.
    noisy: Option<Instant>,
    /// When the first of the last introductions was, and how many there were.
    introduced: Option<(Instant, u32)>,
}

impl Watch {
    pub(super) const fn new(rules: Rules, limit: OnSilence, now: Instant) -> Self {
        Self {
            rules,
            limit,
            since: now,
            last: None,
            mean: 0.0,
            intervals: 0,
            longest: [0.0; 2],
            busy: 0,
            episode: None,
            attempts: VecDeque::new(),
            noisy: None,
            introduced: None,
        }
    }

    /// Whether the log is to be told that nothing but noise comes: once a day, whoever connects and however often it
    /// ends.
    pub(super) fn may_tell_noise(&mut self, now: Instant) -> bool {
        let may = self.noisy.is_none_or(|told| now.saturating_duration_since(told) >= DAY);
        if may {
            self.noisy = Some(now);
        }
        may
    }

    /// Whether the log is to be told who the receiver is: sixteen times a day, whatever it calls itself.
    pub(super) fn may_introduce(&mut self, now: Instant) -> bool {
        let young = |(first, _): &(Instant, u32)| now.saturating_duration_since(*first) < DAY;
        let (first, count) = self.introduced.filter(young).unwrap_or((now, 0));
        self.introduced = Some((first, count.saturating_add(1)));
        count < MOST_INTRODUCED
    }

    /// The source is open; when it had been away by itself, that time was no silence.
    pub(super) fn opened(&mut self, now: Instant, by_itself: bool) {
        if by_itself {
            self.last = None;
        }
        match &mut self.episode {
            // What was just plugged in is not reset at once.
            Some(episode) => episode.next = episode.next.max(now + self.rules.pause),
            None => self.since = now,
        }
    }

    /// A telegram came; gives how long the silence was when it was one that had been told.
    pub(super) fn heard(&mut self, now: Instant) -> Option<Duration> {
        let ended = self.episode.take();
        let silent = now.saturating_duration_since(self.since);
        self.since = now;
        let gap = self.last.map(|last| now.saturating_duration_since(last));
        if gap.is_none_or(|gap| gap >= BURST) {
            self.last = Some(now);
            let cured =
                ended.is_some_and(|e| e.attempts > 0 && now.saturating_duration_since(e.acted) <= self.pause_after(1));
            if let Some(gap) = gap.filter(|_| !cured) {
                self.learn(gap.as_secs_f64());
            }
        }
        ended.map(|_| silent)
    }

    fn learn(&mut self, gap: f64) {
        let faded = 0.5f64.powf(gap / GAP_HALVES);
        let [first, second] = self.longest.map(|gap| gap * faded);
        self.longest = if gap > first { [gap, first] } else { [first, second.max(gap)] };
        self.intervals = self.intervals.saturating_add(1);
        // One lost night must not look like a new rate.
        let gap = if self.intervals > LEARNT { gap.min(8.0 * self.mean) } else { gap };
        self.mean += (gap - self.mean) / f64::from(self.intervals).min(MEMORY);
    }

    /// The longest silence that is usual.
    fn usual(&self) -> Option<Duration> {
        let known = self.intervals >= LEARNT;
        known.then(|| seconds((INTERVALS * self.mean).max(GAPS * self.longest[1])).max(self.rules.shortest))
    }

    fn pause_after(&self, attempts: u32) -> Duration {
        let first = seconds(4.0 * self.mean).max(self.rules.pause);
        first.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
    }

    /// When [`Watch::look`] may have something to say.
    fn due(&self, now: Instant) -> Instant {
        let due = self
            .episode
            .map_or_else(|| self.since + self.usual().unwrap_or(self.rules.unlearnt), |episode| episode.next);
        if self.busy > 0 { due.max(now + AGAIN) } else { due }
    }

    /// What is to be done now, if anything.
    pub(super) fn look(&mut self, now: Instant) -> Option<Step> {
        if self.busy > 0 || now < self.due(now) {
            return None;
        }
        let first = self.episode.is_none();
        let Episode { attempts, acted, .. } = self.episode.unwrap_or(Episode { attempts: 0, acted: now, next: now });
        while self.attempts.front().is_some_and(|at| now.saturating_duration_since(*at) >= DAY) {
            self.attempts.pop_front();
        }
        let free = self.attempts.front().filter(|_| self.attempts.len() >= MOST_A_DAY).map(|oldest| *oldest + DAY);
        let action = match (self.limit, free) {
            (OnSilence::Report, _) | (_, Some(_)) => Action::Nothing,
            (OnSilence::Reset, None) if attempts > 0 => Action::Reset,
            _ => Action::Reopen,
        };
        let (attempts, acted) = if action == Action::Nothing {
            (attempts, acted)
        } else {
            self.attempts.push_back(now);
            (attempts.saturating_add(1), now)
        };
        let next = free.unwrap_or_else(|| now + self.pause_after(attempts));
        self.episode = Some(Episode { attempts, acted, next });
        let silent = now.saturating_duration_since(self.since);
        Some(Step { first, action, silent, usual: self.usual(), attempt: attempts })
    }

    /// Whether a silence was told that has not ended.
    pub(super) const fn is_silent(&self) -> bool {
        self.episode.is_some()
    }

    fn begins(&mut self) {
        self.busy += 1;
    }

    fn ends(&mut self, began: Instant, now: Instant) {
        self.busy = self.busy.saturating_sub(1);
        self.since = later(self.since, began, now);
        self.last = self.last.map(|last| later(last, began, now));
    }
}

/// A moment moved by a time that does not count; one within that time to its end.
fn later(at: Instant, began: Instant, ended: Instant) -> Instant {
    if at <= began { at + ended.saturating_duration_since(began) } else { ended }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_SILENCE).min(LONGEST_SILENCE)
}

/// A watch that a receiver's tasks share.
#[derive(Debug, Clone)]
pub(super) struct Shared(Arc<Mutex<Watch>>);

impl Shared {
    pub(super) fn new(watch: Watch) -> Self {
        Self(Arc::new(Mutex::new(watch)))
    }

    pub(super) fn with<T>(&self, what: impl FnOnce(&mut Watch) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says that whoever reads is busy until the guard is dropped.
    pub(super) fn busy(&self) -> Busy {
        self.with(Watch::begins);
        Busy { watch: self.clone(), began: Instant::now() }
    }

    /// Waits until something is to be done.
    pub(super) async fn step(&self) -> Step {
        loop {
            sleep_until(self.with(|watch| watch.due(Instant::now()))).await;
            if let Some(step) = self.with(|watch| watch.look(Instant::now())) {
                return step;
            }
        }
    }
}

/// While it lives the receiver is not read, and its silence does not count.
#[derive(Debug)]
pub(super) struct Busy {
    watch: Shared,
    began: Instant,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.watch.with(|watch| watch.ends(self.began, Instant::now()));
    }
}

#[cfg(test)]
mod tests;
