//! Dates and times of COSEM (IEC 62056-6-2, clause 4.1.6.1): wildcards, deviation in minutes west, summer time.

use time::OffsetDateTime;

use crate::model::Timestamp;
use crate::wire::dlms::{ClockStatus, Data, DataBuf, DateTime, Time};

/// The deviation that says nothing.
const UNKNOWN: i16 = i16::MIN;
/// A deviation from UTC is no more than this (IEC 62056-6-2: -720 to 840; some meters turn the sign around).
const FARTHEST: i16 = 840;

/// A date and time in an attribute: as an octet-string of 12 bytes, or with a tag of its own. `None` for what can
/// be no time.
pub(in crate::meter::dlms) fn moment(data: &Data<'_>) -> Option<DateTime> {
    let time = match *data {
        Data::DateTime(time) => time,
        Data::OctetString(bytes) => DateTime::from_bytes(*bytes.first_chunk().filter(|_| bytes.len() == 12)?),
        _ => return None,
    };
    let year = time.year == 0xFFFF || (1970..=2200).contains(&time.year);
    let month = (1..=12).contains(&time.month) || time.month >= 0xFD;
    let day = (1..=31).contains(&time.day_of_month) || time.day_of_month >= 0xFD;
    let clock = [(time.hour, 23), (time.minute, 59), (time.second, 59), (time.hundredths, 99)];
    let clock = clock.iter().all(|(value, most)| value <= most || *value == 0xFF);
    let deviation = time.deviation == UNKNOWN || (-FARTHEST..=FARTHEST).contains(&time.deviation);
    (year && month && day && clock && deviation && (time.day_of_week <= 7 || time.day_of_week == 0xFF)).then_some(time)
}

/// The text of a time of day.
pub(super) fn time_text(time: Time) -> String {
    time.to_string()
}

/// What a clock showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::meter::dlms) struct Face {
    /// Seconds from 1970-01-01 00:00 on the same clock.
    pub(in crate::meter::dlms) seconds: i64,
    /// Minutes to add for UTC, when the meter says it.
    pub(in crate::meter::dlms) west: Option<i16>,
    /// Whether summer time is on, when the meter says it.
    pub(in crate::meter::dlms) summer: Option<bool>,
}

impl Face {
    /// The face of a complete date and time; `None` with a wildcard in what matters. Seconds that are not told are 0.
    pub(in crate::meter::dlms) fn of(time: DateTime) -> Option<Self> {
        let second = if time.second == 0xFF { 0 } else { time.second };
        let plain = DateTime { second, deviation: 0, ..time };
        let west = (time.deviation != UNKNOWN).then_some(time.deviation);
        let summer = (!time.status.is_not_specified()).then(|| time.status.daylight_saving_active());
        Some(Self { seconds: plain.to_unix_seconds()?, west, summer })
    }

    /// The time in UTC, in seconds; where the meter does not tell its deviation, its clock is so many minutes east
    /// of UTC, and an hour more in summer when it says so.
    pub(in crate::meter::dlms) fn utc(self, east: i16) -> i64 {
        let west = self.west.unwrap_or(-east - if self.summer == Some(true) { 60 } else { 0 });
        self.seconds + i64::from(west) * 60
    }
}

/// A time so many seconds later on the same clock; itself when it has wildcards.
pub(in crate::meter::dlms) fn plus(time: DateTime, seconds: i64) -> DateTime {
    let Some(face) = Face::of(time) else { return time };
    at_face(face.seconds.saturating_add(seconds), time.deviation, time.status)
}

/// The time that a clock shows at a point in UTC.
pub(in crate::meter::dlms) fn coded(utc: Timestamp, west: Option<i16>, east: i16, status: ClockStatus) -> DateTime {
    let minutes = west.map_or_else(|| i64::from(east), |west| -i64::from(west));
    let seconds = utc.as_millis().div_euclid(1000) + minutes * 60;
    at_face(seconds, west.unwrap_or(UNKNOWN), status)
}

fn at_face(seconds: i64, deviation: i16, status: ClockStatus) -> DateTime {
    let Ok(at) = OffsetDateTime::from_unix_timestamp(seconds) else { return DateTime::WILDCARD };
    DateTime {
        year: u16::try_from(at.year()).unwrap_or(0xFFFF),
        month: at.month().into(),
        day_of_month: at.day(),
        day_of_week: at.weekday().number_from_monday(),
        hour: at.hour(),
        minute: at.minute(),
        second: at.second(),
        hundredths: 0,
        deviation,
        status,
    }
}

/// A date and time as attributes and selections carry it.
pub(in crate::meter::dlms) fn octets(time: DateTime) -> DataBuf {
    DataBuf::OctetString(time.to_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VIENNA: [u8; 12] = [0x07, 0xEA, 7, 1, 3, 12, 0, 0, 0, 0xFF, 0x88, 0x80];

    fn utc(bytes: [u8; 12], east: i16) -> Option<String> {
        let face = Face::of(moment(&Data::OctetString(&bytes))?)?;
        Some(Timestamp::from_millis(face.utc(east) * 1000).to_string())
    }

    #[test]
    fn the_deviation_counts_minutes_west() {
        assert_eq!(utc(VIENNA, 0).unwrap(), "2026-07-01T10:00:00Z");
        let new_york = [0x07, 0xEA, 7, 1, 3, 12, 0, 0, 0, 0x00, 0xF0, 0x80];
        assert_eq!(utc(new_york, 60).unwrap(), "2026-07-01T16:00:00Z");
    }

    #[test]
    fn without_a_deviation_the_settings_and_the_summer_bit_decide() {
        let of = |status| [0x07, 0xEA, 7, 1, 0xFF, 12, 0, 0xFF, 0xFF, 0x80, 0x00, status];
        assert_eq!(utc(of(0x80), 60).unwrap(), "2026-07-01T10:00:00Z");
        assert_eq!(utc(of(0x00), 60).unwrap(), "2026-07-01T11:00:00Z");
        assert_eq!(utc(of(0xFF), 60).unwrap(), "2026-07-01T11:00:00Z");
    }

    #[test]
    fn a_time_with_wildcards_is_a_pattern_and_no_point_in_time() {
        let pattern = [0xFF, 0xFF, 3, 0xFE, 7, 2, 0, 0, 0, 0x80, 0, 0];
        let time = moment(&Data::OctetString(&pattern)).unwrap();
        assert_eq!((time.to_string(), Face::of(time)), ("****-03-**T02:00:00".to_owned(), None));
        assert_eq!(moment(&Data::OctetString(b"abcdefghijkl")), None);
        assert_eq!(Face::of(moment(&Data::OctetString(&[7, 0xEA, 2, 30, 1, 0, 0, 0, 0, 0, 0, 0])).unwrap()), None);
    }

    proptest! {
        #[test]
        fn what_is_coded_is_the_same_point_in_time(
            seconds in 0i64..4_000_000_000, west in prop::option::of(-840i16..=840), east in -720i16..=840,
        ) {
            let at = Timestamp::from_millis(seconds * 1000);
            let time = coded(at, west, east, ClockStatus(0));
            prop_assert_eq!(Face::of(time).unwrap().utc(east), seconds);
            prop_assert_eq!(Face::of(plus(time, 900)).unwrap().utc(east), seconds + 900);
        }

        #[test]
        fn any_bytes_are_a_time_or_none(bytes in any::<[u8; 12]>(), by in any::<i64>()) {
            if let Some(time) = moment(&Data::OctetString(&bytes)) {
                let _ = (Face::of(time).map(|face| face.utc(i16::MIN / 2)), plus(time, by).to_string());
            }
        }
    }
}
