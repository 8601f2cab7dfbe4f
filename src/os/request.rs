//! Asking the helper for what needs root: weir has no capability (docs/watchdog.md).
//!
//! A request is a file of a known name in a folder that weir may write; a systemd path unit starts the helper, which takes the
//! file away, judges it and leaves its answer in a folder that only root writes.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep};

use super::file::{read_small, write_atomic};
use super::random;

/// Where the helper is asked when nobody says otherwise.
pub const FOLDER: &str = "/run/weir";
/// A helper that has not taken a request by then is not there.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// How often is looked for the answer.
const LOOK: Duration = Duration::from_millis(100);
const LARGEST_ANSWER: u64 = 4096;
/// A helper that did not keep a firmware is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The whole gateway is started again.
    Reboot,
    /// The system's network service is.
    NetworkRestart,
    /// The firmware that was fetched is installed, on trial.
    Update {
        /// Its SHA-256 in small hex digits.
        sha256: String,
        /// How many minutes it has to prove itself.
        minutes: u16,
        /// An Ed25519 signature of the hash in base64, where the helper wants one.
        signature: Option<String>,
    },
    /// The firmware that runs has proved itself.
    Confirm {
        /// Its SHA-256 in small hex digits.
        sha256: String,
    },
}

impl Request {
    /// The name of its file.
    const fn name(&self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::NetworkRestart => "network-restart",
            Self::Update { .. } => "update",
            Self::Confirm { .. } => "update-confirm",
        }
    }

    /// How long the helper may take once it has the request.
    const fn patience(&self) -> Duration {
        match self {
            Self::Reboot | Self::Confirm { .. } => Duration::from_secs(30),
            Self::NetworkRestart | Self::Update { .. } => Duration::from_mins(5),
        }
    }

    fn content(&self, id: &str) -> String {
        let mut text = format!("id {id}\n");
        match self {
            Self::Reboot | Self::NetworkRestart => {}
            Self::Update { sha256, minutes, signature } => {
                text += &format!("sha256 {sha256}\nminutes {minutes}\n");
                if let Some(signature) = signature {
                    text += &format!("signature {signature}\n");
                }
            }
            Self::Confirm { sha256 } => text += &format!("sha256 {sha256}\n"),
        }
        text
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nobody can be asked.
    #[error(
        "this gateway has no helper that may do what needs root: install weir-request.path and weir-helper.conf (docs/watchdog.md)"
    )]
    NoHelper,
    /// The request can't be left.
    #[error("the request can't be left in {}: {source}; see who owns the folder", folder.display())]
    Unwritable {
        /// The folder of requests.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody took it.
    #[error("nobody took the request: see systemctl status weir-request.path")]
    NotTaken,
    /// Nobody answered.
    #[error("the helper took the request and did not answer: see journalctl -u weir-request.service")]
    NoAnswer,
    /// The helper refused.
    #[error("the helper {0}")]
    Refused(String),
}

/// The door to the helper.
#[derive(Debug, Clone)]
pub struct Helper {
    folder: PathBuf,
}

impl Helper {
    /// The helper that is asked in `folder`/request and answers in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Whether one is installed.
    pub fn is_there(&self) -> bool {
        self.requests().is_dir()
    }

