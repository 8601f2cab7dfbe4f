//! The link between gateway and broker, with its weather.
//!
//! It reads MQTT packet by packet. A gateway that speaks TLS ends it here, so that the same faults
//! can be done to packets.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use weir::os::clock;

use super::gateway::evidence;
use super::mqtt::{PUBACK, Packet};
use super::telegram::frames_of;

/// What the link does now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weather {
    /// Otherwise it hangs up and lets nobody in.
    pub open: bool,
    /// From the gateway, to the gateway: it holds everything and says nothing.
    pub stalled: [bool; 2],
    /// Bytes a second, each way.
    pub rate: Option<u32>,
    /// The share of PUBACKs that never arrive.
    pub lose: f64,
    /// The share of PUBACKs that arrive twice.
    pub double: f64,
    /// The last PUBACKs arrive a second time, once.
    pub repeat: bool,
}

pub const FAIR: Weather =
    Weather { open: true, stalled: [false, false], rate: None, lose: 0.0, double: 0.0, repeat: false };

/// PUBACKs that can be repeated.
const REMEMBERED: usize = 20;

/// A telegram on its way to the broker.
#[derive(Debug, Clone, Copy)]
pub struct Copy {
    pub connection: u32,
    pub sequence: u64,
}

/// What the proxy saw.
#[derive(Debug, Default)]
pub struct Trace {
    /// All copies of each telegram that were passed to the broker.
    pub copies: HashMap<u64, Vec<Copy>>,
    /// What went on when each connection ended.
    pub ends: HashMap<u32, &'static str>,
    /// What goes on now.
    pub cause: &'static str,
    /// PUBACKs swallowed, and given twice.
    pub swallowed: u64,
    pub doubled: u64,
    connections: u32,
    evidence: Option<File>,
}

impl Trace {
    /// Notes a packet where somebody wants to look into it later.
    fn note(&mut self, connection: u32, what: &str, id: u16, numbers: &[(u64, u64)]) {
        if let Some(file) = &mut self.evidence {
            let time = clock::now().as_millis();
            let _ = writeln!(file, "{time} {connection} {what} {id} {numbers:?}");
        }
    }

    fn repeated(&mut self, connection: u32, puback: &[u8]) {
        self.doubled += 1;
        self.note(connection, "repeated", u16::from_be_bytes([puback[2], puback[3]]), &[]);
    }
}

