//! Device identification, function 43 with MEI type 14 (clause 6.21).

use crate::wire::DecodeError;

/// How much of a device's identification is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Vendor, product code and revision (objects 0 to 2).
    Basic,
    /// Also address of the vendor, product, model and application name (objects 3 to 6).
    Regular,
    /// Also the vendor's own objects (128 to 255).
    Extended,
    /// One object.
    One,
}

impl Level {
    /// Its "read device id code".
    pub const fn code(self) -> u8 {
        match self {
            Self::Basic => 1,
            Self::Regular => 2,
            Self::Extended => 3,
            Self::One => 4,
        }
    }

    /// The level of a code.
    pub const fn of_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Basic),
            2 => Some(Self::Regular),
            3 => Some(Self::Extended),
            4 => Some(Self::One),
            _ => None,
        }
    }
}

/// One answer's part of a device's identification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The code of the request.
    pub code: u8,
    /// What the device can tell: 1 to 3 as the levels; with 128 added single objects, too.
    pub conformity: u8,
    /// The object to ask for next, when more follows.
    pub more_from: Option<u8>,
    /// Objects by number, in the order they came.
    pub objects: Vec<(u8, Vec<u8>)>,
    /// The byte "next object id" of an answer after which nothing follows; 0 by the standard.
    pub last_next: u8,
}

/// Function, MEI type, code, conformity, more follows, next object, number of objects.
const HEAD: usize = 7;
/// The bytes that any PDU has at most (Modbus Application Protocol V1.1b3, 4.1).
pub(super) const LONGEST: usize = 253;
const MORE: u8 = 0xFF;

impl Identity {
    /// The MEI type of device identification.
    pub const MEI: u8 = 14;

    /// What object `id` is called in the standard; the vendor's own have no name.
    pub const fn name(id: u8) -> Option<&'static str> {
        Some(match id {
            0 => "vendor",
            1 => "product code",
            2 => "revision",
            3 => "vendor url",
            4 => "product name",
            5 => "model name",
            6 => "application name",
            _ => return None,
        })
    }

    /// The length of the PDU that begins like `pdu`; `None` while too little of it is there.
    pub fn length(pdu: &[u8]) -> Option<usize> {
        let objects = *pdu.get(HEAD - 1)?;
        let mut at = HEAD;
        for _ in 0..objects {
            at += 2 + usize::from(*pdu.get(at + 1)?);
        }
        Some(at)
    }

    /// Reads a whole answer PDU.
    ///
    /// # Errors
    /// When it is no answer to function 43/14, is cut, or longer than any PDU.
    pub fn decode(pdu: &[u8]) -> Result<Self, DecodeError> {
        let cut = || DecodeError::new(pdu.len(), "a whole identification", format!("{} bytes", pdu.len()));
        if pdu.len() > LONGEST {
            return Err(DecodeError::new(LONGEST, "at most 253 bytes", format!("{} bytes", pdu.len())));
        }
        let (&[function, mei, code, conformity, more, next, count], mut rest) =
            pdu.split_first_chunk::<HEAD>().ok_or_else(cut)?;
        if function != 43 || mei != Self::MEI {
            return Err(DecodeError::new(0, "function 43 with MEI type 14", format!("{function} with {mei}")));
        }
        if !matches!(more, 0 | MORE) {
            return Err(DecodeError::new(4, "0 or 255 for \"more follows\"", more.to_string()));
        }
        let mut objects = Vec::new();
        for _ in 0..count {
            let (&[id, length], after) = rest.split_first_chunk().ok_or_else(cut)?;
            let (text, after) = after.split_at_checked(length.into()).ok_or_else(cut)?;
            objects.push((id, text.to_vec()));
            rest = after;
        }
        if !rest.is_empty() {
            return Err(cut());
        }
        let (more_from, last_next) = if more == MORE { (Some(next), 0) } else { (None, next) };
        Ok(Self { code, conformity, more_from, objects, last_next })
    }

    /// Appends the PDU to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (more, next) = self.more_from.map_or((0, self.last_next), |next| (MORE, next));
        let count = u8::try_from(self.objects.len()).unwrap_or(u8::MAX);
        out.extend([43, Self::MEI, self.code, self.conformity, more, next, count]);
        for (id, text) in self.objects.iter().take(count.into()) {
            let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
            out.extend([*id, length]);
            out.extend(text.iter().take(length.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_longer_than_any_pdu_is_no_identification() {
        let with = |length: usize| {
            let objects = vec![(0, vec![b'x'; 200]), (1, vec![b'y'; length])];
            let mut pdu = Vec::new();
            Identity { code: 1, conformity: 1, more_from: None, objects, last_next: 0 }.encode(&mut pdu);
            (pdu.len(), Identity::decode(&pdu).is_ok())
        };
        assert_eq!([with(42), with(43)], [(253, true), (254, false)]);
    }
}
