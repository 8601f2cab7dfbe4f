//! What people and platforms send: commands, short messages, a modem's words, remote ports, numbered messages.

use weir::wire::at::tags;
use weir::wire::rfc2217::Event;
use weir::wire::sms::{self, Message, alphabet};
use weir::wire::{at, modem, mtx, numbered, rfc2217};

use super::stream::How;

pub fn command(how: How, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let text = if how.flag(0) { format!("#id AT^MTXTUNNEL={text}") } else { text.into_owned() };
    if let Ok(line) = at::decode(&text) {
        assert!(text.contains(line.text) && line.id.is_none_or(at::is_id));
    }
    if let Ok(raw) = at::bytes(&text) {
        assert!(raw.len() <= text.len());
        assert_eq!(at::bytes(&at::text(&raw)).expect("what was written is read"), raw);
    }
}

pub fn config_txt(_how: How, bytes: &[u8]) {
    let items = mtx::decode(bytes);
    assert!(items.len() <= bytes.len());
    for item in items {
        let mtx::Item::Parameter(read) = item else { continue };
        let name = read.name();
        let mut line = Vec::new();
        if mtx::encode(&name, &read.value, &mut line) {
            let again = mtx::Parameter { line: 1, spelled: name.clone(), value: read.value.clone() };
            assert_eq!(mtx::decode(&line), [mtx::Item::Parameter(again)]);
        }
        assert!(mtx::value_of(bytes, &name).is_some());
    }
}

pub fn tagged(how: How, bytes: &[u8]) {
    let items = |pieces: Vec<&[u8]>| {
        let mut decoder = tags::Decoder::new("T");
        let mut found: Vec<tags::Item> = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            while let Some(item) = decoder.next() {
                match (found.last_mut(), item) {
                    (Some(tags::Item::Bytes(before)), tags::Item::Bytes(more)) => before.extend(more),
                    (_, item) => found.push(item),
                }
            }
        }
        (found, decoder.holds())
    };
    // Bytes of which one in sixteen begins or ends a tag.
    let stream: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| match byte & 0x0F {
            0 => b"<T>".to_vec(),
            1 => b"</T>".to_vec(),
            _ => vec![*byte],
        })
        .collect();
    let whole = items(vec![&stream]);
    assert_eq!(items(how.pieces(&stream)), whole);
    assert_eq!(items(stream.chunks(1).collect()), whole);
}

pub fn short_message(how: How, bytes: &[u8]) {
    let text = alphabet::decode(bytes);
    assert!(text.chars().count() <= bytes.len());
    if let Some(septets) = alphabet::encode(&text) {
        assert_eq!(alphabet::decode(&septets), text);
    }
    let (fill, count) = (usize::from(how.choice % 7), usize::from(how.cuts));
    assert!(alphabet::unpack(bytes, fill, count).len() <= count);
    let Ok(message) = sms::decode(bytes) else { return };
    let mut again = Vec::new();
    let written = match &message {
        Message::Deliver(deliver) => deliver.encode(0, &mut again).is_ok(),
        Message::Submit(submit) => submit.encode(&mut again).is_ok(),
        Message::Report(report) => report.encode(&mut again) > 0,
    };
    if written {
        drop(sms::decode(&again));
    }
}

pub fn modem(how: How, bytes: &[u8]) {
    let events = |pieces: Vec<&[u8]>| {
        let mut decoder = modem::Decoder::new();
        decoder.await_prompt(how.flag(0));
        let mut found = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            found.extend(std::iter::from_fn(|| decoder.next()));
        }
        decoder.finish();
        found.extend(std::iter::from_fn(|| decoder.next()));
        found
    };
    let whole = events(vec![bytes]);
    assert!(whole.len() <= bytes.len() + 2);
    assert_eq!(events(how.pieces(bytes)), whole);
    assert_eq!(events(bytes.chunks(1).collect()), whole);
}

pub fn remote_port(how: How, bytes: &[u8]) {
    // Bytes of which one in eight is an escape or a word of the option.
    let stream: Vec<u8> = bytes
        .iter()
        .map(|byte| if byte & 7 == 0 { [255, 250, 240, 44, 251, 253][usize::from(byte >> 3) % 6] } else { *byte })
        .collect();
    let events = |pieces: Vec<&[u8]>| {
        let mut decoder = rfc2217::Decoder::new();
        let mut found: Vec<Event> = Vec::new();
        for event in pieces.into_iter().flat_map(|piece| decoder.push(piece)) {
            match (found.last_mut(), event) {
                (Some(Event::Data(before)), Event::Data(more)) => before.extend(more),
                (Some(Event::Skipped(before)), Event::Skipped(more)) => *before += more,
                (_, event) => found.push(event),
            }
        }
        found
    };
    let whole = events(vec![&stream]);
    assert_eq!(events(how.pieces(&stream)), whole);
    assert_eq!(events(stream.chunks(1).collect()), whole);
    let mut again = Vec::new();
    whole.iter().for_each(|event| rfc2217::encode(event, &mut again));
    assert!(again.len() <= stream.len() + whole.len() * 8);
    let meant: Vec<_> = whole.into_iter().filter(|event| !matches!(event, Event::Skipped(_))).collect();
    let mut joined: Vec<Event> = Vec::new();
    for event in meant {
        match (joined.last_mut(), event) {
            (Some(Event::Data(before)), Event::Data(more)) => before.extend(more),
            (_, event) => joined.push(event),
        }
    }
    assert_eq!(events(vec![&again]), joined, "what was written is read");
}

pub fn numbered(_how: How, bytes: &[u8]) {
    let Ok(message) = numbered::decode(bytes) else { return };
    assert!(message.bytes.len() <= bytes.len());
    let mut again = Vec::new();
    numbered::encode(&message, &mut again);
    assert_eq!(numbered::decode(&again).as_ref(), Ok(&message));
}
