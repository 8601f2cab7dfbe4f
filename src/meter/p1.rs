//! The P1 port of DSMR/ESMR 2.2 to 5, of Fluvius, and of the ciphered meters of Luxembourg and
//! Austria.
//!
//! A value is named by its OBIS id. `id(time)(value*unit)`, as M-Bus sub-meters and maxima have it,
//! is `id` and `id#time`, both in their exact text; so is the reading of DSMR 2.2, whose value
//! stands on a line of its own. Further values of an id are `id#2`, `id#3` ... A wrong CRC never
//! gives values; what is believed without one, [`Witness`] decides.

use std::path::Path;

use super::heard::{self, Wishes, Witness};
use super::iec62056::pick;
use super::{Driver, Listener, MeterError, MeterSettings, Protocol};
use crate::model::{Quality, Value};
use crate::os::file;
use crate::setting::{Problems, SecretFile};
use crate::wire::iec62056::data::{DataSet, Line};
use crate::wire::p1::{Damage, Decoder, Event, Keys, Sealed, Telegram, Unsealer};

/// The row of this protocol in the table of protocols.
pub(super) const ROW: Protocol = Protocol { name: "dsmr-p1", driver: Driver::Listens(listener), check };

/// The longest file that is taken for a key.
const KEY_FILE_LIMIT: u64 = 256;

fn listener(settings: &MeterSettings) -> Result<Box<dyn Listener>, String> {
    let stream = match (&settings.key_file, &settings.authentication_key_file) {
        (None, None) => Stream::Plain(Decoder::new()),
        (Some(encryption), Some(authentication)) => {
            let keys = Keys::new(&key(encryption)?, &key(authentication)?);
            Stream::Sealed(Box::new(Unsealer::new(keys.ok_or("the cipher does not take the keys")?)))
        }
        _ => return Err(BOTH_KEYS.to_owned()),
    };
    Ok(Box::new(P1 { stream, witness: Witness::default(), wishes: Wishes::new(settings) }))
}

const BOTH_KEYS: &str = "a ciphered meter needs both key_file and authentication_key_file";

fn key(file: &SecretFile) -> Result<[u8; 16], String> {
    read_key(file.path()).map_err(|reason| format!("the key file {} {reason}", file.path().display()))
}

fn read_key(path: &Path) -> Result<[u8; 16], String> {
    let content = file::read_small(path, KEY_FILE_LIMIT).map_err(|e| format!("can't be read: {e}"))?;
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(content.trim_ascii()).ok();
    bytes.and_then(|b| b.try_into().ok()).ok_or_else(|| "does not hold 32 hexadecimal digits".to_owned())
}

/// Says everything in a meter's settings that can't work with this protocol.
fn check(settings: &MeterSettings, problems: &mut Problems) {
    heard::check(settings, problems);
    let keys = (&settings.key_file, &settings.authentication_key_file);
    if let (Some(key), None) | (None, Some(key)) = keys {
        problems.error(key.span(), BOTH_KEYS);
    }
    for file in [&settings.key_file, &settings.authentication_key_file].into_iter().flatten() {
        if let Err(reason) = key(file) {
            problems.warning(file.span(), reason);
        }
    }
}

struct P1 {
    stream: Stream,
    witness: Witness,
    wishes: Wishes,
}

enum Stream {
    Plain(Decoder),
    Sealed(Box<Unsealer>),
}

