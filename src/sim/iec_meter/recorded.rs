//! The load profile and the event log of a simulated meter: the same values whoever asks when.

use std::time::Duration;

use crate::model::Timestamp;
use crate::wire::iec62056::profile::MeterTime;

const QUARTER: i64 = 900;
/// The most rows of one answer.
const ROW_LIMIT: usize = 4000;

/// The rows of `P.01` that were recorded up to `now` and lie within what `arguments` ask for,
/// header lines among them: a status of its own from 03:00 to 04:00, and a header at each midnight.
/// The time of a header is the end of its first row.
pub(super) fn profile(arguments: &str, now: Timestamp) -> Vec<String> {
    let (from, to) = range(arguments, now);
    let mut lines = Vec::new();
    let mut status = "";
    let mut end = from.div_euclid(QUARTER) * QUARTER;
    if end < from {
        end += QUARTER;
    }
    while end <= to && lines.len() < ROW_LIMIT {
        let of_day = end.rem_euclid(86_400);
        let theirs = if (10_800..14_400).contains(&of_day) { "08" } else { "00" };
        if theirs != status || of_day == 0 {
            status = theirs;
            lines.push(format!("P.01({})({status})(15)(2)(1.5)(kW)(5.5)(kvar)", written(end)));
        }
        lines.push(row(end));
        end += QUARTER;
    }
    lines
}

/// An entry at each midnight.
pub(super) fn events(arguments: &str, now: Timestamp) -> Vec<String> {
    let (from, to) = range(arguments, now);
    let first = from.div_euclid(86_400) + 1;
    let days = first..=to.div_euclid(86_400);
    days.take(ROW_LIMIT).map(|day| format!("P.98({})(00002000)()()", written(day * 86_400))).collect()
}

/// The row that ended at `end`, seconds of UTC.
fn row(end: i64) -> String {
    let number = end.div_euclid(QUARTER);
    format!("({:02}.{:03})(0.{:02})", number % 60, number % 1000, number % 100)
}

fn written(at: i64) -> String {
    let face = Timestamp::from_millis(at.saturating_mul(1000));
    MeterTime { season: Some(0), face, seconds: true }.to_string()
}

/// The first and last second asked for; what was recorded longer than 40 days ago is gone.
fn range(arguments: &str, now: Timestamp) -> (i64, i64) {
    let inside = arguments.trim_start_matches('(').trim_end_matches(')');
    let mut times = inside.split(';').map(|text| MeterTime::parse(text).map(|t| t.face.as_millis() / 1000));
    let last = now.as_millis() / 1000;
    let kept = i64::try_from(Duration::from_hours(40 * 24).as_secs()).unwrap_or(0);
    let from = times.next().flatten().unwrap_or(0).max(last - kept);
    (from, times.next().flatten().unwrap_or(last).min(last))
}

/// How many rows an `R6` wants in a block.
pub(super) fn rows_per_part(arguments: &str) -> usize {
    let third = arguments.trim_end_matches(')').split(';').nth(2);
    third.and_then(|text| text.parse().ok()).filter(|rows| *rows > 0).unwrap_or(8)
}
