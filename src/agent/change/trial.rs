//! Watches a configuration on trial: keeps it when it has proved itself, takes the one before when its time is over.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::Changer;
use crate::agent::Evidence;
use crate::config::Settings;
use crate::config::change::Trial;
use crate::meter;
use crate::model::Quality;
use crate::uplink::{Arrangement, Connect};

/// How often is looked while something is on trial.
const LOOK: Duration = Duration::from_millis(500);
/// How often is looked otherwise, until the broker was reached once.
const SELDOM: Duration = Duration::from_secs(2);
/// How often the meters of a changed port are asked, besides their own schedule.
const ASK_EVERY: Duration = Duration::from_secs(20);
/// How long one such reading may wait for its port.
const READ_LIMIT: Duration = Duration::from_mins(5);

/// What proves a configuration.
#[derive(Debug, Clone)]
pub(in crate::agent) struct Proof {
    /// The configuration that this agent was started with; it judges no other.
    number: u64,
    /// Whether every required broker must be reached, or just one.
    brokers: Vec<bool>,
    mirror: bool,
    /// Every meter and its port; those that send by themselves are not asked.
    meters: Vec<(String, String, bool)>,
    /// A session is kept only for the trial, so weir starts once more after it.
    held: bool,
}

/// The settings to start with: in a trial the session is kept, or data might not wait for one in time.
pub(in crate::agent) fn for_trial(settings: &Settings, changer: &Changer) -> (Settings, Proof) {
    let (mut settings, number) = (settings.clone(), changer.state().number);
    let held = settings.uplink.connect == Connect::OnDemand && changer.trial(number).is_some();
    if held {
        settings.uplink.connect = Connect::Always;
    }
    let proof = Proof { held, ..Proof::new(&settings, number) };
    (settings, proof)
}

impl Proof {
    fn new(settings: &Settings, number: u64) -> Self {
        let listens =
            |meter: &meter::MeterSettings| meter::protocol(&meter.protocol).is_some_and(meter::Protocol::listens);
        Self {
            brokers: settings.broker.iter().map(|broker| *broker.required).collect(),
            mirror: *settings.uplink.brokers == Arrangement::Mirror,
            meters: settings.meter.iter().map(|m| (m.name.to_string(), m.port.to_string(), !listens(m))).collect(),
            held: false,
            number,
        }
    }

    /// The configuration, when its broker has been reached by now; ports on which a meter has answered.
    pub(super) fn so_far(&self, evidence: &Evidence) -> (Option<u64>, Vec<String>) {
        let health = evidence.meters.meters();
        let answers = |name: &str| health.get(name).is_some_and(|health| health.last_answer.is_some());
        let ports = self.meters.iter().filter(|(name, ..)| answers(name)).map(|(_, port, _)| port.clone());
        (self.is_reached(&sessions(evidence)).then_some(self.number), ports.collect())
    }

    /// Whether these sessions are enough.
    fn is_reached(&self, reached: &BTreeSet<usize>) -> bool {
        if !self.mirror {
            return !reached.is_empty();
        }
        let mut required = self.brokers.iter().enumerate().filter(|(_, required)| **required).peekable();
        if required.peek().is_none() { !reached.is_empty() } else { required.all(|(at, _)| reached.contains(&at)) }
    }
}

/// The brokers that have accepted a session.
fn sessions(evidence: &Evidence) -> BTreeSet<usize> {
    let brokers = evidence.brokers();
    brokers.iter().enumerate().filter(|(_, broker)| broker.sessions > 0).map(|(at, _)| at).collect()
}

