//! What was acknowledged, the counters, the ledger and the numbers given out: one file of two slots.
//!
//! The slots are written in turn and in place, as many pages as are used, so that a power cut can
//! tear only the newer one; the file never grows, so a full disk can't stop it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Status;
use super::block::checksum;
use super::ledger::Ledger;
use crate::model::{Sequence, Timestamp};
use crate::os::file::{read_small, sync_directory};

const MAGIC: [u8; 4] = *b"wEC2";
const SLOT: usize = 32 * 1024;
const PAGE: usize = 4096;
const HEADER: usize = 4 + 4 + 2;
/// Partly acknowledged blocks that surely fit beside the largest ledger: 2 lanes x 300 x 15 bytes.
const MAX_PARTIAL: usize = 300;

/// Generations that were replaced by one with what was left of them; done when this is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Swap {
    /// The index of the lane.
    pub(super) lane: usize,
    /// The one that replaces them; 0: nothing was left.
    pub(super) nonce: u64,
    /// The name of the first one replaced.
    pub(super) first: Sequence,
    /// The last number of the last one replaced.
    pub(super) last: Sequence,
}

/// How far a lane has been acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LaneCursor {
    /// Every block that starts below this number is done.
    pub(super) low: Sequence,
    /// Blocks from there on of which frames are done: first number, bit per frame; ascending.
    pub(super) partial: Vec<(Sequence, u32)>,
}

impl LaneCursor {
    /// Drops the newest entries beyond what fits and returns how many acknowledgements that
    /// forgets; those frames would be sent again after a crash.
    pub(super) fn shorten(&mut self) -> u64 {
        let beyond = self.partial.split_off(self.partial.len().min(MAX_PARTIAL));
        beyond.iter().map(|(_, bits)| u64::from(bits.count_ones())).sum()
    }
}

/// The content of a slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// Counts the writes; the higher of two good slots is the newer.
    pub(super) serial: u64,
    /// Numbers up to this one may have been given out.
    pub(super) reserved: Sequence,
    /// See [`Status`].
    pub(super) acknowledged: u64,
    /// See [`Status`].
    pub(super) evicted: u64,
    /// See [`Status`].
    pub(super) damaged: u64,
    /// As of the write; counted anew when the store is opened.
    pub(super) cached: u64,
    /// As of the write.
    pub(super) cached_priority: u64,
    /// As of the write.
    pub(super) durable: Sequence,
    /// As of the write.
    pub(super) disk_bytes: u64,
    /// See [`Status`].
    pub(super) skipped: u64,
    /// Priority, ordinary.
    pub(super) lanes: [LaneCursor; 2],
    /// See [`Swap`].
    pub(super) swap: Option<Swap>,
    /// See [`Ledger`].
    pub(super) ledger: Ledger,
}

impl Cursor {
    /// The counters as of the write.
    pub(super) fn status(&self) -> Status {
        Status {
            received: self.acknowledged + self.evicted + self.cached,
            acknowledged: self.acknowledged,
            evicted: self.evicted,
            damaged: self.damaged,
            cached: self.cached,
            cached_priority: self.cached_priority,
            durable: self.durable,
            disk_bytes: self.disk_bytes,
            disk_error: None,
            skipped: self.skipped,
            manifests: self.ledger.manifests,
            closed_at: Timestamp::from_millis(self.ledger.since),
            evicted_by_meter: Arc::new(self.ledger.meters.clone()),
        }
    }

    fn encode(&self) -> io::Result<Vec<u8>> {
        let body = postcard::to_stdvec(self).map_err(io::Error::other)?;
        let length = u16::try_from(body.len()).ok().filter(|_| body.len() <= SLOT - HEADER);
        let length = length.ok_or_else(|| io::Error::other("the cursor does not fit its slot"))?.to_le_bytes();
        let mut slot = [&MAGIC[..], &checksum(&[&length, &body]).to_le_bytes(), &length, &body].concat();
        slot.resize(slot.len().next_multiple_of(PAGE), 0);
        Ok(slot)
    }

    fn decode(slot: &[u8]) -> Option<Self> {
        let (crc, rest) = slot.strip_prefix(&MAGIC)?.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let body = rest.get(..usize::from(u16::from_le_bytes(*length)))?;
        let good = checksum(&[length, body]) == u32::from_le_bytes(*crc);
        good.then(|| postcard::from_bytes(body).ok()).flatten()
    }
}

