//! `weir trace PORT`: the bytes on a line.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::level_filters::LevelFilter;

use super::failure::Failure;
use super::{log, runtime};
use crate::agent::ask::Trace as Events;
use crate::agent::local::{Client, ClientError};
use crate::config::Settings;
use crate::meter::bus::Port;
use crate::os::line::{Endpoint, Framing, Line, LineError, Speed, Tap};
use crate::{agent, board, config};

mod recorded;
mod show;
mod words;

use show::{PAUSE, Show};
use words::Words;

/// How often an agent that hung up is asked again, and how long is waited before.
const AGAIN: u32 = 60;
const AGAIN_PAUSE: Duration = Duration::from_millis(500);

/// Show the bytes on a port, both ways, with their times and what they mean.
///
/// While the agent runs, it tells what goes over its port. Without an agent the port is opened
/// and only listened to: nothing is ever sent. Ends with Ctrl-C.
#[derive(Debug, Args)]
pub(super) struct Trace {
    /// The port's name in the configuration; without an agent also a device or tcp://host:port.
    port: String,

    /// Print one JSON object a burst of bytes; times in microseconds.
    #[arg(long)]
    json: bool,

    /// Listen at this speed instead of the configured one (only without an agent).
    #[arg(long, value_name = "BAUD")]
    baud: Option<u32>,

    /// Show what the port's tunnel has written down (trace = true), instead of listening.
    #[arg(long)]
    recorded: bool,

    /// End after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

impl Trace {
    pub(super) fn run(self, config: PathBuf, level: Option<LevelFilter>) -> Result<(), Failure> {
        log::start(level.unwrap_or(LevelFilter::WARN));
        let settings = config::effective(&config)?.settings;
        let on_port = settings.meter.iter().filter(|m| *m.port == self.port);
        let protocols: Vec<&str> = on_port.map(|m| m.protocol.as_str()).collect();
        let colours = std::io::stdout().is_terminal() && !self.json;
        let mut show = Show::new(Words::new(&protocols), colours, self.json);
        if self.recorded {
            let text = recorded::shown(&settings.store.path, &self.port, &mut show)?;
            let _ = std::io::stdout().write_all(text.as_bytes());
            return Ok(());
        }
        let limit = self.seconds.map_or(Duration::MAX, Duration::from_secs);
        let runtime = runtime()?;
        let outcome = runtime.block_on(async {
            let events = self.events(&settings)?;
            timeout(limit, relay(events, &mut show)).await.unwrap_or(Ok(()))
        });
        let _ = std::io::stdout().write_all(show.flush().as_bytes());
        // The thread that waits for the agent must not hold up the end.
        runtime.shutdown_background();
        outcome
    }

    /// From the agent when one runs, else from the line itself.
    fn events(&self, settings: &Settings) -> Result<mpsc::Receiver<Result<Json, Failure>>, Failure> {
        let (give, events) = mpsc::channel(256);
        match Client::connect(&settings.store.path) {
            Ok(mut agent) => {
                agent.ask(&json!({ "ask": "trace", "port": self.port })).map_err(|e| Failure::other(e.to_string()))?;
                eprint(&format!("listening beside the running agent on port {}; Ctrl-C ends it", self.port));
                let (store, port) = (settings.store.path.clone(), self.port.clone());
                tokio::task::spawn_blocking(move || follow(agent, &store, &port, &give));
            }
            Err(ClientError::NotRunning(_)) => {
                let port = self.place(settings)?;
                eprint(&format!(
                    "no agent runs; listening on {} at {} {}, nothing is sent; Ctrl-C ends it",
                    port.endpoint, port.speed.baud, port.speed.framing
                ));
                tokio::spawn(listen(port, give));
            }
            Err(error) => return Err(Failure::other(error.to_string())),
        }
        Ok(events)
    }

