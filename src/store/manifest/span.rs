//! Spans: lists of numbers that stay short, whatever they hold.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::Sequence;

/// `count` of the numbers from `first` to `last`; all of them when `count = last - first + 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u64)", into = "(u64, u64, u64)")]
pub struct Span {
    /// The first number.
    pub first: Sequence,
    /// The last number.
    pub last: Sequence,
    /// How many of them are meant.
    pub count: u64,
}

impl From<(u64, u64, u64)> for Span {
    fn from((first, last, count): (u64, u64, u64)) -> Self {
        Self { first, last, count }
    }
}

impl From<Span> for (u64, u64, u64) {
    fn from(span: Span) -> Self {
        (span.first, span.last, span.count)
    }
}

impl fmt::Display for Span {
    /// Writes `7`, `7-9`, or `2 of 7-9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, count } = self;
        match (self.is_exact(), first == last) {
            (true, true) => write!(f, "{first}"),
            (true, false) => write!(f, "{first}-{last}"),
            _ => write!(f, "{count} of {first}-{last}"),
        }
    }
}

impl Span {
    /// Makes the span of all numbers from `first` to `last`.
    pub const fn whole(first: Sequence, last: Sequence) -> Self {
        Self { first, last, count: last.saturating_sub(first).saturating_add(1) }
    }

    /// Whether every number in it is meant.
    pub const fn is_exact(&self) -> bool {
        self.count == self.length()
    }

    const fn length(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

/// Puts `spans` of one class in order, joins those that touch or overlap, and merges the nearest
/// neighbours until at most `limit` (at least 1) are left. Their sum stays.
pub fn coarsen(mut spans: Vec<Span>, limit: usize) -> Vec<Span> {
    spans.retain(|s| s.count > 0 && s.first <= s.last);
    spans.sort_unstable();
    let mut joined: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match joined.last_mut() {
            // Two spans that touch become one only where that keeps what they say.
            Some(before)
                if span.first <= before.last || (before.is_exact() && span.is_exact() && gap(before, &span) == 0) =>
            {
                *before = merged(before, &span);
            }
            _ => joined.push(span),
        }
    }
    let excess = joined.len().saturating_sub(limit.max(1));
    if excess == 0 {
        return joined;
    }
    let mut gaps: Vec<(u64, usize)> =
        joined.windows(2).zip(1..).filter_map(|(w, at)| Some((gap(w.first()?, w.get(1)?), at))).collect();
    gaps.sort_unstable();
    let mut into_before = vec![false; joined.len()];
    for (_, at) in gaps.into_iter().take(excess) {
        if let Some(flag) = into_before.get_mut(at) {
            *flag = true;
        }
    }
    let mut out: Vec<Span> = Vec::with_capacity(limit);
    for (span, into_before) in joined.into_iter().zip(into_before) {
        match out.last_mut() {
            Some(before) if into_before => *before = merged(before, &span),
            _ => out.push(span),
        }
    }
    out
}

/// How many numbers lie between two spans in order.
fn gap(before: &Span, after: &Span) -> u64 {
    after.first.saturating_sub(before.last).saturating_sub(1)
}

fn merged(one: &Span, other: &Span) -> Span {
    let (first, last) = (one.first.min(other.first), one.last.max(other.last));
    let count = one.count.saturating_add(other.count);
    Span { first, last, count: count.min(Span::whole(first, last).count) }
}

/// How many numbers `spans` hold.
pub fn total(spans: &[Span]) -> u64 {
    spans.iter().fold(0, |sum, s| sum.saturating_add(s.count))
}

/// The first span that is impossible: empty, holding more than it has, beyond `last`, or not
/// behind the one before it.
pub(super) fn first_wrong(spans: &[Span], last: Sequence) -> Option<Span> {
    let mut before = 0;
    spans.iter().copied().find(|s| {
        let good = s.first > before && s.first <= s.last && s.last <= last && s.count >= 1 && s.count <= s.length();
        before = s.last;
        !good
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    fn exact(numbers: &BTreeSet<u64>) -> Vec<Span> {
        numbers.iter().map(|n| Span::whole(*n, *n)).collect()
    }

    proptest! {
        #[test]
        fn coarse_spans_are_few_in_order_and_keep_the_count(
            numbers in btree_set(1u64..5_000, 0..600), limit in 1usize..120,
        ) {
            let spans = coarsen(exact(&numbers), limit);
            prop_assert!(spans.len() <= limit);
            prop_assert_eq!(first_wrong(&spans, 5_000), None);
            prop_assert_eq!(total(&spans), numbers.len() as u64);
            for span in &spans {
                let inside = numbers.range(span.first..=span.last).count() as u64;
                prop_assert_eq!(inside, span.count, "{}", span);
                prop_assert!(numbers.contains(&span.first) && numbers.contains(&span.last));
            }
            prop_assert_eq!(coarsen(spans.clone(), limit), spans);
        }

        #[test]
        fn any_spans_are_coarsened_without_a_panic(
            spans in proptest::collection::vec(any::<(u64, u64, u64)>(), 0..50), limit in 0usize..5,
        ) {
            let spans = coarsen(spans.into_iter().map(Span::from).collect(), limit);
            prop_assert!(spans.len() <= limit.max(1));
        }
    }

    #[test]
    fn the_nearest_neighbours_are_merged_first() {
        let spans = [(1, 10, 10), (12, 20, 9), (40, 50, 11)].map(Span::from).to_vec();
        let merged = coarsen(spans.clone(), 2);
        assert_eq!(merged, [(1, 20, 19), (40, 50, 11)].map(Span::from));
        assert_eq!(merged.iter().map(Span::to_string).collect::<Vec<_>>(), ["19 of 1-20", "40-50"]);
        assert_eq!(coarsen(spans, 1), [Span { first: 1, last: 50, count: 30 }]);
        assert_eq!(coarsen(vec![Span::whole(3, 3), Span::whole(1, 2)], 9), [Span::whole(1, 3)]);
    }
}
