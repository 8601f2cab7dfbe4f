//! One meter as `weir radio` shows it, and what of its past that needs.

use std::sync::Arc;

use super::pattern::name;
use crate::model::{Rssi, Stamp, TelegramKind};
use crate::wire::telegram::Facts;
use crate::wire::wmbus::{Ell, Meter, TplHeader};

/// One meter as `weir radio` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Who it is.
    pub meter: Meter,
    /// The link layer it was last heard by.
    pub kind: TelegramKind,
    /// When it was first heard, by the gateway's clock.
    pub first: Stamp,
    /// When it was last heard.
    pub last: Stamp,
    /// Telegrams without their copies.
    pub telegrams: u64,
    /// Copies by other receivers and repeaters.
    pub copies: u64,
    /// How strong it is received.
    pub signal: Signal,
    /// About how many milliseconds pass from one telegram to the next: the median of the last ones.
    pub interval: Option<u32>,
    /// How what it sends is encrypted: `none`, or the mode.
    pub security: Security,
    /// Urgent telegrams.
    pub urgent: u64,
    /// Whether its telegrams are forwarded.
    pub wanted: bool,
    /// The receiver that heard its last telegram first.
    pub receiver: Arc<str>,
    /// Every receiver that has heard it.
    pub receivers: Vec<Arc<str>>,
}

impl Sight {
    /// Its name, as patterns are written.
    pub fn name(&self) -> String {
        name(self.meter)
    }

    /// How many telegrams it must have sent between its first one and `now`, by its interval; `None` when that is not
    /// known yet.
    pub fn expected(&self, now: Stamp) -> Option<u64> {
        let interval = u64::from(self.interval.filter(|interval| *interval > 0)?);
        Some((now.uptime.saturating_sub(self.first.uptime) / interval + 1).max(self.telegrams))
    }

    /// How many of 100 telegrams were heard; `None` while too few were expected to tell.
    pub fn share(&self, now: Stamp) -> Option<u64> {
        let expected = self.expected(now).filter(|expected| *expected >= ENOUGH)?;
        Some(self.telegrams.saturating_mul(100) / expected)
    }

    /// Why it may be lost: `weak` (half of what is heard of it is at -95 dBm or below), `losses` (less than 80 of 100 telegrams
    /// are heard).
    pub fn edge(&self, now: Stamp) -> Vec<&'static str> {
        let weak = matches!(self.signal.median(), Some(Rssi::Dbm(median)) if median <= WEAK);
        let losses = self.share(now).is_some_and(|share| share < LOSSES);
        [(weak, "weak"), (losses, "losses")].into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect()
    }
}

/// So many telegrams must be expected before a share of them says something.
const ENOUGH: u64 = 5;
/// Receivers hear down to some -105 dBm; a door that closes costs ten.
const WEAK: i16 = -95;
const LOSSES: u64 = 80;

/// How a telegram is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// It is not, or nothing says so.
    None,
    /// By the extended link layer.
    Link,
    /// By the transport layer, in this mode (EN 13757-7, table 19).
    Mode(u8),
}

impl Security {
    pub(super) fn of(facts: &Facts<'_>) -> Self {
        if facts.upper.ell.is_some_and(Ell::is_encrypted) {
            return Self::Link;
        }
        match facts.upper.tpl.as_ref().and_then(|tpl| tpl.header).map_or(0, TplHeader::security_mode) {
            0 => Self::None,
            mode => Self::Mode(mode),
        }
    }
}

/// The newest numbers of a row of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Series {
    newest: [i32; SERIES],
    count: u8,
    next: u8,
}

/// So many are kept.
const SERIES: usize = 15;

impl Series {
    pub(super) fn push(&mut self, number: i32) {
        if let Some(place) = self.newest.get_mut(usize::from(self.next)) {
            *place = number;
        }
        let length = SERIES as u8;
        self.count = (self.count + 1).min(length);
        self.next = (self.next + 1) % length;
    }

    /// Puts another in the place of the newest.
    fn replace(&mut self, number: i32) {
        let length = SERIES as u8;
        if let Some(place) = self.newest.get_mut(usize::from((self.next + length - 1) % length)) {
            *place = number;
        }
    }

    /// The middle one; of an even number the lower of both.
    pub(super) fn median(&self) -> Option<i32> {
        let mut known = self.newest;
        let known = known.get_mut(..usize::from(self.count))?;
        known.sort_unstable();
        known.get(known.len().checked_sub(1)? / 2).copied()
    }
}

