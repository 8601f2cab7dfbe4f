//! Carries out what people and platforms ask: the only place that does what `control` has let through.
//!
//! Each command is at most one call of a room. An answer is a text; a command that can't be carried out gets one sentence that says
//! what to do. Start with [`Orders::carry_out`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value as Json;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::TunnelDoor;
use super::ask::{self, Answer, Ask};
use super::change::{Changer, Started};
use super::status::{Reason, Teller};
use super::wiring::Evidence;
use crate::config::change::Origin as Who;
use crate::control::{Audit, Change, Command, Entry, Errand, Modbus, Place, Put, Restart, Right, help, masked_number};
use crate::meter::bus;
use crate::modem::{Handle, Sent};
use crate::os::line::{Framing, Speed};
use crate::setting::Identity;
use crate::tunnel;

mod certificate;
mod firmware;
mod gateway;
mod io;
mod lock;
mod log;
mod modbus;
mod parameter;
mod serial;

pub(super) use lock::Lock;

/// A command that has to do with a meter or port takes at most so long.
const LONGEST: Duration = Duration::from_mins(6);
/// A trace by command holds at most so many events.
const MOST_EVENTS: usize = 500;

/// What commands are carried out with; clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Orders {
    pub(super) evidence: Evidence,
    /// Who gave the command that is carried out.
    pub(super) by: Arc<str>,
    /// Whether he may also while the gateway is locked.
    pub(super) unlock: bool,
    pub(super) asks: ask::Desk,
    /// Writes the status message.
    pub(super) teller: Teller,
    pub(super) identity: Identity,
    /// Every port in the order of the configuration, with its speed: MTX's numbers count them.
    pub(super) ports: Vec<(String, Speed)>,
    /// The framing of the Modbus meters of each port that has some.
    pub(super) modbus: Vec<(String, crate::meter::modbus::Framing)>,
    /// Speeds that were set by command.
    pub(super) speeds: Arc<Mutex<BTreeMap<String, Speed>>>,
    /// The store's folder.
    pub(super) folder: PathBuf,
    /// Held from the writing of a certificate until those that nothing names are removed.
    pub(super) certificates: Arc<tokio::sync::Mutex<()>>,
    pub(super) audit: Audit,
    pub(super) lock: Lock,
    /// How long a device may take for its answer.
    pub(super) serial_answer: Duration,
}

/// What became of a command.
pub(super) struct Done {
    /// The answer's text, or one sentence that says why it was not done.
    pub(super) told: Result<String, String>,
    /// weir starts anew when this is dropped: not before the answer is on its way.
    pub(super) after: Option<After>,
}

