//! The time from the start of the process to READY=1.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use crate::Scale;
use crate::rig::{Agent, Certificates, Setup, directory, fill_store, free_port};
use crate::table::{Figure, median};

const TIMES: usize = 5;
/// In milliseconds.
const AIM: f64 = 2000.0;

pub fn measure(scale: &Scale) -> Vec<Figure> {
    let directory = directory();
    let certificates = Certificates::make(directory.path());
    let setup = |store: &str| Setup {
        store: directory.path().join(store),
        broker: free_port(),
        ca: certificates.ca.clone(),
        uplink: "",
        radio: None,
        keys: None,
        tells_every: None,
        malloc: true,
    };
    let empty = (0..TIMES).map(|n| start(&setup(&format!("empty-{n}")), false)).collect();
    let full = setup("full");
    fill_store(&full.store, scale.backlog);
    let stopped = (0..TIMES).map(|_| start(&full, false)).collect();
    let killed = (0..TIMES).map(|_| start(&full, true)).collect();
    let cold = (0..TIMES).map(|_| {
        forget(&full.store);
        start(&full, true)
    });
    let (cold, killed, empty) = (median(cold.collect()), median(killed), median(empty));
    let frames = scale.backlog;
    vec![
        Figure::new("start to READY, new store", empty, "ms").note(format!("median of {TIMES}")),
        Figure::new(format!("start to READY, {frames} cached"), median(stopped), "ms").against("new store", empty),
        Figure::new(format!("start to READY, {frames} cached, after kill -9"), killed, "ms")
            .against("new store", empty),
        Figure::new(format!("start to READY, {frames} cached, after kill -9, not in the page cache"), cold, "ms")
            .against("aim", AIM),
    ]
}

/// Drops the files of a directory from the page cache.
fn forget(path: &Path) {
    for path in std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()) {
        if path.is_dir() {
            forget(&path);
        } else if let Ok(file) = File::open(&path) {
            file.sync_all().unwrap();
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        }
    }
}

fn start(setup: &Setup, kill: bool) -> f64 {
    let (agent, ready) = Agent::start(setup);
    if kill {
        // Dropping it kills it.
        drop(agent);
    } else {
        agent.stop();
    }
    ready.max(Duration::ZERO).as_secs_f64() * 1e3
}
