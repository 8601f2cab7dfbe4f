//! One guarded exchange on a line: silence, request, checked answer.
//!
//! Invariants: an answer that comes late is never taken for the answer of another request.
//! Over TCP the transaction id sees to that. RTU has none, and an answer names neither address
//! nor table, so this rule stands in for it: a request that got no answer is *open*; while one
//! is open, the next *different* request to that meter waits until [`LATE`] time limits after
//! the last open request was sent, and reads away what comes. Repeating the *same* request
//! needs no wait: a late answer to it is an answer to what is asked. The limit of the rule: a
//! meter that answers later than that is not told apart; its `timeout` must be raised. ASCII has
//! no transaction id either and keeps the same rule.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, trace, warn};

use crate::meter::{MeterError, MeterSettings};
use crate::os::line::{Line, LineError, Speed};
use crate::wire::modbus::{Damage, Progress, Request, ascii, rtu, tcp};

/// How many time limits after its request an answer may still come.
const LATE: u32 = 2;
/// Serial adapters hand over bytes in pieces up to 16 ms apart; a pause of this length inside
/// an answer that is being thrown away is its end.
const PIECES: Duration = Duration::from_millis(50);
/// The silence before a request above 19,200 bits per second ("MODBUS over Serial Line V1.02",
/// clause 2.5.1.1).
const SHORTEST_GAP: Duration = Duration::from_micros(1750);

/// How requests are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Unit and CRC.
    Rtu,
    /// Hex digits between a colon and a line end.
    Ascii,
    /// MBAP header.
    Tcp,
}

/// The longest pause between two characters of an ASCII frame ("MODBUS over Serial Line V1.02",
/// clause 2.5.2.1).
const BETWEEN_CHARACTERS: Duration = Duration::from_secs(1);
/// How much longer than its characters need an ASCII answer may take by its pauses.
const MOST_PAUSES: Duration = Duration::from_secs(10);
/// The wait after a broadcast, in which the meters do what it says (clause 2.4.1: 100 to 200 ms).
const TURNAROUND: Duration = Duration::from_millis(200);

/// Does exchanges and remembers which requests are still open.
#[derive(Debug)]
pub(super) struct Guard {
    framing: Framing,
    name: String,
    timeout: Duration,
    pause: Duration,
    /// Until when an answer to an open request may come, and to which request.
    open: Option<(Instant, Request)>,
    /// A late answer was told about; once is enough.
    late_told: bool,
}

impl Guard {
    /// The longest wait for an answer.
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(super) fn new(framing: Framing, settings: &MeterSettings) -> Self {
        Self::named(framing, &settings.name, settings.timeout, settings.pause)
    }

    pub(super) fn named(framing: Framing, name: &str, timeout: Duration, pause: Duration) -> Self {
        Self { framing, name: name.to_owned(), timeout, pause, open: None, late_told: false }
    }

    pub(super) const fn framing(&self) -> Framing {
        self.framing
    }

    /// Until when an answer to an abandoned request may still come.
    pub(super) fn late_until(&self) -> Option<Instant> {
        self.open.as_ref().map(|(until, _)| *until).filter(|_| self.framing != Framing::Tcp)
    }

    /// Sends `request` and returns the checked PDU of the answer.
    pub(super) async fn exchange(
        &mut self,
        line: &mut Line,
        unit: u8,
        request: &Request,
    ) -> Result<Vec<u8>, MeterError> {
        match self.framing {
            Framing::Rtu | Framing::Ascii => self.serial(line, unit, request).await,
            Framing::Tcp => self.tcp(line, unit, request).await,
        }
    }

    /// Sends `request` to every meter on the line; nobody answers, and nobody is asked again
    /// before they had the time to do it.
    pub(super) async fn broadcast(&mut self, line: &mut Line, request: &Request) -> Result<(), MeterError> {
        const EVERYBODY: u8 = 0;
        if self.framing == Framing::Tcp {
            let ours = tcp::Header { transaction: line.next_number(), unit: EVERYBODY };
            let (mut pdu, mut sent) = (Vec::new(), Vec::new());
            request.encode(&mut pdu);
            tcp::encode(ours, &pdu, &mut sent);
            line.send(&sent).await?;
        } else {
            self.settle(line, request).await?;
            self.open = None;
            self.keep_silence(line).await?;
            line.send(&self.frame(EVERYBODY, request)).await?;
        }
        // An echo, or an answer that nobody should have given, is read away.
        line.wait_for_silence(TURNAROUND.max(self.pause), TURNAROUND * 2 + self.pause).await?;
        Ok(())
    }

