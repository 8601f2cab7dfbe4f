//! What one receiver says: telegrams go to the desk, everything else is counted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::desk::{Ear, Heard};
use super::source::Open;
use super::{Decoding, Driver, Health};
use crate::model::Stamp;
use crate::os::clock::Clock;
use crate::wire::radio_line::{Item, Reception};

/// Takes the bytes of one receiver; lives as long as it, over all reopenings of its source.
pub(super) struct Intake {
    name: String,
    driver: Box<dyn Driver>,
    out: mpsc::Sender<Heard>,
    ear: Arc<Ear>,
    health: Health,
    /// Items in a row that brought no telegram.
    useless: u32,
}

/// So many useless items in a row are told to the log.
const TOO_MANY_USELESS: u32 = 100;

impl Intake {
    pub(super) fn new(
        (name, decoding): (String, Decoding),
        driver: Box<dyn Driver>,
        out: mpsc::Sender<Heard>,
        health: Health,
    ) -> Self {
        let ear = Arc::new(Ear { name: Arc::from(name.as_str()), health: health.clone(), decoding });
        Self { name, driver, out, ear, health, useless: 0 }
    }

    /// Brings a receiver whose source was just opened to listen.
    pub(super) async fn start(&mut self, open: &mut Open, clock: &Clock) -> Result<(), String> {
        let who = self.driver.start(open).await;
        self.drain(Instant::now(), clock.stamp()).await;
        if let Some(who) = who? {
            tracing::info!(receiver = self.name, who, "receiver found");
        }
        Ok(())
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
        while let Some(item) = self.driver.next() {
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
    }

    async fn heard(&mut self, reception: Reception, arrival: Instant, stamp: Stamp) {
        if self.useless >= TOO_MANY_USELESS {
            tracing::info!(receiver = self.name, useless = self.useless, "receiver brings telegrams again");
        }
        self.useless = 0;
        self.health.change(|status| {
            status.heard += 1;
            status.last_heard = Some(stamp.wall);
        });
        // A closed channel ends the whole receiver, in `run`.
        let _ = self.out.send(Heard { reception, arrival, stamp, ear: self.ear.clone() }).await;
    }

    fn was_useless(&mut self, count: impl FnOnce(&mut super::Status)) {
        self.health.change(count);
        self.useless = self.useless.saturating_add(1);
        if self.useless == TOO_MANY_USELESS {
            tracing::warn!(
                receiver = self.name,
                useless = self.useless,
                "receiver brings nothing but noise; check its kind, its baud rate and its aerial"
            );
        }
    }
}
