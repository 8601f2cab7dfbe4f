//! Hears commands wherever they come from, has them judged and carried out, and sends the answers back.
//!
//! Invariants: commands are judged and begun in their order; at most [`AT_ONCE`] are under way, more are refused; nobody's command or
//! answer holds up others. An answer is on its way before weir starts anew because of its command.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::orders::{Lock, Orders};
use super::wiring::Evidence;
use super::{Agent, SESSIONS, ask};
use crate::config::Settings;
use crate::control::{Audit, Command, ControlSettings, Desk, Origin, SmsSettings, Verdict};
use crate::meter::{self, modbus};
use crate::model::ClockState;
use crate::modem::{Handle, Incoming, Modem, Sent};
use crate::os::clock::Clock;
use crate::os::line::Speed;
use crate::setting::Identity;
use crate::uplink::{Saying, Speaker};

/// Commands that may wait.
pub(super) const WAITING: usize = 16;
/// Commands that are carried out at once.
const AT_ONCE: usize = 4;
/// An answer that could not be published for so long is of no use any more.
const OF_USE: Duration = Duration::from_mins(5);
/// An SMS that the network held back for longer is not obeyed.
const OLDEST: Duration = Duration::from_mins(30);
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
    /// By SMS, when that is wished; an alias may have words of its own for it.
    Phone { number: String, alias: bool },
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
    let mut wanted = settings.modem.clone()?;
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
    let reply_topic = control.reply_topic.as_ref().and_then(|topic| topic.of(identity));
    let desk = Arc::new(Mutex::new((Desk::new(control, identity), heard)));
    let answers = Answers { speaker, reply_topic, modem: agent.evidence.modem.clone(), sms: control.sms.clone() };
    agent.inputs.start("commands", move || {
        let (desk, orders, answers) = (desk.clone(), orders.clone(), answers.clone());
        async move { serve(&desk, &orders, &answers).await }
    });
    if let Some(incoming) = incoming {
        let (incoming, sms) = (Arc::new(Mutex::new(incoming)), control.sms.clone());
        let clock = agent.evidence.clock.clone();
        agent.inputs.start("messages", move || {
            let (incoming, sms, door, clock) = (incoming.clone(), sms.clone(), door.clone(), clock.clone());
            async move { hear_phone(&mut *incoming.lock().await, &sms, (&door, &clock)).await }
        });
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
        asks: ask::Desk {
            evidence: evidence.clone(),
            meters,
            who: crate::config::change::Origin::of("command", ""),
            commands: None,
            lock: lock.clone(),
        },
        evidence,
        store: agent.store.clone(),
        identity: identity.clone(),
        ports: settings
            .port
            .iter()
            .map(|port| (port.name.to_string(), Speed { baud: port.baud.value(), framing: port.framing }))
            .collect(),
        modbus: settings.meter.iter().filter_map(framing).collect(),
        audit: Audit::new(folder(settings).join("audit")),
        lock,
        speeds: Arc::default(),
        serial_answer: *control.serial_answer,
        started: Instant::now(),
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
            Reply::Phone { number, alias } => {
                let Some(modem) = self.modem.as_ref().filter(|_| self.sms.reply) else { return };
                let text = match alias {
                    true if failed => self.sms.alias_error.clone(),
                    true if self.sms.alias_response != "result" => self.sms.alias_response.clone(),
                    _ => text,
                };
                match modem.send(&number, &fitting(text)).await {
                    Ok(Sent::Accepted { .. }) => {}
                    Ok(Sent::Refused { reason, .. }) => tracing::warn!(reason, "an answer by SMS was refused"),
                    Err(error) => tracing::warn!(%error, "an answer by SMS could not be sent"),
                }
            }
        }
    }
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
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut under_way = JoinSet::new();
    while let Some(Told { text, origin, reply }) = heard.recv().await {
        while under_way.try_join_next().is_some() {}
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
                let Ok(place) = places.clone().try_acquire_owned() else {
                    let text = errand.letter.failed("too much is under way; ask again in a minute");
                    under_way.spawn(answers.clone().give(text, true, reply));
                    continue;
                };
                let (orders, answers) = (orders.clone(), answers.clone());
                under_way.spawn(async move {
                    let (text, failed, after) = orders.carry_out(errand).await;
                    answers.give(text, failed, reply).await;
                    if after.is_some() {
                        sleep(LAST_WORD).await;
                    }
                    drop((after, place));
                });
            }
        }
    }
    Ok(())
}

/// Brings what comes by phone to the commands.
async fn hear_phone(
    incoming: &mut mpsc::Receiver<Incoming>,
    sms: &SmsSettings,
    (door, clock): (&mpsc::Sender<Told>, &Clock),
) -> Result<(), Infallible> {
    while let Some(came) = incoming.recv().await {
        let Incoming::Sms { from, text, at } = came else { continue };
        if !sms.enabled {
            continue;
        }
        let now = clock.stamp();
        if now.clock == ClockState::Synced && now.wall.since(at) > OLDEST {
            tracing::warn!(sent = %at, "an SMS came too late to be obeyed; send it again");
            continue;
        }
        let Some((text, alias)) = sms.command_in(&text) else {
            tracing::info!("an SMS that is no command was heard");
            continue;
        };
        let told = Told {
            text: text.into_bytes(),
            origin: Origin::Phone(from.clone()),
            reply: Reply::Phone { number: from, alias },
        };
        if door.send(told).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
