//! Finds messages in a stream of bytes, whatever else is in it.

use super::{
    ACK, CR, Command, EOT, ETX, Identification, LF, Message, NAK, OptionSelect, Parity, SEVEN_BITS, SOH, STX, checksum,
};

/// The longest line from `/` to its end that is still taken for a message.
pub const LINE_LIMIT: usize = 128;

/// The longest block, from STX to ETX; a longer one is damaged.
pub const BLOCK_LIMIT: usize = 64 * 1024;

/// What the stream held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message and how its characters were sent.
    Message(Message, Parity),
    /// Something that began as a message and was not one in the end.
    Damaged {
        /// What was wrong.
        reason: Damage,
        /// How many bytes were given up.
        bytes: usize,
    },
    /// Noise between messages.
    Skipped {
        /// How many bytes.
        bytes: usize,
    },
}

/// What was wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The block check character differs.
    #[error("the block check is wrong")]
    Checksum,
    /// At least one character has the wrong parity.
    #[error("a character has the wrong parity")]
    Parity,
    /// The line fell silent, or another message began, before the end.
    #[error("the message breaks off before its end")]
    Truncated,
    /// The check was right, but a line is no data set: two errors hid each other.
    #[error("a line is no data set although the block check is right")]
    Syntax,
    /// No end came within [`BLOCK_LIMIT`].
    #[error("the block is longer than 64 KiB")]
    TooLong,
}

enum Step {
    More,
    Skip(usize),
    Take(usize, Message),
    Give(usize, Damage),
}

/// A decoder of both directions of the line. Call [`next`](Self::next) until it is empty after
/// every [`push`](Self::push); then it holds no more than [`BLOCK_LIMIT`] bytes and one.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of an unfinished block that were looked at already.
    scanned: usize,
    skipped: usize,
    /// A line ended with CR; the LF that may follow belongs to it.
    line_ended: bool,
    silent: bool,
    parity: Option<Parity>,
    no_options: bool,
    no_checks: bool,
}

impl Decoder {
    /// Starts between two messages, not knowing yet whether the characters carry parity: then
    /// each message must be consistent in itself.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fixes the parity for the messages to come.
    pub fn expect(&mut self, parity: Parity) {
        self.parity = Some(parity);
    }

    /// Says that no option select can come: every ACK is a bare one, and need not wait for what
    /// follows it.
    pub fn expect_no_options(&mut self, yes: bool) {
        self.no_options = yes;
    }

    /// Takes a block without ETX or block check too, when it ends with the line `!` and the line
    /// then fell silent: for meters that send none.
    pub fn expect_no_checks(&mut self, yes: bool) {
        self.no_checks = yes;
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Says that the line fell silent: what is not complete now never will be.
    pub fn silence(&mut self) {
        self.silent = true;
    }

    /// Forgets what it holds, not what it was told to expect.
    pub fn clear(&mut self) {
        let Self { parity, no_options, no_checks, .. } = *self;
        *self = Self { parity, no_options, no_checks, ..Self::default() };
    }

    /// Tells whether a message has begun and is not complete.
    pub fn in_message(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Returns what comes next in the stream, or `None` when more bytes are needed. Noise is
    /// given out together, before the message that follows it or when the line falls silent.
    #[expect(
        clippy::should_implement_trait,
        reason = "every decoder of the house has push and next; it is no iterator"
    )]
    pub fn next(&mut self) -> Option<Event> {
        loop {
            if self.line_ended && self.buffer.first().is_some_and(|b| b & SEVEN_BITS == LF) {
                self.consume(1);
            }
            let step = match self.step() {
                Step::More if self.silent => self.give_up(),
                step => step,
            };
            match step {
                Step::More => return None,
                Step::Skip(count) => {
                    self.consume(count);
                    self.skipped = self.skipped.saturating_add(count);
                    if self.silent && self.buffer.is_empty() {
                        return self.skipped();
                    }
                }
                Step::Take(..) | Step::Give(..) if self.skipped > 0 => return self.skipped(),
                Step::Take(count, message) => {
                    let raw = self.buffer.get(..count).unwrap_or_default();
                    let ended_with_cr = raw.last().is_some_and(|b| b & SEVEN_BITS == CR);
                    let parity = self.parity_of(raw);
                    self.consume(count);
                    let Some(parity) = parity else {
                        return Some(Event::Damaged { reason: Damage::Parity, bytes: count });
                    };
                    self.line_ended = ended_with_cr
                        && matches!(
                            message,
                            Message::Request { .. } | Message::Identification(_) | Message::OptionSelect(_)
                        );
                    return Some(Event::Message(message, parity));
                }
                Step::Give(count, reason) => {
                    // A block with a wrong character usually has a wrong check too; parity says more.
                    let raw = self.buffer.get(..count).unwrap_or_default();
                    let wrong_parity = reason == Damage::Checksum && self.parity_of(raw).is_none();
                    let reason = if wrong_parity { Damage::Parity } else { reason };
                    self.consume(count);
                    return Some(Event::Damaged { reason, bytes: count });
                }
            }
        }
    }

