//! The owner of one port: opens it, keeps the schedule, lets one meter speak at a time.
//!
//! Invariants: nobody else touches the port; what a person asks for goes before scheduled readings
//! (but not for ever), those before [`Background`] work; a slot that was missed is left out, never
//! caught up in a burst; a reading that failed or was not tried still gives a frame, so that a gap
//! is visible; silent meters never make one that answers late by more than one time limit; when the
//! channel of frames is full the bus waits, and slots pass by meanwhile. A clock that is set back
//! lets its slots come again, one that is set forward leaves slots out: at most a minute later the
//! schedule is that of the new time. Start with [`Bus`]; a [`Handle`] is the door for others.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::health::{Health, Outcome};
use super::{MeterError, Session};
use crate::model::{Frame, Timestamp, Value};
use crate::os::clock::Clock;
use crate::os::line::{Line, LineError, Speed};

mod background;
mod door;
mod holder;
mod lease;
mod member;
mod opener;
mod port;
mod schedule;

pub use background::{Background, Worked};
pub use door::{Borrowed, Handle, Inbox, LONGEST_LEASE, LeaseError};
pub(super) use door::{Inspection, Job, Reading};
pub use holder::{Hold, Owner, Purpose};
pub use member::Meter;
pub(super) use opener::Opener;
pub use port::Port;
use schedule::Next;

/// The wall clock is asked again at least this often, because it may be set at any time.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How often an idle line is looked at: is its adapter still there?
const LOOK: Duration = Duration::from_secs(2);
/// Background work that has nothing to do just now is not asked again sooner.
const SHORTEST_REST: Duration = Duration::from_millis(100);
/// So many jobs are done in a row while readings are due.
const JOBS_IN_A_ROW: u32 = 4;

/// Who had the line last, at which speed, and the silence that must follow.
struct Last {
    meter: usize,
    speed: Speed,
    guard: Duration,
}

/// Who is told how far a long order has come.
type Tell<'a> = &'a mut (dyn FnMut(u32, u32) + Send);

/// What a meter is given the line for.
enum Turn<'a> {
    Reading,
    Piece(&'a mut dyn Background),
    Order(&'a serde_json::Value, Tell<'a>, &'a mut Option<serde_json::Value>),
}

impl Turn<'_> {
    const fn purpose(&self) -> Purpose {
        match self {
            Self::Reading => Purpose::Reading,
            Self::Piece(_) => Purpose::Background,
            Self::Order(..) => Purpose::Order,
        }
    }
}

/// One port with its meters.
pub struct Bus {
    port: Port,
    meters: Vec<Meter>,
    line: Opener,
    clock: Clock,
    health: Health,
    background: Option<Box<dyn Background>>,
    last: Option<Last>,
    /// The last scheduled reading was answered.
    after_an_answer: bool,
    inbox: Inbox,
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("port", &self.port).field("meters", &self.meters).finish_non_exhaustive()
    }
}

/// Reads the meters of one port until nobody takes its frames any more: a [`Bus`] without
/// background work.
pub async fn run(
    port: Port,
    meters: Vec<Meter>,
    frames: mpsc::Sender<Frame>,
    inbox: Inbox,
    clock: Clock,
    health: Health,
) {
    Bus::new(port, meters, inbox, clock, health).run(frames).await;
}

/// Opens the port and reads one meter, for `weir read`.
///
/// # Errors
/// What the line or the meter said.
pub async fn read_once(port: &Port, meter: &mut Meter) -> Result<Vec<Value>, MeterError> {
    let read = read_over(port, meter).await;
    match read {
        Err(error)
            if error.must_reopen()
                && error.may_repeat()
                && !matches!(error, MeterError::Line(LineError::Open { .. })) =>
        {
            debug!(port = %port.name, %error, "the line had gone; it is opened again");
            read_over(port, meter).await
        }
        other => other,
    }
}

async fn read_over(port: &Port, meter: &mut Meter) -> Result<Vec<Value>, MeterError> {
    let mut line = port.open().await?;
    line.set_echo(meter.echo(port.echo));
    line.set_speed(meter.speed(port.speed))?;
    meter.session.read(&mut line).await
}

/// Opens the port and has one order carried out on a meter, for a protocol's own command.
///
/// # Errors
/// What the line or the meter said; [`MeterError::Order`] when the protocol has no such command.
pub async fn inspect_once(
    port: &Port,
    meter: &mut Meter,
    clock: &Clock,
    order: &serde_json::Value,
    progress: Tell<'_>,
) -> Result<serde_json::Value, MeterError> {
    let mut line = port.open().await?;
    line.set_echo(meter.echo(port.echo));
    line.set_speed(meter.speed(port.speed))?;
    meter.session.tell_time(clock);
    carry_out(meter.session.as_mut(), &mut line, order, progress).await
}

