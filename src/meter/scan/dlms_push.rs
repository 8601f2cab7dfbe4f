//! Recognises pushes of DLMS/COSEM meters among bytes that came without a question. Nothing is decrypted, no key is needed.

use std::time::Duration;

use super::Found;
use super::found::{Who, tidy};
use crate::os::line::{Framing, Speed};
use crate::wire::dlms::entry::{Entry, Finder};
use crate::wire::dlms::push::{Decoder, Event, Frame, is_push};
use crate::wire::dlms::{notification, open, vendor};

/// The protocol's word.
pub(super) const NAME: &str = "dlms-push";

/// Objects that hold a serial number, in this order (IEC 62056-6-1; the second one in Danish and Swedish lists).
const SERIALS: [&str; 4] = ["0-0:96.1.0*255", "1-1:0.0.1*255", "0-0:96.1.1*255", "0-0:42.0.0*255"];

/// The meter whose whole push is among the bytes.
pub(super) fn recognise(bytes: &[u8], speed: Speed) -> Option<Found> {
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    let mut events: Vec<Event> = std::iter::from_fn(|| decoder.next()).collect();
    decoder.silence();
    events.extend(std::iter::from_fn(|| decoder.next()));
    let mut frame = None;
    let mut best: Option<Found> = None;
    for event in &events {
        match event {
            Event::Frame(now) => frame = Some(now),
            Event::Apdu(apdu) if is_push(apdu) => {
                let Some(found) = frame.and_then(|frame| judged(frame, apdu, speed)) else { continue };
                // Short lists of values come often, the one that says who the meter is seldom.
                if best.as_ref().is_none_or(|before| before.who.is_nobody() && !found.who.is_nobody()) {
                    best = Some(found);
                }
            }
            _ => {}
        }
    }
    best
}

/// What one push says, if it is surely one.
fn judged(frame: &Frame, apdu: &[u8], speed: Speed) -> Option<Found> {
    let (carrier, checked) = match frame {
        Frame::Hdlc(_) => ("HDLC frames", true),
        Frame::Mbus(_) => ("frames of wired M-Bus", true),
        Frame::Wrapper(_) => ("the wrapper", false),
        Frame::Bare(_) => ("no frames", false),
    };
    // The link layer of wired M-Bus has even parity (EN 13757-2); a port that ignores it would look the same.
    let framing = if matches!(frame, Frame::Mbus(_)) { Framing::parse("8E1")? } else { speed.framing };
    let mut found = Found::new(NAME, Speed { framing, ..speed }, None, Duration::ZERO);
    match open::sealed(apdu).ok()? {
        Some(sealed) => {
            let title = sealed.title.and_then(|title| title.first_chunk::<3>());
            let letters = title.filter(|letters| letters.iter().all(u8::is_ascii_alphanumeric));
            // Nothing but its shape speaks for a bare one.
            if !checked && letters.is_none() {
                return None;
            }
            found.who.maker = letters.and_then(|letters| tidy(letters));
            found.notes.push(format!(
                "it pushes in {carrier}, ciphered with security suite {}: the grid operator gives out the keys",
                sealed.control.suite()
            ));
            found.also.push("# key_file = \"/etc/weir/secrets/encryption-key\"                  # needed".to_owned());
            found.also.push(
                "# authentication_key_file = \"/etc/weir/secrets/authentication-key\"   # verifies it".to_owned(),
            );
            if matches!((frame, apdu.first()), (Frame::Bare(_), Some(0xDB))) {
                found.notes.push(
                    "should its values be missing: ciphered P1 looks alike; then protocol = \"dsmr-p1\"".to_owned(),
                );
            }
        }
        None => {
            let notification = notification::decode(apdu).ok().filter(|n| checked || n.left == 0)?;
            let mut finder = Finder::new();
            let entries = finder.entries(&notification);
            if entries.is_empty() {
                return None;
            }
            found.who = who(&entries);
            found.notes.push(format!("it pushes in {carrier}, not ciphered: {} values", entries.len()));
        }
    }
    Some(found)
}

