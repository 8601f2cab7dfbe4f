//! One session with the broker: drains the store and commits what the broker acknowledged.
//!
//! A frame is given up only by the PUBACK of the very message that carried it. When the session
//! ends, whatever was not acknowledged is simply still in the store, and the next session begins
//! to peek from the front. What is sent next: the status payload, the newest status document,
//! priority frames, ordinary frames, and when nothing else waits what the broker refused before.

use std::collections::BTreeMap;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::caution::{Cargo, Caution};
use super::compress::deflated;
use super::document::Document;
use super::failure::{Failure, Kind};
use super::gate::Gate;
use super::health::Report;
use super::link::{Link, LinkEvent};
use super::plan::Plan;
use super::queue::{Parcel, Queue, pack_alone};
use super::settings::{Compression, Connect};
use super::source::Source;
use super::talk::{Saying, Talk};
use super::ticket::{Settled, Ticket, settle};
use super::watchdog::Watchdog;
use super::window::Window;
use super::{Pace, stopped};
use crate::model::Lane;
use crate::os::clock::Clock;
use crate::store::{Status, StoreError};

/// Why a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// It was asked to leave.
    Left,
    /// On demand: everything was delivered.
    Finished,
    /// Something broke.
    Failed(Failure),
}

/// More than this many messages are never acknowledged before an older one: so many are never under
/// way at once. Its PUBACK is lost.
const MOST_EARLY: usize = 256;

/// What a session works with; it outlives the session.
#[derive(Debug)]
pub(super) struct Desk<'a> {
    pub(super) plan: &'a Plan,
    pub(super) pace: &'a Pace,
    pub(super) source: &'a Source,
    pub(super) clock: &'a Clock,
    pub(super) gate: &'a mut Gate,
    pub(super) report: &'a mut Report,
    pub(super) caution: &'a mut Caution,
    pub(super) document: Option<&'a mut Document>,
    pub(super) talk: Option<&'a Talk>,
}

