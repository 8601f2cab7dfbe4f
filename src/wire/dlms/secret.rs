//! Bytes that nobody may see.

use std::fmt;

use zeroize::Zeroizing;

use crate::wire::aes::equal;

/// A key, a password or another secret: never shown, wiped when dropped, compared in a time that tells nothing.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        equal(&self.0, &other.0)
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::new(b"Gurux".to_vec());
        assert_eq!(format!("{secret:?}"), "Secret");
        assert_eq!(secret, Secret::new(b"Gurux".to_vec()));
        assert_ne!(secret, Secret::new(b"Gurus".to_vec()));
    }
}
