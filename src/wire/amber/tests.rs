use proptest::prelude::*;

use super::*;

const FORMS: [Form; 4] = [
    Form { framed: true, rssi: true },
    Form { framed: true, rssi: false },
    Form { framed: false, rssi: true },
    Form { framed: false, rssi: false },
];
const TELEGRAM: [u8; 12] = [11, 0x48, 0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x1B, 0x16, 0x7A, 0x01];

fn bytes(hex: &str) -> Vec<u8> {
    data_encoding::HEXUPPER.decode(hex.replace(' ', "").as_bytes()).unwrap()
}

fn events(form: Form, chunks: &[&[u8]]) -> Vec<Event> {
    let mut decoder = Decoder::new(form);
    let mut found = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        found.extend(std::iter::from_fn(|| decoder.next()));
        assert!(decoder.buffer.len() - decoder.at < 260);
    }
    decoder.silence();
    found.extend(std::iter::from_fn(|| decoder.next()));
    assert!(!decoder.is_waiting());
    found
}

fn heard(telegram: &[u8], rssi: Option<i16>) -> Event {
    Event::Heard(Item::Heard(Reception {
        kind: TelegramKind::WirelessMbus,
        bytes: telegram.to_vec(),
        rssi: rssi.map(Rssi::Dbm),
        corrected_bits: 0,
        time: None,
    }))
}

fn printed(telegram: &[u8], form: Form) -> Vec<u8> {
    let mut out = Vec::new();
    encode_telegram(telegram, form, 0xD0, &mut out);
    out
}

fn strength(form: Form) -> Option<i16> {
    form.rssi.then_some(-98)
}

#[test]
fn commands_look_as_the_makers_manual_says() {
    let command = |command, data: &[u8]| {
        let mut out = Vec::new();
        encode(command, data, &mut out);
        out
    };
    assert_eq!(command(command::GET, &[0, 0x80]), bytes("FF 0A 02 00 80 77"));
    assert_eq!(command(command::SERIAL, &[]), bytes("FF 0B 00 F4"));
    assert_eq!(command(command::FIRMWARE, &[]), bytes("FF 0C 00 F3"));
    assert_eq!(command(command::MODE, &[9]), bytes("FF 04 01 09 F3"));
    assert_eq!(command(command::SET, &[Parameters::FRAMED, 1, 1]), bytes("FF 09 03 05 01 01 F0"));
    assert_eq!(command(command::SET, &[Parameters::RSSI, 1, 1]), bytes("FF 09 03 45 01 01 B0"));
    assert_eq!(command(command::RESET, &[]), bytes("FF 05 00 FA"));
    assert_eq!(find_answer(&bytes("11 FF 8B FF 89 01 00 77 00"), command::SET), Some(&[0][..]));
    assert_eq!(find_answer(&bytes("FF 89 01 00 76"), command::SET), None);
}

#[test]
fn the_signal_strength_is_half_of_the_signed_byte_less_74() {
    assert_eq!([0, 1, 0x7F, 0x80, 0xFF, 0xB2].map(dbm), [-74, -74, -11, -138, -74, -113]);
}

#[test]
fn the_length_of_a_telegram_is_its_own_in_every_form() {
    for form in FORMS {
        assert_eq!(events(form, &[&printed(&TELEGRAM, form)]), [heard(&TELEGRAM, strength(form))], "{form:?}");
    }
    let framed = printed(&TELEGRAM, FORMS[0]);
    assert_eq!(framed[..3], [0xFF, 0x03, 12], "the byte of strength is counted");
    assert_eq!(printed(&TELEGRAM, FORMS[2])[0], 12);
}

