//! Line codes: what a receiver hears in modes S, T and R2 when it delivers chips (EN 13757-4, 5 and 6).
//!
//! Mode T sends each four bits as six chips of which three are set (3 of 6), modes S and R2 each bit as
//! two chips (Manchester). C and N send bits as they are and need nothing from here but [`of_sync`].
//! The chips start behind the sync word. How many belong to the frame shows its first byte, L; what a
//! receiver delivered behind them is noise.

use super::super::DecodeError;
use super::format::{self, FrameFormat};

/// How bits became chips.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineCode {
    /// Mode T, from the meter.
    ThreeOfSix,
    /// Modes S and R2: 0 is sent as 1 0, 1 as 0 1.
    Manchester,
}

/// Which bit of a delivered byte was heard first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BitOrder {
    /// The highest one, as on the air.
    HighFirst,
    /// The lowest one, as some radio chips fill their buffers.
    LowFirst,
}

/// A frame that was decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The frame of format A, its CRCs not yet checked.
    pub bytes: Vec<u8>,
    /// The bytes of chips that it took; a byte begun counts as whole.
    pub used: usize,
}

/// The six chips of each four bits.
const CODE: [u8; 16] = [0x16, 0x0D, 0x0E, 0x0B, 0x1C, 0x19, 0x1A, 0x13, 0x2C, 0x25, 0x26, 0x23, 0x34, 0x31, 0x32, 0x29];

/// Decodes the chips of one frame of format A; its CRCs are checked by [`format::decode`].
///
/// # Errors
/// At the byte of the frame whose chips are no code word, or where the chips end too early.
pub fn decode(code: LineCode, order: BitOrder, chips: &[u8]) -> Result<Frame, DecodeError> {
    let mut chips = Chips { bytes: chips, order, next: 0 };
    let mut bytes = Vec::new();
    let mut length = 1;
    while bytes.len() < length {
        let at = bytes.len();
        let byte = match code {
            LineCode::ThreeOfSix => three_of_six(&mut chips, at)?,
            LineCode::Manchester => manchester(&mut chips, at)?,
        };
        if at == 0 {
            length = format::length(FrameFormat::A, byte)
                .ok_or_else(|| DecodeError::new(0, "an L field of at least 9", byte.to_string()))?;
        }
        bytes.push(byte);
    }
    Ok(Frame { bytes, used: chips.next.div_ceil(8) })
}

/// Appends the chips of a frame; the last byte is filled up as a sender's postamble would.
pub fn encode(code: LineCode, order: BitOrder, frame: &[u8], chips: &mut Vec<u8>) {
    let mut all = Vec::with_capacity(frame.len() * 16);
    for byte in frame {
        match code {
            LineCode::ThreeOfSix => {
                for nibble in [byte >> 4, byte & 0x0F] {
                    let word = CODE.get(usize::from(nibble)).copied().unwrap_or(0);
                    all.extend((0..6).rev().map(|bit| (word >> bit) & 1));
                }
            }
            LineCode::Manchester => {
                all.extend((0..8).rev().map(|bit| (byte >> bit) & 1).flat_map(|bit| [1 - bit, bit]));
            }
        }
    }
    while !all.len().is_multiple_of(8) {
        all.push(u8::from(all.len().is_multiple_of(2)));
    }
    for byte in all.chunks(8) {
        let value = byte.iter().fold(0, |value, chip| (value << 1) | chip);
        chips.push(match order {
            BitOrder::HighFirst => value,
            BitOrder::LowFirst => value.reverse_bits(),
        });
    }
}

/// The frame format that the last two bytes of a sync word announce in modes C and N: 54 CD is A, 54 3D
/// is B. In mode C the first two, 54 3D, are those of mode T.
pub const fn of_sync(sync: [u8; 2]) -> Option<FrameFormat> {
    match sync {
        [0x54, 0xCD] => Some(FrameFormat::A),
        [0x54, 0x3D] => Some(FrameFormat::B),
        _ => None,
    }
}

struct Chips<'a> {
    bytes: &'a [u8],
    order: BitOrder,
    next: usize,
}

impl Chips<'_> {
    /// The next `count` chips, the first one highest.
    fn take(&mut self, count: usize, at: usize) -> Result<u8, DecodeError> {
        let mut taken = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.next / 8).ok_or_else(|| {
                DecodeError::new(at, "the chips of the whole frame", format!("{} bytes of chips", self.bytes.len()))
            })?;
            let place = self.next % 8;
            let chip = match self.order {
                BitOrder::HighFirst => byte >> (7 - place),
                BitOrder::LowFirst => byte >> place,
            };
            taken = (taken << 1) | (chip & 1);
            self.next += 1;
        }
        Ok(taken)
    }
}

