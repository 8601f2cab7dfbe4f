//! The protocol of AMBER's AMB8465-M, AMB8665 and AMB3665 and of Wuerth's Metis: commands, and telegrams with or
//! without framing.
//!
//! A command is `FF command length data check`, the check all bytes before it by exclusive or; the answer's command has
//! bit 7 set. Telegrams come as command 03, or bare (`transparent`); a byte of signal strength is
//! behind them when the stick's parameters say so, and nothing in the telegram does: [`Form`] comes from [`Parameters`].

use super::DecodeError;
use super::radio_line::{Item, Reception};
use super::unframed::{self, Look, Strength};
use super::wmbus;
use crate::model::{Rssi, TelegramKind};

/// The commands of a host.
pub mod command {
    /// Sets the mode until the next reset.
    pub const MODE: u8 = 0x04;
    /// Resets the stick.
    pub const RESET: u8 = 0x05;
    /// Writes parameters into flash memory.
    pub const SET: u8 = 0x09;
    /// Reads parameters.
    pub const GET: u8 = 0x0A;
    /// Asks for the serial number.
    pub const SERIAL: u8 = 0x0B;
    /// Asks for the version of the firmware.
    pub const FIRMWARE: u8 = 0x0C;
}

const START: u8 = 0xFF;
const TELEGRAM: u8 = 0x03;
const ANSWER: u8 = 0x80;
/// Start, command, length and check.
const AROUND: usize = 4;
const ANSWERS: [u8; 6] =
    [command::MODE, command::RESET, command::SET, command::GET, command::SERIAL, command::FIRMWARE];

/// How telegrams come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// As commands, or bare.
    pub framed: bool,
    /// With a byte of signal strength behind.
    pub rssi: bool,
}

impl Form {
    const fn strength(self) -> Strength {
        if self.rssi { Strength::Counted } else { Strength::None }
    }
}

/// The parameters in a stick's flash memory that weir knows, by their addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters(Vec<u8>);

impl Parameters {
    /// Where the stick says whether telegrams come as commands.
    pub const FRAMED: u8 = 0x05;
    /// Where it says whether it decrypts.
    pub const AES: u8 = 0x0B;
    /// Where it says whether telegrams have a byte of signal strength.
    pub const RSSI: u8 = 0x45;
    /// Where it has the mode that it begins with.
    pub const MODE: u8 = 0x46;
    /// How many there are in the sticks for 868 MHz.
    pub const OF_868: usize = 120;
    /// How many there are in those for 169 MHz.
    pub const OF_169: usize = 128;

    /// Takes the data of an answer to [`command::GET`] for all of them; `None` when it is something else.
    pub fn of(data: &[u8]) -> Option<Self> {
        let (&[from, count], values) = data.split_first_chunk()?;
        let known = [Self::OF_868, Self::OF_169].contains(&values.len());
        (from == 0 && usize::from(count) == values.len() && known).then(|| Self(values.to_vec()))
    }

    /// The byte at an address.
    pub fn at(&self, address: u8) -> u8 {
        self.0.get(usize::from(address)).copied().unwrap_or(0)
    }

    /// Whether the stick is one for 169 MHz.
    pub const fn is_169(&self) -> bool {
        self.0.len() == Self::OF_169
    }

    /// How its telegrams come.
    pub fn form(&self) -> Form {
        Form { framed: self.at(Self::FRAMED) != 0, rssi: self.at(Self::RSSI) != 0 }
    }
}

/// Appends a command or an answer; data beyond 255 bytes is left out.
pub fn encode(command: u8, data: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let length = u8::try_from(data.len()).unwrap_or(u8::MAX);
    out.extend([START, command, length]);
    out.extend(data.iter().take(length.into()));
    out.push(check(out.get(start..).unwrap_or_default()));
}

/// Appends a telegram in the normal form as a stick prints it. One of 256 bytes can't have its strength told.
pub fn encode_telegram(telegram: &[u8], form: Form, raw: u8, out: &mut Vec<u8>) {
    if !form.framed {
        unframed::encode(telegram, form.strength(), raw, out);
        return;
    }
    let mut data = telegram.get(1..).unwrap_or_default().to_vec();
    data.extend(form.rssi.then_some(raw));
    encode(TELEGRAM, &data, out);
}

/// Finds the answer to a command anywhere in what a stick said.
pub fn find_answer(said: &[u8], command: u8) -> Option<&[u8]> {
    (0..said.len()).find_map(|at| match message(said.get(at..)?) {
        Message::Whole { command: answered, data, .. } if answered == command | ANSWER => Some(data),
        _ => None,
    })
}

/// The signal strength that a byte means, in dBm; halves are cut off.
pub fn dbm(raw: u8) -> i16 {
    i16::from(raw.cast_signed()) / 2 - 74
}

fn check(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum ^ byte)
}

enum Message<'a> {
    None,
    More,
    Whole { command: u8, data: &'a [u8], length: usize },
    Damaged { at: usize, expected: u8, found: u8 },
}

