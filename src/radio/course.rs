//! One receiver over the time: its source is opened, read, watched, and opened again.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::desk::{Ear, Heard};
use super::intake::Intake;
use super::source::{Open, Opened, Source};
use super::watch::{Action, Shared, Step, Watch};
use super::{RadioError, RadioSettings, SourceState, receiver};
use crate::os::clock::Clock;
use crate::os::line::Line;
use crate::os::usb::{Device, Reset};

/// The first pause before a source is opened again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// A source that stayed open this long works.
const STEADY: Duration = Duration::from_mins(1);
/// Senders that may be connected at once.
const SENDERS: usize = 16;
/// How long a USB device is off, and how long it may take to come back.
const OFF: Duration = Duration::from_secs(1);
const BACK: Duration = Duration::from_secs(15);

/// One receiver.
#[derive(Clone)]
pub(super) struct Course {
    pub(super) settings: RadioSettings,
    pub(super) source: Arc<Source>,
    pub(super) out: mpsc::Sender<Heard>,
    pub(super) clock: Clock,
    pub(super) ear: Arc<Ear>,
    pub(super) watch: Shared,
    /// Where sysfs is.
    pub(super) sys: PathBuf,
    /// After so long without a telegram a receiver that forgets is told again.
    pub(super) retell: Duration,
}

/// Why a source is not read any more.
enum End {
    Gone(String),
    Silent(Step),
}

impl Course {
    /// What reads one source: a driver that begins anew.
    pub(super) fn intake(&self) -> Result<Intake, RadioError> {
        let row = receiver(&self.settings.receiver)
            .ok_or_else(|| RadioError::Receiver(self.settings.receiver.to_string()))?;
        let driver = (row.make)(&self.settings)
            .map_err(|reason| RadioError::Settings(self.settings.name.to_string(), reason))?;
        Ok(Intake::new(driver, self.out.clone(), self.ear.clone(), self.watch.clone()))
    }

    /// Opens, reads and watches the source for ever.
    pub(super) async fn follow(&self, mut intake: Intake) -> Infallible {
        let mut pause = FIRST_PAUSE;
        let mut trouble = Trouble { failures: 0 };
        let mut by_itself = true;
        loop {
            let heard = self.ear.health.status().heard;
            let mut opened_at = Instant::now();
            let end = match self.source.open().await {
                Err(reason) => {
                    intake.was_away();
                    End::Gone(reason)
                }
                Ok(opened) => {
                    opened_at = Instant::now();
                    self.opened(by_itself, intake.is_mute());
                    tokio::select! {
                        biased;
                        reason = self.read_all(opened, &mut intake, &mut trouble) => End::Gone(reason),
                        step = self.silence() => End::Silent(step),
                    }
                }
            };
            // What is incomplete will never be whole; the next source begins anew.
            intake.take(&[], Instant::now(), self.clock.stamp()).await;
            if self.ear.health.status().heard > heard || opened_at.elapsed() >= STEADY {
                pause = FIRST_PAUSE;
            }
            by_itself = match end {
                End::Silent(step) => {
                    self.act(step).await;
                    false
                }
                End::Gone(reason) => {
                    if !self.source.comes_again() {
                        return self.ended(&reason).await;
                    }
                    trouble.came(&self.ear.name, &reason);
                    self.ear.health.change(|status| {
                        status.source = SourceState::Waiting;
                        status.failures += 1;
                    });
                    self.source.wait(pause).await;
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                    true
                }
            };
        }
    }

    /// One that was mute was there all the time: its silence goes on.
    fn opened(&self, by_itself: bool, mute: bool) {
        tracing::debug!(receiver = &*self.ear.name, "receiver opened");
        let silent = self.watch.with(|watch| {
            if !mute {
                watch.opened(Instant::now(), by_itself);
            }
            watch.is_silent()
        });
        self.ear.health.change(|status| {
            status.source = if silent { SourceState::Silent } else { SourceState::Open };
            status.opened += 1;
        });
    }

    async fn read_all(&self, opened: Opened, intake: &mut Intake, trouble: &mut Trouble) -> String {
        match opened {
            Opened::Source(open) => self.read(*open, intake, trouble).await,
            Opened::Door(door) => self.receive(door, trouble).await,
        }
    }

