//! Who is heard: every meter's signal, interval and encryption, and what must be remembered of it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::pattern::{Pattern, name};
use super::urgency::Alarm;
use crate::model::{Rssi, Stamp, TelegramKind};
use crate::radio::telegrams::TelegramsSettings;
use crate::wire::radio_line::Reception;
use crate::wire::telegram::Facts;
use crate::wire::wmbus::{Ell, Meter, TplHeader};

/// The most meters that are remembered; then one that was not heard for longest makes room.
const MOST: usize = 16_384;

/// What is known of one meter.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// Whether its telegrams are forwarded.
    pub(super) wanted: bool,
    /// The sampling entry that names it, by its place in the settings.
    pub(super) sampled: Option<usize>,
    /// What it last was urgent for.
    pub(super) alarm: Alarm,
    sight: Sight,
    /// Its place in line was passed by once since it was last heard.
    heard_again: bool,
}

/// One meter as `weir radio` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Who it is.
    pub meter: Meter,
    /// The link layer it was last heard by.
    pub kind: TelegramKind,
    /// When it was first and last heard, by the gateway's clock.
    pub first: Stamp,
    /// When it was last heard.
    pub last: Stamp,
    /// Telegrams without their copies.
    pub telegrams: u64,
    /// Copies by other receivers and repeaters.
    pub copies: u64,
    /// The strength of the best reception so far.
    pub best: Option<Rssi>,
    /// The strength of the last one.
    pub now: Option<Rssi>,
    /// About how many seconds pass from one telegram to the next; a mean in which newer ones count more.
    pub interval: Option<u32>,
    /// How what it sends is encrypted: `none`, or the mode.
    pub security: Security,
    /// Urgent telegrams.
    pub urgent: u64,
    /// Whether its telegrams are forwarded.
    pub wanted: bool,
    /// The receiver that heard its last telegram first.
    pub receiver: Arc<str>,
}

impl Sight {
    /// Its name, as patterns are written.
    pub fn name(&self) -> String {
        name(self.meter)
    }
}

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
    fn of(facts: &Facts<'_>) -> Self {
        if facts.upper.ell.is_some_and(Ell::is_encrypted) {
            return Self::Link;
        }
        match facts.upper.tpl.as_ref().and_then(|tpl| tpl.header).map_or(0, TplHeader::security_mode) {
            0 => Self::None,
            mode => Self::Mode(mode),
        }
    }
}

/// Everybody who is heard; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Survey(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    known: HashMap<Meter, Known>,
    /// Everybody known, in a line that is walked when room is needed.
    line: VecDeque<Meter>,
}

/// Which meters are wanted, and how often.
#[derive(Debug)]
pub(super) struct Selection {
    allow: Vec<Pattern>,
    deny: Vec<Pattern>,
    sample: Vec<Vec<Pattern>>,
}

impl Selection {
    pub(super) fn new(settings: &TelegramsSettings) -> Self {
        // What is no pattern was refused by the check.
        let patterns =
            |texts: &[crate::setting::At<String>]| texts.iter().filter_map(|text| Pattern::parse(text)).collect();
        Self {
            allow: patterns(&settings.allow),
            deny: patterns(&settings.deny),
            sample: settings.sample.iter().map(|sample| patterns(&sample.meters)).collect(),
        }
    }

    fn wants(&self, meter: Meter) -> bool {
        let named = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.names(meter));
        (self.allow.is_empty() || named(&self.allow)) && !named(&self.deny)
    }

    fn sampled(&self, meter: Meter) -> Option<usize> {
        self.sample.iter().position(|patterns| patterns.iter().any(|pattern| pattern.names(meter)))
    }
}

impl Survey {
    /// Nobody is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everybody who is known, those heard last first.
    pub fn sights(&self) -> Vec<Sight> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sights: Vec<_> = table.known.values().map(|known| known.sight.clone()).collect();
        drop(table);
        sights.sort_by_key(|sight| (std::cmp::Reverse(sight.last.uptime), sight.meter));
        sights
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).known.len()
    }

    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts a telegram that is no copy, and looks with `look` at what is known of its meter.
    pub(super) fn heard<R>(
        &self,
        (facts, reception): (&Facts<'_>, &Reception),
        stamp: Stamp,
        receiver: &Arc<str>,
        selection: &Selection,
        look: impl FnOnce(&mut Known) -> R,
    ) -> R {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = table.entry(facts.meter, || Known::new(facts, reception, stamp, receiver, selection));
        known.count(facts, reception, stamp, receiver);
        look(known)
    }

    /// Counts a copy, which may be the best reception so far.
    pub(super) fn copied(&self, meter: Meter, reception: &Reception) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = table.known.get_mut(&meter) {
            known.sight.copies += 1;
            known.sight.best = best(known.sight.best, reception.rssi);
        }
    }

    /// Counts an urgent telegram.
    pub(super) fn was_urgent(&self, meter: Meter) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = table.known.get_mut(&meter) {
            known.sight.urgent += 1;
        }
    }
}

impl Table {
    fn entry(&mut self, meter: Meter, make: impl FnOnce() -> Known) -> &mut Known {
        if !self.known.contains_key(&meter) {
            while self.known.len() >= MOST {
                self.make_room();
            }
            self.line.push_back(meter);
        }
        self.known.entry(meter).or_insert_with(make)
    }

