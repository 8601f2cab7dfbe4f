//! From a meter's clock to UTC: season digits, summer time without them, and the hour that comes twice.

use time::{Date, Month, OffsetDateTime, Weekday};

use super::SummerTime;
use crate::model::Timestamp;
use crate::wire::iec62056::profile::{MeterTime, Record};

const HOUR: i64 = 3600;

/// How a meter's clock relates to UTC.
#[derive(Debug, Clone, Copy)]
pub(in crate::meter) struct Clock {
    /// Seconds east of Greenwich, without summer time.
    pub(in crate::meter) offset: i64,
    pub(in crate::meter) summer_time: SummerTime,
}

impl Clock {
    /// The face in normal time at a point in UTC, in seconds.
    pub(super) fn face(self, utc: Timestamp) -> i64 {
        seconds(utc) + self.offset
    }

    /// When each record begins, in UTC seconds. Where the meter sends no season digit, the order
    /// of the records tells the first pass of the hour that comes twice from the second, so that
    /// no two intervals share a time. `after` decides when nothing else does.
    pub(in crate::meter) fn starts(self, records: &[Record], period: i64, after: Timestamp) -> Vec<i64> {
        let folds: Vec<bool> = records.windows(2).map(|pair| set_back(pair, period)).collect();
        let last_fold = folds.iter().rposition(|fold| *fold);
        let mut starts: Vec<i64> = Vec::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            let before_fold = last_fold.is_some_and(|fold| index <= fold);
            let after_fold = last_fold.is_some_and(|fold| index > fold);
            let previous = starts.last().copied().unwrap_or(seconds(after));
            starts.push(self.start(record.time, before_fold, after_fold, previous, index == 0));
        }
        starts
    }

    fn start(self, time: MeterTime, before_fold: bool, after_fold: bool, previous: i64, first: bool) -> i64 {
        let face = seconds(time.face);
        let normal = face - self.offset;
        let summer = normal - HOUR;
        match (time.season, self.summer_time) {
            (Some(2), _) => face,
            (Some(1), _) => summer,
            (Some(_), _) => normal,
            // The clock was set back an hour while it counted: before that it was ahead.
            (None, SummerTime::Meter) => {
                if before_fold {
                    summer
                } else {
                    normal
                }
            }
            (None, SummerTime::Eu) => match (eu_summer(summer), eu_summer(normal)) {
                // Both may be meant: this is the hour that comes twice (or its end).
                (true, false) if before_fold => summer,
                (true, false) if after_fold => normal,
                (true, false) => {
                    if summer > previous || (!first && summer >= previous) {
                        summer
                    } else {
                        normal
                    }
                }
                (true, true) => summer,
                // The hour that does not exist is read as normal time.
                (false, _) => normal,
            },
        }
    }
}

/// Whether the second record begins an hour before the first one's end: the clock was set back.
fn set_back(pair: &[Record], period: i64) -> bool {
    let [first, second] = pair else { return false };
    if first.time.season.is_some() || second.time.season.is_some() {
        return false;
    }
    let period = first.minutes.map_or(period, |minutes| i64::from(minutes) * 60);
    let rows = i64::try_from(first.rows.len()).unwrap_or(i64::MAX).max(1);
    let next = seconds(first.time.face).saturating_add(period.saturating_mul(if period > 0 { rows } else { 0 }));
    let step = seconds(second.time.face).saturating_sub(next);
    if period > 0 { step == -HOUR } else { (-HOUR..0).contains(&step) }
}

/// Whether the European Union is on summer time: from the last Sunday of March to that of
/// October, 01:00 UTC (directive 2000/84/EC).
fn eu_summer(utc: i64) -> bool {
    let Ok(moment) = OffsetDateTime::from_unix_timestamp(utc) else { return false };
    let turn = |month| {
        let mut day = Date::from_calendar_date(moment.year(), month, 31).ok()?;
        while day.weekday() != Weekday::Sunday {
            day = day.previous_day()?;
        }
        Some(day.midnight().assume_utc().unix_timestamp() + HOUR)
    };
    turn(Month::March).zip(turn(Month::October)).is_some_and(|(spring, autumn)| (spring..autumn).contains(&utc))
}

pub(super) fn seconds(time: Timestamp) -> i64 {
    time.as_millis().div_euclid(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::iec62056::profile::decode;

    fn utc(body: &str, summer_time: SummerTime, after: &str) -> Vec<String> {
        let records = decode(body.as_bytes()).unwrap();
        let clock = Clock { offset: HOUR, summer_time };
        let starts = clock.starts(&records, 900, Timestamp::parse(after).unwrap());
        starts.iter().map(|s| Timestamp::from_millis(s * 1000).to_string()).collect()
    }

    fn headers(times: &[(&str, usize)]) -> String {
        let body =
            times.iter().map(|(time, rows)| format!("P.01({time})(00)(15)(1)(1.5)(kW)\r\n{}", "(1)\r\n".repeat(*rows)));
        body.collect()
    }

    #[test]
    fn a_season_digit_decides() {
        let body = headers(&[("1261025023000", 1), ("0261025023000", 1), ("2261025023000", 1)]);
        for rule in [SummerTime::Meter, SummerTime::Eu] {
            let found = utc(&body, rule, "2026-10-24T00:00:00Z");
            assert_eq!(found, ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]);
        }
    }

    #[test]
    fn the_hour_that_comes_twice_loses_no_interval_without_a_season_digit() {
        // First pass 01:45 02:00 02:15 02:30 02:45, set back, second pass 02:00 ...
        let body = headers(&[("261025014500", 5), ("261025020000", 4)]);
        for rule in [SummerTime::Meter, SummerTime::Eu] {
            let found = utc(&body, rule, "2026-10-24T00:00:00Z");
            assert_eq!(found, ["2026-10-24T23:45:00Z", "2026-10-25T01:00:00Z"], "{rule:?}");
        }
    }

    #[test]
    fn a_piece_that_lies_within_that_hour_is_placed_by_what_was_asked_for() {
        let body = headers(&[("2610250215", 3)]);
        assert_eq!(utc(&body, SummerTime::Eu, "2026-10-25T00:00:00Z"), ["2026-10-25T00:15:00Z"]);
        assert_eq!(utc(&body, SummerTime::Eu, "2026-10-25T01:00:00Z"), ["2026-10-25T01:15:00Z"]);
    }

    #[test]
    fn the_calendar_of_the_union_is_known() {
        let body = headers(&[("260701120000", 1), ("260101120000", 1), ("260329030000", 1), ("260329014500", 1)]);
        assert_eq!(
            utc(&body, SummerTime::Eu, "2026-01-01T00:00:00Z"),
            ["2026-07-01T10:00:00Z", "2026-01-01T11:00:00Z", "2026-03-29T01:00:00Z", "2026-03-29T00:45:00Z"]
        );
        assert_eq!(
            utc(&headers(&[("260701120000", 1)]), SummerTime::Meter, "2026-01-01T00:00:00Z"),
            ["2026-07-01T11:00:00Z"]
        );
    }
}
