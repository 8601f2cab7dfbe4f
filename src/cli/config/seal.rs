//! `weir config seal` and `unseal`: the configuration and its secrets at rest (docs/locked.md).

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

use super::super::failure::Failure;
use super::{note, print};
use crate::config;
use crate::config::change::store_of;
use crate::os::file::{open_itself, read_small, write_atomic_for};
use crate::os::seal::{self, Source};

const LARGEST: u64 = 2 << 20;

/// Seals the base file, the accepted configurations, certificates that came by command, and what is named besides; what is sealed
/// with another key is sealed anew.
pub(super) fn seal(
    config: &Path,
    credential: Option<PathBuf>,
    token: Option<&str>,
    files: &[PathBuf],
) -> Result<(), Failure> {
    let store = store(config)?;
    let source = source(&store, credential, token)?;
    if let Some(pin) = files.iter().find(|file| seal::is_its_pin(&source, file)) {
        return Err(Failure::usage(format!(
            "{} holds the token's PIN: sealed with the token's key nothing could open it; leave it out (docs/locked.md)",
            pin.display()
        )));
    }
    if let Source::Board { serial: false, .. } = source {
        note(
            "this board shows no serial number: a copy of its whole disk opens on any board; use --credential or --pkcs11 (docs/locked.md)",
        );
    }
    let beside = config::sealed_beside(config);
    let (_held, mut all) = all(&store, files)?;
    // The last one: what weir writes is sealed as this is.
    all.extend((!config.exists()).then(|| Place::of(&beside)));
    // All is read, and opened, before anything is written: what is refused leaves all as it was.
    let base = if config.exists() { Some(Place::of(config).found()?) } else { None };
    let mut due = Vec::new();
    for place in all {
        let found = place.found()?;
        let before = place.told(seal::sealed_with(&found.content))?;
        if before.as_ref() != Some(&source) {
            let plain = place.told(before.map(|_| seal::open(&found.content)).transpose())?;
            due.push((found, plain, place));
        }
    }
    let mut anew = false;
    for (found, plain, place) in due {
        place.write(&found, &place.told(seal::seal(&source, plain.as_ref().unwrap_or(&found.content)))?)?;
        print(&format!(
            "sealed {}{}\n",
            place.name.display(),
            if plain.is_some() { " with the other key" } else { "" }
        ));
        anew |= plain.is_some();
    }
    if let Some(found) = base {
        let place = Place::of(&beside);
        place.write(&found, &place.told(seal::seal(&source, &found.content))?)?;
        let back = read_small(&beside, LARGEST).map_err(|error| failed(&beside, &error))?;
        if back != found.content {
            return Err(Failure::other(format!(
                "{} does not give back what was sealed; nothing was removed",
                beside.display()
            )));
        }
        fs::remove_file(config).map_err(|error| failed(config, &error))?;
        print(&format!("sealed {} as {}\n", config.display(), beside.display()));
    }
    if anew {
        note("what was sealed before and is not named here still needs the other key: name it, too");
    }
    note("restart weir, so that what it writes is sealed, too");
    Ok(())
}

/// Makes plain files of them again.
pub(super) fn unseal(config: &Path, files: &[PathBuf]) -> Result<(), Failure> {
    let store = store(config)?;
    let (_held, all) = all(&store, files)?;
    let beside = config::sealed_beside(config);
    // All is opened before anything is written: what is refused leaves all as it was.
    let base = if beside.exists() && !config.exists() { Some(Place::of(&beside).opened()?) } else { None };
    let mut plain = Vec::new();
    for place in all {
        if seal::is_sealed(&place.found()?.content) {
            plain.push((place.opened()?, place));
        }
    }
    for (found, place) in plain {
        place.write(&found, &found.content)?;
        print(&format!("unsealed {}\n", place.name.display()));
    }
    if let Some(found) = base {
        Place::of(config).write(&found, &found.content)?;
        fs::remove_file(&beside).map_err(|error| failed(&beside, &error))?;
        print(&format!("unsealed {}\n", config.display()));
    }
    note("restart weir, so that what it writes is plain, too");
    Ok(())
}

fn store(config: &Path) -> Result<PathBuf, Failure> {
    let base = config::own(config)?.text;
    let store = store_of(&base);
    let store =
        store.ok_or_else(|| Failure::config(format!("{} does not tell where the store is", config.display())))?;
    if store.is_dir() {
        return Ok(store);
    }
    Err(Failure::other(format!("there is no store in {} yet: start weir once", store.display())))
}