    /// Reads a source to its end, and says how it ended.
    async fn read(&self, mut open: Open, intake: &mut Intake, trouble: &mut Trouble) -> String {
        let error = match intake.start(&mut open, &self.clock).await {
            Ok(()) => self.listen(&mut open, intake, trouble).await.err(),
            Err(reason) => Some(io::Error::other(reason)),
        };
        open.ending(error).await
    }

    async fn listen(&self, open: &mut Open, intake: &mut Intake, trouble: &mut Trouble) -> io::Result<()> {
        let mut buffer = vec![0; open.room()];
        let steady_at = Instant::now() + STEADY;
        let mut steady = false;
        let mut restarts = 0u64;
        // When the receiver was last told its settings or brought a telegram, which was the one with this number.
        let (mut fresh, mut telegrams) = (Instant::now(), intake.telegrams());
        loop {
            if std::mem::replace(&mut telegrams, intake.telegrams()) != intake.telegrams() {
                fresh = Instant::now();
            }
            let stale_at = intake.forgets().then(|| fresh + self.retell);
            if stale_at.is_some_and(|at| at <= Instant::now()) {
                tracing::debug!(receiver = &*self.ear.name, "receiver says nothing; it is told its settings again");
                intake.start(open, &self.clock).await.map_err(io::Error::other)?;
                fresh = Instant::now();
                continue;
            }
            if !steady && Instant::now() >= steady_at {
                steady = true;
                trouble.is_over(&self.ear.name);
            }
            let silent_at = intake.patience().map(|patience| Instant::now() + patience);
            let until = [silent_at, stale_at, (!steady).then_some(steady_at)].into_iter().flatten().min();
            let read = open.read(&mut buffer);
            let count = match until {
                None => read.await?,
                Some(until) => match timeout_at(until, read).await {
                    Ok(count) => count?,
                    Err(_elapsed) => {
                        if silent_at.is_some_and(|at| at <= Instant::now()) {
                            intake.take(&[], Instant::now(), self.clock.stamp()).await;
                        }
                        continue;
                    }
                },
            };
            let (arrival, stamp) = (Instant::now(), self.clock.stamp());
            intake.take(buffer.get(..count).unwrap_or_default(), arrival, stamp).await;
            if count == 0 {
                return Ok(());
            }
            if open.is_whole() {
                intake.take(&[], arrival, stamp).await;
            }
            if intake.restarted() {
                restarts += 1;
                let receiver = &*self.ear.name;
                if restarts == 1 {
                    tracing::warn!(receiver, "receiver has restarted by itself; it is told its settings again");
                } else {
                    tracing::debug!(receiver, restarts, "receiver has restarted again");
                }
                intake.start(open, &self.clock).await.map_err(io::Error::other)?;
                fresh = Instant::now();
            }
        }
    }

    /// Lets senders in and reads each by a driver of its own, so that what they send can't mix.
    async fn receive(&self, door: TcpListener, trouble: &mut Trouble) -> String {
        // Dropped with this future, and all connections with it.
        let mut senders = JoinSet::new();
        let reason = loop {
            let failures = trouble.failures;
            tokio::select! {
                came = door.accept() => match came {
                    Ok((stream, _)) if senders.len() < SENDERS => {
                        let course = self.clone();
                        senders.spawn(async move { course.sender(stream).await });
                    }
                    Ok(_) => self.refuse(),
                    // Who hung up before being let in is no fault of the door's.
                    Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
                    Err(error) => break format!("nobody can be let in: {error}"),
                },
                Some(_) = senders.join_next() => {}
                () = sleep(STEADY), if failures > 0 => trouble.is_over(&self.ear.name),
            }
            self.ear.health.change(|status| status.senders = senders.len());
        };
        self.ear.health.change(|status| status.senders = 0);
        reason
    }

