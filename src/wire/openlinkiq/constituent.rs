//! Decodes one encoder: how likely each bit is, given what both ends of the trellis say.
//!
//! Log-MAP (BCJR in the logarithmic domain) over 8 states, in 16-bit integers; the logarithm of a
//! sum is the larger term plus a straight line that falls with the difference. What is said about a
//! bit is a log-likelihood ratio, positive for 0; here in 1/16 of a neper, and path metrics in 1/32,
//! because half of each ratio counts on either side. Everything goes by eights, so that the compiler
//! may use vectors.
//!
//! Nothing overflows: a ratio is below 660 and a parity's below 150, so a step changes a metric by
//! less than 810; after three steps every state is reached from every other, so metrics are less
//! than 3 * 2 * 810 apart, or still count from [`NEVER`]; no sum reaches 20,000.

/// A metric of each of the 8 states, whose number is its three bits, the newest highest.
type States = [i16; 8];

/// Ratios beyond this, 32 nepers, are as sure as one can be.
pub(super) const SUREST: i16 = 512;
/// What a receiver says is at most this, shaken.
pub(super) const LOUDEST: i16 = 145;

/// A state that can't be.
const NEVER: i16 = -6_000;
/// ln(e^a + e^b) is max(a, b) + (BEND - |a - b|) / 4 where that is above the larger term, in 1/32:
/// off by 0.06 neper at most.
const BEND: i16 = 80;

/// Both ratios of one step.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Step {
    /// Of the bit itself, with what the other decoder knows.
    pub(super) bit: i16,
    /// Of its parity.
    pub(super) parity: i16,
}

/// Room for the forward metrics, used again from one run to the next.
#[derive(Debug, Default)]
pub(super) struct Constituent {
    forward: Vec<States>,
}

impl Constituent {
    /// Works out the ratio of each bit in `steps`, which end with the three of the tail. `give` is told
    /// the place of each bit, what was known of it and its ratio, the last bit first.
    pub(super) fn run(&mut self, steps: &[Step], mut give: impl FnMut(usize, i16, i16)) {
        let (steps, tail) = steps.split_at(steps.len().saturating_sub(3));
        self.forward.clear();
        let mut metrics = [0, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER];
        for step in steps {
            self.forward.push(metrics);
            metrics = forward(metrics, *step);
        }
        // Behind the tail only state 0 is left.
        let mut behind = [0, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER, NEVER];
        for step in tail.iter().rev() {
            behind = backward(behind, *step).0;
        }
        for ((place, step), before) in steps.iter().enumerate().zip(&self.forward).rev() {
            let (metrics, [low, high]) = backward(behind, *step);
            give(place, step.bit, ratio(*before, low, high));
            behind = metrics;
        }
    }
}

/// The metrics after a step. State s is reached from 2 (s mod 4), whose oldest bit is 0, and from
/// the one beside it, on which the bit and its parity are both the other way round.
#[inline]
fn forward(metrics: States, step: Step) -> States {
    let [a, b] = branches(step);
    let [m0, m1, m2, m3, m4, m5, m6, m7] = metrics;
    let even = [m0, m2, m4, m6, m0, m2, m4, m6];
    let odd = [m1, m3, m5, m7, m1, m3, m5, m7];
    let branch = [a, b, negated(b), negated(a), negated(a), negated(b), b, a];
    level(joined(add(even, branch), subtract(odd, branch)))
}

/// The metrics before a step, and those of its two branches from each state: with a 0 and with a 1
/// entering the register.
#[inline]
fn backward(metrics: States, step: Step) -> (States, [States; 2]) {
    let [a, b] = branches(step);
    let [m0, m1, m2, m3, m4, m5, m6, m7] = metrics;
    let branch = [a, negated(a), b, negated(b), negated(b), b, negated(a), a];
    let low = add([m0, m0, m1, m1, m2, m2, m3, m3], branch);
    let high = subtract([m4, m4, m5, m5, m6, m6, m7, m7], branch);
    (level(joined(low, high)), [low, high])
}

/// The branch metrics of (bit, parity) = (0, 0) and (1, 0); those of (1, 1) and (0, 1) are their
/// negatives.
#[inline]
const fn branches(step: Step) -> [i16; 2] {
    [step.bit.wrapping_add(step.parity), step.parity.wrapping_sub(step.bit)]
}

/// The ratio of a bit: all ways it is 0 against all ways it is 1.
#[inline]
fn ratio(before: States, low: States, high: States) -> i16 {
    // The bit is what enters the register unless exactly one of the two older bits is set.
    let [l0, l1, l2, l3, l4, l5, l6, l7] = low;
    let [h0, h1, h2, h3, h4, h5, h6, h7] = high;
    let [z0, z1, z2, z3, z4, z5, z6, z7] = add(before, [l0, h1, h2, l3, l4, h5, h6, l7]);
    let [o0, o1, o2, o3, o4, o5, o6, o7] = add(before, [h0, l1, l2, h3, h4, l5, l6, h7]);
    // Both sums in one: the right half of the lanes idles from the second step on.
    let [z0, z1, z2, z3, o0, o1, o2, o3] = joined([z0, z1, z2, z3, o0, o1, o2, o3], [z4, z5, z6, z7, o4, o5, o6, o7]);
    let [z0, z1, o0, o1, ..] = joined([z0, z1, o0, o1, z0, z1, o0, o1], [z2, z3, o2, o3, z2, z3, o2, o3]);
    let [zero, one, ..] = joined([z0, o0, z0, o0, z0, o0, z0, o0], [z1, o1, z1, o1, z1, o1, z1, o1]);
    (zero.wrapping_sub(one) / 2).clamp(-SUREST, SUREST)
}

