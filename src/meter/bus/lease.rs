//! Lends the open line to somebody for a bounded time.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info};

use super::Bus;
use super::door::{FOR_EVER, Lease, LeaseError};
use crate::model::Frame;

/// What a borrower left on its way is read away until the line was quiet for so long ...
const QUIET: Duration = Duration::from_millis(50);
/// ... but not longer than this.
const LONGEST_QUIET: Duration = Duration::from_secs(1);

impl Bus {
    /// Lends the line, gives the nulls of slots that pass by meanwhile, and sets the line right.
    pub(super) async fn lend(&mut self, lease: Lease, frames: &mpsc::Sender<Frame>) {
        let Lease { limit, owner, work, mut ended } = lease;
        // Who gave up waiting must not find it done later.
        if ended.is_closed() {
            return;
        }
        self.line.close_if_gone(&self.port);
        self.line.open_when_due(&self.port).await;
        let Some(line) = &mut self.line.line else {
            let _ = ended.send(LeaseError::NoLine(self.line.sentence(&self.port)));
            return;
        };
        if line.set_speed(self.port.speed).is_err() {
            self.line.close();
            let _ = ended.send(LeaseError::NoLine("the line is gone; ask again".to_owned()));
            return;
        }
        line.set_echo(self.port.echo);
        line.take_read_away();
        let until = Instant::now() + limit;
        info!(port = %self.port.name, to = owner.purpose.word(), name = %owner.name, "the line is lent");
        let held = self.inbox.holder.begin(owner, (limit < FOR_EVER).then_some(until));
        let done = {
            let mut borrowed = std::pin::pin!(timeout_at(until, work(line)));
            loop {
                let slot = super::until_slot(&self.meters, self.clock.now());
                tokio::select! {
                    biased;
                    () = ended.closed() => break false,
                    done = &mut borrowed => break done.is_ok(),
                    () = sleep(slot) => super::give_nulls(&mut self.meters, &self.clock, &self.health, frames),
                }
            }
        };
        drop(held);
        info!(port = %self.port.name, finished = done, "the line is back");
        self.last = None;
        if done {
            self.recover().await;
        }
        if let Some(line) = &mut self.line.line {
            let bytes = line.take_read_away();
            if bytes > 0 {
                debug!(port = %self.port.name, bytes, "bytes that were meant for nobody any more were read away");
                self.inbox.holder.note_read_away(bytes);
            }
        }
        if !done {
            // The borrower was stopped anywhere: nobody knows what it left on the way.
            self.line.close();
            let _ = ended.send(LeaseError::Expired(limit));
        }
    }

    /// Reads away what may still come, and closes a line that is gone.
    async fn recover(&mut self) {
        let Some(line) = &mut self.line.line else { return };
        let quiet = line.wait_for_silence(QUIET, LONGEST_QUIET).await;
        line.take_notes();
        if let Err(error) = quiet {
            debug!(port = %self.port.name, %error, "the line did not outlive its lease");
            self.line.close();
        }
    }
}
