//! Files that only this gateway can read: sealed with a key that is bound to the board, or that systemd or a token keeps (docs/locked.md).
//!
//! A sealed file says in its first line which key opens it; then come 32 bytes of salt and the content in AES-256-GCM (NIST SP 800-38D)
//! under a key of its own, made by HKDF-SHA256 (RFC 5869) of that key and the salt; the first line is authenticated, too. Whoever reads a small
//! file by [`super::file::read_small`] gets what is in it, sealed or not. Keys are read once and never shown.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

use super::file::{open_itself, read_plain, sealed_beside, write_atomic, write_atomic_for};
use super::random;

mod pin;
mod token;
mod uri;

/// What a sealed file begins with.
const MAGIC: &str = "weir-sealed-1 ";
/// The longest first line.
const LONGEST_HEAD: usize = 1024;
const SALT: usize = 32;
/// A sealed file is so much longer than its content at most.
pub const OVERHEAD: u64 = 2048;
/// The name of the credential that systemd gives to the service.
pub const CREDENTIAL: &str = "weir-seal";

/// Which key a file is sealed with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A random key file together with what only this board has: its serial number (when `serial`) and the machine id.
    Board {
        /// The file, 32 random bytes.
        file: PathBuf,
        /// Whether the hardware's serial number is a part of it.
        serial: bool,
    },
    /// A credential of systemd, sealed by TPM 2.0 or the host's key; decrypted by systemd for the service, else by `systemd-creds`.
    Credential {
        /// The encrypted credential.
        file: PathBuf,
    },
    /// A key that a PKCS#11 token gives out by its PIN.
    Token {
        /// The key as only the token opens it, and which token that is.
        file: PathBuf,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Board { file, serial: true } => write!(f, "board+serial {}", file.display()),
            Self::Board { file, serial: false } => write!(f, "board {}", file.display()),
            Self::Credential { file } => write!(f, "credential {}", file.display()),
            Self::Token { file } => write!(f, "pkcs11 {}", file.display()),
        }
    }
}

impl Source {
    fn parse(head: &str) -> Option<Self> {
        let (kind, file) = head.strip_prefix(MAGIC)?.split_once(' ')?;
        let file = PathBuf::from(file);
        match kind {
            "board+serial" => Some(Self::Board { file, serial: true }),
            "board" => Some(Self::Board { file, serial: false }),
            "credential" => Some(Self::Credential { file }),
            "pkcs11" => Some(Self::Token { file }),
            _ => None,
        }
    }
}

/// Why a sealed file can't be opened, or nothing be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key's file is not there or can't be read.
    #[error(
        "it is sealed, and its key {file} can't be read: {source}; bring the key back, or write the file anew (docs/locked.md)"
    )]
    NoKey {
        /// The key's file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The board has no serial number, but the seal wants one.
    #[error(
        "it is sealed for a board with a serial number, and this one shows none; open it on its own board (docs/locked.md)"
    )]
    NoSerial,
    /// systemd does not give the credential.
    #[error("it is sealed by a credential of systemd, and that can't be decrypted here: {0} (docs/locked.md)")]
    NoCredential(String),
    /// The token, its PIN, or what asks it.
    #[error("the key that a PKCS#11 token keeps can't be had: {0} (docs/locked.md)")]
    NoToken(String),
    /// Another key, or a damaged file.
    #[error("it is sealed for another gateway, or damaged: the key of this board does not open it (docs/locked.md)")]
    Wrong,
    /// A head that this version does not know.
    #[error("it is sealed in a way that this version of weir does not know (docs/locked.md)")]
    Unknown,
    /// Nothing can be sealed.
    #[error("nothing can be sealed: {0}")]
    System(#[from] io::Error),
}

impl From<SealError> for io::Error {
    fn from(error: SealError) -> Self {
        Self::other(error)
    }
}

/// Keys that were read, and the source that the configuration is sealed with: what is written is sealed with it, too.
#[derive(Default)]
struct Known {
    keys: BTreeMap<Source, Zeroizing<Vec<u8>>>,
    /// Why there is no key of a token that was shown its PIN: one try a start.
    tried: BTreeMap<Source, String>,
    active: Option<Source>,
    /// The configuration, when it is plain and lies beside a sealed one, before which it counts.
    outranking: Option<PathBuf>,
}

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

