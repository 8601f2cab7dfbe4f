//! Who is heard: every meter's signal, interval and encryption, and what must be remembered of it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::pattern::Pattern;
use super::sight::{Security, Series, Sight, Signal};
use super::urgency::Alarm;
use crate::model::{Stamp, TelegramKind};
use crate::radio::telegrams::TelegramsSettings;
use crate::wire::radio_line::Reception;
use crate::wire::telegram::Facts;
use crate::wire::wmbus::Meter;

/// The most meters that are remembered; then one that was not heard for longest makes room.
const MOST: usize = 16_384;

/// The most receivers that are told apart.
const MOST_RECEIVERS: usize = 32;

/// What is known of one meter.
#[derive(Debug, Clone)]
struct Known {
    /// Whether its telegrams are forwarded.
    wanted: bool,
    /// The sampling entry that names it, by its place in the settings.
    sampled: Option<usize>,
    /// What it last was urgent for.
    alarm: Alarm,
    kind: TelegramKind,
    first: Stamp,
    last: Stamp,
    telegrams: u64,
    copies: u64,
    urgent: u64,
    signal: Signal,
    /// Milliseconds between its telegrams.
    gaps: Series,
    security: Security,
    receiver: Arc<str>,
    /// A bit for each receiver that has heard it, by its place in the table.
    heard_by: u32,
    /// Its place in line was passed by once since it was last heard.
    heard_again: bool,
}

/// Everybody who is heard; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Survey(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    known: HashMap<Meter, Known>,
    /// Everybody known, in a line that is walked when room is needed.
    line: VecDeque<Meter>,
    /// Every receiver that has heard somebody.
    receivers: Vec<Arc<str>>,
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

    /// At most `most` meters behind `after`, by manufacturer and number, and whether there are more.
    pub fn page(&self, after: Option<Meter>, most: usize) -> (Vec<Sight>, bool) {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = table.known.keys().filter(|meter| after.is_none_or(|after| **meter > after));
        let mut meters: Vec<_> = behind.copied().collect();
        let more = meters.len() > most;
        if more {
            meters.select_nth_unstable(most);
            meters.truncate(most);
        }
        meters.sort_unstable();
        let known = |meter: &Meter| table.known.get(meter).map(|known| known.sight(*meter, &table.receivers));
        (meters.iter().filter_map(known).collect(), more)
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).known.len()
    }

    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts a telegram that is no copy: whether its meter is wanted, and the sampling entry that names it.
    pub(super) fn heard(
        &self,
        (facts, reception): (&Facts<'_>, &Reception),
        stamp: Stamp,
        receiver: &Arc<str>,
        selection: &Selection,
    ) -> (bool, Option<usize>) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = table.place(receiver);
        let known = table.entry(facts.meter, || Known::new(facts, reception, stamp, receiver, selection));
        known.count(facts, reception, stamp, receiver);
        known.heard_by |= 1 << place;
        (known.wanted, known.sampled)
    }

    /// Counts a copy, which may be the best reception so far.
    pub(super) fn copied(&self, meter: Meter, reception: &Reception, receiver: &Arc<str>) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = table.place(receiver);
        if let Some(known) = table.known.get_mut(&meter) {
            known.copies += 1;
            known.signal.copied(reception.rssi);
            known.heard_by |= 1 << place;
        }
    }

    /// Whether the telegram that was just heard is urgent by what is remembered of its meter; counts it.
    pub(super) fn judge(&self, meter: Meter, judge: impl FnOnce(&mut Alarm) -> bool) -> bool {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.known.get_mut(&meter).is_some_and(|known| {
            let urgent = judge(&mut known.alarm);
            known.urgent += u64::from(urgent);
            urgent
        })
    }
}

impl Table {
    fn entry(&mut self, meter: Meter, make: impl FnOnce() -> Known) -> &mut Known {
        while self.known.len() >= MOST && !self.known.contains_key(&meter) {
            self.make_room();
        }
        let line = &mut self.line;
        self.known.entry(meter).or_insert_with(|| {
            line.push_back(meter);
            make()
        })
    }

