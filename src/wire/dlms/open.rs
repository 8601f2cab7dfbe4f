//! Opens ciphered pushes (IEC 62056-5-3, clause 5.3.7): AES-GCM of the suites 0, 1 and 2.
//!
//! `DB title SC IC ciphertext tag`, the forms named after services, and general-ciphering (`DD`) under a key that both
//! sides know. The initialization vector is title and invocation counter, the associated data is SC, the
//! authentication key and, with general-ciphering, its head. Invariant: where the tag can be verified, no byte leaves
//! before it was.

use std::fmt;

use super::secret::Secret;
use super::{Apdu, GeneralCiphering, KeyInfo, SecurityControl, decode};
use crate::wire::gcm::{KEY, Key, TAG};

/// The bytes of a system title.
pub const TITLE: usize = 8;

/// The keys of a meter; never shown.
pub struct Keys {
    encryption: Key,
    /// Keys of 32 bytes are those of suite 2, others those of 0 and 1.
    is_long: bool,
    authentication: Option<Secret>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Makes them of the global encryption key and, when it is known, the authentication key; `None` only if
    /// the provider refuses them.
    pub fn new(encryption: &[u8; KEY], authentication: Option<&[u8; KEY]>) -> Option<Self> {
        Self::of(encryption, authentication.map(<[u8; KEY]>::as_slice))
    }

    /// Makes them of 16 bytes each (suites 0 and 1) or of 32 (suite 2); `None` of other numbers, or of two.
    pub fn of(encryption: &[u8], authentication: Option<&[u8]>) -> Option<Self> {
        let fits = authentication.is_none_or(|key| key.len() == encryption.len());
        let is_long = encryption.len() != KEY;
        let authentication = authentication.map(|key| Secret::new(key.to_vec()));
        fits.then_some(Self { encryption: Key::of(encryption)?, is_long, authentication })
    }

    /// Whether tags can be verified.
    pub const fn verifies(&self) -> bool {
        self.authentication.is_some()
    }
}

/// A ciphered APDU, not opened yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// The system title of who sent it, when it is told.
    pub title: Option<&'a [u8]>,
    /// What was done to the content.
    pub control: SecurityControl,
    /// The invocation counter.
    pub counter: u32,
    /// The content.
    pub payload: &'a [u8],
    /// What general-ciphering says before, which its tag vouches for, too; empty in other forms.
    pub head: &'a [u8],
    /// Which key it is under.
    pub key: Under,
}

/// Which key a ciphered APDU is under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Under {
    /// The global unicast key, or the association's.
    Known,
    /// The global broadcast key.
    Broadcast,
    /// One that comes with the APDU, wrapped or agreed upon.
    Brought,
}

/// Why a ciphered APDU is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// It is no ciphered APDU, or breaks off.
    #[error("the ciphered message can't be read")]
    Syntax,
    /// Another cipher.
    #[error(
        "the message is of security suite {0}, which the keys don't fit: suites 0 and 1 take 32 digits, suite 2 takes 64"
    )]
    Suite(u8),
    /// General-ciphering with a key of its own.
    #[error("the message brings its own key, wrapped or by agreement; only messages under a known key can be opened")]
    Brought,
    /// V.44.
    #[error("the message is compressed, which can't be undone here")]
    Compressed,
    /// It names no sender, and nobody else does.
    #[error("the message tells no system title; set it in the settings")]
    Title,
    /// It has no tag, but tags are wanted.
    #[error("the message carries no tag, so anybody may have written it; the settings don't allow that")]
    NoTag,
    /// The tag does not fit.
    #[error("the tag is wrong: the message is damaged or forged, or the keys are other ones")]
    Tag,
}

/// An opened APDU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The plain APDU.
    pub apdu: Vec<u8>,
    /// Whether its tag was verified.
    pub verified: bool,
}

/// Whether an APDU of this tag is ciphered in a form that tells its length: general-glo, general-ded, general-ciphering, or
/// the event notification of either.
pub const fn is_sealed(tag: u8) -> bool {
    matches!(tag, 0xDB | 0xDC | 0xDD | 0xCA | 0xD2)
}

/// The length of a ciphered APDU with its head, once that is there.
///
/// # Errors
/// When it is none of those of [`is_sealed`].
#[expect(clippy::result_unit_err, reason = "there is nothing to say but no")]
pub fn length(bytes: &[u8]) -> Result<Option<usize>, ()> {
    let (head, rest) = match bytes {
        [0xDB | 0xDC] => return Ok(None),
        [0xDB | 0xDC, 8, rest @ ..] => match rest.get(TITLE..) {
            Some(rest) => (2 + TITLE, rest),
            None => return Ok(None),
        },
        [0xDD, rest @ ..] => match head(rest)? {
            Some(length) => (1 + length, rest.get(length..).unwrap_or_default()),
            None => return Ok(None),
        },
        [0xCA | 0xD2, rest @ ..] => (1, rest),
        _ => return Err(()),
    };
    let Some((width, length)) = field(rest)? else { return Ok(None) };
    // SC and counter at least.
    if length < 5 { Err(()) } else { Ok(Some(head + width + length)) }
}

