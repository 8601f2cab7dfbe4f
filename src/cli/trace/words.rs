//! What the bytes on a line mean, as far as a codec of `wire` knows them.

use crate::wire::iec62056::{self, Command, Event, Message, OptionSelect};
use crate::wire::modbus::{REFUSED, rtu};

/// Which way bytes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From weir to the meter.
    Sent,
    /// To weir; who only listens hears both sides this way.
    Received,
}

/// Knows what the protocols of one port look like.
#[derive(Debug, Default)]
pub(super) struct Words {
    modbus: bool,
    modbus_tcp: bool,
    iec: Option<(iec62056::Decoder, iec62056::Decoder)>,
    /// Unit and function of the Modbus request that was not answered yet.
    asked: Option<(u8, u8)>,
    /// A Modbus frame that came in pieces.
    partial: Vec<u8>,
}

impl Words {
    /// Looks for the protocols that the meters of a port speak; for all when none is known.
    pub(super) fn new(protocols: &[&str]) -> Self {
        let speaks = |name: &str| protocols.is_empty() || protocols.contains(&name);
        let iec = speaks("iec62056-21") || speaks("iec-d0");
        Self {
            modbus: speaks("modbus-rtu"),
            modbus_tcp: protocols.contains(&"modbus-tcp"),
            iec: iec.then(Default::default),
            asked: None,
            partial: Vec::new(),
        }
    }

    /// Explains bytes that followed each other without a pause, one sentence each thing.
    pub(super) fn explain(&mut self, way: Way, bytes: &[u8]) -> Vec<String> {
        if self.modbus_tcp
            && let Some(sentence) = self.tcp(way, bytes)
        {
            return vec![sentence];
        }
        if self.modbus
            && let Some(sentence) = self.rtu(way, bytes)
        {
            return vec![sentence];
        }
        let Some((sent, received)) = &mut self.iec else {
            return if self.modbus { vec![wrong_crc(bytes)] } else { Vec::new() };
        };
        let decoder = if way == Way::Sent { sent } else { received };
        decoder.push(bytes);
        std::iter::from_fn(|| decoder.next()).filter_map(iec).collect()
    }

    /// The line was opened, closed or silent for long: nothing half stays.
    pub(super) fn forget(&mut self) {
        self.asked = None;
        self.partial.clear();
        if let Some((sent, received)) = &mut self.iec {
            sent.clear();
            received.clear();
        }
    }

    fn rtu(&mut self, way: Way, bytes: &[u8]) -> Option<String> {
        if way == Way::Sent {
            self.partial.clear();
        }
        self.partial.extend(bytes.iter().take(512));
        let whole = std::mem::take(&mut self.partial);
        let frame = rtu::decode(bytes).or_else(|_| rtu::decode(&whole));
        let Ok((unit, pdu)) = frame else {
            if way == Way::Received && whole.len() < 300 {
                self.partial = whole;
            }
            return None;
        };
        Some(format!("Modbus unit {unit}: {}; CRC right", self.pdu(way, unit, pdu)?))
    }

    fn tcp(&mut self, way: Way, bytes: &[u8]) -> Option<String> {
        let [high, low, 0, 0, _, _, unit, pdu @ ..] = bytes else { return None };
        let number = u16::from_be_bytes([*high, *low]);
        Some(format!("Modbus TCP number {number}, unit {unit}: {}", self.pdu(way, *unit, pdu)?))
    }

    fn pdu(&mut self, way: Way, unit: u8, pdu: &[u8]) -> Option<String> {
        let function = *pdu.first()?;
        let key = (unit, function & !REFUSED);
        let is_answer = way == Way::Received && (function & REFUSED != 0 || self.asked == Some(key));
        self.asked = (!is_answer).then_some(key);
        Some(if is_answer { answer(pdu) } else { request(pdu) })
    }
}

fn wrong_crc(bytes: &[u8]) -> String {
    match bytes {
        [unit, function, ..] if bytes.len() >= 4 => {
            format!("not a whole Modbus frame, or its CRC is wrong (unit {unit}, function {function}, if it is one)")
        }
        _ => "too short for a Modbus frame".to_owned(),
    }
}

fn function(number: u8) -> String {
    let word = match number & !REFUSED {
        1 => "read coils",
        2 => "read discrete inputs",
        3 => "read holding registers",
        4 => "read input registers",
        5 => "write coil",
        6 => "write register",
        15 => "write coils",
        16 => "write registers",
        23 => "read and write registers",
        43 => "read device identification",
        other => return format!("function {other}"),
    };
    word.to_owned()
}

fn request(pdu: &[u8]) -> String {
    match pdu {
        [number @ (1..=4 | 15 | 16), a, b, c, d, ..] => {
            let (first, count) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
            format!("{}, {count} from {first} on", function(*number))
        }
        [number @ (5 | 6), a, b, c, d] => {
            let (at, value) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
            format!("{} {at} := {value}", function(*number))
        }
        [number, rest @ ..] => format!("{}, {} bytes", function(*number), rest.len()),
        [] => "nothing".to_owned(),
    }
}

