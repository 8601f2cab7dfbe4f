//! A modem that ModemManager owns, by its tool `mmcli`: the port is never opened.
//!
//! Messages are looked for regularly, calls too: a call that ended stays listed, so that none is missed. AT commands need a
//! ModemManager in debug mode; it says so itself.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::handle::Order;
use super::outbox::MOST_PARTS;
use super::session::Over;
use super::{Incoming, Manager, Modem, ModemError, Sent, State, Status, pin};
use crate::os::line::Endpoint;
use crate::wire::sms::{Address, split};

mod reply;
mod tool;

use tool::ToolError;

const USUAL: Duration = Duration::from_secs(20);
const SENDING: Duration = Duration::from_secs(120);
/// Calls and messages are looked for so often at least: there is no notice of them.
const LOOK: Duration = Duration::from_secs(10);

/// Why there is no modem while its SIM is too busy for the PIN.
pub(super) const BUSY: &str =
    "the SIM was busy or away and did not look at the PIN; it is tried again after growing pauses";

/// What ModemManager has to do with the modem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// It has it.
    Owned,
    /// It runs, but does not have it: perhaps not yet.
    NotYet,
    /// It does not run.
    None,
}

/// Finds out what ModemManager has to do with the modem.
pub(super) async fn claim(modem: &Modem) -> Claim {
    if find(modem).await.is_ok() {
        return Claim::Owned;
    }
    match tool::ask(&modem.settings.mmcli, &["-L"], USUAL).await {
        // One that does not answer may be busy with the port.
        Ok(_) | Err(ToolError::Silent) => Claim::NotYet,
        Err(ToolError::Missing(_) | ToolError::Refused(_)) => Claim::None,
    }
}

/// The path of the modem, by its port when that is known.
async fn find(modem: &Modem) -> Result<String, String> {
    let program = &modem.settings.mmcli;
    let all = tool::ask_json(program, &["-L"], USUAL).await.map_err(|error| error.to_string())?;
    let device = match &modem.endpoint {
        Some(Endpoint::Device(path)) => {
            // ModemManager tells the kernel's name, the settings may have a link to it.
            let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            real.file_name().map(|name| name.to_string_lossy().into_owned())
        }
        Some(Endpoint::Tcp(_)) => return Err("ModemManager has no modems behind TCP".to_owned()),
        None => None,
    };
    let paths = reply::list(&all, "/modem-list");
    let only = paths.len() == 1;
    for path in paths {
        let Some(device) = &device else { return Ok(path) };
        let told = tool::ask_json(program, &["-m", &path], USUAL).await.map_err(|error| error.to_string())?;
        // Told by the settings to use ModemManager, its only modem is meant whatever the port is called.
        if reply::has_port(&told, device) || only && modem.settings.manager == Manager::ModemManager {
            return Ok(path);
        }
    }
    Err("ModemManager does not have this modem; is it plugged in?".to_owned())
}

struct Session<'m> {
    modem: &'m Modem,
    path: String,
    status: &'m mut Status,
    /// Handed over, but not deleted.
    settled: HashSet<String>,
    blocked: bool,
    signal_told: bool,
}

/// Serves everybody until ModemManager or the modem goes away.
pub(super) async fn serve(
    modem: &Modem,
    orders: &mut mpsc::Receiver<Order>,
    status: &mut Status,
) -> Result<Over, String> {
    let path = find(modem).await?;
    let was_ready = status.state == State::Ready;
    status.by = "modemmanager";
    let mut session = Session { modem, path, status, settled: HashSet::new(), blocked: false, signal_told: false };
    session.status.counters.starts += 1;
    session.inquire().await?;
    if session.status.sim.as_deref() == Some("pin") {
        session.unlock().await?;
        session.inquire().await?;
    }
    if session.status.sim.as_deref() == Some("ready")
        && let Err(error) = pin::ready(&modem.folder, session.status.iccid.as_deref()).await
    {
        warn!(%error, "what is remembered of refused PINs can't be cleared");
    }
    if !was_ready {
        info!(model = session.status.model, state = session.status.state.word(), "the modem is there, by ModemManager");
    }
    let (mut inquiry, mut look) = (Instant::now() + *modem.settings.status_every, Instant::now());
    loop {
        modem.publish(session.status);
        let due = if modem.only_watches { inquiry } else { inquiry.min(look) };
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => session.order(order).await,
                None => return Ok(Over::NobodyAsks),
            },
            () = sleep_until(due) => {
                if inquiry <= Instant::now() {
                    session.inquire().await?;
                    inquiry = Instant::now() + *modem.settings.status_every;
                } else {
                    session.look().await?;
                    look = Instant::now() + LOOK.min(*modem.settings.messages_every);
                }
            }
        }
    }
}

