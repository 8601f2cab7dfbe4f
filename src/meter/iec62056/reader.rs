//! The session with one meter: sign-ons until one gives what was asked for.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::dialogue::{Dialogue, Failure, LONGEST_READOUT, REPEAT_WINDOW};
use super::ladder::Ladder;
use super::link::Link;
use super::profile::Plan;
use super::programming::{Access, Answer, Password, Programming};
use super::{IecAccess, IecPassword, IecRead, pick};
use crate::meter::{MeterError, MeterSettings, Profile, ProfileReply, Reply, Session};
use crate::model::{Interval, Quality, Timestamp, Value};
use crate::os::line::Line;
use crate::wire::iec62056::{Command, Message, Parity, data};

/// The session of one meter.
pub(super) struct Reader {
    dialogue: Dialogue,
    ladder: Ladder,
    access: IecAccess,
    number: char,
    password_file: Option<PathBuf>,
    password_command: IecPassword,
    session_timeout: Duration,
    values: Vec<String>,
    serial: Option<String>,
    /// Under which id the meter showed it last in programming mode.
    serial_id: Option<&'static str>,
    plan: Option<Plan>,
    /// The number of the sign-on text that was answered last.
    text: usize,
    /// How the meter's characters carried parity when it last identified itself.
    parity: Option<Parity>,
    /// Before this a meter may still wait for a repeat request at another rate.
    quiet_until: Option<Instant>,
    /// The rate and parity of a programming session that was not ended, as when a reading was dropped.
    unfinished: Option<(u32, Parity)>,
    /// A password that the meter refused: another try could lock it.
    refused: Option<Password>,
    /// Names and units of the last reading, for readings that fail.
    known: Vec<(String, String)>,
}

/// Where meters tell their serial number (VDEW specification for electronic load profile meters; OBIS 0-0:96.1.0).
const SERIAL_IDS: [&str; 4] = ["C.1.0", "0.0.0", "0.0.9", "96.1.0"];

/// What a sign-on is for.
#[derive(Clone, Copy)]
enum Want {
    Values,
    Intervals(Timestamp, Timestamp),
}

/// What it gave.
enum Got {
    Values(Vec<Value>),
    Intervals(Vec<Interval>),
}

/// What single reads gave so far, also over several sign-ons.
type Collected = Vec<Option<Vec<Value>>>;

impl Reader {
    pub(super) fn new(settings: &MeterSettings) -> Self {
        Self {
            dialogue: Dialogue::new(settings),
            ladder: Ladder::new(settings),
            access: settings.access,
            number: digit(settings.read_command),
            password_file: settings.password_file.as_ref().map(|file| file.path().to_path_buf()),
            password_command: settings.password_command,
            session_timeout: settings.session_timeout,
            values: settings.values.clone(),
            serial: settings.serial.clone(),
            serial_id: None,
            plan: Plan::of(settings),
            text: 0,
            parity: None,
            quiet_until: None,
            unfinished: None,
            refused: None,
            known: settings.values.iter().map(|name| (name.clone(), String::new())).collect(),
        }
    }

    /// Signs on until it gives what is wanted, or trying again is of no use.
    async fn attempts(&mut self, line: &mut Line, want: Want) -> Result<Got, MeterError> {
        let tries = usize::try_from(self.dialogue.retries()).unwrap_or(0).max(self.dialogue.texts() - 1);
        let mut attempt = 0;
        let mut collected: Collected = vec![None; self.values.len()];
        // A meter that never falls silent must not hold the bus for every rate and repetition.
        let end = Instant::now() + LONGEST_READOUT;
        loop {
            if let Some(until) = self.quiet_until.take() {
                tokio::time::sleep_until(until).await;
            }
            let error = match self.once(line, want, (attempt, end), &mut collected).await {
                Ok(got) => return Ok(got),
                // A lower rate is no repetition: the ladder has an end of its own.
                Err(Failure::Garbled(rate, error))
                    if Instant::now() < end && self.ladder.step_down(rate, Instant::now()) =>
                {
                    tracing::debug!(meter = self.dialogue.name, %error, rate, "this rate fails, a lower one is tried");
                    continue;
                }
                Err(Failure::Again(error) | Failure::Garbled(_, error)) if attempt < tries && Instant::now() < end => {
                    tracing::debug!(meter = self.dialogue.name, %error, attempt, "reading failed, signing on again");
                    attempt += 1;
                    continue;
                }
                Err(failure) => failure.error(),
            };
            if collected.iter().any(Option::is_some) && !error.must_reopen() {
                tracing::debug!(meter = self.dialogue.name, %error, "some values could not be read");
                return Ok(Got::Values(self.gathered(collected, error.quality())));
            }
            // The converter may have been changed: find out again.
            self.parity = None;
            return Err(error);
        }
    }

