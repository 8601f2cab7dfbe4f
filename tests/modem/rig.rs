//! A modem that the room speaks to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use toml::de::{DeTable, DeValue};
use weir::model::Timestamp;
use weir::modem::{Handle, Incoming, Modem, ModemError, ModemSettings, Status};
use weir::os::clock::Clock;
use weir::setting::{Node, Problems, Setting};
use weir::sim::modem::{Make, Modem as Simulated};
use weir::sim::stick::{self, Plugged};

/// Nothing here takes so long on any machine.
pub const LIMIT: Duration = Duration::from_secs(300);

/// Nothing happens by itself: only what is announced is looked for.
pub const QUIET: &str = "manager = 'none'\nstatus_every = '1h'\nmessages_every = '1h'\nsend_pause = '1s'\n";

pub fn settings(text: &str) -> ModemSettings {
    let document = DeTable::parse(text).unwrap();
    let (span, table) = (document.span(), DeValue::Table(document.into_inner()));
    let mut problems = Problems::new();
    let settings = ModemSettings::read(&Node::new(&table, span, "modem"), &mut problems);
    assert!(!problems.has_errors(), "{:?}", problems.located(text));
    settings.unwrap()
}

pub fn at() -> Timestamp {
    Timestamp::parse("2026-11-22T15:00:00Z").unwrap()
}

/// The room with its handle.
pub struct Room {
    pub handle: Handle,
    pub incoming: mpsc::Receiver<Incoming>,
    task: JoinHandle<Result<(), ModemError>>,
}

impl Room {
    pub fn new(device: &Path, folder: &Path, more: &str, waiting: usize) -> Self {
        let (tell, incoming) = mpsc::channel(waiting);
        let settings = settings(&format!("device = '{}'\n{more}", device.display()));
        let (modem, handle) = Modem::new(settings, None, folder, Clock::system(), tell).unwrap();
        Self { handle, incoming, task: tokio::spawn(modem.run()) }
    }

    pub async fn until(&self, is: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.handle.status();
        let found = timeout(LIMIT, status.wait_for(is)).await;
        match found {
            Ok(found) => found.unwrap().clone(),
            Err(_) => panic!("it stays {:?}", self.handle.status().borrow().clone()),
        }
    }

    pub async fn next(&mut self) -> Incoming {
        timeout(LIMIT, self.incoming.recv()).await.expect("something comes").unwrap()
    }

    /// The next message's sender and text.
    pub async fn message(&mut self) -> (String, String) {
        match self.next().await {
            Incoming::Sms { from, text, .. } => (from, text),
            other => panic!("{other:?}"),
        }
    }

    /// Ends it and waits until its port is closed.
    pub async fn end(self) {
        drop((self.handle, self.incoming));
        timeout(LIMIT, self.task).await.expect("it ends when no handle is left").unwrap().unwrap();
    }
}

/// The room and the modem it speaks to, by a name that stays when the modem is plugged in anew.
pub struct Rig {
    _folder: tempfile::TempDir,
    pub plugged: Plugged<Simulated>,
    pub room: Room,
}

impl Rig {
    pub async fn ready(make: Make, more: &str) -> Self {
        let rig = Self::new(make, more, 16);
        rig.room.until(|status| status.state == weir::modem::State::Ready && status.registration.is_some()).await;
        rig
    }

    pub fn new(make: Make, more: &str, waiting: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plugged = plug(folder.path(), Simulated::new(make));
        let room = Room::new(&name(folder.path()), folder.path(), more, waiting);
        Self { _folder: folder, plugged, room }
    }

    /// A message comes from the network and is announced.
    pub async fn deliver(&self, from: &str, text: &str) {
        let said = self.plugged.stick().deliver(from, text, at());
        self.plugged.say(said);
    }

    pub async fn until(&self, is: impl FnMut(&Simulated) -> bool) {
        timeout(LIMIT, self.plugged.until(is)).await.expect("the modem hears it");
    }
}

/// The name of the device.
pub fn name(folder: &Path) -> PathBuf {
    folder.join("ttyMODEM")
}

pub fn plug(folder: &Path, modem: Simulated) -> Plugged<Simulated> {
    let plugged = stick::plug(modem).unwrap();
    let link = name(folder);
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(plugged.path(), &link).unwrap();
    plugged
}
