//! Who this gateway is: what {id} and {imei} stand for.
//!
//! Where `gateway.imei` is unset the modem is asked. Its answer is kept in the store, so that the next start has it at once;
//! when it becomes known, or is another one, weir starts anew once with it.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::sleep_until;
use tracing::{debug, error, info, warn};

use super::SESSIONS;
use super::status::{Reason, Runs};
use crate::board::{self, Board};
use crate::config::Settings;
use crate::modem;
use crate::os::file::{read_small, write_atomic};
use crate::setting::Identity;

/// Another IMEI than the kept one is taken at once the first time; each further time weir must have run longer by this, so that
/// two modems that take turns make no loop of restarts.
const HOLD: Duration = Duration::from_mins(2);
/// The most of that.
const MOST_HOLDS: u32 = 30;

/// What is kept of the modem's number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    imei: String,
    /// How often it became another one.
    changes: u32,
}

/// The gateway's names: the configured id, else the board's serial number, else the machine id; the configured IMEI, else the
/// one that the modem told.
pub fn identity(settings: &Settings, board: &Board) -> Identity {
    let configured = settings.gateway.id.clone().filter(|id| !id.is_empty());
    let id = configured.or_else(|| board.serial_number()).or_else(board::machine_id);
    let kept = settings.has_modem().then(|| kept(&file(&settings.store.path))).flatten();
    let told = || kept.map(|kept| kept.imei);
    Identity { id: id.unwrap_or_else(|| "weir".to_owned()), imei: settings.gateway.imei.clone().or_else(told) }
}

fn file(store: &Path) -> PathBuf {
    store.join(SESSIONS).join("imei")
}

fn kept(file: &Path) -> Option<Kept> {
    let kept: Kept = serde_json::from_slice(&read_small(file, 4096).ok()?).ok()?;
    is_imei(&kept.imei).then_some(kept)
}

/// 15 digits, or 14 without the check digit (3GPP TS 23.003, 6.2.1).
fn is_imei(text: &str) -> bool {
    (14..=16).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit())
}

/// Watches what the modem says its number is.
#[derive(Debug, Clone)]
pub(super) struct Watcher {
    status: watch::Receiver<modem::Status>,
    file: PathBuf,
    /// What is configured counts, whatever the modem says.
    configured: Option<String>,
    /// Something of the settings stands for it: without that there is nothing to start anew for.
    needed: bool,
    runs: Runs,
}

impl Watcher {
    pub(super) fn new(settings: &Settings, modem: &modem::Handle, runs: &Runs) -> Self {
        Self {
            status: modem.status(),
            file: file(&settings.store.path),
            configured: settings.gateway.imei.clone(),
            needed: stands_in(&settings.effective()),
            runs: runs.clone(),
        }
    }

