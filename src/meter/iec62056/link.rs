//! Messages over a line: sending, waiting with an end, and the echo of an optical head.
//!
//! A meter or a fault that never falls silent does not hold the line: noise is recognised after some
//! hundred bytes, and whoever waits for more has said how long it may take in all ([`Link::allow`]).

use std::time::Duration;

use tokio::time::Instant;

use crate::os::line::{Framing, Line, LineError, Speed};
use crate::wire::iec62056::{Damage, Decoder, Event, Message, Parity, SIGN_ON_BAUD, encode, strip_even_parity};

/// The longest time until a meter answers, and between two of its characters (clause 6.4.1).
pub(super) const SLOWEST: Duration = Duration::from_millis(1500);

/// So much noise, weighed against the characters among it, is no message with a few errors any more.
const TOO_NOISY: u32 = 192;
/// Without an end of its own a dialogue is given up after this.
const LONGEST_DIALOGUE: Duration = Duration::from_hours(24);

/// From so many bytes on that are no message, they are taken for one at another rate.
const NOISE: usize = 8;

/// Eight bits without parity at this rate: the parity is done here.
pub(super) const fn speed(baud: u32) -> Speed {
    Speed { baud, framing: Framing::EIGHT_N_ONE }
}

/// What came instead of the message waited for.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing that began as a message; so many bytes of noise.
    Nothing(usize),
    Damaged(Damage),
    /// Only noise comes, and goes on.
    Noise,
    /// It does not come to an end.
    Endless,
    Line(LineError),
}

impl From<LineError> for Trouble {
    fn from(error: LineError) -> Self {
        Self::Line(error)
    }
}

/// Tells noise from characters as they come.
struct Noise {
    parity: Parity,
    /// The high bit of the byte before: without parity it stays the same.
    high: Option<u8>,
    weight: u32,
}

impl Noise {
    const fn new(parity: Parity) -> Self {
        Self { parity, high: None, weight: 0 }
    }

    /// Takes the next bytes and tells whether it is nothing but noise by now.
    fn is_too_much(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            let (seven, wrong) = strip_even_parity(*byte);
            let sound = match self.parity {
                Parity::Even => !wrong,
                Parity::Absent => self.high.replace(byte & 0x80).is_none_or(|high| high == byte & 0x80),
            };
            let meant = matches!(seven, 0x01..=0x04 | 0x06 | b'\r' | b'\n' | 0x15 | b' '..=b'~');
            self.weight = if sound && meant { self.weight.saturating_sub(1) } else { self.weight + 2 };
            if self.weight >= TOO_NOISY {
                return true;
            }
        }
        false
    }
}

/// When a message must begin and end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    pub(super) begin: Instant,
    pub(super) end: Instant,
}

/// A line on which messages are exchanged.
pub(super) struct Link<'a> {
    line: &'a mut Line,
    decoder: Decoder,
    /// How what is sent carries parity.
    parity: Parity,
    /// What was sent and may come back, seven bits each.
    sent: Vec<u8>,
    /// What came back of it so far.
    returned: Vec<u8>,
    /// The head gives back what is sent: seen on this dialogue's sign-on.
    echoes: bool,
    /// Whether what was just sent may teach that there is an echo: not a single character.
    tells_echo: bool,
    /// What was just sent is a password, and so may be what comes.
    secret: bool,
    /// When the whole dialogue is given up, and the present part of it.
    last: Instant,
    end: Instant,
}

impl<'a> Link<'a> {
    pub(super) fn new(line: &'a mut Line, parity: Parity) -> Self {
        let decoder = Decoder::new();
        let last = Instant::now() + LONGEST_DIALOGUE;
        Self {
            line,
            decoder,
            parity,
            sent: Vec::new(),
            returned: Vec::new(),
            echoes: false,
            tells_echo: false,
            secret: false,
            last,
            end: last,
        }
    }

    /// Nothing is waited for beyond this.
    pub(super) fn give_up_at(&mut self, last: Instant) {
        self.last = last;
        self.end = last;
    }

    /// What follows may take so long in all.
    pub(super) fn allow(&mut self, time: Duration) {
        self.end = self.last.min(Instant::now() + time);
    }

