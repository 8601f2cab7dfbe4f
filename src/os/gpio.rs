//! Digital inputs and outputs by the kernel's character device (`/dev/gpiochip*`).
//!
//! A line is found by the name the kernel gives it. Invariants: an output is held from its first use until [`Pins`] ends, so that it keeps
//! its level; what was set is kept in a file and set again after a restart in the same boot.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gpiocdev::Request;
use gpiocdev::line::Value;

use super::file::{read_small, write_atomic};
use crate::model::BootId;

const LARGEST: u64 = 64 << 10;

/// Why a pin could not be read or set.
#[derive(Debug, thiserror::Error)]
pub enum GpioError {
    /// There is none of that name.
    #[error("there is no {what} \"{name}\"; known are: {known}")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// Its name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The kernel has no such line, or not for weir.
    #[error("the line \"{0}\" is not there: see gpioinfo, and whether weir may open /dev/gpiochip* (docs/watchdog.md)")]
    NoLine(String),
    /// The kernel refused.
    #[error("the line \"{line}\" can't be used: {why}")]
    Kernel {
        /// Its name.
        line: String,
        /// What the kernel said.
        why: String,
    },
}

/// A pin of the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// What it is for.
    pub name: String,
    /// The line's name in the kernel.
    pub line: String,
    /// Whether it is set, not read.
    pub output: bool,
    /// Whether on is the low level.
    pub active_low: bool,
}

/// A line that is held.
pub trait Held: Send {
    /// Sets its level, as seen through `active_low`.
    ///
    /// # Errors
    /// What the kernel said.
    fn set(&self, on: bool) -> Result<(), String>;
    /// Reads it.
    ///
    /// # Errors
    /// What the kernel said.
    fn get(&self) -> Result<bool, String>;
}

/// Who has lines: the kernel, or a test.
pub trait Chip: Send {
    /// Takes a line; an output begins at `level`. `None`: there is no such line.
    ///
    /// # Errors
    /// What the kernel said.
    fn take(&self, pin: &Pin, level: bool) -> Result<Option<Box<dyn Held>>, String>;
}

/// The kernel's lines.
#[derive(Debug, Default)]
pub struct Kernel;

impl Held for Request {
    fn set(&self, on: bool) -> Result<(), String> {
        self.set_lone_value(level(on)).map_err(|error| error.to_string())
    }

    fn get(&self) -> Result<bool, String> {
        self.lone_value().map(|value| value == Value::Active).map_err(|error| error.to_string())
    }
}

impl Chip for Kernel {
    fn take(&self, pin: &Pin, on: bool) -> Result<Option<Box<dyn Held>>, String> {
        let Some(line) = gpiocdev::find_named_line(&pin.line) else { return Ok(None) };
        let mut request = Request::builder();
        request.on_chip(&line.chip).with_line(line.info.offset).with_consumer("weir");
        if pin.output {
            request.as_output(level(on));
        } else {
            request.as_input();
        }
        if pin.active_low {
            request.as_active_low();
        }
        request.request().map(|held| Some(Box::new(held) as Box<dyn Held>)).map_err(|error| error.to_string())
    }
}

const fn level(on: bool) -> Value {
    if on { Value::Active } else { Value::Inactive }
}

/// What was set in which boot.
type Kept = (BootId, BTreeMap<String, bool>);

struct State {
    chip: Box<dyn Chip>,
    held: BTreeMap<String, Box<dyn Held>>,
    kept: Kept,
}

/// All pins of a board; clones are the same.
#[derive(Clone)]
pub struct Pins {
    pins: Arc<[Pin]>,
    file: PathBuf,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pins").field("pins", &self.pins).finish_non_exhaustive()
    }
}

