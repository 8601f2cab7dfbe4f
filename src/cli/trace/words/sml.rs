//! SML in words: the lists of one transmission.

use super::{Told, Tongue, Way, some};
use crate::model::Decimal;
use crate::wire::sml::{Content, Decoder, Entry, Event};
use crate::wire::unit;

/// Transmissions of a meter that sends by itself.
#[derive(Debug, Default)]
pub(super) struct Sml {
    decoder: Decoder,
}

impl Tongue for Sml {
    fn explain(&mut self, way: Way, bytes: &[u8]) -> Told {
        let mut told = Told::default();
        if way == Way::Sent {
            return told;
        }
        self.decoder.push(bytes);
        while let Some(event) = self.decoder.next() {
            match event {
                Event::Lists(lists) => {
                    let entries: Vec<String> = lists.iter().flat_map(|list| &list.entries).map(entry).collect();
                    let server = lists.iter().map(|list| hex(&list.server)).find(|text| !text.is_empty());
                    let who = server.map_or_else(String::new, |server| format!(" of meter {server}"));
                    told.sure.push(format!("SML transmission{who}, {} values; every CRC right", entries.len()));
                    told.sure.extend(some(&entries));
                }
                Event::Damaged(damage) => told.unsure.push(format!("SML: {damage}")),
                Event::Skipped { .. } => {}
            }
        }
        told
    }

    fn forget(&mut self) {
        *self = Self::default();
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXUPPER.encode(bytes)
}

fn entry(entry: &Entry) -> String {
    let name = match entry.name.as_slice() {
        [a, b, c, d, e, f] => format!("{a}-{b}:{c}.{d}.{e}*{f}"),
        other => hex(other),
    };
    let value = match &entry.value {
        Content::Octets(octets) => hex(octets),
        Content::Bool(truth) => u8::from(*truth).to_string(),
        Content::Number(number) => {
            Decimal::new(*number, entry.scaler.into()).map_or_else(|_| number.to_string(), |exact| exact.to_string())
        }
        Content::Seconds(seconds) => format!("{seconds} s"),
        Content::Absent => "no value".to_owned(),
    };
    format!("{name} = {value} {}", unit::name(entry.unit)).trim_end().to_owned()
}
