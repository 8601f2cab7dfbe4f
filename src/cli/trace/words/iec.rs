//! IEC 62056-21 in words, message by message; and what sends by itself in its shape: P1 and D0.

use super::{Told, Tongue, Way, some};
use crate::wire::iec62056::data::{self, Line};
use crate::wire::iec62056::{Command, Decoder, Event, Message, OptionSelect, Parity};
use crate::wire::p1;

/// A dialogue: sign-on, choice, readout, programming mode.
#[derive(Debug, Default)]
pub(super) struct Iec {
    sent: Decoder,
    received: Decoder,
}

impl Tongue for Iec {
    fn explain(&mut self, way: Way, bytes: &[u8]) -> Told {
        let mut told = Told::default();
        if bytes.len() > 1 && bytes.iter().all(|byte| *byte == 0) {
            told.sure.push(format!("IEC 62056-21: {} NUL characters, the wake-up of a battery meter", bytes.len()));
            return told;
        }
        let decoder = if way == Way::Sent { &mut self.sent } else { &mut self.received };
        decoder.push(bytes);
        while let Some(event) = decoder.next() {
            match event {
                Event::Message(message, _) => told.sure.extend(words(message)),
                Event::Damaged { reason, bytes } => {
                    told.unsure.push(format!("IEC 62056-21: {bytes} bytes given up: {reason}"));
                }
                Event::Skipped { .. } => {}
            }
        }
        told
    }

    fn forget(&mut self) {
        self.sent.clear();
        self.received.clear();
    }
}

fn words(message: Message) -> Vec<String> {
    let one = match message {
        Message::Request { address } if address.is_empty() => "request, any meter".to_owned(),
        Message::Request { address } => format!("request, meter {address}"),
        Message::Identification(id) => {
            format!("identification, manufacturer {}, baud {}, {}", id.manufacturer, id.baud, id.model)
        }
        Message::OptionSelect(OptionSelect { protocol, baud, mode }) => {
            format!("option select, protocol {protocol}, baud {baud}, mode {mode}")
        }
        Message::Repeat => "NAK: once more".to_owned(),
        Message::Block(body) => return block("data", &body),
        Message::Part(body) => return block("part of the data", &body),
        // What stands in a password's command is nobody's business.
        Message::Command(Command { letter, number, data: Some(data), .. }) if letter != 'P' => {
            format!("command {letter}{number} {}", String::from_utf8_lossy(&data))
        }
        Message::Command(Command { letter, number, .. }) => format!("command {letter}{number}"),
        Message::Acknowledge => "acknowledged".to_owned(),
    };
    vec![format!("IEC 62056-21: {one}")]
}

fn block(what: &str, body: &[u8]) -> Vec<String> {
    let head = format!("IEC 62056-21: {what}, {} bytes; block check right", body.len());
    std::iter::once(head).chain(some(&sets(&data::decode(body)))).collect()
}

/// Each data set as a line: `1.8.0 = 001234.567 kWh`.
fn sets(lines: &[Line]) -> Vec<String> {
    let value = |value: &data::DataValue| format!("{} {}", value.text, value.unit).trim_end().to_owned();
    let set = |set: &data::DataSet| {
        let values = set.values.iter().map(value).collect::<Vec<_>>().join(", ");
        format!("{} = {values}", set.id)
    };
    lines.iter().flatten().map(set).collect()
}

/// Messages that a meter sends by itself.
#[derive(Debug)]
pub(super) struct Telegrams {
    word: &'static str,
    decoder: p1::Decoder,
}

impl Telegrams {
    /// Called `word`: P1, or D0.
    pub(super) fn new(word: &'static str) -> Self {
        Self { word, decoder: p1::Decoder::new() }
    }
}

impl Tongue for Telegrams {
    fn explain(&mut self, way: Way, bytes: &[u8]) -> Told {
        let mut told = Told::default();
        if way == Way::Sent {
            return told;
        }
        if bytes.starts_with(&[0xDB, 0x08]) {
            told.sure.push(format!("{}: a ciphered message (AES-GCM); weir read shows its values", self.word));
            return told;
        }
        self.decoder.push(bytes);
        while let Some(event) = self.decoder.next() {
            match event {
                p1::Event::Telegram(telegram) => {
                    let check = match (telegram.checked, telegram.parity) {
                        (true, _) => "CRC right",
                        (false, Parity::Even) => "no CRC, every character's parity right",
                        (false, _) => "neither CRC nor parity",
                    };
                    let sets = sets(&telegram.lines);
                    told.sure.push(format!(
                        "{} message of {}, {} values; {check}",
                        self.word,
                        telegram.ident,
                        sets.len()
                    ));
                    told.sure.extend(some(&sets));
                }
                p1::Event::Damaged { reason, bytes } => {
                    told.unsure.push(format!("{}: {bytes} bytes are no message: {reason}", self.word));
                }
                p1::Event::Skipped { .. } => {}
            }
        }
        told
    }

    fn forget(&mut self) {
        self.decoder = p1::Decoder::new();
    }
}
