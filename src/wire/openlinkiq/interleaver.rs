//! The interleaver: the second encoder takes the bits in the order of pi(i) = (f1 i + f2 i^2) mod K.
//!
//! Like LTE's, but with factors of its own for every K = 128, 136 .. 2040.

use super::{BITS_OF_CRC, LONGEST_MBAL, SHORTEST_MBAL};

/// The shortest block in bits.
const SHORTEST: usize = 8 * SHORTEST_MBAL + BITS_OF_CRC;
/// The longest block in bits.
pub(super) const LONGEST: usize = 8 * LONGEST_MBAL + BITS_OF_CRC;
const STEP: usize = 8;
const LENGTHS: usize = (LONGEST - SHORTEST) / STEP + 1;

/// f1 and f2 in turn, of every K.
#[rustfmt::skip]
const FACTORS: [u16; 2 * LENGTHS] = [
    7, 16, 121, 102, 5, 12, 17, 114, 9, 20, 5, 42, 109, 132, 11, 46, 23, 48, 3, 20, 25, 52, 5, 18,
    13, 28, 15, 58, 7, 30, 91, 186, 15, 32, 17, 66, 11, 68, 17, 70, 7, 24, 39, 222, 9, 38, 115, 78,
    19, 40, 125, 246, 5, 42, 21, 86, 21, 88, 11, 30, 11, 46, 23, 94, 35, 120, 25, 98, 7, 40, 25, 102,
    25, 104, 27, 106, 7, 24, 27, 110, 13, 28, 173, 342, 15, 58, 57, 118, 29, 60, 31, 122, 15, 62, 13, 42,
    15, 32, 21, 130, 13, 132, 23, 134, 9, 34, 17, 138, 17, 70, 23, 142, 7, 24, 25, 146, 25, 148, 11, 60,
    37, 152, 25, 154, 19, 78, 27, 158, 19, 40, 11, 36, 21, 82, 27, 166, 41, 84, 29, 170, 29, 172, 83, 174,
    43, 88, 29, 178, 11, 30, 31, 182, 45, 92, 23, 186, 23, 94, 31, 190, 23, 48, 33, 194, 13, 28, 17, 66,
    33, 200, 33, 202, 25, 102, 35, 206, 51, 104, 79, 210, 27, 106, 35, 214, 17, 48, 37, 218, 27, 110, 115, 222,
    27, 56, 37, 226, 37, 228, 39, 230, 57, 116, 53, 78, 29, 118, 39, 238, 41, 240, 41, 242, 31, 122, 31, 246,
    61, 124, 19, 100, 13, 42, 43, 254, 31, 64, 97, 258, 33, 130, 43, 262, 43, 264, 33, 266, 33, 134, 19, 60,
    33, 68, 45, 274, 35, 138, 35, 278, 69, 140, 35, 282, 35, 142, 47, 286, 23, 48, 49, 290, 37, 146, 11, 84,
    143, 296, 37, 298, 23, 120, 37, 302, 37, 76, 67, 102, 39, 154, 53, 310, 77, 156, 51, 314, 39, 158, 119, 318,
    39, 80, 41, 322, 23, 72, 53, 326, 27, 164, 41, 330, 41, 166, 41, 334, 41, 84, 43, 338, 43, 170, 77, 114,
    29, 172, 217, 346, 43, 174, 13, 70, 21, 44, 35, 354, 45, 178, 135, 358, 29, 60, 227, 362, 45, 182, 37, 366,
    45, 368, 47, 370, 47, 186, 141, 374, 23, 94, 29, 84, 47, 190, 47, 382, 47, 96, 49, 386, 49, 194, 49, 390,
    15, 112, 67, 394, 47, 132, 49, 398, 17, 80, 103, 402, 51, 202, 69, 406, 35, 204, 67, 410, 51, 206, 91, 138,
    25, 52, 53, 418, 53, 210, 69, 422, 27, 106, 43, 426, 53, 214, 53, 430, 31, 288, 55, 434, 55, 218, 107, 438,
    37, 220, 75, 442, 55, 222, 55, 446, 27, 56, 17, 90, 57, 226, 77, 454, 37, 228, 75, 458, 57, 230, 323, 462,
    57, 232, 59, 466, 17, 156, 77, 470, 29, 118, 47, 474, 59, 238, 59, 478, 29, 60, 61, 482, 61, 242, 35, 108,
    31, 122, 19, 140, 61, 246, 49, 494, 15, 62, 127, 498, 19, 100, 85, 502, 41, 84, 51, 506, 63, 254, 43, 510,
];

/// The order in which the second encoder takes `bits` bits; `None` when no block has so many.
pub(super) fn order(bits: usize) -> Option<Vec<u16>> {
    if !(SHORTEST..=LONGEST).contains(&bits) || !bits.is_multiple_of(STEP) {
        return None;
    }
    let [f1, f2] = *FACTORS.as_chunks::<2>().0.get((bits - SHORTEST) / STEP)?;
    let (k, f1, f2) = (bits as u32, u32::from(f1), u32::from(f2));
    // pi(i + 1) - pi(i) = f1 + f2 (2 i + 1): additions only.
    let (mut place, mut add) = (0, (f1 + f2) % k);
    let mut order = Vec::with_capacity(bits);
    for _ in 0..bits {
        order.push(place as u16);
        place = (place + add) % k;
        add = (add + 2 * f2) % k;
    }
    Some(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_a_permutation_and_follows_the_polynomial() {
        let mut known = 0;
        for bits in 0..3000 {
            let Some(order) = order(bits) else {
                assert!(!(128..=2040).contains(&bits) || bits % 8 != 0, "{bits}");
                continue;
            };
            known += 1;
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.iter().map(|n| usize::from(*n)).eq(0..bits), "{bits}");
            let row = (bits - 128) / 8;
            let (f1, f2) = (u64::from(FACTORS[2 * row]), u64::from(FACTORS[2 * row + 1]));
            let whole = |i: u64| (f1 * i + f2 * i * i) % bits as u64;
            assert!(order.iter().zip(0..).all(|(place, i)| u64::from(*place) == whole(i)), "{bits}");
        }
        assert_eq!(known, 240);
    }

    #[test]
    fn the_first_and_the_last_rows_are_those_of_the_published_table() {
        assert_eq!((&FACTORS[..4], FACTORS.len()), (&[7, 16, 121, 102][..], 480));
        assert_eq!(order(128).unwrap()[..4], [0, 23, 78, 37]);
    }
}
