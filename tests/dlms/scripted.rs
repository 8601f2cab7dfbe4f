//! A meter of our own over the wrapper, whose answers can be made wrong in one place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use weir::wire::dlms::wrapper::{Decoder, Event, Unit};
use weir::wire::dlms::{Conformance, DataBuf, encode};

/// Class, name and attribute.
pub(crate) type Key = (u16, [u8; 6], i8);

/// What is wrong with one answer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    None,
    /// It comes so much later.
    Late(Duration),
    /// Only its first bytes come.
    Short(usize),
    /// It comes twice.
    Doubled,
    /// A byte of its heads is another one.
    Head(usize, u8),
    /// The answer to an earlier request comes instead of it, or before it.
    Earlier {
        which: usize,
        instead: bool,
    },
}

/// What the meter is like.
#[derive(Debug, Clone)]
pub(crate) struct Nature {
    pub(crate) objects: BTreeMap<Key, DataBuf>,
    pub(crate) granted: Conformance,
    pub(crate) max_pdu: u16,
    /// Answers longer than this come in blocks.
    pub(crate) block: usize,
    /// Bytes that follow each single value.
    pub(crate) behind: Vec<u8>,
    /// How block number n is told.
    pub(crate) number: fn(u32) -> u32,
    /// What is never answered.
    pub(crate) mute: Vec<Key>,
    /// How long it takes for each answer.
    pub(crate) slow: Duration,
}

impl Nature {
    pub(crate) fn with(objects: BTreeMap<Key, DataBuf>) -> Self {
        let granted = Conformance::GET | Conformance::BLOCK_TRANSFER_WITH_GET_OR_READ;
        Self {
            objects,
            granted,
            max_pdu: 512,
            block: 400,
            behind: Vec::new(),
            number: |n| n,
            mute: vec![],
            slow: Duration::ZERO,
        }
    }
}

struct State {
    nature: Nature,
    fault: (usize, Fault),
    /// All answers so far.
    said: Vec<Vec<u8>>,
    /// What is left of an answer in blocks, and the number of the last one.
    rest: (Vec<u8>, u32),
    /// What is being written in blocks.
    coming: Vec<u8>,
    /// Every request.
    heard: Vec<Vec<u8>>,
    connections: usize,
}

/// A running meter.
#[derive(Clone)]
pub(crate) struct Meter {
    state: Arc<Mutex<State>>,
    pub(crate) port: u16,
}

impl Meter {
    /// Starts it; the fault happens at its answer of this number, over all connections.
    pub(crate) async fn start(nature: Nature, at: usize, fault: Fault) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State {
            nature,
            fault: (at, fault),
            said: vec![],
            rest: (vec![], 0),
            coming: vec![],
            heard: vec![],
            connections: 0,
        };
        let state = Arc::new(Mutex::new(state));
        let meter = Self { state, port };
        let served = meter.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = served.state.clone();
                state.lock().unwrap().connections += 1;
                tokio::spawn(async move {
                    let (mut read, write) = stream.into_split();
                    let write = Arc::new(tokio::sync::Mutex::new(write));
                    let (mut decoder, mut buffer) = (Decoder::new(), [0; 4096]);
                    while let Ok(count @ 1..) = read.read(&mut buffer).await {
                        decoder.push(&buffer[..count]);
                        while let Some(event) = decoder.next() {
                            let Event::Unit(unit) = event else { continue };
                            let (delay, bytes) = state.lock().unwrap().answer(&unit);
                            let write = write.clone();
                            let say = async move { write.lock().await.write_all(&bytes).await };
                            if delay.is_zero() {
                                let _ = say.await;
                            } else {
                                tokio::spawn(async move {
                                    tokio::time::sleep(delay).await;
                                    let _ = say.await;
                                });
                            }
                        }
                    }
                });
            }
        });
        meter
    }

    /// What it would say to this, on another way than its own.
    pub(crate) fn answer_to(&self, apdu: &[u8]) -> Vec<u8> {
        self.state.lock().unwrap().plain(apdu)
    }

    /// Every APDU that it was sent.
    pub(crate) fn heard(&self) -> Vec<Vec<u8>> {
        self.state.lock().unwrap().heard.clone()
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    /// Changes what it is like.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Nature)) {
        change(&mut self.state.lock().unwrap().nature);
    }

    /// What an attribute holds now.
    pub(crate) fn holds(&self, key: Key) -> Option<DataBuf> {
        self.state.lock().unwrap().nature.objects.get(&key).cloned()
    }
}

impl State {
    fn answer(&mut self, unit: &Unit) -> (Duration, Vec<u8>) {
        self.heard.push(unit.apdu.clone());
        if asks_for(&unit.apdu).iter().any(|key| self.nature.mute.contains(key)) {
            return (Duration::ZERO, vec![]);
        }
        let apdu = self.plain(&unit.apdu);
        let wrapped = |apdu: &[u8]| {
            Unit { source: unit.destination, destination: unit.source, apdu: apdu.to_vec() }.encode().unwrap()
        };
        let bytes = wrapped(&apdu);
        let number = self.said.len();
        self.said.push(bytes.clone());
        if number != self.fault.0 {
            return (self.nature.slow, bytes);
        }
        match self.fault.1.clone() {
            Fault::None => (Duration::ZERO, bytes),
            Fault::Late(by) => (by, bytes),
            Fault::Short(count) => (Duration::ZERO, bytes[..bytes.len().min(count)].to_vec()),
            Fault::Doubled => (Duration::ZERO, [bytes.clone(), bytes].concat()),
            Fault::Head(at, with) => {
                let mut bytes = bytes;
                // Port, length, kind of answer, number of the request.
                let place = at % bytes.len().min(11);
                bytes[place] ^= with;
                (Duration::ZERO, bytes)
            }
            Fault::Earlier { which, instead } => {
                let other = self.said[which % self.said.len()].clone();
                (Duration::ZERO, if instead { other } else { [other, bytes].concat() })
            }
        }
    }

