//! Both directions of one session: what was sent and not acknowledged, what arrived and was not taken.

use std::collections::VecDeque;
use std::time::Duration;

use crate::wire::numbered::{Kind, Message, Session};

/// The most bytes that arrived and were not taken, and the most that are sent without an acknowledgement.
const WINDOW: usize = 64 << 10;
/// The most messages without an acknowledgement: fewer than a listener may have unheard.
const MOST_UNDER_WAY: usize = 16;
/// So many messages are acknowledged at once, fewer a little later: an answer may take the acknowledgement along.
const AT_ONCE: u32 = 4;
const A_LITTLE: Duration = Duration::from_millis(100);
/// What is not acknowledged is not sent again before that.
const SHORTEST_REPEAT: Duration = Duration::from_secs(1);
/// A clock of the other side may run ahead by so much.
const DRIFT: Duration = Duration::from_secs(1);

/// One session's streams.
#[derive(Debug)]
pub(super) struct Flow {
    /// From `acknowledged` on.
    waiting: VecDeque<u8>,
    acknowledged: u64,
    /// Where the next message begins.
    sent: u64,
    highest: u64,
    /// The other side takes no more than this.
    limit: u64,
    /// Where the messages under way end.
    under_way: VecDeque<u64>,
    largest: usize,
    /// When what is under way is sent again.
    repeat_at: Option<Duration>,
    repeats: u32,
    /// Where it was sent again from because the other side saw a gap.
    rewound: Option<u64>,
    /// The time of a round trip, and how much that varies.
    round_trip: Option<(Duration, Duration)>,
    /// Arrived in order and not taken.
    ready: VecDeque<u8>,
    arrived: u64,
    /// The end of the credit that was told.
    granted: u64,
    gap: bool,
    /// When what arrived must be acknowledged, and how many messages that are.
    owes: Option<Duration>,
    unacknowledged: u32,
    heard: Duration,
    spoke: Duration,
    /// The latest stamp of the other side, and when it came.
    stamp: Option<(u64, Duration)>,
    patience: Duration,
}

