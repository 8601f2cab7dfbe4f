use proptest::prelude::*;

use super::super::hdlc::{self, Address, Control};
use super::super::open::{Keys, seal};
use super::super::wrapper::Unit;
use super::*;
use crate::wire::mbus;

const PUSH: [u8; 12] = [0x0F, 0, 0, 0, 1, 0, 0x02, 1, 0x09, 2, 7, 7];

fn frame(segmented: bool, control: Control, information: &[u8]) -> Vec<u8> {
    let (destination, source) = (Address::Single(32), Address::Double { upper: 1, lower: 17 });
    hdlc::Frame { segmented, destination, source, control, information: information.to_vec() }.encode().unwrap()
}

fn framed(apdu: &[u8]) -> Vec<u8> {
    frame(false, Control::Ui, &[&hdlc::LLC_RESPONSE, apdu].concat())
}

fn telegram(ci: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let data = [&[0x01, 0x67], data].concat();
    mbus::encode(&mbus::Frame::Long { control: 0x53, address: 0xFF, ci, data }, &mut bytes);
    bytes
}

fn block(control: u8, number: u8, data: &[u8]) -> Vec<u8> {
    [&[0xE0, control, 0, number, 0, 0, u8::try_from(data.len()).unwrap()], data].concat()
}

fn sealed(text: &[u8]) -> Vec<u8> {
    let keys = Keys::new(&[1; 16], Some(&[2; 16])).unwrap();
    seal(&keys, *b"WEI\0\0\0\0\x01", 0x30, 1, text).unwrap()
}

fn events(parts: &[&[u8]]) -> Vec<Event> {
    let mut decoder = Decoder::new();
    let mut found = Vec::new();
    for part in parts {
        decoder.push(part);
        found.extend(std::iter::from_fn(|| decoder.next()));
    }
    decoder.silence();
    found.extend(std::iter::from_fn(|| decoder.next()));
    found
}

/// What is understood and what is lost.
fn outcome(parts: &[&[u8]]) -> Vec<Result<Vec<u8>, Damage>> {
    let one = |event| match event {
        Event::Apdu(apdu) => Some(Ok(apdu)),
        Event::Damaged(damage) => Some(Err(damage)),
        _ => None,
    };
    events(parts).into_iter().filter_map(one).collect()
}

#[test]
fn a_push_is_found_in_every_carrier_and_without_one() {
    let unit = Unit { source: 1, destination: 103, apdu: PUSH.to_vec() }.encode().unwrap();
    for bytes in [framed(&PUSH), telegram(0x10, &PUSH), unit, PUSH.to_vec()] {
        assert_eq!(outcome(&[&bytes]), [Ok(PUSH.to_vec())], "{bytes:02X?}");
        if bytes != PUSH {
            assert_eq!(outcome(&[&bytes, &bytes]), [Ok(PUSH.to_vec()), Ok(PUSH.to_vec())]);
        }
    }
    let ciphered = sealed(&PUSH);
    assert_eq!(outcome(&[&ciphered, &ciphered]), [Ok(ciphered.clone()), Ok(ciphered)]);
}

#[test]
fn a_unit_whose_end_looks_like_the_head_of_a_frame_is_whole_when_nothing_follows() {
    for end in [&[0x68][..], &[0x7E], &[0x7E, 0xA0], &[0x7E, 0xA7], &[0x68, 0x20], &[0x68, 0xFF]] {
        let apdu = sealed(end);
        let apdu = [&apdu[..apdu.len() - end.len()], end].concat();
        let unit = Unit { source: 1, destination: 103, apdu: apdu.clone() }.encode().unwrap();
        assert_eq!(outcome(&[&unit]), [Ok(apdu.clone())], "in a wrapper, {end:02X?}");
        assert_eq!(outcome(&[&apdu]), [Ok(apdu.clone())], "bare, {end:02X?}");
        assert_eq!(outcome(&[&unit, &unit]), [Ok(apdu.clone()), Ok(apdu)], "two, {end:02X?}");
    }
}

#[test]
fn frames_may_share_a_flag() {
    let both = [&framed(&PUSH)[..], &framed(&PUSH)[1..]].concat();
    assert_eq!(outcome(&[&both]), [Ok(PUSH.to_vec()), Ok(PUSH.to_vec())]);
}

