//! Wired M-Bus in words: link layer, who answers, its records.

use super::{Told, Tongue, Way, some};
use crate::wire::explain::{Format, Row, explain};
use crate::wire::mbus::{Decoder, Event, Frame, encode};

/// Frames both ways.
#[derive(Debug, Default)]
pub(super) struct Mbus {
    sent: Decoder,
    received: Decoder,
}

impl Tongue for Mbus {
    fn explain(&mut self, way: Way, bytes: &[u8]) -> Told {
        let alone = bytes.len() == 1;
        let decoder = if way == Way::Sent { &mut self.sent } else { &mut self.received };
        decoder.push(bytes);
        let mut told = Told::default();
        while let Some(event) = decoder.next() {
            match event {
                // In other bytes E5 means nothing.
                Event::Frame(Frame::Acknowledge) if !alone => {
                    told.unsure.push("M-Bus: E5 among other bytes".to_owned())
                }
                Event::Frame(frame) => told.sure.extend(words(&frame)),
                Event::Damaged(error) => told.unsure.push(format!("M-Bus: no right frame: {error}")),
                Event::Skipped { .. } => {}
            }
        }
        told
    }

    fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Link and head of a frame in one sentence, then its records.
fn words(frame: &Frame) -> Vec<String> {
    let mut bytes = Vec::new();
    encode(frame, &mut bytes);
    let Ok(explanation) = explain(&bytes, Some(Format::Mbus)) else { return Vec::new() };
    let rows = || explanation.layers.iter().flat_map(|layer| &layer.rows);
    let head = |row: &&Row| !row.meaning.is_empty() && row.field != "record";
    let part = |row: &Row| match row.field {
        "C" | "A" | "CI" | "E5" | "1F" | "error" | "records" => row.meaning.clone(),
        field => format!("{field} {}", row.meaning),
    };
    let sentence = format!("M-Bus: {}", rows().filter(head).map(part).collect::<Vec<_>>().join(", "));
    let records: Vec<String> = rows().filter(|row| row.field == "record").map(|row| row.meaning.clone()).collect();
    std::iter::once(format!("{sentence}; checksum right")).chain(some(&records)).collect()
}