/// The bytes of a length field, and what it says.
fn field(bytes: &[u8]) -> Result<Option<(usize, usize)>, ()> {
    match *bytes {
        [] | [0x81] | [0x82] | [0x82, _] => Ok(None),
        [length @ ..=0x7F, ..] => Ok(Some((1, usize::from(length)))),
        [0x81, length, ..] => Ok(Some((2, usize::from(length)))),
        [0x82, high, low, ..] => Ok(Some((3, usize::from(u16::from_be_bytes([high, low]))))),
        _ => Err(()),
    }
}

/// The bytes of the head of general-ciphering: transaction, both titles, time, other information, and its key. Only
/// the form with a title of eight bytes and short fields is believed.
fn head(bytes: &[u8]) -> Result<Option<usize>, ()> {
    let mut at = 0;
    for number in 0..5 {
        let Some(&length) = bytes.get(at) else { return Ok(None) };
        if length > LONGEST_FIELD || (number == 1 && usize::from(length) != TITLE) {
            return Err(());
        }
        at += 1 + usize::from(length);
    }
    // An optional choice: identified, wrapped, agreed.
    let text = |at: usize| match bytes.get(at..).map_or(Ok(None), field) {
        Ok(Some((width, length))) => Ok(Some(at + width + length)),
        Ok(None) => Ok(None),
        Err(()) => Err(()),
    };
    match (bytes.get(at), bytes.get(at + 1)) {
        (None, _) | (Some(1), None) => Ok(None),
        (Some(0), _) => Ok(Some(at + 1)),
        (Some(1), Some(0)) => Ok(Some(at + 3)),
        (Some(1), Some(1)) => text(at + 3),
        (Some(1), Some(2)) => text(at + 2)?.map_or(Ok(None), text),
        _ => Err(()),
    }
}

/// Longer fields in the head of general-ciphering are not believed where nothing checks them.
const LONGEST_FIELD: u8 = 32;

/// Reads what surrounds a ciphered APDU; `None` when it is not ciphered so.
///
/// # Errors
/// [`Closed::Syntax`] when it breaks off.
pub fn sealed(apdu: &[u8]) -> Result<Option<Sealed<'_>>, Closed> {
    if let Some((&0xDD, rest)) = apdu.split_first() {
        return general(rest).map(Some);
    }
    let ciphered = apdu.first().is_some_and(|tag| matches!(tag, 0x21..=0x58 | 0xC8..=0xD7 | 0xDB | 0xDC));
    if !ciphered {
        return Ok(None);
    }
    let (title, body) = match decode::<Apdu<'_>>(apdu) {
        Ok((Apdu::Ciphered { body, .. }, _)) => (None, body),
        Ok((Apdu::GeneralCiphered { body, .. }, _)) => (Some(body.system_title), body.ciphered),
        Ok(_) => return Ok(None),
        Err(_) => return Err(Closed::Syntax),
    };
    let (control, counter, payload) = (body.security_control, body.invocation_counter, body.payload);
    let key = if control.broadcast_key() { Under::Broadcast } else { Under::Known };
    Ok(Some(Sealed { title: title.filter(|title| !title.is_empty()), control, counter, payload, head: &[], key }))
}

/// Reads what follows the tag of general-ciphering (clause 5.7.2): its five fields go into the tag as they
/// stand, each with its length.
fn general(rest: &[u8]) -> Result<Sealed<'_>, Closed> {
    let (found, _) = decode::<GeneralCiphering<'_>>(rest).map_err(|_| Closed::Syntax)?;
    let mut length = 0;
    for _ in 0..5 {
        let (width, content) = rest.get(length..).map_or(Err(()), field).ok().flatten().ok_or(Closed::Syntax)?;
        length += width + content;
    }
    let body = found.ciphered;
    let key = match found.key_info {
        _ if body.security_control.broadcast_key() => Under::Broadcast,
        None | Some(KeyInfo::Identified { key_id: 0 }) => Under::Known,
        Some(KeyInfo::Identified { .. }) => Under::Broadcast,
        Some(KeyInfo::Wrapped { .. } | KeyInfo::Agreed { .. }) => Under::Brought,
    };
    Ok(Sealed {
        title: Some(found.originator_system_title).filter(|title| !title.is_empty()),
        control: body.security_control,
        counter: body.invocation_counter,
        payload: body.payload,
        head: rest.get(..length).ok_or(Closed::Syntax)?,
        key,
    })
}

