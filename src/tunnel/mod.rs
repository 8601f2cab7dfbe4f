//! Lends a serial line to the platform: a wire of bytes, whatever they mean. The platform is at the end of MQTT topics
//! ([`Tunnel`]) or of a connection of its own ([`NetworkEnd`]).
//!
//! Invariants: bytes are carried as they are and in order; a request that waited longer than `max_age` never reaches
//! the line; a message is never cut within 3.5 characters; the line is borrowed from its bus, which alone owns it, and with meters
//! on the same port it is given back when it was silent for `hold`. Nothing is kept over a restart. Which topics there
//! are, and who published what, others know. With numbers ([`once`]) a stream arrives exactly once or ends where both sides
//! see it. Start with [`Tunnel::run`].

mod address;
mod book;
mod carry;
mod com_port;
mod connect;
mod datagrams;
mod duplex;
mod gather;
mod health;
mod modes;
mod network;
pub mod once;
mod pipe;
mod server;
mod session;
mod settings;
mod stream;
mod tagged;
mod terms;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, sleep};

pub use self::address::{Local, Network, Place, Route};
pub use self::book::{Book, Session};
use self::carry::{Desk, Ended};
pub use self::connect::{Connecting, Connector, Stream, dial};
pub use self::duplex::{Moved, move_bytes};
use self::gather::Gatherer;
pub use self::health::{Health, Status};
pub use self::modes::check_together;
pub use self::network::NetworkEnd;
use self::once::{News, Peer};
pub use self::settings::{Envelope, Mode, TunnelSettings, When, check};
pub use self::stream::{NumberedStream, Wire};
use self::tagged::Tagged;
pub use self::tagged::{TAGGED_WAITING, Tags};
use crate::meter::bus;
use crate::os::line::{Line, Speed};
use crate::os::random;

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
    /// Gives the line back to its bus as soon as nothing is under way, after [`PATIENCE`] in any case, for somebody who asked the bus
    /// for it already; tells when it does. A tunnel whose peer in the network has the port refuses.
    Yield(oneshot::Sender<Result<(), String>>),
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

/// A line that never falls silent is given away after this all the same.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Refused strangers are told of at most once in this time; all are counted.
const QUIET: Duration = Duration::from_mins(1);

/// What is answered to the order of a call where nobody calls.
const NO_CALLS: &str = "this tunnel does not call back: only one with mode = \"call-back\" does";

/// Has a tunnel set another speed, and returns when its line has it: what `SETBAUDRATE` does.
///
/// # Errors
/// The line's own, or that the tunnel has ended.
pub async fn set_speed(orders: &mpsc::Sender<Order>, speed: Speed) -> Result<(), String> {
    let ended = || "the tunnel has ended; restart weir".to_owned();
    let (reply, done) = oneshot::channel();
    orders.send(Order::Speed(speed, reply)).await.map_err(|_| ended())?;
    done.await.map_err(|_| ended())?
}

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
    /// Numbered: what stands between the desk and the platform.
    stream: Option<Arc<Mutex<NumberedStream>>>,
    health: Health,
    book: Book,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("port", &self.port.port()).field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Tunnel {
    /// Joins a port and the platform's side; `shared` when meters hang on the port too.
    pub fn new(settings: &TunnelSettings, port: bus::Handle, shared: bool, ends: Ends, health: Health) -> Self {
        let Ends { mut requests, mut answers, orders } = ends;
        let largest = usize::try_from(settings.max_message.bytes()).unwrap_or(1 << 16);
        let (mut stream, mut wires) = (None, None);
        if settings.envelope == Envelope::Numbered {
            let peer = Peer::listener(*settings.max_age, largest, random::generator());
            // Nobody is there yet.
            let nobody = (mpsc::channel(1).1, mpsc::channel(1).0);
            let platform = std::mem::replace(&mut requests, nobody.0);
            let (give, take) = mpsc::channel(1);
            stream = Some(Arc::new(Mutex::new(NumberedStream::new(
                peer,
                platform,
                std::mem::replace(&mut answers, nobody.1),
                give,
            ))));
            wires = Some(take);
        }
        let desk = Desk {
            requests,
            answers,
            orders,
            joined: wires.is_none(),
            wires,
            waiting: VecDeque::new(),
            pending: Vec::new(),
            gatherer: Gatherer::new(largest),
            outgoing: None,
            speed: None,
            asked: None,
            health: health.clone(),
            gather: *settings.gather,
            max_age: *settings.max_age,
            hold: shared.then_some(*settings.hold),
            remove_echo: settings.remove_echo,
            tagged: None,
        };
        let port = port.named(bus::Owner::new(bus::Purpose::Tunnel, "mqtt"));
        Self { port, shared, desk: Arc::new(Mutex::new(desk)), stream, health, book: Book::default() }
    }

    /// Tells its numbered sessions there.
    #[must_use]
    pub fn with_book(self, book: Book) -> Self {
        Self { book, ..self }
    }

    /// Takes commands out of what comes from the line.
    #[must_use]
    pub fn with_tags(mut self, tags: Tags) -> Self {
        if let Some(desk) = Arc::get_mut(&mut self.desk) {
            desk.get_mut().tagged = Some(Tagged::new(tags));
        }
        self
    }

    /// Carries bytes until the platform's side ends.
    pub async fn run(self) {
        let Some(stream) = self.stream.clone() else { return self.serve().await };
        let port = self.port.port().to_owned();
        let numbered = async {
            let mut stream = stream.lock().await;
            let mut before = self.health.status();
            stream
                .run(|news| match news {
                    News::Begun => {
                        tracing::info!(port, "a numbered session of the tunnel has begun");
                        before = self.health.status();
                        self.book.tell(|| session(&port, "numbered", None));
                    }
                    News::Ended(reason) => {
                        tracing::info!(port, ?reason, "the tunnel's numbered session is over");
                        let after = self.health.status();
                        self.book.tell(|| Session {
                            to_port: after.to_port.saturating_sub(before.to_port),
                            from_port: after.from_port.saturating_sub(before.from_port),
                            ..session(&port, "numbered", Some(format!("{reason:?}")))
                        });
                    }
                    News::Busy => {}
                })
                .await;
        };
        tokio::select! {
            () = numbered => {}
            () = self.serve() => {}
        }
    }

    async fn serve(&self) {
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
        while !desk.wants_line() {
            if !desk.wait().await {
                return false;
            }
        }
        true
    }
}

/// A session without bytes.
fn session(port: &str, peer: &str, ended: Option<String>) -> Session {
    Session { port: port.to_owned(), peer: peer.to_owned(), to_port: 0, from_port: 0, ended }
}

/// What is done with the line.
fn work(desk: Arc<Mutex<Desk>>) -> impl for<'a> FnOnce(&'a mut Line) -> bus::Borrowed<'a, Ended> + Send {
    move |line| Box::pin(async move { desk.lock().await.carry(line).await })
}
