//! The port's end of a connection: as a server, as a client, on a call.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::address::Place;
use super::book::{Book, Session};
use super::connect::{Connector, Stream, connect};
use super::datagrams::Datagrams;
use super::server::{Client, Door};
use super::session::Desk;
use super::settings::{Mode, TunnelSettings, When};
use super::tagged::{Tagged, Tags};
use super::terms::{Ended, Terms, Why};
use super::{Health, Order};
use crate::meter::bus;
use crate::os::line::Line;
use crate::os::random;

/// The wait before the first attempt to connect again, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A connection that lasted so long was a good one.
const STEADY: Duration = Duration::from_secs(60);

/// A tunnel whose other end is in the network; clones are the same, for one that is started again.
#[derive(Clone)]
pub struct NetworkEnd {
    settings: Arc<TunnelSettings>,
    port: bus::Handle,
    /// Meters hang on the same port.
    shared: bool,
    desk: Arc<Mutex<Desk>>,
    evict: watch::Sender<u64>,
    connector: Connector,
    identify: Arc<[u8]>,
    health: Health,
    book: Book,
}

impl std::fmt::Debug for NetworkEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkEnd")
            .field("port", &self.port.port())
            .field("mode", &self.settings.mode)
            .finish_non_exhaustive()
    }
}

impl NetworkEnd {
    /// Joins a port and the network; `shared` when meters hang on the port too. `identify` is what a server is told first.
    pub fn new(
        settings: &TunnelSettings,
        (port, shared): (bus::Handle, bool),
        (connector, identify): (Connector, &[u8]),
        (orders, health): (mpsc::Receiver<Order>, Health),
    ) -> Self {
        let mode = *settings.mode;
        let always = mode == Mode::TcpClient && *settings.when == When::Always;
        let terms = Terms {
            gather: *settings.gather,
            largest: usize::try_from(settings.max_message.bytes()).unwrap_or(1 << 16),
            max_age: *settings.max_age,
            // Who was called has the port for itself.
            hold: (shared && mode != Mode::CallBack).then_some(*settings.hold),
            idle: (!always && !settings.idle.is_zero()).then_some(*settings.idle),
            flush: settings.flush && !settings.needs_the_line(),
            rfc2217: settings.rfc2217,
            remove_echo: settings.remove_echo,
            calls: mode == Mode::CallBack,
        };
        let (evict, evicted) = watch::channel(0);
        let desk = Desk::new(terms, orders, health.clone(), evicted);
        Self {
            settings: Arc::new(settings.clone()),
            port,
            shared,
            desk: Arc::new(Mutex::new(desk)),
            evict,
            connector,
            identify: identify.into(),
            health,
            book: Book::default(),
        }
    }

    /// Tells its sessions there.
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

    /// Serves peers until weir ends.
    ///
    /// # Errors
    /// One sentence when it can't listen; it may be started again.
    pub async fn run(self) -> Result<(), String> {
        match (*self.settings.mode, &self.settings.connect) {
            (Mode::TcpServer, _) => self.serve_clients().await,
            (Mode::TcpClient, Some(place)) if *self.settings.when == When::Data => self.connect_for_data(place).await,
            (Mode::TcpClient, Some(place)) => self.stay_connected(place).await,
            (Mode::CallBack, _) => self.call_back().await,
            (Mode::Udp, _) => {
                let orders = self.desk.clone();
                Datagrams::new(&self.settings, (self.port.clone(), self.shared), orders, self.health.clone())
                    .run()
                    .await
            }
            (Mode::Mqtt | Mode::TcpClient, _) => Ok(()),
        }
    }

    async fn serve_clients(&self) -> Result<(), String> {
        let Some(listen) = &self.settings.listen else { return Ok(()) };
        let failed = |error| {
            format!(
                "the tunnel of port \"{}\" cannot listen on {}: {error}; choose another address or port",
                self.port.port(),
                **listen
            )
        };
        let listener = TcpListener::bind(listen.0).await.map_err(failed)?;
        let address = listener.local_addr().map_or_else(|_| listen.to_string(), |at| at.to_string());
        tracing::info!(port = self.port.port(), address, "the tunnel waits for a client");
        let newest = self.desk.lock().await.served();
        let door = Door {
            port: self.port.port().to_owned(),
            allow: self.settings.allow.to_vec(),
            takeover: self.settings.takeover,
            health: self.health.clone(),
            evict: self.evict.clone(),
            newest,
        };
        let (let_in, mut clients) = mpsc::channel(1);
        tokio::select! {
            () = door.keep(&listener, &let_in) => Ok(()),
            () = async {
                while let Some(Client { stream, from, place }) = self.next(&mut clients).await {
                    self.serve(Box::new(stream), &from.to_string(), None).await;
                    drop(place);
                }
            } => Ok(()),
        }
    }