impl Sealed<'_> {
    /// Whether the content is neither ciphered nor authenticated.
    pub const fn is_plain(&self) -> bool {
        self.control.is_plain()
    }

    /// Opens it. `title` is the sender's where the message does not tell it. Without an authentication key
    /// no tag is verified; with one, a message without a tag is opened only if `untagged` says so.
    ///
    /// # Errors
    /// Why it is not opened.
    pub fn open(&self, keys: &Keys, title: Option<[u8; TITLE]>, untagged: bool) -> Result<Opened, Closed> {
        let title = self.title.map_or(title, |own| own.try_into().ok()).ok_or(Closed::Title)?;
        if self.control.suite() > 2 || (self.control.suite() == 2) != keys.is_long {
            return Err(Closed::Suite(self.control.suite()));
        }
        if self.key == Under::Brought {
            return Err(Closed::Brought);
        }
        if self.control.compressed() {
            return Err(Closed::Compressed);
        }
        let mut nonce = [0; 12];
        for (to, from) in nonce.iter_mut().zip(title.into_iter().chain(self.counter.to_be_bytes())) {
            *to = from;
        }
        let encrypted = self.control.encrypted();
        let plain = |content: &[u8]| {
            let mut text = content.to_vec();
            if encrypted {
                keys.encryption.seal(nonce, &[], &mut text)?;
            }
            Some(text)
        };
        if !self.control.authenticated() {
            if self.is_plain() || (keys.verifies() && !untagged) {
                return Err(Closed::NoTag);
            }
            return Ok(Opened { apdu: plain(self.payload).ok_or(Closed::Syntax)?, verified: false });
        }
        let (content, tag) = self.payload.split_last_chunk::<TAG>().ok_or(Closed::Syntax)?;
        let Some(authentication) = &keys.authentication else {
            return Ok(Opened { apdu: plain(content).ok_or(Closed::Syntax)?, verified: false });
        };
        let mut associated = vec![self.control.0];
        associated.extend_from_slice(authentication.bytes());
        associated.extend_from_slice(self.head);
        if encrypted {
            let apdu = keys.encryption.open(nonce, &associated, content, tag).ok_or(Closed::Tag)?;
            return Ok(Opened { apdu, verified: true });
        }
        associated.extend_from_slice(content);
        keys.encryption.open(nonce, &associated, &[], tag).ok_or(Closed::Tag)?;
        Ok(Opened { apdu: content.to_vec(), verified: true })
    }
}

