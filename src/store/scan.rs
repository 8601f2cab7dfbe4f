//! Finds the blocks in the raw bytes of a generation's file.
//!
//! Every value stands in the file in one stretch and tells itself what it is. So reading follows
//! no structure that could be damaged, writes nothing, and what is damaged costs only itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::block::{self, MAGIC, MAX_VALUE};
use crate::model::Sequence;

const WINDOW: usize = 256 * 1024;
const SECTOR: usize = 4096;
const EIO: i32 = 5;

/// Where one value stands in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) length: usize,
}

/// What is known of a block without its frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The number of its first frame.
    pub(super) first: Sequence,
    /// The number of its last frame.
    pub(super) last: Sequence,
    /// How many frames it holds.
    pub(super) count: u32,
    /// Where its values stand.
    pub(super) places: Vec<Place>,
}

impl Entry {
    /// The bytes of its values.
    pub(super) fn bytes(&self) -> u64 {
        self.places.iter().map(|place| place.length as u64).sum()
    }
}

/// Returns the blocks of `file` whose values carry `nonce`, ascending. Incomplete ones are left out.
pub(super) fn blocks(file: &File, nonce: u64) -> io::Result<Vec<Entry>> {
    let mut found: BTreeMap<Sequence, (Sequence, u32, Vec<Option<Place>>)> = BTreeMap::new();
    let mut buffer = vec![0; WINDOW + MAX_VALUE];
    let mut base = 0u64;
    loop {
        let filled = fill(file, &mut buffer, base)?;
        let window = buffer.get(..filled).unwrap_or_default();
        let mut at = 0;
        let last = filled < buffer.len();
        // What starts behind the window proper is whole in the next one.
        let end = if last { filled } else { WINDOW };
        while at < end {
            let rest = window.get(at..).unwrap_or_default();
            let Some(skip) = rest.windows(MAGIC.len()).position(|w| w == MAGIC) else { break };
            at += skip;
            if at >= end {
                break;
            }
            let Some(value) = block::decode_value(nonce, rest.get(skip..).unwrap_or_default()) else {
                at += 1;
                continue;
            };
            let length = block::value_length(&value);
            let (last, count) = match value.pieces {
                1 => extent(&value),
                _ => (value.first, 1),
            };
            let entry = found.entry(value.first).or_insert((last, count, vec![None; usize::from(value.pieces)]));
            if let Some(place) = entry.2.get_mut(usize::from(value.piece)) {
                *place = Some(Place { offset: base + at as u64, length });
            }
            at += length;
        }
        if last {
            break;
        }
        // A value may reach beyond the window: go on behind it.
        base += at.max(WINDOW) as u64;
    }
    let whole = found.into_iter().filter_map(|(first, (last, count, places))| {
        let places = places.into_iter().collect::<Option<Vec<_>>>()?;
        (count > 0).then_some(Entry { first, last, count, places })
    });
    Ok(whole.collect())
}

/// Reads the joined payload of a block; `None` when it is no longer as it was when found.
pub(super) fn body(file: &File, nonce: u64, entry: &Entry) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    for place in &entry.places {
        let mut bytes = vec![0; place.length];
        file.read_exact_at(&mut bytes, place.offset)?;
        match block::decode_value(nonce, &bytes) {
            Some(value) if value.first == entry.first => body.extend_from_slice(value.payload),
            _ => return Ok(None),
        }
    }
    Ok(Some(body))
}

/// The last number and the number of frames of a block of one piece; no frames when it is none.
fn extent(value: &block::Value<'_>) -> (Sequence, u32) {
    let decoded = block::decode_body(value.first, value.payload);
    decoded.map_or((value.first, 0), |b| {
        (b.frames.last().map_or(value.first, |f| f.0), u32::try_from(b.frames.len()).unwrap_or(0))
    })
}

fn fill(file: &File, buffer: &mut [u8], base: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|r| !r.is_empty()) {
        match file.read_at(rest, base + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // A dead sector costs itself: the search goes on behind it.
            Err(e) if e.raw_os_error() == Some(EIO) => {
                // Without what the buffer held before: that stood elsewhere.
                let skipped = rest.len().min(SECTOR);
                rest.iter_mut().take(skipped).for_each(|b| *b = 0);
                filled += skipped;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn file_of(parts: &[Vec<u8>]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        for part in parts {
            file.write_all(part).unwrap();
        }
        file
    }

    fn firsts(file: &File) -> Vec<Sequence> {
        blocks(file, 1).unwrap().iter().map(|e| e.first).collect()
    }

    #[test]
    fn a_damaged_block_costs_only_itself() {
        let mut values: Vec<_> =
            (1..=9u64).map(|s| block::encode(1, &[(s * 10, &[7; 900])]).unwrap().remove(0)).collect();
        values[4][300] ^= 1;
        assert_eq!(firsts(&file_of(&values)), [10, 20, 30, 40, 60, 70, 80, 90]);
    }

    #[test]
    fn a_forged_block_inside_a_frame_is_not_taken_for_one() {
        let forged = block::encode(1, &[(5, b"forged")]).unwrap().remove(0);
        let real = block::encode(1, &[(6, &forged)]).unwrap();
        assert_eq!(firsts(&file_of(&real)), [6], "a whole value is skipped, whatever it carries");
        let stranger = block::encode(2, &[(5, b"forged")]).unwrap();
        assert_eq!(firsts(&file_of(&stranger)), [0u64; 0], "without the nonce no block is believed");
    }

    #[test]
    fn a_block_with_a_missing_piece_is_left_out() {
        let mut pieces = block::encode(1, &[(5, &[3; 20_000])]).unwrap();
        let whole = file_of(&pieces);
        let entry = blocks(&whole, 1).unwrap().remove(0);
        assert_eq!((entry.first, entry.last, entry.count), (5, 5, 1));
        let body = body(&whole, 1, &entry).unwrap().unwrap();
        assert_eq!(block::decode_body(5, &body).unwrap().frames[0].1.len(), 20_000);
        pieces.remove(1);
        assert_eq!(firsts(&file_of(&pieces)), [0u64; 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_block_is_found_wherever_it_stands(gaps in proptest::collection::vec(0usize..60_000, 1..30)) {
            let mut parts = Vec::new();
            for (gap, s) in gaps.iter().zip(1u64..) {
                parts.push(b"wEBwwEB1x".iter().copied().cycle().take(*gap).collect());
                parts.push(block::encode(1, &[(s, &vec![b'w'; gap % 6000])]).unwrap().remove(0));
            }
            prop_assert_eq!(firsts(&file_of(&parts)), (1..=gaps.len() as u64).collect::<Vec<_>>());
        }
    }
}
