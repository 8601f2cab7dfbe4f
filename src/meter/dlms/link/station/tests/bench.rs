//! A meter that keeps to the standard, and a line that does not.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::super::*;
use crate::wire::dlms::hdlc::{Decoder, Event, LLC_RESPONSE};

pub(super) const CLIENT: Address = Address::Single(16);
pub(super) const METER: Address = Address::Double { upper: 1, lower: 17 };

/// What happens to a frame on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Lost,
    Doubled,
    /// A bit of it changes.
    Corrupt(usize, u8),
    /// Only so much of it comes.
    Short(usize),
    /// It, and what follows it, comes when the client has sent the next time.
    Late,
    /// Frames between others come before it.
    Foreign,
    /// What the client sent last comes before it.
    Echoed,
}

pub(super) fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Lost),
        Just(Fault::Doubled),
        (any::<usize>(), 0..8u8).prop_map(|(at, bit)| Fault::Corrupt(at, bit)),
        any::<usize>().prop_map(Fault::Short),
        Just(Fault::Late),
        Just(Fault::Foreign),
        Just(Fault::Echoed),
    ]
}

/// How a meter takes an SNRM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Plain,
    /// Parameters are answered with DM, with FRMR, or not at all.
    RefusesByDm,
    RefusesByFrmr,
    Ignores,
    /// It is connected to a session that is gone, and answers DM until that is ended.
    Stale,
}

/// A meter that keeps to the standard.
pub(super) struct Meter {
    pub(super) connected: bool,
    pub(super) manner: Manner,
    limits: Parameters,
    size: usize,
    window: usize,
    vs: u8,
    va: u8,
    vr: u8,
    request: Vec<u8>,
    /// The pieces of its answer that are not acknowledged.
    pieces: VecDeque<(Vec<u8>, bool)>,
    /// It is busy for so many polls, and says so by RNR.
    pub(super) busy: usize,
    not_ready: bool,
    pub(super) executed: BTreeMap<Vec<u8>, u32>,
    pub(super) decoder: Decoder,
}

/// What it answers to a request.
pub(super) fn answer_to(request: &[u8]) -> Vec<u8> {
    let number = usize::from(request[0]) + request.len();
    request.iter().copied().chain((0..number * 7).map(|n| (n % 251) as u8)).collect()
}

impl Meter {
    pub(super) fn new(limits: Parameters, manner: Manner) -> Self {
        Self {
            connected: false,
            manner,
            limits,
            size: 128,
            window: 1,
            vs: 0,
            va: 0,
            vr: 0,
            request: Vec::new(),
            pieces: VecDeque::new(),
            busy: 0,
            not_ready: false,
            executed: BTreeMap::new(),
            decoder: Decoder::new(),
        }
    }

    fn frame(&self, control: Control, segmented: bool, information: Vec<u8>) -> Vec<u8> {
        Frame { segmented, destination: CLIENT, source: METER, control, information }.encode().unwrap()
    }

    /// The frames that it answers to these bytes, after which it waits.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.decoder.push(bytes);
        self.decoder.silence();
        let mut said = Vec::new();
        while let Some(event) = self.decoder.next() {
            let Event::Frame(frame) = event else { continue };
            if frame.destination == METER && frame.source == CLIENT {
                said.extend(self.take(&frame));
            }
        }
        said
    }

    fn take(&mut self, frame: &Frame) -> Vec<Vec<u8>> {
        match frame.control {
            Control::Snrm => self.open(frame),
            Control::Disc => {
                self.manner = if self.manner == Manner::Stale { Manner::Plain } else { self.manner };
                let was = std::mem::replace(&mut self.connected, false);
                vec![self.frame(if was { Control::Ua } else { Control::Dm }, false, vec![])]
            }
            _ if !self.connected => vec![self.frame(Control::Dm, false, vec![])],
            Control::I { ns, nr, pf } => {
                self.acknowledged(nr);
                if ns == self.vr {
                    self.vr = (self.vr + 1) & 7;
                    self.request.extend_from_slice(&frame.information);
                    if !frame.segmented {
                        self.execute();
                    }
                }
                if pf { self.speak() } else { vec![] }
            }
            Control::Rr { nr, pf: true } => {
                self.acknowledged(nr);
                self.speak()
            }
            _ => vec![],
        }
    }

    pub(super) fn open(&mut self, frame: &Frame) -> Vec<Vec<u8>> {
        let asks = !frame.information.is_empty();
        match self.manner {
            Manner::RefusesByDm if asks => return vec![self.frame(Control::Dm, false, vec![])],
            Manner::RefusesByFrmr if asks => return vec![self.frame(Control::Frmr, false, vec![])],
            Manner::Stale => return vec![self.frame(Control::Dm, false, vec![])],
            Manner::Ignores if asks => return vec![],
            _ => {}
        }
        let theirs = Parameters::decode(&frame.information);
        self.connected = true;
        (self.vs, self.va, self.vr) = (0, 0, 0);
        self.request.clear();
        self.pieces.clear();
        self.size = usize::from(theirs.receive.min(self.limits.transmit));
        self.window = usize::from(theirs.window_receive.min(self.limits.window_transmit));
        let agreed = Parameters {
            transmit: theirs.receive.min(self.limits.transmit),
            receive: theirs.transmit.min(self.limits.receive),
            window_transmit: theirs.window_receive.min(self.limits.window_transmit),
            window_receive: theirs.window_transmit.min(self.limits.window_receive),
        };
        vec![self.frame(Control::Ua, false, if asks { agreed.encode() } else { vec![] })]
    }

    fn acknowledged(&mut self, nr: u8) {
        let frames = nr.wrapping_sub(self.va) & 7;
        if frames <= self.vs.wrapping_sub(self.va) & 7 {
            self.va = nr;
            self.pieces.drain(..usize::from(frames));
        }
    }

    fn execute(&mut self) {
        let request = std::mem::take(&mut self.request);
        assert_eq!(request[..3], LLC_REQUEST);
        *self.executed.entry(request.clone()).or_default() += 1;
        if request[3] == 0 {
            // More is to come before it answers.
            return;
        }
        let answer = [&LLC_RESPONSE, &answer_to(&request[3..])[..]].concat();
        let count = answer.len().div_ceil(self.size);
        let pieces = answer.chunks(self.size).enumerate();
        self.pieces = pieces.map(|(number, piece)| (piece.to_vec(), number + 1 < count)).collect();
        self.not_ready = self.busy > 0;
    }

    /// Has the turn: repeats what is not acknowledged, or says that it has nothing.
    fn speak(&mut self) -> Vec<Vec<u8>> {
        if self.pieces.is_empty() || (self.not_ready && self.busy > 0) {
            self.busy = self.busy.saturating_sub(1);
            let nr = self.vr;
            let control = if self.busy % 2 == 1 { Control::Rnr { nr, pf: true } } else { Control::Rr { nr, pf: true } };
            return vec![self.frame(control, false, vec![])];
        }
        let now = self.pieces.len().min(self.window);
        self.vs = self.va;
        let mut said = Vec::new();
        for (number, (piece, segmented)) in self.pieces.iter().take(now).enumerate() {
            let control = Control::I { ns: self.vs, nr: self.vr, pf: number + 1 == now };
            said.push(self.frame(control, *segmented, piece.clone()));
            self.vs = (self.vs + 1) & 7;
        }
        said
    }
}

