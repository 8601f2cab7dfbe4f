//! Makes frames of what all receivers hear: each telegram once, by its best reception, in its lane, of
//! meters that are wanted, as often as they are wanted.
//!
//! A telegram's way: [`copies`] tells whether it was heard already; [`meters`] knows its sender and whether it
//! is wanted; [`urgency`] decides its lane. An urgent one leaves at once; an ordinary one waits a moment in
//! `copies` for better receptions and perhaps in [`sampler`] for the end of its period. All of them are bounded, and the
//! cost of a telegram does not depend on how many meters there are.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep_until};

use super::keys::Decoding;
use super::telegrams::TelegramsSettings;
use super::{Forward, Health, Status};
use crate::model::{Body, ClockState, Decoded, Frame, Lane, Stamp, Telegram, Timestamp};
use crate::wire::radio_line::Reception;
use crate::wire::telegram::{self, facts};
use crate::wire::wmbus::{self, Keys, Meter, Reason, Reasons};

mod copies;
mod meters;
mod opening;
mod pattern;
mod sampler;
mod sight;
mod urgency;

use copies::{Copies, Gathered};
use meters::Selection;
pub use meters::Survey;
use opening::{Opening, Said};
pub(super) use pattern::Pattern;
use sampler::{Outcome, Sampler};
pub use sight::{Security, Sight, Signal};

/// What a receiver tells the desk.
#[derive(Debug)]
pub enum Heard {
    /// It begins to listen.
    Receiver(Arc<Ear>),
    /// It heard a telegram.
    Telegram {
        /// What it heard.
        reception: Reception,
        /// When its last byte came.
        arrival: Instant,
        /// What the gateway's clock showed then.
        stamp: Stamp,
        /// Who heard it.
        ear: Arc<Ear>,
    },
}

/// A receiver, as the desk knows it.
#[derive(Debug)]
pub struct Ear {
    /// Its name in weir.toml.
    pub name: Arc<str>,
    /// Where what becomes of its telegrams is counted.
    pub health: Health,
    /// What becomes of its telegrams.
    pub(super) decoding: Decoding,
}

impl Ear {
    fn decodes(&self) -> bool {
        self.decoding.forward != Forward::Raw
    }
}

/// What waits together is taken together, so much at most.
const TOGETHER: usize = super::HEARD_WAITING;

/// A receiver's own time further than this from the gateway's clock is wrong; less than any two
/// time zones differ, because some programs print local time.
const PLAUSIBLE: Duration = Duration::from_mins(10);

/// What is remembered of a telegram on its way.
#[derive(Debug, Clone)]
struct Way {
    ear: Arc<Ear>,
    stamp: Stamp,
    arrival: Instant,
    meter: Meter,
    sampled: Option<Duration>,
    /// What it says, when that had to be known before it leaves.
    said: Early,
}

/// What a telegram says, before it leaves.
#[derive(Debug, Clone)]
enum Early {
    /// Nobody has asked yet.
    Unknown,
    /// It was opened, or could not be.
    Known(Option<Box<Said>>),
}

/// A frame that leaves, and what it counts for at its receiver.
struct Leaving {
    frame: Frame,
    ear: Arc<Ear>,
    count: fn(&mut Status),
}

/// The desk without its channels.
struct Desk {
    settings: TelegramsSettings,
    selection: Selection,
    urgent: Reasons,
    survey: Survey,
    /// Every receiver: the keys of each are for all.
    ears: Vec<Arc<Ear>>,
    copies: Copies<Way>,
    sampler: Sampler<Gathered<Way>>,
    opening: Opening,
    out: VecDeque<Leaving>,
}

impl Desk {
    fn new(settings: TelegramsSettings, survey: Survey) -> Self {
        Self {
            selection: Selection::new(&settings),
            urgent: urgency::wanted(&settings.urgent),
            survey,
            ears: Vec::new(),
            copies: Copies::new(*settings.gather, *settings.window),
            sampler: Sampler::new(),
            opening: Opening::default(),
            out: VecDeque::new(),
            settings,
        }
    }

