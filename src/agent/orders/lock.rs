//! Whether the gateway is locked: a file in the store's folder, so that a restart does not unlock it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::os::file::{sync_directory, write_atomic};

/// The lock; clones are the same.
#[derive(Debug, Clone)]
pub(in crate::agent) struct Lock {
    file: PathBuf,
    locked: Arc<AtomicBool>,
}

impl Lock {
    /// As it was left. A file that can't be looked at counts as locked.
    pub(in crate::agent) fn open(file: PathBuf) -> Self {
        let locked = !matches!(fs::metadata(&file), Err(error) if error.kind() == io::ErrorKind::NotFound);
        Self { file, locked: Arc::new(AtomicBool::new(locked)) }
    }

    pub(in crate::agent) fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Relaxed)
    }

    /// Locks or unlocks, durable when this returns.
    pub(super) async fn set(&self, locked: bool) -> Result<(), String> {
        let file = self.file.clone();
        let change = move || {
            let folder = file.parent().map(PathBuf::from).unwrap_or_default();
            fs::create_dir_all(&folder)?;
            if locked {
                return write_atomic(&file, b"locked\n", 0o600);
            }
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => sync_directory(&folder),
            }
        };
        let changed = tokio::task::spawn_blocking(change).await.map_err(|error| error.to_string())?;
        changed.map_err(|error| format!("the lock can't be written: {error}; see to the disk"))?;
        self.locked.store(locked, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lock_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("control/locked");
        let lock = Lock::open(file.clone());
        assert!(!lock.is_locked());
        lock.set(true).await.unwrap();
        assert!(lock.is_locked() && Lock::open(file.clone()).is_locked());
        lock.set(false).await.unwrap();
        assert!(!lock.is_locked() && !Lock::open(file).is_locked());
    }
}
