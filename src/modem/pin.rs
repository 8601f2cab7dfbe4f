//! The SIM's PIN: a wrong one is shown once, whatever happens, so that the SIM is never blocked.
//!
//! Three wrong PINs block a SIM for good (but for its PUK). What is tried is written down, durable, before it is tried. One that the
//! SIM may have counted as wrong (it refused it, or nobody knows what it said) is not shown to that SIM again; only one that this very
//! SIM took before is, since it can't be wrong. A SIM that is ready, however it became so, starts anew: its count of wrong ones did.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ring::digest;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::os::file::{read_secret, read_small, state_of_secret};
use crate::os::seal::write_secret;

/// A PIN has four to eight digits (3GPP TS 31.101, 9.5.1).
const DIGITS: std::ops::RangeInclusive<usize> = 4..=8;

/// How often a PIN that the SIM took before may be shown without a clear answer.
const MOST_TRIALS: u8 = 3;

/// So many trials are remembered; the oldest are forgotten beyond it.
const REMEMBERED: usize = 16;

/// What is remembered of a PIN shown to a SIM: not the PIN, and of one that the SIM took nothing that tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    /// SHA-256 over a fixed word and the PIN, which a search through all PINs finds: only as long as the SIM did not take it.
    #[serde(default)]
    mark: Option<String>,
    /// The state of the PIN's file from which the SIM took it.
    #[serde(default)]
    file: Option<String>,
    /// The SIM's number, where the modem tells it before the PIN.
    #[serde(default)]
    sim: Option<String>,
    /// How often it was shown without a clear answer.
    trials: u8,
    refused: bool,
    /// The SIM took it before.
    #[serde(default)]
    good: bool,
}

impl Memory {
    /// Whether it is about this PIN, or this state of its file.
    fn is_about(&self, mark: &str, file: Option<&str>) -> bool {
        match &self.mark {
            Some(own) => own == mark,
            None => file.is_some() && self.file.as_deref() == file,
        }
    }

    /// Whether it is about this SIM, as far as that is known.
    fn is_of(&self, sim: Option<&str>) -> bool {
        self.sim.as_deref().is_none_or(|own| sim.is_none_or(|sim| own == sim))
    }

    /// Whether it may be forgotten because this SIM took another PIN, or wants none.
    fn is_over_for(&self, sim: Option<&str>) -> bool {
        self.sim.is_none() || self.sim.as_deref() == sim
    }

    fn may_be_shown(&self, sim: Option<&str>) -> bool {
        // Only when it is surely the same SIM.
        let good = self.good && sim.is_some() && self.sim.as_deref() == sim;
        let trials = if good { MOST_TRIALS } else { 1 };
        !self.refused && self.trials < trials
    }
}

/// What was read and remembered.
pub(super) struct Trial {
    pin: Zeroizing<String>,
    path: PathBuf,
    all: Vec<Memory>,
    this: Memory,
    /// Of the PIN's file.
    state: Option<String>,
}

/// Reads the PIN and sees whether it may be shown to the SIM of this number.
///
/// # Errors
/// Why not, in a sentence.
pub(super) async fn trial(file: &Path, folder: &Path, sim: Option<&str>) -> Result<Trial, String> {
    let (file, path, sim) = (file.to_owned(), folder.join("modem-pin"), sim.map(str::to_owned));
    blocking(move || {
        let unreadable = |error: io::Error| format!("the PIN can't be read from {}: {error}", file.display());
        // Taken first: a file that is written meanwhile is another one.
        let state = state_of_secret(&file);
        let content = Zeroizing::new(read_secret(&file, 1024).map_err(unreadable)?);
        let text = std::str::from_utf8(&content).map_or("", str::trim);
        if !DIGITS.contains(&text.len()) || !text.bytes().all(|c| c.is_ascii_digit()) {
            return Err(format!("{} holds no PIN; write its 4 to 8 digits into it", file.display()));
        }
        let pin = Zeroizing::new(text.to_owned());
        let mark = mark(&pin);
        // Not knowing is no leave to try.
        let mut all = read(&path).map_err(|error| format!("what is remembered of the PIN can't be read: {error}"))?;
        let is_this = |memory: &Memory| memory.is_about(&mark, state.as_deref()) && memory.is_of(sim.as_deref());
        if all.iter().any(|memory| is_this(memory) && !memory.may_be_shown(sim.as_deref())) {
            return Err(format!(
                "the SIM refused the PIN before, or may have; it is not tried again, so that the SIM is not blocked: write the right one into {}, or unlock the SIM once in a telephone and switch its PIN off",
                file.display()
            ));
        }
        let before = all.iter().position(is_this).map(|at| all.remove(at));
        let fresh = Memory { mark: None, file: None, sim: None, trials: 0, refused: false, good: false };
        let mut this = before.unwrap_or(fresh);
        this.sim = sim.or(this.sim);
        if !this.good {
            this.mark = Some(mark);
        }
        Ok(Trial { pin, path, all, this, state })
    })
    .await
    .map_err(|error| error.to_string())?
}

