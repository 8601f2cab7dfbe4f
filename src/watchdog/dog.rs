//! Carries the course out: waits, asks, has steps done by whoever has the hands for them, and keeps the book.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as Turn;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::WatchdogError;
use super::book::Book;
use super::course::{Course, Done, Rules, Task};
use super::health::Health;
use super::settings::{Step, WatchdogSettings};
use crate::os::clock::Clock;

/// Why a step was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// This gateway can't, now or ever: it has no modem, no helper.
    Cannot(String),
    /// It could, but it failed.
    Failed(String),
}

/// Why a step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause<'a> {
    /// No broker is reached, and no host answers.
    Ladder,
    /// It is the time of day for it.
    Daily,
    /// Somebody, who is named, wants it.
    Command(&'a str),
}

impl std::fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ladder => f.write_str("no way to the world"),
            Self::Daily => f.write_str("daily reset"),
            Self::Command(who) => write!(f, "by command of {who}"),
        }
    }
}

/// What the watchdog does through others.
pub trait Hands: Send {
    /// Whether there is a session with any broker.
    fn is_connected(&self) -> bool;
    /// What runs that a reboot would spoil, in words.
    fn busy(&self) -> Option<&'static str>;
    /// Asks the hosts in turn; the first that answers, else what the last one failed with.
    fn test(&mut self) -> impl Future<Output = Result<String, String>> + Send;
    /// Whether a step can be done at all.
    ///
    /// # Errors
    /// One sentence why not.
    fn can(&self, step: Step) -> Result<(), String>;
    /// Does a step.
    fn act(&mut self, step: Step, cause: Cause<'_>) -> impl Future<Output = Result<(), Refusal>> + Send;
    /// Makes durable what the store has.
    fn sync(&mut self) -> impl Future<Output = Result<(), String>> + Send;
}

/// The watchdog of an agent; clones are the same.
#[derive(Debug, Clone)]
pub struct Dog {
    course: Arc<Mutex<Course>>,
    store: PathBuf,
    clock: Clock,
    health: Health,
    /// Held from the look at the limit until the reboot was asked for: two at once would both find it kept.
    turn: Arc<Turn<()>>,
}

impl Dog {
    /// Opens the book of a store.
    pub fn open(settings: Option<&WatchdogSettings>, store: &Path, clock: Clock) -> Self {
        let now = clock.stamp();
        let rules = Rules::new(settings);
        let health = Health::default();
        let enabled = rules.ping.is_some();
        let course = Course::new(rules, Book::read(store, &now), &now);
        let reboots = course.book.recent(&now);
        tracing::debug!(reboots, "the watchdog has its book");
        health.note(|status| {
            status.enabled = enabled;
            status.reboots = reboots;
            status.rung = course.rung;
            status.hardware = "nobody";
        });
        let dog =
            Self { course: Arc::new(Mutex::new(course)), store: store.to_owned(), clock, health, turn: Arc::default() };
        if let Err(error) = dog.course().book.clone().write(store) {
            warn!(%error, "the watchdog's book can't be written; weir will reboot nothing");
        }
        dog
    }

    /// How it is doing.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the book, away from the runtime's thread.
    async fn save(&self) -> Result<(), WatchdogError> {
        let (book, store) = (self.course().book.clone(), self.store.clone());
        let written = tokio::task::spawn_blocking(move || book.write(&store)).await;
        let failed = |why: String| WatchdogError::Book { why };
        written.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
    }

    /// Whether a reboot is within the limit now.
    ///
    /// # Errors
    /// [`WatchdogError::Limit`].
    pub fn may_reboot(&self) -> Result<(), WatchdogError> {
        let now = self.clock.stamp();
        let course = self.course();
        if course.may_reboot(&now) {
            return Ok(());
        }
        Err(WatchdogError::Limit { reboots: course.book.recent(&now), limit: course.rules.reboots })
    }

    /// Reboots the gateway within the limit: the store is synced, the reboot noted, then it is asked for.
    ///
    /// # Errors
    /// [`WatchdogError`]; the gateway runs on then.
    pub async fn reboot(&self, cause: Cause<'_>, hands: &mut impl Hands) -> Result<(), WatchdogError> {
        let _turn = self.turn.lock().await;
        hands.can(Step::Reboot).map_err(WatchdogError::Cannot)?;
        self.may_reboot()?;
        hands.sync().await.map_err(WatchdogError::NotSynced)?;
        let now = self.clock.stamp();
        self.course().book.note_reboot(&now);
        self.save().await?;
        let reboots = self.course().book.recent(&now);
        self.health.note(|status| status.reboots = reboots);
        warn!(why = %cause, reboots, "the gateway is rebooted");
        let done = hands.act(Step::Reboot, cause).await;
        done.map_err(|refusal| match refusal {
            Refusal::Cannot(why) => WatchdogError::Cannot(why),
            Refusal::Failed(why) => WatchdogError::Refused(why),
        })
    }

