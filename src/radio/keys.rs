//! The file of meters' keys that `keys_file` names; its form is that of [`Keys::parse`].

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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