    /// Takes what a receiver tells.
    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Telegram { reception, arrival, stamp, ear } => self.take(reception, arrival, stamp, ear),
            Heard::Receiver(ear) => match self.ears.iter_mut().find(|known| known.name == ear.name) {
                Some(known) => *known = ear,
                None => self.ears.push(ear),
            },
        }
    }

    /// Takes a telegram; what may leave is in `out` then.
    fn take(&mut self, reception: Reception, arrival: Instant, stamp: Stamp, ear: Arc<Ear>) {
        self.release(arrival, false);
        let Some(facts) = facts(reception.kind, &reception.bytes) else {
            // Receivers give sound telegrams only.
            return ear.health.change(|status| status.damaged += 1);
        };
        let (meter, id) = (facts.meter, telegram::id(reception.kind, &reception.bytes));
        // The receiver whose reception is dropped counts the duplicate.
        let mut worse = ear.clone();
        let better = |way: &mut Way| {
            worse = std::mem::replace(&mut way.ear, ear.clone());
            (way.stamp, way.arrival) = (stamp, arrival);
        };
        if self.copies.is_copy(id, &reception, better, arrival) {
            self.survey.copied(meter, &reception, &ear.name);
            return worse.health.change(|status| status.duplicates += 1);
        }
        let (wanted, sampled) = self.survey.heard((&facts, &reception), stamp, &ear.name, &self.selection);
        let piece = facts.upper.afl.is_some_and(|afl| afl.more_fragments() || afl.fragment() > 1);
        let mut shown = wmbus::urgency(&facts);
        // Fragments are joined in the order in which they came, whenever they leave.
        // A better reception may be that of a receiver that decodes.
        let decodes = ear.decodes() || self.ears.iter().any(|ear| ear.decodes());
        let said = if wanted && decodes && (piece || self.urgent.has(Reason::ErrorFlags)) {
            let said = self.said_by(&ear, &reception, arrival).map(Box::new);
            shown = said.as_ref().map_or(shown, |said| shown.or(said.shown));
            Early::Known(said)
        } else {
            Early::Unknown
        };
        let (shown, reminder) = (shown.wanted(self.urgent), *self.settings.reminder);
        let urgent = self.survey.judge(meter, |alarm| wanted & alarm.is_news(shown, arrival, reminder));
        // A piece of a message says nothing without the others.
        let sampled =
            sampled.filter(|_| !piece).and_then(|place| self.settings.sample.get(place)).map(|sample| *sample.every);
        let way = Way { ear: ear.clone(), stamp, arrival, meter, sampled, said };
        // Also those that nobody wants are remembered: their copies must not look like news.
        let gathered = Gathered { reception, copies: 1, with: way };
        let may_wait = wanted && !urgent;
        let mut leaving = self.copies.add(id, gathered, may_wait, arrival);
        if !may_wait && let Some(now) = leaving.pop() {
            if urgent {
                self.forward(now, Lane::Priority);
            } else {
                ear.health.change(|status| status.unwanted += 1);
            }
        }
        leaving.into_iter().for_each(|gathered| self.ordinary(gathered));
    }

    /// Lets go what has waited long enough, or everything.
    fn release(&mut self, now: Instant, all: bool) {
        while let Some(gathered) = self.copies.release(now, all) {
            self.ordinary(gathered);
        }
        while let Some(gathered) = self.sampler.release(now, all) {
            self.forward(gathered, Lane::Ordinary);
        }
    }

    fn ordinary(&mut self, gathered: Gathered<Way>) {
        let Some(every) = gathered.with.sampled else { return self.forward(gathered, Lane::Ordinary) };
        let time = (gathered.with.arrival, gathered.with.stamp.wall);
        // One that comes at the very end of a period waits here until its better receptions have come.
        // It may be held for long: what it says is looked up again.
        let gathered = Gathered { with: Way { said: Early::Unknown, ..gathered.with }, ..gathered };
        match self.sampler.take(gathered.with.meter, gathered, time, (every, *self.settings.gather)) {
            Outcome::Held => {}
            Outcome::Replaced(older) => older.with.ear.health.change(|status| status.sampled_out += 1),
            Outcome::Next(gathered) | Outcome::Full(gathered) => self.forward(gathered, Lane::Ordinary),
        }
    }

    fn forward(&mut self, gathered: Gathered<Way>, lane: Lane) {
        let Gathered { reception, copies, with: Way { ear, stamp, arrival, meter, said, .. } } = gathered;
        let time = time(&reception, stamp);
        let said = match said {
            _ if !ear.decodes() => None,
            Early::Known(said) => said.map(|said| *said),
            Early::Unknown => self.said_by(&ear, &reception, arrival),
        };
        let mut leave = |body, count| {
            let frame = Frame { time, lane, body, origin: None };
            self.out.push_back(Leaving { frame, ear: ear.clone(), count });
        };
        let decoded = said.map(|said| Body::Decoded(decoded(said, meter, &reception, copies)));
        let Reception { kind, bytes, rssi, corrected_bits, .. } = reception;
        let telegram = Telegram { kind, bytes, rssi, corrected_bits };
        let raw = if copies > 1 { Body::Copies(telegram, copies) } else { Body::Telegram(telegram) };
        match (decoded, ear.decoding.forward) {
            (_, Forward::Raw) => leave(raw, |status| status.forwarded += 1),
            (None, _) => leave(raw, |status| {
                status.forwarded += 1;
                status.undecoded += 1;
            }),
            (Some(decoded), Forward::Decoded) => leave(decoded, |status| {
                status.forwarded += 1;
                status.decoded += 1;
            }),
            (Some(decoded), Forward::Both) => {
                leave(raw, |status| status.forwarded += 1);
                leave(decoded, |status| status.decoded += 1);
            }
        }
    }

    /// What a telegram says, opened with the keys of whoever heard it or else with those of the other receivers.
    fn said_by(&mut self, ear: &Arc<Ear>, reception: &Reception, now: Instant) -> Option<Said> {
        let others = self.ears.iter().filter(|other| !Arc::ptr_eq(other, ear));
        let keys = Keys::of_all([ear].into_iter().chain(others).map(|ear| ear.decoding.keys(now)));
        self.opening.said((reception.kind, &reception.bytes), &keys, now)
    }

    /// When something will have waited long enough.
    fn due(&self) -> Option<Instant> {
        [self.copies.due(), self.sampler.due()].into_iter().flatten().min()
    }
}

