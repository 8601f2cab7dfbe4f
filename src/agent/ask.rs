//! What a running agent can be asked, and its answers; whoever asks, by whatever way.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::change::Started;
use super::change::order::{self, Order};
use super::commands::{Reply, Told};
use super::permit::Permit;
use super::transfer::Transfer;
use super::{Evidence, permit, status};
use crate::config::change::Origin;
use crate::control::{self, Audit, Right};
use crate::meter::bus::Handle;
use crate::model::{Rssi, Stamp, TelegramKind, Timestamp, Value};
use crate::modem::Sent;
use crate::os::line::{Listener, Speed, Traced, What};
use crate::radio::{Security, Sight, Survey};
use crate::wire::wmbus::Meter;

/// A reading waits for the bus at most so long.
const READ_LIMIT: Duration = Duration::from_mins(5);
/// An order to a meter waits for the bus, and is under way, at most so long.
const INSPECT_LIMIT: Duration = Duration::from_mins(10);

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase", deny_unknown_fields)]
pub enum Ask {
    /// How every meter has been doing.
    Meters,
    /// Every receiver, and the radio meters that they hear, page by page.
    Radio {
        /// Where the page before ended: its `next`.
        #[serde(default)]
        after: Option<String>,
    },
    /// What every receiver has heard.
    Receivers,
    /// The values of one meter, now.
    Read {
        /// Its name.
        meter: String,
    },
    /// One object of a DLMS/COSEM meter, looked at or changed as `order` says.
    Dlms {
        /// The meter's name.
        meter: String,
        /// What `weir dlms` was told.
        order: Json,
    },
    /// Who has every port; with `sessions`, so many of the tunnels' newest sessions, too.
    Ports {
        /// How many.
        #[serde(default)]
        sessions: Option<usize>,
    },
    /// Every byte on a port from now on.
    Trace {
        /// Its name.
        port: String,
    },
    /// The configuration: how it stands, or a change of it.
    Config(Order),
    /// A command in AT style; the answer is its text.
    At {
        /// Such as `AT^WEIR=VERSION`.
        text: String,
    },
    /// The cellular modem: its state, a message, a command.
    Modem(ModemOrder),
}

/// What is wanted of the modem.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "order", rename_all = "lowercase", deny_unknown_fields)]
pub enum ModemOrder {
    /// How it does.
    Status,
    /// A short message.
    Send {
        /// To whom.
        number: String,
        /// What.
        text: String,
    },
    /// One AT command.
    At {
        /// Such as `AT+CSQ`.
        command: String,
    },
}

impl Ask {
    /// Reads a question such as `{"ask":"read","meter":"main"}`.
    ///
    /// # Errors
    /// One sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| {
            format!("{error}; ask {{\"ask\":\"meters\"}}, {{\"ask\":\"radio\"}}, {{\"ask\":\"receivers\"}}, {{\"ask\":\"read\",\"meter\":...}} {{\"ask\":\"dlms\",\"meter\":...}} or {{\"ask\":\"trace\",\"port\":...}}")
        })
    }
}

/// An answer.
#[derive(Debug)]
pub enum Answer {
    /// All of it.
    Whole(Json),
    /// All of it; the agent is started anew once it was told.
    Taken(Json, Started),
    /// What happens on a line, one event after the other, until nobody wants it any more.
    Trace(Trace),
    /// How far a transfer to a meter has come, again and again, and its answer at last.
    Transfer(Transfer),
}

/// Where questions are answered; clones share what they know.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    pub(super) evidence: Evidence,
    /// Every configured meter and its port.
    pub(super) meters: Vec<(String, String)>,
    /// Who asks.
    pub(super) who: Origin,
    /// Where commands go; `None`: who carries them out asks.
    pub(super) commands: Option<mpsc::Sender<Told>>,
    /// The sessions of the tunnels.
    pub(super) sessions: Audit,
}

