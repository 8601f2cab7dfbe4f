//! What time it is: the one place that asks.
//!
//! [`Clock`] stamps frames with the wall clock's time and with what can mend it later: the boot
//! and the time since then. It asks who vouches for the wall clock, notices when that is set, and
//! keeps the clock book, so that a frame made before the clock was right gets its time afterwards
//! ([`Clock::resolve`]). Invariants: no time given out lies before [`BUILT`]; a disk that is full
//! or hangs stops nothing here. docs/time.md says what is promised. Start with [`Clock::stamp`].

mod book;
mod health;
mod kernel;
mod settings;
mod source;
mod state;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use self::book::Book;
pub use self::health::{Basis, Health};
pub use self::settings::{ClockSettings, Trust};
use self::source::System;
pub use self::source::{Dial, Source};
pub use self::state::BUILT;
use self::state::{Reading, State};
use super::file::{read_small, write_atomic};
use crate::model::{Stamp, TimeQuality, Timestamp};

/// The name of the clock book in the store's directory.
pub const BOOK: &str = "clock";

/// How often somebody looks when no frame makes it necessary.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// The same after the start, until the clock is trusted.
const FIRST_LOOKS: Duration = Duration::from_secs(10);
/// How many of the first looks.
const FIRST_LOOKS_COUNT: u32 = 60;
/// How long the last writing of the book may take.
const SAVE_GRACE: Duration = Duration::from_secs(2);

/// Reads the wall clock as it is, right or wrong; whatever is kept or published takes a [`Clock`].
pub fn now() -> Timestamp {
    source::wall()
}

/// A handle to the gateway's clock; clones share it.
#[derive(Debug, Clone)]
pub struct Clock {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    source: Box<dyn Source>,
    state: Mutex<State>,
    /// Counts what changed: trust, jumps, new offsets. The keeper and those who wait see it.
    changes: watch::Sender<u64>,
    /// Where the book is kept.
    path: Option<PathBuf>,
    /// Held while the book is written: two writers would tear each other's file.
    writing: Mutex<()>,
}

impl Clock {
    /// The machine's clock with the default settings and no book.
    pub fn system() -> Self {
        let settings = ClockSettings::default();
        Self::make(Box::new(System::new(settings.trust)), settings.patience, None)
    }

    /// The machine's clock, with the book in `directory`. A missing, damaged or unreadable book
    /// is told and costs the times it held, nothing else. Nothing is written before [`Clock::keep`].
    pub fn open(settings: &ClockSettings, directory: &Path) -> Self {
        Self::make(Box::new(System::new(settings.trust.clone())), settings.patience, Some(directory.join(BOOK)))
    }

    /// The clock that reads this source, with the book in `directory` if there is one.
    pub fn of(source: impl Source + 'static, patience: Duration, directory: Option<&Path>) -> Self {
        Self::make(Box::new(source), patience, directory.map(|d| d.join(BOOK)))
    }

    fn make(source: Box<dyn Source>, patience: Duration, path: Option<PathBuf>) -> Self {
        let book = path.as_deref().map(read).unwrap_or_default();
        let state = Mutex::new(State::new(source.boot(), source.read().1, patience, book));
        Self {
            shared: Arc::new(Shared { source, state, changes: watch::Sender::new(0), path, writing: Mutex::new(()) }),
        }
    }

    /// The time now, for what is kept or published.
    pub fn stamp(&self) -> Stamp {
        let (state, now) = self.look();
        state.stamp(now)
    }

    /// The time now, as well as it is known; never before [`BUILT`].
    pub fn now(&self) -> Timestamp {
        self.stamp().wall
    }

    /// The best that is known of when `stamp` was made.
    pub fn resolve(&self, stamp: &Stamp) -> (Timestamp, TimeQuality) {
        self.lock().resolve(stamp)
    }

    /// How the clock is doing.
    pub fn health(&self) -> Health {
        let (state, now) = self.look();
        state.health(now)
    }

    /// Whether ordinary frames should wait, because the wall clock has obviously not been set yet
    /// and the patience is not over.
    pub fn holds(&self) -> bool {
        let (state, now) = self.look();
        state.hold(now).is_some()
    }

    /// Waits until ordinary frames need not wait any more.
    pub async fn released(&self) {
        let mut changes = self.shared.changes.subscribe();
        loop {
            let held = {
                let (state, now) = self.look();
                state.hold(now)
            };
            let Some(left) = held else { return };
            changes.borrow_and_update();
            // A change or the end of the patience, whichever comes first.
            let _ = timeout(left, changes.changed()).await;
        }
    }

