//! Signs commands: the other side of `signed`, for whoever commands gateways.
//!
//! A key is a file in PEM (PKCS#8, RFC 8410), as `openssl genpkey -algorithm ed25519` writes it, with its name in a line before.

use data_encoding::BASE64;
use ring::rand::SecureRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::Envelope;
use crate::os::random;

/// What stands before the 32 bytes of the key (RFC 8410, 7: version 1, no attributes).
const HEAD: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// The line before the key.
const NAME: &str = "weir command key: ";

/// A private key and its name.
pub struct Signer {
    pair: Ed25519KeyPair,
    name: Option<String>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Signer {
    /// Makes a new key; gives the text of its file.
    ///
    /// # Errors
    /// One sentence: the system gives no randomness, or the name is none.
    pub fn generate(name: &str) -> Result<String, String> {
        if !is_name(name) {
            return Err("a key's name has 1 to 64 letters, digits, '.', '_', '-'".to_owned());
        }
        let mut key = [0; HEAD.len() + 32];
        let (head, seed) = key.split_at_mut(HEAD.len());
        head.copy_from_slice(&HEAD);
        random::system().fill(seed).map_err(|_| "the system gives no randomness".to_owned())?;
        Ok(format!("{NAME}{name}\n{BEGIN}\n{}\n{END}\n", BASE64.encode(&key)))
    }

    /// Reads the text of a key's file.
    ///
    /// # Errors
    /// One sentence, without anything of the key.
    pub fn read(text: &str) -> Result<Self, String> {
        let wrong = || format!("it holds no Ed25519 key in PEM; make one with weir at --new-key ({BEGIN})");
        let body = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).map(|(body, _)| body);
        let body: String = body.ok_or_else(wrong)?.split_whitespace().collect();
        let key = BASE64.decode(body.as_bytes()).map_err(|_| wrong())?;
        let seed = key.strip_prefix(&HEAD).ok_or_else(wrong)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| wrong())?;
        let name = text.lines().find_map(|line| line.strip_prefix(NAME)).map(|name| name.trim().to_owned());
        Ok(Self { pair, name: name.filter(|name| is_name(name)) })
    }

    /// Its name, when the file tells it.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The line for `control.signatures.keys_file`.
    pub fn public(&self, name: &str) -> String {
        format!("{name} {}", BASE64.encode(self.pair.public_key().as_ref()))
    }

    /// Signs a command, whose other members are there already.
    pub fn sign(&self, envelope: &mut Envelope) {
        envelope.signature = Some(BASE64.encode(self.pair.sign(&envelope.message()).as_ref()));
    }
}

fn is_name(name: &str) -> bool {
    crate::wire::at::is_id(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_and_signs_what_its_public_half_verifies() {
        let text = Signer::generate("ops").unwrap();
        let signer = Signer::read(&text).unwrap();
        assert_eq!(signer.name(), Some("ops"));
        let mut envelope = Envelope { at: "AT".into(), device: Some("gw1".into()), ..Envelope::default() };
        signer.sign(&mut envelope);
        let keys = super::super::signed::keys(&signer.public("ops")).unwrap();
        let signature = BASE64.decode(envelope.signature.as_ref().unwrap().as_bytes()).unwrap();
        let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &keys[0].1);
        public.verify(&envelope.message(), &signature).unwrap();
        assert_eq!(format!("{signer:?}"), "Signer { name: Some(\"ops\"), .. }");
    }

    #[test]
    fn what_is_no_key_is_told_without_showing_it() {
        let text = Signer::generate("ops").unwrap();
        for bad in ["", BEGIN, &text.replace("MC4", "MC5"), &text.replace(BEGIN, &format!("{BEGIN}A"))] {
            assert!(Signer::read(bad).unwrap_err().contains("--new-key"), "{bad}");
        }
        assert!(Signer::generate("two words").is_err());
    }
}
