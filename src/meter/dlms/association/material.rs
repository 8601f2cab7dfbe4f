//! Passwords and keys of one meter, read anew for each association: they may have appeared or changed.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use ring::digest::{SHA256, digest};

use crate::meter::dlms::settings::{DlmsAuthentication, DlmsSecurity, DlmsSettings};
use crate::meter::{MeterError, MeterSettings};
use crate::os::file::read_small;
use crate::setting::{At, Problems, SecretFile};
use crate::wire::dlms::protect::{Fault, Keys, Suite};
use crate::wire::dlms::secret::Secret;

/// The longest file that is taken for a secret.
const LARGEST: u64 = 256;

/// What an association needs of the files.
#[derive(Debug)]
pub(super) struct Material {
    /// The password, or the secret of high level security.
    pub(super) secret: Secret,
    /// The keys, where APDUs are ciphered or the authentication is by GMAC.
    pub(super) keys: Option<Keys>,
    /// The bytes of the encryption key, to know its counter by.
    encryption: Secret,
    /// The bytes of the authentication key.
    authentication: Secret,
}

/// A short digest that tells keys and passwords apart and tells nothing about them.
pub(super) type Mark = [u8; 8];

impl Material {
    /// Reads the files that the settings name.
    ///
    /// # Errors
    /// One sentence that names the file and what is wrong with it.
    pub(super) fn read(settings: &MeterSettings, dlms: &DlmsSettings) -> Result<Self, MeterError> {
        let wanted = Wanted::by(dlms);
        let secret = wanted.password.then(|| password(settings.password_file.as_ref())).transpose()?;
        let suite = u8::try_from(dlms.suite.value()).ok().and_then(Suite::new);
        let suite = suite.ok_or_else(|| unasked("the security suite must be 0, 1 or 2".to_owned()))?;
        let mut material = Self {
            secret: secret.unwrap_or_default(),
            keys: None,
            encryption: Secret::default(),
            authentication: Secret::default(),
        };
        if !wanted.encryption {
            return Ok(material);
        }
        material.encryption = key(suite, settings.key_file.as_ref(), "key_file")?;
        let authentication = if wanted.authentication {
            Some(key(suite, settings.authentication_key_file.as_ref(), "authentication_key_file")?)
        } else {
            None
        };
        let fault = |fault: Fault| unasked(fault.to_string());
        let mut keys = Keys::new(suite, &material.encryption, authentication.clone()).map_err(fault)?;
        if dlms.broadcast_key_file.is_some() {
            keys.set_broadcast(&key(suite, dlms.broadcast_key_file.as_ref(), "broadcast_key_file")?).map_err(fault)?;
        }
        material.authentication = authentication.unwrap_or_default();
        material.keys = Some(keys);
        Ok(material)
    }

    /// Knows the counter of the encryption key under this title.
    pub(super) fn counter_mark(&self, title: [u8; 8]) -> Mark {
        mark(&[b"counter", &title, self.encryption.bytes()])
    }

    /// Knows everything with which this client shows who it is, and to whom.
    pub(super) fn secret_mark(&self, salt: &[u8], settings: &MeterSettings, dlms: &DlmsSettings) -> Mark {
        let how = format!("{:?} {:?} {:?} {:?}", dlms.client, dlms.server, dlms.authentication, dlms.security);
        let ways = format!("{:?} {:?} {:?} {:?}", dlms.suite, dlms.ciphering, dlms.referencing, dlms.link);
        let title = dlms.system_title.as_ref().map(|title| title.as_str()).unwrap_or_default();
        let address = settings.address.as_ref().map(|address| (**address).to_string()).unwrap_or_default();
        let whom = format!("{title} {address} {}", *settings.port);
        let secrets = [self.secret.bytes(), self.encryption.bytes(), self.authentication.bytes()];
        let [secret, encryption, authentication] = secrets;
        let settings = [how.as_bytes(), b"\0", ways.as_bytes(), b"\0", whom.as_bytes(), b"\0"].concat();
        mark(&[salt, &settings, secret, b"\0", encryption, b"\0", authentication])
    }
}

