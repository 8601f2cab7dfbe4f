//! The lines of CUL, nanoCUL and other sticks with culfw or a-culfw.
//!
//! A telegram is `b` and the hex digits of the whole frame of format A as it was on the air, with its CRCs, or `bY` and
//! a frame of format B; behind it are two bytes, link quality and signal strength, when that was switched on. How
//! long the frame must be stands in it, so both kinds of line are told apart by themselves. Frames that the
//! firmware's buffer was too short for are cut anywhere, sometimes in the middle of a byte.

use super::DecodeError;
use super::radio_line::{Item, Reception, bytes_of};
use super::wmbus;
use super::wmbus::format::{self, FrameFormat};
use crate::model::{Rssi, TelegramKind};

/// What a line of a stick is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<'a> {
    /// A telegram or something that claims to be one, and its link quality (0 to 127, less is better).
    Telegram(Item, Option<u8>),
    /// Anything else: an answer, or noise.
    Text(&'a [u8]),
}

/// Reads a line without its end. Noise in front of a telegram in capital digits, as the firmware writes them, is passed over.
pub fn decode(line: &[u8]) -> Line<'_> {
    let line = line.trim_ascii();
    let whole = line.strip_prefix(b"b").filter(|digits| is_hex(digits));
    let behind = || {
        let at = line.iter().rposition(|&c| c == b'b')?;
        line.get(at + 1..).filter(|digits| is_hex(digits))
    };
    let Some(digits) = whole.or_else(behind) else { return Line::Text(line) };
    match telegram(digits) {
        Ok((reception, quality)) => Line::Telegram(Item::Heard(reception), quality),
        Err(fault) => Line::Telegram(Item::Damaged(fault), None),
    }
}

/// Whether `digits`, perhaps behind a Y, can be a frame.
fn is_hex(digits: &[u8]) -> bool {
    let digits = digits.strip_prefix(b"Y").unwrap_or(digits);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit)
}

fn telegram(digits: &[u8]) -> Result<(Reception, Option<u8>), DecodeError> {
    let (format, digits) = match digits.strip_prefix(b"Y") {
        Some(digits) => (FrameFormat::B, digits),
        None => (FrameFormat::A, digits),
    };
    let bytes = bytes_of(digits)?;
    let length = bytes.first().and_then(|&l| format::length(format, l));
    let length = length.ok_or_else(|| DecodeError::new(0, "an L field of its frame format", "a shorter one"))?;
    let differs = || DecodeError::new(0, "a frame as long as L says", format!("{} of {length} bytes", bytes.len()));
    let (frame, behind) = bytes.split_at_checked(length).ok_or_else(differs)?;
    let (quality, rssi) = match *behind {
        [] => (None, None),
        [quality, raw] => (Some(quality >> 1), Some(Rssi::Dbm(dbm(raw)))),
        _ => return Err(differs()),
    };
    let bytes = format::decode(format, frame)?;
    wmbus::decode(&bytes)?;
    Ok((Reception { kind: TelegramKind::WirelessMbus, bytes, rssi, corrected_bits: 0, time: None }, quality))
}

/// The signal strength that a byte means, in dBm; halves are cut off.
pub fn dbm(raw: u8) -> i16 {
    i16::from(raw.cast_signed()) / 2 - 74
}

