//! A token's PIN: a wrong one is shown once, so that the token does not lock itself.
//!
//! Most tokens lock themselves after three wrong PINs. A PIN that the token took, from a file that nobody wrote since, is shown at each
//! start without more ado, until the token refuses it. Any other one is counted, durable, before it is shown: one that the token refused is
//! not shown again, one whose answers are not known (a power cut, a token that hangs) not more than twice. Another PIN starts anew.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ring::digest;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Source, is_sealed, open, sealed_with};
use crate::os::file::{open_itself, read_plain, state_of_secret, write_atomic_for};

/// How often a PIN may be shown without an answer: of the three trials of most tokens one is left for a person.
const MOST_TRIALS: u8 = 2;
/// The longest file of a PIN, as it lies on the disk.
const LARGEST: u64 = 4096;
/// Where systemd puts what it decrypts for the service.
const HANDED_OVER: &str = "/run/credentials/weir.service";
/// The longest PIN, in bytes.
const LONGEST: usize = 255;

/// What is remembered of a token's PIN. Of one that it took nothing that tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Memory {
    /// The state of the file from which the token took it.
    good: Option<String>,
    /// SHA-256 over a fixed word, the token's label and the PIN that it did not take yet.
    mark: Option<String>,
    /// How often that was shown without an answer.
    trials: u8,
    refused: bool,
}

/// A PIN that may be shown once, now.
pub(super) struct Trial {
    pub(super) pin: Zeroizing<String>,
    path: PathBuf,
    before: Memory,
    state: Option<String>,
    mark: String,
}

/// Where a token's PINs are remembered.
fn memory_of(folder: &Path, token: &str) -> PathBuf {
    folder.join(format!("seal-{}.pin", super::short(token)))
}

/// Reads the PIN for a token, and writes down that it is shown; why it can't be, or must not, in a sentence.
pub(super) fn begin(file: &Path, folder: &Path, token: &str) -> Result<Trial, String> {
    // Taken first: a file that is written meanwhile is another one.
    let state = state_of_secret(file);
    let pin = read(file, folder)?;
    let path = memory_of(folder, token);
    let before = match read_plain(&path, LARGEST) {
        // One that is not legible was damaged by a person: written whole or not at all, it is not torn.
        Ok(content) => serde_json::from_slice(&content).unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Memory::default(),
        // Not knowing is no leave to try.
        Err(error) => return Err(format!("what is remembered of the PIN, {}, can't be read: {error}", path.display())),
    };
    let trial = Trial { mark: mark(token, &pin), pin, path, before, state };
    let before = &trial.before;
    if trial.is_good() {
        return Ok(trial);
    }
    let is_this = before.mark.as_deref() == Some(&*trial.mark);
    if is_this && (before.refused || before.trials >= MOST_TRIALS) {
        return Err(format!(
            "the token refused the PIN in {} before, or may have; it is not shown again, so that the token does not lock itself: write the right one into the file, or, when it is right, remove {}",
            file.display(),
            trial.path.display()
        ));
    }
    let trials = if is_this { before.trials } else { 0 } + 1;
    let counted = trial.remember(&Memory { trials, ..trial.unknown() });
    counted.map_err(|error| {
        format!("that the PIN is tried can't be written to {}, so it is not tried: {error}", trial.path.display())
    })?;
    Ok(trial)
}

/// The PIN alone: its file is for one user only, no link, and not sealed by what it opens.
fn read(file: &Path, folder: &Path) -> Result<Zeroizing<String>, String> {
    let unreadable = |error: io::Error| format!("its PIN can't be read from {}: {error}", file.display());
    let opened = open_itself(file).map_err(unreadable)?;
    let about = opened.metadata().map_err(unreadable)?;
    let mode = about.mode() & 0o777;
    // What systemd hands over has the service's access list in place of owner and group's bits.
    if !file.starts_with(HANDED_OVER) {
        if mode & 0o077 != 0 {
            return Err(format!(
                "others may read its PIN in {} (mode {mode:03o}); run chmod 600 on it",
                file.display()
            ));
        }
        // Who owns the folder chose the file: root must not read for him what he may not.
        if fs::metadata(folder).is_ok_and(|folder| folder.uid() != about.uid()) {
            return Err(format!(
                "its PIN in {} belongs to another user than {}; run chown on it",
                file.display(),
                folder.display()
            ));
        }
    }
    let mut content = Zeroizing::new(Vec::new());
    opened.take(LARGEST).read_to_end(&mut content).map_err(unreadable)?;
    if is_sealed(&content) {
        if let Ok(Some(Source::Token { .. })) = sealed_with(&content) {
            return Err(format!("its PIN in {} is sealed by a token itself; write it anew", file.display()));
        }
        content = Zeroizing::new(open(&content).map_err(|error| unreadable(error.into()))?);
    }
    let text = std::str::from_utf8(&content).map_or("", |text| text.trim_end_matches(['\n', '\r']));
    if text.is_empty() || text.len() > LONGEST || text.contains(char::is_control) {
        return Err(format!("{} holds no PIN; write it as one line into it", file.display()));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

// It holds a secret.
impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").finish_non_exhaustive()
    }
}

impl Trial {
    fn is_good(&self) -> bool {
        self.state.is_some() && self.before.good == self.state
    }

    fn unknown(&self) -> Memory {
        Memory { mark: Some(self.mark.clone()), ..Memory::default() }
    }

    /// The token took it.
    pub(super) fn taken(self) {
        if !self.is_good() {
            // What could not be written costs one of the trials of the next start.
            let _ = self.remember(&Memory { good: self.state.clone(), ..Memory::default() });
        }
    }

    /// The token refused it.
    pub(super) fn refused(self) {
        self.must_remember(&Memory { refused: true, ..self.unknown() });
    }

