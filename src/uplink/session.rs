//! One session with the broker: drains the store and commits what the broker acknowledged.
//!
//! A frame is given up only by the PUBACK of the very message that carried it. When the session
//! ends, whatever was not acknowledged is simply still in the store, and the next session begins
//! to peek from the front.

use std::collections::VecDeque;
use std::time::Duration;

use rumqttc::PublishNotice;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::failure::{Failure, Kind};
use super::frames::{Added, Message};
use super::health::Report;
use super::link::{Link, LinkEvent};
use super::plan::Plan;
use super::settings::Connect;
use super::{Pace, stopped};
use crate::model::{Lane, Sequence, Stored};
use crate::os::clock::Clock;
use crate::store::{Status, Store, StoreError};

/// Why a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// The agent shuts down.
    Shutdown,
    /// On demand: everything was delivered.
    Finished,
    /// Something broke.
    Failed(Failure),
}

/// The frames of one lane on their way from the store into messages.
#[derive(Debug)]
struct Queue {
    lane: Lane,
    /// Everything up to here was taken from the store in this session.
    cursor: Sequence,
    frames: VecDeque<Stored>,
    /// The store may hold frames beyond the cursor.
    more: bool,
}

impl Queue {
    fn new(lane: Lane) -> Self {
        Self { lane, cursor: 0, frames: VecDeque::new(), more: true }
    }

    async fn refill(&mut self, store: &Store, limit: usize) -> Result<(), StoreError> {
        if self.frames.is_empty() && self.more && limit > 0 {
            self.frames = store.peek(self.lane, self.cursor, limit).await?.into();
            self.more = !self.frames.is_empty();
            self.cursor = self.frames.back().map_or(self.cursor, |last| last.sequence);
        }
        Ok(())
    }
}

/// A message under way.
#[derive(Debug)]
struct Ticket {
    /// Whose frames it carries; `None` for the status message.
    lane: Option<Lane>,
    sequences: Vec<Sequence>,
    bytes: usize,
    sent: Instant,
}

/// A message whose fate is known: `true` when its own PUBACK came.
type Settled = (Ticket, bool);