/// Reads the message at the beginning of `bytes`.
fn message(bytes: &[u8]) -> Message<'_> {
    let Some(&START) = bytes.first() else { return Message::None };
    let Some(&[_, command, length]) = bytes.first_chunk::<3>() else { return Message::More };
    let length = AROUND + usize::from(length);
    let Some((&found, before)) = bytes.get(..length).and_then(<[u8]>::split_last) else { return Message::More };
    let expected = check(before);
    if expected != found {
        return Message::Damaged { at: before.len(), expected, found };
    }
    Message::Whole { command, data: before.get(3..).unwrap_or_default(), length }
}

/// What comes out of what a stick says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The answer to a command.
    Answer {
        /// The command.
        command: u8,
        /// What it says.
        data: Vec<u8>,
    },
    /// Anything else.
    Heard(Item),
}

/// Finds telegrams and answers in what a stick says. Call [`next`](Self::next) until it is empty after every
/// [`push`](Self::push); then it holds less than 260 bytes.
#[derive(Debug)]
pub struct Decoder {
    form: Form,
    buffer: Vec<u8>,
    at: usize,
    skipped: usize,
    in_step: bool,
    silent: bool,
}

enum Step {
    More,
    Skip,
    Take(usize, Event),
}

impl Decoder {
    /// Starts behind a silence.
    pub const fn new(form: Form) -> Self {
        Self { form, buffer: Vec::new(), at: 0, skipped: 0, in_step: true, silent: false }
    }

    /// Says how telegrams come from now on; what is incomplete is of that form too.
    pub const fn set_form(&mut self, form: Form) {
        self.form = form;
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at.min(self.buffer.len()));
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
        self.silent = false;
    }

    /// Says that the line fell silent: what is not complete now never will be.
    pub const fn silence(&mut self) {
        self.silent = true;
    }

    /// Whether something incomplete is there.
    pub const fn is_waiting(&self) -> bool {
        self.at < self.buffer.len() || self.skipped > 0
    }

    /// Returns what comes next, or `None` when more bytes are needed.
    #[expect(
        clippy::should_implement_trait,
        reason = "every decoder of the house has push and next; it is no iterator"
    )]
    pub fn next(&mut self) -> Option<Event> {
        loop {
            match self.step() {
                Step::More if self.silent && self.at < self.buffer.len() => self.skip(),
                Step::More if self.silent => {
                    self.in_step = true;
                    return self.skipped();
                }
                Step::More => return None,
                Step::Skip => self.skip(),
                Step::Take(..) if self.skipped > 0 => return self.skipped(),
                Step::Take(bytes, event) => {
                    self.at += bytes;
                    self.in_step = !matches!(event, Event::Heard(Item::Damaged(_)));
                    return Some(event);
                }
            }
        }
    }

    const fn skip(&mut self) {
        self.at += 1;
        self.skipped = self.skipped.saturating_add(1);
        self.in_step = false;
    }

    fn skipped(&mut self) -> Option<Event> {
        match std::mem::take(&mut self.skipped) {
            0 => None,
            bytes => Some(Event::Heard(Item::Skipped { bytes })),
        }
    }

    fn step(&self) -> Step {
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Step::More;
        }
        // No answer's command is a C field, so a bare telegram with L = FF is none of them.
        let answer = rest.get(1).is_none_or(|command| ANSWERS.contains(&(command ^ ANSWER)));
        let framed = self.form.framed && rest.get(1) == Some(&TELEGRAM);
        if rest.first() == Some(&START) && (answer || framed) {
            return match message(rest) {
                Message::More => Step::More,
                Message::Whole { command: TELEGRAM, data, length } => {
                    Step::Take(length, Event::Heard(self.framed(data)))
                }
                Message::Whole { command, data, length } => {
                    Step::Take(length, Event::Answer { command: command ^ ANSWER, data: data.to_vec() })
                }
                Message::Damaged { at, expected, found } if self.in_step => {
                    let found = format!("{found:02x} where {expected:02x} belongs");
                    let fault = DecodeError::new(at, "the check of the message", found);
                    // Only the start is taken: the length may be wrong, and the next message inside.
                    Step::Take(1, Event::Heard(Item::Damaged(fault)))
                }
                Message::Damaged { .. } | Message::None => Step::Skip,
            };
        }
        if self.form.framed {
            return Step::Skip;
        }
        match unframed::look(rest, self.form.strength(), self.in_step) {
            Look::More => Step::More,
            Look::Nothing => Step::Skip,
            Look::Telegram(total) => {
                let (telegram, raw) = unframed::split(rest.get(..total).unwrap_or_default(), self.form.strength());
                Step::Take(total, Event::Heard(reception(telegram, raw)))
            }
        }
    }

    /// A telegram from its C field on, perhaps with its strength.
    fn framed(&self, data: &[u8]) -> Item {
        let (body, raw) = match data.split_last() {
            Some((raw, body)) if self.form.rssi => (body, Some(*raw)),
            _ => (data, None),
        };
        let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
        reception(std::iter::once(length).chain(body.iter().copied()).collect(), raw)
    }
}

fn reception(bytes: Vec<u8>, raw: Option<u8>) -> Item {
    match wmbus::decode(&bytes) {
        Ok(_) => Item::Heard(Reception {
            kind: TelegramKind::WirelessMbus,
            bytes,
            rssi: raw.map(|raw| Rssi::Dbm(dbm(raw))),
            corrected_bits: 0,
            time: None,
        }),
        Err(fault) => Item::Damaged(fault),
    }
}

#[cfg(test)]
mod tests;