impl Session<'_> {
    async fn tool(&self, arguments: &[&str], limit: Duration) -> Result<String, ToolError> {
        let mut all = vec!["-m", self.path.as_str()];
        all.extend(arguments);
        tool::ask(&self.modem.settings.mmcli, &all, limit).await
    }

    async fn json(&self, arguments: &[&str]) -> Result<Json, ToolError> {
        tool::ask_json(&self.modem.settings.mmcli, arguments, USUAL).await
    }

    async fn inquire(&mut self) -> Result<(), String> {
        let path = self.path.clone();
        let told = self.json(&["-m", &path]).await.map_err(|error| error.to_string())?;
        if !std::mem::replace(&mut self.signal_told, true) {
            // Not all modems can; the percentage is there in any case.
            let every = self.modem.settings.status_every.as_secs().max(1).to_string();
            let _ = self.tool(&[&format!("--signal-setup={every}")], USUAL).await;
        }
        let signal = self.json(&["-m", &path, "--signal-get"]).await.ok();
        let location = self.json(&["-m", &path, "--location-get"]).await.ok();
        let sim = match reply::text(&told, "/modem/generic/sim") {
            Some(sim) => self.json(&["-i", &sim]).await.ok(),
            None => None,
        };
        reply::note(&told, signal.as_ref(), location.as_ref(), sim.as_ref(), self.status);
        Ok(())
    }

    /// Shows the PIN, under the same rules as without ModemManager; the pauses for a busy SIM begin at a second, though.
    async fn unlock(&mut self) -> Result<(), String> {
        let Some(file) = &self.modem.settings.pin_file else { return Ok(()) };
        let told = self.json(&["-m", &self.path]).await.map_err(|error| error.to_string())?;
        let Some(sim) = reply::text(&told, "/modem/generic/sim") else { return Ok(()) };
        let trial = pin::trial(file.path(), &self.modem.folder, self.status.iccid.as_deref()).await?;
        trial.begin().await.map_err(|error| format!("it can't be remembered that the PIN is tried: {error}"))?;
        let argument = format!("--pin={}", trial.pin());
        match tool::ask(&self.modem.settings.mmcli, &["-i", &sim, &argument], USUAL).await {
            Ok(_) => trial.taken().await.map_err(|error| error.to_string()),
            Err(ToolError::Refused(why)) if ["SimBusy", "SimNotInserted"].iter().any(|name| why.contains(name)) => {
                trial.unseen().await.map_err(|error| error.to_string())?;
                Err(BUSY.to_owned())
            }
            Err(ToolError::Refused(_)) => {
                let _ = trial.refused().await;
                Err("the SIM refused the PIN; it is not tried again: write the right one into pin_file".to_owned())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    async fn look(&mut self) -> Result<(), String> {
        let path = self.path.clone();
        let messages = self.json(&["-m", &path, "--messaging-list-sms"]).await;
        let messages = match messages {
            Ok(told) => reply::list(&told, "/modem.messaging.sms"),
            // A modem that is not enabled yet has no messages; one that is gone is found out by its state.
            Err(ToolError::Refused(why)) => {
                debug!(why, "messages can't be listed");
                return self.inquire().await;
            }
            Err(error) => return Err(error.to_string()),
        };
        self.settled.retain(|settled| settled.contains("/Call/") || messages.contains(settled));
        for message in messages {
            if !self.take(&message).await {
                break;
            }
        }
        let calls = self.json(&["-m", &path, "--voice-list-calls"]).await;
        for call in calls.map(|told| reply::list(&told, "/modem.voice.call")).unwrap_or_default() {
            self.missed(&call).await;
        }
        Ok(())
    }

    /// Hands a message over and deletes it; false when nobody takes any just now.
    async fn take(&mut self, path: &str) -> bool {
        if !self.settled.contains(path) {
            let Ok(told) = self.json(&["-s", path]).await else { return true };
            let Some(kept) = reply::message(&told) else { return true };
            // "receiving": parts are missing; "stored", "sending" and "sent" are ours.
            if kept.state != "received" {
                return true;
            }
            match (kept.text, self.modem.incoming.try_reserve()) {
                (None, _) => {
                    self.status.counters.undecodable += 1;
                    info!(undecodable = self.status.counters.undecodable, "a message can't be read and is deleted");
                }
                (Some(text), Ok(slot)) => {
                    self.blocked = false;
                    self.status.counters.received += 1;
                    let at = kept.at.unwrap_or_else(|| self.modem.clock.now());
                    slot.send(Incoming::Sms { from: kept.from, text, at });
                }
                (Some(_), Err(TrySendError::Full(()) | TrySendError::Closed(()))) => {
                    if !std::mem::replace(&mut self.blocked, true) {
                        warn!("nobody takes messages just now; they wait in the modem's storage");
                    }
                    return false;
                }
            }
            self.settled.insert(path.to_owned());
        }
        if self.tool(&[&format!("--messaging-delete-sms={path}")], USUAL).await.is_ok() {
            self.settled.remove(path);
        }
        true
    }

    async fn missed(&mut self, path: &str) {
        let Ok(told) = self.json(&["-o", path]).await else { return };
        if reply::text(&told, "/call/properties/direction").as_deref() != Some("incoming") {
            return;
        }
        let ended = reply::text(&told, "/call/properties/state").as_deref() == Some("terminated");
        if self.settled.insert(path.to_owned()) {
            let from = reply::text(&told, "/call/properties/number");
            self.status.counters.calls += 1;
            if self.modem.incoming.try_send(Incoming::Call { from, at: self.modem.clock.now() }).is_err() {
                self.status.counters.calls_lost += 1;
            }
        }
        if !ended && self.modem.settings.hang_up {
            let _ = self.json(&["-o", path, "--hangup"]).await;
        }
        if (ended || self.modem.settings.hang_up)
            && self.tool(&[&format!("--voice-delete-call={path}")], USUAL).await.is_ok()
        {
            self.settled.remove(path);
        }
    }

    async fn order(&mut self, order: Order) {
        let refused = |command: &str| {
            let command = command.to_owned();
            move |error: ToolError| match error {
                ToolError::Refused(reason) => ModemError::Refused { command, reason },
                error => ModemError::Absent(error.to_string()),
            }
        };
        match order {
            Order::Send { number, text, answer } => drop(answer.send(self.send(&number, &text).await)),
            Order::Command { text, answer } => {
                let told = self.tool(&[&format!("--command={text}")], USUAL + USUAL).await;
                let lines = |told: String| {
                    // response: '+CSQ: 20,99'
                    let inside = told.trim().trim_start_matches("response:").trim().trim_matches('\'');
                    let lines = inside.lines().map(str::trim).filter(|line| !line.is_empty());
                    lines.map(str::to_owned).chain(["OK".to_owned()]).collect()
                };
                let _ = answer.send(told.map(lines).map_err(refused("the command")));
            }
            Order::Reregister { answer } => {
                let told = self.tool(&["--3gpp-register-home"], SENDING).await;
                let _ = answer.send(told.map(drop).map_err(refused("to register")));
            }
            Order::Reset { answer } => {
                let told = self.tool(&["--reset"], USUAL).await;
                let _ = answer.send(told.map(drop).map_err(refused("the reset")));
            }
        }
    }

    /// ModemManager cuts long texts into parts itself.
    async fn send(&mut self, number: &str, text: &str) -> Result<Sent, ModemError> {
        let to = Address::parse(number).ok_or(ModemError::Number)?;
        let parts = split(text, 0, MOST_PARTS).ok_or(ModemError::TooLong(MOST_PARTS))?;
        let parts = u8::try_from(parts.len()).unwrap_or(u8::MAX);
        // mmcli takes texts in either kind of quotes and knows no way to write one inside.
        let quote = ['\'', '"'].into_iter().find(|quote| !text.contains(*quote)).ok_or(ModemError::Quotes)?;
        let argument = format!("--messaging-create-sms=number={quote}{to}{quote},text={quote}{text}{quote}");
        let failed = |status: &mut Status, error: ToolError| {
            status.counters.not_sent += 1;
            match error {
                ToolError::Refused(reason) => Ok(Sent::Refused { parts: 0, reason }),
                error => Err(ModemError::Absent(error.to_string())),
            }
        };
        let made = match self.tool(&[&argument], USUAL).await {
            Ok(made) => made,
            Err(error) => return failed(self.status, error),
        };
        let path = made.split_whitespace().find(|word| word.contains("/SMS/")).map(str::to_owned);
        let Some(path) = path else { return Err(ModemError::Absent("mmcli names no message".to_owned())) };
        let mut sent = tool::ask(&self.modem.settings.mmcli, &["-s", &path, "--send"], SENDING).await;
        for attempt in 1..self.modem.settings.send_attempts.value() {
            if !matches!(sent, Err(ToolError::Refused(_))) {
                break;
            }
            tokio::time::sleep(*self.modem.settings.send_pause * 2u32.saturating_pow(attempt - 1)).await;
            sent = tool::ask(&self.modem.settings.mmcli, &["-s", &path, "--send"], SENDING).await;
        }
        let _ = self.tool(&[&format!("--messaging-delete-sms={path}")], USUAL).await;
        match sent {
            Ok(_) => {
                self.status.counters.sent += 1;
                Ok(Sent::Accepted { parts })
            }
            Err(error) => failed(self.status, error),
        }
    }
}
