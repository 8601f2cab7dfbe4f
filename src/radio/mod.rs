//! Hears radio telegrams from receivers: one task a receiver, one row of [`RECEIVERS`] a kind, one desk for all.
//!
//! Invariants: only telegrams with a sound link layer become frames, byte for byte; the cost of a
//! telegram does not depend on how many meters there are; garbage is counted, never logged one by
//! one. A source that is gone is opened again for ever. When the frames channel is full the
//! receiver waits: first the kernel's buffers fill, then the source's own. Start with [`run`].

mod desk;
mod driver;
mod health;
mod intake;
mod keys;
mod settings;
mod source;
mod telegrams;

use std::fmt;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

pub use desk::{Ear, Heard, Security, Sight, Signal, Survey};
pub use driver::{Driver, Starting};
pub use health::{Health, SourceState, Status};
use keys::Decoding;
pub use settings::{Forward, RadioSettings, check};
pub use source::Open;
pub use telegrams::{SampleSettings, TelegramsSettings, Urgency, check as check_telegrams};

use self::driver::Lines;
use self::intake::Intake;
use self::source::Source;
use crate::model::Frame;
use crate::os::clock::Clock;
use crate::wire::{hex_line, rtl_wmbus};

/// One row of the table of receivers.
pub struct Receiver {
    /// The word in `receiver = "..."`.
    pub name: &'static str,
    /// Its speed on a serial line, when the settings say nothing.
    pub baud: u32,
    /// The words that `mode` may be; empty when it can't be told what to listen to. The first is the default.
    pub modes: &'static [&'static str],
    /// Makes its driver, or says in one sentence what is wrong with the settings.
    pub make: fn(&RadioSettings) -> Result<Box<dyn Driver>, String>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Every kind of receiver this build can hear.
pub const RECEIVERS: &[Receiver] = &[
    Receiver { name: "rtl-wmbus", baud: 115_200, modes: &[], make: |_| Ok(Box::new(Lines::new(rtl_wmbus::decode))) },
    Receiver {
        name: "hex-lines",
        baud: 115_200,
        modes: &[],
        make: |_| Ok(Box::new(Lines::new(hex_line::decode_wmbus))),
    },
    Receiver {
        name: "openlinkiq",
        baud: 115_200,
        modes: &[],
        make: |_| Ok(Box::new(Lines::new(hex_line::decode_mbal))),
    },
];

/// Finds a kind of receiver by its name.
pub fn receiver(name: &str) -> Option<&'static Receiver> {
    RECEIVERS.iter().find(|r| r.name == name)
}

/// Why a receiver can't be heard at all. `weir check` finds the same.
#[derive(Debug, thiserror::Error)]
pub enum RadioError {
    /// No such kind of receiver in this build.
    #[error("this build knows no receiver \"{0}\"; run weir check")]
    Receiver(String),
    /// Neither or both of device and command.
    #[error("the radio \"{0}\" needs a device or a command, and not both; run weir check")]
    Source(String),
    /// The receiver's driver does not like its settings.
    #[error("the radio \"{0}\": {1}; run weir check")]
    Settings(String, String),
}

/// The first pause before a source is opened again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// A source that stayed open this long works.
const STEADY: Duration = Duration::from_mins(1);

/// Makes frames of what all receivers hear, until no receiver is left or nobody takes frames any more; who is heard
/// stands in `survey`.
pub async fn gather(
    heard: mpsc::Receiver<Heard>,
    frames: mpsc::Sender<Frame>,
    settings: TelegramsSettings,
    survey: Survey,
) {
    desk::run(heard, frames, settings, survey).await;
}

/// Telegrams that may wait between all receivers and [`gather`].
pub const HEARD_WAITING: usize = 64;

/// Hears one receiver until nobody takes what it hears any more. Dropping the future closes the source
/// and ends the program it started.
///
/// # Errors
/// [`RadioError`] when the settings can't be used.
pub async fn run(
    settings: RadioSettings,
    out: mpsc::Sender<Heard>,
    clock: Clock,
    health: Health,
) -> Result<(), RadioError> {
    let name = settings.name.to_string();
    let source = Source::of(&settings)?;
    let receiver = receiver(&settings.receiver).ok_or_else(|| RadioError::Receiver(settings.receiver.to_string()))?;
    let driver = (receiver.make)(&settings).map_err(|reason| RadioError::Settings(name.clone(), reason))?;
    let closed = out.clone();
    let intake = Intake::new((name.clone(), Decoding::of(&settings)), driver, out, health.clone());
    tokio::select! {
        () = closed.closed() => Ok(()),
        never = hear(&name, &source, intake, &clock, &health) => match never {},
    }
}

async fn hear(
    name: &str,
    source: &Source,
    mut intake: Intake,
    clock: &Clock,
    health: &Health,
) -> std::convert::Infallible {
    let mut pause = FIRST_PAUSE;
    let mut trouble = Trouble { failures: 0 };
    loop {
        let reason = match source.open().await {
            Err(reason) => reason,
            Ok(mut open) => {
                tracing::debug!(receiver = name, "receiver opened");
                health.change(|status| {
                    status.source = SourceState::Open;
                    status.opened += 1;
                });
                let heard = health.status().heard;
                let steady_at = Instant::now() + STEADY;
                let error = match intake.start(&mut open, clock).await {
                    Ok(()) => listen(name, &mut open, &mut intake, clock, &mut trouble, steady_at).await.err(),
                    Err(reason) => Some(std::io::Error::other(reason)),
                };
                // What is incomplete will never be whole; the next source begins anew.
                intake.take(&[], Instant::now(), clock.stamp()).await;
                if health.status().heard > heard || Instant::now() >= steady_at {
                    pause = FIRST_PAUSE;
                }
                open.ending(error).await
            }
        };
        trouble.came(name, &reason);
        health.change(|status| {
            status.source = SourceState::Waiting;
            status.failures += 1;
        });
        sleep(pause).await;
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

/// Reads an open source to its end.
async fn listen(
    name: &str,
    open: &mut Open,
    intake: &mut Intake,
    clock: &Clock,
    trouble: &mut Trouble,
    steady_at: Instant,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 4096];
    let mut steady = false;
    loop {
        if !steady && Instant::now() >= steady_at {
            steady = true;
            trouble.is_over(name);
        }
        let silent_at = intake.patience().map(|patience| Instant::now() + patience);
        let until = [silent_at, (!steady).then_some(steady_at)].into_iter().flatten().min();
        let read = open.read(&mut buffer);
        let count = match until {
            None => read.await?,
            Some(until) => match timeout_at(until, read).await {
                Ok(count) => count?,
                Err(_elapsed) => {
                    if silent_at.is_some_and(|at| at <= Instant::now()) {
                        intake.take(&[], Instant::now(), clock.stamp()).await;
                    }
                    continue;
                }
            },
        };
        intake.take(buffer.get(..count).unwrap_or_default(), Instant::now(), clock.stamp()).await;
        if count == 0 {
            return Ok(());
        }
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
