//! One sign-on and what follows, up to a block whose check is right. Every wait has an end.

use std::time::Duration;

use tokio::time::sleep;

use super::ladder::{Ladder, character};
use super::link::{Link, SLOWEST, Trouble, speed};
use super::{BlockCheck, REACTION};
use crate::meter::{MeterError, MeterSettings};
use crate::os::line::LineError;
use crate::wire::iec62056::{
    BLOCK_LIMIT, Damage, Identification, LINE_LIMIT, Message, Mode, OptionSelect, Parity, SIGN_ON_BAUD, data,
};

/// After a readout the meter waits 1.5 s for a repeat request; a new sign-on must wait longer.
pub(super) const REPEAT_WINDOW: Duration = Duration::from_secs(2);

/// What the kernel and a USB adapter may add.
const LATENCY: Duration = Duration::from_millis(100);
/// The shortest reaction of a meter with a lower-case third letter.
const FAST_REACTION: Duration = Duration::from_millis(20);
/// Before a sign-on a line that is not silent is waited for so long.
const BABBLE: Duration = Duration::from_secs(3);
/// A readout never takes longer, whatever its size and repetitions.
pub(super) const LONGEST_READOUT: Duration = Duration::from_mins(10);
/// NULs that wake a battery meter: 2.2 s at 300 Bd (clause 5; 2.1 s to 2.3 s).
const WAKE_UP_CHARACTERS: usize = 66;
/// The pause between them and the sign-on (1.5 s to 1.7 s).
const WAKE_UP_PAUSE: Duration = Duration::from_millis(1600);

/// Why a dialogue gave nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// A new sign-on may help.
    Again(MeterError),
    /// What came at this rate could not be read: a lower one may help.
    Garbled(u32, MeterError),
    /// Nothing would help.
    Final(MeterError),
}

impl Failure {
    pub(super) fn error(self) -> MeterError {
        match self {
            Self::Again(error) | Self::Garbled(_, error) | Self::Final(error) => error,
        }
    }
}

impl From<LineError> for Failure {
    fn from(error: LineError) -> Self {
        if error.must_reopen() { Self::Final(error.into()) } else { Self::Again(error.into()) }
    }
}

/// A meter that identified itself.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    pub(super) identification: Identification,
    pub(super) parity: Parity,
}

/// What the dialogue needs to know of the settings.
pub(super) struct Dialogue {
    pub(super) name: String,
    sign_on: Vec<String>,
    wake_up: bool,
    sign_on_baud: u32,
    block_check: BlockCheck,
    pub(super) answer_limit: Duration,
    pause: Duration,
    retries: u32,
    max_baud: u32,
    change_delay: Duration,
}

/// What the largest block takes at this rate with half as much again for pauses and repetitions; at 300 Bd
/// what ten minutes hold, some 18,000 characters.
pub(super) fn budget(baud: u32) -> Duration {
    (speed(baud).time_of(BLOCK_LIMIT) * 3 / 2).min(LONGEST_READOUT)
}

impl Dialogue {
    pub(super) fn new(settings: &MeterSettings) -> Self {
        let mut sign_on = settings.sign_on.clone();
        if sign_on.is_empty() {
            sign_on.push(format!("/?{}!", super::address(settings)));
        }
        Self {
            name: settings.name.to_string(),
            sign_on,
            wake_up: settings.wake_up,
            sign_on_baud: settings.sign_on_baud.value(),
            block_check: settings.block_check,
            answer_limit: settings.timeout.max(SLOWEST) + LATENCY,
            pause: settings.pause,
            retries: settings.retries.value(),
            max_baud: settings.max_baud.value(),
            change_delay: settings.baud_change_delay,
        }
    }

    /// How many sign-on texts there are.
    pub(super) fn texts(&self) -> usize {
        self.sign_on.len()
    }

    /// How often a failed request is repeated.
    pub(super) fn retries(&self) -> u32 {
        self.retries
    }