    fn plain(&mut self, request: &[u8]) -> Vec<u8> {
        match request {
            [0x60, ..] => {
                let granted = self.nature.granted.to_bytes();
                let [p1, p0] = self.nature.max_pdu.to_be_bytes();
                let head = [
                    0x61, 0x29, 0xA1, 9, 6, 7, 0x60, 0x85, 0x74, 5, 8, 1, 1, 0xA2, 3, 2, 1, 0, 0xA3, 5, 0xA1, 3, 2, 1,
                    0, 0xBE, 0x10, 4, 0x0E, 8, 0, 6, 0x5F, 0x1F, 4, 0,
                ];
                [&head[..], &granted, &[p1, p0, 0, 7]].concat()
            }
            [0x62, ..] => vec![0x63, 3, 0x80, 1, 0],
            [0xC0, 1, id, rest @ ..] => match self.value(&rest[..9]) {
                Some(value) if value.len() > self.nature.block => {
                    self.rest = (value, 0);
                    self.block(*id)
                }
                Some(value) => [&[0xC4, 1, *id, 0][..], &value, &self.nature.behind].concat(),
                None => vec![0xC4, 1, *id, 1, 4],
            },
            [0xC0, 2, id, ..] => self.block(*id),
            [0xC0, 3, id, count, rest @ ..] => {
                let mut out = vec![*count];
                for item in rest.chunks(10).take(usize::from(*count)) {
                    match self.value(&item[..9]) {
                        Some(value) => out.extend([&[0][..], &value, &self.nature.behind].concat()),
                        None => out.extend([1, 4]),
                    }
                }
                if out.len() <= self.nature.block {
                    return [&[0xC4, 3, *id][..], &out].concat();
                }
                self.rest = (out, 0);
                self.block(*id)
            }
            [0xC1, 1, id, rest @ ..] => {
                self.set(&rest[..9], &rest[10..]);
                vec![0xC5, 1, *id, 0]
            }
            // The first block of a value: descriptor, no selection, last, number, length, bytes.
            [0xC1, 2, id, rest @ ..] => {
                self.coming = rest[..9].to_vec();
                self.written(*id, &rest[10..])
            }
            [0xC1, 3, id, rest @ ..] => self.written(*id, rest),
            _ => vec![0xD8, 1, 2],
        }
    }

    fn written(&mut self, id: u8, block: &[u8]) -> Vec<u8> {
        let [last, n3, n2, n1, n0, rest @ ..] = block else { return vec![0xD8, 1, 1] };
        let bytes = match rest {
            [0x81, _, bytes @ ..] => bytes,
            [0x82, _, _, bytes @ ..] => bytes,
            [_, bytes @ ..] => bytes,
            [] => &[],
        };
        self.coming.extend(bytes);
        if *last == 0 {
            return vec![0xC5, 2, id, *n3, *n2, *n1, *n0];
        }
        let coming = std::mem::take(&mut self.coming);
        self.set(&coming[..9], &coming[9..]);
        vec![0xC5, 3, id, 0, *n3, *n2, *n1, *n0]
    }

    fn set(&mut self, descriptor: &[u8], value: &[u8]) {
        if let Ok(value) = DataBuf::parse(value) {
            self.nature.objects.insert(key(descriptor), value);
        }
    }

    fn value(&self, descriptor: &[u8]) -> Option<Vec<u8>> {
        self.nature.objects.get(&key(descriptor)).map(|value| encode(value).unwrap())
    }

    fn block(&mut self, id: u8) -> Vec<u8> {
        let (rest, number) = &mut self.rest;
        *number += 1;
        let size = rest.len().min(self.nature.block).min(120);
        let bytes: Vec<u8> = rest.drain(..size).collect();
        let last = u8::from(rest.is_empty());
        let number = (self.nature.number)(*number).to_be_bytes();
        [&[0xC4, 2, id, last][..], &number, &[0, u8::try_from(size).unwrap()], &bytes].concat()
    }
}

/// The attributes that a GET asks for.
fn asks_for(request: &[u8]) -> Vec<Key> {
    match request {
        [0xC0, 1, _, rest @ ..] => vec![key(rest)],
        [0xC0, 3, _, _, rest @ ..] => rest.chunks_exact(10).map(key).collect(),
        _ => vec![],
    }
}

fn key(descriptor: &[u8]) -> Key {
    let class = u16::from_be_bytes([descriptor[0], descriptor[1]]);
    (class, descriptor[2..8].try_into().unwrap(), descriptor[8].cast_signed())
}
