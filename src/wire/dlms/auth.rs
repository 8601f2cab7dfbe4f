//! The proofs of high level security (IEC 62056-5-3, clause 5.3.4 and its table of mechanisms).
//!
//! Each side answers the other one's challenge with a function of it and of what both know. Invariant: an
//! answer is compared in a time that does not tell where it differs, and one that equals our own is refused:
//! it would be our answer sent back to us.

use md5::{Digest, Md5};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

use super::protect::{Fault, Keys, SystemTitle};
use super::secret::Secret;
use super::{AuthMechanism, SecurityControl};
use crate::wire::aes::{Aes128, BLOCK, equal};
use crate::wire::gcm::TAG;

/// The shortest challenge (clause 5.3.4.5.1).
pub const SHORTEST: usize = 8;
/// The longest challenge.
pub const LONGEST: usize = 64;

/// What both sides of an association know before they prove it.
#[derive(Debug, Clone, Copy)]
pub struct Handshake<'a> {
    /// How they prove it.
    pub mechanism: AuthMechanism,
    /// The secret of mechanisms 2, 3, 4 and 6.
    pub secret: &'a Secret,
    /// The keys of mechanism 5.
    pub keys: Option<&'a Keys>,
    /// The client's title.
    pub client: SystemTitle,
    /// The server's title, for mechanisms 5 and 6.
    pub server: Option<SystemTitle>,
    /// The client's challenge, "CtoS".
    pub to_server: &'a [u8],
    /// The server's challenge, "StoC".
    pub to_client: &'a [u8],
}

/// Why nothing can be proven.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// Not built.
    #[error("authentication by mechanism {0} is not supported; choose manufacturer, md5, sha1, gmac or sha256")]
    Mechanism(u8),
    /// The meter's challenge is too short to be one, or too long.
    #[error("the meter's challenge has {0} bytes, where the standard asks for 8 to 64")]
    Challenge(usize),
    /// Both challenges are the same.
    #[error("the meter sent our own challenge back, which proves nothing")]
    Mirror,
    /// The mechanism needs it.
    #[error("the meter did not tell its system title, which its authentication needs")]
    NoTitle,
    /// The mechanism needs them.
    #[error("gmac needs key_file and authentication_key_file")]
    NoKeys,
    /// The cipher failed.
    #[error(transparent)]
    Cipher(#[from] Fault),
}

impl Handshake<'_> {
    /// What the client sends in the third pass; `counter` is an unused invocation counter of the global key, which
    /// only mechanism 5 uses.
    ///
    /// # Errors
    /// What is missing.
    pub fn answer(&self, counter: u32) -> Result<Vec<u8>, Unproven> {
        self.judge()?;
        match self.mechanism {
            AuthMechanism::HighGmac => self.gmac(self.client, counter, self.to_client),
            _ => self.function(self.to_client, self.to_server, true),
        }
    }

    /// Whether the fourth pass proves that the meter knows the secret too.
    ///
    /// # Errors
    /// What is missing.
    pub fn proves(&self, answer: &[u8]) -> Result<bool, Unproven> {
        self.judge()?;
        let expected = if self.mechanism == AuthMechanism::HighGmac {
            let Some((&[control, c3, c2, c1, c0], tag)) = answer.split_first_chunk() else { return Ok(false) };
            if tag.len() != TAG || Some(SecurityControl(control)) != self.control() {
                return Ok(false);
            }
            let server = self.server.ok_or(Unproven::NoTitle)?;
            self.gmac(server, u32::from_be_bytes([c3, c2, c1, c0]), self.to_server)?
        } else {
            self.function(self.to_server, self.to_client, false)?
        };
        Ok(equal(&expected, answer))
    }

    fn judge(&self) -> Result<(), Unproven> {
        if !(SHORTEST..=LONGEST).contains(&self.to_client.len()) {
            return Err(Unproven::Challenge(self.to_client.len()));
        }
        if self.to_client == self.to_server {
            return Err(Unproven::Mirror);
        }
        Ok(())
    }

    /// Authentication only, in the keys' suite.
    fn control(&self) -> Option<SecurityControl> {
        Some(SecurityControl::new(self.keys?.suite().number(), true, false))
    }

    fn gmac(&self, title: SystemTitle, counter: u32, challenge: &[u8]) -> Result<Vec<u8>, Unproven> {
        let (Some(keys), Some(control)) = (self.keys, self.control()) else { return Err(Unproven::NoKeys) };
        let tag = keys.gmac(control, &title, counter, challenge)?;
        Ok([&[control.0], &counter.to_be_bytes()[..], &tag].concat())
    }

    /// The functions that both sides compute alike, with theirs first and the other side's second.
    fn function(&self, challenge: &[u8], other: &[u8], by_client: bool) -> Result<Vec<u8>, Unproven> {
        let secret = self.secret.bytes();
        match self.mechanism {
            AuthMechanism::HighManufacturer => Ok(blocks(secret, challenge)),
            AuthMechanism::HighMd5 => {
                Ok(Md5::new().chain_update(challenge).chain_update(secret).finalize().as_slice().to_vec())
            }
            AuthMechanism::HighSha1 => {
                let text = Secret::new([challenge, secret].concat());
                Ok(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.bytes()).as_ref().to_vec())
            }
            AuthMechanism::HighSha256 => {
                let server = self.server.ok_or(Unproven::NoTitle)?;
                let (own, theirs) = if by_client { (self.client, server) } else { (server, self.client) };
                let text = Secret::new([secret, &own, &theirs, challenge, other].concat());
                Ok(digest(&SHA256, text.bytes()).as_ref().to_vec())
            }
            other => Err(Unproven::Mechanism(other.arc())),
        }
    }
}

