//! A real capture, and what noise may do to a stream of messages.

use proptest::prelude::*;

use super::*;

/// What an iM871A said of a MULTICAL 21, without signal strength.
const CAPTURE: &str = "a5820321442d2c125000641b168d203f02d9f322205a0647e36848e40c452256907e501de9fd6c";

fn capture() -> Vec<u8> {
    data_encoding::HEXLOWER.decode(CAPTURE.as_bytes()).unwrap()
}

fn bytes(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes).unwrap();
    bytes
}

fn events(chunks: &[&[u8]]) -> Vec<Event> {
    let mut decoder = Decoder::new();
    let mut found = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        found.extend(std::iter::from_fn(|| decoder.next()));
        assert!(decoder.buffer.len() < 2 * 266);
    }
    decoder.silence();
    found.extend(std::iter::from_fn(|| decoder.next()));
    assert!(!decoder.is_incomplete());
    found
}

fn messages(chunks: &[&[u8]]) -> Vec<Message> {
    let only = |event| if let Event::Message(message) = event { Some(message) } else { None };
    events(chunks).into_iter().filter_map(only).collect()
}

fn telegram(payload: Vec<u8>, stamp: Option<u32>, rssi: Option<u8>, checked: bool) -> Message {
    Message { endpoint: RADIO, id: TELEGRAM, payload, stamp, rssi, checked }
}

#[test]
fn a_real_capture_gives_its_telegram() {
    let capture = capture();
    let [message] = &messages(&[&capture])[..] else { panic!() };
    assert_eq!(bytes(message), capture);
    let Some(Item::Heard(heard)) = message.item() else { panic!("{message:?}") };
    assert_eq!((heard.kind, heard.rssi, heard.time), (TelegramKind::WirelessMbus, None, None));
    assert_eq!(heard.bytes, capture[3..37]);
}

#[test]
fn the_signal_strength_stands_behind_the_time_stamp_when_there_is_one() {
    let payload = capture()[4..37].to_vec();
    for stamp in [None, Some(0x4030_2010)] {
        for checked in [true, false] {
            let sent = bytes(&telegram(payload.clone(), stamp, Some(100), checked));
            let [message] = &messages(&[&sent])[..] else { panic!() };
            assert_eq!((message.stamp, message.rssi), (stamp, Some(100)));
            let Some(Item::Heard(heard)) = message.item() else { panic!() };
            assert_eq!(heard.rssi, Some(Rssi::Dbm(-73)));
        }
    }
}

#[test]
fn the_module_s_figure_is_on_the_maker_s_line() {
    // 80 / 150 * 237.5 is 126.67: there the line crosses nought.
    for (raw, expected) in [(0, -127), (45, -103), (100, -73), (205, -17), (237, 0), (255, 9)] {
        assert_eq!(dbm(raw), expected);
        let exact = f64::from(raw) * 80.0 / 150.0 - (100.0 + 4000.0 / 150.0);
        assert!((f64::from(dbm(raw)) - exact).abs() <= 0.5, "{raw}");
    }
    for strength in -126..=9 {
        assert_eq!(dbm(raw_rssi(strength)), strength);
    }
}

#[test]
fn questions_look_as_the_page_says() {
    let hex = |message| data_encoding::HEXLOWER.encode(&bytes(&message));
    assert_eq!(hex(Message::request(device::PING, &[])), "a5010100");
    assert_eq!(hex(Message::request(device::INFO, &[])), "a5010f00");
    let config = Config::default().with(Field::LinkMode, 0x0A).with(Field::Rssi, 1).with(Field::Stamp, 0);
    let order = [&[0][..], &config.payload()].concat();
    assert_eq!(hex(Message::request(device::SET_CONFIG, &order)), "a501030600020a300100");
}

#[test]
fn a_wrong_fcs_is_damage_and_costs_that_message_only() {
    let good = capture();
    for bit in 8..good.len() * 8 {
        let mut wrong = good.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let found = messages(&[&good, &wrong, &good]);
        assert_eq!(found.iter().filter(|message| bytes(message) == good).count(), 2, "bit {bit}: {found:?}");
        assert_eq!(found.len(), 2, "bit {bit}: {found:?}");
    }
    let mut wrong = good.clone();
    wrong[20] ^= 1;
    let found = events(&[&wrong]);
    assert!(matches!(&found[0], Event::Damaged(fault) if fault.to_string().contains("FCS")), "{found:?}");
}