    /// Keeps the book and notices jumps while no frame comes; never ends.
    ///
    /// # Errors
    /// None.
    pub async fn keep(&self) -> Result<(), Infallible> {
        let mut changes = self.shared.changes.subscribe();
        let mut failures = 0u64;
        let mut looks = 0;
        let health = self.health();
        if health.basis != Basis::Clock {
            info!(time = %health.time, basis = health.basis.word(), "the wall clock is not trusted yet");
        }
        loop {
            let trusted = self.look().0.is_trusted();
            // Its own look may have been a change.
            changes.borrow_and_update();
            self.save(&mut failures).await;
            looks = if trusted { FIRST_LOOKS_COUNT } else { looks + 1 };
            let wait = if looks < FIRST_LOOKS_COUNT { FIRST_LOOKS } else { LOOK_EVERY };
            if failures > 0 {
                // A disk that refuses is not asked at each change.
                sleep(wait).await;
            } else {
                let _ = timeout(wait, changes.changed()).await;
            }
        }
    }

    /// Writes the last good time before the agent ends, if the clock is trusted; waits a moment.
    pub async fn close(&self) {
        {
            let (mut state, _) = self.look();
            state.unsaved |= state.is_trusted();
        }
        if timeout(SAVE_GRACE, self.save(&mut 0)).await.is_err() {
            debug!("the clock book is still being written at the end");
        }
    }

    /// Writes the book if it knows what its file does not, on another thread: a flash card may
    /// take seconds.
    async fn save(&self, failures: &mut u64) {
        let (text, good) = {
            let mut state = self.lock();
            if !std::mem::take(&mut state.unsaved) {
                return;
            }
            (state.book.encode(), state.book.good())
        };
        let Some(path) = self.shared.path.clone() else {
            self.lock().saved(good);
            return;
        };
        let shown = path.display().to_string();
        let shared = self.shared.clone();
        let write = move || {
            let _alone = shared.writing.lock().unwrap_or_else(PoisonError::into_inner);
            write_atomic(&path, text.as_bytes(), 0o644)
        };
        let written = tokio::task::spawn_blocking(write).await.unwrap_or_else(|e| Err(io::Error::other(e)));
        let Err(error) = written else {
            self.lock().saved(good);
            if std::mem::take(failures) > 0 {
                info!(path = shown, "the clock book is written again");
            }
            return;
        };
        self.lock().unsaved = true;
        *failures += 1;
        if *failures == 1 {
            warn!(path = shown, %error, "the clock book cannot be written; frames of an unset clock can't be mended after a restart");
        } else {
            debug!(path = shown, %error, failures, "the clock book still cannot be written");
        }
    }

    /// Reads the clocks, asks who vouches for them if that is due, and takes it in.
    fn look(&self) -> (MutexGuard<'_, State>, Reading) {
        let source = &self.shared.source;
        let mut state = self.lock();
        // Asked first and read then: what is vouched for is not a time from before it was set.
        let uptime = source.read().1;
        if state.must_ask(uptime) {
            state.answered(uptime, source.is_trusted());
        }
        let read = || {
            let (wall, uptime) = source.read();
            Reading { wall, uptime }
        };
        let mut now = read();
        let was_trusted = state.is_trusted();
        let jump = state.jumped(now);
        if jump.is_some() {
            state.answered(now.uptime, source.is_trusted());
            now = read();
        }
        let turned = state.judge(now);
        if let Some(jump) = jump.filter(|j| j.tell) {
            let (by_ms, clock, trusted) = (jump.by, now.wall, state.is_trusted());
            if was_trusted {
                warn!(by_ms, %clock, trusted, "the wall clock was set while it was trusted");
            } else {
                info!(by_ms, %clock, trusted, "the wall clock was set");
            }
        }
        if turned {
            if state.tells_turn(now) {
                tell_trust(&state, now);
            } else {
                debug!(clock = %now.wall, trusted = state.is_trusted(), "the trust in the wall clock changed again");
            }
        }
        if turned || jump.is_some() || state.unsaved {
            self.shared.changes.send_modify(|n| *n = n.wrapping_add(1));
        }
        (state, now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell_trust(state: &State, now: Reading) {
    let (clock, basis) = (now.wall, state.health(now).basis.word());
    if state.is_trusted() {
        info!(%clock, "the wall clock is trusted");
    } else if state.is_refused() {
        warn!(%clock, basis, "the wall clock shows a time before weir was built and is not believed");
    } else {
        info!(%clock, basis, "the wall clock is no longer trusted");
    }
}

/// Reads the book's file; what can't be read is left out.
fn read(path: &Path) -> Book {
    let bytes = match read_small(path, book::LARGEST) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Book::default(),
        Err(error) => {
            warn!(path = %path.display(), %error, "the clock book cannot be read; what it knew is given up");
            return Book::default();
        }
    };
    let (book, damaged) = Book::decode(&bytes);
    if damaged > 0 {
        warn!(path = %path.display(), damaged, "lines of the clock book are damaged and left out");
    }
    book
}
