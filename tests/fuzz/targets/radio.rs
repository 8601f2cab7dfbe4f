//! Radio telegrams: link layers, codes of the air, layers above, and what opens them.

use weir::model::TelegramKind;
use weir::wire::aes::Aes128;
use weir::wire::gcm;
use weir::wire::openlinkiq::{self, Rate};
use weir::wire::wmbus::chips::{self, BitOrder, LineCode};
use weir::wire::wmbus::format::{self, FrameFormat};
use weir::wire::wmbus::{self, Formats, Fragments, Keys, Opened, Reasons, Upper};
use weir::wire::{mbal, telegram as facts};

use super::stream::How;

/// The parts of what was read stand in the bytes one after the other.
fn bounded(upper: &Upper<'_>, layers: &[u8]) {
    let body = upper.tpl.as_ref().map_or(0, |tpl| tpl.body.len());
    assert!(upper.message.len() <= layers.len() && body <= layers.len());
}

pub fn wmbus(_: How, bytes: &[u8]) {
    let Ok(telegram) = wmbus::decode(bytes) else { return };
    bounded(&telegram.upper(), telegram.payload);
    let _ = (telegram.sender().to_string(), wmbus::ci_name(telegram.ci()));
    let mut again = Vec::new();
    wmbus::encode(&telegram, &mut again).expect("it was one");
    assert_eq!(again, bytes);
}

pub fn mbal(how: How, bytes: &[u8]) {
    if let Ok(frame) = mbal::decode(bytes) {
        bounded(&frame.upper(), frame.mbus);
        let mut again = Vec::new();
        mbal::encode(&frame, &mut again).expect("it was one");
        assert_eq!(again, bytes);
    }
    // The same bytes under a header that is right.
    let meter = wmbus::Meter::from_wire([0x93, 0x44, 1, 2, 3, 4, 5, 7]);
    let frame = mbal::Mbal { control: how.choice, meter, command: how.cuts, mbus: &bytes[..bytes.len().min(239)] };
    let mut whole = Vec::new();
    mbal::encode(&frame, &mut whole).expect("it is short enough");
    assert_eq!(mbal::decode(&whole).as_ref(), Ok(&frame));
}

pub fn openlinkiq(how: How, bytes: &[u8]) {
    let believed = |frame: &openlinkiq::Frame| {
        mbal::decode(&frame.mbal).expect("only an MBAL frame is believed");
        assert!(frame.mbal.len() <= bytes.len());
        let mut air = Vec::new();
        openlinkiq::encode(&frame.mbal, frame.rate, &mut air).expect("it is one");
        assert_eq!(air.len(), openlinkiq::length_on_air(frame.mbal.len(), frame.rate));
        let again = openlinkiq::decode(&air).expect("it was sent whole");
        assert_eq!((&again.mbal, again.corrected_bits(), again.iterations), (&frame.mbal, 0, 0));
    };
    // A frame around the bytes with bits turned comes back as it was, or not at all.
    if how.flag(1) {
        let mut block = Vec::new();
        let meter = wmbus::Meter::from_wire([0x93, 0x44, 1, 2, 3, 4, 5, 7]);
        let frame = mbal::Mbal { control: 0, meter, command: 0x44, mbus: &bytes[..bytes.len().min(239)] };
        mbal::encode(&frame, &mut block).expect("it is short enough");
        let mut air = Vec::new();
        openlinkiq::encode(&block, how.pick(&[Rate::Half, Rate::Third]), &mut air).expect("it is one");
        for (at, byte) in air.iter_mut().enumerate() {
            *byte ^= bytes.get(at * 7 % bytes.len().max(1)).map_or(0, |noise| noise & how.cuts & 0x11);
        }
        if let Ok(frame) = openlinkiq::decode(&air) {
            assert_eq!(frame.mbal, block);
        }
        return;
    }
    if how.flag(0) {
        let ratios: Vec<i8> = bytes.iter().map(|byte| byte.cast_signed()).collect();
        let _ = openlinkiq::decode_soft(&ratios).map(|frame| believed(&frame));
        return;
    }
    let decoded = openlinkiq::decode(bytes);
    let costly = openlinkiq::is_costly(bytes);
    assert!(!costly || decoded.as_ref().map_or(true, |frame| frame.iterations > 0), "told as costly");
    let _ = decoded.map(|frame| believed(&frame));
}

pub fn telegram(how: How, bytes: &[u8]) {
    for kind in [TelegramKind::WirelessMbus, TelegramKind::OpenlinkIq] {
        let id = facts::id(kind, bytes);
        let Some(found) = facts::facts(kind, bytes) else { continue };
        bounded(&found.upper, bytes);
        let shown = wmbus::urgency(&found);
        let lasting = shown.found.and(Reasons::LASTING);
        assert_eq!(lasting.and(shown.visible), lasting, "what lasts and is found can be seen");
        // A repeater changes the C field; the telegram stays the same.
        if kind == TelegramKind::WirelessMbus && how.flag(0) {
            let mut relayed = bytes.to_vec();
            relayed[1] ^= 0x80;
            assert_eq!(facts::id(kind, &relayed), id);
        }
    }
}

