//! The turbo code as it is sent: two encoders, one of them behind the interleaver.

use super::Rate;
use super::encoder::{Tail, encode};
use super::interleaver::order;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_the_parity_is_every_second_bit_of_each_encoder() {
        let block: Vec<u8> = (0..16u8).map(|n| n.wrapping_mul(37)).collect();
        let (half, third) = (code(&block, Rate::Half).unwrap(), code(&block, Rate::Third).unwrap());
        let (first, second) = third.parity.split_at(128);
        assert!(half.parity[..64].iter().eq(first.iter().step_by(2)));
        assert!(half.parity[64..].iter().eq(second.iter().skip(1).step_by(2)));
        assert_eq!((half.parity.len(), half.tails), (128, third.tails));
        assert_eq!(code(&block[1..], Rate::Half), None);
    }
}
