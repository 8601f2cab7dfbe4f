//! Draining a full store over TLS against `mosquitto_pub -l -q 1` with the same frames.
//!
//! Both are timed from the start of the process until the broker has acknowledged everything.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use weir::model::{Lane, Stored, TimeQuality};
use weir::uplink::Message;

use crate::Scale;
use crate::rig::{Agent, Broker, Certificates, Setup, directory, fill_store, frame, free_port};
use crate::table::{Figure, median};

/// Often enough to see the end, too seldom to matter.
const TELLS: Duration = Duration::from_millis(25);
/// The topic of both.
const TOPIC: &str = "/device/figures/data/endpointdata";

pub fn measure(scale: &Scale) -> Vec<Figure> {
    let directory = directory();
    let certificates = Certificates::make(directory.path());
    let port = free_port();
    let _broker = Broker::start(directory.path(), &certificates, port);
    let frames = scale.drain;
    let lines = directory.path().join("lines");
    let length = write_lines(&lines, frames);

    let (mut batches, mut singles, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..scale.repeats {
        theirs.push(published(&lines, &certificates.ca, port, frames));
        for (uplink, rates) in [("", &mut batches), ("batch = 1", &mut singles)] {
            let store = directory.path().join(format!("store-{round}-{}", uplink.len()));
            fill_store(&store, frames);
            let setup = Setup {
                store: store.clone(),
                broker: port,
                ca: certificates.ca.clone(),
                uplink,
                radio: None,
                keys: None,
                tells_every: Some(TELLS),
                malloc: true,
            };
            let (mut agent, _) = Agent::start(&setup);
            let took = agent.until_counters("drained", |c| c.cached == 0);
            agent.stop();
            rates.push(frames as f64 / took.as_secs_f64());
            fs::remove_dir_all(&store).unwrap();
        }
    }
    let (theirs, note) = (median(theirs), format!("{frames} cached frames of {length} bytes of JSON"));
    let baseline = "mosquitto_pub -l -q 1, TLS";
    vec![
        Figure::new("drain over TLS, batches of 500", median(batches), "frames/s")
            .against(baseline, theirs)
            .note(format!("{note}; weir packs many into a message, mosquitto_pub one")),
        Figure::new("drain over TLS, one frame a message", median(singles), "frames/s")
            .against(baseline, theirs)
            .note("uplink.batch = 1: message for message"),
    ]
}

/// The same messages as the agent makes of one frame each, a line each; the length of the last.
pub fn write_lines(path: &Path, frames: u64) -> usize {
    let mut text = Vec::new();
    let mut length = 0;
    for n in 0..frames {
        let mut message = Message::new(1 << 16);
        let frame = frame(n, Lane::Ordinary);
        let time = (frame.time.wall, TimeQuality::Synced);
        message.add(&Stored { sequence: n + 1, frame }, time);
        let payload = message.finish().0;
        length = payload.len();
        text.extend(payload);
        text.push(b'\n');
    }
    fs::write(path, text).unwrap();
    length
}

pub fn published(lines: &Path, ca: &Path, port: u16, frames: u64) -> f64 {
    let begun = Instant::now();
    let status = Command::new("mosquitto_pub")
        .args(["-h", "localhost", "-p", &port.to_string(), "-q", "1", "-l", "-t", TOPIC, "--cafile"])
        .arg(ca)
        .stdin(File::open(lines).unwrap())
        .status()
        .expect("mosquitto_pub is needed: tests/run says how to install the peers");
    assert!(status.success(), "mosquitto_pub failed");
    frames as f64 / begun.elapsed().as_secs_f64()
}
