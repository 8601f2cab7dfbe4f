//! Blocks: a few frames packed into one value, self-describing so that they can be found again in
//! the raw bytes of a damaged file. docs/store.md shows the layout byte by byte.

use crc::{CRC_32_ISO_HDLC, Crc, Table};
use serde::{Deserialize, Serialize};

use crate::model::{Body, Frame, Lane, Sequence, Stamp, Timestamp};

/// How every value starts.
pub(super) const MAGIC: [u8; 4] = *b"wEB1";
/// Magic, CRC-32, payload length, first sequence, piece number, number of pieces.
pub(super) const HEADER: usize = 4 + 4 + 2 + 8 + 1 + 1;
/// The longest value: what is damaged costs no more.
pub(super) const MAX_VALUE: usize = 7_000;
const MAX_PAYLOAD: usize = MAX_VALUE - HEADER;
/// The most frames in one block; what is acknowledged of a block is a bitmap of 32 bits.
pub(super) const MAX_FRAMES: usize = 25;
/// A block takes no further frame beyond this size; a larger frame makes its own block.
const FULL: usize = 4_000;
/// The largest encoded frame.
pub(super) const MAX_FRAME: usize = 256 * 1024;
/// Most encoded frames are shorter.
const USUAL: usize = 512;
/// The version of the encoding of one frame.
const FRAME_VERSION: u8 = 2;
/// The one before: a plain time, no origin.
const FRAME_VERSION_1: u8 = 1;

static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

/// The frames of a block with their numbers, still encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// Number and encoded frame, ascending.
    pub(super) frames: Vec<(Sequence, Vec<u8>)>,
}

/// A frame inside a block's body: its distance from the block's first number, and its bytes.
#[derive(Serialize, Deserialize)]
struct Entry<'a>(u64, #[serde(borrow, with = "serde_bytes")] &'a [u8]);

/// One value as it stands in the file, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value<'a> {
    pub(super) first: Sequence,
    pub(super) piece: u8,
    pub(super) pieces: u8,
    pub(super) payload: &'a [u8],
}

/// CRC-32 (ISO-HDLC) of `parts` one after the other.
pub(super) fn checksum(parts: &[&[u8]]) -> u32 {
    let mut digest = CRC.digest();
    for part in parts {
        digest.update(part);
    }
    digest.finalize()
}

/// Encodes one frame: a version byte and the frame in postcard; `None` when that fails.
pub(super) fn encode_frame(frame: &Frame) -> Option<Vec<u8>> {
    let mut small = [0; USUAL];
    match postcard::to_slice(&(FRAME_VERSION, frame), &mut small) {
        // Once at its right size, instead of a vector that grows.
        Ok(bytes) => Some(bytes.to_vec()),
        Err(_too_long) => postcard::to_stdvec(&(FRAME_VERSION, frame)).ok(),
    }
}

/// A frame as version 1 wrote it.
#[derive(Deserialize)]
struct FrameOfVersion1 {
    time: Timestamp,
    lane: Lane,
    body: Body,
}

/// Decodes one frame; `None` when it is of another version or damaged.
pub(super) fn decode_frame(bytes: &[u8]) -> Option<Frame> {
    match bytes.split_first()? {
        (&FRAME_VERSION, rest) => postcard::from_bytes(rest).ok(),
        (&FRAME_VERSION_1, rest) => {
            let FrameOfVersion1 { time, lane, body } = postcard::from_bytes(rest).ok()?;
            Some(Frame { time: Stamp::synced(time), lane, body, origin: None })
        }
        _ => None,
    }
}

/// How many of the first of `sizes` belong into one block; at least 1 when there is any.
pub(super) fn take(sizes: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0usize;
    let mut count = 0;
    for size in sizes {
        bytes = bytes.saturating_add(size);
        if count > 0 && (bytes > FULL || count == MAX_FRAMES) {
            break;
        }
        count += 1;
    }
    count
}

/// Encodes a block as one value, or for a large frame as several pieces in their order.
/// `None` when `frames` is empty or too large.
pub(super) fn encode(nonce: u64, frames: &[(Sequence, &[u8])]) -> Option<Vec<Vec<u8>>> {
    let first = frames.first()?.0;
    let entries: Vec<_> = frames.iter().map(|(s, bytes)| Entry(s.saturating_sub(first), bytes)).collect();
    let body = postcard::to_stdvec(&entries).ok()?;
    let pieces = u8::try_from(body.len().div_ceil(MAX_PAYLOAD)).ok()?;
    let values = body.chunks(MAX_PAYLOAD).zip(0u8..).map(|(payload, piece)| {
        let length = u16::try_from(payload.len()).ok()?;
        let mut tail = Vec::with_capacity(HEADER + payload.len());
        tail.extend_from_slice(&length.to_le_bytes());
        tail.extend_from_slice(&first.to_le_bytes());
        tail.extend_from_slice(&[piece, pieces]);
        tail.extend_from_slice(payload);
        let crc = checksum(&[&nonce.to_le_bytes(), &tail]);
        Some([&MAGIC[..], &crc.to_le_bytes(), &tail].concat())
    });
    values.collect()
}

/// Reads the value that `bytes` starts with; `None` when there is none that its CRC confirms.
pub(super) fn decode_value(nonce: u64, bytes: &[u8]) -> Option<Value<'_>> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (crc, tail) = rest.split_first_chunk::<4>()?;
    let (length, after) = tail.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length));
    let (first, after) = after.split_first_chunk::<8>()?;
    let (&[piece, pieces], after) = after.split_first_chunk::<2>()?;
    if length > MAX_PAYLOAD || piece >= pieces {
        return None;
    }
    let payload = after.get(..length)?;
    let covered = tail.get(..HEADER - 8 + length)?;
    let good = checksum(&[&nonce.to_le_bytes(), covered]) == u32::from_le_bytes(*crc);
    good.then_some(Value { first: Sequence::from_le_bytes(*first), piece, pieces, payload })
}

