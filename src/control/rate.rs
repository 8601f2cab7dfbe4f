//! How many commands an origin may send.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Origin;

/// Origins that are counted; a topic or number beyond that shares one count with all others.
const MOST: usize = 64;

/// A bucket an origin: `per_minute` at once, and so many a minute.
pub(super) struct Rates {
    per_minute: u32,
    buckets: BTreeMap<Option<Origin>, (f64, Instant)>,
}

impl Rates {
    pub(super) const fn new(per_minute: u32) -> Self {
        Self { per_minute, buckets: BTreeMap::new() }
    }

    /// Takes one of an origin's commands; false when it has none left.
    pub(super) fn take(&mut self, origin: &Origin, now: Instant) -> bool {
        let full = f64::from(self.per_minute);
        self.buckets.retain(|_, (left, at)| *left + refill(full, now - *at) < full);
        let known = self.buckets.contains_key(&Some(origin.clone())) || self.buckets.len() < MOST;
        let (left, at) = self.buckets.entry(known.then(|| origin.clone())).or_insert((full, now));
        *left = (*left + refill(full, now - *at)).min(full);
        *at = now;
        let has = *left >= 1.0;
        if has {
            *left -= 1.0;
        }
        has
    }
}

fn refill(per_minute: f64, passed: Duration) -> f64 {
    passed.as_secs_f64() * per_minute / 60.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_origin_has_so_many_a_minute_and_others_their_own() {
        let mut rates = Rates::new(3);
        let (a, b) = (Origin::Topic("a".into()), Origin::Topic("b".into()));
        let taken = (0..5).filter(|_| rates.take(&a, Instant::now())).count();
        assert_eq!(taken, 3);
        assert!(rates.take(&b, Instant::now()));
        tokio::time::advance(Duration::from_secs(21)).await;
        assert!(rates.take(&a, Instant::now()) && !rates.take(&a, Instant::now()));
        for number in 0..1000 {
            rates.take(&Origin::Phone(number.to_string()), Instant::now());
        }
        assert!(rates.buckets.len() <= MOST + 1);
    }
}