/// A SIM is ready without a PIN of ours: what was remembered of it is over.
pub(super) async fn ready(folder: &Path, sim: Option<&str>) -> io::Result<()> {
    let (path, sim) = (folder.join("modem-pin"), sim.map(str::to_owned));
    blocking(move || {
        let all = read(&path)?;
        // What this SIM took stays known: it may be shown again although a power cut took its answer away.
        let kept = |memory: &Memory| !memory.is_over_for(sim.as_deref()) || memory.good;
        let mut left: Vec<Memory> = all.iter().filter(|memory| kept(memory)).cloned().collect();
        let over = left.iter_mut().filter(|memory| memory.is_over_for(sim.as_deref()));
        over.for_each(|memory| (memory.trials, memory.refused) = (0, false));
        if left == all { Ok(()) } else { write(&path, &left) }
    })
    .await?
}

// It holds a secret.
impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").finish_non_exhaustive()
    }
}

impl Trial {
    pub(super) fn pin(&self) -> &str {
        &self.pin
    }

    /// Must be done before the PIN is shown. What is not told afterwards counts as no clear answer.
    pub(super) async fn begin(&self) -> io::Result<()> {
        self.remember(|this| this.trials = this.trials.saturating_add(1)).await
    }

    /// The SIM refused it.
    pub(super) async fn refused(&self) -> io::Result<()> {
        let mark = mark(&self.pin);
        self.remember(|this| (this.refused, this.good, this.mark) = (true, false, Some(mark))).await
    }

    /// The SIM was busy or away: it did not look at it, and this was no trial.
    pub(super) async fn unseen(&self) -> io::Result<()> {
        self.remember(|_| {}).await
    }

    /// The SIM took it; its count of wrong ones began anew.
    pub(super) async fn taken(mut self) -> io::Result<()> {
        let sim = self.this.sim.clone();
        self.all.retain(|memory| !memory.is_over_for(sim.as_deref()));
        let state = self.state.clone();
        // A file whose state can't be told is known by its PIN only.
        let mark = state.is_none().then(|| mark(&self.pin));
        self.remember(|this| (this.trials, this.good, this.mark, this.file) = (0, true, mark, state)).await
    }

    async fn remember(&self, change: impl FnOnce(&mut Memory)) -> io::Result<()> {
        let mut this = self.this.clone();
        change(&mut this);
        let mut all = self.all.clone();
        all.push(this);
        let path = self.path.clone();
        blocking(move || write(&path, all.get(all.len().saturating_sub(REMEMBERED)..).unwrap_or(&all))).await?
    }
}

/// What is remembered, the newest last; an earlier version remembered one only.
fn read(path: &Path) -> io::Result<Vec<Memory>> {
    let content = match read_small(path, 16 << 10) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let one = || serde_json::from_slice::<Memory>(&content).map(|memory| vec![memory]);
    // A file that holds nothing legible is one that a person damaged: written whole or not at all, it is not torn.
    Ok(serde_json::from_slice::<Vec<Memory>>(&content).or_else(|_| one()).unwrap_or_default())
}

fn write(path: &Path, all: &[Memory]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    write_secret(path, &serde_json::to_vec(all)?)?;
    hand_over(path)
}

