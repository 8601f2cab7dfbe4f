//! AES-128 and the modes that `ring` does not offer: single blocks, CBC, CTR and CMAC.
//!
//! The block cipher is RustCrypto's (docs/decisions/0012-aes.md); the modes are a few lines each and
//! stand here. Invariants: a key is never shown and is wiped when dropped; no length of input is
//! refused or makes anything panic; authentication codes are compared by [`equal`] only.

use std::fmt;
use std::hint::black_box;

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

/// The bytes of a block, of an initialization vector and of a CMAC.
pub const BLOCK: usize = 16;
/// The bytes of a key of AES-128.
pub const KEY: usize = 16;

/// A key of AES-128, expanded for both directions; never shown.
#[derive(Clone)]
pub struct Aes128(aes::Aes128);

impl fmt::Debug for Aes128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aes128")
    }
}

impl Aes128 {
    /// Expands a key.
    pub fn new(key: &[u8; KEY]) -> Self {
        Self(aes::Aes128::new(&(*key).into()))
    }

    /// Encrypts one block (FIPS 197; a message of single blocks is the mode ECB).
    pub fn encrypt(&self, block: [u8; BLOCK]) -> [u8; BLOCK] {
        let mut block = block.into();
        self.0.encrypt_block(&mut block);
        block.into()
    }

    /// Decrypts one block.
    pub fn decrypt(&self, block: [u8; BLOCK]) -> [u8; BLOCK] {
        let mut block = block.into();
        self.0.decrypt_block(&mut block);
        block.into()
    }

    /// Encrypts in CBC (NIST SP 800-38A, 6.2); bytes behind the last whole block stay as they are.
    pub fn cbc_encrypt(&self, iv: [u8; BLOCK], bytes: &mut [u8]) {
        let mut last = iv;
        for block in bytes.as_chunks_mut::<BLOCK>().0 {
            last = self.encrypt(xor(*block, last));
            *block = last;
        }
    }

    /// Decrypts what [`Self::cbc_encrypt`] encrypts; bytes behind the last whole block stay as they are.
    pub fn cbc_decrypt(&self, iv: [u8; BLOCK], bytes: &mut [u8]) {
        let mut last = iv;
        for block in bytes.as_chunks_mut::<BLOCK>().0 {
            let cipher = *block;
            *block = xor(self.decrypt(cipher), last);
            last = cipher;
        }
    }

    /// Encrypts or decrypts in counter mode (NIST SP 800-38A, 6.5); the whole block counts, high
    /// byte first, and `counter` is its first value.
    pub fn ctr(&self, counter: [u8; BLOCK], bytes: &mut [u8]) {
        let mut count = u128::from_be_bytes(counter);
        for part in bytes.chunks_mut(BLOCK) {
            for (byte, mask) in part.iter_mut().zip(self.encrypt(count.to_be_bytes())) {
                *byte ^= mask;
            }
            count = count.wrapping_add(1);
        }
    }

    /// The CMAC of the parts one behind the other (RFC 4493, NIST SP 800-38B).
    pub fn cmac(&self, parts: &[&[u8]]) -> [u8; BLOCK] {
        let mut state = [0; BLOCK];
        let mut block = [0; BLOCK];
        let mut filled = 0;
        for byte in parts.iter().flat_map(|part| part.iter()) {
            // A full block is worked off when another byte follows it: the last one is special.
            if filled == BLOCK {
                state = self.encrypt(xor(state, block));
                block = [0; BLOCK];
                filled = 0;
            }
            if let Some(place) = block.get_mut(filled) {
                *place = *byte;
            }
            filled += 1;
        }
        let whole = doubled(self.encrypt([0; BLOCK]));
        let subkey = if filled == BLOCK { whole } else { doubled(whole) };
        if let Some(place) = block.get_mut(filled) {
            *place = 0x80;
        }
        self.encrypt(xor(xor(state, block), subkey))
    }
}

/// Compares two codes without telling by its time where they differ; lengths are no secret.
pub fn equal(one: &[u8], other: &[u8]) -> bool {
    let difference = one.iter().zip(other).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
    one.len() == other.len() && difference == 0
}

