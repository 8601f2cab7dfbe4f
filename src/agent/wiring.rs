//! The picture of the product: which rooms there are and what joins them.
//!
//! ```text
//! meter::bus ─┐
//! meter::bus ─┼─▶ frames ─▶ intake ─▶ store ◀─ peek, commit ─▶ uplink ─▶ broker
//! radio ──────┘
//! ```

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

use super::supervisor::Rooms;
use super::{Agent, AgentError, books, intake};
use crate::board::{self, Board};
use crate::config::Settings;
use crate::meter::bus::{self, Meter, Port};
use crate::meter::{self, PortSettings};
use crate::os::clock::Clock;
use crate::os::line::{Direction, Endpoint};
use crate::os::random;
use crate::radio::{self, RadioSettings};
use crate::store::Store;
use crate::uplink::{self, Identity, Uplink};

/// Read jobs that may wait at a port; commands fill it, the bus drains it, the asker waits.
const JOBS_WAITING: usize = 8;

/// What the rooms tell about themselves; clones share it.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The clock that stamps every frame.
    pub clock: Clock,
    /// Every meter's counters.
    pub meters: meter::Health,
    /// Every receiver's counters, by name.
    pub receivers: Vec<(String, radio::Health)>,
    uplink: Arc<Mutex<watch::Receiver<uplink::Health>>>,
}

impl Evidence {
    /// The uplink's state and counters since it was last started.
    pub fn uplink(&self) -> uplink::Health {
        self.uplink.lock().unwrap_or_else(PoisonError::into_inner).borrow().clone()
    }
}

/// Builds every room and joins them.
pub(super) fn build(settings: &Settings) -> Result<Agent, AgentError> {
    let board = board::load(&settings.gateway.board)?;
    let identity = super::identity(&settings.gateway, &board);
    let ports = resolve(settings, &board)?;
    for meter in &settings.meter {
        Meter::new(meter).map_err(|reason| AgentError::Meter { meter: meter.name.to_string(), reason })?;
    }
    let store = Store::open(&settings.store)?;
    let clock = Clock::system();
    let gateway = identity.id.clone();
    let (uplink_rooms, uplink_health, stop_uplink) = start_uplink(settings, identity, &store, &clock)?;

    let (frames, waiting) = mpsc::channel(intake::FRAMES_WAITING);
    let evidence = Evidence { clock, meters: meter::Health::new(), receivers: Vec::new(), uplink: uplink_health };
    let mut agent = Agent {
        intake: tokio::spawn(intake::run(waiting, store.clone())),
        store,
        evidence,
        frames: frames.clone(),
        inputs: Rooms::default(),
        uplink: uplink_rooms,
        stop_uplink,
    };
    start_books(&mut agent, gateway);
    for port in ports {
        start_bus(&mut agent, settings, port, &frames);
    }
    for radio in &settings.radio {
        start_receiver(&mut agent, radio, &frames);
    }
    Ok(agent)
}

type SharedHealth = Arc<Mutex<watch::Receiver<uplink::Health>>>;

fn start_uplink(
    settings: &Settings,
    identity: Identity,
    store: &Store,
    clock: &Clock,
) -> Result<(Rooms, SharedHealth, watch::Sender<bool>), AgentError> {
    let (stop, stopping) = watch::channel(false);
    let (broker, uplink, store, clock) =
        (settings.broker.clone(), settings.uplink.clone(), store.clone(), clock.clone());
    let make = move || Uplink::new(&broker, &uplink, &identity, store.clone(), clock.clone(), random::generator());
    let (first, health) = make()?;
    let shared: SharedHealth = Arc::new(Mutex::new(health));
    let mut first = Some(first);
    let evidence = shared.clone();
    let mut rooms = Rooms::default();
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

fn start_books(agent: &mut Agent, gateway: String) {
    let (store, clock) = (agent.store.clone(), agent.evidence.clock.clone());
    agent.inputs.start("books", move || books::run(store.clone(), clock.clone(), gateway.clone()));
}

fn start_bus(agent: &mut Agent, settings: &Settings, port: Port, frames: &mpsc::Sender<crate::model::Frame>) {
    let on_port = |m: &&meter::MeterSettings| *m.port == port.name;
    let meters: Vec<_> = settings.meter.iter().filter(on_port).cloned().collect();
    if meters.is_empty() {
        return;
    }
    let (health, frames, clock) = (agent.evidence.meters.clone(), frames.clone(), agent.evidence.clock.clone());
    agent.inputs.start(format!("port {}", port.name), move || {
        let meters: Result<Vec<_>, _> = meters.iter().map(Meter::new).collect();
        let (port, frames, clock, health) = (port.clone(), frames.clone(), clock.clone(), health.clone());
        async move {
            let (_asker, jobs) = mpsc::channel(JOBS_WAITING);
            bus::run(port, meters?, frames, jobs, clock, health).await;
            Ok::<(), String>(())
        }
    });
}

fn start_receiver(agent: &mut Agent, settings: &RadioSettings, frames: &mpsc::Sender<crate::model::Frame>) {
    let health = radio::Health::default();
    agent.evidence.receivers.push((settings.name.to_string(), health.clone()));
    let (settings, frames, clock) = (settings.clone(), frames.clone(), agent.evidence.clock.clone());
    agent.inputs.start(format!("radio {}", *settings.name), move || {
        let (settings, frames, clock, health) = (settings.clone(), frames.clone(), clock.clone(), health.clone());
        async move { radio::run(settings, frames, clock, health).await }
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
    if resolved.direction == Direction::Automatic {
        resolved.direction = known.direction.direction();
    }
    Ok(resolved)
}
