//! What lies above the link layer: extended link layer, authentication layer, transport layer.
//!
//! Nothing here decrypts. A telegram whose upper layers can't be read is still a telegram: the
//! reason is a value ([`Upper::fault`]).

use super::super::DecodeError;
use super::afl::Afl;
use super::ci::{self, Header};
use super::cursor::Cursor;
use super::format::CRC;
use super::meter::Meter;

/// The layers from the first CI field on, as far as they can be read without a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upper<'a> {
    /// The extended link layer, when there is one.
    pub ell: Option<Ell>,
    /// The authentication and fragmentation layer, when there is one.
    pub afl: Option<Afl<'a>>,
    /// The transport layer, or the CI field that stands in its place.
    pub tpl: Option<Tpl<'a>>,
    /// Everything from the transport layer's CI field on; the piece of it in a fragment. When the
    /// reading stopped before, what could not be read.
    pub message: &'a [u8],
    /// Why the reading stopped before the transport layer's end; the offset counts from the
    /// telegram's first byte.
    pub fault: Option<DecodeError>,
}

/// The extended link layer (EN 13757-4, 13.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ell {
    /// Its CI field, 8C to 8F.
    pub ci: u8,
    /// The communication control field.
    pub control: u8,
    /// The access number.
    pub access: u8,
    /// The second address (CI 8E and 8F).
    pub meter: Option<Meter>,
    /// The session number (CI 8D and 8F).
    pub session: Option<u32>,
    /// Whether the payload CRC fits the payload as it stands here (CI 8D and 8F).
    pub payload_crc_fits: Option<bool>,
}

impl Ell {
    /// The bytes of the layer before the payload CRC, its CI field included.
    pub(super) const fn length(self) -> usize {
        let address = if self.meter.is_some() { 8 } else { 0 };
        let session = if self.session.is_some() { 4 } else { 0 };
        3 + address + session
    }

    /// Tells whether the meter marks this telegram as urgent (bit P of the control field).
    pub const fn is_priority(self) -> bool {
        self.control & 0x08 != 0
    }

    /// Whether what follows is encrypted.
    pub fn is_encrypted(self) -> bool {
        self.encryption() != 0
    }

    /// The encryption of what follows: 0 none, 1 AES-128-CTR (bits 31 to 29 of the session number).
    pub fn encryption(self) -> u8 {
        self.session.map_or(0, |session| u8::try_from(session >> 29).unwrap_or(0))
    }
}

/// The transport layer (EN 13757-7, 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tpl<'a> {
    /// Its CI field.
    pub ci: u8,
    /// The meter's own address, in a long header.
    pub meter: Option<Meter>,
    /// Access number, status and configuration, in a short or long header.
    pub header: Option<TplHeader>,
    /// What follows, perhaps encrypted.
    pub body: &'a [u8],
}

/// What short and long transport headers share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TplHeader {
    /// The access number.
    pub access: u8,
    /// The status byte.
    pub status: u8,
    /// The configuration field.
    pub configuration: u16,
}

impl TplHeader {
    /// The security mode: 0 none, 5 AES-CBC, 7 AES-CBC with a derived key ...
    pub fn security_mode(self) -> u8 {
        u8::try_from((self.configuration >> 8) & 0x1F).unwrap_or(0)
    }

    /// Tells whether the application reports an alarm or abnormal condition (status bits 1 and 0
    /// both set).
    pub const fn is_alarm(self) -> bool {
        self.status & 0x03 == 0x03
    }

    /// The status byte in words; empty when all is well.
    pub fn status_words(self) -> Vec<&'static str> {
        let state = match self.status & 0x03 {
            1 => Some("busy"),
            2 => Some("application error"),
            3 => Some("alarm"),
            _ => None,
        };
        let bits = [
            (0x04, "power low"),
            (0x08, "permanent error"),
            (0x10, "temporary error"),
            (0xE0, "manufacturer specific"),
        ];
        let set = bits.into_iter().filter(|(bit, _)| self.status & bit != 0).map(|(_, word)| word);
        state.into_iter().chain(set).collect()
    }
}

/// Reads the layers that start with the CI field at `offset` of a telegram.
pub fn upper(bytes: &[u8], offset: usize) -> Upper<'_> {
    let mut cursor = Cursor { rest: bytes, offset };
    let mut found = Upper::default();
    if let Err(fault) = walk(&mut cursor, &mut found) {
        found.fault = Some(fault);
    }
    found
}

