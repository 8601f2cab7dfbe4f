//! The bytes on the port of a tunnel with `trace = true`, in files: what `weir trace PORT --recorded` shows.
//!
//! `<store>/trace/PORT`, a JSON object a line, two files of at most 256 KiB each, the older one `.1`. Written every few seconds, so
//! that a power cut costs the newest; a disk that refuses costs the trace and nothing else.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::{Instant, timeout_at};

use super::Agent;
use super::ask::Trace;
use crate::config::Settings;
use crate::control::Audit;
use crate::os::clock::Clock;

/// What is gathered before it is written.
const GATHER: Duration = Duration::from_secs(2);
const MOST: usize = 256;

/// Where the trace of a port is.
pub fn recorded(store: &Path, port: &str) -> PathBuf {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    store.join("trace").join(port.chars().map(safe).collect::<String>())
}

/// Starts one for each tunnel that wants it.
pub(super) fn start(agent: &mut Agent, settings: &Settings) {
    for tunnel in settings.tunnel.iter().filter(|tunnel| tunnel.trace) {
        let Some(bus) = agent.evidence.buses.iter().find(|bus| bus.port() == tunnel.port.as_str()).cloned() else {
            continue;
        };
        let (file, clock) = (recorded(&settings.store.path, bus.port()), agent.evidence.clock.clone());
        agent.inputs.start(format!("trace of {}", bus.port()), move || {
            record(Trace::new(bus.tap().listen()), Audit::new(&file), clock.clone())
        });
    }
}

async fn record(mut trace: Trace, file: Audit, clock: Clock) -> Result<(), Infallible> {
    let mut failed = false;
    loop {
        let Some(first) = trace.next().await else { return Ok(()) };
        let (mut lines, until): (Vec<Json>, _) = (vec![first], Instant::now() + GATHER);
        while lines.len() < MOST {
            match timeout_at(until, trace.next()).await {
                Ok(Some(event)) => lines.push(event),
                Ok(None) | Err(_) => break,
            }
        }
        let (to, now) = (file.clone(), clock.stamp());
        let written = tokio::task::spawn_blocking(move || to.records(lines, &now)).await;
        let error = written.ok().and_then(Result::err);
        if let Some(error) = error.as_ref().filter(|_| !failed) {
            tracing::warn!(%error, "the trace of a port can't be written; see to the disk");
        }
        failed = error.is_some();
    }
}