impl Desk {
    /// Answers a question; an error is one sentence.
    pub(super) async fn answer(&self, ask: Ask) -> Result<Answer, String> {
        match ask {
            Ask::Meters => Ok(Answer::Whole(self.meters())),
            Ask::Radio { after } => {
                let receivers = status::receivers(&self.evidence.receivers);
                let (survey_of, now) = (&self.evidence.survey, self.evidence.clock.stamp());
                survey(receivers, survey_of, now, after.as_deref()).map(Answer::Whole)
            }
            Ask::Receivers => Ok(Answer::Whole(status::receivers(&self.evidence.receivers))),
            Ask::Read { meter } => {
                let permit = self.permit((format!("read {meter}"), Right::Read)).await?;
                noted(permit, self.read(&meter).await).await.map(Answer::Whole)
            }
            Ask::Dlms { meter, order } if order.get("image").is_some_and(|image| !image.is_null()) => {
                let (port, bus) = self.bus_of(&meter)?;
                let about = format!("meter \"{meter}\" on port \"{port}\"");
                let permit = self.permit(deed(&meter, &order)).await?;
                Ok(Answer::Transfer(Transfer::start(bus.clone(), meter, order, (about, permit))))
            }
            Ask::Dlms { meter, order } => {
                let permit = self.permit(deed(&meter, &order)).await?;
                noted(permit, self.inspect(&meter, order).await).await.map(Answer::Whole)
            }
            Ask::Ports { sessions } => self.ports(sessions).await.map(Answer::Whole),
            Ask::Trace { port } => {
                let permit = self.permit((format!("trace {port}"), Right::Read)).await?;
                noted(permit, self.trace(&port)).await.map(Answer::Trace)
            }
            Ask::Config(order) => self.configure(order).await,
            Ask::At { text } => self.command(text).await.map(Answer::Whole),
            Ask::Modem(order) => self.modem(order).await.map(Answer::Whole),
        }
    }

    async fn configure(&self, order: Order) -> Result<Answer, String> {
        let Some(changer) = &self.evidence.changer else {
            return Err("this agent's configuration can't be changed while it runs".to_owned());
        };
        if let Some(why) = self.evidence.dogs.fetching().filter(|_| order.is_change()) {
            return Err(why.to_owned());
        }
        let permit = if order.is_change() { self.permit((order.summary(), Right::Configure)).await? } else { None };
        let (changer, who) = (changer.clone(), self.who.clone());
        // Who asked may hang up meanwhile: a change that is taken is in the audit as taken, all the same.
        let doing = async move { noted(permit, order::carry_out(&changer, order, who).await).await };
        let done = tokio::spawn(doing).await;
        let (told, started) = done.map_err(|_| "weir is ending; ask again when it runs".to_owned())??;
        Ok(match started {
            Some(started) => Answer::Taken(told, started),
            None => Answer::Whole(told),
        })
    }

    async fn command(&self, text: String) -> Result<Json, String> {
        let ended = || "the running agent takes no commands just now; ask again".to_owned();
        let commands = self.commands.as_ref().ok_or_else(ended)?;
        let (reply, told) = oneshot::channel();
        commands
            .send(Told { text: text.into_bytes(), origin: self.origin(), reply: Reply::Local(reply) })
            .await
            .map_err(|_| ended())?;
        told.await
            .map(|text| json!({ "reply": text }))
            .map_err(|_| "this user may give no commands, or the command was for another gateway".to_owned())
    }

    async fn modem(&self, order: ModemOrder) -> Result<Json, String> {
        let modem = self.evidence.modem.as_ref().ok_or("the running agent has no modem; set [modem]")?;
        let permit = match &order {
            ModemOrder::Status => None,
            ModemOrder::Send { number, .. } => {
                let who = control::Origin::Phone(number.clone());
                self.permit((format!("modem send to {who}"), Right::Write)).await?
            }
            // As the same command by any other way.
            ModemOrder::At { command } => {
                let shown: String = command.split('=').next().unwrap_or_default().chars().take(64).collect();
                let right = control::Command::Modem(command.clone()).right();
                self.permit((format!("modem {shown}"), right)).await?
            }
        };
        noted(permit, self.order_modem(modem, order).await).await
    }

    async fn order_modem(&self, modem: &crate::modem::Handle, order: ModemOrder) -> Result<Json, String> {
        match order {
            ModemOrder::Status => {
                serde_json::to_value(modem.status().borrow().clone()).map_err(|error| error.to_string())
            }
            ModemOrder::Send { number, text } => match modem.send(&number, &text).await {
                Ok(Sent::Accepted { parts }) => Ok(json!({ "parts": parts })),
                Ok(Sent::Refused { parts, reason }) => Ok(json!({ "parts": parts, "refused": reason })),
                Err(error) => Err(error.to_string()),
            },
            ModemOrder::At { command } => {
                let lines = modem.command(&command).await.map_err(|error| error.to_string())?;
                Ok(json!({ "lines": lines }))
            }
        }
    }

    /// Who asks, as the one judge knows him.
    fn origin(&self) -> control::Origin {
        control::Origin::Local(self.who.to_string().trim_start_matches("local:").to_owned())
    }

    /// Asks whether it may be done; a command that was let through needs no other permit.
    async fn permit(&self, deed: (String, Right)) -> Result<Option<Permit>, String> {
        match &self.commands {
            Some(door) => permit::ask(door, self.origin(), deed).await.map(Some),
            None => Ok(None),
        }
    }