    fn place(&self, settings: &Settings) -> Result<Port, Failure> {
        let mut port = match settings.port.iter().find(|p| *p.name == self.port) {
            Some(port) => {
                let board = board::load(&settings.gateway.board).map_err(|e| Failure::config(e.to_string()))?;
                agent::resolve_port(port, &board).map_err(|e| Failure::config(e.to_string()))?
            }
            None if self.port.contains('/') => Port::plain(
                &self.port,
                Endpoint::parse(&self.port),
                Speed { baud: 9600, framing: Framing::EIGHT_N_ONE },
            ),
            None => {
                let known: Vec<_> = settings.port.iter().map(|p| p.name.as_str()).collect();
                let known = if known.is_empty() { "there is no [[port]]".to_owned() } else { known.join(", ") };
                return Err(Failure::usage(format!("no port is called \"{}\"; known: {known}", self.port)));
            }
        };
        if let Some(baud) = self.baud {
            port.speed = Speed { baud: baud.clamp(50, 4_000_000), ..port.speed };
        }
        Ok(port)
    }
}

/// Gives what the agent tells; one that hangs up, because it is started again or this side was too slow, is asked
/// again for a while, and the times go on from where they were.
fn follow(mut agent: Client, store: &Path, port: &str, give: &mpsc::Sender<Result<Json, Failure>>) {
    let question = json!({ "ask": "trace", "port": port });
    let (mut before, mut last) = (0, 0);
    loop {
        let why = loop {
            match agent.answer() {
                Ok(Some(mut event)) => {
                    last = before + event.get("at").and_then(Json::as_u64).unwrap_or(0);
                    if let Some(at) = event.get_mut("at") {
                        *at = json!(last);
                    }
                    if give.blocking_send(Ok(event)).is_err() {
                        return;
                    }
                }
                Ok(None) => break "it hung up".to_owned(),
                Err(error) => break error.to_string(),
            }
        };
        if give.blocking_send(Ok(json!({ "at": last, "what": "lost", "why": why }))).is_err() {
            return;
        }
        let again = (0..AGAIN).find_map(|_| {
            std::thread::sleep(AGAIN_PAUSE);
            let mut agent = (!give.is_closed()).then(|| Client::connect(store).ok()).flatten()?;
            agent.ask(&question).ok().map(|_| agent)
        });
        match again {
            Some(back) => (agent, before) = (back, last),
            None => {
                let _ = give.blocking_send(Err(Failure::other("the running agent hung up and did not come back")));
                return;
            }
        }
    }
}

fn eprint(sentence: &str) {
    let _ = writeln!(std::io::stderr(), "weir: {sentence}");
}

/// Shows events until they end; a burst is shown when the line pauses.
async fn relay(mut events: mpsc::Receiver<Result<Json, Failure>>, show: &mut Show) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    loop {
        let text = if show.waits() {
            match timeout(PAUSE, events.recv()).await {
                Err(_) => show.flush(),
                Ok(None) => return Ok(()),
                Ok(Some(event)) => show.event(&event?),
            }
        } else {
            let Some(event) = events.recv().await else { return Ok(()) };
            show.event(&event?)
        };
        // Whoever read this has gone: nothing is left to do.
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
    }
}

/// Listens to a line that nobody else holds; never sends.
async fn listen(port: Port, give: mpsc::Sender<Result<Json, Failure>>) {
    let tap = Tap::new();
    let mut events = Events::new(tap.listen());
    let read = async {
        let mut line = Line::open(&port.endpoint, port.speed, port.direction).await?;
        line.put_tap(&tap);
        let mut buffer = [0; 1024];
        loop {
            match line.receive(&mut buffer, Instant::now() + Duration::from_secs(3600)).await {
                Ok(_) | Err(LineError::Silent(_)) => {}
                Err(error) => return Err::<(), LineError>(error),
            }
        }
    };
    let relay = async {
        while let Some(event) = events.next().await {
            if give.send(Ok(event)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        ended = read => if let Err(error) = ended {
            let _ = give.send(Err(Failure::other(format!("{}: {error}", port.endpoint)))).await;
        },
        () = relay => {}
    }
}