#[test]
fn a_sound_message_whose_telegram_is_not_is_damaged() {
    let message = telegram(vec![0x99; 12], None, Some(1), true);
    let [found] = &messages(&[&bytes(&message)])[..] else { panic!() };
    assert!(matches!(found.item(), Some(Item::Damaged(_))));
    assert_eq!(Message::request(device::PING, &[]).item(), None);
}

#[test]
fn settings_are_read_by_their_flags_and_changed_one_by_one() {
    // All sixteen, as a module gives them: manufacturer two bytes, number four.
    let all = [0xFF, 1, 3, 0x44, 0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x1B, 0x16, 2, 0xFF, 7, 1, 9, 1, 0, 1, 5, 0];
    let config = Config::read(&all).unwrap();
    assert_eq!(config.payload(), all);
    let field = |field| config.field(field);
    assert_eq!((field(Field::DeviceMode), field(Field::LinkMode)), (Some(1), Some(3)));
    assert_eq!((field(Field::PowerSaving), field(Field::Rssi), field(Field::Stamp)), (Some(1), Some(0), Some(1)));
    let order = Config::default().with(Field::LinkMode, 6).with(Field::Rssi, 1);
    let changed = config.clone().changed_by(&order);
    assert_eq!(changed, config.with(Field::LinkMode, 6).with(Field::Rssi, 1));
    for length in 0..all.len() {
        assert_eq!(Config::read(&all[..length]), None);
    }
    let info = Info { module: 0x33, mode: 0, firmware: 0x14, hci: 0x17, serial: 0x0011_2233 };
    assert_eq!(Info::read(&info.payload()), Some(info));
    assert_eq!(Info::read(&info.payload()[..7]), None);
}

fn any_message() -> impl Strategy<Value = Message> {
    let payload = proptest::collection::vec(any::<u8>(), 10..256);
    let any_telegram = (payload, any::<Option<u32>>(), any::<Option<u8>>());
    let answer = (1u8..0x28, proptest::collection::vec(any::<u8>(), 0..60));
    prop_oneof![
        any_telegram.prop_map(|(mut payload, stamp, rssi)| {
            payload[0] = 0x44;
            telegram(payload, stamp, rssi, false)
        }),
        answer.prop_map(|(id, payload)| Message::request(id, &payload)),
    ]
}

proptest! {
    #[test]
    fn messages_come_back_however_the_stream_is_cut(
        mut sent in proptest::collection::vec(any_message(), 1..4),
        cut in 1usize..50,
        checked in any::<bool>(),
    ) {
        sent.iter_mut().for_each(|message| message.checked = checked);
        let stream: Vec<u8> = sent.iter().flat_map(bytes).collect();
        let whole = events(&[&stream]);
        let cut: Vec<&[u8]> = stream.chunks(cut).collect();
        prop_assert_eq!(events(&cut), whole.clone());
        prop_assert_eq!(whole, sent.into_iter().map(Event::Message).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic_and_all_are_accounted_for(
        noise in proptest::collection::vec(prop_oneof![Just(START), 0u8..8, any::<u8>()], 0..1500),
        cut in 1usize..300,
    ) {
        let chunks: Vec<&[u8]> = noise.chunks(cut).collect();
        let count = |event: &Event| match event {
            Event::Message(message) => bytes(message).len(),
            Event::Damaged(_) => 1,
            Event::Skipped { bytes } => *bytes,
        };
        prop_assert_eq!(events(&chunks).iter().map(count).sum::<usize>(), noise.len());
    }

    #[test]
    fn after_noise_the_next_message_is_found(
        noise in proptest::collection::vec(prop_oneof![Just(START), 0u8..8, Just(0x82u8), any::<u8>()], 0..700),
        cut in 1usize..300,
    ) {
        let stream = [&noise[..], &capture()].concat();
        let chunks: Vec<&[u8]> = stream.chunks(cut).collect();
        let found = messages(&chunks);
        prop_assert!(found.iter().any(|message| bytes(message) == capture()), "{:?}", found);
    }
}
