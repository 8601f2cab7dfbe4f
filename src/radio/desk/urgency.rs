//! Whether a reason to be urgent is news: what a meter keeps up for months is told once and then now and then.

use std::time::Duration;

use tokio::time::Instant;

use crate::radio::telegrams::Urgency;
use crate::setting::At;
use crate::wire::wmbus::{Reasons, Shown};

/// The reasons that the settings name.
pub(super) fn wanted(reasons: &[At<Urgency>]) -> Reasons {
    reasons.iter().map(|reason| reason.reason()).collect()
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
        let lasting = shown.found.and(Reasons::LASTING);
        let event = shown.found != lasting;
        let stays = self.lasting.without(shown.visible).or(lasting);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A telegram whose header shows these reasons, or none.
    fn shows(reasons: &[Urgency]) -> Shown {
        let set = |reasons: &[Urgency]| wanted(&reasons.iter().copied().map(At::nowhere).collect::<Vec<_>>());
        Shown { found: set(reasons), visible: set(&[Urgency::AlarmStatus, Urgency::LinkPriority]) }
    }

    #[tokio::test]
    async fn a_telegram_that_can_show_no_alarm_does_not_end_one() {
        let mut alarm = Alarm::default();
        let (on, now) = (shows(&[Urgency::AlarmStatus]), Instant::now());
        let blind = Shown::default();
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
