//! Carries bytes between a lent line and the platform until the line is gone or was silent for long.

use std::collections::VecDeque;
use std::future::ready;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::duplex::{Moved, move_bytes};
use super::gather::{Echoes, Gatherer};
use super::stream::Wire;
use super::tagged::{self, Tagged};
use super::{Health, Order, PATIENCE, Request};
use crate::os::alarm::Alarm;
use crate::os::line::{Line, Speed};

/// Who is told that the line is given away.
pub(super) type Asker = oneshot::Sender<Result<(), String>>;

/// What a tunnel works with while it has the line; it outlives the lease.
pub(super) struct Desk {
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) answers: mpsc::Sender<Vec<u8>>,
    pub(super) orders: mpsc::Receiver<Order>,
    /// Numbered: the ends of the next session replace `requests` and `answers`.
    pub(super) wires: Option<mpsc::Receiver<Wire>>,
    /// There is somebody at the other end of `requests`; always, without numbers.
    pub(super) joined: bool,
    /// What was asked for while there was no line.
    pub(super) waiting: VecDeque<Request>,
    /// What waits to be written to the line.
    pub(super) pending: Vec<u8>,
    /// What came from the line, and what of it nobody took yet, since when.
    pub(super) gatherer: Gatherer,
    pub(super) outgoing: Option<(Vec<u8>, Instant)>,
    /// The speed that somebody asked for; the port's own until then.
    pub(super) speed: Option<Speed>,
    /// Who wants the line, since when.
    pub(super) asked: Option<(Vec<Asker>, Instant)>,
    pub(super) health: Health,
    pub(super) gather: Duration,
    pub(super) max_age: Duration,
    /// `None`: the line is nobody else's.
    pub(super) hold: Option<Duration>,
    pub(super) remove_echo: bool,
    /// Where commands may come from the line.
    pub(super) tagged: Option<Tagged>,
}

/// Why the carrying ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// The line was silent for long and others want it.
    Idle,
    /// It is gone.
    LineGone(String),
    /// The platform's side has ended for good.
    Closed,
}

/// More is not taken from the platform while so many bytes wait for a slow line.
const MOST_PENDING: usize = 64 << 10;

impl Desk {
    /// Tells whether a request came too late, and counts it.
    pub(super) fn is_stale(&self, request: &Request) -> bool {
        let stale = request.at.elapsed() > self.max_age;
        if stale {
            self.health.dropped_request();
            tracing::debug!(bytes = request.bytes.len(), "a request waited too long for the line and is dropped");
        }
        stale
    }

    /// Takes a request that is still fresh.
    pub(super) fn accept(&mut self, request: Request) {
        // A numbered session that lives has no stale bytes, only a slow line.
        if self.wires.is_some() || !self.is_stale(&request) {
            self.health.change(|status| status.requests += 1);
            self.pending.extend_from_slice(&request.bytes);
        }
    }

    /// Without a line, waits for a request or an order, and hands over what the line said last, while that is of use: it must not be the
    /// answer to the next request. False when none will come.
    pub(super) async fn wait(&mut self) -> bool {
        if self.outgoing.is_none() && !self.gatherer.is_empty() {
            self.outgoing = Some((self.gatherer.take(), Instant::now()));
        }
        let too_late = self.too_late();
        tokio::select! {
            biased;
            () = sleep_until(too_late.unwrap_or_else(Instant::now)), if too_late.is_some() => self.lose_answer(),
            sent = hand_over(&self.answers, &mut self.outgoing, &self.health), if self.outgoing.is_some() => {
                sent || self.lose_answer()
            }
            request = self.requests.recv(), if self.joined => match request {
                Some(request) => {
                    self.waiting.push_back(request);
                    true
                }
                None => self.leave(),
            },
            wire = next(&mut self.wires) => wire.is_some_and(|wire| self.join(wire)),
            order = self.orders.recv() => order.is_some_and(|order| {
                self.obey_without_line(order);
                true
            }),
        }
    }

    /// Takes up another session; nothing of the one before is left. True.
    fn join(&mut self, wire: Wire) -> bool {
        self.leave();
        let Wire { requests, answers } = wire;
        (self.requests, self.answers, self.joined) = (requests, answers, true);
        true
    }

    /// The session is over, and the other side gets to know. False when there will be no other one.
    fn leave(&mut self) -> bool {
        if self.wires.is_none() {
            return false;
        }
        self.requests.close();
        while self.requests.try_recv().is_ok() {}
        self.answers = mpsc::channel(1).0;
        self.pending.clear();
        self.waiting.clear();
        self.gatherer.take();
        (self.outgoing, self.joined) = (None, false);
        true
    }

    /// Whether there is something to do with a line.
    pub(super) fn wants_line(&self) -> bool {
        let begun = self.wires.is_some() && (self.outgoing.is_some() || !self.pending.is_empty());
        begun || !self.waiting.is_empty()
    }

