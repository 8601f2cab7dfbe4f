//! Load profiles and event logs as meters send them: `P.01(time)(status)(minutes)(channels)...`.
//!
//! The standard leaves this to makers and countries; what EMH, Elster and Landis+Gyr have in
//! common is read: a header with the time of its first row, status, length of the intervals in minutes,
//! number of channels and each one's id and unit, then rows of values; a new header wherever the
//! status or the channels change. An event log (`P.98`) has a header for each entry.

use std::fmt;

use time::{Date, Month, PrimitiveDateTime, Time};

use super::data::DataValue;
use crate::model::Timestamp;

/// A header with its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the profile is called; empty when the meter left it out.
    pub id: String,
    /// The time of the first row.
    pub time: MeterTime,
    /// The status as the meter wrote it.
    pub status: String,
    /// The length of an interval in minutes; `None` when the meter does not say.
    pub minutes: Option<u32>,
    /// The id and unit of each channel.
    pub channels: Vec<(String, String)>,
    /// A row for each interval, a value for each channel.
    pub rows: Vec<Vec<DataValue>>,
}

/// Why a body is no profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// A line has the wrong shape.
    #[error("the line \"{0}\" is no row of values in parentheses")]
    Syntax(String),
    /// The time in a header can't be read.
    #[error("the header's time \"{0}\" is not YYMMDDhhmm[ss] with or without a season digit")]
    Time(String),
    /// A header ends before its channels do, or counts them wrongly.
    #[error("a header does not name the channels it counts")]
    Channels,
    /// A line does not have a value for each channel.
    #[error("a line has {found} values for {channels} channels")]
    Row {
        /// How many stand in the line.
        found: usize,
        /// How many channels the header has.
        channels: usize,
    },
}

/// The most channels of a profile; more is damage.
const CHANNEL_LIMIT: usize = 64;
/// Fields of a header before the channels: time, status, minutes, number of channels.
const FIXED: usize = 4;

/// A point in time as a meter writes it: `[S]YYMMDDhhmm[ss]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeterTime {
    /// 0 normal time, 1 summer time, 2 UTC; `None` when the meter does not say.
    pub season: Option<u8>,
    /// The clock's face, read as if it were UTC.
    pub face: Timestamp,
    /// Whether it is written with seconds.
    pub seconds: bool,
}

impl MeterTime {
    /// Reads the text; `None` when it is no time.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text.bytes().map(|b| b.wrapping_sub(b'0')).collect();
        if digits.iter().any(|d| *d > 9) {
            return None;
        }
        let (season, rest) = match digits.split_first() {
            Some((season, rest)) if digits.len() % 2 == 1 && *season <= 2 => (Some(*season), rest),
            _ => (None, digits.as_slice()),
        };
        let two: Vec<u8> = rest.chunks_exact(2).map(|pair| pair.iter().fold(0, |n, d| n * 10 + d)).collect();
        let (year, month, day, hour, minute, second) = match (two.as_slice(), rest.len()) {
            ([year, month, day, hour, minute], 10) => (year, month, day, hour, minute, 0),
            ([year, month, day, hour, minute, second], 12) => (year, month, day, hour, minute, *second),
            _ => return None,
        };
        let date = Date::from_calendar_date(2000 + i32::from(*year), Month::try_from(*month).ok()?, *day).ok()?;
        // The end of a day is written 2400 by some.
        let midnight = *hour == 24 && *minute == 0 && second == 0;
        let time = Time::from_hms(if midnight { 0 } else { *hour }, *minute, second).ok()?;
        let seconds = PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp();
        let face = Timestamp::from_millis((seconds + if midnight { 86_400 } else { 0 }) * 1000);
        Some(Self { season, face, seconds: rest.len() == 12 })
    }

    /// The same spelling and season, `seconds` later on the clock's face.
    #[must_use]
    pub fn later(self, seconds: i64) -> Self {
        Self {
            face: Timestamp::from_millis(self.face.as_millis().saturating_add(seconds.saturating_mul(1000))),
            ..self
        }
    }
}

impl fmt::Display for MeterTime {
    /// Writes it as the meter does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(season) = self.season {
            write!(f, "{season}")?;
        }
        // RFC 3339: 2026-01-15T00:15:00Z
        let text = self.face.to_string();
        let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
        write!(f, "{}{}{}{}{}", part(2..4), part(5..7), part(8..10), part(11..13), part(14..16))?;
        if self.seconds { f.write_str(part(17..19)) } else { Ok(()) }
    }
}

