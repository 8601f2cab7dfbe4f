//! Lends a serial line to the platform: a wire of bytes, whatever they mean. The platform is at the end of MQTT topics
//! ([`Tunnel`]) or of a connection of its own ([`NetworkEnd`]).
//!
//! Invariants: bytes are carried as they are and in order; a request that waited longer than `max_age` never reaches
//! the line; a message is never cut within 3.5 characters; the line is borrowed from its bus, which alone owns it, and with meters
//! on the same port it is given back when it was silent for `hold`. Nothing is kept over a restart. Which topics there
//! are, and who published what, others know. Start with [`Tunnel::run`].

mod address;
mod carry;
mod com_port;
mod connect;
mod datagrams;
mod gather;
mod health;
mod modes;
mod network;
mod pipe;
mod server;
mod session;
mod settings;
mod terms;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, sleep};

pub use self::address::{Local, Network, Place, Route};
use self::carry::{Desk, Ended};
pub use self::connect::{Connecting, Connector, Stream, dial};
pub use self::health::{Health, Status};
pub use self::modes::check_together;
pub use self::network::NetworkEnd;
pub use self::settings::{Mode, TunnelSettings, When, check};
use crate::meter::bus;
use crate::os::line::{Line, Speed};

/// Requests that may wait for the line.
pub const REQUESTS_WAITING: usize = 32;
/// Answers that may wait for the broker.
pub const ANSWERS_WAITING: usize = 4;
/// Orders that may wait.
pub const ORDERS_WAITING: usize = 4;

/// Bytes that the platform wants written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// As they are.
    pub bytes: Vec<u8>,
    /// When they came.
    pub at: Instant,
}

/// What else can be asked of a tunnel.
#[derive(Debug)]
pub enum Order {
    /// Sets another speed until weir ends or sets it anew, and tells whether the line took it.
    Speed(Speed, oneshot::Sender<Result<(), String>>),
    /// Opens a session with a reading centre, which then has the port. Only a tunnel with mode = "call-back" does, and only
    /// with one of its targets.
    CallBack {
        /// The centre, as `targets` writes it.
        host: String,
        /// Its port.
        port: u16,
        /// The session is ended after that; `None`: when the centre hangs up, or by the idle limit.
        limit: Option<Duration>,
        /// Told once there is a session, or one sentence why there is none.
        reply: oneshot::Sender<Result<(), String>>,
    },
}

/// What is answered to the order of a call where nobody calls.
const NO_CALLS: &str = "this tunnel does not call back: only one with mode = \"call-back\" does";

/// The platform's side of a tunnel.
#[derive(Debug)]
pub struct Ends {
    /// What is to be written.
    pub requests: mpsc::Receiver<Request>,
    /// Where what came from the line goes, one message each.
    pub answers: mpsc::Sender<Vec<u8>>,
    /// What else is asked.
    pub orders: mpsc::Receiver<Order>,
}

/// A line that can't be had is asked for again after this.
const PAUSE: Duration = Duration::from_secs(1);

/// A tunnel with what it has in hand; clones are the same, for one that is started again.
#[derive(Clone)]
pub struct Tunnel {
    port: bus::Handle,
    /// Meters hang on the same port.
    shared: bool,
    desk: Arc<Mutex<Desk>>,
    health: Health,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("port", &self.port.port()).field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Tunnel {
    /// Joins a port and the platform's side; `shared` when meters hang on the port too.
    pub fn new(settings: &TunnelSettings, port: bus::Handle, shared: bool, ends: Ends, health: Health) -> Self {
        let Ends { requests, answers, orders } = ends;
        let desk = Desk {
            requests,
            answers,
            orders,
            waiting: VecDeque::new(),
            pending: Vec::new(),
            speed: None,
            health: health.clone(),
            gather: *settings.gather,
            largest: usize::try_from(settings.max_message.bytes()).unwrap_or(1 << 16),
            max_age: *settings.max_age,
            hold: shared.then_some(*settings.hold),
            remove_echo: settings.remove_echo,
        };
        Self { port, shared, desk: Arc::new(Mutex::new(desk)), health }
    }

    /// Carries bytes until the platform's side ends.
    pub async fn run(self) {
        let mut failed = false;
        loop {
            if self.shared && !self.is_wanted().await {
                return;
            }
            let lent = match self.shared {
                true => self.port.lend(bus::LONGEST_LEASE, work(self.desk.clone())).await,
                false => self.port.keep(work(self.desk.clone())).await,
            };
            self.health.change(|status| status.holds_line = false);
            match lent {
                Ok(Ended::Closed) => return,
                Ok(Ended::Idle) | Err(bus::LeaseError::Expired(_)) => failed = false,
                Ok(Ended::LineGone(reason)) => {
                    tracing::debug!(port = self.port.port(), reason, "the tunnel's line is gone");
                    failed = false;
                }
                Err(error) => {
                    // The bus says once that the port can't be opened; here it would only be repeated.
                    if !std::mem::replace(&mut failed, true) {
                        tracing::debug!(port = self.port.port(), %error, "the tunnel has no line");
                    }
                    self.desk.lock().await.drop_waiting();
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Waits for a fresh request; false when none will come.
    async fn is_wanted(&self) -> bool {
        let mut desk = self.desk.lock().await;
        while desk.waiting.is_empty() {
            if !desk.wait().await {
                return false;
            }
        }
        true
    }
}

/// What is done with the line.
fn work(desk: Arc<Mutex<Desk>>) -> impl for<'a> FnOnce(&'a mut Line) -> bus::Borrowed<'a, Ended> + Send {
    move |line| Box::pin(async move { desk.lock().await.carry(line).await })
}
