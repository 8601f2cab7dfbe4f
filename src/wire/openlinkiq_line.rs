//! What an OpenlinkIQ front end sends: a microcontroller with a CC1200-class radio, or an SDR's program.
//!
//! There is no product to follow, so the framing is weir's own (docs/radio.md has the table). A
//! message is `4F 4C`, a header of 14 bytes, the payload, and a CRC-32; numbers are little endian.
//! The front end does nothing but find the sync word: what follows it is the payload, as hard bits or
//! as ratios. It need not know how long a frame is.

use std::time::Duration;

use crc::{CRC_32_ISO_HDLC, Crc};

use super::DecodeError;
use super::openlinkiq::{self, Frame};
use super::radio_line::{Item, Reception};
use crate::model::{Rssi, TelegramKind, Timestamp};

/// The longest payload: a ratio for each bit of the longest frame.
pub const LONGEST_PAYLOAD: usize = 8 * openlinkiq::LONGEST;
/// The longest name a front end may have.
pub const LONGEST_NAME: usize = 64;

const SYNC: [u8; 2] = *b"OL";
/// Sync word and header.
const HEADER: usize = 16;
const SUM: usize = 4;
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
const UNKNOWN_RSSI: i8 = i8::MIN;

/// One message of a front end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Who it is; sent when it starts, when it is asked, and as a sign of life. The same message with an empty
    /// name is the question.
    Name(String),
    /// What followed a sync word.
    Heard(Capture),
}

/// What a front end heard after a sync word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// The bits.
    pub payload: Payload,
    /// Signal strength in dBm, -127 to 127.
    pub rssi: Option<i8>,
    /// When the sync word was there.
    pub time: Time,
}

/// The bits after a sync word; noise may follow behind the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Eight bits a byte, the first one highest; at most 777 bytes.
    Bits(Vec<u8>),
    /// One ratio a bit, in 1/16 neper, positive for 0; at most 6216.
    Ratios(Vec<i8>),
}

/// When something was heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Time {
    /// The front end does not say.
    #[default]
    Unknown,
    /// By its own clock.
    Utc(Timestamp),
    /// So long before the message was sent, in milliseconds: it has no clock but can count.
    Ago(Duration),
}

impl Capture {
    /// Decodes the frame.
    ///
    /// # Errors
    /// As [`openlinkiq::decode`].
    pub fn frame(&self) -> Result<Frame, DecodeError> {
        match &self.payload {
            Payload::Bits(bytes) => openlinkiq::decode(bytes),
            Payload::Ratios(ratios) => openlinkiq::decode_soft(ratios),
        }
    }

    /// Whether decoding it takes the turbo decoder, or looks at a ratio a bit: milliseconds instead of microseconds.
    pub fn is_costly(&self) -> bool {
        match &self.payload {
            Payload::Bits(bytes) => openlinkiq::is_costly(bytes),
            Payload::Ratios(_) => true,
        }
    }

    /// Decodes the frame into what every receiver gives. Only a time by a clock is in it; [`Time::Ago`] is
    /// for who knows what the time is.
    pub fn item(&self) -> Item {
        self.frame().map_or_else(Item::Damaged, |frame| {
            let time = if let Time::Utc(time) = self.time { Some(time) } else { None };
            Item::Heard(Reception {
                kind: TelegramKind::OpenlinkIq,
                corrected_bits: frame.corrected_bits(),
                bytes: frame.mbal,
                rssi: self.rssi.map(|dbm| Rssi::Dbm(dbm.into())),
                time,
            })
        })
    }
}

/// Appends a message.
///
/// # Errors
/// When the name or the payload is too long.
pub fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let nothing = (None, Time::Unknown);
    let (kind, payload, (rssi, time)) = match message {
        Message::Name(name) => (0, name.as_bytes().to_vec(), nothing),
        Message::Heard(Capture { payload: Payload::Bits(bits), rssi, time }) => (1, bits.clone(), (*rssi, *time)),
        Message::Heard(Capture { payload: Payload::Ratios(ratios), rssi, time }) => {
            (2, ratios.iter().map(|ratio| ratio.cast_unsigned()).collect(), (*rssi, *time))
        }
    };
    let too_long = || DecodeError::new(HEADER, "a shorter payload", format!("{} bytes", payload.len()));
    let length = u16::try_from(payload.len()).map_err(|_| too_long())?;
    if longest(kind).is_none_or(|most| payload.len() > most) {
        return Err(too_long());
    }
    let (clock, time) = match time {
        Time::Unknown => (0, 0),
        Time::Utc(time) => (1, time.as_millis()),
        Time::Ago(ago) => (2, i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)),
    };
    let start = out.len();
    out.extend(SYNC);
    out.extend([kind, clock]);
    out.extend(length.to_le_bytes());
    out.push(rssi.unwrap_or(UNKNOWN_RSSI).cast_unsigned());
    out.extend(time.to_le_bytes());
    out.push(check(out.get(start + SYNC.len()..).unwrap_or_default()));
    out.extend(payload);
    out.extend(CRC.checksum(out.get(start + SYNC.len()..).unwrap_or_default()).to_le_bytes());
    Ok(())
}

