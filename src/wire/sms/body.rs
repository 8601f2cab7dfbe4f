//! User data (3GPP TS 23.040, 9.2.3.24): what a message says and the header in front of it; long texts in parts.

use super::alphabet;
use super::reader::Reader;
use crate::wire::DecodeError;

/// The octets that one message has for its user data.
const ROOM: usize = 140;

/// What a message says, as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Septets of the GSM alphabet.
    Gsm(Vec<u8>),
    /// UTF-16, though the standard calls it UCS-2.
    Ucs2(Vec<u16>),
    /// Eight bit data.
    Octets(Vec<u8>),
}

impl Body {
    /// The body of a text: in the GSM alphabet when that has all its characters, else UCS-2.
    pub fn of(text: &str) -> Self {
        alphabet::encode(text).map_or_else(|| Self::Ucs2(text.encode_utf16().collect()), Self::Gsm)
    }

    /// The text; of eight bit data what it is as UTF-8, else as Latin-1.
    pub fn text(&self) -> String {
        match self {
            Self::Gsm(septets) => alphabet::decode(septets),
            Self::Ucs2(units) => String::from_utf16_lossy(units),
            Self::Octets(octets) => match std::str::from_utf8(octets) {
                Ok(text) => text.to_owned(),
                Err(_) => octets.iter().map(|octet| char::from(*octet)).collect(),
            },
        }
    }

    /// Joins what comes after it; what is of another alphabet is joined as text.
    pub fn append(&mut self, next: &Self) {
        match (&mut *self, next) {
            (Self::Gsm(all), Self::Gsm(next)) => all.extend_from_slice(next),
            (Self::Ucs2(all), Self::Ucs2(next)) => all.extend_from_slice(next),
            (Self::Octets(all), Self::Octets(next)) => all.extend_from_slice(next),
            (all, next) => *all = Self::Ucs2(format!("{}{}", all.text(), next.text()).encode_utf16().collect()),
        }
    }

    /// The data coding scheme that names the alphabet (3GPP TS 23.038, 4).
    pub const fn coding(&self) -> u8 {
        match self {
            Self::Gsm(_) => 0x00,
            Self::Octets(_) => 0x04,
            Self::Ucs2(_) => 0x08,
        }
    }
}

/// The alphabets that a data coding scheme can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alphabet {
    Gsm,
    Octets,
    Ucs2,
}

/// The alphabet of a data coding scheme (3GPP TS 23.038, 4). Compressed text is left as octets.
const fn alphabet_of(coding: u8) -> Alphabet {
    match (coding >> 4, coding >> 2 & 3, coding >> 2 & 1) {
        (2 | 3 | 6 | 7, _, _) | (0..=7, 1, _) | (15, _, 1) => Alphabet::Octets,
        (0..=7, 2, _) | (14, _, _) => Alphabet::Ucs2,
        _ => Alphabet::Gsm,
    }
}

/// An element of the user data header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// What it is, e.g. 0 for a part of a long message.
    pub id: u8,
    /// Its octets.
    pub data: Vec<u8>,
}

/// Which part of a long message this is (9.2.3.24.1 and 9.2.3.24.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Part {
    /// What the parts of one message have in common.
    pub reference: u16,
    /// Whether the reference has 16 bits.
    pub wide: bool,
    /// How many parts there are.
    pub of: u8,
    /// Which one it is, from 1.
    pub number: u8,
}

impl Part {
    fn element(self) -> Element {
        let [high, low] = self.reference.to_be_bytes();
        let data = if self.wide { vec![high, low, self.of, self.number] } else { vec![low, self.of, self.number] };
        Element { id: if self.wide { 8 } else { 0 }, data }
    }

    fn from(element: &Element) -> Option<Self> {
        let (reference, wide, of, number) = match (element.id, element.data.as_slice()) {
            (0, &[reference, of, number]) => (u16::from(reference), false, of, number),
            (8, &[high, low, of, number]) => (u16::from_be_bytes([high, low]), true, of, number),
            _ => return None,
        };
        // 9.2.3.24.1: a header that makes no sense is passed over, the message stands alone.
        (number >= 1 && number <= of).then_some(Self { reference, wide, of, number })
    }
}

