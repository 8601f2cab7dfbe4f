//! What IMST's iU891A-XL says and is told (WMBus gateway HCI).
//!
//! A message stands between two `C0` (SLIP, RFC 1055: `DB DC` is a `C0` in it, `DB DD` a `DB`): the service
//! it is about, an identifier, a body, and a CRC-16/X-25, little endian as all numbers. The body of
//! an answer begins with a status byte.

use crc::{CRC_16_IBM_SDLC, Crc};

use super::radio_line::{Item, Reception};
use super::{DecodeError, wmbus};
use crate::model::{Rssi, TelegramKind};

/// The service of questions about the stick.
pub const DEVICE: u8 = 0x01;
/// The service of telegrams and of what to listen to.
pub const GATEWAY: u8 = 0x09;

/// Identifiers of the service [`DEVICE`]; an answer has the question's plus one.
pub mod device {
    /// Is anybody there?
    pub const PING: u8 = 0x01;
    /// Who is it?
    pub const INFO: u8 = 0x03;
    /// Which firmware?
    pub const FIRMWARE: u8 = 0x05;
}

/// Identifiers of the service [`GATEWAY`]; an answer has the question's plus one.
pub mod gateway {
    /// Asks for the settings in force.
    pub const GET_CONFIG: u8 = 0x01;
    /// Changes the settings in force, until the stick restarts.
    pub const SET_CONFIG: u8 = 0x03;
    /// A telegram; it is told, not asked for.
    pub const TELEGRAM: u8 = 0x20;
}

/// The longest message between two `C0`, CRC included, escapes undone; a telegram of 256 bytes takes 268.
pub const LONGEST: usize = 512;

const END: u8 = 0xC0;
const ESCAPE: u8 = 0xDB;
const ESCAPED_END: u8 = 0xDC;
const ESCAPED_ESCAPE: u8 = 0xDD;
const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_IBM_SDLC);
/// Service, identifier and CRC.
const SHORTEST: usize = 4;

/// What wakes a sleeping stick before it is asked something.
pub const WAKE: [u8; 30] = [END; 30];

/// One message, in either direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// [`DEVICE`] or [`GATEWAY`].
    pub service: u8,
    /// What it is about.
    pub id: u8,
    /// What it says; an answer's status first.
    pub body: Vec<u8>,
}

/// What a telegram's message says besides the telegram.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reported {
    /// The stick's clock in seconds since 1970; it starts at 2000-01-01 with the stick.
    pub clock: u32,
    /// Two bytes of status.
    pub status: [u8; 2],
    /// How it was sent, as in [`Config::mode`].
    pub mode: u8,
    /// Signal strength in dBm.
    pub rssi: i8,
}

impl Message {
    /// A message.
    pub fn new(service: u8, id: u8, body: &[u8]) -> Self {
        Self { service, id, body: body.to_vec() }
    }

    /// A telegram as the stick tells it.
    pub fn telegram(reported: Reported, telegram: &[u8]) -> Self {
        let Reported { clock, status: [first, second], mode, rssi } = reported;
        let mut body = clock.to_le_bytes().to_vec();
        body.extend([first, second, mode, rssi.cast_unsigned()]);
        body.extend_from_slice(telegram);
        Self { service: GATEWAY, id: gateway::TELEGRAM, body }
    }

    /// What is told of a telegram, and the telegram; `None` when it is no telegram.
    pub fn reported(&self) -> Option<(Reported, &[u8])> {
        if (self.service, self.id) != (GATEWAY, gateway::TELEGRAM) {
            return None;
        }
        let (&[c0, c1, c2, c3, first, second, mode, rssi], telegram) = self.body.split_first_chunk()?;
        let clock = u32::from_le_bytes([c0, c1, c2, c3]);
        Some((Reported { clock, status: [first, second], mode, rssi: rssi.cast_signed() }, telegram))
    }

