//! Completeness: which numbers nobody has and no manifest explains.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Manifest, Span};
use crate::model::Sequence;

/// A set of numbers as ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    ranges: Vec<(Sequence, Sequence)>,
    repeats: u64,
}

impl Numbers {
    /// Takes numbers in any order, repeats included.
    pub fn of(mut numbers: Vec<Sequence>) -> Self {
        let all = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        let mut ranges: Vec<(Sequence, Sequence)> = Vec::new();
        for &number in &numbers {
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        Self { ranges, repeats: (all - numbers.len()) as u64 }
    }

    /// How many different numbers there are.
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| Span::whole(*first, *last).count).sum()
    }

    /// How many came more than once.
    pub fn repeats(&self) -> u64 {
        self.repeats
    }

    /// The ranges of numbers from `first` to `last` that are not in it.
    fn lacking(&self, first: Sequence, last: Sequence) -> Vec<(Sequence, Sequence)> {
        let mut lacking = Vec::new();
        let mut next = Some(first);
        for &(from, to) in self.ranges.iter().filter(|(from, to)| *to >= first && *from <= last) {
            if let Some(start) = next.filter(|start| from > *start) {
                lacking.push((start, from - 1));
            }
            next = to.checked_add(1);
        }
        lacking.extend(next.filter(|start| *start <= last).map(|start| (start, last)));
        lacking
    }
}

/// What the manifests of a chain say of numbers that did not arrive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    first: Option<Sequence>,
    last: Sequence,
    explained: Vec<Span>,
    pending: Vec<Span>,
}

/// What became of the numbers of a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Completeness {
    /// The numbers that were looked at.
    pub numbers: u64,
    /// Those that arrived.
    pub received: u64,
    /// Those that did not, and a manifest says why.
    pub explained: u64,
    /// Those that did not and nobody says why. In a range where a manifest gives no more than a
    /// count they are the last ones, though it may be others of that range.
    pub missing: Vec<Span>,
}

impl Account {
    /// Takes the next manifest of a checked chain.
    pub fn push(&mut self, manifest: &Manifest) {
        self.first.get_or_insert(manifest.first);
        self.last = manifest.last;
        self.explained.extend_from_slice(&manifest.evicted);
        self.explained.extend_from_slice(&manifest.skipped);
        // Only the newest close tells what waits; what waited before has become something else.
        self.pending.clone_from(&manifest.pending);
    }

    /// Compares with the numbers that arrived.
    pub fn compare(&self, arrived: &Numbers) -> Completeness {
        let Some(first) = self.first.filter(|first| *first <= self.last) else {
            return Completeness::default();
        };
        let lacking = arrived.lacking(first, self.last);
        let absent: u64 = lacking.iter().map(|(from, to)| Span::whole(*from, *to).count).sum();
        let spans = [self.explained.as_slice(), &self.pending].concat();
        let missing = unexplained(&lacking, spans);
        let numbers = Span::whole(first, self.last).count;
        let explained = absent - missing.iter().map(|s| s.count).sum::<u64>();
        Completeness { numbers, received: numbers - absent, explained, missing }
    }
}

