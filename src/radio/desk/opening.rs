//! What telegrams say, for receivers whose telegrams are decoded.
//!
//! Values are given only when they are proven: a body that was sent in clear text, or one that the meter's key opened, read to
//! its end without a fault. Everything else is forwarded as it was heard. What is remembered is bounded: formats of compact
//! frames, fragments of long messages, and the meters whose key is wrong.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::pattern::name;
use crate::model::{CodedValue, Quality, TelegramKind, Value};
use crate::wire::mbal;
use crate::wire::telegram::facts;
use crate::wire::wmbus::{self, Content, Formats, Fragments, How, Keys, LINK_HEADER, Locked, Meter, Shown};

/// The values of a telegram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// The meter that they are of, as its maker means its address.
    pub(super) meter: Meter,
    /// The values in the order of the wire.
    pub(super) values: Vec<CodedValue>,
    /// What they say about urgency.
    pub(super) shown: Shown,
}

/// Opens telegrams and reads them.
#[derive(Debug, Default)]
pub(super) struct Opening {
    formats: Formats,
    fragments: Fragments,
    wrong: WrongKeys,
}

impl Opening {
    /// What a telegram says; `None` when it is only to be forwarded.
    pub(super) fn said(&mut self, (kind, bytes): (TelegramKind, &[u8]), keys: &Keys, now: Instant) -> Option<Said> {
        let sender = facts(kind, bytes)?.meter;
        let offset = match kind {
            TelegramKind::WirelessMbus => LINK_HEADER,
            TelegramKind::OpenlinkIq => mbal::HEADER,
        };
        let opened = match self.fragments.open(sender, bytes.get(offset..)?, offset, keys) {
            Ok(opened) => opened,
            Err(Locked::WrongKey { meter, proof }) => {
                self.wrong.came(meter, proof, now);
                return None;
            }
            Err(locked) => {
                tracing::trace!(%locked, "a telegram is not opened");
                return None;
            }
        };
        match opened.how {
            // On the air, one encrypted body in 65,536 looks clear.
            How::ClearAgainstHeader => return None,
            How::Decrypted => self.wrong.is_over(opened.meter),
            How::Clear => {}
        }
        let content = wmbus::records(&opened, &mut self.formats).ok()?;
        if content.fault.is_some() || content.values.is_empty() {
            return None;
        }
        let shown = wmbus::of_values(&content);
        Some(Said { meter: opened.meter, values: coded(content), shown })
    }
}

fn coded(content: Content) -> Vec<CodedValue> {
    let one = |wmbus::Value { record, obis }: wmbus::Value| {
        let quality = if record.value.is_some() { Quality::Good } else { Quality::Invalid };
        CodedValue { value: Value { name: record.name, value: record.value, unit: record.unit, quality }, obis }
    };
    content.values.into_iter().map(one).collect()
}

/// The most meters with a wrong key that are told apart; the file of keys names some 20,000 at most.
const MOST: usize = 4096;
/// A meter whose key is wrong now and then, because somebody forges its telegrams, is told so often.
const AGAIN: Duration = Duration::from_hours(24);

/// Meters whose key is wrong: told once each, then counted, and the end is told.
#[derive(Debug, Default)]
struct WrongKeys {
    meters: HashMap<Meter, Wrong>,
    full: bool,
}

#[derive(Debug)]
struct Wrong {
    told: Instant,
    /// Telegrams that the key did not open since it last opened one.
    telegrams: u64,
    /// Whether the log was told of these, and so must be told of their end.
    open: bool,
}