    /// Does what can be done without a line: a speed is for the next time with it.
    fn obey_without_line(&mut self, order: Order) {
        match order {
            Order::Speed(speed, reply) => {
                self.speed = Some(speed);
                let _ = reply.send(Ok(()));
            }
            Order::CallBack { reply, .. } => drop(reply.send(Err(super::NO_CALLS.to_owned()))),
            Order::Yield(reply) => drop(reply.send(Ok(()))),
        }
    }

    /// There is no line: what waits for it is dropped, so that the next request finds a place.
    pub(super) fn drop_waiting(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            self.obey_without_line(order);
        }
        if let Some(wires) = &mut self.wires {
            while wires.try_recv().is_ok() {}
            self.leave();
            return;
        }
        self.waiting.drain(..).for_each(|_| self.health.dropped_request());
        while self.requests.try_recv().is_ok() {
            self.health.dropped_request();
        }
    }

    /// Carries until it ends. What had not been written then is dropped.
    pub(super) async fn carry(&mut self, line: &mut Line) -> Ended {
        self.health.change(|status| (status.holds_line, status.sessions) = (true, status.sessions + 1));
        let ended = self.relay(line).await;
        self.health.change(|status| status.holds_line = false);
        if matches!(ended, Ended::LineGone(_)) {
            // What was on its way is lost: a stream must not go on over that.
            self.leave();
        }
        // A numbered stream goes on where it was when the line comes back.
        if self.wires.is_none() && !self.pending.is_empty() {
            self.pending.clear();
            self.health.dropped_request();
        }
        ended
    }

    async fn relay(&mut self, line: &mut Line) -> Ended {
        if let Some(Err(error)) = self.speed.map(|speed| line.set_speed(speed)) {
            return Ended::LineGone(error.to_string());
        }
        self.begin();
        let mut echoes = Echoes::default();
        let mut buffer = vec![0; 4096];
        // A millisecond later would be a dozen characters later.
        let mut alarm = Alarm::new();
        let mut busy = Instant::now();
        loop {
            // 3.5 characters: a frame of Modbus RTU is never cut, whatever the settings say.
            let gap = self.gather.max(line.speed().time_of(7) / 2);
            let held = self.hear_tagged(gap);
            let due = self.gatherer.due(gap).filter(|_| self.outgoing.is_none());
            let is_quiet = self.gatherer.is_empty() && self.outgoing.is_none() && self.pending.is_empty();
            let idle = self.hold.filter(|_| is_quiet).map(|hold| busy + hold);
            let too_late = self.too_late();
            // What is no command fills the room later.
            let taking = self.tagged.as_ref().is_none_or(|tagged| !tagged.is_full());
            let room = if taking { self.gatherer.room().min(buffer.len()) } else { 0 };
            let yields = self.asked.as_ref().map(|(_, since)| match is_quiet {
                true => (busy + gap).min(*since + PATIENCE),
                false => *since + PATIENCE,
            });
            let may_take = self.joined && self.pending.len() < MOST_PENDING && yields.is_none();
            tokio::select! {
                biased;
                () = ready(()), if yields.is_some_and(|at| at <= Instant::now()) => {
                    for reply in self.asked.take().into_iter().flat_map(|(replies, _)| replies) {
                        let _ = reply.send(Ok(()));
                    }
                    return Ended::Idle;
                }
                () = ready(()), if due.is_some_and(|due| due <= Instant::now()) => {
                    self.outgoing = Some((self.gatherer.take(), Instant::now()));
                }
                sent = hand_over(&self.answers, &mut self.outgoing, &self.health), if self.outgoing.is_some() => {
                    if !sent && !self.lose_answer() {
                        return Ended::Closed;
                    }
                }
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order, line),
                    None => return Ended::Closed,
                },
                moved = move_bytes(line, &self.pending, buffer.get_mut(..room).unwrap_or_default()) => {
                    busy = Instant::now();
                    match moved {
                        Err(error) => return Ended::LineGone(error.to_string()),
                        Ok(Moved::Read(0)) => return Ended::LineGone("the other side closed it".to_owned()),
                        Ok(moved) => self.moved(&moved, &buffer, &mut echoes, busy),
                    }
                }
                request = self.requests.recv(), if may_take => match request {
                    Some(request) => {
                        busy = Instant::now();
                        self.accept(request);
                    }
                    None => if !self.leave() { return Ended::Closed },
                },
                answer = tagged::answer(&mut self.tagged) => {
                    busy = Instant::now();
                    self.pending.extend(answer);
                }
                wire = next(&mut self.wires) => match wire {
                    Some(wire) => drop(self.join(wire)),
                    None => return Ended::Closed,
                },
                () = alarm.until(due.unwrap_or(busy)), if due.is_some() => {}
                () = sleep_until(held.unwrap_or(busy)), if held.is_some() => {}
                () = sleep_until(too_late.unwrap_or(busy)), if too_late.is_some() => drop(self.lose_answer()),
                () = sleep_until(yields.unwrap_or(busy)), if yields.is_some() => {}
                () = sleep_until(idle.unwrap_or(busy)), if idle.is_some() => return Ended::Idle,
            }
        }
    }

    /// Takes what is no command of what came from the line; when to look again.
    fn hear_tagged(&mut self, gap: Duration) -> Option<Instant> {
        let tagged = self.tagged.as_mut()?;
        let (bytes, last) = tagged.take(self.gatherer.room(), gap);
        if !bytes.is_empty() {
            self.gatherer.push(&bytes, last);
        }
        tagged.due(gap)
    }

    /// Takes what came from the line, or what it took.
    fn moved(&mut self, moved: &Moved, buffer: &[u8], echoes: &mut Echoes, now: Instant) {
        match *moved {
            Moved::Read(count) => {
                let came = buffer.get(..count).unwrap_or_default();
                let echoed = if self.remove_echo { echoes.strip(came) } else { 0 };
                let came = came.get(echoed..).unwrap_or_default();
                match &mut self.tagged {
                    Some(tagged) => tagged.hear(came, now),
                    None => self.gatherer.push(came, now),
                }
            }
            Moved::Wrote(count) => {
                if self.remove_echo {
                    echoes.sent(self.pending.get(..count).unwrap_or_default());
                }
                self.pending.drain(..count);
                self.health.change(|status| status.to_port += count as u64);
            }
        }
    }

    /// Begins with what waited for the line.
    fn begin(&mut self) {
        let numbered = self.wires.is_some();
        if numbered && self.waiting.iter().any(|request| request.at.elapsed() > self.max_age) {
            // A meter must not be asked by the past, and a stream must not miss anything: it ends.
            self.health.dropped_request();
            tracing::debug!("a request waited too long for the line, and its numbered session ends");
            self.leave();
        }
        if !numbered {
            self.pending.clear();
        }
        while let Some(request) = self.waiting.pop_front() {
            self.accept(request);
        }
    }

    /// When nobody is to have an answer any more; a numbered stream misses none.
    fn too_late(&self) -> Option<Instant> {
        self.outgoing.as_ref().filter(|_| self.wires.is_none()).map(|(_, since)| *since + self.max_age)
    }

    /// Nobody took an answer. False when nobody ever will.
    fn lose_answer(&mut self) -> bool {
        let alive = self.wires.is_some() || !self.answers.is_closed();
        if self.outgoing.take().is_some() && alive {
            self.health.change(|status| status.dropped_answers += 1);
        }
        alive
    }

    fn obey(&mut self, order: Order, line: &mut Line) {
        let (speed, reply) = match order {
            Order::Speed(speed, reply) => (speed, reply),
            Order::CallBack { reply, .. } => return drop(reply.send(Err(super::NO_CALLS.to_owned()))),
            Order::Yield(reply) => {
                self.asked.get_or_insert_with(|| (Vec::new(), Instant::now())).0.push(reply);
                return;
            }
        };
        let done = line.set_speed(speed).map_err(|error| error.to_string());
        if done.is_ok() {
            self.speed = Some(speed);
        }
        // Nobody waits any more: that is their affair.
        let _ = reply.send(done);
    }
}