/// What is done once the answer is on its way.
pub(super) enum After {
    /// A change was taken.
    Taken(#[expect(dead_code, reason = "held: what it does happens when it is dropped")] Started),
    /// The agent was asked to start anew.
    Restart(Changer),
    /// The gateway was.
    Reboot(#[expect(dead_code, reason = "held: what it does happens when it is dropped")] Box<gateway::Reboot>),
}

impl Drop for After {
    fn drop(&mut self) {
        if let Self::Restart(changer) = self {
            changer.restart();
        }
    }
}

impl From<Result<String, String>> for Done {
    fn from(told: Result<String, String>) -> Self {
        Self { told, after: None }
    }
}

impl Orders {
    /// Carries out a command; the audit has it, and what became of it, when this returns.
    pub(super) async fn carry_out(&self, errand: Errand) -> (String, bool, Option<After>) {
        let objection = errand.objection(self.lock.is_locked());
        let Errand { command, letter, mut entry, unlock } = errand;
        // It may have waited long for its turn.
        if let Some(sentence) = objection {
            (entry.outcome, entry.detail) = ("refused", sentence.to_owned());
            self.note(entry).await;
            return (letter.failed(sentence), true, None);
        }
        self.begin(&entry, command.right()).await;
        let by = entry.who.to_string();
        let (way, name) = by.split_once(':').unwrap_or(("", &by));
        let who = Who::of(way, name);
        let mine = Self { by: by.as_str().into(), unlock, ..self.clone() };
        let done = mine.obey(command, who).await;
        let reply = match &done.told {
            Ok(told) => letter.done(told),
            Err(sentence) => {
                entry.outcome = "failed";
                entry.detail.clone_from(sentence);
                letter.failed(sentence)
            }
        };
        self.note(entry).await;
        (reply, done.told.is_err(), done.after)
    }

    /// Notes that something that changes anything begins: after a power cut it is known that it may have been done.
    pub(super) async fn begin(&self, entry: &Entry, right: Right) {
        if right.changes() {
            self.note(Entry { outcome: "begun", ..entry.clone() }).await;
        }
    }

    /// Writes into the audit; a disk that refuses is told once a line in the log, and the answer goes all the same.
    pub(super) async fn note(&self, entry: Entry) {
        tracing::info!(who = %entry.who, command = entry.command, outcome = entry.outcome, "a command was given");
        let (audit, now) = (self.audit.clone(), self.evidence.clock.stamp());
        let written = tokio::task::spawn_blocking(move || audit.append(&entry, &now)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "the audit can't be written; see to the disk");
            // The store may have nothing to write for a while: it is to find out now, and to tell.
            let store = self.teller.store().clone();
            tokio::spawn(async move { store.sync().await });
        }
    }

    /// Carries it out; what changes the gateway has limits of its own.
    async fn obey(&self, command: Command, who: Who) -> Done {
        let is_change = matches!(
            command,
            Command::Set { .. }
                | Command::Rollback(_)
                | Command::Restart(_)
                | Command::Certificate { .. }
                | Command::DailyReset(_)
                | Command::Watchdog(_)
                | Command::Update { .. }
        );
        let starts_anew = is_change && !matches!(command, Command::Restart(_) | Command::Update { .. });
        if let Some(why) = self.evidence.dogs.fetching().filter(|_| starts_anew) {
            return Err(why.to_owned()).into();
        }
        let done = self.answer(command, who);
        if is_change {
            return done.await;
        }
        let given_up = || Err("it took longer than 6 minutes and was given up; ask again".to_owned()).into();
        timeout(LONGEST, done).await.unwrap_or_else(|_| given_up())
    }

    async fn answer(&self, command: Command, who: Who) -> Done {
        let told = match command {
            Command::Set { changes, confirm } => return self.set(&changes, who, confirm).await,
            Command::Rollback(number) => return self.rollback(number, who).await,
            Command::Restart(Restart::Gateway) => return gateway::reset(self, &who),
            Command::Restart(what) => return self.restart(what).await,
            Command::Certificate { which, pem } => return certificate::load(self, which, pem, who).await,
            Command::DailyReset(minute) => return gateway::daily_reset(self, minute, who).await,
            Command::Watchdog(on) => return gateway::watchdog(self, on, who).await,
            Command::Update { url, sha256, signature } => firmware::update(self, &url, &sha256, signature).await,
            Command::Ping | Command::Challenge => Ok(String::new()),
            Command::Help(name) => help(name.as_deref()),
            Command::Version => Ok(format!("weir {}", env!("CARGO_PKG_VERSION"))),
            Command::Status => Ok(self.teller.text().await),
            Command::Get(names) => self.get(&names),
            Command::Configuration => self.changer().map(Changer::masked),
            Command::History => self.history(),
            Command::Read(meter) => self.read(meter).await,
            Command::Trace { place, within } => self.trace(&place, within).await,
            Command::Audit(lines) => self.audited(lines).await,
            Command::Log(lines) => Ok(log::newest(lines)),
            Command::Lock => self.lock.set(true).await.map(|()| "locked".to_owned()),
            Command::Unlock => self.lock.set(false).await.map(|()| "unlocked".to_owned()),
            Command::Speed { place, baud, framing } => self.set_speed(&place, baud, framing.as_deref()).await,
            Command::Send { place, bytes } => serial::send(self, &place, bytes).await,
            Command::ReadModbus(wanted) => self.read_modbus(&wanted).await,
            Command::WriteModbus(put) => self.write_modbus(&put).await,
            Command::CallBack { place, target, within } => self.call_back(&place, &target, within).await,
            Command::Sms { number, text } => self.sms(&number, &text).await,
            Command::Modem(text) => self.modem(&text).await,
            Command::SetOutput(output) => io::set(self, &output),
            Command::Ios => io::all(self).await,
        };
        told.into()
    }

    fn changer(&self) -> Result<&Changer, String> {
        self.evidence
            .changer
            .as_ref()
            .ok_or_else(|| "this agent's configuration can't be changed while it runs".to_owned())
    }

    fn get(&self, names: &[String]) -> Result<String, String> {
        parameter::get(self.changer()?, names)
    }

    async fn set(&self, changes: &[Change], who: Who, confirm: Option<Duration>) -> Done {
        let changer = match self.changer() {
            Ok(changer) => changer,
            Err(why) => return Err(why).into(),
        };
        match parameter::edits(&changer.text(), changes) {
            Ok(edits) => taken(changer.edit(&edits, who, "by command", confirm.into()).await),
            Err(why) => Err(why).into(),
        }
    }

    async fn rollback(&self, number: Option<u64>, who: Who) -> Done {
        match self.changer() {
            Ok(changer) => taken(changer.rollback(number, who, "by command", Default::default()).await),
            Err(why) => Err(why).into(),
        }
    }

    async fn restart(&self, what: Restart) -> Done {
        match what {
            Restart::Agent => match self.changer() {
                Ok(changer) => {
                    self.evidence.runs.because(Reason::Command);
                    Done { told: Ok("weir starts anew".to_owned()), after: Some(After::Restart(changer.clone())) }
                }
                Err(why) => Err(why).into(),
            },
            Restart::Modem => gateway::reset_modem(self).await.map(|()| "the modem starts anew".to_owned()).into(),
            Restart::Gateway => Err("the gateway is started again elsewhere".to_owned()).into(),
        }
    }

    fn with_modem(&self) -> Result<&Handle, String> {
        self.evidence.modem.as_ref().ok_or_else(|| "this gateway has no modem; set [modem] in weir.toml".to_owned())
    }

    async fn sms(&self, number: &str, text: &str) -> Result<String, String> {
        match self.with_modem()?.send(number, text).await.map_err(|error| error.to_string())? {
            Sent::Accepted { parts } => Ok(format!("sent in {parts} part{}", if parts == 1 { "" } else { "s" })),
            Sent::Refused { reason, .. } => Err(format!("the network refused it: {reason}")),
        }
    }

    /// Any other AT command: the modem answers it; without one the gateway tells what it knows by itself.
    async fn modem(&self, text: &str) -> Result<String, String> {
        if let Some(modem) = &self.evidence.modem {
            let lines = modem.command(text).await.map_err(|error| error.to_string())?;
            let (last, lines) = lines.split_last().ok_or("the modem said nothing")?;
            return if last == "OK" { Ok(lines.join("\n")) } else { Err(last.clone()) };
        }
        match (text.to_ascii_uppercase().as_str(), &self.identity.imei) {
            ("AT+CGSN", Some(imei)) => Ok(imei.clone()),
            _ => self.with_modem().map(|_| String::new()),
        }
    }

    async fn call_back(&self, place: &Place, target: &str, limit: Option<Duration>) -> Result<String, String> {
        let (port, _) = self.port(place)?;
        let (_, tunnel) = self.doors(port)?;
        let tunnel = tunnel.ok_or_else(|| format!("port \"{port}\" has no tunnel"))?;
        let (host, number) = target.rsplit_once(':').ok_or("write the centre as host:port")?;
        let number = number.parse().map_err(|_| "write the centre as host:port".to_owned())?;
        let (reply, told) = oneshot::channel();
        let order = tunnel::Order::CallBack { host: host.to_owned(), port: number, limit, reply };
        let ended = || "the tunnel has ended; ask again".to_owned();
        tunnel.orders.send(order).await.map_err(|_| ended())?;
        told.await.map_err(|_| ended())??;
        Ok(format!("{target} has {port}"))
    }

    fn history(&self) -> Result<String, String> {
        let lines = self
            .changer()?
            .history()
            .iter()
            .map(|entry| super::change::order::entry(entry).to_string())
            .collect::<Vec<_>>();
        Ok(lines.join("\n"))
    }

    async fn read(&self, meter: Option<String>) -> Result<String, String> {
        if let Some(meter) = meter {
            return match self.asks.answer(Ask::Read { meter }).await? {
                Answer::Whole(reading) => Ok(reading.to_string()),
                _ => Err("there is no reading".to_owned()),
            };
        }
        let wanted: Vec<_> = self.asks.meters.iter().map(|(meter, _)| meter.clone()).collect();
        let mut lines = Vec::new();
        for meter in wanted {
            match self.asks.answer(Ask::Read { meter }).await {
                Ok(Answer::Whole(reading)) => lines.push(reading.to_string()),
                Ok(_) => {}
                Err(why) => lines.push(why),
            }
        }
        Ok(lines.join("\n"))
    }

    async fn trace(&self, place: &Place, within: Duration) -> Result<String, String> {
        let (port, _) = self.port(place)?;
        let Answer::Trace(mut trace) = self.asks.answer(Ask::Trace { port: port.to_owned() }).await? else {
            return Err("there is no trace of this port".to_owned());
        };
        let mut events: Vec<Json> = Vec::new();
        let collect = async {
            while let Some(event) = trace.next().await {
                events.push(event);
                if events.len() >= MOST_EVENTS {
                    return;
                }
            }
        };
        let _ = timeout(within, collect).await;
        Ok(events.iter().map(Json::to_string).collect::<Vec<_>>().join("\n"))
    }

    async fn audited(&self, lines: u16) -> Result<String, String> {
        let audit = self.audit.clone();
        let newest = tokio::task::spawn_blocking(move || audit.newest(usize::from(lines))).await;
        let lines =
            newest.map_err(|error| error.to_string())?.map_err(|error| format!("the audit can't be read: {error}"))?;
        let here = self.by.starts_with("local:");
        let told = |mut line: Json| {
            if let Some(Json::String(who)) = line.get_mut("who")
                && !here
                && let Some(number) = who.strip_prefix("sms:")
            {
                *who = format!("sms:{}", masked_number(number));
            }
            line.to_string()
        };
        Ok(lines.into_iter().map(told).collect::<Vec<_>>().join("\n"))
    }

    /// The name and speed of a port.
    fn port(&self, place: &Place) -> Result<(&str, Speed), String> {
        let found = match place {
            Place::Number(number) => self.ports.get(usize::from(*number)),
            Place::Name(name) => self.ports.iter().find(|(port, _)| port == name),
        };
        let speeds = self.speeds.lock().unwrap_or_else(PoisonError::into_inner);
        let now = |name: &str, usual: Speed| speeds.get(name).copied().unwrap_or(usual);
        found.map(|(name, speed)| (name.as_str(), now(name, *speed))).ok_or_else(|| {
            let known: Vec<_> = self.ports.iter().enumerate().map(|(n, (port, _))| format!("{n} = {port}")).collect();
            format!("there is no such port; the ports are {}", known.join(", "))
        })
    }

    /// The door to a port's bus, and to its tunnel when it has one.
    fn doors(&self, port: &str) -> Result<(&bus::Handle, Option<&TunnelDoor>), String> {
        let bus = self.evidence.buses.iter().find(|bus| bus.port() == port);
        let bus = bus.ok_or_else(|| format!("port \"{port}\" is not open: it has no meter and no tunnel"))?;
        Ok((bus, self.evidence.tunnels.iter().find(|tunnel| tunnel.port == port)))
    }

    async fn set_speed(&self, place: &Place, baud: u32, framing: Option<&str>) -> Result<String, String> {
        let (port, usual) = self.port(place)?;
        let framing = match framing {
            Some(text) => {
                Framing::parse(text).ok_or_else(|| format!("\"{text}\" is no framing; write 8N1, 7E1 or the like"))?
            }
            None => usual.framing,
        };
        let (_, tunnel) = self.doors(port)?;
        let tunnel = tunnel
            .ok_or_else(|| format!("port \"{port}\" has no tunnel; its meters have their speeds in weir.toml"))?;
        let speed = Speed { baud, framing };
        tunnel::set_speed(&tunnel.orders, speed).await?;
        self.speeds.lock().unwrap_or_else(PoisonError::into_inner).insert(port.to_owned(), speed);
        Ok(format!("{port} has {baud} baud, {framing}"))
    }

    async fn read_modbus(&self, wanted: &Modbus) -> Result<String, String> {
        modbus::read(self, wanted).await
    }

    async fn write_modbus(&self, put: &Put) -> Result<String, String> {
        modbus::write(self, put).await
    }
}

fn taken(outcome: Result<Started, crate::config::change::Refusal>) -> Done {
    match outcome {
        Ok(started) => Done { told: Ok(started.sentence()), after: Some(After::Taken(started)) },
        Err(why) => Err(why.to_string()).into(),
    }
}
