//! Hears radio telegrams from receivers: one task a receiver, one row of [`RECEIVERS`] a kind.
//!
//! Invariants: only telegrams with a sound link layer become frames, byte for byte; the cost of a
//! telegram does not depend on how many meters there are; garbage is counted, never logged one by
//! one. A source that is gone is opened again for ever. When the frames channel is full the
//! receiver waits: first the kernel's buffers fill, then the source's own. Start with [`run`].

mod duplicates;
mod health;
mod intake;
mod keys;
mod settings;
mod source;

use std::fmt;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

pub use health::{Health, SourceState, Status};
pub use settings::{Forward, RadioSettings, check};

use self::intake::Intake;
use self::source::{Open, Source};
use crate::model::Frame;
use crate::os::clock::Clock;
use crate::wire::radio_line::{Item, LineDecoder};
use crate::wire::{hex_line, rtl_wmbus};

/// One row of the table of receivers.
pub struct Receiver {
    /// The word in `receiver = "..."`.
    pub name: &'static str,
    /// Reads one line of its output.
    pub decode: fn(&[u8]) -> Vec<Item>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Every kind of receiver this build can hear.
pub const RECEIVERS: &[Receiver] = &[
    Receiver { name: "rtl-wmbus", decode: rtl_wmbus::decode },
    Receiver { name: "hex-lines", decode: hex_line::decode_wmbus },
    Receiver { name: "openlinkiq", decode: hex_line::decode_mbal },
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
}

/// The first pause before a source is opened again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// A source that stayed open this long works.
const STEADY: Duration = Duration::from_mins(1);

/// Hears one receiver until nobody takes frames any more. Dropping the future closes the source
/// and ends the program it started.
///
/// # Errors
/// [`RadioError`] when the settings can't be used.
pub async fn run(
    settings: RadioSettings,
    frames: mpsc::Sender<Frame>,
    clock: Clock,
    health: Health,
) -> Result<(), RadioError> {
    let name = settings.name.to_string();
    let source = Source::of(&settings)?;
    let receiver = receiver(&settings.receiver).ok_or_else(|| RadioError::Receiver(settings.receiver.to_string()))?;
    let closed = frames.clone();
    let intake = Intake::new(name.clone(), receiver, frames, health.clone());
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
                let error = listen(name, &mut open, &mut intake, clock, &mut trouble, steady_at).await.err();
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
    let mut lines = LineDecoder::new();
    let mut buffer = vec![0; 4096];
    let mut steady = false;
    loop {
        if !steady && Instant::now() >= steady_at {
            steady = true;
            trouble.is_over(name);
        }
        let read = open.read(&mut buffer);
        let count = if steady {
            read.await?
        } else {
            match timeout_at(steady_at, read).await {
                Ok(count) => count?,
                Err(_elapsed) => continue,
            }
        };
        match buffer.get(..count) {
            None | Some([]) => lines.finish(),
            Some(bytes) => lines.push(bytes),
        }
        let (arrival, stamp) = (Instant::now(), clock.stamp());
        while let Some(piece) = lines.next() {
            intake.take(piece, arrival, stamp).await;
        }
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
