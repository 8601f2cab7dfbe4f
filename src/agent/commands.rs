//! Hears commands wherever they come from, has them judged and carried out, and sends the answers back.
//!
//! Invariants: commands are judged in their order, and those of one origin are carried out one after the other; at most [`AT_ONCE`] are
//! under way and [`WAITING`] wait, more are refused; nobody's command or answer holds up others. An answer is on its way before weir starts anew because of its command.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::orders::{Lock, Orders};
use super::permit::{Permit, Turns};
use super::status::Teller;
use super::wiring::Evidence;
use super::{Agent, SESSIONS, ask, phone};
use crate::config::Settings;
use crate::control::{Audit, Command, ControlSettings, Desk, Origin, Right, SmsSettings, Verdict};
use crate::meter::{self, modbus};
use crate::modem::{Handle, Incoming, Modem, ModemSettings, Sent};
use crate::os::line::Speed;
use crate::setting::{Identity, Setting};
use crate::uplink::{Saying, Speaker};

/// Commands that may wait.
pub(super) const WAITING: usize = 16;
/// Commands that are carried out at once.
const AT_ONCE: usize = 4;
/// An answer that could not be published for so long is of no use any more.
const OF_USE: Duration = Duration::from_mins(5);
/// The answer leaves with the session that is about to end.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A command as it came.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) text: Vec<u8>,
    pub(super) origin: Origin,
    pub(super) reply: Reply,
}

/// Where an answer goes.
#[derive(Debug)]
pub(super) enum Reply {
    /// To the reply topic, where there is one.
    Topic,
    /// To who waits here.
    Local(oneshot::Sender<String>),
    /// To who orders something at the local door that is no text: whether he may.
    Deed { right: Right, tell: oneshot::Sender<Result<Permit, String>> },
    /// Onto the line that the command came from.
    Line(mpsc::Sender<String>),
    /// By SMS, when that is wished; an alias may have words of its own for it.
    Phone { number: String, alias: bool },
    /// What a device answered, by SMS, without the words around it.
    Port { number: String },
}

/// What commands need, made before the ports are there.
pub(super) struct Commands {
    pub(super) door: mpsc::Sender<Told>,
    pub(super) lock: Lock,
    heard: mpsc::Receiver<Told>,
}

impl Commands {
    pub(super) fn new(settings: &Settings) -> Self {
        let (door, heard) = mpsc::channel(WAITING);
        Self { door, lock: Lock::open(folder(settings).join("locked")), heard }
    }
}

/// Starts the modem when there is one.
pub(super) fn start_modem(
    agent: &mut Agent,
    settings: &Settings,
    board: Option<PathBuf>,
) -> Option<mpsc::Receiver<Incoming>> {
    let by_sms = || settings.control.sms.modem.as_ref().and_then(|_| ModemSettings::stand_in());
    let mut wanted = settings.modem.clone().or_else(by_sms)?;
    if let (None, Some(device)) = (&wanted.device, &settings.control.sms.modem) {
        wanted.device = Some(crate::setting::At::nowhere(device.display().to_string()));
    }
    let (tell, incoming) = mpsc::channel(WAITING);
    let folder = settings.store.path.join(SESSIONS);
    match Modem::new(wanted, board, folder, agent.evidence.clock.clone(), tell) {
        Ok((modem, handle)) => {
            agent.evidence.modem = Some(handle);
            agent.inputs.start("modem", move || modem.clone().run());
            Some(incoming)
        }
        Err(error) => {
            tracing::error!(%error, "the modem can't be used");
            None
        }
    }
}