/// The longest payload of each kind of message.
const fn longest(kind: u8) -> Option<usize> {
    match kind {
        0 => Some(LONGEST_NAME),
        1 => Some(openlinkiq::LONGEST),
        2 => Some(LONGEST_PAYLOAD),
        _ => None,
    }
}

/// What makes all bytes of a header together FF by exclusive or: a wrong length must not make the decoder wait.
fn check(header: &[u8]) -> u8 {
    header.iter().fold(0xFF, |sum, byte| sum ^ byte)
}

/// What comes out of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message whose CRC is good.
    Message(Message),
    /// A message whose header is good and whose CRC or content is not.
    Damaged(DecodeError),
    /// Bytes that belong to no message.
    Skipped {
        /// How many.
        bytes: usize,
    },
}

/// Finds messages in a stream. Call [`next`](Self::next) until it is empty after every
/// [`push`](Self::push); then it holds less than one message of the longest kind.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    skipped: usize,
    silent: bool,
}

enum Step {
    More,
    Skip(usize),
    Take(usize, Result<Message, DecodeError>),
}

impl Decoder {
    /// Starts anywhere in a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.silent = false;
    }

    /// Says that the line fell silent: what is not complete now never will be.
    pub const fn silence(&mut self) {
        self.silent = true;
    }

    /// Returns what comes next, or `None` when more bytes are needed.
    #[expect(
        clippy::should_implement_trait,
        reason = "every decoder of the house has push and next; it is no iterator"
    )]
    pub fn next(&mut self) -> Option<Event> {
        loop {
            match self.step() {
                Step::More if self.silent && !self.buffer.is_empty() => self.skip(1),
                Step::More if self.silent => return self.skipped(),
                Step::More => return None,
                Step::Skip(bytes) => self.skip(bytes),
                Step::Take(..) if self.skipped > 0 => return self.skipped(),
                Step::Take(bytes, found) => {
                    self.buffer.drain(..bytes.min(self.buffer.len()));
                    return Some(found.map_or_else(Event::Damaged, Event::Message));
                }
            }
        }
    }

    fn skip(&mut self, bytes: usize) {
        let bytes = bytes.min(self.buffer.len());
        self.buffer.drain(..bytes);
        self.skipped = self.skipped.saturating_add(bytes);
    }

    fn skipped(&mut self) -> Option<Event> {
        match std::mem::take(&mut self.skipped) {
            0 => None,
            bytes => Some(Event::Skipped { bytes }),
        }
    }

    fn step(&self) -> Step {
        if !self.buffer.starts_with(&SYNC) {
            let begin = self.buffer.windows(SYNC.len()).position(|two| two == SYNC);
            let half = usize::from(self.buffer.last() == SYNC.first());
            return match begin.unwrap_or(self.buffer.len() - half) {
                0 => Step::More,
                bytes => Step::Skip(bytes),
            };
        }
        let Some((&header, rest)) = self.buffer.split_first_chunk::<HEADER>() else { return Step::More };
        let [_, _, kind, clock, low, high, rssi, t0, t1, t2, t3, t4, t5, t6, t7, _] = header;
        let length = usize::from(u16::from_le_bytes([low, high]));
        let good = header.iter().skip(SYNC.len()).fold(0, |sum, byte| sum ^ byte) == 0xFF;
        if !good || longest(kind).is_none_or(|most| length > most) || clock > 2 {
            return Step::Skip(SYNC.len());
        }
        let Some((payload, told)) = rest.split_at_checked(length) else { return Step::More };
        let Some((told, _)) = told.split_first_chunk::<SUM>() else { return Step::More };
        let summed = CRC.checksum(self.buffer.get(SYNC.len()..HEADER + length).unwrap_or_default());
        if summed != u32::from_le_bytes(*told) {
            // Only the sync word is taken: the length may be wrong, and the next message inside.
            let found = format!("{:08x} where {summed:08x} belongs", u32::from_le_bytes(*told));
            return Step::Take(SYNC.len(), Err(DecodeError::new(HEADER + length, "the CRC-32 of the message", found)));
        }
        let time = time(clock, i64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]));
        let rssi = Some(rssi.cast_signed()).filter(|rssi| *rssi != UNKNOWN_RSSI);
        Step::Take(HEADER + length + SUM, message(kind, payload, rssi, time))
    }
}

