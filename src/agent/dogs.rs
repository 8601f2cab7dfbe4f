//! Joins the watchdog, the helper that may do what needs root, and the board's pins to the other rooms.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::{info, warn};

use super::Agent;
use super::status::Reason;
use super::wiring::Evidence;
use crate::board::{Adc, Board, Way};
use crate::config::Settings;
use crate::control::FirmwareSettings;
use crate::os::clock::Clock;
use crate::os::file::read_small;
use crate::os::gpio::{Kernel, Pin, Pins};
use crate::os::request::{Helper, Request, RequestError};
use crate::setting::Size;
use crate::store::Store;
use crate::uplink::Connect;
use crate::watchdog::{Cause, Dog, Hands, Host, Refusal, Step};

/// The output that resets the modem.
pub(super) const MODEM_RESET: &str = "modem-reset";
/// The file of the store's folder that holds what outputs were set to.
const OUTPUTS: &str = "outputs";
/// A firmware may be so many times as large as the board's size budget, unless the settings say otherwise.
const FIRMWARE_FACTOR: u64 = 4;
/// How often is looked whether a firmware on trial has reached its broker.
const LOOK: Duration = Duration::from_secs(1);

/// What watches and mends this gateway; clones are the same.
#[derive(Debug, Clone)]
pub struct Dogs {
    /// The watchdog.
    pub dog: Dog,
    /// Does what needs root.
    pub helper: Helper,
    /// Digital inputs and outputs.
    pub pins: Pins,
    /// Analog inputs.
    pub adc: Arc<[Adc]>,
    /// How firmware is replaced, and the most bytes it may have.
    pub firmware: Arc<(FirmwareSettings, u64)>,
    updating: Arc<AtomicBool>,
    hosts: Arc<[Host]>,
    /// Connected to where ICMP is not allowed.
    broker: Option<(String, u16)>,
    pulse: Duration,
}

impl Dogs {
    /// Opens what it keeps.
    pub(super) fn open(settings: &Settings, board: &Board, clock: &Clock) -> Self {
        let watchdog = settings.watchdog.as_ref();
        let broker = settings.broker.iter().next().map(|broker| (broker.url.host.clone(), broker.url.port));
        let named = watchdog.and_then(|w| w.ping.as_ref()).map(|ping| ping.hosts());
        let usual = || broker.iter().map(|(host, _)| Host::Echo(host.clone())).collect();
        let hosts: Vec<Host> = named.filter(|hosts| !hosts.is_empty()).unwrap_or_else(usual);
        let pins = board.description.gpio.iter().map(|gpio| Pin {
            name: gpio.name.clone(),
            line: gpio.line.clone(),
            output: gpio.direction == Way::Out,
            active_low: gpio.active_low,
        });
        let usual = board.description.size_budget.bytes().saturating_mul(FIRMWARE_FACTOR);
        let limit = settings.control.firmware.largest.map_or(usual, Size::bytes);
        let store = &settings.store.path;
        Self {
            dog: Dog::open(watchdog, store, clock.clone()),
            helper: Helper::new(&settings.gateway.helper),
            pins: Pins::open(pins.collect(), Kernel, store.join(OUTPUTS), clock.stamp().boot),
            adc: board.description.adc.clone().into(),
            firmware: Arc::new((settings.control.firmware.clone(), limit)),
            updating: Arc::default(),
            hosts: hosts.into(),
            broker,
            pulse: watchdog.map_or(Duration::from_millis(500), |w| w.modem_pulse),
        }
    }

    /// Why nothing may start weir anew just now, if so.
    pub(super) fn fetching(&self) -> Option<&'static str> {
        let updating = self.updating.load(Ordering::SeqCst);
        updating.then_some(
            "a firmware is being fetched, and this would break that off; try again when it is done, or break it off with RESET,AGENT",
        )
    }

    /// Says that a firmware is being fetched; `None` when one is already.
    pub(super) fn begin_update(&self) -> Option<Updating> {
        (!self.updating.swap(true, Ordering::SeqCst)).then(|| Updating(self.updating.clone()))
    }
}

/// A firmware is being fetched as long as this lives.
pub(super) struct Updating(Arc<AtomicBool>);

