//! Where a [`Clock`](super::Clock) reads: the kernel, or for tests a dial.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rand::Rng;
use rustix::time::{ClockId, clock_gettime};

use super::kernel;
use super::settings::Trust;
use crate::model::{BootId, Timestamp};

/// Something a clock can be read from.
pub trait Source: Send + Sync + fmt::Debug {
    /// The wall time, and the milliseconds since the boot with sleep included.
    fn read(&self) -> (Timestamp, u64);

    /// Which boot that is.
    fn boot(&self) -> BootId;

    /// Whether somebody says that the wall time is right.
    fn is_trusted(&self) -> bool;
}

/// Reads the wall clock.
pub(super) fn wall() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is the place the rule points to")]
    let now = SystemTime::now();
    let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    // A clock can be set to before 1970, too.
    Timestamp::from_millis(match now.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => millis(after),
        Err(before) => -millis(before.duration()),
    })
}

fn uptime() -> u64 {
    let uptime = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(uptime.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(u64::try_from(uptime.tv_nsec / 1_000_000).unwrap_or(0))
}

/// What systemd-timesyncd makes when it has set the clock; it is gone after a boot.
const TIMESYNCD: &str = "/run/systemd/timesync/synchronized";
/// The uptime by which it is usually there, in milliseconds.
const LATE: u64 = 600_000;

/// The kernel's clocks.
#[derive(Debug)]
pub(super) struct System {
    boot: BootId,
    /// The uptime that counts as 0.
    origin: u64,
    trust: Trust,
    /// The kernel's refusal to tell was logged.
    refused: AtomicBool,
}

impl System {
    pub(super) fn new(trust: Trust) -> Self {
        let id = crate::os::file::read_small(Path::new("/proc/sys/kernel/random/boot_id"), 64);
        let id = id.ok().and_then(|text| BootId::parse(&String::from_utf8_lossy(&text)));
        // Without it (no /proc) this process counts as a boot of its own: less can be mended.
        let own = || (BootId::new((crate::os::random::generator().next_u64() | 1).to_be_bytes()), uptime());
        let (boot, origin) = id.map_or_else(own, |id| (id, 0));
        Self { boot, origin, trust, refused: AtomicBool::new(false) }
    }

    fn kernel_is_synchronised(&self) -> bool {
        kernel::is_synchronised().unwrap_or_else(|error| {
            // systemd-timesyncd may still speak for the clock.
            if uptime() > LATE && !self.refused.swap(true, Ordering::Relaxed) {
                tracing::warn!(%error, "the kernel does not tell whether its clock is right; install systemd/clock.conf or set clock.trust");
            }
            false
        })
    }
}

impl Source for System {
    fn read(&self) -> (Timestamp, u64) {
        (wall(), uptime().saturating_sub(self.origin))
    }

    fn boot(&self) -> BootId {
        self.boot
    }

    fn is_trusted(&self) -> bool {
        match &self.trust {
            Trust::Always => true,
            Trust::File(path) => path.exists(),
            Trust::Kernel => Path::new(TIMESYNCD).exists() || self.kernel_is_synchronised(),
        }
    }
}

/// A clock that is set by hand, for tests; clones share it.
#[derive(Debug, Clone)]
pub struct Dial {
    state: Arc<Mutex<(Timestamp, u64)>>,
    trusted: Arc<AtomicBool>,
    boot: BootId,
}

impl Dial {
    /// A machine that has just booted, with its wall clock at `wall`, which nobody vouches for.
    pub fn new(wall: Timestamp, boot: BootId) -> Self {
        Self { state: Arc::new(Mutex::new((wall, 0))), trusted: Arc::default(), boot }
    }

    /// Time passes.
    pub fn pass(&self, time: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, uptime) = *state;
        *state = (wall.plus(time), uptime.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
    }

    /// Somebody sets the wall clock.
    pub fn set(&self, wall: Timestamp) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = wall;
    }

    /// Somebody vouches for the wall clock, or no longer does.
    pub fn trust(&self, trusted: bool) {
        self.trusted.store(trusted, Ordering::SeqCst);
    }
}

impl Source for Dial {
    fn read(&self) -> (Timestamp, u64) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn boot(&self) -> BootId {
        self.boot
    }

    fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::SeqCst)
    }
}
