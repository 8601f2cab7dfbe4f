//! Simulated Modbus meters on one line: an Eastron SDM630 subset that can be made to misbehave.
//!
//! Each unit has input registers as in meters/eastron-sdm630.toml (floats that move with time)
//! and holding registers 0 to 9 that hold `1000 * unit + address`, so that an answer from the
//! wrong place is seen, until they are written. Any other register is refused with exception 2, unless
//! [`ModbusMeters::set_holding`] made it. Unit 0 is a broadcast: all take it, none answers. It tells
//! its identification (function 43/14) in pieces of two objects.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::modbus_content::{Memory, identity};
use crate::os::pty::Pty;
use crate::wire::modbus::{Answer, Exception, Request, ascii, rtu, tcp};

/// What a simulated meter does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does not answer.
    Silent,
    /// It answers so much later.
    Late(Duration),
    /// One bit of the answer is flipped on the way (over TCP: in the protocol field).
    Flip,
    /// The answer has one register less than was asked for.
    WrongLength,
    /// Another unit answers first (over TCP: an answer with an old transaction id comes first).
    OtherUnitFirst,
    /// The request comes back before the answer (over TCP: nothing else happens).
    Echo,
    /// It refuses with this exception.
    Refuse(u8),
    /// It refuses reads that begin at this address with this exception.
    RefuseAt(u16, u8),
    /// It refuses requests for more registers than this.
    RefuseOver(u16),
    /// It does not know this function (exception 1).
    Unknown(u8),
    /// It takes a write and does nothing.
    Ignore,
    /// It does what it is told, and its answer is lost.
    Deaf,
    /// Some bytes of noise come before the answer (over TCP: nothing else happens).
    Noise,
}

/// One request as the meters saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The unit asked.
    pub unit: u8,
    /// What was asked.
    pub request: Request,
    /// When its first byte arrived.
    pub start: Instant,
    /// The silence between the last byte of the last answer and the first of this request.
    pub gap: Option<Duration>,
}

/// Simulated meters; clones share them. The tasks end when the last [`Served`] is dropped.
#[derive(Debug, Clone)]
pub struct ModbusMeters {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    born: Instant,
    units: BTreeMap<u8, Option<Fault>>,
    memory: Memory,
    seen: Vec<Seen>,
}

/// A running simulation; it ends when this is dropped.
#[derive(Debug)]
pub struct Served {
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What so many characters of 10 bits need on the wire.
fn time_of(characters: usize, baud: u32) -> Duration {
    Duration::from_secs(10 * characters as u64) / baud.max(1)
}

/// How many requests are remembered.
const MOST_SEEN: usize = 10_000;

impl ModbusMeters {
    /// Makes meters with these unit addresses.
    pub fn new(units: &[u8]) -> Self {
        let units = units.iter().map(|u| (*u, None)).collect();
        Self {
            state: Arc::new(Mutex::new(State {
                born: Instant::now(),
                units,
                memory: Memory::default(),
                seen: Vec::new(),
            })),
        }
    }

    /// Switches the fault of a unit; `None` makes it well.
    pub fn set_fault(&self, unit: u8, fault: Option<Fault>) {
        if let Some(slot) = self.lock().units.get_mut(&unit) {
            *slot = fault;
        }
    }

    /// Puts `words` into the holding registers of a unit from `address` on.
    pub fn set_holding(&self, unit: u8, address: u16, words: &[u16]) {
        self.lock().memory.set(unit, address, words);
    }

    /// The requests seen so far, at most 10,000.
    pub fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// Serves RTU on a new pseudo-terminal; returns the device for the reader.
    ///
    /// # Errors
    /// When there is no pseudo-terminal.
    pub fn serve_rtu(&self) -> io::Result<(PathBuf, Served)> {
        self.serve_line(Coder::Rtu)
    }

    /// Serves ASCII on a new pseudo-terminal; returns the device for the reader.
    ///
    /// # Errors
    /// When there is no pseudo-terminal.
    pub fn serve_ascii(&self) -> io::Result<(PathBuf, Served)> {
        self.serve_line(Coder::Ascii)
    }

