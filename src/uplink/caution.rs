//! What to do with a broker that answers a message by hanging up.
//!
//! MQTT 3.1.1 has no other refusal: a message too long for the broker, or to a topic that it does
//! not allow, ends the session, and the next session would begin with the same message. So a
//! message that was under way first when the session was lost is suspected: the next session sends
//! one message at a time until it is through. After [`LOSSES`] lost sessions its size is halved, again and
//! again down to one frame; a single frame that is still refused is set aside, and so is a lane of
//! which one frame after the other is refused. What is set aside stays in the store, is reported, and is
//! tried again with growing pauses when nothing else waits. Nothing is dropped here.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Lane, Sequence};

/// Sessions lost with the same message at the head before it is taken for refused.
pub(super) const LOSSES: u32 = 3;
/// The same for a message that can't be made smaller.
const LOSSES_OF_ONE: u32 = 5;
/// Frames of one lane set aside, with none acknowledged between, before the lane itself is.
const FRAMES_OF_LANE: u32 = 2;
/// Frames that may be set aside; the next one is then tried for ever, as the first in its lane.
const MOST: usize = 64;
const LONGEST_PAUSE: Duration = Duration::from_hours(6);
/// So long a refused size is not tried again.
const REMEMBER: Duration = Duration::from_hours(6);

/// What a message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cargo {
    /// The status payload or document.
    Notice,
    /// Frames of a lane: its first, the number behind which it begins, and how many they are.
    Frames { lane: Lane, first: Sequence, after: Sequence, count: usize },
}

impl Cargo {
    /// Whether this is about the same thing as a message of an earlier session.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Notice, Self::Notice) => true,
            (Self::Frames { lane, first, .. }, Self::Frames { lane: l, first: f, .. }) => (lane, first) == (l, f),
            _ => false,
        }
    }

    /// Whether its PUBACK clears the suspicion against `suspect`: the same, or what came after it
    /// in its lane, when the suspect itself has left the store.
    fn clears(&self, suspect: &Self) -> bool {
        match (self, suspect) {
            (Self::Notice, Self::Notice) => true,
            (Self::Frames { lane, first, .. }, Self::Frames { lane: l, first: f, .. }) => lane == l && first >= f,
            _ => false,
        }
    }
}

/// What was decided about a message that the broker seems to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Messages are made no longer than this.
    Smaller { refused: usize, limit: usize },
    /// A frame is sent last.
    FrameAside { frame: Sequence, bytes: usize },
    /// A whole lane is sent last.
    LaneAside(Lane),
    /// Status messages are sent last.
    NoticesAside,
}

#[derive(Debug)]
struct Aside {
    after: Sequence,
    pause: Duration,
    again: Instant,
}

impl Aside {
    fn new(after: Sequence, now: Instant, pause: Duration) -> Self {
        Self { after, pause, again: now + pause }
    }

    fn refused_again(&mut self, now: Instant) {
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.again = now + self.pause;
    }
}

/// What is known of one broker's refusals.
#[derive(Debug)]
pub(super) struct Caution {
    most: usize,
    /// The pause before what was set aside is tried for the first time.
    pause: Duration,
    limit: usize,
    /// A size that was refused, and until when that is believed.
    refused: Option<(usize, Instant)>,
    suspect: Option<Cargo>,
    losses: u32,
    losses_of_one: u32,
    frames: BTreeMap<(Lane, Sequence), Aside>,
    lanes: BTreeMap<Lane, Aside>,
    /// Frames set aside of the lane since one of it was acknowledged.
    in_a_row: BTreeMap<Lane, u32>,
    notices: Option<Aside>,
}

impl Caution {
    /// Suspects nothing; messages may be `most` bytes long. What is set aside waits for `pause`
    /// at first.
    pub(super) fn new(most: usize, pause: Duration) -> Self {
        Self {
            most,
            pause,
            limit: most,
            refused: None,
            suspect: None,
            losses: 0,
            losses_of_one: 0,
            frames: BTreeMap::new(),
            lanes: BTreeMap::new(),
            in_a_row: BTreeMap::new(),
            notices: None,
        }
    }

    /// The longest payload to make now.
    pub(super) fn limit(&mut self, now: Instant) -> usize {
        if self.refused.take_if(|(_, until)| *until <= now).is_some() {
            self.limit = self.most;
        }
        self.limit
    }

    /// Whether messages are to be sent one at a time.
    pub(super) fn is_suspicious(&self) -> bool {
        self.suspect.is_some()
    }

    pub(super) fn is_aside(&self, lane: Lane, frame: Sequence) -> bool {
        self.frames.contains_key(&(lane, frame))
    }

    pub(super) fn lane_is_aside(&self, lane: Lane) -> bool {
        self.lanes.contains_key(&lane)
    }

    pub(super) fn notices_are_aside(&self) -> bool {
        self.notices.is_some()
    }

