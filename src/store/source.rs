//! Whose frame it is: the name under which a meter's share of the store is reckoned.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::block;
use super::ledger::OTHERS;
use crate::model::{Body, Frame, TelegramKind};
use crate::wire::{mbal, wmbus};

/// Longer names are cut, so that tables of names stay bounded.
const LONGEST: usize = 40;
/// The most meters one generation tells apart.
const MAX_METERS: usize = 1000;

/// The meter of a frame: its configured name, or the address in its telegram.
pub(super) fn source(frame: &Frame) -> String {
    match &frame.body {
        Body::Reading(reading) => cut(&reading.meter),
        Body::Interval(interval) => cut(&interval.meter),
        // As the same meter's telegrams are named below.
        Body::Decoded(decoded) => match decoded.meter.split('.').collect::<Vec<_>>().as_slice() {
            [letters, number, version, device] => cut(&format!("{letters} {number} v{version} t{device}")),
            _ => cut(&decoded.meter),
        },
        Body::Manifest(_) => "(manifest)".to_owned(),
        Body::Telegram(telegram) | Body::Copies(telegram, _) => {
            let meter = match telegram.kind {
                TelegramKind::OpenlinkIq => mbal::decode(&telegram.bytes).ok().map(|m| m.meter.as_meant()),
                TelegramKind::WirelessMbus => wmbus::decode(&telegram.bytes).ok().map(|t| t.sender()),
            };
            meter.map_or_else(|| OTHERS.to_owned(), |m| cut(&m.to_string()))
        }
    }
}

/// The meter of an encoded frame.
pub(super) fn source_of(bytes: &[u8]) -> String {
    block::decode_frame(bytes).map_or_else(|| OTHERS.to_owned(), |frame| source(&frame))
}

fn cut(name: &str) -> String {
    let mut end = name.len().min(LONGEST);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default().to_owned()
}

/// How many bytes of frames each meter has somewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Census(HashMap<String, u64>);

impl Census {
    /// Adds bytes of one meter.
    pub(super) fn add(&mut self, meter: &str, bytes: u64) {
        if let Some(known) = self.0.get_mut(meter) {
            *known += bytes;
            return;
        }
        let name = if self.0.len() < MAX_METERS { meter } else { OTHERS };
        match self.0.get_mut(name) {
            Some(known) => *known += bytes,
            None => _ = self.0.insert(name.to_owned(), bytes),
        }
    }

    /// Adds another census, by name: who finds no room does not depend on chance.
    pub(super) fn merge(&mut self, other: &Self) {
        let mut shares: Vec<_> = other.0.iter().collect();
        shares.sort_unstable();
        shares.into_iter().for_each(|(meter, bytes)| self.add(meter, *bytes));
    }

    /// The bytes of all meters.
    pub(super) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// How many bytes each meter must give up so that `target` bytes are freed and nobody who
    /// gives has less left than somebody else had in the first place.
    pub(super) fn quotas(&self, target: u64) -> Quotas {
        let mut sizes: Vec<u64> = self.0.values().copied().collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        // Lower the level from the largest share down until what stands above it is enough.
        let mut above = 0u64;
        let mut level = 0;
        for (count, size) in (1u64..).zip(&sizes) {
            above += size;
            let next = usize::try_from(count).ok().and_then(|i| sizes.get(i)).copied().unwrap_or(0);
            if above.saturating_sub(next * count) >= target {
                level = above.saturating_sub(target) / count;
                break;
            }
        }
        // Those below the level are in it, too: they must not pay for the nameless.
        Quotas(self.0.iter().map(|(meter, bytes)| (meter.clone(), bytes.saturating_sub(level))).collect())
    }
}

/// What meters have to give up, in bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Quotas(BTreeMap<String, u64>);

impl Quotas {
    /// Whether a frame of `meter` goes; its size is then taken off what the meter has to give. Once
    /// one stays, all newer ones of the meter stay, too.
    pub(super) fn take(&mut self, meter: &str, size: u64) -> bool {
        let name = if self.0.contains_key(meter) { meter } else { OTHERS };
        match self.0.get_mut(name) {
            Some(left) if *left >= size => {
                *left -= size;
                true
            }
            Some(left) => {
                *left = 0;
                false
            }
            None => false,
        }
    }

    /// How much of what `census` counts would go.
    pub(super) fn of(&self, census: &Census) -> u64 {
        census.0.iter().map(|(meter, bytes)| self.0.get(meter).map_or(0, |left| *left.min(bytes))).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn census(shares: &[u64]) -> Census {
        let mut census = Census::default();
        shares.iter().enumerate().for_each(|(i, bytes)| census.add(&format!("m{i}"), *bytes));
        census
    }

    #[test]
    fn who_has_most_gives_first_and_a_small_share_is_left_alone() {
        let quotas = census(&[100, 1000, 900]).quotas(300);
        assert_eq!(
            quotas.0.into_iter().collect::<Vec<_>>(),
            [("m0".into(), 0), ("m1".into(), 200), ("m2".into(), 100)]
        );
    }

    #[test]
    fn who_finds_no_room_in_a_census_is_one_of_the_others_and_does_not_depend_on_hashes() {
        let many = census(&[1; 2 * MAX_METERS]);
        assert_eq!((many.0.len(), many.0[OTHERS], many.total()), (MAX_METERS + 1, 1000, 2000));
        // Each map has hashes of its own, and so an order of its own.
        let [one, other] = [(); 2].map(|()| {
            let mut all = Census::default();
            (0..MAX_METERS / 2).for_each(|n| all.add(&format!("k{n}"), 1));
            all.merge(&census(&[1; MAX_METERS]));
            all
        });
        assert_eq!(one, other);
    }

    #[test]
    fn a_small_share_does_not_pay_for_the_nameless() {
        let mut census = census(&[100]);
        census.add(OTHERS, 5000);
        let mut quotas = census.quotas(1000);
        assert!(!quotas.take("m0", 50) && quotas.take("unheard of", 50) && quotas.take(OTHERS, 50));
    }

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(cut(&"ä".repeat(40)).len(), LONGEST);
        assert_eq!(cut(&format!("x{}", "ä".repeat(40))).len(), LONGEST - 1);
    }

    proptest! {
        #[test]
        fn quotas_free_what_was_asked_and_leave_shares_level(
            shares in proptest::collection::vec(1u64..10_000, 1..40), part in 0u64..1000,
        ) {
            let census = census(&shares);
            let target = census.total() * part / 1000;
            let quotas = census.quotas(target);
            let freed = quotas.of(&census);
            prop_assert!(freed >= target && freed < target + shares.len() as u64 + 1, "{freed} of {target}");
            let left = |m: &String, bytes: u64| bytes - quotas.0.get(m).copied().unwrap_or(0);
            let most = census.0.iter().map(|(m, b)| left(m, *b)).max().unwrap();
            for (meter, bytes) in census.0.iter().filter(|(m, _)| quotas.0[*m] > 0) {
                prop_assert!(left(meter, *bytes) >= most.saturating_sub(1));
            }
        }
    }
}