    /// The telegram in it; `None` when it is no telegram.
    pub fn item(&self) -> Option<Item> {
        if (self.service, self.id) != (GATEWAY, gateway::TELEGRAM) {
            return None;
        }
        let Some((Reported { rssi, .. }, telegram)) = self.reported() else {
            let found = format!("{} bytes", self.body.len());
            return Some(Item::Damaged(DecodeError::new(2, "8 bytes before the telegram", found)));
        };
        let reception = || Reception {
            kind: TelegramKind::WirelessMbus,
            bytes: telegram.to_vec(),
            rssi: Some(Rssi::Dbm(rssi.into())),
            corrected_bits: 0,
            time: None,
        };
        Some(wmbus::decode(telegram).map_or_else(Item::Damaged, |_| Item::Heard(reception())))
    }
}

/// Appends a message with its `C0` before and behind.
///
/// # Errors
/// When the body has more than 508 bytes.
pub fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    if message.body.len() > LONGEST - SHORTEST {
        return Err(DecodeError::new(2, "at most 508 bytes", message.body.len().to_string()));
    }
    let mut plain = vec![message.service, message.id];
    plain.extend_from_slice(&message.body);
    plain.extend(CRC.checksum(&plain).to_le_bytes());
    out.push(END);
    for byte in plain {
        match byte {
            END => out.extend([ESCAPE, ESCAPED_END]),
            ESCAPE => out.extend([ESCAPE, ESCAPED_ESCAPE]),
            byte => out.push(byte),
        }
    }
    out.push(END);
    Ok(())
}

/// What comes out of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message whose CRC is good.
    Message(Message),
    /// Something between two `C0` that is none.
    Damaged(DecodeError),
    /// Bytes that are too many or too few for a message.
    Skipped {
        /// How many.
        bytes: usize,
    },
}

/// Finds messages in a stream. Holds at most one unfinished message and the events not yet taken; call
/// [`next`](Self::next) until it is empty after every [`push`](Self::push).
#[derive(Debug, Default)]
pub struct Decoder {
    /// The present message, escapes undone.
    plain: Vec<u8>,
    /// Bytes of it as they came.
    came: usize,
    /// The last byte began an escape.
    escape: bool,
    /// Where an escape was none.
    fault: Option<DecodeError>,
    /// It is too long: bytes are only counted.
    over: bool,
    ready: std::collections::VecDeque<Event>,
}

impl Decoder {
    /// Starts anywhere in a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == END {
                self.finish();
                continue;
            }
            self.came += 1;
            if self.over {
                if self.came == LONGEST {
                    self.ready.push_back(Event::Skipped { bytes: std::mem::take(&mut self.came) });
                }
                continue;
            }
            self.take(byte);
            if self.plain.len() > LONGEST {
                self.ready.push_back(Event::Skipped { bytes: std::mem::take(&mut self.came) });
                self.forget();
                self.over = true;
            }
        }
    }

    fn take(&mut self, byte: u8) {
        match (std::mem::take(&mut self.escape), byte) {
            (false, ESCAPE) => self.escape = true,
            (false, byte) => self.plain.push(byte),
            (true, ESCAPED_END) => self.plain.push(END),
            (true, ESCAPED_ESCAPE) => self.plain.push(ESCAPE),
            (true, byte) => {
                let at = self.plain.len();
                let fault = || DecodeError::new(at, "DC or DD after DB", format!("{byte:02x}"));
                self.fault.get_or_insert_with(fault);
                self.plain.push(byte);
            }
        }
    }

    /// Whether the beginning of a message waits for its rest.
    pub const fn is_incomplete(&self) -> bool {
        self.came > 0 || self.over
    }

    /// Says that the line fell silent: what is not complete now never will be.
    pub fn silence(&mut self) {
        if self.came > 0 {
            self.ready.push_back(Event::Skipped { bytes: self.came });
        }
        self.forget();
    }

    /// Takes the next event, if there is one.
    #[expect(
        clippy::should_implement_trait,
        reason = "every decoder of the house has push and next; it is no iterator"
    )]
    pub fn next(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    fn forget(&mut self) {
        self.plain.clear();
        (self.came, self.escape, self.fault, self.over) = (0, false, None, false);
    }

    fn finish(&mut self) {
        if self.came == 0 {
            return self.forget();
        }
        let event = if self.over || self.plain.len() < SHORTEST {
            Event::Skipped { bytes: self.came }
        } else {
            self.message().map_or_else(Event::Damaged, Event::Message)
        };
        self.ready.push_back(event);
        self.forget();
    }

    fn message(&mut self) -> Result<Message, DecodeError> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let short = || DecodeError::new(0, "service, identifier and CRC", format!("{} bytes", self.plain.len()));
        let (checked, told) = self.plain.split_last_chunk::<2>().ok_or_else(short)?;
        let (&[service, id], body) = checked.split_first_chunk::<2>().ok_or_else(short)?;
        let (told, summed) = (u16::from_le_bytes(*told), CRC.checksum(checked));
        if told != summed {
            let found = format!("{told:04x} where {summed:04x} belongs");
            return Err(DecodeError::new(checked.len(), "the CRC of the message", found));
        }
        Ok(Message::new(service, id, body))
    }
}