    fn serve_line(&self, coder: Coder) -> io::Result<(PathBuf, Served)> {
        let pty = Pty::open()?;
        let path = pty.path().to_owned();
        let meters = self.clone();
        Ok((path, Served { task: tokio::spawn(async move { meters.on_pty(pty, coder).await }) }))
    }

    /// Serves Modbus TCP on a free port of the loopback interface.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn serve_tcp(&self) -> io::Result<(SocketAddr, Served)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let meters = self.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let meters = meters.clone();
                connections.spawn(async move { meters.on_tcp(stream).await });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok((address, Served { task }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn on_pty(&self, mut pty: Pty, coder: Coder) {
        let mut decoder = coder.decoder();
        let mut pending: Vec<(Instant, Vec<u8>)> = Vec::new();
        let mut last_sent: Option<Instant> = None;
        let mut first_byte = None;
        let mut buffer = [0; 256];
        loop {
            let next = pending.iter().map(|(at, _)| *at).min();
            tokio::select! {
                received = pty.receive(&mut buffer) => {
                    let Ok(count) = received else { return };
                    let start = *first_byte.get_or_insert_with(Instant::now);
                    let gap = last_sent.map(|at| start.saturating_duration_since(at));
                    for (unit, request) in decoder.push(buffer.get(..count).unwrap_or_default()) {
                        first_byte = None;
                        self.remember(Seen { unit, request: request.clone(), start, gap });
                        let Some((at, bytes)) = self.line_answer(coder, unit, &request) else { continue };
                        // A pseudo-terminal has no speed of its own: what request and answer
                        // would need on the wire passes before the answer is whole.
                        let asked = coder.frame(unit, &request).len();
                        let wire_time = time_of(asked + bytes.len(), pty.baud().unwrap_or(9600));
                        pending.push((at + wire_time, bytes));
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    let due = Instant::now();
                    for (_, bytes) in pending.extract_if(.., |(at, _)| *at <= due) {
                        if pty.send(&bytes).await.is_err() {
                            return;
                        }
                        last_sent = Some(Instant::now());
                    }
                }
            }
        }
    }

    async fn on_tcp(&self, mut stream: TcpStream) {
        let mut decoder = tcp::Decoder::default();
        let mut pending: Vec<(Instant, Vec<u8>)> = Vec::new();
        let mut buffer = [0; 256];
        loop {
            let next = pending.iter().map(|(at, _)| *at).min();
            tokio::select! {
                received = stream.read(&mut buffer) => {
                    let Ok(count @ 1..) = received else { return };
                    decoder.push(buffer.get(..count).unwrap_or_default());
                    while let Some(frame) = decoder.next() {
                        let Ok((header, pdu)) = frame else { return };
                        let Ok(request) = Request::decode(&pdu) else { return };
                        self.remember(Seen { unit: header.unit, request: request.clone(), start: Instant::now(), gap: None });
                        pending.extend(self.tcp_answer(header, &request));
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    let due = Instant::now();
                    for (_, bytes) in pending.extract_if(.., |(at, _)| *at <= due) {
                        if stream.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    }

    fn remember(&self, seen: Seen) {
        let mut state = self.lock();
        if state.seen.len() < MOST_SEEN {
            state.seen.push(seen);
        }
    }

    fn line_answer(&self, coder: Coder, unit: u8, request: &Request) -> Option<(Instant, Vec<u8>)> {
        if unit == 0 {
            self.everybody(request);
            return None;
        }
        let fault = *self.lock().units.get(&unit)?;
        let (delay, pdu) = self.answer(unit, request, fault)?;
        let mut bytes = Vec::new();
        match fault {
            Some(Fault::OtherUnitFirst) => {
                let other = unit.wrapping_add(1);
                coder.encode(other, &self.answer(other, request, None)?.1, &mut bytes);
            }
            Some(Fault::Noise) => bytes.extend([0xFF, 0x00, 0x55]),
            Some(Fault::Echo) => bytes.extend(coder.frame(unit, request)),
            _ => {}
        }
        coder.encode(unit, &pdu, &mut bytes);
        if fault == Some(Fault::Flip)
            && let Some(byte) = bytes.get_mut(3)
        {
            *byte ^= 0x10;
        }
        Some((Instant::now() + delay, bytes))
    }

    /// A broadcast: every unit does it.
    fn everybody(&self, request: &Request) {
        let units: Vec<u8> = self.lock().units.keys().copied().collect();
        for unit in units {
            self.answer(unit, request, None);
        }
    }

    fn tcp_answer(&self, header: tcp::Header, request: &Request) -> Option<(Instant, Vec<u8>)> {
        let fault = *self.lock().units.get(&header.unit)?;
        let (delay, pdu) = self.answer(header.unit, request, fault)?;
        let mut bytes = Vec::new();
        if fault == Some(Fault::OtherUnitFirst) {
            let old = tcp::Header { transaction: header.transaction.wrapping_sub(1), ..header };
            tcp::encode(old, &self.answer(header.unit.wrapping_add(1), request, None)?.1, &mut bytes);
        }
        tcp::encode(header, &pdu, &mut bytes);
        if fault == Some(Fault::Flip)
            && let Some(byte) = bytes.get_mut(3)
        {
            *byte ^= 0x10;
        }
        Some((Instant::now() + delay, bytes))
    }

    /// The PDU a unit answers with, and how much later.
    fn answer(&self, unit: u8, request: &Request, fault: Option<Fault>) -> Option<(Duration, Vec<u8>)> {
        let mut delay = Duration::ZERO;
        let mut asked = request.clone();
        let mut answer = None;
        match (fault, &mut asked) {
            (Some(Fault::Silent), _) => return None,
            (Some(Fault::Late(by)), _) => delay = by,
            (Some(Fault::WrongLength), Request::Read { quantity, .. }) => *quantity = quantity.saturating_sub(1),
            (Some(Fault::Refuse(code)), _) => answer = Some(Answer::Refused(Exception(code))),
            (Some(Fault::RefuseAt(at, code)), Request::Read { address, .. }) if *address == at => {
                answer = Some(Answer::Refused(Exception(code)));
            }
            (Some(Fault::Unknown(function)), _) if function == request.function() => {
                answer = Some(Answer::Refused(Exception(1)));
            }
            (Some(Fault::RefuseOver(most)), Request::Read { quantity, .. }) if *quantity > most => {
                answer = Some(Answer::Refused(Exception(3)));
            }
            (Some(Fault::Ignore), _) if request.writes() => answer = Some(Answer::Written),
            _ => {}
        }
        let mut state = self.lock();
        let seconds = state.born.elapsed().as_secs_f64();
        let answer = answer.unwrap_or_else(|| match &asked {
            Request::Identify { level, object } => identity(*level, *object),
            other => state.memory.answer(unit, seconds, other),
        });
        let mut pdu = Vec::new();
        answer.encode(request, &mut pdu);
        (fault != Some(Fault::Deaf) || !request.writes()).then_some((delay, pdu))
    }
}

/// How requests and answers are framed on a serial line.
#[derive(Debug, Clone, Copy)]
enum Coder {
    Rtu,
    Ascii,
}

enum RequestDecoder {
    Rtu(rtu::RequestDecoder),
    Ascii(ascii::Decoder),
}

impl RequestDecoder {
    fn push(&mut self, bytes: &[u8]) -> Vec<(u8, Request)> {
        let request = |(unit, pdu): (u8, Vec<u8>)| Request::decode(&pdu).map(|request| (unit, request));
        match self {
            Self::Rtu(decoder) => decoder.push(bytes),
            Self::Ascii(decoder) => {
                let frames = decoder.push(bytes).into_iter();
                frames.filter_map(|frame| frame.and_then(request).ok()).collect()
            }
        }
    }
}

impl Coder {
    fn decoder(self) -> RequestDecoder {
        match self {
            Self::Rtu => RequestDecoder::Rtu(rtu::RequestDecoder::default()),
            Self::Ascii => RequestDecoder::Ascii(ascii::Decoder::default()),
        }
    }

    fn encode(self, unit: u8, pdu: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Rtu => rtu::encode(unit, pdu, out),
            Self::Ascii => ascii::encode(unit, pdu, out),
        }
    }

    fn frame(self, unit: u8, request: &Request) -> Vec<u8> {
        let (mut pdu, mut frame) = (Vec::new(), Vec::new());
        request.encode(&mut pdu);
        self.encode(unit, &pdu, &mut frame);
        frame
    }
}
