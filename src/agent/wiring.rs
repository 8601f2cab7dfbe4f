//! The picture of the product: which rooms there are and what joins them.
//!
//! ```text
//! meter::bus ────┐
//! meter::listen ─┼─▶ frames ─▶ intake ─▶ store ◀─ peek, commit ─▶ uplink ─▶ broker
//! radio ─────────┘              ▲ markers
//! tunnel ◀─ post ─▶ uplink (uplink::talk); ends: tunnel ◀─▶ TCP, TLS, UDP
//! meter::gaps ──── states ─▶ keeper ─▶ profiles/
//! ```

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

use super::change::{Changer, trial};
use super::commands::Commands;
use super::dogs::{self, Dogs};
use super::hardware::Hardware;
use super::orders::Lock;
use super::supervisor::Rooms;
use super::{Agent, AgentError, alerts, ask, books, commands, ends, intake, local, post, recorder, sessions, status};
use crate::board::{self, Board};
use crate::config::Settings;
use crate::config::change::Origin;
use crate::control::Audit;
use crate::meter::bus::{self, Bus, Meter, Port};
use crate::meter::gaps::{Keeper, ReadBack};
use crate::meter::{self, PortSettings, Rs485Direction, listen};
use crate::os::clock::Clock;
use crate::os::line::{Direction, Endpoint};
use crate::os::machine;
use crate::os::random;
use crate::radio::{self, RadioSettings};
use crate::setting::Identity;
use crate::store::Store;
use crate::uplink::{self, Talk, Traffic, Uplink, UplinkError};
use crate::watchdog;

/// What the rooms tell about themselves; clones share it.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The clock that stamps every frame.
    pub clock: Clock,
    /// Every meter's counters.
    pub meters: meter::Health,
    /// The door to every port that meters hang on.
    pub buses: Vec<bus::Handle>,
    /// Every receiver's counters, by name.
    pub receivers: Vec<(String, radio::Health)>,
    /// Every meter that the receivers hear.
    pub survey: radio::Survey,
    /// Every tunnel.
    pub tunnels: Vec<super::TunnelDoor>,
    /// What was sent and received, and how the data budget stands.
    pub traffic: Traffic,
    /// The cellular modem, where there is one.
    pub modem: Option<crate::modem::Handle>,
    /// What changes the configuration, where that is possible.
    pub changer: Option<Changer>,
    /// What watches and mends this gateway.
    pub dogs: Dogs,
    /// This run of weir, and why it started.
    pub runs: status::Runs,
    /// Has the broker tried at once.
    pub nudge: uplink::Nudge,
    uplink: SharedHealth,
}

impl Evidence {
    /// The uplink's state and counters since it was last started, all brokers together.
    pub fn uplink(&self) -> uplink::Health {
        uplink::Health::overall(&self.brokers())
    }

    /// The same for each broker, in the order of the configuration.
    pub fn brokers(&self) -> Vec<uplink::Health> {
        self.uplink.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|h| h.borrow().clone()).collect()
    }
}