impl WrongKeys {
    fn came(&mut self, meter: Meter, proof: &'static str, now: Instant) {
        if let Some(wrong) = self.meters.get_mut(&meter) {
            wrong.telegrams += 1;
            if wrong.open || now.saturating_duration_since(wrong.told) < AGAIN {
                return;
            }
            (wrong.told, wrong.open) = (now, true);
        } else if self.meters.len() < MOST {
            self.meters.insert(meter, Wrong { told: now, telegrams: 1, open: true });
        } else {
            if !self.full {
                tracing::warn!(meters = MOST, "more keys are wrong than are told one by one; correct keys_file");
            }
            self.full = true;
            return;
        }
        let meter = name(meter);
        tracing::warn!(
            meter,
            proof,
            "the key of a meter is wrong; its telegrams are forwarded undecoded until keys_file is corrected"
        );
    }

    fn is_over(&mut self, meter: Meter) {
        let Some(wrong) = self.meters.get_mut(&meter) else { return };
        if wrong.open {
            tracing::info!(meter = name(meter), telegrams = wrong.telegrams, "the key of a meter is right again");
        }
        (wrong.telegrams, wrong.open) = (0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::parse("12345678 = 01010101010101010101010101010101").0
    }

    fn telegram(rest: &[u8]) -> Vec<u8> {
        let length = u8::try_from(9 + rest.len()).unwrap();
        [&[length, 0x44, 0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x1B, 0x16], rest].concat()
    }

    fn said(opening: &mut Opening, rest: &[u8]) -> Option<Vec<String>> {
        let bytes = telegram(rest);
        let said = opening.said((TelegramKind::WirelessMbus, &bytes), &keys(), Instant::now())?;
        assert_eq!(name(said.meter), "KAM.12345678.1b.16");
        let told = |v: &CodedValue| format!("{}={:?} {:?}", v.value.name, v.value.value, v.obis);
        Some(said.values.iter().map(told).collect())
    }

    const VOLUME: [u8; 6] = [0x0C, 0x13, 0x27, 0x04, 0x85, 0x02];

    #[tokio::test]
    async fn clear_values_are_exact_with_their_code_and_what_is_not_sure_is_not_said() {
        let mut opening = Opening::default();
        let with = |head: &[u8], body: &[u8]| [head, body].concat();
        let expected = "volume=Some(\"2850.427\") Some(\"8-0:1.0.0*255\")".to_owned();
        assert_eq!(said(&mut opening, &with(&[0x78], &VOLUME)), Some(vec![expected.clone()]));
        assert_eq!(said(&mut opening, &with(&[0x7A, 1, 0, 0, 0], &VOLUME)), Some(vec![expected]));
        let against_its_header = with(&[0x7A, 1, 0, 0, 5, 0x2F, 0x2F], &VOLUME);
        assert_eq!(said(&mut opening, &against_its_header), None);
        let broken = with(&[0x78], &[&VOLUME[..], &[0x0C, 0x13, 1]].concat());
        assert_eq!(said(&mut opening, &broken), None);
        for silent in [&[0x78, 0x2F][..], &[0xA0, 1, 2], &[0x8A, 1, 0, 0, 0], &[0x7A, 1]] {
            assert_eq!(said(&mut opening, silent), None, "{silent:02x?}");
        }
    }

    #[tokio::test]
    async fn wrong_keys_are_remembered_within_bounds_and_their_end_with_them() {
        let mut wrong = WrongKeys::default();
        let meter = |id| Meter { manufacturer: 1, id, version: 1, device: 7 };
        let now = Instant::now();
        for id in 0..10_000 {
            wrong.came(meter(id), "", now);
            wrong.came(meter(id), "", now);
        }
        assert_eq!((wrong.meters.len(), wrong.full), (MOST, true));
        let state = |wrong: &WrongKeys| wrong.meters.get(&meter(1)).map(|w| (w.telegrams, w.open));
        assert_eq!(state(&wrong), Some((2, true)));
        wrong.is_over(meter(1));
        wrong.came(meter(1), "", now + Duration::from_hours(23));
        assert_eq!(state(&wrong), Some((1, false)), "it comes and goes: not told again the same day");
        wrong.came(meter(1), "", now + AGAIN);
        assert_eq!(state(&wrong), Some((2, true)));
    }
}
