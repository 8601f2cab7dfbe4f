//! A small MQTT 3.1.1 broker on loopback, for the demo and the tests.
//!
//! QoS 0 and 1, wills, filters with + and #, TLS. Memory is bounded: 64 clients, 1,024 messages
//! waiting for each subscriber (what does not fit is dropped for that one), packets up to 17 MiB.
//! It keeps nothing: no retained messages, no sessions that outlive a connection.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::QoS;
use rumqttc::mqttbytes::matches;
use rumqttc::mqttbytes::v4::{
    ConnAck, Connect, ConnectReturnCode, LastWill, Packet, PubAck, Publish, SubAck, SubscribeReasonCode, UnsubAck,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use super::authority::Authority;
use crate::os::file::write_atomic;

const MOST_CLIENTS: usize = 64;
const OUTBOX: usize = 1024;
const OBSERVER: usize = 256;
const LONGEST_PACKET: usize = 17 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// How the broker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As a broker should.
    Serving,
    /// It drops every connection and accepts none, as if the link were cut.
    Cut,
    /// It takes messages and shows them to the observer, but never acknowledges them.
    Withholding,
    /// It takes messages and forgets them, neither shown nor acknowledged, as if it died while
    /// they lay in its receive buffer.
    Forgetting,
}

/// A message as a client published it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Who published it; for a will, who was lost.
    pub client_id: String,
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Bytes,
    /// 0 or 1.
    pub qos: u8,
    /// Whether the client wanted it retained.
    pub retain: bool,
    /// Whether it is a last will.
    pub will: bool,
}

/// The running broker; it stops when this is dropped.
#[derive(Debug)]
pub struct Broker {
    port: u16,
    ca_file: Option<PathBuf>,
    mode: watch::Sender<Mode>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    clients: Mutex<Clients>,
    /// Filled by the connections, each of which waits when it is full; drained by whoever observes.
    observer: Mutex<Option<mpsc::Sender<Received>>>,
    mode: watch::Receiver<Mode>,
}

#[derive(Debug, Default)]
struct Clients {
    serial: u64,
    by_id: BTreeMap<String, Client>,
}

#[derive(Debug)]
struct Client {
    serial: u64,
    filters: BTreeSet<(String, u8)>,
    /// Filled by whoever publishes, drained by the client's connection; dropping it hangs up.
    outbox: mpsc::Sender<Publish>,
}

impl Broker {
    /// Starts a broker without TLS on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// The system's error.
    pub async fn plain() -> io::Result<Self> {
        Self::start(None, None).await
    }

    /// Starts a broker with TLS for `localhost` and 127.0.0.1; the CA that clients must trust is
    /// written to `directory`.
    ///
    /// # Errors
    /// The system's error.
    pub async fn tls(directory: &Path) -> io::Result<Self> {
        let authority = Authority::new("weir demo CA")?;
        let issued = authority.issue(&["localhost", "127.0.0.1"], None)?;
        let ca_file = directory.join("demo-broker-ca.pem");
        write_atomic(&ca_file, authority.pem().as_bytes(), 0o644)?;
        let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).map_err(io::Error::other)?;
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .map_err(io::Error::other)?;
        Self::start(Some(TlsAcceptor::from(Arc::new(config))), Some(ca_file)).await
    }

    async fn start(tls: Option<TlsAcceptor>, ca_file: Option<PathBuf>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (mode, mode_seen) = watch::channel(Mode::Serving);
        let shared = Arc::new(Shared { clients: Mutex::default(), observer: Mutex::default(), mode: mode_seen });
        let task = tokio::spawn(listen(listener, tls, Arc::clone(&shared)));
        Ok(Self { port, ca_file, mode, shared, task })
    }

    /// The address for `[broker] url`.
    pub fn url(&self) -> String {
        let scheme = if self.ca_file.is_some() { "ssl" } else { "tcp" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The CA's file for `[broker] ca_file`.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// Starts to hand over what clients publish, wills included, to this receiver alone. While it
    /// lives it must be drained: a message is acknowledged only after it was handed over.
    pub fn observe(&self) -> mpsc::Receiver<Received> {
        let (observer, received) = mpsc::channel(OBSERVER);
        *self.shared.observer.lock().unwrap_or_else(PoisonError::into_inner) = Some(observer);
        received
    }

    /// Changes how the broker behaves, at once.
    pub fn set_mode(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.mode.send_replace(Mode::Cut);
        self.task.abort();
    }
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a message to the observer, then to every subscriber.
    async fn publish(&self, received: Received) {
        let (topic, payload, qos) = (received.topic.clone(), received.payload.clone(), received.qos);
        let observer = self.observer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(observer) = observer {
            // Whoever observed may have stopped: then nobody needs to see it.
            let _ = observer.send(received).await;
        }
        for client in self.clients().by_id.values() {
            let granted = client.filters.iter().filter(|(f, _)| matches(&topic, f)).map(|(_, q)| *q).max();
            if let Some(granted) = granted {
                let qos = if granted.min(qos) == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                let _ = client.outbox.try_send(Publish::from_bytes(topic.clone(), qos, payload.clone()));
            }
        }
    }
}

async fn listen(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(MOST_CLIENTS));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        if *shared.mode.borrow() == Mode::Cut {
            continue;
        }
        let (shared, tls) = (Arc::clone(&shared), tls.clone());
        tokio::spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            let mut mode = shared.mode.clone();
            let serve = async {
                match tls {
                    None => Connection::new(stream, &shared).serve().await,
                    Some(tls) => match timeout(PATIENCE, tls.accept(stream)).await {
                        Ok(Ok(stream)) => Connection::new(stream, &shared).serve().await,
                        _ => None,
                    },
                }
            };
            let lost = tokio::select! {
                lost = serve => lost,
                // The wills of cut connections are not published: the broker itself is gone.
                _ = async { mode.wait_for(|m| *m == Mode::Cut).await.is_ok() } => None,
            };
            if let Some((client_id, will)) = lost {
                let (topic, payload, retain) = (will.topic, will.message, will.retain);
                shared.publish(Received { client_id, topic, payload, qos: will.qos as u8, retain, will: true }).await;
            }
        });
    }
}

