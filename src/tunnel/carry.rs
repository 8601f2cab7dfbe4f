//! Carries bytes between a lent line and the platform until the line is gone or was silent for long.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::gather::{Echoes, Gatherer};
use super::{Health, Order, Request};
use crate::os::line::{Line, Speed};

/// What a tunnel works with while it has the line; it outlives the lease.
pub(super) struct Desk {
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) answers: mpsc::Sender<Vec<u8>>,
    pub(super) orders: mpsc::Receiver<Order>,
    /// What was asked for while there was no line.
    pub(super) waiting: VecDeque<Request>,
    /// What waits to be written to the line.
    pub(super) pending: Vec<u8>,
    /// The speed that somebody asked for; the port's own until then.
    pub(super) speed: Option<Speed>,
    pub(super) health: Health,
    pub(super) gather: Duration,
    pub(super) largest: usize,
    pub(super) max_age: Duration,
    /// `None`: the line is nobody else's.
    pub(super) hold: Option<Duration>,
    pub(super) remove_echo: bool,
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

/// What moved on the line.
pub(super) enum Moved {
    Read(usize),
    Wrote(usize),
}

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
        if !self.is_stale(&request) {
            self.health.change(|status| status.requests += 1);
            self.pending.extend_from_slice(&request.bytes);
        }
    }

    /// Without a line, waits for a request or an order; false when none will come.
    pub(super) async fn wait(&mut self) -> bool {
        tokio::select! {
            request = self.requests.recv() => request.is_some_and(|request| {
                self.waiting.push_back(request);
                true
            }),
            order = self.orders.recv() => order.is_some_and(|order| {
                match order {
                    Order::Speed(speed, reply) => {
                        self.speed = Some(speed);
                        let _ = reply.send(Ok(()));
                    }
                    Order::CallBack { reply, .. } => drop(reply.send(Err(super::NO_CALLS.to_owned()))),
                }
                true
            }),
        }
    }

    /// There is no line: what waits for it is dropped, so that the next request finds a place.
    pub(super) fn drop_waiting(&mut self) {
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
        self.pending.clear();
        ended
    }

    async fn relay(&mut self, line: &mut Line) -> Ended {
        if let Some(Err(error)) = self.speed.map(|speed| line.set_speed(speed)) {
            return Ended::LineGone(error.to_string());
        }
        while let Some(request) = self.waiting.pop_front() {
            self.accept(request);
        }
        let mut gatherer = Gatherer::new(self.largest);
        let mut echoes = Echoes::default();
        let mut buffer = vec![0; 4096];
        let mut busy = Instant::now();
        loop {
            // 3.5 characters: a frame of Modbus RTU is never cut, whatever the settings say.
            let gap = self.gather.max(line.speed().time_of(7) / 2);
            let due = gatherer.due(gap);
            let idle = self.hold.filter(|_| due.is_none() && self.pending.is_empty()).map(|hold| busy + hold);
            let room = gatherer.room().min(buffer.len());
            let may_take = self.pending.len() < MOST_PENDING;
            tokio::select! {
                biased;
                () = sleep_until(due.unwrap_or(busy)), if due.is_some_and(|due| due <= Instant::now()) => {
                    if !self.answer(gatherer.take()).await {
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
                        Ok(Moved::Read(count)) => {
                            let came = buffer.get(..count).unwrap_or_default();
                            let echoed = if self.remove_echo { echoes.strip(came) } else { 0 };
                            gatherer.push(came.get(echoed..).unwrap_or_default(), busy);
                        }
                        Ok(Moved::Wrote(count)) => {
                            if self.remove_echo {
                                echoes.sent(self.pending.get(..count).unwrap_or_default());
                            }
                            self.pending.drain(..count);
                            self.health.change(|status| status.to_port += count as u64);
                        }
                    }
                }
                request = self.requests.recv(), if may_take => match request {
                    Some(request) => {
                        busy = Instant::now();
                        self.accept(request);
                    }
                    None => return Ended::Closed,
                },
                () = sleep_until(due.unwrap_or(busy)), if due.is_some() => {}
                () = sleep_until(idle.unwrap_or(busy)), if idle.is_some() => return Ended::Idle,
            }
        }
    }

    /// Hands a message over. False when nobody takes messages any more.
    async fn answer(&mut self, message: Vec<u8>) -> bool {
        let bytes = message.len() as u64;
        match tokio::time::timeout(self.max_age, self.answers.send(message)).await {
            Ok(Ok(())) => self.health.change(|status| {
                status.answers += 1;
                status.from_port += bytes;
            }),
            Ok(Err(_)) => return false,
            Err(_elapsed) => self.health.change(|status| status.dropped_answers += 1),
        }
        true
    }

    fn obey(&mut self, order: Order, line: &mut Line) {
        let (speed, reply) = match order {
            Order::Speed(speed, reply) => (speed, reply),
            Order::CallBack { reply, .. } => return drop(reply.send(Err(super::NO_CALLS.to_owned()))),
        };
        let done = line.set_speed(speed).map_err(|error| error.to_string());
        if done.is_ok() {
            self.speed = Some(speed);
        }
        // Nobody waits any more: that is their affair.
        let _ = reply.send(done);
    }
}

/// Reads what is there, else writes what waits; returns when either moved.
pub(super) async fn move_bytes(line: &mut Line, pending: &[u8], buffer: &mut [u8]) -> io::Result<Moved> {
    let mut read = ReadBuf::new(buffer);
    poll_fn(|cx: &mut Context<'_>| {
        if read.remaining() > 0 {
            match Pin::new(&mut *line).poll_read(cx, &mut read) {
                Poll::Ready(done) => return Poll::Ready(done.map(|()| Moved::Read(read.filled().len()))),
                Poll::Pending => {}
            }
        }
        if pending.is_empty() {
            return Poll::Pending;
        }
        Pin::new(&mut *line).poll_write(cx, pending).map(|done| done.map(Moved::Wrote))
    })
    .await
}
