//! The SIM's PIN: a wrong one is shown once, whatever happens, so that the SIM is never blocked.
//!
//! Three wrong PINs block a SIM for good (but for its PUK). What was tried is written down, durable, before it is tried;
//! one that the SIM refused is never shown again, one without a clear answer (a power cut, a modem that hung) once more.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ring::digest;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::os::file::{read_small, write_atomic};

/// A PIN has four to eight digits (3GPP TS 31.101, 9.5.1).
const DIGITS: std::ops::RangeInclusive<usize> = 4..=8;

/// How often a PIN without a clear answer may be shown.
const MOST_TRIALS: u8 = 2;

/// What is remembered of a PIN: not the PIN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    /// SHA-256 over a fixed word and the PIN.
    mark: String,
    /// How often it was shown without a clear answer.
    trials: u8,
    refused: bool,
}

/// What was read and remembered.
#[derive(Debug)]
pub(super) struct Trial {
    pin: Zeroizing<String>,
    mark: String,
    path: PathBuf,
    trials: u8,
}

/// Reads the PIN and sees whether it may be tried.
///
/// # Errors
/// Why not, in a sentence.
pub(super) async fn trial(file: &Path, folder: &Path) -> Result<Trial, String> {
    let (file, path) = (file.to_owned(), folder.join("modem-pin"));
    blocking(move || {
        let unreadable = |error: io::Error| format!("the PIN can't be read from {}: {error}", file.display());
        let content = Zeroizing::new(read_small(&file, 1024).map_err(unreadable)?);
        let text = std::str::from_utf8(&content).map_or("", str::trim);
        if !DIGITS.contains(&text.len()) || !text.bytes().all(|c| c.is_ascii_digit()) {
            return Err(format!("{} holds no PIN; write its 4 to 8 digits into it", file.display()));
        }
        let pin = Zeroizing::new(text.to_owned());
        let mark = mark(&pin);
        let memory = match read_small(&path, 4096) {
            Ok(content) => serde_json::from_slice::<Memory>(&content).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // Not knowing is no leave to try.
            Err(error) => return Err(format!("what is remembered of the PIN can't be read: {error}")),
        };
        let trials = match memory.filter(|memory| memory.mark == mark) {
            Some(memory) if memory.refused || memory.trials >= MOST_TRIALS => {
                return Err(format!(
                    "the SIM refused the PIN before; it is not tried again, so that the SIM is not blocked: write the right one into {}",
                    file.display()
                ));
            }
            memory => memory.map_or(0, |memory| memory.trials),
        };
        Ok(Trial { pin, mark, path, trials })
    })
    .await
    .map_err(|error| error.to_string())?
}

impl Trial {
    pub(super) fn pin(&self) -> &str {
        &self.pin
    }

    /// Must be done before the PIN is shown.
    pub(super) async fn begin(&self) -> io::Result<()> {
        self.remember(self.trials.saturating_add(1), false).await
    }

    /// The SIM refused it.
    pub(super) async fn refused(&self) -> io::Result<()> {
        self.remember(self.trials, true).await
    }

    /// The SIM took it, or did not look at it.
    pub(super) async fn forget(&self) -> io::Result<()> {
        let path = self.path.clone();
        blocking(move || match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await?
    }

    async fn remember(&self, trials: u8, refused: bool) -> io::Result<()> {
        let memory = Memory { mark: self.mark.clone(), trials, refused };
        let path = self.path.clone();
        blocking(move || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            write_atomic(&path, &serde_json::to_vec(&memory)?, 0o600)?;
            hand_over(&path)
        })
        .await?
    }
}

/// What root remembers, as with `weir modem`, belongs to whom the folder belongs: the agent must read it too.
fn hand_over(path: &Path) -> io::Result<()> {
    match path.parent().map(std::fs::metadata).transpose()? {
        Some(folder) if rustix::process::geteuid().is_root() => {
            std::os::unix::fs::chown(path, Some(folder.uid()), Some(folder.gid()))
        }
        _ => Ok(()),
    }
}

fn mark(pin: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"weir modem pin");
    context.update(pin.as_bytes());
    data_encoding::HEXLOWER.encode(context.finish().as_ref())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_pin_is_never_tried_again_until_another_one_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pin");
        std::fs::write(&file, "1234\n").unwrap();
        let kept = folder.path().join("kept");
        let first = trial(&file, &kept).await.unwrap();
        assert_eq!(first.pin(), "1234");
        first.begin().await.unwrap();
        first.refused().await.unwrap();
        assert!(trial(&file, &kept).await.unwrap_err().contains("refused the PIN before"));
        std::fs::write(&file, "4321").unwrap();
        trial(&file, &kept).await.unwrap().begin().await.unwrap();
    }

    #[tokio::test]
    async fn a_pin_without_a_clear_answer_is_tried_twice_and_a_good_one_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pin");
        std::fs::write(&file, "1234").unwrap();
        for _ in 0..2 {
            trial(&file, folder.path()).await.unwrap().begin().await.unwrap();
        }
        trial(&file, folder.path()).await.unwrap_err();
        std::fs::write(&file, "5678").unwrap();
        for _ in 0..9 {
            let good = trial(&file, folder.path()).await.unwrap();
            good.begin().await.unwrap();
            good.forget().await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_no_pin_is_not_shown_to_the_sim() {
        let folder = tempfile::tempdir().unwrap();
        for content in ["", "123", "123456789", "12a4", "12\"34"] {
            std::fs::write(folder.path().join("pin"), content).unwrap();
            trial(&folder.path().join("pin"), folder.path()).await.unwrap_err();
        }
        assert!(trial(&folder.path().join("none"), folder.path()).await.unwrap_err().contains("can't be read"));
    }
}