    /// Signs on with the text of number `text` and returns who answered. The link's parity is the
    /// meter's from then on.
    pub(super) async fn sign_on(&self, link: &mut Link<'_>, text: usize) -> Result<Meter, Failure> {
        link.begin_at(self.sign_on_baud);
        link.slow_down()?;
        let rested = link.line().last_byte() + self.pause;
        tokio::time::sleep_until(rested).await;
        // Lets the runtime look at the port once, so that bytes already here are seen.
        tokio::task::yield_now().await;
        let came = link.line().discard_waiting().await? > 0;
        if came || link.line().last_byte().elapsed() < REACTION {
            link.allow(BABBLE);
            link.hush(REACTION).await.map_err(never_silent)?;
        }
        link.allow(LONGEST_READOUT);
        if self.wake_up {
            link.send_characters(vec![0; WAKE_UP_CHARACTERS], false).await?;
            sleep(WAKE_UP_PAUSE).await;
        }
        link.clear().await?;
        let text = self.sign_on.get(text % self.sign_on.len().max(1)).map_or("/?!", String::as_str);
        link.send_characters(format!("{text}\r\n").into_bytes(), false).await?;
        let deadline = link.deadline(self.answer_limit, LINE_LIMIT, LONGEST_READOUT);
        let own = text.trim_start_matches('/');
        let wanted = |message| match message {
            Message::Identification(ident) if ident.line() != own => Some(ident),
            _ => None,
        };
        let answer = link.listen(deadline, false, wanted).await;
        let (identification, parity) = answer.map_err(|trouble| self.no_identification(trouble))?;
        tracing::debug!(meter = self.name, ?identification, ?parity, "meter identified itself");
        link.agree_on(parity);
        Ok(Meter { identification, parity })
    }

    fn no_identification(&self, trouble: Trouble) -> Failure {
        Failure::Again(match trouble {
            Trouble::Nothing(0) => LineError::Silent(self.answer_limit).into(),
            Trouble::Nothing(bytes) => MeterError::Damaged(format!("{bytes} bytes came, but no identification")),
            Trouble::Damaged(damage) => MeterError::Damaged(format!("no identification could be read: {damage}")),
            Trouble::Noise | Trouble::Endless => return never_silent(trouble),
            Trouble::Line(error) => return error.into(),
        })
    }

    /// Waits as long as the meter has to be left alone before it is spoken to.
    pub(super) async fn react(&self, link: &mut Link<'_>, ident: &Identification) {
        // The reaction time holds for the host too, and the LF may still be on its way.
        let fast = FAST_REACTION + link.line().speed().time_of(2);
        sleep(if ident.reacts_fast() { fast } else { REACTION }).await;
    }

    /// Chooses a mode (`0` readout, `1` programming) as far as the meter lets it be chosen, sets
    /// the line to the rate of what follows and returns it.
    pub(super) async fn choose(
        &self,
        link: &mut Link<'_>,
        ident: &Identification,
        mode: char,
        ladder: &mut Ladder,
        opened: impl FnOnce(u32),
    ) -> Result<u32, Failure> {
        let offered = match ident.mode() {
            Mode::A | Mode::B(_) if mode != '0' => {
                let text = "it announces mode A or B, which has no programming mode here; use access = \"readout\"";
                return Err(Failure::Final(MeterError::Refused(text.to_owned())));
            }
            Mode::A => return Ok(self.sign_on_baud),
            Mode::B(baud) if baud > self.max_baud => {
                let text = format!("it sends at {baud} Bd by itself (mode B), but max_baud is {}", self.max_baud);
                return Err(Failure::Final(MeterError::Refused(text)));
            }
            Mode::B(baud) => {
                link.set_baud(baud)?;
                return Ok(baud);
            }
            Mode::C(baud) => baud,
            Mode::Reserved => self.sign_on_baud,
        };
        let rate = ladder.rate(offered, tokio::time::Instant::now());
        // A raw serial server can't change its rate at all.
        let rate = if link.line().is_tcp() { SIGN_ON_BAUD } else { rate };
        let option = OptionSelect { protocol: '0', baud: character(rate).unwrap_or('0'), mode };
        // From here on the meter may be in a session, whether its caller waits for it or is dropped.
        opened(rate);
        self.select(link, ident, option).await?;
        link.set_baud(rate)?;
        Ok(rate)
    }

    /// Sends an option select and waits until the rate may be changed. What came between the
    /// identification and it was no answer to it.
    pub(super) async fn select(
        &self,
        link: &mut Link<'_>,
        ident: &Identification,
        option: OptionSelect,
    ) -> Result<(), LineError> {
        self.react(link, ident).await;
        link.clear().await?;
        link.send(&Message::OptionSelect(option)).await?;
        sleep(self.change_delay).await;
        Ok(())
    }

