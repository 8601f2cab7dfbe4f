//! The owner of one port: opens it, keeps the schedule, lets one meter speak at a time.
//!
//! Invariants: nobody else touches the port; a slot that was missed is left out, never caught
//! up in a burst; a reading that failed still gives a frame, so that a gap is visible; when the
//! channel of frames is full the bus waits, and slots pass by meanwhile. A clock that is set back
//! lets its slots come again, one that is set forward leaves slots out: at most a minute later the
//! schedule is that of the new time. Start with [`run`].

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error, info, warn};

use super::health::{Health, Outcome};
use super::{MeterError, MeterSettings, PortSettings, Rs485Direction, Session, protocol};
use crate::model::{Body, Frame, Lane, Quality, Reading, Timestamp, Value};
use crate::os::clock::Clock;
use crate::os::line::{Direction, Endpoint, Line, LineError, Speed};

/// The wall clock is asked again at least this often, because it may be set at any time.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A port that meters hang on.
#[derive(Debug, Clone)]
pub struct Port {
    /// Its name in weir.toml.
    pub name: String,
    /// Where it leads.
    pub endpoint: Endpoint,
    /// Its speed at the start of each reading.
    pub speed: Speed,
    /// Who turns the transceiver around.
    pub direction: Direction,
}

impl Port {
    /// Makes a port of its settings and the place its name stands for.
    pub fn new(settings: &PortSettings, endpoint: Endpoint) -> Self {
        let direction = match settings.rs485.direction {
            Rs485Direction::Kernel => Direction::Kernel(crate::os::line::Turnaround::default()),
            Rs485Direction::Auto | Rs485Direction::None => Direction::Automatic,
        };
        let speed = Speed { baud: settings.baud.value(), framing: settings.framing };
        Self { name: settings.name.to_string(), endpoint, speed, direction }
    }

    async fn open(&self) -> Result<Line, LineError> {
        Line::open(&self.endpoint, self.speed, self.direction).await
    }
}

/// A meter on a port.
pub struct Meter {
    name: String,
    every: Duration,
    /// Protocol and address: two entries with the same are one device.
    identity: String,
    session: Box<dyn Session>,
    due: Timestamp,
    /// The quality and sentence of the failure that was logged.
    told: Option<Quality>,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("name", &self.name).field("due", &self.due).finish_non_exhaustive()
    }
}

impl Meter {
    /// Makes a meter and its session.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the settings; `check` says it with its place.
    pub fn new(settings: &MeterSettings) -> Result<Self, String> {
        let row = protocol(&settings.protocol).ok_or_else(|| {
            format!("protocol \"{}\" of meter \"{}\" is not known to this build", *settings.protocol, *settings.name)
        })?;
        let address = settings.address.as_ref().map_or_else(|| "1".to_owned(), |a| a.to_string());
        Ok(Self {
            name: settings.name.to_string(),
            every: *settings.every,
            identity: format!("{} {address}", row.name),
            session: row.session(settings)?,
            due: Timestamp::default(),
            told: None,
        })
    }