/// Builds every room and joins them.
pub(super) fn build(settings: &Settings, changer: Option<Changer>) -> Result<Agent, AgentError> {
    let prepared = changer.as_ref().map(|changer| trial::for_trial(settings, changer));
    let settings = prepared.as_ref().map_or(settings, |(settings, _)| settings);
    let held = dogs::for_trial(settings);
    let settings = held.as_ref().unwrap_or(settings);
    let board = board::load(&settings.gateway.board)?;
    let identity = super::identity(settings, &board);
    let ports = resolve(settings, &board)?;
    check_meters(settings)?;
    let store = Store::open(&settings.store)?;
    let clock = Clock::open(&settings.clock, &settings.store.path);
    let gateway = identity.id.clone();
    let (talk, post) = post::open(settings, &identity)?.unzip();
    let ((tell, statement), nudge) = (watch::channel(None), uplink::Nudge::default());
    let time = clock.clone();
    let traffic = Traffic::open(&settings.store.path, &settings.budget, move || time.now());
    let (uplink_rooms, uplink_health, stop_uplink) =
        match start_uplink(settings, identity.clone(), (&store, &clock, &traffic), (&statement, talk, &nudge)) {
            Err(AgentError::Uplink(UplinkError::NoImei)) if settings.has_modem() => without_uplink(),
            started => started?,
        };

    let (frames, waiting) = mpsc::channel(intake::FRAMES_WAITING);
    let (markers, asked) = mpsc::channel(intake::MARKERS_WAITING);
    let keeper = Keeper::new(settings.store.path.join("profiles"));
    let keeping = keeper.clone();
    let (meters, receivers) = (meter::Health::new(), Vec::new());
    let evidence = Evidence {
        clock: clock.clone(),
        meters,
        buses: Vec::new(),
        receivers,
        survey: radio::Survey::new(),
        tunnels: Vec::new(),
        traffic,
        modem: None,
        changer,
        dogs: Dogs::open(settings, &board, &clock),
        runs: status::Runs::begin(&settings.store.path.join(SESSIONS), clock.stamp().boot, machine::reset_by_watchdog),
        nudge: nudge.clone(),
        uplink: uplink_health,
    };
    let mut agent = Agent {
        intake: tokio::spawn(intake::run(waiting, asked, store.clone())),
        keeper: (keeper.clone(), tokio::spawn(async move { keeping.run(markers).await })),
        store,
        evidence,
        frames: frames.clone(),
        inputs: Rooms::default(),
        desk: None,
        uplink: uplink_rooms,
        stop_uplink,
        hardware: Hardware::default(),
    };
    agent.hardware = Hardware::open(hardware(settings), &board, &agent.evidence.dogs.dog.health());
    agent.inputs.start("clock", move || {
        let clock = clock.clone();
        async move { clock.keep().await }
    });
    start_books(&mut agent, gateway.clone());
    start_ports(&mut agent, settings, ports, &frames);
    start_receivers(&mut agent, settings, &frames);
    let incoming = commands::start_modem(&mut agent, settings, board.description.modem.clone());
    start_watcher(&mut agent, settings);
    let to_commands = Commands::new(settings);
    let (door, lock) = (to_commands.door.clone(), to_commands.lock.clone());
    let book = sessions::start(&mut agent, settings);
    let speaker = post.map(|post| post::start(&mut agent, settings, post, (&door, &book)));
    if let (Some(changer), Some((_, proof))) = (agent.evidence.changer.clone(), prepared.clone()) {
        start_trial(&mut agent, changer, proof);
    }
    ends::start(&mut agent, settings, &identity, (&door, &book));
    sessions::watch(&mut agent, settings, &book);
    recorder::start(&mut agent, settings);
    commands::start(&mut agent, settings, (&identity, speaker), (to_commands, incoming));
    dogs::start(&mut agent, held.is_some());
    alerts::start(&mut agent, settings, &identity);
    // After all that it can be asked about.
    start_door(&mut agent, settings, door);
    start_statement(&mut agent, settings, (&identity, &lock), tell);
    Ok(agent)
}

/// The folder of the store in which sessions keep what must outlive a restart.
pub const SESSIONS: &str = "sessions";

type SharedHealth = Arc<Mutex<Vec<watch::Receiver<uplink::Health>>>>;

fn start_uplink(
    settings: &Settings,
    identity: Identity,
    (store, clock, traffic): (&Store, &Clock, &Traffic),
    (statement, talk, nudge): (&watch::Receiver<Option<String>>, Option<Talk>, &uplink::Nudge),
) -> Result<(Rooms, SharedHealth, watch::Sender<bool>), AgentError> {
    let (stop, stopping) = watch::channel(false);
    let (brokers, uplink) = (settings.broker.clone(), settings.uplink.clone());
    let (store, clock) = (store.clone(), clock.clone());
    let mirror_file = settings.store.path.join("mirror");
    let topic = settings.status.as_ref().map(|status| (*status.topic).clone());
    let (statement, account, nudge) = (statement.clone(), traffic.clone(), nudge.clone());
    let make = move || {
        let (uplink, health) =
            Uplink::new(&brokers, &uplink, &identity, store.clone(), clock.clone(), random::generator())?;
        let uplink = uplink.with_mirror_file(mirror_file.clone()).with_traffic(&account).with_nudge(nudge.clone());
        let uplink = match &talk {
            Some(talk) => uplink.with_talk(talk.clone()),
            None => uplink,
        };
        let uplink = match &topic {
            Some(topic) => uplink.with_status(topic, statement.clone())?,
            None => uplink,
        };
        Ok::<_, UplinkError>((uplink, health))
    };
    let (first, health) = make()?;
    let shared: SharedHealth = Arc::new(Mutex::new(health));
    let mut first = Some(first);
    let evidence = shared.clone();
    let mut rooms = Rooms::default();
    let (account, until) = (traffic.clone(), stopping.clone());
    rooms.start("traffic", move || account.clone().run(until.clone()));
    rooms.start("uplink", move || {
        let next = first.take().map_or_else(
            || {
                make().map(|(uplink, health)| {
                    *evidence.lock().unwrap_or_else(PoisonError::into_inner) = health;
                    uplink
                })
            },
            Ok,
        );
        let stopping = stopping.clone();
        async move { next?.run(stopping).await }
    });
    Ok((rooms, shared, stop))
}