/// Takes telegrams until no receiver is left, then lets everything go; ends at once when nobody takes frames.
pub(super) async fn run(
    mut heard: mpsc::Receiver<Heard>,
    frames: mpsc::Sender<Frame>,
    settings: TelegramsSettings,
    survey: Survey,
) {
    let mut desk = Desk::new(settings, survey);
    let mut waiting = Vec::with_capacity(TOGETHER);
    loop {
        while let Some(leaving) = desk.out.pop_front() {
            if !leaving.leave(&frames).await {
                return;
            }
        }
        let due = desk.due();
        let count = tokio::select! {
            count = heard.recv_many(&mut waiting, TOGETHER) => count,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                desk.release(Instant::now(), false);
                continue;
            }
            () = frames.closed() => return,
        };
        if count == 0 {
            break;
        }
        waiting.drain(..).for_each(|heard| desk.hear(heard));
    }
    desk.release(Instant::now(), true);
    for leaving in desk.out {
        if !leaving.leave(&frames).await {
            return;
        }
    }
}

impl Leaving {
    /// Waits for room; false when nobody takes frames any more.
    async fn leave(self, frames: &mpsc::Sender<Frame>) -> bool {
        let sent = match frames.try_send(self.frame) {
            Ok(()) => true,
            Err(TrySendError::Full(frame)) => frames.send(frame).await.is_ok(),
            Err(TrySendError::Closed(_)) => false,
        };
        if sent {
            self.ear.health.change(self.count);
        }
        sent
    }
}

fn decoded(said: Said, sender: Meter, reception: &Reception, copies: u16) -> Decoded {
    Decoded {
        meter: pattern::name(sender),
        address: (said.meter != sender.as_meant()).then(|| pattern::name(said.meter)),
        values: said.values,
        id: telegram::id(reception.kind, &reception.bytes),
        rssi: reception.rssi,
        corrected_bits: reception.corrected_bits,
        copies,
    }
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

#[cfg(test)]
mod tests;
