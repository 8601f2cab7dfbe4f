//! Requests and answers in pieces, and what acknowledges them.

use super::{FIRST_REST, Failure, Heard, LONGEST_APDU, Station, Then, Wait};
use crate::wire::dlms::hdlc::{Control, Frame};

impl Station {
    pub(super) fn while_open(&mut self, frame: Frame) -> Heard {
        match frame.control {
            _ if self.turn => self.stray(false),
            Control::I { ns, nr, pf } => self.take_piece(ns, nr, pf, &frame),
            Control::Rr { nr, pf } => self.take_ready(nr, pf, false),
            Control::Rnr { nr, pf } => self.take_ready(nr, pf, true),
            Control::Rej { nr, pf } => self.take_ready(nr, pf, false),
            Control::Dm => self.dropped("the meter says that it is not connected (DM)", false),
            Control::Frmr => self.dropped("the meter rejects a frame (FRMR)", true),
            Control::Disc => self.dropped("the meter asks to be disconnected", true),
            Control::Snrm | Control::Ua | Control::Ui | Control::Other(_) => self.stray(false),
        }
    }

    pub(super) fn take_piece(&mut self, ns: u8, nr: u8, pf: bool, frame: &Frame) -> Heard {
        let sent_all = self.acked + self.sent() >= self.out.len();
        if ns != self.vr || nr != self.vs || !sent_all {
            return self.stray(pf);
        }
        self.acked = self.out.len();
        self.va = self.vs;
        self.vr = (self.vr + 1) & 7;
        self.fresh = false;
        self.progress();
        self.turn = pf;
        if self.waiting {
            // What the meter still had to say to the request before.
            self.acked = 0;
            if pf {
                self.begin_request();
            }
            return Heard::Stray;
        }
        if self.came.len() + frame.information.len() > LONGEST_APDU {
            self.fail(Failure::TooLong);
            return Heard::Used;
        }
        self.came.extend_from_slice(&frame.information);
        if !frame.segmented {
            self.ready.push_back(without_llc(std::mem::take(&mut self.came)));
            self.pending = false;
        } else if pf {
            self.poll();
        }
        (self.wait, self.then) = (Wait::Answer, Then::Recover);
        Heard::Used
    }

    /// Receive ready, not ready, or reject.
    pub(super) fn take_ready(&mut self, nr: u8, pf: bool, busy: bool) -> Heard {
        let Some(news) = self.acknowledge(nr) else { return self.stray(pf) };
        if news {
            self.progress();
        }
        if !pf {
            return Heard::Used;
        }
        let unsent = self.acked < self.out.len();
        if self.waiting {
            self.begin_request();
        } else if !self.pending {
            self.turn = true;
        } else if busy || !unsent {
            self.rest_then_poll();
        } else if news {
            self.transmit_window();
        } else {
            (self.wait, self.then) = (Wait::Pause(self.patience / 8), Then::Repeat);
        }
        Heard::Used
    }

    /// Takes an acknowledgement; `None` when it is none of what was sent, else whether it is new.
    pub(super) fn acknowledge(&mut self, nr: u8) -> Option<bool> {
        let frames = nr.wrapping_sub(self.va) & 7;
        if frames > (self.vs.wrapping_sub(self.va) & 7) {
            return None;
        }
        if self.waiting {
            return Some(false);
        }
        self.va = nr;
        self.acked = (self.acked + usize::from(frames) * self.size).min(self.out.len());
        Some(frames > 0)
    }

    /// How many bytes of the request are under way.
    pub(super) fn sent(&self) -> usize {
        if self.waiting { self.out.len() } else { usize::from(self.vs.wrapping_sub(self.va) & 7) * self.size }
    }

    pub(super) fn begin_request(&mut self) {
        self.waiting = false;
        self.acked = 0;
        self.transmit_window();
    }

    /// Sends what is not acknowledged, as much of it as may be sent; the last frame polls.
    pub(super) fn transmit_window(&mut self) {
        let rest = self.out.get(self.acked..).unwrap_or_default();
        let pieces = rest.len().div_ceil(self.size);
        let now = pieces.min(usize::from(self.window));
        let mut bytes = Vec::new();
        self.vs = self.va;
        for (number, piece) in rest.chunks(self.size).take(now).enumerate() {
            let control = Control::I { ns: self.vs, nr: self.vr, pf: number + 1 == now };
            bytes.extend(self.frame(number + 1 < pieces, control, piece.to_vec()));
            self.vs = (self.vs + 1) & 7;
        }
        self.polled = false;
        self.give(bytes);
    }

    pub(super) fn poll(&mut self) {
        self.say(Control::Rr { nr: self.vr, pf: true }, Vec::new());
    }

    pub(super) fn rest_then_poll(&mut self) {
        self.rested += self.rest;
        if self.rested > self.patience * (self.tries + 1) {
            return self.fail(Failure::Silent);
        }
        (self.wait, self.then) = (Wait::Pause(self.rest), Then::Poll);
        self.rest = (self.rest * 2).min((self.patience / 4).max(FIRST_REST));
    }

    pub(super) fn dropped(&mut self, why: &'static str, dirty: bool) -> Heard {
        self.dirty = dirty;
        if self.fresh && !self.reopened && !self.out.is_empty() && !self.waiting {
            self.reopened = true;
            self.begin_opening();
        } else {
            self.fail(Failure::Dropped(why));
        }
        Heard::Used
    }
}

/// The APDU behind the LLC bytes of a request or response; some meters leave them away.
fn without_llc(mut information: Vec<u8>) -> Vec<u8> {
    if information.first() == Some(&0xE6) && matches!(information.get(1), Some(0xE6 | 0xE7)) {
        information.drain(..3.min(information.len()));
    }
    information
}
