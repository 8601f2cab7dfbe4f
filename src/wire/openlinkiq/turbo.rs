//! The turbo code: two encoders, one behind the interleaver, and the decoder that lets each of
//! them tell the other what it knows until the block is believed.

use super::Rate;
use super::constituent::{Constituent, SUREST, Step};
use super::encoder::{Encoder, Tail, encode};
use super::interleaver::order;

/// How often both encoders are decoded at most: what bounds the time a frame can take.
pub(super) const MOST_ITERATIONS: u8 = 16;
/// The steps of a tail.
const TAIL: usize = 3;

/// What the turbo code adds to a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Coded {
    /// The parity bits in the order of the air.
    pub(super) parity: Vec<u8>,
    pub(super) tails: [Tail; 2],
}

/// Encodes a block; `None` when no block has that length.
pub(super) fn code(block: &[u8], rate: Rate) -> Option<Coded> {
    let bits: Vec<u8> = block.iter().flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1)).collect();
    let order = order(bits.len())?;
    let (mut parity, first) = encode(bits.iter().copied());
    let (other, second) = encode(order.iter().map(|place| bits.get(usize::from(*place)).copied().unwrap_or(0)));
    match rate {
        Rate::Third => parity.extend(other),
        Rate::Half => {
            parity = parity.into_iter().step_by(2).chain(other.into_iter().skip(1).step_by(2)).collect();
        }
    }
    Some(Coded { parity, tails: [first, second] })
}

/// What is known of a block: ratios of its bits, its parity bits and both tails, in the order of
/// the air.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) bits: Vec<i16>,
    pub(super) parity: Vec<i16>,
    /// T1s T1p T2s T2p.
    pub(super) tails: [i16; 4 * TAIL],
    pub(super) rate: Rate,
}

/// Decodes until `believed` takes a block, and says after how many iterations.
pub(super) fn decode(heard: &Heard, mut believed: impl FnMut(&[u8]) -> bool) -> Option<(Vec<u8>, u8)> {
    let bits = heard.bits.len();
    let order = order(bits)?;
    let mut first = steps(heard, 0);
    let mut second = steps(heard, 1);
    let mut known = vec![0i16; bits];
    let mut block = vec![0u8; bits / 8];
    let mut constituent = Constituent::default();
    for iteration in 1..=MOST_ITERATIONS {
        for ((step, bit), known) in first.iter_mut().zip(&heard.bits).zip(&known) {
            step.bit = bit.saturating_add(*known);
        }
        block.fill(0);
        constituent.run(&first, |place, ratio| {
            set(&mut block, place, ratio);
            if let (Some(known), Some(step)) = (known.get_mut(place), first.get(place)) {
                *known = ratio.saturating_sub(step.bit).clamp(-SUREST, SUREST);
            }
        });
        if believed(&block) {
            return Some((block, iteration));
        }
        let places = || order.iter().map(|place| usize::from(*place));
        for (step, place) in second.iter_mut().zip(places()) {
            let at = |all: &[i16]| all.get(place).copied().unwrap_or(0);
            step.bit = at(&heard.bits).saturating_add(at(&known));
        }
        block.fill(0);
        constituent.run(&second, |step, ratio| {
            let Some(place) = order.get(step).map(|place| usize::from(*place)) else { return };
            set(&mut block, place, ratio);
            if let (Some(known), Some(step)) = (known.get_mut(place), second.get(step)) {
                *known = ratio.saturating_sub(step.bit).clamp(-SUREST, SUREST);
            }
        });
        if believed(&block) {
            return Some((block, iteration));
        }
    }
    None
}

fn set(block: &mut [u8], place: usize, ratio: i16) {
    if ratio < 0 && let Some(byte) = block.get_mut(place / 8) {
        *byte |= 0x80 >> (place % 8);
    }
}

/// The steps of an encoder: its parity, where it was sent, and its tail; the bits come later.
fn steps(heard: &Heard, encoder: usize) -> Vec<Step> {
    let bits = heard.bits.len();
    let mut steps = vec![Step::default(); bits + TAIL];
    let sent: Box<dyn Iterator<Item = usize>> = match (heard.rate, encoder) {
        (Rate::Third, _) => Box::new(0..bits),
        (Rate::Half, _) => Box::new((encoder..bits).step_by(2)),
    };
    let skipped = match heard.rate { Rate::Third => encoder * bits, Rate::Half => encoder * bits.div_ceil(2) };
    for (place, ratio) in sent.zip(heard.parity.iter().skip(skipped)) {
        if let Some(step) = steps.get_mut(place) {
            step.parity = *ratio;
        }
    }
    let tail = heard.tails.as_chunks::<TAIL>().0;
    if let (Some(systematic), Some(parity)) = (tail.get(2 * encoder), tail.get(2 * encoder + 1)) {
        for ((step, bit), parity) in steps.iter_mut().skip(bits).zip(systematic).zip(parity) {
            *step = Step { bit: *bit, parity: *parity };
        }
    }
    steps
}
