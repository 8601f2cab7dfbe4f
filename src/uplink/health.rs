//! How the uplink is doing: for the health report, and for the log without floods.

use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::caution::Verdict;
use super::failure::{Failure, Kind};
use crate::model::Timestamp;

/// The uplink's state and counters since the agent started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Which broker this is about: its address.
    pub broker: String,
    /// Since when there is a session; `None`: there is none.
    pub connected_since: Option<Timestamp>,
    /// Why there was no session the last time, as one sentence; stays after a reconnect.
    pub last_error: Option<String>,
    /// Failures in a row since the last session that proved itself.
    pub failures: u64,
    /// Frames handed to the broker, repeats included.
    pub published: u64,
    /// Frames the broker acknowledged.
    pub acknowledged: u64,
    /// Messages the broker acknowledged, the status message included.
    pub messages: u64,
    /// Frames longer than `max_payload`, sent alone.
    pub oversized: u64,
    /// Sessions the broker accepted.
    pub sessions: u64,
    /// Frames that this broker answers by hanging up: still in the store, sent last.
    pub refused: u64,
}

impl Health {
    /// How often a session had to be made anew.
    pub fn reconnects(&self) -> u64 {
        self.sessions.saturating_sub(1)
    }

    /// Several brokers seen as one: connected when any is, counters added up, the error of the
    /// first that has none now.
    pub fn overall<'h>(brokers: impl IntoIterator<Item = &'h Self>) -> Self {
        let mut brokers = brokers.into_iter();
        let Some(mut all) = brokers.next().cloned() else { return Self::default() };
        for other in brokers {
            if all.connected_since.is_none() && other.connected_since.is_some() {
                all.broker.clone_from(&other.broker);
            }
            all.connected_since = all.connected_since.into_iter().chain(other.connected_since).min();
            all.last_error = all.last_error.or_else(|| other.last_error.clone());
            all.failures += other.failures;
            all.published += other.published;
            all.acknowledged += other.acknowledged;
            all.messages += other.messages;
            all.oversized += other.oversized;
            all.sessions += other.sessions;
            all.refused += other.refused;
        }
        all
    }
}

/// Writes [`Health`] and the log. A failure of one kind is logged once until a session has
/// proved itself, then only counted.
#[derive(Debug)]
pub(super) struct Report {
    health: watch::Sender<Health>,
    told: Vec<Kind>,
    /// A session came up that was not worth a line, because the last one broke at once.
    silent: bool,
}

impl Report {
    pub(super) fn new(broker: String) -> (Self, watch::Receiver<Health>) {
        let (health, receiver) = watch::channel(Health { broker, ..Health::default() });
        (Self { health, told: Vec::new(), silent: false }, receiver)
    }

    pub(super) fn connected(&mut self, now: Timestamp, broker: &str) {
        let failures = self.health.borrow().failures;
        let flapping = self.told.iter().any(|k| matches!(k, Kind::Lost | Kind::Stalled));
        if flapping {
            self.silent = true;
            debug!(broker, failures, "connected to the broker");
        } else {
            info!(broker, failures, "connected to the broker");
        }
        self.health.send_modify(|h| {
            h.connected_since = Some(now);
            h.sessions += 1;
        });
    }

    /// The session has proved itself: it lasted, or everything was delivered.
    pub(super) fn settled(&mut self) {
        if std::mem::take(&mut self.silent) {
            info!(failures = self.health.borrow().failures, "the session with the broker is stable again");
        }
        self.told.clear();
        self.health.send_modify(|h| h.failures = 0);
    }

    pub(super) fn disconnected(&mut self) {
        self.health.send_modify(|h| h.connected_since = None);
    }

    pub(super) fn failed(&mut self, failure: Failure) {
        self.disconnected();
        let failures = self.health.borrow().failures + 1;
        if self.told.contains(&failure.kind) {
            debug!(kind = ?failure.kind, failures, reason = failure.sentence, "no session with the broker, again");
        } else {
            self.told.push(failure.kind);
            warn!(kind = ?failure.kind, failures, reason = failure.sentence, "no session with the broker; it is tried again with growing waits");
        }
        self.health.send_modify(|h| {
            h.failures = failures;
            h.last_error = Some(failure.sentence);
        });
    }

    pub(super) fn published(&mut self, frames: usize) {
        self.health.send_modify(|h| h.published += frames as u64);
    }

    pub(super) fn acknowledged(&mut self, frames: usize) {
        self.health.send_modify(|h| {
            h.acknowledged += frames as u64;
            h.messages += 1;
        });
    }

    /// Tells what was decided about messages that the broker answers by hanging up.
    pub(super) fn refused(&self, verdict: Verdict) {
        let broker = self.health.borrow().broker.clone();
        match verdict {
            Verdict::Smaller { refused, limit } => warn!(
                broker,
                refused,
                limit,
                "the broker hangs up on messages of this many bytes; they are made smaller: set uplink.max_payload to what it takes"
            ),
            Verdict::FrameAside { frame, bytes } => error!(
                broker,
                sequence = frame,
                bytes,
                "the broker hangs up on this frame each time; it stays in the store and is sent last: raise the broker's limit or read fewer values at once"
            ),
            Verdict::LaneAside(lane) => error!(
                broker,
                ?lane,
                "the broker hangs up on every frame of this lane; they stay in the store and are sent last: see whether it allows their topic"
            ),
            Verdict::NoticesAside => error!(
                broker,
                "the broker hangs up on the status message; it is sent last: see whether it allows uplink.status_topic"
            ),
        }
    }

    /// How many frames are set aside now.
    pub(super) fn aside(&self, frames: usize) {
        self.health.send_if_modified(|h| std::mem::replace(&mut h.refused, frames as u64) != frames as u64);
    }

    pub(super) fn oversized(&mut self, bytes: usize) {
        if self.health.borrow().oversized == 0 {
            warn!(
                bytes,
                "a frame is longer than uplink.max_payload and is sent alone; raise max_payload or read fewer values at once"
            );
        }
        self.health.send_modify(|h| h.oversized += 1);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_repeating_failure_is_logged_once_and_then_counted_and_its_end_is_logged() {
        let page = Page::default();
        let writer = page.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let (mut report, health) = Report::new("ssl://b:8883".into());
        tracing::subscriber::with_default(log, || {
            for _ in 0..500 {
                report.failed(Failure::new(Kind::Unreachable, "nobody listens"));
            }
            for _ in 0..500 {
                report.connected(Timestamp::from_millis(1), "ssl://b:8883");
                report.failed(Failure::new(Kind::Lost, "it broke"));
            }
            assert_eq!((health.borrow().failures, health.borrow().reconnects()), (1000, 499));
            report.connected(Timestamp::from_millis(2), "ssl://b:8883");
            report.settled();
            report.failed(Failure::new(Kind::Lost, "it broke"));
        });
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        for (line, words) in
            lines.iter().zip(["nobody listens", "connected to", "it broke", "stable again", "it broke"])
        {
            assert!(line.contains(words), "{words}: {line}");
        }
        assert_eq!(health.borrow().last_error.as_deref(), Some("it broke"));
    }
}