    /// Runs until the number is settled for this run of weir.
    pub(super) async fn run(mut self) -> Result<(), Infallible> {
        loop {
            let Some(imei) = self.told().await else { return Ok(()) };
            if let Some(configured) = &self.configured {
                if *configured != imei {
                    warn!("the modem has another IMEI than gateway.imei; that counts, correct or remove it");
                }
                return Ok(());
            }
            let before = kept(&self.file);
            if before.as_ref().is_some_and(|kept| kept.imei == imei) {
                // Another modem may be plugged in at any time.
                let same = |status: &modem::Status| status.imei.as_ref().is_none_or(|told| *told == imei);
                if self.status.wait_for(|status| !same(status)).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            let changes = before.as_ref().map_or(0, |kept| kept.changes.saturating_add(1));
            if changes > 1 {
                sleep_until(self.runs.started() + hold(changes)).await;
                if self.status.borrow().imei.as_ref().is_some_and(|told| *told != imei) {
                    continue;
                }
            }
            return self.take(imei, changes, before.is_some()).await;
        }
    }

    /// The modem's number, as soon as it tells one.
    async fn told(&mut self) -> Option<String> {
        let tells = |status: &modem::Status| status.imei.as_deref().is_some_and(is_imei);
        self.status.wait_for(tells).await.ok()?.imei.clone()
    }

    async fn take(&self, imei: String, changes: u32, another: bool) -> Result<(), Infallible> {
        let (file, text) = (self.file.clone(), serde_json::to_vec(&Kept { imei, changes }));
        let write = move || {
            let text = text?;
            if let Some(folder) = file.parent() {
                std::fs::create_dir_all(folder)?;
            }
            write_atomic(&file, &text, 0o644)
        };
        match tokio::task::spawn_blocking(write).await.unwrap_or_else(|e| Err(std::io::Error::other(e))) {
            Ok(()) if !self.needed => {
                debug!("the modem has told its IMEI, which nothing needs");
                return Ok(());
            }
            Ok(()) if another => {
                warn!(
                    "the modem has another IMEI than the one before; it counts from now on, weir starts anew with it"
                );
            }
            Ok(()) => info!("the modem has told its IMEI; weir starts anew with it"),
            // Without it every start would lead to the next.
            Err(error) => {
                error!(%error, "the modem's IMEI can't be kept, so it is not used; see to the disk");
                return Ok(());
            }
        }
        self.runs.again(Reason::Imei);
        Ok(())
    }
}

/// Whether a value of the settings stands for the IMEI; texts that are filled later do not count.
fn stands_in(effective: &str) -> bool {
    let later = |line: &&str| ["template =", "text ="].iter().any(|key| line.trim_start().starts_with(key));
    let mut lines = effective.lines().filter(|line| !later(line));
    lines.any(|line| ["{imei}", "[IMEI]"].iter().any(|name| line.contains(name)))
}

fn hold(changes: u32) -> Duration {
    HOLD * changes.min(MOST_HOLDS)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn rig() -> (tempfile::TempDir, watch::Sender<modem::Status>, Watcher) {
        let folder = tempfile::tempdir().unwrap();
        let (tell, status) = watch::channel(modem::Status::default());
        let runs = Runs::begin(folder.path(), crate::model::BootId::UNKNOWN, || false);
        let watcher = Watcher { status, file: folder.path().join("imei"), configured: None, needed: true, runs };
        (folder, tell, watcher)
    }

    fn told(imei: &str) -> modem::Status {
        modem::Status { imei: Some(imei.to_owned()), ..modem::Status::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_imei_is_kept_and_used_once_and_two_modems_that_take_turns_make_no_loop() {
        let (_folder, tell, watcher) = rig();
        let (one, two) = ("356938035643809", "490154203237518");
        let begun = Instant::now();
        for imei in [one, two] {
            tell.send_replace(told(imei));
            watcher.clone().run().await.unwrap();
            watcher.runs.wanted_again().await;
            assert_eq!(kept(&watcher.file).unwrap().imei, imei);
        }
        assert!(begun.elapsed() < HOLD, "the first change is taken at once");
        // The same again changes nothing: it waits for another one.
        let waiting = tokio::time::timeout(Duration::from_secs(3600), watcher.clone().run()).await;
        assert!(waiting.is_err());
        tell.send_replace(told(one));
        watcher.clone().run().await.unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(3600));
        assert_eq!(kept(&watcher.file).unwrap(), Kept { imei: one.into(), changes: 2 });
        assert!(hold(2) == HOLD * 2 && hold(1000) == HOLD * 30);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_starts_anew_for_an_imei_that_nothing_needs() {
        let (_folder, tell, watcher) = rig();
        tell.send_replace(told("356938035643809"));
        let watcher = Watcher { needed: stands_in("template = \"{imei}\"\nid = \"{id}\""), ..watcher };
        watcher.clone().run().await.unwrap();
        assert!(kept(&watcher.file).is_some() && stands_in("[broker]\nclient_id = \"[IMEI]\""));
        let again = tokio::time::timeout(Duration::from_secs(60), watcher.runs.wanted_again()).await;
        assert!(again.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_configured_counts_and_what_can_not_be_kept_is_not_used() {
        let (_folder, tell, watcher) = rig();
        tell.send_replace(told("356938035643809"));
        let configured = Watcher { configured: Some("1".into()), ..watcher.clone() };
        configured.run().await.unwrap();
        assert_eq!(kept(&watcher.file), None);
        let nowhere = Watcher { file: PathBuf::from("/proc/none/imei"), ..watcher };
        nowhere.clone().run().await.unwrap();
        let again = tokio::time::timeout(Duration::from_secs(60), nowhere.runs.wanted_again()).await;
        assert!(again.is_err(), "weir does not start anew for nothing");
    }
}
