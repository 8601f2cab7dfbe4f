//! One guarded exchange on the bus: silence, request, checked answer.
//!
//! Invariants: a frame of a master is an echo and never an answer; a damaged frame ends the wait,
//! because what follows it can't be trusted. An answer does not name its request, so a request that
//! got none, or was repeated, stays *open*: the next different request of this session waits until
//! two time limits after the open one was sent, and reads away what comes. Only requests for data
//! are open in that sense: a late E5 carries no value, and who waits for data passes over it. The next
//! reading waits in the same way for a second copy of the last answer. The limit of the rule: what
//! comes later than that is not told apart; the meter's `timeout` must then be raised.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, trace};

use crate::meter::MeterError;
use crate::os::line::{Line, LineError, Speed};
use crate::wire::mbus::{Decoder, Event, Frame, LONGEST_FRAME, encode};

/// How many time limits after its request an answer may still come.
const LATE: u32 = 2;
/// What the kernel, a USB adapter or a serial server may put between two bytes of a frame.
const PIECES: Duration = Duration::from_millis(100);
const PIECES_TCP: Duration = Duration::from_millis(400);
/// A slave answers within 330 bit times and 50 ms (EN 13757-2, clause 5.5.5.1).
const ANSWER_BITS: u64 = 330;
const ANSWER_EXTRA: Duration = Duration::from_millis(50);
/// The silence before a request, in bit times (EN 13757-2, clause 5.5.5.2).
const IDLE_BITS: u64 = 33;
/// A line that is never silent is given up after this.
const BABBLE: Duration = Duration::from_secs(3);

fn bits(speed: Speed, count: u64) -> Duration {
    Duration::from_micros(count * 1_000_000 / u64::from(speed.baud.max(1)))
}

/// What a session makes of a frame that is no echo.
pub(super) enum Verdict<T> {
    /// It is the answer.
    Answer(T),
    /// It is not, and why, for the report when no other comes.
    Other(&'static str),
    /// It is the answer, but wrong.
    Wrong(MeterError),
}

/// Does exchanges and remembers which request is still open.
#[derive(Debug)]
pub(super) struct Link {
    name: String,
    timeout: Duration,
    pause: Duration,
    /// Until when an answer to an open request may come, and to which request.
    open: Option<(Instant, Frame)>,
    /// Until when a second copy of the last answer may come.
    copies_until: Option<Instant>,
}

impl Link {
    pub(super) const fn new(name: String, timeout: Duration, pause: Duration) -> Self {
        Self { name, timeout, pause, open: None, copies_until: None }
    }

    /// Until when an answer to an abandoned request may still come.
    pub(super) fn late_until(&self) -> Option<Instant> {
        self.open.as_ref().map(|(until, _)| *until)
    }

    /// How long an answer may take to begin; never less than the standard gives the slave.
    fn limit(&self, line: &Line, request: usize) -> Duration {
        let speed = line.speed();
        // What was written to a serial server is not on the wire yet.
        let on_the_way = if line.is_tcp() { speed.time_of(request) } else { Duration::ZERO };
        self.timeout.max(bits(speed, ANSWER_BITS) + ANSWER_EXTRA) + on_the_way
    }

    /// Sends `request` up to `1 + retries` times and returns what `judge` takes for its answer.
    pub(super) async fn ask<T>(
        &mut self,
        line: &mut Line,
        request: &Frame,
        retries: u32,
        mut judge: impl FnMut(Frame) -> Verdict<T>,
    ) -> Result<T, MeterError> {
        let mut left = retries;
        loop {
            match self.once(line, request, &mut judge).await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.must_reopen() || left == 0 => return Err(error),
                Err(MeterError::Refused(why)) => return Err(MeterError::Refused(why)),
                Err(error) => debug!(meter = %self.name, %error, "the request is repeated"),
            }
            left -= 1;
        }
    }

    async fn once<T>(
        &mut self,
        line: &mut Line,
        request: &Frame,
        judge: &mut impl FnMut(Frame) -> Verdict<T>,
    ) -> Result<T, MeterError> {
        let repeated = self.settle(line, request).await?;
        self.quiet(line).await?;
        let mut bytes = Vec::new();
        encode(request, &mut bytes);
        let limit = self.limit(line, bytes.len());
        let asks_for_data = gives_data(request);
        let sent_by = |now: Instant| now + limit * LATE;
        if asks_for_data {
            // Noted before the first await, so that an abandoned exchange leaves it noted.
            self.open = Some((sent_by(Instant::now()), request.clone()));
        }
        trace!(meter = %self.name, ?bytes, "request");
        line.send(&bytes).await?;
        if asks_for_data {
            self.open = Some((sent_by(line.last_byte()), request.clone()));
            self.copies_until = Some(sent_by(line.last_byte()));
        }
        let answer = self.listen(line, limit, judge).await;
        if answer.is_ok() && !repeated {
            self.open = None; // After a repetition, the answer to one of the two is still out.
        }
        answer
    }

