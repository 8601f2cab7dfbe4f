//! Receivers that speak in frames of their own, or in none.

use weir::wire::amber::{self, Form};
use weir::wire::openlinkiq_line::{self, Payload};
use weir::wire::radio_line::Item;
use weir::wire::unframed::{self, Look, Strength};
use weir::wire::{imst_hci, iu891a, rc1180, wmbus};

use super::stream::{How, events, events_as, joined_imst};

/// What every receiver promises of what it heard: the link layer is sound. Gives how many bytes are told of.
fn sound<'a>(items: impl IntoIterator<Item = &'a Item>) -> usize {
    let bytes = |item: &Item| match item {
        Item::Heard(reception) => {
            wmbus::decode(&reception.bytes).expect("what was heard is sound");
            reception.bytes.len()
        }
        Item::Skipped { bytes } => *bytes,
        Item::Damaged(_) | Item::Noise => 0,
    };
    items.into_iter().map(bytes).sum()
}

pub fn amber(how: How, bytes: &[u8]) {
    let form = Form { framed: how.flag(0), rssi: how.flag(1) };
    let found = events(|| amber::Decoder::new(form), how, bytes);
    let answers = found.iter().filter_map(|event| match event {
        amber::Event::Answer { data, .. } => Some(data.len()),
        amber::Event::Heard(_) => None,
    });
    let items = found.iter().filter_map(|event| match event {
        amber::Event::Heard(item) => Some(item),
        amber::Event::Answer { .. } => None,
    });
    assert!(sound(items) + answers.sum::<usize>() <= bytes.len(), "more came out than went in");
    if let Some(answer) = amber::find_answer(bytes, amber::command::GET)
        && let Some(parameters) = amber::Parameters::of(answer)
    {
        let _ = (parameters.form(), parameters.is_169());
    }
    for event in &found {
        let amber::Event::Heard(Item::Heard(reception)) = event else { continue };
        // With its strength behind a telegram of 256 bytes has no form.
        if reception.bytes.len() < 255 {
            let mut line = Vec::new();
            amber::encode_telegram(&reception.bytes, form, 0, &mut line);
            let again = events(|| amber::Decoder::new(form), how_at_once(how), &line);
            assert!(
                matches!(again.as_slice(), [amber::Event::Heard(Item::Heard(r))] if r.bytes == reception.bytes),
                "{again:?}"
            );
        }
    }
    if how.flag(2) {
        let mut line = Vec::new();
        amber::encode(amber::command::GET | 0x80, bytes, &mut line);
        let again = events(|| amber::Decoder::new(form), how_at_once(how), &line);
        let data = bytes[..bytes.len().min(255)].to_vec();
        assert_eq!(again, [amber::Event::Answer { command: amber::command::GET, data }]);
    }
}

/// The same without a silence in the middle, for what must come through whole.
fn how_at_once(how: How) -> How {
    How { cuts: how.cuts & 0x7F, ..how }
}

pub fn rc1180(how: How, bytes: &[u8]) {
    let rssi = how.flag(0);
    let found = events(|| rc1180::Decoder::new(rssi), how, bytes);
    assert!(sound(&found) <= bytes.len(), "more came out than went in");
    for item in &found {
        let Item::Heard(reception) = item else { continue };
        let mut line = Vec::new();
        rc1180::encode(&reception.bytes, rssi.then_some(7), &mut line);
        let again = events(|| rc1180::Decoder::new(rssi), how_at_once(how), &line);
        assert!(matches!(again.as_slice(), [Item::Heard(r)] if r.bytes == reception.bytes), "{again:?}");
    }
    if let Some(memory) = rc1180::Memory::listed(bytes) {
        let _ = (memory.address(), memory.is_first(), memory.rssi());
    }
}

