//! The file of meters' keys that `keys_file` names; its form is that of [`Keys::parse`].

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Forward, RadioSettings};
use crate::os::file;
use crate::setting::{At, Problems, SecretFile};
use crate::wire::wmbus::{Keys, LARGEST_FILE};

/// Reads the keys, and everything that is wrong with the file in sentences that show no key.
///
/// # Errors
/// Why there are no keys at all.
pub(super) fn load(path: &Path) -> Result<(Keys, Vec<String>), String> {
    let unreadable = |e: std::io::Error| format!("the file of keys {} can't be read: {e}", path.display());
    let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o777;
    let content = file::read_small(path, LARGEST_FILE).map_err(unreadable)?;
    let (keys, faults) = Keys::parse(&String::from_utf8_lossy(&content));
    let mut found: Vec<_> =
        faults.iter().map(|fault| format!("the file of keys {}: {fault}", path.display())).collect();
    if mode & 0o077 != 0 {
        found.insert(
            0,
            format!("others may read the keys in {} (mode {mode:03o}); run chmod 600 on it", path.display()),
        );
    }
    Ok((keys, found))
}

/// What becomes of one receiver's telegrams, and the keys for it.
#[derive(Debug)]
pub(super) struct Decoding {
    pub(super) forward: Forward,
    file: Option<PathBuf>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    keys: Arc<Keys>,
    looked: Option<Instant>,
    /// What the file was when it was last looked at: inode, length, time of its last change in seconds and nanoseconds.
    seen: Option<(u64, u64, i64, i64)>,
    failing: bool,
}

/// So often it is looked whether the file of keys has changed.
const LOOK: Duration = Duration::from_secs(10);

impl Decoding {
    /// Of a receiver with these settings; the file of keys is read when the first key is wanted.
    pub(super) fn of(settings: &RadioSettings) -> Self {
        let file = settings.keys_file.as_ref().map(|file| file.path().to_owned());
        Self { forward: *settings.forward, file, held: Mutex::default() }
    }

    /// With these keys, which no file changes.
    #[cfg(test)]
    pub(super) fn with_keys(forward: Forward, keys: Keys) -> Self {
        Self { forward, file: None, held: Mutex::new(Held { keys: Arc::new(keys), ..Held::default() }) }
    }

    /// The keys; a file that was changed or replaced is read anew within ten seconds. While it can't be read the former
    /// keys count.
    pub(super) fn keys(&self, now: Instant) -> Arc<Keys> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = &self.file else { return held.keys.clone() };
        if held.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK) {
            held.looked = Some(now);
            held.look(path);
        }
        held.keys.clone()
    }
}

impl Held {
    fn look(&mut self, path: &Path) {
        let seen = fs::metadata(path).ok().map(|m| (m.ino(), m.len(), m.ctime(), m.ctime_nsec()));
        if seen.is_some() && seen == self.seen {
            return;
        }
        match load(path) {
            Ok((keys, faults)) => {
                if let Some(fault) = faults.first() {
                    tracing::warn!(fault, faults = faults.len(), "the file of keys has mistakes; run weir check");
                }
                tracing::info!(file = %path.display(), keys = keys.len(), "the keys of radio meters are read");
                (self.keys, self.seen, self.failing) = (Arc::new(keys), seen, false);
            }
            Err(reason) => {
                self.seen = None;
                if !self.failing {
                    tracing::warn!(reason, "there are no new keys; telegrams without a key are forwarded undecoded");
                }
                self.failing = true;
            }
        }
    }
}

/// Says everything that is wrong with a file of keys; a meter without a key is no reason not to start.
pub(super) fn check(file: &At<SecretFile>, problems: &mut Problems) {
    const TOLD: usize = 10;
    match load(file.path()) {
        Ok((_, faults)) => {
            for fault in faults.iter().take(TOLD) {
                problems.warning(file.span(), fault.clone());
            }
            if faults.len() > TOLD {
                problems.warning(file.span(), format!("the file of keys has {} mistakes more", faults.len() - TOLD));
            }
        }
        Err(reason) => problems.warning(file.span(), reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_replaced_is_read_anew_and_a_missing_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meter-keys");
        let decoding = Decoding { forward: Forward::Both, file: Some(path.clone()), held: Mutex::default() };
        let start = Instant::now();
        let count = |looks: u32| decoding.keys(start + LOOK * looks).len();
        assert_eq!(count(0), 0);
        let line = |id: u32| format!("{id:08} = 000102030405060708090a0b0c0d0e0f\n");
        file::write_atomic(&path, line(1).as_bytes(), 0o600).unwrap();
        assert_eq!((decoding.keys(start + LOOK / 2).len(), count(1), count(2)), (0, 1, 1));
        file::write_atomic(&path, (line(1) + &line(2)).as_bytes(), 0o600).unwrap();
        assert_eq!(count(3), 2);
        fs::remove_file(&path).unwrap();
        assert_eq!(count(4), 2);
        file::write_atomic(&path, b"", 0o600).unwrap();
        assert_eq!(count(5), 0);
    }

    #[test]
    fn a_file_for_its_owner_gives_its_keys_and_others_are_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meter-keys");
        let secret = "000102030405060708090a0b0c0d0e0f";
        file::write_atomic(&path, format!("12345678 = {secret}\n# spare\n1234 = {secret}\n").as_bytes(), 0o600)
            .unwrap();
        let (keys, faults) = load(&path).unwrap();
        assert_eq!((keys.len(), faults.len()), (1, 1));
        assert!(faults[0].contains("line 3") && !faults[0].contains(secret));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let (keys, faults) = load(&path).unwrap();
        assert!(keys.len() == 1 && faults[0].contains("640") && faults[0].contains("chmod 600"), "{faults:?}");
        assert!(load(&dir.path().join("none")).unwrap_err().contains("can't be read"));
    }
}
