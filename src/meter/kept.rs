//! What a session must remember over a restart, such as the counters of a cipher: small files in one folder.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use crate::os::file::{read_small, write_atomic};

/// The largest thing that is kept.
const LARGEST: u64 = 64 * 1024;

/// The file whose lock [`Kept::change`] holds; no name of a kept thing begins with a dot.
const LOCK: &str = ".lock";

/// A folder for what sessions remember.
#[derive(Debug, Clone)]
pub struct Kept {
    folder: PathBuf,
}

impl Kept {
    /// Keeps things in `folder`, which is made when the first one is kept.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// What was kept under a name; `None` when nothing was. May wait for the disk on a thread of its own.
    ///
    /// # Errors
    /// The system's error.
    pub async fn load(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self.path(name);
        blocking(move || match read_small(&path, LARGEST) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    /// Keeps something under a name, durable when this returns, readable by weir only.
    ///
    /// # Errors
    /// The system's error; what was kept before is then still there.
    pub async fn store(&self, name: &str, content: Vec<u8>) -> io::Result<()> {
        let (folder, path) = (self.folder.clone(), self.path(name));
        blocking(move || {
            make(&folder)?;
            write_atomic(&path, &content, 0o600)?;
            hand_over(&path)
        })
        .await
    }

    /// Replaces what is kept under a name by what `change` makes of it, durable when this returns; nobody else, in this
    /// process or another one, changes anything kept in the folder meanwhile. Gives what `change` gives with it.
    ///
    /// # Errors
    /// The system's error, or that of `change`; what was kept before is then still there.
    pub async fn change<T: Send + 'static>(
        &self,
        name: &str,
        change: impl FnOnce(Option<Vec<u8>>) -> io::Result<(Vec<u8>, T)> + Send + 'static,
    ) -> io::Result<T> {
        let (folder, path) = (self.folder.clone(), self.path(name));
        blocking(move || {
            make(&folder)?;
            let lock = folder.join(LOCK);
            let file = File::options().write(true).create(true).truncate(false).open(&lock)?;
            hand_over(&lock)?;
            file.lock()?;
            let before = match read_small(&path, LARGEST) {
                Ok(content) => Some(content),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            let (after, told) = change(before)?;
            write_atomic(&path, &after, 0o600)?;
            hand_over(&path)?;
            Ok(told)
        })
        .await
    }

    /// A file's name is made of the letters that every file system takes.
    fn path(&self, name: &str) -> PathBuf {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || c == '-' { c.to_string() } else { format!("_{:x}", u32::from(c)) }
        };
        self.folder.join(name.chars().map(plain).collect::<String>())
    }
}

fn make(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(folder)?;
    hand_over(folder)
}

/// What root makes here, as with `weir read`, belongs to whom the folder around it belongs: the agent must read it too.
fn hand_over(path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Some(around) = path.parent() else { return Ok(()) };
    let around = std::fs::metadata(around)?;
    chown(path, Some(around.uid()), Some(around.gid()))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_found_again_and_names_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::new(folder.path().join("new"));
        assert_eq!(kept.load("a/b").await.unwrap(), None);
        kept.store("a/b", vec![1]).await.unwrap();
        kept.store("a_2fb", vec![2]).await.unwrap();
        kept.store("a/b", vec![3]).await.unwrap();
        assert_eq!(kept.load("a/b").await.unwrap(), Some(vec![3]));
        assert_eq!(kept.load("a_2fb").await.unwrap(), Some(vec![2]));
    }

    #[tokio::test]
    async fn what_root_keeps_belongs_to_whom_the_folder_belongs() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        chown(folder.path(), Some(4711), Some(4711)).unwrap();
        let kept = Kept::new(folder.path().join("sessions"));
        kept.change("a", |_| Ok((vec![1], ()))).await.unwrap();
        kept.store("b", vec![2]).await.unwrap();
        for name in [".", LOCK, "a", "b"] {
            assert_eq!(std::fs::metadata(folder.path().join("sessions").join(name)).unwrap().uid(), 4711, "{name}");
        }
    }

    #[tokio::test]
    async fn changes_from_many_sides_at_once_all_come_about() {
        let folder = tempfile::tempdir().unwrap();
        let count = |before: Option<Vec<u8>>| {
            let number = before.and_then(|b| b.first().copied()).unwrap_or(0);
            Ok((vec![number + 1], number))
        };
        let sides: Vec<_> = (0..4)
            .map(|_| {
                let kept = Kept::new(folder.path());
                tokio::spawn(async move {
                    let mut told = Vec::new();
                    for _ in 0..10 {
                        told.push(kept.change("n", count).await.unwrap());
                    }
                    told
                })
            })
            .collect();
        let mut told = Vec::new();
        for side in sides {
            told.extend(side.await.unwrap());
        }
        told.sort_unstable();
        assert_eq!(told, (0..40).collect::<Vec<_>>());
        assert_eq!(Kept::new(folder.path()).load("n").await.unwrap(), Some(vec![40]));
    }
}