    /// Frames set aside one by one.
    pub(super) fn frames_aside(&self) -> usize {
        self.frames.len()
    }

    /// When something that was set aside is to be tried again; of ordinary frames only while those may go.
    pub(super) fn again(&self, ordinary: bool) -> Option<Instant> {
        let goes = |lane: Lane| ordinary || lane != Lane::Ordinary;
        let frames = self.frames.iter().filter(|((lane, _), _)| goes(*lane)).map(|(_, aside)| aside);
        let lanes = self.lanes.iter().filter(|(lane, _)| goes(**lane)).map(|(_, aside)| aside);
        frames.chain(lanes).chain(&self.notices).map(|aside| aside.again).min()
    }

    pub(super) fn notices_are_due(&self, now: Instant) -> bool {
        self.notices.as_ref().is_none_or(|aside| aside.again <= now)
    }

    pub(super) fn lane_is_due(&self, lane: Lane, now: Instant) -> bool {
        self.lanes.get(&lane).is_none_or(|aside| aside.again <= now)
    }

    /// A frame set aside whose time has come: its lane, its number, and the one it stands behind.
    pub(super) fn due_frame(&self, now: Instant) -> Option<(Lane, Sequence, Sequence)> {
        let due = self.frames.iter().find(|(_, aside)| aside.again <= now);
        due.map(|((lane, frame), aside)| (*lane, *frame, aside.after))
    }

    /// Notes that a frame set aside is no longer in the store, or that there is no status to send.
    pub(super) fn forget(&mut self, lane: Lane, frame: Sequence) {
        self.frames.remove(&(lane, frame));
    }

    /// Notes that a lane set aside has nothing to try now.
    pub(super) fn lane_is_empty(&mut self, lane: Lane, now: Instant) {
        if let Some(aside) = self.lanes.get_mut(&lane) {
            aside.again = now + aside.pause;
        }
    }

    /// Notes that nothing is to be said now although notices are due.
    pub(super) fn no_notice(&mut self, now: Instant) {
        if let Some(aside) = &mut self.notices {
            aside.again = now + aside.pause;
        }
    }

    /// Notes a PUBACK.
    pub(super) fn acknowledged(&mut self, cargo: &Cargo, bytes: usize, now: Instant) {
        if self.suspect.as_ref().is_some_and(|suspect| cargo.clears(suspect)) {
            (self.suspect, self.losses, self.losses_of_one) = (None, 0, 0);
        }
        match cargo {
            Cargo::Notice => self.notices = None,
            Cargo::Frames { lane, first, .. } => {
                self.frames.remove(&(*lane, *first));
                self.lanes.remove(lane);
                self.in_a_row.remove(lane);
            }
        }
        let ceiling = self.refused.map_or(self.most, |(refused, _)| refused.saturating_sub(1).min(self.most));
        if self.limit(now) < ceiling && bytes.saturating_mul(2) >= self.limit {
            self.limit = self.limit.saturating_mul(2).min(ceiling);
        }
    }

    /// Notes that the session was lost while this message was the first under way.
    pub(super) fn lost(&mut self, cargo: &Cargo, bytes: usize, now: Instant) -> Option<Verdict> {
        if self.refused_again(cargo, now) {
            self.suspect = None;
            return None;
        }
        if !self.suspect.as_ref().is_some_and(|suspect| suspect.is_same(cargo)) {
            (self.suspect, self.losses, self.losses_of_one) = (Some(*cargo), 0, 0);
        }
        self.losses += 1;
        match *cargo {
            Cargo::Frames { count, .. } if count > 1 => (self.losses >= LOSSES).then(|| {
                self.refused = Some((bytes, now + REMEMBER));
                self.limit = (bytes / 2).clamp(1, self.most);
                Verdict::Smaller { refused: bytes, limit: self.limit }
            }),
            _ => {
                self.losses_of_one += 1;
                let proven = self.losses >= LOSSES_OF_ONE && self.losses_of_one >= 2;
                if proven { self.set_aside(cargo, bytes, now) } else { None }
            }
        }
    }

    /// Whether it was set aside already; then the pause before the next try grows.
    fn refused_again(&mut self, cargo: &Cargo, now: Instant) -> bool {
        let aside = match cargo {
            Cargo::Notice => self.notices.as_mut(),
            Cargo::Frames { lane, first, .. } => match self.frames.get_mut(&(*lane, *first)) {
                Some(aside) => Some(aside),
                None => self.lanes.get_mut(lane),
            },
        };
        aside.map(|aside| aside.refused_again(now)).is_some()
    }

