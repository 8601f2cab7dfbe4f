//! What all meters that send by themselves have in common: which values are kept, whether a
//! message without a checksum is believed.

use super::{MeterSettings, iec62056};
use crate::model::{Quality, Value};
use crate::setting::Problems;
use crate::wire::iec62056::Parity;
use crate::wire::p1::Telegram;

/// Which values are kept, and how they are called when there are none.
#[derive(Debug)]
pub(super) struct Wishes {
    wanted: Vec<String>,
    /// Names and units of the last message.
    known: Vec<(String, String)>,
}

impl Wishes {
    pub(super) fn new(settings: &MeterSettings) -> Self {
        let known = settings.values.iter().map(|name| (name.clone(), String::new())).collect();
        Self { wanted: settings.values.clone(), known }
    }

    /// Keeps what is wanted of a message; a wanted id that it does not have is null and refused.
    pub(super) fn keep(&mut self, all: Vec<Value>) -> Vec<Value> {
        let values = if self.wanted.is_empty() { all } else { iec62056::pick::wanted(&all, &self.wanted) };
        self.known = values.iter().map(|v| (v.name.clone(), v.unit.clone())).collect();
        values
    }

    /// The wanted ids; without any, what the last message had.
    pub(super) fn absent(&self, quality: Quality) -> Vec<Value> {
        let null =
            |(name, unit): &(String, String)| Value { name: name.clone(), value: None, unit: unit.clone(), quality };
        self.known.iter().map(null).collect()
    }
}

/// Why a message is not believed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It has no checksum, and none of its shape came before: the next one of this shape counts.
    First,
    /// It has no checksum and another shape than the messages before: something may be missing.
    Shape,
    /// The meter's messages carry a CRC, this one does not.
    CrcMissing,
    /// The meter's characters carry parity, those of this one do not.
    ParityMissing,
}

impl Doubt {
    /// What is wrong with the message; `None` when nothing has to be.
    pub(super) const fn sentence(self) -> Option<&'static str> {
        match self {
            Self::First => None,
            Self::Shape => Some("the message has no checksum and another shape than those before"),
            Self::CrcMissing => Some("the CRC is missing, and the meter has sent it before"),
            Self::ParityMissing => Some("the parity is missing, and the meter has sent it before"),
        }
    }
}

/// Decides which messages are believed.
///
/// A right CRC is enough, and from then on needed. Parity finds a wrong bit in a character, but no
/// character that is missing or too many; so a message without a CRC must have the shape of an
/// earlier one: the same ids in the same order, with texts as long and points as placed. A shape
/// is known when two messages in a row had it.
#[derive(Debug, Default)]
pub(super) struct Witness {
    crc: bool,
    parity: bool,
    known: Option<Vec<String>>,
    last: Option<Vec<String>>,
}

impl Witness {
    pub(super) fn believe(&mut self, telegram: &Telegram) -> Result<(), Doubt> {
        if telegram.checked {
            self.crc = true;
            return Ok(());
        }
        if self.crc {
            return Err(Doubt::CrcMissing);
        }
        if self.parity && telegram.parity == Parity::Absent {
            return Err(Doubt::ParityMissing);
        }
        let shape = Some(shape(telegram));
        if self.known != shape {
            let before = std::mem::replace(&mut self.last, shape);
            if before.is_none() {
                return Err(Doubt::First);
            }
            if before != self.last {
                return Err(Doubt::Shape);
            }
            self.known.clone_from(&self.last);
        }
        self.last.clone_from(&self.known);
        self.parity |= telegram.parity == Parity::Even;
        Ok(())
    }
}

/// The telegram with every digit replaced by the same one.
fn shape(telegram: &Telegram) -> Vec<String> {
    let masked = |text: &str| text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
    let sets = telegram.lines.iter().flatten().map(|set| {
        let values = set.values.iter().map(|v| format!("({}*{})", masked(&v.text), v.unit));
        format!("{}{}", set.id, values.collect::<String>())
    });
    std::iter::once(telegram.ident.clone()).chain(sets).collect()
}

/// Tells ids in `values` that no message has.
pub(super) fn check(settings: &MeterSettings, problems: &mut Problems) {
    let whole = settings.protocol.span();
    for (number, id) in settings.values.iter().enumerate() {
        if id.trim().is_empty() || id.contains(['(', ')', '/', '!']) || !id.is_ascii() {
            problems.error(whole.clone(), format!("values has \"{id}\", which is no id such as \"1-0:1.8.0\""));
        } else if settings.values.iter().take(number).any(|earlier| earlier == id) {
            problems.error(whole.clone(), format!("values has \"{id}\" twice; keep one"));
        }
    }
}
