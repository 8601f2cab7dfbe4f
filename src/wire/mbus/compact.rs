//! Compact frames: values without the DIFs and VIFs that say what they are (EN 13757-3, annex G).
//!
//! A meter sends a full frame now and then, and in between only its data, with the signature of the
//! format (the CRC of all DIFs and VIFs) and the CRC of the full frame. [`Formats`] remembers the
//! formats of full frames and format frames; a compact frame is believed only when what it fills into
//! its format has the CRC that it carries. Invariant: at most [`FORMATS`] formats are kept, of at most
//! 255 bytes, and the one unused for longest makes room.

use crc::{CRC_16_EN_13757, Crc};

use super::record;

const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_EN_13757);

/// So many formats are kept.
pub const FORMATS: usize = 128;
const LONGEST: usize = 255;

/// Formats by signature, the one unused for longest first.
///
/// Sixteen bits do not tell all formats apart, so they are kept for each kind of device by a number
/// that the caller gives; meters of one kind share their formats.
#[derive(Debug, Clone, Default)]
pub struct Formats {
    known: Vec<Format>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Format {
    kind: u64,
    signature: u16,
    /// All DIFs, DIFEs, VIFs and VIFEs.
    heads: Vec<u8>,
}

/// Why a compact frame can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CompactFault {
    /// Not even signature and CRC are there.
    #[error("the frame ends before the signature of its format and its CRC")]
    Short,
    /// No full frame of this format was heard yet.
    #[error("the format {0:04x} is not known yet; the next full frame of such a meter tells it")]
    Unknown(u16),
    /// The data do not fill the format, or the CRC is another.
    #[error("the data do not fit the format {0:04x} that is known of such meters")]
    Differs(u16),
}

impl Formats {
    /// Learns the format of a full frame; tells whether it has one.
    pub fn learn(&mut self, kind: u64, records: &[u8]) -> bool {
        let heads = heads(records);
        let Some(heads) = heads.filter(|heads| !heads.is_empty()) else { return false };
        self.keep(kind, CRC.checksum(&heads), heads);
        true
    }

    /// Learns the format of a format frame: its length, its signature, its DIFs and VIFs. Tells whether
    /// the signature is the format's.
    pub fn learn_frame(&mut self, kind: u64, bytes: &[u8]) -> bool {
        let [_length, low, high, heads @ ..] = bytes else { return false };
        let signature = u16::from_le_bytes([*low, *high]);
        // Idle fillers of an encrypted frame may stand around it.
        let ends = (0..=heads.len()).rev().filter(|end| heads.get(*end..).is_some_and(filler_only));
        let sound = ends.filter_map(|end| heads.get(..end)).find(|heads| CRC.checksum(heads) == signature);
        match sound {
            Some(heads) if !heads.is_empty() => {
                self.keep(kind, signature, heads.to_vec());
                true
            }
            _ => false,
        }
    }

    /// Makes the full frame of a compact one: signature, CRC of the full frame, data.
    ///
    /// # Errors
    /// When the format is not known, or the data are not of it.
    pub fn fill(&mut self, kind: u64, bytes: &[u8]) -> Result<Vec<u8>, CompactFault> {
        let [s0, s1, c0, c1, data @ ..] = bytes else { return Err(CompactFault::Short) };
        let (signature, crc) = (u16::from_le_bytes([*s0, *s1]), u16::from_le_bytes([*c0, *c1]));
        let at = self.known.iter().rposition(|format| format.kind == kind && format.signature == signature);
        let format = self.known.remove(at.ok_or(CompactFault::Unknown(signature))?);
        let full = filled(&format.heads, data).filter(|full| CRC.checksum(full) == crc);
        self.known.push(format);
        full.ok_or(CompactFault::Differs(signature))
    }

    fn keep(&mut self, kind: u64, signature: u16, heads: Vec<u8>) {
        if heads.len() > LONGEST {
            return;
        }
        let same = |format: &Format| format.kind == kind && format.signature == signature;
        if let Some(newest) = self.known.last()
            && same(newest)
            && newest.heads == heads
        {
            return;
        }
        self.known.retain(|format| !same(format));
        if self.known.len() >= FORMATS {
            self.known.remove(0);
        }
        self.known.push(Format { kind, signature, heads });
    }
}

fn filler_only(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0x2F)
}

/// The DIFs and VIFs of a full frame; `None` when a record is broken or manufacturer data follow.
fn heads(records: &[u8]) -> Option<Vec<u8>> {
    let mut heads = Vec::new();
    let mut rest = records;
    while let [dif, tail @ ..] = rest {
        if record::is_special(*dif) {
            if *dif & 0xEF == 0x0F {
                return None;
            }
            rest = tail;
            continue;
        }
        let (head, data) = record::lengths(rest, None)?;
        heads.extend_from_slice(rest.get(..head)?);
        rest = rest.get(head + data..)?;
    }
    Some(heads)
}

