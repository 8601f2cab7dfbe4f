//! Addresses (3GPP TS 23.040, 9.1.2.5) and time stamps (9.2.3.11).

use std::fmt;
use std::time::Duration;

use super::alphabet;
use super::reader::Reader;
use crate::model::Timestamp;
use crate::wire::DecodeError;

/// Who sends or is sent to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A number with its country code; the digits without the plus sign.
    International(String),
    /// A number as one dials it, or a short one; the digits.
    National(String),
    /// A name instead of a number, as companies send.
    Name(String),
}

/// More digits are in no address (9.1.2.5: 10 octets).
const MOST_DIGITS: usize = 20;
const DIGITS: &[u8; 15] = b"0123456789*#abc";

impl Address {
    /// Reads a number as people write it: `+34 666 12-34-56`, `0171/1234567`, `2525`, `*100#`. `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let plain: String = text.chars().filter(|c| !matches!(c, ' ' | '-' | '/' | '(' | ')' | '.')).collect();
        let (international, digits) = match plain.strip_prefix('+') {
            Some(digits) => (true, digits),
            None => (false, plain.as_str()),
        };
        let known =
            |c: char| if international { c.is_ascii_digit() } else { DIGITS.iter().any(|d| char::from(*d) == c) };
        if digits.is_empty() || digits.len() > MOST_DIGITS || !digits.chars().all(known) {
            return None;
        }
        let digits = digits.to_owned();
        Some(if international { Self::International(digits) } else { Self::National(digits) })
    }

    /// The octet that tells what kind of address it is (type of number, numbering plan).
    pub const fn type_octet(&self) -> u8 {
        match self {
            Self::International(_) => 0x91,
            Self::National(_) => 0x81,
            Self::Name(_) => 0xD0,
        }
    }

    /// Appends length, type and value. Characters that no address has are left out, and what is beyond 20 digits.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (length, value) = self.parts();
        out.extend([length, self.type_octet()]);
        out.extend(value);
    }

    /// Appends it as a service centre's address: the length counts octets, with the type (3GPP TS 24.011, 8.2.5.1).
    pub(super) fn encode_centre(&self, out: &mut Vec<u8>) {
        let (_, value) = self.parts();
        out.push(u8::try_from(value.len() + 1).unwrap_or(u8::MAX));
        out.push(self.type_octet());
        out.extend(value);
    }

    /// How many half octets are used, and the octets.
    fn parts(&self) -> (u8, Vec<u8>) {
        let mut octets = Vec::new();
        let used = match self {
            Self::International(digits) | Self::National(digits) => {
                let code = |c: u8| DIGITS.iter().position(|d| *d == c).and_then(|at| u8::try_from(at).ok());
                let codes: Vec<u8> = digits.bytes().filter_map(code).take(MOST_DIGITS).collect();
                let octet = |pair: &[u8]| pair.first().unwrap_or(&0) | pair.get(1).unwrap_or(&0xF) << 4;
                octets.extend(codes.chunks(2).map(octet));
                codes.len()
            }
            Self::Name(name) => {
                let mut septets: Vec<u8> = name.chars().filter_map(alphabet::septets).flat_map(pair).collect();
                septets.truncate(MOST_DIGITS / 2 * 8 / 7);
                alphabet::pack(&septets, 0, &mut octets);
                (septets.len() * 7).div_ceil(4)
            }
        };
        (u8::try_from(used).unwrap_or(u8::MAX), octets)
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let offset = reader.offset();
        let length = usize::from(reader.octet("the length of an address")?);
        if length > 2 * 12 {
            return Err(DecodeError::new(offset, "an address of at most 20 digits", length.to_string()));
        }
        let kind = reader.octet("the type of an address")?;
        let octets = reader.take(length.div_ceil(2), "an address")?;
        Ok(Self::of(kind, octets, length))
    }

    pub(super) fn decode_centre(reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        let length = usize::from(reader.octet("the length of the service centre's address")?);
        let mut octets = Reader::new(reader.take(length, "the service centre's address")?);
        let Ok(kind) = octets.octet("its type") else { return Ok(None) };
        let rest = octets.rest();
        Ok(Some(Self::of(kind, rest, rest.len() * 2)))
    }

    fn of(kind: u8, octets: &[u8], length: usize) -> Self {
        if kind & 0x70 == 0x50 {
            return Self::Name(alphabet::decode(&alphabet::unpack(octets, 0, length * 4 / 7)));
        }
        let codes = octets.iter().flat_map(|octet| [octet & 0xF, octet >> 4]).take(length);
        let digits = codes.filter_map(|code| DIGITS.get(usize::from(code))).map(|d| char::from(*d)).collect();
        if kind & 0x70 == 0x10 { Self::International(digits) } else { Self::National(digits) }
    }
}

