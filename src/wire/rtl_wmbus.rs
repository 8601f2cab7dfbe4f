//! Lines of `rtl_wmbus` and of everything that imitates it.
//!
//! `MODE;CRC_OK;3OUTOF6OK;TIMESTAMP;PACKET_RSSI;CURRENT_RSSI;IDENT;0xHEX`, perhaps with a prefix
//! that names the demodulator (`rla;`, `t2a;`) and with further `;0xHEX` telegrams. HEX is a
//! telegram without CRCs; only lines with `1;1` are taken. The signal strength is a positive
//! figure on the program's own scale. Most telegrams are printed twice, by two demodulators.

use time::PrimitiveDateTime;
use time::macros::format_description;

use super::radio_line::{Item, Reception, bytes_in_hex};
use super::{DecodeError, wmbus};
use crate::model::{Rssi, TelegramKind, Timestamp};

/// Reads one line. Text that does not start like a telegram is one [`Item::Noise`].
pub fn decode(line: &[u8]) -> Vec<Item> {
    let Ok(text) = std::str::from_utf8(line) else { return vec![Item::Noise] };
    let mut fields = text.trim().split(';').map(str::trim).peekable();
    if fields.peek().is_some_and(|first| is_demodulator(first)) {
        fields.next();
    }
    if !fields.next().is_some_and(is_mode) || fields.peek().is_none() {
        return vec![Item::Noise];
    }
    telegrams(&fields.collect::<Vec<_>>()).unwrap_or_else(|fault| vec![Item::Damaged(fault)])
}

/// `T1`, `C1`, `S1` ...
fn is_mode(field: &str) -> bool {
    matches!(field.as_bytes(), [letter, digit] if letter.is_ascii_uppercase() && digit.is_ascii_digit())
}

/// `rla`, `t2a`: three small letters or digits.
fn is_demodulator(field: &str) -> bool {
    field.len() == 3 && field.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

/// Reads the fields after MODE. Offsets of errors count fields here, MODE being field 0.
fn telegrams(fields: &[&str]) -> Result<Vec<Item>, DecodeError> {
    let [crc_ok, coding_ok, time, rssi, _current, _ident, first, further @ ..] = fields else {
        return Err(DecodeError::new(fields.len() + 1, "8 fields", format!("{} fields", fields.len() + 1)));
    };
    for (number, flag, what) in [(1, crc_ok, "1 (CRCs good)"), (2, coding_ok, "1 (3-out-of-6 good)")] {
        if *flag != "1" {
            return Err(DecodeError::new(number, what, flag.chars().take(16).collect::<String>()));
        }
    }
    let time = timestamp(time);
    let rssi = rssi.parse().ok().map(Rssi::Relative);
    let reception = |bytes| Reception { kind: TelegramKind::WirelessMbus, bytes, rssi, corrected_bits: 0, time };
    let item = |field: &&str| match telegram(field) {
        Ok(bytes) => Item::Heard(reception(bytes)),
        Err(fault) => Item::Damaged(fault),
    };
    // Newer versions may append fields that are no telegrams; those are not ours to judge.
    Ok(std::iter::once(first).chain(further.iter().filter(|f| f.starts_with("0x"))).map(item).collect())
}

fn telegram(field: &str) -> Result<Vec<u8>, DecodeError> {
    let bytes = bytes_in_hex(field)
        .filter(|_| field.starts_with("0x"))
        .ok_or_else(|| DecodeError::new(7, "0x and hex digits", field.chars().take(16).collect::<String>()))??;
    wmbus::decode(&bytes)?;
    Ok(bytes)
}

/// `YYYY-MM-DD HH:MM:SS`, perhaps with a fraction, taken as UTC.
pub(super) fn timestamp(text: &str) -> Option<Timestamp> {
    let whole = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let time = PrimitiveDateTime::parse(seconds, &whole).ok()?.assume_utc();
    if !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(Timestamp::from_millis(time.unix_timestamp().checked_mul(1000)?.checked_add(millis)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "0x0b442d2c785634121b16a001";

    fn line(start: &str, end: &str) -> String {
        format!("{start}2026-11-21 22:13:18.123456;117;88;12345678;{end}")
    }

    fn heard(text: &str) -> Vec<Reception> {
        let items = decode(text.as_bytes());
        items.into_iter().filter_map(|i| if let Item::Heard(r) = i { Some(r) } else { None }).collect()
    }

    #[test]
    fn a_good_line_gives_telegram_strength_and_time() {
        let heard = heard(&line("T1;1;1;", HEX));
        let [reception] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!(reception.bytes.len(), 12);
        assert_eq!(reception.rssi, Some(Rssi::Relative(117)));
        assert_eq!(reception.time.map(Timestamp::as_millis), Some(1_795_299_198_123));
        assert_eq!(reception.time.unwrap().to_string(), "2026-11-21T22:13:18Z");
    }

    #[test]
    fn a_prefix_and_further_telegrams_are_understood() {
        assert_eq!(heard(&line("t2a;C1;1;1;", HEX)).len(), 1);
        assert_eq!(heard(&line("rla;S1;1;1;", &format!("{HEX};{HEX};sf7"))).len(), 2);
        let half = decode(line("T1;1;1;", &format!("{HEX};0x44")).as_bytes());
        assert!(matches!(half[..], [Item::Heard(_), Item::Damaged(_)]));
    }

    #[test]
    fn bad_crcs_bad_coding_and_truncated_lines_are_damaged() {
        let whole = line("T1;1;1;", HEX);
        let mut bad = vec![line("T1;0;1;", HEX), line("T1;1;0;", HEX), line("T1;1;1;", "0x0b44"), line("T1;1;1;", "")];
        bad.extend((3..whole.len()).map(|length| whole[..length].to_owned()));
        bad.push(whole.replace("0x", ""));
        for text in bad {
            let items = decode(text.as_bytes());
            assert!(matches!(items[..], [Item::Damaged(_)]), "{text}: {items:?}");
        }
    }

    #[test]
    fn log_text_is_noise() {
        for text in ["rtl_wmbus: ready", "T1", "abc", "Found 1 device(s):", "exact sample rate; 1", "\u{1F4E1}"] {
            assert_eq!(decode(text.as_bytes()), [Item::Noise], "{text}");
        }
        assert_eq!(decode(&[0xFF, 0xFE, b';']), [Item::Noise]);
    }

    #[test]
    fn a_time_that_is_none_leaves_the_telegram() {
        let heard = heard(&format!("T1;1;1;now;x;88;12345678;{HEX}"));
        assert_eq!((heard[0].time, heard[0].rssi), (None, None));
        assert!(timestamp("2026-11-21 22:13:18").is_some() && timestamp("2026-11-21 22:13:18.1").is_some());
        assert!(timestamp("2026-13-21 22:13:18.0").is_none() && timestamp("2026-11-21 22:13:18.x").is_none());
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_a_panic(
            line in proptest::collection::vec(any::<u8>(), 0..200),
            text in "(T1;|C1;)?(1;|0;|[ -~é]?;){0,8}(0x[0-9a-fA-F]{0,40})?",
        ) {
            prop_assert!(!decode(&line).is_empty());
            prop_assert!(!decode(text.as_bytes()).is_empty());
        }
    }
}
