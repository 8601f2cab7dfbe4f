//! The session with one meter: a reading of its values.
//!
//! Invariants: an association that was opened is released, whatever happened in it; it is never held longer than
//! `longest_session`; a value that the meter refuses is null with its quality, and the others are read.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::association::Association;
use super::clock::{Place, Watch};
use super::dlms;
use super::known::Known;
use super::object::{Objects, Target, scaled, value_attributes};
use super::profile::Plan;
use super::service::{Answer, Services, Talk, damage, quality};
use super::settings::DlmsSettings;
use crate::meter::{Inspector, Kept, MeterError, MeterSettings, Profile, Reply, Session, Writer};
use crate::model::{Quality, Value};
use crate::os::clock::Clock;
use crate::os::line::Line;
use crate::wire::dlms::{AttributeDescriptor, LogicalName};

/// What every meter shows to everybody (IEC 62056-6-1, clause 6.2.31).
const DEVICE_NAME: Target = Target { class: Some(1), name: LogicalName::new(0, 0, 42, 0, 0, 255), attribute: None };
/// How long a release may take.
const FAREWELL: Duration = Duration::from_secs(30);
/// What is left of `longest_session` for setting a clock and reading it back.
pub(super) const QUICK: Duration = Duration::from_secs(5);
const PROFILE: u16 = 7;
/// The most values of a reading.
const MOST: usize = 2000;

/// Makes the session.
///
/// # Errors
/// One sentence that says what is wrong with the settings.
pub(super) fn session(settings: &MeterSettings) -> Result<Box<dyn Session>, String> {
    Ok(Box::new(Client::new(settings)?))
}

/// A client of one meter.
pub(super) struct Client {
    pub(super) association: Association,
    pub(super) talk: Talk,
    pub(super) known: Known,
    pub(super) settings: DlmsSettings,
    pub(super) meter: String,
    /// Minutes that the meter's clock is east of UTC when it does not say it.
    pub(super) east: i16,
    /// What to read, with the names of the settings; empty for everything.
    wanted: Vec<(String, Target)>,
    /// The names of the last reading of everything.
    seen: Vec<String>,
    pub(super) plan: Option<Plan>,
    pub(super) watch: Watch,
    /// How many blocks of an image were transferred, of how many.
    pub(super) progress: watch::Sender<(u32, u32)>,
}

/// A value to read.
struct Item {
    name: String,
    attribute: Option<AttributeDescriptor>,
}

impl Client {
    /// Prepares it.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the settings.
    pub(super) fn new(settings: &MeterSettings) -> Result<Self, String> {
        let own = dlms(settings)?;
        let wanted = settings.values.iter().map(|text| Target::parse(text).map(|target| (text.clone(), target)));
        Ok(Self {
            association: Association::new(settings)?,
            talk: Talk::default(),
            known: Known::new(&settings.name, own.client.value(), own.server.value()),
            meter: settings.name.to_string(),
            east: settings.utc_offset.minutes(),
            wanted: wanted.collect::<Result<_, _>>()?,
            seen: Vec::new(),
            plan: Plan::of(settings)?,
            watch: Watch::new(&settings.name, &own.clock),
            settings: own,
            progress: watch::Sender::new((0, 0)),
        })
    }