fn mark(parts: &[&[u8]]) -> Mark {
    let text = Secret::new(parts.concat());
    digest(&SHA256, text.bytes()).as_ref().first_chunk().copied().unwrap_or_default()
}

/// Which secrets the settings ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) password: bool,
    pub(super) encryption: bool,
    pub(super) authentication: bool,
}

impl Wanted {
    pub(super) const fn by(dlms: &DlmsSettings) -> Self {
        let gmac = matches!(dlms.authentication, DlmsAuthentication::Gmac);
        let password = !gmac && !matches!(dlms.authentication, DlmsAuthentication::None);
        let ciphered = !matches!(dlms.security, DlmsSecurity::None);
        let tagged = matches!(dlms.security, DlmsSecurity::Authenticated | DlmsSecurity::AuthenticatedEncrypted);
        Self { password, encryption: ciphered || gmac, authentication: tagged || gmac }
    }
}

/// Says which files are missing in the settings, too many, or readable by others.
pub(in crate::meter::dlms) fn check(settings: &MeterSettings, dlms: &DlmsSettings, problems: &mut Problems) {
    let wanted = Wanted::by(dlms);
    let files = [
        ("password_file", &settings.password_file, wanted.password),
        ("key_file", &settings.key_file, wanted.encryption),
        ("authentication_key_file", &settings.authentication_key_file, wanted.authentication),
        ("dlms.broadcast_key_file", &dlms.broadcast_key_file, wanted.encryption && dlms.broadcast_key_file.is_some()),
    ];
    for (name, file, wanted) in files {
        match (file, wanted) {
            (None, true) => {
                let message = format!("this authentication or security needs {name}");
                problems.error(settings.protocol.span(), message);
            }
            (Some(file), false) => {
                problems.error(file.span(), format!("{name} is not used by this authentication and security"));
            }
            (Some(file), true) if !file.path().is_absolute() => {
                problems.error(file.span(), format!("{name} must be an absolute path"));
            }
            (Some(file), true) => {
                if let Some(doubt) = doubt(file.path()) {
                    problems.warning(file.span(), format!("{name} {} {doubt}", file.path().display()));
                }
            }
            (None, false) => {}
        }
    }
}

/// Whether a file's owner is the system, or who runs this. For root others are right too: weir has a user of its own.
fn is_ours(owner: u32) -> bool {
    let user = rustix::process::geteuid().as_raw();
    owner == 0 || user == 0 || owner == user
}

fn doubt(path: &Path) -> Option<&'static str> {
    match std::fs::metadata(path) {
        Err(_) => Some("can't be read yet; the meter's values are null until it can"),
        Ok(about) if about.permissions().mode() & 0o077 != 0 => Some("can be read by others; set its mode to 0600"),
        Ok(about) if !is_ours(about.uid()) => Some("belongs to another user, who can change it; set its owner"),
        Ok(_) => None,
    }
}

/// Nothing was sent, and why.
pub(super) const fn unasked(why: String) -> MeterError {
    MeterError::Unasked(why)
}

fn content(file: Option<&At<SecretFile>>, name: &str) -> Result<Secret, MeterError> {
    let file = file.ok_or_else(|| unasked(format!("{name} is not set")))?;
    let content = read_small(file.path(), LARGEST);
    let content =
        content.map_err(|error| unasked(format!("{name} {} can't be read: {error}", file.path().display())))?;
    Ok(Secret::new(content))
}

/// The file's bytes without the end of the line.
fn password(file: Option<&At<SecretFile>>) -> Result<Secret, MeterError> {
    let content = content(file, "password_file")?;
    let bytes = content.bytes();
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    if bytes.is_empty() {
        return Err(unasked("password_file is empty".to_owned()));
    }
    Ok(Secret::new(bytes.to_vec()))
}

fn key(suite: Suite, file: Option<&At<SecretFile>>, name: &str) -> Result<Secret, MeterError> {
    let digits = content(file, name)?;
    hexadecimal(&digits, suite.key_length()).ok_or_else(|| {
        unasked(format!("{name} does not hold the {} hexadecimal digits of a key", suite.key_length() * 2))
    })
}