    /// Watches as long as the agent runs.
    ///
    /// # Errors
    /// None.
    pub async fn run(&self, hands: &mut impl Hands) -> Result<(), Infallible> {
        loop {
            let (now, connected, busy) = (self.clock.stamp(), hands.is_connected(), hands.busy());
            let (task, ended) = {
                let mut course = self.course();
                let before = course.rung;
                let task = course.next(&now, connected, busy.is_some());
                self.health.note(|status| {
                    (status.silence, status.failures) = (course.silence(&now), course.failures);
                    (status.rung, status.reboots) = (course.rung, course.book.recent(&now));
                });
                (task, before > 0 && course.rung == 0)
            };
            if ended {
                info!("a broker was reached; the watchdog's ladder has ended");
                self.keep().await;
            }
            match task {
                Task::Wait(time) => sleep(time).await,
                Task::Test => self.test(hands).await,
                Task::Try(step) => self.step(step, hands).await,
                Task::DailyReset => self.daily(hands).await,
            }
        }
    }

    /// Writes the book; that it can't is told, and costs nothing but reboots.
    async fn keep(&self) {
        let rung = self.course().rung;
        self.health.note(|status| status.rung = rung);
        if let Err(error) = self.save().await {
            warn!(%error, "the watchdog can't keep its book");
        }
    }

    async fn test(&self, hands: &mut impl Hands) {
        let answer = hands.test().await;
        let now = self.clock.stamp();
        let (before, failures, climbed, enough) = {
            let mut course = self.course();
            let (before, climbed) = (course.failures, course.rung);
            course.tested(&now, answer.is_ok());
            (before, course.failures, climbed, course.rules.ping.map_or(0, |(.., failures)| failures))
        };
        match &answer {
            Ok(host) if before > 0 => info!(host, failures = before, "a host answers again; no broker is reached yet"),
            Err(why) if failures == 1 => warn!(why, "no broker is reached, and no host answers"),
            Err(why) if failures == enough => {
                warn!(why, failures, "no host has answered; the watchdog's ladder begins")
            }
            Ok(_) | Err(_) => tracing::debug!(?answer, failures, "the way to the world was tested"),
        }
        self.health.note(|status| {
            status.failures = failures;
            status.tests = (status.tests.0 + 1, status.tests.1 + u64::from(answer.is_err()));
        });
        if climbed > 0 && answer.is_ok() {
            self.keep().await;
        }
    }

    async fn step(&self, step: Step, hands: &mut impl Hands) {
        let name = step.word();
        let outcome = match hands.can(step) {
            Err(why) => Err(Refusal::Cannot(why)),
            Ok(()) if step == Step::Reboot => self.reboot(Cause::Ladder, hands).await.map_err(|error| match error {
                WatchdogError::Cannot(why) => Refusal::Cannot(why),
                other => Refusal::Failed(other.to_string()),
            }),
            Ok(()) => {
                warn!(step = name, "the watchdog tries a step");
                if step == Step::AgentRestart {
                    self.agent_restarts().await;
                }
                hands.act(step, Cause::Ladder).await
            }
        };
        let now = self.clock.stamp();
        let (done, told) = match outcome {
            Ok(()) => (Done::Tried, "done".to_owned()),
            Err(Refusal::Cannot(why)) => {
                info!(step = name, why, "the watchdog leaves out a step that this gateway can't do");
                (Done::Skipped, why)
            }
            Err(Refusal::Failed(why)) => {
                warn!(step = name, why, "a step of the watchdog failed");
                // A reboot that was refused may be allowed later; the limit holds each time.
                (if step == Step::Reboot { Done::Postponed } else { Done::Tried }, why)
            }
        };
        if step != Step::AgentRestart || done != Done::Tried {
            self.course().stepped(&now, done);
        }
        self.health.note(|status| status.step = Some((name, now.wall, told)));
        self.keep().await;
    }

    /// Weir ends with this step: it must be noted before.
    async fn agent_restarts(&self) {
        let now = self.clock.stamp();
        self.course().stepped(&now, Done::Tried);
        self.keep().await;
    }

    async fn daily(&self, hands: &mut impl Hands) {
        // First noted: a reset that fails, or reboots before the book is kept, is not repeated the same day.
        let now = self.clock.stamp();
        self.course().daily_is_done(&now);
        if let Err(error) = self.save().await {
            error!(%error, "the daily reset is left out: it could not be noted");
            return;
        }
        if let Err(error) = self.reboot(Cause::Daily, hands).await {
            warn!(%error, "the daily reset is left out today");
        }
    }
}

#[cfg(test)]
#[path = "dog_tests.rs"]
mod tests;