pub fn chips(how: How, bytes: &[u8]) {
    let code = how.pick(&[LineCode::ThreeOfSix, LineCode::Manchester]);
    let order = if how.flag(1) { BitOrder::LowFirst } else { BitOrder::HighFirst };
    if let Ok(frame) = chips::decode(code, order, bytes) {
        assert!(frame.used <= bytes.len() && frame.bytes.len() <= frame.used, "more came out than went in");
        let mut again = Vec::new();
        chips::encode(code, order, &frame.bytes, &mut again);
        let decoded = chips::decode(code, order, &again).expect("it was a frame");
        assert_eq!((decoded.bytes, decoded.used), (frame.bytes, again.len()));
    }
    let mut chips = Vec::new();
    chips::encode(code, order, bytes, &mut chips);
    if let Ok(frame) = chips::decode(code, order, &chips) {
        assert!(bytes.starts_with(&frame.bytes), "{frame:02x?}");
    }
}

pub fn format(how: How, bytes: &[u8]) {
    let format = how.pick(&[FrameFormat::A, FrameFormat::B]);
    if let Ok(telegram) = format::decode(format, bytes) {
        assert!(telegram.len() < bytes.len());
        let mut again = Vec::new();
        format::encode(format, &telegram, &mut again).expect("it was one");
        assert_eq!(again, bytes);
    }
    // The same bytes as a telegram.
    let mut telegram = bytes[..bytes.len().min(255)].to_vec();
    telegram.insert(0, telegram.len() as u8);
    let mut frame = Vec::new();
    if format::encode(format, &telegram, &mut frame).is_ok() {
        assert_eq!(format::length(format, frame[0]), Some(frame.len()));
        assert_eq!(format::decode(format, &frame), Ok(telegram));
    }
}

/// A key, then telegrams one after the other, each behind its length: what is learnt from one opens the next.
pub fn open(how: How, bytes: &[u8]) {
    let Some((key, mut rest)) = bytes.split_first_chunk::<16>() else { return };
    let keys = if how.flag(0) { Keys::none() } else { Keys::for_any(*key) };
    let (mut fragments, mut formats) = (Fragments::default(), Formats::default());
    while let Some(&length) = rest.first() {
        let (telegram, behind) = rest.split_at(rest.len().min(1 + usize::from(length)));
        rest = behind;
        let Ok(telegram) = wmbus::decode(telegram) else { continue };
        let alone = telegram.open(&keys);
        let joined = fragments.open(telegram.sender(), telegram.payload, wmbus::LINK_HEADER, &keys);
        if let Ok(opened) = &alone {
            assert!(opened.body.len() <= telegram.payload.len());
            assert_eq!(joined.as_ref().map(|joined| &joined.body), Ok(&opened.body));
        }
        let _ = joined.as_ref().map(|opened| read(opened, &mut formats));
    }
    let text = String::from_utf8_lossy(bytes);
    let (keys, faults) = Keys::parse(&text);
    assert!(keys.len() + faults.len() <= text.lines().count());
}

fn read(opened: &Opened, formats: &mut Formats) {
    let Ok(content) = wmbus::records(opened, formats) else { return };
    // Each record has a DIF at least; a compact frame leaves it out.
    assert!(content.values.len() <= 2 * opened.body.len() + 256);
    let _ = wmbus::of_values(&content);
}

/// What ciphers the bytes gives them back.
pub fn cipher(how: How, bytes: &[u8]) {
    let (key, iv) = ([how.choice; 16], [how.cuts; 16]);
    let aes = Aes128::new(&key);
    let mut text = bytes.to_vec();
    aes.ctr(iv, &mut text);
    aes.ctr(iv, &mut text);
    assert_eq!(text, bytes);
    let whole = bytes.len() / 16 * 16;
    aes.cbc_encrypt(iv, &mut text[..whole]);
    aes.cbc_decrypt(iv, &mut text[..whole]);
    assert_eq!(text, bytes);
    let (left, right) = bytes.split_at(usize::from(how.choice).min(bytes.len()));
    assert_eq!(aes.cmac(&[left, right]), aes.cmac(&[bytes]));
    let gcm = gcm::Key::new(&key).expect("it is a key");
    let tag = gcm.seal([how.cuts; 12], left, &mut text).expect("it is short enough");
    assert_eq!(gcm.open([how.cuts; 12], left, &text, &tag).as_deref(), Some(bytes));
    assert_eq!(gcm.uncover([how.cuts; 12], &text).as_deref(), Some(bytes));
    if let Some((tag, cipher)) = bytes.split_first_chunk() {
        assert_eq!(gcm.open([how.cuts; 12], left, cipher, tag), None);
    }
}
