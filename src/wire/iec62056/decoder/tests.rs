//! Tests of the stream decoder.

use proptest::prelude::*;

use super::super::encode;
use super::*;

fn all(decoder: &mut Decoder) -> Vec<Event> {
    std::iter::from_fn(|| decoder.next()).collect()
}

fn decode(bytes: &[u8]) -> Vec<Event> {
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    decoder.silence();
    all(&mut decoder)
}

fn messages(bytes: &[u8]) -> Vec<Message> {
    let message = |event| if let Event::Message(message, _) = event { Some(message) } else { None };
    decode(bytes).into_iter().filter_map(message).collect()
}

fn written(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes);
    bytes
}

#[test]
fn garbage_before_the_slash_is_counted_and_skipped() {
    let events = decode(b"\x00\xff\x7f/TST5SIM\r\n");
    assert_eq!(events[0], Event::Skipped { bytes: 3 });
    assert!(matches!(&events[1], Event::Message(Message::Identification(i), Parity::Absent) if i.model == "SIM"));
    assert_eq!(events.len(), 2);
}

#[test]
fn a_line_may_end_with_cr_or_lf_alone() {
    for end in ["\r\n", "\r", "\n"] {
        let events = decode(format!("/TST5SIM {end}\x06050{end}").as_bytes());
        assert_eq!(events.len(), 2, "{end:?}: {events:?}");
    }
}

#[test]
fn a_bare_acknowledge_before_the_block_is_no_hindrance() {
    let block = Message::Block(b"F.F(00)\r\n!\r\n".into());
    let stream = [b"\x06\r\n".as_slice(), &written(&block)].concat();
    assert_eq!(messages(&stream), [Message::Acknowledge, block]);
}

#[test]
fn every_kind_of_damage_has_its_name() {
    let good = written(&Message::Block(b"1.8.0(1*kWh)".into()));
    let reasons = |bytes: &[u8]| {
        let reason = |event| if let Event::Damaged { reason, .. } = event { Some(reason) } else { None };
        decode(bytes).into_iter().filter_map(reason).collect::<Vec<_>>()
    };
    let changed = |at: usize, bit: u8| {
        let mut bytes = good.clone();
        bytes[at] ^= bit;
        bytes
    };
    assert_eq!(reasons(&changed(3, 1)), [Damage::Checksum]);
    assert_eq!(reasons(&changed(3, 0x80)), [Damage::Parity]);
    assert_eq!(reasons(&good[..good.len() - 2]), [Damage::Truncated], "neither ETX nor BCC");
    assert_eq!(reasons(&good[..good.len() - 1]), [Damage::Truncated], "no BCC");
    assert_eq!(reasons(&[good.clone(), vec![b'x'; 5]].concat()), []);
    let endless = [vec![STX], vec![b'x'; BLOCK_LIMIT + 10]].concat();
    assert_eq!(reasons(&endless), [Damage::TooLong]);
}

#[test]
fn a_block_without_etx_or_check_is_taken_only_where_that_was_said() {
    let read = |bytes: &[u8], no_checks: bool| {
        let mut decoder = Decoder::new();
        decoder.expect_no_checks(no_checks);
        decoder.push(bytes);
        decoder.silence();
        all(&mut decoder)
    };
    let body = b"F.F(00)\r\n!\r\n";
    for end in [b"".as_slice(), b"\x03"] {
        let bytes = [b"\x02", body.as_slice(), end].concat();
        assert_eq!(read(&bytes, true), [Event::Message(Message::Block(body.into()), Parity::Absent)]);
        assert!(matches!(read(&bytes, false)[..], [Event::Damaged { reason: Damage::Truncated, .. }]));
    }
    assert!(matches!(read(b"\x02F.F(00)\r\n", true)[..], [Event::Damaged { .. }]), "it breaks off");
    let wrong = [b"\x02", body.as_slice(), b"\x03\x7f"].concat();
    assert!(matches!(read(&wrong, true)[0], Event::Damaged { reason: Damage::Checksum, .. }), "a wrong one counts");
}

#[test]
fn what_looks_like_the_head_of_a_command_does_not_swallow_the_block_behind_it() {
    let block = Message::Block(b"1.8.0(1)".into());
    assert_eq!(messages(&[b"\x01R1".as_slice(), &written(&block)].concat()), [block]);
    assert_eq!(messages(b"\x01P0\x02(1)\x03\x00"), []);
}

