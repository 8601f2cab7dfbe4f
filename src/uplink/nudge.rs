//! Has the broker tried at once, whatever the back-off says.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Nudges every broker's back-off; clones nudge the same ones.
#[derive(Debug, Clone, Default)]
pub struct Nudge(Arc<watch::Sender<u64>>);

/// The back-off's side.
#[derive(Debug)]
pub(super) struct Nudged(Option<watch::Receiver<u64>>);

impl Nudge {
    /// A broker without a session is tried now; the back-off goes on as it was when that fails. Where there is a session nothing
    /// happens.
    pub fn now(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn nudged(&self) -> Nudged {
        Nudged(Some(self.0.subscribe()))
    }
}

impl Nudged {
    pub(super) const fn never() -> Self {
        Self(None)
    }

    /// Waits until `ready`, or until somebody nudges.
    pub(super) async fn until(&mut self, ready: Instant) {
        let nudge = async {
            if let Some(count) = &mut self.0
                && count.changed().await.is_ok()
            {
                return;
            }
            std::future::pending().await
        };
        tokio::select! {
            () = sleep_until(ready) => {}
            () = nudge => tracing::info!("the broker is tried at once, as somebody asked"),
        }
    }

    /// Forgets what was asked while there was a session.
    pub(super) fn forget(&mut self) {
        if let Some(count) = &mut self.0 {
            count.mark_unchanged();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_nudge_ends_the_wait_once() {
        let nudge = Nudge::default();
        let mut nudged = nudge.nudged();
        let (begun, hour) = (Instant::now(), Duration::from_secs(3600));
        nudge.now();
        nudged.until(begun + hour).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        nudged.until(begun + hour).await;
        assert_eq!(begun.elapsed(), hour);
        nudge.now();
        nudged.forget();
        nudged.until(begun + 2 * hour).await;
        assert_eq!(begun.elapsed(), 2 * hour);
        Nudged::never().until(begun + 3 * hour).await;
    }
}
