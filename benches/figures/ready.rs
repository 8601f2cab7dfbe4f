//! The time from the start of the process to READY=1.

use std::time::Duration;

use crate::Scale;
use crate::rig::{Agent, Certificates, Setup, directory, fill_store, free_port};
use crate::table::{Figure, median};

const TIMES: usize = 5;

pub fn measure(scale: &Scale) -> Vec<Figure> {
    let directory = directory();
    let certificates = Certificates::make(directory.path());
    let setup = |store: &str| Setup {
        store: directory.path().join(store),
        broker: free_port(),
        ca: certificates.ca.clone(),
        uplink: "",
        radio: None,
        tells_every: None,
        malloc: true,
    };
    let empty = (0..TIMES).map(|n| start(&setup(&format!("empty-{n}")), false)).collect();
    let full = setup("full");
    fill_store(&full.store, scale.backlog);
    let stopped = (0..TIMES).map(|_| start(&full, false)).collect();
    let killed = (0..TIMES).map(|_| start(&full, true)).collect();
    let empty = median(empty);
    let frames = scale.backlog;
    vec![
        Figure::new("start to READY, new store", empty, "ms").note(format!("median of {TIMES}")),
        Figure::new(format!("start to READY, {frames} cached"), median(stopped), "ms").against("new store", empty),
        Figure::new(format!("start to READY, {frames} cached, after kill -9"), median(killed), "ms")
            .against("new store", empty),
    ]
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
