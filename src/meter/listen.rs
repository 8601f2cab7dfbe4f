//! The owner of a port whose meter sends by itself: hears everything, publishes the last reading
//! of each interval.
//!
//! Invariants: nobody else touches the port; however often the meter sends, one frame leaves per
//! interval, stamped with the time at which its message was heard; an interval in which nothing
//! right was heard gives a frame with nulls, unless the meter sends as seldom as its interval and the
//! next message is not overdue. When the channel of frames is full it goes on hearing, and intervals
//! pass by meanwhile. A clock that is set moves the intervals as it moves the bus's slots. A meter
//! whose key file is missing gives nulls with that reason until it is there. Start with [`run`].

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use super::bus::{Inbox, Job, LONGEST_SLEEP, LeaseError, Opener, Owner, Port, Purpose};
use super::health::{Health, Outcome};
use super::heard::Wishes;
use super::{Kept, Listener, MeterError, MeterSettings, Protocol, protocol};
use crate::model::{Body, Frame, Lane, Quality, Reading, Stamp, Timestamp, Value};
use crate::os::clock::Clock;
use crate::os::line::{Line, LineError};

/// An older reading is not shown as the present one.
const FRESH: Duration = Duration::from_mins(2);
/// Two messages so close are one that came twice.
const COPY: Duration = Duration::from_secs(2);
/// A file that a meter's messages can't be understood without is looked for again after this time.
const LOOK: Duration = Duration::from_secs(10);
/// A TCP connection on which nothing came for so long may be dead without knowing it.
const DEAD: Duration = Duration::from_secs(60);