pub struct Proxy {
    pub port: u16,
    pub trace: Arc<Mutex<Trace>>,
    weather: watch::Sender<Weather>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(to: u16, tls: TlsAcceptor, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (weather, seen) = watch::channel(FAIR);
        let evidence = evidence().map(|directory| File::create(directory.join(format!("proxy-{to}.log"))).unwrap());
        let trace = Arc::new(Mutex::new(Trace { cause: "the beginning", evidence, ..Trace::default() }));
        let shared = trace.clone();
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (mut gate, tls, trace) = (seen.clone(), tls.clone(), shared.clone());
                if !gate.borrow().open {
                    continue;
                }
                tokio::spawn(async move {
                    let mut leg = Leg { id: 0, weather: gate.clone(), trace, random: StdRng::seed_from_u64(seed) };
                    tokio::select! {
                        _ = leg.carry(near, to, tls) => {}
                        _ = gate.wait_for(|weather| !weather.open) => {}
                    }
                    let mut trace = leg.trace.lock().unwrap();
                    let cause = trace.cause;
                    trace.ends.insert(leg.id, cause);
                });
            }
        });
        Self { port, trace, weather, task }
    }

    pub fn weather(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Closes every connection; the next ones are let in.
    pub async fn cut(&self, weather: Weather) {
        self.weather(Weather { open: false, ..weather });
        sleep(Duration::from_millis(20)).await;
        self.weather(weather);
    }

    /// Whether a copy of this telegram was passed on to the broker.
    pub fn passed(&self, number: u64) -> bool {
        self.trace.lock().unwrap().copies.contains_key(&number)
    }

    /// Names what goes on, for the connections that end from now on.
    pub fn cause(&self, cause: &'static str) {
        self.trace.lock().unwrap().cause = cause;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection.
struct Leg {
    id: u32,
    weather: watch::Receiver<Weather>,
    trace: Arc<Mutex<Trace>>,
    random: StdRng,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Leg {
    async fn carry(&mut self, near: TcpStream, to: u16, tls: TlsAcceptor) -> io::Result<()> {
        near.set_nodelay(true)?;
        self.id = {
            let mut trace = self.trace.lock().unwrap();
            trace.connections += 1;
            trace.connections
        };
        self.random = StdRng::seed_from_u64(self.random.random::<u64>() ^ u64::from(self.id));
        // A TLS handshake begins with a record of kind 22, MQTT with CONNECT.
        self.calm(0).await;
        let mut first = [0];
        near.peek(&mut first).await?;
        let near: Box<dyn Stream> = if first == [22] { Box::new(tls.accept(near).await?) } else { Box::new(near) };
        let far = TcpStream::connect(("127.0.0.1", to)).await?;
        far.set_nodelay(true)?;
        let (near_in, near_out) = tokio::io::split(near);
        let (far_in, far_out) = far.into_split();
        let (id, trace) = (self.id, self.trace.clone());
        let up = Self { id, weather: self.weather.clone(), trace, random: StdRng::seed_from_u64(0) };
        tokio::select! {
            ended = up.up(near_in, far_out) => ended,
            ended = self.down(far_in, near_out) => ended,
        }
    }

    /// Waits until this direction is not stalled.
    async fn calm(&self, direction: usize) {
        let mut weather = self.weather.clone();
        let _ = pin!(weather.wait_for(|weather| !weather.stalled[direction])).await;
    }

    async fn up(self, from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut from = BufReader::new(from);
        while let Some(packet) = Packet::read(&mut from).await? {
            self.calm(0).await;
            if let Some(publish) = packet.publish() {
                let mut trace = self.trace.lock().unwrap();
                let carried = carried(publish.topic, publish.payload);
                trace.note(self.id, "publish", publish.id, &carried);
                for (number, sequence) in carried {
                    trace.copies.entry(number).or_default().push(Copy { connection: self.id, sequence });
                }
            }
            self.pass(&packet.bytes, &mut to).await?;
        }
        // What was sent before the end arrives before it.
        to.shutdown().await
    }

    async fn down(&mut self, from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut from = BufReader::new(from);
        let (mut last, mut repeated) = (VecDeque::<Vec<u8>>::new(), false);
        loop {
            let mut weather = self.weather.clone();
            tokio::select! {
                ready = from.fill_buf() => if ready?.is_empty() { break },
                () = async { drop(weather.wait_for(|weather| weather.repeat).await) }, if !repeated => {
                    repeated = true;
                    for bytes in &last {
                        self.trace.lock().unwrap().repeated(self.id, bytes);
                        self.pass(bytes, &mut to).await?;
                    }
                    continue;
                }
            }
            let Some(packet) = Packet::read(&mut from).await? else { break };
            self.calm(1).await;
            let weather = *self.weather.borrow();
            if packet.kind() != PUBACK {
                self.pass(&packet.bytes, &mut to).await?;
                continue;
            }
            if self.random.random_bool(weather.lose) {
                self.trace.lock().unwrap().swallowed += 1;
                continue;
            }
            self.trace.lock().unwrap().note(self.id, "acknowledged", packet.acknowledged().unwrap_or(0), &[]);
            self.pass(&packet.bytes, &mut to).await?;
            if self.random.random_bool(weather.double) {
                self.trace.lock().unwrap().doubled += 1;
                self.pass(&packet.bytes, &mut to).await?;
            }
            last.push_back(packet.bytes);
            if last.len() > REMEMBERED {
                last.pop_front();
            }
        }
        to.shutdown().await
    }

    /// Writes a packet, as slowly as the link is.
    async fn pass(&self, bytes: &[u8], to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let rate = self.weather.borrow().rate;
        let Some(rate) = rate else {
            to.write_all(bytes).await?;
            return to.flush().await;
        };
        for piece in bytes.chunks(512) {
            sleep(Duration::from_secs_f64(piece.len() as f64 / f64::from(rate))).await;
            to.write_all(piece).await?;
            to.flush().await?;
        }
        Ok(())
    }
}

/// The telegrams in a message; none in a status.
fn carried(topic: &[u8], payload: &[u8]) -> Vec<(u64, u64)> {
    if !topic.starts_with(b"data/") && !topic.starts_with(b"event/") {
        return Vec::new();
    }
    frames_of(payload).into_iter().filter_map(|(number, sequence)| Some((number?, sequence))).collect()
}
