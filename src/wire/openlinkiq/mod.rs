//! OpenlinkIQ's frame on the air: a header code, a turbo code and a CRC-32 around an MBAL frame.
//!
//! After the sync word, most significant bit first: 12 bytes of header, the block
//! (the MBAL frame and its CRC-32) as it is, then parity. [`decode`] believes a block whose CRC-32 and MBAL CRC-16 hold and nothing
//! else; only when they do not hold as received, the turbo decoder runs, for a bounded time. [`encode`]
//! goes the other way.

mod constituent;
mod decoder;
mod encoder;
mod header;
mod interleaver;
mod turbo;

use crc::{Algorithm, Crc};

use self::header::Header;
use super::{DecodeError, mbal};

/// The longest MBAL frame.
pub const LONGEST_MBAL: usize = mbal::LONGEST;
/// The shortest MBAL frame.
pub const SHORTEST_MBAL: usize = mbal::HEADER;
/// The longest frame: the header, and three times the longest block.
pub const LONGEST: usize = header::LENGTH + 3 * (LONGEST_MBAL + CRC_LENGTH);

const CRC_LENGTH: usize = 4;
const BITS_OF_CRC: usize = 8 * CRC_LENGTH;
const CRC: Crc<u32> = Crc::<u32>::new(&Algorithm {
    width: 32,
    poly: 0xF4AC_FB13,
    init: 0,
    refin: false,
    refout: false,
    xorout: 0,
    check: 0x6C9F_84A8,
    residue: 0,
});

/// How much parity is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rate {
    /// One bit of parity for each bit.
    Half,
    /// Two bits of parity for each bit.
    Third,
}

impl Rate {
    /// The rate as people write it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Half => "1/2",
            Self::Third => "1/3",
        }
    }

    const fn parity(self, block: usize) -> usize {
        match self {
            Self::Half => block,
            Self::Third => 2 * block,
        }
    }

    /// The likelihood ratio of a hard bit, in 1/16 neper: at the wrong bits that the rate is made for, 8 and 14 %.
    const fn ratio(self) -> i8 {
        match self {
            Self::Half => 42,
            Self::Third => 31,
        }
    }
}

/// A frame that was received whole, or mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The rate it was sent with.
    pub rate: Rate,
    /// The MBAL frame.
    pub mbal: Vec<u8>,
    /// Wrong bits among the 82 of the header's code.
    pub header_corrected: u16,
    /// Wrong bits in the MBAL frame and its CRC-32 as they were received.
    pub block_corrected: u16,
    /// How often the turbo decoder ran over the block; 0 when the block came whole.
    pub iterations: u8,
}

impl Frame {
    /// Everything that was mended, in bits: `noofcorrectedbits`.
    pub const fn corrected_bits(&self) -> u16 {
        self.header_corrected.saturating_add(self.block_corrected)
    }
}

/// The bytes a frame has on the air after the sync word.
pub const fn length_on_air(mbal: usize, rate: Rate) -> usize {
    let block = mbal + CRC_LENGTH;
    header::LENGTH + block + rate.parity(block)
}

/// Reads a frame from the bytes after the sync word. More bytes than the frame has are noise after its end
/// and are passed over; of the parity some may be missing.
///
/// # Errors
/// When there are not even a header and a block, the header is like none, or the errors are more than the code mends.
pub fn decode(bytes: &[u8]) -> Result<Frame, DecodeError> {
    decode_with(bytes.get(..LONGEST).unwrap_or(bytes), None)
}

/// Reads a frame from what a receiver thinks of each bit after the sync word: ratios of likelihood in 1/16 neper,
/// positive for 0.
///
/// # Errors
/// As [`decode`].
pub fn decode_soft(ratios: &[i8]) -> Result<Frame, DecodeError> {
    let ratios = ratios.get(..8 * LONGEST).unwrap_or(ratios);
    let hard: Vec<u8> = ratios.as_chunks::<8>().0.iter().map(byte).collect();
    decode_with(&hard, Some(ratios))
}

fn byte(ratios: &[i8; 8]) -> u8 {
    ratios.iter().fold(0, |byte, ratio| byte << 1 | u8::from(*ratio < 0))
}

/// Whether reading a frame takes the turbo decoder, and with it a thousand times as long: its header is one, and its
/// block did not come whole.
pub fn is_costly(bytes: &[u8]) -> bool {
    let bytes = bytes.get(..LONGEST).unwrap_or(bytes);
    begin(bytes, None).is_ok_and(|(header, _, received)| !sum_fits(header, received))
}

