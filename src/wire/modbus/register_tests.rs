//! Codings, bits and texts.

use proptest::prelude::*;

use super::*;

fn read(coding: &str, words: &[u16]) -> Option<String> {
    let content = coding.parse::<Coding>().unwrap().decode(words)?;
    Some(content.scaled(Decimal::from(1u64), Decimal::from(0u64)).unwrap())
}

#[test]
fn every_coding_reads_its_registers_exactly() {
    let cases: [(&str, &[u16], &str); 23] = [
        ("u16", &[0xFFFF], "65535"),
        ("i16", &[0xFFFE], "-2"),
        ("u32", &[0x0001, 0x0002], "65538"),
        ("u32-swapped", &[0x0002, 0x0001], "65538"),
        ("i32", &[0xFFFF, 0xFFFF], "-1"),
        ("u64", &[0xFFFF; 4], "18446744073709551615"),
        ("i64", &[0x8000, 0, 0, 0], "-9223372036854775808"),
        ("f32", &[0x4366, 0x8000], "230.5"),
        ("f32-swapped", &[0x8000, 0x4366], "230.5"),
        ("f64", &[0x406C, 0xD000, 0, 0], "230.5"),
        ("f64-swapped", &[0, 0, 0xD000, 0x406C], "230.5"),
        ("f32-bytes-swapped", &[0x6643, 0x0080], "230.5"),
        ("f32-reversed", &[0x0080, 0x6643], "230.5"),
        ("u64-reversed", &[0x0201, 0, 0, 0], "258"),
        ("u16-bytes-swapped", &[0x0201], "258"),
        ("i32-bytes-swapped", &[0xFFFF, 0xFEFF], "-2"),
        ("string:4-bytes-swapped", &[0x4241, 0x4443], "ABCD"),
        ("bcd64", &[0x0012, 0x3456, 0x7890, 0x1234], "12345678901234"),
        ("bool", &[7], "1"),
        ("bcd16", &[0x1234], "1234"),
        ("bcd32", &[0x0012, 0x3456], "123456"),
        ("string:5", &[0x4142, 0x4344, 0x4500], "ABCDE"),
        ("string:4", &[0x4142, 0x2000], "AB"),
    ];
    for (coding, words, value) in cases {
        assert_eq!(read(coding, words).as_deref(), Some(value), "{coding}");
        assert_eq!(coding.parse::<Coding>().unwrap().to_string(), coding);
    }
}

#[test]
fn what_is_no_value_is_none() {
    assert_eq!(read("f32", &[0x7FC0, 0]), None);
    assert_eq!(read("f32", &[0xFF80, 0]), None);
    assert_eq!(read("f64", &[0x7FF0, 0, 0, 0]), None);
    assert_eq!(read("bcd16", &[0x123A]), None);
    assert_eq!(read("string:2", &[0x0141]), None);
    assert_eq!(read("u32", &[1]), None);
}

#[test]
fn scale_and_offset_are_exact() {
    let raw = "u32".parse::<Coding>().unwrap().decode(&[0, 12345]).unwrap();
    let scaled = raw.scaled("0.001".parse().unwrap(), "-0.1".parse().unwrap());
    assert_eq!(scaled.unwrap(), "12.245");
    let raw = "f64".parse::<Coding>().unwrap().decode(&[0x7FEF, 0xFFFF, 0xFFFF, 0xFFFF]).unwrap();
    assert!(raw.scaled(Decimal::from(1u64), Decimal::from(0u64)).is_ok());
}

#[test]
fn registers_and_codings_are_read_or_refused_with_a_hint() {
    assert_eq!("holding:100".parse::<Register>().unwrap().to_string(), "holding:100");
    for wrong in ["input", "input:", "input:65536", "input:-1", "input:+1", "register:0", "Input:0", ":3"] {
        assert!(wrong.parse::<Register>().is_err(), "{wrong}");
    }
    for wrong in ["f16", "string", "string:0", "string:251", "u16-swapped", "swapped", ""] {
        assert!(wrong.parse::<Coding>().is_err(), "{wrong}");
    }
}

#[test]
fn bits_are_counted_from_the_lowest() {
    let of = |bits: &str, number| bits.parse::<Bits>().unwrap().of(number);
    assert_eq!((of("4..7", 0xABCD), of("0", 0xABCD), of("1", 0xABCD), of("0..63", u64::MAX)), (0xC, 1, 0, u64::MAX));
    for wrong in ["", "7..4", "64", "4..", "..4", "+1", "1...2", "a"] {
        assert!(wrong.parse::<Bits>().is_err(), "{wrong}");
    }
}

#[test]
fn what_does_not_fit_its_registers_is_not_encoded() {
    for (coding, text) in [
        ("u16", "65536"),
        ("u16", "-1"),
        ("i16", "1.5"),
        ("bool", "2"),
        ("bcd16", "10000"),
        ("string:2", "abc"),
        ("f32", "inf"),
    ] {
        assert_eq!(coding.parse::<Coding>().unwrap().encode(text), None, "{coding} {text}");
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_as_it_was(number in 0u16..10_000, order in 0usize..4) {
        for name in ["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bcd16", "bcd32", "bcd64", "string:7"] {
            let name = format!("{name}{}", ["", "-swapped", "-bytes-swapped", "-reversed"][order]);
            let Ok(coding) = name.parse::<Coding>() else { continue };
            let words = coding.encode(&number.to_string()).unwrap();
            prop_assert_eq!(words.len(), usize::from(coding.registers()));
            prop_assert_eq!(read(&name, &words), Some(number.to_string()), "{}", name);
        }
    }

    #[test]
    fn a_swapped_coding_is_the_coding_of_the_reversed_words(words in prop::collection::vec(any::<u16>(), 4)) {
        for name in ["u32", "i32", "u64", "i64", "f32", "f64", "bcd32"] {
            let plain = name.parse::<Coding>().unwrap();
            let used = &words[..plain.registers().into()];
            let reversed: Vec<u16> = used.iter().rev().copied().collect();
            let swapped = format!("{name}-swapped").parse::<Coding>().unwrap();
            prop_assert_eq!(plain.decode(used), swapped.decode(&reversed));
            let turned: Vec<u16> = used.iter().map(|w| w.swap_bytes()).collect();
            let bytes_swapped = format!("{name}-bytes-swapped").parse::<Coding>().unwrap();
            prop_assert_eq!(plain.decode(used), bytes_swapped.decode(&turned));
            let both: Vec<u16> = turned.iter().rev().copied().collect();
            let wholly_reversed = format!("{name}-reversed").parse::<Coding>().unwrap();
            prop_assert_eq!(plain.decode(used), wholly_reversed.decode(&both));
        }
    }

    #[test]
    fn integers_and_floats_survive(number in any::<i64>(), float in any::<f32>()) {
        let words: Vec<u16> = number.to_be_bytes().chunks(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect();
        prop_assert_eq!(read("i64", &words), Some(number.to_string()));
        let bits = float.to_bits();
        let text = read("f32", &[(bits >> 16) as u16, bits as u16]);
        prop_assert_eq!(text.map(|t| t.parse::<f32>().unwrap()), float.is_finite().then_some(float));
    }

    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in ".{0,30}") {
        let _ = text.parse::<Register>();
        let _ = text.parse::<Coding>();
    }
}
