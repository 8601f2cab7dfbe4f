//! Receivers that print one telegram a line.

use weir::model::TelegramKind;
use weir::wire::radio_line::{Item, LONGEST_LINE, LineDecoder, Piece};
use weir::wire::wmbus::format::FrameFormat;
use weir::wire::{cul, hex_line, mbal, rtl_433, rtl_wmbus, wmbus};

use super::stream::{How, events};

/// Cuts bytes into lines and gives them; with the choice 7 the bytes are one line.
fn lines(how: How, bytes: &[u8]) -> Vec<Vec<u8>> {
    if how.flag(7) {
        return vec![bytes.to_vec()];
    }
    let pieces = events(LineDecoder::new, how, bytes);
    pieces.into_iter().filter_map(|piece| if let Piece::Line(line) = piece { Some(line) } else { None }).collect()
}

/// What every line promises: what was heard is sound, and not longer than its digits.
fn judge(line: &[u8], items: &[Item]) {
    assert!(!items.is_empty(), "a line is always something");
    let mut digits = 0;
    for item in items {
        let Item::Heard(reception) = item else { continue };
        digits += 2 * reception.bytes.len();
        match reception.kind {
            TelegramKind::WirelessMbus => drop(wmbus::decode(&reception.bytes).expect("what was heard is sound")),
            TelegramKind::OpenlinkIq => drop(mbal::decode(&reception.bytes).expect("what was heard is sound")),
        }
    }
    assert!(digits <= line.len(), "{digits} digits of a line of {}", line.len());
}

pub fn cut(how: How, bytes: &[u8]) {
    let pieces = events(LineDecoder::new, how, bytes);
    let told: usize = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Line(line) => {
                assert!(!line.is_empty() && line.len() <= LONGEST_LINE);
                assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
                line.len()
            }
            Piece::Skipped { bytes } => *bytes,
        })
        .sum();
    let ends = bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
    assert_eq!(told + ends, bytes.len(), "every byte is in a line, skipped, or the end of a line");
}

pub fn hex(how: How, bytes: &[u8]) {
    for line in lines(how, bytes) {
        judge(&line, &hex_line::decode_wmbus(&line));
        judge(&line, &hex_line::decode_mbal(&line));
    }
}

pub fn rtl_wmbus(how: How, bytes: &[u8]) {
    for line in lines(how, bytes) {
        judge(&line, &rtl_wmbus::decode(&line));
    }
}

pub fn rtl_433(how: How, bytes: &[u8]) {
    for line in lines(how, bytes) {
        judge(&line, &rtl_433::decode(&line));
    }
}

pub fn cul(how: How, bytes: &[u8]) {
    for line in lines(how, bytes) {
        let cul::Line::Telegram(item, quality) = cul::decode(&line) else { continue };
        judge(&line, std::slice::from_ref(&item));
        let Item::Heard(reception) = item else { continue };
        for format in [FrameFormat::A, FrameFormat::B] {
            let mut again = Vec::new();
            // Not every telegram has a frame of format B.
            if cul::encode(format, &reception.bytes, quality.map(|quality| (quality, 0)), &mut again).is_ok() {
                match cul::decode(&again) {
                    cul::Line::Telegram(Item::Heard(heard), told) => {
                        assert_eq!((heard.bytes, told), (reception.bytes.clone(), quality));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
