//! A set of numbers as merged intervals: what one broker has acknowledged of one lane.
//!
//! A message that carries the frames of a lane behind `after` up to `last` acknowledges the half-open
//! interval `(after, last]`: numbers in it that it does not carry belong to the other lane or to
//! frames that are gone. So neighbours merge, and acknowledgements in order stay one interval.

use serde::{Deserialize, Serialize};

use crate::model::Sequence;

/// Numbers above `after`, up to and with `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    pub(super) after: Sequence,
    pub(super) last: Sequence,
}

/// More gaps than these are not remembered: a broker that acknowledges in order leaves none.
const MOST: usize = 256;

/// Spans in order, none touching the next; at most [`MOST`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intervals(Vec<Span>);

impl Intervals {
    /// Adds a span. When there are too many gaps the highest span is forgotten: its frames are
    /// then only sent again.
    pub(super) fn insert(&mut self, span: Span) {
        if span.last <= span.after {
            return;
        }
        let from = self.0.partition_point(|s| s.last < span.after);
        let to = self.0.partition_point(|s| s.after <= span.last);
        let touched = self.0.get(from..to).unwrap_or_default();
        let after = touched.first().map_or(span.after, |s| s.after.min(span.after));
        let last = touched.last().map_or(span.last, |s| s.last.max(span.last));
        self.0.splice(from..to, [Span { after, last }]);
        self.0.truncate(MOST);
    }

    pub(super) fn contains(&self, number: Sequence) -> bool {
        self.covered_to(number.saturating_sub(1)) >= number && number > 0
    }

    /// The highest number so that everything above `after` up to it is in the set; `after` itself
    /// when the next number is not.
    pub(super) fn covered_to(&self, after: Sequence) -> Sequence {
        let at = self.0.partition_point(|s| s.last <= after);
        self.0.get(at).filter(|s| s.after <= after).map_or(after, |s| s.last)
    }

    /// The highest number in the set; 0 when it is empty.
    pub(super) fn highest(&self) -> Sequence {
        self.0.last().map_or(0, |s| s.last)
    }

    /// Leaves out everything above `limit`.
    pub(super) fn up_to(&self, limit: Sequence) -> Self {
        let below = self.0.iter().filter(|s| s.after < limit);
        Self(below.map(|s| Span { after: s.after, last: s.last.min(limit) }).collect())
    }

    /// Whether spans read from a file are what [`Intervals::insert`] could have made.
    pub(super) fn is_sane(&self) -> bool {
        let ordered = self.0.windows(2).all(|pair| matches!(pair, [a, b] if a.last < b.after));
        self.0.len() <= MOST && ordered && self.0.iter().all(|s| s.after < s.last)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn acknowledgements_in_order_stay_one_interval() {
        let mut set = Intervals::default();
        for last in (10..1_000_000).step_by(10) {
            set.insert(Span { after: last - 10, last });
        }
        assert_eq!(set.0, [Span { after: 0, last: 999_990 }]);
    }

    #[test]
    fn too_many_gaps_forget_the_highest_and_never_the_lowest() {
        let mut set = Intervals::default();
        for n in 0..=MOST as u64 {
            set.insert(Span { after: 2 * n, last: 2 * n + 1 });
        }
        assert_eq!((set.0.len(), set.contains(1), set.contains(2 * MOST as u64 + 1)), (MOST, true, false));
        set.insert(Span { after: 1, last: 2 });
        assert_eq!(set.covered_to(0), 3);
    }

    proptest! {
        #[test]
        fn it_is_the_set_of_the_numbers_put_in(
            spans in prop::collection::vec((0u64..60, 0u64..12), 0..25), limit in 0u64..80,
        ) {
            let (mut set, mut model) = (Intervals::default(), BTreeSet::new());
            for (after, length) in spans {
                set.insert(Span { after, last: after + length });
                model.extend(after + 1..=after + length);
                prop_assert!(set.is_sane());
            }
            let short = set.up_to(limit);
            prop_assert!(short.is_sane());
            for n in 0..80 {
                prop_assert_eq!(set.contains(n), model.contains(&n), "{} {:?}", n, &set);
                prop_assert_eq!(short.contains(n), n <= limit && model.contains(&n));
                let run = (n + 1..).take_while(|m| model.contains(m)).last().unwrap_or(n);
                prop_assert_eq!(set.covered_to(n), run);
            }
            prop_assert_eq!(set.highest(), model.last().copied().unwrap_or(0));
        }
    }
}