/// Starts the room; all ports and tunnels run already.
pub(super) fn start(
    agent: &mut Agent,
    settings: &Settings,
    (identity, speaker): (&Identity, Option<Speaker>),
    (commands, incoming): (Commands, Option<mpsc::Receiver<Incoming>>),
) {
    let control = &settings.control;
    let Commands { door, lock, heard } = commands;
    let orders = orders(agent, settings, identity, lock);
    super::seals::look(settings, &orders.audit, orders.evidence.clock.stamp());
    let reply_topic = control.reply_topic.as_ref().and_then(|topic| topic.of(identity));
    let desk = Arc::new(Mutex::new((Desk::new(control, identity), heard)));
    let answers = Answers { speaker, reply_topic, modem: agent.evidence.modem.clone(), sms: control.sms.clone() };
    agent.inputs.start("commands", move || {
        let (desk, orders, answers) = (desk.clone(), orders.clone(), answers.clone());
        async move { serve(&desk, &orders, &answers).await }
    });
    if let Some(incoming) = incoming {
        phone::start(agent, settings, identity, (&door, incoming));
    }
}

/// Where commands keep what outlives a restart.
fn folder(settings: &Settings) -> PathBuf {
    settings.store.path.join("control")
}

fn orders(agent: &Agent, settings: &Settings, identity: &Identity, lock: Lock) -> Orders {
    let evidence: Evidence = agent.evidence.clone();
    let control: &ControlSettings = &settings.control;
    let meters = settings.meter.iter().map(|m| (m.name.to_string(), m.port.to_string())).collect();
    let framing = |m: &meter::MeterSettings| {
        let framing = match m.protocol.as_str() {
            "modbus-rtu" => modbus::Framing::Rtu,
            "modbus-ascii" => modbus::Framing::Ascii,
            "modbus-tcp" => modbus::Framing::Tcp,
            _ => return None,
        };
        Some((m.port.to_string(), framing))
    };
    Orders {
        by: "".into(),
        unlock: false,
        asks: ask::Desk {
            evidence: evidence.clone(),
            meters,
            who: crate::config::change::Origin::of("command", ""),
            commands: None,
            sessions: Audit::new(folder(settings).join(super::sessions::FILE)),
        },
        teller: Teller::new(&agent.store, &agent.evidence, settings, (identity, &lock)),
        evidence,
        identity: identity.clone(),
        ports: settings
            .port
            .iter()
            .map(|port| (port.name.to_string(), Speed { baud: port.baud.value(), framing: port.framing }))
            .collect(),
        modbus: settings.meter.iter().filter_map(framing).collect(),
        folder: settings.store.path.clone(),
        certificates: Arc::default(),
        audit: Audit::new(folder(settings).join("audit")),
        lock,
        speeds: Arc::default(),
        serial_answer: *control.serial_answer,
    }
}

/// How answers go back.
#[derive(Debug, Clone)]
struct Answers {
    speaker: Option<Speaker>,
    reply_topic: Option<String>,
    modem: Option<Handle>,
    sms: SmsSettings,
}

impl Answers {
    async fn give(self, text: String, failed: bool, reply: Reply) {
        match reply {
            Reply::Topic => {
                let (Some(speaker), Some(topic)) = (&self.speaker, &self.reply_topic) else { return };
                let until = Some(Instant::now() + OF_USE);
                let _ = speaker.say(Saying { topic: topic.clone(), payload: text.into_bytes(), until }).await;
            }
            // Who asked has gone.
            Reply::Local(reply) => drop(reply.send(text)),
            // Answered where it is judged.
            Reply::Deed { .. } => {}
            // A line that takes no answers does not want them.
            Reply::Line(line) => drop(line.try_send(text)),
            Reply::Phone { number, alias } => {
                let Some(modem) = self.modem.as_ref().filter(|_| self.sms.reply) else { return };
                let text = match alias {
                    true if failed => self.sms.alias_error.clone(),
                    true if self.sms.alias_response != "result" => self.sms.alias_response.clone(),
                    _ => text,
                };
                by_sms(modem, &number, text).await;
            }
            Reply::Port { number } => {
                let Some(modem) = self.modem.as_ref() else { return };
                by_sms(modem, &number, device_said(&text)).await;
            }
        }
    }
}

