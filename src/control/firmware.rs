//! New firmware by command: its settings, and whether somebody who may signed it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::signature::{ED25519, UnparsedPublicKey};

use crate::os::file::read_small;
use crate::setting::{At, Problems, Size};
use crate::settings;

/// The helper's own list of keys, which only root can change.
const KEYS_OF_ROOT: &str = "/etc/weir/firmware-keys";

settings! {
    /// New firmware by `UPDATEFW` (docs/watchdog.md).
    pub struct FirmwareSettings {
        /// Where it is fetched to; the helper looks here, too (`WEIR_FIRMWARE`).
        pub folder: PathBuf = "/var/lib/weir/firmware",
        /// A PEM file with the certificates that its server's certificate is checked against. Unset: the system's roots.
        pub ca_file: Option<At<PathBuf>>,
        /// A file with one public key a line: its name and 32 bytes in base64. With it only a firmware is taken whose hash one of
        /// them signed. The helper has its own list, which weir can't change: /etc/weir/firmware-keys.
        pub keys_file: Option<At<PathBuf>>,
        /// The most bytes it may have. Unset: four times the board's `size_budget`.
        pub largest: Option<Size>,
        /// It goes back by itself unless it has reached a broker within so long: "1m" to "16h".
        pub confirm: At<Duration> = "15m",
    }
}

const LARGEST_FILE: u64 = 64 << 10;

impl FirmwareSettings {
    /// Whole minutes that a firmware is on trial.
    pub fn minutes(&self) -> u16 {
        u16::try_from(self.confirm.as_secs().div_ceil(60)).unwrap_or(u16::MAX).clamp(1, 960)
    }

    /// Sees whether a firmware's hash is signed, when that is wanted.
    ///
    /// # Errors
    /// One sentence.
    pub fn judge(&self, sha256: &str, signature: Option<&str>) -> Result<(), String> {
        // What root's list does not trust is not even asked for its version.
        let of_root = Some(Path::new(KEYS_OF_ROOT)).filter(|path| path.symlink_metadata().is_ok());
        for path in self.keys_file.iter().map(|path| path.as_path()).chain(of_root) {
            let signature = signature.ok_or("a firmware must be signed here: UPDATEFW,URL,SHA256,SIGNATURE")?;
            let unreadable = |error| format!("{} can't be read: {error}", path.display());
            let keys = read_small(path, LARGEST_FILE).map_err(unreadable)?;
            signed_by(&String::from_utf8_lossy(&keys), sha256, signature)?;
        }
        Ok(())
    }
}

/// Whose Ed25519 signature (RFC 8032) in base64 is good for a firmware's hash: over `weir-firmware-1`, a line feed and the hash
/// in small hex digits.
///
/// # Errors
/// One sentence.
pub fn signed_by(keys: &str, sha256: &str, signature: &str) -> Result<String, String> {
    let keys = super::signed::keys(keys)?;
    let wrong = || "the signature of the firmware is not by a key that is trusted here".to_owned();
    let signature = data_encoding::BASE64.decode(signature.as_bytes()).map_err(|_| wrong())?;
    let message = format!("weir-firmware-1\n{sha256}");
    let good = |key: &[u8]| UnparsedPublicKey::new(&ED25519, key).verify(message.as_bytes(), &signature).is_ok();
    keys.into_iter().find(|(_, key)| good(key.as_ref())).map(|(name, _)| name).ok_or_else(wrong)
}

/// Sees what no single key can be checked for.
pub(super) fn check(settings: &FirmwareSettings, problems: &mut Problems) {
    const LONGEST: Duration = Duration::from_hours(16);
    if !(Duration::from_mins(1)..=LONGEST).contains(&*settings.confirm) {
        problems.error(settings.confirm.span(), "must be 1m to 16h");
    }
    if let Some(path) = &settings.keys_file {
        match read_small(path, LARGEST_FILE).map(|keys| super::signed::keys(&String::from_utf8_lossy(&keys)).map(drop))
        {
            Ok(Ok(())) => {}
            Ok(Err(why)) => problems.error(path.span(), format!("{}: {why}", path.display())),
            Err(error) => problems.warning(path.span(), format!("{} can't be read: {error}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    #[test]
    fn a_firmware_is_taken_only_with_a_signature_of_its_own_hash() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let base64 = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
        let keys = format!("ops {}\n", base64(pair.public_key().as_ref()));
        let hash = "ab".repeat(32);
        let signature = base64(pair.sign(format!("weir-firmware-1\n{hash}").as_bytes()).as_ref());
        assert_eq!(signed_by(&keys, &hash, &signature).unwrap(), "ops");
        assert!(signed_by(&keys, &"cd".repeat(32), &signature).is_err());
        assert!(signed_by(&keys, &hash, "nonsense").is_err());
        let other = format!("ops {}\n", base64(&[1; 32]));
        assert!(signed_by(&other, &hash, &signature).is_err());
    }
}
