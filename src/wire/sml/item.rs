//! The items that messages are made of: a type and length, then bytes or further items.

/// Lists within lists; a message needs five.
const DEPTH: u8 = 8;

/// One item. "Not set" is an octet string without octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Octets(&'a [u8]),
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    List(Vec<Self>),
}

impl<'a> Item<'a> {
    /// Its octets; none when it is something else.
    pub(super) const fn octets(&self) -> &'a [u8] {
        match self {
            Self::Octets(octets) => octets,
            _ => &[],
        }
    }

    /// Its number, when it is one without a sign.
    pub(super) const fn unsigned(&self) -> Option<u64> {
        match self {
            Self::Unsigned(number) => Some(*number),
            _ => None,
        }
    }
}

/// The bytes behind the head of a list of exactly `count` items.
pub(super) fn list_of(bytes: &[u8], count: usize) -> Option<&[u8]> {
    match head(bytes) {
        Ok((7, length, rest)) if length == count => Some(rest),
        _ => None,
    }
}

/// Reads one item and returns what stands behind it.
pub(super) fn decode(bytes: &[u8]) -> Result<(Item<'_>, &[u8]), &'static str> {
    nested(bytes, DEPTH)
}

fn nested(bytes: &[u8], depth: u8) -> Result<(Item<'_>, &[u8]), &'static str> {
    let (kind, length, rest) = head(bytes)?;
    if kind == 7 {
        let depth = depth.checked_sub(1).ok_or("lists that are less deep")?;
        // An item has at least one byte: what can't be there needs no room.
        if length > rest.len() {
            return Err("a list that ends in the message");
        }
        let mut items = Vec::new();
        let mut rest = rest;
        for _ in 0..length {
            let (item, after) = nested(rest, depth)?;
            items.push(item);
            rest = after;
        }
        return Ok((Item::List(items), rest));
    }
    let (content, rest) = rest.split_at_checked(length).ok_or("an item that ends in the message")?;
    let item = match (kind, content) {
        (0, octets) => Item::Octets(octets),
        (4, [truth]) => Item::Bool(*truth != 0),
        (5, [first, ..]) if content.len() <= 8 => {
            let sign = if *first >= 0x80 { -1 } else { 0 };
            Item::Signed(content.iter().fold(sign, |sum, b| sum << 8 | i64::from(*b)))
        }
        (6, [_, ..]) if content.len() <= 8 => Item::Unsigned(content.iter().fold(0, |sum, b| sum << 8 | u64::from(*b))),
        _ => return Err("an octet string, number, truth value or list"),
    };
    Ok((item, rest))
}

/// Kind, length without the head's own bytes (of a list: its items), and what follows.
fn head(bytes: &[u8]) -> Result<(u8, usize, &[u8]), &'static str> {
    let (first, mut rest) = bytes.split_first().ok_or("one more item")?;
    let kind = first >> 4 & 7;
    let mut length = usize::from(first & 0x0F);
    let mut width = 1;
    let mut more = first & 0x80 != 0;
    while more {
        let (next, after) = rest.split_first().ok_or("the rest of a length")?;
        if next & 0x70 != 0 || width >= 4 {
            return Err("a length of at most four bytes");
        }
        length = length << 4 | usize::from(next & 0x0F);
        more = next & 0x80 != 0;
        rest = after;
        width += 1;
    }
    let length = if kind == 7 { Some(length) } else { length.checked_sub(width) };
    Ok((kind, length.ok_or("a length that counts its own bytes")?, rest))
}