async fn by_sms(modem: &Handle, number: &str, text: String) {
    match modem.send(number, &fitting(text)).await {
        Ok(Sent::Accepted { .. }) => {}
        Ok(Sent::Refused { reason, .. }) => tracing::warn!(reason, "an answer by SMS was refused"),
        Err(error) => tracing::warn!(%error, "an answer by SMS could not be sent"),
    }
}

/// The inside of an answer that is JSON.
fn device_said(answer: &str) -> String {
    let told: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
    let said = ["reply", "error"].into_iter().find_map(|name| told.get(name)?.as_str());
    said.unwrap_or(answer).to_owned()
}

/// What fits into a few messages.
fn fitting(text: String) -> String {
    const LONGEST: usize = 450;
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST).chain(" ... (cut; ask by MQTT)".chars()).collect()
}

async fn serve(
    desk: &Mutex<(Desk, mpsc::Receiver<Told>)>,
    orders: &Orders,
    answers: &Answers,
) -> Result<(), Infallible> {
    let mut desk = desk.lock().await;
    let (desk, heard) = &mut *desk;
    let (places, room) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(Semaphore::new(WAITING)));
    let (mut under_way, mut turns) = (JoinSet::new(), Turns::default());
    while let Some(Told { text, origin, reply }) = heard.recv().await {
        while under_way.try_join_next().is_some() {}
        if let Reply::Deed { right, tell } = reply {
            admit(desk, orders, (&String::from_utf8_lossy(&text), right, &origin), tell).await;
            continue;
        }
        match desk.judge(&text, &origin, &orders.evidence.clock.stamp(), orders.lock.is_locked()) {
            Verdict::Ignored => {}
            // An answer may take long (an SMS does): nobody waits for that.
            Verdict::Answered { reply: text } => drop(under_way.spawn(answers.clone().give(text, false, reply))),
            Verdict::Refused { reply: text, entry } => {
                orders.note(entry).await;
                if let Some(text) = text {
                    under_way.spawn(answers.clone().give(text, true, reply));
                }
            }
            // What is judged next must see it.
            Verdict::Do(errand) if matches!(errand.command, Command::Lock | Command::Unlock) => {
                let (text, failed, _after) = orders.carry_out(errand).await;
                under_way.spawn(answers.clone().give(text, failed, reply));
            }
            Verdict::Do(errand) => {
                let Ok(waiting) = room.clone().try_acquire_owned() else {
                    let text = errand.letter.failed("too much is under way; ask again in a minute");
                    under_way.spawn(answers.clone().give(text, true, reply));
                    continue;
                };
                // Here one waits for each answer before he asks again; who traces wants to see what he does meanwhile; a
                // firmware may take an hour on its way.
                let aside = matches!(errand.command, Command::Trace { .. } | Command::Update { .. });
                let alone = aside || matches!(origin, Origin::Local(_));
                let turn = (!alone).then(|| turns.take(&origin));
                let (orders, answers, places) = (orders.clone(), answers.clone(), places.clone());
                under_way.spawn(async move {
                    let mut turn = turn;
                    if let Some(turn) = &mut turn {
                        turn.comes().await;
                    }
                    let Ok(place) = places.acquire_owned().await else { return };
                    let (text, failed, after) = orders.carry_out(errand).await;
                    answers.give(text, failed, reply).await;
                    if after.is_some() {
                        sleep(LAST_WORD).await;
                    }
                    drop((after, place, turn, waiting));
                });
            }
        }
    }
    Ok(())
}

/// Judges what is ordered by other means than a text.
async fn admit(
    desk: &Desk,
    orders: &Orders,
    (what, right, origin): (&str, Right, &Origin),
    tell: oneshot::Sender<Result<Permit, String>>,
) {
    let permit = match desk.admit(what, right, origin, orders.lock.is_locked()) {
        Ok(entry) => {
            orders.begin(&entry, right).await;
            Ok(Permit::new(entry, orders.clone()))
        }
        Err(entry) => {
            let sentence = entry.detail.clone();
            orders.note(*entry).await;
            Err(sentence)
        }
    };
    // Who went away meanwhile is in the audit, too: the permit notes it.
    drop(tell.send(permit));
}