impl Pins {
    /// The pins of a board. Outputs that were set in this boot, as `file` says, are set again.
    pub fn open(pins: Vec<Pin>, chip: impl Chip + 'static, file: PathBuf, boot: BootId) -> Self {
        let read = read_small(&file, LARGEST).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
        let kept = read.filter(|(of, _)| *of == boot).unwrap_or_else(|| (boot, BTreeMap::new()));
        let again = kept.1.clone();
        let state = Arc::new(Mutex::new(State { chip: Box::new(chip), held: BTreeMap::new(), kept }));
        let pins = Self { pins: pins.into(), file, state };
        for (name, on) in again {
            if let Some(pin) = pins.pins.iter().find(|pin| pin.output && pin.name == name)
                && let Err(error) = pins.state().hold(pin, on).map(drop)
            {
                tracing::warn!(output = name, %error, "an output can't be set as it was before the restart");
            }
        }
        pins
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every pin, in the order of the board's file.
    pub fn all(&self) -> &[Pin] {
        &self.pins
    }

    /// Finds an output by its name, or by its number among those that `wanted` lets through, counted from 0.
    ///
    /// # Errors
    /// [`GpioError::Unknown`].
    pub fn output(&self, name: &str, wanted: impl Fn(&Pin) -> bool) -> Result<&Pin, GpioError> {
        let outputs: Vec<_> = self.pins.iter().filter(|pin| pin.output && wanted(pin)).collect();
        let by_number = || outputs.get(name.parse::<usize>().ok()?).copied();
        let found = outputs.iter().find(|pin| pin.name == name).copied().or_else(by_number);
        found.ok_or_else(|| {
            let known: Vec<_> = outputs.iter().enumerate().map(|(n, pin)| format!("{n} = {}", pin.name)).collect();
            let known = if known.is_empty() { "none on this board".to_owned() } else { known.join(", ") };
            GpioError::Unknown { what: "output", name: name.to_owned(), known }
        })
    }

    /// Sets an output and keeps that it was.
    ///
    /// # Errors
    /// [`GpioError`].
    pub fn set(&self, pin: &Pin, on: bool) -> Result<(), GpioError> {
        let mut state = self.state();
        state.hold(pin, on)?.set(on).map_err(|why| GpioError::Kernel { line: pin.line.clone(), why })?;
        state.kept.1.insert(pin.name.clone(), on);
        let written = serde_json::to_vec(&state.kept).map_err(std::io::Error::other);
        if let Err(error) = written.and_then(|text| write_atomic(&self.file, &text, 0o644)) {
            tracing::warn!(%error, "what an output was set to can't be kept over a restart");
        }
        Ok(())
    }

    /// Whether a pin is on; `None` for an output that nobody set: reading it would set it.
    ///
    /// # Errors
    /// [`GpioError`].
    pub fn get(&self, pin: &Pin) -> Result<Option<bool>, GpioError> {
        let mut state = self.state();
        if pin.output && !state.held.contains_key(&pin.name) {
            return Ok(None);
        }
        let failed = |why| GpioError::Kernel { line: pin.line.clone(), why };
        let on = state.hold(pin, false)?.get().map_err(failed)?;
        Ok(Some(on))
    }

    /// Turns an output on for a while.
    ///
    /// # Errors
    /// [`GpioError`]; it is off again also when this is given up.
    pub async fn pulse(&self, pin: &Pin, time: Duration) -> Result<(), GpioError> {
        let failed = |why| GpioError::Kernel { line: pin.line.clone(), why };
        let off = Off { pins: self, pin };
        self.state().hold(pin, false)?.set(true).map_err(failed)?;
        tokio::time::sleep(time).await;
        drop(off);
        let on = self.state().hold(pin, false)?.get().map_err(failed)?;
        if on { Err(failed("it stays on".to_owned())) } else { Ok(()) }
    }
}

/// Ends a pulse whatever happens.
struct Off<'p> {
    pins: &'p Pins,
    pin: &'p Pin,
}

impl Drop for Off<'_> {
    fn drop(&mut self) {
        let off = self.pins.state().hold(self.pin, false).map(|held| held.set(false));
        if !matches!(off, Ok(Ok(()))) {
            tracing::error!(pin = self.pin.name, "a pulse can't be ended; the line stays on");
        }
    }
}