fn answer(pdu: &[u8]) -> String {
    match pdu {
        [number, exception] if number & REFUSED != 0 => {
            format!("refused: {}, exception {exception}{}", function(*number), exception_word(*exception))
        }
        [number @ (3 | 4 | 23), bytes, rest @ ..] if usize::from(*bytes) == rest.len() => {
            let words: Vec<_> = rest
                .chunks_exact(2)
                .take(8)
                .filter_map(|pair| <[u8; 2]>::try_from(pair).ok())
                .map(|pair| u16::from_be_bytes(pair).to_string())
                .collect();
            let more = if rest.len() > 16 { " ..." } else { "" };
            format!("answer to {}: {}{more}", function(*number), words.join(" "))
        }
        [number, rest @ ..] => format!("answer to {}, {} bytes", function(*number), rest.len()),
        [] => "nothing".to_owned(),
    }
}

const fn exception_word(exception: u8) -> &'static str {
    match exception {
        1 => " (illegal function)",
        2 => " (illegal data address)",
        3 => " (illegal data value)",
        4 => " (device failure)",
        5 => " (acknowledge)",
        6 => " (device busy)",
        10 => " (gateway path unavailable)",
        11 => " (gateway target does not respond)",
        _ => "",
    }
}

fn iec(event: Event) -> Option<String> {
    let message = match event {
        Event::Message(message, _) => message,
        Event::Damaged { reason, bytes } => return Some(format!("IEC 62056-21: {bytes} bytes given up: {reason}")),
        Event::Skipped { .. } => return None,
    };
    let words = match message {
        Message::Request { address } if address.is_empty() => "request, any meter".to_owned(),
        Message::Request { address } => format!("request, meter {address}"),
        Message::Identification(id) => {
            format!("identification, manufacturer {}, baud {}, {}", id.manufacturer, id.baud, id.model)
        }
        Message::OptionSelect(OptionSelect { protocol, baud, mode }) => {
            format!("option select, protocol {protocol}, baud {baud}, mode {mode}")
        }
        Message::Repeat => "NAK: once more".to_owned(),
        Message::Block(body) => format!("data, {} bytes; block check right", body.len()),
        Message::Part(body) => format!("part of the data, {} bytes; block check right", body.len()),
        Message::Command(Command { letter, number, .. }) => format!("command {letter}{number}"),
        Message::Acknowledge => "acknowledged".to_owned(),
    };
    Some(format!("IEC 62056-21: {words}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_modbus_request_and_its_answer_are_told_apart_also_when_both_are_only_heard() {
        let request = [1, 3, 0, 100, 0, 2, 133, 212];
        let mut answer = Vec::new();
        rtu::encode(1, &[3, 4, 0x43, 0x66, 0x80, 0], &mut answer);
        let mut refusal = Vec::new();
        rtu::encode(1, &[0x83, 2], &mut refusal);
        for way in [Way::Sent, Way::Received] {
            let mut words = Words::new(&["modbus-rtu"]);
            let told = words.explain(way, &request);
            assert_eq!(told, ["Modbus unit 1: read holding registers, 2 from 100 on; CRC right"]);
            let told = words.explain(Way::Received, &answer);
            assert_eq!(told, ["Modbus unit 1: answer to read holding registers: 17254 32768; CRC right"]);
            let told = words.explain(Way::Received, &refusal);
            assert!(told[0].contains("refused") && told[0].contains("illegal data address"), "{told:?}");
            answer[4] ^= 1;
            assert!(words.explain(Way::Received, &answer)[0].contains("CRC is wrong"));
            answer[4] ^= 1;
        }
        // In two pieces.
        let mut words = Words::new(&["modbus-rtu"]);
        words.explain(Way::Sent, &request);
        assert!(words.explain(Way::Received, &answer[..4])[0].contains("not a whole"));
        assert!(words.explain(Way::Received, &answer[4..])[0].contains("17254"));
    }

    #[test]
    fn an_iec_dialogue_is_told_message_by_message() {
        let mut words = Words::new(&["iec62056-21"]);
        assert_eq!(words.explain(Way::Sent, b"/?123!\r\n"), ["IEC 62056-21: request, meter 123"]);
        assert!(words.explain(Way::Received, b"/XYZ5mod").is_empty());
        let told = words.explain(Way::Received, b"el1\r\n");
        assert_eq!(told, ["IEC 62056-21: identification, manufacturer XYZ, baud 5, model1"]);
        let told = words.explain(Way::Sent, b"\x06050\r\n");
        assert_eq!(told, ["IEC 62056-21: option select, protocol 0, baud 5, mode 0"]);
        let told = words.explain(Way::Received, b"\x021.8.0(001234.567*kWh)\x03[");
        assert_eq!(told, ["IEC 62056-21: data, 21 bytes; block check right"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_explained_or_not_without_a_panic(
            pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..20),
            protocols in prop::sample::select(vec![vec![], vec!["modbus-rtu"], vec!["modbus-tcp"], vec!["iec62056-21"]]),
        ) {
            let mut words = Words::new(&protocols);
            for (sent, bytes) in pieces {
                words.explain(if sent { Way::Sent } else { Way::Received }, &bytes);
            }
            words.forget();
        }
    }
}
