//! The demo's stage: broker, meters, receivers and the agent, all real but for the meters.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::tally::{Arrivals, Count};
use crate::agent::{self, Agent};
use crate::os::clock;
use crate::os::pty::Pty;
use crate::sim::broker::{Broker, Received};
use crate::sim::iec_meter::{IecMeter, Options};
use crate::sim::modbus_meter::{ModbusMeters, Served};
use crate::sim::radio_replay::{Lines, RadioReplay, Tally};
use crate::{config, store, uplink};

/// Between two telegrams of a receiver.
const PACE: Duration = Duration::from_millis(100);

/// Everything that runs during the demo; its files vanish with it.
pub(super) struct Stage {
    pub(super) broker: Broker,
    agent: Agent,
    arrivals: Arc<Mutex<Arrivals>>,
    receivers: Vec<JoinHandle<Tally>>,
    sent: Tally,
    stop: watch::Sender<bool>,
    pub(super) places: Places,
    _meters: (Served, JoinHandle<()>),
    _folder: Folder,
}

/// Where things are, to be shown.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) modbus: PathBuf,
    pub(super) iec: PathBuf,
    pub(super) rtl: PathBuf,
    pub(super) openlinkiq: PathBuf,
    pub(super) broker: String,
    pub(super) folder: PathBuf,
}

/// What the display shows.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) store: store::Status,
    pub(super) uplink: uplink::Health,
    pub(super) readings: Vec<(String, u64, u64)>,
    pub(super) heard: u64,
    pub(super) forwarded: u64,
    pub(super) dropped: u64,
    pub(super) messages: u64,
    pub(super) repeats: u64,
    pub(super) newest: String,
}

impl Stage {
    /// Builds everything and starts the agent with a configuration file like any other.
    pub(super) async fn build() -> anyhow::Result<Self> {
        let folder = Folder::new().context("no folder in the system's place for temporary files")?;
        let broker = Broker::tls(&folder.0).await.context("the embedded broker")?;
        let arrivals = Arc::new(Mutex::new(Arrivals::default()));
        tokio::spawn(consume(broker.observe(), arrivals.clone()));

        let (modbus, served) = ModbusMeters::new(&[1]).serve_rtu().context("a pseudo-terminal for Modbus")?;
        let iec_meter = IecMeter::open(Options::default()).context("a pseudo-terminal for IEC 62056-21")?;
        let iec = iec_meter.path().to_owned();
        let iec_task = tokio::spawn(async move {
            // It runs until the stage is taken down; its line cannot fail before that.
            let _ = iec_meter.run().await;
        });
        let (stop, stopped) = watch::channel(false);
        let (rtl, rtl_task) = receiver(Lines::RtlWmbus, stopped.clone())?;
        let (openlinkiq, openlinkiq_task) = receiver(Lines::OpenlinkIq, stopped)?;

        let places = Places { modbus, iec, rtl, openlinkiq, broker: broker.url(), folder: folder.0.clone() };
        let text = configuration(&places, broker.ca_file().unwrap_or(Path::new("")));
        std::fs::write(folder.0.join("weir.toml"), &text)?;
        let loaded = config::load(&folder.0.join("weir.toml"))?;
        let agent = agent::start(&loaded.settings)?;
        Ok(Self {
            broker,
            agent,
            arrivals,
            receivers: vec![rtl_task, openlinkiq_task],
            sent: Tally::default(),
            stop,
            places,
            _meters: (served, iec_task),
            _folder: folder,
        })
    }

    /// What is going on now.
    pub(super) fn sight(&self) -> Sight {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let receivers: Vec<_> = self.agent.evidence.receivers.iter().map(|(_, health)| health.status()).collect();
        let meters = self.agent.evidence.meters.meters();
        Sight {
            store: self.agent.store.status().borrow().clone(),
            uplink: self.agent.evidence.uplink(),
            readings: meters.into_iter().map(|(n, h)| (n, h.answers, h.timeouts + h.damaged + h.refused)).collect(),
            heard: receivers.iter().map(|s| s.heard).sum(),
            forwarded: receivers.iter().map(|s| s.forwarded).sum(),
            dropped: receivers.iter().map(|s| s.duplicates + s.damaged).sum(),
            messages: arrivals.messages,
            repeats: arrivals.repeats,
            newest: arrivals.newest.clone(),
        }
    }