impl State {
    fn hold(&mut self, pin: &Pin, on: bool) -> Result<&dyn Held, GpioError> {
        if !self.held.contains_key(&pin.name) {
            let taken = self.chip.take(pin, on).map_err(|why| GpioError::Kernel { line: pin.line.clone(), why })?;
            let held = taken.ok_or_else(|| GpioError::NoLine(pin.line.clone()))?;
            self.held.insert(pin.name.clone(), held);
        }
        self.held.get(&pin.name).map(AsRef::as_ref).ok_or_else(|| GpioError::NoLine(pin.line.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Levels = Arc<Mutex<BTreeMap<String, bool>>>;

    /// Lines on a bench, and what was done with them.
    #[derive(Clone, Default)]
    struct Bench {
        levels: Levels,
        log: Arc<Mutex<Vec<String>>>,
    }

    struct Line(Bench, String);

    impl Held for Line {
        fn set(&self, on: bool) -> Result<(), String> {
            self.0.levels.lock().unwrap().insert(self.1.clone(), on);
            self.0.log.lock().unwrap().push(format!("{}={}", self.1, u8::from(on)));
            Ok(())
        }

        fn get(&self) -> Result<bool, String> {
            Ok(self.0.levels.lock().unwrap()[&self.1])
        }
    }

    impl Chip for Bench {
        fn take(&self, pin: &Pin, level: bool) -> Result<Option<Box<dyn Held>>, String> {
            if pin.line == "MISSING" {
                return Ok(None);
            }
            let mut levels = self.levels.lock().unwrap();
            if pin.output {
                levels.insert(pin.line.clone(), level);
            }
            Ok(Some(Box::new(Line(self.clone(), pin.line.clone()))))
        }
    }

    fn pins() -> Vec<Pin> {
        let pin =
            |name: &str, line: &str, output| Pin { name: name.into(), line: line.into(), output, active_low: false };
        vec![
            pin("relay-1", "GPIO17", true),
            pin("input-1", "GPIO27", false),
            pin("relay-2", "MISSING", true),
            pin("modem-reset", "GPIO5", true),
        ]
    }

    fn open(bench: &Bench, home: &std::path::Path, boot: u8) -> Pins {
        Pins::open(pins(), bench.clone(), home.join("outputs"), BootId::new([boot; 8]))
    }

    #[test]
    fn an_output_keeps_its_level_over_a_restart_but_not_over_a_boot() {
        let (bench, home) = (Bench::default(), tempfile::tempdir().unwrap());
        let pins = open(&bench, home.path(), 1);
        let relay = pins.output("0", |_| true).unwrap().clone();
        assert_eq!((relay.name.as_str(), pins.get(&relay).unwrap()), ("relay-1", None));
        pins.set(&relay, true).unwrap();
        assert_eq!(pins.get(&relay).unwrap(), Some(true));
        drop(pins);
        bench.levels.lock().unwrap().clear();
        let pins = open(&bench, home.path(), 1);
        assert!(bench.levels.lock().unwrap()["GPIO17"]);
        assert_eq!(pins.get(&relay).unwrap(), Some(true));
        drop(pins);
        bench.levels.lock().unwrap().clear();
        let pins = open(&bench, home.path(), 2);
        assert!(bench.levels.lock().unwrap().is_empty());
        assert_eq!(pins.get(&relay).unwrap(), None);
    }

    #[test]
    fn what_is_not_there_is_told_by_name() {
        let (bench, home) = (Bench::default(), tempfile::tempdir().unwrap());
        let pins = open(&bench, home.path(), 1);
        let unknown = pins.output("relay-9", |pin| pin.name != "modem-reset").unwrap_err().to_string();
        assert_eq!(unknown, "there is no output \"relay-9\"; known are: 0 = relay-1, 1 = relay-2");
        let missing = pins.output("1", |_| true).unwrap();
        assert!(pins.set(missing, true).unwrap_err().to_string().contains("\"MISSING\" is not there"));
        assert!(pins.output("input-1", |_| true).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pulse_ends_also_when_it_is_given_up() {
        let (bench, home) = (Bench::default(), tempfile::tempdir().unwrap());
        let pins = open(&bench, home.path(), 1);
        let reset = pins.output("modem-reset", |_| true).unwrap();
        pins.pulse(reset, Duration::from_millis(500)).await.unwrap();
        let given_up = tokio::time::timeout(Duration::from_millis(10), pins.pulse(reset, Duration::from_secs(5))).await;
        assert!(given_up.is_err());
        assert_eq!(*bench.log.lock().unwrap(), ["GPIO5=1", "GPIO5=0", "GPIO5=1", "GPIO5=0"]);
    }

    #[test]
    fn the_kernel_of_this_machine_says_that_a_line_of_no_such_name_is_not_there() {
        let pin = Pin { name: "x".into(), line: "weir-has-no-such-line".into(), output: false, active_low: false };
        assert!(Kernel.take(&pin, false).unwrap().is_none());
    }
}