    /// Its name in weir.toml.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A reading asked for by a person, done before the scheduled ones. It gives no frame.
#[derive(Debug)]
pub struct Job {
    /// The name of the meter.
    pub meter: String,
    /// Where the values go, or one sentence that says why there are none.
    pub reply: oneshot::Sender<Result<Vec<Value>, String>>,
}

/// Reads the meters of one port until nobody takes its frames any more.
///
/// The port is opened again with growing pauses (1 s to 30 s) when it is missing. When `frames`
/// is full the bus waits for a place. It may be dropped at any moment.
pub async fn run(
    port: Port,
    meters: Vec<Meter>,
    frames: mpsc::Sender<Frame>,
    mut jobs: mpsc::Receiver<Job>,
    clock: Clock,
    health: Health,
) {
    let mut bus = Bus::new(port, meters, clock, health);
    let mut jobs_open = true;
    loop {
        bus.line.open_when_due(&bus.port).await;
        while let Ok(job) = jobs.try_recv() {
            bus.serve(job).await;
        }
        if let Some(index) = bus.oldest_due() {
            let Some(frame) = bus.scheduled(index).await else { continue };
            if frames.send(frame).await.is_err() {
                return;
            }
            continue;
        }
        tokio::select! {
            job = jobs.recv(), if jobs_open => match job {
                Some(job) => bus.serve(job).await,
                None => jobs_open = false,
            },
            () = frames.closed() => return,
            () = sleep(bus.idle_time()) => {}
            () = sleep_until(bus.line.next_try), if bus.line.line.is_none() => {}
        }
    }
}

/// Opens the port and reads one meter, for `weir read`.
///
/// # Errors
/// What the line or the meter said.
pub async fn read_once(port: &Port, meter: &mut Meter) -> Result<Vec<Value>, MeterError> {
    let mut line = port.open().await?;
    meter.session.read(&mut line).await
}

/// The line, and what is known about opening it.
struct Opener {
    line: Option<Line>,
    next_try: Instant,
    pause: Duration,
    /// Attempts that failed since it was last open.
    failures: u64,
    last_error: String,
    /// Readings in a row that heard nothing on this line.
    silent: usize,
}

impl Opener {
    /// Opens the line if it is closed and its pause is over.
    async fn open_when_due(&mut self, port: &Port) {
        if self.line.is_some() || Instant::now() < self.next_try {
            return;
        }
        match port.open().await {
            Ok(line) => {
                if self.failures > 0 {
                    info!(port = %port.name, endpoint = %port.endpoint, failed_attempts = self.failures, "the port is back");
                }
                self.line = Some(line);
                self.failures = 0;
                self.silent = 0;
                self.pause = FIRST_PAUSE;
            }
            Err(failure) => {
                if self.failures == 0 {
                    error!(port = %port.name, error = %failure, "the port cannot be opened; its meters are not read until it is there");
                } else {
                    debug!(port = %port.name, error = %failure, attempts = self.failures, "the port still cannot be opened");
                }
                self.failures += 1;
                self.last_error = match failure {
                    LineError::Open { reason, .. } => reason,
                    other => other.to_string(),
                };
                self.next_try = Instant::now() + self.pause;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// Closes the line; it may be opened again at once.
    fn close(&mut self) {
        self.line = None;
        self.next_try = Instant::now();
    }
}

struct Bus {
    port: Port,
    meters: Vec<Meter>,
    line: Opener,
    clock: Clock,
    health: Health,
}

impl Bus {
    fn new(port: Port, mut meters: Vec<Meter>, clock: Clock, health: Health) -> Self {
        let start = clock.now();
        for meter in &mut meters {
            meter.due = start.next_aligned(meter.every);
        }
        let line = Opener {
            line: None,
            next_try: Instant::now(),
            pause: FIRST_PAUSE,
            failures: 0,
            last_error: String::new(),
            silent: 0,
        };
        Self { port, meters, line, clock, health }
    }

    /// The meter that has been due for longest. A clock that was set back moves the slots with it.
    fn oldest_due(&mut self) -> Option<usize> {
        let now = self.clock.now();
        for meter in &mut self.meters {
            meter.due = meter.due.min(now.next_aligned(meter.every).max(now));
        }
        let due = self.meters.iter().enumerate().filter(|(_, m)| m.due <= now);
        due.min_by_key(|(_, m)| m.due).map(|(index, _)| index)
    }

    fn idle_time(&self) -> Duration {
        let now = self.clock.now();
        let next = self.meters.iter().map(|m| m.due.since(now)).min();
        next.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
    }

    async fn serve(&mut self, job: Job) {
        let Some(index) = self.meters.iter().position(|m| m.name == job.meter) else {
            let names = self.meters.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
            let _ =
                job.reply.send(Err(format!("no meter \"{}\" on port {}; known: {names}", job.meter, self.port.name)));
            return;
        };
        let result = self.read(index).await.unwrap_or(Err(MeterError::Line(LineError::Gone)));
        // Nobody waits any more: the person gave up, which is no fault.
        let _ = job.reply.send(result.map_err(|e| e.to_string()));
    }

    /// Reads a due meter; always gives a frame, with nulls when there is no answer.
    async fn scheduled(&mut self, index: usize) -> Option<Frame> {
        let result = self.read(index).await?;
        let time = self.clock.stamp();
        let meter = self.meters.get_mut(index)?;
        meter.due = time.wall.next_aligned(meter.every);
        let values = result.unwrap_or_else(|error| meter.session.absent(error.quality()));
        let reading = Reading { meter: meter.name.clone(), values };
        Some(Frame { time, lane: Lane::Ordinary, body: Body::Reading(reading), origin: None })
    }

    /// Reads one meter, counts and logs what came of it. A line that had gone (an idle TCP
    /// connection is often closed by the other side) is opened again and asked once more.
    async fn read(&mut self, index: usize) -> Option<Result<Vec<Value>, MeterError>> {
        let mut result = self.attempt(index).await?;
        if matches!(&result, Err(e) if e.must_reopen()) && self.line.failures == 0 {
            debug!(port = %self.port.name, "the line had gone; it is opened again");
            self.line.close();
            result = self.attempt(index).await?;
            if matches!(&result, Err(e) if e.must_reopen()) {
                self.line.close();
                self.line.next_try += FIRST_PAUSE;
            }
        }
        self.notice_silence(&result);
        self.tell(index, &result);
        Some(result)
    }

    async fn attempt(&mut self, index: usize) -> Option<Result<Vec<Value>, MeterError>> {
        self.line.open_when_due(&self.port).await;
        let identity = &self.meters.get(index)?.identity;
        let twins = self.meters.iter().enumerate().filter(|(i, m)| *i != index && m.identity == *identity);
        let late_until = twins.filter_map(|(_, m)| m.session.late_until()).max();
        let meter = self.meters.get_mut(index)?;
        let Some(line) = &mut self.line.line else {
            let reason = self.line.last_error.clone();
            return Some(Err(MeterError::Line(LineError::Open { endpoint: self.port.endpoint.to_string(), reason })));
        };
        if let Some(until) = late_until {
            sleep_until(until).await;
        }
        if let Err(error) = line.set_speed(self.port.speed) {
            return Some(Err(error.into()));
        }
        Some(meter.session.read(line).await)
    }

    /// A TCP connection on which every meter fell silent may be dead without knowing it.
    fn notice_silence(&mut self, result: &Result<Vec<Value>, MeterError>) {
        let silent = matches!(result, Err(MeterError::Line(LineError::Silent(_))));
        self.line.silent = if silent { self.line.silent + 1 } else { 0 };
        let is_tcp = self.line.line.as_ref().is_some_and(Line::is_tcp);
        if is_tcp && self.line.silent >= self.meters.len().max(1) {
            debug!(port = %self.port.name, "nothing is heard on the connection; it is opened again");
            self.line.silent = 0;
            self.line.close();
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
            Outcome::Bad(quality, sentence) if meter.told != Some(quality) && !port_is_missing => {
                meter.told = Some(quality);
                warn!(meter = %meter.name, port = %self.port.name, error = %sentence, "the meter was not read completely");
            }
            Outcome::Bad(_, sentence) => {
                debug!(meter = %meter.name, error = %sentence, failed_readings = failed_before + 1, "the meter is still not read completely");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::Reply;
    use crate::model::BootId;
    use crate::os::clock::{BUILT, Dial};
    use crate::os::line::Framing;

    fn clock(dial: &Dial) -> Clock {
        Clock::of(dial.clone(), Duration::ZERO, None)
    }

    struct Nothing;

    impl Session for Nothing {
        fn read<'a>(&'a mut self, _line: &'a mut Line) -> Reply<'a> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn absent(&self, quality: Quality) -> Vec<Value> {
            vec![Value { name: "v".to_owned(), value: None, unit: String::new(), quality }]
        }
    }

    fn meter(name: &str, every: u64) -> Meter {
        Meter {
            name: name.to_owned(),
            every: Duration::from_secs(every),
            identity: name.to_owned(),
            session: Box::new(Nothing),
            due: Timestamp::default(),
            told: None,
        }
    }

    fn port() -> Port {
        Port {
            name: "p".to_owned(),
            endpoint: Endpoint::Device("/dev/there-is-no-such-port".into()),
            speed: Speed { baud: 9600, framing: Framing::EIGHT_N_ONE },
            direction: Direction::Automatic,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slots_follow_the_wall_clock_whatever_it_does_and_missed_ones_are_left_out() {
        let dial = Dial::new(BUILT.plus(Duration::from_secs(1)), BootId::UNKNOWN);
        dial.trust(true);
        let at = |seconds: u64| dial.set(BUILT.plus(Duration::from_secs(seconds)));
        let meters = vec![meter("slow", 900), meter("quick", 60)];
        let mut bus = Bus::new(port(), meters, clock(&dial), Health::new());
        assert_eq!(bus.oldest_due(), None);
        assert_eq!(bus.idle_time(), Duration::from_secs(59));
        at(60);
        assert_eq!(bus.oldest_due(), Some(1));
        bus.scheduled(1).await.unwrap();
        assert_eq!(bus.oldest_due(), None);
        at(7205);
        assert_eq!(bus.oldest_due(), Some(1), "the one that waits longest goes first");
        bus.scheduled(1).await.unwrap();
        assert_eq!(bus.oldest_due(), Some(0));
        bus.scheduled(0).await.unwrap();
        assert_eq!(bus.oldest_due(), None, "two hours of missed slots are one reading");
        at(100);
        assert_eq!(bus.oldest_due(), None);
        assert_eq!(bus.idle_time(), Duration::from_secs(20), "a clock set back does not stop the readings");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_neither_stops_the_readings_nor_brings_a_burst() {
        let year = Duration::from_hours(365 * 24);
        let now = BUILT.plus(year);
        for (target, trusted) in [
            (BUILT, true),
            (now.plus(year * 10), true),
            (now.plus(Duration::from_hours(1)), true),
            (Timestamp::from_millis(0), true),
            (BUILT, false),
            (now.plus(year * 10), false),
        ] {
            let dial = Dial::new(now, BootId::new([1; 8]));
            dial.trust(true);
            let mut bus = Bus::new(port(), vec![meter("a", 900), meter("b", 60)], clock(&dial), Health::new());
            let mut readings = [0, 0];
            for second in 0..7200 {
                if second == 1800 {
                    dial.trust(trusted);
                    dial.set(target);
                }
                if second == 5400 {
                    dial.trust(true);
                    dial.set(now.plus(Duration::from_secs(5400)));
                }
                while let Some(index) = bus.oldest_due() {
                    bus.scheduled(index).await.unwrap();
                    readings[index] += 1;
                }
                assert!(bus.idle_time() <= LONGEST_SLEEP);
                dial.pass(Duration::from_secs(1));
            }
            // Two hours: a set clock adds or leaves out one reading of each meter at most, twice.
            assert!((6..=10).contains(&readings[0]) && (117..=122).contains(&readings[1]), "{target}: {readings:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_port_gives_frames_with_nulls_and_answers_jobs_with_a_sentence() {
        let (frames, mut inbox) = mpsc::channel::<Frame>(4);
        let (jobs, jobs_inbox) = mpsc::channel(4);
        let health = Health::new();
        let dial = Dial::new(BUILT, BootId::UNKNOWN);
        let clock = clock(&dial);
        let turn = async {
            loop {
                dial.pass(Duration::from_millis(1));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let ask = async {
            let frame = inbox.recv().await.unwrap();
            let Body::Reading(reading) = frame.body else { panic!() };
            assert_eq!(reading.values[0].quality, Quality::NoAnswer);
            let (reply, answer) = oneshot::channel();
            jobs.send(Job { meter: "m".to_owned(), reply }).await.unwrap();
            let sentence = answer.await.unwrap().unwrap_err();
            assert!(sentence.contains("/dev/there-is-no-such-port"), "{sentence}");
            let (reply, answer) = oneshot::channel();
            jobs.send(Job { meter: "x".to_owned(), reply }).await.unwrap();
            assert!(answer.await.unwrap().unwrap_err().contains("known: m"));
            drop(inbox);
        };
        let reading = run(port(), vec![meter("m", 60)], frames, jobs_inbox, clock, health.clone());
        tokio::select! {
            _ = async { tokio::join!(reading, ask) } => {}
            () = turn => {}
        }
        assert!(health.meters()["m"].timeouts >= 2);
    }
}
