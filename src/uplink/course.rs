//! One broker over the time: its attempts, its sessions, and what is remembered between them.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::backoff::Backoff;
use super::caution::Caution;
use super::document::Document;
use super::failure::{Failure, Kind};
use super::gate::Gate;
use super::health::Report;
use super::link::{Link, LinkEvent};
use super::nudge::Nudged;
use super::plan::Plan;
use super::session::{Desk, End, Session};
use super::source::Source;
use super::talk::Talk;
use super::tally::Tally;
use super::{Pace, UplinkError};
use crate::model::Lane;
use crate::os::clock::Clock;
use crate::store::StoreError;

/// Packet ids are used in turn from so many (from 33 whenever nothing is under way, which is rumqttc's own), far more than messages are under way: a PUBACK that
/// comes twice or late then finds its id unused, which ends the session, and not given to
/// another message, which would lose it.
const PACKET_IDS: u16 = 1024;

/// Waits until the broker accepts the session of a link that connects.
pub(super) async fn accepted(mut link: Link, plan: &Plan, limit: Duration) -> Result<Link, Failure> {
    let failure = match timeout(limit, link.event()).await {
        Ok(LinkEvent::Connected) => return Ok(link),
        Ok(LinkEvent::Lost(Some(error))) => Failure::explain(&error, &plan.url, &plan.files, false),
        Ok(LinkEvent::Lost(None)) => Failure::new(Kind::Lost, format!("the connection to {} broke", plan.url)),
        Err(_) => Failure::new(
            Kind::Unreachable,
            format!("{} did not accept the session within {} s", plan.url, limit.as_secs()),
        ),
    };
    link.abandon().await;
    Err(failure)
}

/// Everything about one broker.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) plan: Plan,
    pub(super) pace: Pace,
    pub(super) source: Source,
    pub(super) clock: Clock,
    /// When ordinary frames may go.
    pub(super) gate: Gate,
    /// Counts what goes over the wire.
    pub(super) tally: Arc<Tally>,
    pub(super) report: Report,
    pub(super) document: Option<Document>,
    /// What others say and hear through this broker.
    pub(super) talk: Option<Talk>,
    pub(super) random: StdRng,
    caution: Caution,
    backoff: Backoff,
    /// When the next attempt may be made.
    pub(super) ready: Instant,
    /// Who may have it made at once.
    pub(super) nudged: Nudged,
    /// Attempts and sessions in a row that came to nothing.
    pub(super) strikes: u32,
    /// The last session lasted long enough to count as good.
    pub(super) proved: bool,
}

impl Course {
    pub(super) fn new(
        plan: Plan,
        pace: Pace,
        source: Source,
        clock: Clock,
        report: Report,
        backoff: Backoff,
        random: StdRng,
    ) -> Self {
        let caution = Caution::new(plan.max_payload, pace.refused);
        let ready = Instant::now() + backoff.initial();
        Self {
            plan,
            pace,
            source,
            clock,
            gate: Gate::free(),
            tally: Arc::default(),
            report,
            document: None,
            talk: None,
            random,
            caution,
            backoff,
            ready,
            nudged: Nudged::never(),
            strikes: 0,
            proved: false,
        }
    }

    /// Connects and waits until the broker accepts the session.
    pub(super) async fn open(&self) -> Result<Link, Failure> {
        // More than the window: the status message and document, and a subscription.
        let queue = self.pace.messages.saturating_add(3);
        let quiet = self.gate.quiet();
        let options = self.plan.options(&self.clock, quiet)?;
        let mut link =
            Link::open(options, &self.plan.url, queue, PACKET_IDS.max(queue), &self.tally, self.talk.clone());
        link.quiet = quiet;
        accepted(link, &self.plan, self.pace.connect).await
    }

    /// Holds an accepted session until it ends, or `leave` turns true and it has said goodbye.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub(super) async fn hold(&mut self, link: Link, leave: &mut watch::Receiver<bool>) -> Result<End, StoreError> {
        let begun = Instant::now();
        self.report.connected(self.clock.now(), &self.plan.url.to_string());
        if let Some(talk) = &self.talk
            && let Err(error) = link.subscribe(talk.topics())
        {
            tracing::warn!(%error, "weir could not ask the broker for what is published to it");
        }
        let desk = Desk {
            plan: &self.plan,
            pace: &self.pace,
            source: &self.source,
            clock: &self.clock,
            gate: &mut self.gate,
            report: &mut self.report,
            caution: &mut self.caution,
            document: self.document.as_mut(),
            talk: self.talk.as_ref(),
        };
        let end = Session::new(desk, link).run(leave).await?;
        let finished = matches!(end, End::Finished);
        if finished {
            self.report.settled();
        }
        self.backoff.ended(begun.elapsed(), finished);
        self.proved = finished || begun.elapsed() >= self.pace.settled;
        if self.proved {
            self.strikes = 0;
        }
        Ok(end)
    }

    /// Notes an attempt or a session that failed, and puts off the next attempt.
    pub(super) fn failed(&mut self, failure: Failure) {
        self.report.failed(failure);
        self.strikes = self.strikes.saturating_add(1);
        // What was asked meanwhile is done: an attempt was made, or there was a session.
        self.nudged.forget();
        let wait = self.backoff.next(&mut self.random);
        debug!(wait_ms = wait.as_millis(), "waiting before the next attempt");
        self.ready = Instant::now() + wait;
    }

    /// Waits until the store holds something to send to this broker.
    ///
    /// # Errors
    /// [`UplinkError::Store`].
    pub(super) async fn data_waits(&mut self) -> Result<(), UplinkError> {
        let mut status = self.source.status();
        let mut seen = None;
        loop {
            let (received, error, cached) = {
                let now = status.borrow_and_update();
                (now.received, now.disk_error.clone(), now.cached)
            };
            if cached > 0 && seen.as_ref().is_none_or(|s| *s != (received, error.clone())) {
                seen = Some((received, error));
                if self.has_frames().await? {
                    return Ok(());
                }
            }
            let (held, now) = (self.clock.holds(), Instant::now());
            let again = self.caution.again(!held && self.gate.is_open(now));
            let opens = self.gate.opens_at(now);
            tokio::select! {
                changed = status.changed() => changed.map_err(|_| StoreError::Closed)?,
                () = self.clock.released(), if held => seen = None,
                () = self.gate.changed() => seen = None,
                () = sleep_until(opens.unwrap_or_else(Instant::now)), if opens.is_some() => seen = None,
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => return Ok(()),
            }
        }
    }

    /// Whether the store holds a frame for this broker that was not set aside.
    async fn has_frames(&self) -> Result<bool, StoreError> {
        let beyond = self.caution.frames_aside() + 1;
        for lane in [Lane::Priority, Lane::Ordinary] {
            if lane == Lane::Ordinary && (self.clock.holds() || !self.gate.is_open(Instant::now())) {
                continue;
            }
            let found = self.source.peek(lane, self.source.begin(lane), beyond).await?;
            let wanted = |frame: &crate::model::Stored| !self.caution.is_aside(lane, frame.sequence);
            if !self.caution.lane_is_aside(lane) && found.frames.iter().any(wanted) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Somewhere from three to five quarters of `time`, so that a fleet does not ask at once.
    pub(super) fn about(&mut self, time: Duration) -> Duration {
        use rand::RngExt;
        let quarter = u64::try_from(time.as_millis() / 4).unwrap_or(u64::MAX / 8);
        Duration::from_millis(self.random.random_range(3 * quarter..=5 * quarter))
    }
}