/// Appends the line of a telegram in the normal form, with its end; `quality` is link quality and raw signal strength.
///
/// # Errors
/// As [`format::encode`].
pub fn encode(
    format: FrameFormat,
    telegram: &[u8],
    quality: Option<(u8, u8)>,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let mut frame = Vec::new();
    format::encode(format, telegram, &mut frame)?;
    if let Some((quality, raw)) = quality {
        frame.extend([quality << 1, raw]);
    }
    out.extend_from_slice(if format == FrameFormat::B { b"bY" } else { b"b" });
    out.extend(data_encoding::HEXUPPER.encode(&frame).bytes());
    out.extend_from_slice(b"\r\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORMATS: [FrameFormat; 2] = [FrameFormat::A, FrameFormat::B];
    const TELEGRAM: [u8; 12] = [11, 0x44, 0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x1B, 0x16, 0x7A, 0x01];

    fn line(format: FrameFormat, telegram: &[u8], quality: Option<(u8, u8)>) -> Vec<u8> {
        let mut line = Vec::new();
        encode(format, telegram, quality, &mut line).unwrap();
        line.truncate(line.len() - 2);
        line
    }

    fn heard(telegram: &[u8], quality: Option<(u8, i16)>) -> Line<'static> {
        let reception = Reception {
            kind: TelegramKind::WirelessMbus,
            bytes: telegram.to_vec(),
            rssi: quality.map(|(_, dbm)| Rssi::Dbm(dbm)),
            corrected_bits: 0,
            time: None,
        };
        Line::Telegram(Item::Heard(reception), quality.map(|(quality, _)| quality))
    }

    fn is_damaged(line: &[u8]) -> bool {
        matches!(decode(line), Line::Telegram(Item::Damaged(_), None))
    }

    #[test]
    fn a_line_is_the_frame_with_its_crcs() {
        let mut frame = Vec::new();
        format::encode(FrameFormat::A, &TELEGRAM, &mut frame).unwrap();
        let expected = format!("b{}", data_encoding::HEXUPPER.encode(&frame));
        assert_eq!(line(FrameFormat::A, &TELEGRAM, None), expected.as_bytes());
        assert_eq!(decode(expected.as_bytes()), heard(&TELEGRAM, None));
        assert_eq!(decode(expected.to_lowercase().as_bytes()), heard(&TELEGRAM, None));
        assert_eq!(line(FrameFormat::B, &TELEGRAM, Some((0x30, 0xD0)))[..4], *b"bY0D");
    }

    #[test]
    fn quality_and_strength_are_there_or_not() {
        for format in FORMATS {
            assert_eq!(decode(&line(format, &TELEGRAM, None)), heard(&TELEGRAM, None));
            assert_eq!(decode(&line(format, &TELEGRAM, Some((0x30, 0xD0)))), heard(&TELEGRAM, Some((0x30, -98))));
        }
        assert_eq!([0, 0x7F, 0x80, 0xFF].map(dbm), [-74, -11, -138, -74]);
    }

    #[test]
    fn answers_and_noise_are_text() {
        for text in ["V 1.67 nanoCUL868", "TMODE", "OFF", "b", "bY", "", "bx", "LOVF", "bY44 44"] {
            assert_eq!(decode(text.as_bytes()), Line::Text(text.as_bytes()));
        }
    }

    #[test]
    fn noise_in_front_of_a_telegram_is_passed_over() {
        let mut noisy = b"\xFF\x00b12b".to_vec();
        noisy.extend(line(FrameFormat::B, &TELEGRAM, Some((1, 0xD0))));
        assert_eq!(decode(&noisy), heard(&TELEGRAM, Some((1, -98))));
    }

    #[test]
    fn a_line_cut_anywhere_is_damaged() {
        for format in FORMATS {
            let whole = line(format, &TELEGRAM, Some((0x30, 0xD0)));
            for length in 4..whole.len() {
                // Without its two last bytes the line is one of a stick that does not tell them.
                assert_eq!(is_damaged(&whole[..length]), length != whole.len() - 4, "{format:?} {length}");
            }
        }
    }

    #[test]
    fn one_flipped_bit_in_the_frame_is_refused() {
        for format in FORMATS {
            let text = line(format, &TELEGRAM, None);
            let start = if format == FrameFormat::B { 2 } else { 1 };
            let frame = data_encoding::HEXUPPER.decode(&text[start..]).unwrap();
            for bit in 0..frame.len() * 8 {
                let mut flipped = frame.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let digits = data_encoding::HEXUPPER.encode(&flipped);
                assert!(is_damaged(&[&text[..start], digits.as_bytes()].concat()), "{format:?} bit {bit}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_line_is_judged_and_only_a_sound_telegram_is_heard(
            bytes in proptest::collection::vec(prop_oneof![1 => any::<u8>(), 4 => b'0'..=b'9', 2 => Just(b'b')], 0..300),
        ) {
            if let Line::Telegram(Item::Heard(heard), _) = decode(&bytes) {
                prop_assert!(wmbus::decode(&heard.bytes).is_ok());
            }
        }

        #[test]
        fn what_is_written_is_read(body in proptest::collection::vec(any::<u8>(), 9..250), quality in any::<(u8, u8)>()) {
            let telegram = [vec![u8::try_from(body.len() + 1).unwrap(), 0x44], body].concat();
            for format in FORMATS {
                let quality = (quality.0 >> 1, quality.1);
                let expected = heard(&telegram, Some((quality.0, dbm(quality.1))));
                let line = line(format, &telegram, Some(quality));
                prop_assert_eq!(decode(&line), expected);
            }
        }
    }
}
