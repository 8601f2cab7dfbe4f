//! Lines of `rtl_433 -F json`: one JSON object a line, one telegram an object.
//!
//! Only `"model" : "Wireless-MBus"` with `"mic" : "CRC"` is a telegram; every other sensor is noise to us. `data` is
//! the telegram in hex, but not in every version as it should be; its length and its L field together tell which it is:
//!
//! | bytes - L | what | versions |
//! | --- | --- | --- |
//! | 1 | the telegram | format A before 20.11 and from 24.10 on; format B in between |
//! | 5 | L is 2 too small, and the CRC of the last block follows: both are mended, and the CRC is checked | format A from 20.11 up to 24.10 (Debian 12 has 22.11) |
//! | -1 | L is the one of the air, 2 too large: mended | format B of at most 127 bytes from 25.02 on |
//! | else | bytes are missing or mixed up | format B otherwise: two bytes cut, or the second block in a wrong place |
//!
//! The signal strength (`-M level`) is in decibels below full scale, not dBm.

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::radio_line::{Item, Reception, bytes_in_hex};
use super::wmbus::format::CRC;
use super::{DecodeError, rtl_wmbus, wmbus};
use crate::model::{Rssi, TelegramKind, Timestamp};

/// The fields of an object that matter; the others are passed over.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    model: Option<std::borrow::Cow<'a, str>>,
    data: Option<std::borrow::Cow<'a, str>>,
    mic: Option<std::borrow::Cow<'a, str>>,
    time: Option<std::borrow::Cow<'a, str>>,
    rssi: Option<f64>,
}

const MODEL: &str = "Wireless-MBus";
/// The longest frame of format B with one CRC has this L field.
const ONE_CRC: usize = 127;
/// Where the blocks of format A begin after the first, and how long they are.
const FIRST_BLOCK: usize = 10;
const BLOCK: usize = 16;

/// Reads one line; what a logger put in front of the object is passed over.
pub fn decode(line: &[u8]) -> Vec<Item> {
    let text = std::str::from_utf8(line).unwrap_or("");
    let Some(object) = text.find('{').and_then(|at| text.get(at..)) else { return vec![Item::Noise] };
    let item = match serde_json::from_str::<Event<'_>>(object.trim()) {
        Ok(event) if event.model.as_deref() == Some(MODEL) => reception(&event).map_or_else(Item::Damaged, Item::Heard),
        Ok(_) => Item::Noise,
        Err(fault) if object.contains(MODEL) => Item::Damaged(not_json(&fault)),
        Err(_) => Item::Noise,
    };
    vec![item]
}

fn not_json(fault: &serde_json::Error) -> DecodeError {
    use serde_json::error::Category;
    let found = match fault.classify() {
        Category::Eof => "its beginning only",
        Category::Data => "another kind of value",
        Category::Syntax | Category::Io => "something else",
    };
    DecodeError::new(fault.column(), "a JSON object", found)
}

fn reception(event: &Event<'_>) -> Result<Reception, DecodeError> {
    if event.mic.as_deref() != Some("CRC") {
        return Err(DecodeError::new(0, "\"mic\" : \"CRC\"", "none"));
    }
    let bytes = event.data.as_deref().and_then(bytes_in_hex);
    let bytes = telegram(bytes.ok_or_else(|| DecodeError::new(0, "data in hex", "none"))??)?;
    wmbus::decode(&bytes)?;
    Ok(Reception {
        kind: TelegramKind::WirelessMbus,
        bytes,
        rssi: event.rssi.filter(|rssi| rssi.abs() < 1000.0).map(|rssi| Rssi::Relative(rssi.round() as i16)),
        corrected_bits: 0,
        time: event.time.as_deref().and_then(timestamp),
    })
}

/// Makes the telegram of what a version prints.
fn telegram(mut bytes: Vec<u8>) -> Result<Vec<u8>, DecodeError> {
    let count = bytes.len();
    let Some(length) = bytes.first_mut() else { return Ok(bytes) };
    let told = usize::from(*length);
    if count == told + 5 {
        *length = length.saturating_add(2);
        last_block_is_whole(&bytes)?;
        bytes.truncate(count - 2);
    } else if count + 1 == told && told <= ONE_CRC {
        *length -= 2;
    } else if count != told + 1 {
        return Err(DecodeError::new(0, "an L field that fits", format!("{told} before {count} bytes in all")));
    }
    Ok(bytes)
}

/// Checks the last block of format A, whose CRC is the last two bytes.
fn last_block_is_whole(bytes: &[u8]) -> Result<(), DecodeError> {
    let fault = |at| DecodeError::new(at, "the CRC of the last block", "another");
    let (data, told) = bytes.split_last_chunk::<2>().ok_or_else(|| fault(0))?;
    let last = data.get(FIRST_BLOCK..).and_then(|others| others.chunks(BLOCK).last()).unwrap_or(data);
    if CRC.checksum(last).to_be_bytes() == *told { Ok(()) } else { Err(fault(data.len())) }
}