/// Mechanism 2 has no meaning of its own; as Gurux does it: AES-128 of the challenge, block by block, under the
/// secret, both filled up with zeros to whole blocks.
fn blocks(secret: &[u8], challenge: &[u8]) -> Vec<u8> {
    let mut key = [0; BLOCK];
    key.iter_mut().zip(secret).for_each(|(place, byte)| *place = *byte);
    let cipher = Aes128::new(&key);
    let length = challenge.len().max(secret.len()).next_multiple_of(BLOCK);
    let mut text = challenge.to_vec();
    text.resize(length, 0);
    text.as_chunks::<BLOCK>().0.iter().flat_map(|block| cipher.encrypt(*block)).collect()
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXUPPER;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::dlms::protect::Suite;

    fn hex(text: &str) -> Vec<u8> {
        HEXUPPER.decode(text.as_bytes()).unwrap()
    }

    fn keys() -> Keys {
        let global = Secret::new(hex("000102030405060708090A0B0C0D0E0F"));
        let authentication = Secret::new(hex("D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF"));
        Keys::new(Suite::new(0).unwrap(), &global, Some(authentication)).unwrap()
    }

    #[test]
    fn the_gmac_example_of_the_green_book_is_met() {
        // DLMS UA 1000-2, clause 9.2.7.2, "HLS authentication with GMAC": f(StoC) with IC 00000001.
        let (keys, secret) = (keys(), Secret::default());
        let handshake = Handshake {
            mechanism: AuthMechanism::HighGmac,
            secret: &secret,
            keys: Some(&keys),
            client: hex("4D4D4D0000000001").try_into().unwrap(),
            server: Some(hex("4D4D4D0000BC614E").try_into().unwrap()),
            to_server: b"K56iVagY",
            to_client: b"P6wRJ21F",
        };
        assert_eq!(HEXUPPER.encode(&handshake.answer(1).unwrap()), "10000000011A52FE7DD3E72748973C1E28");
        assert!(handshake.proves(&hex("1001234567FE1466AFB3DBCD4F9389E2B7")).unwrap());
        assert!(!handshake.proves(&hex("1001234567FE1466AFB3DBCD4F9389E2B6")).unwrap());
    }

    const CLIENT: SystemTitle = *b"WEI\x01\x02\x03\x04\x05";
    const SERVER: SystemTitle = *b"GRX\0\0\0\0\x01";

    fn handshake<'a>(
        mechanism: AuthMechanism,
        secret: &'a Secret,
        keys: &'a Keys,
        to_server: &'a [u8],
        to_client: &'a [u8],
    ) -> Handshake<'a> {
        Handshake { mechanism, secret, keys: Some(keys), client: CLIENT, server: Some(SERVER), to_server, to_client }
    }

    const ALL: [AuthMechanism; 5] = [
        AuthMechanism::HighManufacturer,
        AuthMechanism::HighMd5,
        AuthMechanism::HighSha1,
        AuthMechanism::HighGmac,
        AuthMechanism::HighSha256,
    ];

    proptest! {
        #[test]
        fn each_mechanism_takes_the_right_answer_and_no_other(
            secret in prop::collection::vec(any::<u8>(), 1..40),
            ours in prop::collection::vec(any::<u8>(), 8..64),
            theirs in prop::collection::vec(any::<u8>(), 8..64),
            bit in any::<prop::sample::Index>(),
        ) {
            prop_assume!(ours != theirs);
            let (secret, keys) = (Secret::new(secret), keys());
            for mechanism in ALL {
                let client = handshake(mechanism, &secret, &keys, &ours, &theirs);
                // The meter is a client whose sides are changed.
                let meter = Handshake { client: SERVER, server: Some(CLIENT), to_server: &theirs, to_client: &ours, ..client };
                let mut answer = meter.answer(7).unwrap();
                prop_assert!(client.proves(&answer).unwrap(), "{:?}", mechanism);
                let place = bit.index(answer.len() * 8);
                answer[place / 8] ^= 1 << (place % 8);
                prop_assert!(!client.proves(&answer).unwrap(), "{:?}", mechanism);
            }
        }

        #[test]
        fn any_answer_to_any_challenge_is_judged_without_a_panic(
            challenge in prop::collection::vec(any::<u8>(), 0..80),
            answer in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let (secret, keys) = (Secret::new(b"Gurux".to_vec()), keys());
            for mechanism in ALL {
                let _ = handshake(mechanism, &secret, &keys, b"01234567", &challenge).proves(&answer);
            }
        }
    }

    #[test]
    fn a_mirrored_or_short_challenge_is_refused() {
        let (secret, keys) = (Secret::new(b"Gurux".to_vec()), keys());
        let mirrored = handshake(AuthMechanism::HighMd5, &secret, &keys, b"01234567", b"01234567");
        assert_eq!(mirrored.answer(1), Err(Unproven::Mirror));
        let short = handshake(AuthMechanism::HighMd5, &secret, &keys, b"01234567", b"0123456");
        assert_eq!(short.answer(1), Err(Unproven::Challenge(7)));
        let ecdsa = handshake(AuthMechanism::HighEcdsa, &secret, &keys, b"01234567", b"76543210");
        assert_eq!(ecdsa.answer(1), Err(Unproven::Mechanism(7)));
    }
}
