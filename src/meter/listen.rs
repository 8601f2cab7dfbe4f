//! The owner of a port whose meter sends by itself: hears everything, publishes the last reading
//! of each interval.
//!
//! Invariants: nobody else touches the port; however often the meter sends, one frame leaves per
//! interval, stamped with the time at which its message was heard; an interval in which nothing
//! right was heard gives a frame with nulls. When the channel of frames is full it goes on
//! hearing, and intervals pass by meanwhile. A clock that is set moves the intervals as it moves the
//! bus's slots. Start with [`run`].

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::bus::{Inbox, Job, LONGEST_SLEEP, LeaseError, Opener, Port};
use super::health::{Health, Outcome};
use super::{Listener, MeterError, MeterSettings, protocol};
use crate::model::{Body, Frame, Lane, Quality, Reading, Stamp, Timestamp, Value};
use crate::os::clock::Clock;
use crate::os::line::{Line, LineError};

/// An older reading is not shown as the present one.
const FRESH: Duration = Duration::from_mins(2);
/// The longest gap between two characters of one message (IEC 62056-21, clause 6.4.3).
const PAUSE: Duration = Duration::from_millis(1500);

/// A TCP connection on which nothing came for so long may be dead without knowing it.
const DEAD: Duration = Duration::from_secs(60);

/// A meter that sends by itself.
pub struct Meter {
    name: String,
    every: Duration,
    listener: Box<dyn Listener>,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Meter {
    /// Makes a meter and its listener.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the settings; `check` says it with its place.
    pub fn new(settings: &MeterSettings) -> Result<Self, String> {
        let row = protocol(&settings.protocol).ok_or_else(|| {
            format!("protocol \"{}\" of meter \"{}\" is not known to this build", *settings.protocol, *settings.name)
        })?;
        Ok(Self { name: settings.name.to_string(), every: *settings.every, listener: row.listener(settings)? })
    }
}

/// Hears the meter of one port until nobody takes its frames any more.
///
/// The port is opened again with growing pauses when it is missing. It may be dropped at any
/// moment. Who asks at the door gets the newest reading; the line itself is not lent.
pub async fn run(port: Port, meter: Meter, frames: mpsc::Sender<Frame>, inbox: Inbox, clock: Clock, health: Health) {
    let mut opener = Opener::new(inbox.tap.clone());
    let mut jobs = inbox.jobs.lock().await;
    let mut post = Post::new(port, meter, clock, health);
    let mut ready = None;
    let mut buffer = [0; 1024];
    loop {
        opener.open_when_due(&post.port).await;
        if ready.is_none() {
            ready = post.due(&mut opener);
        }
        let pause = post.pause_ends();
        tokio::select! {
            place = frames.reserve(), if ready.is_some() => match (place, ready.take()) {
                (Ok(place), Some(frame)) => place.send(frame),
                _ => return,
            },
            () = frames.closed() => return,
            heard = hear(&mut opener, &mut buffer, pause) => match heard {
                None => {}
                Some(Ok(count)) => {
                    opener.works();
                    post.take(buffer.get(..count).unwrap_or_default());
                }
                Some(Err(LineError::Silent(_))) => post.silence(),
                Some(Err(error)) => {
                    debug!(port = %post.port.name, %error, "the line had gone; it is opened again");
                    post.silence();
                    opener.close_for_a_while();
                }
            },
            Some(job) = jobs.recv() => post.serve(job),
            () = sleep(post.idle_time()), if ready.is_none() => {}
        }
    }
}

/// Opens the port and waits for one message, for `weir read`.
///
/// # Errors
/// What the line said; [`LineError::Silent`] when no message was right within `patience`.
pub async fn read_once(port: &Port, meter: &mut Meter, patience: Duration) -> Result<Vec<Value>, MeterError> {
    let mut line = port.open().await?;
    let give_up = Instant::now() + patience;
    let mut buffer = [0; 1024];
    let mut last = None;
    loop {
        let until = (Instant::now() + PAUSE).min(give_up);
        let found = match line.receive(&mut buffer, until).await {
            Ok(count) => meter.listener.push(buffer.get(..count).unwrap_or_default()),
            Err(LineError::Silent(_)) => meter.listener.silence(),
            Err(error) => return Err(error.into()),
        };
        for result in found {
            match result {
                Ok(values) => return Ok(values),
                Err(error) => last = Some(error),
            }
        }
        if Instant::now() >= give_up {
            return Err(last.unwrap_or(MeterError::Line(LineError::Silent(patience))));
        }
    }
}

/// The next bytes, or that none came until `pause`; `None` after the time to open the line again.
async fn hear(opener: &mut Opener, buffer: &mut [u8], pause: Instant) -> Option<Result<usize, LineError>> {
    if let Some(line) = &mut opener.line {
        return Some(line.receive(buffer, pause).await);
    }
    opener.wait().await;
    None
}

/// What is known about the meter between two frames.
struct Post {
    port: Port,
    meter: Meter,
    clock: Clock,
    health: Health,
    due: Timestamp,
    /// The last message that could be read, and when.
    last: Option<(Stamp, Vec<Value>, Outcome)>,
    /// The newest reading, also when it was published.
    newest: Option<(Instant, Vec<Value>)>,
    /// Why the last message that could not be read was not.
    damage: Option<MeterError>,
    /// When something came that was not followed by a pause yet.
    heard: Option<Instant>,
    /// Bytes heard in this interval.
    bytes: usize,
    /// The quality of the failure that was logged.
    told: Option<Quality>,
    /// Intervals that failed since it was logged.
    failed: u64,
}

impl Post {
    fn new(port: Port, meter: Meter, clock: Clock, health: Health) -> Self {
        let due = clock.now().next_aligned(meter.every);
        let (last, newest, damage, heard, told) = (None, None, None, None, None);
        Self { port, meter, clock, health, due, last, newest, damage, heard, bytes: 0, told, failed: 0 }
    }