fn walk<'a>(cursor: &mut Cursor<'a>, found: &mut Upper<'a>) -> Result<(), DecodeError> {
    found.message = cursor.rest;
    let mut ci = cursor.byte("a CI field")?;
    if (0x8C..=0x8F).contains(&ci) {
        let ell = extended_link(ci, cursor)?;
        found.ell = Some(ell);
        if ell.encryption() != 0 && ell.payload_crc_fits != Some(true) {
            return Err(cursor.stop("a payload in clear text", "one encrypted in the extended link layer"));
        }
        found.message = cursor.rest;
        ci = cursor.byte("a CI field after the extended link layer")?;
    } else if ci == 0x86 {
        // Its fields are optional and their order is not public.
        return Err(cursor.stop("an extended link layer of a fixed length", "the variable one, CI 86"));
    }
    if ci == ci::AUTHENTICATION {
        let afl = Afl::read(cursor)?;
        found.afl = Some(afl);
        found.message = cursor.rest;
        if afl.fragment() > 1 {
            return Err(cursor.stop("the first fragment of a message", format!("fragment {}", afl.fragment())));
        }
        ci = cursor.byte("a CI field after the authentication layer")?;
    }
    let mut tpl = Tpl { ci, meter: None, header: None, body: cursor.rest };
    let layout = ci::header(ci);
    if layout == Header::Long {
        let [i0, i1, i2, i3, m0, m1, version, device] = *cursor.array::<8>("the long header's address")?;
        tpl.meter = Some(Meter::from_wire([m0, m1, i0, i1, i2, i3, version, device]));
    }
    if layout != Header::None {
        let [access, status, c0, c1] = *cursor.array::<4>("access number, status and configuration")?;
        tpl.header = Some(TplHeader { access, status, configuration: u16::from_le_bytes([c0, c1]) });
    }
    tpl.body = cursor.rest;
    found.tpl = Some(tpl);
    Ok(())
}

fn extended_link(ci: u8, cursor: &mut Cursor<'_>) -> Result<Ell, DecodeError> {
    let [control, access] = *cursor.array::<2>("control field and access number")?;
    let mut ell = Ell { ci, control, access, meter: None, session: None, payload_crc_fits: None };
    if ci == 0x8E || ci == 0x8F {
        ell.meter = Some(Meter::from_wire(*cursor.array::<8>("the second address")?));
    }
    if ci == 0x8D || ci == 0x8F {
        ell.session = Some(u32::from_le_bytes(*cursor.array::<4>("the session number")?));
        let crc = u16::from_le_bytes(*cursor.array::<2>("the payload CRC")?);
        ell.payload_crc_fits = Some(CRC.checksum(cursor.rest) == crc);
    }
    Ok(ell)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_header_gives_mode_and_status() {
        let upper = upper(&[0x7A, 0x0B, 0x0B, 0x20, 0x05, 1, 2], 10);
        let tpl = upper.tpl.unwrap();
        let header = tpl.header.unwrap();
        assert_eq!((header.security_mode(), header.is_alarm(), header.access), (5, true, 0x0B));
        assert_eq!(header.status_words(), ["alarm", "permanent error"]);
        assert_eq!((tpl.body, tpl.meter, upper.fault), (&[1, 2][..], None, None));
    }

    #[test]
    fn a_long_header_has_its_own_address_with_the_number_first() {
        let bytes = [0x72, 0x26, 0x75, 0x66, 0x54, 0xA5, 0x11, 0x70, 0x07, 0x1F, 0, 0x50, 0x05];
        let tpl = upper(&bytes, 10).tpl.unwrap();
        assert_eq!(tpl.meter.unwrap().to_string(), "DME 54667526 v70 t07");
        assert_eq!(tpl.header.unwrap().security_mode(), 5);
    }

    #[test]
    fn a_clear_payload_in_the_extended_link_layer_is_walked_and_an_encrypted_one_is_not() {
        let payload = [0x78, 1, 2, 3];
        let mut bytes = vec![0x8D, 0x28, 0x91, 0, 0, 0, 0x20];
        bytes.extend(CRC.checksum(&payload).to_le_bytes());
        bytes.extend(payload);
        let clear = upper(&bytes, 10);
        assert_eq!(
            clear.ell.map(|e| (e.is_priority(), e.encryption(), e.payload_crc_fits)),
            Some((true, 1, Some(true)))
        );
        assert_eq!(clear.tpl.unwrap().ci, 0x78);
        *bytes.last_mut().unwrap() ^= 1;
        let encrypted = upper(&bytes, 10);
        assert!(encrypted.tpl.is_none());
        assert_eq!(encrypted.fault.unwrap().offset, 19);
    }

    #[test]
    fn an_authentication_layer_is_skipped_by_its_length() {
        let bytes = [0x90, 0x0F, 0x00, 0x2C, 0x25, 0x45, 0x42, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x7A, 0x12, 0, 0x40, 0x07];
        let found = upper(&bytes, 12);
        let afl = found.afl.unwrap();
        assert_eq!((afl.control, afl.counter, afl.more_fragments()), (0x2C00, Some(0x0001_4245), false));
        assert_eq!(found.tpl.unwrap().header.unwrap().security_mode(), 7);
    }

    #[test]
    fn a_later_fragment_and_an_unknown_extension_stop_the_walk_with_a_reason() {
        let fragment = upper(&[0x90, 2, 0x02, 0x00, 0x7A, 0, 0, 0, 0], 10);
        assert!(fragment.tpl.is_none() && fragment.fault.unwrap().found.contains("fragment 2"));
        let variable = upper(&[0x86, 1, 2, 3, 0x7A, 0, 0, 0, 0], 10);
        assert!(variable.fault.unwrap().found.contains("86"));
    }

    #[test]
    fn every_shortened_telegram_says_where_it_ends() {
        let bytes = [0x8E, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x90, 2, 0, 0, 0x72, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 5];
        assert!(upper(&bytes, 10).fault.is_none());
        for length in 0..bytes.len() {
            let fault = upper(&bytes[..length], 10).fault.unwrap();
            assert!(fault.offset <= 10 + length, "{length}: {fault}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let found = upper(&bytes, 10);
            prop_assert!(found.tpl.is_some() != found.fault.is_some());
        }
    }
}