/// Explains as many of the `lacking` numbers as `spans` can, each span as many as it counts, and
/// returns the rest. Always the span that ends first goes first, which leaves the fewest over.
fn unexplained(lacking: &[(Sequence, Sequence)], mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable_by_key(|s| Reverse(s.first));
    let mut active: BinaryHeap<Reverse<(Sequence, u64)>> = BinaryHeap::new();
    let mut missing: Vec<Span> = Vec::new();
    for &(from, to) in lacking {
        let mut at = Some(from);
        while let Some(next) = at.filter(|next| *next <= to) {
            while let Some(span) = spans.pop_if(|s| s.first <= next) {
                active.push(Reverse((span.last, span.count)));
            }
            // Until here nothing changes: the segment's end, or where the next span begins.
            let stop = spans.last().map_or(to, |s| to.min(s.first - 1));
            let end = match active.pop() {
                Some(Reverse((last, _))) if last < next => continue,
                Some(Reverse((last, count))) => {
                    let end = stop.min(last).min(next.saturating_add(count - 1));
                    let left = count - Span::whole(next, end).count;
                    if left > 0 {
                        active.push(Reverse((last, left)));
                    }
                    end
                }
                None => {
                    match missing.last_mut() {
                        Some(before) if before.last.checked_add(1) == Some(next) => {
                            *before = Span::whole(before.first, stop);
                        }
                        _ => missing.push(Span::whole(next, stop)),
                    }
                    stop
                }
            };
            at = end.checked_add(1);
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exact_spans_explain_their_numbers_and_no_other() {
        let account = Account {
            first: Some(1),
            last: 20,
            explained: vec![Span::whole(3, 4), Span::whole(10, 12)],
            pending: vec![Span::whole(19, 20)],
        };
        let mut arrived: Vec<u64> = (1..=18).filter(|n| ![3, 4, 10, 11, 12].contains(n)).collect();
        arrived.extend([1, 1, 99]);
        let found = account.compare(&Numbers::of(arrived.clone()));
        assert_eq!((found.numbers, found.received, found.explained, found.missing), (20, 13, 7, vec![]));
        assert_eq!(Numbers::of(arrived.clone()).repeats(), 2);
        arrived.retain(|n| ![5, 6, 13].contains(n));
        assert_eq!(account.compare(&Numbers::of(arrived)).missing, [Span::whole(5, 6), Span::whole(13, 13)]);
        let nothing = account.compare(&Numbers::default());
        assert_eq!((nothing.received, nothing.explained), (0, 7));
    }

    #[test]
    fn a_coarse_span_explains_as_many_as_it_counts() {
        let account = Account { first: Some(1), last: 10, explained: vec![(2, 8, 3).into()], pending: vec![] };
        let found = account.compare(&Numbers::of(vec![1, 3, 5, 7, 9, 10]));
        assert_eq!((found.explained, found.missing), (3, vec![Span::whole(8, 8)]));
    }

    #[test]
    fn a_leap_of_numbers_costs_no_time() {
        let account = Account {
            first: Some(1),
            last: u64::MAX - 1,
            explained: vec![Span::whole(5, u64::MAX - 1)],
            pending: vec![],
        };
        assert_eq!(account.compare(&Numbers::of(vec![1, 2])).missing, [Span::whole(3, 4)]);
    }

    proptest! {
        #[test]
        fn the_fewest_possible_are_left_over(
            lacking in btree_set(1u64..60, 0..40),
            spans in vec((1u64..60, 0u64..12, 1u64..6), 0..8),
        ) {
            let spans: Vec<Span> = spans.into_iter().map(|(first, more, n)| Span { first, last: first + more, count: n.min(more + 1) }).collect();
            let ranges: Vec<_> = lacking.iter().map(|n| (*n, *n)).collect();
            let left = unexplained(&ranges, spans.clone());
            prop_assert!(left.iter().all(|s| (s.first..=s.last).all(|n| lacking.contains(&n))));
            prop_assert_eq!(lacking.len() as u64 - super::super::span::total(&left), matching(&lacking, &spans));
        }
    }

    /// The largest number of `lacking` that `spans` can explain, by augmenting paths.
    fn matching(lacking: &BTreeSet<u64>, spans: &[Span]) -> u64 {
        let seats: Vec<&Span> = spans.iter().flat_map(|s| vec![s; s.count as usize]).collect();
        let mut taken: Vec<Option<u64>> = vec![None; seats.len()];
        fn place(n: u64, seats: &[&Span], taken: &mut [Option<u64>], tried: &mut BTreeSet<usize>) -> bool {
            for at in 0..seats.len() {
                if seats[at].first <= n
                    && n <= seats[at].last
                    && tried.insert(at)
                    && taken[at].is_none_or(|other| place(other, seats, taken, tried))
                {
                    taken[at] = Some(n);
                    return true;
                }
            }
            false
        }
        lacking.iter().filter(|n| place(**n, &seats, &mut taken, &mut BTreeSet::new())).count() as u64
    }
}
