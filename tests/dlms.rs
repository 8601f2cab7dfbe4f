//! DLMS/COSEM from outside: our session against a meter on a library that nobody here wrote.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test may fail loudly"
)]

#[path = "dlms/answers.rs"]
mod answers;
#[path = "dlms/association.rs"]
mod association;
#[path = "dlms/captures.rs"]
mod captures;
#[path = "dlms/changes.rs"]
mod changes;
#[path = "dlms/ciphered.rs"]
mod ciphered;
#[path = "dlms/clock.rs"]
mod clock;
#[path = "dlms/counters.rs"]
mod counters;
#[path = "dlms/devices.rs"]
mod devices;
#[path = "dlms/image.rs"]
mod image;
#[path = "dlms/link.rs"]
mod link;
#[path = "dlms/lockout.rs"]
mod lockout;
#[path = "dlms/objects.rs"]
mod objects;
#[path = "dlms/oracle.rs"]
mod oracle;
#[path = "tools/pace.rs"]
mod pace;
#[path = "peers/mod.rs"]
mod peers;
#[path = "dlms/plumbing.rs"]
mod plumbing;
#[path = "dlms/profile.rs"]
mod profile;
#[path = "dlms/push.rs"]
mod push;
#[path = "dlms/scripted.rs"]
mod scripted;
#[path = "dlms/secondary.rs"]
mod secondary;
#[path = "dlms/secrets.rs"]
mod secrets;
#[cfg(feature = "demo")]
#[path = "dlms/simulator.rs"]
mod simulator;
#[path = "dlms/tables.rs"]
mod tables;
#[path = "dlms/unfinished.rs"]
mod unfinished;

use peers::Peer;
use weir::meter::{MeterSettings, protocol};
use weir::model::Value;
use weir::os::line::{Direction, Endpoint, Framing, Line, Speed};

/// Reads a meter once as these settings say, over TCP.
async fn read(port: u16, settings: &str) -> Vec<Value> {
    let endpoint = Endpoint::parse(&format!("tcp://127.0.0.1:{port}"));
    let speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
    let mut line = Line::open(&endpoint, speed, Direction::Automatic).await.unwrap();
    let settings = format!("name = \"m\"\nport = \"p\"\nprotocol = \"dlms\"\n{settings}");
    let settings = MeterSettings::parse(&settings).unwrap();
    let mut session = protocol("dlms").unwrap().session(&settings).unwrap();
    session.read(&mut line).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_public_client_reads_the_name_of_a_device_over_the_wrapper() {
    pace::hold();
    let port = peers::free_port();
    let _meter = Peer::python("dlms_meter.py", &["--wrapper", &port.to_string()], "ready");
    let values = read(port, "[dlms]\nlink = \"wrapper\"").await;
    assert_eq!(values[0].value.as_deref(), Some("GRX0000000000001"));
}
