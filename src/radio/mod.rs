//! Hears radio telegrams from receivers: one task a receiver, one row of [`RECEIVERS`] a kind, one desk for all.
//!
//! Invariants: only telegrams with a sound link layer become frames, byte for byte; the cost of a
//! telegram does not depend on how many meters there are; garbage is counted, never logged one by
//! one. A source that is gone is opened again for ever; one that is silent against its own usual rate is told, opened
//! again and reset, ever more rarely. When the frames channel is full the
//! receiver waits: first the kernel's buffers fill, then the source's own. Start with [`run`].

mod amb8465;
mod course;
mod cul;
mod desk;
mod dialogue;
mod driver;
mod health;
mod im871a;
mod intake;
mod iu891a;
mod keys;
mod openlinkiq;
mod rc1180;
mod settings;
mod source;
mod stranger;
mod telegrams;
mod watch;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

pub use desk::{Ear, Heard, Security, Sight, Signal, Survey};
pub use driver::{Driver, Starting, Work};
pub use health::{Health, SourceState, Status};
use keys::Decoding;
pub use settings::{Forward, OnSilence, RadioSettings, check};
pub use source::{Open, Place};
pub use telegrams::{SampleSettings, TelegramsSettings, Urgency};
pub use watch::Rules;

use self::course::Course;
use self::driver::Lines;
use self::source::Source;
use crate::model::Frame;
use crate::os::clock::Clock;
use crate::wire::{hex_line, rtl_433, rtl_wmbus};

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
    Receiver { name: "rtl-433", baud: 115_200, modes: &[], make: |_| Ok(Box::new(Lines::new(rtl_433::decode))) },
    Receiver {
        name: "hex-lines",
        baud: 115_200,
        modes: &[],
        make: |_| Ok(Box::new(Lines::new(hex_line::decode_wmbus))),
    },
    Receiver { name: "openlinkiq", baud: 115_200, modes: openlinkiq::MODES, make: openlinkiq::make },
    Receiver {
        name: "amb8465",
        baud: 9600,
        modes: amb8465::WORDS,
        make: |settings| Ok(Box::new(amb8465::Amb8465::new(settings)?)),
    },
    Receiver { name: "cul", baud: 38_400, modes: cul::WORDS, make: |settings| Ok(Box::new(cul::Cul::new(settings)?)) },
    Receiver {
        name: "rc1180",
        baud: 19_200,
        modes: rc1180::WORDS,
        make: |settings| Ok(Box::new(rc1180::Rc1180::new(settings)?)),
    },
    Receiver { name: im871a::NAME, baud: im871a::BAUD, modes: im871a::MODES, make: im871a::Im871a::make },
    Receiver { name: iu891a::NAME, baud: iu891a::BAUD, modes: iu891a::MODES, make: iu891a::Iu891a::make },
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
    run_by(settings, out, clock, health, Rules::default(), Path::new("/sys")).await
}

/// As [`run`], watched by other rules, with sysfs in another place.
///
/// # Errors
/// As [`run`].
pub async fn run_by(
    settings: RadioSettings,
    out: mpsc::Sender<Heard>,
    clock: Clock,
    health: Health,
    rules: Rules,
    sys: &Path,
) -> Result<(), RadioError> {
    let source = Arc::new(Source::of(&settings)?);
    let decoding = Decoding::of(&settings);
    let ear = Arc::new(Ear { name: Arc::from(settings.name.as_str()), health, decoding });
    let retell = rules.retell;
    let watch = course::watch(&settings, rules);
    let closed = out.clone();
    let desk = (out.clone(), ear.clone());
    let course = Course { settings, source, out, clock, ear, watch, sys: sys.to_owned(), retell };
    let intake = course.intake()?;
    tokio::select! {
        () = closed.closed() => Ok(()),
        never = async {
            // A closed channel ends it all.
            let _ = desk.0.send(Heard::Receiver(desk.1)).await;
            course.follow(intake).await
        } => match never {},
    }
}
