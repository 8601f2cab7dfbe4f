use proptest::prelude::*;

use super::*;

fn entry(name: &[u8], unit: u8, scaler: i8, value: Content) -> Entry {
    Entry { name: name.to_vec(), status: None, unit, scaler, value }
}

fn texts(entries: Vec<Entry>) -> Vec<(String, String, String)> {
    let values = values(&[List { server: vec![0x0A, 0x01], entries }]);
    values.into_iter().map(|v| (v.name, v.value.unwrap_or("-".into()), v.unit)).collect()
}

fn row(name: &str, text: &str, unit: &str) -> (String, String, String) {
    (name.to_owned(), text.to_owned(), unit.to_owned())
}

#[test]
fn numbers_are_exact_and_everything_has_its_name_and_unit() {
    let energy =
        Entry { status: Some(0x0001_0182), ..entry(&[1, 0, 1, 8, 0, 255], 30, -1, Content::Number(172_433_680)) };
    let found = texts(vec![
        entry(&[129, 129, 199, 130, 3, 255], 0, 0, Content::Octets(b"EMH".to_vec())),
        energy,
        entry(&[1, 0, 16, 7, 0, 255], 27, 0, Content::Number(-500)),
        entry(&[1, 0, 2, 8, 0, 255], 30, 2, Content::Number(i128::from(u64::MAX))),
        entry(&[1, 0, 96, 1, 0, 255], 0, 0, Content::Octets(b"AB".to_vec())),
        entry(&[1, 0, 0, 2, 0, 0], 0, 0, Content::Absent),
        entry(&[1, 0, 96, 8, 0, 255], 0, 0, Content::Seconds(7)),
        entry(&[1, 0, 16, 7, 0, 255], 27, 0, Content::Bool(true)),
        entry(b"name", 99, 0, Content::Number(1)),
    ]);
    let expected = [
        row("server_id", "0A01", ""),
        row("129-129:199.130.3*255", "EMH", ""),
        row("1-0:1.8.0*255", "17243368.0", "Wh"),
        row("1-0:1.8.0*255#status", "65922", ""),
        row("1-0:16.7.0*255", "-500", "W"),
        row("1-0:2.8.0*255", "1844674407370955161500", "Wh"),
        row("1-0:96.1.0*255", "4142", ""),
        row("1-0:96.8.0*255", "7", "s"),
        row("1-0:16.7.0*255#2", "1", "W"),
        row("6E616D65", "1", ""),
    ];
    assert_eq!(found, expected);
}

#[test]
fn an_id_is_wanted_with_or_without_its_ends() {
    let text = "name = \"m\"\nport = \"p\"\nprotocol = \"sml\"\nvalues = [\"1.8.0\", \"1-0:16.7.0*255\"]";
    let mut wishes = Wishes::new(&MeterSettings::parse(text).unwrap());
    let all =
        values(&[List { server: vec![1], entries: vec![entry(&[1, 0, 1, 8, 0, 255], 30, -1, Content::Number(15))] }]);
    let kept = wishes.keep(all);
    assert_eq!((kept[0].name.as_str(), kept[0].value.as_deref()), ("1.8.0", Some("1.5")));
    assert_eq!((kept[1].value.as_deref(), kept[1].quality), (None, Quality::Refused));
}

/// A transmission with one value, this many tenths of a watt-hour.
fn transmission(energy: u32) -> Vec<u8> {
    fn crc(bytes: &[u8]) -> [u8; 2] {
        crc::Crc::<u16>::new(&crc::CRC_16_IBM_SDLC).checksum(bytes).to_le_bytes()
    }
    let message = |kind: u8, body: &[u8]| {
        let mut bytes = vec![0x76, 0x02, 1, 0x62, 0, 0x62, 0, 0x72, 0x63, kind, 1];
        bytes.extend(body);
        let sum = crc(&bytes);
        bytes.extend([0x63, sum[0], sum[1], 0]);
        bytes
    };
    let mut list = vec![0x77, 1, 3, 0x0A, 1, 1, 0x72, 0x62, 1, 0x65, 0, 0, 0, 1, 0x71];
    list.extend([0x77, 7, 1, 0, 1, 8, 0, 255, 1, 1, 0x62, 30, 0x52, 0xFF, 0x65]);
    list.extend(energy.to_be_bytes());
    list.extend([1, 1, 1]);
    let open = [0x76, 1, 1, 2, 1, 3, 0x0A, 1, 1, 1];
    let mut bytes = vec![0x1B, 0x1B, 0x1B, 0x1B, 1, 1, 1, 1];
    bytes.extend([message(1, &open), message(7, &list), message(2, &[0x71, 1])].concat());
    let padding = (4 - bytes.len() % 4) % 4;
    bytes.resize(bytes.len() + padding, 0);
    bytes.extend([0x1B, 0x1B, 0x1B, 0x1B, 0x1A, u8::try_from(padding).unwrap()]);
    let sum = crc(&bytes);
    bytes.extend(sum);
    bytes
}

fn energies(found: Vec<Result<Vec<Value>, MeterError>>) -> Vec<String> {
    let of = |values: Vec<Value>| values.into_iter().find(|v| v.name == "1-0:1.8.0*255").unwrap().value.unwrap();
    found.into_iter().flatten().map(of).collect()
}

fn new() -> Box<dyn Listener> {
    listener(&MeterSettings::parse("name = \"m\"\nport = \"p\"\nprotocol = \"sml\"").unwrap()).unwrap()
}

proptest! {
    #[test]
    fn whatever_happens_to_the_bytes_no_value_is_given_that_was_not_sent(
        damages in prop::collection::vec((any::<prop::sample::Index>(), 0..7_u8, 1..12_usize, 1..=255_u8), 1..6),
        chunk in 1..80_usize,
    ) {
        let mut listener = new();
        let (mut bytes, mut sent, mut found) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (place, kind, length, mask)) in (0_u32..).zip(damages) {
            // Every second one is sound: it must be found after whatever came before.
            for energy in [70_000 * number + 11, 70_000 * number + 12] {
                let mut one = transmission(energy);
                sent.push(format!("{}.{}", energy / 10, energy % 10));
                let from = place.index(one.len());
                let part = from..(from + length).min(one.len());
                match kind {
                    _ if energy % 10 == 2 => {}
                    0 => one[from] ^= mask,
                    1 => drop(one.drain(part)),
                    2 => drop(one.splice(from..from, one[part].to_vec())),
                    // A piece of another meter's.
                    3 => drop(one.splice(from..from, transmission(77_777_777)[..length].to_vec())),
                    // It breaks off, comes twice, or comes in two parts with a long pause between them.
                    4 => one.truncate(from),
                    5 => one.extend_from_within(..),
                    _ => {
                        let rest = one.split_off(from);
                        for part in [bytes.drain(..).collect::<Vec<u8>>(), one] {
                            found.extend(part.chunks(chunk).flat_map(|part| listener.push(part)));
                        }
                        found.extend(listener.silence());
                        one = rest;
                    }
                }
                bytes.extend(one);
            }
        }
        found.extend(bytes.chunks(chunk).flat_map(|part| listener.push(part)));
        found.extend(listener.silence());
        let found = energies(found);
        prop_assert!(found.iter().all(|energy| sent.contains(energy)), "{:?} of {:?}", found, sent);
        prop_assert_eq!(found.last(), sent.last());
    }
}