    /// Reads the block of a readout, asking for it again while it is damaged.
    pub(super) async fn block(&self, link: &mut Link<'_>, rate: u32) -> Result<Vec<u8>, Failure> {
        let mut repeats = 0;
        let mut malformed = Vec::new();
        link.decoder().expect_no_checks(self.block_check == BlockCheck::Optional);
        link.allow(budget(link.baud()));
        loop {
            let deadline = link.deadline(self.answer_limit, BLOCK_LIMIT, LONGEST_READOUT);
            let wanted = |message| if let Message::Block(body) = message { Some(body) } else { None };
            let trouble = match link.listen(deadline, true, wanted).await {
                Ok((body, _)) => {
                    let lines = data::malformed(&body);
                    // A line that comes twice in the same way is how the meter writes it.
                    if lines.is_empty() || lines == malformed {
                        return Ok(body);
                    }
                    malformed = lines;
                    Trouble::Damaged(Damage::Syntax)
                }
                Err(trouble) => trouble,
            };
            let silence = match trouble {
                Trouble::Line(error) => return Err(error.into()),
                Trouble::Damaged(damage) if repeats > self.retries => {
                    return Err(self.stays_damaged(damage, rate, repeats));
                }
                // A meter that promised a rate and kept to 300 Bd looks like this.
                Trouble::Damaged(Damage::Parity | Damage::Truncated) if repeats == 1 && !link.is_slow() => {
                    slow_down(link)?;
                    REACTION
                }
                Trouble::Damaged(damage) => {
                    tracing::debug!(meter = self.name, %damage, repeats, "damaged block, asking for it again");
                    REACTION
                }
                // A meter that understood no acknowledgement sends at 300 Bd (clause 6.4.3).
                Trouble::Nothing(_) | Trouble::Noise if !link.is_slow() && repeats == 0 => {
                    tracing::debug!(meter = self.name, rate, ?trouble, "no data at this rate, trying 300 Bd");
                    slow_down(link)?;
                    let more = link.hush(SLOWEST / 3).await.map_err(never_silent)?;
                    if more == 0 && matches!(trouble, Trouble::Nothing(0)) {
                        return Err(Failure::Again(LineError::Silent(self.answer_limit).into()));
                    }
                    Duration::ZERO
                }
                Trouble::Nothing(_) => return Err(Failure::Garbled(rate, no_data(rate))),
                Trouble::Noise | Trouble::Endless => return Err(never_silent(trouble)),
            };
            self.hush(link, silence).await?;
            link.clear().await?;
            link.send(&Message::Repeat).await?;
            repeats += 1;
        }
    }

    /// Waits until the meter is silent. What is noise at a rate may be a readout at 300 Bd: then it is waited
    /// for at that rate.
    pub(super) async fn hush(&self, link: &mut Link<'_>, silence: Duration) -> Result<usize, Failure> {
        match link.hush(silence).await {
            Err(Trouble::Noise) if link.baud() != SIGN_ON_BAUD => {
                slow_down(link)?;
                link.hush(SLOWEST / 3).await.map_err(never_silent)
            }
            waited => waited.map_err(never_silent),
        }
    }

    fn stays_damaged(&self, damage: Damage, rate: u32, repeats: u32) -> Failure {
        let error = MeterError::Damaged(format!("{damage}, also after {repeats} repeat requests"));
        match damage {
            Damage::Parity | Damage::Truncated => Failure::Garbled(rate, error),
            Damage::Checksum | Damage::TooLong | Damage::Syntax => Failure::Final(error),
        }
    }
}

/// Goes to 300 Bd, with the time that a readout takes there.
fn slow_down(link: &mut Link<'_>) -> Result<(), LineError> {
    link.slow_down()?;
    link.allow(budget(SIGN_ON_BAUD));
    Ok(())
}

/// What it means that a wait for silence had no end. Nothing is tried again at once: it would take as long.
pub(super) fn never_silent(trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Line(error) => error.into(),
        _ => Failure::Final(MeterError::Damaged(
            "the line does not fall silent; look for another sender, a wiring fault or a wrong speed".to_owned(),
        )),
    }
}

fn no_data(rate: u32) -> MeterError {
    MeterError::Damaged(format!(
        "it identified itself, but no whole block came at {rate} Bd; try baud_change_delay, max_baud or force_baud"
    ))
}
