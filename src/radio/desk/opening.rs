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
    /// Whose key is wrong.
    wrong: Distrusted,
    /// Who has a key and sends values in clear text all the same.
    clear: Distrusted,
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
                self.key_is_wrong(meter, proof, now);
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
            How::Decrypted => self.is_proven(opened.meter),
            How::Clear => {}
        }
        let content = wmbus::records(&opened, &mut self.formats).ok()?;
        if content.fault.is_some() || content.values.is_empty() {
            return None;
        }
        // Anybody can send values in clear text under the address of a meter that encrypts.
        if opened.how == How::Clear && [opened.meter, sender].into_iter().any(|meter| keys.of(meter).next().is_some()) {
            self.is_clear(opened.meter, now);
            return None;
        }
        let shown = wmbus::of_values(&content);
        Some(Said { meter: opened.meter, values: coded(content), shown })
    }

    fn key_is_wrong(&mut self, meter: Meter, proof: &'static str, now: Instant) {
        match self.wrong.came(meter, now) {
            Tell::Nothing => {}
            Tell::Meter => tracing::warn!(
                meter = name(meter),
                proof,
                "the key of a meter is wrong; its telegrams are forwarded undecoded until keys_file is corrected"
            ),
            Tell::Many => {
                tracing::warn!(meters = MOST, "more keys are wrong than are told one by one; correct keys_file");
            }
        }
    }

    fn is_clear(&mut self, meter: Meter, now: Instant) {
        match self.clear.came(meter, now) {
            Tell::Nothing => {}
            Tell::Meter => tracing::warn!(
                meter = name(meter),
                "a meter that has a key sends values in clear text; they are not believed and forwarded undecoded"
            ),
            Tell::Many => tracing::warn!(
                meters = MOST,
                "more meters that have a key send values in clear text than are told one by one"
            ),
        }
    }

    fn is_proven(&mut self, meter: Meter) {
        if let Some(telegrams) = self.wrong.is_over(meter) {
            tracing::info!(meter = name(meter), telegrams, "the key of a meter is right again");
        }
        if let Some(telegrams) = self.clear.is_over(meter) {
            tracing::info!(meter = name(meter), telegrams, "a meter that sent values in clear text encrypts again");
        }
    }
}

fn coded(content: Content) -> Vec<CodedValue> {
    let one = |wmbus::Value { record, obis }: wmbus::Value| {
        let quality = if record.value.is_some() { Quality::Good } else { Quality::Invalid };
        CodedValue { value: Value { name: record.name, value: record.value, unit: record.unit, quality }, obis }
    };
    content.values.into_iter().map(one).collect()
}

/// The most meters of a kind that are told apart; the file of keys names some 20,000 at most.
const MOST: usize = 4096;
/// A meter that does so now and then, because somebody forges its telegrams, is told so often.
const AGAIN: Duration = Duration::from_hours(24);

/// Meters whose telegrams are not believed: told once each, then counted, and the end is told.
#[derive(Debug, Default)]
struct Distrusted {
    meters: HashMap<Meter, Distrust>,
    full: bool,
}

#[derive(Debug)]
struct Distrust {
    told: Instant,
    /// Telegrams that were not believed since the last one that was.
    telegrams: u64,
    /// Whether the log was told of these, and so must be told of their end.
    open: bool,
}

/// What the log is to be told of a telegram that is not believed.
#[derive(Debug, PartialEq, Eq)]
enum Tell {
    Nothing,
    /// Of this meter.
    Meter,
    /// That there are more than are told one by one.
    Many,
}

impl Distrusted {
    fn came(&mut self, meter: Meter, now: Instant) -> Tell {
        if let Some(distrust) = self.meters.get_mut(&meter) {
            distrust.telegrams += 1;
            if distrust.open || now.saturating_duration_since(distrust.told) < AGAIN {
                return Tell::Nothing;
            }
            (distrust.told, distrust.open) = (now, true);
            Tell::Meter
        } else if self.meters.len() < MOST {
            self.meters.insert(meter, Distrust { told: now, telegrams: 1, open: true });
            Tell::Meter
        } else if std::mem::replace(&mut self.full, true) {
            Tell::Nothing
        } else {
            Tell::Many
        }
    }

