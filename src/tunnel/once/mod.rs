//! A stream that arrives exactly once: the state machine of both sides of a numbered tunnel. Time is an argument; nothing waits here.
//!
//! Invariants: bytes of a session are taken in order, each once, none left out; bytes of two sessions are never joined, for
//! whoever lost track of a session is told that it ended; a message that is older than the session's patience counts for
//! nothing, and a session in which nothing fresh was heard for that long is over; what is kept is bounded, whatever comes.
//! Messages may be lost, repeated and reordered. Start with [`Peer`].

mod flow;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use self::flow::{Flow, stamp};
pub use crate::wire::numbered::Reason;
use crate::wire::numbered::{Kind, Message, Session};

/// A call that nobody answered is repeated after this.
const CALL_AGAIN: Duration = Duration::from_secs(1);
/// The longest wait after a session that did not last.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Answers to strangers that may wait to be sent; more are not given.
const MOST_ANSWERS: usize = 4;

/// What happened to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Two empty streams have begun.
    Begun,
    /// They are over; what was not taken is gone.
    Ended(Reason),
    /// The gateway's line is somebody else's; it is asked for again and again. Told once.
    Busy,
}

#[derive(Debug)]
enum State {
    /// A listener without a session, or a caller that hung up.
    Idle,
    Calling {
        session: Session,
        next: Duration,
        told: bool,
    },
    Open {
        session: Session,
        flow: Box<Flow>,
        since: Duration,
        /// The other side has shown that it knows the session's whole name.
        proven: bool,
    },
}

/// One side of a numbered tunnel: the caller (who wants the line) or the listener (who has it).
#[derive(Debug)]
pub struct Peer {
    caller: Option<u32>,
    number: u32,
    patience: Duration,
    largest: usize,
    random: StdRng,
    state: State,
    answers: VecDeque<Message>,
    news: VecDeque<News>,
    wait: Duration,
    /// Messages that were too old to count.
    late: u64,
}

impl Peer {
    /// The side that wants a line. It calls from the beginning, and again whenever a session ended. A session ends when nothing
    /// was heard for `patience`; messages carry `largest` bytes at most.
    pub fn caller(patience: Duration, largest: usize, mut random: StdRng) -> Self {
        let name = random.random_range(1..=u32::MAX);
        let mut peer = Self::new(Some(name), patience, largest, random);
        peer.call(Duration::ZERO);
        peer
    }

    /// The side that has a line.
    pub fn listener(patience: Duration, largest: usize, random: StdRng) -> Self {
        Self::new(None, patience, largest, random)
    }

    fn new(caller: Option<u32>, patience: Duration, largest: usize, random: StdRng) -> Self {
        Self {
            caller,
            number: 0,
            patience,
            largest,
            random,
            state: State::Idle,
            answers: VecDeque::new(),
            news: VecDeque::new(),
            wait: Duration::ZERO,
            late: 0,
        }
    }

    fn call(&mut self, at: Duration) {
        let Some(caller) = self.caller else { return };
        self.number = self.number.wrapping_add(1);
        let session = Session { caller, number: self.number, listener: 0 };
        self.state = State::Calling { session, next: at, told: false };
    }

    /// What happened since this was asked last.
    pub fn news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// How many messages were too old to count.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// How many more bytes [`Peer::push`] takes; 0 without a session.
    pub fn room(&self) -> usize {
        if let State::Open { flow, .. } = &self.state { flow.room() } else { 0 }
    }

    /// Takes bytes for the other side. Ask for [`Peer::room`] first: once there is some, a whole message is taken.
    pub fn push(&mut self, bytes: &[u8]) {
        if let State::Open { flow, .. } = &mut self.state {
            flow.push(bytes);
        }
    }

    /// Whether bytes have arrived.
    pub fn has_bytes(&self) -> bool {
        matches!(&self.state, State::Open { flow, .. } if flow.has_bytes())
    }

    /// Whether everything that was pushed has arrived on the other side, or there is no session.
    pub fn is_done(&self) -> bool {
        !matches!(&self.state, State::Open { flow, .. } if !flow.is_done())
    }

    /// Gives bytes that have arrived, `most` at most.
    pub fn take(&mut self, now: Duration, most: usize) -> Vec<u8> {
        if let State::Open { flow, .. } = &mut self.state { flow.take(now, most) } else { Vec::new() }
    }

    /// Ends the session, if there is one, and tells the other side. A caller calls again, but for [`Reason::Closed`].
    pub fn end(&mut self, now: Duration, reason: Reason) {
        if let State::Open { session, .. } | State::Calling { session, .. } = self.state {
            self.answer(now, session, Kind::End(reason), 0);
        }
        self.over(now, reason, false);
        if reason == Reason::Closed {
            self.state = State::Idle;
        }
    }

    fn over(&mut self, now: Duration, reason: Reason, tell: bool) {
        let state = std::mem::replace(&mut self.state, State::Idle);
        if let State::Open { since, .. } = state {
            let lasted = now.saturating_sub(since) > self.patience;
            self.wait = if lasted { Duration::ZERO } else { (self.wait * 2).clamp(CALL_AGAIN, LONGEST_WAIT) };
            if tell {
                self.news.push_back(News::Ended(reason));
            }
        }
        self.call(now + self.wait);
    }

    /// Takes a message.
    pub fn hear(&mut self, now: Duration, message: &Message) {
        self.look(now);
        match self.caller {
            Some(caller) if message.session.caller == caller => self.hear_listener(now, message),
            // The same topic serves all who call.
            Some(_) => {}
            None if message.kind == Kind::Call => self.hear_call(now, message),
            None => self.hear_caller(now, message),
        }
    }

