//! Bare hex lines: `HEX`, `HEX;RSSI` or `HEX;RSSI;CORRECTEDBITS`.
//!
//! HEX is one telegram: wireless M-Bus in the normal form (L first, no CRCs) or an MBAL frame;
//! which one, the receiver's setting decides, never the bytes. Small or capital digits; spaces,
//! tabs, `_`, `:` and `|` may stand between them and `0x` in front. RSSI is in dBm, a whole
//! number; CORRECTEDBITS counts what error correction mended; either may be empty.

use super::radio_line::{Item, Reception, bytes_in_hex};
use super::{DecodeError, mbal, wmbus};
use crate::model::{Rssi, TelegramKind};

/// Reads one line that carries a wireless M-Bus telegram.
pub fn decode_wmbus(line: &[u8]) -> Vec<Item> {
    decode(line, TelegramKind::WirelessMbus)
}

/// Reads one line that carries an MBAL frame.
pub fn decode_mbal(line: &[u8]) -> Vec<Item> {
    decode(line, TelegramKind::OpenlinkIq)
}

fn decode(line: &[u8], kind: TelegramKind) -> Vec<Item> {
    let text = std::str::from_utf8(line).unwrap_or("");
    let (hex, details) = text.split_once(';').unwrap_or((text, ""));
    let Some(bytes) = bytes_in_hex(hex) else { return vec![Item::Noise] };
    vec![bytes.and_then(|bytes| reception(bytes, details, kind)).map_or_else(Item::Damaged, Item::Heard)]
}

fn reception(bytes: Vec<u8>, details: &str, kind: TelegramKind) -> Result<Reception, DecodeError> {
    match kind {
        TelegramKind::WirelessMbus => wmbus::decode(&bytes).map(|_| ())?,
        TelegramKind::OpenlinkIq => mbal::decode(&bytes).map(|_| ())?,
    }
    let (rssi, corrected) = details.split_once(';').unwrap_or((details, ""));
    // The offset of what follows the telegram counts from its last byte.
    let number = |text: &str, what| {
        DecodeError::new(bytes.len(), what, format!("\"{}\"", text.trim().chars().take(16).collect::<String>()))
    };
    let rssi = match rssi.trim() {
        "" => None,
        text => Some(Rssi::Dbm(text.parse().map_err(|_| number(text, "dBm as a whole number"))?)),
    };
    let corrected_bits = match corrected.trim() {
        "" => 0,
        text => text.parse().map_err(|_| number(text, "a count of corrected bits"))?,
    };
    Ok(Reception { kind, bytes, rssi, corrected_bits, time: None })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WMBUS: &str = "0b442d2c785634121b16a001";

    fn heard(line: &str) -> Option<Reception> {
        match decode_wmbus(line.as_bytes()).pop()? {
            Item::Heard(reception) => Some(reception),
            _ => None,
        }
    }

    #[test]
    fn the_forms_people_send_are_one_telegram() {
        let plain = heard(WMBUS).unwrap();
        assert_eq!((plain.rssi, plain.corrected_bits, plain.bytes.len()), (None, 0, 12));
        for text in [
            WMBUS.to_uppercase(),
            format!("0x{WMBUS}"),
            format!(" |{}| ", WMBUS.replace("1b16", "_1b16_")),
            "0B 44 2D:2C 78 56 34 12\t1B 16 A0 01".to_owned(),
        ] {
            assert_eq!(heard(&text), Some(plain.clone()), "{text}");
        }
    }

    #[test]
    fn strength_and_corrected_bits_may_follow() {
        let full = heard(&format!("{WMBUS};-87;3")).unwrap();
        assert_eq!((full.rssi, full.corrected_bits), (Some(Rssi::Dbm(-87)), 3));
        assert_eq!(heard(&format!("{WMBUS};;3")).unwrap().corrected_bits, 3);
        for details in [";strong", ";-87;x", ";-87;3;4", ";99999", ";-87;-1"] {
            let items = decode_wmbus(format!("{WMBUS}{details}").as_bytes());
            assert!(matches!(items[..], [Item::Damaged(_)]), "{details}");
        }
    }

    #[test]
    fn every_shortened_telegram_is_damaged_and_text_is_noise() {
        for length in 1..WMBUS.len() {
            let items = decode_wmbus(&WMBUS.as_bytes()[..length]);
            assert!(matches!(items[..], [Item::Damaged(_)]), "{length}");
        }
        for text in ["hello", "0x", "", "wmbus: 12 frames", ";-87", "\u{e4}\u{f6}"] {
            assert_eq!(decode_wmbus(text.as_bytes()), [Item::Noise], "{text}");
        }
        assert_eq!(decode_wmbus(&[0xFF, 0x00]), [Item::Noise]);
    }

    #[test]
    fn the_setting_decides_which_link_layer_a_line_has() {
        let meter = wmbus::Meter::from_wire([0x2D, 0x2C, 1, 2, 3, 4, 5, 6]);
        let mut frame = Vec::new();
        mbal::encode(&mbal::Mbal { control: 1, meter, command: 0x40, mbus: &[0x7A] }, &mut frame).unwrap();
        let line = data_encoding::HEXLOWER.encode(&frame);
        assert!(matches!(&decode_mbal(line.as_bytes())[..], [Item::Heard(r)] if r.kind == TelegramKind::OpenlinkIq));
        assert!(matches!(decode_wmbus(line.as_bytes())[..], [Item::Damaged(_)]));
        assert!(matches!(decode_mbal(WMBUS.as_bytes())[..], [Item::Damaged(_)]));
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_a_panic(
            line in proptest::collection::vec(any::<u8>(), 0..100),
            text in "[0-9a-fx_ |]{0,60}(;[-0-9a]{0,6}){0,3}",
        ) {
            for bytes in [&line[..], text.as_bytes()] {
                prop_assert_eq!(decode_wmbus(bytes).len(), 1);
                prop_assert_eq!(decode_mbal(bytes).len(), 1);
            }
        }
    }
}
