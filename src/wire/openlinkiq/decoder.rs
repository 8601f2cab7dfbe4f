//! The turbo decoder: each encoder is decoded in turn and tells the other one what it knows, until
//! the block is believed.
//!
//! A decoder that settles on a wrong block stays there; it then begins anew with ratios that are
//! shaken a little, which finds the right one often. All beginnings share one bound of iterations.

use super::Rate;
use super::constituent::{Constituent, LOUDEST, SUREST, Step};
use super::interleaver::order;

/// How often both encoders are decoded at most: what bounds the time a frame can take.
pub(super) const MOST_ITERATIONS: u8 = 32;
/// The steps of a tail.
const TAIL: usize = 3;

/// What is known of a frame: ratios of the block's bits, of the parity bits in the order of the air, and
/// of both tails.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) bits: Vec<i16>,
    pub(super) parity: Vec<i16>,
    /// T1s T1p T2s T2p.
    pub(super) tails: [i16; 4 * TAIL],
    pub(super) rate: Rate,
}

/// Decodes until `believed` takes a block, and says after how many iterations.
pub(super) fn decode(heard: &Heard, mut believed: impl FnMut(&[u8]) -> bool) -> Option<(Vec<u8>, u8)> {
    let order = order(heard.bits.len())?;
    let mut dither = Dither(1);
    let mut decoder = Decoder::new(heard, &order);
    for iteration in 1..=MOST_ITERATIONS {
        let settled = decoder.block.clone();
        for half in [Decoder::first_half, Decoder::second_half] {
            half(&mut decoder);
            if believed(&decoder.block) {
                return Some((decoder.block, iteration));
            }
        }
        if decoder.block == settled {
            decoder.begin(&dither.shaken(heard));
        }
    }
    None
}

struct Decoder<'a> {
    order: &'a [u16],
    bits: Vec<i16>,
    /// The steps of each encoder in its own order.
    steps: [Vec<Step>; 2],
    /// What the encoder decoded last knows of each bit beside what it was told.
    known: Vec<i16>,
    /// The most likely block.
    block: Vec<u8>,
    constituent: Constituent,
}

impl<'a> Decoder<'a> {
    fn new(heard: &Heard, order: &'a [u16]) -> Self {
        let mut decoder = Self {
            order,
            bits: Vec::new(),
            steps: [Vec::new(), Vec::new()],
            known: Vec::new(),
            block: vec![0; order.len() / 8],
            constituent: Constituent::default(),
        };
        decoder.begin(heard);
        decoder
    }

    fn begin(&mut self, heard: &Heard) {
        self.bits.clone_from(&heard.bits);
        self.steps = [steps(heard, 0), steps(heard, 1)];
        self.known = vec![0; heard.bits.len()];
    }

    fn first_half(&mut self) {
        let Self { bits, steps: [steps, _], known, block, constituent, .. } = self;
        for ((step, bit), known) in steps.iter_mut().zip(&*bits).zip(&*known) {
            step.bit = bit.saturating_add(*known);
        }
        block.fill(0);
        constituent.run(steps, |place, told, ratio| learn(block, known, place, told, ratio));
    }

    fn second_half(&mut self) {
        let Self { order, bits, steps: [_, steps], known, block, constituent } = self;
        for (step, place) in steps.iter_mut().zip(*order) {
            let of = |all: &[i16]| all.get(usize::from(*place)).copied().unwrap_or(0);
            step.bit = of(bits).saturating_add(of(known));
        }
        block.fill(0);
        constituent.run(steps, |step, told, ratio| {
            let place = order.get(step).map_or(usize::MAX, |place| usize::from(*place));
            learn(block, known, place, told, ratio);
        });
    }
}

/// Notes what came out about the bit at `place`, of which `told` was known before.
fn learn(block: &mut [u8], known: &mut [i16], place: usize, told: i16, ratio: i16) {
    if let Some(known) = known.get_mut(place) {
        *known = ratio.saturating_sub(told).clamp(-SUREST, SUREST);
    }
    if ratio < 0
        && let Some(byte) = block.get_mut(place / 8)
    {
        *byte |= 0x80 >> (place % 8);
    }
}

/// The steps of an encoder with its parity bits, where they were sent, and its tail; the bits come
/// later.
fn steps(heard: &Heard, encoder: usize) -> Vec<Step> {
    let bits = heard.bits.len();
    let mut steps = vec![Step::default(); bits + TAIL];
    let (first, every, skipped) = match heard.rate {
        Rate::Third => (0, 1, encoder * bits),
        Rate::Half => (encoder, 2, encoder * bits / 2),
    };
    let sent = heard.parity.iter().skip(skipped);
    for (step, ratio) in steps.iter_mut().take(bits).skip(first).step_by(every).zip(sent) {
        step.parity = *ratio;
    }
    let tails = heard.tails.as_chunks::<TAIL>().0;
    if let (Some(systematic), Some(parity)) = (tails.get(2 * encoder), tails.get(2 * encoder + 1)) {
        for ((step, bit), parity) in steps.iter_mut().skip(bits).zip(systematic).zip(parity) {
            *step = Step { bit: *bit, parity: *parity };
        }
    }
    steps
}

/// Numbers that only have to differ: the same frame is decoded the same way each time.
struct Dither(u32);

impl Dither {
    /// Adds up to a third of a hard bit's ratio to each ratio, or takes it away.
    fn shaken(&mut self, heard: &Heard) -> Heard {
        let mut shaken = heard.clone();
        let Heard { bits, parity, tails, .. } = &mut shaken;
        for ratio in bits.iter_mut().chain(parity).chain(tails) {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *ratio = ratio.saturating_add((self.0 >> 16) as i16 / 2340).clamp(-LOUDEST, LOUDEST);
        }
        shaken
    }
}
