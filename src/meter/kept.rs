//! What a session must remember over a restart, such as the counters of a cipher: small files in one folder.

use std::io;
use std::path::PathBuf;

use crate::os::file::{read_small, write_atomic};

/// The largest thing that is kept.
const LARGEST: u64 = 64 * 1024;

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
            std::fs::create_dir_all(folder)?;
            write_atomic(&path, &content, 0o600)
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
}