/// What is being read: the fields of a header that is not complete, or rows.
#[derive(Default)]
struct Reading {
    records: Vec<Record>,
    id: String,
    head: Vec<DataValue>,
    /// The channels of the header that was completed last; `None` while one is being read.
    channels: Option<usize>,
}

/// Reads the body of an answer, its partial blocks joined.
///
/// # Errors
/// What has the wrong shape: nothing of such a body may be used.
pub fn decode(body: &[u8]) -> Result<Vec<Record>, ProfileError> {
    let text: String = body.iter().map(|b| char::from(b & 0x7F)).collect();
    let mut reading = Reading::default();
    for line in text.split(['\r', '\n']).map(str::trim).take_while(|line| !line.starts_with('!')) {
        if line.is_empty() {
            continue;
        }
        let (id, values) = line.split_at(line.find('(').unwrap_or(line.len()));
        let values = values_of(values).ok_or_else(|| ProfileError::Syntax(line.to_owned()))?;
        let first = reading.records.is_empty() && reading.head.is_empty();
        if !id.is_empty() || first {
            reading.finish_header()?;
            id.trim().clone_into(&mut reading.id);
            reading.channels = None;
        }
        reading.take(values)?;
    }
    reading.finish_header()?;
    Ok(reading.records)
}

/// The most characters of a value (clause 6.6, programming mode).
const VALUE_LIMIT: usize = 128;

/// `(a)(b*unit)` without anything else; `None` for any other shape.
fn values_of(mut text: &str) -> Option<Vec<DataValue>> {
    let mut values = Vec::new();
    while !text.is_empty() {
        let (value, rest) = text.strip_prefix('(')?.split_once(')')?;
        if value.len() > VALUE_LIMIT || value.contains('(') || value.chars().any(char::is_control) {
            return None;
        }
        let (value, unit) = value.split_once('*').unwrap_or((value, ""));
        values.push(DataValue { text: value.to_owned(), unit: unit.to_owned() });
        text = rest.trim_start();
    }
    (!values.is_empty()).then_some(values)
}

impl Reading {
    fn take(&mut self, values: Vec<DataValue>) -> Result<(), ProfileError> {
        let mut values = values.into_iter();
        while self.channels.is_none() {
            let Some(value) = values.next() else { return Ok(()) };
            self.head.push(value);
            let count = match self.head.get(FIXED - 1) {
                None => continue,
                Some(field) if field.text.is_empty() => 0,
                Some(field) => field.text.trim().parse::<usize>().map_err(|_| ProfileError::Channels)?,
            };
            if count > CHANNEL_LIMIT {
                return Err(ProfileError::Channels);
            }
            if self.head.len() == FIXED + 2 * count {
                self.finish_header()?;
            }
        }
        let rest: Vec<DataValue> = values.collect();
        let (channels, found) = (self.channels.unwrap_or_default(), rest.len());
        if found == 0 {
            return Ok(());
        }
        let record = self.records.last_mut().filter(|_| channels > 0 && found.is_multiple_of(channels));
        let record = record.ok_or(ProfileError::Row { found, channels })?;
        record.rows.extend(rest.chunks(channels.max(1)).map(<[DataValue]>::to_vec));
        Ok(())
    }

    /// Makes a record of the header's fields; a short one (time, status) is an entry without values.
    fn finish_header(&mut self) -> Result<(), ProfileError> {
        let head = std::mem::take(&mut self.head);
        let Some(time) = head.first() else { return Ok(()) };
        let field = |at: usize| head.get(at).map(|v| v.text.trim().to_owned()).unwrap_or_default();
        let named: Vec<(String, String)> = head.get(FIXED..).unwrap_or_default().chunks(2).map(channel).collect();
        let count = if field(3).is_empty() { 0 } else { field(3).parse().map_err(|_| ProfileError::Channels)? };
        if named.len() != count {
            return Err(ProfileError::Channels);
        }
        let digits: String = field(2).chars().take_while(char::is_ascii_digit).collect();
        self.records.push(Record {
            id: self.id.clone(),
            time: MeterTime::parse(time.text.trim()).ok_or_else(|| ProfileError::Time(time.text.clone()))?,
            status: field(1),
            minutes: digits.parse().ok().filter(|minutes| *minutes > 0),
            channels: named,
            rows: Vec::new(),
        });
        self.channels = Some(count);
        Ok(())
    }
}