impl P1 {
    fn drain(&mut self) -> Vec<Result<Vec<Value>, MeterError>> {
        let mut found = Vec::new();
        loop {
            let telegram = match &mut self.stream {
                Stream::Plain(decoder) => match decoder.next() {
                    None => return found,
                    Some(Event::Skipped { .. }) => continue,
                    Some(Event::Damaged { reason, .. }) => Err(MeterError::Damaged(reason.to_string())),
                    Some(Event::Telegram(telegram)) => match self.witness.believe(&telegram) {
                        Ok(()) => Ok(telegram),
                        Err(doubt) => match doubt.sentence() {
                            None => continue,
                            Some(sentence) => Err(MeterError::Damaged(sentence.to_owned())),
                        },
                    },
                },
                Stream::Sealed(unsealer) => match unsealer.next() {
                    None => return found,
                    Some(Sealed::Damaged(reason)) => Err(MeterError::Damaged(reason.to_string())),
                    Some(Sealed::Opened(text)) => opened(&text).map_err(|d| MeterError::Damaged(d.to_string())),
                },
            };
            found.push(telegram.map(|t| self.wishes.keep(values(&t))));
        }
    }
}

/// The message inside a ciphered one; its tag has vouched for it.
fn opened(text: &[u8]) -> Result<Telegram, Damage> {
    let mut decoder = Decoder::new();
    decoder.push(text);
    decoder.push(b"\r\n");
    match decoder.next() {
        Some(Event::Telegram(telegram)) => Ok(telegram),
        Some(Event::Damaged { reason, .. }) => Err(reason),
        Some(Event::Skipped { .. }) | None => Err(Damage::Syntax),
    }
}

impl Listener for P1 {
    fn push(&mut self, bytes: &[u8]) -> Vec<Result<Vec<Value>, MeterError>> {
        match &mut self.stream {
            Stream::Plain(decoder) => decoder.push(bytes),
            Stream::Sealed(unsealer) => unsealer.push(bytes),
        }
        self.drain()
    }

    fn silence(&mut self) -> Vec<Result<Vec<Value>, MeterError>> {
        match &mut self.stream {
            Stream::Plain(decoder) => decoder.silence(),
            Stream::Sealed(unsealer) => unsealer.silence(),
        }
        self.drain()
    }

    fn absent(&self, quality: Quality) -> Vec<Value> {
        self.wishes.absent(quality)
    }
}

/// All values of a message.
fn values(telegram: &Telegram) -> Vec<Value> {
    let mut values = Vec::new();
    let mut plain: Vec<Line> = Vec::new();
    let mut sets = telegram.lines.iter().flatten().peekable();
    while let Some(set) = sets.next() {
        let texts: Vec<&str> = set.values.iter().map(|v| v.text.as_str()).collect();
        let below = sets.peek().filter(|next| next.id.is_empty()).map(|next| next.values.as_slice());
        match (texts.as_slice(), set.values.as_slice(), below) {
            (&[time, _], [_, value], _) if is_time(time) => {
                flush(&mut plain, &mut values);
                values.push(good(set.id.clone(), &value.text, &value.unit));
                values.push(good(format!("{}#time", set.id), time, ""));
            }
            // DSMR 2.2: (time)(status)(period)(number of values)(id)(unit), the value below.
            (&[time, status, _, "1", id, unit], _, Some([value])) => {
                flush(&mut plain, &mut values);
                values.push(good(id.to_owned(), &value.text, unit));
                values.push(good(format!("{id}#time"), time, ""));
                values.push(good(format!("{id}#status"), status, ""));
                let _the_line_below = sets.next();
            }
            _ => plain.push(vec![DataSet::clone(set)]),
        }
    }
    flush(&mut plain, &mut values);
    values
}

fn flush(plain: &mut Vec<Line>, values: &mut Vec<Value>) {
    values.extend(pick::values(&std::mem::take(plain)));
}

fn good(name: String, text: &str, unit: &str) -> Value {
    Value { name, value: Some(text.to_owned()), unit: unit.to_owned(), quality: Quality::Good }
}

/// Whether a text is `YYMMDDhhmmss` with S for summer or W for winter time.
fn is_time(text: &str) -> bool {
    text.len() == 13 && text.bytes().take(12).all(|b| b.is_ascii_digit()) && text.ends_with(['S', 'W'])
}

#[cfg(test)]
mod tests;
