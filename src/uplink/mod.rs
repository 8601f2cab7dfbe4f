//! Forwards frames to the platform over MQTT: sessions, batches, back-off, the only TLS door.
//!
//! Invariants: a frame is committed in the store only after the PUBACK of the message that
//! carried it; a message's payload is never longer than `max_payload` unless one frame alone is;
//! what waits in the store is sent without any new traffic; no state of the broker (absent, refusing, frozen,
//! silent) ends the uplink or floods the log. It never changes a frame and never decides what is
//! kept. The contract with the platform is docs/mqtt.md. Start reading with [`Uplink::run`], then
//! `session`.

mod backoff;
mod check;
mod failure;
mod frames;
mod health;
mod link;
mod plan;
mod session;
mod settings;
mod tls;
mod value;
mod window;

use std::time::Duration;

use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

pub use self::backoff::{Backoff, Growth};
pub use self::check::{check, check_names};
pub use self::failure::{Failure, Kind};
pub use self::frames::{Added, Message};
pub use self::health::Health;
use self::health::Report;
use self::link::{Link, LinkEvent};
use self::plan::Plan;
use self::session::{End, Session};
pub use self::settings::{BackoffSettings, BrokerSettings, Connect, Profile, UplinkSettings};
pub use self::tls::{TlsError, TlsFiles};
pub use self::value::{BrokerUrl, Identity, KeepAlive, PayloadLimit, Text, Topic};
use crate::os::clock::Clock;
use crate::store::{Store, StoreError};

/// Why the uplink can't be built or has ended.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// A topic or id needs the IMEI and nobody knows it.
    #[error("a topic, id or payload uses {{imei}}, but the IMEI is not known: set gateway.imei")]
    NoImei,
    /// A topic can't be published to once the gateway's own names are in it.
    #[error("the topic \"{topic}\" can't be published to: the gateway's id or IMEI must not hold + or #")]
    Topic {
        /// The topic.
        topic: String,
    },
    /// The store has ended.
    #[error("the uplink stops because the store is gone: {0}")]
    Store(#[from] StoreError),
}

/// The times and bounds that nobody needs to set, but tests do.
#[derive(Debug, Clone)]
pub struct Pace {
    /// The most messages under way at once.
    pub messages: u16,
    /// The most bytes under way at once; one message may be longer.
    pub bytes: usize,
    /// The longest wait for the broker to accept a session.
    pub connect: Duration,
    /// With messages under way and no acknowledgement for so long (plus a second for each
    /// kibibyte of the longest message), the session is made anew.
    pub stall: Duration,
    /// A session that lasted so long starts the back-off anew.
    pub settled: Duration,
    /// On demand: how long a session outlives the last acknowledgement.
    pub idle: Duration,
    /// At shutdown: the longest wait for acknowledgements under way.
    pub grace: Duration,
    /// The longest wait for DISCONNECT to be sent.
    pub hang_up: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            messages: 10,
            bytes: 1 << 20,
            connect: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            settled: Duration::from_secs(60),
            idle: Duration::from_secs(10),
            grace: Duration::from_secs(5),
            hang_up: Duration::from_secs(2),
        }
    }
}

/// Forwards the store's frames to the broker.
#[derive(Debug)]
pub struct Uplink {
    plan: Plan,
    pace: Pace,
    store: Store,
    clock: Clock,
    random: StdRng,
    backoff: BackoffSettings,
    report: Report,
}

impl Uplink {
    /// Puts the gateway's own names into the settings; nothing is opened yet. The receiver shows
    /// the uplink's state at all times.
    ///
    /// # Errors
    /// [`UplinkError::NoImei`] and [`UplinkError::Topic`].
    pub fn new(
        broker: &BrokerSettings,
        uplink: &UplinkSettings,
        identity: &Identity,
        store: Store,
        clock: Clock,
        random: StdRng,
    ) -> Result<(Self, watch::Receiver<Health>), UplinkError> {
        let plan = Plan::new(broker, uplink, identity)?;
        let (report, health) = Report::new();
        let backoff = (*uplink.backoff).clone();
        Ok((Self { plan, pace: Pace::default(), store, clock, random, backoff, report }, health))
    }

    /// Replaces the times and bounds.
    #[must_use]
    pub fn with_pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Keeps sessions and drains the store until `shutdown` turns true; then waits a grace for
    /// what is under way and says DISCONNECT.
    ///
    /// # Errors
    /// [`UplinkError::Store`] when the store ends first. The broker never ends it.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> Result<(), UplinkError> {
        let mut backoff = Backoff::new(&self.backoff, self.pace.settled);
        loop {
            if self.plan.connect == Connect::OnDemand && !self.data_waits(&mut shutdown).await? {
                return Ok(());
            }
            let end = tokio::select! {
                biased;
                () = stopped(&mut shutdown) => return Ok(()),
                link = open(&self.plan, &self.pace) => link,
            };
            let end = match end {
                Ok(link) => self.hold(link, &mut backoff, &mut shutdown).await?,
                Err(failure) => End::Failed(failure),
            };
            match end {
                End::Shutdown => {
                    self.report.disconnected();
                    info!("disconnected from the broker");
                    return Ok(());
                }
                End::Finished => {
                    self.report.disconnected();
                    debug!("everything is delivered; disconnected until data waits");
                }
                End::Failed(failure) => {
                    self.report.failed(failure);
                    let wait = backoff.next(&mut self.random);
                    debug!(wait_ms = wait.as_millis(), "waiting before the next attempt");
                    tokio::select! {
                        () = stopped(&mut shutdown) => return Ok(()),
                        () = sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// Waits for frames in the store; `false` when the agent shuts down first.
    async fn data_waits(&self, shutdown: &mut watch::Receiver<bool>) -> Result<bool, UplinkError> {
        let mut status = self.store.status();
        tokio::select! {
            biased;
            () = stopped(shutdown) => Ok(false),
            waits = async { status.wait_for(|s| s.cached > 0).await.is_ok() } => {
                if waits { Ok(true) } else { Err(StoreError::Closed.into()) }
            }
        }
    }

    /// Holds an accepted session until it ends.
    async fn hold(
        &mut self,
        link: Link,
        backoff: &mut Backoff,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<End, UplinkError> {
        let begun = Instant::now();
        self.report.connected(self.clock.now(), &self.plan.url.to_string());
        let session = Session::new(&self.plan, &self.pace, &self.store, &self.clock, &mut self.report, link);
        let end = session.run(shutdown).await?;
        let finished = matches!(end, End::Finished);
        if finished {
            self.report.settled();
        }
        backoff.ended(begun.elapsed(), finished);
        Ok(end)
    }
}

/// Returns when the agent shuts down, or nobody is left who could tell.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await.is_ok();
}

/// Connects and waits until the broker accepts the session.
async fn open(plan: &Plan, pace: &Pace) -> Result<Link, Failure> {
    // One more than the window: the status message.
    let mut link = Link::open(plan.options()?, &plan.url, pace.messages.saturating_add(1));
    let failure = match timeout(pace.connect, link.event()).await {
        Ok(LinkEvent::Connected) => return Ok(link),
        Ok(LinkEvent::Lost(Some(error))) => Failure::explain(&error, &plan.url, &plan.files, false),
        Ok(LinkEvent::Lost(None)) => Failure::new(Kind::Lost, format!("the connection to {} broke", plan.url)),
        Err(_) => Failure::new(
            Kind::Unreachable,
            format!("{} did not accept the session within {} s", plan.url, pace.connect.as_secs()),
        ),
    };
    link.abandon().await;
    Err(failure)
}