impl Drop for Updating {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// The settings to start with while a firmware is on trial: a session that waits for data might not come in time. `None`: as
/// they are.
pub(super) fn for_trial(settings: &Settings) -> Option<Settings> {
    let on_trial = || Helper::new(&settings.gateway.helper).on_trial().is_some();
    (settings.uplink.connect == Connect::OnDemand && on_trial()).then(|| {
        let mut settings = settings.clone();
        settings.uplink.connect = Connect::Always;
        settings
    })
}

/// Starts what runs beside the other rooms; `held`: a session is kept only for the trial of this firmware.
pub(super) fn start(agent: &mut Agent, held: bool) {
    let paws = Paws { evidence: agent.evidence.clone(), store: agent.store.clone() };
    let watching = paws.clone();
    agent.inputs.start("watchdog", move || {
        let mut paws = watching.clone();
        async move {
            let dog = paws.evidence.dogs.dog.clone();
            dog.run(&mut paws).await
        }
    });
    agent.inputs.start("firmware", move || prove(paws.clone(), held));
}

/// Does what the watchdog wants.
#[derive(Debug, Clone)]
pub(super) struct Paws {
    pub(super) evidence: Evidence,
    pub(super) store: Store,
}

impl Hands for Paws {
    fn is_connected(&self) -> bool {
        self.evidence.brokers().iter().any(|broker| broker.connected_since.is_some())
    }

    fn busy(&self) -> Option<&'static str> {
        let dogs = &self.evidence.dogs;
        let on_trial = || self.evidence.changer.as_ref().is_some_and(|changer| changer.state().trial.is_some());
        if dogs.updating.load(Ordering::SeqCst) {
            Some("a firmware is being fetched")
        } else if on_trial() {
            Some("a configuration is on trial")
        } else {
            dogs.helper.on_trial().map(|_| "a firmware is on trial")
        }
    }

    async fn test(&mut self) -> Result<String, String> {
        let mut last = "there is no host to ask; set watchdog.ping.hosts".to_owned();
        for host in self.evidence.dogs.hosts.iter() {
            match host.answers(self.evidence.dogs.broker.as_ref()).await {
                Ok(()) => return Ok(host.to_string()),
                Err(why) => last = format!("{host}: {why}"),
            }
        }
        Err(last)
    }

    fn can(&self, step: Step) -> Result<(), String> {
        let dogs = &self.evidence.dogs;
        let modem = || self.evidence.modem.is_some();
        let why = match step {
            Step::ModemRegister if !modem() => "this gateway has no modem",
            Step::ModemReset if !modem() && self.reset_line().is_none() => "this gateway has no modem",
            Step::AgentRestart if self.evidence.changer.is_none() => "weir can't start itself anew here",
            Step::NetworkRestart | Step::Reboot if !dogs.helper.is_there() => {
                return Err(RequestError::NoHelper.to_string());
            }
            _ => return Ok(()),
        };
        Err(why.to_owned())
    }

    async fn act(&mut self, step: Step, cause: Cause<'_>) -> Result<(), Refusal> {
        let failed = |why: String| Refusal::Failed(why);
        let modem = self.evidence.modem.as_ref();
        let no_modem = || Refusal::Cannot("this gateway has no modem".to_owned());
        match step {
            Step::ModemRegister => {
                modem.ok_or_else(no_modem)?.reregister().await.map_err(|error| failed(error.to_string()))
            }
            Step::ModemReset => match self.reset_line() {
                Some(line) => {
                    let dogs = &self.evidence.dogs;
                    dogs.pins.pulse(line, dogs.pulse).await.map_err(|error| failed(error.to_string()))
                }
                None => modem.ok_or_else(no_modem)?.reset().await.map_err(|error| failed(error.to_string())),
            },
            Step::NetworkRestart => self.ask(&Request::NetworkRestart).await,
            Step::Reboot => {
                let (runs, reason) = (&self.evidence.runs, reason(cause));
                // weir may be told to end before the helper's answer is seen.
                runs.because(reason);
                self.ask(&Request::Reboot).await.inspect_err(|_| runs.not_because(reason))
            }
            Step::AgentRestart => {
                let changer = self.evidence.changer.as_ref();
                self.evidence.runs.because(Reason::Watchdog);
                changer.ok_or_else(|| failed("weir can't start itself anew here".to_owned()))?.restart();
                Ok(())
            }
        }
    }

