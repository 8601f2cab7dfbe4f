//! Wired M-Bus: frames, answers, records, compact frames.

use weir::wire::mbus::answer::{self, Answer};
use weir::wire::mbus::compact::Formats;
use weir::wire::mbus::{self, Event, Frame, Records};

use super::stream::{How, events};

pub fn frames(how: How, bytes: &[u8]) {
    let mut told = 0;
    for event in events(mbus::Decoder::new, how, bytes) {
        match event {
            Event::Frame(frame) => {
                let mut again = Vec::new();
                mbus::encode(&frame, &mut again);
                told += again.len();
                assert_eq!(mbus::decode(&again).as_ref(), Ok(&frame));
                read(&frame);
            }
            Event::Skipped { bytes } => told += bytes,
            Event::Damaged(_) => {}
        }
    }
    assert!(told <= bytes.len(), "more came out than went in");
    if let Ok(frame) = mbus::decode(bytes) {
        let mut again = Vec::new();
        mbus::encode(&frame, &mut again);
        assert_eq!(again, bytes);
    }
    // The same bytes in a frame whose checksum is right, in any of the answers.
    let ci = how.pick(&[0x72, 0x7A, 0x78, 0x73, 0x70, 0x71, 0x76, 0x79]);
    read(&Frame::Long { control: mbus::RSP_UD, address: 1, ci, data: bytes[..bytes.len().min(252)].to_vec() });
}

fn read(frame: &Frame) {
    if let Ok(Answer::Telegram(telegram)) = answer::decode(frame) {
        assert!(telegram.records.len() <= 256, "more records than bytes");
    }
}

pub fn records(_: How, bytes: &[u8]) {
    let (found, fault) = mbus::readable(bytes, 0);
    bounded(&found, bytes);
    assert!(fault.is_none_or(|fault| fault.offset <= bytes.len()), "the fault is behind the end");
}

fn bounded(found: &Records, bytes: &[u8]) {
    assert!(found.records.len() <= bytes.len(), "more records than bytes");
    let length: usize = found.records.iter().map(|r| r.name.len() + r.value.as_ref().map_or(0, String::len)).sum();
    assert!(length <= 256 + 256 * bytes.len(), "{length} characters of {} bytes", bytes.len());
}

/// Learns from the beginning and fills the rest, as meters do that send a full frame now and then.
pub fn compact(how: How, bytes: &[u8]) {
    let (first, rest) = bytes.split_at(usize::from(how.cuts).min(bytes.len()));
    let mut formats = Formats::default();
    let _ = if how.flag(0) { formats.learn(1, first) } else { formats.learn_frame(1, first) };
    if let Ok(full) = formats.fill(1, rest) {
        assert!(full.len() <= first.len() + rest.len());
    }
    assert!(formats.fill(2, rest).is_err(), "another kind of meter has formats of its own");
}
