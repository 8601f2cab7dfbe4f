//! Frame formats A and B: where the link layer puts its lengths and CRCs (EN 13757-4, 12.3).
//!
//! Both hold the same telegram; [`decode`] checks every CRC and gives the normal form
//! (`L C M A CI ...` without CRCs), [`encode`] goes the other way.

use crc::{CRC_16_EN_13757, Crc};

use super::super::DecodeError;

/// The CRC of EN 13757-4 and of the MBAL header.
pub(in crate::wire) const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_EN_13757);

/// How a link frame is laid out on the air.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameFormat {
    /// A CRC after the first 10 bytes and after each 16 more; L counts no CRCs.
    A,
    /// A CRC for up to 126 bytes and one for the rest; L counts the CRCs.
    B,
}

const CRC_LENGTH: usize = 2;
/// The data bytes of format A's first block: L C M A.
const FIRST_BLOCK_A: usize = 10;
const BLOCK_A: usize = 16;
/// The bytes that format B's first CRC covers.
const FIRST_PART_B: usize = 126;

/// The bytes of a whole frame whose first byte is `l`, the CRCs included; `None` when no frame of the
/// format has such an L field.
pub const fn length(format: FrameFormat, l: u8) -> Option<usize> {
    let data = l as usize + 1;
    match format {
        FrameFormat::A if data >= FIRST_BLOCK_A => {
            Some(data + CRC_LENGTH * (1 + (data - FIRST_BLOCK_A).div_ceil(BLOCK_A)))
        }
        FrameFormat::B if data >= FIRST_BLOCK_A + CRC_LENGTH => Some(data),
        _ => None,
    }
}

/// Checks a frame with CRCs and returns it in the normal form.
///
/// # Errors
/// When the length is not what L says, or a CRC is wrong.
pub fn decode(format: FrameFormat, frame: &[u8]) -> Result<Vec<u8>, DecodeError> {
    match format {
        FrameFormat::A => decode_a(frame),
        FrameFormat::B => decode_b(frame),
    }
}

/// Appends a telegram in the normal form to `frame` as it would travel on the air.
///
/// # Errors
/// When L is not the telegram's length, or the format can't carry that many bytes.
pub fn encode(format: FrameFormat, telegram: &[u8], frame: &mut Vec<u8>) -> Result<(), DecodeError> {
    let Some((&length, rest)) = telegram.split_first() else {
        return Err(DecodeError::new(0, "an L field", "nothing"));
    };
    if usize::from(length) != rest.len() || rest.len() + 1 < FIRST_BLOCK_A {
        return Err(length_differs(usize::from(length), rest.len()));
    }
    match format {
        FrameFormat::A => {
            let (first, others) = telegram.split_at_checked(FIRST_BLOCK_A).unwrap_or((telegram, &[]));
            for block in std::iter::once(first).chain(others.chunks(BLOCK_A)) {
                append_with_crc(block, frame);
            }
        }
        FrameFormat::B => {
            let crcs = if telegram.len() <= FIRST_PART_B { 1 } else { 2 };
            let total = u8::try_from(rest.len() + crcs * CRC_LENGTH)
                .map_err(|_| DecodeError::new(0, "at most 251 bytes after L for format B", rest.len().to_string()))?;
            let with_length = std::iter::once(total).chain(rest.iter().copied()).collect::<Vec<_>>();
            for part in with_length.chunks(FIRST_PART_B) {
                append_with_crc(part, frame);
            }
        }
    }
    Ok(())
}

fn append_with_crc(block: &[u8], frame: &mut Vec<u8>) {
    frame.extend_from_slice(block);
    frame.extend_from_slice(&CRC.checksum(block).to_be_bytes());
}

fn decode_a(frame: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let &length = frame.first().ok_or_else(|| DecodeError::new(0, "an L field", "nothing"))?;
    if self::length(FrameFormat::A, length) != Some(frame.len()) {
        return Err(length_differs(usize::from(length), frame.len()));
    }
    let mut telegram = Vec::with_capacity(frame.len());
    let (first, others) = frame.split_at_checked(FIRST_BLOCK_A + CRC_LENGTH).unwrap_or((frame, &[]));
    for (number, block) in std::iter::once(first).chain(others.chunks(BLOCK_A + CRC_LENGTH)).enumerate() {
        let offset = telegram.len() + number * CRC_LENGTH;
        telegram.extend_from_slice(checked(block, offset)?);
    }
    Ok(telegram)
}

fn decode_b(frame: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let &length = frame.first().ok_or_else(|| DecodeError::new(0, "an L field", "nothing"))?;
    let smallest = FIRST_BLOCK_A + CRC_LENGTH;
    // A second part of nothing but its CRC does not exist.
    let impossible = FIRST_PART_B + CRC_LENGTH + 1..=FIRST_PART_B + 2 * CRC_LENGTH;
    if frame.len() != usize::from(length) + 1 || frame.len() < smallest || impossible.contains(&frame.len()) {
        return Err(length_differs(usize::from(length), frame.len()));
    }
    let mut telegram = Vec::with_capacity(frame.len());
    for (number, part) in frame.chunks(FIRST_PART_B + CRC_LENGTH).enumerate() {
        telegram.extend_from_slice(checked(part, number * (FIRST_PART_B + CRC_LENGTH))?);
    }
    if let Some(first) = telegram.first_mut() {
        // L of the normal form counts no CRCs; the checks above bound it.
        let crcs = if frame.len() > FIRST_PART_B + CRC_LENGTH { 4 } else { 2 };
        *first = length.saturating_sub(crcs);
    }
    Ok(telegram)
}