/// A meter that sends by itself.
pub struct Meter {
    name: String,
    every: Duration,
    row: &'static Protocol,
    settings: MeterSettings,
    /// What understands it, or one sentence that says why nothing does: a key file that is not there yet.
    listener: Result<Box<dyn Listener>, String>,
    kept: Option<Kept>,
    /// What outlived a restart was taken over.
    taken_over: bool,
    /// It was logged that nothing can be kept.
    keep_told: bool,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Meter {
    /// Makes a meter and its listener. Without the files that it needs it is made all the same: it gives nulls then,
    /// and looks for them again.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the settings; `check` says it with its place.
    pub fn new(settings: &MeterSettings) -> Result<Self, String> {
        let row = protocol(&settings.protocol).ok_or_else(|| {
            format!("protocol \"{}\" of meter \"{}\" is not known to this build", *settings.protocol, *settings.name)
        })?;
        let listener = row.listener(settings);
        match listener {
            Err(reason) if !row.listens() => Err(reason),
            listener => Ok(Self {
                name: settings.name.to_string(),
                every: *settings.every,
                row,
                settings: settings.clone(),
                listener,
                kept: None,
                taken_over: false,
                keep_told: false,
            }),
        }
    }

    /// The values of a reading in which nothing was understood.
    fn absent(&self, quality: Quality) -> Vec<Value> {
        match &self.listener {
            Ok(listener) => listener.absent(quality),
            Err(_) => Wishes::new(&self.settings).absent(quality),
        }
    }

    /// The longest pause inside a message.
    fn pause(&self) -> Duration {
        self.listener.as_ref().map_or(LOOK, |listener| listener.pause())
    }

    /// Keeps what must outlive a restart in this folder.
    #[must_use]
    pub fn kept_in(mut self, folder: &Path) -> Self {
        self.kept = Some(Kept::new(folder));
        self
    }

    /// What it is kept under.
    fn kept_name(&self) -> String {
        format!("heard {}", self.name)
    }

    /// Takes over what outlived a restart, once there is who understands it.
    async fn take_over(&mut self) {
        let name = self.kept_name();
        let (Some(kept), Ok(listener), false) = (&self.kept, &mut self.listener, self.taken_over) else { return };
        self.taken_over = true;
        match kept.load(&name).await {
            Ok(content) => content.iter().for_each(|content| listener.take_over(content)),
            Err(error) => {
                warn!(meter = %self.name, %error, "what is known of earlier messages can't be read; replays of them may pass");
            }
        }
    }

    /// Keeps what has changed; before a reading is handed on, so that none of it is ever handed on again.
    async fn keep(&mut self) {
        let name = self.kept_name();
        let (Some(kept), Ok(listener)) = (&self.kept, &mut self.listener) else { return };
        let Some(content) = listener.to_keep() else { return };
        if let Err(error) = kept.store(&name, content).await
            && !std::mem::replace(&mut self.keep_told, true)
        {
            warn!(meter = %self.name, %error, "what is known of messages can't be kept; after a restart replays may pass");
        }
    }
}

/// Hears the meter of one port until nobody takes its frames any more.
///
/// The port is opened again with growing pauses when it is missing. It may be dropped at any
/// moment. Who asks at the door gets the newest reading; the line itself is not lent.
pub async fn run(port: Port, meter: Meter, frames: mpsc::Sender<Frame>, inbox: Inbox, clock: Clock, health: Health) {
    let mut opener = Opener::new(inbox.tap.clone());
    let mut jobs = inbox.jobs.lock().await;
    let _held = inbox.holder.begin(Owner::new(Purpose::Listening, &meter.name), None);
    let mut post = Post::new(port, meter, clock, health);
    let mut ready = None;
    let mut buffer = [0; 1024];
    // Kept over the turns: who asks anew for a place stands at the end of the queue again.
    let mut place = std::pin::pin!(frames.reserve());
    loop {
        opener.open_when_due(&post.port).await;
        post.look();
        post.meter.take_over().await;
        if ready.is_none() {
            ready = post.due(&mut opener);
        }
        let pause = post.pause_ends();
        tokio::select! {
            given = &mut place, if ready.is_some() => match (given, ready.take()) {
                (Ok(given), Some(frame)) => {
                    post.meter.keep().await;
                    given.send(frame);
                    place.set(frames.reserve());
                }
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
    meter.take_over().await;
    let pause = meter.pause();
    let listener = meter.listener.as_mut().map_err(|reason| MeterError::Unasked(reason.clone()))?;
    let mut line = port.open().await?;
    let give_up = Instant::now() + patience;
    let mut buffer = [0; 1024];
    let mut last = None;
    loop {
        let until = (Instant::now() + pause).min(give_up);
        let found = match line.receive(&mut buffer, until).await {
            Ok(count) => listener.push(buffer.get(..count).unwrap_or_default()),
            Err(LineError::Silent(_)) => listener.silence(),
            Err(error) => return Err(error.into()),
        };
        for result in found {
            match result {
                Ok(values) => {
                    meter.keep().await;
                    return Ok(values);
                }
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

/// A message that could be read.
#[derive(Clone)]
struct Heard {
    at: Instant,
    time: Stamp,
    values: Vec<Value>,
    outcome: Outcome,
}

/// What is known about the meter between two frames.
struct Post {
    port: Port,
    meter: Meter,
    clock: Clock,
    health: Health,
    due: Timestamp,
    /// The newest message that could be read, also when it was published.
    newest: Option<Heard>,
    /// It came in this interval.
    fresh: bool,
    /// The time between the last two messages.
    gap: Option<Duration>,
    /// How often the meter sends, once two gaps have agreed on it.
    period: Duration,
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
    /// When what the listener needs is looked for again.
    next_look: Instant,
    /// It was told that it can't be understood.
    told_why: bool,
}

impl Post {
    fn new(port: Port, meter: Meter, clock: Clock, health: Health) -> Self {
        Self {
            due: clock.now().next_aligned(meter.every),
            port,
            meter,
            clock,
            health,
            newest: None,
            fresh: false,
            gap: None,
            period: Duration::ZERO,
            damage: None,
            heard: None,
            bytes: 0,
            told: None,
            failed: 0,
            next_look: Instant::now(),
            told_why: false,
        }
    }

    /// Looks whether the files are there that the meter can't be understood without.
    fn look(&mut self) {
        if self.meter.listener.is_ok() || Instant::now() < self.next_look {
            return;
        }
        self.next_look = Instant::now() + LOOK;
        self.meter.listener = self.meter.row.listener(&self.meter.settings);
        let (meter, port) = (&self.meter.name, &self.port.name);
        match &self.meter.listener {
            Ok(_) if self.told_why => info!(%meter, %port, "the meter can be understood now"),
            Ok(_) => {}
            Err(reason) if self.told_why => debug!(%meter, error = %reason, "the meter still can't be understood"),
            Err(reason) => {
                error!(%meter, %port, error = %reason, "the meter can't be understood; its readings are nulls until that is put right");
                let (now, sentence) = (self.clock.now(), reason.clone());
                self.health.update(meter, |health| health.last_error = Some((now, sentence)));
                self.told_why = true;
            }
        }
        self.told_why &= self.meter.listener.is_err();
    }

    /// How long a message counts as the present one, however often frames leave.
    fn lasts(&self) -> Duration {
        self.period * 5 / 4
    }

    fn idle_time(&self) -> Duration {
        self.due.since(self.clock.now()).min(LONGEST_SLEEP)
    }

    /// When the silence after the last bytes is a pause between messages.
    fn pause_ends(&self) -> Instant {
        self.heard.map_or_else(|| Instant::now() + LONGEST_SLEEP, |heard| heard + self.meter.pause())
    }

    fn take(&mut self, bytes: &[u8]) {
        self.heard = Some(Instant::now());
        self.bytes = self.bytes.saturating_add(bytes.len());
        if let Ok(listener) = &mut self.meter.listener {
            let found = listener.push(bytes);
            self.keep(found);
        }
    }

    fn silence(&mut self) {
        if self.heard.take().is_some()
            && let Ok(listener) = &mut self.meter.listener
        {
            let found = listener.silence();
            self.keep(found);
        }
    }

    fn keep(&mut self, found: Vec<Result<Vec<Value>, MeterError>>) {
        for result in found {
            let outcome = Outcome::of(&result);
            let time = self.clock.stamp();
            self.health.count(&self.meter.name, time.wall, &outcome);
            match result {
                Ok(values) => self.notice(Heard { at: Instant::now(), time, values, outcome }),
                Err(error) => {
                    debug!(meter = %self.meter.name, %error, "a message was not understood");
                    self.damage = Some(error);
                }
            }
        }
    }

    /// Keeps a message, and learns how often they come.
    fn notice(&mut self, heard: Heard) {
        let gap = self.newest.as_ref().map(|newest| heard.at.saturating_duration_since(newest.at));
        if let Some(gap) = gap.filter(|gap| *gap >= COPY) {
            let before = self.gap.replace(gap).unwrap_or_default();
            if before.max(gap) <= before.min(gap) * 5 / 4 {
                self.period = before.max(gap);
            }
        }
        self.newest = Some(heard);
        self.fresh = true;
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
        let damage = self.damage.take();
        let silent = std::mem::take(&mut self.bytes) == 0;
        let fresh = std::mem::take(&mut self.fresh);
        // The next message of a meter that sends as seldom as this is only due a little later.
        let is_present = |heard: &&Heard| fresh || (damage.is_none() && heard.at.elapsed() <= self.lasts());
        let last =
            self.newest.as_ref().filter(is_present).cloned().map(|heard| (heard.time, heard.values, heard.outcome));
        let (time, values, outcome) = last.unwrap_or_else(|| {
            let outcome = match (&self.meter.listener, &damage) {
                (Err(reason), _) => Outcome::Bad(Quality::Invalid, reason.clone()),
                (Ok(_), Some(error)) => Outcome::Bad(error.quality(), error.to_string()),
                (Ok(_), None) => self.nothing(silent, opener),
            };
            let quality = if let Outcome::Bad(quality, _) = outcome { quality } else { Quality::NoAnswer };
            (self.clock.stamp(), self.meter.absent(quality), outcome)
        });
        // A damaged message was counted when it came.
        if damage.is_none() && !fresh && outcome != Outcome::Good {
            self.health.count(&self.meter.name, time.wall, &outcome);
        }
        self.tell(&outcome, opener.line.is_some() && self.meter.listener.is_ok());
        let dead = |line: &Line| line.is_tcp() && line.last_byte().elapsed() >= DEAD;
        if silent && opener.line.as_ref().is_some_and(dead) {
            debug!(port = %self.port.name, "nothing is heard on the connection; it is opened again");
            opener.close();
        }
        let reading = Reading { meter: self.meter.name.clone(), values };
        Some(Frame { time, lane: Lane::Ordinary, body: Body::Reading(reading), origin: None })
    }

    /// Answers who asks at the door.
    fn serve(&mut self, job: Job) {
        self.next_look = Instant::now();
        self.look();
        match job {
            Job::Read(reading) => {
                let fresh = FRESH.max(self.lasts());
                let answer = match (&self.meter.listener, &self.newest) {
                    _ if reading.meter != self.meter.name => Err(format!(
                        "no meter \"{}\" on port {}; known: {}",
                        reading.meter, self.port.name, self.meter.name
                    )),
                    (Err(reason), _) => Err(format!("meter \"{}\" can't be understood: {reason}", self.meter.name)),
                    (_, Some(heard)) if heard.at.elapsed() < fresh => Ok(heard.values.clone()),
                    (_, Some(heard)) => Err(format!(
                        "nothing was heard of meter \"{}\" for {} s",
                        self.meter.name,
                        heard.at.elapsed().as_secs()
                    )),
                    (_, None) => Err(format!("nothing was heard of meter \"{}\" yet", self.meter.name)),
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
    fn tell(&mut self, outcome: &Outcome, is_news: bool) {
        match outcome {
            Outcome::Good => {
                if self.told.take().is_some() {
                    info!(meter = %self.meter.name, failed_intervals = self.failed, "the meter is heard again");
                }
                self.failed = 0;
            }
            // The sentence of a missing port or key was logged; its meter would only repeat it.
            Outcome::Bad(quality, sentence) if self.told.is_none() && is_news => {
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
