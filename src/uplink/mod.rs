//! Forwards frames to the platform over MQTT: sessions, batches, back-off, the only TLS door.
//!
//! Invariants: a frame is committed in the store only after the PUBACK of the message that
//! carried it; a message's payload is never longer than `max_payload` unless one frame alone is;
//! what waits in the store is sent without any new traffic; no state of the broker (absent, refusing, frozen,
//! silent) ends the uplink or floods the log. It never changes a frame and never decides what is
//! kept. The contract with the platform is docs/mqtt.md. Start reading with [`Uplink::run`], then
//! `failover` (one session at a time) or `mirror` (a session with each broker), `course` (one
//! broker over the time) and `session`.

mod backoff;
mod books;
mod brokers;
mod budget;
mod caution;
mod check;
mod compress;
mod course;
mod document;
mod door;
mod failover;
mod failure;
mod fetch;
mod frames;
mod gate;
mod health;
mod intervals;
mod ledger;
mod link;
mod mirror;
mod nudge;
mod operator;
mod pem;
mod plan;
mod progress;
mod queue;
mod rehearsal;
mod session;
mod settings;
mod source;
mod status;
mod talk;
mod tally;
mod ticket;
mod tls;
mod traffic;
mod value;
mod watchdog;
mod window;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;

pub use self::backoff::{Backoff, Growth};
pub use self::brokers::Brokers;
pub use self::budget::{Budget, BudgetSettings, Period, Policy, Standing, Step, check as check_budget};
pub use self::check::{check, check_names, check_tls_files};
pub use self::compress::deflated;
use self::course::Course;
use self::document::Document;
pub use self::door::secured;
use self::failover::Failover;
pub use self::failure::{Failure, Kind};
pub use self::fetch::{Url, fetch};
pub use self::frames::{Added, Message};
use self::gate::Gate;
pub use self::health::Health;
use self::health::Report;
use self::mirror::Mirror;
pub use self::nudge::Nudge;
pub use self::operator::converse;
pub use self::pem::{Wanted, check_certificates, check_key, is_pair};
use self::plan::Plan;
pub use self::rehearsal::rehearse;
pub use self::settings::{
    Arrangement, BackoffSettings, BrokerSettings, Compression, Connect, Profile, StatusSettings, UplinkSettings,
};
use self::source::Source;
pub use self::status::{Field, Placeholder, PortField, Statement, Template, check_status, markdown as status_fields};
pub use self::talk::{Heard, Saying, Speaker, Talk, talk};
pub use self::tally::{Amount, Tally};
pub use self::tls::{TlsError, TlsFiles};
pub use self::traffic::{Account, Traffic, TrafficError, inspect as inspect_traffic};
pub use self::value::{BrokerUrl, KeepAlive, PayloadLimit};
use crate::os::clock::Clock;
use crate::setting::{Identity, Topic};
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
    /// kibibyte of the longest of them), the session is made anew; also when one message was not
    /// acknowledged for so long after a later one was.
    pub stall: Duration,
    /// A session that lasted so long starts the back-off anew.
    pub settled: Duration,
    /// How long a frame that the broker answered by hanging up waits before it is sent again.
    pub refused: Duration,
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
            // Measured (tests/uplink/latency.rs): with 10, half a second of round trip leaves 267 frames/s
            // in messages of 4 KiB, with 32 it leaves 650. Brokers take 100 (AWS IoT Core) or more.
            messages: 32,
            bytes: 1 << 20,
            connect: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            settled: Duration::from_secs(60),
            refused: Duration::from_mins(1),
            idle: Duration::from_secs(10),
            grace: Duration::from_secs(5),
            hang_up: Duration::from_secs(2),
        }
    }
}

/// Forwards the store's frames to the broker, or to several.
#[derive(Debug)]
pub struct Uplink {
    brokers: Vec<(Plan, Report)>,
    required: Vec<bool>,
    arrangement: Arrangement,
    return_after: Duration,
    pace: Pace,
    store: Store,
    clock: Clock,
    random: StdRng,
    backoff: BackoffSettings,
    identity: Identity,
    document: Option<Document>,
    talk: Option<Talk>,
    mirror_file: Option<PathBuf>,
    tally: Arc<Tally>,
    policy: Option<watch::Receiver<Policy>>,
    nudge: Option<Nudge>,
}

impl Uplink {
    /// Puts the gateway's own names into the settings; nothing is opened yet. The receivers show
    /// the state of each broker at all times, in the order of the settings.
    ///
    /// # Errors
    /// [`UplinkError::NoImei`] and [`UplinkError::Topic`].
    pub fn new(
        brokers: &Brokers,
        uplink: &UplinkSettings,
        identity: &Identity,
        store: Store,
        clock: Clock,
        random: StdRng,
    ) -> Result<(Self, Vec<watch::Receiver<Health>>), UplinkError> {
        let (mut plans, mut healths) = (Vec::new(), Vec::new());
        for broker in brokers.iter() {
            let plan = Plan::new(broker, uplink, identity)?;
            let (report, health) = Report::new(plan.url.to_string());
            plans.push((plan, report));
            healths.push(health);
        }
        let itself = Self {
            brokers: plans,
            required: brokers.iter().map(|broker| *broker.required).collect(),
            arrangement: *uplink.brokers,
            return_after: *uplink.return_after,
            pace: Pace::default(),
            store,
            clock,
            random,
            backoff: (*uplink.backoff).clone(),
            identity: identity.clone(),
            document: None,
            talk: None,
            mirror_file: None,
            tally: Arc::default(),
            policy: None,
            nudge: None,
        };
        Ok((itself, healths))
    }

