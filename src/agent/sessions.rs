//! The audit of the tunnels: who had a port, when, how much went each way, and why it ended.
//!
//! A file of its own beside the commands' (`<store>/control/sessions`), bounded as that one is, and written without waiting for the
//! disk: a power cut may cost the newest lines.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{Mutex, mpsc};
use tokio::time::sleep;

use super::Agent;
use crate::config::Settings;
use crate::control::Audit;
use crate::os::clock::Clock;
use crate::tunnel::{Book, Envelope, Health, Mode, Session};

/// Sessions that may wait for the disk.
const WAITING: usize = 32;
/// At topics nobody says when he has done: a session ends when nothing was carried for so long.
const SILENCE: Duration = Duration::from_mins(5);

/// The file in the folder of the commands.
pub(super) const FILE: &str = "sessions";

/// Starts who writes them; the tunnels tell theirs in the book.
pub(super) fn start(agent: &mut Agent, settings: &Settings) -> Book {
    let (tell, heard) = mpsc::channel(WAITING);
    let audit = Audit::new(settings.store.path.join("control").join(FILE));
    let (heard, clock) = (Arc::new(Mutex::new(heard)), agent.evidence.clock.clone());
    agent.inputs.start("sessions", move || {
        let (heard, audit, clock) = (heard.clone(), audit.clone(), clock.clone());
        async move { write(&mut *heard.lock().await, &audit, &clock).await }
    });
    Book::new(tell)
}

async fn write(heard: &mut mpsc::Receiver<Session>, audit: &Audit, clock: &Clock) -> Result<(), Infallible> {
    let mut failed = false;
    while let Some(Session { port, peer, to_port, from_port, ended }) = heard.recv().await {
        let line = match ended {
            None => json!({ "session": "begun", "port": port, "who": peer }),
            Some(why) => json!({
                "session": "ended", "port": port, "who": peer, "to_port": to_port, "from_port": from_port, "why": why,
            }),
        };
        let (audit, now) = (audit.clone(), clock.stamp());
        let written = tokio::task::spawn_blocking(move || audit.record(line, &now)).await;
        let error = written.ok().and_then(Result::err);
        if let Some(error) = error.as_ref().filter(|_| !failed) {
            tracing::error!(%error, "the audit of sessions can't be written; see to the disk");
        }
        failed = error.is_some();
    }
    Ok(())
}

/// Watches the tunnels at topics with raw bytes; the others tell their sessions themselves.
pub(super) fn watch(agent: &mut Agent, settings: &Settings, book: &Book) {
    for tunnel in &settings.tunnel {
        if *tunnel.mode != Mode::Mqtt || tunnel.envelope == Envelope::Numbered {
            continue;
        }
        let Some(door) = agent.evidence.tunnels.iter().find(|door| door.port == tunnel.port.as_str()) else { continue };
        let (port, health, book) = (door.port.clone(), door.health.clone(), book.clone());
        agent.inputs.start(format!("sessions of {port}"), move || by_topic(port.clone(), health.clone(), book.clone()));
    }
}

async fn by_topic(port: String, health: Health, book: Book) -> Result<(), Infallible> {
    let mut watch = health.watch();
    let carried = || {
        let status = health.status();
        (status.to_port, status.from_port)
    };
    loop {
        let before = carried();
        // The tunnel has ended with weir.
        if watch.wait_for(|status| (status.to_port, status.from_port) != before).await.is_err() {
            return Ok(());
        }
        let tell = |(to_port, from_port), ended| {
            book.tell(|| Session { port: port.clone(), peer: "mqtt".to_owned(), to_port, from_port, ended });
        };
        tell((0, 0), None);
        loop {
            let last = carried();
            sleep(SILENCE).await;
            let now = carried();
            if now == last {
                let bytes = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
                tell(bytes, Some("nothing was carried for 5 minutes".to_owned()));
                break;
            }
        }
    }
}