    /// A telegram is believed: how many were not before it, when the log was told of them.
    fn is_over(&mut self, meter: Meter) -> Option<u64> {
        let distrust = self.meters.get_mut(&meter)?;
        let telegrams = distrust.open.then_some(distrust.telegrams);
        (distrust.telegrams, distrust.open) = (0, false);
        telegrams
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::parse("12345679 = 01010101010101010101010101010101").0
    }

    fn telegram(rest: &[u8]) -> Vec<u8> {
        let length = u8::try_from(9 + rest.len()).unwrap();
        [&[length, 0x44, 0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x1B, 0x16], rest].concat()
    }

    fn said(opening: &mut Opening, rest: &[u8]) -> Option<Vec<String>> {
        said_with(opening, rest, &keys())
    }

    fn said_with(opening: &mut Opening, rest: &[u8], keys: &Keys) -> Option<Vec<String>> {
        let bytes = telegram(rest);
        let said = opening.said((TelegramKind::WirelessMbus, &bytes), keys, Instant::now())?;
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
    async fn values_in_clear_text_of_a_meter_that_has_a_key_are_not_believed() {
        let mut opening = Opening::default();
        let keys = Keys::parse("12345678 = 01010101010101010101010101010101").0;
        let body = |head: &[u8]| [head, &VOLUME].concat();
        for head in [&[0x78][..], &[0x7A, 1, 0, 0, 0]] {
            assert!(said_with(&mut opening, &body(head), &Keys::none()).is_some());
            assert_eq!(said_with(&mut opening, &body(head), &keys), None);
        }
        // Without values nothing is claimed.
        assert_eq!(said_with(&mut opening, &[0x8A, 1, 0, 0, 0], &keys), None);
        assert_eq!(opening.clear.meters.values().map(|meter| meter.telegrams).collect::<Vec<_>>(), [2]);
        let mut iv = telegram(&[])[2..10].to_vec();
        iv.extend([1; 8]);
        let mut sealed = [&[0x2F, 0x2F][..], &VOLUME, &[0x2F; 8]].concat();
        crate::wire::aes::Aes128::new(&[1; 16]).cbc_encrypt(iv.try_into().unwrap(), &mut sealed);
        let encrypted = [&[0x7A, 1, 0, 0x10, 0x05][..], &sealed].concat();
        assert!(said_with(&mut opening, &encrypted, &keys).is_some());
        assert!(opening.clear.meters.values().all(|meter| !meter.open), "its end was told");
    }

    #[tokio::test]
    async fn wrong_keys_are_remembered_within_bounds_and_their_end_with_them() {
        let mut wrong = Distrusted::default();
        let meter = |id| Meter { manufacturer: 1, id, version: 1, device: 7 };
        let now = Instant::now();
        for id in 0..10_000 {
            let told = [wrong.came(meter(id), now), wrong.came(meter(id), now)];
            let first = if id < 4096 { Tell::Meter } else { Tell::Many };
            assert_eq!(told, [if id > 4096 { Tell::Nothing } else { first }, Tell::Nothing]);
        }
        assert_eq!((wrong.meters.len(), wrong.full), (MOST, true));
        let state = |wrong: &Distrusted| wrong.meters.get(&meter(1)).map(|w| (w.telegrams, w.open));
        assert_eq!(state(&wrong), Some((2, true)));
        assert_eq!(wrong.is_over(meter(1)), Some(2));
        assert_eq!(wrong.is_over(meter(1)), None);
        assert_eq!(wrong.came(meter(1), now + Duration::from_hours(23)), Tell::Nothing);
        assert_eq!(state(&wrong), Some((1, false)), "it comes and goes: not told again the same day");
        assert_eq!(wrong.came(meter(1), now + AGAIN), Tell::Meter);
        assert_eq!(state(&wrong), Some((2, true)));
    }
}
