//! A line with a speed: a pseudo-terminal has none of its own, so this one carries bytes to the
//! meter only while the host has set the meter's speed, and records every byte of the host.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};
use weir::os::pty::Pty;

/// What the host sent, byte by byte, also at a wrong speed.
pub(crate) type Record = Arc<Mutex<Vec<u8>>>;

pub(crate) struct Wire {
    pub(crate) path: PathBuf,
    pub(crate) record: Record,
    task: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    /// Before the meter on this terminal; with `baud` nothing passes at another speed.
    pub(crate) async fn before(meter: &Path, baud: Option<u32>) -> Self {
        let host = Pty::open().unwrap();
        let (path, record) = (host.path().to_owned(), Record::default());
        let speed = Speed { baud: baud.unwrap_or(300), framing: Framing::EIGHT_N_ONE };
        let line = Line::open(&Endpoint::Device(meter.to_owned()), speed, Direction::Automatic).await.unwrap();
        let task = tokio::spawn(carry(host, line, baud, Arc::clone(&record)));
        Self { path, record, task }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::Device(self.path.clone())
    }
}

async fn carry(mut host: Pty, mut line: Line, baud: Option<u32>, record: Record) {
    let (mut from_host, mut from_meter) = ([0; 512], [0; 512]);
    loop {
        let tick = Instant::now() + Duration::from_millis(3);
        tokio::select! {
            received = host.receive(&mut from_host) => {
                let Ok(count) = received else { return };
                record.lock().unwrap().extend(&from_host[..count]);
                let now = host.baud().unwrap();
                if baud.is_none() || baud == Some(now) {
                    line.set_speed(Speed { baud: now, framing: Framing::EIGHT_N_ONE }).unwrap();
                    line.send(&from_host[..count]).await.unwrap();
                }
            }
            received = line.receive(&mut from_meter, tick) => match received {
                Ok(count) => {
                    let right = baud.is_none() || baud == Some(host.baud().unwrap());
                    let heard: Vec<u8> = from_meter[..count].iter().map(|b| if right { *b } else { b ^ 0x5A }).collect();
                    host.send(&heard).await.unwrap();
                }
                // The meter sees the speed that the host has now.
                Err(_) if baud.is_none() => {
                    let now = host.baud().unwrap_or(300);
                    if line.set_speed(Speed { baud: now, framing: Framing::EIGHT_N_ONE }).is_err() {
                        return;
                    }
                }
                Err(_) => {}
            },
        }
    }
}