/// Splits the CRC off a block that starts at `offset` of its frame.
fn checked(block: &[u8], offset: usize) -> Result<&[u8], DecodeError> {
    match block.split_last_chunk::<CRC_LENGTH>() {
        Some((data, crc)) if CRC.checksum(data) == u16::from_be_bytes(*crc) => Ok(data),
        Some((data, [high, low])) => {
            let found = format!("{high:02x}{low:02x} where {:04x} belongs", CRC.checksum(data));
            Err(DecodeError::new(offset + data.len(), "the CRC of the block before it", found))
        }
        None => Err(DecodeError::new(offset, "a block with its CRC", format!("{} byte", block.len()))),
    }
}

fn length_differs(length: usize, found: usize) -> DecodeError {
    DecodeError::new(0, "an L field that matches the length", format!("L = {length} in {found} bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A telegram in the normal form with `length` bytes after L.
    fn telegram(length: u8) -> Vec<u8> {
        std::iter::once(length).chain((0..length).map(|n| n.wrapping_mul(37))).collect()
    }

    fn framed(format: FrameFormat, telegram: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut frame = Vec::new();
        encode(format, telegram, &mut frame).map(|()| frame)
    }

    #[test]
    fn the_crc_is_the_one_of_the_standard() {
        assert_eq!(CRC.checksum(b"123456789"), 0xC2B7);
    }

    #[test]
    fn format_a_puts_a_crc_after_10_and_then_each_16_bytes() {
        for (length, total) in [(9, 12), (10, 15), (25, 30), (26, 33), (255, 290)] {
            assert_eq!(framed(FrameFormat::A, &telegram(length)).unwrap().len(), total, "L = {length}");
        }
        let frame = framed(FrameFormat::A, &telegram(30)).unwrap();
        assert_eq!(frame[10..12], CRC.checksum(&frame[..10]).to_be_bytes());
        assert_eq!(frame[28..30], CRC.checksum(&frame[12..28]).to_be_bytes());
    }

    #[test]
    fn format_b_has_its_first_crc_at_offset_126_at_the_latest() {
        let short = framed(FrameFormat::B, &telegram(125)).unwrap();
        assert_eq!((short.len(), short[0]), (128, 127));
        let long = framed(FrameFormat::B, &telegram(126)).unwrap();
        assert_eq!((long.len(), long[0]), (131, 130));
        assert_eq!(long[126..128], CRC.checksum(&long[..126]).to_be_bytes());
        assert_eq!(long[129..], CRC.checksum(&long[128..129]).to_be_bytes());
        assert_eq!(framed(FrameFormat::B, &telegram(251)).unwrap()[0], 255);
        assert!(framed(FrameFormat::B, &telegram(252)).is_err());
    }

    #[test]
    fn every_length_and_every_flipped_bit() {
        for format in [FrameFormat::A, FrameFormat::B] {
            for bytes in [9, 10, 24, 25, 26, 124, 125, 126, 127, 200, 251] {
                let telegram = telegram(bytes);
                let mut frame = framed(format, &telegram).unwrap();
                assert_eq!(length(format, frame[0]), Some(frame.len()));
                assert_eq!(decode(format, &frame).unwrap(), telegram);
                for bit in 0..frame.len() * 8 {
                    frame[bit / 8] ^= 1 << (bit % 8);
                    assert!(decode(format, &frame).is_err(), "{format:?} L = {bytes} bit {bit}");
                    frame[bit / 8] ^= 1 << (bit % 8);
                }
            }
        }
    }

    #[test]
    fn an_error_names_the_place_of_the_wrong_crc() {
        let mut frame = framed(FrameFormat::A, &telegram(60)).unwrap();
        frame[33] ^= 1;
        assert_eq!(decode(FrameFormat::A, &frame).unwrap_err().offset, 46);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for format in [FrameFormat::A, FrameFormat::B] {
                if let Ok(telegram) = decode(format, &bytes) {
                    prop_assert_eq!(framed(format, &telegram).unwrap(), bytes.clone());
                }
                let _ = framed(format, &bytes);
            }
        }

        #[test]
        fn what_is_framed_comes_back(body in proptest::collection::vec(any::<u8>(), 9..252)) {
            let telegram: Vec<u8> = std::iter::once(u8::try_from(body.len()).unwrap()).chain(body).collect();
            for format in [FrameFormat::A, FrameFormat::B] {
                prop_assert_eq!(decode(format, &framed(format, &telegram).unwrap()).unwrap(), telegram.clone());
            }
        }
    }
}