    /// Every configured meter, also one that was not asked yet, with its port.
    fn meters(&self) -> Json {
        let mut told = status::meters(&self.evidence);
        for (meter, port) in &self.meters {
            let members = told.as_object_mut().map(|m| m.entry(meter.clone()).or_insert_with(|| json!({})));
            if let Some(member) = members.and_then(Json::as_object_mut) {
                member.insert("port".into(), json!(port));
            }
        }
        told
    }

    async fn read(&self, meter: &str) -> Result<Json, String> {
        let (port, bus) = self.bus_of(meter)?;
        let values = timeout(READ_LIMIT, bus.read(meter))
            .await
            .map_err(|_| format!("port \"{port}\" had no time for meter \"{meter}\" within 5 minutes"))?
            .map_err(|error| format!("meter \"{meter}\" on port \"{port}\": {error}"))?;
        Ok(reading(meter, self.evidence.clock.now(), &values))
    }

    async fn ports(&self, sessions: Option<usize>) -> Result<Json, String> {
        let ports = super::ports::told(&self.evidence);
        let Some(wanted) = sessions else { return Ok(json!({ "ports": ports })) };
        let audit = self.sessions.clone();
        let newest =
            tokio::task::spawn_blocking(move || audit.newest(wanted)).await.map_err(|error| error.to_string())?;
        let newest = newest.map_err(|error| format!("the audit of sessions can't be read: {error}"))?;
        Ok(json!({ "ports": ports, "sessions": newest }))
    }

    async fn inspect(&self, meter: &str, order: Json) -> Result<Json, String> {
        let (port, bus) = self.bus_of(meter)?;
        let answer = timeout(INSPECT_LIMIT, bus.inspect(meter, order)).await;
        answer
            .map_err(|_| format!("port \"{port}\" had no time for meter \"{meter}\" within 10 minutes"))?
            .map_err(|error| format!("meter \"{meter}\" on port \"{port}\": {error}"))
    }

    /// The port of a meter and its bus.
    fn bus_of(&self, meter: &str) -> Result<(&str, &Handle), String> {
        let Some((_, port)) = self.meters.iter().find(|(name, _)| name == meter) else {
            let known: Vec<_> = self.meters.iter().map(|(name, _)| name.as_str()).collect();
            return Err(format!("the running agent has no meter \"{meter}\"; known: {}", known.join(", ")));
        };
        let bus = self.bus(port).ok_or_else(|| format!("meter \"{meter}\" sends by itself and can't be asked"))?;
        Ok((port, bus))
    }

    fn trace(&self, port: &str) -> Result<Trace, String> {
        let Some(bus) = self.bus(port) else {
            let known: Vec<_> = self.evidence.buses.iter().map(Handle::port).collect();
            return Err(format!(
                "the running agent asks no meter on a port \"{port}\"; it asks on: {}",
                known.join(", ")
            ));
        };
        Ok(Trace::new(bus.tap().listen()))
    }

    fn bus(&self, port: &str) -> Option<&Handle> {
        self.evidence.buses.iter().find(|bus| bus.port() == port)
    }
}

/// Notes what became of something that was permitted.
async fn noted<T>(permit: Option<Permit>, outcome: Result<T, String>) -> Result<T, String> {
    if let Some(permit) = permit {
        permit.told(&outcome).await;
    }
    outcome
}

/// An order to a meter: how the audit shows it, and what one must be allowed to do.
fn deed(meter: &str, order: &Json) -> (String, Right) {
    let given = |name: &str| order.get(name).is_some_and(|value| !value.is_null() && *value != json!(false));
    let object = order.get("object").and_then(Json::as_str).unwrap_or_default();
    let what = ["image", "rekey", "set", "action", "set_clock", "first_counter"].into_iter().find(|name| given(name));
    let right = match what {
        Some("image") => Right::Firmware,
        Some(_) => Right::Write,
        None => Right::Read,
    };
    (format!("dlms {meter} {object} {}", what.unwrap_or("read")), right)
}

/// Meters on a page.
const PAGE: usize = 256;

/// A page of who is heard by radio, by manufacturer and number: the meters behind `after`, and in `next` what to ask
/// for then; null at the end.
///
/// # Errors
/// When `after` was in no page's `next`.
pub fn survey(receivers: Json, survey: &Survey, now: Stamp, after: Option<&str>) -> Result<Json, String> {
    let place = |text: &str| {
        let digits = data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?;
        Some(Meter::from_wire(digits.try_into().ok()?))
    };
    let after = after.map(|text| place(text).ok_or_else(|| "after is not what next was".to_owned())).transpose()?;
    let (sights, more) = survey.page(after, PAGE);
    let last = sights.last().filter(|_| more).map(|sight| data_encoding::HEXLOWER.encode(&sight.meter.to_wire()));
    let meters: Vec<_> = sights.iter().map(|sight| sighted(sight, now)).collect();
    Ok(json!({ "timestamp": now.wall.to_string(), "receivers": receivers, "meters": meters, "next": last }))
}