    /// Stops the receivers' replay; what they sent is then known.
    pub(super) async fn stop_inputs(&mut self) {
        let _ = self.stop.send(true);
        for receiver in self.receivers.drain(..) {
            if let Ok(tally) = receiver.await {
                self.sent.telegrams += tally.telegrams;
            }
        }
    }

    /// Whether everything that was sent has arrived and nothing waits but the newest readings.
    pub(super) fn is_settled(&self) -> bool {
        let sight = self.sight();
        sight.forwarded >= self.sent.telegrams && sight.store.cached == 0
    }

    /// Stops the agent and counts.
    pub(super) async fn finish(self) -> Count {
        let forwarded = self.sight().forwarded;
        let status = self.agent.store.status();
        self.agent.shut_down().await;
        let status = status.borrow().clone();
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = arrivals.seen.len() as u64;
        let accounted = status.acknowledged + status.cached;
        let lost = self.sent.telegrams.saturating_sub(forwarded)
            + status.received.abs_diff(accounted)
            + status.acknowledged.saturating_sub(seen);
        Count {
            received: status.received,
            acknowledged: status.acknowledged,
            cached: status.cached,
            repeats: arrivals.repeats,
            lost,
        }
    }
}

/// Reads what clients publish, as a head-end would.
async fn consume(mut messages: tokio::sync::mpsc::Receiver<Received>, arrivals: Arc<Mutex<Arrivals>>) {
    while let Some(message) = messages.recv().await {
        arrivals.lock().unwrap_or_else(PoisonError::into_inner).take(&message);
    }
}

/// A receiver on a pseudo-terminal that replays telegrams until it is told to stop.
fn receiver(lines: Lines, stopped: watch::Receiver<bool>) -> anyhow::Result<(PathBuf, JoinHandle<Tally>)> {
    let mut pty = Pty::open().context("a pseudo-terminal for a receiver")?;
    let path = pty.path().to_owned();
    let task = tokio::spawn(async move {
        let mut replay = RadioReplay::new(lines);
        while !*stopped.borrow() {
            if replay.play_serial(&mut pty, 1, PACE, clock::now).await.is_err() {
                break;
            }
        }
        let tally = replay.tally();
        // The line stays up until the stage is taken down, so that nothing under way is cut off.
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(pty);
        });
        tally
    });
    Ok((path, task))
}

/// The configuration a person would write for this stage.
fn configuration(places: &Places, ca_file: &Path) -> String {
    let mut text = format!(
        r#"version = 1
[gateway]
id = "demo"
[broker]
url = "{}"
ca_file = "{}"
[uplink]
data_topic = "/device/{{id}}/data/endpointdata"
event_topic = "/device/{{id}}/data/event"
status_topic = "/device/{{id}}/status"
will_topic = "/device/{{id}}/will"
backoff = {{ max = "4s" }}
[store]
path = "{}"
"#,
        places.broker,
        ca_file.display(),
        places.folder.join("store").display(),
    );
    for (name, path, protocol, rest) in [
        ("modbus", &places.modbus, "modbus-rtu", "profile = \"eastron-sdm630\"\nevery = \"1s\""),
        ("iec", &places.iec, "iec62056-21", "every = \"5s\"\ntimeout = \"2s\""),
    ] {
        let _ = write!(
            text,
            "[[port]]\nname = \"{name}\"\ndevice = \"{}\"\n[[meter]]\nname = \"{name}\"\nport = \"{name}\"\nprotocol = \"{protocol}\"\n{rest}\n",
            path.display()
        );
    }
    for (name, path, kind) in [("roof", &places.rtl, "rtl-wmbus"), ("street", &places.openlinkiq, "openlinkiq")] {
        let _ = write!(text, "[[radio]]\nname = \"{name}\"\nreceiver = \"{kind}\"\ndevice = \"{}\"\n", path.display());
    }
    text
}

/// A folder of our own that vanishes when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let base = std::env::temp_dir();
        for attempt in 0..100 {
            let path = base.join(format!("weir-demo-{}-{attempt}", std::process::id()));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(anyhow!("{} is full of old demos", base.display()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