#[test]
fn segments_of_hdlc_are_put_together_or_said_to_be_lost() {
    let whole = [&hdlc::LLC_RESPONSE[..], &PUSH].concat();
    let (first, rest) = whole.split_at(5);
    let (second, third) = rest.split_at(4);
    let number = |ns| Control::I { ns, nr: 0, pf: false };
    let [a, b, c] =
        [(true, 0, first), (true, 1, second), (false, 2, third)].map(|(more, ns, part)| frame(more, number(ns), part));
    assert_eq!(outcome(&[&a, &b, &c]), [Ok(PUSH.to_vec())]);
    assert_eq!(outcome(&[&a, &b, &b, &c]), [Ok(PUSH.to_vec())], "a repeated frame");
    assert_eq!(outcome(&[&a, &c, &a, &b, &c])[0], Err(Damage::Gap));
    assert_eq!(outcome(&[&a, &c, &a, &b, &c]).last(), Some(&Ok(PUSH.to_vec())));
    assert_eq!(outcome(&[&a, &framed(&PUSH)]), [Err(Damage::Cut), Ok(PUSH.to_vec())]);
    assert_eq!(outcome(&[&a]), [Err(Damage::Cut)]);
    assert_eq!(outcome(&[&b]), [Err(Damage::Headless)]);
    let [a, b, c] = [(true, first), (true, second), (false, third)].map(|(more, part)| frame(more, Control::Ui, part));
    assert_eq!(outcome(&[&a, &b, &c]), [Ok(PUSH.to_vec())], "UI frames have no numbers");
}

#[test]
fn segments_of_m_bus_are_put_together_or_said_to_be_lost() {
    let (first, rest) = PUSH.split_at(5);
    let (second, third) = rest.split_at(4);
    let (a, b, c) = (telegram(0x00, first), telegram(0x01, second), telegram(0x12, third));
    assert_eq!(outcome(&[&a, &b, &c]), [Ok(PUSH.to_vec())]);
    assert_eq!(outcome(&[&a, &a, &b, &c]).last(), Some(&Ok(PUSH.to_vec())));
    assert_eq!(outcome(&[&a, &c, &b])[0], Err(Damage::Gap));
    assert_eq!(outcome(&[&b, &c])[0], Err(Damage::Headless));
    // Nobody says which is the last, but the APDU tells its length.
    let ciphered = sealed(&PUSH);
    let (first, second) = ciphered.split_at(20);
    assert_eq!(outcome(&[&telegram(0x00, first), &telegram(0x01, second)]), [Ok(ciphered)]);
    let long: Vec<_> = (0..18_u8).map(|n| telegram(n & 0x0F | if n == 17 { 0x10 } else { 0 }, &[n])).collect();
    let long: Vec<_> = long.iter().map(Vec::as_slice).collect();
    assert_eq!(outcome(&long), [Ok((0..18).collect())], "numbers go round after 15");
}

#[test]
fn blocks_are_put_together_or_said_to_be_lost() {
    let (first, rest) = PUSH.split_at(5);
    let (second, third) = rest.split_at(4);
    let a = framed(&block(0x40, 1, first));
    // The second and third without an LLC header.
    let b = frame(false, Control::Ui, &block(0x40, 2, second));
    let c = frame(false, Control::Ui, &block(0xC0, 3, third));
    assert_eq!(outcome(&[&a, &b, &c]), [Ok(PUSH.to_vec())]);
    assert_eq!(outcome(&[&a, &a, &b, &b, &c]), [Ok(PUSH.to_vec())], "repeated blocks");
    assert_eq!(outcome(&[&a, &c]), [Err(Damage::Gap)]);
    assert_eq!(outcome(&[&b, &a, &b, &c]), [Err(Damage::Headless), Ok(PUSH.to_vec())]);
    assert_eq!(outcome(&[&a, &b]), [Err(Damage::Cut)]);
    assert_eq!(outcome(&[&framed(&[0xE0, 0x40])]), [Err(Damage::Block)]);
}

