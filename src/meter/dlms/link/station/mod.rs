//! The primary station of an HDLC connection in normal response mode (IEC 62056-46, clause 6.4).
//!
//! A machine without clock and line: it takes frames and the ends of its waits, and gives bytes to send and how long
//! to wait then. What moves the dialogue on is answered at once, each such thing once; what comes twice or does not
//! fit only shortens the wait, so that doubled frames never make doubled requests. A piece of an answer is taken when
//! it has the number that is due and acknowledges the whole request; nothing else ever is.

use std::collections::VecDeque;
use std::time::Duration;

use crate::wire::dlms::hdlc::{Address, Control, Frame, LLC_REQUEST, Parameters};

mod opening;
mod transfer;

/// The longest APDU that is put together: what a length of the wrapper can say, and some ciphering.
const LONGEST_APDU: usize = 65_535 + 64;
/// So many frames that don't fit end an exchange.
const MOST_STRAYS: u32 = 256;
/// So many connections are opened without parameters after they were refused once.
const PLAIN: u32 = 32;
/// The first pause before a meter that is not ready is polled again; it doubles.
const FIRST_REST: Duration = Duration::from_millis(10);
/// The longest wait for the answer to a DISC.
const PARTING: Duration = Duration::from_millis(500);

/// How long to wait for frames now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// As long as the meter may take to answer.
    Answer,
    /// This long.
    Pause(Duration),
}

/// Why there is no connection, or no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing usable came in time.
    Silent,
    /// The meter does not want a connection.
    Refused(&'static str),
    /// The connection is no more.
    Dropped(&'static str),
    /// It was asked over no connection.
    Closed,
    /// The answer is longer than any may be.
    TooLong,
}

/// What a frame was good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It belongs here.
    Used,
    /// A push or the like.
    Passed,
    /// Late, doubled, echoed or somebody else's.
    Stray,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// SNRM was sent.
    Opening,
    /// DISC was sent, so that the next SNRM finds no old connection.
    Clearing,
    Open,
    /// DISC was sent.
    Closing,
}

/// What to do at the end of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Find out what the meter has got, and go on from there.
    Recover,
    /// Ask whether it is ready now.
    Poll,
    /// Send again what it has not got.
    Repeat,
    /// Send the request: the meter has fallen silent without saying that it ended.
    Begin,
}

/// The client's side of one connection.
#[derive(Debug)]
pub(super) struct Station {
    own: Address,
    meter: Address,
    /// The meter as it named itself, when it was called by the address of all.
    peer: Address,
    proposal: Parameters,
    tries: u32,
    patience: Duration,
    state: State,
    /// The number of the next frame sent, of the oldest one not acknowledged, and of the next one expected.
    vs: u8,
    va: u8,
    vr: u8,
    size: usize,
    /// The most bytes of the meter's frames.
    receives: usize,
    window: u8,
    /// The request with its LLC bytes, and how much of it is acknowledged.
    out: Vec<u8>,
    acked: usize,
    /// The answer so far.
    came: Vec<u8>,
    ready: VecDeque<Vec<u8>>,
    /// The meter has said that it ended.
    turn: bool,
    /// A request waits for that.
    waiting: bool,
    /// An APDU is expected.
    pending: bool,
    /// Another request follows before it.
    relayed: bool,
    /// No piece of an answer came over this connection yet: opening it anew loses nothing.
    fresh: bool,
    reopened: bool,
    /// The request must not be repeated on silence alone.
    once: bool,
    /// What is left of tries and patience until the dialogue moves on.
    left: u32,
    rested: Duration,
    rest: Duration,
    strays: u32,
    polled: bool,
    wait: Wait,
    then: Then,
    send: Option<Vec<u8>>,
    result: Option<Result<(), Failure>>,
    /// This SNRM carries no parameters; nor do so many more.
    bare: bool,
    plain: u32,
    refusals: u32,
    /// SNRM was not answered in this opening; how many openings in a row only worked without parameters then.
    hushed: bool,
    hushes: u32,
    /// Whether the meter may believe that it is still connected.
    dirty: bool,
}

