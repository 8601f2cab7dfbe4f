//! Whether a telegram is urgent, and whether that is news.

use std::time::Duration;

use tokio::time::Instant;

use crate::radio::telegrams::Urgency;
use crate::wire::telegram::Facts;

/// A set of reasons, a bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reasons(u8);

/// Reasons that a meter may keep up for months; the others are events by themselves.
const LASTING: [Urgency; 3] = [Urgency::LinkPriority, Urgency::AlarmStatus, Urgency::AlarmData];

impl Reasons {
    pub(super) fn of(wanted: &[Urgency]) -> Self {
        Self(wanted.iter().fold(0, |set, reason| set | bit(*reason)))
    }

    const fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

const fn bit(reason: Urgency) -> u8 {
    1 << reason as u8
}

/// Every reason that a telegram shows without a key (reference radio.md 2.6).
pub(super) fn reasons(facts: &Facts<'_>) -> Reasons {
    let mut found = Vec::new();
    let function = facts.control & 0x7F;
    // MBAL has the function in the upper half: 6 is SND-IR.
    if function == 0x46 || function == 0x60 {
        found.push(Urgency::Installation);
    }
    match function {
        0x47 => found.push(Urgency::AccessOffer),
        0x48 => found.push(Urgency::AccessDemand),
        0x28 | 0x38 => found.push(Urgency::AlarmData),
        _ => {}
    }
    if facts.upper.ell.is_some_and(|ell| ell.is_priority()) {
        found.push(Urgency::LinkPriority);
    }
    if let Some(tpl) = &facts.upper.tpl {
        if matches!(tpl.ci, 0x71 | 0x74 | 0x75) {
            found.push(Urgency::AlarmMessage);
        }
        if tpl.header.is_some_and(|header| header.is_alarm()) {
            found.push(Urgency::AlarmStatus);
        }
    }
    Reasons::of(&found)
}

/// What a meter last was urgent for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Alarm {
    lasting: Reasons,
    told: Option<Instant>,
}

impl Alarm {
    /// Whether a telegram with these reasons is urgent now; remembers it.
    pub(super) fn is_news(&mut self, found: Reasons, now: Instant, reminder: Duration) -> bool {
        let lasting = found.both(Reasons::of(&LASTING));
        let event = found != lasting;
        let changed = lasting != self.lasting;
        self.lasting = lasting;
        let due = self.told.is_none_or(|told| now.saturating_duration_since(told) >= reminder);
        let news = event || (!lasting.is_empty() && (changed || due));
        if news && !lasting.is_empty() {
            self.told = Some(now);
        }
        news
    }
}

impl Reasons {
    /// Those of them that the settings want.
    pub(super) const fn wanted(self, wanted: Self) -> Self {
        self.both(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TelegramKind;
    use crate::wire::telegram::facts;

    fn found(bytes: &[u8]) -> Reasons {
        reasons(&facts(TelegramKind::WirelessMbus, bytes).unwrap())
    }

    /// A telegram with this C field and these bytes from CI on.
    fn telegram(control: u8, rest: &[u8]) -> Vec<u8> {
        let length = u8::try_from(9 + rest.len()).unwrap();
        [&[length, control, 0x2D, 0x2C, 1, 2, 3, 4, 5, 6][..], rest].concat()
    }

    #[test]
    fn each_source_of_urgency_is_found() {
        let of = |reasons: &[Urgency]| Reasons::of(reasons);
        let quiet = &[0x7A, 1, 0, 0, 0][..];
        assert_eq!(found(&telegram(0x44, quiet)), of(&[]));
        assert_eq!(found(&telegram(0x46, quiet)), of(&[Urgency::Installation]));
        assert_eq!(found(&telegram(0xC6, quiet)), of(&[Urgency::Installation]), "relayed");
        assert_eq!(found(&telegram(0x47, quiet)), of(&[Urgency::AccessOffer]));
        assert_eq!(found(&telegram(0x48, quiet)), of(&[Urgency::AccessDemand]));
        assert_eq!(found(&telegram(0x28, quiet)), of(&[Urgency::AlarmData]));
        assert_eq!(found(&telegram(0x44, &[0x7A, 1, 3, 0, 0])), of(&[Urgency::AlarmStatus]));
        assert_eq!(found(&telegram(0x44, &[0x7A, 1, 2, 0, 0])), of(&[]), "an error is no alarm");
        assert_eq!(found(&telegram(0x44, &[0x74, 1, 0, 0, 0])), of(&[Urgency::AlarmMessage]));
        assert_eq!(found(&telegram(0x44, &[0x8C, 0x08, 1, 0x78, 1])), of(&[Urgency::LinkPriority]));
    }

    #[tokio::test]
    async fn an_alarm_that_stays_is_told_once_then_after_each_reminder_and_anew_after_it_went() {
        let (start, day) = (Instant::now(), Duration::from_hours(24));
        let after = |minutes: u64| start + Duration::from_mins(minutes);
        let mut alarm = Alarm::default();
        let on = Reasons::of(&[Urgency::AlarmStatus]);
        assert!(alarm.is_news(on, start, day));
        assert!(!alarm.is_news(on, after(1), day) && !alarm.is_news(on, after(1439), day));
        assert!(alarm.is_news(on, after(1440), day));
        assert!(!alarm.is_news(on, after(1441), day));
        assert!(!alarm.is_news(Reasons::default(), after(1442), day), "its end is ordinary");
        assert!(alarm.is_news(on, after(1443), day));
        let more = Reasons::of(&[Urgency::AlarmStatus, Urgency::LinkPriority]);
        assert!(alarm.is_news(more, after(1444), day), "a change is news");
    }

    #[tokio::test]
    async fn an_event_is_news_every_time() {
        let mut alarm = Alarm::default();
        let event = Reasons::of(&[Urgency::Installation]);
        let now = Instant::now();
        assert!(alarm.is_news(event, now, Duration::MAX) && alarm.is_news(event, now, Duration::MAX));
        let both = Reasons::of(&[Urgency::Installation, Urgency::AlarmStatus]);
        assert!(alarm.is_news(both, now, Duration::MAX));
        assert!(!alarm.is_news(Reasons::of(&[Urgency::AlarmStatus]), now, Duration::MAX));
    }
}
