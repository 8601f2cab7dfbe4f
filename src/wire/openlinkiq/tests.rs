//! The published examples, wrong bits, and bytes that are no frames.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::wire::wmbus::Meter;

/// Numbers that look random and are the same each time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Turns each bit with a chance of `percent`.
    fn over(&mut self, frame: &[u8], percent: u64) -> Vec<u8> {
        let mut wrong = frame.to_vec();
        for bit in 0..8 * frame.len() {
            if (self.next() >> 33) % 1000 < 10 * percent {
                wrong[bit / 8] ^= 0x80 >> (bit % 8);
            }
        }
        wrong
    }
}

/// The published examples: frame, MBAL frame, rate.
fn examples() -> Vec<(Vec<u8>, Vec<u8>, Rate)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/openlinkiq-rf");
    let mut cases: Vec<_> = std::fs::read_dir(root).unwrap().map(|case| case.unwrap().path()).collect();
    cases.sort();
    let read = |case: &Path| {
        let hex = std::fs::read_to_string(case.join("input.hex")).unwrap();
        let expected: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(case.join("expected.json")).unwrap()).unwrap();
        let bytes = |hex: &str| data_encoding::HEXLOWER.decode(hex.trim().as_bytes()).unwrap();
        let rate = if expected["rate"] == "1/3" { Rate::Third } else { Rate::Half };
        (bytes(&hex), bytes(expected["mbal"].as_str().unwrap()), rate)
    };
    cases.iter().map(|case| read(case)).collect()
}

fn mbal(control: u8, mbus: &[u8]) -> Vec<u8> {
    let meter = Meter::from_wire([0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x1B, 0x16]);
    let mut bytes = Vec::new();
    mbal::encode(&mbal::Mbal { control, meter, command: 0x40, mbus }, &mut bytes).unwrap();
    bytes
}

fn on_air(mbal: &[u8], rate: Rate) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(mbal, rate, &mut frame).unwrap();
    frame
}

fn soft(frame: &[u8], ratio: impl Fn(usize) -> i8) -> Vec<i8> {
    let bit = |n: usize| frame[n / 8] << (n % 8) & 0x80 != 0;
    (0..8 * frame.len()).map(|n| if bit(n) { -ratio(n) } else { ratio(n) }).collect()
}

#[test]
fn the_published_examples_are_read_and_written_bit_for_bit() {
    let examples = examples();
    assert_eq!(examples.len(), 4);
    for (frame, mbal, rate) in examples {
        let read = decode(&frame).unwrap();
        assert_eq!((&read.mbal, read.rate, read.corrected_bits(), read.iterations), (&mbal, rate, 0, 0));
        assert_eq!(on_air(&mbal, rate), frame);
        assert_eq!(frame.len(), length_on_air(mbal.len(), rate));
    }
}

#[test]
fn the_crc_is_the_published_one_and_goes_over_the_length_too() {
    assert_eq!(CRC.checksum(b"123456789"), 0x6C9F_84A8);
    assert_eq!(crc(b'1', b"23456789"), 0x6C9F_84A8);
}

#[test]
fn every_length_at_both_rates_is_read_back_with_a_wrong_bit_in_each_part() {
    for length in SHORTEST_MBAL..=LONGEST_MBAL {
        let mbus: Vec<u8> = (12..length).map(|n| (n * length) as u8).collect();
        let mbal = mbal(0, &mbus);
        for rate in [Rate::Half, Rate::Third] {
            let mut frame = on_air(&mbal, rate);
            assert_eq!(frame.len(), length_on_air(length, rate));
            let last = frame.len() - 1;
            frame[4] ^= 0x10;
            frame[12 + length / 2] ^= 0x01;
            frame[last] ^= 0x01;
            let read = decode(&frame).unwrap();
            assert_eq!((&read.mbal, read.rate), (&mbal, rate));
            assert_eq!((read.header_corrected, read.block_corrected), (1, 1), "a wrong parity bit corrects nothing");
            assert!((1..=2).contains(&read.iterations), "{length} {rate:?}: {}", read.iterations);
        }
    }
    assert_eq!(length_on_air(LONGEST_MBAL, Rate::Third), LONGEST);
}

