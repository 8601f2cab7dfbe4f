//! When ordinary frames may go: what the budget's policy means for a session.
//!
//! While frames are gathered the gate opens once in a period and closes when nothing more waits,
//! so what gathered goes in as few messages as it can. Priority frames do not pass here.

use tokio::sync::watch;
use tokio::time::Instant;

use super::budget::Policy;

/// The gate; it outlives sessions.
#[derive(Debug)]
pub(super) struct Gate {
    policy: watch::Receiver<Policy>,
    /// While frames are gathered: when the gate opens again.
    opens: Option<Instant>,
    /// Something went through since it opened.
    passed: bool,
}

impl Gate {
    pub(super) fn new(policy: watch::Receiver<Policy>) -> Self {
        Self { policy, opens: None, passed: false }
    }

    /// A gate that is always open.
    pub(super) fn free() -> Self {
        Self::new(watch::channel(Policy::default()).1)
    }

    pub(super) fn is_open(&self, now: Instant) -> bool {
        let policy = self.policy.borrow();
        !policy.defer && (policy.gather.is_none() || self.opens.is_none_or(|at| at <= now))
    }

    /// When it opens by itself, if it is closed now and will.
    pub(super) fn opens_at(&self, now: Instant) -> Option<Instant> {
        let policy = self.policy.borrow();
        let gathers = policy.gather.is_some() && !policy.defer;
        self.opens.filter(|at| gathers && *at > now)
    }

    /// A message with ordinary frames went.
    pub(super) fn pass(&mut self) {
        self.passed = true;
    }

    /// Nothing ordinary waits any more.
    pub(super) fn exhausted(&mut self, now: Instant) {
        let gather = self.policy.borrow().gather;
        if std::mem::take(&mut self.passed) {
            self.opens = gather.map(|period| now + period);
        }
    }

    pub(super) fn compresses(&self) -> bool {
        self.policy.borrow().compress
    }

    /// The least keep-alive in seconds.
    pub(super) fn quiet(&self) -> Option<u16> {
        self.policy.borrow().quiet
    }

    /// Returns when the policy changes.
    pub(super) async fn changed(&mut self) {
        if self.policy.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn while_frames_are_gathered_the_gate_opens_once_in_a_period() {
        let minute = Duration::from_secs(60);
        let (tell, policy) = watch::channel(Policy::default());
        let mut gate = Gate::new(policy);
        let start = Instant::now();
        gate.pass();
        gate.exhausted(start);
        assert!(gate.is_open(start) && gate.opens_at(start).is_none());

        tell.send_replace(Policy { gather: Some(minute), ..Policy::default() });
        assert!(gate.is_open(start), "the first goes at once");
        gate.exhausted(start);
        assert!(gate.is_open(start), "nothing went: it stays open");
        gate.pass();
        gate.exhausted(start);
        assert!(!gate.is_open(start + minute / 2) && gate.opens_at(start) == Some(start + minute));
        assert!(gate.is_open(start + minute) && gate.opens_at(start + minute).is_none());

        tell.send_replace(Policy { gather: Some(minute), defer: true, ..Policy::default() });
        assert!(!gate.is_open(start + minute * 2) && gate.opens_at(start).is_none());
        tell.send_replace(Policy::default());
        assert!(gate.is_open(start));
    }
}