fn who(entries: &[Entry<'_>]) -> Who {
    let text = |name: &str| {
        let entry = entries.iter().find(|entry| entry.name.to_string() == name)?;
        tidy(entry.text()?.as_bytes())
    };
    // A list's id begins with its maker: `KFM_001`, `Kamstrup_V0001`.
    let list = text(&vendor::LIST_ID.to_string());
    let maker = list.as_deref().and_then(|list| list.split('_').next()).map(str::to_owned);
    let model = maker.as_ref().and_then(|_| text("0-0:96.1.7*255"));
    Who { maker, model, version: None, serial: SERIALS.iter().find_map(|name| text(name)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::dlms::hdlc::{self, Address, Control};
    use crate::wire::dlms::open::{Keys, seal};
    use crate::wire::dlms::wrapper::Unit;
    use crate::wire::mbus;

    const SPEED: Speed = Speed { baud: 2400, framing: Framing::EIGHT_N_ONE };

    /// A plain push of one register and the serial number.
    fn push() -> Vec<u8> {
        let serial = [2, 2, 9, 6, 0, 0, 96, 1, 0, 255, 10, 4, b'4', b'7', b'1', b'1'];
        [&[0x0F, 0, 0, 0, 1, 0, 2, 2, 2, 2, 9, 6, 1, 0, 1, 8, 0, 255, 0x11, 7][..], &serial].concat()
    }

    fn framed(apdu: &[u8]) -> Vec<u8> {
        let information = [&hdlc::LLC_RESPONSE, apdu].concat();
        let (destination, source) = (Address::Single(32), Address::Single(1));
        hdlc::Frame { segmented: false, destination, source, control: Control::Ui, information }.encode().unwrap()
    }

    fn telegram(apdu: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let data = [&[0x01, 0x67], apdu].concat();
        mbus::encode(&mbus::Frame::Long { control: 0x53, address: 0xFF, ci: 0x10, data }, &mut bytes);
        bytes
    }

    fn sealed() -> Vec<u8> {
        seal(&Keys::new(&[1; 16], Some(&[2; 16])).unwrap(), *b"WEI\0\0\0\0\x01", 0x30, 1, &push()).unwrap()
    }

    #[test]
    fn a_push_is_recognised_in_every_carrier_with_who_sends_it() {
        let unit = Unit { source: 1, destination: 103, apdu: push() }.encode().unwrap();
        for (bytes, framing) in [(framed(&push()), "8N1"), (telegram(&push()), "8E1"), (unit, "8N1"), (push(), "8N1")] {
            let found = recognise(&bytes, SPEED).unwrap();
            assert_eq!((found.protocol, found.speed.framing.to_string().as_str()), (NAME, framing));
            assert_eq!(found.who.serial.as_deref(), Some("4711"), "{found:?}");
        }
        for bytes in [framed(&sealed()), telegram(&sealed()), sealed()] {
            let found = recognise(&bytes, SPEED).unwrap();
            assert_eq!(found.who.maker.as_deref(), Some("WEI"));
            assert!(
                found.notes[0].contains("keys") && found.also.iter().all(|line| line.starts_with('#')),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_began_before_is_not_taken_and_the_list_that_says_who_it_is_wins() {
        let whole = framed(&push());
        assert!(recognise(&whole[9..], SPEED).is_none());
        assert!(recognise(&[&whole[9..], &whole].concat(), SPEED).is_some());
        let short = framed(&[0x0F, 0, 0, 0, 1, 0, 2, 1, 0x11, 7]);
        let found = recognise(&[short.clone(), whole, short].concat(), SPEED).unwrap();
        assert_eq!(found.who.serial.as_deref(), Some("4711"));
    }

    #[test]
    fn a_dialogue_of_another_master_is_no_push() {
        let get = [0xC0, 1, 0xC1, 0, 3, 1, 0, 1, 8, 0, 255, 2, 0];
        assert!(recognise(&framed(&get), SPEED).is_none());
        assert!(recognise(&[0x0F, 0, 0, 0, 1, 0, 2, 2], SPEED).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = recognise(&bytes, SPEED);
        }
    }
}