    fn parity_of(&self, raw: &[u8]) -> Option<Parity> {
        let found = Parity::of(raw);
        match self.parity {
            None => found,
            Some(Parity::Even) => found.filter(|p| *p == Parity::Even),
            Some(Parity::Absent) => Some(Parity::Absent),
        }
    }

    fn consume(&mut self, count: usize) {
        self.buffer.drain(..count.min(self.buffer.len()));
        self.scanned = 0;
        self.line_ended = false;
    }

    fn skipped(&mut self) -> Option<Event> {
        match std::mem::take(&mut self.skipped) {
            0 => None,
            bytes => Some(Event::Skipped { bytes }),
        }
    }

    /// The character at `at`, seven bits.
    fn at(&self, at: usize) -> Option<u8> {
        self.buffer.get(at).map(|b| b & SEVEN_BITS)
    }

    fn step(&mut self) -> Step {
        match self.at(0) {
            None => Step::More,
            Some(b'/') => self.line(),
            Some(STX) => self.block(),
            Some(SOH) => self.command(),
            Some(ACK) if self.no_options => Step::Take(1, Message::Acknowledge),
            Some(ACK) => self.acknowledge(),
            Some(NAK) => Step::Take(1, Message::Repeat),
            Some(_) => {
                let begins = |b: &u8| matches!(b & SEVEN_BITS, b'/' | SOH | STX | ACK | NAK);
                Step::Skip(self.buffer.iter().position(begins).unwrap_or(self.buffer.len()))
            }
        }
    }

    /// What an unfinished message is when nothing more comes.
    fn give_up(&mut self) -> Step {
        match self.at(0) {
            None => {
                // Noise that was read before the silence was announced.
                self.silent = self.skipped > 0;
                if self.silent { Step::Skip(0) } else { Step::More }
            }
            Some(ACK) => Step::Take(1, Message::Acknowledge),
            Some(STX) if self.no_checks => self.unchecked(),
            Some(_) => Step::Give(self.buffer.len(), Damage::Truncated),
        }
    }

    /// A block without ETX or check: whole when its last line is `!`.
    fn unchecked(&self) -> Step {
        let body: Vec<u8> = self.buffer.iter().skip(1).map(|b| b & SEVEN_BITS).collect();
        let text = body.strip_suffix(&[ETX]).unwrap_or(&body);
        if text.trim_ascii_end().ends_with(b"\n!") || text.trim_ascii_end().ends_with(b"\r!") {
            return Step::Take(self.buffer.len(), Message::Block(text.to_vec()));
        }
        Step::Give(self.buffer.len(), Damage::Truncated)
    }

    fn line(&self) -> Step {
        for end in 1..LINE_LIMIT {
            match self.at(end) {
                None => return Step::More,
                Some(CR | LF) => {
                    let text = self.text(1, end);
                    return read_line(&text).map_or(Step::Skip(end), |m| Step::Take(end + 1, m));
                }
                // A new line, a block or noise: whatever it is, this was no line.
                Some(c) if c == b'/' || c.is_ascii_control() => return Step::Skip(end),
                Some(_) => {}
            }
        }
        Step::Skip(LINE_LIMIT)
    }