fn time(clock: u8, millis: i64) -> Time {
    match clock {
        1 => Time::Utc(Timestamp::from_millis(millis)),
        2 => Time::Ago(Duration::from_millis(u64::try_from(millis).unwrap_or(0))),
        _ => Time::Unknown,
    }
}

fn message(kind: u8, payload: &[u8], rssi: Option<i8>, time: Time) -> Result<Message, DecodeError> {
    let payload = match kind {
        0 => {
            let name = std::str::from_utf8(payload);
            let fault =
                |e: std::str::Utf8Error| DecodeError::new(HEADER + e.valid_up_to(), "a name in UTF-8", "other bytes");
            return name.map(|name| Message::Name(name.to_owned())).map_err(fault);
        }
        1 => Payload::Bits(payload.to_vec()),
        _ => Payload::Ratios(payload.iter().map(|byte| byte.cast_signed()).collect()),
    };
    Ok(Message::Heard(Capture { payload, rssi, time }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{mbal, wmbus};

    fn bytes(message: &Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(message, &mut bytes).unwrap();
        bytes
    }

    fn events(chunks: &[&[u8]]) -> Vec<Event> {
        let mut decoder = Decoder::new();
        let mut found = Vec::new();
        for chunk in chunks {
            decoder.push(chunk);
            found.extend(std::iter::from_fn(|| decoder.next()));
        }
        decoder.silence();
        found.extend(std::iter::from_fn(|| decoder.next()));
        assert!(decoder.buffer.is_empty());
        found
    }

    fn capture() -> (Vec<u8>, Capture) {
        let meter = wmbus::Meter::from_wire([0x2D, 0x2C, 1, 2, 3, 4, 5, 6]);
        let (mut mbal, mut frame) = (Vec::new(), Vec::new());
        mbal::encode(&mbal::Mbal { control: 1, meter, command: 0x40, mbus: b"\x78OLOL" }, &mut mbal).unwrap();
        openlinkiq::encode(&mbal, openlinkiq::Rate::Half, &mut frame).unwrap();
        let time = Time::Utc(Timestamp::from_millis(1_800_000_000_123));
        (mbal, Capture { payload: Payload::Bits(frame), rssi: Some(-87), time })
    }

    #[test]
    fn a_message_looks_as_the_page_says() {
        let payload = Payload::Bits(vec![0xCC, 0x48]);
        let message = Message::Heard(Capture { payload, rssi: Some(-87), time: Time::Ago(Duration::from_millis(258)) });
        // The sums are those of Python's zlib.crc32.
        let hex = |message| data_encoding::HEXLOWER.encode(&bytes(&message));
        assert_eq!(hex(message), "4f4c01020200a9020100000000000054cc480224372d");
        assert_eq!(hex(Message::Name(String::new())), "4f4c000000008000000000000000007f6b1c04f7");
    }

    #[test]
    fn a_capture_becomes_a_reception_and_wrong_bits_are_mended_and_counted() {
        let (mbal, sent) = capture();
        let expected = Reception {
            kind: TelegramKind::OpenlinkIq,
            bytes: mbal,
            rssi: Some(Rssi::Dbm(-87)),
            corrected_bits: 3,
            time: Some(Timestamp::from_millis(1_800_000_000_123)),
        };
        let Payload::Bits(mut frame) = sent.payload.clone() else { unreachable!("made above") };
        for at in [2, 20, 30] {
            frame[at] ^= 0x08;
        }
        let hard = Capture { payload: Payload::Bits(frame.clone()), ..sent.clone() };
        assert_eq!(hard.item(), Item::Heard(expected.clone()));
        let ratio = |n: usize| if frame[n / 8] << (n % 8) & 0x80 == 0 { 40 } else { -40 };
        let ratios = Payload::Ratios((0..8 * frame.len()).map(ratio).collect());
        let soft = Capture { payload: ratios, rssi: None, time: Time::Ago(Duration::ZERO) };
        assert_eq!(soft.item(), Item::Heard(Reception { rssi: None, time: None, ..expected }));
        let noise = Capture { payload: Payload::Bits(vec![0; 100]), ..sent };
        assert!(matches!(noise.item(), Item::Damaged(_)));
    }

    #[test]
    fn a_flipped_bit_anywhere_costs_its_message_and_never_the_next() {
        let message = Message::Heard(capture().1);
        let good = bytes(&message);
        for bit in 0..8 * good.len() {
            let mut stream = good.clone();
            stream[bit / 8] ^= 1 << (bit % 8);
            stream.extend(&good);
            let found = events(&[&stream]);
            let messages: Vec<_> = found.iter().filter(|event| matches!(event, Event::Message(_))).collect();
            assert_eq!(messages, [&Event::Message(message.clone())], "bit {bit}");
        }
    }

    #[test]
    fn a_message_that_breaks_off_waits_for_silence_only() {
        let good = bytes(&Message::Name("cc1200".into()));
        let mut decoder = Decoder::new();
        decoder.push(&good[..20]);
        assert_eq!(decoder.next(), None);
        decoder.silence();
        assert_eq!((decoder.next(), decoder.next()), (Some(Event::Skipped { bytes: 20 }), None));
        decoder.push(&good);
        assert_eq!(decoder.next(), Some(Event::Message(Message::Name("cc1200".into()))));
    }

    #[test]
    fn a_flood_of_sync_words_takes_no_memory() {
        let mut decoder = Decoder::new();
        for _ in 0..200 {
            decoder.push(&b"OL\x02\x00\xFF\x17".repeat(100));
            while decoder.next().is_some() {}
            assert!(decoder.buffer.len() < HEADER + LONGEST_PAYLOAD + SUM);
        }
    }

    #[test]
    fn what_is_too_long_is_not_sent() {
        let heard = |payload| Message::Heard(Capture { payload, rssi: None, time: Time::Unknown });
        assert!(encode(&heard(Payload::Bits(vec![0; 778])), &mut Vec::new()).is_err());
        assert!(encode(&heard(Payload::Ratios(vec![0; 6217])), &mut Vec::new()).is_err());
        assert!(encode(&Message::Name("x".repeat(65)), &mut Vec::new()).is_err());
        assert!(encode(&heard(Payload::Ratios(vec![0; 6216])), &mut Vec::new()).is_ok());
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let time = prop_oneof![
            Just(Time::Unknown),
            any::<u32>().prop_map(|ms| Time::Utc(Timestamp::from_millis(ms.into()))),
            any::<u32>().prop_map(|ms| Time::Ago(Duration::from_millis(ms.into()))),
        ];
        let payload = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..100).prop_map(Payload::Bits),
            proptest::collection::vec(any::<i8>(), 0..100).prop_map(Payload::Ratios),
        ];
        let heard = (payload, proptest::option::of(-127i8..), time)
            .prop_map(|(payload, rssi, time)| Message::Heard(Capture { payload, rssi, time }));
        prop_oneof![3 => heard, 1 => "[a-z0-9 ]{0,64}".prop_map(Message::Name)]
    }

    proptest! {
        #[test]
        fn messages_are_found_again_between_noise_however_the_stream_is_cut(
            messages in proptest::collection::vec(any_message(), 0..5),
            noise in proptest::collection::vec(any::<u8>().prop_filter("no sync word", |b| *b != SYNC[0]), 0..40),
            cut in 1usize..200,
        ) {
            let mut stream = noise.clone();
            for message in &messages {
                stream.extend(bytes(message));
                stream.extend(&noise);
            }
            let found = events(&stream.chunks(cut).collect::<Vec<_>>());
            prop_assert_eq!(&found, &events(&[&stream]));
            let (mut heard, mut skipped) = (Vec::new(), 0);
            for event in found {
                match event {
                    Event::Message(message) => heard.push(message),
                    Event::Skipped { bytes } => skipped += bytes,
                    Event::Damaged(fault) => prop_assert!(false, "{fault}"),
                }
            }
            prop_assert_eq!(skipped, noise.len() * (messages.len() + 1));
            prop_assert_eq!(heard, messages);
        }

        #[test]
        fn any_bytes_are_taken_and_none_is_kept_after_silence(
            stream in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'O'), Just(b'L'), 0u8..3], 0..400),
            cut in 1usize..50,
        ) {
            prop_assert_eq!(events(&stream.chunks(cut).collect::<Vec<_>>()), events(&[&stream]));
        }
    }
}