/// A radio meter as `weir radio --json` prints it.
fn sighted(sight: &Sight, now: Stamp) -> Json {
    let meant = sight.meter.as_meant();
    let mut told = json!({
        "meter": sight.name(),
        "manufacturer": meant.letters(),
        "id": meant.number(),
        "version": meant.version,
        "type": meant.device,
        "device": meant.device_name(),
        "frametype": match sight.kind {
            TelegramKind::OpenlinkIq => "OpenlinkIQ",
            TelegramKind::WirelessMbus => "wM-Bus",
        },
        "first_heard": sight.first.wall.to_string(),
        "last_heard": sight.last.wall.to_string(),
        "telegrams": sight.telegrams,
        "copies": sight.copies,
        "urgent": sight.urgent,
        "interval_s": sight.interval.map(|millis| (millis + 500) / 1000),
        "expected": sight.expected(now),
        "heard_percent": sight.share(now),
        "security": match sight.security {
            Security::None => json!("none"),
            Security::Link => json!("ell"),
            Security::Mode(mode) => json!(format!("mode {mode}")),
        },
        "forwarded": sight.wanted,
        "receiver": &*sight.receiver,
        "receivers": sight.receivers.iter().map(|name| &**name).collect::<Vec<_>>(),
        "edge": sight.edge(now),
    });
    let signal = &sight.signal;
    let levels =
        [("best", signal.best()), ("worst", signal.worst()), ("median", signal.median()), ("last", signal.last())];
    for (which, rssi) in levels {
        let (dbm, relative) = match rssi {
            Some(Rssi::Dbm(dbm)) => (json!(dbm), Json::Null),
            Some(Rssi::Relative(level)) => (Json::Null, json!(level)),
            None => (Json::Null, Json::Null),
        };
        if let Some(members) = told.as_object_mut() {
            members.insert(format!("rssi_{which}"), dbm);
            members.insert(format!("rssirelative_{which}"), relative);
        }
    }
    told
}

/// A reading as JSON, as `weir read --json` prints it.
pub fn reading(meter: &str, time: Timestamp, values: &[Value]) -> Json {
    let value = |v: &Value| json!({ "name": v.name, "value": v.value, "unit": v.unit, "quality": v.quality.word() });
    json!({ "meter": meter, "timestamp": time.to_string(), "values": values.iter().map(value).collect::<Vec<_>>() })
}

/// What happens on a line, as JSON: `at` counts microseconds from the first event's beginning on.
#[derive(Debug)]
pub struct Trace {
    listener: Listener,
    begun: Instant,
}

impl Trace {
    /// Begins now.
    pub fn new(listener: Listener) -> Self {
        Self { listener, begun: Instant::now() }
    }

    /// Waits for the next event; `None` when the port is closed for good.
    pub async fn next(&mut self) -> Option<Json> {
        let Traced { at, what } = self.listener.next().await?;
        let at = u64::try_from(at.saturating_duration_since(self.begun).as_micros()).unwrap_or(u64::MAX);
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let speed = |speed: Speed| format!("{} {}", speed.baud, speed.framing);
        Some(match what {
            What::Opened(at_speed) => json!({ "at": at, "what": "opened", "speed": speed(at_speed) }),
            What::Closed => json!({ "at": at, "what": "closed" }),
            What::Speed(new) => json!({ "at": at, "what": "speed", "speed": speed(new) }),
            What::Sent(bytes) => json!({ "at": at, "what": "sent", "hex": hex(&bytes) }),
            What::Received(bytes) => json!({ "at": at, "what": "received", "hex": hex(&bytes) }),
            What::Missed(events) => json!({ "at": at, "what": "missed", "events": events }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_strictly_and_a_mistake_says_what_can_be_asked() {
        assert_eq!(Ask::parse("{\"ask\":\"meters\"}"), Ok(Ask::Meters));
        assert_eq!(Ask::parse("{\"ask\":\"radio\"}"), Ok(Ask::Radio { after: None }));
        assert_eq!(Ask::parse("{\"ask\":\"receivers\"}"), Ok(Ask::Receivers));
        assert_eq!(Ask::parse("{\"ask\":\"read\",\"meter\":\"m\"}"), Ok(Ask::Read { meter: "m".into() }));
        assert_eq!(Ask::parse("{\"ask\":\"trace\",\"port\":\"p\"}"), Ok(Ask::Trace { port: "p".into() }));
        for bad in ["", "{}", "[]", "{\"ask\":\"write\"}", "{\"ask\":\"read\"}", "{\"ask\":\"read\",\"meter\":1}"] {
            assert!(Ask::parse(bad).unwrap_err().contains("{\"ask\":\"meters\"}"), "{bad}");
        }
    }
}