impl Station {
    /// A station that is not connected; it repeats `tries` times and waits `patience` for each answer.
    pub(super) fn new(own: Address, meter: Address, proposal: Parameters, tries: u32, patience: Duration) -> Self {
        Self {
            own,
            meter,
            peer: meter,
            proposal,
            tries,
            patience,
            state: State::Closed,
            vs: 0,
            va: 0,
            vr: 0,
            size: 128,
            receives: 128,
            window: 1,
            out: Vec::new(),
            acked: 0,
            came: Vec::new(),
            ready: VecDeque::new(),
            turn: true,
            waiting: false,
            pending: false,
            relayed: false,
            fresh: true,
            reopened: false,
            once: false,
            left: tries,
            rested: Duration::ZERO,
            rest: FIRST_REST,
            strays: 0,
            polled: false,
            wait: Wait::Answer,
            then: Then::Recover,
            send: None,
            result: None,
            bare: false,
            plain: 0,
            refusals: 0,
            hushed: false,
            hushes: 0,
            dirty: false,
        }
    }

    /// Begins to open a connection as this client; [`Station::result`] tells the end.
    pub(super) fn open(&mut self, own: Address) {
        self.own = own;
        self.out.clear();
        self.reopened = false;
        self.begin_opening();
    }

    /// The request is not sent again over a new connection, and over this one only if the meter says that it has not
    /// got it: a password that is wrong would count twice.
    pub(super) const fn only_once(&mut self) {
        self.fresh = false;
        self.once = true;
    }

    /// Begins to send a request; [`Station::answer`] gives what comes of it.
    pub(super) fn request(&mut self, apdu: &[u8]) {
        self.result = None;
        if !std::mem::replace(&mut self.relayed, false) {
            self.ready.clear();
        }
        self.came.clear();
        self.once = false;
        if self.state != State::Open {
            return self.fail(Failure::Closed);
        }
        self.out = [&LLC_REQUEST, apdu].concat();
        self.acked = 0;
        self.pending = true;
        self.progress();
        if self.turn {
            self.transmit_window();
        } else {
            self.waiting = true;
            (self.wait, self.then) = (Wait::Pause(self.patience / 4), Then::Begin);
        }
    }

    /// Asks for what the meter has to say without a request, or with the last one.
    pub(super) fn listen(&mut self) {
        if self.state != State::Open {
            let why = self.result.take().and_then(Result::err);
            self.fail(why.unwrap_or(Failure::Closed));
        } else if !self.pending {
            self.pending = true;
            self.progress();
            if self.turn {
                self.poll();
            }
        }
    }

    /// Whether a request was sent and not answered.
    pub(super) fn awaits_answer(&self) -> bool {
        self.state == State::Open && self.pending && !self.turn && !self.waiting
    }

    /// Lets the meter take the request; its answer comes with that to another one, which follows.
    pub(super) const fn relay(&mut self) {
        self.relayed = true;
    }

    /// Tells the meter that this client is still there; over when it is this station's turn again.
    pub(super) fn keep(&mut self) {
        if self.state == State::Open && self.turn {
            self.progress();
            self.poll();
        }
    }

    /// Whether the meter has said that it ended.
    pub(super) const fn has_turn(&self) -> bool {
        self.turn
    }

    /// Begins to close the connection; [`Station::result`] tells when that is over.
    pub(super) fn close(&mut self) {
        self.result = None;
        if self.state != State::Open && !self.dirty {
            self.state = State::Closed;
            self.result = Some(Ok(()));
            return;
        }
        // A meter that was silent just now is not waited for once more.
        self.left = u32::from(self.state == State::Open && self.tries > 0);
        let wait = if self.state == State::Open { self.patience.min(PARTING) } else { Duration::ZERO };
        self.state = State::Closing;
        self.say(Control::Disc, Vec::new());
        self.wait = Wait::Pause(wait);
    }

    /// What must be sent now, once.
    pub(super) const fn transmit(&mut self) -> Option<Vec<u8>> {
        self.send.take()
    }

    /// How long to wait for the next frame.
    pub(super) const fn wait(&self) -> Wait {
        self.wait
    }

    /// Whether opening or closing is over, or why a request has failed; once.
    pub(super) const fn result(&mut self) -> Option<Result<(), Failure>> {
        self.result.take()
    }

    /// The next APDU that came whole.
    pub(super) fn answer(&mut self) -> Option<Vec<u8>> {
        self.ready.pop_front()
    }

    /// Whether the meter may believe that it is connected though we are not.
    pub(super) const fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Whether there is a connection.
    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// The most bytes that a frame of the meter carries, and how many come in a row.
    pub(super) const fn proposal(&self) -> Parameters {
        self.proposal
    }

