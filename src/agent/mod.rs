//! Builds the rooms, joins them by bounded channels, supervises them and stops them in order.
//!
//! Invariants: rooms meet only in `wiring.rs`; a room that ends is started again with growing
//! pauses and never takes the others with it; at the end inputs stop first, channels drain into
//! the store, the store syncs, and the uplink gets a grace to say goodbye. Start with [`start`].

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use crate::config::Settings;
use crate::meter::gaps::Keeper;
use crate::model::Frame;
use crate::os::notify;
use crate::store::{Store, StoreError};

mod alerts;
pub mod ask;
mod books;
pub mod change;
mod commands;
mod dogs;
mod ends;
mod handled;
mod hardware;
mod identity;
mod intake;
mod io;
mod lines;
pub mod local;
mod orders;
mod permit;
mod phone;
mod ports;
mod post;
mod recorder;
mod seals;
mod sessions;
mod status;
mod supervisor;
mod transfer;
mod wiring;

pub use dogs::Dogs;
pub use identity::identity;
pub use recorder::recorded;
pub use status::{Reason, Runs, receivers};
pub use wiring::{Evidence, SESSIONS, resolve_port};

/// How long frames may wait for a place in the channel at shutdown.
const LET_IN_GRACE: Duration = Duration::from_secs(2);
/// How long the inputs' last frames may take into the store at shutdown.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// How long the uplink's goodbye may be held up by the sync before it.
const SYNC_GRACE: Duration = Duration::from_secs(5);
/// How long the uplink may take to say goodbye at shutdown.
const UPLINK_GRACE: Duration = Duration::from_secs(8);

/// Why the agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The board named in the configuration can't be used.
    #[error(transparent)]
    Board(#[from] crate::board::BoardError),
    /// A meter's settings make no session.
    #[error("meter \"{meter}\": {reason}")]
    Meter {
        /// The meter's name.
        meter: String,
        /// What is wrong.
        reason: String,
    },
    /// The names in the uplink's settings can't be filled in.
    #[error(transparent)]
    Uplink(#[from] crate::uplink::UplinkError),
    /// A port has no device, neither in the file nor by its board.
    #[error(
        "port \"{port}\" has no device: set device = \"/dev/...\", or a name that board \"{board}\" knows: {known}"
    )]
    Device {
        /// The port's name.
        port: String,
        /// The board.
        board: String,
        /// Names the board knows.
        known: String,
    },
}

/// The door to a tunnel.
#[derive(Debug, Clone)]
pub struct TunnelDoor {
    /// The name of its port.
    pub port: String,
    /// Its counters.
    pub health: crate::tunnel::Health,
    /// Takes orders beside the bytes.
    pub orders: mpsc::Sender<crate::tunnel::Order>,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// The cache.
    pub store: Store,
    /// What the rooms tell about themselves.
    pub evidence: Evidence,
    /// Held to let the inputs' last frames in at shutdown.
    frames: mpsc::Sender<Frame>,
    inputs: supervisor::Rooms,
    /// What makes frames of what the receivers hear.
    desk: Option<tokio::task::JoinHandle<()>>,
    intake: tokio::task::JoinHandle<()>,
    /// What was delivered of the meters' profiles; it ends before the intake does.
    keeper: (Keeper, tokio::task::JoinHandle<()>),
    uplink: supervisor::Rooms,
    stop_uplink: watch::Sender<bool>,
    hardware: hardware::Hardware,
}

/// Opens the store and starts every room; must be called inside a current-thread runtime.
///
/// # Errors
/// [`AgentError`]; nothing is left running then.
pub fn start(settings: &Settings) -> Result<Agent, AgentError> {
    wiring::build(settings, None)
}

/// As [`start`], for settings that `changer` may change.
///
/// # Errors
/// As [`start`].
pub fn start_changeable(settings: &Settings, changer: change::Changer) -> Result<Agent, AgentError> {
    wiring::build(settings, Some(changer))
}

/// Why an agent stopped serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The process is to end.
    Stop,
    /// The agent is to be started anew in this process.
    Restart,
}

impl Agent {
    /// Serves until `stop` resolves, keeping the service manager informed, then shuts down; gives what `stop` gave.
    ///
    /// # Errors
    /// [`StoreError::Closed`] when the store ended by itself: the agent must be started anew.
    pub async fn serve(mut self, stop: impl Future<Output = End>) -> Result<End, StoreError> {
        notify::ready();
        info!("ready");
        let mut hardware = std::mem::take(&mut self.hardware);
        let tick = notify::alive_every().unwrap_or(Duration::from_secs(30)).min(Duration::from_secs(30));
        let tick = hardware.every().map_or(tick, |every| tick.min(every));
        let mut stop = std::pin::pin!(stop);
        let mut missed = 0;
        let ended = loop {
            let beat = async {
                tokio::time::sleep(tick).await;
                self.heartbeat(tick, &mut missed).await
            };
            tokio::select! {
                end = &mut stop => break Ok(end),
                () = self.evidence.runs.wanted_again() => break Ok(End::Restart),
                alive = beat => if !alive { break Err(StoreError::Closed) },
            }
            hardware.feed(tick * u32::try_from(missed).unwrap_or(u32::MAX));
        };
        // What ends by itself leaves it armed: somebody must start weir again.
        if ended.is_ok() {
            hardware.close();
        }
        match ended {
            Ok(End::Restart) => {
                notify::alive();
                self.wind_up(Reason::Configuration).await;
                notify::alive();
            }
            Ok(End::Stop) => self.shut_down().await,
            Err(_) => {
                notify::stopping();
                self.wind_up(Reason::Failure).await;
            }
        }
        ended
    }