/// What root remembers, as with `weir modem`, belongs to whom the folder belongs: the agent must read it too.
fn hand_over(path: &Path) -> io::Result<()> {
    match path.parent().map(std::fs::metadata).transpose()? {
        Some(folder) if rustix::process::geteuid().is_root() => {
            std::os::unix::fs::lchown(path, Some(folder.uid()), Some(folder.gid()))
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

    struct Rig {
        folder: tempfile::TempDir,
        /// Each time that the PIN's file is written it gets a time of its own.
        written: std::cell::Cell<u64>,
    }

    impl Rig {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), written: std::cell::Cell::default() }
        }

        async fn trial(&self, pin: &str, sim: Option<&str>) -> Result<Trial, String> {
            let file = self.folder.path().join("pin");
            let content = format!("{pin}\n");
            if std::fs::read_to_string(&file).ok().as_ref() != Some(&content) {
                std::fs::write(&file, content).unwrap();
                self.touch();
            }
            trial(&file, &self.folder.path().join("kept"), sim).await
        }

        /// As if the PIN's file had been written anew.
        fn touch(&self) {
            self.written.set(self.written.get() + 1);
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(self.written.get());
            std::fs::File::options()
                .write(true)
                .open(self.folder.path().join("pin"))
                .and_then(|file| file.set_modified(at))
                .unwrap();
        }

        fn kept(&self) -> String {
            std::fs::read_to_string(self.folder.path().join("kept/modem-pin")).unwrap()
        }

        async fn begun(&self, pin: &str, sim: Option<&str>) -> Trial {
            let trial = self.trial(pin, sim).await.unwrap();
            assert_eq!(trial.pin(), pin);
            trial.begin().await.unwrap();
            trial
        }
    }

    #[tokio::test]
    async fn a_refused_pin_is_never_tried_again_also_after_another_one() {
        let rig = Rig::new();
        for sim in [None, Some("8934")] {
            rig.begun("1234", sim).await.refused().await.unwrap();
            assert!(rig.trial("1234", sim).await.unwrap_err().contains("refused the PIN before"));
            rig.begun("4321", sim).await.refused().await.unwrap();
            for pin in ["1234", "4321"] {
                rig.trial(pin, sim).await.unwrap_err();
            }
            std::fs::remove_dir_all(rig.folder.path().join("kept")).unwrap();
        }
    }

    #[tokio::test]
    async fn a_pin_without_a_clear_answer_is_tried_again_only_when_this_sim_took_it_before() {
        let rig = Rig::new();
        rig.begun("1234", Some("1")).await;
        rig.trial("1234", Some("1")).await.unwrap_err();
        // Another SIM has its own count; one whose number is not known may be the same.
        rig.trial("1234", Some("2")).await.unwrap();
        rig.trial("1234", None).await.unwrap_err();
        for _ in 0..9 {
            rig.begun("5678", Some("1")).await.taken().await.unwrap();
        }
        for _ in 0..2 {
            rig.begun("5678", Some("1")).await;
        }
        rig.begun("5678", Some("1")).await;
        rig.trial("5678", Some("1")).await.unwrap_err();
        // 1234 was forgotten: the SIM's count began anew with the right one.
        rig.trial("1234", Some("1")).await.unwrap();
    }

    #[tokio::test]
    async fn nothing_that_tells_a_pin_is_kept_once_the_sim_took_it() {
        let rig = Rig::new();
        rig.begun("1234", Some("1")).await.taken().await.unwrap();
        assert!(!rig.kept().contains(&mark("1234")), "{}", rig.kept());
        // Also while it is shown again, and after a power cut.
        rig.begun("1234", Some("1")).await;
        assert!(!rig.kept().contains(&mark("1234")), "{}", rig.kept());
        rig.begun("1234", Some("1")).await.taken().await.unwrap();
        // A file that was written anew may hold another PIN: it has its one trial, and no second one without an answer.
        rig.touch();
        rig.begun("1234", Some("1")).await;
        rig.touch();
        rig.trial("1234", Some("1")).await.unwrap_err();
        // The same state of the file for another SIM means nothing.
        rig.begun("1234", Some("2")).await.refused().await.unwrap();
        rig.touch();
        rig.trial("1234", Some("2")).await.unwrap_err();
    }

    #[tokio::test]
    async fn that_a_sim_did_not_look_is_no_trial() {
        let rig = Rig::new();
        for _ in 0..9 {
            rig.begun("1234", None).await.unseen().await.unwrap();
        }
        rig.begun("1234", None).await;
        rig.trial("1234", None).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_sim_that_is_ready_clears_what_was_remembered_of_it() {
        let rig = Rig::new();
        let kept = rig.folder.path().join("kept");
        rig.begun("1234", Some("1")).await.refused().await.unwrap();
        ready(&kept, Some("2")).await.unwrap();
        rig.trial("1234", Some("1")).await.unwrap_err();
        ready(&kept, Some("1")).await.unwrap();
        rig.begun("1234", Some("1")).await.refused().await.unwrap();
        ready(&kept, None).await.unwrap();
        rig.trial("1234", Some("1")).await.unwrap_err();
        // The modem tells the SIM's number only once it is unlocked.
        std::fs::remove_dir_all(&kept).unwrap();
        rig.begun("1234", None).await.refused().await.unwrap();
        ready(&kept, Some("1")).await.unwrap();
        rig.trial("1234", None).await.unwrap();
    }

    #[tokio::test]
    async fn what_an_earlier_version_remembered_counts() {
        let rig = Rig::new();
        let kept = rig.folder.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        let old = format!("{{\"mark\":\"{}\",\"trials\":1,\"refused\":true}}", mark("1234"));
        std::fs::write(kept.join("modem-pin"), old).unwrap();
        rig.trial("1234", Some("1")).await.unwrap_err();
        rig.trial("4321", Some("1")).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_pin_is_not_shown_to_the_sim() {
        let folder = tempfile::tempdir().unwrap();
        for content in ["", "123", "123456789", "12a4", "12\"34"] {
            std::fs::write(folder.path().join("pin"), content).unwrap();
            trial(&folder.path().join("pin"), folder.path(), None).await.unwrap_err();
        }
        assert!(trial(&folder.path().join("none"), folder.path(), None).await.unwrap_err().contains("can't be read"));
    }
}
