use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

fn events(decoder: &mut Decoder) -> Vec<Event> {
    std::iter::from_fn(|| decoder.next()).collect()
}

fn all(bytes: &[u8], chunk: usize) -> Vec<Event> {
    let mut decoder = Decoder::new();
    let mut found = Vec::new();
    for part in bytes.chunks(chunk) {
        decoder.push(part);
        found.extend(events(&mut decoder));
    }
    decoder.silence();
    found.extend(events(&mut decoder));
    found
}

fn lists(events: Vec<Event>) -> Vec<Vec<List>> {
    events.into_iter().filter_map(|e| if let Event::Lists(lists) = e { Some(lists) } else { None }).collect()
}

/// The captures of real meters that ship with the sml-rs crate, and those in the directory `WEIR_SML`.
fn captures() -> Vec<(String, Vec<u8>)> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let Ok(indices) = fs::read_dir(home.unwrap().join("registry/src")) else { return Vec::new() };
    let mut found = Vec::new();
    let more = std::env::var_os("WEIR_SML").map(PathBuf::from);
    let shipped = indices.map(|index| index.unwrap().path().join("sml-rs-0.4.0/tests/libsml-testing"));
    for folder in shipped.chain(more) {
        for file in fs::read_dir(folder).into_iter().flatten() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|e| e == "bin") {
                found.push((path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap()));
            }
        }
    }
    if found.is_empty() {
        println!("note: the captures of the sml-rs crate are not there; nothing was tested with them");
    }
    found.sort();
    found
}

/// What the sml-rs crate makes of a stream.
fn theirs(bytes: &[u8]) -> Vec<Vec<List>> {
    use sml_rs::parser::common::{ListType, Status, Time, Value};
    use sml_rs::parser::complete::{MessageBody, parse};
    let value = |value: Value<'_>| match value {
        Value::Bool(truth) => Content::Bool(truth),
        Value::Bytes([]) => Content::Absent,
        Value::Bytes(bytes) => Content::Octets(bytes.to_vec()),
        Value::I8(n) => Content::Number(n.into()),
        Value::I16(n) => Content::Number(n.into()),
        Value::I32(n) => Content::Number(n.into()),
        Value::I64(n) => Content::Number(n.into()),
        Value::U8(n) => Content::Number(n.into()),
        Value::U16(n) => Content::Number(n.into()),
        Value::U32(n) => Content::Number(n.into()),
        Value::U64(n) => Content::Number(n.into()),
        Value::List(ListType::Time(Time::SecIndex(seconds))) => Content::Seconds(seconds.into()),
    };
    let status = |status| match status {
        Status::Status8(s) => u64::from(s),
        Status::Status16(s) => s.into(),
        Status::Status32(s) => s.into(),
        Status::Status64(s) => s,
    };
    let mut found = Vec::new();
    let mut decoder = sml_rs::transport::decode_streaming::<Vec<u8>>(bytes);
    while let Some(file) = decoder.next() {
        let Ok(file) = file else { continue };
        let Ok(file) = parse(file) else { continue };
        let list = |body| match body {
            MessageBody::GetListResponse(list) => Some(List {
                server: list.server_id.to_vec(),
                entries: list
                    .val_list
                    .into_iter()
                    .map(|entry| Entry {
                        name: entry.obj_name.to_vec(),
                        status: entry.status.map(status),
                        unit: entry.unit.unwrap_or_default(),
                        scaler: entry.scaler.unwrap_or_default(),
                        value: value(entry.value),
                    })
                    .collect(),
            }),
            _ => None,
        };
        found.push(file.messages.into_iter().filter_map(|m| list(m.message_body)).collect());
    }
    found
}

/// One transmission made by hand: open, one list with a status, a negative number and the octets
/// of an escape, close. The padding differs with the energy.
fn sample(energy: u32) -> Vec<u8> {
    let escape = vec![0x1B; 5 + energy as usize % 4];
    let entry = |name: [u8; 6], rest: &[u8]| [&[0x77, 0x07][..], &name, rest].concat();
    let entries = [
        entry([1, 0, 96, 50, 1, 1], &[&[1, 1, 1, 1, escape.len() as u8 + 1][..], &escape, &[1]].concat()),
        entry(
            [1, 0, 1, 8, 0, 255],
            &[&[0x64, 1, 2, 3, 0x01, 0x62, 30, 0x52, 0xFF, 0x65][..], &energy.to_be_bytes(), &[0x01]].concat(),
        ),
        entry([1, 0, 16, 7, 0, 255], &[0x01, 0x01, 0x62, 27, 0x52, 0, 0x53, 0xFE, 0x0C, 0x01]),
    ]
    .concat();
    let list = [
        &[0x77, 0x01, 0x04, 0x0A, 0x01, 0x57, 0x01, 0x72, 0x62, 0x01, 0x65, 0, 0, 0, 9, 0x73][..],
        &entries,
        &[0x01, 0x01],
    ]
    .concat();
    let message = |kind: u16, body: &[u8]| {
        let [high, low] = kind.to_be_bytes();
        let mut bytes = [&[0x76, 0x02, 0x31, 0x62, 0, 0x62, 0, 0x72, 0x63, high, low][..], body].concat();
        let crc = X25.checksum(&bytes).to_le_bytes();
        bytes.extend([0x63, crc[0], crc[1], 0]);
        bytes
    };
    let open = [0x76, 0x01, 0x01, 0x02, 0x31, 0x04, 0x0A, 0x01, 0x57, 0x01, 0x01];
    let content = [message(0x0101, &open), message(0x0701, &list), message(0x0201, &[0x71, 0x01])].concat();
    wrap(&content)
}

