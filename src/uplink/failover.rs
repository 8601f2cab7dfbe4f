//! One session at a time: with the preferred broker, or the next that accepts it.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use super::course::Course;
use super::link::Link;
use super::session::End;
use super::settings::Connect;
use super::{UplinkError, stopped};

/// Attempts and sessions that fail in a row before the next broker is tried.
const STRIKES: u32 = 3;

/// The brokers in the order of preference, and which of them is in use.
#[derive(Debug)]
pub(super) struct Failover {
    courses: Vec<Course>,
    at: usize,
    return_after: Duration,
    /// On a later broker: when the preferred ones are tried again.
    return_at: Instant,
    /// That brokers are changed is logged once, until one accepts a session.
    told: bool,
    shutdown: watch::Receiver<bool>,
}

/// What ended a session.
enum Next {
    /// The agent shuts down.
    Stop,
    /// Another attempt, perhaps elsewhere.
    Again,
    /// A preferred broker has accepted a session already.
    Better(usize, Link),
}

impl Failover {
    pub(super) fn new(courses: Vec<Course>, return_after: Duration, shutdown: watch::Receiver<bool>) -> Self {
        Self { courses, at: 0, return_after, return_at: Instant::now(), told: false, shutdown }
    }

    /// Keeps sessions until the agent shuts down.
    ///
    /// # Errors
    /// [`UplinkError::Store`].
    pub(super) async fn run(mut self) -> Result<(), UplinkError> {
        let mut accepted = None;
        loop {
            let link = match accepted.take() {
                Some(link) => link,
                None => match self.next_link().await? {
                    Some(link) => link,
                    None => return Ok(()),
                },
            };
            match self.hold(link).await? {
                Next::Stop => return Ok(()),
                Next::Again => {}
                Next::Better(at, link) => {
                    self.use_broker(at);
                    accepted = Some(link);
                }
            }
        }
    }

    /// Tries until a broker accepts a session; `None` when the agent shuts down before.
    async fn next_link(&mut self) -> Result<Option<Link>, UplinkError> {
        loop {
            if let Some(course) = self.courses.get_mut(self.at).filter(|c| c.plan.connect == Connect::OnDemand) {
                tokio::select! {
                    biased;
                    () = stopped(&mut self.shutdown) => return Ok(None),
                    waits = course.data_waits() => waits?,
                }
            }
            if self.at > 0 && Instant::now() >= self.return_at {
                self.use_broker(0);
                // One attempt is enough to see that it is still gone.
                if let Some(first) = self.courses.first_mut() {
                    first.strikes = STRIKES - 1;
                }
            }
            let Some(course) = self.courses.get_mut(self.at) else { return Ok(None) };
            let attempt = async {
                course.nudged.until(course.ready).await;
                course.open().await
            };
            let outcome = tokio::select! {
                biased;
                () = stopped(&mut self.shutdown) => return Ok(None),
                outcome = attempt => outcome,
            };
            match outcome {
                Ok(link) => return Ok(Some(link)),
                Err(failure) => {
                    course.failed(failure);
                    self.move_on();
                }
            }
        }
    }

    /// Goes to the next broker when this one has failed often enough.
    fn move_on(&mut self) {
        let worn = self.courses.get(self.at).is_some_and(|course| course.strikes >= STRIKES);
        if worn && self.courses.len() > 1 {
            self.use_broker((self.at + 1) % self.courses.len());
        }
    }

    fn use_broker(&mut self, at: usize) {
        if let Some(course) = self.courses.get_mut(at) {
            course.strikes = 0;
            let broker = course.plan.url.to_string();
            if at > self.at {
                if std::mem::replace(&mut self.told, true) {
                    debug!(broker, "trying the next broker, again");
                } else {
                    info!(broker, "trying the next broker");
                }
                let wait = course.about(self.return_after);
                self.return_at = Instant::now() + wait;
            } else {
                debug!(broker, "trying a preferred broker");
            }
        }
        self.at = at;
    }

    /// Holds a session; beside it tries whether a preferred broker is back.
    async fn hold(&mut self, link: Link) -> Result<Next, UplinkError> {
        self.told = false;
        let (earlier, rest) = self.courses.split_at_mut(self.at);
        let Some(course) = rest.first_mut() else { return Ok(Next::Stop) };
        let (leave, mut leaving) = watch::channel(false);
        let mut better = None;
        let end = {
            let mut session = pin!(course.hold(link, &mut leaving));
            let mut search = pin!(search(earlier, self.return_at, self.return_after));
            loop {
                tokio::select! {
                    biased;
                    end = &mut session => break end?,
                    () = stopped(&mut self.shutdown), if !*leave.borrow() => {
                        leave.send_replace(true);
                    }
                    found = &mut search, if better.is_none() => {
                        better = Some(found);
                        leave.send_replace(true);
                    }
                }
            }
        };
        let stops = *self.shutdown.borrow() || self.shutdown.has_changed().is_err();
        match end {
            End::Left => {
                course.report.disconnected();
                info!(broker = %course.plan.url, "disconnected from the broker");
            }
            End::Finished => {
                course.report.disconnected();
                debug!("everything is delivered; disconnected until data waits");
            }
            End::Failed(failure) => {
                // A session that had proved itself is lost: one failed attempt more, and the next
                // broker gets its turn.
                if course.proved {
                    course.strikes = STRIKES - 2;
                }
                course.failed(failure);
                if better.is_none() {
                    self.move_on();
                }
            }
        }
        Ok(match better {
            Some((_, link)) if stops => {
                link.close(Duration::from_secs(1)).await;
                Next::Stop
            }
            Some((at, link)) => Next::Better(at, link),
            None if stops => Next::Stop,
            None => Next::Again,
        })
    }
}

/// Tries the preferred brokers again and again, first at `from`; returns the first that accepts.
async fn search(earlier: &mut [Course], from: Instant, every: Duration) -> (usize, Link) {
    let mut from = from;
    loop {
        let Some(first) = earlier.first_mut() else { return std::future::pending().await };
        sleep_until(from).await;
        from = Instant::now() + first.about(every);
        for (at, course) in earlier.iter_mut().enumerate() {
            match course.open().await {
                Ok(link) => {
                    info!(broker = %course.plan.url, "a preferred broker is back");
                    return (at, link);
                }
                Err(failure) => course.report.failed(failure),
            }
        }
    }
}
