//! Texts and times of messages in text mode (3GPP TS 27.005, 3.1; 27.007, 5.5).

use super::fields::Field;
use crate::model::Timestamp;

/// A text as UCS-2 in hex digits.
pub fn hex_of_text(text: &str) -> String {
    text.encode_utf16().map(|unit| format!("{unit:04X}")).collect()
}

/// The text of UCS-2 in hex digits; `None` when it is none.
pub fn text_of_hex(hex: &str) -> Option<String> {
    let octets = data_encoding::HEXUPPER_PERMISSIVE.decode(hex.trim().as_bytes()).ok()?;
    if octets.is_empty() || !octets.len().is_multiple_of(2) {
        return None;
    }
    let unit = |pair: &[u8]| Some(u16::from_be_bytes([*pair.first()?, *pair.get(1)?]));
    let units: Vec<u16> = octets.chunks(2).filter_map(unit).collect();
    Some(String::from_utf16_lossy(&units))
}

/// Reads `26/11/22,15:00:00+04`, the zone in quarters of an hour.
pub fn clock(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.trim().split_once(',')?;
    let zone = rest.find(['+', '-']).unwrap_or(rest.len());
    let (hours, zone) = rest.split_at_checked(zone)?;
    let number = |text: Option<&str>| Field { text: text?.trim().to_owned(), quoted: false }.number::<u8>();
    let (mut date, mut hours) = (date.split('/'), hours.split(':'));
    let year = i32::from(number(date.next())?) + 2000;
    let month = time::Month::try_from(number(date.next())?).ok()?;
    let day = time::Date::from_calendar_date(year, month, number(date.next())?).ok()?;
    let moment = day.with_hms(number(hours.next())?, number(hours.next())?, number(hours.next())?).ok()?;
    let quarters = if zone.is_empty() { 0 } else { zone.parse::<i8>().ok()? };
    let seconds = moment.assume_utc().unix_timestamp() - i64::from(quarters) * 900;
    Some(Timestamp::from_millis(seconds * 1000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clock_is_read_with_its_zone() {
        assert_eq!(clock("26/11/22,15:00:00+04"), Timestamp::parse("2026-11-22T14:00:00Z"));
        assert_eq!(clock("26/11/22,15:00:00-14"), Timestamp::parse("2026-11-22T18:30:00Z"));
        assert_eq!(clock("26/13/22,15:00:00+04"), None);
        assert_eq!(text_of_hex("0041"), Some("A".into()));
        assert_eq!(text_of_hex("004"), None);
        assert_eq!(text_of_hex("hello"), None);
    }

    proptest! {
        #[test]
        fn a_text_reads_back_from_hex(text in any::<String>().prop_filter("empty is none", |t| !t.is_empty())) {
            prop_assert_eq!(text_of_hex(&hex_of_text(&text)), Some(text));
        }

        #[test]
        fn any_text_is_a_clock_or_none(text in "[0-9/,:+ -]{0,24}", other in any::<String>()) {
            let _ = (clock(&text), clock(&other));
        }
    }
}
