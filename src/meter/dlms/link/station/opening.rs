//! Opening: SNRM and UA, and meters that don't want it so.

use super::{Failure, Heard, PARTING, PLAIN, State, Station, Wait};
use crate::wire::dlms::hdlc::{Control, Frame, Parameters};

impl Station {
    pub(super) fn begin_opening(&mut self) {
        self.result = None;
        self.peer = self.meter;
        self.ready.clear();
        self.came.clear();
        self.acked = 0;
        self.refusals = 0;
        self.hushed = false;
        self.bare = self.plain > 0;
        self.plain = self.plain.saturating_sub(1);
        self.progress();
        self.call();
    }

    /// Sends SNRM.
    pub(super) fn call(&mut self) {
        self.state = State::Opening;
        let parameters = if self.bare { Vec::new() } else { self.proposal.encode() };
        self.say(Control::Snrm, parameters);
    }

    pub(super) fn while_opening(&mut self, frame: &Frame) -> Heard {
        match frame.control {
            Control::Ua => self.opened(frame),
            Control::Dm if self.refusals == 0 => {
                // It may be connected to somebody who is gone.
                self.refusals = 1;
                self.clear();
            }
            Control::Dm | Control::Frmr if !self.bare => {
                self.refusals = 2;
                self.bare = true;
                self.plain = PLAIN;
                self.call();
            }
            Control::Dm => self.fail(Failure::Refused("it answers DM to the SNRM: it is connected to somebody else")),
            Control::Frmr => self.fail(Failure::Refused("it answers FRMR to the SNRM")),
            _ => return self.stray(false),
        }
        Heard::Used
    }

    pub(super) fn clear(&mut self) {
        self.say(Control::Disc, Vec::new());
        self.state = State::Clearing;
        self.wait = Wait::Pause(self.patience.min(PARTING));
    }

    pub(super) fn open_again(&mut self) {
        if !self.use_try() {
            return self.fail(Failure::Silent);
        }
        // Some meters don't answer parameters that they don't like, or while they are connected.
        self.hushed = true;
        self.bare = !self.bare;
        self.clear();
    }

    pub(super) fn opened(&mut self, frame: &Frame) {
        let theirs = Parameters::decode(&frame.information);
        self.size = usize::from(self.proposal.transmit.min(theirs.receive).max(1));
        self.receives = usize::from(self.proposal.receive.min(theirs.transmit).max(1));
        self.window = self.proposal.window_transmit.min(theirs.window_receive).max(1);
        self.peer = frame.source;
        (self.vs, self.va, self.vr) = (0, 0, 0);
        (self.state, self.turn, self.fresh, self.dirty) = (State::Open, true, true, true);
        self.hushes = match (self.bare, self.hushed) {
            (true, true) => (self.hushes + 1).min(6),
            (true, false) => self.hushes,
            (false, _) => 0,
        };
        if self.hushed && self.hushes > 1 {
            self.plain = (1 << self.hushes) / 2;
        }
        self.progress();
        if self.reopened {
            self.transmit_window();
        } else {
            self.result = Some(Ok(()));
        }
    }
}