/// The logarithm of the sum of each pair.
#[inline]
fn joined(a: States, b: States) -> States {
    let mut sums = a;
    for (sum, b) in sums.iter_mut().zip(b) {
        let (larger, smaller) = ((*sum).max(b), (*sum).min(b));
        let near = BEND.wrapping_sub(larger.wrapping_sub(smaller)).max(0);
        *sum = larger.wrapping_add(near >> 2);
    }
    sums
}

/// Keeps the metrics around zero: only their differences count.
#[inline]
fn level(metrics: States) -> States {
    let [first, ..] = metrics;
    subtract(metrics, [first; 8])
}

#[inline]
fn add(mut a: States, b: States) -> States {
    a.iter_mut().zip(b).for_each(|(a, b)| *a = a.wrapping_add(b));
    a
}

#[inline]
fn subtract(mut a: States, b: States) -> States {
    a.iter_mut().zip(b).for_each(|(a, b)| *a = a.wrapping_sub(b));
    a
}

#[inline]
const fn negated(metric: i16) -> i16 {
    metric.wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::super::encoder::{Encoder, encode};
    use super::*;

    fn ratios(steps: &[Step]) -> Vec<i16> {
        let mut found = vec![0; steps.len() - 3];
        Constituent::default().run(steps, |place, told, ratio| {
            assert_eq!(told, steps[place].bit);
            found[place] = ratio;
        });
        found
    }

    /// All words of `length` bits with their parity and tail, as signs.
    fn words(length: usize) -> impl Iterator<Item = (usize, Vec<[f64; 2]>)> {
        let sign = |bit: u8| if bit == 0 { 0.5 } else { -0.5 };
        (0..1usize << length).map(move |word| {
            let bits: Vec<u8> = (0..length).map(|n| (word >> n & 1) as u8).collect();
            let (parity, tail) = encode(bits.iter().copied());
            let tail = (0..3).rev().map(|n| [sign(tail.systematic >> n & 1), sign(tail.parity >> n & 1)]);
            (word, bits.iter().zip(parity).map(|(bit, parity)| [sign(*bit), sign(parity)]).chain(tail).collect())
        })
    }

    #[test]
    fn ratios_are_those_of_the_sum_over_all_words() {
        const LENGTH: usize = 9;
        let mut state = 9u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as i16 / 700
        };
        for _ in 0..50 {
            let steps: Vec<Step> = (0..LENGTH + 3).map(|_| Step { bit: noise(), parity: noise() }).collect();
            let mut sums = [[0f64; 2]; LENGTH];
            for (word, signs) in words(LENGTH) {
                let terms = signs.iter().zip(&steps);
                let exponent: f64 =
                    terms.map(|(s, step)| s[0] * f64::from(step.bit) + s[1] * f64::from(step.parity)).sum();
                for (n, sum) in sums.iter_mut().enumerate() {
                    sum[word >> n & 1] += (exponent / 16.0).exp();
                }
            }
            for (ratio, [zero, one]) in ratios(&steps).iter().zip(sums) {
                let exact = 16.0 * (zero / one).ln();
                assert!((f64::from(*ratio) - exact).abs() < 8.0, "{ratio} where {exact} belongs");
            }
        }
    }

    #[test]
    fn the_loudest_ratios_overflow_nothing() {
        let loudest = SUREST + LOUDEST;
        for pattern in 0..256u32 {
            let mut encoder = Encoder::default();
            let mut steps = Vec::new();
            let mut sent = Vec::new();
            for n in 0..200 {
                let bit = (pattern >> (n % 8) & 1) as u8;
                // Every seventh parity lies as loudly as it can.
                let parity = if encoder.step(bit) ^ u8::from(n % 7 == 3) == 0 { LOUDEST } else { -LOUDEST };
                steps.push(Step { bit: if bit == 0 { loudest } else { -loudest }, parity });
                sent.push(bit);
            }
            let tail = encoder.end();
            let loud = |bits: u8, n: u8| if bits >> n & 1 == 0 { LOUDEST } else { -LOUDEST };
            steps.extend((0..3).rev().map(|n| Step { bit: loud(tail.systematic, n), parity: loud(tail.parity, n) }));
            for (ratio, bit) in ratios(&steps).iter().zip(sent) {
                assert_eq!((ratio.signum() < 0, ratio.abs()), (bit == 1, SUREST), "{pattern:08b}");
            }
        }
    }
}