/// The length of the value that `value` was read from.
pub(super) const fn value_length(value: &Value<'_>) -> usize {
    HEADER + value.payload.len()
}

/// Decodes the joined payloads of a block; `None` when they are no block.
pub(super) fn decode_body(first: Sequence, body: &[u8]) -> Option<Block> {
    let entries: Vec<Entry<'_>> = postcard::from_bytes(body).ok()?;
    let mut frames: Vec<(Sequence, Vec<u8>)> = Vec::with_capacity(entries.len().min(MAX_FRAMES));
    for Entry(delta, bytes) in entries {
        let sequence = first.checked_add(delta)?;
        if frames.len() == MAX_FRAMES || frames.last().is_some_and(|(last, _)| *last >= sequence) {
            return None;
        }
        frames.push((sequence, bytes.to_vec()));
    }
    (frames.first().is_some_and(|f| f.0 == first)).then_some(Block { frames })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::model::{BootId, ClockState, Origin, Reading, Rssi, Telegram, TelegramKind};

    fn joined(nonce: u64, values: &[Vec<u8>]) -> (Sequence, Vec<u8>) {
        let read: Vec<_> = values.iter().map(|v| decode_value(nonce, v).unwrap()).collect();
        (read[0].first, read.iter().flat_map(|v| v.payload.to_vec()).collect())
    }

    proptest! {
        #[test]
        fn a_block_reads_back_as_it_was_written(
            nonce in any::<u64>(), first in 1u64..u64::MAX / 2,
            frames in vec((1u64..100_000, vec(any::<u8>(), 0..3000)), 1..25),
        ) {
            let mut sequence = first;
            let frames: Vec<_> = frames.into_iter().map(|(step, b)| { let s = sequence; sequence += step; (s, b) }).collect();
            let borrowed: Vec<_> = frames.iter().map(|(s, b)| (*s, b.as_slice())).collect();
            let values = encode(nonce, &borrowed).unwrap();
            prop_assert!(values.iter().all(|v| v.len() <= MAX_VALUE));
            let (start, body) = joined(nonce, &values);
            prop_assert_eq!(decode_body(start, &body).unwrap(), Block { frames });
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = decode_frame(&bytes);
            let _ = decode_body(7, &bytes);
            let magic = [&MAGIC[..], &bytes].concat();
            prop_assert!(decode_value(1, &magic).is_none());
        }

        #[test]
        fn one_changed_bit_or_another_generation_is_noticed(at in 0usize..300, bit in 0u8..8) {
            let frame = vec![9u8; 280];
            let mut value = encode(5, &[(1, &frame)]).unwrap().remove(0);
            prop_assert!(decode_value(6, &value).is_none());
            let at = at % value.len();
            value[at] ^= 1 << bit;
            prop_assert!(decode_value(5, &value).is_none());
        }
    }

    #[test]
    fn a_frame_that_version_1_wrote_is_still_read() {
        // postcard: 2021-11-13T21:54:01Z as a zigzag varint, ordinary, telegram, OpenlinkIQ, 3 bytes, -87 dBm, no corrected bits.
        let written = [1, 0xd0, 0x92, 0xd8, 0xb4, 0xa3, 0x5f, 1, 0, 0, 3, 1, 2, 255, 1, 0, 0xad, 1, 0];
        let body = Body::Telegram(Telegram {
            kind: TelegramKind::OpenlinkIq,
            bytes: vec![1, 2, 255],
            rssi: Some(Rssi::Dbm(-87)),
            corrected_bits: 0,
        });
        let time = Stamp::synced(Timestamp::parse("2021-11-13T21:54:01Z").unwrap());
        assert_eq!(decode_frame(&written), Some(Frame { time, lane: Lane::Ordinary, body, origin: None }));
        assert_eq!(decode_frame(&[&[3], &written[1..]].concat()), None, "a later version is not guessed at");
    }

    #[test]
    fn a_frame_keeps_its_stamp_and_origin() {
        let time = Stamp {
            wall: Timestamp::from_millis(-5),
            boot: BootId::new([1, 2, 3, 4, 5, 6, 7, 255]),
            uptime: u64::MAX,
            clock: ClockState::Unsynced,
        };
        let body = Body::Reading(Reading { meter: "m".into(), values: vec![] });
        let origin = Some(Origin { gateway: "gw2".into(), sequence: 77 });
        let frame = Frame { time, lane: Lane::Priority, body, origin };
        assert_eq!(decode_frame(&encode_frame(&frame).unwrap()), Some(frame));
    }

    #[test]
    fn the_largest_frame_becomes_pieces_and_comes_back() {
        let frame = vec![1u8; MAX_FRAME];
        let values = encode(1, &[(3, &frame)]).unwrap();
        assert_eq!(values.len(), 38);
        let (start, body) = joined(1, &values);
        assert_eq!(decode_body(start, &body).unwrap().frames, [(3, frame)]);
    }

    #[test]
    fn a_block_takes_25_small_frames_or_4_kilobytes_or_one_larger_frame() {
        assert_eq!(take([100; 60].into_iter()), 25);
        assert_eq!(take([777; 60].into_iter()), 5);
        assert_eq!(take([9000, 10].into_iter()), 1);
        assert_eq!(take([10, 9000].into_iter()), 1);
        assert_eq!(take([].into_iter()), 0);
    }
}