/// How strong a meter is received, each telegram by its best reception: in dBm as soon as one was, else on the
/// receiver's own scale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signal {
    best: Option<Rssi>,
    /// The weakest one before the newest, which may still become better.
    worst: Option<i16>,
    last: Option<Rssi>,
    /// The newest one, when it is on the same scale.
    newest: Option<i16>,
    series: Series,
}

impl Signal {
    /// The strongest telegram.
    pub const fn best(&self) -> Option<Rssi> {
        self.best
    }

    /// The weakest one.
    pub fn worst(&self) -> Option<Rssi> {
        self.scaled(self.worst.into_iter().chain(self.newest).min())
    }

    /// The newest one.
    pub const fn last(&self) -> Option<Rssi> {
        self.last
    }

    /// The median of the last 15 telegrams.
    pub fn median(&self) -> Option<Rssi> {
        self.scaled(self.series.median().and_then(|median| i16::try_from(median).ok()))
    }

    fn scaled(&self, level: Option<i16>) -> Option<Rssi> {
        Some(match self.best? {
            Rssi::Dbm(_) => Rssi::Dbm(level?),
            Rssi::Relative(_) => Rssi::Relative(level?),
        })
    }

    /// Counts a telegram.
    pub(super) fn heard(&mut self, rssi: Option<Rssi>) {
        self.worst = self.worst.into_iter().chain(self.newest.take()).min();
        self.last = rssi;
        self.count(rssi);
    }

    /// Counts a copy of the newest telegram, or of one shortly before.
    pub(super) fn copied(&mut self, rssi: Option<Rssi>) {
        self.count(rssi);
    }

    fn count(&mut self, rssi: Option<Rssi>) {
        let Some(rssi) = rssi else { return };
        match (self.best, rssi) {
            (Some(Rssi::Dbm(_)), Rssi::Relative(_)) => return,
            // The receiver's own scale means nothing beside dBm.
            (Some(Rssi::Relative(_)), Rssi::Dbm(_)) => *self = Self::default(),
            _ => {}
        }
        let level = level(rssi);
        match self.newest {
            Some(newest) if newest >= level => return,
            Some(_) => self.series.replace(level.into()),
            None => self.series.push(level.into()),
        }
        (self.newest, self.last) = (Some(level), Some(rssi));
        if self.best.is_none_or(|best| self::level(best) < level) {
            self.best = Some(rssi);
        }
    }
}

const fn level(rssi: Rssi) -> i16 {
    match rssi {
        Rssi::Dbm(level) | Rssi::Relative(level) => level,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_that_of_the_newest_and_one_odd_number_does_not_move_it() {
        let mut series = Series::default();
        assert_eq!(series.median(), None);
        for number in [16, 16, 32, 16] {
            series.push(number);
        }
        assert_eq!(series.median(), Some(16));
        (0..100).for_each(|number| series.push(number));
        assert_eq!(series.median(), Some(92));
    }

    #[test]
    fn a_signal_in_dbm_counts_more_than_one_on_a_scale_of_its_own() {
        let mut signal = Signal::default();
        signal.heard(Some(Rssi::Relative(99)));
        assert_eq!((signal.best(), signal.median()), (Some(Rssi::Relative(99)), Some(Rssi::Relative(99))));
        for level in [-80, -60, -90] {
            signal.heard(Some(Rssi::Dbm(level)));
        }
        signal.heard(Some(Rssi::Relative(99)));
        signal.copied(Some(Rssi::Dbm(-50)));
        let dbm = |level| Some(Rssi::Dbm(level));
        assert_eq!((signal.best(), signal.worst(), signal.median()), (dbm(-50), dbm(-90), dbm(-80)));
        signal.heard(None);
        assert_eq!((signal.last(), signal.median()), (None, dbm(-80)));
    }

    #[test]
    fn a_telegram_counts_by_its_best_reception() {
        let (mut signal, dbm) = (Signal::default(), |level| Some(Rssi::Dbm(level)));
        for _ in 0..3 {
            signal.heard(dbm(-100));
            signal.copied(dbm(-60));
            signal.copied(dbm(-90));
        }
        let told = (signal.best(), signal.worst(), signal.median(), signal.last());
        assert_eq!(told, (dbm(-60), dbm(-60), dbm(-60), dbm(-60)));
    }
}
