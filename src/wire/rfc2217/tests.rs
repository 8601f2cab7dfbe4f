use proptest::prelude::*;

use super::*;

fn command() -> impl Strategy<Value = Command> {
    let byte = any::<u8>;
    prop_oneof![
        prop::collection::vec(byte(), 0..40).prop_map(Command::Signature),
        any::<u32>().prop_map(Command::Baud),
        byte().prop_map(Command::DataSize),
        byte().prop_map(Command::Parity),
        byte().prop_map(Command::StopSize),
        byte().prop_map(Command::Control),
        byte().prop_map(Command::LineState),
        byte().prop_map(Command::ModemState),
        Just(Command::Suspend),
        Just(Command::Resume),
        byte().prop_map(Command::LineStateMask),
        byte().prop_map(Command::ModemStateMask),
        byte().prop_map(Command::Purge),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let verb = prop::sample::select(vec![Verb::Will, Verb::Wont, Verb::Do, Verb::Dont]);
    let side = prop::sample::select(vec![Side::Client, Side::Server]);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 1..40).prop_map(Event::Data),
        (verb, any::<u8>()).prop_map(|(verb, option)| Event::Negotiate(verb, option)),
        (side, command()).prop_map(|(side, command)| Event::ComPort(side, command)),
        (241u8..250).prop_map(Event::Telnet),
    ]
}

/// Events with all data that follows data joined.
fn joined(events: impl IntoIterator<Item = Event>) -> Vec<Event> {
    let mut all = Vec::new();
    events.into_iter().for_each(|event| join(&mut all, event));
    all
}

fn cut(bytes: &[u8], sizes: &[usize]) -> Vec<Event> {
    let (mut decoder, mut rest, mut events) = (Decoder::new(), bytes, Vec::new());
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*size).min(rest.len()));
        events.extend(decoder.push(piece));
        rest = after;
    }
    joined(events)
}

proptest! {
    #[test]
    fn what_is_written_is_read_however_it_is_cut(
        events in prop::collection::vec(event(), 0..20),
        sizes in prop::collection::vec(1usize..9, 1..9),
    ) {
        let mut bytes = Vec::new();
        events.iter().for_each(|event| encode(event, &mut bytes));
        prop_assert_eq!(cut(&bytes, &sizes), joined(events));
    }

    #[test]
    fn any_bytes_give_the_same_however_they_are_cut_and_keep_little(
        bytes in prop::collection::vec(prop_oneof![3 => prop::sample::select(vec![255u8, 250, 240, 44, 251, 0]), 1 => any::<u8>()], 0..2000),
        sizes in prop::collection::vec(1usize..9, 1..9),
    ) {
        prop_assert_eq!(cut(&bytes, &sizes), cut(&bytes, &[bytes.len().max(1)]));
        let mut decoder = Decoder::new();
        prop_assert!(decoder.push(&bytes).len() <= bytes.len());
        prop_assert!(decoder.inside.len() <= LONGEST);
    }

    #[test]
    fn after_noise_that_is_ended_the_next_command_is_found(
        noise in prop::collection::vec(0u8..240, 0..1000),
        command in command(),
    ) {
        let mut bytes = vec![IAC, SB];
        bytes.extend(noise);
        bytes.extend([IAC, SE]);
        let expected = Event::ComPort(Side::Client, command);
        encode(&expected, &mut bytes);
        prop_assert_eq!(Decoder::new().push(&bytes).pop(), Some(expected));
    }

    #[test]
    fn two_sides_that_agree_come_to_rest(words in prop::collection::vec((0usize..4, any::<u8>()), 0..30)) {
        let (mut one, mut other) = (Negotiation::default(), Negotiation::default());
        // One word of each option: a side that contradicts itself before it was answered gets an answer to each.
        let words: std::collections::BTreeMap<u8, usize> = words.into_iter().map(|(verb, option)| (option, verb)).collect();
        let mut under_way = one.open();
        under_way.extend(words.into_iter().map(|(option, verb)| Event::Negotiate(Verb::ALL[verb].1, option)));
        let mut to_other = true;
        for _ in 0..8 {
            let side = if to_other { &mut other } else { &mut one };
            under_way = under_way
                .into_iter()
                .filter_map(|event| match event {
                    Event::Negotiate(verb, option) => side.hear(verb, option),
                    _ => None,
                })
                .collect();
            to_other = !to_other;
        }
        prop_assert_eq!(under_way, Vec::new());
    }
}

#[test]
fn the_examples_of_the_standard_are_read() {
    // RFC 2217, section 3: SET-BAUDRATE 115200 from the client, and its answer.
    let mut decoder = Decoder::new();
    let asked = decoder.push(&[IAC, SB, 44, 1, 0, 1, 0xC2, 0, IAC, SE]);
    assert_eq!(asked, [Event::ComPort(Side::Client, Command::Baud(115_200))]);
    let answered = decoder.push(&[IAC, SB, 44, 101, 0, 1, 0xC2, 0, IAC, SE]);
    assert_eq!(answered, [Event::ComPort(Side::Server, Command::Baud(115_200))]);
    // Each 255 inside is doubled: 0xFFFF is the rate here.
    assert_eq!(
        decoder.push(&[IAC, SB, 44, 1, 0, 0, 255, 255, 255, 255, IAC, SE]),
        [Event::ComPort(Side::Client, Command::Baud(65_535))]
    );
}

#[test]
fn what_is_no_command_is_skipped_and_data_goes_on() {
    let mut decoder = Decoder::new();
    let mut bytes = b"a".to_vec();
    bytes.extend([IAC, SB, 44, 1, 0, IAC, SE]);
    bytes.extend([IAC, SB, 24, 1, IAC, SE, b'b', IAC, IAC, IAC, 246]);
    assert_eq!(
        decoder.push(&bytes),
        [
            Event::Data(b"a".to_vec()),
            Event::Skipped(3),
            Event::Skipped(2),
            Event::Data(vec![b'b', 255]),
            Event::Telnet(246)
        ]
    );
}

#[test]
fn an_answer_is_not_answered_and_what_is_unknown_is_refused() {
    let mut negotiation = Negotiation::default();
    assert_eq!(negotiation.open().len(), 5);
    assert_eq!(negotiation.hear(Verb::Will, 44), None, "it was asked for");
    assert!(negotiation.has_com_port());
    assert_eq!(negotiation.hear(Verb::Do, 1), Some(Event::Negotiate(Verb::Will, 1)));
    assert_eq!(negotiation.hear(Verb::Do, 1), None, "it is on already");
    assert_eq!(negotiation.hear(Verb::Will, 1), Some(Event::Negotiate(Verb::Dont, 1)));
    assert_eq!(negotiation.hear(Verb::Do, 24), Some(Event::Negotiate(Verb::Wont, 24)));
    assert_eq!(negotiation.hear(Verb::Dont, 24), None);
    assert_eq!(negotiation.hear(Verb::Wont, 44), Some(Event::Negotiate(Verb::Dont, 44)));
    assert!(!negotiation.has_com_port());
}