#[test]
fn a_bare_acknowledge_is_taken_at_once_where_no_option_select_can_come() {
    let mut decoder = Decoder::new();
    decoder.expect_no_options(true);
    decoder.push(b"\x06");
    assert_eq!(decoder.next(), Some(Event::Message(Message::Acknowledge, Parity::Even)));
}

#[test]
fn parity_is_enforced_once_it_is_known() {
    let mut decoder = Decoder::new();
    let plain = written(&Message::Block(b"F.F(00)".into()));
    let mut even = plain.clone();
    Parity::Even.apply(&mut even);
    decoder.push(&plain);
    decoder.push(&even);
    assert!(all(&mut decoder).iter().all(|e| matches!(e, Event::Message(..))));
    decoder.expect(Parity::Even);
    decoder.push(&even);
    assert!(matches!(decoder.next(), Some(Event::Message(Message::Block(_), Parity::Even))));
    decoder.push(&plain);
    assert!(matches!(decoder.next(), Some(Event::Damaged { reason: Damage::Parity, .. })));
}

fn message() -> impl Strategy<Value = Message> {
    let ident = ("[A-Z]{2}[A-Za-z]", "[0-9A-I]", "[0-9@]{0,2}", "([!-.0-Z][ -.0-Z]{0,14}[!-.0-Z])?");
    prop_oneof![
        "[0-9A-Za-z ]{0,32}".prop_map(|address| Message::Request { address }),
        ident.prop_map(|(manufacturer, baud, enhanced, model)| Message::Identification(Identification {
            manufacturer,
            baud: baud.chars().next().unwrap(),
            enhanced: enhanced.chars().collect(),
            model,
        })),
        "[0-9A-Z]{3}".prop_map(|c| {
            let mut c = c.chars();
            let mut next = || c.next().unwrap();
            Message::OptionSelect(OptionSelect { protocol: next(), baud: next(), mode: next() })
        }),
        Just(Message::Repeat),
        "[ -~\r\n]{0,200}".prop_map(|body| Message::Block(body.into_bytes())),
        "[ -~\r\n]{0,200}".prop_map(|body| Message::Part(body.into_bytes())),
        Just(Message::Command(Command::BREAK)),
        ("[PWRE]", "[0-9]", "[ -~]{0,60}", any::<bool>()).prop_map(|(letter, number, data, more)| {
            let one = |text: String| text.chars().next().unwrap();
            let data = Some(data.into_bytes());
            Message::Command(Command { letter: one(letter), number: one(number), data, more })
        }),
    ]
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded_with_and_without_parity(list in prop::collection::vec(message(), 0..6), even: bool) {
        let mut bytes = list.iter().flat_map(written).collect::<Vec<_>>();
        if even {
            Parity::Even.apply(&mut bytes);
        }
        prop_assert_eq!(messages(&bytes), list);
    }

    #[test]
    fn any_bytes_in_any_chunks_give_the_same_events(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"/\x01\x02\x03\x04\x06\x15\r\n?!0APR".to_vec())], 0..400),
        sizes in prop::collection::vec(1usize..40, 1..400),
    ) {
        let mut decoder = Decoder::new();
        let (mut events, mut rest) = (Vec::new(), bytes.as_slice());
        for size in sizes.iter().cycle() {
            let (chunk, after) = rest.split_at((*size).min(rest.len()));
            decoder.push(chunk);
            events.extend(all(&mut decoder));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        decoder.silence();
        events.extend(all(&mut decoder));
        prop_assert_eq!(&events, &decode(&bytes));
        prop_assert!(!decoder.in_message());
    }

    #[test]
    fn after_noise_the_next_good_block_is_found(mut noise in prop::collection::vec(any::<u8>(), 0..300), body in "[ -~\r\n]{0,80}") {
        // An ETX at its very end could make the true STX the check of a block of noise.
        noise.extend(b"??");
        let block = Message::Block(body.into_bytes());
        noise.extend(written(&block));
        prop_assert_eq!(messages(&noise).pop(), Some(block));
    }

    #[test]
    fn the_memory_held_has_a_bound(start in prop::sample::select(b"/\x01\x02\x06x".to_vec()), fill in any::<u8>()) {
        let mut decoder = Decoder::new();
        decoder.push(&[start]);
        for _ in 0..70 {
            decoder.push(&[fill; 2048]);
            let _ = all(&mut decoder);
            prop_assert!(decoder.buffer.len() <= BLOCK_LIMIT + 1);
        }
        prop_assert!(decoder.buffer.capacity() <= 4 * BLOCK_LIMIT);
    }
}
