//! A point in time as it travels in frames: milliseconds since 1970, UTC.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A UTC point in time with a resolution of one millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Makes a timestamp from milliseconds since 1970-01-01T00:00:00Z.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since 1970-01-01T00:00:00Z; negative before it.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Reads an RFC 3339 text such as `2021-11-13T21:54:01Z`; `None` when it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(parsed.unix_timestamp_nanos() / 1_000_000).ok().map(Self)
    }

    /// Returns this time plus `duration`, held at the end of the range.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Returns this time less `duration`, held at the end of the range.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Returns how much later this is than `earlier`; zero when it is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Returns the first point after this one that is a whole multiple of `period` since
    /// midnight UTC on 1970-01-01, so that every 15 minutes means :00, :15, :30 and :45.
    /// A period below one millisecond counts as one.
    pub fn next_aligned(self, period: Duration) -> Self {
        let step = i64::try_from(period.as_millis()).unwrap_or(i64::MAX).max(1);
        Self(self.0.div_euclid(step).saturating_add(1).saturating_mul(step))
    }
}

impl fmt::Display for Timestamp {
    /// Writes RFC 3339 in UTC with whole seconds, as the frames JSON wants it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(1000);
        match OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|t| t.format(&Rfc3339).ok()) {
            Some(text) => f.write_str(&text),
            None => write!(f, "{seconds}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_prints_whole_seconds_in_utc_and_reads_back() {
        let t = Timestamp::parse("2021-11-13T21:54:01Z").unwrap();
        assert_eq!(t.as_millis(), 1_636_840_441_000);
        assert_eq!(t.plus(Duration::from_millis(999)).to_string(), "2021-11-13T21:54:01Z");
        assert_eq!(Timestamp::parse("2021-11-13T22:54:01+01:00"), Some(t));
        assert_eq!(Timestamp::parse("yesterday"), None);
    }

    #[test]
    fn a_quarter_hour_schedule_falls_on_the_quarter_hours() {
        let quarter = Duration::from_secs(900);
        let next = Timestamp::parse("2021-11-13T21:54:01Z").unwrap().next_aligned(quarter);
        assert_eq!(next.to_string(), "2021-11-13T22:00:00Z");
        assert_eq!(next.next_aligned(quarter).to_string(), "2021-11-13T22:15:00Z");
    }

    #[test]
    fn times_at_the_ends_of_the_range_do_not_overflow() {
        let end = Timestamp::from_millis(i64::MAX);
        assert_eq!(end.plus(Duration::MAX), end);
        assert!(end.next_aligned(Duration::MAX).as_millis() > 0);
        assert!(!end.to_string().is_empty() && !Timestamp::from_millis(i64::MIN).to_string().is_empty());
    }
}
