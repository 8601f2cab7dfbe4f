//! Smart Message Language 1.04 as meters push it (BSI TR-03109-1, annex IV): transport with escape
//! sequences, messages, and the entries of `GetList` responses.
//!
//! Ours and not a crate's because it must be total and tolerant: docs/decisions/0010-sml.md. Every
//! message's CRC is checked besides that of the transport. Kinds of messages that are not known
//! are passed over. Start with [`Decoder`].

use crc::{CRC_16_IBM_SDLC, Crc};

use super::DecodeError;
use item::Item;

mod item;
mod transport;

pub use transport::{Damage, Decoder, Event, FILE_LIMIT};

pub(crate) const X25: Crc<u16> = Crc::<u16>::new(&CRC_16_IBM_SDLC);

const GET_LIST_RESPONSE: u64 = 0x0701;

/// A list of values, as a `GetList` response carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// The meter's own number.
    pub server: Vec<u8>,
    /// Its values.
    pub entries: Vec<Entry>,
}

/// One value of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is: the six bytes of an OBIS id.
    pub name: Vec<u8>,
    /// The meter's status word, when it gives one.
    pub status: Option<u64>,
    /// The code of the unit (IEC 62056-6-2, table 4); 0 when there is none.
    pub unit: u8,
    /// The power of ten that a number is multiplied by.
    pub scaler: i8,
    /// The value itself.
    pub value: Content,
}

/// The value of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Bytes without a meaning of their own: a number plate, a key.
    Octets(Vec<u8>),
    /// A truth value.
    Bool(bool),
    /// A number.
    Number(i128),
    /// A time: seconds that the meter counts.
    Seconds(u64),
    /// Nothing was sent.
    Absent,
}

/// Reads the messages of one transmission, without its transport.
///
/// # Errors
/// Where the bytes are no messages, or a message's CRC is wrong.
pub fn decode(file: &[u8]) -> Result<Vec<List>, DecodeError> {
    let mut lists = Vec::new();
    let mut rest = file;
    while let Some(first) = rest.first() {
        // The end of a message, repeated by meters that fill up.
        if *first == 0 {
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        let offset = file.len() - rest.len();
        let (body, after) = message(rest, offset)?;
        rest = after;
        if let Some(list) = body.and_then(list) {
            lists.push(list);
        }
    }
    Ok(lists)
}

/// Splits off one message and returns the content of its body when it is a list.
fn message(bytes: &[u8], offset: usize) -> Result<(Option<Item<'_>>, &[u8]), DecodeError> {
    let wrong =
        |rest: &[u8], expected, found: String| DecodeError::new(offset + bytes.len() - rest.len(), expected, found);
    let mut rest = item::list_of(bytes, 6).ok_or_else(|| wrong(bytes, "a message of six parts", String::new()))?;
    let mut body = None;
    for _ in 0..4 {
        let (part, after) =
            item::decode(rest).map_err(|e| wrong(rest, e, format!("byte {:02X}", rest.first().unwrap_or(&0))))?;
        (body, rest) = (Some(part), after);
    }
    let summed = bytes.get(..bytes.len() - rest.len()).unwrap_or_default();
    let (told, after) = item::decode(rest).map_err(|e| wrong(rest, e, String::new()))?;
    let fits = |sum: u16| told == Item::Unsigned(u64::from(sum.swap_bytes()));
    if !fits(X25.checksum(summed)) {
        return Err(wrong(rest, "the CRC of the message", format!("{told:?}")));
    }
    let Some((0, after)) = after.split_first() else { return Err(wrong(after, "the end of a message", String::new())) };
    let content = match body {
        Some(Item::List(parts)) => match <[Item<'_>; 2]>::try_from(parts) {
            Ok([Item::Unsigned(GET_LIST_RESPONSE), content]) => Some(content),
            _ => None,
        },
        _ => None,
    };
    Ok((content, after))
}

fn list(item: Item<'_>) -> Option<List> {
    let Item::List(parts) = item else { return None };
    let server = parts.get(1)?.octets().to_vec();
    let Item::List(entries) = parts.into_iter().nth(4)? else { return None };
    Some(List { server, entries: entries.into_iter().filter_map(entry).collect() })
}

fn entry(item: Item<'_>) -> Option<Entry> {
    let Item::List(parts) = item else { return None };
    let mut parts = parts.into_iter();
    let name = parts.next()?.octets().to_vec();
    let status = parts.next()?.unsigned();
    let _time = parts.next()?;
    let unit = parts.next()?.unsigned().and_then(|u| u8::try_from(u).ok()).unwrap_or_default();
    let scaler = match parts.next()? {
        Item::Signed(scaler) => i8::try_from(scaler).ok()?,
        Item::Octets([]) => 0,
        _ => return None,
    };
    let value = match parts.next()? {
        Item::Octets([]) => Content::Absent,
        Item::Octets(bytes) => Content::Octets(bytes.to_vec()),
        Item::Bool(truth) => Content::Bool(truth),
        Item::Signed(number) => Content::Number(number.into()),
        Item::Unsigned(number) => Content::Number(number.into()),
        Item::List(parts) => match parts.as_slice() {
            [Item::Unsigned(_), Item::Unsigned(seconds)] => Content::Seconds(*seconds),
            _ => return None,
        },
    };
    Some(Entry { name, status, unit, scaler, value })
}

#[cfg(test)]
mod tests;
