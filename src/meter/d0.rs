//! D0: meters that send their table by themselves through an optical head (IEC 62056-21 mode D).
//!
//! Such a message has no checksum. Even parity finds one wrong bit in a character; a character
//! that is missing, doubled or strange is found because the message must have the shape of the
//! one before ([`Witness`]). What is not found: two wrong bits in one digit, and without parity any digit
//! that became another one. Names are as with IEC 62056-21.

use super::heard::{self, Wishes, Witness};
use super::iec62056::pick;
use super::{Driver, Listener, MeterError, MeterSettings, Protocol};
use crate::model::{Quality, Value};
use crate::setting::Problems;
use crate::wire::p1::{Decoder, Event};

/// The row of this protocol in the table of protocols.
pub(super) const ROW: Protocol = Protocol { name: "iec-d0", driver: Driver::Listens(listener), check };

#[expect(clippy::unnecessary_wraps, reason = "the table's type; other listeners can refuse")]
fn listener(settings: &MeterSettings) -> Result<Box<dyn Listener>, String> {
    let (decoder, witness) = (Decoder::new(), Witness::default());
    Ok(Box::new(D0 { decoder, witness, wishes: Wishes::new(settings) }))
}

fn check(settings: &MeterSettings, problems: &mut Problems) {
    heard::check(settings, problems);
}

struct D0 {
    decoder: Decoder,
    witness: Witness,
    wishes: Wishes,
}

impl D0 {
    fn drain(&mut self) -> Vec<Result<Vec<Value>, MeterError>> {
        let mut found = Vec::new();
        while let Some(event) = self.decoder.next() {
            let telegram = match event {
                Event::Skipped { .. } => continue,
                Event::Damaged { reason, .. } => Err(MeterError::Damaged(reason.to_string())),
                Event::Telegram(telegram) => match self.witness.believe(&telegram) {
                    Ok(()) => Ok(telegram),
                    Err(doubt) => match doubt.sentence() {
                        None => continue,
                        Some(sentence) => Err(MeterError::Damaged(sentence.to_owned())),
                    },
                },
            };
            found.push(telegram.map(|t| self.wishes.keep(pick::values(&t.lines))));
        }
        found
    }
}

impl Listener for D0 {
    fn push(&mut self, bytes: &[u8]) -> Vec<Result<Vec<Value>, MeterError>> {
        self.decoder.push(bytes);
        self.drain()
    }

    fn silence(&mut self) -> Vec<Result<Vec<Value>, MeterError>> {
        self.decoder.silence();
        self.drain()
    }

    fn absent(&self, quality: Quality) -> Vec<Value> {
        self.wishes.absent(quality)
    }
}

#[cfg(test)]
mod tests;
