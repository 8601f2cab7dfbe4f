//! What a push says once it is plain (IEC 62056-5-3, clauses 6.12 and 6.13): its time and its body as a tree.
//!
//! Two things that real meters do differently are read as well: a time with a tag of its own (`09 0C ...`, Kaifa
//! and older Kamstrup), and attribute descriptors without type tags (Sagemcom, E.ON). Invariants: total; the
//! tree is not larger than the bytes allow, nor deeper than [`DEEPEST`].

use dlms_cosem_rs::codec::ErrorKind;

use super::{AttributeDescriptor, Data, DateTime, Decode, DecodeError, Reader, fault};

/// The deepest nesting that is followed.
pub const DEEPEST: u8 = 12;

/// A plain push.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification<'a> {
    /// The long invoke id with its flags; a data-notification has one.
    pub invoke: Option<u32>,
    /// When the meter sent it, by its own clock.
    pub time: Option<DateTime>,
    /// What it says.
    pub body: Node<'a>,
    /// Bytes that follow and belong to nothing.
    pub left: usize,
}

/// A value of the body.
#[derive(Debug, Clone, PartialEq)]
pub enum Node<'a> {
    /// A value without parts.
    Leaf(Data<'a>),
    /// An array.
    Array(Vec<Node<'a>>),
    /// A structure.
    Structure(Vec<Node<'a>>),
    /// Class, logical name and attribute of the value that follows, without type tags.
    Descriptor(AttributeDescriptor),
}

impl<'a> Node<'a> {
    /// The parts of an array or a structure.
    pub fn parts(&self) -> Option<&[Self]> {
        match self {
            Self::Array(parts) | Self::Structure(parts) => Some(parts),
            Self::Leaf(_) | Self::Descriptor(_) => None,
        }
    }

    /// The tree of a value; `None` when it is nested too deep.
    pub fn of(data: &Data<'a>) -> Option<Self> {
        Self::of_at(data, 0)
    }

    fn of_at(data: &Data<'a>, depth: u8) -> Option<Self> {
        let parts = |parts: &super::Seq<'a>| {
            let parts = parts.iter().map(|part| Self::of_at(&part.ok()?, depth + 1));
            (depth < DEEPEST).then(|| parts.collect::<Option<Vec<_>>>()).flatten()
        };
        match data {
            Data::Array(seq) => parts(seq).map(Self::Array),
            Data::Structure(seq) => parts(seq).map(Self::Structure),
            other => Some(Self::Leaf(*other)),
        }
    }

    /// A value without parts.
    pub const fn leaf(&self) -> Option<Data<'a>> {
        match self {
            Self::Leaf(data) => Some(*data),
            Self::Array(_) | Self::Structure(_) | Self::Descriptor(_) => None,
        }
    }
}

/// Whether attribute descriptors may stand without type tags.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Descriptors {
    Tagged,
    Untagged,
}

/// Reads a plain data-notification or event-notification.
///
/// # Errors
/// Where and why the bytes are none.
pub fn decode(apdu: &[u8]) -> Result<Notification<'_>, DecodeError> {
    let mut reader = Reader::new(apdu);
    match reader.u8() {
        Ok(0x0F) => data(&mut reader),
        Ok(0xC2) => event(&mut reader).map_err(|e| fault(&e)),
        Ok(other) => Err(DecodeError::new(0, "a notification (0F or C2)", format!("{other:02X}"))),
        Err(error) => Err(fault(&error)),
    }
}

fn data<'a>(reader: &mut Reader<'a>) -> Result<Notification<'a>, DecodeError> {
    let invoke = reader.u32().map_err(|e| fault(&e))?;
    let time = time(reader).map_err(|e| fault(&e))?;
    let mut untagged = reader.clone();
    let notification = |body, left| Notification { invoke: Some(invoke), time, body, left };
    let tagged = node(reader, 0, Descriptors::Tagged);
    // Untagged descriptors are believed when all bytes fit, or more of them than without.
    if tagged.is_err() || !reader.is_empty() {
        let body = node(&mut untagged, 0, Descriptors::Untagged);
        let better = untagged.is_empty() || (tagged.is_ok() && untagged.remaining() < reader.remaining());
        if let Some(body) = body.ok().filter(|_| better) {
            return Ok(notification(body, untagged.remaining()));
        }
    }
    tagged.map(|body| notification(body, reader.remaining())).map_err(|e| fault(&e))
}

fn event<'a>(reader: &mut Reader<'a>) -> dlms_cosem_rs::Result<Notification<'a>> {
    let time = if reader.u8()? == 0 { None } else { time(reader)? };
    let descriptor = AttributeDescriptor::decode(reader)?;
    let value = node(reader, 0, Descriptors::Tagged)?;
    let body = Node::Structure(vec![Node::Descriptor(descriptor), value]);
    Ok(Notification { invoke: None, time, body, left: reader.remaining() })
}

/// An octet string of twelve bytes, or an empty one; Kaifa and older Kamstrup put its tag before it.
fn time(reader: &mut Reader<'_>) -> dlms_cosem_rs::Result<Option<DateTime>> {
    let length = match reader.u8()? {
        0x09 => reader.u8()?,
        // A date-time by its tag, which has no length.
        0x19 => 12,
        length => length,
    };
    match length {
        0 => Ok(None),
        12 => Ok(Some(DateTime::from_bytes(reader.array()?))),
        _ => Err(reader.err_back(ErrorKind::InvalidLength, 1)),
    }
}

fn node<'a>(reader: &mut Reader<'a>, depth: u8, descriptors: Descriptors) -> dlms_cosem_rs::Result<Node<'a>> {
    if depth >= DEEPEST {
        return Err(reader.err(ErrorKind::DepthExceeded));
    }
    let tag = reader.peek_u8()?;
    if !matches!(tag, 1 | 2) {
        return Data::decode(reader).map(Node::Leaf);
    }
    reader.skip(1)?;
    let count = reader.length()?;
    // Each part takes a byte at least.
    if count > reader.remaining() {
        return Err(reader.err(ErrorKind::InvalidLength));
    }
    let mut parts = Vec::new();
    if tag == 2
        && count == 2
        && descriptors == Descriptors::Untagged
        && let Some(found) = untagged(reader)?
    {
        parts.push(Node::Descriptor(found));
    }
    while parts.len() < count {
        parts.push(node(reader, depth + 1, descriptors)?);
    }
    Ok(if tag == 1 { Node::Array(parts) } else { Node::Structure(parts) })
}

/// A descriptor without type tags, if the next nine bytes look like one: a class of the standard, an
/// object of a known medium, an attribute that classes have.
fn untagged(reader: &mut Reader<'_>) -> dlms_cosem_rs::Result<Option<AttributeDescriptor>> {
    match *reader.rest() {
        [0, class, 0..=15, _, _, _, _, storage, attribute, ..]
            if class > 0 && (storage == 255 || storage <= 99) && (1..=30).contains(&attribute) =>
        {
            AttributeDescriptor::decode(reader).map(Some)
        }
        _ => Ok(None),
    }
}
