//! What an idle agent does: context switches and system calls.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Scale;
use crate::rig::{Agent, Broker, Certificates, Receptor, Setup, directory, free_port, signal};
use crate::table::Figure;

pub fn measure(scale: &Scale) -> Vec<Figure> {
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
        tells_every: None,
        malloc: true,
    };
    let mut figures = Vec::new();

    let broker = Broker::start(directory.path(), &certificates, port);
    let (agent, _) = Agent::start(&setup);
    let line = receptor.send(0);
    figures.extend(watch(&agent, scale, "connected"));
    agent.stop();
    drop((line, broker));

    let (agent, _) = Agent::start(&setup);
    let line = receptor.send(0);
    figures.extend(watch(&agent, scale, "no broker"));
    drop(line);
    agent.stop();

    let (mut agent, _) = Agent::start(&Setup { tells_every: Some(Duration::from_secs(15)), ..setup });
    let line = receptor.send(100);
    agent.until_counters("written", |c| c.cached == 100);
    figures.extend(watch(&agent, scale, "no broker, 100 frames on disk"));
    drop(line);
    figures
}

/// Watches it for a while, once by the kernel's counters and once under strace.
fn watch(agent: &Agent, scale: &Scale, state: &str) -> Vec<Figure> {
    // What a start brings with it is not idling.
    std::thread::sleep(Duration::from_secs(scale.idle.min(3)));
    let before = switches(agent.child.id());
    std::thread::sleep(Duration::from_secs(scale.idle));
    let woken = switches(agent.child.id()) - before;
    let note = format!("in {} s", scale.idle);
    let mut figures =
        vec![Figure::new(format!("wake-ups when idle, {state}"), woken / scale.idle as f64, "/s").note(note.clone())];
    if let Some((calls, which)) = calls(agent.child.id(), scale.idle) {
        figures.push(
            Figure::new(format!("system calls when idle, {state}"), calls / scale.idle as f64, "/s")
                .note(format!("{note} under strace: {which}")),
        );
    }
    figures
}

/// How often its threads have gone to sleep and were woken.
fn switches(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let count = |text: String| -> Option<f64> {
        text.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
    };
    tasks.filter_map(|t| count(fs::read_to_string(t.path().join("status")).ok()?)).sum()
}

/// Counts its system calls by name; `None` where there is no strace.
fn calls(pid: u32, seconds: u64) -> Option<(f64, String)> {
    let report = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-U", "calls,name", "-p", &pid.to_string(), "-o"])
        .arg(report.path())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    std::thread::sleep(Duration::from_secs(seconds));
    signal(&strace, "INT");
    strace.wait().unwrap();
    let text = fs::read_to_string(report.path()).unwrap();
    let rows: Vec<(u64, &str)> = text
        .lines()
        .filter_map(|l| {
            let mut words = l.split_whitespace();
            let (calls, name) = (words.next()?.parse().ok()?, words.next()?);
            (name != "total").then_some((calls, name))
        })
        .collect();
    let named = rows.iter().map(|(calls, name)| format!("{calls} {name}")).collect::<Vec<_>>().join(", ");
    Some((rows.iter().map(|(calls, _)| *calls).sum::<u64>() as f64, named))
}
