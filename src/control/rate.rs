//! How many commands an origin may send.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Origin;

/// Origins that are counted; a topic or number beyond that shares one count with all others.
const MOST: usize = 64;

/// A bucket an origin: `per_minute` at once, and so many a minute. All strangers share one, so that however many numbers they have they
/// neither take the room of those who are known nor fill the audit.
pub(super) struct Rates {
    per_minute: u32,
    strangers: Option<Bucket>,
    buckets: BTreeMap<Option<Origin>, Bucket>,
}

struct Bucket {
    left: f64,
    at: Instant,
    /// That it is empty was told.
    told: bool,
}

/// Whether there is a command left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// There was.
    One,
    /// There was none, for the first time in this minute.
    None,
    /// There was none, as before: nothing is said any more.
    Silent,
}

impl Rates {
    pub(super) const fn new(per_minute: u32) -> Self {
        Self { per_minute, strangers: None, buckets: BTreeMap::new() }
    }

    /// Takes one of an origin's commands.
    pub(super) fn take(&mut self, origin: &Origin, now: Instant) -> Taken {
        let full = f64::from(self.per_minute);
        self.buckets.retain(|_, bucket| bucket.left + refill(full, now - bucket.at) < full);
        let known = self.buckets.contains_key(&Some(origin.clone())) || self.buckets.len() < MOST;
        let bucket = self.buckets.entry(known.then(|| origin.clone())).or_insert_with(|| Bucket::new(full, now));
        bucket.take(full, now)
    }

    /// Takes one of what strangers say.
    pub(super) fn take_of_strangers(&mut self, now: Instant) -> Taken {
        let full = f64::from(self.per_minute);
        self.strangers.get_or_insert_with(|| Bucket::new(full, now)).take(full, now)
    }
}

impl Bucket {
    const fn new(full: f64, now: Instant) -> Self {
        Self { left: full, at: now, told: false }
    }

    fn take(&mut self, full: f64, now: Instant) -> Taken {
        self.left = (self.left + refill(full, now - self.at)).min(full);
        self.at = now;
        if self.left >= 1.0 {
            self.left -= 1.0;
            self.told &= self.left < full / 2.0;
            return Taken::One;
        }
        if std::mem::replace(&mut self.told, true) { Taken::Silent } else { Taken::None }
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
        let taken: Vec<_> = (0..5).map(|_| rates.take(&a, Instant::now())).collect();
        assert_eq!(taken, [Taken::One, Taken::One, Taken::One, Taken::None, Taken::Silent]);
        assert_eq!(rates.take(&b, Instant::now()), Taken::One);
        tokio::time::advance(Duration::from_secs(21)).await;
        assert_eq!([rates.take(&a, Instant::now()), rates.take(&a, Instant::now())], [Taken::One, Taken::Silent]);
        for number in 0..1000 {
            rates.take(&Origin::Phone(number.to_string()), Instant::now());
        }
        assert!(rates.buckets.len() <= MOST + 1);
    }
}
