//! One sign-on and what follows, up to a block whose check is right. Every wait has an end.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::REACTION;
use crate::meter::{MeterError, MeterSettings};
use crate::os::line::{Framing, Line, LineError, Speed};
use crate::wire::iec62056::{
    BLOCK_LIMIT, Damage, Decoder, Event, Identification, LINE_LIMIT, Message, Mode, OptionSelect, Parity, SIGN_ON_BAUD,
    encode,
};

/// After a readout the meter waits 1.5 s for a repeat request; a new sign-on must wait longer.
pub(super) const REPEAT_WINDOW: Duration = Duration::from_secs(2);

/// The longest time until a meter answers, and between two of its characters (clause 6.4.1).
const SLOWEST: Duration = Duration::from_millis(1500);
/// What the kernel and a USB adapter may add.
const LATENCY: Duration = Duration::from_millis(100);
/// The shortest reaction of a meter with a lower-case third letter.
const FAST_REACTION: Duration = Duration::from_millis(20);
/// A readout never takes longer, whatever its size.
const LONGEST_READOUT: Duration = Duration::from_mins(10);

/// Why a dialogue gave no block.
#[derive(Debug)]
pub(super) enum Failure {
    /// A new sign-on may help.
    Again(MeterError),
    /// It would not.
    Final(MeterError),
}

impl From<LineError> for Failure {
    fn from(error: LineError) -> Self {
        if error.must_reopen() { Self::Final(error.into()) } else { Self::Again(error.into()) }
    }
}

/// What came instead of the message waited for.
enum Trouble {
    /// Nothing that began as a message; so many bytes of noise.
    Nothing(usize),
    Damaged(Damage),
    Line(LineError),
}

/// When a message must begin and end.
struct Deadline {
    begin: Instant,
    end: Instant,
}

/// What the dialogue needs to know of the settings.
pub(super) struct Dialogue {
    name: String,
    address: String,
    answer_limit: Duration,
    pause: Duration,
    retries: u32,
    max_baud: u32,
    change_delay: Duration,
}

const fn speed(baud: u32) -> Speed {
    Speed { baud, framing: Framing::EIGHT_N_ONE }
}

impl Dialogue {
    pub(super) fn new(settings: &MeterSettings, address: String) -> Self {
        Self {
            name: settings.name.to_string(),
            address,
            answer_limit: settings.timeout.max(SLOWEST) + LATENCY,
            pause: settings.pause,
            retries: settings.retries.value(),
            max_baud: settings.max_baud.value(),
            change_delay: settings.baud_change_delay,
        }
    }

    /// Signs on with characters sent as `sending` and reads a block; at 300 Bd when `slow`. Sets
    /// `heard` to the meter's parity once it identified itself.
    pub(super) async fn once(
        &self,
        line: &mut Line,
        sending: Parity,
        slow: bool,
        heard: &mut Option<Parity>,
    ) -> Result<Vec<u8>, Failure> {
        line.set_speed(speed(SIGN_ON_BAUD))?;
        tokio::time::sleep_until(line.last_byte() + self.pause).await;
        line.discard_waiting().await?;
        let mut decoder = Decoder::new();
        self.send(line, &Message::Request { address: self.address.clone() }, sending).await?;
        let begin = Instant::now() + self.answer_limit;
        let deadline = Deadline { begin, end: begin + 2 * speed(SIGN_ON_BAUD).time_of(LINE_LIMIT) };
        let wanted = |message| if let Message::Identification(ident) = message { Some(ident) } else { None };
        let answer = listen(line, &mut decoder, &deadline, false, wanted).await;
        let (ident, parity) = answer.map_err(|trouble| self.no_identification(trouble))?;
        tracing::debug!(meter = self.name, ?ident, ?parity, "meter identified itself");
        *heard = Some(parity);
        decoder.expect(parity);
        let baud = self.agree(line, &ident, parity, slow).await?;
        self.block(line, &mut decoder, baud, parity).await
    }

    fn no_identification(&self, trouble: Trouble) -> Failure {
        Failure::Again(match trouble {
            Trouble::Nothing(0) => LineError::Silent(self.answer_limit).into(),
            Trouble::Nothing(bytes) => MeterError::Damaged(format!("{bytes} bytes came, but no identification")),
            Trouble::Damaged(damage) => MeterError::Damaged(format!("no identification could be read: {damage}")),
            Trouble::Line(error) => return error.into(),
        })
    }