/// Nothing is published before the modem has told its IMEI; meters are read and everything is kept meanwhile.
fn without_uplink() -> (Rooms, SharedHealth, watch::Sender<bool>) {
    tracing::warn!("nothing is published yet: it needs the IMEI, which the modem is asked for");
    (Rooms::default(), SharedHealth::default(), watch::Sender::new(false))
}

/// Who sees that the gateway goes by the modem's IMEI.
fn start_watcher(agent: &mut Agent, settings: &Settings) {
    if let Some(modem) = &agent.evidence.modem {
        let watcher = super::identity::Watcher::new(settings, modem, &agent.evidence.runs);
        agent.inputs.start("imei", move || watcher.clone().run());
    }
}

/// Who writes the status message, where one is wanted.
fn start_statement(
    agent: &mut Agent,
    settings: &Settings,
    who: (&Identity, &Lock),
    out: watch::Sender<Option<String>>,
) {
    let Some(when) = settings.status.as_ref().map(status::When::from) else { return };
    let teller = status::Teller::new(&agent.store, &agent.evidence, settings, who);
    agent.inputs.start("status", move || status::run(teller.clone(), when, out.clone()));
}

fn start_books(agent: &mut Agent, gateway: String) {
    let (store, clock) = (agent.store.clone(), agent.evidence.clock.clone());
    agent.inputs.start("books", move || books::run(store.clone(), clock.clone(), gateway.clone()));
}

/// Whether every meter that is asked can be. A listener needs files with keys; one that is not there yet must not stop the others.
fn check_meters(settings: &Settings) -> Result<(), AgentError> {
    settings.meter.iter().filter(|meter| !listens(meter)).try_for_each(|meter| {
        let made = Meter::new(meter).map(|_| ());
        made.map_err(|reason| AgentError::Meter { meter: meter.name.to_string(), reason })
    })
}

/// Who feeds the hardware watchdog.
fn hardware(settings: &Settings) -> watchdog::Hardware {
    settings.watchdog.as_ref().map_or(watchdog::Hardware::Auto, |watchdog| watchdog.hardware)
}

/// Each port's bus, or its listener where a meter sends by itself.
fn start_ports(agent: &mut Agent, settings: &Settings, ports: Vec<Port>, frames: &mpsc::Sender<crate::model::Frame>) {
    for port in ports {
        match settings.meter.iter().find(|m| *m.port == port.name && listens(m)) {
            Some(meter) => start_listener(agent, (meter, &settings.store.path), port, frames),
            None => start_bus(agent, settings, port, frames),
        }
    }
}

fn start_bus(agent: &mut Agent, settings: &Settings, port: Port, frames: &mpsc::Sender<crate::model::Frame>) {
    let on_port = |m: &&meter::MeterSettings| *m.port == port.name;
    let kept = settings.store.path.join(SESSIONS);
    let is_tunnel = settings.tunnel.iter().any(|tunnel| *tunnel.port == port.name);
    let settings: Vec<_> = settings.meter.iter().filter(on_port).cloned().collect();
    if settings.is_empty() && !is_tunnel {
        return;
    }
    let (health, frames, clock) = (agent.evidence.meters.clone(), frames.clone(), agent.evidence.clock.clone());
    let (door, jobs) = bus::Handle::new(&port.name);
    agent.evidence.buses.push(door);
    let keeper = agent.keeper.0.clone();
    agent.inputs.start(format!("port {}", port.name), move || {
        let kept = |meter| Meter::new(meter).map(|meter| meter.kept_in(&kept));
        let meters: Result<Vec<_>, _> = settings.iter().map(kept).collect();
        let (port, frames, clock, health) = (port.clone(), frames.clone(), clock.clone(), health.clone());
        let jobs = jobs.clone();
        let profiles = ReadBack::new(&settings, &keeper, frames.clone(), (clock.clone(), health.clone()));
        async move {
            let mut bus = Bus::new(port, meters?, jobs, clock, health);
            if let Some(profiles) = profiles {
                bus = bus.with_background(Box::new(profiles));
            }
            bus.run(frames).await;
            Ok::<(), String>(())
        }
    });
}

