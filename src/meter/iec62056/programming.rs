//! Programming mode: single commands after the meter's `P0`, up to the break that ends them.
//!
//! An answer is taken only when its block check, its syntax and, where the meter sends one, its id
//! fit the request; one that names another id is left aside. After a silence the session is given
//! up, never used again: a late answer could be taken for the next one. Writing and executing are
//! here for commands from the platform; no reading uses them.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::dialogue::{Dialogue, Failure, LONGEST_READOUT, Meter, budget, never_silent};
use super::ladder::Ladder;
use super::link::{Link, Trouble};
use super::pick::same_id;
use super::{IecPassword, REACTION};
use crate::meter::{MeterError, MeterSettings};
use crate::os::line::{Line, LineError};
use crate::os::{file, line};
use crate::wire::iec62056::{BLOCK_LIMIT, Command, Identification, Message, Parity, data};

/// The most characters of all partial blocks of one answer.
const ANSWER_LIMIT: usize = 256 * 1024;
/// The largest password file.
const PASSWORD_LIMIT: u64 = 128;

/// What a meter answered to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The data of its block, or of its partial blocks joined.
    Data(Vec<u8>),
    /// An acknowledgement.
    Done,
    /// An error message such as `ER06`, or `NAK`.
    Refused(String),
}

/// What opens programming mode.
#[derive(Debug, Clone)]
pub(super) struct Access {
    pub(super) password: Option<Password>,
    pub(super) command: IecPassword,
    pub(super) session_timeout: Duration,
}

/// A password; never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

