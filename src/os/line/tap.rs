//! A tap on a line: who listens hears every byte, both ways, with its time, and never holds the line up.

use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::time::Instant;

use super::Speed;

/// What may wait for a listener that is slow; what comes after it pushes the oldest out.
const WAITING: usize = 256;

/// What happened on a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The line was opened at this speed.
    Opened(Speed),
    /// It was closed.
    Closed,
    /// Its speed was changed.
    Speed(Speed),
    /// These bytes were given to the kernel.
    Sent(Arc<[u8]>),
    /// These bytes came, echoes included.
    Received(Arc<[u8]>),
    /// The listener was too slow: so many events were lost to it.
    Missed(u64),
}

/// One event with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// When it happened.
    pub at: Instant,
    /// What it was.
    pub what: What,
}

/// A place to listen at; clones are the same place. It outlives the lines it is put on, so that a
/// listener hears a port being opened again. Costs nothing while nobody listens.
#[derive(Debug, Clone)]
pub struct Tap(broadcast::Sender<Traced>);

impl Default for Tap {
    fn default() -> Self {
        Self::new()
    }
}

impl Tap {
    /// Makes a tap that is on no line yet; [`super::Line::put_tap`] puts it on one.
    pub fn new() -> Self {
        Self(broadcast::Sender::new(WAITING))
    }

    /// Listens from now on.
    pub fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.0.receiver_count()
    }

    /// Tells an event whose making may cost something, when somebody listens.
    pub(super) fn tell(&self, what: impl FnOnce() -> What) {
        if self.0.receiver_count() > 0 {
            // Nobody is there any more: no fault.
            let _ = self.0.send(Traced { at: Instant::now(), what: what() });
        }
    }
}

/// Somebody who listens at a [`Tap`].
#[derive(Debug)]
pub struct Listener(broadcast::Receiver<Traced>);

impl Listener {
    /// Waits for the next event; `None` when the tap is gone. May be dropped at any moment.
    pub async fn next(&mut self) -> Option<Traced> {
        match self.0.recv().await {
            Ok(traced) => Some(traced),
            Err(broadcast::error::RecvError::Lagged(events)) => {
                Some(Traced { at: Instant::now(), what: What::Missed(events) })
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_listener_is_told_what_it_missed_and_holds_nobody_up() {
        let tap = Tap::new();
        tap.tell(|| unreachable!("nobody listens"));
        let mut listener = tap.listen();
        for number in 0..WAITING + 44 {
            tap.tell(|| What::Sent(vec![(number % 251) as u8].into()));
        }
        assert_eq!(listener.next().await.unwrap().what, What::Missed(44));
        assert_eq!(listener.next().await.unwrap().what, What::Sent([44].into()));
        drop(tap);
        let mut left = 1;
        while listener.next().await.is_some() {
            left += 1;
        }
        assert_eq!(left, WAITING);
    }
}