    fn hear_listener(&mut self, now: Duration, message: &Message) {
        let theirs = message.session;
        match (&mut self.state, message.kind) {
            (State::Calling { session, told, .. }, kind) if session.number == theirs.number => match kind {
                Kind::Accept => {
                    let session = theirs;
                    let mut flow = Flow::new(now, self.patience, self.largest);
                    if flow.hear(now, message) {
                        self.news.push_back(News::Begun);
                        self.state = State::Open { session, flow: Box::new(flow), since: now, proven: true };
                    }
                }
                Kind::End(Reason::Busy) if !std::mem::replace(told, true) => self.news.push_back(News::Busy),
                _ => {}
            },
            (State::Open { session, .. }, Kind::End(reason)) if *session == theirs => self.over(now, reason, true),
            (_, Kind::End(_)) => {}
            (State::Open { session, flow, .. }, _) if *session == theirs => {
                self.late += u64::from(!flow.hear(now, message));
            }
            (State::Open { session, .. }, Kind::Accept) if session.number == theirs.number => {
                // The listener has begun this session a second time: it does not know the first any more.
                self.answer(now, theirs, Kind::End(Reason::Unknown), message.stamp);
                self.over(now, Reason::Unknown, true);
            }
            _ => self.answer(now, theirs, Kind::End(Reason::Unknown), message.stamp),
        }
    }

    fn hear_call(&mut self, now: Duration, message: &Message) {
        let theirs = message.session;
        if let State::Open { session, flow, proven, .. } = &mut self.state {
            if (session.caller, session.number) == (theirs.caller, theirs.number) {
                flow.see(now, message);
                let (session, accept) = (*session, Kind::Accept);
                let again = flow.message(now, session, accept, 0, Vec::new());
                return self.say(again);
            }
            let newer = session.caller == theirs.caller && theirs.number.wrapping_sub(session.number) < 1 << 31;
            if *proven && session.caller != theirs.caller {
                return self.answer(now, theirs, Kind::End(Reason::Busy), message.stamp);
            }
            if session.caller == theirs.caller && !newer {
                return;
            }
            self.over(now, Reason::Closed, true);
        }
        let session = Session { listener: self.random.random_range(1..=u32::MAX), ..theirs };
        let mut flow = Box::new(Flow::new(now, self.patience, self.largest));
        flow.see(now, message);
        let accept = flow.message(now, session, Kind::Accept, 0, Vec::new());
        // The stream begins here: what the line says from now on is for whoever gets this.
        self.news.push_back(News::Begun);
        self.state = State::Open { session, flow, since: now, proven: false };
        self.say(accept);
    }

    fn hear_caller(&mut self, now: Duration, message: &Message) {
        let theirs = message.session;
        match (&mut self.state, message.kind) {
            (State::Open { session, .. }, Kind::End(reason)) if *session == theirs => {
                self.answer(now, theirs, Kind::End(reason), message.stamp);
                self.over(now, reason, true);
            }
            (State::Open { session, flow, proven, .. }, Kind::Carry) if *session == theirs => {
                if flow.hear(now, message) {
                    *proven = true;
                } else {
                    self.late += 1;
                }
            }
            // Also an end is answered: who hangs up waits for that.
            (_, Kind::End(Reason::Closed)) => self.answer(now, theirs, message.kind, message.stamp),
            (_, Kind::End(_) | Kind::Accept | Kind::Call) => {}
            (_, Kind::Carry) => self.answer(now, theirs, Kind::End(Reason::Unknown), message.stamp),
        }
    }

    /// Says something that belongs to no stream.
    fn answer(&mut self, now: Duration, session: Session, kind: Kind, echo: u64) {
        let patience = u32::try_from(self.patience.as_millis()).unwrap_or(u32::MAX);
        let bare = Message {
            kind,
            session,
            gap: false,
            patience,
            stamp: stamp(now),
            echo,
            offset: 0,
            arrived: 0,
            credit: 0,
            bytes: Vec::new(),
        };
        self.say(bare);
    }

    fn say(&mut self, message: Message) {
        if self.answers.len() < MOST_ANSWERS {
            self.answers.push_back(message);
        }
    }

    /// Finds out whether a session is over.
    fn look(&mut self, now: Duration) {
        if let State::Open { session, flow, .. } = &self.state
            && flow.is_cut(now)
        {
            let session = *session;
            self.answer(now, session, Kind::End(Reason::Cut), 0);
            self.over(now, Reason::Cut, true);
        }
    }

    /// When [`Peer::next`] has something at the latest; `None`: only when something else happens.
    pub fn due(&self, now: Duration) -> Option<Duration> {
        match &self.state {
            _ if !self.answers.is_empty() || !self.news.is_empty() => Some(now),
            State::Idle => None,
            State::Calling { next, .. } => Some(*next),
            State::Open { flow, proven: false, .. } => Some(flow.cut_at()),
            State::Open { flow, .. } => Some(flow.due(now)),
        }
    }

    /// The next message to be sent, if one is due. Also finds out that a session is over.
    pub fn next(&mut self, now: Duration) -> Option<Message> {
        self.look(now);
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        match &mut self.state {
            State::Idle => None,
            State::Calling { session, next, .. } if *next <= now => {
                *next = now + CALL_AGAIN;
                let session = *session;
                self.answer(now, session, Kind::Call, 0);
                self.answers.pop_back()
            }
            State::Calling { .. } => None,
            // Until the caller has shown that it is there, it gets no bytes; it will find out by itself when it is not.
            State::Open { flow, session, proven, .. } => {
                if *proven {
                    flow.next(now, *session)
                } else {
                    None
                }
            }
        }
    }
}