pub(super) struct Session<'a> {
    pub(super) plan: &'a Plan,
    pub(super) pace: &'a Pace,
    pub(super) store: &'a Store,
    pub(super) clock: &'a Clock,
    pub(super) report: &'a mut Report,
    link: Link,
    status: watch::Receiver<Status>,
    priority: Queue,
    ordinary: Queue,
    window: super::window::Window,
    under_way: JoinSet<Settled>,
    /// When the last PUBACK came, or the first message was sent after a pause.
    progress: Instant,
    /// The longest message of this session: on a slow link it may take its time.
    longest: usize,
    failed: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        pace: &'a Pace,
        store: &'a Store,
        clock: &'a Clock,
        report: &'a mut Report,
        link: Link,
    ) -> Self {
        Self {
            plan,
            pace,
            store,
            clock,
            report,
            link,
            status: store.status(),
            priority: Queue::new(Lane::Priority),
            ordinary: Queue::new(Lane::Ordinary),
            window: super::window::Window::new(pace.messages.into(), pace.bytes, plan.max_payload),
            under_way: JoinSet::new(),
            progress: Instant::now(),
            longest: 0,
            failed: false,
        }
    }

    /// Runs until something ends it. Whatever the broker acknowledged is committed when this returns.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub(super) async fn run(mut self, shutdown: &mut watch::Receiver<bool>) -> Result<End, StoreError> {
        self.say_hello();
        let end = self.drain(shutdown).await?;
        let Self { link, mut under_way, store, report, pace, .. } = self;
        match end {
            End::Failed(_) => link.abandon().await,
            End::Shutdown | End::Finished => link.close(pace.hang_up).await,
        }
        // The event loop is gone, so every notice is settled: an acknowledgement that came with
        // the last bytes still counts.
        while let Some(settled) = under_way.join_next().await {
            if let Ok((ticket, true)) = settled {
                commit(store, report, vec![ticket]).await?;
            }
        }
        Ok(end)
    }

    fn say_hello(&mut self) {
        if let Some(status) = &self.plan.status {
            let payload = status.payload.clone().into_bytes();
            self.send(&status.topic, payload, None, Vec::new());
        }
    }

    async fn drain(&mut self, shutdown: &mut watch::Receiver<bool>) -> Result<End, StoreError> {
        let settled_at = Instant::now() + self.pace.settled;
        let mut has_settled = false;
        let mut quiet_since = Instant::now();
        let mut leave_at = None;
        loop {
            if leave_at.is_none() {
                self.fill().await?;
            } else if self.window.is_empty() {
                return Ok(End::Shutdown);
            }
            if !self.window.is_empty() {
                quiet_since = Instant::now();
            }
            let (deadline, end) = self.next_deadline(leave_at, quiet_since);
            tokio::select! {
                biased;
                Some(settled) = self.under_way.join_next(), if !self.under_way.is_empty() => {
                    self.acknowledge(settled.ok()).await?;
                    if self.failed {
                        return Ok(End::Failed(self.why_lost().await));
                    }
                }
                event = self.link.event() => {
                    if let LinkEvent::Lost(error) = event {
                        return Ok(End::Failed(self.lost(error)));
                    }
                }
                () = stopped(shutdown), if leave_at.is_none() => {
                    leave_at = Some(Instant::now() + self.pace.grace);
                }
                changed = self.status.changed() => {
                    changed.map_err(|_| StoreError::Closed)?;
                    self.status.borrow_and_update();
                    self.priority.more = true;
                    self.ordinary.more = true;
                }
                () = sleep_until(settled_at), if !has_settled => {
                    has_settled = true;
                    self.report.settled();
                }
                () = sleep_until(deadline.unwrap_or(settled_at)), if deadline.is_some() => return Ok(end),
            }
        }
    }

    /// When the session ends if nothing happens, and how.
    fn next_deadline(&self, leave_at: Option<Instant>, quiet_since: Instant) -> (Option<Instant>, End) {
        if leave_at.is_some() {
            return (leave_at, End::Shutdown);
        }
        if self.window.is_empty() {
            let idle = (self.plan.connect == Connect::OnDemand).then(|| quiet_since + self.pace.idle);
            return (idle, End::Finished);
        }
        // A link that moves a kibibyte a second is slow, not stuck.
        let transfer = Duration::from_secs((self.longest / 1024) as u64);
        let patience = self.pace.stall + transfer;
        let sentence =
            format!("the broker acknowledged nothing for {} s: the session is made anew", patience.as_secs());
        (Some(self.progress + patience), End::Failed(Failure::new(Kind::Stalled, sentence)))
    }

    /// Sends messages while the window has room: priority frames first, always.
    async fn fill(&mut self) -> Result<(), StoreError> {
        while self.window.has_room() && !self.failed {
            self.priority.refill(self.store, self.plan.batch).await?;
            let left = self.plan.batch.saturating_sub(self.priority.frames.len());
            self.ordinary.refill(self.store, left).await?;
            let queue = if self.priority.frames.is_empty() { &mut self.ordinary } else { &mut self.priority };
            let lane = queue.lane;
            let mut message = Message::new(self.plan.max_payload);
            let mut too_long = false;
            while let Some(frame) = queue.frames.front() {
                match message.add(frame, self.clock.resolve(&frame.frame.time)) {
                    Added::Full => break,
                    Added::Fits => {}
                    Added::Oversized => too_long = true,
                }
                queue.frames.pop_front();
                if too_long {
                    break;
                }
            }
            let (payload, sequences) = message.finish();
            if sequences.is_empty() {
                break;
            }
            if too_long {
                self.report.oversized(payload.len());
            }
            self.send(self.plan.topic(lane), payload, Some(lane), sequences);
        }
        Ok(())
    }

    fn send(&mut self, topic: &str, payload: Vec<u8>, lane: Option<Lane>, sequences: Vec<Sequence>) {
        let (now, bytes) = (Instant::now(), payload.len());
        debug!(topic, bytes, frames = sequences.len(), "message sent");
        let Ok(notice) = self.link.publish(topic, payload) else {
            self.failed = true;
            return;
        };
        if self.window.is_empty() {
            self.progress = now;
        }
        self.window.sent(bytes);
        self.longest = self.longest.max(bytes);
        self.report.published(sequences.len());
        self.under_way.spawn(settle(notice, Ticket { lane, sequences, bytes, sent: now }));
    }

    /// Takes this and every other fate that is known already, and commits once.
    async fn acknowledge(&mut self, first: Option<Settled>) -> Result<(), StoreError> {
        let now = Instant::now();
        let mut done = Vec::new();
        let mut next = first;
        while let Some((ticket, acknowledged)) = next.take() {
            self.window.acknowledged(ticket.bytes, now.duration_since(ticket.sent));
            if acknowledged {
                done.push(ticket);
            } else {
                self.failed = true;
            }
            next = self.under_way.try_join_next().and_then(Result::ok);
        }
        commit(self.store, self.report, done).await?;
        if !self.failed {
            // The store may have taken its time on a slow card; that is not the broker's silence.
            self.progress = Instant::now();
        }
        Ok(())
    }

    async fn why_lost(&mut self) -> Failure {
        match tokio::time::timeout(Duration::from_secs(1), self.link.event()).await {
            Ok(LinkEvent::Lost(error)) => self.lost(error),
            _ => self.lost(None),
        }
    }

    fn lost(&self, error: Option<rumqttc::ConnectionError>) -> Failure {
        match error {
            Some(error) => Failure::explain(&error, &self.plan.url, &self.plan.files, true),
            None => Failure::new(Kind::Lost, format!("the connection to {} broke", self.plan.url)),
        }
    }
}

async fn settle(notice: PublishNotice, ticket: Ticket) -> Settled {
    let acknowledged = notice.wait_async().await.is_ok();
    (ticket, acknowledged)
}

async fn commit(store: &Store, report: &mut Report, done: Vec<Ticket>) -> Result<(), StoreError> {
    if !done.is_empty() {
        let frames: usize = done.iter().map(|t| t.sequences.len()).sum();
        debug!(messages = done.len(), frames, "acknowledged by the broker");
    }
    for lane in [Lane::Priority, Lane::Ordinary] {
        let sequences: Vec<_> =
            done.iter().filter(|t| t.lane == Some(lane)).flat_map(|t| t.sequences.iter().copied()).collect();
        if !sequences.is_empty() {
            store.commit(lane, sequences).await?;
        }
    }
    for ticket in done {
        report.acknowledged(ticket.sequences.len());
    }
    Ok(())
}
