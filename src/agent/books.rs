//! Closes the store's books once a day, at midnight UTC.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::model::{ClockState, Stamp, Timestamp};
use crate::os::clock::Clock;
use crate::store::{Store, StoreError};

const DAY: Duration = Duration::from_hours(24);
/// The clock is looked at so often: it may be set at any time.
const LOOK: Duration = Duration::from_mins(10);
/// After a disk that refused.
const AGAIN: Duration = Duration::from_mins(1);
/// A clock that is set to and fro must not make manifests by the dozen.
const SHORTEST: Duration = Duration::from_hours(1);

fn day(time: Timestamp) -> i64 {
    time.as_millis().div_euclid(i64::try_from(DAY.as_millis()).unwrap_or(i64::MAX))
}

/// Whether the books are to be closed: another day than when they were closed last (`reference`), or
/// with a clock that nobody trusts, a day of uptime after that (`since`: how long ago, if known).
fn is_due(now: &Stamp, reference: Timestamp, since: Option<Duration>) -> bool {
    match now.clock {
        ClockState::Synced => day(now.wall) != day(reference) && since.is_none_or(|s| s >= SHORTEST),
        ClockState::Unsynced => since.is_some_and(|s| s >= DAY),
    }
}

/// Runs until the store ends.
pub(super) async fn run(store: Store, clock: Clock, gateway: String) -> Result<(), StoreError> {
    let (began, started) = (clock.now(), Instant::now());
    // When the books were closed in this run of weir; before that its start stands in for it.
    let mut closed = None;
    let mut refused = false;
    loop {
        let now = clock.stamp();
        let (manifests, closed_at) = {
            let status = store.status();
            let status = status.borrow();
            (status.manifests, status.closed_at)
        };
        let reference = if manifests > 0 { closed_at } else { began };
        let since: Option<Instant> = match now.clock {
            ClockState::Synced => closed,
            ClockState::Unsynced => Some(closed.unwrap_or(started)),
        };
        let mut pause = LOOK;
        if is_due(&now, reference, since.map(|at| at.elapsed())) {
            match store.close_books(gateway.clone(), began, now).await {
                Ok(_) => {
                    closed = Some(Instant::now());
                    refused = false;
                }
                Err(error @ StoreError::Closed) => return Err(error),
                Err(error) if refused => debug!(%error, "the books still cannot be closed"),
                Err(error) => {
                    warn!(%error, "the books cannot be closed; it is tried again every minute");
                    refused = true;
                }
            }
            if refused {
                pause = AGAIN;
            }
        }
        let midnight = now.wall.next_aligned(DAY).since(now.wall);
        sleep(pause.min(midnight + Duration::from_secs(1))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, clock: ClockState) -> Stamp {
        Stamp { clock, ..Stamp::synced(Timestamp::parse(text).unwrap()) }
    }

    #[test]
    fn the_books_are_closed_when_another_day_has_begun_and_not_twice_because_the_clock_was_set() {
        let reference = Timestamp::parse("2026-11-21T00:00:01Z").unwrap();
        let (synced, hour) = (ClockState::Synced, Duration::from_hours(1));
        assert!(!is_due(&at("2026-11-21T23:59:59Z", synced), reference, Some(hour)));
        assert!(is_due(&at("2026-11-22T00:00:01Z", synced), reference, Some(hour)));
        assert!(is_due(&at("2026-11-25T12:00:00Z", synced), reference, None), "after days without power");
        assert!(!is_due(&at("2036-11-22T00:00:01Z", synced), reference, Some(hour / 2)));
        // A clock that was ten years ahead and is right again.
        let ahead = Timestamp::parse("2036-11-21T00:00:01Z").unwrap();
        assert!(is_due(&at("2026-11-22T00:00:01Z", synced), ahead, Some(hour)));
    }

    #[test]
    fn without_a_trusted_clock_uptime_decides() {
        let reference = Timestamp::parse("2026-11-21T00:00:01Z").unwrap();
        let now = at("2026-11-29T00:00:01Z", ClockState::Unsynced);
        assert!(!is_due(&now, reference, Some(Duration::from_hours(23))));
        assert!(is_due(&now, reference, Some(DAY)));
    }
}