    async fn once(
        &mut self,
        line: &mut Line,
        want: Want,
        (attempt, end): (usize, Instant),
        collected: &mut Collected,
    ) -> Result<Got, Failure> {
        let single = self.access == IecAccess::Programming || matches!(want, Want::Intervals(..));
        let access = if single { Some(self.access().map_err(Failure::Final)?) } else { None };
        let texts = self.dialogue.texts();
        let guess = if (attempt / texts).is_multiple_of(2) { Parity::Even } else { Parity::Absent };
        let mut link = Link::new(line, self.parity.unwrap_or(guess));
        link.give_up_at(end);
        self.finish_what_was_left(&mut link).await?;
        let meter = match self.dialogue.sign_on(&mut link, self.text + attempt).await {
            Ok(meter) => meter,
            Err(failure) => {
                self.parity = if attempt % texts + 1 == texts { None } else { self.parity };
                return Err(failure);
            }
        };
        self.text = (self.text + attempt) % texts;
        self.parity = Some(meter.parity);
        self.quiet_until = Some(link.line().last_byte() + REPEAT_WINDOW);
        let ident = meter.identification.clone();
        let mode = if access.is_some() { '1' } else { '0' };
        let opened = |rate| self.unfinished = access.is_some().then_some((rate, meter.parity));
        let chosen = self.dialogue.choose(&mut link, &ident, mode, &mut self.ladder, opened).await;
        let result = match (chosen, access) {
            (Err(failure), _) => Err(failure),
            (Ok(rate), None) => match self.dialogue.block(&mut link, rate).await {
                Ok(body) => self.keep(&body).map(Got::Values).map_err(Failure::Final),
                Err(failure) => Err(failure),
            },
            (Ok(_), Some(access)) => {
                let mut session = Programming::begin(link, &self.dialogue, meter, &access);
                let result = self.program(&mut session, &access, want, collected).await;
                let ended = session.break_off().await;
                if matches!(result, Err(Failure::Garbled(..))) {
                    session.break_off_at_sign_on_rate().await;
                }
                if ended {
                    self.unfinished = None;
                }
                result
            }
        };
        self.quiet_until = Some(line.last_byte() + REPEAT_WINDOW);
        result
    }

    /// What opens programming mode; a password that was refused before is not sent again.
    fn access(&self) -> Result<Access, MeterError> {
        let password = self.password_file.as_deref().map(Password::read).transpose()?;
        if password.is_some() && password == self.refused {
            let text = "the password was refused before; it is not sent again until its file changes";
            return Err(MeterError::Refused(text.to_owned()));
        }
        Ok(Access { password, command: self.password_command, session_timeout: self.session_timeout })
    }

    /// A meter that was left in programming mode hears no sign-on until its own timeout.
    async fn finish_what_was_left(&mut self, link: &mut Link<'_>) -> Result<(), Failure> {
        let Some((rate, parity)) = self.unfinished.take() else { return Ok(()) };
        link.agree_on(parity);
        link.set_baud(rate)?;
        link.send(&Message::Command(Command::BREAK)).await?;
        tokio::time::sleep(REPEAT_WINDOW).await;
        Ok(())
    }

    async fn program(
        &mut self,
        session: &mut Programming<'_>,
        access: &Access,
        want: Want,
        collected: &mut Collected,
    ) -> Result<Got, Failure> {
        if let Err(failure) = session.enter(access).await {
            if matches!(&failure, Failure::Final(MeterError::Refused(text)) if text.starts_with("the password")) {
                tracing::error!(
                    meter = self.dialogue.name,
                    "the meter refused the password; it is not sent again until its file changes"
                );
                self.refused.clone_from(&access.password);
            }
            return Err(failure);
        }
        self.confirm(session).await?;
        match want {
            Want::Intervals(after, until) => self.intervals(session, after, until).await.map(Got::Intervals),
            Want::Values => {
                for (id, place) in self.values.iter().zip(collected.iter_mut()) {
                    if place.is_none() {
                        *place = Some(single(session, self.number, id).await?);
                    }
                }
                Ok(Got::Values(self.gathered(std::mem::take(collected), Quality::Invalid)))
            }
        }
    }

    /// Believes nothing before the meter has shown the configured serial number: in its identification,
    /// or under one of the ids that serial numbers have.
    async fn confirm(&mut self, session: &mut Programming<'_>) -> Result<(), Failure> {
        let Some(serial) = self.serial.clone() else { return Ok(()) };
        if pick::identifies(&session.identification().model, &serial) {
            return Ok(());
        }
        let sound = |body: &[u8]| data::malformed(body).is_empty();
        let before = self.serial_id.take();
        let mut told = false;
        for id in before.into_iter().chain(SERIAL_IDS.into_iter().filter(|id| Some(*id) != before)) {
            let Answer::Data(body) = session.ask(self.number, id, "()", &sound).await? else { continue };
            if pick::shows(&data::decode_sound(&body), &serial) {
                self.serial_id = Some(id);
                return Ok(());
            }
            told = true;
        }
        let ids = SERIAL_IDS.join(", ");
        Err(Failure::Final(if told {
            MeterError::Damaged(format!("the meter does not show the serial number {serial}: another meter answered"))
        } else {
            MeterError::Refused(format!(
                "it tells no serial number in programming mode ({ids}); remove serial and give the meter's address"
            ))
        }))
    }