/// What a cursor file held.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// No file: a new store.
    Nothing,
    /// The newest good slot.
    Good(Box<Cursor>),
    /// A file without a good slot.
    Damaged,
}

/// Reads the cursor file without changing it.
pub(super) fn read(path: &Path) -> io::Result<Found> {
    let content = match read_small(path, 2 * SLOT as u64) {
        Ok(content) => content,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Ok(Found::Damaged),
        Err(e) => return Err(e),
    };
    let newest = content.chunks(SLOT).filter_map(Cursor::decode).max_by_key(|c| c.serial).map(Box::new);
    let untouched = content.iter().all(|b| *b == 0);
    Ok(newest.map_or(if untouched { Found::Nothing } else { Found::Damaged }, Found::Good))
}

/// The open cursor file.
#[derive(Debug)]
pub(super) struct CursorFile {
    file: File,
}

impl CursorFile {
    /// Opens or creates the file, with room for both slots.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if file.metadata()?.len() != 2 * SLOT as u64 {
            file.set_len(2 * SLOT as u64)?;
            let zeros = vec![0; SLOT];
            for slot in 0..2u64 {
                let mut old = vec![0; SLOT];
                file.read_exact_at(&mut old, slot * SLOT as u64)?;
                let keep = if Cursor::decode(&old).is_some() { &old } else { &zeros };
                file.write_all_at(keep, slot * SLOT as u64)?;
            }
            file.sync_all()?;
            sync_directory(path.parent().unwrap_or(Path::new(".")))?;
        }
        Ok(Self { file })
    }

    /// Writes the slot whose turn it is and waits until it is durable.
    pub(super) fn write(&self, cursor: &Cursor) -> io::Result<()> {
        self.file.write_all_at(&cursor.encode()?, (cursor.serial % 2) * SLOT as u64)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::ledger::{MAX_METERS, MAX_SPANS, count};
    use super::*;

    fn cursor(serial: u64) -> Cursor {
        let lane = LaneCursor { low: u64::MAX, partial: vec![(u64::MAX, u32::MAX); MAX_PARTIAL] };
        let n = u64::MAX;
        let mut ledger = Ledger { manifests: n, closed: n, previous: [255; 32], since: i64::MIN, ..Ledger::default() };
        for i in 0..2 * MAX_SPANS as u64 {
            ledger.evicted.add(n / 2 + i * 9, n / 2 + i * 9 + 3, 3);
            ledger.skipped.add(n / 2 + i * 9, n / 2 + i * 9 + 3, 3);
        }
        for i in 0..2 * MAX_METERS {
            count(&mut ledger.meters, &format!("{i:040}"), n / 1000);
        }
        Cursor {
            serial,
            reserved: n,
            acknowledged: n,
            evicted: n,
            damaged: n,
            cached: n,
            cached_priority: n,
            durable: n,
            disk_bytes: n,
            skipped: n,
            lanes: [lane.clone(), lane],
            swap: Some(Swap { lane: 1, nonce: n, first: n, last: n }),
            ledger,
        }
    }

    #[test]
    fn the_largest_cursor_fits_its_slot_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cursor");
        assert_eq!(read(&path).unwrap(), Found::Nothing);
        let file = CursorFile::open(&path).unwrap();
        assert_eq!(read(&path).unwrap(), Found::Nothing);
        file.write(&cursor(1)).unwrap();
        file.write(&cursor(2)).unwrap();
        assert_eq!(read(&path).unwrap(), Found::Good(Box::new(cursor(2))));
    }

    #[test]
    fn a_torn_slot_leaves_the_older_one_and_two_torn_slots_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cursor");
        let file = CursorFile::open(&path).unwrap();
        file.write(&cursor(1)).unwrap();
        file.write(&cursor(2)).unwrap();
        let mut content = fs::read(&path).unwrap();
        content[100] ^= 1;
        fs::write(&path, &content).unwrap();
        assert_eq!(read(&path).unwrap(), Found::Good(Box::new(cursor(1))));
        content[SLOT + 100] ^= 1;
        fs::write(&path, &content).unwrap();
        assert_eq!(read(&path).unwrap(), Found::Damaged);
    }

    #[test]
    fn what_does_not_fit_is_counted_when_it_is_dropped() {
        let mut lane = LaneCursor { low: 0, partial: vec![(1, 0b101); MAX_PARTIAL + 3] };
        assert_eq!(lane.shorten(), 6);
        assert_eq!(lane.partial.len(), MAX_PARTIAL);
    }
}