    fn idle_time(&self) -> Duration {
        self.due.since(self.clock.now()).min(LONGEST_SLEEP)
    }

    /// When the silence after the last bytes is a pause between messages.
    fn pause_ends(&self) -> Instant {
        self.heard.map_or_else(|| Instant::now() + LONGEST_SLEEP, |heard| heard + PAUSE)
    }

    fn take(&mut self, bytes: &[u8]) {
        self.heard = Some(Instant::now());
        self.bytes = self.bytes.saturating_add(bytes.len());
        let found = self.meter.listener.push(bytes);
        self.keep(found);
    }

    fn silence(&mut self) {
        if self.heard.take().is_some() {
            let found = self.meter.listener.silence();
            self.keep(found);
        }
    }

    fn keep(&mut self, found: Vec<Result<Vec<Value>, MeterError>>) {
        for result in found {
            let outcome = Outcome::of(&result);
            let time = self.clock.stamp();
            self.health.count(&self.meter.name, time.wall, &outcome);
            match result {
                Ok(values) => {
                    self.newest = Some((Instant::now(), values.clone()));
                    self.last = Some((time, values, outcome));
                }
                Err(error) => {
                    debug!(meter = %self.meter.name, %error, "a message was not understood");
                    self.damage = Some(error);
                }
            }
        }
    }

    /// The frame of the interval that has ended, if one has. A clock that was set back moves the
    /// intervals with it.
    fn due(&mut self, opener: &mut Opener) -> Option<Frame> {
        let now = self.clock.now();
        self.due = self.due.min(now.next_aligned(self.meter.every).max(now));
        if self.due > now {
            return None;
        }
        self.due = now.next_aligned(self.meter.every);
        let (last, damage) = (self.last.take(), self.damage.take());
        let silent = std::mem::take(&mut self.bytes) == 0;
        let (time, values, outcome) = last.unwrap_or_else(|| {
            let time = self.clock.stamp();
            let outcome = match &damage {
                Some(error) => Outcome::Bad(error.quality(), error.to_string()),
                None => self.nothing(silent, opener),
            };
            let quality = damage.as_ref().map_or(Quality::NoAnswer, MeterError::quality);
            (time, self.meter.listener.absent(quality), outcome)
        });
        if damage.is_none() && matches!(outcome, Outcome::Bad(Quality::NoAnswer, _)) {
            self.health.count(&self.meter.name, time.wall, &outcome);
        }
        self.tell(&outcome, opener.line.is_some());
        let dead = |line: &Line| line.is_tcp() && line.last_byte().elapsed() >= DEAD;
        if silent && opener.line.as_ref().is_some_and(dead) {
            debug!(port = %self.port.name, "nothing is heard on the connection; it is opened again");
            opener.close();
        }
        let reading = Reading { meter: self.meter.name.clone(), values };
        Some(Frame { time, lane: Lane::Ordinary, body: Body::Reading(reading), origin: None })
    }

    /// Answers who asks at the door.
    fn serve(&self, job: Job) {
        match job {
            Job::Read(reading) => {
                let answer = match &self.newest {
                    _ if reading.meter != self.meter.name => Err(format!(
                        "no meter \"{}\" on port {}; known: {}",
                        reading.meter, self.port.name, self.meter.name
                    )),
                    Some((heard, values)) if heard.elapsed() < FRESH => Ok(values.clone()),
                    Some((heard, _)) => Err(format!(
                        "nothing was heard of meter \"{}\" for {} s",
                        self.meter.name,
                        heard.elapsed().as_secs()
                    )),
                    None => Err(format!("nothing was heard of meter \"{}\" yet", self.meter.name)),
                };
                // Nobody waits any more: the person gave up, which is no fault.
                let _ = reading.reply.send(answer);
            }
            Job::Inspect(inspection) => {
                let _ = inspection
                    .reply
                    .send(Err(format!("meter \"{}\" sends by itself and can't be asked", inspection.meter)));
            }
            Job::Lend(lease) => {
                let sentence = format!("port {} belongs to a meter that sends by itself", self.port.name);
                let _ = lease.ended.send(LeaseError::NoLine(sentence));
            }
        }
    }

    /// Why there is no message at all.
    fn nothing(&self, silent: bool, opener: &Opener) -> Outcome {
        let sentence = if opener.line.is_none() {
            format!("cannot open {}: {}", self.port.endpoint, opener.last_error)
        } else if silent {
            "nothing was heard; does the meter send, is the request line high, is the speed right?".to_owned()
        } else {
            "what was heard is no complete message; are protocol, speed and polarity right?".to_owned()
        };
        Outcome::Bad(Quality::NoAnswer, sentence)
    }

    /// Logs a failure when it begins or changes its kind, and its end.
    fn tell(&mut self, outcome: &Outcome, port_is_open: bool) {
        match outcome {
            Outcome::Good => {
                if self.told.take().is_some() {
                    info!(meter = %self.meter.name, failed_intervals = self.failed, "the meter is heard again");
                }
                self.failed = 0;
            }
            // The port's own sentence was logged; its meter would only repeat it.
            Outcome::Bad(quality, sentence) if self.told.is_none() && port_is_open => {
                self.told = Some(*quality);
                self.failed += 1;
                warn!(meter = %self.meter.name, port = %self.port.name, error = %sentence, "the meter was not heard completely");
            }
            Outcome::Bad(_, sentence) => {
                self.failed += 1;
                debug!(meter = %self.meter.name, error = %sentence, failed_intervals = self.failed, "the meter is still not heard completely");
            }
        }
    }
}

#[cfg(test)]
mod tests;