fn pair((escape, code): (Option<u8>, u8)) -> impl Iterator<Item = u8> {
    escape.into_iter().chain([code])
}

impl fmt::Display for Address {
    /// Writes `+` in front of an international number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::International(digits) => write!(f, "+{digits}"),
            Self::National(text) | Self::Name(text) => f.write_str(text),
        }
    }
}

/// Reads seven octets; `None` when they are no date, as some service centres send.
pub(super) fn decode_time(octets: &[u8]) -> Option<Timestamp> {
    let [year, month, day, hour, minute, second, zone] = *octets else { return None };
    let two = |octet: u8| {
        let (tens, ones) = (octet & 0xF, octet >> 4);
        (tens < 10 && ones < 10).then_some(tens * 10 + ones)
    };
    let date = time::Date::from_calendar_date(
        i32::from(two(year)?) + 2000,
        time::Month::try_from(two(month)?).ok()?,
        two(day)?,
    );
    let moment = date.ok()?.with_hms(two(hour)?, two(minute)?, two(second)?).ok()?.assume_utc();
    // The sign is in the tens.
    let quarters = i64::from(two(zone & !0x08)?) * if zone & 0x08 == 0 { 1 } else { -1 };
    Some(Timestamp::from_millis((moment.unix_timestamp() - quarters * 900) * 1000))
}

/// Appends seven octets: the time in a zone so many quarters of an hour east of Greenwich.
pub(super) fn encode_time(at: Timestamp, quarters: i8, out: &mut Vec<u8>) {
    let local = at.as_millis().div_euclid(1000) + i64::from(quarters) * 900;
    let moment = time::OffsetDateTime::from_unix_timestamp(local).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let swapped = |number: u8| (number / 10 % 10) | (number % 10) << 4;
    let year = u8::try_from(moment.year().rem_euclid(100)).unwrap_or(0);
    let date = [year, u8::from(moment.month()), moment.day(), moment.hour(), moment.minute(), moment.second()];
    out.extend(date.map(swapped));
    out.push(swapped(quarters.unsigned_abs()) | if quarters < 0 { 0x08 } else { 0 });
}

/// How long a relative validity period lasts (9.2.3.12.1).
pub fn validity(octet: u8) -> Duration {
    let octet = u64::from(octet);
    Duration::from_mins(match octet {
        0..=143 => (octet + 1) * 5,
        144..=167 => 12 * 60 + (octet - 143) * 30,
        168..=196 => (octet - 166) * 24 * 60,
        _ => (octet - 192) * 7 * 24 * 60,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let read = |text| Address::parse(text).map(|a| (a.to_string(), a.type_octet()));
        assert_eq!(read("+34 666-12 34(56)"), Some(("+34666123456".into(), 0x91)));
        assert_eq!(read("0171/1234567"), Some(("01711234567".into(), 0x81)));
        assert_eq!(read("*100#"), Some(("*100#".into(), 0x81)));
        for wrong in ["", "+", "+49a", "seven", "123456789012345678901", "++1", "1+1", "12\"\r"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_address_is_length_type_and_swapped_digits() {
        let mut out = Vec::new();
        Address::parse("+46708251358").unwrap().encode(&mut out);
        assert_eq!(out, [0x0B, 0x91, 0x64, 0x07, 0x28, 0x15, 0x53, 0xF8]);
        assert_eq!(Address::decode(&mut Reader::new(&out)).unwrap().to_string(), "+46708251358");
        out.clear();
        Address::Name("Telefonica".into()).encode(&mut out);
        assert_eq!(out[..2], [18, 0xD0]);
        assert_eq!(Address::decode(&mut Reader::new(&out)).unwrap(), Address::Name("Telefonica".into()));
    }

    #[test]
    fn a_time_stamp_counts_its_zone_in_quarters_east_or_west() {
        let at = Timestamp::parse("2026-11-22T15:00:59Z").unwrap();
        for quarters in [0, 4, 22, -14, 79, -79] {
            let mut out = Vec::new();
            encode_time(at, quarters, &mut out);
            assert_eq!(decode_time(&out), Some(at), "{quarters}");
        }
        let known = [0x99, 0x20, 0x21, 0x50, 0x75, 0x03, 0x21];
        assert_eq!(decode_time(&known), Timestamp::parse("2099-02-12T02:57:30Z"));
        assert_eq!(decode_time(&[0xFF; 7]), None);
    }

    #[test]
    fn validity_is_counted_in_the_four_ways_of_the_standard() {
        let hours = |octet| validity(octet).as_secs() / 3600;
        assert_eq!([143, 167, 168, 196, 197, 255].map(hours), [12, 24, 48, 720, 840, 63 * 7 * 24]);
    }
}