#[test]
fn the_turbo_decoder_rests_while_only_header_and_parity_are_wrong() {
    let (mut frame, mbal, _) = examples().swap_remove(0);
    let end = frame.len();
    for at in [1, 3, 7, end - 1, end - 20, end - 30] {
        frame[at] ^= 0x44;
    }
    let read = decode(&frame).unwrap();
    assert_eq!((&read.mbal, read.corrected_bits(), read.iterations), (&mbal, 6, 0));
}

#[test]
fn corrected_bits_are_those_of_the_header_and_of_the_block() {
    let mut noise = Noise(7);
    for (frame, mbal, rate) in examples() {
        let heard = noise.over(&frame, 4);
        let read = decode(&heard).unwrap();
        let wrong = |range: std::ops::Range<usize>| -> u32 {
            range.map(|bit| u32::from((heard[bit / 8] ^ frame[bit / 8]) >> (7 - bit % 8) & 1)).sum()
        };
        let block = 96 + 8 * (mbal.len() + 4);
        assert_eq!(
            (u32::from(read.header_corrected), u32::from(read.block_corrected)),
            (wrong(2..84), wrong(96..block))
        );
        assert_eq!((read.mbal, read.rate), (mbal, rate));
    }
}

/// Where the code has to hold, most frames come through; where it can't, none comes through wrong.
#[test]
fn seven_percent_at_rate_one_half_and_fourteen_at_one_third_are_mended_and_nothing_is_ever_wrong() {
    const TRIALS: [usize; 4] = [5, 16, 2, 1];
    let mut noise = Noise(11);
    for (frame, mbal, rate) in examples() {
        let rates = if rate == Rate::Half { [3, 7, 12, 30] } else { [6, 14, 20, 50] };
        let mut trials = TRIALS.iter();
        let held = rates.map(|percent| {
            let read = (0..*trials.next().unwrap()).filter_map(|_| decode(&noise.over(&frame, percent)).ok());
            read.inspect(|read| assert_eq!((&read.mbal, read.rate), (&mbal, rate))).count()
        });
        assert_eq!((held[0], held[3]), (TRIALS[0], 0), "{held:?}");
        assert!(held[1] >= TRIALS[1] - 4 && held[2] < TRIALS[2], "{held:?}");
    }
}

#[test]
fn control_bits_without_a_meaning_are_carried_and_bit_0_is_the_priority() {
    for (control, priority) in [(0x00, false), (0x01, true), (0xA4, false), (0xFF, true)] {
        let read = decode(&on_air(&mbal(control, &[0x7A, 1, 0, 0, 0]), Rate::Half)).unwrap();
        let found = mbal::decode(&read.mbal).unwrap();
        assert_eq!((found.control, found.is_priority()), (control, priority));
    }
}

#[test]
fn a_block_that_was_sent_without_being_mbal_is_refused_where_it_is_wrong() {
    let mut mbal = mbal(0, &[0x78, 9]);
    mbal[10] ^= 1;
    assert!(encode(&mbal, Rate::Half, &mut Vec::new()).is_err());
    let block = [&mbal[..], &crc(14, &mbal).to_be_bytes()].concat();
    let coded = turbo::code(&block, Rate::Half).unwrap();
    let mut frame = Header { rate: Rate::Half, length: 14 }.to_bytes(0).to_vec();
    frame.extend(&block);
    frame.extend(coded.parity.chunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | bit)));
    assert_eq!(decode(&frame).unwrap_err().offset, 22);
}

