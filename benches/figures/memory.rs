//! The peak memory of the real binary, phase by phase.

use std::time::Duration;

use crate::Scale;
use crate::rig::{Agent, Broker, Certificates, Receptor, Setup, directory, free_port};
use crate::table::Figure;

const TELLS: Duration = Duration::from_millis(100);
const IDLE_AIM: (&str, f64) = ("aim", 12.0);
const FULL_AIM: (&str, f64) = ("aim", 32.0);

pub fn measure(scale: &Scale) -> Vec<Figure> {
    [true, false].into_iter().flat_map(|malloc| phases(scale, malloc)).collect()
}

/// All phases, with glibc's malloc as the unit file sets it or as it is.
fn phases(scale: &Scale, malloc: bool) -> Vec<Figure> {
    let frames = scale.backlog;
    let idle = Duration::from_secs(scale.idle.min(5));
    let directory = directory();
    let certificates = Certificates::make(directory.path());
    let (port, (receptor, radio)) = (free_port(), Receptor::start());
    let setup = Setup {
        store: directory.path().join("store"),
        broker: port,
        ca: certificates.ca.clone(),
        uplink: "",
        radio: Some(radio),
        keys: None,
        tells_every: Some(TELLS),
        malloc,
    };
    let mut figures = Vec::new();
    let mut take = |what: &str, agent: &Agent, aim: (&str, f64)| {
        let peak = agent.memory("VmHWM:") / 1024.0;
        let (anonymous, file) = (agent.memory("RssAnon:") / 1024.0, agent.memory("RssFile:") / 1024.0);
        let habits = if malloc { "" } else { ", default malloc" };
        figures.push(
            Figure::new(format!("peak memory, {what}{habits}"), peak, "MB")
                .against(aim.0, aim.1)
                .note(format!("at the end {anonymous:.1} of its own, {file:.1} of the binary and libraries")),
        );
    };

    let (agent, _) = Agent::start(&setup);
    let line = receptor.send(0);
    std::thread::sleep(idle);
    take("idle, no broker", &agent, IDLE_AIM);
    agent.stop();
    drop(line);

    let broker = Broker::start(directory.path(), &certificates, port);
    let (mut agent, _) = Agent::start(&setup);
    let line = receptor.send(0);
    agent.until_counters("connected", |c| c.connected);
    std::thread::sleep(idle);
    take("idle, connected", &agent, IDLE_AIM);
    agent.stop();
    drop((line, broker));

    let (mut agent, _) = Agent::start(&setup);
    let line = receptor.send(frames);
    agent.until_counters("full", |c| c.received >= frames);
    take(&format!("taking {frames} frames"), &agent, FULL_AIM);
    agent.stop();
    drop(line);

    let broker = {
        let (agent, _) = Agent::start(&setup);
        let line = receptor.send(0);
        std::thread::sleep(idle);
        take(&format!("started with {frames} cached"), &agent, FULL_AIM);
        agent.stop();
        drop(line);
        Broker::start(directory.path(), &certificates, port)
    };
    let (mut agent, _) = Agent::start(&setup);
    let line = receptor.send(0);
    agent.until_counters("drained", |c| c.connected && c.cached == 0);
    take(&format!("draining {frames} frames"), &agent, FULL_AIM);
    agent.stop();
    drop((line, broker));
    figures
}
