//! Opens ciphered pushes (IEC 62056-5-3, clause 5.3.7): AES-GCM of the suites 0 and 1.
//!
//! `DB title SC IC ciphertext tag` and the forms named after services. The initialization vector is title and
//! invocation counter, the associated data is SC and the authentication key. Invariant: where the tag can be
//! verified, no byte leaves before it was.

use std::fmt;

use super::{Apdu, SecurityControl, decode};
use crate::wire::gcm::{KEY, Key, TAG};

/// The bytes of a system title.
pub const TITLE: usize = 8;

/// The keys of a meter; never shown.
pub struct Keys {
    encryption: Key,
    authentication: Option<[u8; KEY]>,
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
        Some(Self { encryption: Key::new(encryption)?, authentication: authentication.copied() })
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
}

/// Why a ciphered APDU is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// It is no ciphered APDU, or breaks off.
    #[error("the ciphered message can't be read")]
    Syntax,
    /// Another cipher.
    #[error("the message is ciphered by security suite {0}; suites 0 and 1 can be opened")]
    Suite(u8),
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

/// Whether an APDU of this tag is ciphered in a form that tells its length: general-glo, general-ded, or the
/// event notification of either.
pub const fn is_sealed(tag: u8) -> bool {
    matches!(tag, 0xDB | 0xDC | 0xCA | 0xD2)
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
        [0xCA | 0xD2, rest @ ..] => (1, rest),
        _ => return Err(()),
    };
    let (width, length) = match *rest {
        [] | [0x81] | [0x82] | [0x82, _] => return Ok(None),
        [length @ ..=0x7F, ..] => (1, usize::from(length)),
        [0x81, length, ..] => (2, usize::from(length)),
        [0x82, high, low, ..] => (3, usize::from(u16::from_be_bytes([high, low]))),
        _ => return Err(()),
    };
    // SC and counter at least.
    if length < 5 { Err(()) } else { Ok(Some(head + width + length)) }
}

/// Reads what surrounds a ciphered APDU; `None` when it is not ciphered so.
///
/// # Errors
/// [`Closed::Syntax`] when it breaks off.
pub fn sealed(apdu: &[u8]) -> Result<Option<Sealed<'_>>, Closed> {
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
    Ok(Some(Sealed { title: title.filter(|title| !title.is_empty()), control, counter, payload }))
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
        if self.control.suite() > 1 {
            return Err(Closed::Suite(self.control.suite()));
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
        associated.extend_from_slice(authentication);
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
    associated.extend_from_slice(keys.authentication.as_ref()?);
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
    fn what_claims_to_be_ciphered_and_is_not_stays_closed() {
        let bytes = seal(&keys(), NAME, 0x00, 7, b"text").unwrap();
        assert_eq!(sealed(&bytes).unwrap().unwrap().open(&keys(), None, true), Err(Closed::NoTag));
        let half = Keys::new(&[0xAA; KEY], None).unwrap();
        assert_eq!(sealed(&bytes).unwrap().unwrap().open(&half, None, true), Err(Closed::NoTag));
    }
}
