//! Whether a telegram is urgent, and whether that is news.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::TelegramKind;
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

/// What a telegram shows without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    /// The reasons it gives.
    pub(super) found: Reasons,
    /// The lasting reasons that it could have given: of the others it says nothing.
    visible: Reasons,
}

/// Every reason that a telegram shows without a key (reference radio.md 2.6).
pub(super) fn reasons(facts: &Facts<'_>) -> Shown {
    let (mut found, mut visible) = (Vec::new(), Vec::new());
    // The lower half of MBAL's command is not public; its upper half is the function, 6 SND-IR.
    match (facts.kind, facts.control & 0x7F) {
        (TelegramKind::WirelessMbus, 0x46) | (TelegramKind::OpenlinkIq, 0x60..=0x6F) => {
            found.push(Urgency::Installation);
        }
        (TelegramKind::WirelessMbus, 0x47) => found.push(Urgency::AccessOffer),
        (TelegramKind::WirelessMbus, 0x48) => found.push(Urgency::AccessDemand),
        (TelegramKind::WirelessMbus, 0x28 | 0x38) => found.push(Urgency::AlarmData),
        _ => {}
    }
    if facts.kind == TelegramKind::WirelessMbus && matches!(facts.control & 0x4F, 0x08) {
        visible.push(Urgency::AlarmData);
    }
    if let Some(ell) = facts.upper.ell {
        visible.push(Urgency::LinkPriority);
        if ell.is_priority() {
            found.push(Urgency::LinkPriority);
        }
    }
    if let Some(tpl) = &facts.upper.tpl {
        if matches!(tpl.ci, 0x71 | 0x74 | 0x75) {
            found.push(Urgency::AlarmMessage);
        }
        if let Some(header) = tpl.header {
            visible.push(Urgency::AlarmStatus);
            if header.is_alarm() {
                found.push(Urgency::AlarmStatus);
            }
        }
    }
    Shown { found: Reasons::of(&found), visible: Reasons::of(&visible) }
}

/// What a meter last was urgent for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Alarm {
    lasting: Reasons,
    told: Option<Instant>,
}

impl Alarm {
    /// Whether a telegram that shows this is urgent now; remembers it. A lasting reason stays until a telegram that could
    /// show it does not.
    pub(super) fn is_news(&mut self, shown: Shown, now: Instant, reminder: Duration) -> bool {
        let lasting = shown.found.both(Reasons::of(&LASTING));
        let event = shown.found != lasting;
        let stays = Reasons((self.lasting.0 & !shown.visible.0) | lasting.0);
        let changed = stays != self.lasting;
        self.lasting = stays;
        let due = self.told.is_none_or(|told| now.saturating_duration_since(told) >= reminder);
        let news = event || (!lasting.is_empty() && (changed || due));
        if news && !lasting.is_empty() {
            self.told = Some(now);
        }
        news
    }
}

impl Shown {
    /// Without the reasons that the settings do not want.
    pub(super) const fn wanted(self, wanted: Reasons) -> Self {
        Self { found: self.found.both(wanted), visible: self.visible.both(wanted) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::telegram::facts;

    fn found(bytes: &[u8]) -> Reasons {
        reasons(&facts(TelegramKind::WirelessMbus, bytes).unwrap()).found
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

    #[test]
    fn openlinkiqs_command_is_no_c_field() {
        let of = |control| {
            let mut frame = vec![0, 0x2D, 0x2C, 1, 2, 3, 4, 5, 6, control];
            let crc = crc::Crc::<u16>::new(&crc::CRC_16_EN_13757).checksum(&frame);
            frame.extend(crc.to_be_bytes());
            frame.extend([0x7A, 1, 0, 0, 0]);
            reasons(&facts(TelegramKind::OpenlinkIq, &frame).unwrap()).found
        };
        assert_eq!(of(0x60), Reasons::of(&[Urgency::Installation]));
        for ordinary in [0x40, 0x46, 0x47, 0x48, 0x28] {
            assert_eq!(of(ordinary), Reasons::default(), "{ordinary:02x}");
        }
    }

    /// A telegram whose header shows these reasons, or none.
    fn shows(reasons: &[Urgency]) -> Shown {
        Shown { found: Reasons::of(reasons), visible: Reasons::of(&[Urgency::AlarmStatus, Urgency::LinkPriority]) }
    }

    #[tokio::test]
    async fn a_telegram_that_can_show_no_alarm_does_not_end_one() {
        let mut alarm = Alarm::default();
        let (on, now) = (shows(&[Urgency::AlarmStatus]), Instant::now());
        let blind = Shown { found: Reasons::default(), visible: Reasons::default() };
        assert!(alarm.is_news(on, now, Duration::MAX));
        for _ in 0..3 {
            assert!(!alarm.is_news(blind, now, Duration::MAX) && !alarm.is_news(on, now, Duration::MAX));
        }
    }

    #[tokio::test]
    async fn an_alarm_that_stays_is_told_once_then_after_each_reminder_and_anew_after_it_went() {
        let (start, day) = (Instant::now(), Duration::from_hours(24));
        let after = |minutes: u64| start + Duration::from_mins(minutes);
        let mut alarm = Alarm::default();
        let on = shows(&[Urgency::AlarmStatus]);
        assert!(alarm.is_news(on, start, day));
        assert!(!alarm.is_news(on, after(1), day) && !alarm.is_news(on, after(1439), day));
        assert!(alarm.is_news(on, after(1440), day));
        assert!(!alarm.is_news(on, after(1441), day));
        assert!(!alarm.is_news(shows(&[]), after(1442), day), "its end is ordinary");
        assert!(alarm.is_news(on, after(1443), day));
        let more = shows(&[Urgency::AlarmStatus, Urgency::LinkPriority]);
        assert!(alarm.is_news(more, after(1444), day), "a change is news");
    }

    #[tokio::test]
    async fn an_event_is_news_every_time() {
        let mut alarm = Alarm::default();
        let event = shows(&[Urgency::Installation]);
        let now = Instant::now();
        assert!(alarm.is_news(event, now, Duration::MAX) && alarm.is_news(event, now, Duration::MAX));
        let both = shows(&[Urgency::Installation, Urgency::AlarmStatus]);
        assert!(alarm.is_news(both, now, Duration::MAX));
        assert!(!alarm.is_news(shows(&[Urgency::AlarmStatus]), now, Duration::MAX));
    }
}
