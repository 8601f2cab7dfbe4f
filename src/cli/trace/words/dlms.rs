//! DLMS/COSEM in words: what carries an APDU, its name, its objects and values; and the sign-on that opens mode E.

use super::iec::Iec;
use super::{Told, Tongue, Way, some};
use crate::wire::dlms::push::{Decoder, Event, Frame};
use crate::wire::explain::dlms;

/// A sentence is cut after so many characters: a buffer can be long.
const LONGEST: usize = 200;

/// Requests, answers and pushes, both ways.
#[derive(Debug, Default)]
pub(super) struct Dlms {
    sent: Decoder,
    received: Decoder,
    /// Meters behind an optical head are signed on to first.
    sign_on: Iec,
}

impl Tongue for Dlms {
    fn explain(&mut self, way: Way, bytes: &[u8]) -> Told {
        // The line shows no password to whoever looks on.
        if bytes.len() > 1 && bytes.iter().all(|byte| *byte == b'*') {
            return Told::sure(format!("DLMS: {} bytes with a password or key, not shown", bytes.len()));
        }
        if bytes.first().is_some_and(|byte| matches!(byte & 0x7F, b'/' | 0x06)) {
            let told = self.sign_on.explain(way, bytes);
            if !told.sure.is_empty() {
                return told;
            }
        }
        let decoder = if way == Way::Sent { &mut self.sent } else { &mut self.received };
        decoder.push(bytes);
        let mut told = Told::default();
        // Nothing checks a wrapper or a bare APDU: on a port of unknown meters it may be anything.
        let mut checked = false;
        while let Some(event) = decoder.next() {
            if let Event::Frame(frame) = &event {
                checked = matches!(frame, Frame::Hdlc(_) | Frame::Mbus(_));
            }
            let mut sentences = Vec::new();
            if let Some(word) = dlms::word(&event) {
                sentences.push(cut(&format!("DLMS: {word}")));
            }
            if let Event::Apdu(apdu) = &event {
                sentences.extend(some(&dlms::values(apdu)).iter().map(|value| cut(value)));
            }
            let of = if checked && !matches!(event, Event::Damaged(_)) { &mut told.sure } else { &mut told.unsure };
            of.extend(sentences);
        }
        told
    }

    fn forget(&mut self) {
        *self = Self::default();
    }
}

fn cut(sentence: &str) -> String {
    match sentence.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{} ...", sentence.get(..at).unwrap_or_default()),
        None => sentence.to_owned(),
    }
}