    /// Nobody knows what the token made of it.
    pub(super) fn unclear(self) {
        // One that was never taken is counted already; one that was good is so until the token refuses it: a reader that
        // fails for a while must not keep a gateway from starting ever after.
    }

    /// The token did not see it.
    pub(super) fn unseen(self) {
        if !self.is_good() {
            let _ = self.remember(&self.before);
        }
    }

    fn must_remember(&self, memory: &Memory) {
        if self.remember(memory).is_err() {
            // On a full disk: what is not known to be good is not shown before that could be written.
            let _ = fs::remove_file(&self.path);
        }
    }

    /// What root writes belongs to whom the folder belongs: the service must read it too.
    fn remember(&self, memory: &Memory) -> io::Result<()> {
        let folder = fs::metadata(self.path.parent().unwrap_or(Path::new(".")))?;
        let owner = rustix::process::geteuid().is_root().then(|| (folder.uid(), folder.gid()));
        write_atomic_for(&self.path, &serde_json::to_vec(memory)?, 0o600, owner)
    }
}

fn mark(token: &str, pin: &str) -> String {
    let text = Zeroizing::new(format!("weir token pin\n{token}\n{pin}"));
    data_encoding::HEXLOWER.encode(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Rig(tempfile::TempDir);

    impl Rig {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn file(&self) -> PathBuf {
            self.0.path().join("pin")
        }

        /// A file of its own each time: another state.
        fn write(&self, content: &str) {
            write_atomic_for(&self.file(), content.as_bytes(), 0o600, None).unwrap();
        }

        fn begin(&self) -> Result<Trial, String> {
            begin(&self.file(), self.0.path(), "gateway")
        }

        fn kept(&self) -> String {
            fs::read_to_string(memory_of(self.0.path(), "gateway")).unwrap()
        }
    }

    #[test]
    fn a_refused_pin_is_shown_once_also_from_a_file_that_was_written_anew() {
        let rig = Rig::new();
        rig.write("1234\n");
        rig.begin().unwrap().refused();
        assert!(rig.begin().unwrap_err().contains("refused the PIN in"));
        rig.write("1234");
        assert!(rig.begin().unwrap_err().contains("refused the PIN in"));
        rig.write("4321\n");
        let trial = rig.begin().unwrap();
        assert_eq!(*trial.pin, "4321");
        trial.taken();
        // The same file, but somebody gave the token another PIN.
        rig.begin().unwrap().refused();
        rig.begin().unwrap_err();
    }

    #[test]
    fn a_pin_without_an_answer_is_shown_twice_and_a_good_one_ever_after() {
        let rig = Rig::new();
        rig.write("1234\n");
        // Power cuts, then hangs.
        for unclear in [false, true] {
            rig.begin().unwrap();
            let trial = rig.begin().unwrap();
            if unclear {
                trial.unclear();
            }
            rig.begin().unwrap_err();
            fs::remove_file(memory_of(rig.0.path(), "gateway")).unwrap();
        }
        rig.begin().unwrap().taken();
        let kept = rig.kept();
        for _ in 0..9 {
            rig.begin().unwrap();
            rig.begin().unwrap().taken();
        }
        assert_eq!(rig.kept(), kept, "nothing is written for a good one");
        assert!(!kept.contains(&mark("gateway", "1234")), "{kept}");
        // A reader that fails for a while, over restarts, is not what keeps a gateway from starting.
        for _ in 0..9 {
            rig.begin().unwrap().unclear();
        }
        rig.begin().unwrap().taken();
    }

    #[test]
    fn that_a_token_was_not_there_is_no_trial() {
        let rig = Rig::new();
        rig.write("1234\n");
        for _ in 0..9 {
            rig.begin().unwrap().unseen();
        }
        rig.begin().unwrap();
        rig.begin().unwrap();
        rig.begin().unwrap_err();
    }

    #[test]
    fn a_pin_that_can_not_be_counted_is_not_shown() {
        let rig = Rig::new();
        rig.write("1234\n");
        let told = begin(&rig.file(), &rig.0.path().join("none"), "gateway").unwrap_err();
        assert!(told.contains("so it is not tried"), "{told}");
    }

    #[test]
    fn a_pin_is_a_line_in_a_file_for_one_user() {
        let rig = Rig::new();
        assert!(rig.begin().unwrap_err().contains("can't be read"));
        for content in ["", "\n", "12\n34\n", "1\u{0}2"] {
            rig.write(content);
            assert!(rig.begin().unwrap_err().contains("holds no PIN"));
        }
        rig.write("1234\n");
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(rig.file(), fs::Permissions::from_mode(mode)).unwrap();
            assert!(rig.begin().unwrap_err().contains("run chmod 600"));
        }
        fs::set_permissions(rig.file(), fs::Permissions::from_mode(0o600)).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(rig.file(), Some(65_534), None).unwrap();
            assert!(rig.begin().unwrap_err().contains("belongs to another user"));
        }
        fs::remove_file(rig.file()).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", rig.file()).unwrap();
        assert!(rig.begin().unwrap_err().contains("it is a link"));
        fs::remove_file(rig.file()).unwrap();
        // Bound to the board it is read, sealed by a token never.
        let board = super::super::board_key(&rig.0.path().join("seal.key"), None).unwrap();
        let sealed = super::super::seal(&board, b"1234\n").unwrap();
        write_atomic_for(&rig.file(), &sealed, 0o600, None).unwrap();
        assert_eq!(*rig.begin().unwrap().pin, "1234");
        rig.write("weir-sealed-1 pkcs11 /x\n");
        assert!(rig.begin().unwrap_err().contains("sealed by a token itself"));
    }
}