    /// Whether what was allowed is over.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Reads away what still comes until the line was silent for `silence`, as long as that is allowed; returns
    /// how many bytes came.
    pub(super) async fn hush(&mut self, silence: Duration) -> Result<usize, Trouble> {
        let mut noise = Noise::new(self.parity);
        let mut dropped = 0;
        let mut buffer = [0; 256];
        loop {
            let now = Instant::now();
            if self.is_over() {
                return Err(Trouble::Endless);
            }
            match self.line.receive(&mut buffer, (now + silence).min(self.end)).await {
                Ok(count) if noise.is_too_much(buffer.get(..count).unwrap_or_default()) => return Err(Trouble::Noise),
                Ok(count) => dropped += count,
                // A silence that the end cut short is none, unless nothing came at all.
                Err(LineError::Silent(_)) if dropped > 0 && now + silence > self.end => {}
                Err(LineError::Silent(_)) => return Ok(dropped),
                Err(LineError::Collision) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) fn line(&mut self) -> &mut Line {
        self.line
    }

    pub(super) fn decoder(&mut self) -> &mut Decoder {
        &mut self.decoder
    }

    pub(super) fn baud(&self) -> u32 {
        self.line.speed().baud
    }

    /// Bytes with the parity that the meter showed are expected and sent from now on.
    pub(super) fn agree_on(&mut self, parity: Parity) {
        self.parity = parity;
        self.decoder.expect(parity);
    }

    pub(super) fn set_baud(&mut self, baud: u32) -> Result<(), LineError> {
        self.line.set_speed(speed(baud))
    }

    /// Forgets all that came so far: it can't be the answer to what is sent next.
    pub(super) async fn clear(&mut self) -> Result<(), LineError> {
        self.decoder.clear();
        self.line.discard_waiting().await.map(|_| ())
    }

    pub(super) async fn send(&mut self, message: &Message) -> Result<(), LineError> {
        let mut bytes = Vec::new();
        encode(message, &mut bytes);
        // A trace of the line must not show the password.
        let secret = matches!(message, Message::Command(command) if command.letter == 'P');
        self.send_characters(bytes, secret).await
    }

    /// Sends characters of seven bits with the link's parity.
    pub(super) async fn send_characters(&mut self, mut bytes: Vec<u8>, secret: bool) -> Result<(), LineError> {
        self.sent.clone_from(&bytes);
        self.returned.clear();
        self.secret = secret;
        self.tells_echo = bytes.len() > 2;
        self.parity.apply(&mut bytes);
        if secret {
            tracing::trace!(count = bytes.len(), "sent a secret");
            return self.line.send_secret(&bytes).await;
        }
        tracing::trace!(?bytes, "sent");
        self.line.send(&bytes).await
    }

    /// Waits for a message that `wanted` accepts. Others are left aside. Damage ends the wait when
    /// `strict`, else only if nothing better comes.
    pub(super) async fn listen<T>(
        &mut self,
        deadline: Deadline,
        strict: bool,
        wanted: impl Fn(Message) -> Option<T>,
    ) -> Result<(T, Parity), Trouble> {
        let mut noise = 0;
        let mut damaged = None;
        let mut ended = false;
        let mut unexplained = 0;
        let mut unlike = Noise::new(self.parity);
        let mut buffer = [0; 512];
        loop {
            while let Some(event) = self.decoder.next() {
                unexplained = 0;
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
            let begun = self.decoder.in_message();
            let limit = if begun { deadline.end } else { deadline.begin };
            // At the wrong rate a message is only noise; a meter waits not long for what it is asked then.
            let until = match begun {
                true => limit.min(self.line.last_byte() + SLOWEST),
                false if strict && unexplained >= NOISE => limit.min(self.line.last_byte() + SLOWEST / 3),
                false => limit,
            };
            match self.line.receive(&mut buffer, until).await {
                Ok(count) if Instant::now() < limit => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    if self.secret {
                        tracing::trace!(count, "received");
                    } else {
                        tracing::trace!(?bytes, "received");
                    }
                    unexplained += count;
                    if begun && strict && unlike.is_too_much(bytes) {
                        return Err(Trouble::Noise);
                    }
                    self.take(bytes);
                }
                Ok(_) | Err(LineError::Silent(_)) => {
                    self.give_back();
                    self.decoder.silence();
                    ended = true;
                }
                Err(error) => return Err(Trouble::Line(error)),
            }
        }
    }

    /// Gives bytes to the decoder, without the echo of what was sent last.
    fn take(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let (Some(expected), Some((first, after))) = (self.sent.get(self.returned.len()), rest.split_first()) {
            if !(self.echoes || self.tells_echo) || first & 0x7F != *expected {
                break;
            }
            self.returned.push(*first);
            rest = after;
        }
        if self.returned.len() == self.sent.len() && !self.sent.is_empty() {
            self.echoes = true;
            self.sent.clear();
            self.returned.clear();
        } else if !rest.is_empty() {
            // Not the echo, or not all of it: what was held back belongs to the answer.
            self.give_back();
        }
        self.decoder.push(rest);
    }

    fn give_back(&mut self) {
        self.sent.clear();
        self.decoder.push(&std::mem::take(&mut self.returned));
    }

    /// As [`listen`](Self::listen) for an answer that may be the same as what was sent: only a head
    /// that has shown its echo before gives it back.
    pub(super) async fn listen_behind_echo<T>(
        &mut self,
        deadline: Deadline,
        wanted: impl Fn(Message) -> Option<T>,
    ) -> Result<(T, Parity), Trouble> {
        self.tells_echo = false;
        self.listen(deadline, false, wanted).await
    }

    /// A deadline for a message of `size` characters that begins within `limit`.
    pub(super) fn deadline(&self, limit: Duration, size: usize, longest: Duration) -> Deadline {
        let begin = Instant::now() + limit;
        let end = begin + (2 * self.line.speed().time_of(size)).min(longest);
        Deadline { begin: begin.min(self.end), end: end.min(self.end) }
    }

    /// Sets the line to the rate of a sign-on.
    pub(super) fn slow_down(&mut self) -> Result<(), LineError> {
        self.set_baud(SIGN_ON_BAUD)
    }
}