    /// A receiver's place in the table; those for which there is none share the last.
    fn place(&mut self, receiver: &Arc<str>) -> usize {
        let known = self.receivers.iter().position(|known| Arc::ptr_eq(known, receiver) || known == receiver);
        known.unwrap_or_else(|| {
            if self.receivers.len() < MOST_RECEIVERS {
                self.receivers.push(receiver.clone());
            }
            self.receivers.len() - 1
        })
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
        Self {
            wanted: selection.wants(facts.meter),
            sampled: selection.sampled(facts.meter),
            alarm: Alarm::default(),
            kind: reception.kind,
            first: stamp,
            last: stamp,
            telegrams: 0,
            copies: 0,
            urgent: 0,
            signal: Signal::default(),
            gaps: Series::default(),
            security: Security::None,
            receiver: receiver.clone(),
            heard_by: 0,
            heard_again: false,
        }
    }

    fn count(&mut self, facts: &Facts<'_>, reception: &Reception, stamp: Stamp, receiver: &Arc<str>) {
        if self.telegrams > 0 {
            self.heard_again = true;
            let gap = stamp.uptime.saturating_sub(self.last.uptime);
            self.gaps.push(i32::try_from(gap).unwrap_or(i32::MAX));
        }
        self.telegrams += 1;
        (self.kind, self.last) = (reception.kind, stamp);
        self.signal.heard(reception.rssi);
        self.security = Security::of(facts);
        if !Arc::ptr_eq(&self.receiver, receiver) {
            self.receiver = receiver.clone();
        }
    }

    fn sight(&self, meter: Meter, receivers: &[Arc<str>]) -> Sight {
        let heard = |(place, _): &(usize, &Arc<str>)| self.heard_by >> place & 1 == 1;
        Sight {
            meter,
            kind: self.kind,
            first: self.first,
            last: self.last,
            telegrams: self.telegrams,
            copies: self.copies,
            signal: self.signal,
            interval: self.gaps.median().and_then(|gap| u32::try_from(gap).ok()),
            security: self.security,
            urgent: self.urgent,
            wanted: self.wanted,
            receiver: self.receiver.clone(),
            receivers: receivers.iter().enumerate().filter(heard).map(|(_, name)| name.clone()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Rssi, Timestamp};
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
        survey.heard((&facts, &reception), stamp, &Arc::from("roof"), selection).0
    }

    #[test]
    fn a_survey_tells_interval_strength_and_share() {
        let (survey, selection) = (Survey::new(), Selection::new(&TelegramsSettings::default()));
        for seconds in [0, 16, 32, 48] {
            hear(&survey, &selection, 0x1111_1111, seconds);
        }
        hear(&survey, &selection, 0x2222_2222, 50);
        let sights = survey.page(None, usize::MAX).0;
        assert_eq!((sights[1].name().as_str(), sights[1].interval), ("KAM.22222222.1b.16", None));
        let one = &sights[0];
        assert_eq!((one.telegrams, one.interval, one.signal.best()), (4, Some(16_000), Some(Rssi::Dbm(-70))));
        assert_eq!(one.receivers, [Arc::from("roof")]);
        let after = |seconds: u64| Stamp { uptime: seconds * 1000, ..one.last };
        assert_eq!([48, 63, 64, 144].map(|at| one.expected(after(at))), [Some(4), Some(4), Some(5), Some(10)]);
        assert_eq!([48, 64, 144].map(|at| one.share(after(at))), [None, Some(80), Some(40)]);
        assert_eq!((one.edge(after(64)), one.edge(after(144))), (vec![], vec!["losses"]));
    }

    #[test]
    fn pages_together_show_everybody_once_in_order() {
        let (survey, selection) = (Survey::new(), Selection::new(&TelegramsSettings::default()));
        (0..1000).rev().for_each(|id| _ = hear(&survey, &selection, id, 0));
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let (sights, more) = survey.page(after, 64);
            seen.extend(sights.iter().map(|sight| sight.meter.id));
            after = sights.last().map(|sight| sight.meter);
            if !more {
                break;
            }
        }
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
        assert_eq!(survey.page(after, 64), (vec![], false));
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
        let sights = survey.page(None, usize::MAX).0;
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
        assert_eq!(survey.len(), 3);
    }
}