fn three_of_six(chips: &mut Chips<'_>, at: usize) -> Result<u8, DecodeError> {
    let mut byte = 0;
    for _ in 0..2 {
        let word = chips.take(6, at)?;
        let nibble = CODE.iter().position(|code| *code == word).and_then(|nibble| u8::try_from(nibble).ok());
        let found = || DecodeError::new(at, "a code word of three chips in six", format!("{word:06b}"));
        byte = (byte << 4) | nibble.ok_or_else(found)?;
    }
    Ok(byte)
}

fn manchester(chips: &mut Chips<'_>, at: usize) -> Result<u8, DecodeError> {
    let mut byte = 0;
    for _ in 0..8 {
        byte <<= 1;
        match chips.take(2, at)? {
            0b10 => {}
            0b01 => byte |= 1,
            word => return Err(DecodeError::new(at, "a change in the middle of a bit", format!("{word:02b}"))),
        }
    }
    Ok(byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CODES: [LineCode; 2] = [LineCode::ThreeOfSix, LineCode::Manchester];
    const ORDERS: [BitOrder; 2] = [BitOrder::HighFirst, BitOrder::LowFirst];

    fn frame(length: u8) -> Vec<u8> {
        let telegram: Vec<u8> = std::iter::once(length).chain((0..length).map(|n| n.wrapping_mul(91))).collect();
        let mut frame = Vec::new();
        format::encode(FrameFormat::A, &telegram, &mut frame).unwrap();
        frame
    }

    fn chips(code: LineCode, order: BitOrder, frame: &[u8]) -> Vec<u8> {
        let mut chips = Vec::new();
        encode(code, order, frame, &mut chips);
        chips
    }

    #[test]
    fn the_codes_are_those_of_the_standard() {
        assert!(CODE.iter().all(|word| word.count_ones() == 3));
        // 0 and F, then 1 and 0: 010110 101001 001101 010110.
        assert_eq!(chips(LineCode::ThreeOfSix, BitOrder::HighFirst, &[0x0F, 0x10]), [0x5A, 0x93, 0x56]);
        assert_eq!(chips(LineCode::ThreeOfSix, BitOrder::LowFirst, &[0x0F, 0x10]), [0x5A, 0xC9, 0x6A]);
        assert_eq!(chips(LineCode::Manchester, BitOrder::HighFirst, &[0x0F]), [0xAA, 0x55]);
    }

    #[test]
    fn the_frame_ends_where_its_length_says_whatever_follows() {
        for (code, order) in CODES.into_iter().flat_map(|code| ORDERS.map(|order| (code, order))) {
            for length in [9, 10, 25, 26, 255] {
                let frame = frame(length);
                let sent = chips(code, order, &frame);
                let heard = [&sent[..], &[0x00, 0xFF, 0x12]].concat();
                let found = decode(code, order, &heard).unwrap();
                assert_eq!((found.bytes, found.used), (frame, sent.len()), "{code:?} {order:?}");
            }
        }
    }

    #[test]
    fn every_wrong_chip_is_seen_by_the_code_or_the_crcs() {
        for (code, order) in CODES.into_iter().flat_map(|code| ORDERS.map(|order| (code, order))) {
            let sent = chips(code, order, &frame(20));
            let on_air = match code {
                LineCode::ThreeOfSix => 25 * 12,
                LineCode::Manchester => 25 * 16,
            };
            for chip in 0..on_air {
                let mut heard = sent.clone();
                let place = if order == BitOrder::HighFirst { 7 - chip % 8 } else { chip % 8 };
                heard[chip / 8] ^= 1 << place;
                let decoded = decode(code, order, &heard).and_then(|f| format::decode(FrameFormat::A, &f.bytes));
                assert!(decoded.is_err(), "{code:?} {order:?} chip {chip}");
            }
        }
    }

    #[test]
    fn a_frame_cut_short_and_one_too_short_to_be_are_refused() {
        let sent = chips(LineCode::ThreeOfSix, BitOrder::HighFirst, &frame(20));
        assert!(decode(LineCode::ThreeOfSix, BitOrder::HighFirst, &sent[..sent.len() - 1]).is_err());
        let short = chips(LineCode::Manchester, BitOrder::HighFirst, &[8, 0x44, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9]);
        assert!(
            decode(LineCode::Manchester, BitOrder::HighFirst, &short).unwrap_err().to_string().contains("at least 9")
        );
        assert!(decode(LineCode::ThreeOfSix, BitOrder::HighFirst, &[]).is_err());
    }

    #[test]
    fn a_sync_word_tells_the_format() {
        assert_eq!(of_sync([0x54, 0xCD]), Some(FrameFormat::A));
        assert_eq!((of_sync([0x54, 0x3D]), of_sync([0x76, 0x96])), (Some(FrameFormat::B), None));
    }

    proptest! {
        #[test]
        fn any_chips_are_decoded_or_refused(heard in prop::collection::vec(any::<u8>(), 0..700)) {
            for (code, order) in CODES.into_iter().flat_map(|code| ORDERS.map(|order| (code, order))) {
                if let Ok(found) = decode(code, order, &heard) {
                    prop_assert!(found.used <= heard.len() && found.bytes.len() <= 290);
                }
            }
        }
    }
}