/// The settings in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Config {
    /// 0 off, 1 S, 2 T, 3 C and T, 5 C.
    pub mode: u8,
    /// Bit 0 lets only listed meters through, bit 1 tells telegrams, bit 2 tells what was sent, bit 3 recalibrates.
    pub options: u16,
    /// What the stick's pins show.
    pub pins: u16,
    /// How long the LED flashes, in milliseconds.
    pub led: u16,
    /// How often the radio is calibrated, in milliseconds.
    pub recalibrate: u32,
}

impl Config {
    /// Only listed meters are let through.
    pub const FILTER: u16 = 1;
    /// Telegrams are told.
    pub const TELL: u16 = 2;

    /// Reads what follows the status in the answer to [`gateway::GET_CONFIG`]; further bytes are passed over.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (&[mode, o0, o1, p0, p1, l0, l1, r0, r1, r2, r3], _) = bytes.split_first_chunk()?;
        Some(Self {
            mode,
            options: u16::from_le_bytes([o0, o1]),
            pins: u16::from_le_bytes([p0, p1]),
            led: u16::from_le_bytes([l0, l1]),
            recalibrate: u32::from_le_bytes([r0, r1, r2, r3]),
        })
    }

    /// What [`Self::read`] reads: the body of [`gateway::SET_CONFIG`].
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.mode];
        bytes.extend([self.options, self.pins, self.led].map(u16::to_le_bytes).concat());
        bytes.extend(self.recalibrate.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A real telegram as the stick told it (radio.md 3.2).
    const CAPTURE: &str = "C009209F436D38000002E71844AE4C4455223368077A55000000041389E20100023B0000AF59C0";

    fn capture() -> Vec<u8> {
        data_encoding::HEXUPPER.decode(CAPTURE.as_bytes()).unwrap()
    }

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
        assert!(!decoder.is_incomplete());
        found
    }

    #[test]
    fn a_real_capture_gives_its_telegram() {
        let found = events(&[&capture()]);
        let [Event::Message(message)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(bytes(message), capture());
        let (reported, telegram) = message.reported().unwrap();
        // 31 seconds after the stick started.
        assert_eq!(reported, Reported { clock: 946_684_800 + 31, status: [0, 0], mode: 2, rssi: -25 });
        assert_eq!(*message, Message::telegram(reported, telegram));
        let Some(Item::Heard(heard)) = message.item() else { panic!() };
        assert_eq!((heard.rssi, heard.time, &heard.bytes[..]), (Some(Rssi::Dbm(-25)), None, &capture()[11..36]));
        let read = wmbus::decode(&heard.bytes).unwrap();
        assert_eq!(read.meter.to_string(), "SEN 33225544 v68 t07");
    }

    #[test]
    fn ends_and_escapes_inside_a_message_are_escaped() {
        let message = Message::new(0xC0, 0xDB, &[0xC0, 0xDB, 0xDC, 0xDD]);
        let sent = bytes(&message);
        assert!(data_encoding::HEXUPPER.encode(&sent).starts_with("C0DBDCDBDDDBDCDBDDDCDD"));
        assert_eq!(events(&[&sent]), [Event::Message(message)]);
        let found = events(&[b"\xC0\x01\xDB\x02\x03\x04\xC0"]);
        assert!(matches!(&found[..], [Event::Damaged(fault)] if fault.offset == 1), "{found:?}");
    }

    #[test]
    fn every_flipped_bit_costs_that_message_only() {
        let good = capture();
        for bit in 8..(good.len() - 1) * 8 {
            let mut wrong = good.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let found = events(&[&wrong, &good]);
            let messages: Vec<_> = found.iter().filter(|event| matches!(event, Event::Message(_))).collect();
            assert_eq!(messages.len(), 1, "bit {bit}: {found:?}");
            assert!(found.iter().any(|event| !matches!(event, Event::Message(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_flood_without_ends_takes_no_memory_and_is_counted() {
        let mut decoder = Decoder::new();
        let mut skipped = 0;
        for _ in 0..100 {
            decoder.push(&[0x55; 999]);
            while let Some(event) = decoder.next() {
                let Event::Skipped { bytes } = event else { panic!("{event:?}") };
                skipped += bytes;
            }
            assert!(decoder.plain.len() <= LONGEST);
        }
        decoder.push(&capture());
        let found: Vec<_> = std::iter::from_fn(|| decoder.next()).collect();
        let [Event::Skipped { bytes }, Event::Message(_)] = found[..] else { panic!("{found:?}") };
        assert_eq!(skipped + bytes, 99_900);
        assert_eq!(events(&[&WAKE, &capture()]).len(), 1);
    }

    #[test]
    fn a_telegram_that_is_none_is_damaged() {
        let short = Message::new(GATEWAY, gateway::TELEGRAM, &[0; 7]);
        assert!(matches!(short.item(), Some(Item::Damaged(_))));
        let wrong = Message::telegram(Reported::default(), &[0x0B, 0x44, 1, 2]);
        assert!(matches!(wrong.item(), Some(Item::Damaged(_))));
        assert_eq!(Message::new(GATEWAY, gateway::GET_CONFIG, &[]).item(), None);
    }

    #[test]
    fn settings_have_eleven_bytes() {
        let config = Config { mode: 3, options: 6, pins: 0x0102, led: 100, recalibrate: 600_000 };
        assert_eq!(config.bytes(), [3, 6, 0, 2, 1, 100, 0, 0xC0, 0x27, 9, 0]);
        assert_eq!(Config::read(&config.bytes()), Some(config));
        assert_eq!(Config::read(&config.bytes()[..10]), None);
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let body = proptest::collection::vec(prop_oneof![Just(END), Just(ESCAPE), any::<u8>()], 0..300);
        (any::<u8>(), any::<u8>(), body).prop_map(|(service, id, body)| Message { service, id, body })
    }

    proptest! {
        #[test]
        fn messages_come_back_however_the_stream_is_cut(
            sent in proptest::collection::vec(any_message(), 1..4),
            cut in 1usize..50,
        ) {
            let stream: Vec<u8> = sent.iter().flat_map(bytes).collect();
            let chunks: Vec<&[u8]> = stream.chunks(cut).collect();
            prop_assert_eq!(events(&chunks), sent.into_iter().map(Event::Message).collect::<Vec<_>>());
        }

        #[test]
        fn after_any_noise_the_next_message_is_found(
            noise in proptest::collection::vec(prop_oneof![Just(END), Just(ESCAPE), any::<u8>()], 0..1500),
            cut in 1usize..300,
        ) {
            let stream = [&noise[..], &capture()].concat();
            let chunks: Vec<&[u8]> = stream.chunks(cut).collect();
            let found = events(&chunks);
            let good = found.iter().any(|event| matches!(event, Event::Message(m) if bytes(m) == capture()));
            prop_assert!(good, "{:?}", found);
        }
    }
}