    /// The most bytes that a frame of the meter carries over this connection.
    pub(super) const fn receives(&self) -> usize {
        self.receives
    }

    /// Takes a frame whose checks are right.
    pub(super) fn take(&mut self, frame: Frame) -> Heard {
        if frame.destination != self.own || !answers_for(self.peer, frame.source) {
            return self.stray(false);
        }
        if frame.control == Control::Ui {
            self.strays += 1;
            return Heard::Passed;
        }
        match self.state {
            State::Closed => Heard::Stray,
            State::Opening => self.while_opening(&frame),
            State::Clearing => match frame.control {
                Control::Ua | Control::Dm => {
                    self.call();
                    Heard::Used
                }
                _ => self.stray(false),
            },
            State::Closing => match frame.control {
                Control::Ua | Control::Dm => {
                    self.finish_closing(false);
                    Heard::Used
                }
                _ => self.stray(false),
            },
            State::Open => self.while_open(frame),
        }
    }

    /// A frame came damaged: nothing more comes of it.
    pub(super) fn take_damaged(&mut self) {
        self.stray(true);
    }

    /// The wait is over.
    pub(super) fn expire(&mut self) {
        match self.state {
            State::Closed => self.fail(Failure::Silent),
            State::Opening => self.open_again(),
            State::Clearing => self.call(),
            State::Closing if self.left > 0 => {
                self.left -= 1;
                self.say(Control::Disc, Vec::new());
                self.wait = Wait::Pause(self.patience.min(PARTING));
            }
            State::Closing => self.finish_closing(true),
            State::Open => self.expire_open(),
        }
    }

    fn expire_open(&mut self) {
        match self.then {
            Then::Poll => return self.poll(),
            Then::Begin => return self.begin_request(),
            // It was asked what it has got, which was the try, and has not got it.
            Then::Repeat if self.polled => return self.transmit_window(),
            Then::Repeat | Then::Recover => {}
        }
        if !self.use_try() {
            return self.fail(Failure::Silent);
        }
        // First it is asked what it has got, so that nothing is sent twice without need.
        if self.then == Then::Repeat || (self.acked < self.out.len() && self.polled && !self.once) {
            self.transmit_window();
        } else {
            self.poll();
            self.polled = true;
        }
    }

    fn say(&mut self, control: Control, information: Vec<u8>) {
        let bytes = self.frame(false, control, information);
        self.give(bytes);
    }

    fn give(&mut self, bytes: Vec<u8>) {
        self.send = Some(bytes);
        self.turn = false;
        (self.wait, self.then) = (Wait::Answer, Then::Recover);
    }

    fn frame(&self, segmented: bool, control: Control, information: Vec<u8>) -> Vec<u8> {
        let frame = Frame { segmented, destination: self.peer, source: self.own, control, information };
        // The sizes that are agreed on fit.
        frame.encode().unwrap_or_default()
    }

    /// A frame that does not fit. When the meter ended with it, its state is asked for soon.
    fn stray(&mut self, ended: bool) -> Heard {
        self.strays += 1;
        if self.strays > MOST_STRAYS && self.state != State::Closed {
            self.fail(Failure::Silent);
        } else if ended && self.state == State::Open && !self.turn {
            self.wait = Wait::Pause(self.patience / 4);
        }
        Heard::Stray
    }

    const fn use_try(&mut self) -> bool {
        let any = self.left > 0;
        self.left = self.left.saturating_sub(1);
        any
    }

    fn progress(&mut self) {
        self.left = self.tries;
        self.rested = Duration::ZERO;
        self.rest = FIRST_REST;
        self.polled = false;
        if !self.waiting {
            self.strays = 0;
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.state = State::Closed;
        self.waiting = false;
        self.send = None;
        self.result = Some(Err(failure));
    }

    fn finish_closing(&mut self, dirty: bool) {
        self.state = State::Closed;
        self.dirty = dirty;
        self.result = Some(Ok(()));
    }
}

/// Whether a frame of `source` answers a request to `called`, which may be the address of all physical devices.
fn answers_for(called: Address, source: Address) -> bool {
    match (called, source) {
        (Address::Double { upper, lower: 0x7F }, Address::Double { upper: theirs, .. }) => upper == theirs,
        (Address::Quad { upper, lower: 0x3FFF }, Address::Quad { upper: theirs, .. }) => upper == theirs,
        _ => called == source,
    }
}

#[cfg(test)]
mod tests;
