//! Modbus in words: RTU, ASCII and TCP.

use super::{Told, Tongue, Way};
use crate::wire::modbus::{Identity, REFUSED, ascii, rtu};

/// Who asked what last, so that an answer is told from a request by who only listens.
#[derive(Debug, Default)]
struct Dialogue {
    /// Unit and function of the request that was not answered yet.
    asked: Option<(u8, u8)>,
}

impl Dialogue {
    fn pdu(&mut self, way: Way, unit: u8, pdu: &[u8]) -> Option<String> {
        let function = *pdu.first()?;
        let key = (unit, function & !REFUSED);
        let is_answer = way == Way::Received && (function & REFUSED != 0 || self.asked == Some(key));
        self.asked = (!is_answer).then_some(key);
        Some(if is_answer { answer(pdu) } else { request(pdu) })
    }
}

/// Unit, PDU and CRC.
#[derive(Debug, Default)]
pub(super) struct Rtu {
    dialogue: Dialogue,
    /// A frame that came in pieces.
    partial: Vec<u8>,
}

impl Tongue for Rtu {
    fn explain(&mut self, way: Way, bytes: &[u8]) -> Told {
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
            return Told::unsure(wrong_crc(bytes));
        };
        match self.dialogue.pdu(way, unit, pdu) {
            Some(words) => Told::sure(format!("Modbus unit {unit}: {words}; CRC right")),
            None => Told::unsure(wrong_crc(bytes)),
        }
    }

    fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Hex digits between a colon and a line end.
#[derive(Debug, Default)]
pub(super) struct Ascii {
    dialogue: Dialogue,
    sent: ascii::Decoder,
    received: ascii::Decoder,
}

impl Tongue for Ascii {
    fn explain(&mut self, way: Way, bytes: &[u8]) -> Told {
        let decoder = if way == Way::Sent { &mut self.sent } else { &mut self.received };
        let frames = decoder.push(bytes);
        let mut told = Told::default();
        for frame in frames {
            match frame {
                Ok((unit, pdu)) => {
                    let words = self.dialogue.pdu(way, unit, &pdu).unwrap_or_default();
                    told.sure.push(format!("Modbus ASCII unit {unit}: {words}; LRC right"));
                }
                Err(error) => told.unsure.push(format!("Modbus ASCII: {error}")),
            }
        }
        told
    }

    fn forget(&mut self) {
        *self = Self::default();
    }
}

/// MBAP header and PDU.
#[derive(Debug, Default)]
pub(super) struct Tcp {
    dialogue: Dialogue,
}

impl Tongue for Tcp {
    fn explain(&mut self, way: Way, bytes: &[u8]) -> Told {
        let [high, low, 0, 0, _, _, unit, pdu @ ..] = bytes else { return Told::default() };
        let number = u16::from_be_bytes([*high, *low]);
        match self.dialogue.pdu(way, *unit, pdu) {
            Some(words) => Told::sure(format!("Modbus TCP number {number}, unit {unit}: {words}")),
            None => Told::default(),
        }
    }

    fn forget(&mut self) {
        *self = Self::default();
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
        [43, ..] => match Identity::decode(pdu) {
            Ok(identity) => {
                let one = |(id, text): &(u8, Vec<u8>)| {
                    let name = Identity::name(*id).map_or_else(|| format!("object {id}"), str::to_owned);
                    format!("{name} \"{}\"", String::from_utf8_lossy(text))
                };
                let objects = identity.objects.iter().map(one).collect::<Vec<_>>().join(", ");
                let more = if identity.more_from.is_some() { ", more to come" } else { "" };
                format!("device identification: {objects}{more}")
            }
            Err(error) => format!("device identification that can't be read: {error}"),
        },
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
