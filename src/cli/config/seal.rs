//! `weir config seal` and `unseal`: the configuration and its secrets at rest (docs/locked.md).

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};

use super::super::failure::Failure;
use super::{note, print};
use crate::config;
use crate::config::change::store_of;
use crate::os::file::{read_plain, read_small, write_atomic};
use crate::os::seal::{self, Source};

const LARGEST: u64 = 2 << 20;

/// Seals the base file, the accepted configurations, certificates that came by command, and what is named besides.
pub(super) fn seal(config: &Path, credential: Option<PathBuf>, files: &[PathBuf]) -> Result<(), Failure> {
    let store = store(config)?;
    let source = match credential {
        Some(file) => Source::Credential { file: absolute(&file)? },
        None => {
            let key = absolute(&store)?.join("seal.key");
            let (source, made) = seal::board_key(&key).map_err(|error| Failure::other(error.to_string()))?;
            if made {
                let owner = owner(&store).map_err(|error| failed(&store, &error))?;
                give(&key, owner).map_err(|error| failed(&key, &error))?;
            }
            source
        }
    };
    if let Source::Board { serial: false, .. } = source {
        note(
            "this board shows no serial number: a copy of its whole disk opens on any board; use --credential (docs/locked.md)",
        );
    }
    for file in kept(&store).iter().chain(files) {
        let plain = read_plain(file, LARGEST).map_err(|error| failed(file, &error))?;
        if !seal::is_sealed(&plain) {
            replace(file, file, &sealed(&source, &plain)?)?;
            print(&format!("sealed {}\n", file.display()));
        }
    }
    let beside = config::sealed_beside(config);
    if config.exists() {
        let plain = read_plain(config, LARGEST).map_err(|error| failed(config, &error))?;
        replace(&beside, config, &sealed(&source, &plain)?)?;
        let back = read_small(&beside, LARGEST).map_err(|error| failed(&beside, &error))?;
        if back != plain {
            return Err(Failure::other(format!(
                "{} does not give back what was sealed; nothing was removed",
                beside.display()
            )));
        }
        fs::remove_file(config).map_err(|error| failed(config, &error))?;
        print(&format!("sealed {} as {}\n", config.display(), beside.display()));
    }
    note("restart weir, so that what it writes is sealed, too");
    Ok(())
}

/// Makes plain files of them again.
pub(super) fn unseal(config: &Path, files: &[PathBuf]) -> Result<(), Failure> {
    let store = store(config)?;
    for file in kept(&store).iter().chain(files) {
        if seal::is_sealed(&read_plain(file, LARGEST).map_err(|error| failed(file, &error))?) {
            let plain = read_small(file, LARGEST).map_err(|error| failed(file, &error))?;
            replace(file, file, &plain)?;
            print(&format!("unsealed {}\n", file.display()));
        }
    }
    let beside = config::sealed_beside(config);
    if beside.exists() && !config.exists() {
        let plain = read_small(&beside, LARGEST).map_err(|error| failed(&beside, &error))?;
        replace(config, &beside, &plain)?;
        fs::remove_file(&beside).map_err(|error| failed(&beside, &error))?;
        print(&format!("unsealed {}\n", config.display()));
    }
    note("restart weir, so that what it writes is plain, too");
    Ok(())
}

fn store(config: &Path) -> Result<PathBuf, Failure> {
    let base = config::read(config)?;
    let store = store_of(&base);
    let store =
        store.ok_or_else(|| Failure::config(format!("{} does not tell where the store is", config.display())))?;
    if store.is_dir() {
        return Ok(store);
    }
    Err(Failure::other(format!("there is no store in {} yet: start weir once", store.display())))
}

/// What weir keeps by itself and may be secret.
fn kept(store: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (folder, ending) in [("config", "toml"), ("tls", "pem")] {
        let entries = fs::read_dir(store.join(folder)).into_iter().flatten().filter_map(Result::ok);
        let entries = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        found
            .extend(entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == ending)));
    }
    found.sort();
    found
}

fn sealed(source: &Source, plain: &[u8]) -> Result<Vec<u8>, Failure> {
    seal::seal(source, plain).map_err(|error| Failure::other(error.to_string()))
}

/// Writes a file that belongs to whom `like` belongs, with its mode.
fn replace(path: &Path, like: &Path, content: &[u8]) -> Result<(), Failure> {
    let mode = fs::metadata(like).map_err(|error| failed(like, &error))?.permissions().mode() & 0o777;
    let (uid, gid) = owner(like).map_err(|error| failed(like, &error))?;
    write_atomic(path, content, mode).map_err(|error| failed(path, &error))?;
    give(path, (uid, gid)).map_err(|error| failed(path, &error))
}

/// Gives a file to somebody; what a link points at stays as it is, because the store's folder is weir's and root is who seals.
fn give(path: &Path, (uid, gid): (Uid, Gid)) -> io::Result<()> {
    Ok(chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn owner(path: &Path) -> io::Result<(Uid, Gid)> {
    let meta = fs::metadata(path)?;
    Ok((Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid())))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::other(format!("{}: {error}", path.display()))
}
