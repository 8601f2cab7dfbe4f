//! SML: meters that push lists of values through an optical head or over TCP.
//!
//! A value is named by its OBIS id, `1-0:1.8.0*255`; a number is multiplied by its power of ten
//! exactly; octets are published as hexadecimal digits, but the maker's three letters as letters.
//! The meter's status word is `id#status`, the meter's own number `server_id`.

use std::collections::HashMap;

use data_encoding::HEXUPPER;

use super::heard::{self, Wishes};
use super::{Driver, Listener, MeterError, MeterSettings, Protocol};
use crate::model::{Decimal, Quality, Value};
use crate::setting::Problems;
use crate::wire::sml::{Content, Decoder, Entry, Event, List};
use crate::wire::unit;

/// The row of this protocol in the table of protocols.
pub(super) const ROW: Protocol = Protocol { name: "sml", driver: Driver::Listens(listener), check };

/// The id under which meters give their maker (FLAG id) as text.
const MAKER: &str = "129-129:199.130.3*255";

#[expect(clippy::unnecessary_wraps, reason = "the table's type; other listeners can refuse")]
fn listener(settings: &MeterSettings) -> Result<Box<dyn Listener>, String> {
    Ok(Box::new(Sml { decoder: Decoder::new(), wishes: Wishes::new(settings) }))
}

fn check(settings: &MeterSettings, problems: &mut Problems) {
    heard::check(settings, problems);
}

struct Sml {
    decoder: Decoder,
    wishes: Wishes,
}

impl Sml {
    fn drain(&mut self) -> Vec<Result<Vec<Value>, MeterError>> {
        let mut found = Vec::new();
        while let Some(event) = self.decoder.next() {
            match event {
                Event::Skipped { .. } => {}
                Event::Damaged(reason) => found.push(Err(MeterError::Damaged(reason.to_string()))),
                Event::Lists(lists) => {
                    let all = values(&lists);
                    if !all.is_empty() {
                        found.push(Ok(self.wishes.keep(all)));
                    }
                }
            }
        }
        found
    }
}

impl Listener for Sml {
    fn push(&mut self, bytes: &[u8]) -> Vec<Result<Vec<Value>, MeterError>> {
        self.decoder.push(bytes);
        self.drain()
    }

    fn silence(&mut self) -> Vec<Result<Vec<Value>, MeterError>> {
        self.decoder.silence();
        self.drain()
    }

    fn absent(&self, quality: Quality) -> Vec<Value> {
        self.wishes.absent(quality)
    }
}

/// The values of the lists of one transmission. An id that comes again is `id#2`, `id#3` ...
fn values(lists: &[List]) -> Vec<Value> {
    let mut values = Vec::new();
    let mut count: HashMap<String, usize> = HashMap::new();
    for list in lists {
        if values.is_empty() && !list.server.is_empty() {
            values.push(good("server_id".to_owned(), HEXUPPER.encode(&list.server), ""));
        }
        // An entry without a value says that the meter has none; there is nothing to publish.
        for entry in list.entries.iter().filter(|entry| entry.value != Content::Absent) {
            let id = id(&entry.name);
            let number = count.entry(id.clone()).and_modify(|n| *n += 1).or_insert(1);
            let name = if *number == 1 { id.clone() } else { format!("{id}#{number}") };
            values.push(value(name, &id, entry));
            if let Some(status) = entry.status
                && *number == 1
            {
                values.push(good(format!("{id}#status"), status.to_string(), ""));
            }
        }
    }
    values
}

fn value(name: String, id: &str, entry: &Entry) -> Value {
    let text = match &entry.value {
        Content::Octets(octets) if id == MAKER && octets.iter().all(u8::is_ascii_graphic) => {
            Some(String::from_utf8_lossy(octets).into_owned())
        }
        Content::Octets(octets) => Some(HEXUPPER.encode(octets)),
        Content::Bool(truth) => Some(u8::from(*truth).to_string()),
        Content::Number(number) => Decimal::new(*number, entry.scaler.into()).ok().map(|d| d.to_string()),
        Content::Seconds(seconds) => Some(seconds.to_string()),
        Content::Absent => None,
    };
    let unit = if matches!(entry.value, Content::Seconds(_)) { "s" } else { unit::name(entry.unit) };
    match text {
        Some(text) => good(name, text, unit),
        // No meter has a number of so many digits.
        None => Value { name, value: None, unit: unit.to_owned(), quality: Quality::Invalid },
    }
}

fn good(name: String, text: String, unit: &str) -> Value {
    Value { name, value: Some(text), unit: unit.to_owned(), quality: Quality::Good }
}

/// The id as IEC 62056-6-1 writes it; other names as hexadecimal digits.
fn id(name: &[u8]) -> String {
    match name {
        [a, b, c, d, e, f] => format!("{a}-{b}:{c}.{d}.{e}*{f}"),
        other => HEXUPPER.encode(other),
    }
}

#[cfg(test)]
mod tests;