/// The user data of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserData {
    /// The elements of its header; most messages have none.
    pub header: Vec<Element>,
    /// What it says.
    pub body: Body,
}

impl UserData {
    /// User data without a header.
    pub const fn plain(body: Body) -> Self {
        Self { header: Vec::new(), body }
    }

    /// Which part of a long message it is; `None` when it stands alone.
    pub fn part(&self) -> Option<Part> {
        self.header.iter().find_map(Part::from)
    }

    /// Appends length, header and body.
    ///
    /// # Errors
    /// When it is more than the 140 octets that a message has for it.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let too_long = |what: usize| DecodeError::new(0, "user data of at most 140 octets", what.to_string());
        let header = self.header_octets().ok_or_else(|| too_long(self.header.len()))?;
        let mut octets = header.clone();
        let count = match &self.body {
            Body::Gsm(septets) => {
                let behind = header.len() * 8;
                let fill = behind.next_multiple_of(7) - behind;
                alphabet::pack(septets, fill, &mut octets);
                behind.div_ceil(7) + septets.len()
            }
            Body::Ucs2(units) => {
                octets.extend(units.iter().flat_map(|unit| unit.to_be_bytes()));
                octets.len()
            }
            Body::Octets(data) => {
                octets.extend_from_slice(data);
                octets.len()
            }
        };
        let length = u8::try_from(count).ok().filter(|_| octets.len() <= ROOM);
        out.push(length.ok_or_else(|| too_long(octets.len()))?);
        out.extend(octets);
        Ok(())
    }

    /// The header with its length; nothing when there are no elements. `None`: too long.
    fn header_octets(&self) -> Option<Vec<u8>> {
        let mut elements = Vec::new();
        for element in &self.header {
            elements.extend([element.id, u8::try_from(element.data.len()).ok()?]);
            elements.extend_from_slice(&element.data);
        }
        if elements.is_empty() {
            return Some(elements);
        }
        let mut octets = vec![u8::try_from(elements.len()).ok().filter(|length| usize::from(*length) < ROOM)?];
        octets.extend(elements);
        Some(octets)
    }

    /// Reads length, header and body.
    pub(super) fn decode(reader: &mut Reader<'_>, coding: u8, has_header: bool) -> Result<Self, DecodeError> {
        let offset = reader.offset();
        let length = usize::from(reader.octet("the length of the user data")?);
        let alphabet = alphabet_of(coding);
        let octets = if alphabet == Alphabet::Gsm { (length * 7).div_ceil(8) } else { length };
        if octets > ROOM {
            return Err(DecodeError::new(offset, "user data of at most 140 octets", octets.to_string()));
        }
        let octets = reader.take(octets, "the user data")?;
        let mut inside = Reader::new(octets);
        let header = if has_header { elements(&mut inside)? } else { Vec::new() };
        let behind = inside.offset();
        let body = match alphabet {
            Alphabet::Gsm => {
                let taken = (behind * 8).div_ceil(7);
                let fill = taken * 7 - behind * 8;
                Body::Gsm(alphabet::unpack(inside.rest(), fill, length.saturating_sub(taken)))
            }
            Alphabet::Ucs2 => {
                let unit = |pair: &[u8]| Some(u16::from_be_bytes([*pair.first()?, *pair.get(1)?]));
                Body::Ucs2(inside.rest().chunks_exact(2).filter_map(unit).collect())
            }
            Alphabet::Octets => Body::Octets(inside.rest().to_vec()),
        };
        Ok(Self { header, body })
    }
}

fn elements(reader: &mut Reader<'_>) -> Result<Vec<Element>, DecodeError> {
    let length = usize::from(reader.octet("the length of the user data header")?);
    let mut inside = Reader::new(reader.take(length, "the user data header")?);
    let mut found = Vec::new();
    // What is cut at the end of the header is passed over: the message is still readable.
    while let Ok(id) = inside.octet("an element") {
        let Ok(length) = inside.octet("its length") else { break };
        let Ok(data) = inside.take(usize::from(length), "an element") else { break };
        found.push(Element { id, data: data.to_vec() });
    }
    Ok(found)
}