    fn frame(&self, unit: u8, request: &Request) -> Vec<u8> {
        let (mut pdu, mut sent) = (Vec::new(), Vec::new());
        request.encode(&mut pdu);
        match self.framing {
            Framing::Ascii => ascii::encode(unit, &pdu, &mut sent),
            Framing::Rtu | Framing::Tcp => rtu::encode(unit, &pdu, &mut sent),
        }
        sent
    }

    async fn serial(&mut self, line: &mut Line, unit: u8, request: &Request) -> Result<Vec<u8>, MeterError> {
        self.settle(line, request).await?;
        self.keep_silence(line).await?;
        let repeated = self.open.is_some();
        let sent = self.frame(unit, request);
        // Noted before the first await, so that an abandoned exchange leaves it noted.
        self.open = Some((Instant::now() + self.timeout * LATE, request.clone()));
        trace!(meter = %self.name, bytes = ?sent, "request");
        line.send(&sent).await?;
        self.open = Some((line.last_byte() + self.timeout * LATE, request.clone()));
        let mut decoder = Decoder::new(self.framing, unit, request);
        let wire_time = line.speed().time_of(decoder.longest(request));
        let result = collect(line, self.timeout, wire_time, &mut decoder).await;
        let (echo, other_unit) = decoder.skipped();
        if echo {
            debug!(meter = %self.name, "the adapter echoed the request; the echo was skipped");
        }
        if let Some(other) = other_unit {
            debug!(meter = %self.name, unit = other, "an answer of another unit was skipped");
        }
        match result {
            Ok(Collected::Answer(pdu)) => {
                // After a repeat, the answer to one of the two requests is still out.
                if !repeated {
                    self.open = None;
                }
                trace!(meter = %self.name, bytes = ?pdu, "answer");
                Ok(pdu)
            }
            Ok(Collected::Damaged(damage)) => {
                if damage.whole && !repeated {
                    self.open = None;
                }
                line.wait_for_silence(PIECES, self.timeout).await?;
                Err(MeterError::Damaged(damage.error.to_string()))
            }
            Err(error) => Err(silent_or_strange(error, decoder.unused())),
        }
    }