#[test]
fn once_frames_with_checks_were_heard_nothing_without_one_is_believed() {
    let unit = Unit { source: 1, destination: 103, apdu: PUSH.to_vec() }.encode().unwrap();
    let found = outcome(&[&framed(&PUSH), &unit, &PUSH, &framed(&PUSH)]);
    assert_eq!(found, [Ok(PUSH.to_vec()), Ok(PUSH.to_vec())]);
}

#[test]
fn a_frame_with_a_wrong_check_says_so_and_hides_nothing() {
    let mut wrong = framed(&PUSH);
    wrong[15] ^= 1;
    assert_eq!(outcome(&[&wrong, &framed(&PUSH)]), [Err(Damage::Check), Ok(PUSH.to_vec())]);
    let mut wrong = telegram(0x10, &PUSH);
    wrong[9] ^= 1;
    assert_eq!(outcome(&[&wrong, &telegram(0x10, &PUSH)]), [Err(Damage::Sum), Ok(PUSH.to_vec())]);
}

#[test]
fn bytes_that_begin_what_never_ends_cost_neither_time_nor_memory() {
    let mut head = vec![0x7E, 0xA7, 0xFF, 0x41, 0x23, 0x13];
    let sum = !head[1..].iter().fold(0xFFFF_u16, |sum, b| {
        (0..8).fold(sum ^ u16::from(*b), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0x8408 } else { sum >> 1 })
    });
    head.extend(sum.to_le_bytes());
    let patterns = [
        head,
        vec![0x68, 0xFF, 0xFF, 0x68],
        vec![0, 1, 0, 1, 0, 1, 0xFF, 0xFF, 0x0F],
        vec![0x0F],
        vec![0xE0],
        vec![0xDB, 8],
    ];
    for pattern in patterns {
        let mut decoder = Decoder::new();
        let mut most = 0;
        for at in 0..400_000 {
            decoder.push(&pattern[at % pattern.len()..][..1]);
            while decoder.next().is_some() {}
            most = most.max(decoder.buffer.len() - decoder.start);
        }
        assert!(most <= LONGEST + 16, "{pattern:02X?}: {most}");
        decoder.silence();
        while decoder.next().is_some() {}
        assert_eq!(decoder.buffer.len(), decoder.start, "{pattern:02X?}");
    }
}

/// Bytes in which every beginning of something is likely.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..12),
        Just(vec![0x7E, 0xA0]),
        Just(vec![0x68, 0x09, 0x09, 0x68, 0x53, 0xFF]),
        Just(vec![0x00, 0x01, 0x00, 0x01, 0x00, 0x67, 0x00, 0x0C]),
        Just(vec![0xDB, 0x08]),
        Just(PUSH.to_vec()),
        Just(framed(&PUSH)),
        Just(telegram(0x10, &PUSH)),
        Just(telegram(0x00, &PUSH)),
        Just(framed(&block(0x40, 1, &PUSH))),
        Just(sealed(&PUSH)),
        Just(Unit { source: 1, destination: 103, apdu: PUSH.to_vec() }.encode().unwrap()),
        (any::<prop::sample::Index>(), 1..=255_u8).prop_map(|(at, change)| {
            let mut frame = framed(&PUSH);
            let at = at.index(frame.len());
            frame[at] ^= change;
            frame
        }),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_never_panic_and_cutting_them_changes_nothing(bytes in bytes(), cut in 1..30_usize) {
        let chunks: Vec<_> = bytes.chunks(cut).collect();
        prop_assert_eq!(events(&chunks), events(&[&bytes]));
    }

    #[test]
    fn after_noise_the_next_good_frame_is_found(noise in prop::collection::vec(any::<u8>(), 0..400), carrier in any::<bool>()) {
        let good = if carrier { framed(&PUSH) } else { telegram(0x10, &PUSH) };
        let found = outcome(&[&noise, &good]);
        prop_assert!(found.contains(&Ok(PUSH.to_vec())), "{:?}", found);
    }

    #[test]
    fn a_changed_byte_in_a_frame_never_gives_another_push(at in any::<prop::sample::Index>(), by in 1..=255_u8) {
        let mut bytes = framed(&PUSH);
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        let found = outcome(&[&framed(&PUSH), &bytes]);
        prop_assert!(found.iter().flatten().all(|apdu| apdu == &PUSH), "{:?}", found);
    }
}
