//! What is true of every frame and of every stream.

use dlms_cosem_rs::transport::hdlc::decode_frame;
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;

/// SNRM and UA as a recorded meter exchanged them.
const SNRM: &[u8] = &[0x7E, 0xA0, 0x07, 0x03, 0x21, 0x93, 0x0F, 0x01, 0x7E];
const UA: &[u8] = &[
    0x7E, 0xA0, 0x1E, 0x21, 0x03, 0x73, 0xC3, 0x7A, 0x81, 0x80, 0x12, 0x05, 0x01, 0x80, 0x06, 0x01, 0x80, 0x07, 0x04,
    0, 0, 0, 1, 0x08, 0x04, 0, 0, 0, 1, 0x53, 0x3B, 0x7E,
];

fn any_address() -> impl Strategy<Value = Address> {
    prop_oneof![
        (0..128u8).prop_map(Address::Single),
        (0..128u8, 0..128u8).prop_map(|(upper, lower)| Address::Double { upper, lower }),
        (0..16384u16, 0..16384u16).prop_map(|(upper, lower)| Address::Quad { upper, lower }),
    ]
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let information = prop::collection::vec(prop_oneof![Just(0x7E), Just(0xA0), any::<u8>()], 0..300);
    (any::<bool>(), any_address(), any_address(), any::<u8>(), information).prop_map(
        |(segmented, destination, source, control, information)| {
            let control = Control::of(control);
            Frame { segmented, destination, source, control, information }
        },
    )
}

fn frames(decoder: &mut Decoder) -> Vec<Frame> {
    std::iter::from_fn(|| decoder.next())
        .filter_map(|event| if let Event::Frame(frame) = event { Some(frame) } else { None })
        .collect()
}

#[test]
fn a_recorded_opening_is_read_and_written_as_it_was() {
    let mut decoder = Decoder::new();
    decoder.push(&[SNRM, UA].concat());
    let found = frames(&mut decoder);
    assert_eq!(found.iter().map(|f| f.control).collect::<Vec<_>>(), [Control::Snrm, Control::Ua]);
    assert_eq!((found[0].destination, found[0].source), (Address::Single(1), Address::Single(16)));
    assert_eq!(Parameters::decode(&found[1].information), Parameters::default());
    assert_eq!(Parameters::default().encode(), found[1].information);
    assert_eq!([found[0].encode().unwrap(), found[1].encode().unwrap()], [SNRM, UA]);
}

#[test]
fn parameters_that_are_missing_or_cut_off_are_the_defaults() {
    let larger = Parameters { transmit: 2030, receive: 512, window_transmit: 7, window_receive: 3 };
    assert_eq!(Parameters::decode(&larger.encode()), larger);
    assert_eq!(Parameters::decode(&[]), Parameters::default());
    let only_one = [0x81, 0x80, 4, 6, 2, 0x07, 0xD0, 8];
    assert_eq!(Parameters::decode(&only_one), Parameters { receive: 2000, ..Parameters::default() });
    let zero = [0x81, 0x80, 6, 5, 1, 0, 7, 1, 0];
    assert_eq!(Parameters::decode(&zero), Parameters::default());
}

#[test]
fn one_flag_between_two_frames_will_do() {
    let mut decoder = Decoder::new();
    decoder.push(&[&SNRM[..SNRM.len() - 1], UA].concat());
    assert_eq!(frames(&mut decoder).len(), 2);
}

#[test]
fn a_frame_that_breaks_off_hides_the_next_one_only_until_silence() {
    let mut decoder = Decoder::new();
    decoder.push(&UA[..20]);
    assert_eq!(frames(&mut decoder), []);
    assert!(decoder.in_frame());
    decoder.push(SNRM);
    assert_eq!(frames(&mut decoder), []);
    decoder.silence();
    assert_eq!(frames(&mut decoder).len(), 1);
    assert!(decoder.take_broken() && !decoder.take_broken() && !decoder.in_frame());
    decoder.push(UA);
    assert_eq!(frames(&mut decoder).len(), 1, "and what comes later is waited for again");
}