/// Whether a meter sends by itself; the check has seen that it is then alone on its port.
fn listens(meter: &meter::MeterSettings) -> bool {
    meter::protocol(&meter.protocol).is_some_and(meter::Protocol::listens)
}

fn start_listener(
    agent: &mut Agent,
    (meter, place): (&meter::MeterSettings, &Path),
    port: Port,
    frames: &mpsc::Sender<crate::model::Frame>,
) {
    let kept = place.join(SESSIONS);
    let (health, frames, clock) = (agent.evidence.meters.clone(), frames.clone(), agent.evidence.clock.clone());
    let meter = meter.clone();
    let (door, inbox) = bus::Handle::new(&port.name);
    agent.evidence.buses.push(door);
    agent.inputs.start(format!("port {}", port.name), move || {
        let meter = listen::Meter::new(&meter).map(|meter| meter.kept_in(&kept));
        let (port, frames, clock, health) = (port.clone(), frames.clone(), clock.clone(), health.clone());
        let inbox = inbox.clone();
        async move {
            listen::run(port, meter?, frames, inbox, clock, health).await;
            Ok::<(), String>(())
        }
    });
}

/// Who watches a configuration on trial.
fn start_trial(agent: &mut Agent, changer: Changer, proof: trial::Proof) {
    let evidence = agent.evidence.clone();
    agent.inputs.start("trial", move || trial::run(changer.clone(), evidence.clone(), proof.clone()));
}

/// The local door: this machine asks the agent.
fn start_door(agent: &mut Agent, settings: &Settings, commands: mpsc::Sender<commands::Told>) {
    let (evidence, path) = (agent.evidence.clone(), local::socket(&settings.store.path));
    let meters = settings.meter.iter().map(|m| (m.name.to_string(), m.port.to_string())).collect();
    let sessions = Audit::new(settings.store.path.join("control").join(sessions::FILE));
    let desk = ask::Desk { evidence, meters, who: Origin::local("somebody"), commands: Some(commands), sessions };
    agent.inputs.start("local", move || local::run(path.clone(), desk.clone()));
}

/// All receivers, and the desk that makes frames of what they hear; it ends when the last of them has.
fn start_receivers(agent: &mut Agent, settings: &Settings, frames: &mpsc::Sender<crate::model::Frame>) {
    if settings.radio.is_empty() {
        return;
    }
    let (out, heard) = mpsc::channel(radio::HEARD_WAITING);
    for radio in &settings.radio {
        start_receiver(agent, radio, &out);
    }
    let survey = agent.evidence.survey.clone();
    agent.desk = Some(tokio::spawn(radio::gather(heard, frames.clone(), settings.telegrams.clone(), survey)));
}

fn start_receiver(agent: &mut Agent, settings: &RadioSettings, out: &mpsc::Sender<radio::Heard>) {
    let health = radio::Health::default();
    agent.evidence.receivers.push((settings.name.to_string(), health.clone()));
    let (settings, out, clock) = (settings.clone(), out.clone(), agent.evidence.clock.clone());
    agent.inputs.start(format!("radio {}", *settings.name), move || {
        let (settings, out, clock, health) = (settings.clone(), out.clone(), clock.clone(), health.clone());
        async move { radio::run(settings, out, clock, health).await }
    });
}

/// Turns every configured port into a place: its own device, or what the board calls its name.
fn resolve(settings: &Settings, board: &Board) -> Result<Vec<Port>, AgentError> {
    settings.port.iter().map(|port| resolve_port(port, board)).collect()
}

/// Finds the device of one port.
///
/// # Errors
/// [`AgentError::Device`] when neither the file nor the board knows one.
pub fn resolve_port(port: &PortSettings, board: &Board) -> Result<Port, AgentError> {
    if let Some(device) = &port.device {
        return Ok(Port::new(port, Endpoint::parse(device)));
    }
    let Some(known) = board.port(&port.name) else {
        let names: Vec<_> = board.description.port.iter().map(|p| p.name.as_str()).collect();
        return Err(AgentError::Device {
            port: port.name.to_string(),
            board: board.name.clone(),
            known: names.join(", "),
        });
    };
    let mut resolved = Port::new(port, Endpoint::Device(known.device.clone()));
    if port.rs485.direction == Rs485Direction::None && known.direction == board::Turn::Kernel {
        resolved.direction = Direction::Kernel(port.rs485.turnaround());
    }
    Ok(resolved)
}