    /// The services of the open association, and what is known of the meter.
    pub(super) const fn open_services<'a>(&'a mut self, line: &'a mut Line) -> (Services<'a>, &'a mut Known) {
        (Services::new(&mut self.association, line, &mut self.talk), &mut self.known)
    }

    /// Opens the association.
    ///
    /// # Errors
    /// What the line or the meter said; nothing is open then.
    pub(super) async fn open(&mut self, line: &mut Line) -> Result<(), MeterError> {
        match timeout(self.settings.longest_session, self.association.open(line)).await {
            Ok(result) => result,
            Err(_) => {
                self.close(line).await;
                Err(damage("the association was not opened within longest_session"))
            }
        }
    }

    /// Releases the association, as far as the meter still listens.
    pub(super) async fn close(&mut self, line: &mut Line) {
        // A meter that is busy for ever must not hold the line of others.
        let _ = timeout(FAREWELL, self.association.close(line)).await;
    }

    async fn read_all(&mut self, line: &mut Line) -> Result<Vec<Value>, MeterError> {
        self.open(line).await?;
        let until = Instant::now() + self.settings.longest_session;
        let result = timeout_at(until, self.read_open(line)).await;
        if let Ok(Ok((_, true))) = &result {
            match timeout_at(until, self.watch_clock(line, until)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(meter = %self.meter, %error, "the meter's clock could not be looked at"),
                Err(_) => debug!(meter = %self.meter, "the meter's clock was not looked at within longest_session"),
            }
        }
        self.close(line).await;
        let result = result.unwrap_or_else(|_| Err(damage("the reading was not done within longest_session")));
        result.map(|(values, _)| values)
    }

    async fn watch_clock(&mut self, line: &mut Line, until: Instant) -> Result<(), MeterError> {
        let profiles = self.profiles();
        let place = Place { east: self.east, profiles: &profiles, until: until - QUICK };
        let mut services = Services::new(&mut self.association, line, &mut self.talk);
        self.watch.look(&mut services, &place).await
    }

    /// The meter's profiles, as far as they are known.
    pub(super) fn profiles(&self) -> Vec<LogicalName> {
        let listed = self.known.objects().into_iter().flat_map(Objects::iter).filter(|o| o.class == PROFILE);
        let mut names: Vec<_> = self.plan.iter().map(Plan::name).chain(listed.map(|object| object.name)).collect();
        names.dedup();
        names
    }

    /// The values, and whether all of them came.
    async fn read_open(&mut self, line: &mut Line) -> Result<(Vec<Value>, bool), MeterError> {
        self.known.begin();
        for _ in 0..2 {
            let items = self.items(line).await?;
            let marks = self.known.marks();
            let mut services = Services::new(&mut self.association, line, &mut self.talk);
            let attributes: Vec<_> = items.iter().filter_map(|item| item.attribute).collect();
            self.known.learn_scalers(&mut services, attributes.iter().copied()).await?;
            let (mut answers, outcome) = services.get_all(&[&marks[..], &attributes].concat()).await;
            let values = answers.split_off(marks.len().min(answers.len()));
            if answers.len() == marks.len() && self.known.recognise(&answers) {
                services.forget();
                continue;
            }
            let values = self.values(items, values, &outcome);
            return match outcome {
                Ok(()) => Ok((values, true)),
                // What came before the fault is good; but a connection that must be opened again is told.
                Err(error) if error.must_reopen() || values.iter().all(|v| v.quality == error.quality()) => Err(error),
                Err(error) => {
                    debug!(meter = %self.meter, %error, "the reading broke off");
                    Ok((values, false))
                }
            };
        }
        Err(damage("the meter's name or serial number is another one with every answer"))
    }

    /// What to read, with the class of each.
    async fn items(&mut self, line: &mut Line) -> Result<Vec<Item>, MeterError> {
        let mut services = Services::new(&mut self.association, line, &mut self.talk);
        if self.wanted.is_empty() || self.wanted.iter().any(|(_, target)| target.class.is_none()) {
            self.known.refresh(&mut services).await?;
        }
        if self.wanted.is_empty() {
            let items = self.everything();
            self.seen = items.iter().map(|item| item.name.clone()).collect();
            return Ok(items);
        }
        let mut items = Vec::with_capacity(self.wanted.len());
        for (name, target) in &self.wanted {
            let class = self.known.class(&mut services, target).await?;
            items.push(Item { name: name.clone(), attribute: class.map(|class| target.of_class(class)) });
        }
        Ok(items)
    }

    /// The values of all objects that have some; the device's name when the meter shows no list.
    fn everything(&self) -> Vec<Item> {
        let item = |target: Target| Item {
            name: target.to_string(),
            attribute: target.class.map(|class| target.of_class(class)),
        };
        let Some(objects) = self.known.objects() else { return vec![item(DEVICE_NAME)] };
        let each = objects.iter().flat_map(|object| {
            let readable = value_attributes(object.class).iter().filter(|number| object.may_read(**number));
            readable.map(|number| Target { class: Some(object.class), name: object.name, attribute: Some(*number) })
        });
        each.take(MOST).map(item).collect()
    }

    /// Answers as values, scaled; what has no answer gets the quality of the error that ended it.
    fn values(&mut self, items: Vec<Item>, answers: Vec<Answer>, outcome: &Result<(), MeterError>) -> Vec<Value> {
        let rest = outcome.as_ref().err().map_or(Quality::NoAnswer, MeterError::quality);
        let mut answers = answers.into_iter();
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            let Some(attribute) = item.attribute else {
                values.push(Value { name: item.name, value: None, unit: String::new(), quality: Quality::Refused });
                continue;
            };
            let answer = answers.next();
            if let Some(Err(refusal)) = &answer {
                self.known.doubt(*refusal);
            }
            values.push(match answer {
                Some(Ok(content)) => self.value(item.name, &attribute, &content.data()),
                Some(Err(refusal)) => {
                    Value { name: item.name, value: None, unit: String::new(), quality: quality(refusal) }
                }
                None => Value { name: item.name, value: None, unit: String::new(), quality: rest },
            });
        }
        values
    }

    /// A value with its unit; one whose scaler the meter does not tell can't be used.
    pub(super) fn value(
        &self,
        name: String,
        attribute: &AttributeDescriptor,
        data: &crate::wire::dlms::Data<'_>,
    ) -> Value {
        let scaler = self.known.scaler(attribute);
        let value = scaled(data, scaler.unwrap_or(super::object::Scaler::PLAIN));
        let quality = match (&value, scaler) {
            (None, _) if matches!(data, crate::wire::dlms::Data::Null) => Quality::Unavailable,
            (Some(_), Some(_)) => Quality::Good,
            _ => Quality::Invalid,
        };
        Value { name, value, unit: scaler.map_or_else(String::new, |s| s.unit().to_owned()), quality }
    }
}

impl Session for Client {
    fn read<'a>(&'a mut self, line: &'a mut Line) -> Reply<'a> {
        Box::pin(async move {
            match self.read_all(line).await {
                Err(error) if self.association.was_dropped() => {
                    tracing::debug!(%error, "the connection is opened once more");
                    self.read_all(line).await
                }
                other => other,
            }
        })
    }

    fn absent(&self, quality: Quality) -> Vec<Value> {
        let wanted = self.wanted.iter().map(|(name, _)| name);
        let names = wanted.chain(self.seen.iter().filter(|_| self.wanted.is_empty()));
        names.map(|name| Value { name: name.clone(), value: None, unit: String::new(), quality }).collect()
    }

    fn keep_in(&mut self, kept: Kept) {
        self.association.keep_in(kept.clone());
        self.known.keep_in(kept);
    }

    fn tell_time(&mut self, clock: &Clock) {
        self.watch.trust(clock);
    }

    fn writer(&mut self) -> Option<&mut dyn Writer> {
        Some(self)
    }

    fn inspector(&mut self) -> Option<&mut dyn Inspector> {
        Some(self)
    }

    fn profile(&mut self) -> Option<&mut dyn Profile> {
        if self.plan.is_some() { Some(self) } else { None }
    }
}