#[test]
fn a_frame_too_long_for_its_length_is_not_written() {
    let frame = |size| Frame {
        segmented: false,
        destination: Address::Single(1),
        source: Address::Single(16),
        control: Control::Ui,
        information: vec![0; size],
    };
    assert!(frame(2047 - 9).encode().is_ok());
    assert!(frame(2047 - 8).encode().is_err());
}

#[test]
fn a_megabyte_made_to_be_slow_is_looked_through_in_no_time() {
    // Headers whose check is right, each within the frame of the one before, and flags where they should end.
    let lying = Frame {
        segmented: false,
        destination: Address::Single(1),
        source: Address::Single(16),
        control: Control::Ui,
        information: vec![0x7E; 2000],
    };
    let header = lying.encode().unwrap()[..8].to_vec();
    for piece in [header, vec![0x7E], vec![0x7E, 0xA7, 0xFF], vec![0x7E, 0xA7, 0xFF, 0x03, 0x21, 0x13]] {
        let stream: Vec<u8> = piece.iter().copied().cycle().take(1 << 18).collect();
        let mut decoder = Decoder::new();
        let begun = Instant::now();
        for byte in &stream {
            decoder.push(std::slice::from_ref(byte));
            while decoder.next().is_some() {}
            assert!(decoder.buffer.len() <= LONGEST);
        }
        assert!(begun.elapsed().as_secs() < 120, "{piece:?}: {:?}", begun.elapsed());
    }
}

proptest! {
    #[test]
    fn a_frame_is_read_back_however_it_is_cut_and_after_noise(
        frame in any_frame(),
        noise in prop::collection::vec(prop_oneof![Just(0x7E), Just(0xA0), any::<u8>()], 0..40),
        cut in 1usize..50,
    ) {
        let bytes = [noise, frame.encode().unwrap()].concat();
        let mut decoder = Decoder::new();
        let mut found = Vec::new();
        for part in bytes.chunks(cut) {
            decoder.push(part);
            found.extend(frames(&mut decoder));
        }
        decoder.silence();
        found.extend(frames(&mut decoder));
        prop_assert_eq!(found, vec![frame]);
    }

    #[test]
    fn the_crate_reads_the_same_frame_but_for_rej(frame in any_frame()) {
        let bytes = frame.encode().unwrap();
        let (theirs, used) = decode_frame(&bytes).unwrap();
        prop_assert_eq!(used, bytes.len());
        prop_assert_eq!(theirs.segmented, frame.segmented);
        prop_assert_eq!((theirs.destination, theirs.source), (frame.destination, frame.source));
        prop_assert_eq!(theirs.information, &frame.information[..]);
        if !matches!(frame.control, Control::Rej { .. } | Control::Other(_)) {
            prop_assert_eq!(theirs.control.as_u8() | 0x10, frame.control.byte() | 0x10);
        }
    }

    #[test]
    fn no_bytes_make_it_panic_or_hold_more_than_a_frame(
        bytes in prop::collection::vec(prop_oneof![Just(0x7E), Just(0xA0), Just(0x03), any::<u8>()], 0..5000),
        cut in 1usize..100,
    ) {
        let mut decoder = Decoder::new();
        for part in bytes.chunks(cut) {
            decoder.push(part);
            while decoder.next().is_some() {}
            prop_assert!(decoder.buffer.len() <= LONGEST);
        }
        decoder.silence();
        while decoder.next().is_some() {}
        prop_assert!(decoder.buffer.is_empty());
        let _ = Parameters::decode(&bytes);
    }

    #[test]
    fn a_changed_bit_is_never_the_same_frame(frame in any_frame(), at in any::<prop::sample::Index>(), bit in 0..8u32) {
        let mut bytes = frame.encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        decoder.silence();
        prop_assert!(!frames(&mut decoder).contains(&frame));
    }
}
