//! Which stretches of time are dealt with.

use serde::{Deserialize, Serialize};

/// Stretches `(after, until]` in milliseconds since 1970: sorted, apart from each other, not empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Covered(Vec<(i64, i64)>);

impl Covered {
    /// Adds a stretch and returns what of it is new, oldest first.
    pub(super) fn add(&mut self, after: i64, until: i64) -> Vec<(i64, i64)> {
        let mut new = Vec::new();
        let mut from = after;
        while let Some((start, end)) = self.first_open(from, until) {
            new.push((start, end));
            from = end;
        }
        if let (Some((first, _)), Some((_, last))) = (new.first(), new.last()) {
            let (mut first, mut last) = (*first, *last);
            self.0.retain(|(start, end)| {
                let touches = *end >= first && *start <= last;
                if touches {
                    (first, last) = (first.min(*start), last.max(*end));
                }
                !touches
            });
            let at = self.0.partition_point(|(start, _)| *start < first);
            self.0.insert(at, (first, last));
        }
        new
    }

    /// Opens a stretch again.
    pub(super) fn remove(&mut self, after: i64, until: i64) {
        if after >= until {
            return;
        }
        let kept = self.0.iter().flat_map(|(start, end)| [(*start, (*end).min(after)), ((*start).max(until), *end)]);
        self.0 = kept.filter(|(start, end)| start < end).collect();
    }

    /// The first stretch after `from` and not later than `until` that is not covered.
    pub(super) fn first_open(&self, from: i64, until: i64) -> Option<(i64, i64)> {
        let mut start = from;
        for (after, end) in &self.0 {
            if *after > start {
                let open = (start, (*after).min(until));
                return (open.0 < open.1).then_some(open);
            }
            start = start.max(*end);
        }
        (start < until).then_some((start, until))
    }

    /// Where the first stretch begins.
    pub(super) fn start(&self) -> Option<i64> {
        self.0.first().map(|(start, _)| *start)
    }

    /// Where the last stretch ends.
    pub(super) fn end(&self) -> Option<i64> {
        self.0.last().map(|(_, end)| *end)
    }

    /// Closes the oldest holes until no more than `most` stretches are left; returns those holes.
    pub(super) fn bound(&mut self, most: usize) -> Vec<(i64, i64)> {
        let mut closed = Vec::new();
        while self.0.len() > most.max(1) {
            let [(start, hole), (end, last), ..] = self.0.as_slice() else { break };
            closed.push((*hole, *end));
            let joined = (*start, *last);
            self.0.drain(..2);
            self.0.insert(0, joined);
        }
        closed
    }

    /// Whether it is what this file promises; a file may hold anything.
    pub(super) fn is_sound(&self) -> bool {
        self.0.iter().all(|(start, end)| start < end) && self.0.is_sorted_by(|a, b| a.1 < b.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stretches_are_a_set_of_points(
            steps in proptest::collection::vec((any::<bool>(), 0i64..60, 0i64..20), 0..40),
            from in 0i64..60,
        ) {
            let (mut covered, mut points) = (Covered::default(), BTreeSet::new());
            for (adds, after, length) in steps {
                let stretch = after + 1..=after + length;
                if adds {
                    let new: BTreeSet<_> =
                        covered.add(after, after + length).iter().flat_map(|(a, b)| a + 1..=*b).collect();
                    prop_assert_eq!(new, stretch.clone().filter(|p| !points.contains(p)).collect::<BTreeSet<_>>());
                    points.extend(stretch);
                } else {
                    covered.remove(after, after + length);
                    points.retain(|p| !stretch.contains(p));
                }
                prop_assert!(covered.is_sound(), "{:?}", covered);
                prop_assert_eq!(covered.end(), points.last().copied());
                prop_assert_eq!(covered.start(), points.first().map(|p| p - 1));
            }
            let first = (from + 1..=100).find(|p| !points.contains(p));
            prop_assert_eq!(covered.first_open(from, 100).map(|(start, _)| start + 1), first);
            let holes = covered.bound(2);
            prop_assert!(covered.is_sound() && covered.0.len() <= 2);
            prop_assert!(holes.iter().all(|(a, b)| (a + 1..=*b).all(|p| !points.contains(&p))));
        }
    }
}
