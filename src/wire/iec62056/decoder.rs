//! Finds messages in a stream of bytes, whatever else is in it.

use super::{ACK, CR, ETX, Identification, LF, Message, NAK, OptionSelect, Parity, SEVEN_BITS, STX, checksum};

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

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Says that the line fell silent: what is not complete now never will be.
    pub fn silence(&mut self) {
        self.silent = true;
    }

    /// Forgets what it holds, not the parity.
    pub fn clear(&mut self) {
        *self = Self { parity: self.parity, ..Self::default() };
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
                    self.line_ended = ended_with_cr && !matches!(message, Message::Block(_));
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
            Some(ACK) => self.acknowledge(),
            Some(NAK) => Step::Take(1, Message::Repeat),
            Some(_) => {
                let begins = |b: &u8| matches!(b & SEVEN_BITS, b'/' | STX | ACK | NAK);
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
            Some(_) => Step::Give(self.buffer.len(), Damage::Truncated),
        }
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
        for end in self.scanned.max(1)..BLOCK_LIMIT {
            match self.at(end) {
                None => {
                    self.scanned = end;
                    return Step::More;
                }
                // The character before was lost, or this one is wrong; the block may begin here.
                Some(STX) => return Step::Give(end, Damage::Truncated),
                Some(ETX) => {
                    self.scanned = end;
                    let Some(check) = self.at(end + 1) else { return Step::More };
                    let counted = self.buffer.get(1..=end).unwrap_or_default();
                    if checksum(counted) != check {
                        // Not the check character itself: a new message may begin with it.
                        return Step::Give(end + 1, Damage::Checksum);
                    }
                    let body = counted.iter().take(end - 1).map(|b| b & SEVEN_BITS).collect();
                    return Step::Take(end + 2, Message::Block(body));
                }
                Some(_) => {}
            }
        }
        Step::Give(BLOCK_LIMIT, Damage::TooLong)
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
mod tests {
    use proptest::prelude::*;

    use super::super::encode;
    use super::*;

    fn all(decoder: &mut Decoder) -> Vec<Event> {
        std::iter::from_fn(|| decoder.next()).collect()
    }

    fn decode(bytes: &[u8]) -> Vec<Event> {
        let mut decoder = Decoder::new();
        decoder.push(bytes);
        decoder.silence();
        all(&mut decoder)
    }

    fn messages(bytes: &[u8]) -> Vec<Message> {
        let message = |event| if let Event::Message(message, _) = event { Some(message) } else { None };
        decode(bytes).into_iter().filter_map(message).collect()
    }

    fn written(message: &Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(message, &mut bytes);
        bytes
    }

    #[test]
    fn garbage_before_the_slash_is_counted_and_skipped() {
        let events = decode(b"\x00\xff\x7f/TST5SIM\r\n");
        assert_eq!(events[0], Event::Skipped { bytes: 3 });
        assert!(matches!(&events[1], Event::Message(Message::Identification(i), Parity::Absent) if i.model == "SIM"));
        assert_eq!(events.len(), 2);
    }

    #[test]
    fn a_line_may_end_with_cr_or_lf_alone() {
        for end in ["\r\n", "\r", "\n"] {
            let events = decode(format!("/TST5SIM {end}\x06050{end}").as_bytes());
            assert_eq!(events.len(), 2, "{end:?}: {events:?}");
        }
    }

    #[test]
    fn a_bare_acknowledge_before_the_block_is_no_hindrance() {
        let block = Message::Block(b"F.F(00)\r\n!\r\n".into());
        let stream = [b"\x06\r\n".as_slice(), &written(&block)].concat();
        assert_eq!(messages(&stream), [Message::Acknowledge, block]);
    }

    #[test]
    fn every_kind_of_damage_has_its_name() {
        let good = written(&Message::Block(b"1.8.0(1*kWh)".into()));
        let reasons = |bytes: &[u8]| {
            let reason = |event| if let Event::Damaged { reason, .. } = event { Some(reason) } else { None };
            decode(bytes).into_iter().filter_map(reason).collect::<Vec<_>>()
        };
        let changed = |at: usize, bit: u8| {
            let mut bytes = good.clone();
            bytes[at] ^= bit;
            bytes
        };
        assert_eq!(reasons(&changed(3, 1)), [Damage::Checksum]);
        assert_eq!(reasons(&changed(3, 0x80)), [Damage::Parity]);
        assert_eq!(reasons(&good[..good.len() - 2]), [Damage::Truncated], "neither ETX nor BCC");
        assert_eq!(reasons(&good[..good.len() - 1]), [Damage::Truncated], "no BCC");
        assert_eq!(reasons(&[good.clone(), vec![b'x'; 5]].concat()), []);
        let endless = [vec![STX], vec![b'x'; BLOCK_LIMIT + 10]].concat();
        assert_eq!(reasons(&endless), [Damage::TooLong]);
    }

    #[test]
    fn parity_is_enforced_once_it_is_known() {
        let mut decoder = Decoder::new();
        let plain = written(&Message::Block(b"F.F(00)".into()));
        let mut even = plain.clone();
        Parity::Even.apply(&mut even);
        decoder.push(&plain);
        decoder.push(&even);
        assert!(all(&mut decoder).iter().all(|e| matches!(e, Event::Message(..))));
        decoder.expect(Parity::Even);
        decoder.push(&even);
        assert!(matches!(decoder.next(), Some(Event::Message(Message::Block(_), Parity::Even))));
        decoder.push(&plain);
        assert!(matches!(decoder.next(), Some(Event::Damaged { reason: Damage::Parity, .. })));
    }

    fn message() -> impl Strategy<Value = Message> {
        let ident = ("[A-Z]{2}[A-Za-z]", "[0-9A-I]", "[0-9@]{0,2}", "([!-.0-Z][ -.0-Z]{0,14}[!-.0-Z])?");
        prop_oneof![
            "[0-9A-Za-z ]{0,32}".prop_map(|address| Message::Request { address }),
            ident.prop_map(|(manufacturer, baud, enhanced, model)| Message::Identification(Identification {
                manufacturer,
                baud: baud.chars().next().unwrap(),
                enhanced: enhanced.chars().collect(),
                model,
            })),
            "[0-9A-Z]{3}".prop_map(|c| {
                let mut c = c.chars();
                let mut next = || c.next().unwrap();
                Message::OptionSelect(OptionSelect { protocol: next(), baud: next(), mode: next() })
            }),
            Just(Message::Repeat),
            "[ -~\r\n]{0,200}".prop_map(|body| Message::Block(body.into_bytes())),
        ]
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_with_and_without_parity(list in prop::collection::vec(message(), 0..6), even: bool) {
            let mut bytes = list.iter().flat_map(written).collect::<Vec<_>>();
            if even {
                Parity::Even.apply(&mut bytes);
            }
            prop_assert_eq!(messages(&bytes), list);
        }

        #[test]
        fn any_bytes_in_any_chunks_give_the_same_events(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"/\x02\x03\x06\x15\r\n?!0A".to_vec())], 0..400),
            sizes in prop::collection::vec(1usize..40, 1..400),
        ) {
            let mut decoder = Decoder::new();
            let (mut events, mut rest) = (Vec::new(), bytes.as_slice());
            for size in sizes.iter().cycle() {
                let (chunk, after) = rest.split_at((*size).min(rest.len()));
                decoder.push(chunk);
                events.extend(all(&mut decoder));
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            decoder.silence();
            events.extend(all(&mut decoder));
            prop_assert_eq!(&events, &decode(&bytes));
            prop_assert!(!decoder.in_message());
        }

        #[test]
        fn after_noise_the_next_good_block_is_found(mut noise in prop::collection::vec(any::<u8>(), 0..300), body in "[ -~\r\n]{0,80}") {
            // An ETX at its very end could make the true STX the check of a block of noise.
            noise.extend(b"??");
            let block = Message::Block(body.into_bytes());
            noise.extend(written(&block));
            prop_assert_eq!(messages(&noise).pop(), Some(block));
        }

        #[test]
        fn the_memory_held_has_a_bound(start in prop::sample::select(b"/\x02\x06x".to_vec()), fill in any::<u8>()) {
            let mut decoder = Decoder::new();
            decoder.push(&[start]);
            for _ in 0..70 {
                decoder.push(&[fill; 2048]);
                let _ = all(&mut decoder);
                prop_assert!(decoder.buffer.len() <= BLOCK_LIMIT + 1);
            }
            prop_assert!(decoder.buffer.capacity() <= 4 * BLOCK_LIMIT);
        }
    }
}