fn xor(one: [u8; BLOCK], other: [u8; BLOCK]) -> [u8; BLOCK] {
    (u128::from_ne_bytes(one) ^ u128::from_ne_bytes(other)).to_ne_bytes()
}

/// Multiplies by x in the field of 2^128 elements (RFC 4493, 2.3).
fn doubled(block: [u8; BLOCK]) -> [u8; BLOCK] {
    let number = u128::from_be_bytes(block);
    ((number << 1) ^ ((number >> 127) * 0x87)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
    }

    /// The key and the text that all examples of SP 800-38A and RFC 4493 share.
    fn key() -> Aes128 {
        Aes128::new(&hex("2b7e151628aed2a6abf7158809cf4f3c"))
    }

    const TEXT: &str = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
                        30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710";

    #[test]
    fn the_block_of_fips_197_is_encrypted_and_decrypted() {
        let key = Aes128::new(&hex("000102030405060708090a0b0c0d0e0f"));
        let text = hex("00112233445566778899aabbccddeeff");
        let cipher = key.encrypt(text);
        assert_eq!(HEXLOWER.encode(&cipher), "69c4e0d86a7b0430d8cdb78070b4c55a");
        assert_eq!(key.decrypt(cipher), text);
        assert_eq!(format!("{key:?}"), "Aes128");
    }

    #[test]
    fn the_example_of_cbc_is_met() {
        // NIST SP 800-38A, F.2.1 and F.2.2.
        let iv = hex("000102030405060708090a0b0c0d0e0f");
        let mut bytes = hex::<64>(TEXT);
        key().cbc_encrypt(iv, &mut bytes);
        let cipher = "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2\
                      73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7";
        assert_eq!(HEXLOWER.encode(&bytes), cipher);
        key().cbc_decrypt(iv, &mut bytes);
        assert_eq!(HEXLOWER.encode(&bytes), TEXT);
    }

    #[test]
    fn the_example_of_counter_mode_is_met() {
        // NIST SP 800-38A, F.5.1.
        let counter = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
        let mut bytes = hex::<64>(TEXT);
        key().ctr(counter, &mut bytes);
        let cipher = "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff\
                      5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee";
        assert_eq!(HEXLOWER.encode(&bytes), cipher);
    }

    #[test]
    fn the_examples_of_cmac_are_met() {
        // RFC 4493, section 4.
        let text = hex::<64>(TEXT);
        for (length, code) in [
            (0, "bb1d6929e95937287fa37d129b756746"),
            (16, "070a16b46b4d4144f79bdd9dd04a287c"),
            (40, "dfa66747de9ae63030ca32611497c827"),
            (64, "51f0bebf7e3b9d92fc49741779363cfe"),
        ] {
            assert_eq!(HEXLOWER.encode(&key().cmac(&[&text[..length]])), code, "{length}");
        }
    }

    #[test]
    fn codes_are_equal_only_byte_for_byte() {
        assert!(equal(&[1, 2, 3], &[1, 2, 3]) && equal(&[], &[]));
        assert!(!equal(&[1, 2, 3], &[1, 2, 4]) && !equal(&[1, 2, 3], &[1, 2]) && !equal(&[9, 2, 3], &[1, 2, 3]));
    }

    proptest! {
        #[test]
        fn every_length_comes_back_and_a_tail_stays_in_cbc(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            iv in any::<[u8; BLOCK]>(),
        ) {
            let mut worked = bytes.clone();
            key().cbc_encrypt(iv, &mut worked);
            prop_assert_eq!(&worked[bytes.len() / BLOCK * BLOCK..], &bytes[bytes.len() / BLOCK * BLOCK..]);
            key().cbc_decrypt(iv, &mut worked);
            prop_assert_eq!(&worked, &bytes);
            key().ctr(iv, &mut worked);
            key().ctr(iv, &mut worked);
            prop_assert_eq!(&worked, &bytes);
        }

        #[test]
        fn the_code_of_parts_is_the_code_of_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
            cut in any::<prop::sample::Index>(),
        ) {
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(key().cmac(&[head, tail]), key().cmac(&[&bytes]));
        }
    }
}