    async fn sender(&self, stream: TcpStream) {
        let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
        let (Ok(line), Ok(mut intake)) = (Line::accepted(stream, self.source.speed()), self.intake()) else { return };
        tracing::debug!(receiver = &*self.ear.name, peer, "sender connected");
        let reason = self.read(Open::Line(line), &mut intake, &mut Trouble { failures: 0 }).await;
        intake.take(&[], Instant::now(), self.clock.stamp()).await;
        tracing::debug!(receiver = &*self.ear.name, peer, reason, "sender is gone");
    }

    fn refuse(&self) {
        let refused = self.ear.health.status().refused + 1;
        self.ear.health.change(|status| status.refused = refused);
        if refused == 1 {
            let receiver = &*self.ear.name;
            tracing::warn!(receiver, senders = SENDERS, "too many senders are connected; a further one was refused");
        }
    }

    /// Waits for a silence about which something is done; tells of every one.
    async fn silence(&self) -> Step {
        loop {
            let step = self.watch.step().await;
            if step.first {
                let receiver = &*self.ear.name;
                let (silent_s, usual_s) = (step.silent.as_secs(), step.usual.map(|usual| usual.as_secs()));
                let next = match step.action {
                    Action::Nothing => "nothing",
                    Action::Reopen | Action::Reset => "it is opened again",
                };
                tracing::warn!(receiver, silent_s, usual_s, next, "receiver is silent against its usual rate");
                self.ear.health.change(|status| {
                    status.silences += 1;
                    status.source = SourceState::Silent;
                });
            }
            if step.action != Action::Nothing && self.source.comes_again() {
                return step;
            }
        }
    }

    /// Does something about a silence; the source is closed.
    async fn act(&self, step: Step) {
        let receiver = &*self.ear.name;
        tracing::debug!(receiver, silent_s = step.silent.as_secs(), attempt = step.attempt, action = ?step.action, "receiver is still silent");
        let reset = step.action == Action::Reset && self.reset(step.attempt).await;
        self.ear.health.change(|status| {
            status.resets += u64::from(reset);
            status.reopened += 1;
        });
        if reset {
            self.source.come_back(BACK).await;
        }
    }

    /// Resets the USB device behind the source, if there is one and it may be reset.
    async fn reset(&self, attempt: u32) -> bool {
        let Some(device) = self.source.file().and_then(|file| Device::of(&self.sys, file)) else { return false };
        // What a driver's fault does not mend, the loss of power may.
        let how = if attempt > 2 { Reset::Power } else { Reset::Authorized };
        let (receiver, name) = (&*self.ear.name, device.name());
        // On a thread that is not given up half way: the device must not stay off.
        let done = tokio::task::spawn_blocking(move || device.reset(how, OFF)).await;
        let refusal = match done {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        match &refusal {
            None => tracing::info!(receiver, device = name, ?how, "receiver's USB device was reset"),
            Some(reason) if self.ear.health.status().no_reset.is_none() => {
                tracing::warn!(receiver, device = name, reason, "receiver's USB device can't be reset");
            }
            Some(reason) => tracing::debug!(receiver, device = name, reason, "receiver's USB device can't be reset"),
        }
        let done = refusal.is_none();
        self.ear.health.change(|status| status.no_reset = refusal);
        done
    }

    async fn ended(&self, reason: &str) -> Infallible {
        tracing::warn!(
            receiver = &*self.ear.name,
            reason,
            "receiver has ended; it is heard again when weir is started again"
        );
        self.ear.health.change(|status| status.source = SourceState::Ended);
        std::future::pending().await
    }
}

/// A failing source: told once, then counted, and its end is told.
struct Trouble {
    failures: u64,
}

impl Trouble {
    fn came(&mut self, receiver: &str, reason: &str) {
        self.failures += 1;
        if self.failures == 1 {
            tracing::warn!(receiver, reason, "receiver is gone; it is opened again until it stays");
        } else {
            tracing::debug!(receiver, reason, failures = self.failures, "receiver is still gone");
        }
    }

    fn is_over(&mut self, receiver: &str) {
        if self.failures > 0 {
            tracing::info!(receiver, failures = self.failures, "receiver works again");
        }
        self.failures = 0;
    }
}

/// A watch with the settings' limit.
pub(super) fn watch(settings: &RadioSettings, rules: super::Rules) -> Shared {
    Shared::new(Watch::new(rules, *settings.silence, Instant::now()))
}
