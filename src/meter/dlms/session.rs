//! The session with one meter: a reading of its values.
//!
//! Invariants: an association that was opened is released or its connection ended, whatever happened in it; a session
//! is never longer than `longest_session`, openings, repetitions and farewell included; a value that the meter refuses
//! or does not answer is null with its quality, and the others are read.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use super::association::Association;
use super::clock::{Place, Watch};
use super::dlms;
use super::image::Sending;
use super::known::Known;
use super::object::{Objects, Target, scaled, value_attributes};
use super::profile::Plan;
use super::reading::Reading;
use super::service::{Services, Talk};
use super::settings::DlmsSettings;
use crate::meter::{Inspector, Kept, MeterError, MeterSettings, Profile, Reply, Session, Writer};
use crate::model::{Quality, Value};
use crate::os::clock::Clock;
use crate::os::line::{Line, LineError};
use crate::wire::dlms::{AttributeDescriptor, LogicalName};

/// What every meter shows to everybody (IEC 62056-6-1, clause 6.2.31).
const DEVICE_NAME: Target = Target { class: Some(1), name: LogicalName::new(0, 0, 42, 0, 0, 255), attribute: None };
/// How long a release may take.
const FAREWELL: Duration = Duration::from_secs(30);
/// What is left of a session for setting a clock and reading it back.
pub(super) const QUICK: Duration = Duration::from_secs(5);
const PROFILE: u16 = 7;
const SHORTEST_FAREWELL: Duration = Duration::from_secs(1);
/// So many associations one reading may take.
const ASSOCIATIONS: u32 = 4;
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
    pub(super) wanted: Vec<(String, Target)>,
    /// The names of the last reading of everything.
    pub(super) seen: Vec<String>,
    pub(super) plan: Option<Plan>,
    pub(super) watch: Watch,
    /// How many blocks of an image were transferred, of how many.
    pub(super) progress: watch::Sender<(u32, u32)>,
    /// The image that is on its way.
    pub(super) sending: Sending,
    /// When the session must be over.
    end: Instant,
    /// Where the last reading stopped.
    stopped: usize,
    told_overrun: bool,
    told_clock: bool,
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
            sending: Sending::default(),
            end: Instant::now(),
            stopped: 0,
            told_overrun: false,
            told_clock: false,
        })
    }

    /// The services of the open association, and what is known of the meter.
    pub(super) const fn open_services<'a>(&'a mut self, line: &'a mut Line) -> (Services<'a>, &'a mut Known) {
        (Services::new(&mut self.association, line, &mut self.talk), &mut self.known)
    }

    /// Begins a session: opens the association; until [`Client::until`] it may be used.
    ///
    /// # Errors
    /// What the line or the meter said; nothing is open then.
    pub(super) async fn open(&mut self, line: &mut Line) -> Result<(), MeterError> {
        self.begin();
        self.associate(line).await
    }

    fn begin(&mut self) {
        self.end = Instant::now() + self.settings.longest_session;
    }

    /// Opens the association, also once more in the same session.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub(super) async fn associate(&mut self, line: &mut Line) -> Result<(), MeterError> {
        let result = timeout_at(self.until(), self.association.open(line)).await;
        let error = match result {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => self.overrun("the association was not opened", "raise it, or look why the meter is so slow"),
        };
        if error.must_reopen() {
            // Whoever goes on opens the line anew: not before it is known that somebody does.
            self.association.abandon();
        } else {
            self.leave(line, Some(&error)).await;
        }
        Err(error)
    }

    /// Until when the meter may be asked: what is left of the session then is for the farewell.
    pub(super) fn until(&self) -> Instant {
        let reserve = (self.settings.longest_session / 10).min(FAREWELL);
        self.end.checked_sub(reserve).unwrap_or(self.end)
    }

    /// The session is too long: what was not done, and what to do.
    pub(super) fn overrun(&self, what: &str, advice: &str) -> MeterError {
        let longest = self.settings.longest_session.as_secs_f32();
        MeterError::Unfinished(format!("{what} within longest_session ({longest} s): {advice}"))
    }

    /// Releases the association, as far as the meter still listens.
    pub(super) async fn close(&mut self, line: &mut Line) {
        // A meter that is busy for ever must not hold the line of others.
        let now = Instant::now();
        let until = self.end.min(now + FAREWELL).max(now + SHORTEST_FAREWELL);
        let _ = timeout_at(until, self.association.close(line)).await;
    }

    /// Ends the association; where an answer may still be under way, the connection is made anew.
    pub(super) async fn leave(&mut self, line: &mut Line, error: Option<&MeterError>) {
        match error {
            Some(error) if error.must_reopen() || (line.is_tcp() && matches!(error, MeterError::Unfinished(_))) => {
                self.association.abandon();
                self.mend(line).await;
            }
            _ => self.close(line).await,
        }
    }

    /// Makes a connection anew; whether that was possible shows when it is used.
    pub(super) async fn mend(&self, line: &mut Line) {
        if let Err(error) = line.reopen().await {
            debug!(meter = %self.meter, %error, "the connection can't be opened again");
        }
    }

    /// Whether the connection was lost, by no fault of what was asked for.
    pub(super) fn lost(&self, error: &MeterError) -> bool {
        self.association.was_dropped() || matches!(error, MeterError::Line(LineError::Gone | LineError::Silent(_)))
    }

    /// Reads in as many associations as it takes, but not more than [`ASSOCIATIONS`].
    async fn read_all(&mut self, line: &mut Line) -> Result<Vec<Value>, MeterError> {
        self.begin();
        let mut reading = Reading::from(self.stopped);
        let mut outcome = Ok(());
        let mut broken = false;
        for attempt in 1..=ASSOCIATIONS {
            if std::mem::take(&mut broken) {
                self.mend(line).await;
            }
            let opened = self.associate(line).await;
            let was_open = opened.is_ok();
            outcome = match opened {
                Ok(()) => timeout_at(self.until(), self.gather(line, &mut reading)).await.unwrap_or_else(|_| {
                    let advice = "what was read is kept, and the next reading goes on where this one stopped; raise it, or read fewer values";
                    Err(self.overrun("the reading did not come to its end", advice))
                }),
                Err(error) => Err(error),
            };
            let Err(error) = &outcome else { break };
            if was_open {
                self.leave(line, Some(error)).await;
            } else {
                broken = error.must_reopen();
            }
            let again = match error {
                MeterError::Unfinished(_) | MeterError::Unasked(_) | MeterError::Order(_) => false,
                _ if was_open => reading.goes_on(),
                // Nothing is read of a meter that does not open; only a connection that it gave up is tried once more.
                _ => attempt == 1 && self.association.was_dropped(),
            };
            if !again {
                break;
            }
            debug!(meter = %self.meter, %error, "the reading goes on in another association");
        }
        if reading.has_begun() {
            self.stopped = reading.stopped_at().unwrap_or(0);
        }
        if outcome.is_ok() {
            if std::mem::take(&mut self.told_overrun) {
                info!(meter = %self.meter, "a reading came to its end again");
            }
            self.look_at_clock(line).await;
        }
        let any = reading.has_any();
        let rest = outcome.as_ref().err().map_or(Quality::NoAnswer, MeterError::quality);
        let values = self.values(reading, rest);
        match outcome {
            Ok(()) => Ok(values),
            Err(error) if !any || values.iter().all(|v| v.quality == error.quality()) => Err(error),
            Err(error) => {
                if matches!(error, MeterError::Unfinished(_)) && !std::mem::replace(&mut self.told_overrun, true) {
                    warn!(meter = %self.meter, %error, "a reading was cut short");
                }
                debug!(meter = %self.meter, %error, "the reading broke off");
                if broken {
                    self.mend(line).await;
                }
                Ok(values)
            }
        }
    }

    /// Looks at the meter's clock at the end of a reading, and closes the association.
    async fn look_at_clock(&mut self, line: &mut Line) {
        let until = self.until();
        let profiles = self.profiles();
        let place = Place { east: self.east, profiles: &profiles, until: until.checked_sub(QUICK).unwrap_or(until) };
        let mut services = Services::new(&mut self.association, line, &mut self.talk);
        let looked = timeout_at(until, self.watch.look(&mut services, &place)).await;
        let error = match looked {
            Ok(Ok(looked)) => {
                self.told_clock &= !looked;
                None
            }
            Ok(Err(error)) => Some(error),
            Err(_) => Some(self.overrun("the meter's clock was not looked at", "raise it, or read fewer values")),
        };
        match &error {
            None => {}
            Some(error) if !std::mem::replace(&mut self.told_clock, true) => {
                warn!(meter = %self.meter, %error, "the meter's clock could not be looked at; it is tried again when dlms.clock.check says so");
            }
            Some(error) => debug!(meter = %self.meter, %error, "the meter's clock could still not be looked at"),
        }
        self.leave(line, error.as_ref()).await;
    }

    /// The meter's profiles, as far as they are known.
    pub(super) fn profiles(&self) -> Vec<LogicalName> {
        let listed = self.known.objects().into_iter().flat_map(Objects::iter).filter(|o| o.class == PROFILE);
        let mut names: Vec<_> = self.plan.iter().map(Plan::name).chain(listed.map(|object| object.name)).collect();
        names.dedup();
        names
    }

    /// The values of all objects that have some; the device's name when the meter shows no list.
    pub(super) fn everything(&self) -> Vec<Target> {
        let Some(objects) = self.known.objects() else { return vec![DEVICE_NAME] };
        let each = objects.iter().flat_map(|object| {
            let readable = value_attributes(object.class).iter().filter(|number| object.may_read(**number));
            readable.map(|number| Target { class: Some(object.class), name: object.name, attribute: Some(*number) })
        });
        each.take(MOST).collect()
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
        Box::pin(self.read_all(line))
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
