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

    /// The middle one; of an even number the lower of both.
    pub(super) fn median(&self) -> Option<i32> {
        let mut known = self.newest;
        let known = known.get_mut(..usize::from(self.count))?;
        known.sort_unstable();
        known.get(known.len().checked_sub(1)? / 2).copied()
    }
}

/// How strong a meter is received: in dBm as soon as one reception was, else on the receiver's own scale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signal {
    best: Option<Rssi>,
    worst: Option<Rssi>,
    last: Option<Rssi>,
    series: Series,
}

impl Signal {
    /// The strongest reception.
    pub const fn best(&self) -> Option<Rssi> {
        self.best
    }

    /// The weakest one; copies that were the weaker ones do not count.
    pub const fn worst(&self) -> Option<Rssi> {
        self.worst
    }

    /// The newest one.
    pub const fn last(&self) -> Option<Rssi> {
        self.last
    }

    /// The median of the last 15 telegrams.
    pub fn median(&self) -> Option<Rssi> {
        let median = i16::try_from(self.series.median()?).ok()?;
        Some(match self.best? {
            Rssi::Dbm(_) => Rssi::Dbm(median),
            Rssi::Relative(_) => Rssi::Relative(median),
        })
    }

    /// Counts a telegram.
    pub(super) fn heard(&mut self, rssi: Option<Rssi>) {
        self.last = rssi;
        let Some(rssi) = rssi else { return };
        match (self.best, rssi) {
            (Some(Rssi::Dbm(_)), Rssi::Relative(_)) => return,
            // The receiver's own scale means nothing beside dBm.
            (Some(Rssi::Relative(_)), Rssi::Dbm(_)) => *self = Self { last: self.last, ..Self::default() },
            _ => {}
        }
        let level = |rssi| match rssi {
            Rssi::Dbm(level) | Rssi::Relative(level) => level,
        };
        if self.best.is_none_or(|best| level(best) < level(rssi)) {
            self.best = Some(rssi);
        }
        if self.worst.is_none_or(|worst| level(worst) > level(rssi)) {
            self.worst = Some(rssi);
        }
        self.series.push(level(rssi).into());
    }

    /// Counts a copy, which may be the best reception so far.
    pub(super) const fn copied(&mut self, rssi: Option<Rssi>) {
        match (self.best, rssi) {
            (Some(Rssi::Dbm(best)), Some(Rssi::Dbm(new))) if new > best => self.best = rssi,
            (Some(Rssi::Relative(best)), Some(Rssi::Relative(new))) if new > best => self.best = rssi,
            _ => {}
        }
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
}