fn hexadecimal(digits: &Secret, length: usize) -> Option<Secret> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.bytes().trim_ascii()).ok().map(Secret::new);
    bytes.filter(|key| key.bytes().len() == length)
}

/// Reads a key of `length` bytes that a meter shall have, from a file that nobody else may read.
///
/// # Errors
/// [`MeterError::Order`] with the file and what is wrong with it; the key is not shown.
pub(in crate::meter::dlms) fn new_key(path: &Path, length: usize) -> Result<Secret, MeterError> {
    let order = |why: String| MeterError::Order(format!("the key's file {} {why}", path.display()));
    if let Some(doubt) = doubt(path) {
        return Err(order(doubt.to_owned()));
    }
    let content =
        read_small(path, LARGEST).map(Secret::new).map_err(|error| order(format!("can't be read: {error}")))?;
    let wrong = || order(format!("does not hold the {} hexadecimal digits of a key", length * 2));
    hexadecimal(&content, length).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(toml: &str) -> Vec<String> {
        crate::meter::settings::checked("dlms", toml)
    }

    #[test]
    fn secrets_that_are_missing_unused_or_open_to_others_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, mode: u32| {
            let path = folder.path().join(name);
            std::fs::write(&path, "00").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path.display().to_string()
        };
        let (closed, open) = (file("closed", 0o600), file("open", 0o644));
        let low = "dlms = { link = \"wrapper\", authentication = \"low\" }";
        let gmac = "dlms = { link = \"wrapper\", authentication = \"gmac\", security = \"authenticated-encrypted\" }";
        assert_eq!(checked(&format!("password_file = {closed:?}\n{low}")), Vec::<String>::new());
        assert_eq!(
            checked(&format!("key_file = {closed:?}\nauthentication_key_file = {closed:?}\n{gmac}")),
            Vec::<String>::new()
        );
        for (toml, named) in [
            (low.to_owned(), "needs password_file"),
            (format!("password_file = {open:?}\n{low}"), "set its mode to 0600"),
            (format!("password_file = \"secret\"\n{low}"), "absolute"),
            (format!("password_file = \"/nowhere/secret\"\n{low}"), "can't be read yet"),
            (format!("key_file = {closed:?}\n{gmac}"), "needs authentication_key_file"),
            (format!("password_file = {closed:?}\ndlms = {{ link = \"wrapper\" }}"), "password_file is not used"),
            ("dlms = { link = \"wrapper\", authentication = \"ecdsa\" }".to_owned(), "ecdsa is not supported"),
            ("dlms = { link = \"wrapper\", system_title = \"xy\" }".to_owned(), "16 hexadecimal digits"),
            ("dlms = { link = \"wrapper\", counter = \"xy\" }".to_owned(), "logical name"),
        ] {
            let found = checked(&toml);
            assert!(found.iter().any(|problem| problem.contains(named)), "{toml}: {found:#?}");
        }
    }

    #[test]
    fn a_mark_tells_secrets_apart() {
        let with = |password: &str| Material {
            secret: Secret::new(password.into()),
            keys: None,
            encryption: Secret::default(),
            authentication: Secret::default(),
        };
        let settings = |more: &str| {
            let text = format!("name = \"m\"\nport = \"p\"\nprotocol = \"dlms\"\n{more}");
            MeterSettings::parse(&text).unwrap()
        };
        let marked = |password: &str, salt: &[u8], more: &str| {
            let settings = settings(more);
            with(password).secret_mark(salt, &settings, &crate::meter::dlms::dlms(&settings).unwrap())
        };
        let one = marked("one", b"salt", "");
        assert_eq!(marked("one", b"salt", "timeout = \"3s\""), one);
        assert_ne!(marked("other", b"salt", ""), one);
        assert_ne!(marked("one", b"pepper", ""), one);
        assert_ne!(marked("one", b"salt", "dlms = { client = 3 }"), one);
        assert_ne!(marked("one", b"salt", "dlms = { system_title = \"5745490000000001\" }"), one);
        assert_ne!(marked("one", b"salt", "address = 18"), one);
        assert!(!format!("{:?}", with("Gurux")).contains("Gurux"));
    }
}