    /// The folder that the helper answers in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn requests(&self) -> PathBuf {
        self.folder.join("request")
    }

    /// The hash of the firmware that is on trial, if one is.
    pub fn on_trial(&self) -> Option<String> {
        let text = read_small(&self.folder.join("trial"), LARGEST_ANSWER).ok()?;
        String::from_utf8_lossy(&text).split_whitespace().next().map(str::to_owned)
    }

    /// Has the firmware on trial kept, and asks until it is not on trial any more: a helper can be busy, a request can be lost, and
    /// one that is not heard would cost a good firmware.
    pub async fn confirm(&self, sha256: String) -> bool {
        let request = Request::Confirm { sha256: sha256.clone() };
        let mut told = false;
        while self.on_trial().is_some_and(|on_trial| on_trial == sha256) {
            match self.ask(&request).await {
                Ok(_) => return true,
                Err(error) if !std::mem::replace(&mut told, true) => {
                    tracing::warn!(%error, "this firmware is not kept yet; the helper is asked again");
                }
                Err(error) => tracing::debug!(%error, "this firmware is not kept yet"),
            }
            sleep(ASK_AGAIN).await;
        }
        false
    }

    /// Asks, and waits for the answer: what the helper did, in its words.
    ///
    /// # Errors
    /// [`RequestError`]; the request is then taken back.
    pub async fn ask(&self, request: &Request) -> Result<String, RequestError> {
        if !self.is_there() {
            return Err(RequestError::NoHelper);
        }
        let id = format!("{:016x}", random::generator().next_u64());
        let file = self.requests().join(request.name());
        let unwritable = |source| RequestError::Unwritable { folder: self.requests(), source };
        write_atomic(&file, request.content(&id).as_bytes(), 0o600).map_err(unwritable)?;
        let given_up = Instant::now() + TAKEN_WITHIN;
        while file.exists() {
            if Instant::now() >= given_up {
                let _ = std::fs::remove_file(&file);
                return Err(RequestError::NotTaken);
            }
            sleep(LOOK).await;
        }
        let given_up = Instant::now() + request.patience();
        loop {
            if let Some(answer) = self.answer(request, &id) {
                return if answer.starts_with("refused") { Err(RequestError::Refused(answer)) } else { Ok(answer) };
            }
            if Instant::now() >= given_up {
                return Err(RequestError::NoAnswer);
            }
            sleep(LOOK).await;
        }
    }

    fn answer(&self, request: &Request, id: &str) -> Option<String> {
        let text = read_small(&self.folder.join(format!("{request}.answer")), LARGEST_ANSWER).ok()?;
        let text = String::from_utf8(text).ok()?;
        text.strip_prefix(id)?.trim().to_owned().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A helper that answers with `words`.
    fn helper(folder: &Path, words: &'static str) -> tokio::task::JoinHandle<String> {
        let folder = folder.to_owned();
        tokio::spawn(async move {
            let file = folder.join("request/reboot");
            while !file.exists() {
                sleep(LOOK).await;
            }
            let content = std::fs::read_to_string(&file).unwrap();
            std::fs::remove_file(&file).unwrap();
            let id = content.lines().next().unwrap().strip_prefix("id ").unwrap();
            std::fs::write(folder.join("reboot.answer"), "0123 done\n").unwrap();
            sleep(10 * LOOK).await;
            std::fs::write(folder.join("reboot.answer"), format!("{id} {words}\n")).unwrap();
            content
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_taken_and_answered_and_an_answer_to_another_one_is_not_its_own() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("request")).unwrap();
        let door = Helper::new(home.path());
        let _helper = helper(home.path(), "done");
        assert_eq!(door.ask(&Request::Reboot).await.unwrap(), "done");
        let _helper = helper(home.path(), "refused: too often");
        assert_eq!(door.ask(&Request::Reboot).await.unwrap_err().to_string(), "the helper refused: too often");
    }

    #[tokio::test(start_paused = true)]
    async fn a_firmware_that_proved_itself_is_named_until_it_is_not_on_trial_any_more() {
        let home = tempfile::tempdir().unwrap();
        let (requests, trial) = (home.path().join("request"), home.path().join("trial"));
        std::fs::write(&trial, "abc 15 1\n").unwrap();
        let door = Helper::new(home.path());
        door.confirm("another".to_owned()).await;
        let confirmed = tokio::spawn(async move { door.confirm("abc".to_owned()).await });
        // There is no folder, then nobody takes it, then it is taken and lost, then only the answer is.
        sleep(Duration::from_mins(2)).await;
        std::fs::create_dir(&requests).unwrap();
        sleep(Duration::from_mins(2)).await;
        for round in 0..2 {
            while !requests.join("update-confirm").exists() {
                assert!(!confirmed.is_finished(), "{round}");
                sleep(LOOK).await;
            }
            std::fs::remove_file(requests.join("update-confirm")).unwrap();
        }
        std::fs::remove_file(&trial).unwrap();
        tokio::time::timeout(Duration::from_mins(1), confirmed).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_is_the_request_is_refused_in_one_sentence_and_taken_back() {
        let home = tempfile::tempdir().unwrap();
        let door = Helper::new(home.path());
        assert!(matches!(door.ask(&Request::Reboot).await, Err(RequestError::NoHelper)));
        std::fs::create_dir(home.path().join("request")).unwrap();
        assert!(matches!(door.ask(&Request::Reboot).await, Err(RequestError::NotTaken)));
        assert!(!home.path().join("request/reboot").exists());
    }
}
