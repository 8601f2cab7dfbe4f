//! The header: the rate and the length in an (82,9) code, and the tails of both encoders.
//!
//! 96 bits: `11`, 82 bits of code, then T1s T1p T2s T2p of 3 bits each. The code is affine and
//! systematic (its first 8 bits are the length); any two of its 480 words differ in 22 bits at
//! least, so that 10 wrong bits are mended for certain and more than that mostly.

use super::{LONGEST_MBAL, Rate, SHORTEST_MBAL};

/// The bytes of the header.
pub(super) const LENGTH: usize = 12;
/// The bits of the code.
pub(super) const WORD_BITS: usize = 82;
/// Where the code begins, in bits.
pub(super) const WORD_AT: usize = 2;
/// The bits of the four tails, the last of the header.
pub(super) const TAIL_BITS: u32 = 12;

/// So many wrong bits are mended whatever they are: less than half of what two words differ in.
const CERTAIN: u32 = 10;
/// More wrong bits than a frame worth decoding has (at 14 % one header in 10,000 has more), and
/// fewer than noise has mostly: noise must not keep the turbo decoder busy.
const MOST_WRONG: u32 = 24;

const OFFSET: u128 = 0x1_e41e_5de5_c924_bdd0;
const THIRD: u128 = 0x400_7807_941d_2f21;
/// What each bit of the length adds, the lowest first.
const LENGTH_BITS: [u128; 8] = [
    0x0407_9479_7000_0432_59d0,
    0x080f_2c0f_2c0f_2c39_e790,
    0x101e_5de5_c800_1c2f_7790,
    0x203c_b83c_b83c_b80b_2cb0,
    0x4079_7000_0400_7816_74b0,
    0x80f2_e4f2_e4f2_e424_9240,
    0x1_01e5_c800_1c01_e41d_e640,
    0x2_03cb_97cb_97cb_9432_cb20,
];

/// What the code carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) rate: Rate,
    /// The bytes of the MBAL frame.
    pub(super) length: u8,
}

impl Header {
    /// The code word of 82 bits.
    pub(super) fn word(self) -> u128 {
        let rate = if self.rate == Rate::Third { OFFSET ^ THIRD } else { OFFSET };
        let set = LENGTH_BITS.iter().enumerate().filter(|(bit, _)| self.length >> bit & 1 == 1);
        set.fold(rate, |word, (_, add)| word ^ add)
    }

    /// The header's 12 bytes with `tails`, of which 12 bits count.
    pub(super) fn to_bytes(self, tails: u16) -> [u8; LENGTH] {
        let bits = 0b11 << (WORD_BITS as u32 + TAIL_BITS) | self.word() << TAIL_BITS | u128::from(tails & 0x0FFF);
        let [_, _, _, _, bytes @ ..] = bits.to_be_bytes();
        bytes
    }
}

/// The word as it was received.
pub(super) fn received_word(header: [u8; LENGTH]) -> u128 {
    let bits = header.iter().fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
    bits >> TAIL_BITS & ((1 << WORD_BITS) - 1)
}

/// Finds the word that is nearest to the received one, of those whose length is at most
/// `longest`, and how many bits they differ in. `doubt` weighs a wrong bit by its place in the word.
/// `None` when even the nearest word is so far that this is noise.
pub(super) fn nearest(received: u128, longest: usize, doubt: impl Fn(u32) -> u32) -> Option<(Header, u16)> {
    let rates = [Rate::Half, Rate::Third];
    let fits = |header: &Header| (SHORTEST_MBAL..=LONGEST_MBAL.min(longest)).contains(&usize::from(header.length));
    let wrong = |header: Header| received ^ header.word();
    // The code is systematic: mostly the length stands there as it was sent.
    let length = (received >> (WORD_BITS - 8)) as u8;
    let sure =
        rates.map(|rate| Header { rate, length }).into_iter().find(|h| fits(h) && wrong(*h).count_ones() <= CERTAIN);
    let all = || {
        let headers = (0..=u8::MAX).flat_map(|length| rates.map(|rate| Header { rate, length }));
        headers.filter(fits).min_by_key(|header| weight(wrong(*header), &doubt))
    };
    let found = sure.or_else(all)?;
    let bits = wrong(found).count_ones();
    (bits <= MOST_WRONG).then_some((found, bits as u16))
}

/// The sum of the doubts about all places of `word` that are set; place 0 is the first on the air.
fn weight(mut word: u128, doubt: impl Fn(u32) -> u32) -> u32 {
    let mut sum = 0u32;
    while word != 0 {
        let bit = word.trailing_zeros();
        sum = sum.saturating_add(doubt((WORD_BITS as u32 - 1).saturating_sub(bit)));
        word &= word - 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all() -> Vec<Header> {
        (12..=251).flat_map(|length| [Rate::Half, Rate::Third].map(|rate| Header { rate, length })).collect()
    }

    fn hard(received: u128) -> Option<(Header, u16)> {
        nearest(received, LONGEST_MBAL, |_| 1)
    }

    #[test]
    fn any_two_words_differ_in_22_bits_and_begin_with_their_length() {
        let words: Vec<_> = all().iter().map(|h| h.word()).collect();
        assert_eq!(words.len(), 480);
        for (n, word) in words.iter().enumerate() {
            assert_eq!(word >> 74, n as u128 / 2 + 12);
            assert!(words.iter().take(n).all(|other| (word ^ other).count_ones() >= 22));
        }
    }

    #[test]
    fn noise_is_no_header_mostly_and_all_ones_never() {
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u128::from(state >> 23)
        };
        let taken = (0..2000).filter(|_| hard((noise() << 41 | noise()) & ((1 << 82) - 1)).is_some()).count();
        assert!(taken < 200, "{taken} of 2000");
        assert_eq!(hard((1 << 82) - 1), None);
        assert_eq!(hard(0), None);
    }

    #[test]
    fn a_doubtful_bit_weighs_less_than_a_sure_one() {
        // Halfway between two words; what the receiver doubts decides.
        let (one, other) = (all()[0], all()[1]);
        let between = (one.word() ^ other.word()).to_be_bytes();
        let mut half = 0u128;
        let mut left = 11;
        for bit in (0..128).filter(|bit| between[15 - bit / 8] >> (bit % 8) & 1 == 1) {
            if left > 0 {
                half |= 1 << bit;
                left -= 1;
            }
        }
        let received = one.word() ^ half;
        let doubt = |wrong: u128| move |place: u32| if wrong >> (81 - place) & 1 == 1 { 1 } else { 20 };
        assert_eq!(nearest(received, 251, doubt(half)), Some((one, 11)));
        assert_eq!(nearest(received, 251, doubt(one.word() ^ other.word() ^ half)), Some((other, 11)));
    }

    proptest! {
        #[test]
        fn ten_wrong_bits_anywhere_are_mended(
            which in 0usize..480,
            wrong in proptest::collection::btree_set(0u32..82, 0..=10),
            tails in any::<u16>(),
        ) {
            let header = all()[which];
            let bytes = header.to_bytes(tails);
            prop_assert_eq!((bytes[0] >> 6, bytes[10] & 0x0F, bytes[11]), (3, (tails >> 8 & 0x0F) as u8, tails as u8));
            prop_assert_eq!(received_word(bytes), header.word());
            let received = wrong.iter().fold(header.word(), |word, bit| word ^ 1 << bit);
            prop_assert_eq!(hard(received), Some((header, wrong.len() as u16)));
        }
    }
}
