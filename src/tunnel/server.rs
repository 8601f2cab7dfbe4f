//! Lets TCP clients in, one at a time.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::Health;
use super::address::Network;
use super::connect::tend;

/// A client that was let in; whoever drops its place lets the next one in.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) from: SocketAddr,
    pub(super) place: OwnedSemaphorePermit,
}

/// The client before may have left a moment ago, and nobody has seen it yet.
const JUST_LEFT: Duration = Duration::from_millis(250);
/// A client that is taken over from goes in this time: what it sent may be on its way over the line.
const TAKES_OVER: Duration = Duration::from_secs(15);
/// When the system gives no connection, for instance because there are too many files.
const PAUSE: Duration = Duration::from_secs(1);

/// The door of a port.
pub(super) struct Door {
    pub(super) port: String,
    pub(super) allow: Vec<Network>,
    pub(super) takeover: bool,
    pub(super) health: Health,
    /// The number of the newest client that must go.
    pub(super) evict: watch::Sender<u64>,
    /// The number of the newest client that was let in.
    pub(super) newest: u64,
}

impl Door {
    /// Lets clients in, until nobody serves them any more.
    pub(super) async fn keep(mut self, listener: &TcpListener, clients: &mpsc::Sender<Client>) {
        let free = Arc::new(Semaphore::new(1));
        let (mut failing, mut last_refused) = (false, None);
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(port = self.port, %error, "the tunnel can't accept clients");
                    }
                    sleep(PAUSE).await;
                    continue;
                }
            };
            failing = false;
            let place = match self.place(from.ip(), &free).await {
                Ok(place) => place,
                Err(why) => {
                    drop(stream);
                    self.refused((from.ip(), why), &mut last_refused);
                    continue;
                }
            };
            if let Err(error) = tend(&stream) {
                tracing::debug!(port = self.port, %error, "a client left at once");
                continue;
            }
            self.newest += 1;
            if clients.send(Client { stream, from, place }).await.is_err() {
                return;
            }
        }
    }

    async fn place(&self, from: IpAddr, free: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, &'static str> {
        if !self.allow.is_empty() && !self.allow.iter().any(|network| network.contains(from)) {
            return Err("its address is not in allow");
        }
        let wait = if self.takeover {
            self.evict.send_replace(self.newest);
            TAKES_OVER
        } else {
            JUST_LEFT
        };
        match timeout(wait, free.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err("another client has the port"),
        }
    }

    /// Counts a refusal; told of at most once in [`super::QUIET`].
    fn refused(&self, refusal: (IpAddr, &'static str), last: &mut Option<(IpAddr, Instant)>) {
        self.health.change(|status| status.refused += 1);
        let (from, why) = refusal;
        let quiet = last.is_some_and(|(_, at)| at.elapsed() < super::QUIET);
        if quiet {
            tracing::debug!(port = self.port, %from, why, "a client is refused again");
        } else {
            *last = Some((from, Instant::now()));
            tracing::info!(port = self.port, %from, why, "a client is refused");
        }
    }
}