/// Puts an APDU under a cipher as general-glo-ciphering; `None` when it is too long. For simulated meters.
pub fn seal(keys: &Keys, title: [u8; TITLE], control: u8, counter: u32, apdu: &[u8]) -> Option<Vec<u8>> {
    let control = SecurityControl(control);
    let mut nonce = [0; 12];
    for (to, from) in nonce.iter_mut().zip(title.into_iter().chain(counter.to_be_bytes())) {
        *to = from;
    }
    let mut associated = vec![control.0];
    associated.extend_from_slice(keys.authentication.as_ref()?.bytes());
    let mut text = apdu.to_vec();
    let tag = if control.encrypted() {
        let tag = if control.authenticated() { associated.as_slice() } else { &[] };
        keys.encryption.seal(nonce, tag, &mut text)?
    } else {
        associated.extend_from_slice(apdu);
        keys.encryption.seal(nonce, &associated, &mut [])?
    };
    if control.authenticated() {
        text.extend_from_slice(&tag);
    }
    let length = u16::try_from(5 + text.len()).ok()?;
    let mut sealed = vec![0xDB, 8];
    sealed.extend_from_slice(&title);
    sealed.push(0x82);
    sealed.extend_from_slice(&length.to_be_bytes());
    sealed.push(control.0);
    sealed.extend_from_slice(&counter.to_be_bytes());
    sealed.extend_from_slice(&text);
    Some(sealed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: [u8; TITLE] = *b"WEI\0\0\x12\x34\x56";

    fn keys() -> Keys {
        Keys::new(&[0xAA; KEY], Some(&[0x11; KEY])).unwrap()
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_opened_and_one_changed_bit_opens_nothing(
            text in prop::collection::vec(any::<u8>(), 1..200),
            control in prop_oneof![Just(0x10_u8), Just(0x30), Just(0x31), Just(0x70)],
            counter in any::<u32>(),
            place in any::<prop::sample::Index>(),
            bit in 0..8_u32,
        ) {
            let mut bytes = seal(&keys(), NAME, control, counter, &text).unwrap();
            prop_assert_eq!(length(&bytes), Ok(Some(bytes.len())));
            let found = sealed(&bytes).unwrap().unwrap();
            prop_assert_eq!((found.title, found.counter), (Some(&NAME[..]), counter));
            prop_assert_eq!(found.open(&keys(), None, false), Ok(Opened { apdu: text, verified: true }));
            // Behind the head: control byte, counter, content or tag.
            let at = 13 + place.index(bytes.len() - 13);
            bytes[at] ^= 1 << bit;
            let changed = sealed(&bytes).unwrap().unwrap();
            prop_assert!(changed.open(&keys(), None, false).is_err());
        }

        #[test]
        fn any_bytes_are_opened_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60), tag in 0x20..0xE0_u8) {
            let bytes = [&[tag], &bytes[..]].concat();
            if let Ok(Some(found)) = sealed(&bytes) {
                let _ = found.open(&keys(), Some(NAME), true);
            }
            let _ = length(&bytes);
        }
    }

    #[test]
    fn a_message_without_a_tag_is_opened_only_when_it_may_be_or_no_tag_can_be_verified() {
        let bytes = seal(&keys(), NAME, 0x20, 7, b"text").unwrap();
        let found = sealed(&bytes).unwrap().unwrap();
        assert_eq!(found.open(&keys(), None, false), Err(Closed::NoTag));
        let opened = Ok(Opened { apdu: b"text".to_vec(), verified: false });
        assert_eq!(found.open(&keys(), None, true), opened);
        let half = Keys::new(&[0xAA; KEY], None).unwrap();
        assert_eq!(found.open(&half, None, false), opened);
        let tagged = seal(&keys(), NAME, 0x30, 7, b"text").unwrap();
        assert_eq!(sealed(&tagged).unwrap().unwrap().open(&half, None, false), opened);
    }

    #[test]
    fn keys_of_one_suite_open_nothing_of_another() {
        let long = Keys::of(&[0xAA; 32], Some(&[0x11; 32])).unwrap();
        let bytes = seal(&long, NAME, 0x32, 7, b"text").unwrap();
        let found = sealed(&bytes).unwrap().unwrap();
        assert_eq!(found.open(&long, None, false).map(|opened| opened.apdu), Ok(b"text".to_vec()));
        assert_eq!(found.open(&keys(), None, false), Err(Closed::Suite(2)));
        let short = seal(&keys(), NAME, 0x30, 7, b"text").unwrap();
        assert_eq!(sealed(&short).unwrap().unwrap().open(&long, None, false), Err(Closed::Suite(0)));
        assert!(Keys::of(&[0; 16], Some(&[0; 32])).is_none() && Keys::of(&[0; 24], None).is_none());
    }

    #[test]
    fn general_ciphering_tells_its_length_byte_for_byte_and_its_key() {
        // Transaction, both titles, no time, nothing else.
        let fields = [&[1, 7, 8][..], &NAME, &[0, 0, 0]].concat();
        let body = [9, 0x30, 0, 0, 0, 5, 1, 2, 3, 4];
        for (key, under) in [
            (&[0][..], Under::Known),
            (&[1, 0, 0], Under::Known),
            (&[1, 0, 1], Under::Broadcast),
            (&[1, 1, 0, 3, 1, 2, 3], Under::Brought),
            (&[1, 2, 1, 9, 2, 1, 2], Under::Brought),
        ] {
            let bytes = [&[0xDD][..], &fields, key, &body].concat();
            for cut in 1..bytes.len() {
                let told = length(&bytes[..cut]);
                assert!(matches!(told, Ok(None)) || told == Ok(Some(bytes.len())), "{key:?} {cut}: {told:?}");
            }
            assert_eq!(length(&bytes), Ok(Some(bytes.len())), "{key:?}");
            let found = sealed(&bytes).unwrap().unwrap();
            assert_eq!((found.key, found.title, found.counter), (under, Some(&NAME[..]), 5), "{key:?}");
            assert_eq!(found.head, &fields[..]);
        }
    }

    #[test]
    fn what_claims_to_be_ciphered_and_is_not_stays_closed() {
        let bytes = seal(&keys(), NAME, 0x00, 7, b"text").unwrap();
        assert_eq!(sealed(&bytes).unwrap().unwrap().open(&keys(), None, true), Err(Closed::NoTag));
        let half = Keys::new(&[0xAA; KEY], None).unwrap();
        assert_eq!(sealed(&bytes).unwrap().unwrap().open(&half, None, true), Err(Closed::NoTag));
    }
}
