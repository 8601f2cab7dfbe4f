//! Wraps keys under another key (AES key wrap, RFC 3394), as a security setup takes them
//! (IEC 62056-6-2, class 64, method `key_transfer`).

use std::fmt;

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

use super::secret::Secret;
use crate::wire::aes::{Aes128, BLOCK, equal};

/// What the first block begins with (RFC 3394, 2.2.3.1).
const INITIAL: [u8; 8] = [0xA6; 8];
/// How often each block is worked on.
const ROUNDS: u64 = 6;

/// A key of 16 or 32 bytes that encrypts other keys; never shown.
pub struct KeyEncryptionKey(Cipher);

enum Cipher {
    Short(Box<Aes128>),
    Long(Box<aes::Aes256>),
}

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyEncryptionKey")
    }
}

impl KeyEncryptionKey {
    /// Makes it of its bytes; `None` of any other number than 16 and 32.
    pub fn new(key: &Secret) -> Option<Self> {
        if let Ok(short) = <&[u8; 16]>::try_from(key.bytes()) {
            return Some(Self(Cipher::Short(Box::new(Aes128::new(short)))));
        }
        let long: [u8; 32] = key.bytes().try_into().ok()?;
        Some(Self(Cipher::Long(Box::new(aes::Aes256::new(&long.into())))))
    }

    fn encrypt(&self, block: [u8; BLOCK]) -> [u8; BLOCK] {
        match &self.0 {
            Cipher::Short(key) => key.encrypt(block),
            Cipher::Long(key) => {
                let mut block = block.into();
                key.encrypt_block(&mut block);
                block.into()
            }
        }
    }

    fn decrypt(&self, block: [u8; BLOCK]) -> [u8; BLOCK] {
        match &self.0 {
            Cipher::Short(key) => key.decrypt(block),
            Cipher::Long(key) => {
                let mut block = block.into();
                key.decrypt_block(&mut block);
                block.into()
            }
        }
    }

    /// Wraps a key; eight bytes longer than it was. `None` when it is no whole number of eight bytes, or fewer
    /// than sixteen.
    pub fn wrap(&self, key: &Secret) -> Option<Vec<u8>> {
        let (words, rest) = key.bytes().as_chunks::<8>();
        if words.len() < 2 || !rest.is_empty() {
            return None;
        }
        let mut words = words.to_vec();
        let mut check = INITIAL;
        let mut step = 0u64;
        for _ in 0..ROUNDS {
            for word in &mut words {
                step += 1;
                let (high, low) = halves(self.encrypt(joined(check, *word)));
                check = (u64::from_be_bytes(high) ^ step).to_be_bytes();
                *word = low;
            }
        }
        let wrapped = [check].into_iter().chain(words.iter().copied()).flatten().collect();
        drop(Secret::new(words.concat()));
        Some(wrapped)
    }

    /// Unwraps a key; `None` when it was wrapped under another key or changed.
    pub fn unwrap(&self, wrapped: &[u8]) -> Option<Secret> {
        let (words, rest) = wrapped.as_chunks::<8>();
        let (check, words) = words.split_first()?;
        if words.len() < 2 || !rest.is_empty() {
            return None;
        }
        let (mut check, mut words) = (*check, words.to_vec());
        let mut step = ROUNDS * words.len() as u64;
        for _ in 0..ROUNDS {
            for word in words.iter_mut().rev() {
                let mixed = (u64::from_be_bytes(check) ^ step).to_be_bytes();
                (check, *word) = halves(self.decrypt(joined(mixed, *word)));
                step -= 1;
            }
        }
        let key = Secret::new(words.concat());
        equal(&check, &INITIAL).then_some(key)
    }
}

fn joined(high: [u8; 8], low: [u8; 8]) -> [u8; BLOCK] {
    ((u128::from(u64::from_be_bytes(high)) << 64) | u128::from(u64::from_be_bytes(low))).to_be_bytes()
}

fn halves(block: [u8; BLOCK]) -> ([u8; 8], [u8; 8]) {
    let number = u128::from_be_bytes(block);
    (((number >> 64) as u64).to_be_bytes(), (number as u64).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXUPPER;
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Secret {
        Secret::new(HEXUPPER.decode(text.as_bytes()).unwrap())
    }

    #[test]
    fn the_examples_of_the_rfc_are_met() {
        // RFC 3394, 4.1, 4.3 and 4.6.
        for (master, key, wrapped) in [
            (
                "000102030405060708090A0B0C0D0E0F",
                "00112233445566778899AABBCCDDEEFF",
                "1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5",
            ),
            (
                "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F",
                "00112233445566778899AABBCCDDEEFF",
                "64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7",
            ),
            (
                "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F",
                "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F",
                "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21",
            ),
        ] {
            let master = KeyEncryptionKey::new(&hex(master)).unwrap();
            assert_eq!(HEXUPPER.encode(&master.wrap(&hex(key)).unwrap()), wrapped);
            assert_eq!(master.unwrap(hex(wrapped).bytes()), Some(hex(key)));
        }
    }

    proptest! {
        #[test]
        fn a_changed_bit_or_any_other_bytes_unwrap_nothing(
            bytes in prop::collection::vec(any::<u8>(), 0..60), bit in 0usize..192,
        ) {
            let master = KeyEncryptionKey::new(&Secret::new(vec![7; 16])).unwrap();
            let mut wrapped = master.wrap(&Secret::new(vec![1; 16])).unwrap();
            wrapped[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(master.unwrap(&wrapped), None);
            prop_assert_eq!(master.unwrap(&bytes), None);
        }
    }
}