/// Both ends and the line between them.
pub(super) struct Bench {
    pub(super) station: Station,
    pub(super) meter: Meter,
    pub(super) decoder: Decoder,
    faults: VecDeque<Option<Fault>>,
    /// What comes later than it should.
    delayed: Vec<u8>,
    is_late: bool,
    pub(super) waits: u32,
}

impl Bench {
    pub(super) fn new(station: Station, meter: Meter, faults: Vec<Option<Fault>>) -> Self {
        let faults = faults.into();
        Self { station, meter, decoder: Decoder::new(), faults, delayed: Vec::new(), is_late: false, waits: 0 }
    }

    /// A frame with what its fault makes of it.
    fn carry(&mut self, frame: &[u8], echo: &[u8]) -> Vec<u8> {
        let others = Frame {
            segmented: false,
            destination: CLIENT,
            source: Address::Double { upper: 1, lower: 18 },
            control: Control::I { ns: 0, nr: 1, pf: true },
            information: vec![0xE6, 0xE7, 0, 1, 2, 3],
        };
        let mut bytes = frame.to_vec();
        match self.faults.pop_front().flatten() {
            None => {}
            Some(Fault::Lost) => bytes.clear(),
            Some(Fault::Doubled) => bytes.extend_from_slice(frame),
            Some(Fault::Corrupt(at, bit)) => bytes[at % frame.len()] ^= 1 << bit,
            Some(Fault::Short(at)) => bytes.truncate(at % frame.len()),
            Some(Fault::Late) => self.is_late = true,
            Some(Fault::Foreign) => bytes = [others.encode().unwrap(), bytes].concat(),
            Some(Fault::Echoed) => bytes = [echo.to_vec(), bytes].concat(),
        }
        bytes
    }

    /// Goes on until the station has an answer or a result.
    pub(super) fn run(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        for _ in 0..20_000 {
            if let Some(bytes) = self.station.transmit() {
                let mut came = std::mem::take(&mut self.delayed);
                self.is_late = false;
                let carried = self.carry(&bytes, &[]);
                // A frame of ours that is late is as good as one that came in time: the meter waits for us.
                self.is_late = false;
                for frame in self.meter.hear(&carried) {
                    let carried = self.carry(&frame, &bytes);
                    if self.is_late { &mut self.delayed } else { &mut came }.extend(carried);
                }
                self.decoder.push(&came);
            }
            if let Some(answer) = self.station.answer() {
                return Ok(Some(answer));
            }
            if let Some(result) = self.station.result() {
                return result.map(|()| None);
            }
            match self.decoder.next() {
                Some(Event::Frame(frame)) => {
                    self.station.take(frame);
                }
                Some(Event::Noise(_)) if self.decoder.take_broken() => self.station.take_damaged(),
                Some(Event::Noise(_)) => {}
                None if self.decoder.in_frame() => self.decoder.silence(),
                None => {
                    self.waits += 1;
                    self.decoder.silence();
                    if self.decoder.next().is_none() {
                        self.station.expire();
                    }
                }
            }
        }
        panic!("it goes on for ever");
    }

    pub(super) fn open(&mut self) -> Result<(), Failure> {
        self.decoder = Decoder::new();
        self.station.open(CLIENT);
        self.run().map(|_| ())
    }

    pub(super) fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>, Failure> {
        self.decoder = Decoder::new();
        self.station.request(request);
        if let Some(Err(failure)) = self.station.result() {
            return Err(failure);
        }
        Ok(self.run()?.expect("an answer or a failure"))
    }
}
