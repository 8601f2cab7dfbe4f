//! The data field of a record: exact numbers, texts and times (EN 13757-3, annex A).

use crate::model::Decimal;

/// A number, or what was sent in its place.
pub(super) enum Number {
    /// An exact number.
    Exact(Decimal),
    /// Digits that are none (BCD nibbles A to F), infinity or "not a number".
    Invalid,
}

fn exact(digits: i128) -> Number {
    Decimal::new(digits, 0).map_or(Number::Invalid, Number::Exact)
}

/// BCD, least significant byte first; F in the highest digit is a minus sign (type A).
pub(super) fn bcd(bytes: &[u8]) -> Number {
    let mut digits: i128 = 0;
    let mut negative = false;
    let nibbles = bytes.iter().rev().flat_map(|byte| [byte >> 4, byte & 0x0F]);
    for (place, nibble) in nibbles.enumerate() {
        match nibble {
            0..=9 => match digits.checked_mul(10).and_then(|d| d.checked_add(nibble.into())) {
                Some(more) => digits = more,
                None => return Number::Invalid,
            },
            0xF if place == 0 => negative = true,
            _ => return Number::Invalid,
        }
    }
    exact(if negative { -digits } else { digits })
}

/// A binary integer of at most 16 bytes, least significant byte first (types B and C).
pub(super) fn integer(bytes: &[u8], signed: bool) -> Number {
    let negative = signed && bytes.last().is_some_and(|high| high & 0x80 != 0);
    let mut wide = [if negative { 0xFF } else { 0 }; 16];
    match wide.get_mut(..bytes.len()) {
        Some(low) => low.copy_from_slice(bytes),
        None => return Number::Invalid,
    }
    exact(i128::from_le_bytes(wide))
}

/// A 32-bit IEEE 754 float as the shortest decimal that reads back as the same (type H).
pub(super) fn real(bytes: [u8; 4]) -> Number {
    Decimal::from_f32(f32::from_le_bytes(bytes)).map_or(Number::Invalid, Number::Exact)
}

/// ISO 8859-1 characters, the last one first; blanks at the ends and control characters removed.
pub(super) fn text(bytes: &[u8]) -> String {
    let text: String = bytes.iter().rev().map(|byte| char::from(*byte)).filter(|c| !c.is_control()).collect();
    text.trim().to_owned()
}

/// Two hex digits a byte, in the order of the wire.
pub(super) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXUPPER.encode(bytes)
}

/// A date, `2014-12-31` (type G); `None` when it is marked as invalid or is none.
pub(super) fn date(bytes: [u8; 2]) -> Option<String> {
    let [low, high] = bytes;
    day(low, high, 0)
}

/// A date and time in the meter's own time, `2014-03-13T11:11` (type F); `None` when it is marked as
/// invalid or is none.
pub(super) fn date_time(bytes: [u8; 4]) -> Option<String> {
    let [minute, hour, low, high] = bytes;
    if minute & 0x80 != 0 {
        return None;
    }
    let date = day(low, high, (hour >> 5) & 0x03)?;
    clock(&[hour & 0x1F, minute & 0x3F]).map(|time| format!("{date}T{time}"))
}

/// A date and time with seconds in the meter's own time (type I). The last byte's upper bits say how far summer time is off.
pub(super) fn date_time_seconds(bytes: [u8; 6]) -> Option<String> {
    let [second, minute, hour, low, high, _week] = bytes;
    if minute & 0x80 != 0 {
        return None;
    }
    let date = day(low, high, 0)?;
    clock(&[hour & 0x1F, minute & 0x3F, second & 0x3F]).map(|time| format!("{date}T{time}"))
}

/// A time of day (type J).
pub(super) fn time(bytes: [u8; 3]) -> Option<String> {
    let [second, minute, hour] = bytes;
    clock(&[hour & 0x1F, minute & 0x3F, second & 0x3F])
}