fn known<T>(work: impl FnOnce(&mut Known) -> T) -> T {
    work(&mut KNOWN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What this process seals new files with; `None`: its configuration is not sealed, and it writes plain ones.
pub fn active() -> Option<Source> {
    known(|known| known.active.clone())
}

/// Has this process seal new files as `runs`, what it works with, is sealed; `base` is the gateway's own configuration.
pub fn follow(base: &Path, runs: &Path) {
    // What can't be read is told by who needs what is in it.
    if let Ok(head) = head_of(runs) {
        let source = sealed_with(&head).unwrap_or_default();
        let outranks = is_plain(base) && sealed_beside(base).exists();
        known(|known| (known.active, known.outranking) = (source, outranks.then(|| base.to_owned())));
    }
}

/// The configuration, when it is a plain file that counts before the sealed one beside it.
pub fn outranking() -> Option<PathBuf> {
    known(|known| known.outranking.clone())
}

/// Whether there is a file that is not sealed.
pub fn is_plain(path: &Path) -> bool {
    head_of(path).is_ok_and(|head| !is_sealed(&head))
}

fn head_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take((LONGEST_HEAD + 1) as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// What a file is sealed with; `None`: it is plain.
///
/// # Errors
/// [`SealError::Unknown`].
pub fn sealed_with(content: &[u8]) -> Result<Option<Source>, SealError> {
    if !is_sealed(content) {
        return Ok(None);
    }
    Source::parse(split(content)?.0).map(Some).ok_or(SealError::Unknown)
}

/// Whether bytes are a sealed file's.
pub fn is_sealed(content: &[u8]) -> bool {
    content.starts_with(MAGIC.as_bytes())
}

/// Opens a sealed file's content.
///
/// # Errors
/// [`SealError`].
pub fn open(content: &[u8]) -> Result<Vec<u8>, SealError> {
    let (head, rest) = split(content)?;
    let source = Source::parse(head).ok_or(SealError::Unknown)?;
    opened(&key_of(&source)?, head, rest)
}

/// Seals a content.
///
/// # Errors
/// [`SealError`].
pub fn seal(source: &Source, content: &[u8]) -> Result<Vec<u8>, SealError> {
    let key = key_of(source)?;
    let mut salt = [0; SALT];
    random::system().fill(&mut salt).map_err(|_| io::Error::other("the system gives no randomness"))?;
    let head = format!("{MAGIC}{source}");
    if head.len() > LONGEST_HEAD || head.contains('\n') {
        return Err(io::Error::other("the key's path is too long").into());
    }
    let mut body = content.to_vec();
    let (once, nonce) = derived(&key, &salt)?;
    once.seal_in_place_append_tag(nonce, Aad::from(head.as_bytes()), &mut body).map_err(|_| SealError::Wrong)?;
    Ok([head.as_bytes(), b"\n", &salt, &body].concat())
}

/// Writes a file that holds a secret or a configuration: sealed when this process works with sealed files. As
/// [`write_atomic`] with mode 0600.
///
/// # Errors
/// The system's error, or a [`SealError`] in it; the old file is then untouched.
pub fn write_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    match active() {
        Some(source) => write_atomic(path, &seal(&source, content)?, 0o600),
        None => write_atomic(path, content, 0o600),
    }
}

/// Makes the key of a board in a file for its owner, unless it is there, and gives its source.
///
/// # Errors
/// [`SealError::System`].
pub fn board_key(file: &Path, owner: Option<(u32, u32)>) -> Result<Source, SealError> {
    match open_itself(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut key = Zeroizing::new([0; 32]);
            random::system().fill(&mut *key).map_err(|_| io::Error::other("the system gives no randomness"))?;
            write_atomic_for(file, &*key, 0o600, owner)?;
        }
        found => drop(found.map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?),
    }
    Ok(Source::Board { file: file.to_owned(), serial: serial(Path::new("/")).is_some() })
}

/// Makes a key in a folder that the token of a PKCS#11 URI keeps, unless it is there, and gives its source once the token gave it out.
///
/// # Errors
/// [`SealError::NoToken`], [`SealError::System`].
pub fn token_key(folder: &Path, uri: &str, owner: Option<(u32, u32)>) -> Result<Source, SealError> {
    let uri = uri::Uri::parse(uri).map_err(SealError::NoToken)?;
    let file = folder.join(format!("seal-{}.token", short(&uri.text)));
    let is_new = matches!(open_itself(&file), Err(error) if error.kind() == io::ErrorKind::NotFound);
    if is_new {
        token::make(&file, &uri, owner)?;
    }
    let source = Source::Token { file };
    // As at a start.
    if let (Err(error), Source::Token { file }) = (key_of(&source), &source) {
        if is_new {
            std::fs::remove_file(file)?;
        }
        return Err(error);
    }
    Ok(source)
}

/// Whether a file holds the PIN by which a source's token is opened: sealed with it, it would open nothing.
pub fn is_its_pin(source: &Source, path: &Path) -> bool {
    let Source::Token { file } = source else { return false };
    let pin = token::pin_of(file).and_then(|pin| pin.canonicalize().ok());
    pin.is_some() && pin == path.canonicalize().ok()
}

/// A name for what has no short one.
fn short(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    data_encoding::HEXLOWER.encode(digest.as_ref().get(..4).unwrap_or_default())
}

fn split(content: &[u8]) -> Result<(&str, &[u8]), SealError> {
    let end = content.iter().take(LONGEST_HEAD + 1).position(|byte| *byte == b'\n').ok_or(SealError::Unknown)?;
    let head = content.get(..end).and_then(|head| std::str::from_utf8(head).ok()).ok_or(SealError::Unknown)?;
    Ok((head, content.get(end + 1..).unwrap_or_default()))
}

fn opened(key: &[u8], head: &str, rest: &[u8]) -> Result<Vec<u8>, SealError> {
    let (salt, body) = rest.split_at_checked(SALT).ok_or(SealError::Wrong)?;
    let (once, nonce) = derived(key, salt)?;
    let mut body = body.to_vec();
    let plain = once.open_in_place(nonce, Aad::from(head.as_bytes()), &mut body).map_err(|_| SealError::Wrong)?.len();
    body.truncate(plain);
    Ok(body)
}

/// The key of one file. It is used once, so that its nonce may be a constant.
fn derived(key: &[u8], salt: &[u8]) -> Result<(LessSafeKey, Nonce), SealError> {
    let extracted = Salt::new(HKDF_SHA256, salt).extract(key);
    let info = [MAGIC.as_bytes()];
    let expanded = extracted.expand(&info, &AES_256_GCM).map_err(|_| SealError::Wrong)?;
    Ok((LessSafeKey::new(UnboundKey::from(expanded)), Nonce::assume_unique_for_key([0; 12])))
}

fn key_of(source: &Source) -> Result<Zeroizing<Vec<u8>>, SealError> {
    if let Some(key) = known(|known| known.keys.get(source).cloned()) {
        return Ok(key);
    }
    let key = match source {
        Source::Board { file, serial } => board(file, *serial, Path::new("/"))?,
        Source::Credential { file } => credential(file)?,
        Source::Token { file } => {
            if let Some(why) = known(|known| known.tried.get(source).cloned()) {
                return Err(SealError::NoToken(why));
            }
            token::key(file).map_err(|failed| {
                if failed.shown {
                    known(|known| known.tried.insert(source.clone(), failed.why.clone()));
                }
                SealError::NoToken(failed.why)
            })?
        }
    };
    known(|known| known.keys.insert(source.clone(), key.clone()));
    Ok(key)
}

/// The key's file and what only this board has.
fn board(file: &Path, with_serial: bool, root: &Path) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let no_key = |source| SealError::NoKey { file: file.to_owned(), source };
    let mut key = Zeroizing::new(Vec::new());
    // Any file may be named in the head of one that others wrote.
    open_itself(file).and_then(|file| file.take(4096).read_to_end(&mut key)).map_err(no_key)?;
    if key.len() < 32 {
        return Err(no_key(io::Error::new(io::ErrorKind::InvalidData, "it is too short")));
    }
    let machine = read_plain(&root.join("etc/machine-id"), 256).unwrap_or_default();
    key.extend_from_slice(b"\nmachine ");
    key.extend_from_slice(machine.trim_ascii());
    if with_serial {
        key.extend_from_slice(b"\nserial ");
        key.extend_from_slice(&serial(root).ok_or(SealError::NoSerial)?);
    }
    Ok(key)
}

