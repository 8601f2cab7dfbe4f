//! Telegrams without framing: `L C M A CI ...` one after the other, as some receivers print them, perhaps with
//! a byte of signal strength behind.
//!
//! Only L and the C field tell where a telegram begins. Right behind a telegram, or after a silence, any L of 10
//! and more with any C field of EN 13757-4 is one; after noise M must be letters and CI known too, so that
//! noise seldom swallows what follows it. A telegram with odd M or CI is found after the next silence.

use super::wmbus::{self, Control, Meter};

/// Where the byte of signal strength is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    /// Nowhere.
    None,
    /// Behind the telegram, counted by its L field.
    Counted,
    /// Behind the telegram, not counted.
    Behind,
}

/// What stands at the beginning of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Perhaps a telegram that is not complete.
    More,
    /// No telegram.
    Nothing,
    /// A telegram of so many bytes, its strength included.
    Telegram(usize),
}

/// The shortest L field: C, M, A and CI.
const SHORTEST: u8 = 10;

/// Looks for a telegram at the beginning of `bytes`; `in_step`: a telegram or a silence was before them.
pub fn look(bytes: &[u8], strength: Strength, in_step: bool) -> Look {
    let Some(&length) = bytes.first() else { return Look::More };
    let (least, total) = match strength {
        Strength::None => (SHORTEST, 1 + usize::from(length)),
        Strength::Counted => (SHORTEST + 1, 1 + usize::from(length)),
        Strength::Behind => (SHORTEST, 2 + usize::from(length)),
    };
    if length < least || bytes.get(1).is_some_and(|&control| Control::known(control).is_none()) {
        return Look::Nothing;
    }
    if !in_step && !is_likely(bytes) {
        return Look::Nothing;
    }
    if bytes.len() < total { Look::More } else { Look::Telegram(total) }
}

/// Whether M, as far as it is there, is letters and CI is a known one.
fn is_likely(bytes: &[u8]) -> bool {
    let letters = match bytes.get(2..4) {
        Some(&[m0, m1]) => {
            let meter = Meter::from_wire([m0, m1, 0, 0, 0, 0, 0, 0]);
            meter.letters().bytes().all(|letter| letter.is_ascii_uppercase())
        }
        _ => true,
    };
    letters && bytes.get(wmbus::LINK_HEADER).is_none_or(|&ci| wmbus::ci_name(ci).is_some())
}

/// Splits what [`look`] found into the telegram in the normal form and the byte of signal strength.
pub fn split(found: &[u8], strength: Strength) -> (Vec<u8>, Option<u8>) {
    match (strength, found.split_last()) {
        (Strength::None, _) | (_, None) => (found.to_vec(), None),
        (Strength::Behind, Some((&raw, telegram))) => (telegram.to_vec(), Some(raw)),
        (Strength::Counted, Some((&raw, telegram))) => {
            let mut telegram = telegram.to_vec();
            if let Some(length) = telegram.first_mut() {
                *length = length.saturating_sub(1);
            }
            (telegram, Some(raw))
        }
    }
}

/// Appends a telegram in the normal form as a receiver prints it.
pub fn encode(telegram: &[u8], strength: Strength, raw: u8, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(telegram);
    if strength != Strength::None {
        out.push(raw);
    }
    if let Some(length) = out.get_mut(start).filter(|_| strength == Strength::Counted) {
        *length = length.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TELEGRAM: [u8; 12] = [11, 0x48, 0x2D, 0x2C, 0x78, 0x56, 0x34, 0x12, 0x1B, 0x16, 0x7A, 0x01];

    #[test]
    fn each_place_of_the_strength_gives_the_same_telegram() {
        for (strength, raw) in [(Strength::None, None), (Strength::Counted, Some(7)), (Strength::Behind, Some(7))] {
            let mut printed = Vec::new();
            encode(&TELEGRAM, strength, 7, &mut printed);
            for in_step in [true, false] {
                assert_eq!(look(&printed, strength, in_step), Look::Telegram(printed.len()));
                for length in 0..printed.len() {
                    assert_eq!(look(&printed[..length], strength, in_step), Look::More, "{length}");
                }
            }
            assert_eq!(split(&printed, strength), (TELEGRAM.to_vec(), raw));
        }
    }

    #[test]
    fn a_short_length_and_an_unknown_function_are_no_telegram_and_odd_ones_only_in_step() {
        let changed = |at: usize, byte: u8| {
            let mut bytes = TELEGRAM;
            bytes[at] = byte;
            [true, false].map(|in_step| look(&bytes, Strength::None, in_step) == Look::Nothing)
        };
        assert_eq!(changed(0, 9), [true, true]);
        assert_eq!(changed(1, 0x49), [true, true]);
        assert_eq!(changed(1, 0xC8), [false, false], "relayed");
        assert_eq!(changed(3, 0), [false, true]);
        assert_eq!(changed(10, 0x10), [false, true]);
        assert_eq!(look(&[10, 0x44], Strength::Counted, true), Look::Nothing);
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_and_what_is_found_is_sound(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            in_step in any::<bool>(),
        ) {
            for strength in [Strength::None, Strength::Counted, Strength::Behind] {
                if let Look::Telegram(total) = look(&bytes, strength, in_step) {
                    prop_assert!(crate::wire::wmbus::decode(&split(&bytes[..total], strength).0).is_ok());
                }
            }
        }
    }
}
