//! What the gateway tells about itself, for the platform (docs/status.md): when, and in which words.
//!
//! `facts` gathers the figures and says what each field of the table in `uplink` is; `document` is weir's own text of them;
//! `runs` knows why weir started.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

mod document;
mod facts;
mod runs;

pub(super) use document::meters;
pub use document::receivers;
use facts::FAILING;
pub(super) use facts::Teller;
pub use runs::{Reason, Runs};

use crate::modem;
use crate::uplink::StatusSettings;

/// More often would cost more than it tells.
const SHORTEST: Duration = Duration::from_secs(1);
/// After a message the next one for a change waits so long.
const PAUSE: Duration = Duration::from_secs(10);
/// So often it is compared whether something changed.
const LOOK: Duration = Duration::from_secs(5);

/// When the message is published.
#[derive(Debug, Clone, Copy)]
pub(super) struct When {
    every: Duration,
    on_change: bool,
}

impl From<&StatusSettings> for When {
    fn from(settings: &StatusSettings) -> Self {
        Self { every: (*settings.every).max(SHORTEST), on_change: settings.on_change }
    }
}

/// What is worth a message of its own when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Notable {
    modem: Option<(modem::State, Option<&'static str>, Option<&'static str>)>,
    ip: Option<IpAddr>,
    peers: Vec<Option<String>>,
    locked: bool,
    configuration: Option<(u64, bool)>,
    clock: &'static str,
    disk_refuses: bool,
    failing: Vec<String>,
    receivers: Vec<&'static str>,
}

impl Notable {
    fn of(teller: &Teller) -> Self {
        let evidence = &teller.evidence;
        let state = |modem: &modem::Handle| {
            let status = modem.status();
            let status = status.borrow();
            (status.state, status.registration, status.technology)
        };
        let standing = evidence.changer.as_ref().map(super::change::Changer::state);
        Self {
            modem: evidence.modem.as_ref().map(state),
            ip: teller.address(),
            peers: evidence.tunnels.iter().map(|tunnel| tunnel.health.status().peer).collect(),
            locked: teller.is_locked(),
            configuration: standing.map(|state| (state.number, state.trial.is_some())),
            clock: evidence.clock.health().state().word(),
            disk_refuses: teller.disk_refuses(),
            failing: evidence.meters.failing(FAILING),
            receivers: evidence.receivers.iter().map(|(_, health)| health.status().source.word()).collect(),
        }
    }
}

/// Writes the message, until nobody reads it any more.
pub(super) async fn run(teller: Teller, when: When, out: watch::Sender<Option<String>>) -> Result<(), Infallible> {
    while !out.is_closed() {
        let told = Notable::of(&teller);
        out.send_replace(Some(teller.text().await));
        until_due(&teller, when, &told).await;
    }
    Ok(())
}

async fn until_due(teller: &Teller, when: When, told: &Notable) {
    let begun = Instant::now();
    let due = begun + when.every;
    if !when.on_change {
        return sleep_until(due).await;
    }
    let mut look = begun + PAUSE;
    while look < due {
        sleep_until(look).await;
        if Notable::of(teller) != *told {
            return;
        }
        look += LOOK;
    }
    sleep_until(due).await;
}
