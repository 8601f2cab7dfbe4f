//! `weir firmware-signature`: the helper asks the program that runs whether a new one is signed.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use crate::control::signed_by;
use crate::os::file::read_small;

const LARGEST_KEYS: u64 = 64 << 10;

/// See whether a firmware's hash was signed by one of the keys of a file.
#[derive(Debug, Args)]
pub(super) struct FirmwareSignature {
    /// The file of keys: a name and 32 bytes in base64 a line.
    keys: PathBuf,
    /// The SHA-256 of the firmware in small hex digits.
    sha256: String,
    /// The Ed25519 signature in base64.
    signature: String,
}

impl FirmwareSignature {
    pub(super) fn run(self) -> Result<(), Failure> {
        let unreadable = |error| Failure::other(format!("{} can't be read: {error}", self.keys.display()));
        let keys = read_small(&self.keys, LARGEST_KEYS).map_err(unreadable)?;
        let name = signed_by(&String::from_utf8_lossy(&keys), &self.sha256, &self.signature).map_err(Failure::other)?;
        let _ = writeln!(std::io::stdout().lock(), "signed by {name}");
        Ok(())
    }
}