/// The nearest header, the wrong bits in it, and the block as received.
fn begin<'a>(hard: &'a [u8], soft: Option<&[i8]>) -> Result<(Header, u16, &'a [u8]), DecodeError> {
    let length = || DecodeError::new(0, "a header and a block: 28 bytes at least", format!("{} bytes", hard.len()));
    let (head, rest) = hard.split_first_chunk::<{ header::LENGTH }>().ok_or_else(length)?;
    let longest = rest.len().checked_sub(CRC_LENGTH).filter(|n| *n >= SHORTEST_MBAL).ok_or_else(length)?;
    let word = header::received_word(*head);
    let doubt = |place: u32| {
        let at = header::WORD_AT + place as usize;
        soft.and_then(|all| all.get(at)).map_or(1, |ratio| u32::from(ratio.unsigned_abs()))
    };
    let (header, corrected) = header::nearest(word, longest, doubt)
        .ok_or_else(|| DecodeError::new(0, "a header of OpenlinkIQ", format!("bits {word:021x} that are near none")))?;
    let received = rest.get(..usize::from(header.length) + CRC_LENGTH).ok_or_else(length)?;
    Ok((header, corrected, received))
}

fn decode_with(hard: &[u8], soft: Option<&[i8]>) -> Result<Frame, DecodeError> {
    let (header, header_corrected, received) = begin(hard, soft)?;
    if sum_fits(header, received) {
        let (sent, _) = received.split_at(usize::from(header.length));
        // The CRC-32 holds: this is what was sent, and what was sent is no MBAL frame.
        mbal::decode(sent).map_err(|fault| DecodeError { offset: header::LENGTH + fault.offset, ..fault })?;
        return Ok(Frame {
            rate: header.rate,
            mbal: sent.to_vec(),
            header_corrected,
            block_corrected: 0,
            iterations: 0,
        });
    }
    let heard = heard(header, hard, soft);
    let believed = |block: &[u8]| {
        let (mbal, _) = block.split_at(usize::from(header.length).min(block.len()));
        sum_fits(header, block) && mbal::decode(mbal).is_ok()
    };
    let (mut block, iterations) = decoder::decode(&heard, believed).ok_or_else(|| {
        let found = format!("a block of {} bytes with more wrong bits than the code mends", received.len());
        DecodeError::new(header::LENGTH, "a block with its CRC-32", found)
    })?;
    let wrong: u32 = block.iter().zip(received).map(|(sent, heard)| (sent ^ heard).count_ones()).sum();
    block.truncate(usize::from(header.length));
    Ok(Frame { rate: header.rate, mbal: block, header_corrected, block_corrected: wrong as u16, iterations })
}

/// The CRC-32 goes over the length and the MBAL frame.
fn crc(length: u8, mbal: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(&[length]);
    digest.update(mbal);
    digest.finalize()
}

fn sum_fits(header: Header, block: &[u8]) -> bool {
    block
        .split_last_chunk::<CRC_LENGTH>()
        .is_some_and(|(mbal, told)| crc(header.length, mbal) == u32::from_be_bytes(*told))
}

/// The ratios of all bits of a frame; what was not received is unknown.
fn heard(header: Header, hard: &[u8], soft: Option<&[i8]>) -> decoder::Heard {
    let sure = i16::from(header.rate.ratio());
    let ratio = |at: usize| match soft {
        Some(ratios) => ratios.get(at).copied().map_or(0, i16::from),
        None => hard.get(at / 8).map_or(0, |byte| if byte << (at % 8) & 0x80 == 0 { sure } else { -sure }),
    };
    let tails = header::WORD_AT + header::WORD_BITS;
    let block = 8 * header::LENGTH;
    let bits = 8 * (usize::from(header.length) + CRC_LENGTH);
    decoder::Heard {
        bits: (block..block + bits).map(ratio).collect(),
        parity: (block + bits..block + bits + header.rate.parity(bits)).map(ratio).collect(),
        tails: std::array::from_fn(|n| ratio(tails + n)),
        rate: header.rate,
    }
}

/// Appends the frame of an MBAL frame as it goes over the air after the sync word.
///
/// # Errors
/// When that is no MBAL frame.
pub fn encode(mbal: &[u8], rate: Rate, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    mbal::decode(mbal)?;
    let unfit = || DecodeError::new(0, "an MBAL frame of 12 to 251 bytes", format!("{} bytes", mbal.len()));
    let length = u8::try_from(mbal.len()).map_err(|_| unfit())?;
    let block = [mbal, &crc(length, mbal).to_be_bytes()].concat();
    let coded = turbo::code(&block, rate).ok_or_else(unfit)?;
    let tails =
        coded.tails.iter().fold(0, |bits, tail| bits << 6 | u16::from(tail.systematic) << 3 | u16::from(tail.parity));
    out.extend(Header { rate, length }.to_bytes(tails));
    out.extend(block);
    out.extend(coded.parity.as_chunks::<8>().0.iter().map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | bit)));
    Ok(())
}

#[cfg(test)]
mod tests;
