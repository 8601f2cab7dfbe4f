//! What the bus tests need: a running bus, and a line that echoes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use weir::meter::bus::{Background, Bus, Handle, Meter, Port};
use weir::meter::{Health, MeterSettings};
use weir::model::{Body, Frame, Quality};
use weir::os::clock::Clock;
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};
use weir::os::pty::Pty;
use weir::wire::modbus::rtu;

const SPEED: Speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };

/// A meter with one register, 1000 times its unit; never due unless `rest` says so.
pub(crate) fn meter(name: &str, rest: &str) -> Meter {
    let every = if rest.contains("every") { "" } else { "every = \"3650d\"\n" };
    let text = format!(
        "name = \"{name}\"\nport = \"p\"\nprotocol = \"modbus-rtu\"\n{every}{rest}\n[[register]]\nname = \"v\"\nregister = \"holding:0\"\n"
    );
    Meter::new(&MeterSettings::parse(&text).unwrap()).unwrap()
}

pub(crate) fn port(endpoint: Endpoint) -> Port {
    Port::plain("p", endpoint, SPEED)
}

pub(crate) async fn opened(path: &Path) -> Line {
    Line::open(&Endpoint::Device(path.to_owned()), SPEED, Direction::Automatic).await.unwrap()
}

/// A bus in a task of its own, ended with the value.
pub(crate) struct Running {
    pub(crate) handle: Handle,
    pub(crate) frames: mpsc::Receiver<Frame>,
    pub(crate) health: Health,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(port: Port, meters: Vec<Meter>) -> Self {
        Self::make(port, meters, None)
    }

    pub(crate) fn with_background(port: Port, meters: Vec<Meter>, background: Box<dyn Background>) -> Self {
        Self::make(port, meters, Some(background))
    }

    fn make(port: Port, meters: Vec<Meter>, background: Option<Box<dyn Background>>) -> Self {
        let (frames_in, frames) = mpsc::channel(64);
        let (handle, inbox) = Handle::new("p");
        let health = Health::new();
        let mut bus = Bus::new(port, meters, inbox, Clock::system(), health.clone());
        if let Some(background) = background {
            bus = bus.with_background(background);
        }
        Self { handle, frames, health, task: tokio::spawn(bus.run(frames_in)) }
    }

    /// Ends it and waits until its line is closed.
    pub(crate) async fn end(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether every value of a reading is good.
pub(crate) fn good(frame: &Frame) -> bool {
    let Body::Reading(reading) = &frame.body else { panic!("{frame:?}") };
    reading.values.iter().all(|v| v.quality == Quality::Good)
}

/// The next so many frames.
pub(crate) async fn readings(frames: &mut mpsc::Receiver<Frame>, count: usize) -> Vec<Frame> {
    let mut all = Vec::new();
    while all.len() < count {
        all.push(frames.recv().await.unwrap());
    }
    all
}

/// Meters behind an adapter that sends back all it is given, before any answer.
pub(crate) struct Echoing {
    pub(crate) path: PathBuf,
    damage: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Echoing {
    pub(crate) fn start(units: &'static [u8]) -> Self {
        let mut pty = Pty::open().unwrap();
        let path = pty.path().to_owned();
        let damage = Arc::new(AtomicBool::new(false));
        let broken = damage.clone();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 256];
            while let Ok(count) = pty.receive(&mut buffer).await {
                let request = buffer[..count].to_vec();
                let mut out = request.clone();
                if broken.swap(false, Ordering::Relaxed) {
                    out[3] ^= 0x40;
                }
                out.extend(answer(units, &request));
                if pty.send(&out).await.is_err() {
                    return;
                }
            }
        });
        Self { path, damage, task }
    }

    /// The next echo has a wrong bit.
    pub(crate) fn damage_next(&self) {
        self.damage.store(true, Ordering::Relaxed);
    }
}

impl Drop for Echoing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(units: &[u8], request: &[u8]) -> Vec<u8> {
    let (unit, pdu) = rtu::decode(request).unwrap();
    let mut out = Vec::new();
    match pdu[0] {
        _ if !units.contains(&unit) => {}
        6 => out.extend(request),
        _ => rtu::encode(unit, &[3, 2, 0x03, 0xE8], &mut out),
    }
    out
}

/// Function 3: one holding register.
pub(crate) fn read_request(unit: u8) -> Vec<u8> {
    framed(unit, [3, 0, 0, 0, 1])
}

/// Function 6: writes a holding register; the answer equals the request.
pub(crate) fn write_request(unit: u8) -> Vec<u8> {
    framed(unit, [6, 0, 0, 0x04, 0xD2])
}

fn framed(unit: u8, pdu: [u8; 5]) -> Vec<u8> {
    let mut out = Vec::new();
    rtu::encode(unit, &pdu, &mut out);
    out
}