impl Password {
    /// Reads the file.
    pub(super) fn read(path: &Path) -> Result<Self, MeterError> {
        let refused = |reason: &str| MeterError::Refused(format!("no command sent: {} {reason}", path.display()));
        let content = file::read_small(path, PASSWORD_LIMIT).map_err(|e| refused(&format!("can't be read: {e}")))?;
        let text = String::from_utf8(content).map_err(|_| refused("is no text"))?;
        let text = text.trim_end_matches(['\r', '\n']);
        let allowed = |c: char| (c == ' ' || c.is_ascii_graphic()) && !"()/!".contains(c);
        if text.is_empty() || !text.chars().all(allowed) {
            return Err(refused("must hold one line of printable characters without ( ) / !"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Access {
    /// Reads the password's file anew: it may have changed.
    pub(super) fn of(settings: &MeterSettings) -> Result<Self, MeterError> {
        let file = settings.password_file.as_ref();
        Ok(Self {
            password: file.map(|file| Password::read(file.path())).transpose()?,
            command: settings.password_command,
            session_timeout: settings.session_timeout,
        })
    }
}

/// An open session in programming mode. End it with [`end`](Self::end), or the meter stays in it
/// until its own timeout.
pub struct Programming<'a> {
    link: Link<'a>,
    identification: Identification,
    answer_limit: Duration,
    retries: u32,
    session_timeout: Duration,
}

impl fmt::Debug for Programming<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Programming").field("identification", &self.identification).finish_non_exhaustive()
    }
}

/// What must be true of an answer's whole body, its check aside.
type Sound<'s> = &'s (dyn Fn(&[u8]) -> bool + Sync);

impl<'a> Programming<'a> {
    /// Signs on, opens programming mode and gives the password.
    ///
    /// # Errors
    /// What the line or the meter said; a session that was begun is ended then.
    pub async fn open(line: &'a mut Line, settings: &MeterSettings) -> Result<Self, MeterError> {
        let access = Access::of(settings)?;
        let dialogue = Dialogue::new(settings);
        let mut ladder = Ladder::new(settings);
        let mut link = Link::new(line, Parity::Even);
        let meter = dialogue.sign_on(&mut link, 0).await.map_err(Failure::error)?;
        dialogue.choose(&mut link, &meter.identification, '1', &mut ladder, |_| ()).await.map_err(Failure::error)?;
        let mut session = Self::begin(link, &dialogue, meter, &access);
        match session.enter(&access).await {
            Ok(()) => Ok(session),
            Err(failure) => {
                session.end().await;
                Err(failure.error())
            }
        }
    }

    /// A session on a link whose meter was told to open programming mode.
    pub(super) fn begin(mut link: Link<'a>, dialogue: &Dialogue, meter: Meter, access: &Access) -> Self {
        link.decoder().expect_no_options(true);
        Self {
            link,
            identification: meter.identification,
            answer_limit: dialogue.answer_limit,
            retries: dialogue.retries(),
            session_timeout: access.session_timeout,
        }
    }

    /// Waits for the meter's `P0` and gives the password.
    pub(super) async fn enter(&mut self, access: &Access) -> Result<(), Failure> {
        self.challenge().await?;
        let Some(Password(password)) = &access.password else { return Ok(()) };
        let number = if access.command == IecPassword::P1 { '1' } else { '2' };
        let command = Command::new('P', number, format!("({password})"));
        match self.exchange(&command, "", &|_| true).await {
            Ok(Answer::Done | Answer::Data(_)) => Ok(()),
            // A break is a refusal too.
            Ok(Answer::Refused(text)) | Err(Failure::Final(MeterError::Refused(text))) => {
                Err(Failure::Final(MeterError::Refused(format!("the password: {text}"))))
            }
            // Sent again at once it could lock the meter; the next reading may try.
            Err(Failure::Again(error)) => Err(Failure::Final(error)),
            Err(failure) => Err(failure),
        }
    }

    /// Waits for the `P0` that opens programming mode; its operand is for secure algorithms only.
    async fn challenge(&mut self) -> Result<(), Failure> {
        let rate = self.link.baud();
        let mut repeats = 0;
        self.link.allow(budget(rate));
        loop {
            let deadline = self.link.deadline(self.answer_limit, BLOCK_LIMIT, LONGEST_READOUT);
            let wanted = |message| match message {
                Message::Command(Command { letter: 'P', .. }) => Some(Ok(())),
                Message::Command(Command { letter: 'B', .. }) => Some(Err("it ended the session at once")),
                Message::Block(_) | Message::Part(_) => {
                    Some(Err("it sends its readout instead of opening programming mode"))
                }
                Message::Repeat => Some(Err("it does not understand the choice of programming mode")),
                _ => None,
            };
            match self.link.listen(deadline, true, wanted).await {
                Ok((Ok(()), _)) => return Ok(()),
                Ok((Err(refusal), _)) => return Err(Failure::Final(MeterError::Refused(refusal.to_owned()))),
                Err(Trouble::Line(error)) => return Err(error.into()),
                Err(Trouble::Nothing(0)) => return Err(Failure::Again(LineError::Silent(self.answer_limit).into())),
                Err(Trouble::Damaged(damage)) if repeats <= self.retries => {
                    self.repeat(&mut repeats, &damage.to_string()).await?;
                }
                Err(Trouble::Nothing(_) | Trouble::Damaged(_) | Trouble::Noise | Trouble::Endless) => {
                    let text =
                        format!("no P0 could be read at {rate} Bd; try baud_change_delay, max_baud or force_baud");
                    return Err(Failure::Garbled(rate, MeterError::Damaged(text)));
                }
            }
        }
    }

    /// Who answered the sign-on.
    pub const fn identification(&self) -> &Identification {
        &self.identification
    }

    /// Reads by `R1` to `R6` (`number`) what is called `id`; `argument` stands in the parentheses.
    ///
    /// # Errors
    /// What the line or the meter said; the session must be ended then.
    pub async fn read(&mut self, number: char, id: &str, argument: &str) -> Result<Answer, MeterError> {
        let sound = |body: &[u8]| data::malformed(body).is_empty();
        self.ask(number, id, &format!("({argument})"), &sound).await.map_err(Failure::error)
    }

    /// As [`read`](Self::read), with all parentheses written out and an own idea of a sound answer.
    pub(super) async fn ask(
        &mut self,
        number: char,
        id: &str,
        arguments: &str,
        sound: Sound<'_>,
    ) -> Result<Answer, Failure> {
        self.exchange(&Command::new('R', number, format!("{id}{arguments}")), id, sound).await
    }

    /// Writes `value` to `id` by `W1` to `W5` (`number`). Never sent by a reading.
    ///
    /// # Errors
    /// What the line or the meter said; the session must be ended then.
    pub async fn write(&mut self, number: char, id: &str, value: &str) -> Result<Answer, MeterError> {
        let command = Command::new('W', number, format!("{id}({value})"));
        self.exchange(&command, "", &|_| true).await.map_err(Failure::error)
    }

    /// Writes by `W3` or `W4` (`number`) in partial blocks of at most `size` characters each.
    ///
    /// # Errors
    /// What the line or the meter said; the session must be ended then.
    pub async fn write_parts(
        &mut self,
        number: char,
        id: &str,
        value: &str,
        size: usize,
    ) -> Result<Answer, MeterError> {
        let data = format!("{id}({value})").into_bytes();
        let mut parts = data.chunks(size.max(1)).peekable();
        let mut answer = Answer::Done;
        while let Some(part) = parts.next() {
            let command = Command { more: parts.peek().is_some(), ..Command::new('W', number, part) };
            answer = self.exchange(&command, "", &|_| true).await.map_err(Failure::error)?;
            if answer != Answer::Done {
                break;
            }
        }
        Ok(answer)
    }

    /// Executes by `E2`. Never sent by a reading.
    ///
    /// # Errors
    /// What the line or the meter said; the session must be ended then.
    pub async fn execute(&mut self, id: &str, argument: &str) -> Result<Answer, MeterError> {
        let command = Command::new('E', '2', format!("{id}({argument})"));
        self.exchange(&command, "", &|_| true).await.map_err(Failure::error)
    }

    /// Ends the session by the break `B0`, to which no answer comes.
    pub async fn end(mut self) {
        self.break_off().await;
    }

    /// Sends the break; where the meter's rate is in doubt `end` is not enough.
    pub(super) async fn break_off(&mut self) -> bool {
        self.link.line().wait_for_silence(REACTION, self.answer_limit).await.is_ok()
            && self.link.send(&Message::Command(Command::BREAK)).await.is_ok()
    }

    /// Sends the break at 300 Bd too, for a meter that did not change its rate.
    pub(super) async fn break_off_at_sign_on_rate(&mut self) {
        // The rate must not change while the last character is on its way.
        let silence = self.link.line().wait_for_silence(REACTION, self.answer_limit).await;
        if silence.is_ok() && !self.link.is_slow() && self.link.slow_down().is_ok() {
            self.break_off().await;
        }
    }

    /// Sends a command and collects its answer, which must be about `id` where it names one.
    async fn exchange(&mut self, command: &Command, id: &str, sound: Sound<'_>) -> Result<Answer, Failure> {
        let idle = self.link.line().last_byte().elapsed();
        if idle > self.session_timeout {
            let text = format!("{} s passed without a command, so it has ended the session", idle.as_secs());
            return Err(Failure::Again(MeterError::Refused(text)));
        }
        tracing::debug!(command = %format_args!("{}{}", command.letter, command.number), id, "programming mode");
        let message = Message::Command(command.clone());
        self.link.allow(budget(self.link.baud()));
        self.say(&message).await?;
        let letter = command.letter;
        let mut body = Vec::new();
        let mut repeats = 0;
        let begun = tokio::time::Instant::now();
        loop {
            if begun.elapsed() > LONGEST_READOUT {
                return Err(no_end());
            }
            let deadline = self.link.deadline(self.answer_limit, BLOCK_LIMIT, LONGEST_READOUT);
            let first = body.is_empty();
            let wanted = |message| is_answer(message, letter, first, id);
            let heard = match self.link.listen(deadline, true, wanted).await {
                Ok((heard, _)) => heard,
                Err(Trouble::Line(error)) => return Err(error.into()),
                Err(Trouble::Nothing(_)) if self.link.is_over() => return Err(no_end()),
                Err(Trouble::Nothing(_)) => {
                    return Err(Failure::Again(LineError::Silent(self.answer_limit).into()));
                }
                Err(Trouble::Damaged(damage)) => {
                    self.repeat(&mut repeats, &damage.to_string()).await?;
                    continue;
                }
                Err(trouble @ (Trouble::Noise | Trouble::Endless)) => return Err(never_silent(trouble)),
            };
            match heard {
                Message::Part(part) => {
                    if part.is_empty() {
                        return Err(Failure::Final(MeterError::Damaged("a partial block is empty".to_owned())));
                    }
                    body.extend(part);
                    repeats = 0;
                    if body.len() > ANSWER_LIMIT {
                        return Err(Failure::Final(MeterError::Damaged("an answer longer than 256 KiB".to_owned())));
                    }
                    self.link.allow(budget(self.link.baud()));
                    self.say(&Message::Acknowledge).await?;
                }
                Message::Block(last) => {
                    let last = if first && letter == 'R' { self.only_answer(last, id).await? } else { last };
                    if let Some(text) = error_text(&last) {
                        return Ok(Answer::Refused(text));
                    }
                    if !sound(&[body.as_slice(), &last].concat()) {
                        if body.is_empty() {
                            self.repeat(&mut repeats, "the answer is not well formed").await?;
                            continue;
                        }
                        let text = "the partial blocks don't fit together".to_owned();
                        return Err(Failure::Again(MeterError::Damaged(text)));
                    }
                    body.extend(last);
                    return Ok(Answer::Data(body));
                }
                Message::Acknowledge => return Ok(Answer::Done),
                Message::Command(_) => {
                    let text = "it ended the session by a break".to_owned();
                    return Err(Failure::Final(MeterError::Refused(text)));
                }
                // It did not understand: once more, then it is a refusal. A password is never repeated.
                _ if repeats > 0 || command.letter == 'P' || !first => return Ok(Answer::Refused("NAK".to_owned())),
                _ => {
                    repeats += 1;
                    self.say(&message).await?;
                }
            }
        }
    }

    /// The answer to be believed: one that names no id is only when no other follows it at once.
    async fn only_answer(&mut self, body: Vec<u8>, id: &str) -> Result<Vec<u8>, Failure> {
        if id.is_empty() || !body.starts_with(b"(") || error_text(&body).is_some() {
            return Ok(body);
        }
        let deadline = self.link.deadline(REACTION, BLOCK_LIMIT, LONGEST_READOUT);
        let wanted = |message| if let Message::Block(body) | Message::Part(body) = message { Some(body) } else { None };
        match self.link.listen(deadline, true, wanted).await {
            Err(Trouble::Nothing(_)) => Ok(body),
            Ok((other, _)) if other == body => Ok(body),
            Ok(_) | Err(Trouble::Damaged(_) | Trouble::Noise | Trouble::Endless) => {
                let text = format!("two answers came to the request for {id}");
                Err(Failure::Again(MeterError::Damaged(text)))
            }
            Err(Trouble::Line(error)) => Err(error.into()),
        }
    }

    /// Asks for the last block again, as long as that is allowed.
    async fn repeat(&mut self, repeats: &mut u32, why: &str) -> Result<(), Failure> {
        if *repeats > self.retries {
            let text = format!("{why}, also after {repeats} repeat requests");
            return Err(Failure::Again(MeterError::Damaged(text)));
        }
        *repeats += 1;
        self.link.hush(REACTION).await.map_err(never_silent)?;
        self.link.clear().await?;
        Ok(self.link.send(&Message::Repeat).await?)
    }

    /// Sends after the reaction time; what came until then answers nothing.
    async fn say(&mut self, message: &Message) -> Result<(), line::LineError> {
        let fast = if self.identification.reacts_fast() { REACTION / 10 } else { REACTION };
        tokio::time::sleep(fast).await;
        self.link.clear().await?;
        self.link.send(message).await
    }
}

fn no_end() -> Failure {
    Failure::Final(MeterError::Damaged("the answer has no end".to_owned()))
}

/// The message when it may answer a command of this letter. A block about another id answers
/// another request; a password or a write is answered by an acknowledgement or an error only.
fn is_answer(message: Message, letter: char, first: bool, id: &str) -> Option<Message> {
    match message {
        Message::Block(ref body) if matches!(letter, 'P' | 'W') => error_text(body).is_some().then_some(message),
        Message::Block(ref body) | Message::Part(ref body) => {
            let text: String = body.iter().map(|b| char::from(b & 0x7F)).collect();
            let theirs = text.split('(').next().unwrap_or_default().trim();
            let fits = !first || id.is_empty() || theirs.is_empty() || same_id(id, theirs);
            fits.then_some(message)
        }
        Message::Acknowledge if letter != 'R' => Some(message),
        Message::Repeat | Message::Command(Command { letter: 'B', .. }) => Some(message),
        _ => None,
    }
}

/// The text of an error message `(ER...)` (clause 6.3.11).
fn error_text(body: &[u8]) -> Option<String> {
    super::pick::refusal(&data::decode(body))
}