    async fn listen<T>(
        &self,
        line: &mut Line,
        limit: Duration,
        judge: &mut impl FnMut(Frame) -> Verdict<T>,
    ) -> Result<T, MeterError> {
        let begin = line.last_byte() + limit;
        let end = begin + 2 * line.speed().time_of(LONGEST_FRAME);
        let pieces = bits(line.speed(), IDLE_BITS) + if line.is_tcp() { PIECES_TCP } else { PIECES };
        let mut decoder = Decoder::new();
        let mut strange: Option<String> = None;
        let mut buffer = [0; 512];
        loop {
            let until = if decoder.in_frame() { end.min(line.last_byte() + pieces) } else { begin };
            let events: Vec<Event> = match line.receive(&mut buffer, until).await {
                Ok(count) => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    trace!(meter = %self.name, ?bytes, "received");
                    decoder.push(bytes);
                    std::iter::from_fn(|| decoder.next()).collect()
                }
                Err(LineError::Silent(_)) if decoder.in_frame() => {
                    decoder.clear();
                    return Err(MeterError::Damaged("the answer stopped in the middle".to_owned()));
                }
                Err(LineError::Silent(_)) => {
                    return Err(strange.map_or(MeterError::Line(LineError::Silent(limit)), MeterError::Damaged));
                }
                Err(error) => return Err(error.into()),
            };
            for event in events {
                match event {
                    Event::Frame(frame) if is_of_a_master(&frame) => {}
                    Event::Frame(frame) => match judge(frame) {
                        Verdict::Answer(answer) => return Ok(answer),
                        Verdict::Other(why) => strange = Some(why.to_owned()),
                        Verdict::Wrong(error) => return Err(error),
                    },
                    Event::Damaged(error) => return Err(MeterError::Damaged(error.to_string())),
                    Event::Skipped { bytes } => strange = Some(format!("{bytes} bytes came that are no frame")),
                }
            }
            if Instant::now() > end {
                return Err(strange.map_or(MeterError::Line(LineError::Silent(limit)), MeterError::Damaged));
            }
        }
    }

    /// Waits until no answer to an open request can be taken for the answer to this one; tells
    /// whether this one is a repetition.
    async fn settle(&mut self, line: &mut Line, request: &Frame) -> Result<bool, MeterError> {
        let Some((until, asked)) = &self.open else { return Ok(false) };
        if asked == request && Instant::now() < *until {
            return Ok(true);
        }
        let until = *until;
        self.read_away(line, until).await?;
        self.open = None;
        Ok(false)
    }

    /// Begins a reading: waits until nothing that belongs to the last one can come any more.
    pub(super) async fn begin(&mut self, line: &mut Line) -> Result<(), MeterError> {
        let open = self.open.as_ref().map(|(until, _)| *until);
        if let Some(until) = open.max(self.copies_until) {
            self.read_away(line, until).await?;
        }
        (self.open, self.copies_until) = (None, None);
        Ok(())
    }

    async fn read_away(&self, line: &mut Line, until: Instant) -> Result<(), MeterError> {
        let mut scratch = [0; 256];
        while Instant::now() < until {
            match line.receive(&mut scratch, until).await {
                Ok(count) => debug!(meter = %self.name, bytes = count, "a late answer was dropped"),
                Err(LineError::Silent(_)) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for the silence a request needs before it, and empties the line.
    async fn quiet(&self, line: &mut Line) -> Result<(), MeterError> {
        let gap = bits(line.speed(), IDLE_BITS).max(self.pause);
        sleep_until(line.last_byte() + gap).await;
        tokio::task::yield_now().await;
        if line.discard_waiting().await? == 0 {
            return Ok(());
        }
        let start = Instant::now();
        line.wait_for_silence(gap.max(PIECES), BABBLE).await?;
        if start.elapsed() >= BABBLE {
            let text = "the line does not fall silent; look for a second master or a wiring fault";
            return Err(MeterError::Damaged(text.to_owned()));
        }
        Ok(())
    }

    /// Sends `request` and gives everything that comes until the line is silent, without the echo;
    /// for searches, where several slaves may answer at once.
    pub(super) async fn collect(&mut self, line: &mut Line, request: &Frame) -> Result<Vec<u8>, MeterError> {
        self.quiet(line).await?;
        let mut sent = Vec::new();
        encode(request, &mut sent);
        let limit = self.limit(line, sent.len());
        line.send(&sent).await?;
        let begin = line.last_byte() + limit;
        let end = begin + 2 * line.speed().time_of(LONGEST_FRAME);
        let pieces = bits(line.speed(), IDLE_BITS) + if line.is_tcp() { PIECES_TCP } else { PIECES };
        let mut came = Vec::new();
        let mut buffer = [0; 512];
        loop {
            let only_echo = sent.starts_with(&came);
            let until = if only_echo { begin } else { end.min(line.last_byte() + pieces) };
            match line.receive(&mut buffer, until).await {
                Ok(count) => came.extend(buffer.get(..count).unwrap_or_default()),
                Err(LineError::Silent(_)) => break,
                Err(error) => return Err(error.into()),
            }
            if Instant::now() > end {
                break;
            }
        }
        trace!(meter = %self.name, bytes = ?came, "received");
        Ok(came.strip_prefix(sent.as_slice()).map(<[u8]>::to_vec).unwrap_or(came))
    }
}

/// Whether the answer carries values: REQ_UD1 and REQ_UD2.
const fn gives_data(request: &Frame) -> bool {
    matches!(request, Frame::Short { control, .. } if matches!(*control & 0x0F, 0x0A | 0x0B))
}

/// Whether only a master sends such a frame (bit 6 of the control field): it is an echo.
const fn is_of_a_master(frame: &Frame) -> bool {
    match frame {
        Frame::Acknowledge => false,
        Frame::Short { .. } => true,
        Frame::Long { control, .. } => *control & 0x40 != 0,
    }
}