    /// Forgets the first in line who was not heard since it was passed by last; those who were go to the end.
    fn make_room(&mut self) {
        while let Some(meter) = self.line.pop_front() {
            if self.known.get_mut(&meter).is_some_and(|known| std::mem::take(&mut known.heard_again)) {
                self.line.push_back(meter);
            } else {
                self.known.remove(&meter);
                return;
            }
        }
        self.known.clear();
    }
}

impl Known {
    fn new(facts: &Facts<'_>, reception: &Reception, stamp: Stamp, receiver: &Arc<str>, selection: &Selection) -> Self {
        let wanted = selection.wants(facts.meter);
        let sight = Sight {
            meter: facts.meter,
            kind: reception.kind,
            first: stamp,
            last: stamp,
            telegrams: 0,
            copies: 0,
            best: None,
            now: None,
            interval: None,
            security: Security::None,
            urgent: 0,
            wanted,
            receiver: receiver.clone(),
        };
        Self { wanted, sampled: selection.sampled(facts.meter), alarm: Alarm::default(), sight, heard_again: false }
    }

    fn count(&mut self, facts: &Facts<'_>, reception: &Reception, stamp: Stamp, receiver: &Arc<str>) {
        let sight = &mut self.sight;
        if sight.telegrams > 0 {
            self.heard_again = true;
            let gap = stamp.uptime.saturating_sub(sight.last.uptime) / 1000;
            let gap = u32::try_from(gap).unwrap_or(u32::MAX);
            // The mean moves an eighth of the way, so that one lost telegram does not double it.
            sight.interval = Some(sight.interval.map_or(gap, |mean| {
                let moved = (u64::from(mean) * 7 + u64::from(gap)) / 8;
                u32::try_from(moved).unwrap_or(u32::MAX)
            }));
        }
        sight.telegrams += 1;
        (sight.kind, sight.last, sight.now) = (reception.kind, stamp, reception.rssi);
        sight.security = Security::of(facts);
        if !Arc::ptr_eq(&sight.receiver, receiver) {
            sight.receiver = receiver.clone();
        }
        sight.best = best(sight.best, reception.rssi);
    }
}

/// The stronger of two; one in dBm counts more than a relative one.
fn best(a: Option<Rssi>, b: Option<Rssi>) -> Option<Rssi> {
    match (a, b) {
        (Some(Rssi::Dbm(a)), Some(Rssi::Dbm(b))) => Some(Rssi::Dbm(a.max(b))),
        (Some(Rssi::Relative(a)), Some(Rssi::Relative(b))) => Some(Rssi::Relative(a.max(b))),
        (Some(Rssi::Dbm(a)), _) => Some(Rssi::Dbm(a)),
        (_, new @ Some(_)) => new,
        (old, None) => old,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::wire::telegram::facts;

    fn telegram(id: u32) -> Reception {
        let [a, b, c, d] = id.to_le_bytes();
        let bytes = vec![13, 0x44, 0x2D, 0x2C, a, b, c, d, 0x1B, 0x16, 0x7A, 1, 0, 0];
        Reception { kind: TelegramKind::WirelessMbus, bytes, rssi: Some(Rssi::Dbm(-70)), corrected_bits: 0, time: None }
    }

    fn hear(survey: &Survey, selection: &Selection, id: u32, seconds: u64) -> bool {
        let reception = telegram(id);
        let stamp = Stamp { uptime: seconds * 1000, ..Stamp::synced(Timestamp::from_millis(0)) };
        let facts = facts(reception.kind, &reception.bytes).unwrap();
        survey.heard((&facts, &reception), stamp, &Arc::from("roof"), selection, |known| known.wanted)
    }

    #[test]
    fn a_survey_tells_interval_and_strength_and_who_was_heard_last() {
        let (survey, selection) = (Survey::new(), Selection::new(&TelegramsSettings::default()));
        for seconds in [0, 16, 32, 48] {
            hear(&survey, &selection, 0x1111_1111, seconds);
        }
        hear(&survey, &selection, 0x2222_2222, 50);
        let sights = survey.sights();
        assert_eq!((sights[0].name().as_str(), sights[0].interval), ("KAM.22222222.1b.16", None));
        assert_eq!((sights[1].telegrams, sights[1].interval, sights[1].best), (4, Some(16), Some(Rssi::Dbm(-70))));
    }

    #[test]
    fn memory_is_bounded_and_who_is_heard_again_stays() {
        let (survey, selection) = (Survey::new(), Selection::new(&TelegramsSettings::default()));
        let most = u32::try_from(MOST).unwrap();
        hear(&survey, &selection, u32::MAX, 0);
        for id in 0..3 * most {
            hear(&survey, &selection, id, u64::from(id));
            hear(&survey, &selection, u32::MAX, u64::from(id));
        }
        let sights = survey.sights();
        assert_eq!(sights.len(), MOST);
        let stays = sights.iter().find(|sight| sight.meter.id == u32::MAX).unwrap();
        assert_eq!(stays.telegrams, u64::from(3 * most) + 1);
    }

    #[test]
    fn who_is_denied_or_not_allowed_is_known_and_not_wanted() {
        let at = |text: &str| crate::setting::At::nowhere(text.to_owned());
        let settings = TelegramsSettings {
            allow: vec![at("KAM.1???????")],
            deny: vec![at("*.12345678")],
            ..TelegramsSettings::default()
        };
        let (survey, selection) = (Survey::new(), Selection::new(&settings));
        let wanted = [0x1000_0000, 0x1234_5678, 0x2000_0000].map(|id| hear(&survey, &selection, id, 0));
        assert_eq!(wanted, [true, false, false]);
        assert_eq!(survey.sights().len(), 3);
    }
}
