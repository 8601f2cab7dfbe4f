//! Meters that write text (IEC 62056-21, P1), SML, and what shows bytes to people.

use crc::{CRC_16_IBM_SDLC, Crc};
use weir::wire::dlms::open::Keys as DlmsKeys;
use weir::wire::explain::{self, Explainer, Explanation, Format};
use weir::wire::iec62056::{self, Message, Parity, data, profile};
use weir::wire::wmbus::Keys;
use weir::wire::{p1, sml};

use super::stream::{How, events};

const X25: Crc<u16> = Crc::<u16>::new(&CRC_16_IBM_SDLC);
const TITLE: [u8; 8] = *b"FUZ\0\0\0\0\x01";

pub fn iec62056(how: How, bytes: &[u8]) {
    let new = || {
        let mut decoder = iec62056::Decoder::new();
        if how.flag(0) {
            decoder.expect(if how.flag(1) { Parity::Even } else { Parity::Absent });
        }
        decoder.expect_no_options(how.flag(2));
        decoder.expect_no_checks(how.flag(3));
        decoder
    };
    let mut told = 0;
    for event in events(new, how, bytes) {
        match event {
            iec62056::Event::Message(message, _) => {
                if let Message::Identification(identification) = &message {
                    let _ = (identification.mode(), identification.reacts_fast());
                }
                iec_again(how, &message);
            }
            iec62056::Event::Damaged { bytes, .. } | iec62056::Event::Skipped { bytes } => told += bytes,
        }
    }
    assert!(told <= bytes.len(), "more was given up than came");
    if how.flag(4) {
        let seven: Vec<u8> = bytes.iter().map(|byte| (byte & 0x7F).max(0x20)).collect();
        iec_again(how, &Message::Block(seven));
    }
}

/// What was decoded is decoded from its own encoding, with parity and without.
fn iec_again(how: How, message: &Message) {
    for parity in [Parity::Even, Parity::Absent] {
        let mut line = Vec::new();
        iec62056::encode(message, &mut line);
        parity.apply(&mut line);
        let new = || {
            let mut decoder = iec62056::Decoder::new();
            decoder.expect(parity);
            decoder
        };
        let again = events(new, How { cuts: how.cuts & 0x7F, ..how }, &line);
        assert_eq!(again, [iec62056::Event::Message(message.clone(), parity)]);
    }
}

pub fn data(_: How, bytes: &[u8]) {
    let lines = data::decode(bytes);
    let mut written = Vec::new();
    data::encode(&lines, &mut written);
    assert_eq!(data::decode(&written), lines);
    let values = |lines: &[data::Line]| -> usize {
        lines.iter().flatten().map(|set| set.id.len() + set.values.iter().map(|v| v.text.len()).sum::<usize>()).sum()
    };
    assert!(values(&lines) <= bytes.len(), "more came out than went in");
    let (sound, malformed) = (data::decode_sound(bytes), data::malformed(bytes));
    assert_eq!(sound.len() + malformed.len(), lines.len(), "a line is well formed or not");
}

pub fn profile(_: How, bytes: &[u8]) {
    let Ok(records) = profile::decode(bytes) else { return };
    let rows: usize = records.iter().map(|record| record.rows.len()).sum();
    assert!(records.len() + rows <= bytes.len() + 1, "more came out than went in");
    for record in &records {
        assert!(record.rows.iter().all(|row| row.len() == record.channels.len()));
        assert_eq!(profile::MeterTime::parse(&record.time.to_string()), Some(record.time));
        let _ = record.time.later(i64::MAX).to_string();
    }
}

pub fn p1(how: How, bytes: &[u8]) {
    let mut told = 0;
    for event in events(p1::Decoder::new, how, bytes) {
        match event {
            p1::Event::Telegram(telegram) => p1_again(how, &telegram),
            p1::Event::Damaged { bytes, .. } | p1::Event::Skipped { bytes } => told += bytes,
        }
    }
    assert!(told <= bytes.len(), "more was given up than came");
    if how.flag(0) {
        let lines = data::decode_sound(bytes);
        let mut line = Vec::new();
        p1::encode("ABC5fuzz", &lines, &mut line);
        let _ = events(p1::Decoder::new, how, &line);
    }
}

fn p1_again(how: How, telegram: &p1::Telegram) {
    let mut line = Vec::new();
    p1::encode(&telegram.ident, &telegram.lines, &mut line);
    match events(p1::Decoder::new, How { cuts: how.cuts & 0x7F, ..how }, &line).as_slice() {
        [p1::Event::Telegram(again)] => {
            assert_eq!((&again.ident, &again.lines, again.checked), (&telegram.ident, &telegram.lines, true));
        }
        other => panic!("{other:?} of {}", String::from_utf8_lossy(&line)),
    }
}

