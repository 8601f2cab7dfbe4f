//! `weir tunnel`: a remote gateway's serial line on this machine.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use rand::RngExt;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::level_filters::LevelFilter;

use super::failure::Failure;
use super::{log, runtime};
use crate::config::{self, Settings};
use crate::os::clock::Clock;
use crate::os::random;
use crate::setting::{Identity, Topic};
use crate::tunnel::{Envelope, Mode};
use crate::uplink::{self, Heard, Saying, Speaker};

mod near;
mod numbered;

use near::Near;

/// Join a remote gateway's serial line to this machine.
#[derive(Debug, Args)]
pub(super) struct Tunnel {
    #[command(subcommand)]
    command: Order,
}

#[derive(Debug, Subcommand)]
enum Order {
    Open(Open),
}

/// Open a pseudo-terminal (or a TCP port) that is the serial line of a gateway, through the broker.
///
/// Any meter program can then use that line as if the meter stood here. The gateway needs a [[tunnel]] with the same
/// topics. The broker, its certificates and the password are those of the configuration file (--config): a copy of the
/// gateway's own will do. Ends with Ctrl-C.
#[derive(Debug, Args)]
struct Open {
    /// The gateway: what stands for {id} and {imei} in the topics.
    gateway: String,
    /// The port there: the [[tunnel]] of this name in the configuration file tells the topics; without one they are
    /// {id}/rx and {id}/tx.
    port: String,
    /// Listen on this address instead of opening a pseudo-terminal, e.g. 127.0.0.1:2000.
    #[arg(long, value_name = "ADDRESS")]
    tcp: Option<SocketAddr>,
    /// Make a link of this name to the pseudo-terminal, for programs that want a fixed one.
    #[arg(long, value_name = "PATH", conflicts_with = "tcp")]
    link: Option<PathBuf>,
    /// The topic to the port, instead of the configuration's.
    #[arg(long, value_name = "TOPIC")]
    rx: Option<String>,
    /// The topic from the port, instead of the configuration's.
    #[arg(long, value_name = "TOPIC")]
    tx: Option<String>,
    /// The gateway's [[tunnel]] has envelope = "numbered": every byte arrives exactly once, also over broken sessions. The
    /// [[tunnel]] of the configuration file says so too.
    #[arg(long)]
    numbered: bool,
}

/// What a program sends within this time is one message.
const TOGETHER: Duration = Duration::from_millis(5);
/// What could not be sent for so long is dropped: the meter must not be asked by the past.
const OF_USE: Duration = Duration::from_secs(10);

impl Tunnel {
    pub(super) fn run(self, config: PathBuf, level: Option<LevelFilter>) -> Result<(), Failure> {
        log::start(level.unwrap_or(LevelFilter::WARN));
        let settings = config::load(&config)?.settings;
        let Order::Open(open) = self.command;
        runtime()?.block_on(open.run(&settings))
    }
}

impl Open {
    async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let identity = Identity { id: self.gateway.clone(), imei: Some(self.gateway.clone()) };
        let (rx, tx) = self.topics(settings)?;
        let heard_on = [tx.clone()];
        let failed = |error: uplink::UplinkError| Failure::usage(error.to_string());
        let (talk, mut heard, speaker) = uplink::talk(&heard_on, &identity).map_err(failed)?;
        let rx = rx.of(&identity).ok_or_else(|| Failure::usage("the topic needs the gateway's IMEI"))?;
        let (tell, mut connected) = watch::channel(false);
        let clock = Clock::system();
        let broker = settings.broker.first().ok_or_else(|| Failure::config("there is no [broker]; write one"))?;
        let suffix = format!("-tunnel-{:08x}", random::generator().random::<u32>());
        let names = (broker, &settings.uplink, &identity);
        let session = uplink::converse(names, &suffix, (&clock, random::generator()), &talk, tell);
        let own = settings.tunnel.iter().find(|tunnel| *tunnel.port == self.port);
        let numbered = self.numbered || own.is_some_and(|tunnel| tunnel.envelope == Envelope::Numbered);
        let carry = async {
            // Not before there is a session: a program that opened the line would wait for nothing.
            let _ = connected.wait_for(|connected| *connected).await;
            if numbered {
                let max_age = own.map_or(OF_USE, |tunnel| *tunnel.max_age);
                return self.carry_numbered((heard, speaker), rx, max_age).await;
            }
            tokio::select! {
                done = self.carry(&mut heard, &speaker, &rx) => done,
                _ = tokio::signal::ctrl_c() => Ok(()),
            }
        };
        tokio::select! {
            done = carry => done,
            ended = session => match ended {
                Err(failure) => Err(Failure::other(failure.sentence)),
            },
        }
    }

    /// Carries bytes as they are.
    async fn carry(&self, heard: &mut mpsc::Receiver<Heard>, speaker: &Speaker, rx: &str) -> Result<(), Failure> {
        let mut near = Near::open(self.tcp, self.link.as_deref()).await?;
        self.tell(&near);
        loop {
            tokio::select! {
                came = near.receive(TOGETHER) => {
                    let until = Some(Instant::now() + OF_USE);
                    let saying = Saying { topic: rx.to_owned(), payload: came?, until };
                    if speaker.say(saying).await.is_err() {
                        return Ok(());
                    }
                }
                message = heard.recv() => match message {
                    Some(message) => near.send(&message.payload).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    fn tell(&self, near: &Near) {
        let mut out = std::io::stdout();
        let _ = writeln!(out, "{} is {} of gateway {}; Ctrl-C ends it", near.name(), self.port, self.gateway);
        let _ = out.flush();
    }

    /// The topics to and from the port.
    fn topics(&self, settings: &Settings) -> Result<(Topic, Topic), Failure> {
        let own = settings.tunnel.iter().find(|tunnel| *tunnel.port == self.port);
        if let Some(other) = own.filter(|tunnel| *tunnel.mode != Mode::Mqtt && self.rx.is_none()) {
            return Err(Failure::usage(format!(
                "the tunnel of port \"{}\" has mode = \"{}\", which no broker reaches; see docs/tunnel.md",
                self.port,
                other.mode.word()
            )));
        }
        let topic = |given: &Option<String>, own: Option<&Topic>, usual: &str| match (given, own) {
            (Some(given), _) => {
                Topic::parse(given).map_err(|why| Failure::usage(format!("the topic \"{given}\" {why}")))
            }
            (None, Some(own)) => Ok(own.clone()),
            (None, None) => Topic::parse(usual).map_err(Failure::usage),
        };
        let rx = topic(&self.rx, own.map(|tunnel| &*tunnel.rx_topic), "{id}/rx")?;
        Ok((rx, topic(&self.tx, own.map(|tunnel| &*tunnel.tx_topic), "{id}/tx")?))
    }
}