async fn carry_out(
    session: &mut dyn Session,
    line: &mut Line,
    order: &serde_json::Value,
    progress: Tell<'_>,
) -> Result<serde_json::Value, MeterError> {
    let inspector = session.inspector();
    let inspector =
        inspector.ok_or_else(|| MeterError::Order("the meter's protocol has no such command".to_owned()))?;
    let Some(mut far) = inspector.progress() else { return inspector.inspect(line, order).await };
    let mut work = inspector.inspect(line, order);
    loop {
        tokio::select! {
            result = &mut work => return result,
            Ok(()) = far.changed() => {
                let (done, all) = *far.borrow_and_update();
                progress(done, all);
            }
        }
    }
}

impl Bus {
    /// Makes the owner of a port; nothing is opened yet.
    pub fn new(port: Port, mut meters: Vec<Meter>, inbox: Inbox, clock: Clock, health: Health) -> Self {
        let start = clock.now();
        for (phase, meter) in (0u32..).zip(&mut meters) {
            meter.slots.begin(start, phase);
            meter.session.tell_time(&clock);
        }
        let line = Opener::new(inbox.tap.clone());
        Self { port, meters, line, clock, health, background: None, last: None, after_an_answer: false, inbox }
    }

    /// Lets somebody use the time between readings.
    #[must_use]
    pub fn with_background(mut self, background: Box<dyn Background>) -> Self {
        self.background = Some(background);
        self
    }

