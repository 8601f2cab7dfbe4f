//! A station against a meter that keeps to the standard, over a line that does not.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::wire::dlms::hdlc::{Decoder, Event, LLC_RESPONSE};

const CLIENT: Address = Address::Single(16);
const METER: Address = Address::Double { upper: 1, lower: 17 };

/// What happens to a frame on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
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

fn any_fault() -> impl Strategy<Value = Fault> {
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
enum Manner {
    Plain,
    /// Parameters are answered with DM, with FRMR, or not at all.
    RefusesByDm,
    RefusesByFrmr,
    Ignores,
    /// It is connected to a session that is gone, and answers DM until that is ended.
    Stale,
}

/// A meter that keeps to the standard.
struct Meter {
    connected: bool,
    manner: Manner,
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
    busy: usize,
    not_ready: bool,
    executed: BTreeMap<Vec<u8>, u32>,
    decoder: Decoder,
}

/// What it answers to a request.
fn answer_to(request: &[u8]) -> Vec<u8> {
    let number = usize::from(request[0]) + request.len();
    request.iter().copied().chain((0..number * 7).map(|n| (n % 251) as u8)).collect()
}

impl Meter {
    fn new(limits: Parameters, manner: Manner) -> Self {
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
    fn hear(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
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

    fn open(&mut self, frame: &Frame) -> Vec<Vec<u8>> {
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
struct Bench {
    station: Station,
    meter: Meter,
    decoder: Decoder,
    faults: VecDeque<Option<Fault>>,
    /// What comes later than it should.
    delayed: Vec<u8>,
    is_late: bool,
    waits: u32,
}

impl Bench {
    fn new(station: Station, meter: Meter, faults: Vec<Option<Fault>>) -> Self {
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
    fn run(&mut self) -> Result<Option<Vec<u8>>, Failure> {
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

    fn open(&mut self) -> Result<(), Failure> {
        self.decoder = Decoder::new();
        self.station.open(CLIENT);
        self.run().map(|_| ())
    }

    fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>, Failure> {
        self.decoder = Decoder::new();
        self.station.request(request);
        if let Some(Err(failure)) = self.station.result() {
            return Err(failure);
        }
        Ok(self.run()?.expect("an answer or a failure"))
    }
}

fn station(size: u16, window: u8, tries: u32) -> Station {
    let proposal = Parameters { transmit: size, receive: size, window_transmit: window, window_receive: window };
    Station::new(CLIENT, METER, proposal, tries, Duration::from_secs(1))
}

fn limits(size: u16, window: u8) -> Parameters {
    Parameters { transmit: size, receive: size, window_transmit: window, window_receive: window }
}

/// Requests of which none is like another.
fn requests() -> impl Iterator<Item = Vec<u8>> {
    (1..).map(|number: u8| vec![number; 1 + usize::from(number) * 37 % 300])
}

fn any_sizes() -> impl Strategy<Value = (u16, u8)> {
    (prop_oneof![Just(32u16), Just(128), Just(300)], 1..8u8)
}

#[test]
fn without_faults_every_request_has_its_answer_without_a_wait() {
    for ((size, window), (theirs, their_window)) in
        [((128, 1), (128, 1)), ((512, 7), (64, 3)), ((40, 2), (2030, 7)), ((32, 7), (32, 7))]
    {
        let mut bench =
            Bench::new(station(size, window, 0), Meter::new(limits(theirs, their_window), Manner::Plain), vec![]);
        bench.open().unwrap();
        for request in requests().take(40) {
            assert_eq!(bench.ask(&request).unwrap(), answer_to(&request));
        }
        bench.station.close();
        bench.run().unwrap();
        assert_eq!((bench.waits, bench.meter.connected, bench.station.is_dirty()), (0, false, false));
    }
}

#[test]
fn a_meter_that_does_not_like_parameters_or_is_still_connected_is_opened_all_the_same() {
    for manner in [Manner::RefusesByDm, Manner::RefusesByFrmr, Manner::Ignores, Manner::Stale] {
        let mut bench = Bench::new(station(512, 1, 1), Meter::new(limits(512, 1), manner), vec![]);
        bench.open().unwrap();
        let request = vec![9; 250];
        assert_eq!(bench.ask(&request).unwrap(), answer_to(&request), "{manner:?}");
        let size = if manner == Manner::Stale { 512 } else { 128 };
        assert_eq!(bench.station.size, size, "{manner:?}");
        bench.waits = 0;
        if !matches!(manner, Manner::Ignores | Manner::Stale) {
            bench.open().unwrap();
            assert_eq!((bench.waits, bench.station.refusals), (0, 0), "it is remembered: {manner:?}");
        }
    }
}

#[test]
fn a_meter_that_ignores_parameters_is_soon_opened_without_them() {
    let mut bench = Bench::new(station(512, 1, 1), Meter::new(limits(512, 1), Manner::Ignores), vec![]);
    for _ in 0..40 {
        bench.open().unwrap();
    }
    assert!(bench.waits <= 8, "{} openings of 40 waited in vain", bench.waits);
}

#[test]
fn a_meter_that_lost_the_connection_is_opened_once_more_before_its_first_answer_and_never_after() {
    let mut bench = Bench::new(station(128, 1, 1), Meter::new(limits(128, 1), Manner::Plain), vec![]);
    bench.open().unwrap();
    bench.meter.connected = false;
    assert_eq!(bench.ask(&[1]).unwrap(), answer_to(&[1]));
    bench.meter.connected = false;
    assert!(matches!(bench.ask(&[2]), Err(Failure::Dropped(_))), "the association is lost with it");
    assert!(matches!(bench.ask(&[3]), Err(Failure::Dropped(_))), "and nothing is sent without one");
    bench.open().unwrap();
    assert_eq!(bench.ask(&[4]).unwrap(), answer_to(&[4]));
}

#[test]
fn a_meter_that_needs_time_is_polled_but_not_for_ever() {
    let mut bench = Bench::new(station(128, 1, 1), Meter::new(limits(128, 1), Manner::Plain), vec![]);
    bench.open().unwrap();
    bench.meter.busy = 7;
    assert_eq!(bench.ask(&[1]).unwrap(), answer_to(&[1]));
    bench.meter.busy = usize::MAX;
    assert_eq!(bench.ask(&[2]), Err(Failure::Silent));
    assert!(usize::MAX - bench.meter.busy < 30, "{} polls", usize::MAX - bench.meter.busy);
    assert!(bench.station.is_dirty());
    bench.station.close();
    bench.run().unwrap();
    assert!(!bench.meter.connected, "but it is told");
}

#[test]
fn a_meter_that_is_kept_alive_says_nothing_and_can_be_asked_then() {
    let mut bench = Bench::new(station(128, 1, 1), Meter::new(limits(128, 1), Manner::Plain), vec![]);
    bench.open().unwrap();
    assert_eq!(bench.ask(&[1]).unwrap(), answer_to(&[1]));
    bench.station.keep();
    let bytes = bench.station.transmit().unwrap();
    for frame in bench.meter.hear(&bytes) {
        bench.decoder.push(&frame);
    }
    while let Some(Event::Frame(frame)) = bench.decoder.next() {
        assert_eq!(bench.station.take(frame), Heard::Used);
    }
    assert!(bench.station.has_turn());
    assert_eq!(bench.ask(&[2]).unwrap(), answer_to(&[2]));
}

#[test]
fn an_answer_without_end_is_given_up() {
    let mut station = station(2030, 1, 1);
    station.open(CLIENT);
    let frame =
        |control, segmented, information| Frame { segmented, destination: CLIENT, source: METER, control, information };
    station.take(frame(Control::Ua, false, vec![]));
    station.request(&[1]);
    for number in 0.. {
        let control = Control::I { ns: number & 7, nr: 1, pf: true };
        station.take(frame(control, true, vec![0; 2000]));
        assert!(station.came.len() <= LONGEST_APDU && number < 40);
        if let Some(Err(failure)) = station.result() {
            assert_eq!(failure, Failure::TooLong);
            break;
        }
    }
}

#[test]
fn a_meter_called_by_the_address_of_all_is_called_by_its_own_then() {
    let called = Address::Quad { upper: 1, lower: 0x3FFF };
    let own = Address::Quad { upper: 1, lower: 77 };
    let mut station = Station::new(CLIENT, called, limits(128, 1), 1, Duration::from_secs(1));
    station.open(CLIENT);
    let ua =
        |source| Frame { segmented: false, destination: CLIENT, source, control: Control::Ua, information: vec![] };
    assert_eq!(station.take(ua(Address::Quad { upper: 2, lower: 77 })), Heard::Stray);
    assert_eq!(station.take(ua(own)), Heard::Used);
    station.request(&[1]);
    let mut decoder = Decoder::new();
    decoder.push(&station.transmit().unwrap());
    assert!(matches!(decoder.next(), Some(Event::Frame(frame)) if frame.destination == own));
}

proptest! {
    #[test]
    fn one_fault_anywhere_is_mended(
        ours in any_sizes(), theirs in any_sizes(), at in 0usize..60, fault in any_fault(),
    ) {
        let mut faults = vec![None; at];
        faults.push(Some(fault));
        let meter = Meter::new(limits(theirs.0, theirs.1), Manner::Plain);
        let mut bench = Bench::new(station(ours.0, ours.1, 2), meter, faults);
        prop_assert_eq!(bench.open(), Ok(()));
        for request in requests().take(12) {
            prop_assert_eq!(bench.ask(&request), Ok(answer_to(&request)));
        }
        prop_assert!(bench.meter.executed.values().all(|times| *times == 1));
    }

    #[test]
    fn many_faults_never_give_the_answer_to_another_request_nor_do_a_request_twice(
        ours in any_sizes(), theirs in any_sizes(), busy in 0usize..3,
        faults in prop::collection::vec(prop_oneof![3 => Just(None), 1 => any_fault().prop_map(Some)], 0..200),
    ) {
        let meter = Meter { busy, ..Meter::new(limits(theirs.0, theirs.1), Manner::Plain) };
        let mut bench = Bench::new(station(ours.0, ours.1, 2), meter, faults);
        let mut open = false;
        let mut first = Vec::new();
        for request in requests().take(40) {
            if !open {
                open = bench.open().is_ok();
                // It stands for the association, which may come to a meter twice.
                first.push([&LLC_REQUEST, &request[..]].concat());
            }
            if open {
                match bench.ask(&request) {
                    Ok(answer) => prop_assert_eq!(answer, answer_to(&request)),
                    Err(_) => open = false,
                }
            }
        }
        for (request, times) in &bench.meter.executed {
            prop_assert!(*times == 1 || first.contains(request), "{:?} was done {} times", request, times);
        }
    }
}
