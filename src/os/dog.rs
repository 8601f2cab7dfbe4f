//! The board's hardware watchdog: a device that resets the board unless it is written to in time.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use super::file::read_small;

/// The time a device takes when the kernel does not tell it: shorter ones are rare, and it is fed far more often.
const USUAL: Duration = Duration::from_secs(15);
/// Where the kernel tells the timeout and the state (`CONFIG_WATCHDOG_SYSFS`).
const SYSFS: &str = "/sys/class/watchdog/watchdog0";

/// An open watchdog: from now on the board is reset when it is not fed.
#[derive(Debug)]
pub struct HardwareDog {
    device: File,
    every: Duration,
}

impl HardwareDog {
    /// Opens a device, which arms it.
    ///
    /// # Errors
    /// The system's error: not there, not allowed, or somebody else (systemd) feeds it.
    pub fn open(device: &Path) -> io::Result<Self> {
        let timeout = timeout(Path::new(SYSFS)).unwrap_or(USUAL);
        Self::with_timeout(device, timeout)
    }

    fn with_timeout(device: &Path, timeout: Duration) -> io::Result<Self> {
        let device = OpenOptions::new().write(true).open(device)?;
        let every = (timeout / 3).clamp(Duration::from_millis(500), Duration::from_secs(10));
        Ok(Self { device, every })
    }

    /// How often it is to be fed.
    pub const fn every(&self) -> Duration {
        self.every
    }

    /// Feeds it.
    ///
    /// # Errors
    /// The system's error.
    pub fn feed(&mut self) -> io::Result<()> {
        self.device.write_all(b"\0")
    }

    /// Disarms it, where the driver allows that (the magic close). Dropped without this it resets the board in time.
    ///
    /// # Errors
    /// The system's error.
    pub fn close(mut self) -> io::Result<()> {
        self.device.write_all(b"V")
    }
}

fn timeout(sysfs: &Path) -> Option<Duration> {
    let text = read_small(&sysfs.join("timeout"), 64).ok()?;
    String::from_utf8_lossy(&text).trim().parse().ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// Whether somebody feeds the board's watchdog: `None` when the kernel does not tell.
pub fn is_fed() -> Option<bool> {
    let text = read_small(&Path::new(SYSFS).join("state"), 64).ok()?;
    Some(String::from_utf8_lossy(&text).trim() == "active")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fed_and_closed_by_the_magic_letter_but_not_when_weir_dies() {
        let home = tempfile::tempdir().unwrap();
        let device = home.path().join("watchdog");
        assert!(HardwareDog::open(&device).is_err());
        std::fs::write(&device, "").unwrap();
        let mut dog = HardwareDog::with_timeout(&device, Duration::from_secs(60)).unwrap();
        assert_eq!(dog.every(), Duration::from_secs(10));
        dog.feed().unwrap();
        dog.feed().unwrap();
        dog.close().unwrap();
        assert_eq!(std::fs::read(&device).unwrap(), b"\0\0V");
        std::fs::write(&device, "").unwrap();
        drop(HardwareDog::with_timeout(&device, Duration::from_secs(1)).unwrap());
        assert_eq!(std::fs::read(&device).unwrap(), b"");
    }

    #[test]
    fn the_kernel_tells_how_long_the_device_waits() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(timeout(home.path()), None);
        std::fs::write(home.path().join("timeout"), "60\n").unwrap();
        assert_eq!(timeout(home.path()), Some(Duration::from_mins(1)));
    }
}