    /// The next client; what is ordered meanwhile is done.
    async fn next(&self, clients: &mut mpsc::Receiver<Client>) -> Option<Client> {
        let mut desk = self.desk.lock().await;
        loop {
            tokio::select! {
                client = clients.recv() => return client,
                order = desk.orders.recv() => desk.obey(order?, None),
            }
        }
    }

    /// Serves a peer until it has gone.
    async fn serve(&self, peer: Box<dyn Stream>, name: &str, limit: Option<Duration>) -> Why {
        let before = self.tell_begin(name);
        self.desk.lock().await.begin(peer, name, (&self.identify, limit));
        let why = self.share_the_line().await;
        self.desk.lock().await.end().await;
        self.tell_end(name, &why, &before);
        why
    }

    fn tell_begin(&self, name: &str) -> super::Status {
        tracing::info!(port = self.port.port(), peer = name, "a peer has the tunnel");
        self.book.tell(|| super::session(self.port.port(), name, None));
        self.health.status()
    }

    fn tell_end(&self, name: &str, why: &Why, before: &super::Status) {
        let after = self.health.status();
        let (to_port, from_port) = (after.to_port - before.to_port, after.from_port - before.from_port);
        tracing::info!(
            port = self.port.port(),
            peer = name,
            why = why.sentence(),
            to_port,
            from_port,
            "the peer is gone"
        );
        let ended = Some(why.sentence());
        self.book.tell(|| Session { to_port, from_port, ..super::session(self.port.port(), name, ended) });
    }

    async fn share_the_line(&self) -> Why {
        let yields = self.desk.lock().await.terms.hold.is_some();
        loop {
            if yields && let Some(why) = self.desk.lock().await.wait().await {
                return why;
            }
            match self.with_line(carry(self.desk.clone())).await {
                Ok(Ended::Over(why)) => return why,
                Ok(Ended::Yielded) => {}
                // Stopped anywhere: what was on its way is of the past when the line comes back.
                Err(bus::LeaseError::Expired(_)) => self.desk.lock().await.forget_under_way(),
                Err(error) => return Why::NoLine(error.to_string()),
            }
        }
    }