    async fn intervals(
        &self,
        session: &mut Programming<'_>,
        after: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Interval>, Failure> {
        let Some(plan) = &self.plan else { return Ok(Vec::new()) };
        let arguments = plan.arguments(after, until);
        match session.ask(plan.number(), plan.id(), &arguments, &Plan::is_sound).await? {
            Answer::Data(body) => plan.intervals(&body, after, until).map_err(Failure::Again),
            Answer::Refused(text) => Err(Failure::Final(MeterError::Refused(format!("{}: {text}", plan.id())))),
            Answer::Done => {
                Err(Failure::Final(MeterError::Damaged("an acknowledgement instead of a profile".to_owned())))
            }
        }
    }

    /// The values in their order; those that were not read are null with `quality`.
    fn gathered(&mut self, collected: Collected, quality: Quality) -> Vec<Value> {
        let ids = self.values.iter().zip(collected);
        let values: Vec<Value> = ids
            .flat_map(|(id, read)| {
                let null = || vec![Value { name: id.clone(), value: None, unit: String::new(), quality }];
                read.unwrap_or_else(null)
            })
            .collect();
        self.known = values.iter().map(|v| (v.name.clone(), v.unit.clone())).collect();
        values
    }

    fn keep(&mut self, body: &[u8]) -> Result<Vec<Value>, MeterError> {
        let lines = data::decode_sound(body);
        if let Some(text) = pick::refusal(&lines) {
            return Err(MeterError::Refused(text));
        }
        if let Some(serial) = self.serial.as_ref().filter(|serial| !pick::shows(&lines, serial)) {
            let text = format!("the readout does not show the serial number {serial}: another meter answered");
            return Err(MeterError::Damaged(text));
        }
        let all = pick::values(&lines);
        let values = if self.values.is_empty() { all } else { pick::wanted(&all, &self.values) };
        self.known = values.iter().map(|v| (v.name.clone(), v.unit.clone())).collect();
        Ok(values)
    }
}

/// Reads one value in programming mode; a refusal is a null.
async fn single(session: &mut Programming<'_>, number: char, id: &str) -> Result<Vec<Value>, Failure> {
    let sound = |body: &[u8]| data::malformed(body).is_empty();
    let null = |quality| vec![Value { name: id.to_owned(), value: None, unit: String::new(), quality }];
    Ok(match session.ask(number, id, "()", &sound).await? {
        Answer::Data(body) => pick::answered(&data::decode_sound(&body), id).unwrap_or_else(|| null(Quality::Invalid)),
        Answer::Refused(text) => {
            tracing::debug!(id, text, "the meter refused a value");
            null(Quality::Refused)
        }
        Answer::Done => null(Quality::Invalid),
    })
}

const fn digit(command: IecRead) -> char {
    match command {
        IecRead::R1 => '1',
        IecRead::R2 => '2',
        IecRead::R3 => '3',
        IecRead::R4 => '4',
        IecRead::R5 => '5',
        IecRead::R6 => '6',
    }
}

impl Session for Reader {
    fn read<'a>(&'a mut self, line: &'a mut Line) -> Reply<'a> {
        Box::pin(async move {
            match self.attempts(line, Want::Values).await? {
                Got::Values(values) => Ok(values),
                Got::Intervals(_) => Ok(Vec::new()),
            }
        })
    }

    /// The wanted ids; without any, what the last readout had.
    fn absent(&self, quality: Quality) -> Vec<Value> {
        let null =
            |(name, unit): &(String, String)| Value { name: name.clone(), value: None, unit: unit.clone(), quality };
        self.known.iter().map(null).collect()
    }

    /// A meter that has sent its readout listens for a repeat request, at its own rate.
    fn guard(&self) -> Duration {
        REPEAT_WINDOW
    }

    fn profile(&mut self) -> Option<&mut dyn Profile> {
        if self.plan.is_some() { Some(self) } else { None }
    }
}

impl Profile for Reader {
    fn read<'a>(&'a mut self, line: &'a mut Line, after: Timestamp, until: Timestamp) -> ProfileReply<'a> {
        Box::pin(async move {
            match self.attempts(line, Want::Intervals(after, until)).await? {
                Got::Intervals(intervals) => Ok(intervals),
                Got::Values(_) => Ok(Vec::new()),
            }
        })
    }
}
