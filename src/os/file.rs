//! Files that are whole or not there.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use super::seal;

/// Replaces `path` by `content` so that a power cut leaves the old or the new file, never half:
/// written beside it with `mode`, synced, renamed, directory synced.
///
/// # Errors
/// The system's error; the old file is then untouched.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    write_atomic_for(path, content, mode, None)
}

/// The same for a user and a group, who own it before it has its name.
///
/// # Errors
/// The system's error; the old file is then untouched.
pub fn write_atomic_for(path: &Path, content: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let beside = path.with_file_name(name);
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(content)?;
    if let Some((user, group)) = owner {
        fchown(&file, Some(user), Some(group))?;
    }
    file.sync_all()?;
    fs::rename(&beside, path)?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// Makes the names in a directory durable.
///
/// # Errors
/// The system's error.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

/// Reads a small file whole, refusing one larger than `limit` bytes; of a sealed file (docs/locked.md) it gives what is in it.
///
/// # Errors
/// The system's error, `InvalidData` when it is too large, `Other` when its seal can't be opened.
pub fn read_small(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let too_large = || io::Error::new(io::ErrorKind::InvalidData, format!("larger than {limit} bytes"));
    let mut content = read_plain(path, limit.saturating_add(seal::OVERHEAD)).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => too_large(),
        _ => error,
    })?;
    if seal::is_sealed(&content) {
        content = seal::open(&content)?;
    }
    if content.len() as u64 > limit { Err(too_large()) } else { Ok(content) }
}

/// The same, as it lies on the disk.
///
/// # Errors
/// The system's error, or `InvalidData` when it is too large.
pub fn read_plain(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut content = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {limit} bytes")));
    }
    Ok(content)
}

/// Opens a file to be read, but no link to one and no pipe or device, which others may have put there.
///
/// # Errors
/// The system's error, or `Other` when it is a link or no file.
pub fn open_itself(path: &Path) -> io::Result<File> {
    use rustix::fs::OFlags;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, rustix::fs::Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::LOOP) => return Err(io::Error::other("it is a link; name the file itself")),
        Err(error) => return Err(error.into()),
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no file")) }
}

/// What `weir config seal` makes of the file at `path`: `weir.toml.sealed` beside it.
pub fn sealed_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".sealed");
    path.with_file_name(name)
}

/// The file at `path`, or its sealed one where only that is there.
pub fn or_sealed(path: &Path) -> Cow<'_, Path> {
    let sealed = sealed_beside(path);
    if path.exists() || !sealed.exists() { Cow::Borrowed(path) } else { Cow::Owned(sealed) }
}

/// Reads a secret: a file whole, or, of `FILE#NAME`, the value of a parameter of the config.txt `FILE`, sealed or not.
///
/// # Errors
/// As [`read_small`]; `NotFound` when the parameter is not there.
pub fn read_secret(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    match parameter_of(path) {
        Some((file, name)) => {
            let value = crate::wire::mtx::value_of(&read_small(&or_sealed(file), LARGEST_CONFIG_TXT)?, name);
            let value = value.filter(|value| !value.is_empty() && value.len() as u64 <= limit);
            value.map(String::into_bytes).ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, format!("{} has no line {name}: VALUE", file.display()))
            })
        }
        None => read_small(path, limit),
    }
}

/// When the file that a secret is read from was written and changed, and which one it is; `None` where that can't be told.
pub fn state_of_secret(path: &Path) -> Option<String> {
    let file = parameter_of(path).map_or(Cow::Borrowed(path), |(file, _)| or_sealed(file));
    let meta = fs::metadata(file).ok()?;
    let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()].map(|part| part.to_string());
    Some(format!("{} {}", times.join("."), meta.ino()))
}

/// The largest config.txt that holds a secret.
const LARGEST_CONFIG_TXT: u64 = 1 << 20;

/// The config.txt and the name of `FILE#NAME`; a file may well have such a name itself.
fn parameter_of(path: &Path) -> Option<(&Path, &str)> {
    let (file, name) = path.to_str()?.rsplit_once('#')?;
    (!path.exists() && !name.contains('/')).then(|| (Path::new(file), name))
}

/// Whether there is something where a secret should be.
pub fn has_secret(path: &Path) -> bool {
    path.exists() || parameter_of(path).is_some_and(|(file, _)| or_sealed(file).exists())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_a_file_or_a_line_of_a_config_txt() {
        let dir = tempfile::tempdir().unwrap();
        let (config, plain) = (dir.path().join("config.txt"), dir.path().join("pin#1"));
        fs::write(&config, "MTX_PIN: 1234\nmtx_pin: 4321\nMQTT_password:\n").unwrap();
        fs::write(&plain, "0000\n").unwrap();
        let named = |name: &str| PathBuf::from(format!("{}#{name}", config.display()));
        assert_eq!(read_secret(&named("MTX_PIN"), 16).unwrap(), b"4321");
        assert_eq!(read_secret(&plain, 16).unwrap(), b"0000\n");
        for missing in [named("MQTT_password"), named("X"), dir.path().join("none")] {
            assert_eq!(read_secret(&missing, 16).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        assert!(read_secret(&named("MTX_PIN"), 3).is_err());
        assert!(has_secret(&named("X")) && has_secret(&plain) && !has_secret(&dir.path().join("none#X")));
    }

    #[test]
    fn a_secret_is_found_where_only_the_sealed_config_txt_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.txt");
        let named = PathBuf::from(format!("{}#MQTT_password", config.display()));
        fs::write(sealed_beside(&config), "MQTT_password: s3cretMTX_mode: mqtt\n").unwrap();
        assert!(has_secret(&named));
        assert_eq!(read_secret(&named, 64).unwrap(), b"s3cret");
        fs::write(&config, "MQTT_password: plain\n").unwrap();
        assert_eq!(read_secret(&named, 64).unwrap(), b"plain", "as with a weir.toml");
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write_atomic(&path, b"one", 0o600).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(read_small(&path, 3).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(read_small(&path, 2).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