/// The key: the credential or the token that is named, else the one that the configuration is sealed with, else the board's.
fn source(store: &Path, credential: Option<PathBuf>, token: Option<&str>) -> Result<Source, Failure> {
    if let Some(file) = credential {
        return Ok(Source::Credential { file: absolute(&file)? });
    }
    if let (None, Some(source)) = (token, seal::active()) {
        return Ok(source);
    }
    let meta = fs::metadata(store).map_err(|error| failed(store, &error))?;
    let (folder, owner) = (absolute(store)?, Some((meta.uid(), meta.gid())));
    let made = match token {
        Some(uri) => seal::token_key(&folder, uri, owner),
        None => seal::board_key(&folder.join("seal.key"), owner),
    };
    made.map_err(|error| Failure::other(error.to_string()))
}

/// A file that is to be sealed or unsealed.
struct Place {
    name: PathBuf,
    /// The way to it that nobody can turn meanwhile.
    way: PathBuf,
}

/// What was found there.
#[derive(Debug)]
struct Found {
    content: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
}

impl Place {
    fn of(path: &Path) -> Self {
        Self { name: path.to_owned(), way: path.to_owned() }
    }

    /// Reads a plain file: root reads no file of others because weir, or who took it over, put a link to it there.
    fn found(&self) -> Result<Found, Failure> {
        let read = || {
            let file = open_itself(&self.way)?;
            let meta = file.metadata()?;
            let mut content = Vec::new();
            file.take(LARGEST + 1).read_to_end(&mut content)?;
            if content.len() as u64 > LARGEST {
                return Err(io::Error::other(format!("it has more than {LARGEST} bytes")));
            }
            Ok(Found { content, mode: meta.permissions().mode() & 0o777, owner: (meta.uid(), meta.gid()) })
        };
        read().map_err(|error| failed(&self.name, &error))
    }

    /// The same, with what is sealed in it.
    fn opened(&self) -> Result<Found, Failure> {
        let found = self.found()?;
        Ok(Found { content: self.told(seal::open(&found.content))?, ..found })
    }

    /// Writes it for whom `like` belongs to, with its mode.
    fn write(&self, like: &Found, content: &[u8]) -> Result<(), Failure> {
        write_atomic_for(&self.way, content, like.mode, Some(like.owner)).map_err(|error| failed(&self.name, &error))
    }

    fn told<T>(&self, outcome: Result<T, seal::SealError>) -> Result<T, Failure> {
        outcome.map_err(|error| Failure::other(format!("{}: {error}", self.name.display())))
    }
}

/// What weir keeps by itself and may be secret, then what is named; the folders are held open so that they stay these.
fn all(store: &Path, files: &[PathBuf]) -> Result<(Vec<File>, Vec<Place>), Failure> {
    let (mut held, mut found) = (Vec::new(), Vec::new());
    for (folder, ending) in [("config", "toml"), ("tls", "pem"), ("sessions", "modem-pin")] {
        let name = store.join(folder);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = match open(&name, flags, Mode::empty()) {
            Ok(folder) => File::from(folder),
            Err(rustix::io::Errno::NOENT) => continue,
            Err(error) => return Err(failed(&name, &error.into())),
        };
        let way = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        let entries = fs::read_dir(&way).map_err(|error| failed(&name, &error))?.filter_map(Result::ok);
        let entries = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        let is_kept = |file: &Path| file.extension().or(file.file_name()).is_some_and(|end| end == ending);
        let files = entries.map(|entry| PathBuf::from(entry.file_name())).filter(|file| is_kept(file));
        found.extend(files.map(|file| Place { name: name.join(&file), way: way.join(&file) }));
        held.push(folder);
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found.extend(files.iter().map(|file| Place::of(file)));
    Ok((held, found))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::other(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_itself_is_read_and_it_keeps_its_owner_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("secret"), "content").unwrap();
        fs::set_permissions(at("secret"), fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(at("secret"), at("link")).unwrap();
        for (name, why) in [("link", "it is a link"), ("", "it is no file"), ("none", "No such file")] {
            let told = format!("{:?}", Place::of(&at(name)).found().unwrap_err());
            assert!(told.contains(why), "{name}: {told}");
        }
        let found = Place::of(&at("secret")).found().unwrap();
        assert_eq!((found.content.as_slice(), found.mode), (&b"content"[..], 0o640));
        Place::of(&at("other")).write(&found, b"x").unwrap();
        assert_eq!(fs::metadata(at("other")).unwrap().permissions().mode() & 0o777, 0o640);
        // A folder that is a link to somewhere else is not looked through.
        let store = folder.path().join("store");
        fs::create_dir_all(store.join("config")).unwrap();
        fs::write(store.join("config/1.toml"), "").unwrap();
        std::os::unix::fs::symlink(store.join("config"), store.join("tls")).unwrap();
        assert!(all(&store, &[]).is_err());
        fs::remove_file(store.join("tls")).unwrap();
        let (_held, found) = all(&store, &[at("secret")]).unwrap();
        let names: Vec<_> = found.iter().map(|place| place.name.clone()).collect();
        assert_eq!(names, [store.join("config/1.toml"), at("secret")]);
    }
}
