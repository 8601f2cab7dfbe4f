//! Which numbers were given up or skipped, and whose frames they were: what a manifest tells.
//!
//! Lists are bounded: beyond that, neighbouring spans are joined and say how many of their numbers
//! are meant, so counts stay exact and only places become coarser.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::manifest::{Digest, MAX_SPANS as MAX_TOLD, Manifest, Span as Told, span};

use crate::model::Sequence;

/// The most spans kept of one kind.
pub(super) const MAX_SPANS: usize = 150;
/// The most meters counted by name; frames of further ones are counted under [`OTHERS`].
pub(super) const MAX_METERS: usize = 200;
/// The name under which everything without a name of its own is counted.
pub(super) const OTHERS: &str = "(others)";

/// `frames` of the numbers `first..=last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    pub(super) first: Sequence,
    pub(super) last: Sequence,
    pub(super) frames: u64,
}

impl Span {
    const fn is_whole(&self) -> bool {
        self.frames == self.last - self.first + 1
    }
}

/// Spans that do not overlap, ascending, at most [`MAX_SPANS`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spans(Vec<Span>);

impl Spans {
    /// The spans, ascending.
    #[cfg(test)]
    pub(super) fn as_slice(&self) -> &[Span] {
        &self.0
    }

    /// Adds `frames` of the numbers `first..=last`.
    pub(super) fn add(&mut self, first: Sequence, last: Sequence, frames: u64) {
        if frames == 0 || last < first {
            return;
        }
        let mut new = Span { first, last, frames };
        let from = self.0.partition_point(|s| s.last < first);
        let to = self.0.partition_point(|s| s.first <= last);
        for old in self.0.drain(from..to.max(from)) {
            new = joined(&old, &new);
        }
        let mut at = from;
        let touches = |a: &Span, b: &Span| a.is_whole() && b.is_whole() && a.last.saturating_add(1) == b.first;
        if let Some(before) = at.checked_sub(1).and_then(|i| self.0.get(i)).filter(|b| touches(b, &new)) {
            new = joined(before, &new);
            at -= 1;
            self.0.remove(at);
        }
        if let Some(after) = self.0.get(at).filter(|a| touches(&new, a)) {
            new = joined(&new, after);
            self.0.remove(at);
        }
        self.0.insert(at, new);
        while self.0.len() > MAX_SPANS {
            self.join_nearest();
        }
    }

    /// The spans as a manifest tells them.
    pub(super) fn told(&self) -> Vec<Told> {
        let all = self.0.iter().map(|s| Told { first: s.first, last: s.last, count: s.frames }).collect();
        span::coarsen(all, MAX_TOLD)
    }

    /// What of `first..=last` is not in these spans, ascending.
    pub(super) fn rest(&self, first: Sequence, last: Sequence) -> Vec<Span> {
        let mut rest = Vec::new();
        let mut next = first;
        for span in &self.0 {
            if span.first > next {
                rest.push(Span { first: next, last: span.first - 1, frames: span.first - next });
            }
            let length = span.last - span.first + 1;
            if length > span.frames {
                rest.push(Span { frames: length - span.frames, ..*span });
            }
            next = next.max(span.last.saturating_add(1));
        }
        if next <= last {
            rest.push(Span { first: next, last, frames: last - next + 1 });
        }
        rest
    }

    /// Adds every span of `other`.
    pub(super) fn extend(&mut self, other: &Self) {
        for span in &other.0 {
            self.add(span.first, span.last, span.frames);
        }
    }

    fn join_nearest(&mut self) {
        let gap = |w: &[Span]| match w {
            [a, b] => b.first - a.last,
            _ => u64::MAX,
        };
        let nearest = self.0.windows(2).enumerate().min_by_key(|(_, w)| gap(w)).map(|(i, _)| i);
        let Some(i) = nearest else { return };
        let second = self.0.remove(i + 1);
        if let Some(first) = self.0.get_mut(i) {
            *first = joined(first, &second);
        }
    }
}

fn joined(a: &Span, b: &Span) -> Span {
    Span { first: a.first.min(b.first), last: a.last.max(b.last), frames: a.frames.saturating_add(b.frames) }
}

/// How many frames of each meter, by its name.
pub(super) type ByMeter = BTreeMap<String, u64>;

/// Adds to a meter's count, within [`MAX_METERS`] names.
pub(super) fn count(meters: &mut ByMeter, meter: &str, frames: u64) {
    if let Some(known) = meters.get_mut(meter) {
        *known += frames;
    } else {
        let name = if meters.len() < MAX_METERS { meter } else { OTHERS };
        *meters.entry(name.to_owned()).or_default() += frames;
    }
}