pub fn unframed(how: How, bytes: &[u8]) {
    let strength = how.pick(&[Strength::None, Strength::Counted, Strength::Behind]);
    if let Look::Telegram(total) = unframed::look(bytes, strength, how.flag(7)) {
        let (telegram, raw) = unframed::split(&bytes[..total], strength);
        let mut line = Vec::new();
        unframed::encode(&telegram, strength, raw.unwrap_or(0), &mut line);
        assert_eq!(line, bytes[..total]);
    }
}

pub fn imst_hci(how: How, bytes: &[u8]) {
    let found = events_as(imst_hci::Decoder::new, how, bytes, joined_imst);
    let mut told = 0;
    for event in &found {
        match event {
            imst_hci::Event::Message(message) => {
                told += message.payload.len();
                sound(message.item().as_ref());
                let mut again = Vec::new();
                imst_hci::encode(message, &mut again).expect("it came so");
                let again = events(imst_hci::Decoder::new, how_at_once(how), &again);
                assert_eq!(again, [imst_hci::Event::Message(message.clone())]);
            }
            imst_hci::Event::Skipped { bytes } => told += bytes,
            imst_hci::Event::Damaged(_) => {}
        }
    }
    assert!(told <= bytes.len(), "more came out than went in");
    let _ = imst_hci::Info::read(bytes).map(|info| assert_eq!(info.payload(), bytes[..info.payload().len()]));
    if let Some(config) = imst_hci::Config::read(bytes) {
        assert_eq!(config.payload(), bytes[..config.payload().len()]);
    }
    if how.flag(0) {
        let message =
            imst_hci::Message { checked: true, ..imst_hci::Message::request(1, &bytes[..bytes.len().min(255)]) };
        let mut line = Vec::new();
        imst_hci::encode(&message, &mut line).expect("it is short enough");
        let again = events(imst_hci::Decoder::new, how_at_once(how), &line);
        assert_eq!(again, [imst_hci::Event::Message(message)]);
    }
}

pub fn iu891a(how: How, bytes: &[u8]) {
    let found = events(iu891a::Decoder::new, how, bytes);
    let mut told = 0;
    for event in &found {
        match event {
            iu891a::Event::Message(message) => {
                told += message.body.len();
                sound(message.item().as_ref());
                iu891a_again(how, message);
            }
            iu891a::Event::Skipped { bytes } => told += bytes,
            iu891a::Event::Damaged(_) => {}
        }
    }
    assert!(told <= bytes.len(), "more came out than went in");
    if let Some(config) = iu891a::Config::read(bytes) {
        assert_eq!(config.bytes(), bytes[..config.bytes().len()]);
    }
    if how.flag(0) {
        iu891a_again(how, &iu891a::Message::new(iu891a::DEVICE, 1, &bytes[..bytes.len().min(508)]));
    }
}

fn iu891a_again(how: How, message: &iu891a::Message) {
    let mut line = Vec::new();
    iu891a::encode(message, &mut line).expect("it is short enough");
    let again = events(iu891a::Decoder::new, how_at_once(how), &line);
    assert_eq!(again, [iu891a::Event::Message(message.clone())]);
}

pub fn openlinkiq_line(how: How, bytes: &[u8]) {
    let found = events(openlinkiq_line::Decoder::new, how, bytes);
    let mut told = 0;
    for event in &found {
        match event {
            openlinkiq_line::Event::Message(message) => {
                told += match message {
                    openlinkiq_line::Message::Name(name) => name.len(),
                    openlinkiq_line::Message::Heard(capture) => match &capture.payload {
                        Payload::Bits(bits) => bits.len(),
                        Payload::Ratios(ratios) => ratios.len(),
                    },
                };
                let mut line = Vec::new();
                openlinkiq_line::encode(message, &mut line).expect("it came so");
                let again = events(openlinkiq_line::Decoder::new, how_at_once(how), &line);
                assert_eq!(again, [openlinkiq_line::Event::Message(message.clone())]);
            }
            openlinkiq_line::Event::Skipped { bytes } => told += bytes,
            openlinkiq_line::Event::Damaged(_) => {}
        }
    }
    assert!(told <= bytes.len(), "more came out than went in");
}
