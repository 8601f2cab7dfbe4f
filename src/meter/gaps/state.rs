//! What was delivered, as it is kept on disk.
//!
//! A line `weir profile 1 CRC` and a line of JSON, whose CRC-32 that is. Anything else is no
//! state: then intervals are delivered again, and none is left out.

use crc::{CRC_32_ISO_HDLC, CRC_64_XZ, Crc};
use serde::{Deserialize, Serialize};

use super::covered::Covered;
use crate::model::Interval;

const CHECK: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
const PRINT: Crc<u64> = Crc::<u64>::new(&CRC_64_XZ);
const HEAD: &str = "weir profile 1 ";
/// Stretches of time that are kept apart: so many holes and one.
const STRETCHES: usize = 64;
/// Delivered intervals that are known by their content.
const SEEN: usize = 512;
/// The largest file that can be one.
pub(super) const LARGEST: u64 = 64 * 1024;

/// What is known of one meter's profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What the meter calls the profile.
    pub(super) id: String,
    /// The times that are dealt with: delivered, or absent at the meter.
    pub(super) covered: Covered,
    /// The newest delivered intervals: end and a print of the content, sorted.
    seen: Vec<(i64, u64)>,
    /// By how many milliseconds the newest interval lagged: the least ever, and the most that was
    /// followed up already.
    pub(super) lag: Option<(i64, i64)>,
    /// Intervals delivered since ever.
    pub(super) delivered: u64,
    /// Intervals that the meter did not have.
    pub(super) absent: u64,
}

impl State {
    /// Nothing delivered yet.
    pub(super) fn new(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::default() }
    }

    /// The file's content.
    pub(super) fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_string(self).unwrap_or_default();
        format!("{HEAD}{:08x}\n{body}\n", CHECK.checksum(body.as_bytes())).into_bytes()
    }

    /// Reads a file back; `None` when it is damaged or of another profile.
    pub(super) fn decode(file: &[u8], id: &str) -> Option<Self> {
        let (head, body) = std::str::from_utf8(file).ok()?.strip_prefix(HEAD)?.split_once('\n')?;
        let body = body.strip_suffix('\n')?;
        (head == format!("{:08x}", CHECK.checksum(body.as_bytes()))).then_some(())?;
        let state: Self = serde_json::from_str(body).ok()?;
        (state.id == id && state.covered.is_sound() && state.seen.is_sorted()).then_some(state)
    }

    /// Remembers an interval; false when the very same was delivered before. `nth` tells equal
    /// ones of one answer apart.
    pub(super) fn is_new(&mut self, interval: &Interval, nth: u64) -> bool {
        let entry = (interval.end.as_millis(), print(interval, nth));
        let Err(at) = self.seen.binary_search(&entry) else { return false };
        self.seen.insert(at, entry);
        if self.seen.len() > SEEN {
            self.seen.remove(0);
        }
        true
    }

    /// Closes the oldest holes when there are too many; returns them.
    pub(super) fn bound(&mut self) -> Vec<(i64, i64)> {
        self.covered.bound(STRETCHES)
    }
}

/// A print of an interval's content.
pub(super) fn print(interval: &Interval, nth: u64) -> u64 {
    let mut digest = PRINT.digest();
    let mut text = |text: &str| {
        digest.update(&(text.len() as u64).to_le_bytes());
        digest.update(text.as_bytes());
    };
    text(&interval.meter_time);
    text(&interval.status);
    for value in &interval.values {
        text(&value.name);
        text(value.value.as_deref().unwrap_or("\0"));
        text(&value.unit);
    }
    digest.update(&nth.to_le_bytes());
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Timestamp, Value};

    fn state() -> State {
        let mut state = State::new("P.01");
        state.covered.add(0, 1000);
        state.covered.add(5000, 9000);
        state.lag = Some((1, 2));
        let value =
            Value { name: "1.5.0".into(), value: None, unit: String::new(), quality: crate::model::Quality::Good };
        let interval = Interval {
            meter: "m".into(),
            profile: "P.01".into(),
            end: Timestamp::from_millis(1000),
            meter_time: "0".into(),
            period: 900,
            status: String::new(),
            values: vec![value],
        };
        assert!(state.is_new(&interval, 0) && !state.is_new(&interval, 0) && state.is_new(&interval, 1));
        state
    }

    proptest! {
        #[test]
        fn a_torn_or_damaged_file_is_no_state(cut in 0usize..400, bit in 0usize..8, tears in any::<bool>()) {
            let whole = state().encode();
            prop_assert_eq!(State::decode(&whole, "P.01"), Some(state()));
            prop_assert_eq!(State::decode(&whole, "P.02"), None);
            let at = cut % whole.len();
            let mut file = whole.clone();
            if tears {
                file.truncate(at);
            } else {
                file[at] ^= 1 << bit;
            }
            prop_assert_eq!(State::decode(&file, "P.01"), None);
        }
    }

    #[test]
    fn a_state_at_its_bounds_fits_the_file() {
        let mut state = state();
        for n in 0..2000i64 {
            let at = 1_700_000_000_000 + n * 900_000;
            state.covered.add(at, at + 1000);
            let interval = Interval {
                meter: String::new(),
                profile: String::new(),
                end: Timestamp::from_millis(at),
                meter_time: n.to_string(),
                period: 0,
                status: String::new(),
                values: vec![],
            };
            assert!(state.is_new(&interval, 0));
            state.bound();
        }
        let file = state.encode();
        assert!((file.len() as u64) < LARGEST && State::decode(&file, "P.01") == Some(state));
    }
}