pub(super) struct Session<'a> {
    desk: Desk<'a>,
    link: Link,
    /// The budget's part in the keep-alive, which a session has for life.
    quiet: Option<u16>,
    /// The keep-alive has to change: no more messages, and a new session.
    renew: bool,
    status: watch::Receiver<Status>,
    priority: Queue,
    ordinary: Queue,
    window: Window,
    watchdog: Watchdog,
    under_way: JoinSet<Settled>,
    /// Acknowledged before an older one. A broker acknowledges in order (MQTT 3.1.1, 4.6), and packet
    /// ids come round: such a PUBACK may be an old one that came again. It counts when all before it did.
    early: BTreeMap<u64, Ticket>,
    /// The status payload is still to be sent.
    greets: bool,
    /// What is under way was refused before and travels without company.
    alone: bool,
    failed: bool,
    /// The first message that was under way when the link failed.
    lost: Option<(u64, Cargo, usize)>,
    /// What others said and nobody acknowledged, by the number of its message.
    unheard: BTreeMap<u64, Saying>,
    /// Ordinary frames wait for a clock that is not set yet.
    held: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(desk: Desk<'a>, link: Link) -> Self {
        let Desk { plan, pace, source, .. } = &desk;
        Self {
            quiet: link.quiet,
            link,
            renew: false,
            status: source.status(),
            priority: Queue::new(Lane::Priority, source),
            ordinary: Queue::new(Lane::Ordinary, source),
            window: Window::new(pace.messages.into(), pace.bytes, plan.max_payload),
            watchdog: Watchdog::new(pace.stall, Instant::now()),
            under_way: JoinSet::new(),
            early: BTreeMap::new(),
            greets: plan.status.is_some(),
            alone: false,
            failed: false,
            lost: None,
            unheard: BTreeMap::new(),
            held: desk.clock.holds(),
            desk,
        }
    }

    /// Runs until something ends it, or until `leave` turns true and what is under way was
    /// acknowledged. Whatever the broker acknowledged is committed when this returns.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub(super) async fn run(mut self, leave: &mut watch::Receiver<bool>) -> Result<End, StoreError> {
        let end = self.drain(leave).await?;
        let Self { link, mut under_way, mut early, mut desk, mut lost, mut unheard, .. } = self;
        let failed = matches!(end, End::Failed(_));
        if failed {
            link.abandon().await;
        } else {
            link.close(desk.pace.hang_up).await;
        }
        // The event loop is gone, so every notice is settled: an acknowledgement that came with
        // the last bytes still counts.
        while let Some(settled) = under_way.join_next().await {
            match settled {
                Ok((ticket, true)) => drop(early.insert(ticket.number, ticket)),
                Ok((ticket, false)) => desk.missed(ticket, &mut lost, &mut unheard),
                Err(_) => {}
            }
        }
        if let Some(talk) = desk.talk {
            talk.again(unheard.into_values().collect());
        }
        let beyond = lost.map_or_else(BTreeMap::new, |(first, ..)| early.split_off(&first));
        drop(beyond);
        desk.commit(early.into_values().collect()).await?;
        if let Some((_, cargo, bytes)) = lost.filter(|_| failed)
            && let Some(verdict) = desk.caution.lost(&cargo, bytes, Instant::now())
        {
            desk.report.refused(verdict);
        }
        desk.report.aside(desk.caution.frames_aside());
        Ok(end)
    }

    async fn drain(&mut self, leave: &mut watch::Receiver<bool>) -> Result<End, StoreError> {
        let settled_at = Instant::now() + self.desk.pace.settled;
        let mut has_settled = false;
        let mut quiet_since = Instant::now();
        let mut leave_at = None;
        loop {
            if leave_at.is_none() && !self.renew {
                self.fill().await?;
            } else if self.window.is_empty() {
                return Ok(if leave_at.is_some() { End::Left } else { End::Finished });
            }
            if !self.window.is_empty() {
                quiet_since = Instant::now();
            }
            let (deadline, end) = self.next_deadline(leave_at, quiet_since);
            let now = Instant::now();
            let again = self.desk.caution.again(!self.held && self.desk.gate.is_open(now));
            let again = again.filter(|_| self.window.is_empty() && !self.failed);
            let opens = self.desk.gate.opens_at(now);
            // News that nobody takes would be news for ever, and starve everything else.
            let takes = leave_at.is_none() && !self.renew && !self.failed;
            let listens = takes && self.may_send() && !self.desk.caution.notices_are_aside();
            tokio::select! {
                biased;
                Some(settled) = self.under_way.join_next(), if !self.under_way.is_empty() => {
                    self.acknowledge(settled.ok()).await?;
                    if self.early.len() > MOST_EARLY {
                        let sentence = "a PUBACK is missing while later ones come: the session is made anew";
                        return Ok(End::Failed(Failure::new(Kind::Stalled, sentence)));
                    }
                    if self.failed {
                        return Ok(End::Failed(self.why_lost().await));
                    }
                }
                event = self.link.event() => {
                    if let LinkEvent::Lost(error) = event {
                        return Ok(End::Failed(self.explain(error)));
                    }
                }
                () = stopped(leave), if leave_at.is_none() => {
                    leave_at = Some(Instant::now() + self.desk.pace.grace);
                }
                changed = self.status.changed() => {
                    changed.map_err(|_| StoreError::Closed)?;
                    self.status.borrow_and_update();
                    self.priority.wake();
                    self.ordinary.wake();
                }
                () = news(&mut self.desk.document), if listens => {}
                () = sayings(self.desk.talk), if listens => {}
                () = self.desk.gate.changed() => self.renew = self.desk.gate.quiet() != self.quiet,
                () = sleep_until(opens.unwrap_or(settled_at)), if opens.is_some() => {}
                () = self.desk.clock.released(), if self.held => self.held = false,
                () = sleep_until(settled_at), if !has_settled => {
                    has_settled = true;
                    self.desk.report.settled();
                }
                () = sleep_until(again.unwrap_or(settled_at)), if again.is_some() && leave_at.is_none() => {}
                () = sleep_until(deadline.unwrap_or(settled_at)), if deadline.is_some() => return Ok(end),
            }
        }
    }

    /// When the session ends if nothing happens, and how.
    fn next_deadline(&self, leave_at: Option<Instant>, quiet_since: Instant) -> (Option<Instant>, End) {
        if leave_at.is_some() {
            return (leave_at, End::Left);
        }
        if self.window.is_empty() {
            let on_demand = self.desk.plan.connect == Connect::OnDemand;
            return (on_demand.then(|| quiet_since + self.desk.pace.idle), End::Finished);
        }
        let patience = self.watchdog.patience().as_secs();
        let sentence = format!("the broker acknowledged nothing for {patience} s: the session is made anew");
        (self.watchdog.deadline(), End::Failed(Failure::new(Kind::Stalled, sentence)))
    }

    /// Whether the next message may go: one at a time while one is suspected.
    fn may_send(&mut self) -> bool {
        if self.window.is_empty() {
            self.alone = false;
        }
        self.window.has_room() && (self.window.is_empty() || !(self.alone || self.desk.caution.is_suspicious()))
    }

    /// Sends messages while the window has room: priority frames first, always.
    async fn fill(&mut self) -> Result<(), StoreError> {
        while !self.failed && self.may_send() {
            if !self.desk.caution.notices_are_aside() && self.notify() {
                continue;
            }
            let Some(parcel) = self.next_parcel().await? else {
                self.fill_last().await?;
                break;
            };
            let lane = if let Cargo::Frames { lane, .. } = parcel.cargo { lane } else { Lane::Ordinary };
            if parcel.payload.len() > self.desk.plan.max_payload {
                self.desk.report.oversized(parcel.payload.len());
            }
            self.send_frames(lane, parcel);
        }
        Ok(())
    }

    /// Packs the next message of the lanes that were not set aside.
    async fn next_parcel(&mut self) -> Result<Option<Parcel>, StoreError> {
        let Desk { plan, source, caution, clock, gate, .. } = &mut self.desk;
        let now = Instant::now();
        let limit = caution.limit(now);
        let ordinary = !self.held && gate.is_open(now);
        let mut left = plan.batch;
        for queue in [&mut self.priority, &mut self.ordinary] {
            let lane = queue.lane;
            if caution.lane_is_aside(lane) || (lane == Lane::Ordinary && !ordinary) {
                continue;
            }
            queue.refill(source, caution, left).await?;
            if let Some(parcel) = queue.pack(limit, caution, clock) {
                if lane == Lane::Ordinary {
                    gate.pass();
                }
                return Ok(Some(parcel));
            }
            if lane == Lane::Ordinary && left > 0 {
                gate.exhausted(now);
            }
            left = left.saturating_sub(queue.len());
        }
        Ok(None)
    }

    /// With nothing else to send, and nothing under way, tries again what was refused before.
    async fn fill_last(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        let ordinary = !self.held && self.desk.gate.is_open(now);
        if !self.window.is_empty() || self.desk.caution.again(ordinary).is_none_or(|again| again > now) {
            return Ok(());
        }
        self.alone = true;
        if self.desk.caution.notices_are_aside() && self.desk.caution.notices_are_due(now) {
            if self.notify() {
                return Ok(());
            }
            self.desk.caution.no_notice(now);
        }
        while let Some((lane, frame, after)) = self.desk.caution.due_frame(now) {
            if lane == Lane::Ordinary && !ordinary {
                break;
            }
            if let Some(stored) = self.desk.source.one(lane, frame).await? {
                self.send_frames(lane, pack_alone(&stored, lane, after, self.desk.clock));
                return Ok(());
            }
            self.desk.caution.forget(lane, frame);
        }
        for lane in [Lane::Priority, Lane::Ordinary] {
            let queue = if lane == Lane::Priority { &mut self.priority } else { &mut self.ordinary };
            let Desk { plan, source, caution, clock, .. } = &mut self.desk;
            if (lane == Lane::Ordinary && !ordinary) || !caution.lane_is_aside(lane) || !caution.lane_is_due(lane, now)
            {
                continue;
            }
            queue.refill(source, caution, plan.batch).await?;
            if let Some(parcel) = queue.pack(caution.limit(now), caution, clock) {
                self.send_frames(lane, parcel);
                return Ok(());
            }
            caution.lane_is_empty(lane, now);
        }
        Ok(())
    }

    /// Sends the status payload if it is still to be sent, else what others say, else a new status document.
    fn notify(&mut self) -> bool {
        let plan = self.desk.plan;
        if let Some(status) = plan.status.as_ref().filter(|_| self.greets) {
            self.greets = false;
            self.send(&status.topic, status.payload.clone().into_bytes(), Ticket::notice(false));
            return true;
        }
        if let Some(saying) = self.desk.talk.and_then(Talk::take) {
            let (topic, payload) = (saying.topic.clone(), saying.payload.clone());
            self.send(&topic, payload, Ticket { saying: Some(saying), ..Ticket::notice(false) });
            return true;
        }
        let Some(document) = &mut self.desk.document else { return false };
        let Some(payload) = document.take() else { return false };
        let topic = document.topic.clone();
        self.send(&topic, payload, Ticket::notice(true));
        true
    }

    fn send_frames(&mut self, lane: Lane, parcel: Parcel) {
        let Parcel { payload, cargo, sequences, spans } = parcel;
        let plan = self.desk.plan;
        self.desk.report.published(sequences.len());
        let deflates = plan.compression == Compression::Deflate || self.desk.gate.compresses();
        let payload = if deflates { deflated(payload) } else { payload };
        self.send(plan.topic(lane), payload, Ticket { cargo, sequences, spans, ..Ticket::notice(false) });
    }

    fn send(&mut self, topic: &str, payload: Vec<u8>, ticket: Ticket) {
        let (now, bytes) = (Instant::now(), payload.len());
        debug!(topic, bytes, frames = ticket.sequences.len(), "message sent");
        let Ok(notice) = self.link.publish(topic, payload) else {
            self.failed = true;
            return;
        };
        self.window.sent(bytes);
        let number = self.watchdog.sent(bytes, now);
        self.under_way.spawn(settle(notice, Ticket { number, bytes, sent: now, ..ticket }));
    }

    /// Takes this and every other fate that is known already, and commits once.
    async fn acknowledge(&mut self, first: Option<Settled>) -> Result<(), StoreError> {
        let now = Instant::now();
        let mut next = first;
        while let Some((ticket, acknowledged)) = next.take() {
            self.window.acknowledged(ticket.bytes, now.duration_since(ticket.sent));
            if acknowledged {
                self.watchdog.acknowledged(ticket.number, now);
                self.early.insert(ticket.number, ticket);
            } else {
                self.failed = true;
                self.desk.missed(ticket, &mut self.lost, &mut self.unheard);
            }
            next = self.under_way.try_join_next().and_then(Result::ok);
        }
        let later = self.watchdog.oldest().map_or_else(BTreeMap::new, |oldest| self.early.split_off(&oldest));
        let done = std::mem::replace(&mut self.early, later);
        self.desk.commit(done.into_values().collect()).await?;
        // The store may have taken its time on a slow card; that is not the broker's silence.
        self.watchdog.excuse(Instant::now());
        Ok(())
    }

    async fn why_lost(&mut self) -> Failure {
        match tokio::time::timeout(std::time::Duration::from_secs(1), self.link.event()).await {
            Ok(LinkEvent::Lost(error)) => self.explain(error),
            _ => self.explain(None),
        }
    }

    fn explain(&self, error: Option<rumqttc::ConnectionError>) -> Failure {
        let plan = self.desk.plan;
        match error {
            Some(error) => Failure::explain(&error, &plan.url, &plan.files, true),
            None => Failure::new(Kind::Lost, format!("the connection to {} broke", plan.url)),
        }
    }
}