impl Flow {
    /// Begins two empty streams at `now`. Messages carry `largest` bytes at most.
    pub(super) fn new(now: Duration, patience: Duration, largest: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            acknowledged: 0,
            sent: 0,
            highest: 0,
            // Nothing is sent before the other side has granted something.
            limit: 0,
            under_way: VecDeque::new(),
            largest: largest.max(1),
            repeat_at: None,
            repeats: 0,
            rewound: None,
            round_trip: None,
            ready: VecDeque::new(),
            arrived: 0,
            granted: 0,
            gap: false,
            owes: Some(now),
            unacknowledged: 0,
            heard: now,
            spoke: now,
            stamp: None,
            patience,
        }
    }

    /// How many more bytes may be pushed.
    pub(super) fn room(&self) -> usize {
        WINDOW.saturating_sub(self.waiting.len())
    }

    /// Takes bytes to be sent; more than there is room for only once.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
    }

    /// Whether something has arrived.
    pub(super) fn has_bytes(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether all that was pushed was acknowledged.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Gives what arrived, `most` bytes at most, and with that makes room for more.
    pub(super) fn take(&mut self, now: Duration, most: usize) -> Vec<u8> {
        let count = most.min(self.ready.len());
        let taken = self.ready.drain(..count).collect();
        if self.credit_end().saturating_sub(self.granted) >= WINDOW as u64 / 4 {
            self.owes = Some(now);
        }
        taken
    }

    fn credit_end(&self) -> u64 {
        self.arrived + WINDOW.saturating_sub(self.ready.len()) as u64
    }

    /// Whether the other side was silent for too long.
    pub(super) fn is_cut(&self, now: Duration) -> bool {
        now.saturating_sub(self.heard) > self.patience
    }

    /// When it is over if nothing is heard.
    pub(super) fn cut_at(&self) -> Duration {
        self.heard + self.patience + Duration::from_millis(1)
    }

    /// How old a message is at most; `None`: nothing shows that.
    fn age(now: Duration, echo: u64) -> Option<Duration> {
        let echo = Duration::from_millis(echo.checked_sub(1)?);
        (echo <= now + DRIFT).then(|| now.saturating_sub(echo))
    }

    /// Notes the other side's clock.
    pub(super) fn see(&mut self, now: Duration, message: &Message) {
        self.patience = self.patience.min(Duration::from_millis(message.patience.into())).max(Duration::from_secs(1));
        if self.stamp.is_none_or(|(stamp, _)| message.stamp > stamp) {
            self.stamp = Some((message.stamp, now));
        }
    }

    /// Takes a message of this session. False: it is from too long ago, and nothing of it counts.
    pub(super) fn hear(&mut self, now: Duration, message: &Message) -> bool {
        let Some(age) = Self::age(now, message.echo).filter(|age| *age <= self.patience) else { return false };
        self.see(now, message);
        self.heard = now;
        self.time(age);
        self.acknowledge(now, message);
        if !message.bytes.is_empty() {
            self.receive(now, message.offset, &message.bytes);
        } else if now.saturating_sub(self.spoke) > self.patience / 16 {
            // A sign of life may ask for one: after a break the other side has heard nothing for long.
            self.owes = Some(now);
        }
        true
    }

    fn time(&mut self, sample: Duration) {
        self.round_trip = Some(match self.round_trip {
            None => (sample, sample / 2),
            Some((mean, spread)) => ((mean * 7 + sample) / 8, (spread * 3 + mean.abs_diff(sample)) / 4),
        });
    }

    fn acknowledge(&mut self, now: Duration, message: &Message) {
        // What was never sent cannot have arrived; what was acknowledged before is old news.
        if message.arrived < self.acknowledged || message.arrived > self.highest {
            return;
        }
        self.limit = self.limit.max(message.arrived + u64::from(message.credit).min(WINDOW as u64));
        let progress = message.arrived - self.acknowledged;
        if progress > 0 {
            self.waiting.drain(..usize::try_from(progress).unwrap_or(usize::MAX).min(self.waiting.len()));
            self.acknowledged = message.arrived;
            self.sent = self.sent.max(self.acknowledged);
            while self.under_way.front().is_some_and(|end| *end <= self.acknowledged) {
                self.under_way.pop_front();
            }
            self.repeats = 0;
            self.repeat_at = (self.sent > self.acknowledged).then(|| now + self.patience_for_one());
        }
        if message.gap && self.sent > self.acknowledged && self.rewound != Some(self.acknowledged) {
            self.rewound = Some(self.acknowledged);
            self.rewind();
        }
    }

    fn rewind(&mut self) {
        self.sent = self.acknowledged;
        self.under_way.clear();
        self.repeat_at = None;
    }

    /// How long an acknowledgement may take.
    fn patience_for_one(&self) -> Duration {
        let usual = self.round_trip.map_or(SHORTEST_REPEAT, |(mean, spread)| mean + 4 * spread).max(SHORTEST_REPEAT);
        usual.saturating_mul(1 << self.repeats.min(8)).min(self.patience.max(3 * SHORTEST_REPEAT) / 3)
    }

    fn receive(&mut self, now: Duration, offset: u64, bytes: &[u8]) {
        let known = self.arrived.saturating_sub(offset);
        let fresh = usize::try_from(known).ok().and_then(|known| bytes.get(known..)).unwrap_or_default();
        if offset > self.arrived {
            self.gap = true;
            self.owes = Some(now);
        } else if fresh.is_empty() {
            // It came before: the acknowledgement was lost.
            self.owes = Some(now);
        } else {
            let room = usize::try_from(self.granted.saturating_sub(self.arrived)).unwrap_or(0);
            let fits = fresh.get(..room).unwrap_or(fresh);
            self.ready.extend(fits);
            self.arrived += fits.len() as u64;
            self.unacknowledged += 1;
            let tight = self.granted.saturating_sub(self.arrived) <= WINDOW as u64 / 2;
            let due = if self.unacknowledged >= AT_ONCE || tight { now } else { now + A_LITTLE };
            self.owes = Some(self.owes.map_or(due, |owed| owed.min(due)));
        }
    }

    fn may_send(&self) -> bool {
        let end = self.acknowledged + self.waiting.len() as u64;
        self.sent < end.min(self.limit) && self.under_way.len() < MOST_UNDER_WAY
    }

    /// When something must be said so that the other side knows that we are there; more often when nothing is heard.
    fn sign_of_life(&self) -> Duration {
        let uneasy = (self.heard + self.patience * 3 / 8).max(self.spoke + self.patience / 16);
        uneasy.min(self.spoke + self.patience / 4)
    }

    /// When there is something to say or to find out, if nothing happens before.
    pub(super) fn due(&self, now: Duration) -> Duration {
        if self.may_send() {
            return now;
        }
        let alive = self.sign_of_life();
        [self.owes, self.repeat_at, Some(self.cut_at())].into_iter().flatten().fold(alive, Duration::min)
    }

    /// The next message, if one is due.
    pub(super) fn next(&mut self, now: Duration, session: Session) -> Option<Message> {
        if self.repeat_at.is_some_and(|at| at <= now) {
            self.repeats += 1;
            self.rewound = None;
            self.rewind();
        }
        let mut bytes = Vec::new();
        let offset = self.sent;
        if self.may_send() {
            let from = usize::try_from(self.sent - self.acknowledged).unwrap_or(usize::MAX);
            let credit = usize::try_from(self.limit - self.sent).unwrap_or(usize::MAX);
            bytes.extend(self.waiting.iter().skip(from).take(self.largest.min(credit)));
            self.sent += bytes.len() as u64;
            self.highest = self.highest.max(self.sent);
            self.under_way.push_back(self.sent);
            if self.repeat_at.is_none() {
                self.repeat_at = Some(now + self.patience_for_one());
            }
        } else if self.owes.is_none_or(|owed| owed > now) && self.sign_of_life() > now {
            return None;
        }
        Some(self.message(now, session, Kind::Carry, offset, bytes))
    }

    /// A message with everything that the other side is to know now.
    pub(super) fn message(
        &mut self,
        now: Duration,
        session: Session,
        kind: Kind,
        offset: u64,
        bytes: Vec<u8>,
    ) -> Message {
        self.spoke = now;
        self.owes = None;
        self.unacknowledged = 0;
        self.granted = self.granted.max(self.credit_end());
        let credit = u32::try_from(self.granted - self.arrived).unwrap_or(u32::MAX);
        let echo = self.stamp.map_or(0, |(stamp, at)| stamp + millis(now.saturating_sub(at)));
        Message {
            kind,
            session,
            gap: std::mem::take(&mut self.gap),
            patience: u32::try_from(self.patience.as_millis()).unwrap_or(u32::MAX),
            stamp: stamp(now),
            echo,
            offset,
            arrived: self.arrived,
            credit,
            bytes,
        }
    }
}

/// What a clock that shows `now` says in messages; never 0.
pub(super) fn stamp(now: Duration) -> u64 {
    millis(now) + 1
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}