    async fn sync(&mut self) -> Result<(), String> {
        self.store.sync().await.map(drop).map_err(|error| error.to_string())
    }
}

/// What the next start tells of a reboot.
const fn reason(cause: Cause<'_>) -> Reason {
    match cause {
        Cause::Ladder => Reason::Watchdog,
        Cause::Daily => Reason::Reboot,
        Cause::Command(_) => Reason::Command,
    }
}

impl Paws {
    fn reset_line(&self) -> Option<&Pin> {
        self.evidence.dogs.pins.all().iter().find(|pin| pin.output && pin.name == MODEM_RESET)
    }

    async fn ask(&self, request: &Request) -> Result<(), Refusal> {
        match self.evidence.dogs.helper.ask(request).await {
            Ok(answer) => {
                info!(%request, answer, "the helper did what was asked");
                Ok(())
            }
            Err(error @ RequestError::NoHelper) => Err(Refusal::Cannot(error.to_string())),
            Err(error) => Err(Refusal::Failed(error.to_string())),
        }
    }
}

/// The hash of the program that runs.
pub(super) fn own_hash() -> std::io::Result<String> {
    let mut program = std::fs::File::open("/proc/self/exe")?;
    hash(&mut program)
}

/// SHA-256 of a file, in small hex digits.
pub(super) fn hash(file: &mut std::fs::File) -> std::io::Result<String> {
    use std::io::Read;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut piece = vec![0; 64 << 10];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(data_encoding::HEXLOWER.encode(context.finish().as_ref())),
            count => context.update(piece.get(..count).unwrap_or_default()),
        }
    }
}

/// Tells the helper that a new firmware has reached its broker; else the helper goes back to the one before.
async fn prove(paws: Paws, held: bool) -> Result<(), Infallible> {
    let helper = &paws.evidence.dogs.helper;
    let outcome = read_small(&helper.folder().join("outcome"), 4096).unwrap_or_default();
    if let Some(sha256) = String::from_utf8_lossy(&outcome).strip_prefix("reverted ") {
        warn!(sha256 = sha256.trim(), "the last new firmware did not prove itself; the one before runs again");
    }
    if let Some(sha256) = helper.on_trial() {
        info!(sha256, "this firmware is on trial until it has reached a broker");
    }
    while !paws.is_connected() {
        sleep(LOOK).await;
    }
    // Not before: after a power cut the helper may say later than weir starts that the trial goes on.
    let Some(wanted) = helper.on_trial() else { return Ok(()) };
    let own = tokio::task::spawn_blocking(own_hash).await;
    let Ok(Ok(own)) = own else {
        warn!("weir can't read its own program; a firmware on trial goes back");
        return Ok(());
    };
    if own != wanted {
        return Ok(());
    }
    if helper.confirm(own).await {
        info!("this firmware reached its broker and is not on trial any more");
    } else {
        warn!("the trial of this firmware ended before the helper took it as proven");
    }
    if let Some(changer) = paws.evidence.changer.as_ref().filter(|_| held && helper.on_trial().is_none()) {
        info!("weir starts anew: the session was kept only for the trial");
        changer.restart();
    }
    Ok(())
}

/// The watchdog's member of the status document.
pub(super) fn shown(evidence: &Evidence) -> Value {
    let status = evidence.dogs.dog.health().status();
    let (step, at, outcome) = match status.step {
        Some((step, at, outcome)) => (Some(step), Some(at.to_string()), Some(outcome)),
        None => (None, None, None),
    };
    json!({
        "enabled": status.enabled,
        "silence": status.silence.as_secs(),
        "tests": status.tests.0,
        "failed_tests": status.tests.1,
        "failures": status.failures,
        "steps": status.rung,
        "last_step": step,
        "last_step_at": at,
        "last_step_outcome": outcome,
        "reboots": status.reboots,
        "hardware": status.hardware,
    })
}