impl Desk<'_> {
    /// Notes a message without PUBACK; the first of them is remembered.
    fn missed(&mut self, ticket: Ticket, lost: &mut Option<(u64, Cargo, usize)>, unheard: &mut BTreeMap<u64, Saying>) {
        if ticket.document
            && let Some(document) = &mut self.document
        {
            document.again();
        }
        if lost.is_none_or(|(number, ..)| ticket.number < number) {
            *lost = Some((ticket.number, ticket.cargo, ticket.bytes));
        }
        if let Some(saying) = ticket.saying {
            unheard.insert(ticket.number, saying);
        }
    }

    async fn commit(&mut self, done: Vec<Ticket>) -> Result<(), StoreError> {
        if !done.is_empty() {
            let frames: usize = done.iter().map(|t| t.sequences.len()).sum();
            debug!(messages = done.len(), frames, "acknowledged by the broker");
        }
        let now = Instant::now();
        for ticket in &done {
            self.caution.acknowledged(&ticket.cargo, ticket.bytes, now);
        }
        for lane in [Lane::Priority, Lane::Ordinary] {
            let of_lane = |t: &&Ticket| matches!(t.cargo, Cargo::Frames { lane: l, .. } if l == lane);
            let sequences: Vec<_> = done.iter().filter(of_lane).flat_map(|t| t.sequences.iter().copied()).collect();
            let spans: Vec<_> = done.iter().filter(of_lane).flat_map(|t| t.spans.iter().copied()).collect();
            if !sequences.is_empty() {
                self.source.acknowledge(lane, &spans, sequences).await?;
            }
        }
        for ticket in done {
            self.report.acknowledged(ticket.sequences.len());
        }
        Ok(())
    }
}

/// Returns when another room has something to say.
async fn sayings(talk: Option<&Talk>) {
    match talk {
        Some(talk) => talk.news().await,
        None => std::future::pending().await,
    }
}

/// Returns when there is a new status document to send.
async fn news(document: &mut Option<&mut Document>) {
    match document {
        Some(document) => document.news().await,
        None => std::future::pending().await,
    }
}
