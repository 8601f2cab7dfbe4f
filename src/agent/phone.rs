//! What comes by phone: commands, bytes for a port, calls that have the broker tried at once.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::commands::{Reply, Told};
use super::handled::Handled;
use super::wiring::Evidence;
use super::{Agent, SESSIONS};
use crate::config::Settings;
use crate::control::{Origin, SmsSettings};
use crate::model::{ClockState, Timestamp};
use crate::modem::{Handle, Incoming, Sent};
use crate::os::machine;
use crate::setting::Identity;
use crate::wire::at;

/// An SMS that the network held back for longer is not obeyed.
const OLDEST: Duration = Duration::from_mins(30);
/// Who asked for the address waits so long at most for the broker.
const CONNECTING: Duration = Duration::from_secs(60);
/// Addresses are told at most so often: each costs a message.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// MTX's words for "come up".
const COME_UP: &str = "mtxtunnel on";
/// So many last digits make two numbers the same: networks tell callers in national form.
const SAME: usize = 9;

/// What hears the phone.
struct Phone {
    sms: SmsSettings,
    /// The number of the first tunnel's port.
    port: Option<usize>,
    door: mpsc::Sender<Told>,
    modem: Handle,
    evidence: Evidence,
    id: String,
    handled: Handled,
    /// When the address was told last.
    told: Option<Instant>,
}

/// Starts the room; the modem and the commands run already.
pub(super) fn start(
    agent: &mut Agent,
    settings: &Settings,
    identity: &Identity,
    (door, incoming): (&mpsc::Sender<Told>, mpsc::Receiver<Incoming>),
) {
    let Some(modem) = agent.evidence.modem.clone() else { return };
    let first = settings.tunnel.first().map(|tunnel| tunnel.port.as_str());
    let port = first.and_then(|name| settings.port.iter().position(|port| *port.name == name));
    let phone = Phone {
        sms: settings.control.sms.clone(),
        port,
        door: door.clone(),
        modem,
        evidence: agent.evidence.clone(),
        id: identity.id.clone(),
        handled: Handled::open(settings.store.path.join(SESSIONS).join("messages")),
        told: None,
    };
    let shared = Arc::new(Mutex::new((phone, incoming)));
    agent.inputs.start("messages", move || {
        let shared = shared.clone();
        async move {
            let (phone, incoming) = &mut *shared.lock().await;
            phone.hear(incoming).await
        }
    });
}

impl Phone {
    async fn hear(&mut self, incoming: &mut mpsc::Receiver<Incoming>) -> Result<(), Infallible> {
        let mut under_way = JoinSet::new();
        while let Some(came) = incoming.recv().await {
            while under_way.try_join_next().is_some() {}
            let asks = match came {
                Incoming::Call { from, .. } => self.called(from.as_deref()),
                Incoming::Sms { from, text, at } => match self.message(&from, &text, at).await {
                    Ok(asks) => asks,
                    Err(()) => return Ok(()),
                },
            };
            if let Some(number) = asks {
                self.come_up(number, &mut under_way);
            }
        }
        Ok(())
    }

    /// Who called, when he may have the broker tried.
    fn called(&self, from: Option<&str>) -> Option<String> {
        let known = from.and_then(|number| self.authorised(number));
        match known {
            Some(_) => info!("an authorised number called; the broker is tried at once"),
            None => debug!("a call of nobody who is known"),
        }
        known
    }

    /// The number of the settings that this is.
    fn authorised(&self, number: &str) -> Option<String> {
        let tail = |number: &str| number.len().checked_sub(SAME).and_then(|at| number.get(at..).map(str::to_owned));
        let is = |known: &&String| {
            **known == number || !number.starts_with('+') && tail(number).is_some() && tail(number) == tail(known)
        };
        let known = self.sms.allow.iter().find(is).cloned();
        known.or_else(|| self.sms.allow_all.then(|| number.to_owned()))
    }

    /// Brings a message to the commands; gives who has the broker tried. `Err` when nobody takes commands any more.
    async fn message(&mut self, from: &str, text: &str, at: Timestamp) -> Result<Option<String>, ()> {
        let now = self.evidence.clock.stamp();
        if now.clock == ClockState::Synced && now.wall.since(at) > OLDEST {
            warn!(sent = %at, "an SMS came too late to be obeyed; send it again");
            return Ok(None);
        }
        if text.trim().eq_ignore_ascii_case(COME_UP) {
            return Ok(self.authorised(from));
        }
        let number = from.to_owned();
        let (command, reply) = if let Some(command) = self.for_port(text) {
            (command, Reply::Port { number })
        } else if let Some((command, alias)) = self.sms.command_in(text).filter(|_| self.sms.enabled) {
            (command, Reply::Phone { number, alias })
        } else {
            info!("an SMS that is no command was heard");
            return Ok(None);
        };
        if !self.handled.is_news(from, at, text).await {
            warn!("an SMS that was obeyed before came again; it is not obeyed twice");
            return Ok(None);
        }
        let told = Told { text: command.into_bytes(), origin: Origin::Phone(from.to_owned()), reply };
        self.door.send(told).await.map(|()| None).map_err(|_| ())
    }

    /// The command for a message that begins with the tunnel's prefix: it is judged like any other.
    fn for_port(&self, text: &str) -> Option<String> {
        let prefix = self.sms.tunnel_prefix.as_ref().filter(|prefix| !prefix.is_empty())?;
        let head = text.get(..prefix.len()).filter(|head| head.eq_ignore_ascii_case(prefix))?;
        let rest = text.get(head.len()..).filter(|rest| !rest.is_empty())?;
        let bytes = at::bytes(rest).unwrap_or_else(|_| rest.as_bytes().to_vec());
        let command = format!("AT^WEIR=RS232,{},{}", self.port?, at::text(&bytes));
        Some(json!({ "at": command }).to_string())
    }

    /// Has the broker tried at once, and tells the address when that is wished.
    fn come_up(&mut self, number: String, under_way: &mut JoinSet<()>) {
        self.evidence.nudge.now();
        let rests = self.told.is_some_and(|told| told.elapsed() < TELL_EVERY);
        if !self.sms.send_ip || rests {
            return;
        }
        self.told = Some(Instant::now());
        let (modem, evidence, id) = (self.modem.clone(), self.evidence.clone(), self.id.clone());
        under_way.spawn(async move {
            let given_up = Instant::now() + CONNECTING;
            let connected = || evidence.uplink().connected_since.is_some();
            while !connected() && Instant::now() < given_up {
                sleep(Duration::from_secs(1)).await;
            }
            let ip = machine::own_address(None).map_or_else(|| "no address".to_owned(), |ip| ip.to_string());
            let uplink = evidence.uplink();
            let text = match uplink.connected_since {
                Some(_) => format!("{id}: {ip}, connected to {}", uplink.broker),
                None => format!("{id}: {ip}, not connected: {}", uplink.last_error.unwrap_or_default()),
            };
            match modem.send(&number, &text).await {
                Ok(Sent::Accepted { .. }) => {}
                Ok(Sent::Refused { reason, .. }) => warn!(reason, "the address could not be told by SMS"),
                Err(error) => warn!(%error, "the address could not be told by SMS"),
            }
        });
    }
}