    /// Replaces the times and bounds.
    #[must_use]
    pub fn with_pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Publishes the newest `document` at `topic` (`{id}` and the like are replaced) with QoS 1:
    /// after each connect, and then whenever it changes, before any frame that waits.
    ///
    /// # Errors
    /// [`UplinkError::NoImei`] and [`UplinkError::Topic`].
    pub fn with_status(
        mut self,
        topic: &Topic,
        document: watch::Receiver<Option<String>>,
    ) -> Result<Self, UplinkError> {
        let topic = plan::usable(topic.of(&self.identity).ok_or(UplinkError::NoImei)?)?;
        self.document = Some(Document::new(topic, document));
        Ok(self)
    }

    /// Lets other rooms hear and say things through the broker: in a mirror through the first one, in a failover
    /// through whichever there is a session with. A gateway that listens does not hang up when nothing waits.
    #[must_use]
    pub fn with_talk(mut self, talk: Talk) -> Self {
        let listens = if self.arrangement == Arrangement::Failover { usize::MAX } else { 1 };
        self.brokers.iter_mut().take(listens).for_each(|(plan, _)| plan.connect = Connect::Always);
        self.talk = Some(talk);
        self
    }

    /// Lets somebody have the brokers tried at once.
    #[must_use]
    pub fn with_nudge(mut self, nudge: Nudge) -> Self {
        self.nudge = Some(nudge);
        self
    }

    /// Names the file in which a mirror remembers over a restart what each broker has
    /// acknowledged; it belongs into the store's directory, so that it goes when the store goes.
    #[must_use]
    pub fn with_mirror_file(mut self, path: PathBuf) -> Self {
        self.mirror_file = Some(path);
        self
    }

    /// Counts its bytes into `traffic`, and keeps to the policy of the budget there.
    #[must_use]
    pub fn with_traffic(mut self, traffic: &Traffic) -> Self {
        self.tally = traffic.tally();
        self.with_policy(traffic.policy())
    }

    /// Keeps to a policy that may change at any time.
    #[must_use]
    pub fn with_policy(mut self, policy: watch::Receiver<Policy>) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Keeps sessions and drains the store until `shutdown` turns true; then waits a grace for
    /// what is under way and says DISCONNECT.
    ///
    /// # Errors
    /// [`UplinkError::Store`] when the store ends first. The broker never ends it.
    pub async fn run(self, shutdown: watch::Receiver<bool>) -> Result<(), UplinkError> {
        let Self { brokers, required, mirror_file, store, clock, pace, mut random, backoff, .. } = self;
        let (identity, document, tally, policy) = (self.identity, self.document, self.tally, self.policy);
        let (talk, nudge) = (self.talk, self.nudge);
        let mut course = |(plan, report), source| {
            let backoff = Backoff::new(&backoff, pace.settled, &identity.id);
            let random = StdRng::from_rng(&mut random);
            let mut course = Course::new(plan, pace.clone(), source, clock.clone(), report, backoff, random);
            course.document = document.clone();
            course.tally = Arc::clone(&tally);
            if let Some(nudge) = &nudge {
                course.nudged = nudge.nudged();
            }
            course.gate = policy.clone().map_or_else(Gate::free, Gate::new);
            course
        };
        if self.arrangement == Arrangement::Failover {
            if let Some(file) = mirror_file.filter(|file| file.exists()) {
                progress::forget(&file);
            }
            let mut courses: Vec<_> =
                brokers.into_iter().map(|broker| course(broker, Source::Alone(store.clone()))).collect();
            courses.iter_mut().for_each(|course| course.talk.clone_from(&talk));
            return Failover::new(courses, self.return_after, shutdown).run().await;
        }
        let keys = brokers.iter().map(|(plan, _)| plan.key()).zip(required);
        let mirror = Mirror::new(store.clone(), mirror_file, keys);
        let ledger = mirror.ledger();
        let source = |broker| Source::Mirror { store: store.clone(), ledger: ledger.clone(), broker };
        let mut courses: Vec<_> =
            brokers.into_iter().enumerate().map(|(n, broker)| course(broker, source(n))).collect();
        if let Some(first) = courses.first_mut() {
            first.talk = talk;
        }
        mirror.run(courses, shutdown).await
    }
}

/// Returns when the agent shuts down, or nobody is left who could tell.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await.is_ok();
}