/// The forms of `-M time:...` that say enough: `2026-11-22 11:39:14` (taken as UTC), with `T`, with a fraction, with
/// `Z` or an offset, and seconds since 1970.
fn timestamp(text: &str) -> Option<Timestamp> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok().map(Timestamp::from_millis);
    }
    rtl_wmbus::timestamp(&text.replacen('T', " ", 1)).or_else(|| {
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        // Shorter numbers are seconds since the start of a recording.
        let seconds: i64 = Some(seconds).filter(|s| s.len() >= 9)?.parse().ok()?;
        let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
        Some(Timestamp::from_millis(seconds.checked_mul(1000)?.checked_add(millis)?))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::wmbus::format::{self, FrameFormat};

    fn telegram_of(length: u8) -> Vec<u8> {
        let head = [length, 0x44, 0xAE, 0x4C, 0x44, 0x55, 0x22, 0x33, 0x68, 0x07, 0x7A];
        (0..=length).map(|n| head.get(usize::from(n)).copied().unwrap_or(n ^ 0x5A)).collect()
    }

    fn line(data: &[u8]) -> String {
        let hex = data_encoding::HEXLOWER.encode(data);
        format!(
            r#"{{"time" : "2026-11-22 11:39:14", "model" : "Wireless-MBus", "mode" : "C", "type" : 7, "data" : "{hex}", "mic" : "CRC", "x_0" : "1", "x_0" : "2", "rssi" : -11.512}}"#
        )
    }

    fn heard(line: &str) -> Option<Reception> {
        match decode(line.as_bytes()).pop()? {
            Item::Heard(reception) => Some(reception),
            _ => None,
        }
    }

    /// What the versions print of a frame, by what their sources do with it.
    fn old_a(telegram: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        format::encode(FrameFormat::A, telegram, &mut frame).unwrap();
        let mut printed = telegram.to_vec();
        printed.extend(&frame[frame.len() - 2..]);
        printed[0] -= 2;
        printed
    }

    #[test]
    fn a_line_gives_telegram_time_and_strength() {
        let telegram = telegram_of(24);
        let reception = heard(&line(&telegram)).unwrap();
        assert_eq!((reception.bytes, reception.rssi), (telegram.clone(), Some(Rssi::Relative(-12))));
        assert_eq!(reception.time, Timestamp::parse("2026-11-22T11:39:14Z"));
        let logged = format!("<165>1 2026-11-22T11:39:14Z gw rtl_433 - - - {}\r", line(&telegram));
        assert_eq!(heard(&logged).unwrap().bytes, telegram);
    }

    #[test]
    fn what_every_version_prints_is_the_telegram_or_refused() {
        for length in 12..=250u8 {
            let telegram = telegram_of(length);
            assert_eq!(heard(&line(&old_a(&telegram))).unwrap().bytes, telegram, "{length}");
            let mut as_on_air = telegram.clone();
            as_on_air[0] += 2;
            let short = telegram.len() <= 126;
            assert_eq!(heard(&line(&as_on_air)).map(|r| r.bytes), short.then_some(telegram.clone()), "{length}");
            let cut = &as_on_air[..as_on_air.len() - 2];
            assert_eq!(heard(&line(cut)), None, "{length}");
        }
    }

    #[test]
    fn a_wrong_bit_in_the_last_block_that_an_old_version_prints_is_found() {
        let good = old_a(&telegram_of(40));
        for bit in 8 * (10 + 16)..8 * good.len() {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(line(&bad).as_bytes())[..], [Item::Damaged(_)]), "{bit}");
        }
    }

    #[test]
    fn other_sensors_and_log_text_are_noise_and_cut_lines_are_damaged() {
        for text in [
            "",
            "Tuned to 868.950MHz.",
            r#"{"time" : "x", "model" : "KNX-RF", "data" : "ff03", "mic" : "CRC"}"#,
            r#"{"model" : "Acurite-Tower", "id" : 12}"#,
            "{}",
            "[1]",
            "{{{{",
        ] {
            assert_eq!(decode(text.as_bytes()), [Item::Noise], "{text}");
        }
        let whole = line(&telegram_of(24));
        let from = whole.find("MBus").unwrap() + 5;
        for length in from..whole.len() {
            assert!(matches!(decode(&whole.as_bytes()[..length])[..], [Item::Damaged(_)]), "{length}");
        }
        for (old, new) in
            [("\"CRC\"", "\"\""), ("\"data\"", "\"date\""), ("1844", "184g"), ("1844", "844"), ("\"1844", "1844")]
        {
            assert!(matches!(decode(whole.replace(old, new).as_bytes())[..], [Item::Damaged(_)]), "{new}");
        }
    }

    #[test]
    fn times_of_every_form_are_read_and_others_left_out() {
        let millis = |text| timestamp(text).map(Timestamp::as_millis);
        let noon = Some(1_795_348_754_000);
        for text in [
            "2026-11-22 11:59:14",
            "2026-11-22T11:59:14",
            "2026-11-22T11:59:14Z",
            "2026-11-22T12:59:14+01:00",
            "1795348754",
        ] {
            assert_eq!(millis(text), noon, "{text}");
        }
        assert_eq!(millis("1795348754.123456"), noon.map(|n| n + 123));
        for text in ["@0.5s", "0.000000", "", "now", "99999999999999999999"] {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            data in proptest::collection::vec(any::<u8>(), 0..300),
            text in "[ -~]{0,80}",
        ) {
            prop_assert_eq!(decode(&bytes).len(), 1);
            prop_assert_eq!(decode(line(&data).as_bytes()).len(), 1);
            let framed = format!("{{\"model\":\"Wireless-MBus\",\"mic\":\"CRC\",\"data\":{text}}}");
            prop_assert_eq!(decode(framed.as_bytes()).len(), 1);
        }
    }
}
