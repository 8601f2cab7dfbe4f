//! From pieces of lines to frames: what is forwarded, what is dropped, and counting both.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::duplicates::Duplicates;
use super::{Health, Receiver};
use crate::model::{Body, ClockState, Frame, Lane, Stamp, Telegram, TelegramKind, Timestamp};
use crate::wire::mbal;
use crate::wire::radio_line::{Item, Piece, Reception};

/// Takes the lines of one receiver; lives as long as it, over all reopenings of its source.
pub(super) struct Intake {
    name: String,
    receiver: &'static Receiver,
    frames: mpsc::Sender<Frame>,
    health: Health,
    duplicates: Duplicates,
    /// Lines in a row that brought no telegram.
    useless: u32,
}

/// So many useless lines in a row are told to the log.
const TOO_MANY_USELESS: u32 = 100;
/// A receiver's own time further than this from the gateway's clock is wrong; less than any two
/// time zones differ, because some programs print local time.
const PLAUSIBLE: Duration = Duration::from_mins(10);

impl Intake {
    pub(super) fn new(name: String, receiver: &'static Receiver, frames: mpsc::Sender<Frame>, health: Health) -> Self {
        Self { name, receiver, frames, health, duplicates: Duplicates::default(), useless: 0 }
    }

    /// Takes one piece that was read at `arrival`, when the gateway's clock showed `stamp`; waits
    /// while there is no room for its frames.
    pub(super) async fn take(&mut self, piece: Piece, arrival: Instant, stamp: Stamp) {
        let line = match piece {
            Piece::Line(line) => line,
            Piece::Skipped { bytes } => {
                self.health.change(|status| status.skipped_bytes += bytes as u64);
                return self.was_useless();
            }
        };
        for item in (self.receiver.decode)(&line) {
            match item {
                Item::Noise => {
                    self.health.change(|status| status.noise += 1);
                    self.was_useless();
                }
                Item::Damaged(fault) => {
                    tracing::trace!(receiver = self.name, %fault, "damaged telegram");
                    self.health.change(|status| status.damaged += 1);
                    self.was_useless();
                }
                Item::Heard(reception) => self.heard(reception, arrival, stamp).await,
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
        if self.duplicates.is_repeat(&reception.bytes, arrival) {
            self.health.change(|status| status.duplicates += 1);
            return;
        }
        // A closed channel ends the whole receiver, in `run`.
        if self.frames.send(frame(reception, stamp)).await.is_ok() {
            self.health.change(|status| status.forwarded += 1);
        }
    }

    fn was_useless(&mut self) {
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

fn frame(reception: Reception, stamp: Stamp) -> Frame {
    let (time, lane) = (time(&reception, stamp), lane(&reception));
    let Reception { kind, bytes, rssi, corrected_bits, .. } = reception;
    Frame { time, lane, body: Body::Telegram(Telegram { kind, bytes, rssi, corrected_bits }), origin: None }
}

/// The receiver's own time when it is plausible: it stood nearer to the event. An unsynced stamp
/// stays as it is: nothing says what is plausible, and its uptime is what will be believed.
fn time(reception: &Reception, stamp: Stamp) -> Stamp {
    let clock = stamp.wall;
    let plausible = |own: &Timestamp| own.since(clock).max(clock.since(*own)) <= PLAUSIBLE;
    match reception.time.filter(plausible) {
        Some(own) if stamp.clock == ClockState::Synced => {
            let earlier = own.as_millis().saturating_sub(clock.as_millis());
            Stamp { wall: own, uptime: stamp.uptime.saturating_add_signed(earlier), ..stamp }
        }
        _ => stamp,
    }
}

/// Which queue a telegram waits in: the sender's own priority bit in OpenlinkIQ; wireless M-Bus
/// has no such bit that all makers use alike.
fn lane(reception: &Reception) -> Lane {
    let priority = match reception.kind {
        TelegramKind::OpenlinkIq => mbal::decode(&reception.bytes).is_ok_and(|frame| frame.is_priority()),
        TelegramKind::WirelessMbus => false,
    };
    if priority { Lane::Priority } else { Lane::Ordinary }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receivers_own_time_counts_while_it_is_near_the_clock_and_in_no_other_time_zone() {
        let clock = Timestamp::from_millis(1_800_000_000_000);
        let stamp = Stamp { uptime: 1_000_000, ..Stamp::synced(clock) };
        let (near, zone) = (600_000, 900_000 - 1000);
        for (offset, kept) in [(0, true), (near, true), (-near, true), (zone, false), (-zone, false)] {
            let own = Timestamp::from_millis(clock.as_millis() + offset);
            let kind = TelegramKind::WirelessMbus;
            let reception = Reception { kind, bytes: Vec::new(), rssi: None, corrected_bits: 0, time: Some(own) };
            let expected = Stamp { wall: own, uptime: 1_000_000u64.saturating_add_signed(offset), ..stamp };
            assert_eq!(time(&reception, stamp), if kept { expected } else { stamp }, "{offset}");
            let unsynced = Stamp { clock: ClockState::Unsynced, ..stamp };
            assert_eq!(time(&reception, unsynced), unsynced);
            assert_eq!(time(&Reception { time: None, ..reception }, stamp), stamp);
        }
    }
}
