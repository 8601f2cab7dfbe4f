//! The meter's end of an HDLC connection: one logical device, which speaks when it is polled.

use std::collections::VecDeque;

use super::Faults;
use crate::wire::dlms::hdlc::{Address, Control, Frame, LLC_RESPONSE, Parameters};

/// One logical device on the line.
#[derive(Debug)]
pub(super) struct Secondary {
    /// Its addresses: of one, two and four bytes.
    addresses: Vec<Address>,
    limits: Parameters,
    /// The client that is connected, and the address by which it called.
    peer: Option<(Address, Address)>,
    size: usize,
    window: usize,
    vs: u8,
    va: u8,
    vr: u8,
    request: Vec<u8>,
    /// The pieces of its answer that are not acknowledged.
    pieces: VecDeque<(Vec<u8>, bool)>,
}

/// What it does with a frame.
pub(super) enum Deed {
    /// It is not for it, or damaged.
    Nothing,
    /// It says these frames.
    Say(Vec<Vec<u8>>),
    /// It ended the connection and says this.
    Closed(Vec<Vec<u8>>),
    /// It must first carry a request out; [`Secondary::answer`] takes the answer.
    Carry { client: u16, apdu: Vec<u8>, polled: bool },
}

impl Secondary {
    pub(super) fn new(logical: u8, physical: u8, limits: Parameters) -> Self {
        let (upper, lower) = (u16::from(logical), u16::from(physical));
        let mut addresses = vec![Address::Double { upper: logical, lower: physical }, Address::Quad { upper, lower }];
        if physical == 0 {
            addresses.push(Address::Single(logical));
        }
        Self {
            addresses,
            limits,
            peer: None,
            size: 128,
            window: 1,
            vs: 0,
            va: 0,
            vr: 0,
            request: Vec::new(),
            pieces: VecDeque::new(),
        }
    }

    pub(super) fn take(&mut self, frame: &Frame, faults: &mut Faults) -> Deed {
        if !self.addresses.contains(&frame.destination) {
            return Deed::Nothing;
        }
        let other = self.peer.is_some_and(|(client, _)| client != frame.source);
        match frame.control {
            Control::Snrm if !other => Deed::Say(self.open(frame, faults)),
            Control::Disc => {
                let was = self.peer.take().is_some();
                Deed::Closed(vec![reply(frame, if was { Control::Ua } else { Control::Dm }, Vec::new())])
            }
            _ if self.peer.is_none() || other => Deed::Say(vec![reply(frame, Control::Dm, Vec::new())]),
            Control::I { .. } if take_one(&mut faults.dm) => {
                self.peer = None;
                Deed::Say(vec![reply(frame, Control::Dm, Vec::new())])
            }
            Control::I { .. } if take_one(&mut faults.frmr) => {
                self.peer = None;
                Deed::Say(vec![reply(frame, Control::Frmr, vec![0; 3])])
            }
            Control::I { ns, nr, pf } => {
                self.acknowledged(nr);
                if ns == self.vr {
                    self.vr = (self.vr + 1) & 7;
                    self.request.extend_from_slice(&frame.information);
                    if !frame.segmented {
                        let apdu = self.request.get(3..).unwrap_or_default().to_vec();
                        self.request.clear();
                        let client = if let Address::Single(client) = frame.source { u16::from(client) } else { 0 };
                        return Deed::Carry { client, apdu, polled: pf };
                    }
                }
                Deed::Say(if pf { self.speak(faults) } else { Vec::new() })
            }
            Control::Rr { nr, pf: true } | Control::Rnr { nr, pf: true } => {
                self.acknowledged(nr);
                Deed::Say(self.speak(faults))
            }
            _ => Deed::Nothing,
        }
    }

    /// Takes what it has to say to the request it was given.
    pub(super) fn answer(&mut self, apdu: &[u8], polled: bool, faults: &mut Faults) -> Vec<Vec<u8>> {
        let answer = [&LLC_RESPONSE, apdu].concat();
        let count = answer.len().div_ceil(self.size);
        let pieces = answer.chunks(self.size).enumerate();
        self.pieces = pieces.map(|(number, piece)| (piece.to_vec(), number + 1 < count)).collect();
        if polled { self.speak(faults) } else { Vec::new() }
    }

    fn open(&mut self, frame: &Frame, faults: &Faults) -> Vec<Vec<u8>> {
        let asks = !frame.information.is_empty();
        if asks && faults.no_parameters {
            return vec![reply(frame, Control::Dm, Vec::new())];
        }
        let theirs = Parameters::decode(&frame.information);
        self.peer = Some((frame.source, frame.destination));
        (self.vs, self.va, self.vr) = (0, 0, 0);
        self.request.clear();
        self.pieces.clear();
        let agreed = Parameters {
            transmit: theirs.receive.min(self.limits.transmit),
            receive: theirs.transmit.min(self.limits.receive),
            window_transmit: theirs.window_receive.min(self.limits.window_transmit),
            window_receive: theirs.window_transmit.min(self.limits.window_receive),
        };
        self.size = usize::from(agreed.transmit);
        self.window = usize::from(agreed.window_transmit);
        vec![reply(frame, Control::Ua, if asks { agreed.encode() } else { Vec::new() })]
    }

    fn acknowledged(&mut self, nr: u8) {
        let frames = nr.wrapping_sub(self.va) & 7;
        if frames <= self.vs.wrapping_sub(self.va) & 7 {
            self.va = nr;
            self.pieces.drain(..usize::from(frames).min(self.pieces.len()));
        }
    }

    /// Has the turn: repeats what is not acknowledged, or says that it has nothing.
    fn speak(&mut self, faults: &mut Faults) -> Vec<Vec<u8>> {
        let Some((destination, source)) = self.peer else { return Vec::new() };
        let frame = |segmented, control, information| {
            Frame { segmented, destination, source, control, information }.encode().unwrap_or_default()
        };
        if take_one(&mut faults.not_ready) {
            return vec![frame(false, Control::Rnr { nr: self.vr, pf: true }, Vec::new())];
        }
        if self.pieces.is_empty() {
            return vec![frame(false, Control::Rr { nr: self.vr, pf: true }, Vec::new())];
        }
        let now = self.pieces.len().min(self.window);
        let mut said = Vec::new();
        if take_one(&mut faults.pushes) {
            said.push(frame(false, Control::Ui, vec![0xE6, 0xE7, 0, 0x0F, 0, 0, 0, 1, 0, 0]));
        }
        self.vs = self.va;
        for (number, (piece, segmented)) in self.pieces.iter().take(now).enumerate() {
            let control = Control::I { ns: self.vs, nr: self.vr, pf: number + 1 == now };
            said.push(frame(*segmented, control, piece.clone()));
            self.vs = (self.vs + 1) & 7;
        }
        said
    }
}

/// A frame back to who sent this one.
fn reply(frame: &Frame, control: Control, information: Vec<u8>) -> Vec<u8> {
    let (destination, source) = (frame.source, frame.destination);
    Frame { segmented: false, destination, source, control, information }.encode().unwrap_or_default()
}

/// Counts a fault down; tells whether it happens now.
pub(super) const fn take_one(count: &mut u32) -> bool {
    let any = *count > 0;
    *count = count.saturating_sub(1);
    any
}