/// Frames given up at one time.
#[derive(Debug, Default)]
pub(super) struct Losses {
    pub(super) frames: u64,
    pub(super) spans: Spans,
    pub(super) meters: ByMeter,
}

impl Losses {
    /// Notes one frame.
    pub(super) fn add(&mut self, sequence: Sequence, meter: &str) {
        self.frames += 1;
        self.spans.add(sequence, sequence, 1);
        count(&mut self.meters, meter, 1);
    }

    /// Notes frames of which only the numbers are known.
    pub(super) fn add_unread(&mut self, first: Sequence, last: Sequence, frames: u64) {
        self.frames += frames;
        self.spans.add(first, last, frames);
        if frames > 0 {
            count(&mut self.meters, OTHERS, frames);
        }
    }
}

impl Losses {
    /// Keeps at most `limit` frames, when nothing but their numbers is known.
    pub(super) fn at_most(self, limit: u64) -> Self {
        if self.frames <= limit {
            return self;
        }
        let mut kept = Self::default();
        for span in self.spans.0 {
            kept.add_unread(span.first, span.last, span.frames.min(limit - kept.frames));
        }
        kept
    }
}

/// What the cursor file keeps of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ledger {
    /// Numbers given up since the last manifest.
    pub(super) evicted: Spans,
    /// Numbers skipped by crashes since the last manifest.
    pub(super) skipped: Spans,
    /// Frames given up since ever, by meter.
    pub(super) meters: ByMeter,
    /// The number of the last manifest; 0: none.
    pub(super) manifests: u64,
    /// Its last number.
    pub(super) closed: Sequence,
    /// The SHA-256 of its text.
    pub(super) previous: [u8; 32],
    /// When it was closed, or the store was created; milliseconds since 1970.
    pub(super) since: i64,
}

impl Ledger {
    /// Begins anew after a manifest.
    pub(super) fn closed(&mut self, manifest: &Manifest, digest: Digest) {
        self.evicted = Spans::default();
        self.skipped = Spans::default();
        self.manifests = manifest.number;
        self.closed = manifest.last;
        self.previous = digest;
        self.since = manifest.to.as_millis();
    }

    /// Takes losses over.
    pub(super) fn lose(&mut self, losses: &Losses) {
        self.evicted.extend(&losses.spans);
        for (meter, frames) in &losses.meters {
            count(&mut self.meters, meter, *frames);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_stay_exact_and_places_hold_what_they_should(
            numbers in proptest::collection::btree_set(1u64..5000, 0..900), seed in any::<u64>(),
        ) {
            let mut order: Vec<_> = numbers.iter().copied().collect();
            order.sort_by_key(|n| n.wrapping_mul(seed | 1).rotate_left(17));
            let mut spans = Spans::default();
            for n in order {
                spans.add(n, n, 1);
            }
            let list = spans.as_slice();
            prop_assert!(list.len() <= MAX_SPANS);
            prop_assert!(list.windows(2).all(|w| w[0].last < w[1].first));
            prop_assert_eq!(list.iter().map(|s| s.frames).sum::<u64>(), numbers.len() as u64);
            for span in list {
                let inside: BTreeSet<_> = numbers.range(span.first..=span.last).collect();
                prop_assert_eq!(inside.len() as u64, span.frames);
            }
        }
    }

    #[test]
    fn the_rest_of_spans_is_what_they_leave_open() {
        let mut spans = Spans::default();
        for (first, last, frames) in [(12, 14, 3), (16, 20, 4)] {
            spans.add(first, last, frames);
        }
        let rest: Vec<_> = spans.rest(10, 30).iter().map(|s| (s.first, s.last, s.frames)).collect();
        assert_eq!(rest, [(10, 11, 2), (15, 15, 1), (16, 20, 1), (21, 30, 10)]);
        assert_eq!(Spans::default().rest(5, 4), []);
    }

    #[test]
    fn neighbours_become_one_span_and_beyond_the_bound_the_nearest_are_joined() {
        let mut spans = Spans::default();
        for n in [5, 7, 6, 1] {
            spans.add(n, n, 1);
        }
        assert_eq!(spans.as_slice(), [Span { first: 1, last: 1, frames: 1 }, Span { first: 5, last: 7, frames: 3 }]);
    }

    #[test]
    fn meters_beyond_the_bound_are_counted_together() {
        let mut meters = ByMeter::new();
        for n in 0..MAX_METERS + 50 {
            count(&mut meters, &format!("m{n}"), 2);
        }
        assert_eq!((meters.len(), meters[OTHERS]), (MAX_METERS + 1, 100));
    }
}
