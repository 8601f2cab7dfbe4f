//! A call that rings: who it is, told once.

use std::time::Duration;

use tokio::time::Instant;

/// The number comes within the second ring; later it is hidden.
const NUMBER: Duration = Duration::from_secs(6);
/// A telephone rings every 3 to 6 seconds; then the caller has gone.
const GONE: Duration = Duration::from_secs(12);

/// The call that rings now.
#[derive(Debug, Default)]
pub(super) struct Calls {
    ringing: Option<Ringing>,
}

#[derive(Debug)]
struct Ringing {
    began: Instant,
    last: Instant,
    told: bool,
    number: Option<String>,
}

impl Calls {
    /// It rings.
    pub(super) fn ring(&mut self, now: Instant) {
        self.end_when_gone(now);
        let ringing = self.ringing.get_or_insert(Ringing { began: now, last: now, told: false, number: None });
        ringing.last = now;
    }

    /// Its number came, `None` when it is hidden; true when the call is news. Another number is another call.
    pub(super) fn caller(&mut self, now: Instant, number: Option<&str>) -> bool {
        if self
            .ringing
            .as_ref()
            .is_some_and(|ringing| ringing.told && number.is_some() && ringing.number.as_deref() != number)
        {
            self.ringing = None;
        }
        self.ring(now);
        self.ringing.as_mut().is_some_and(|ringing| {
            ringing.number = number.map(str::to_owned);
            !std::mem::replace(&mut ringing.told, true)
        })
    }

    /// The caller has hung up, or we have.
    pub(super) fn over(&mut self) -> bool {
        self.ringing.take().is_some_and(|ringing| !ringing.told)
    }

    /// When a call without a number becomes one whose number is hidden.
    pub(super) fn due(&self) -> Option<Instant> {
        self.ringing.as_ref().filter(|ringing| !ringing.told).map(|ringing| ringing.began + NUMBER)
    }

    fn end_when_gone(&mut self, now: Instant) {
        if self.ringing.as_ref().is_some_and(|ringing| now >= ringing.last + GONE) {
            self.ringing = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_told_once_however_often_it_rings() {
        let now = Instant::now();
        let mut calls = Calls::default();
        calls.ring(now);
        assert_eq!(calls.due(), Some(now + NUMBER));
        assert!(calls.caller(now, Some("1")));
        for seconds in [5, 10, 15] {
            calls.ring(now + Duration::from_secs(seconds));
            assert!(!calls.caller(now + Duration::from_secs(seconds), Some("1")));
        }
        assert_eq!(calls.due(), None);
        assert!(calls.caller(now + Duration::from_secs(60), Some("1")));
        assert!(calls.caller(now + Duration::from_secs(61), Some("2")), "another caller");
    }

    #[test]
    fn a_call_that_ended_without_a_number_is_told_too() {
        let mut calls = Calls::default();
        calls.ring(Instant::now());
        assert!(calls.over() && !calls.over());
    }
}
