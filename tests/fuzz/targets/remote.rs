//! What people and platforms send: commands, short messages, a modem's words, remote ports, numbered messages.

use weir::wire::at;
use weir::wire::at::tags;

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
