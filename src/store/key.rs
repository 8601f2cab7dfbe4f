//! The gateway's signing key (Ed25519, RFC 8032): one file, made once, pinned by the head-end.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use tracing::{error, info, warn};

use crate::os::file::{read_small, write_atomic};
use crate::os::random;

/// Longer than any key in PKCS#8.
const LONGEST: u64 = 1024;
const MODE: u32 = 0o600;
const EIO: i32 = 5;

/// The public half of a [`Key`].
pub type Public = [u8; 32];
/// A signature of a [`Key`].
pub type Signature = [u8; 64];

/// The private key with its public half.
pub struct Key {
    pair: Ed25519KeyPair,
    public: Public,
}

impl fmt::Debug for Key {
    /// Never shows the private half.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Returns where the key of the store in `store` is kept.
pub fn path_in(store: &Path) -> PathBuf {
    store.join("key")
}

impl Key {
    /// Reads the key in `path`, or makes one (PKCS#8, mode 0600, durable when this returns) when
    /// there is none. A file that is no key, or that the medium has lost, is put aside as
    /// `key.damaged` and replaced: from then on manifests carry another key, which an ERROR tells.
    ///
    /// # Errors
    /// The system's error, such as a full disk or a file that may not be read: an error of the
    /// moment does not change the gateway's key.
    pub fn open_or_create(path: &Path) -> io::Result<Self> {
        match Self::open(path) {
            Ok(key) => {
                guard(path)?;
                Ok(key)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::create(path),
            Err(e) if e.kind() == io::ErrorKind::InvalidData || e.raw_os_error() == Some(EIO) => {
                let mut name = path.file_name().unwrap_or_default().to_os_string();
                name.push(".damaged");
                fs::rename(path, path.with_file_name(name))?;
                error!(path = %path.display(), error = %e, "the signing key is unreadable, a new one is made: pin it at the head-end");
                Self::create(path)
            }
            Err(e) => Err(e),
        }
    }

    /// Reads the key in `path`.
    ///
    /// # Errors
    /// `NotFound` when there is none, `InvalidData` when the file is no key, or the system's error.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::of(&read_small(path, LONGEST)?)
    }

    fn create(path: &Path) -> io::Result<Self> {
        let refused = |_| io::Error::other("the system gives no random numbers");
        let document = Ed25519KeyPair::generate_pkcs8(&random::system()).map_err(refused)?;
        let key = Self::of(document.as_ref())?;
        write_atomic(path, document.as_ref(), MODE)?;
        info!(path = %path.display(), public = %key.text(), "a signing key is made");
        Ok(key)
    }

    fn of(document: &[u8]) -> io::Result<Self> {
        let wrong = |_| io::Error::new(io::ErrorKind::InvalidData, "the file holds no Ed25519 key in PKCS#8");
        let pair = Ed25519KeyPair::from_pkcs8(document).map_err(wrong)?;
        let length = |_| io::Error::new(io::ErrorKind::InvalidData, "the public key has not 32 bytes");
        let public = pair.public_key().as_ref().try_into().map_err(length)?;
        Ok(Self { pair, public })
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> Signature {
        let mut signature = [0; 64];
        let made = self.pair.sign(message);
        // An Ed25519 signature has 64 bytes (RFC 8032, 5.1.6); anything else would not verify.
        signature.iter_mut().zip(made.as_ref()).for_each(|(to, from)| *to = *from);
        signature
    }

    /// Returns the public half.
    pub fn public(&self) -> Public {
        self.public
    }

    /// Returns the public half in base64, as a head-end pins it.
    pub fn text(&self) -> String {
        data_encoding::BASE64.encode(&self.public)
    }
}

/// Whether `signature` was made over `message` by the owner of `public`.
pub fn verify(public: &Public, message: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
}

/// Reads a public key in base64; `None` when it is none.
pub fn public_of(text: &str) -> Option<Public> {
    data_encoding::BASE64.decode(text.trim().as_bytes()).ok()?.try_into().ok()
}

/// Takes the key away from everyone but its owner, should somebody have copied it carelessly.
fn guard(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        warn!(path = %path.display(), mode = format!("{mode:o}"), "others could read the signing key, now they can't");
        fs::set_permissions(path, Permissions::from_mode(MODE))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_for_its_owner_only_and_signs_the_same_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_in(dir.path());
        let key = Key::open_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let again = Key::open_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!((key.public(), key.sign(b"x")), (again.public(), again.sign(b"x")));
        assert_eq!(public_of(&key.text()), Some(key.public()));
        assert!(!format!("{key:?}").contains("pair"));
    }

    #[test]
    fn a_signature_holds_for_its_message_and_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::open_or_create(&dir.path().join("a")).unwrap();
        let other = Key::open_or_create(&dir.path().join("b")).unwrap();
        let signature = key.sign(b"message");
        assert!(verify(&key.public(), b"message", &signature));
        assert!(!verify(&key.public(), b"messagf", &signature));
        assert!(!verify(&other.public(), b"message", &signature));
        let mut bent = signature;
        bent[63] ^= 1;
        assert!(!verify(&key.public(), b"message", &bent));
    }

    #[test]
    fn a_torn_key_is_put_aside_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_in(dir.path());
        let old = Key::open_or_create(&path).unwrap().public();
        let whole = fs::read(&path).unwrap();
        for torn in [&[][..], &whole[..whole.len() - 1], &[0; 4096]] {
            fs::write(&path, torn).unwrap();
            assert!(Key::open(&path).is_err());
            let new = Key::open_or_create(&path).unwrap().public();
            assert_ne!(new, old);
            assert_eq!(fs::read(dir.path().join("key.damaged")).unwrap(), torn);
            assert_eq!(Key::open(&path).unwrap().public(), new);
        }
    }

    #[test]
    fn an_error_of_the_moment_keeps_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::create_dir(&path).unwrap();
        assert!(Key::open_or_create(&path).is_err());
        assert!(path.is_dir() && !dir.path().join("key.damaged").exists());
    }
}