/// Hands a message over once there is a place for it; false when nobody takes any. Cancelling it loses nothing.
async fn hand_over(
    answers: &mpsc::Sender<Vec<u8>>,
    outgoing: &mut Option<(Vec<u8>, Instant)>,
    health: &Health,
) -> bool {
    let Ok(place) = answers.reserve().await else { return false };
    if let Some((message, _)) = outgoing.take() {
        health.change(|status| {
            status.answers += 1;
            status.from_port += message.len() as u64;
        });
        place.send(message);
    }
    true
}

/// The next session's ends; without numbers there is none.
async fn next(wires: &mut Option<mpsc::Receiver<Wire>>) -> Option<Wire> {
    match wires {
        Some(wires) => wires.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_the_line_said_last_is_handed_over_without_it_and_never_after_its_time() {
        let (answers, mut taken) = mpsc::channel(1);
        let (ask, requests) = mpsc::channel(1);
        let (_order, orders) = mpsc::channel(1);
        let max_age = Duration::from_secs(5);
        let mut desk = Desk {
            requests,
            answers,
            orders,
            wires: None,
            joined: true,
            waiting: VecDeque::new(),
            pending: Vec::new(),
            gatherer: Gatherer::new(64),
            outgoing: Some((b"first".to_vec(), Instant::now())),
            speed: None,
            asked: None,
            health: Health::new(),
            gather: Duration::ZERO,
            max_age,
            hold: Some(Duration::ZERO),
            remove_echo: false,
            tagged: None,
        };
        desk.gatherer.push(b"second", Instant::now());
        assert!(desk.wait().await);
        assert_eq!(taken.try_recv().unwrap(), b"first");
        assert!(desk.wait().await);
        // The place is taken; nobody asks anything.
        desk.gatherer.push(b"third", Instant::now());
        let begun = Instant::now();
        assert!(desk.wait().await);
        assert_eq!((begun.elapsed(), desk.health.status().dropped_answers), (max_age, 1));
        assert_eq!(taken.try_recv().unwrap(), b"second");
        ask.send(Request { bytes: b"?".to_vec(), at: Instant::now() }).await.unwrap();
        assert!(desk.wait().await && desk.wants_line());
        assert!(taken.try_recv().is_err());
    }
}