    fn block(&mut self) -> Step {
        let end = match self.end_of_text(1) {
            Ok(end) => end,
            Err(step) => return step,
        };
        let Some(check) = self.at(end + 1) else { return Step::More };
        let counted = self.buffer.get(1..=end).unwrap_or_default();
        if checksum(counted) != check {
            // Not the check character itself: a new message may begin with it.
            return Step::Give(end + 1, Damage::Checksum);
        }
        let body = counted.iter().take(end - 1).map(|b| b & SEVEN_BITS).collect();
        let last = self.at(end) == Some(ETX);
        Step::Take(end + 2, if last { Message::Block(body) } else { Message::Part(body) })
    }

    /// Where the ETX or EOT is, looking from `from` on; else what to do.
    fn end_of_text(&mut self, from: usize) -> Result<usize, Step> {
        for end in self.scanned.max(from)..BLOCK_LIMIT {
            self.scanned = end;
            match self.at(end) {
                None => return Err(Step::More),
                // The character before was lost, or this one is wrong; the block may begin here.
                Some(STX) => return Err(Step::Give(end, Damage::Truncated)),
                Some(ETX | EOT) => return Ok(end),
                Some(_) => {}
            }
        }
        Err(Step::Give(BLOCK_LIMIT, Damage::TooLong))
    }

    fn command(&mut self) -> Step {
        const HEAD: usize = 3;
        for (at, allowed) in [(1, b"PWREB".as_slice()), (2, b"0123456789"), (HEAD, &[STX, ETX])] {
            match self.at(at) {
                None => return Step::More,
                Some(c) if allowed.contains(&c) => {}
                Some(_) => return Step::Skip(at),
            }
        }
        let has_data = self.at(HEAD) == Some(STX);
        let end = match if has_data { self.end_of_text(HEAD + 1) } else { Ok(HEAD) } {
            Ok(end) => end,
            Err(step) => return step,
        };
        let Some(check) = self.at(end + 1) else { return Step::More };
        let counted = self.buffer.get(1..=end).unwrap_or_default();
        if checksum(counted) != check {
            // Noise before a block may look like the head of a command.
            let inner = counted.get(HEAD..).filter(|inner| has_data && checksum(*inner) == check);
            return Step::Give(if inner.is_some() { HEAD } else { end + 1 }, Damage::Checksum);
        }
        let text: Vec<u8> = counted.iter().map(|b| b & SEVEN_BITS).collect();
        let [letter, number, ..] = text.as_slice() else { return Step::Skip(1) };
        let data = text.get(HEAD..text.len() - 1).filter(|_| has_data).map(<[u8]>::to_vec);
        let more = text.last() == Some(&EOT);
        let command = Command { letter: (*letter).into(), number: (*number).into(), data, more };
        Step::Take(end + 2, Message::Command(command))
    }

    fn acknowledge(&self) -> Step {
        let mut chosen = ['0'; 3];
        for (at, choice) in (1..).zip(&mut chosen) {
            match self.at(at) {
                None => return Step::More,
                Some(c) if c.is_ascii_alphanumeric() => *choice = c.into(),
                Some(_) => return Step::Take(1, Message::Acknowledge),
            }
        }
        let [protocol, baud, mode] = chosen;
        match self.at(4) {
            None => Step::More,
            Some(CR | LF) => Step::Take(5, Message::OptionSelect(OptionSelect { protocol, baud, mode })),
            Some(_) => Step::Take(1, Message::Acknowledge),
        }
    }

    fn text(&self, from: usize, to: usize) -> String {
        self.buffer.get(from..to).unwrap_or_default().iter().map(|b| char::from(b & SEVEN_BITS)).collect()
    }
}

fn read_line(text: &str) -> Option<Message> {
    let Some(request) = text.strip_prefix('?') else {
        return Identification::from_line(text).map(Message::Identification);
    };
    let (address, after) = request.split_once('!')?;
    after.trim().is_empty().then(|| Message::Request { address: address.to_owned() })
}

#[cfg(test)]
mod tests;