    /// Acknowledges in mode C, sets the line to the rate of the data and returns it.
    async fn agree(&self, line: &mut Line, ident: &Identification, parity: Parity, slow: bool) -> Result<u32, Failure> {
        let baud = match ident.mode() {
            Mode::A => return Ok(SIGN_ON_BAUD),
            Mode::B(baud) if baud > self.max_baud => {
                let text = format!("it sends at {baud} Bd by itself (mode B), but max_baud is {}", self.max_baud);
                return Err(Failure::Final(MeterError::Refused(text)));
            }
            Mode::B(baud) => baud,
            mode => {
                // The host may only take the meter's rate or stay at 300 Bd. A raw serial server
                // can't change its rate at all.
                let offered = if let Mode::C(baud) = mode { baud } else { SIGN_ON_BAUD };
                let take = offered <= self.max_baud && !slow && !line.is_tcp();
                let baud = if take { offered } else { SIGN_ON_BAUD };
                let z = if baud == SIGN_ON_BAUD { '0' } else { ident.baud };
                // The reaction time holds for the host too, and the LF may still be on its way.
                let fast = FAST_REACTION + line.speed().time_of(2);
                sleep(if ident.reacts_fast() { fast } else { REACTION }).await;
                let option = OptionSelect { protocol: '0', baud: z, mode: '0' };
                self.send(line, &Message::OptionSelect(option), parity).await?;
                sleep(self.change_delay).await;
                baud
            }
        };
        line.set_speed(speed(baud))?;
        Ok(baud)
    }

    /// Reads the block, asking for it again while it is damaged.
    async fn block(
        &self,
        line: &mut Line,
        decoder: &mut Decoder,
        rate: u32,
        parity: Parity,
    ) -> Result<Vec<u8>, Failure> {
        let mut baud = rate;
        let mut repeats = 0;
        loop {
            let begin = Instant::now() + self.answer_limit;
            let longest = (2 * speed(baud).time_of(BLOCK_LIMIT)).min(LONGEST_READOUT);
            let deadline = Deadline { begin, end: begin + longest };
            let wanted = |message| if let Message::Block(body) = message { Some(body) } else { None };
            let trouble = match listen(line, decoder, &deadline, true, wanted).await {
                Ok((body, _)) => return Ok(body),
                Err(trouble) => trouble,
            };
            let silence = match trouble {
                Trouble::Line(error) => return Err(error.into()),
                Trouble::Damaged(damage) if repeats > self.retries => {
                    let text = format!("{damage}, also after {repeats} repeat requests");
                    return Err(Failure::Final(MeterError::Damaged(text)));
                }
                Trouble::Damaged(damage) => {
                    tracing::debug!(meter = self.name, %damage, repeats, "damaged block, asking for it again");
                    REACTION
                }
                // A meter that understood no acknowledgement sends at 300 Bd (clause 6.4.3).
                Trouble::Nothing(bytes) if baud != SIGN_ON_BAUD && repeats == 0 => {
                    tracing::debug!(meter = self.name, baud, bytes, "no data at this rate, trying 300 Bd");
                    baud = SIGN_ON_BAUD;
                    line.set_speed(speed(baud))?;
                    let more = line.wait_for_silence(SLOWEST / 3, LONGEST_READOUT).await?;
                    if bytes + more == 0 {
                        return Err(Failure::Again(LineError::Silent(self.answer_limit).into()));
                    }
                    Duration::ZERO
                }
                Trouble::Nothing(_) => return Err(Failure::Again(self.no_data(rate))),
            };
            line.wait_for_silence(silence, longest).await?;
            decoder.clear();
            self.send(line, &Message::Repeat, parity).await?;
            repeats += 1;
        }
    }

    fn no_data(&self, rate: u32) -> MeterError {
        MeterError::Damaged(format!(
            "it identified itself, but no whole block came at {rate} Bd; try baud_change_delay or max_baud = 300"
        ))
    }

    async fn send(&self, line: &mut Line, message: &Message, parity: Parity) -> Result<(), LineError> {
        let mut bytes = Vec::new();
        encode(message, &mut bytes);
        parity.apply(&mut bytes);
        tracing::trace!(meter = self.name, ?bytes, "sent");
        line.send(&bytes).await
    }
}

/// Waits for a message that `wanted` accepts. Others are left aside: what only a host says is the
/// echo of the optical head. Damage ends the wait when `strict`, else only if nothing better comes.
async fn listen<T>(
    line: &mut Line,
    decoder: &mut Decoder,
    deadline: &Deadline,
    strict: bool,
    wanted: impl Fn(Message) -> Option<T>,
) -> Result<(T, Parity), Trouble> {
    let mut noise = 0;
    let mut damaged = None;
    let mut ended = false;
    let mut buffer = [0; 512];
    loop {
        while let Some(event) = decoder.next() {
            match event {
                Event::Message(message, parity) => {
                    if let Some(found) = wanted(message) {
                        return Ok((found, parity));
                    }
                }
                Event::Damaged { reason, .. } if strict => return Err(Trouble::Damaged(reason)),
                Event::Damaged { reason, .. } => damaged = Some(reason),
                Event::Skipped { bytes } => noise += bytes,
            }
        }
        if ended {
            return Err(damaged.map_or(Trouble::Nothing(noise), Trouble::Damaged));
        }
        let limit = if decoder.in_message() { deadline.end } else { deadline.begin };
        let until = if decoder.in_message() { limit.min(line.last_byte() + SLOWEST) } else { limit };
        match line.receive(&mut buffer, until).await {
            Ok(count) if Instant::now() < limit => {
                let bytes = buffer.get(..count).unwrap_or_default();
                tracing::trace!(?bytes, "received");
                decoder.push(bytes);
            }
            Ok(_) | Err(LineError::Silent(_)) => {
                decoder.silence();
                ended = true;
            }
            Err(error) => return Err(Trouble::Line(error)),
        }
    }
}