    /// Waits until no answer to an open request can be taken for the answer to this one.
    async fn settle(&mut self, line: &mut Line, request: &Request) -> Result<(), MeterError> {
        let Some((until, asked)) = &self.open else { return Ok(()) };
        if asked == request && Instant::now() < *until {
            return Ok(());
        }
        // It stays open until the wait is over: who drops this half way must wait again.
        let until = *until;
        let mut dropped = 0;
        let mut scratch = [0; 256];
        while Instant::now() < until {
            match line.receive(&mut scratch, until).await {
                Ok(count) => dropped += count,
                Err(LineError::Silent(_)) => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.open = None;
        if dropped > 0 && !self.late_told {
            self.late_told = true;
            warn!(meter = %self.name, bytes = dropped, "an answer came after its time limit and was dropped; raise the meter's timeout");
        }
        Ok(())
    }

    /// Waits for the silence a request needs before it, and empties the line.
    async fn keep_silence(&self, line: &mut Line) -> Result<(), MeterError> {
        let gap = gap(line.speed()).max(self.pause);
        line.pause_until(line.last_byte() + gap).await;
        // Lets the runtime look at the port once, so that bytes already here are seen.
        tokio::task::yield_now().await;
        let mut dropped = line.discard_waiting().await?;
        let give_up = Instant::now() + self.timeout + gap;
        while dropped > 0 {
            debug!(meter = %self.name, bytes = dropped, "bytes nobody asked for were dropped before a request");
            if Instant::now() >= give_up {
                return Err(MeterError::Damaged(
                    "the line does not fall silent; look for a second master or a wiring fault".to_owned(),
                ));
            }
            dropped = line.wait_for_silence(gap, gap).await?;
        }
        Ok(())
    }

    async fn tcp(&mut self, line: &mut Line, unit: u8, request: &Request) -> Result<Vec<u8>, MeterError> {
        line.pause_until(line.last_byte() + self.pause).await;
        // Of the line, not of the meter: two meters on one connection must not use the same.
        let ours = tcp::Header { transaction: line.next_number(), unit };
        let (mut pdu, mut sent) = (Vec::new(), Vec::new());
        request.encode(&mut pdu);
        tcp::encode(ours, &pdu, &mut sent);
        trace!(meter = %self.name, bytes = ?sent, "request");
        line.send(&sent).await?;
        let mut decoder = Decoder::Tcp(tcp::AnswerDecoder::new(ours, request.clone()));
        let result = collect(line, self.timeout, Duration::ZERO, &mut decoder).await;
        if let Decoder::Tcp(decoder) = &decoder
            && decoder.skipped > 0
        {
            debug!(meter = %self.name, answers = decoder.skipped, "late answers were skipped");
        }
        match result {
            Ok(Collected::Answer(pdu)) => Ok(pdu),
            Ok(Collected::Damaged(damage)) => Err(MeterError::OutOfStep(damage.error.to_string())),
            Err(LineError::Silent(_)) if decoder.unused() > 0 => {
                let error = format!("the answer stopped after {} bytes", decoder.unused());
                Err(MeterError::OutOfStep(error))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The silence between two frames: 3.5 characters, fixed above 19,200 bits per second.
fn gap(speed: Speed) -> Duration {
    if speed.baud > 19_200 { SHORTEST_GAP } else { speed.time_of(7) / 2 }
}

fn silent_or_strange(error: LineError, unused: usize) -> MeterError {
    match error {
        LineError::Silent(limit) if unused > 0 => MeterError::Damaged(format!(
            "expected an answer within {} ms, found {unused} bytes that are none",
            limit.as_millis()
        )),
        other => other.into(),
    }
}

enum Collected {
    Answer(Vec<u8>),
    Damaged(Damage),
}

/// What reads an answer, by framing.
enum Decoder {
    Rtu(rtu::AnswerDecoder),
    Ascii(ascii::AnswerDecoder),
    Tcp(tcp::AnswerDecoder),
}

impl Decoder {
    fn new(framing: Framing, unit: u8, request: &Request) -> Self {
        match framing {
            Framing::Ascii => Self::Ascii(ascii::AnswerDecoder::new(unit, request.clone(), false)),
            Framing::Rtu | Framing::Tcp => Self::Rtu(rtu::AnswerDecoder::new(unit, request.clone(), false)),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Progress {
        match self {
            Self::Rtu(decoder) => decoder.push(bytes),
            Self::Ascii(decoder) => decoder.push(bytes),
            Self::Tcp(decoder) => decoder.push(bytes),
        }
    }

    fn unused(&self) -> usize {
        match self {
            Self::Rtu(decoder) => decoder.unused(),
            Self::Ascii(decoder) => decoder.unused(),
            Self::Tcp(decoder) => decoder.unused(),
        }
    }

    /// Whether an echo was skipped, and the unit of an answer that was.
    const fn skipped(&self) -> (bool, Option<u8>) {
        match self {
            Self::Rtu(decoder) => (decoder.echo, decoder.other_unit),
            Self::Ascii(decoder) => (decoder.echo, decoder.other_unit),
            Self::Tcp(_) => (false, None),
        }
    }

    /// The most characters its answer has.
    fn longest(&self, request: &Request) -> usize {
        match self {
            Self::Ascii(_) => ascii::length(request.longest_answer()),
            Self::Rtu(_) | Self::Tcp(_) => request.longest_answer() + 3,
        }
    }

    /// Whether an ASCII frame has begun, which may pause but must not stop.
    const fn in_frame(&self) -> bool {
        matches!(self, Self::Ascii(decoder) if decoder.in_frame())
    }
}

/// Receives until the decoder knows, at most `timeout`; an answer that has begun gets the time
/// its bytes need on the wire on top, and the pauses that ASCII allows.
async fn collect(
    line: &mut Line,
    timeout: Duration,
    wire_time: Duration,
    decoder: &mut Decoder,
) -> Result<Collected, LineError> {
    let sent = line.last_byte();
    let mut deadline = sent + timeout;
    let mut buffer = [0; 256];
    loop {
        let count = line.receive(&mut buffer, deadline).await.map_err(|error| match error {
            LineError::Silent(_) => LineError::Silent(timeout),
            other => other,
        })?;
        deadline = sent + timeout + wire_time;
        match decoder.push(buffer.get(..count).unwrap_or_default()) {
            Progress::More if decoder.in_frame() => {
                deadline = (line.last_byte() + BETWEEN_CHARACTERS).min(deadline + MOST_PAUSES);
            }
            Progress::More => {}
            Progress::Answer(pdu) => return Ok(Collected::Answer(pdu)),
            Progress::Damaged(damage) => return Ok(Collected::Damaged(damage)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::line::Framing as Character;

    #[test]
    fn the_silence_is_three_and_a_half_characters_and_fixed_above_19200() {
        let at = |baud| gap(Speed { baud, framing: Character::EIGHT_N_ONE });
        assert_eq!(at(9600), Duration::from_nanos(3_645_500));
        assert_eq!(at(1200).as_millis(), 29);
        assert_eq!(at(115_200), SHORTEST_GAP);
    }
}
