use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::wire::iec62056::data::{DataSet, DataValue};

fn events(decoder: &mut Decoder) -> Vec<Event> {
    std::iter::from_fn(|| decoder.next()).collect()
}

fn decode(bytes: &[u8]) -> Vec<Event> {
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    let mut found = events(&mut decoder);
    decoder.silence();
    found.extend(events(&mut decoder));
    found
}

fn telegrams(events: &[Event]) -> Vec<&Telegram> {
    events.iter().filter_map(|e| if let Event::Telegram(t) = e { Some(t) } else { None }).collect()
}

fn sample(energy: u32) -> Vec<Line> {
    let mut gas = DataSet::new("0-1:24.2.1", "170102161005W", "");
    gas.values.push(DataValue { text: "00000.107".into(), unit: "m3".into() });
    vec![
        vec![DataSet::new("1-3:0.2.8", "50", "")],
        vec![DataSet::new("1-0:1.8.1", format!("{energy:06}.426"), "kWh")],
        vec![gas],
    ]
}

fn message(energy: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode("XXX5\\2TEST", &sample(energy), &mut bytes);
    bytes
}

#[test]
fn a_message_keeps_its_exact_texts_and_tells_that_it_was_checked() {
    let found = decode(&message(4));
    let [Event::Telegram(telegram)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((telegram.ident.as_str(), telegram.checked), ("XXX5\\2TEST", true));
    assert_eq!(telegram.lines, sample(4));
}

#[test]
fn a_crc_without_its_leading_zeros_is_taken_by_its_value() {
    let energy = (0..).find(|e| message(*e).windows(2).any(|w| w == b"!0")).unwrap();
    let full = message(energy);
    let bang = full.iter().rposition(|b| *b == b'!').unwrap();
    let short = [&full[..=bang], &full[bang + 2..]].concat();
    assert_eq!(telegrams(&decode(&short))[0].lines, sample(energy));
    let cut = [&full[..=bang], &full[bang + 1..bang + 4], b"\r\n"].concat();
    assert_eq!(telegrams(&decode(&cut)), Vec::<&Telegram>::new());
}

#[test]
fn parity_is_stripped_and_one_wrong_character_spoils_the_message() {
    let mut plain = Vec::new();
    encode_plain("XXX3TEST", &sample(4), &mut plain);
    assert_eq!(telegrams(&decode(&plain))[0].parity, Parity::Absent);
    Parity::Even.apply(&mut plain);
    let found = decode(&plain);
    assert_eq!(telegrams(&found)[0].lines, sample(4));
    assert_eq!((telegrams(&found)[0].parity, telegrams(&found)[0].checked), (Parity::Even, false));
    plain[30] ^= 0x02;
    assert!(matches!(decode(&plain)[0], Event::Damaged { reason: Damage::Parity, .. }));
}

#[test]
fn a_message_cut_by_the_next_one_costs_only_itself() {
    let stream = [&message(1)[..60], &message(2)].concat();
    let found = decode(&stream);
    assert_eq!(found[0], Event::Damaged { reason: Damage::Truncated, bytes: 60 });
    assert_eq!(telegrams(&found)[0].lines, sample(2));
}

#[test]
fn without_a_crc_a_line_that_is_no_data_set_spoils_the_message() {
    for line in ["1.8.0(1", "1.8.0 1)", "1.8.0((1)", "1.8.0(1)x", "1.8.0(1\x07)", "1.8.0"] {
        let text = format!("/XXX3TEST\r\n\r\n{line}\r\n2.8.0(1)\r\n!\r\n");
        assert!(matches!(decode(text.as_bytes())[0], Event::Damaged { reason: Damage::Syntax, .. }), "{line}");
    }
}

#[test]
fn a_flood_without_end_is_given_up_and_holds_little_memory() {
    let mut decoder = Decoder::new();
    for _ in 0..200 {
        decoder.push(&b"/AAA5/BBB5 1.8.0(1)\r\n".repeat(60));
        events(&mut decoder);
        assert!(decoder.buffer.len() <= MESSAGE_LIMIT + 2000);
    }
    decoder.push(&message(9));
    assert_eq!(telegrams(&events(&mut decoder))[0].lines, sample(9));
}

#[test]
fn every_recorded_telegram_is_decoded() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let places = [std::env::var_os("WEIR_DATA").map(Into::into), Some(beside), Some("/work/shared/data".into())];
    let Some(folder) = places.into_iter().flatten().map(|place| place.join("dsmr")).find(|p| p.exists()) else {
        println!("note: dsmr is not there (set WEIR_DATA to its directory); nothing was tested with it");
        return;
    };
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let found = decode(&bytes);
        let found = telegrams(&found);
        assert_eq!(found.len(), 1, "{}", path.display());
        // Independently of the codec: the CRC is there when something stands behind the "!".
        let behind = text.split('!').nth(1).unwrap().lines().next().unwrap();
        assert_eq!(found[0].checked, !behind.is_empty(), "{}", path.display());
        let values: usize = found[0].lines.iter().flatten().map(|set| set.values.len()).sum();
        assert_eq!(values, text.split('!').next().unwrap().matches('(').count(), "{}", path.display());
        let mut again = Vec::new();
        encode_plain(&found[0].ident, &found[0].lines, &mut again);
        let body = text.split_inclusive('!').next().unwrap();
        assert_eq!(String::from_utf8(again).unwrap().trim_end(), body, "{}", path.display());
        count += 1;
    }
    assert!(count >= 10);
}

proptest! {
    #[test]
    fn any_bytes_in_any_chunks_never_panic(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'/'), Just(b'!'), Just(b'\r'), Just(b'\n'), Just(b'(')], 0..400),
        chunk in 1..50_usize,
    ) {
        let mut decoder = Decoder::new();
        let mut found = Vec::new();
        for part in bytes.chunks(chunk) {
            decoder.push(part);
            found.extend(events(&mut decoder));
        }
        decoder.silence();
        found.extend(events(&mut decoder));
        let whole = decode(&bytes);
        prop_assert_eq!(telegrams(&found), telegrams(&whole));
    }

}

proptest! {
    // A CRC of 16 bits takes one damaged message in 65,536 for a good one: always the same cases, so
    // that this test never fails by that luck.
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn damage_never_makes_another_value_and_the_next_good_message_is_found(
        noise in prop::collection::vec(any::<u8>(), 0..40),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 0..4),
        cut in (any::<prop::sample::Index>(), 0..30_usize),
        chunk in 1..60_usize,
    ) {
        let mut bad = message(1);
        for (place, mask) in changes {
            let place = place.index(bad.len());
            bad[place] ^= mask;
        }
        let from = cut.0.index(bad.len());
        bad.drain(from..(from + cut.1).min(bad.len()));
        let stream = [&noise[..], &bad, &message(2), &message(2), b"/X"].concat();
        let mut decoder = Decoder::new();
        let mut found = Vec::new();
        for part in stream.chunks(chunk) {
            decoder.push(part);
            found.extend(events(&mut decoder));
        }
        let found = telegrams(&found);
        prop_assert!(found.iter().filter(|t| t.checked).all(|t| t.lines == sample(1) || t.lines == sample(2)));
        prop_assert!(found.iter().filter(|t| t.lines == sample(2)).count() >= 1);
        prop_assert_eq!(&found.last().unwrap().lines, &sample(2));
    }
}