    /// Pings the service manager, but only when the store's thread answers; counts in `missed`
    /// how often it did not. False when the store has ended: then nothing can be kept any more; or the radio desk:
    /// then nobody is heard.
    async fn heartbeat(&self, tick: Duration, missed: &mut u64) -> bool {
        use crate::model::{Lane, Sequence};
        match timeout(tick, self.store.peek(Lane::Priority, Sequence::MAX, 1)).await {
            // Restarted alone it would find its receivers gone: their way to it is one that closes for good.
            Ok(Ok(_)) if self.desk.as_ref().is_some_and(tokio::task::JoinHandle::is_finished) => {
                error!(room = "radio desk", "the room has ended by itself; weir stops so that it is started anew");
                return false;
            }
            Ok(Ok(_)) => {
                notify::alive();
                notify::status(&self.status_line());
                if std::mem::take(missed) > 0 {
                    info!("the store answers again");
                }
                return true;
            }
            Ok(Err(error)) => {
                error!(%error, "the store has ended by itself; weir stops so that it is started anew");
                return false;
            }
            Err(_) if *missed == 0 => warn!("the store does not answer; its disk may be hanging"),
            Err(_) => debug!(missed, "the store still does not answer"),
        }
        *missed += 1;
        true
    }

    fn status_line(&self) -> String {
        let status = self.store.status().borrow().clone();
        let link = link_line(&self.evidence.brokers());
        format!("{link}; received {}, acknowledged {}, cached {}", status.received, status.acknowledged, status.cached)
    }

    /// Stops in order: inputs, channels into the store, sync, uplink.
    pub async fn shut_down(self) {
        notify::stopping();
        self.wind_up(Reason::Stop).await;
    }

    /// The same without a word to the service manager, which would take it for the end of the process.
    async fn wind_up(self, reason: Reason) {
        let Self {
            store, evidence, frames, inputs, desk, intake, keeper: (keeper, keeping), uplink, stop_uplink, ..
        } = self;
        if timeout(LET_IN_GRACE, intake::let_in(&frames)).await.is_err() {
            warn!("the store takes no frames at shutdown; readings under way are lost");
        }
        inputs.stop().await;
        // No receiver is left: what the desk holds leaves now.
        if let Some(desk) = desk
            && timeout(DRAIN_GRACE, desk).await.is_err()
        {
            warn!(room = "radio desk", "still running at shutdown; telegrams that it held are lost");
        }
        evidence.clock.close().await;
        drop(frames);
        keeper.close();
        if timeout(DRAIN_GRACE, async { tokio::join!(intake, keeping) }).await.is_err() {
            warn!(room = "intake", "still running at shutdown");
        }
        match timeout(SYNC_GRACE, store.sync()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the store could not be synced at shutdown"),
            Err(_) => warn!("the store is still syncing at shutdown"),
        }
        let _ = stop_uplink.send(true);
        uplink.finish(UPLINK_GRACE).await;
        evidence.traffic.close();
        match store.close().await {
            Ok(()) => info!("stopped"),
            Err(error) => warn!(%error, "the store did not close well; it recovers at the next start"),
        }
        evidence.runs.end(reason);
    }
}

/// Says with which brokers there is a session.
fn link_line(brokers: &[crate::uplink::Health]) -> String {
    let connected: Vec<_> = brokers.iter().filter(|b| b.connected_since.is_some()).map(|b| b.broker.as_str()).collect();
    if connected.is_empty() { "not connected".to_owned() } else { format!("connected to {}", connected.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::uplink::Health;

    #[test]
    fn the_status_line_names_the_brokers_there_is_a_session_with() {
        let broker = |name: &str, since: Option<i64>| Health {
            broker: name.to_owned(),
            connected_since: since.map(Timestamp::from_millis),
            acknowledged: 5,
            ..Health::default()
        };
        let [a, b] = [broker("ssl://a:8883", None), broker("ssl://b:8883", Some(9))];
        assert_eq!(link_line(&[a.clone(), a.clone()]), "not connected");
        assert_eq!(link_line(&[a.clone(), b.clone()]), "connected to ssl://b:8883");
        assert_eq!(link_line(&[b.clone(), b.clone()]), "connected to ssl://b:8883, ssl://b:8883");
        let all = Health::overall(&[a, b]);
        assert_eq!((all.broker.as_str(), all.acknowledged), ("ssl://b:8883", 10));
        assert_eq!(all.connected_since, Some(Timestamp::from_millis(9)));
    }
}