/// The serial number that the hardware shows to everybody in the device tree. (Not /proc: a hardened service does not see it.)
fn serial(root: &Path) -> Option<Vec<u8>> {
    let text = read_plain(&root.join("sys/firmware/devicetree/base/serial-number"), 256).ok()?;
    let text: Vec<u8> = text.into_iter().filter(u8::is_ascii_alphanumeric).collect();
    // Only zeros: it was never programmed.
    text.iter().any(|byte| *byte != b'0').then_some(text)
}

/// What systemd gives to the service, else what `systemd-creds` decrypts.
fn credential(file: &Path) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let given = std::env::var_os("CREDENTIALS_DIRECTORY").map(|folder| PathBuf::from(folder).join(CREDENTIAL));
    let key = match given.and_then(|path| read_plain(&path, 4096).ok()) {
        Some(key) => Zeroizing::new(key),
        None => {
            let mut program = Command::new("systemd-creds");
            let program = program.arg("decrypt").arg(format!("--name={CREDENTIAL}")).arg(file).arg("-");
            let done = token::run(program, &[], token::LIMIT)
                .map_err(|error| SealError::NoCredential(format!("systemd-creds: {error}")))?
                .ok_or_else(|| SealError::NoCredential("systemd-creds gives no answer".to_owned()))?;
            if !done.status.success() {
                let said = String::from_utf8_lossy(&done.stderr);
                let said: String = said.lines().last().unwrap_or_default().chars().take(200).collect();
                return Err(SealError::NoCredential(said));
            }
            Zeroizing::new(done.stdout)
        }
    };
    if key.len() < 32 {
        return Err(SealError::NoCredential("it is shorter than 32 bytes".to_owned()));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn board_at(root: &Path, machine: &str, serial: &str) {
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("sys/firmware/devicetree/base")).unwrap();
        fs::write(root.join("etc/machine-id"), machine).unwrap();
        fs::write(root.join("sys/firmware/devicetree/base/serial-number"), serial).unwrap();
    }

    #[test]
    fn a_copy_on_another_board_has_another_key_and_nothing_opens_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("seal.key");
        board_key(&file, None).unwrap();
        let key = |machine: &str, serial: &str| {
            let root = tempfile::tempdir().unwrap();
            board_at(root.path(), machine, serial);
            board(&file, true, root.path())
        };
        let own = key("m1\n", "0001\0").unwrap();
        assert_eq!(*key("m1", "0001").unwrap(), *own, "signs around the numbers do not count");
        for (machine, serial) in [("m2", "0001"), ("m1", "0002")] {
            assert_ne!(*key(machine, serial).unwrap(), *own);
        }
        assert!(matches!(key("m1", "0000"), Err(SealError::NoSerial)), "never programmed");
        let (once, nonce) = derived(&own, &[7; SALT]).unwrap();
        let mut body = b"secret".to_vec();
        once.seal_in_place_append_tag(nonce, Aad::from(b"head"), &mut body).unwrap();
        let rest = [&[7; SALT][..], &body].concat();
        assert_eq!(opened(&own, "head", &rest).unwrap(), b"secret");
        let other = key("m2", "0001").unwrap();
        assert!(matches!(opened(&other, "head", &rest), Err(SealError::Wrong)));
        assert!(matches!(opened(&own, "Head", &rest), Err(SealError::Wrong)), "the first line is authenticated");
    }

    #[test]
    fn a_key_is_a_file_and_neither_a_link_nor_a_pipe() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("other"), [1; 64]).unwrap();
        std::os::unix::fs::symlink(at("other"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("none"), at("dangling")).unwrap();
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        for (name, why) in [("pipe", "it is no file"), ("link", "it is a link"), ("dangling", "it is a link")] {
            let made = board_key(&at(name), None).unwrap_err().to_string();
            let read = board(&at(name), false, Path::new("/")).unwrap_err().to_string();
            assert!(made.contains(why) && read.contains(why), "{made}\n{read}");
        }
        assert!(!at("none").exists());
    }

    #[test]
    fn any_bytes_behind_the_magic_are_refused_and_a_file_comes_back_whole() {
        let folder = tempfile::tempdir().unwrap();
        let source = board_key(&folder.path().join("seal.key"), None).unwrap();
        let sealed = seal(&source, b"[broker]\n").unwrap();
        assert_eq!(sealed_with(&sealed).unwrap(), Some(source.clone()));
        assert_eq!(sealed_with(b"[broker]\n").unwrap(), None);
        assert!(matches!(sealed_with(b"weir-sealed-1 moon /x\n"), Err(SealError::Unknown)));
        assert!(is_sealed(&sealed) && !sealed.windows(6).any(|bytes| bytes == b"broker"));
        assert_ne!(seal(&source, b"[broker]\n").unwrap(), sealed, "each has a salt of its own");
        let (head, rest) = split(&sealed).unwrap();
        assert_eq!(Source::parse(head), Some(source.clone()));
        let key = key_of(&source).unwrap();
        assert_eq!(opened(&key, head, rest).unwrap(), b"[broker]\n");
        for end in 0..rest.len() {
            assert!(opened(&key, head, &rest[..end]).is_err());
        }
        assert!(matches!(split(MAGIC.as_bytes()), Err(SealError::Unknown)));
        assert_eq!(Source::parse("weir-sealed-1 moon /x"), None);
        fs::remove_file(folder.path().join("seal.key")).unwrap();
        let gone = Source::Board { file: folder.path().join("other.key"), serial: false };
        assert!(seal(&gone, b"x").unwrap_err().to_string().contains("other.key"));
    }
}