#[test]
fn bytes_after_the_end_are_passed_over_and_missing_parity_is_made_up_for() {
    let (frame, mbal, _) = examples().swap_remove(1);
    let mut noise = Noise(3);
    let long: Vec<u8> = frame.iter().copied().chain((0..1000).map(|_| noise.next() as u8)).collect();
    assert_eq!(decode(&noise.over(&long, 5)).unwrap().mbal, mbal);
    let block = 12 + mbal.len() + 4;
    let mut cut = frame[..block + (frame.len() - block) / 2].to_vec();
    cut[20] ^= 0x18;
    assert_eq!(decode(&cut).unwrap().mbal, mbal);
    assert_eq!(decode(&frame[..block]).unwrap().mbal, mbal, "no parity at all, and none needed");
    assert!(decode(&frame[..block - 1]).is_err());
}

#[test]
fn what_the_receiver_doubts_mends_more_than_hard_bits_do() {
    let (frame, mbal, _) = examples().swap_remove(0);
    let mut noise = Noise(5);
    let wrong = noise.over(&frame, 15);
    assert!(decode(&wrong).is_err());
    let differs = |n: usize| (frame[n / 8] ^ wrong[n / 8]) << (n % 8) & 0x80 != 0;
    let ratios = soft(&wrong, |n| if differs(n) { 12 } else { 50 });
    let read = decode_soft(&ratios).unwrap();
    assert_eq!(read.mbal, mbal);
    assert!(read.corrected_bits() > 50);
    assert_eq!(decode_soft(&soft(&frame, |_| 127)).unwrap(), decode(&frame).unwrap());
}

#[test]
fn noise_is_refused_and_says_what_was_found() {
    assert_eq!(decode(&[0x55; 27]).unwrap_err().found, "27 bytes");
    assert_eq!(decode(&[0xFF; 777]).unwrap_err().offset, 0);
    let (mut frame, ..) = examples().swap_remove(0);
    frame[12..].iter_mut().for_each(|byte| *byte ^= 0x5A);
    let fault = decode(&frame).unwrap_err();
    assert_eq!(fault.offset, 12);
    assert!(fault.to_string().contains("more wrong bits than the code mends"), "{fault}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn what_is_written_is_read_back(
        control in any::<u8>(),
        mbus in proptest::collection::vec(any::<u8>(), 0..240),
        third in any::<bool>(),
    ) {
        let (mbal, rate) = (mbal(control, &mbus), if third { Rate::Third } else { Rate::Half });
        let frame = Frame { rate, mbal, header_corrected: 0, block_corrected: 0, iterations: 0 };
        prop_assert_eq!(decode(&on_air(&frame.mbal, rate)), Ok(frame));
    }

    #[test]
    fn any_bytes_and_any_ratios_are_refused_in_bounded_time(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        length in any::<u8>(),
        third in any::<bool>(),
        headed in any::<bool>(),
    ) {
        let header = Header { rate: if third { Rate::Third } else { Rate::Half }, length };
        let front = if headed { header.to_bytes(0x5A5).to_vec() } else { Vec::new() };
        let bytes = [front, bytes].concat();
        prop_assert!(decode(&bytes).is_err());
        let ratios: Vec<i8> = bytes.iter().flat_map(|b| [*b as i8; 3]).collect();
        prop_assert!(decode_soft(&ratios).is_err());
    }
}

#[test]
fn only_a_frame_whose_block_is_broken_is_costly() {
    let mut mbal = Vec::new();
    let meter = crate::wire::wmbus::Meter::from_wire([0x2D, 0x2C, 1, 2, 3, 4, 5, 6]);
    crate::wire::mbal::encode(
        &crate::wire::mbal::Mbal { control: 0, meter, command: 0x40, mbus: b"\x78abc" },
        &mut mbal,
    )
    .unwrap();
    let mut frame = Vec::new();
    super::encode(&mbal, super::Rate::Third, &mut frame).unwrap();
    let with = |bit: usize| {
        let mut frame = frame.clone();
        frame[bit / 8] ^= 0x80 >> (bit % 8);
        super::is_costly(&frame)
    };
    assert!(!super::is_costly(&frame) && !with(5) && with(8 * 12) && !with(8 * frame.len() - 1));
    assert!(!super::is_costly(&[0; 777]) && !super::is_costly(&frame[..20]));
}
