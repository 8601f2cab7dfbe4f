//! Which rate to ask a meter for, and what to do when it promises more than it keeps.

use std::time::Duration;

use tokio::time::Instant;

use crate::meter::MeterSettings;
use crate::wire::iec62056::SIGN_ON_BAUD;

/// How long a rate that failed is not asked for again.
const MEMORY: Duration = Duration::from_hours(6);

/// The rates of one meter.
#[derive(Debug)]
pub(super) struct Ladder {
    highest: u32,
    forced: Option<u32>,
    /// The rate that is not exceeded, and until when.
    lowered: Option<(u32, Instant)>,
}

impl Ladder {
    pub(super) fn new(settings: &MeterSettings) -> Self {
        // Where a sign-on is not at 300 Bd nothing changes the rate unless it is told to.
        let fixed = Some(settings.sign_on_baud.value()).filter(|baud| *baud != SIGN_ON_BAUD);
        let forced = settings.force_baud.as_ref().map(|baud| baud.value()).or(fixed);
        Self { highest: settings.max_baud.value(), forced, lowered: None }
    }

    /// The rate to ask for when the meter offers `offered`.
    pub(super) fn rate(&mut self, offered: u32, now: Instant) -> u32 {
        if let Some(forced) = self.forced {
            return forced;
        }
        self.lowered = self.lowered.filter(|(_, until)| now < *until);
        // By the standard a host takes the meter's rate or stays at 300 Bd; only where its rate
        // failed the ones between are worth a try.
        let allowed = if offered > self.highest { SIGN_ON_BAUD } else { offered };
        self.lowered.map_or(allowed, |(rate, _)| rate.min(allowed))
    }

    /// Remembers that `failed` gave no readable data; tells whether a lower rate is left to try.
    pub(super) fn step_down(&mut self, failed: u32, now: Instant) -> bool {
        if self.forced.is_some() || failed <= SIGN_ON_BAUD {
            return false;
        }
        self.lowered = Some((failed / 2, now + MEMORY));
        true
    }
}

/// The character that stands for a rate in mode C (clause 6.3.14); `None` when none does.
pub(in crate::meter) fn character(baud: u32) -> Option<char> {
    ('0'..='6').zip(0u32..).find(|(_, steps)| SIGN_ON_BAUD << steps == baud).map(|(character, _)| character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ladder(extra: &str) -> Ladder {
        let text = format!("name = \"m\"\nport = \"p\"\nprotocol = \"iec62056-21\"\n{extra}");
        Ladder::new(&MeterSettings::parse(&text).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_rate_is_halved_down_to_300_and_tried_again_after_some_hours() {
        let mut ladder = ladder("");
        let now = Instant::now();
        let mut rate = ladder.rate(9600, now);
        let mut tried = vec![rate];
        while ladder.step_down(rate, now) {
            rate = ladder.rate(9600, now);
            tried.push(rate);
        }
        assert_eq!(tried, [9600, 4800, 2400, 1200, 600, 300]);
        assert_eq!(ladder.rate(9600, now + Duration::from_hours(5)), 300);
        assert_eq!(ladder.rate(9600, now + Duration::from_hours(7)), 9600);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_means_300_and_a_forced_rate_is_never_left() {
        let now = Instant::now();
        assert_eq!(ladder("max_baud = 4800").rate(9600, now), 300);
        assert_eq!(ladder("max_baud = 4800").rate(4800, now), 4800);
        let mut forced = ladder("force_baud = 2400");
        assert_eq!((forced.rate(9600, now), forced.step_down(2400, now)), (2400, false));
        assert_eq!([300, 2400, 19_200, 1000].map(character), [Some('0'), Some('3'), Some('6'), None]);
    }
}