/// Puts a text into messages: in the GSM alphabet when that has all its characters, else UCS-2; in one when it fits,
/// else in parts that have `reference` in common. `None` when it needs more than `most` messages.
pub fn split(text: &str, reference: u8, most: u8) -> Option<Vec<UserData>> {
    let whole = Body::of(text);
    let (alone, each) = match &whole {
        Body::Gsm(_) => (160, 153),
        _ => (70, 67),
    };
    let bodies = match &whole {
        Body::Gsm(septets) if septets.len() > alone => {
            cut(septets, each, |last| *last == alphabet::ESCAPE).into_iter().map(Body::Gsm).collect()
        }
        Body::Ucs2(units) if units.len() > alone => {
            cut(units, each, |last| (0xD800..0xDC00).contains(last)).into_iter().map(Body::Ucs2).collect()
        }
        _ => vec![whole],
    };
    let of = u8::try_from(bodies.len()).ok().filter(|of| *of <= most)?;
    let part = |number: u8| Part { reference: u16::from(reference), wide: false, of, number }.element();
    let header = |number: u8| if of == 1 { Vec::new() } else { vec![part(number)] };
    Some((1..=of).zip(bodies).map(|(number, body)| UserData { header: header(number), body }).collect())
}

/// Cuts into pieces of at most `each`, none of which ends with what belongs to the next.
fn cut<T: Copy>(all: &[T], each: usize, belongs_to_next: impl Fn(&T) -> bool) -> Vec<Vec<T>> {
    let mut pieces = Vec::new();
    let mut rest = all;
    while !rest.is_empty() {
        let (mut piece, mut after) = rest.split_at(each.min(rest.len()));
        if let Some((last, short)) = piece.split_last()
            && belongs_to_next(last)
            && !after.is_empty()
            && !short.is_empty()
        {
            (piece, after) = rest.split_at(short.len());
        }
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn joined(parts: &[UserData]) -> String {
        let mut body = parts[0].body.clone();
        parts[1..].iter().for_each(|part| body.append(&part.body));
        body.text()
    }

    #[test]
    fn a_text_is_cut_only_when_it_must_be_and_never_within_a_character() {
        let lengths = |text: &str| split(text, 7, 255).unwrap().len();
        assert_eq!((lengths(&"a".repeat(160)), lengths(&"a".repeat(161))), (1, 2));
        assert_eq!((lengths(&"ł".repeat(70)), lengths(&"ł".repeat(71))), (1, 2));
        assert_eq!((lengths(&"a".repeat(306)), lengths(&"a".repeat(307))), (2, 3));
        let euros = split(&format!("{}€{}", "a".repeat(152), "b".repeat(20)), 7, 9).unwrap();
        assert_eq!(euros[0].body.text(), "a".repeat(152));
        let pairs = split(&format!("{}\u{1F600}{}", "ł".repeat(66), "b".repeat(20)), 7, 9).unwrap();
        assert_eq!(pairs[0].body.text(), "ł".repeat(66));
        assert_eq!(split(&"a".repeat(154 * 9), 7, 9), None);
        assert_eq!(pairs[1].part(), Some(Part { reference: 7, wide: false, of: 2, number: 2 }));
    }

    #[test]
    fn a_part_that_makes_no_sense_stands_alone() {
        for (id, data) in [(0, vec![1, 2, 0]), (0, vec![1, 2, 3]), (8, vec![0, 1, 0, 0]), (0, vec![1, 2])] {
            let data = UserData { header: vec![Element { id, data }], body: Body::of("x") };
            assert_eq!(data.part(), None);
        }
    }

    proptest! {
        #[test]
        fn parts_joined_are_the_text_and_each_fits_into_a_message(text in "[ -~€ł\u{1F600}\\[]{0,900}") {
            let parts = split(&text, 200, 255).unwrap();
            for part in &parts {
                let mut out = Vec::new();
                part.encode(&mut out).unwrap();
                prop_assert!(out.len() <= ROOM + 1);
                let again = UserData::decode(&mut Reader::new(&out), part.body.coding(), !part.header.is_empty()).unwrap();
                prop_assert_eq!(&again, part);
            }
            prop_assert_eq!(joined(&parts), text);
        }
    }
}