/// The bytes as they are, and as the text of a message under the right keys.
pub fn p1_cipher(how: How, bytes: &[u8]) {
    let keys = || p1::Keys::new(&[how.choice; 16], &[1; 16]).expect("they are keys");
    let new = || p1::Unsealer::new(keys());
    for event in events(new, how, bytes) {
        if let p1::Sealed::Opened(text) = event {
            assert!(text.len() <= bytes.len());
        }
    }
    let mut line = bytes[..usize::from(how.cuts & 0x7F).min(bytes.len())].to_vec();
    // Noise that may be the beginning of a message is not what this is about.
    line.iter_mut().filter(|byte| **byte == 0xDB).for_each(|byte| *byte = 0);
    let text = &bytes[line.len()..];
    line.extend(keys().seal(TITLE, 7, text).expect("it is short enough"));
    let again = events(new, How { cuts: how.cuts & 0x7F, ..how }, &line);
    // Nothing at all is no message.
    if (1..p1::MESSAGE_LIMIT / 2).contains(&text.len()) {
        assert_eq!(again, [p1::Sealed::Opened(text.to_vec())]);
    }
}

pub fn sml(how: How, bytes: &[u8]) {
    let mut told = 0;
    for event in events(sml::Decoder::new, how, bytes) {
        match event {
            sml::Event::Lists(lists) => told += size(&lists),
            sml::Event::Skipped { bytes } => told += bytes,
            sml::Event::Damaged(_) => {}
        }
    }
    assert!(told <= bytes.len(), "more came out than went in");
    let _ = sml::decode(bytes).map(|lists| assert!(size(&lists) <= bytes.len()));
    // The same bytes as the content of a list, under checks that are right.
    let file = sml_file(bytes);
    let lists = sml::decode(&file);
    if let Ok(lists) = &lists {
        assert!(size(lists) <= file.len(), "more came out than went in");
    }
    if how.flag(0) && file.len() < sml::FILE_LIMIT / 2 {
        let expected = lists.map_or_else(|e| sml::Event::Damaged(sml::Damage::Content(e)), sml::Event::Lists);
        let again = events(sml::Decoder::new, How { cuts: how.cuts & 0x7F, ..how }, &sml_transport(&file));
        assert_eq!(again, [expected]);
    }
}

fn size(lists: &[sml::List]) -> usize {
    let content = |content: &sml::Content| if let sml::Content::Octets(bytes) = content { bytes.len() } else { 0 };
    let entries = |list: &sml::List| -> usize {
        list.entries.iter().map(|entry| 1 + entry.name.len() + content(&entry.value)).sum()
    };
    lists.iter().map(|list| list.server.len() + entries(list)).sum()
}

/// A message whose body is `body` as a `GetList` response, with its CRC.
pub(super) fn sml_file(body: &[u8]) -> Vec<u8> {
    let mut file = vec![0x76, 0x05, 0, 0, 0, 1, 0x62, 0, 0x62, 0, 0x72, 0x63, 0x07, 0x01];
    file.extend_from_slice(body);
    let crc = X25.checksum(&file);
    file.push(0x63);
    file.extend(crc.to_le_bytes());
    file.push(0);
    file
}

/// A file in its transport: escaped, filled up and with its CRC.
pub(super) fn sml_transport(file: &[u8]) -> Vec<u8> {
    let mut line = vec![0x1B, 0x1B, 0x1B, 0x1B, 1, 1, 1, 1];
    let padding = (4 - file.len() % 4) % 4;
    let mut padded = file.to_vec();
    padded.extend(vec![0; padding]);
    let mut at = 0;
    while at < padded.len() {
        let escape = padded[at..].starts_with(&[0x1B; 4]);
        let count = if escape { 4 } else { 1 };
        line.extend_from_slice(if escape { &[0x1B; 8] } else { &padded[at..=at] });
        at += count;
    }
    line.extend([0x1B, 0x1B, 0x1B, 0x1B, 0x1A, padding as u8]);
    let crc = X25.checksum(&line);
    line.extend(crc.to_le_bytes());
    line
}

pub fn explain(how: How, bytes: &[u8]) {
    let keys = if how.flag(7) { Keys::none() } else { Keys::for_any([how.cuts; 16]) };
    let forms: Vec<Option<Format>> =
        Format::ALL.iter().map(|(_, format)| Some(*format)).chain(std::iter::once(None)).collect();
    let mut explainer = Explainer::new(keys).with_title(how.flag(6).then_some(TITLE));
    if let Ok(found) = explainer.explain(bytes, how.pick(&forms)) {
        bounded(&found, bytes);
    }
}

/// Words are many, but not many more than the bytes.
fn bounded(found: &Explanation, bytes: &[u8]) {
    let (table, json) = (found.to_string(), found.to_json().to_string());
    assert!(table.len() + json.len() <= 8192 + 2048 * bytes.len(), "{} of {}", table.len() + json.len(), bytes.len());
}

/// Two keys, then bytes.
pub fn explain_dlms(how: How, bytes: &[u8]) {
    for words in [explain::dlms::words(bytes), explain::dlms::values(bytes)] {
        let length: usize = words.iter().map(String::len).sum();
        assert!(length <= 4096 + 1024 * bytes.len(), "{length} of {}", bytes.len());
    }
    let Some((keys, bytes)) = bytes.split_first_chunk::<32>() else { return };
    let keys = DlmsKeys::of(&keys[..16], how.flag(0).then_some(&keys[16..]));
    if let Ok(found) = explain::dlms::explain_of(bytes, keys.as_ref(), how.flag(1).then_some(TITLE)) {
        bounded(&found, bytes);
    }
}