    /// Reads the meters until nobody takes the frames any more.
    ///
    /// The port is opened again with growing pauses (1 s to 30 s) when it is missing, and at once
    /// when its device comes. When `frames` is full the bus waits for a place. It may be dropped
    /// at any moment.
    pub async fn run(mut self, frames: mpsc::Sender<Frame>) {
        let jobs = self.inbox.jobs.clone();
        let mut jobs = jobs.lock().await;
        let mut jobs_open = true;
        let mut in_a_row = 0;
        loop {
            self.line.open_when_due(&self.port).await;
            if self.line.take_came_back() {
                self.hope();
            }
            let next = self.next();
            let due = !matches!(next, Next::Idle(_));
            if (!due || in_a_row < JOBS_IN_A_ROW)
                && let Ok(job) = jobs.try_recv()
            {
                in_a_row += 1;
                self.serve(job, &frames).await;
                continue;
            }
            in_a_row = 0;
            let idle = match next {
                Next::Idle(idle) => idle,
                Next::Nulls(_) | Next::Read(_) => {
                    let Some(frame) = self.scheduled(next).await else { continue };
                    if frames.send(frame).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            if self.fill_time().await {
                continue;
            }
            let background = self.background.as_ref().filter(|_| self.line.line.is_some());
            let rest = background.map_or(LONGEST_SLEEP, |b| b.idle().max(SHORTEST_REST));
            tokio::select! {
                job = jobs.recv(), if jobs_open => match job {
                    Some(job) => self.serve(job, &frames).await,
                    None => jobs_open = false,
                },
                () = frames.closed() => return,
                () = sleep(idle.min(rest).min(LONGEST_SLEEP)) => {}
                () = self.line.wait(), if self.line.line.is_none() => {}
                () = sleep(LOOK), if self.line.line.as_ref().is_some_and(|line| !line.is_tcp()) => {
                    self.line.close_if_gone(&self.port);
                }
            }
        }
    }

    /// What the schedule wants now.
    fn next(&mut self) -> Next {
        let now = self.clock.now();
        for meter in &mut self.meters {
            meter.slots.follow(now);
        }
        schedule::next(self.meters.iter().map(|m| &m.slots), now, self.after_an_answer)
    }

    async fn serve(&mut self, job: Job, frames: &mpsc::Sender<Frame>) {
        let Reading { meter, reply } = match job {
            Job::Lend(lease) => return self.lend(lease, frames).await,
            Job::Inspect(inspection) => return self.inspect(inspection).await,
            Job::Read(reading) => reading,
        };
        if reply.is_closed() {
            return;
        }
        let Some(index) = self.meters.iter().position(|m| m.name == meter) else {
            let names = self.meters.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
            let _ = reply.send(Err(format!("no meter \"{meter}\" on port {}; known: {names}", self.port.name)));
            return;
        };
        let result = self.read(index).await.unwrap_or(Err(MeterError::Line(LineError::Gone)));
        // Nobody waits any more: the person gave up, which is no fault.
        let _ = reply.send(result.map_err(|e| e.to_string()));
    }

    async fn inspect(&mut self, Inspection { meter, order, progress, reply }: Inspection) {
        if reply.is_closed() {
            return;
        }
        let Some(index) = self.meters.iter().position(|m| m.name == meter) else {
            let _ = reply.send(Err(format!("no meter \"{meter}\" on port {}", self.port.name)));
            return;
        };
        let mut answer = None;
        let mut tell = |done, all| {
            progress.send_replace((done, all));
        };
        let result = self.attempt(index, Turn::Order(&order, &mut tell, &mut answer)).await;
        let result = result.unwrap_or(Err(MeterError::Line(LineError::Gone)));
        if matches!(&result, Err(error) if error.must_reopen()) {
            self.line.close();
        }
        let _ = reply.send(result.map(|_| answer.unwrap_or_default()).map_err(|error| error.to_string()));
    }

    /// Does what the schedule wants; always gives a frame, with nulls when there is no answer.
    async fn scheduled(&mut self, next: Next) -> Option<Frame> {
        match next {
            Next::Idle(_) => None,
            Next::Nulls(index) => {
                let meter = self.meters.get_mut(index)?;
                self.health.not_asked(&meter.name);
                let frame = meter.nulls(self.clock.stamp());
                meter.slots.pass_unasked(frame.time.wall);
                Some(frame)
            }
            Next::Read(index) => {
                let result = self.read(index).await?;
                self.after_an_answer = self.meters.get(index).is_some_and(|m| m.slots.answers());
                let meter = self.meters.get_mut(index)?;
                let values = result.unwrap_or_else(|error| meter.session.absent(error.quality()));
                let frame = meter.frame(self.clock.stamp(), values);
                meter.slots.pass(frame.time.wall);
                Some(frame)
            }
        }
    }

    /// Lets the background do one piece; tells whether it did.
    async fn fill_time(&mut self) -> bool {
        let Some(mut background) = self.background.take() else { return false };
        let time_left = schedule::time_left(self.meters.iter().map(|m| &m.slots), self.clock.now());
        let name = if self.line.line.is_some() { background.next(time_left) } else { None };
        let index = name.and_then(|name| self.meters.iter().position(|m| m.name == name));
        if let Some(index) = index {
            let result = self.attempt(index, Turn::Piece(background.as_mut())).await;
            match &result {
                Some(Err(error)) if !error.may_repeat() && error.must_reopen() => self.line.close(),
                Some(Err(error)) if error.must_reopen() && self.line.line.is_some() => self.line.close_for_a_while(),
                _ => {}
            }
        }
        self.background = Some(background);
        index.is_some()
    }

    /// Reads one meter, counts and logs what came of it. A line that had gone (an idle TCP
    /// connection is often closed by the other side) is opened again and asked once more.
    async fn read(&mut self, index: usize) -> Option<Result<Vec<Value>, MeterError>> {
        let start = Instant::now();
        let mut result = self.attempt(index, Turn::Reading).await?;
        if matches!(&result, Err(e) if !e.may_repeat() && e.must_reopen()) {
            // The line is well; only a late answer must not be taken for another one, and no password be sent twice.
            self.line.close();
        } else if matches!(&result, Err(e) if e.must_reopen()) && self.line.failures == 0 {
            debug!(port = %self.port.name, "the line had gone; it is opened again");
            self.line.close();
            result = self.attempt(index, Turn::Reading).await?;
            // A line that could not be opened has said why, and waits already.
            if matches!(&result, Err(e) if e.must_reopen()) && self.line.line.is_some() {
                self.line.close_for_a_while();
            }
        }
        self.notice_silence(index, &result, start.elapsed());
        self.tell(index, &result);
        Some(result)
    }

    /// Gives a meter the line, at its speed and after the silence it needs.
    async fn attempt(&mut self, index: usize, turn: Turn<'_>) -> Option<Result<Vec<Value>, MeterError>> {
        self.line.open_when_due(&self.port).await;
        let identity = &self.meters.get(index)?.identity;
        let twins = self.meters.iter().enumerate().filter(|(i, m)| *i != index && m.identity == *identity);
        let late_until = twins.filter_map(|(_, m)| m.session.late_until()).max();
        let meter = self.meters.get_mut(index)?;
        let Some(line) = &mut self.line.line else {
            let reason = self.line.last_error.clone();
            return Some(Err(MeterError::Line(LineError::Open { endpoint: self.port.endpoint.to_string(), reason })));
        };
        let (speed, guard) = (meter.speed(self.port.speed), meter.session.guard().max(self.port.guard));
        let before = self.last.replace(Last { meter: index, speed, guard });
        let silence = before.filter(|b| b.meter != index).map_or(Duration::ZERO, |b| between(&b, speed, guard));
        sleep_until((line.last_byte() + silence).max(late_until.unwrap_or_else(Instant::now))).await;
        if let Err(error) = line.set_speed(speed) {
            return Some(Err(error.into()));
        }
        line.set_echo(meter.echo(self.port.echo));
        let held = self.inbox.holder.begin(Owner::new(turn.purpose(), &meter.name), None);
        let session = meter.session.as_mut();
        let result = match turn {
            Turn::Reading => session.read(line).await,
            Turn::Piece(background) => background.work(session, line).await.map(|()| Vec::new()),
            Turn::Order(order, tell, answer) => carry_out(session, line, order, tell).await.map(|told| {
                *answer = Some(told);
                Vec::new()
            }),
        };
        drop(held);
        let mut notes = line.take_notes();
        if matches!(result, Err(MeterError::Damaged(_) | MeterError::OutOfStep(_))) {
            notes.damaged = notes.damaged.max(1);
        }
        self.health.note(&meter.name, self.clock.now(), notes);
        if result.is_ok() {
            self.line.works();
        }
        Some(result)
    }

    /// A silent meter is asked less often. A TCP connection on which every meter fell silent may
    /// be dead without knowing it.
    fn notice_silence(&mut self, index: usize, result: &Result<Vec<Value>, MeterError>, took: Duration) {
        let all_were_silent = self.meters.iter().all(|m| !m.slots.answers());
        let Some(meter) = self.meters.get_mut(index) else { return };
        let silent = matches!(result, Err(error) if error.is_silence());
        let before = meter.slots.factor();
        match result {
            Err(error) if error.is_silence() => meter.slots.stayed_silent(took),
            // The port's fault, not the meter's.
            Err(MeterError::Line(_)) => {}
            _ => meter.slots.answered(),
        }
        let factor = meter.slots.factor();
        self.health.stretched(&meter.name, factor);
        if factor > before {
            info!(meter = %meter.name, factor, "the meter stays silent; it is asked less often until it answers");
        } else if factor < before {
            info!(meter = %meter.name, "the meter answers again and is asked as often as configured");
        }
        if all_were_silent && meter.slots.answers() {
            // It was the cable or its supply, and that is mended.
            self.hope();
        }
        self.line.silent = if silent { self.line.silent + 1 } else { 0 };
        let is_tcp = self.line.line.as_ref().is_some_and(Line::is_tcp);
        if is_tcp && self.line.silent >= self.meters.len().max(1) {
            debug!(port = %self.port.name, "nothing is heard on the connection; it is opened again");
            self.line.silent = 0;
            self.line.close();
        }
    }

    /// What kept meters silent may be over: none is left alone for long.
    fn hope(&mut self) {
        for meter in self.meters.iter_mut().filter(|m| m.slots.factor() > 1) {
            meter.slots.hope();
            self.health.stretched(&meter.name, 1);
        }
    }

    /// Logs a failure when it begins or changes its kind, and its end; counts every one.
    fn tell(&mut self, index: usize, result: &Result<Vec<Value>, MeterError>) {
        let Some(meter) = self.meters.get_mut(index) else { return };
        let outcome = Outcome::of(result);
        let failed_before = self.health.count(&meter.name, self.clock.now(), &outcome);
        // The port's own sentence was logged; its meters would only repeat it.
        let port_is_missing = matches!(result, Err(MeterError::Line(LineError::Open { .. })));
        match outcome {
            Outcome::Good => {
                if meter.told.take().is_some() {
                    info!(meter = %meter.name, failed_readings = failed_before, "the meter is read again");
                }
            }
            Outcome::Bad(quality, sentence) if meter.told.is_none() && !port_is_missing => {
                meter.told = Some(quality);
                warn!(meter = %meter.name, port = %self.port.name, error = %sentence, "the meter was not read completely");
            }
            Outcome::Bad(_, sentence) => {
                debug!(meter = %meter.name, error = %sentence, failed_readings = failed_before + 1, "the meter is still not read completely");
            }
        }
    }
}

/// The silence between one meter and another: what either needs, and four characters of the
/// slower speed when the speed changes, so that nobody takes the end of one for the start of the
/// other.
fn between(before: &Last, speed: Speed, guard: Duration) -> Duration {
    let change = if before.speed == speed { Duration::ZERO } else { before.speed.time_of(4).max(speed.time_of(4)) };
    before.guard.max(guard).max(change)
}

/// The time until the next slot of any meter.
fn until_slot(meters: &[Meter], now: Timestamp) -> Duration {
    meters.iter().map(|m| m.slots.until(now)).min().unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
}

/// Gives the nulls of every slot that is due, while nobody can be asked; what finds no place in
/// the channel is left out, as a missed slot is.
fn give_nulls(meters: &mut [Meter], clock: &Clock, health: &Health, frames: &mpsc::Sender<Frame>) {
    let time = clock.stamp();
    for meter in meters {
        meter.slots.follow(time.wall);
        if meter.slots.until(time.wall).is_zero() {
            health.not_asked(&meter.name);
            let _ = frames.try_send(meter.nulls(time));
            meter.slots.pass(time.wall);
        }
    }
}

#[cfg(test)]
mod tests;