/// The full frame of a format with these data; `None` when there are too few or too many.
fn filled(heads: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let mut full = Vec::with_capacity(heads.len() + data.len());
    let (mut format, mut rest) = (heads, data);
    while !format.is_empty() {
        let (head, length) = record::lengths(format, Some(rest))?;
        full.extend_from_slice(format.get(..head)?);
        full.extend_from_slice(rest.get(..length)?);
        format = format.get(head..)?;
        rest = rest.get(length..)?;
    }
    filler_only(rest).then_some(full)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Volume, a text of variable length, a date, error flags; fillers between and behind.
    const FULL: &[u8] = &[
        0x04, 0x13, 1, 2, 3, 4, 0x2F, 0x0D, 0x78, 2, b'b', b'a', 0x42, 0x6C, 0x5F, 0x21, 0x02, 0xFD, 0x17, 0, 0, 0x2F,
    ];
    const BARE: &[u8] =
        &[0x04, 0x13, 1, 2, 3, 4, 0x0D, 0x78, 2, b'b', b'a', 0x42, 0x6C, 0x5F, 0x21, 0x02, 0xFD, 0x17, 0, 0];
    const HEADS: &[u8] = &[0x04, 0x13, 0x0D, 0x78, 0x42, 0x6C, 0x02, 0xFD, 0x17];

    fn compact(data: &[u8], crc: u16) -> Vec<u8> {
        [&CRC.checksum(HEADS).to_le_bytes()[..], &crc.to_le_bytes(), data].concat()
    }

    #[test]
    fn a_full_frame_teaches_the_format_that_a_compact_one_is_filled_into() {
        let mut formats = Formats::default();
        let data = [1, 2, 3, 4, 2, b'b', b'a', 0x5F, 0x21, 0, 0];
        let frame = compact(&data, CRC.checksum(BARE));
        assert_eq!(formats.fill(7, &frame), Err(CompactFault::Unknown(CRC.checksum(HEADS))));
        assert!(formats.learn(7, FULL));
        assert_eq!(formats.fill(7, &frame).as_deref(), Ok(BARE));
        assert_eq!(formats.fill(8, &frame), Err(CompactFault::Unknown(CRC.checksum(HEADS))), "another kind of device");
        let with_fillers = [&frame[..], &[0x2F; 5]].concat();
        assert_eq!(formats.fill(7, &with_fillers).as_deref(), Ok(BARE));
        assert_eq!(formats.fill(7, &frame[..frame.len() - 1]), Err(CompactFault::Differs(CRC.checksum(HEADS))));
        assert_eq!(formats.fill(7, &compact(&data, 1)), Err(CompactFault::Differs(CRC.checksum(HEADS))));
        assert_eq!(formats.fill(7, &frame[..3]), Err(CompactFault::Short));
    }

    #[test]
    fn a_format_frame_is_believed_only_with_its_own_signature() {
        let mut formats = Formats::default();
        let frame = [&[11][..], &CRC.checksum(HEADS).to_le_bytes(), HEADS, &[0x2F, 0x2F]].concat();
        assert!(formats.learn_frame(7, &frame));
        let data = [1, 2, 3, 4, 2, b'b', b'a', 0x5F, 0x21, 0, 0];
        assert!(formats.fill(7, &compact(&data, CRC.checksum(BARE))).is_ok());
        let mut other = frame;
        other[4] ^= 1;
        assert!(!formats.learn_frame(7, &other) && !formats.learn_frame(7, &[1, 2]));
    }

    #[test]
    fn the_format_unused_for_longest_makes_room() {
        let mut formats = Formats::default();
        formats.learn(0, FULL);
        let data = [1, 2, 3, 4, 2, b'b', b'a', 0x5F, 0x21, 0, 0];
        let frame = compact(&data, CRC.checksum(BARE));
        for kind in 1..1000 {
            formats.learn(kind, FULL);
            assert!(formats.fill(0, &frame).is_ok(), "used all the time");
        }
        assert_eq!(formats.known.len(), FORMATS);
        assert!(formats.fill(1, &frame).is_err() && formats.fill(999, &frame).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_learnt_or_not_and_filled_or_refused(
            full in prop::collection::vec(any::<u8>(), 0..80),
            data in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut formats = Formats::default();
            let learnt = formats.learn(1, &full);
            prop_assert_eq!(learnt, formats.known.len() == 1);
            formats.learn_frame(1, &full);
            let _ = formats.fill(1, &data);
            if learnt {
                let signature = formats.known[0].signature.to_le_bytes();
                let _ = formats.fill(1, &[&signature[..], &data].concat());
                prop_assert!(filled(&formats.known[0].heads, &data).is_none_or(|f| f.len() <= 255 + data.len()));
            }
        }
    }
}