fn channel(pair: &[DataValue]) -> (String, String) {
    let text = |at: usize| pair.get(at).map(|v| v.text.trim().to_owned()).unwrap_or_default();
    (text(0), text(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(record: &Record) -> Vec<Vec<&str>> {
        record.rows.iter().map(|row| row.iter().map(|v| v.text.as_str()).collect()).collect()
    }

    #[test]
    fn a_profile_with_two_channels_and_a_change_of_status_is_read() {
        let body = b"P.01(0260115000000)(00)(15)(2)(1.5)(kW)(5.5)(kvar)\r\n(0.25)(0.01)\r\n(00.30)(0.02)\r\n\
            P.01(0260115003000)(08)(15)(2)(1.5)(kW)(5.5)(kvar)\r\n(0.4)()\r\n";
        let records = decode(body).unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(texts(&records[0]), [["0.25", "0.01"], ["00.30", "0.02"]]);
        assert_eq!((records[0].minutes, records[0].status.as_str()), (Some(15), "00"));
        assert_eq!(records[1].channels[1], ("5.5".to_owned(), "kvar".to_owned()));
        assert_eq!(
            (records[1].time.to_string().as_str(), texts(&records[1])),
            ("0260115003000", vec![vec!["0.4", ""]])
        );
    }

    #[test]
    fn headers_over_several_lines_and_rows_in_the_header_s_line_are_read() {
        let body = b"P.01(2601150000)(00)(15)(2)(1.5)(kW)\r\n(5.5)(kvar)\r\n(1)(2)(3)(4)\r\n";
        assert_eq!(texts(&decode(body).unwrap()[0]), [["1", "2"], ["3", "4"]]);
        let body = b"(260115000000)(00)(15)(1)(1.5)(kW)(1)(2)";
        let records = decode(body).unwrap();
        assert_eq!((records[0].id.as_str(), records[0].rows.len()), ("", 2));
    }

    #[test]
    fn an_event_log_has_an_entry_for_each_header() {
        let body = b"P.98(1030714152130)(00008000)()(2)(0.9.1)()(0.9.2)()(152130)(1030714)\r\n\
            P.98(1030714160000)(00000080)()()\r\nP.98(1030715000000)(00000040)\r\n";
        let records = decode(body).unwrap();
        let shown: Vec<_> = records.iter().map(|r| (r.status.as_str(), r.minutes, r.rows.len())).collect();
        assert_eq!(shown, [("00008000", None, 1), ("00000080", None, 0), ("00000040", None, 0)]);
    }

    #[test]
    fn what_does_not_fit_together_is_refused_as_a_whole() {
        let head = "P.01(0260115000000)(00)(15)(2)(1.5)(kW)(5.5)(kvar)\r\n";
        let refused = |rest: &str| decode(format!("{head}{rest}").as_bytes()).unwrap_err();
        assert_eq!(refused("(1)(2)(3)"), ProfileError::Row { found: 3, channels: 2 });
        assert_eq!(refused("(1)(2\r\n"), ProfileError::Syntax("(1)(2".into()));
        assert_eq!(refused("(1)(2)x"), ProfileError::Syntax("(1)(2)x".into()));
        assert_eq!(refused("P.01(0260115)(00)"), ProfileError::Time("0260115".into()));
        assert_eq!(refused("P.01(0260115000000)(00)(15)(3)(1.5)(kW)\r\n"), ProfileError::Channels);
    }

    #[test]
    fn times_are_read_and_written_in_every_spelling() {
        for text in ["2601150015", "02601150015", "260115001500", "1260715001500", "2260115001530"] {
            let time = MeterTime::parse(text).unwrap();
            assert_eq!(time.to_string(), text);
        }
        let time = MeterTime::parse("1260331234500").unwrap();
        assert_eq!((time.season, time.later(900).to_string().as_str()), (Some(1), "1260401000000"));
        assert_eq!(MeterTime::parse("2601152400").unwrap().to_string(), "2601160000");
        for text in ["", "260115", "2613150015", "2601320015", "26011500a5", "32601150015"] {
            assert_eq!(MeterTime::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"()0123456789P.\r\n*".to_vec())], 0..400),
        ) {
            for record in decode(&bytes).unwrap_or_default() {
                prop_assert!(record.rows.iter().all(|row| row.len() == record.channels.len()));
            }
        }
    }
}
