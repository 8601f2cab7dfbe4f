//! Feeds the board's hardware watchdog from the supervisor's loop, so that a hung weir is noticed by the board.

use std::path::Path;
use std::time::Duration;

use tracing::{info, warn};

use crate::board::Board;
use crate::os::dog::{self, HardwareDog};
use crate::watchdog::{self, Health};

/// The device when the board names none.
const USUAL: &str = "/dev/watchdog";
/// A store that does not answer for so long counts as hung.
const HUNG: Duration = Duration::from_secs(60);

/// The hardware watchdog, when weir feeds it.
#[derive(Debug, Default)]
pub(super) struct Hardware {
    dog: Option<HardwareDog>,
    failed: bool,
}

impl Hardware {
    /// Opens the board's watchdog when the settings say so; that it can't be opened is told and stops nothing.
    pub(super) fn open(settings: watchdog::Hardware, board: &Board, health: &Health) -> Self {
        let device = board.description.watchdog.as_deref();
        if settings != watchdog::Hardware::On {
            let fed = dog::is_fed();
            health.hardware(if fed == Some(true) { "other" } else { "nobody" });
            if settings == watchdog::Hardware::Auto && fed == Some(false) && device.is_some() {
                info!("nobody feeds this board's watchdog: set RuntimeWatchdogSec= for systemd (docs/watchdog.md)");
            }
            return Self::default();
        }
        let device = device.unwrap_or_else(|| Path::new(USUAL));
        match HardwareDog::open(device) {
            Ok(dog) => {
                info!(device = %device.display(), every = ?dog.every(), "weir feeds the board's watchdog");
                health.hardware("weir");
                Self { dog: Some(dog), failed: false }
            }
            Err(error) => {
                warn!(device = %device.display(), %error, "weir can't feed the board's watchdog: see whether systemd does, and hardware-watchdog.conf (docs/watchdog.md)");
                health.hardware("nobody");
                Self::default()
            }
        }
    }

    /// How often it is to be fed.
    pub(super) fn every(&self) -> Option<Duration> {
        self.dog.as_ref().map(HardwareDog::every)
    }

    /// Feeds it, unless the store was silent for `silent`.
    pub(super) fn feed(&mut self, silent: Duration) {
        let Some(dog) = self.dog.as_mut().filter(|_| silent < HUNG) else { return };
        match dog.feed() {
            Ok(()) => self.failed = false,
            Err(error) if !std::mem::replace(&mut self.failed, true) => {
                warn!(%error, "the board's watchdog can't be fed; it will reset the board");
            }
            Err(_) => {}
        }
    }

    /// Disarms it at an end that is wanted.
    pub(super) fn close(self) {
        if let Some(Err(error)) = self.dog.map(HardwareDog::close) {
            warn!(%error, "the board's watchdog can't be disarmed; it may reset the board");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fed_while_the_store_answers_and_not_when_it_hangs() {
        let home = tempfile::tempdir().unwrap();
        let device = home.path().join("dog");
        std::fs::write(&device, "").unwrap();
        let mut board = crate::board::load("generic").unwrap();
        board.description.watchdog = Some(device.clone());
        let health = Health::default();
        assert!(Hardware::open(watchdog::Hardware::Auto, &board, &health).every().is_none());
        let mut hardware = Hardware::open(watchdog::Hardware::On, &board, &health);
        assert_eq!(health.status().hardware, "weir");
        hardware.feed(Duration::ZERO);
        hardware.feed(HUNG);
        hardware.close();
        assert_eq!(std::fs::read(&device).unwrap(), b"\0V");
        board.description.watchdog = Some(home.path().join("none"));
        assert!(Hardware::open(watchdog::Hardware::On, &board, &health).every().is_none());
    }
}
