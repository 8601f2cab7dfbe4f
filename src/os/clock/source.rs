//! Where a [`Clock`](super::Clock) reads: the kernel, or for tests a dial.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::model::{BootId, Timestamp};

/// Something a clock can be read from.
pub trait Source: Send + Sync + fmt::Debug {
    /// The wall time, and the milliseconds since the boot with sleep included.
    fn read(&self) -> (Timestamp, u64);

    /// Which boot that is.
    fn boot(&self) -> BootId;
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

/// The kernel's clocks.
#[derive(Debug)]
pub(super) struct System {
    boot: BootId,
}

impl System {
    pub(super) fn new() -> Self {
        let id = crate::os::file::read_small("/proc/sys/kernel/random/boot_id".as_ref(), 64);
        let id = id.ok().and_then(|text| BootId::parse(&String::from_utf8_lossy(&text)));
        Self { boot: id.unwrap_or(BootId::UNKNOWN) }
    }
}

impl Source for System {
    fn read(&self) -> (Timestamp, u64) {
        let uptime = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(uptime.tv_sec).unwrap_or(0);
        let millis = u64::try_from(uptime.tv_nsec / 1_000_000).unwrap_or(0);
        (wall(), seconds.saturating_mul(1000).saturating_add(millis))
    }

    fn boot(&self) -> BootId {
        self.boot
    }
}

/// A clock that is set by hand, for tests; clones share it.
#[derive(Debug, Clone)]
pub struct Dial {
    state: Arc<Mutex<(Timestamp, u64)>>,
    boot: BootId,
}

impl Dial {
    /// A machine that has just booted, with its wall clock at `wall`.
    pub fn new(wall: Timestamp, boot: BootId) -> Self {
        Self { state: Arc::new(Mutex::new((wall, 0))), boot }
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
}

impl Source for Dial {
    fn read(&self) -> (Timestamp, u64) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn boot(&self) -> BootId {
        self.boot
    }
}
