use proptest::prelude::*;

use super::*;
use crate::wire::iec62056::Parity;
use crate::wire::iec62056::data::DataSet;
use crate::wire::p1;

fn new() -> Box<dyn Listener> {
    let text = "name = \"m\"\nport = \"p\"\nprotocol = \"iec-d0\"\n";
    listener(&MeterSettings::parse(text).unwrap()).unwrap()
}

fn message(energy: u32, parity: Parity) -> Vec<u8> {
    let sets = [
        DataSet::new("0.0.0", "12345678", ""),
        DataSet::new("1.8.0", format!("{energy:08}.5061662"), "kWh"),
        DataSet::new("2.8.0", format!("{:08}.5061662", energy + 4), "kWh"),
        DataSet::new("F.F", "00", ""),
    ];
    let mut bytes = Vec::new();
    p1::encode_plain("ESY5Q3DA1004 V3.04", &sets.map(|set| vec![set]), &mut bytes);
    parity.apply(&mut bytes);
    bytes
}

fn good(found: Vec<Result<Vec<Value>, MeterError>>) -> Vec<String> {
    found.into_iter().filter_map(Result::ok).map(|values| values[1].value.clone().unwrap()).collect()
}

fn energies(found: Vec<Result<Vec<Value>, MeterError>>) -> Vec<(String, String)> {
    let pair = |values: Vec<Value>| (values[1].value.clone().unwrap(), values[2].value.clone().unwrap());
    found.into_iter().filter_map(Result::ok).map(pair).collect()
}

#[test]
fn a_message_counts_when_the_one_before_had_its_shape() {
    let mut meter = new();
    assert!(meter.push(&message(1, Parity::Even)).is_empty());
    assert_eq!(good(meter.push(&message(2, Parity::Even))), ["00000002.5061662"]);
    let missing = message(3, Parity::Even);
    let missing = [&missing[..60], &missing[61..]].concat();
    assert!(meter.push(&missing)[0].is_err());
    assert_eq!(good(meter.push(&message(4, Parity::Even))), ["00000004.5061662"]);
}

#[test]
fn without_parity_the_shape_is_all_there_is() {
    let mut meter = new();
    assert_eq!(good(meter.push(&message(7, Parity::Absent).repeat(2))), ["00000007.5061662"]);
    let strange: Vec<u8> = message(8, Parity::Absent).iter().map(|b| if *b == b'8' { b'H' } else { *b }).collect();
    assert!(meter.push(&strange)[0].is_err());
}

proptest! {
    /// One wrong bit, characters missing or doubled, or a part of another meter's message.
    #[test]
    fn whatever_happens_to_the_bytes_no_value_is_given_that_was_not_sent(
        damages in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, 1..40_usize, 0..8_u8), 1..6),
        chunk in 1..80_usize,
    ) {
        let mut meter = new();
        let mut found = meter.push(&message(0, Parity::Even).repeat(2));
        let mut sent = energies(meter.push(&message(0, Parity::Even)));
        let mut bytes = Vec::new();
        for (number, (place, kind, length, bit)) in damages.into_iter().enumerate() {
            for energy in [2 * number, 2 * number + 1] {
                let energy = u32::try_from(energy).unwrap();
                let mut one = message(energy, Parity::Even);
                sent.push((format!("{energy:08}.5061662"), format!("{:08}.5061662", energy + 4)));
                let from = place.index(one.len());
                let part = from..(from + length).min(one.len());
                match kind {
                    _ if energy % 2 == 1 => {}
                    0 => one[from] ^= 1 << bit,
                    1 => drop(one.drain(part)),
                    2 => drop(one.splice(from..from, one[part].to_vec())),
                    _ => drop(one.splice(from..from, message(77_777, Parity::Even)[..length].to_vec())),
                }
                bytes.extend(one);
            }
        }
        for part in bytes.chunks(chunk) {
            found.extend(meter.push(part));
        }
        let found = energies(found);
        prop_assert!(found.iter().all(|pair| sent.contains(pair)), "{:?}", found);
        prop_assert_eq!(found.last(), sent.last());
    }
}
