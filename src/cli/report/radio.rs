//! A receiver, when no agent runs: opened and listened to for a while, by the same room as the agent's.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::sheet::Check;
use crate::cli::table::count;
use crate::os::clock::Clock;
use crate::radio::{self, Health, Heard, Place, RadioSettings, SourceState};

/// What to do about a receiver that hears nothing.
pub(super) const DEAF: &str = "check the antenna and its cable, the receiver's mode and frequency, and whether meters send nearby; listen longer with --listen";
/// What to do about one that can't be opened.
pub(super) const NO_SOURCE: &str =
    "plug the receiver in, correct device or command (ls -l /dev/serial/by-id), and see what weir run says about it";

/// Frames that may wait while they are counted.
const WAITING: usize = 64;
/// Telegrams whose senders are told apart.
const MOST: usize = 10_000;

/// Listens to a receiver for `window`.
pub(super) async fn check(settings: &RadioSettings, clock: &Clock, window: Duration) -> Check {
    let subject = format!("receiver {}", *settings.name);
    let source = match (&settings.device, &settings.command) {
        (Some(device), _) => device.to_string(),
        (None, command) => command.as_ref().and_then(|words| words.first().cloned()).unwrap_or_default(),
    };
    let place = settings.device.as_ref().and_then(|device| Place::parse(device).ok());
    if let Some(path) = place.as_ref().and_then(Place::file).filter(|path| !path.exists()) {
        let detail = json!({ "receiver": settings.receiver.as_str(), "source": source });
        return Check::fail(subject, format!("{} is not there", path.display()), NO_SOURCE, detail);
    }
    let (frames, mut heard) = mpsc::channel(WAITING);
    let health = Health::new();
    let mut telegrams: BTreeSet<Vec<u8>> = BTreeSet::new();
    let counted = async {
        while let Some(heard) = heard.recv().await {
            if let Heard::Telegram { reception, .. } = heard
                && telegrams.len() < MOST
            {
                telegrams.insert(reception.bytes);
            }
        }
    };
    let listened = timeout(window, async {
        tokio::select! {
            ended = radio::run(settings.clone(), frames, clock.clone(), health.clone()) => ended.err(),
            () = counted => None,
        }
    });
    let fault = listened.await.ok().flatten();
    let status = health.status();
    let told = format!(
        "{source}: {} within {} s, {} damaged, {} lines that were none",
        count(usize::try_from(status.heard).unwrap_or(usize::MAX), "telegram"),
        window.as_secs(),
        status.damaged,
        status.noise
    );
    let detail = json!({
        "receiver": settings.receiver.as_str(), "source": source, "seconds": window.as_secs(),
        "heard": status.heard, "different": telegrams.len(), "damaged": status.damaged, "noise": status.noise,
        "opened": status.opened, "failures": status.failures,
    });
    match (fault, status.source) {
        (Some(error), _) => Check::fail(subject, error.to_string(), NO_SOURCE, detail),
        _ if status.opened == 0 => Check::fail(subject, format!("{source} can't be opened"), NO_SOURCE, detail),
        _ if status.heard > 0 => Check::pass(subject, told, detail),
        (None, SourceState::Open) => Check::fail(subject, told, DEAF, detail),
        _ => Check::fail(
            subject,
            format!("{told}; it was opened and ended {} times", status.failures),
            NO_SOURCE,
            detail,
        ),
    }
}
