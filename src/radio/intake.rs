//! What one receiver says: telegrams go to the desk, everything else is counted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use super::desk::{Ear, Heard};
use super::source::Open;
use super::watch::Shared;
use super::{Driver, Health, SourceState};
use crate::model::{Stamp, Timestamp};
use crate::os::clock::Clock;
use crate::wire::radio_line::{Item, Reception};

/// Takes the bytes of one receiver; lives as long as it, over all reopenings of its source.
pub(super) struct Intake {
    name: String,
    driver: Box<dyn Driver>,
    out: mpsc::Sender<Heard>,
    ear: Arc<Ear>,
    health: Health,
    watch: Shared,
    /// Who the receiver said it was.
    who: String,
    /// Items in a row that brought no telegram.
    useless: u32,
    /// The log was told of those.
    told: bool,
    /// Telegrams so far.
    telegrams: u64,
    /// The receiver was there and could not be brought to listen.
    mute: bool,
}

/// What was heard longer ago than this before it was told has a wrong clock.
const OLDEST: Duration = Duration::from_mins(10);
/// So many useless items in a row are told to the log.
const TOO_MANY_USELESS: u32 = 100;

impl Intake {
    pub(super) fn new(driver: Box<dyn Driver>, out: mpsc::Sender<Heard>, ear: Arc<Ear>, watch: Shared) -> Self {
        let (name, health) = (ear.name.to_string(), ear.health.clone());
        Self {
            name,
            driver,
            out,
            ear,
            health,
            watch,
            who: String::new(),
            useless: 0,
            told: false,
            telegrams: 0,
            mute: false,
        }
    }

    /// Brings a receiver whose source was just opened to listen.
    pub(super) async fn start(&mut self, open: &mut Open, clock: &Clock) -> Result<(), String> {
        let who = self.driver.start(open).await;
        self.mute = who.is_err();
        self.drain(Instant::now(), clock.stamp()).await;
        if let Some(who) = who? {
            self.found(who);
        }
        Ok(())
    }

    /// Whether the receiver has restarted and must be brought to listen again.
    pub(super) fn restarted(&self) -> bool {
        self.driver.restarted()
    }

    /// Whether a long silence may mean that the receiver forgot what it was told.
    pub(super) fn forgets(&self) -> bool {
        self.driver.forgets()
    }

    /// Whether the receiver was there the last time and could not be brought to listen.
    pub(super) const fn is_mute(&self) -> bool {
        self.mute
    }

    /// Tells that the receiver itself was not there.
    pub(super) const fn was_away(&mut self) {
        self.mute = false;
    }

    /// The number of telegrams so far.
    pub(super) const fn telegrams(&self) -> u64 {
        self.telegrams
    }

    /// Tells who the receiver is, once; it says so at every start and perhaps every minute.
    fn found(&mut self, who: String) {
        let again = who == self.who || !self.watch.with(|watch| watch.may_introduce(Instant::now()));
        if again {
            tracing::debug!(receiver = self.name, who, "receiver found again");
            self.who = who;
            return;
        }
        tracing::info!(receiver = self.name, who, "receiver found");
        self.who = who;
    }

    /// How long the rest of a telegram may take to come; `None` when none has begun.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.driver.patience()
    }

    /// Takes what was read at `arrival`, when the gateway's clock showed `stamp`; nothing is the end of
    /// the source or a silence.
    /// Waits while there is no room for its telegrams.
    pub(super) async fn take(&mut self, bytes: &[u8], arrival: Instant, stamp: Stamp) {
        if bytes.is_empty() {
            self.driver.silence();
        } else {
            self.driver.push(bytes);
        }
        self.drain(arrival, stamp).await;
    }

    async fn drain(&mut self, arrival: Instant, stamp: Stamp) {
        let _busy = self.watch.busy();
        loop {
            while let Some(item) = self.driver.next() {
                self.item(item, arrival, stamp).await;
            }
            let Some(work) = self.driver.work() else { break };
            // It only fails when it panics; codecs do not.
            let Ok(item) = tokio::task::spawn_blocking(work).await else { continue };
            self.item(item, arrival, stamp).await;
        }
        if let Some(who) = self.driver.introduced() {
            self.found(who);
        }
    }

    async fn item(&mut self, item: Item, arrival: Instant, stamp: Stamp) {
        match item {
            Item::Heard(reception) => self.heard(reception, arrival, stamp).await,
            Item::Noise => self.was_useless(|status| status.noise += 1),
            Item::Skipped { bytes } => self.was_useless(|status| status.skipped_bytes += bytes as u64),
            Item::Damaged(fault) => {
                tracing::trace!(receiver = self.name, %fault, "damaged telegram");
                self.was_useless(|status| status.damaged += 1);
            }
        }
    }

    async fn heard(&mut self, reception: Reception, arrival: Instant, stamp: Stamp) {
        self.telegrams += 1;
        if std::mem::take(&mut self.told) {
            tracing::info!(receiver = self.name, useless = self.useless, "receiver brings telegrams again");
        }
        self.useless = 0;
        let silence = self.watch.with(|watch| watch.heard(arrival));
        if let Some(silent) = silence {
            tracing::info!(receiver = self.name, silent_s = silent.as_secs(), "receiver is no longer silent");
        }
        let stamp = earlier(stamp, self.driver.age());
        self.health.change(|status| {
            status.heard += 1;
            status.last_heard = Some(stamp.wall);
            if silence.is_some() {
                status.source = SourceState::Open;
            }
        });
        // A closed channel ends the whole receiver, in `run`.
        let telegram = Heard::Telegram { reception, arrival, stamp, ear: self.ear.clone() };
        if let Err(TrySendError::Full(telegram)) = self.out.try_send(telegram) {
            let _ = self.out.send(telegram).await;
        }
    }

    fn was_useless(&mut self, count: impl FnOnce(&mut super::Status)) {
        self.health.change(count);
        self.useless = self.useless.saturating_add(1);
        if self.useless == TOO_MANY_USELESS && self.watch.with(|watch| watch.may_tell_noise(Instant::now())) {
            self.told = true;
            tracing::warn!(
                receiver = self.name,
                useless = self.useless,
                "receiver brings nothing but noise; check its kind, its baud rate and its aerial"
            );
        }
    }
}

/// The moment so long before another.
fn earlier(stamp: Stamp, age: Duration) -> Stamp {
    let Some(millis) = u64::try_from(age.as_millis()).ok().filter(|_| age <= OLDEST) else { return stamp };
    let wall = stamp.wall.as_millis().saturating_sub_unsigned(millis);
    Stamp { wall: Timestamp::from_millis(wall), uptime: stamp.uptime.saturating_sub(millis), ..stamp }
}