fn wrap(content: &[u8]) -> Vec<u8> {
    let padding = (4 - content.len() % 4) % 4;
    let mut bytes = vec![0x1B, 0x1B, 0x1B, 0x1B, 1, 1, 1, 1];
    let mut run = 0;
    for byte in content {
        bytes.push(*byte);
        run = if *byte == 0x1B { run + 1 } else { 0 };
        if run == 4 {
            bytes.extend([0x1B; 4]);
            run = 0;
        }
    }
    bytes.extend(vec![0; padding]);
    bytes.extend([0x1B, 0x1B, 0x1B, 0x1B, 0x1A, padding as u8]);
    let crc = X25.checksum(&bytes).to_le_bytes();
    bytes.extend(crc);
    bytes
}

#[test]
fn a_transmission_gives_its_list_exactly() {
    let [list] = &lists(all(&sample(123_456), 7))[0][..] else { panic!() };
    assert_eq!(list.server, [0x0A, 0x01, 0x57]);
    let entry = &list.entries[1];
    assert_eq!((entry.status, entry.unit, entry.scaler), (Some(0x0001_0203), 30, -1));
    assert_eq!(entry.value, Content::Number(123_456));
    assert_eq!(list.entries[0].value, Content::Octets(vec![0x1B; 5]));
    assert_eq!(list.entries[2].value, Content::Number(-500));
    assert_eq!(lists(all(&sample(5), 1000)), theirs(&sample(5)));
}

#[test]
fn every_capture_is_read_as_the_sml_rs_crate_reads_it() {
    let captures = captures();
    let mut readable = 0;
    for (name, bytes) in &captures {
        let ours = lists(all(bytes, 64));
        readable += usize::from(ours.iter().flatten().any(|l| !l.entries.is_empty()));
        assert_eq!(ours, theirs(bytes), "{name}");
    }
    // One of them is no SML, two were damaged on their way.
    assert!(readable + 4 >= captures.len(), "{readable} of {}", captures.len());
}

#[test]
fn a_list_that_claims_four_thousand_million_entries_takes_no_memory() {
    for head in [vec![0xFF, 0x8F, 0x8F, 0x0F], vec![0xFF, 0x8F, 0x8F, 0x8F, 0x8F, 0x8F, 0x8F, 0x0F], vec![0x79; 4000]] {
        let content = [&[0x76, 0x02, 0x31, 0x62, 0, 0x62, 0, 0x72, 0x63, 7, 1, 0x77, 1, 1, 1, 1][..], &head].concat();
        let found = all(&wrap(&content), 4096);
        assert!(matches!(found[0], Event::Damaged(Damage::Content(_))), "{found:?}");
    }
}

#[test]
fn a_flood_without_end_is_given_up_and_holds_little_memory() {
    let mut decoder = Decoder::new();
    for pattern in [&[0x1B_u8][..], &[1], &[0x1B, 0x1B, 0x1B, 0x1B, 1, 1, 1, 1, 7]] {
        for _ in 0..200 {
            decoder.push(&pattern.repeat(100));
            events(&mut decoder);
            assert!(decoder.buffer.len() <= FILE_LIMIT + 900);
        }
    }
    decoder.push(&sample(9));
    assert_eq!(lists(events(&mut decoder)).len(), 1);
}

proptest! {
    #[test]
    fn any_bytes_in_any_chunks_never_panic(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x1B), Just(0x1B), Just(1), Just(0x1A)], 0..500),
        chunk in 1..50_usize,
    ) {
        prop_assert_eq!(lists(all(&bytes, chunk)), lists(all(&bytes, 1000)));
        let _ = decode(&bytes);
    }

    #[test]
    fn damage_never_makes_another_value_and_the_next_good_transmission_is_found(
        noise in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x1B)], 0..40),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 0..4),
        cut in (any::<prop::sample::Index>(), 0..30_usize),
        chunk in 1..60_usize,
    ) {
        let (first, second) = (lists(all(&sample(1), 999)), lists(all(&sample(2), 999)));
        let mut bad = sample(1);
        for (place, mask) in changes {
            let place = place.index(bad.len());
            bad[place] ^= mask;
        }
        let from = cut.0.index(bad.len());
        bad.drain(from..(from + cut.1).min(bad.len()));
        let found = lists(all(&[&noise[..], &bad, &sample(2)].concat(), chunk));
        prop_assert!(found.iter().all(|f| *f == first[0] || *f == second[0]));
        prop_assert_eq!(found.last(), second.first());
    }
}