    async fn with_line<T, F>(&self, work: F) -> Result<T, bus::LeaseError>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(&'a mut Line) -> bus::Borrowed<'a, T> + Send + 'static,
    {
        let peer = self.health.status().peer;
        let name = peer.as_deref().unwrap_or_else(|| self.settings.mode.word());
        let port = self.port.named(bus::Owner::new(bus::Purpose::Tunnel, name));
        let lent = match self.shared {
            true => port.lend(bus::LONGEST_LEASE, work).await,
            false => port.keep(work).await,
        };
        self.health.change(|status| status.holds_line = false);
        lent
    }

    async fn stay_connected(&self, place: &Place) -> Result<(), String> {
        let mut pause = Pause::new();
        loop {
            match self.or_orders(connect(&self.connector, place)).await {
                None => return Ok(()),
                Some(Ok(peer)) => {
                    let begun = Instant::now();
                    if self.serve(peer, &place.to_string(), None).await == Why::Closed {
                        return Ok(());
                    }
                    pause.after(begun.elapsed());
                }
                Some(Err(reason)) => pause.failed(self.port.port(), &reason),
            }
            if self.or_orders(sleep(pause.next())).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Waits for something while orders are done; `None` when nobody has the tunnel any more.
    async fn or_orders<T>(&self, wanted: impl Future<Output = T>) -> Option<T> {
        let mut wanted = std::pin::pin!(wanted);
        let mut desk = self.desk.lock().await;
        loop {
            tokio::select! {
                done = &mut wanted => return Some(done),
                order = desk.orders.recv() => desk.obey(order?, None),
            }
        }
    }

    async fn connect_for_data(&self, place: &Place) -> Result<(), String> {
        let mut failed = false;
        loop {
            let (end, place) = (self.clone(), place.clone());
            let lent = self.with_line(move |line| Box::pin(async move { end.wait_for_data(line, &place).await })).await;
            match lent {
                Ok(Why::Closed) => return Ok(()),
                Ok(why) => tracing::debug!(port = self.port.port(), why = why.sentence(), "the tunnel's line is gone"),
                Err(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::debug!(port = self.port.port(), %error, "the tunnel has no line");
                    }
                }
            }
            sleep(FIRST_PAUSE).await;
        }
    }

    /// Listens to the line, connects when it says something, carries, and so on; returns when there is no line any more.
    async fn wait_for_data(&self, line: &mut Line, place: &Place) -> Why {
        let mut desk = self.desk.lock().await;
        let mut pause = Pause::new();
        if let Err(error) = desk.prepare(line).await {
            return Why::NoLine(error.to_string());
        }
        loop {
            if desk.waiting() == 0
                && let Err(why) = desk.listen(line).await
            {
                return why;
            }
            // Nobody is asked in vain for longer than what was said is of use.
            let give_up = Instant::now() + desk.terms.max_age;
            let mut connecting = std::pin::pin!(self.connect_until(place, give_up, &mut pause));
            let connected = loop {
                tokio::select! {
                    connected = &mut connecting => break connected,
                    heard = desk.listen(line) => if let Err(why) = heard {
                        return why;
                    },
                }
            };
            let Some(peer) = connected else {
                desk.drop_waiting();
                continue;
            };
            let name = place.to_string();
            let before = self.tell_begin(&name);
            desk.begin(peer, &name, (&self.identify, None));
            let ended = desk.carry(line).await;
            desk.end().await;
            let why = if let Ended::Over(why) = ended { why } else { Why::GivenAway };
            self.tell_end(&name, &why, &before);
            if matches!(why, Why::NoLine(_) | Why::GivenAway | Why::Closed) {
                return why;
            }
        }
    }

    async fn connect_until(&self, place: &Place, give_up: Instant, pause: &mut Pause) -> Option<Box<dyn Stream>> {
        loop {
            match tokio::time::timeout_at(give_up, connect(&self.connector, place)).await {
                Ok(Ok(peer)) => {
                    pause.after(STEADY);
                    return Some(peer);
                }
                Ok(Err(reason)) => pause.failed(self.port.port(), &reason),
                Err(_elapsed) => return None,
            }
            let next = Instant::now() + pause.next();
            tokio::time::sleep_until(next.min(give_up)).await;
            if next >= give_up {
                return None;
            }
        }
    }

    async fn call_back(&self) -> Result<(), String> {
        loop {
            let order = self.desk.lock().await.orders.recv().await;
            match order {
                None => return Ok(()),
                Some(Order::CallBack { host, port, limit, reply }) => {
                    if self.call((Place { host, port }, limit), reply).await == Some(Why::Closed) {
                        return Ok(());
                    }
                }
                Some(order) => self.desk.lock().await.obey(order, None),
            }
        }
    }

    /// Calls a centre and serves it; `None` when there was no session.
    async fn call(
        &self,
        (place, limit): (Place, Option<Duration>),
        reply: oneshot::Sender<Result<(), String>>,
    ) -> Option<Why> {
        if !self.settings.targets.contains(&place) {
            self.health.change(|status| status.refused += 1);
            tracing::warn!(port = self.port.port(), %place, "a call to a place that is no target is refused");
            let known: Vec<_> = self.settings.targets.iter().map(ToString::to_string).collect();
            let _ = reply.send(Err(format!("{place} is none of this tunnel's targets: {}", known.join(", "))));
            return None;
        }
        match connect(&self.connector, &place).await {
            Ok(peer) => {
                let _ = reply.send(Ok(()));
                Some(self.serve(peer, &place.to_string(), limit).await)
            }
            Err(reason) => {
                tracing::warn!(port = self.port.port(), reason, "the call failed");
                let _ = reply.send(Err(reason));
                None
            }
        }
    }
}

/// What is done with the line.
fn carry(desk: Arc<Mutex<Desk>>) -> impl for<'a> FnOnce(&'a mut Line) -> bus::Borrowed<'a, Ended> + Send {
    move |line| Box::pin(async move { desk.lock().await.carry(line).await })
}

/// The growing wait between attempts to connect.
struct Pause {
    next: Duration,
    last_reason: String,
    failures: u64,
}

impl Pause {
    const fn new() -> Self {
        Self { next: FIRST_PAUSE, last_reason: String::new(), failures: 0 }
    }

    /// A connection lasted so long.
    fn after(&mut self, lasted: Duration) {
        if lasted >= STEADY {
            self.next = FIRST_PAUSE;
        }
        if !std::mem::take(&mut self.last_reason).is_empty() {
            tracing::info!(failures = std::mem::take(&mut self.failures), "the tunnel has connected again");
        }
    }

    /// Tells once why there is no connection, then counts.
    fn failed(&mut self, port: &str, reason: &str) {
        self.failures += 1;
        if self.last_reason == reason {
            tracing::debug!(port, failures = self.failures, "the tunnel still can't connect");
        } else {
            tracing::warn!(port, reason, "the tunnel can't connect");
            reason.clone_into(&mut self.last_reason);
        }
    }

    /// The next wait, with a random part of up to a half, so that a fleet does not come at once.
    fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST_PAUSE);
        wait + wait.mul_f64(random::generator().random::<f64>() / 2.0)
    }
}
