//! Makes frames of what all receivers hear: each telegram once, with its lane and its time.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Health;
use super::duplicates::Duplicates;
use crate::model::{Body, ClockState, Frame, Lane, Stamp, Telegram, TelegramKind, Timestamp};
use crate::wire::mbal;
use crate::wire::radio_line::Reception;

/// A telegram that one receiver heard.
#[derive(Debug)]
pub struct Heard {
    /// What it heard.
    pub reception: Reception,
    /// When its last byte came.
    pub arrival: Instant,
    /// What the gateway's clock showed then.
    pub stamp: Stamp,
    /// Where what becomes of it is counted.
    pub receiver: Health,
}

/// A receiver's own time further than this from the gateway's clock is wrong; less than any two
/// time zones differ, because some programs print local time.
const PLAUSIBLE: Duration = Duration::from_mins(10);

/// Takes telegrams until no receiver is left, or nobody takes frames.
pub(super) async fn run(heard: &mut mpsc::Receiver<Heard>, frames: mpsc::Sender<Frame>) {
    let mut duplicates = Duplicates::default();
    loop {
        let next = tokio::select! {
            next = heard.recv() => next,
            () = frames.closed() => None,
        };
        let Some(Heard { reception, arrival, stamp, receiver }) = next else { return };
        if duplicates.is_repeat(&reception.bytes, arrival) {
            receiver.change(|status| status.duplicates += 1);
        } else if frames.send(frame(reception, stamp)).await.is_ok() {
            receiver.change(|status| status.forwarded += 1);
        } else {
            return;
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
