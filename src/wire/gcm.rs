//! AES-GCM with the twelve-byte tag of the DLMS security suites (IEC 62056-5-3, clause 5.3.7).
//!
//! `ring` is the product's only cipher provider. It hands out whole tags of sixteen bytes, so a
//! message is opened by running its counter mode over the ciphertext and sealing the result again:
//! the tag made so must begin with the tag that came. Invariant: no byte of the plaintext leaves
//! before its tag was found right (docs/decisions/0009-ciphers.md).

use std::fmt;

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// The bytes of a tag.
pub const TAG: usize = 12;
/// The bytes of an initialization vector: system title and invocation counter.
pub const NONCE: usize = 12;
/// The bytes of a key of suites 0 and 1.
pub const KEY: usize = 16;

/// A key, ready for use; never shown.
pub struct Key(LessSafeKey);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// Makes a key of its bytes; `None` only if the provider refuses them.
    pub fn new(bytes: &[u8; KEY]) -> Option<Self> {
        Some(Self(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, bytes).ok()?)))
    }

    /// Makes a key of 16 bytes (suites 0 and 1) or of 32 (suite 2); `None` of any other number.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let algorithm = match bytes.len() {
            KEY => &AES_128_GCM,
            32 => &AES_256_GCM,
            _ => return None,
        };
        Some(Self(LessSafeKey::new(UnboundKey::new(algorithm, bytes).ok()?)))
    }

    /// Encrypts `text` in place and returns its tag; `None` when it is too long for the mode.
    pub fn seal(&self, nonce: [u8; NONCE], associated: &[u8], text: &mut [u8]) -> Option<[u8; TAG]> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated), text).ok()?;
        tag.as_ref().first_chunk().copied()
    }

    /// Decrypts a message; `None` when its tag is wrong.
    pub fn open(&self, nonce: [u8; NONCE], associated: &[u8], cipher: &[u8], tag: &[u8; TAG]) -> Option<Vec<u8>> {
        let text = self.uncover(nonce, cipher)?;
        let mut again = text.clone();
        let expected = self.seal(nonce, associated, &mut again)?;
        // Every byte is looked at, so that the time tells nothing about the first wrong one.
        let difference = expected.iter().zip(tag).fold(0, |sum, (a, b)| sum | (a ^ b));
        (difference == 0).then_some(text)
    }

    /// Decrypts a message that has no tag, and so says nothing about who wrote it; `None` when it is too long.
    pub fn uncover(&self, nonce: [u8; NONCE], cipher: &[u8]) -> Option<Vec<u8>> {
        let mut text = cipher.to_vec();
        self.seal(nonce, &[], &mut text)?;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXUPPER;
    use proptest::prelude::*;

    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        HEXUPPER.decode(text.as_bytes()).unwrap().try_into().unwrap()
    }

    #[test]
    fn the_test_case_of_the_modes_authors_is_met_with_its_tag_cut_to_twelve_bytes() {
        // McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B, test case 4.
        let key = Key::new(&hex("FEFFE9928665731C6D6A8F9467308308")).unwrap();
        let nonce = hex("CAFEBABEFACEDBADDECAF888");
        let associated = hex::<20>("FEEDFACEDEADBEEFFEEDFACEDEADBEEFABADDAD2");
        let text = hex::<60>(
            "D9313225F88406E5A55909C5AFF5269A86A7A9531534F7DA2E4C303D8A318A721C3C0C95956809532FCF0E2449A6B525B16AEDF5AA0DE657BA637B39",
        );
        let mut cipher = text;
        let tag = key.seal(nonce, &associated, &mut cipher).unwrap();
        assert_eq!(HEXUPPER.encode(&cipher[..16]), "42831EC2217774244B7221B784D0D49C");
        assert_eq!(HEXUPPER.encode(&tag), "5BC94FBC3221A5DB94FAE95A");
        assert_eq!(key.open(nonce, &associated, &cipher, &tag).unwrap(), text);
    }

    #[test]
    fn the_same_with_a_key_of_256_bits() {
        // Test case 16 of the same paper.
        let key = HEXUPPER.decode(b"FEFFE9928665731C6D6A8F9467308308FEFFE9928665731C6D6A8F9467308308").unwrap();
        let nonce = hex("CAFEBABEFACEDBADDECAF888");
        let associated = hex::<20>("FEEDFACEDEADBEEFFEEDFACEDEADBEEFABADDAD2");
        let text = hex::<60>(
            "D9313225F88406E5A55909C5AFF5269A86A7A9531534F7DA2E4C303D8A318A721C3C0C95956809532FCF0E2449A6B525B16AEDF5AA0DE657BA637B39",
        );
        let key = Key::of(&key).unwrap();
        let mut cipher = text;
        let tag = key.seal(nonce, &associated, &mut cipher).unwrap();
        assert_eq!(HEXUPPER.encode(&cipher[..16]), "522DC1F099567D07F47F37A32A84427D");
        assert_eq!(HEXUPPER.encode(&tag), "76FC6ECE0F4E1768CDDF8853");
        assert_eq!(key.open(nonce, &associated, &cipher, &tag).unwrap(), text);
        assert!(Key::of(&[0; 24]).is_none());
    }

    proptest! {
        #[test]
        fn one_changed_bit_anywhere_opens_nothing(
            text in prop::collection::vec(any::<u8>(), 1..80),
            associated in prop::collection::vec(any::<u8>(), 1..20),
            bit in 0..8_u32,
            place in any::<prop::sample::Index>(),
        ) {
            let key = Key::new(&[7; KEY]).unwrap();
            let mut cipher = text.clone();
            let tag = key.seal([1; NONCE], &associated, &mut cipher).unwrap();
            prop_assert_eq!(key.open([1; NONCE], &associated, &cipher, &tag), Some(text));
            let mut all = [&cipher[..], &tag, &associated].concat();
            let index = place.index(all.len());
            all[index] ^= 1 << bit;
            let (changed, rest) = all.split_at(cipher.len());
            let (tag, associated) = rest.split_first_chunk().unwrap();
            prop_assert_eq!(key.open([1; NONCE], associated, changed, tag), None);
        }
    }
}