    fn set_aside(&mut self, cargo: &Cargo, bytes: usize, now: Instant) -> Option<Verdict> {
        let verdict = match *cargo {
            Cargo::Notice => {
                self.notices = Some(Aside::new(0, now, self.pause));
                Verdict::NoticesAside
            }
            Cargo::Frames { lane, first, after, .. } => {
                let in_a_row = self.in_a_row.entry(lane).or_default();
                *in_a_row += 1;
                if *in_a_row > FRAMES_OF_LANE {
                    self.lanes.insert(lane, Aside::new(0, now, self.pause));
                    Verdict::LaneAside(lane)
                } else if self.frames.len() < MOST {
                    self.frames.insert((lane, first), Aside::new(after, now, self.pause));
                    Verdict::FrameAside { frame: first, bytes }
                } else {
                    return None;
                }
            }
        };
        // What was refused is known now; the sizes that were refused before are innocent.
        (self.suspect, self.losses, self.losses_of_one, self.refused) = (None, 0, 0, None);
        Some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST_PAUSE: Duration = Duration::from_mins(1);

    fn frames(first: Sequence, count: usize) -> Cargo {
        Cargo::Frames { lane: Lane::Ordinary, first, after: first - 1, count }
    }

    #[test]
    fn a_size_that_is_refused_is_halved_until_it_passes_and_not_tried_again_for_hours() {
        let (mut caution, now) = (Caution::new(1000, FIRST_PAUSE), Instant::now());
        assert_eq!(caution.lost(&frames(1, 10), 1000, now), None);
        assert!(caution.is_suspicious());
        assert_eq!(caution.lost(&frames(1, 10), 1000, now), None);
        let verdict = caution.lost(&frames(1, 10), 1000, now);
        assert_eq!(verdict, Some(Verdict::Smaller { refused: 1000, limit: 500 }));
        let verdict = caution.lost(&frames(1, 5), 490, now);
        assert_eq!(verdict, Some(Verdict::Smaller { refused: 490, limit: 245 }));
        caution.acknowledged(&frames(1, 2), 240, now);
        assert!(!caution.is_suspicious());
        for first in 2..20 {
            caution.acknowledged(&frames(first, 2), 480, now);
        }
        assert_eq!(caution.limit(now), 489, "just below what was refused");
        assert_eq!(caution.limit(now + REMEMBER), 1000);
    }

    #[test]
    fn one_refused_frame_is_set_aside_and_the_size_recovers() {
        let (mut caution, now) = (Caution::new(1000, FIRST_PAUSE), Instant::now());
        for bytes in [1000, 1000, 1000, 490, 240] {
            assert!(!matches!(caution.lost(&frames(7, 3), bytes, now), Some(Verdict::FrameAside { .. })));
        }
        assert_eq!(caution.lost(&frames(7, 1), 110, now), None);
        assert_eq!(caution.lost(&frames(7, 1), 110, now), Some(Verdict::FrameAside { frame: 7, bytes: 110 }));
        assert!(caution.is_aside(Lane::Ordinary, 7) && !caution.is_suspicious());
        for first in 8..20 {
            caution.acknowledged(&frames(first, 9), caution.limit, now);
        }
        assert_eq!(caution.limit(now), 1000);
        assert_eq!(caution.due_frame(now + FIRST_PAUSE), Some((Lane::Ordinary, 7, 6)));
        assert_eq!(caution.again(true), Some(now + FIRST_PAUSE));
        assert_eq!(caution.again(false), None, "nobody wakes for a frame that may not go");
        assert_eq!(caution.lost(&frames(7, 1), 110, now + FIRST_PAUSE), None);
        assert_eq!(caution.due_frame(now + 2 * FIRST_PAUSE), None, "the pause has grown");
        caution.acknowledged(&frames(7, 1), 110, now);
        assert_eq!((caution.frames_aside(), caution.again(true)), (0, None));
    }

    #[test]
    fn sessions_lost_with_other_messages_first_prove_nothing() {
        let (mut caution, now) = (Caution::new(1000, FIRST_PAUSE), Instant::now());
        for first in 1..100 {
            assert_eq!(caution.lost(&frames(first, 1), 100, now), None);
            assert_eq!(caution.lost(&frames(first, 1), 100, now), None);
        }
    }

    #[test]
    fn a_topic_that_is_refused_sets_its_lane_aside_and_a_puback_brings_it_back() {
        let (mut caution, now) = (Caution::new(1000, FIRST_PAUSE), Instant::now());
        let verdicts: Vec<_> = (0..15).filter_map(|n| caution.lost(&frames(1 + n / 5, 1), 100, now)).collect();
        assert_eq!(verdicts.last(), Some(&Verdict::LaneAside(Lane::Ordinary)));
        assert!(caution.lane_is_aside(Lane::Ordinary) && !caution.lane_is_due(Lane::Ordinary, now));
        assert!(caution.lane_is_due(Lane::Ordinary, now + FIRST_PAUSE));
        assert_eq!((caution.again(true), caution.again(false)), (Some(now + FIRST_PAUSE), None));
        caution.acknowledged(&frames(3, 4), 300, now);
        assert!(!caution.lane_is_aside(Lane::Ordinary));
    }
}