fn clock(parts: &[u8]) -> Option<String> {
    let fits = parts.iter().zip([23, 59, 59]).all(|(part, most)| *part <= most);
    fits.then(|| parts.iter().map(|part| format!("{part:02}")).collect::<Vec<_>>().join(":"))
}

/// Years have two digits; `hundreds` tells the century where the type has it. Without it, up to
/// 80 is this century, as clause A.6 recommends. A day of every year is written `--12-31`, as ISO 8601:2000 did.
fn day(low: u8, high: u8, hundreds: u8) -> Option<String> {
    const EVERY_YEAR: u16 = 127;
    let year = u16::from(low >> 5) | u16::from((high & 0xF0) >> 1);
    if year == EVERY_YEAR {
        // 2000 has a 29th of February.
        return day(low & 0x1F, high & 0x0F, 0).map(|date| date.replacen("2000-", "--", 1));
    }
    let year = if hundreds == 0 && year <= 80 { 2000 + year } else { 1900 + 100 * u16::from(hundreds) + year };
    let month = time::Month::try_from(high & 0x0F).ok()?;
    let date = time::Date::from_calendar_date(year.into(), month, low & 0x1F).ok()?;
    Some(format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(number: Number) -> Option<String> {
        match number {
            Number::Exact(decimal) => Some(decimal.to_string()),
            Number::Invalid => None,
        }
    }

    #[test]
    fn numbers_keep_every_digit_and_their_sign() {
        assert_eq!(shown(bcd(&[0x45, 0x23, 0x01])).as_deref(), Some("12345"));
        assert_eq!(shown(bcd(&[0x45, 0x23, 0xF1])).as_deref(), Some("-12345"));
        assert_eq!(shown(bcd(&[0x4A, 0x23])), None);
        assert_eq!(shown(bcd(&[0x45, 0xF3, 0x01])), None);
        assert_eq!(shown(integer(&[0xFF, 0xFF], true)).as_deref(), Some("-1"));
        assert_eq!(shown(integer(&[0xFF, 0xFF], false)).as_deref(), Some("65535"));
        assert_eq!(shown(integer(&[0xFF; 8], false)).as_deref(), Some("18446744073709551615"));
        assert_eq!(shown(integer(&[0; 17], true)), None);
        assert_eq!(shown(real(41.737_434_f32.to_le_bytes())).as_deref(), Some("41.737434"));
        assert_eq!(shown(real(f32::NAN.to_le_bytes())), None);
    }

    #[test]
    fn times_are_iso_texts_and_marked_ones_are_none() {
        assert_eq!(date_time([0x0B, 0x0B, 0xCD, 0x13]).as_deref(), Some("2014-03-13T11:11"));
        assert_eq!(date_time([0xA1, 0x15, 0xE9, 0x17]), None);
        assert_eq!(date([0xDF, 0x1C]).as_deref(), Some("2014-12-31"));
        assert_eq!(date([0xE1, 0xF1]).as_deref(), Some("--01-01"), "every year");
        assert_eq!((date([0xFF, 0xFF]), date([0xFD, 0xF2]).as_deref()), (None, Some("--02-29")));
        assert_eq!(date([0x00, 0x00]), None);
        assert_eq!(date([0x1F, 0x02]), None);
        assert_eq!(date_time_seconds([59, 0x0B, 0x0B, 0xCD, 0x13, 0]).as_deref(), Some("2014-03-13T11:11:59"));
        // Summer time, two hours ahead, in a leap year.
        assert_eq!(date_time_seconds([0xD9, 0x4B, 0x0B, 0xCD, 0x13, 0x80]).as_deref(), Some("2014-03-13T11:11:25"));
        assert_eq!(date_time_seconds([0x19, 0x8B, 0x0B, 0xCD, 0x13, 0]), None);
        assert_eq!(time([1, 2, 3]).as_deref(), Some("03:02:01"));
        assert_eq!(time([1, 2, 25]), None);
    }

    #[test]
    fn texts_come_backwards() {
        assert_eq!(text(b"532DVR"), "RVD235");
        assert_eq!(text(&[0x20, 0xE4, 0x00]), "ä");
    }
}