/// Runs as long as the agent.
pub(in crate::agent) async fn run(changer: Changer, evidence: Evidence, proof: Proof) -> Result<(), Infallible> {
    changer.attach(&evidence, &proof);
    let mut reached = BTreeSet::new();
    let (answered, mut asking) = (watch::Sender::new(BTreeSet::new()), JoinSet::new());
    let mut asked_at: Option<Instant> = None;
    let mut noted = false;
    loop {
        // Remembered here, because an uplink that is started again counts from zero.
        reached.extend(sessions(&evidence));
        let is_reached = proof.is_reached(&reached);
        if is_reached && !std::mem::replace(&mut noted, true) {
            let number = proof.number;
            let result = changer.with(move |history, _| history.note(Some(number), &[])).await;
            result.unwrap_or_else(|error| warn!(%error, "that the broker was reached could not be noted"));
        }
        let Some(trial) = changer.trial(proof.number) else {
            changer.note_answered().await;
            changer.write_again().await;
            sleep(if is_reached { Duration::from_mins(1) } else { SELDOM }).await;
            continue;
        };
        if !trial.ports.is_empty() && asked_at.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
            asked_at = Some(Instant::now());
            ask(&trial, &evidence, &proof, (&answered, &mut asking));
        }
        let silent = silent(&trial, &evidence, &proof, &answered.borrow());
        if judge(&changer, &proof, is_reached, silent).await {
            return Ok(());
        }
        sleep(LOOK).await;
    }
}

/// Decides what can be decided; true when the agent is to be started anew.
async fn judge(changer: &Changer, proof: &Proof, reached: bool, silent: Vec<String>) -> bool {
    let Some((trial, left)) = changer.trial_left(proof.number) else { return false };
    let over = left.is_zero();
    let mut waiting_for: Vec<_> =
        silent.into_iter().map(|port| format!("no meter on port {port} has answered")).collect();
    let meters_answer = waiting_for.is_empty();
    if !reached {
        waiting_for.insert(0, "the broker was not reached".to_owned());
    }
    let decided = if trial.at_once {
        changer.confirm(proof.number, "without a trial").await.map(|()| proof.held)
    } else if reached && meters_answer {
        changer.confirm(proof.number, "it has proved itself").await.map(|()| proof.held)
    } else if over && meters_answer && !trial.broker {
        changer
            .confirm(proof.number, "the broker was not reached, and had not been before either")
            .await
            .map(|()| proof.held)
    } else if over {
        changer.go_back_from(proof.number, format!("{} in time", waiting_for.join(", and "))).await
    } else {
        changer.waits_for(waiting_for);
        return false;
    };
    match decided {
        Ok(true) => {
            changer.restart();
            true
        }
        Ok(false) => false,
        Err(error) => {
            warn!(%error, "what becomes of the configuration on trial can't be written");
            if over {
                // What is on the disk counts at the next start; it goes back then.
                changer.restart();
            }
            over
        }
    }
}

/// The ports on which a meter must answer and none has.
fn silent(trial: &Trial, evidence: &Evidence, proof: &Proof, answered: &BTreeSet<String>) -> Vec<String> {
    let health = evidence.meters.meters();
    let answers =
        |name: &str| answered.contains(name) || health.get(name).is_some_and(|health| health.last_answer.is_some());
    let proved = |port: &str| proof.meters.iter().any(|(name, on, _)| on == port && answers(name));
    // A port whose last meter was taken away has nobody who could answer.
    let has_meter = |port: &str| proof.meters.iter().any(|(_, on, _)| on == port);
    trial.ports.iter().filter(|port| has_meter(port) && !proved(port)).cloned().collect()
}

/// Asks the meters of the changed ports: their own turn may come after the trial's end.
fn ask(
    trial: &Trial,
    evidence: &Evidence,
    proof: &Proof,
    (answered, asking): (&watch::Sender<BTreeSet<String>>, &mut JoinSet<()>),
) {
    while asking.try_join_next().is_some() {}
    if !asking.is_empty() {
        return;
    }
    for bus in evidence.buses.iter().filter(|bus| trial.ports.iter().any(|port| port == bus.port())) {
        let on_port = |(_, port, asked): &&(String, String, bool)| port == bus.port() && *asked;
        let names: Vec<_> = proof.meters.iter().filter(on_port).map(|(name, ..)| name.clone()).collect();
        let (bus, answered) = (bus.clone(), answered.clone());
        asking.spawn(async move {
            for name in names {
                match timeout(READ_LIMIT, bus.read(&name)).await {
                    Ok(Ok(values)) if values.iter().any(|value| value.quality == Quality::Good) => {
                        answered.send_if_modified(|all| all.insert(name));
                        return;
                    }
                    Ok(Ok(_)) | Err(_) => debug!(meter = name, "a meter of a changed port gave no value"),
                    Ok(Err(error)) => debug!(meter = name, error, "a meter of a changed port did not answer"),
                }
            }
        });
    }
}