/// One client's connection.
struct Connection<'a, S> {
    stream: S,
    shared: &'a Shared,
    incoming: BytesMut,
    next_packet_id: u16,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Connection<'a, S> {
    fn new(stream: S, shared: &'a Shared) -> Self {
        Self { stream, shared, incoming: BytesMut::with_capacity(4096), next_packet_id: 0 }
    }

    /// Serves the client to its end; returns the will of a client that was lost.
    async fn serve(mut self) -> Option<(String, LastWill)> {
        let Ok(Ok(Packet::Connect(mut connect))) = timeout(PATIENCE, self.read()).await else { return None };
        let (outbox, inbox) = mpsc::channel(OUTBOX);
        let serial = {
            let mut clients = self.shared.clients();
            clients.serial += 1;
            if connect.client_id.is_empty() {
                // Each nameless client is one of its own (MQTT 3.1.1, 3.1.3.1).
                connect.client_id = format!("nameless-{}", clients.serial);
            }
            let client = Client { serial: clients.serial, filters: BTreeSet::new(), outbox };
            // An older connection with this id loses its outbox and hangs up (MQTT 3.1.1, 3.1.4).
            clients.by_id.insert(connect.client_id.clone(), client);
            clients.serial
        };
        let goodbye = self.converse(&connect, inbox).await;
        let mut clients = self.shared.clients();
        if clients.by_id.get(&connect.client_id).is_some_and(|c| c.serial == serial) {
            clients.by_id.remove(&connect.client_id);
        }
        if goodbye.is_ok() { None } else { connect.last_will.map(|will| (connect.client_id, will)) }
    }

    /// Talks until the client says goodbye (`Ok`) or is lost.
    async fn converse(&mut self, connect: &Connect, mut inbox: mpsc::Receiver<Publish>) -> io::Result<()> {
        self.write(&Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))).await?;
        // One and a half times the keep-alive (MQTT 3.1.1, 3.1.2.10).
        let silence = Duration::from_millis(1500 * u64::from(connect.keep_alive));
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                packet = self.read() => {
                    heard = Instant::now();
                    match packet? {
                        Packet::Disconnect => return Ok(()),
                        packet => self.answer(packet, &connect.client_id).await?,
                    }
                }
                message = inbox.recv() => {
                    let Some(mut message) = message else { return Err(io::ErrorKind::ConnectionReset.into()) };
                    if message.qos != QoS::AtMostOnce {
                        self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
                        message.pkid = self.next_packet_id;
                    }
                    self.write(&Packet::Publish(message)).await?;
                }
                () = sleep_until(heard + silence), if connect.keep_alive > 0 => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }

    async fn answer(&mut self, packet: Packet, client_id: &str) -> io::Result<()> {
        match packet {
            Packet::Publish(publish) => {
                let (packet_id, qos) = (publish.pkid, publish.qos as u8);
                if *self.shared.mode.borrow() == Mode::Forgetting {
                    return Ok(());
                }
                if qos > 1 {
                    return Err(io::Error::other("QoS 2 is not spoken here"));
                }
                let topic = String::from_utf8(publish.topic.to_vec()).map_err(io::Error::other)?;
                let (client_id, retain) = (client_id.to_owned(), publish.retain);
                let payload = publish.payload;
                self.shared.publish(Received { client_id, topic, payload, qos, retain, will: false }).await;
                if qos == 1 && *self.shared.mode.borrow() != Mode::Withholding {
                    self.write(&Packet::PubAck(PubAck::new(packet_id))).await?;
                }
                Ok(())
            }
            Packet::Subscribe(subscribe) => {
                let mut codes = Vec::new();
                if let Some(client) = self.shared.clients().by_id.get_mut(client_id) {
                    for filter in subscribe.filters {
                        let granted = if filter.qos == QoS::AtMostOnce { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                        codes.push(SubscribeReasonCode::Success(granted));
                        client.filters.insert((filter.path, granted as u8));
                    }
                }
                self.write(&Packet::SubAck(SubAck::new(subscribe.pkid, codes))).await
            }
            Packet::Unsubscribe(unsubscribe) => {
                if let Some(client) = self.shared.clients().by_id.get_mut(client_id) {
                    client.filters.retain(|(filter, _)| !unsubscribe.topics.contains(filter));
                }
                self.write(&Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid))).await
            }
            Packet::PingReq => self.write(&Packet::PingResp).await,
            Packet::PubAck(_) => Ok(()),
            _ => Err(io::Error::other("a packet that a client must not send now")),
        }
    }

    /// Reads one packet; what was read of an unfinished one stays in the buffer when cancelled.
    async fn read(&mut self) -> io::Result<Packet> {
        loop {
            match Packet::read(&mut self.incoming, LONGEST_PACKET) {
                Ok(packet) => return Ok(packet),
                Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
            if self.stream.read_buf(&mut self.incoming).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn write(&mut self, packet: &Packet) -> io::Result<()> {
        let mut outgoing = BytesMut::new();
        packet.write(&mut outgoing, usize::MAX).map_err(io::Error::other)?;
        self.stream.write_all(&outgoing).await?;
        self.stream.flush().await
    }
}
