//! Rooms as named tasks: started again when they end, stopped together.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A room that ran so long before it failed works: its next failure is news again.
const STEADY: Duration = Duration::from_secs(600);

/// A group of supervised rooms.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    tasks: JoinSet<()>,
    running: Vec<(String, tokio::task::AbortHandle)>,
}

impl Rooms {
    /// Starts a room. `run` makes its future anew each time; the room ends for good when it
    /// returns `Ok`. An error or panic is logged once, then counted, and the room starts again
    /// after a pause that doubles from one second to one minute.
    pub(super) fn start<F, E>(&mut self, name: impl Into<String>, mut run: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        let name = name.into();
        let room = name.clone();
        let handle = self.tasks.spawn(async move {
            let mut failures: u64 = 0;
            let mut pause = FIRST_PAUSE;
            let mut last = String::new();
            loop {
                // A task of its own, so that a panic ends the room and not its supervision.
                let mut attempt = JoinSet::new();
                let begun = Instant::now();
                attempt.spawn(run());
                let sentence = match attempt.join_next().await {
                    Some(Ok(Ok(()))) | None => break,
                    Some(Ok(Err(problem))) => problem.to_string(),
                    Some(Err(panic)) => format!("it panicked: {panic}"),
                };
                failures += 1;
                if begun.elapsed() >= STEADY {
                    pause = FIRST_PAUSE;
                    last.clear();
                }
                if sentence == last {
                    tracing::debug!(room, failures, "the room failed again");
                } else {
                    error!(room, problem = sentence, "the room failed and is started again");
                    last = sentence;
                }
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            if failures > 0 {
                info!(room, failures, "the room ended");
            }
        });
        self.running.push((name, handle));
    }

    /// Ends all rooms at once.
    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }

    /// Waits until all rooms have ended by themselves; after `grace` names those that have not
    /// and ends them.
    pub(super) async fn finish(mut self, grace: Duration) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(grace, all).await.is_err() {
            for (name, _) in self.running.iter().filter(|(_, handle)| !handle.is_finished()) {
                warn!(room = name, "still running at shutdown");
            }
        }
        self.tasks.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_room_that_fails_or_panics_is_started_again_until_it_ends_well() {
        let tries = Arc::new(AtomicU32::new(0));
        let mut rooms = Rooms::default();
        let counted = tries.clone();
        rooms.start("wobbly", move || {
            let attempt = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                match attempt {
                    0 => Err("first"),
                    1 => panic!("second"),
                    _ => Ok(()),
                }
            }
        });
        rooms.finish(Duration::from_secs(60)).await;
        assert_eq!(tries.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_after_a_long_run_is_a_new_one() {
        let (tell, mut starts) = tokio::sync::mpsc::unbounded_channel();
        let mut rooms = Rooms::default();
        let mut attempt = 0;
        rooms.start("wobbly", move || {
            attempt += 1;
            let (tell, attempt) = (tell.clone(), attempt);
            async move {
                tell.send(Instant::now()).unwrap();
                match attempt {
                    1..=4 => Err("at once"),
                    5 => {
                        sleep(STEADY).await;
                        Err("at once")
                    }
                    _ => Ok(()),
                }
            }
        });
        rooms.finish(STEADY * 2).await;
        let mut at = Vec::new();
        while let Ok(start) = starts.try_recv() {
            at.push(start);
        }
        let pauses: Vec<_> = at.windows(2).map(|w| (w[1] - w[0]).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, STEADY.as_secs() + 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_that_does_not_end_is_ended_after_its_grace() {
        let mut rooms = Rooms::default();
        rooms.start("stubborn", || async {
            std::future::pending::<()>().await;
            Ok::<(), String>(())
        });
        rooms.finish(Duration::from_secs(3)).await;
    }
}