#[test]
fn a_wrong_check_costs_the_message_and_no_other() {
    let mut stream = printed(&TELEGRAM, FORMS[0]);
    let last = stream.len() - 1;
    stream[last] ^= 1;
    stream.extend(printed(&TELEGRAM, FORMS[0]));
    let found = events(FORMS[0], &[&stream]);
    assert!(matches!(found[..], [Event::Heard(Item::Damaged(_)), Event::Heard(Item::Skipped { bytes: 15 }), _]));
    assert_eq!(found[2], heard(&TELEGRAM, Some(-98)));
}

#[test]
fn answers_are_found_between_telegrams_of_every_form() {
    for form in FORMS {
        let mut stream = printed(&TELEGRAM, form);
        stream.extend(bytes("FF 84 01 00 7A"));
        stream.extend(printed(&TELEGRAM, form));
        let answer = Event::Answer { command: command::MODE, data: vec![0] };
        let telegram = || heard(&TELEGRAM, strength(form));
        assert_eq!(events(form, &[&stream]), [telegram(), answer, telegram()]);
    }
}

#[test]
fn parameters_are_120_or_128_bytes_from_the_first() {
    let answer = |from: u8, count: u8, values: usize| {
        let mut data = vec![from, count];
        data.resize(2 + values, 1);
        Parameters::of(&data)
    };
    assert!(!answer(0, 0x78, 120).unwrap().is_169() && answer(0, 0x80, 128).unwrap().is_169());
    assert_eq!(answer(0, 0x78, 120).unwrap().form(), FORMS[0]);
    assert!(answer(1, 0x78, 120).is_none() && answer(0, 0x78, 119).is_none() && answer(0, 0x10, 16).is_none());
    assert!(Parameters::of(&[]).is_none());
}

/// Telegrams of any length and content with a function of the standard.
fn telegrams() -> impl Strategy<Value = Vec<u8>> {
    let control = prop_oneof![Just(0x44u8), Just(0x46), Just(0x48), Just(0x08), Just(0xC4)];
    (control, proptest::collection::vec(any::<u8>(), 9..253))
        .prop_map(|(control, rest)| [vec![u8::try_from(rest.len() + 1).unwrap(), control], rest].concat())
}

proptest! {
    #[test]
    fn what_is_printed_is_heard_however_it_is_cut(
        telegrams in proptest::collection::vec(telegrams(), 1..4),
        form in prop::sample::select(&FORMS),
        cut in any::<prop::sample::Index>(),
    ) {
        let stream: Vec<u8> = telegrams.iter().flat_map(|telegram| printed(telegram, form)).collect();
        let (head, tail) = stream.split_at(cut.index(stream.len()));
        let expected: Vec<_> = telegrams.iter().map(|telegram| heard(telegram, strength(form))).collect();
        prop_assert_eq!(&events(form, &[head, tail]), &expected);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(&events(form, &bytes), &expected);
    }

    #[test]
    fn any_bytes_give_the_same_however_they_are_cut_and_the_next_telegram_is_found_after_a_silence(
        noise in proptest::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(0xFF), 1 => Just(0x44)], 0..400),
        telegram in telegrams(),
        form in prop::sample::select(&FORMS),
        cut in any::<prop::sample::Index>(),
    ) {
        let (head, tail) = noise.split_at(cut.index(noise.len() + 1));
        let whole = events(form, &[&noise]);
        prop_assert_eq!(&events(form, &[head, tail]), &whole);
        let mut decoder = Decoder::new(form);
        decoder.push(&noise);
        while decoder.next().is_some() {}
        decoder.silence();
        while decoder.next().is_some() {}
        decoder.push(&printed(&telegram, form));
        prop_assert_eq!(decoder.next(), Some(heard(&telegram, strength(form))));
    }

    #[test]
    fn a_framed_telegram_is_found_right_behind_noise(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        telegram in telegrams(),
    ) {
        let stream = [noise, printed(&telegram, FORMS[0])].concat();
        let found = events(FORMS[0], &[&stream]);
        prop_assert_eq!(found.last(), Some(&heard(&telegram, Some(-98))));
    }
}
