//! Simulated Modbus meters on one line: an Eastron SDM630 subset that can be made to misbehave.
//!
//! Each unit has input registers as in meters/eastron-sdm630.toml (floats that move with time)
//! and holding registers 0 to 9 that hold `1000 * unit + address`, so that an answer from the
//! wrong place is seen. Any other register is refused with exception 2.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::pty::Pty;
use crate::wire::modbus::{Answer, Exception, Request, Table, rtu, tcp};

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
    /// It refuses requests for more registers than this.
    RefuseOver(u16),
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

/// The length of a read request over RTU.
const REQUEST_LENGTH: usize = 8;

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
        Self { state: Arc::new(Mutex::new(State { born: Instant::now(), units, seen: Vec::new() })) }
    }

    /// Switches the fault of a unit; `None` makes it well.
    pub fn set_fault(&self, unit: u8, fault: Option<Fault>) {
        if let Some(slot) = self.lock().units.get_mut(&unit) {
            *slot = fault;
        }
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
        let pty = Pty::open()?;
        let path = pty.path().to_owned();
        let meters = self.clone();
        Ok((path, Served { task: tokio::spawn(async move { meters.on_pty(pty).await }) }))
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

    async fn on_pty(&self, mut pty: Pty) {
        let mut decoder = rtu::RequestDecoder::default();
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
                        let Some((at, bytes)) = self.rtu_answer(unit, &request) else { continue };
                        // A pseudo-terminal has no speed of its own: what request and answer
                        // would need on the wire passes before the answer is whole.
                        let wire_time = time_of(REQUEST_LENGTH + bytes.len(), pty.baud().unwrap_or(9600));
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

    fn rtu_answer(&self, unit: u8, request: &Request) -> Option<(Instant, Vec<u8>)> {
        let fault = *self.lock().units.get(&unit)?;
        let (delay, pdu) = self.answer(unit, request, fault)?;
        let mut bytes = Vec::new();
        match fault {
            Some(Fault::OtherUnitFirst) => {
                let other = unit.wrapping_add(1);
                rtu::encode(other, &self.answer(other, request, None)?.1, &mut bytes);
            }
            Some(Fault::Noise) => bytes.extend([0xFF, 0x00, 0x55]),
            Some(Fault::Echo) => {
                let mut echo = Vec::new();
                request.encode(&mut echo);
                rtu::encode(unit, &echo, &mut bytes);
            }
            _ => {}
        }
        rtu::encode(unit, &pdu, &mut bytes);
        if fault == Some(Fault::Flip)
            && let Some(byte) = bytes.get_mut(3)
        {
            *byte ^= 0x10;
        }
        Some((Instant::now() + delay, bytes))
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
        let Request::Read { table, address, quantity } = *request;
        let mut delay = Duration::ZERO;
        let mut asked = quantity;
        let mut answer = None;
        match fault {
            Some(Fault::Silent) => return None,
            Some(Fault::Late(by)) => delay = by,
            Some(Fault::WrongLength) => asked = quantity.saturating_sub(1),
            Some(Fault::Refuse(code)) => answer = Some(Answer::Refused(Exception(code))),
            Some(Fault::RefuseOver(most)) if quantity > most => answer = Some(Answer::Refused(Exception(3))),
            _ => {}
        }
        let seconds = self.lock().born.elapsed().as_secs_f64();
        let answer = answer.unwrap_or_else(|| content(unit, seconds, table, address, asked));
        let mut pdu = Vec::new();
        answer.encode(request.function(), &mut pdu);
        Some((delay, pdu))
    }
}

fn content(unit: u8, seconds: f64, table: Table, address: u16, quantity: u16) -> Answer {
    let words: Option<Vec<u16>> = match table {
        Table::Holding => (address..address.saturating_add(quantity))
            .map(|a| (a < 10).then(|| 1000u16.wrapping_mul(unit.into()).wrapping_add(a)))
            .collect(),
        Table::Input => (address..address.saturating_add(quantity)).map(|a| input(seconds, a)).collect(),
        Table::Coil | Table::Discrete if u32::from(address) + u32::from(quantity) <= 16 => {
            // Every second one is set, beginning with the first.
            let bits = 0x5555u16 >> address & (u16::MAX >> (16 - quantity.clamp(1, 16)));
            let bytes = usize::from(quantity.div_ceil(8));
            return Answer::Data(bits.to_le_bytes().into_iter().take(bytes).collect());
        }
        Table::Coil | Table::Discrete => None,
    };
    match words {
        None => Answer::Refused(Exception(2)),
        Some(words) => Answer::Data(words.into_iter().flat_map(u16::to_be_bytes).collect()),
    }
}

/// One register of the SDM630 subset.
fn input(seconds: f64, address: u16) -> Option<u16> {
    let value = measured(seconds, address & !1)?;
    #[expect(clippy::cast_possible_truncation, reason = "the meter measures in single precision")]
    let bits = (value as f32).to_bits();
    let [a, b, c, d] = bits.to_be_bytes();
    Some(if address & 1 == 0 { u16::from_be_bytes([a, b]) } else { u16::from_be_bytes([c, d]) })
}

/// The quantity that starts at `address`: a load that swings over five minutes.
fn measured(seconds: f64, address: u16) -> Option<f64> {
    const POWER_FACTOR: f64 = 0.95;
    let swing = |phase: f64| (TAU * (seconds / 300.0 + phase)).sin();
    let voltage = |line: f64| 230.0 + 2.5 * swing(line / 3.0);
    let current = |line: f64| 10.0 + 4.0 * swing(line / 3.0 + 0.1);
    let apparent = |line: f64| voltage(line) * current(line);
    let sum = |of: &dyn Fn(f64) -> f64| (0..3).map(|line| of(f64::from(line))).sum::<f64>();
    let reactive_share = (1.0 - POWER_FACTOR * POWER_FACTOR).sqrt();
    // 10 A at 230 V on three lines, since the meter was put in.
    let energy = 12_345.6 + 3.0 * 230.0 * 10.0 * POWER_FACTOR * seconds / 3_600_000.0;
    let line = f64::from(address % 6 / 2);
    Some(match address {
        0..=5 => voltage(line),
        6..=11 => current(line),
        12..=17 => apparent(line) * POWER_FACTOR,
        18..=23 => apparent(line),
        24..=29 => apparent(line) * reactive_share,
        30..=35 | 62 => POWER_FACTOR,
        48 => sum(&current),
        52 => sum(&apparent) * POWER_FACTOR,
        56 => sum(&apparent),
        60 => sum(&apparent) * reactive_share,
        70 => 50.0 + 0.02 * swing(0.5),
        72 | 342 => energy,
        74 | 78 => 0.0,
        76 | 344 => energy * 0.3,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulated_quantities_belong_together() {
        let at = |address| measured(100.0, address).unwrap();
        assert!((at(12) / at(18) - at(30)).abs() < 1e-9);
        assert!((at(52) - at(12) - at(14) - at(16)).abs() < 1e-6);
        assert!(measured(7200.0, 72).unwrap() > measured(0.0, 72).unwrap() + 1.0);
        assert_eq!(measured(0.0, 44), None);
    }

    #[test]
    fn registers_that_are_not_there_are_refused() {
        assert_eq!(content(3, 0.0, Table::Holding, 8, 2), Answer::Data(vec![0x0B, 0xC0, 0x0B, 0xC1]));
        assert_eq!(content(3, 0.0, Table::Holding, 9, 2), Answer::Refused(Exception(2)));
        assert_eq!(content(3, 0.0, Table::Coil, 1, 4), Answer::Data(vec![0b1010]));
    }
}
