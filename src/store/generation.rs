//! One generation: a directory with some megabytes of blocks, written once and then only read.

use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Advice, fadvise};
use rustix::io::{ReadWriteFlags, preadv2};
use serde::{Deserialize, Serialize};

use super::block::{self, Block};
use super::scan::{self, Entry};
use super::source::{Census, source_of};
use super::writer::Writer;
use crate::model::Sequence;
use crate::os::file::{read_small, sync_directory, write_atomic};

/// How often, and after what pause, the kernel is asked to forget a file.
const FORGET_TRIES: u32 = 50;
const FORGET_PAUSE: Duration = Duration::from_millis(2);
const SEALED: &str = "sealed";
/// A seal with the names of as many meters as a census takes.
const LARGEST_SEAL: u64 = 128 * 1024;
/// A file shorter than this without any block is the trace of a start that was cut off.
const NOTHING_YET: u64 = 8 * 1024;

#[derive(Debug)]
enum Values {
    Written(Writer),
    Filed(Option<File>),
}

/// A generation of one lane.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) dir: PathBuf,
    /// No block of it starts below this number; part of its name.
    pub(super) first: Sequence,
    /// The last durable number.
    pub(super) last: Sequence,
    /// How many durable frames it holds.
    pub(super) frames: u64,
    /// How many of them are acknowledged, evicted or damaged.
    pub(super) done: u64,
    /// What it takes on disk.
    pub(super) bytes: u64,
    /// Payload written, while it is the newest.
    pub(super) payload: u64,
    /// Something in it could not be read: it is kept aside when it is done with.
    pub(super) damaged: bool,
    pub(super) nonce: u64,
    sealed: bool,
    /// Whose frames were written, while it is the newest.
    census: Census,
    /// What it holds is on disk, not just in the page cache.
    settled: bool,
    entries: Option<Vec<Entry>>,
    values: Values,
}

/// What is noted beside a generation when it is complete.
#[derive(Serialize, Deserialize)]
struct Seal {
    last: Sequence,
    frames: u64,
    census: Census,
}

impl Generation {
    /// Creates the directory of a new generation in `row`.
    pub(super) fn create(row: &Path, first: Sequence, nonce: u64) -> io::Result<Self> {
        Self::create_as("gen", row, first, nonce)
    }

    /// Creates one whose directory's name begins with `prefix`.
    pub(super) fn create_as(prefix: &str, row: &Path, first: Sequence, nonce: u64) -> io::Result<Self> {
        let dir = row.join(format!("{prefix}-{first:020}-{nonce:016x}"));
        let writer = Writer::create(&dir, nonce).inspect_err(|_| {
            let _ = fs::remove_dir_all(&dir);
        })?;
        Ok(Self { entries: Some(Vec::new()), values: Values::Written(writer), ..Self::at(dir, first, nonce) })
    }

    fn at(dir: PathBuf, first: Sequence, nonce: u64) -> Self {
        let (values, last) = (Values::Filed(None), first.saturating_sub(1));
        let zero = 0;
        Self {
            dir,
            first,
            last,
            nonce,
            values,
            frames: 0,
            done: 0,
            bytes: zero,
            payload: zero,
            damaged: false,
            sealed: false,
            census: Census::default(),
            settled: true,
            entries: None,
        }
    }

    /// Recognises a generation by the name of its directory and reads its seal.
    pub(super) fn found(dir: &Path) -> Option<Self> {
        let (first, nonce) = dir.file_name()?.to_str()?.strip_prefix("gen-")?.split_once('-')?;
        let (first, nonce) = (first.parse().ok()?, u64::from_str_radix(nonce, 16).ok()?);
        let mut found = Self::at(dir.to_owned(), first, nonce);
        if let Some(seal) = read_seal(dir, nonce) {
            (found.last, found.frames, found.sealed) = (seal.last, seal.frames, true);
        }
        found.measure();
        Some(found)
    }

    /// It is the one that is being written.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.values, Values::Written(_))
    }

    /// Its number of frames is known from its seal.
    pub(super) fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Its blocks, when they are loaded.
    pub(super) fn entries(&self) -> Option<&[Entry]> {
        self.entries.as_deref()
    }

    /// Adds blocks and makes them durable; `groups` are their frames. On an error none counts.
    pub(super) fn write(&mut self, groups: &[Vec<(Sequence, &[u8])>]) -> io::Result<()> {
        let Values::Written(writer) = &mut self.values else {
            return Err(io::Error::other("the generation is closed"));
        };
        let mut added = Vec::with_capacity(groups.len());
        for group in groups {
            let entry = writer.insert(group)?;
            self.payload += entry.bytes();
            added.push(entry);
        }
        writer.sync()?;
        for (_, bytes) in groups.iter().flatten() {
            self.census.add(&source_of(bytes), bytes.len() as u64);
        }
        self.frames += added.iter().map(|e| u64::from(e.count)).sum::<u64>();
        self.last = added.last().map_or(self.last, |e| e.last);
        self.entries.get_or_insert_default().extend(added);
        self.measure();
        Ok(())
    }

    /// Stops writing: from now on it is only read. Without a seal (`seal` false, or it can't be
    /// written) the next start counts its frames again.
    pub(super) fn close(&mut self, seal: bool) {
        if !self.is_open() {
            return;
        }
        if let Values::Written(writer) = std::mem::replace(&mut self.values, Values::Filed(None)) {
            writer.close();
            self.entries = None;
            if seal {
                self.seal();
            }
            self.measure();
        }
    }

    /// Seals one that an earlier process left open: its blocks are loaded.
    pub(super) fn seal_found(&mut self) -> io::Result<()> {
        self.census = self.count_meters()?;
        self.seal();
        Ok(())
    }

    /// Seals it with what is left after some of it turned out to be gone: its blocks are loaded.
    pub(super) fn seal_again(&mut self) {
        let earlier = || read_seal(&self.dir, self.nonce).map(|seal| seal.census).unwrap_or_default();
        self.census = self.count_meters().unwrap_or_else(|_| earlier());
        self.seal();
    }

    /// Whose frames it holds, those included that are done with. `None`: its blocks must be loaded first.
    pub(super) fn census(&self) -> io::Result<Option<Census>> {
        if self.is_open() {
            return Ok(Some(self.census.clone()));
        }
        match read_seal(&self.dir, self.nonce) {
            Some(seal) => Ok(Some(seal.census)),
            None if self.entries.is_none() => Ok(None),
            None => self.count_meters().map(Some),
        }
    }

    fn count_meters(&self) -> io::Result<Census> {
        let mut census = Census::default();
        for entry in self.entries().unwrap_or_default() {
            for (_, bytes) in self.block(entry)?.map(|b| b.frames).unwrap_or_default() {
                census.add(&source_of(&bytes), bytes.len() as u64);
            }
        }
        Ok(census)
    }

    /// Notes how many frames it holds beside it, so that a start need not read it.
    fn seal(&mut self) {
        if !self.settled {
            return;
        }
        let seal = Seal { last: self.last, frames: self.frames, census: std::mem::take(&mut self.census) };
        let body = postcard::to_stdvec(&seal).unwrap_or_default();
        let crc = block::checksum(&[&self.nonce.to_le_bytes(), &body]).to_le_bytes();
        self.sealed = write_atomic(&self.dir.join(SEALED), &[&crc[..], &body].concat(), 0o640).is_ok();
    }

    /// Looks for its blocks below `end` and returns how many frames its seal promised that are
    /// not there. Without a seal what is found is what counts.
    pub(super) fn load(&mut self, end: Sequence) -> io::Result<u64> {
        let Values::Filed(slot) = &mut self.values else { return Ok(0) };
        let known = self.sealed || self.frames > 0;
        let mut entries = match File::open(self.dir.join("db")) {
            Ok(file) => {
                if !known {
                    self.settled = settle(&self.dir, &file).is_ok();
                }
                let found = scan::blocks(&file, self.nonce)?;
                *slot = Some(file);
                found
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e),
        };
        let end = if known { end.min(self.last.saturating_add(1)) } else { end };
        entries.retain(|e| e.first >= self.first && e.last < end);
        let frames = entries.iter().map(|e| u64::from(e.count)).sum();
        let missing = if known { self.frames.saturating_sub(frames) } else { 0 };
        self.damaged |= missing > 0;
        if !known {
            self.last = entries.last().map_or(self.last, |e| e.last);
            self.damaged |= frames == 0 && self.bytes > NOTHING_YET;
        }
        self.frames = frames;
        self.entries = Some(entries);
        Ok(missing)
    }

    /// Forgets its blocks to save memory.
    pub(super) fn unload(&mut self) {
        if let Values::Filed(file) = &mut self.values {
            *file = None;
            self.entries = None;
        }
    }

    /// Reads one block; `None` when it is damaged. An error of the moment, such as too little
    /// memory, is no damage and is returned: the block may be good the next time.
    pub(super) fn block(&self, entry: &Entry) -> io::Result<Option<Block>> {
        let body = match &self.values {
            Values::Written(writer) => writer.body(entry),
            Values::Filed(Some(file)) => scan::body(file, self.nonce, entry),
            Values::Filed(None) => Ok(None),
        };
        match body {
            Ok(body) => Ok(body.and_then(|body| block::decode_body(entry.first, &body))),
            Err(error) if is_damage(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Measures what the directory takes on disk.
    pub(super) fn measure(&mut self) {
        self.bytes = disk_bytes(&self.dir);
    }
}

/// Makes durable what an earlier process wrote and did not sync, and forgets what is only in the
/// page cache: after a sync that failed Linux keeps there what the disk never got, and lets the
/// next sync succeed.
///
/// Gives whether it was forgotten.
fn settle(dir: &Path, file: &File) -> io::Result<bool> {
    let synced = file.sync_all();
    let forgotten = forget_cached(file)?;
    synced?;
    sync_directory(dir)?;
    sync_directory(dir.parent().unwrap_or(Path::new(".")))?;
    Ok(forgotten)
}

/// Lets the kernel forget what it has of a file in memory. It keeps pages that somebody looks at just then (its
/// journal, other processors), so it is asked again until the first one is gone, for a tenth of a second at most. Gives
/// whether it was gone; looking may already have begun to read it anew from the disk.
fn forget_cached(file: &File) -> io::Result<bool> {
    let mut byte = [0];
    for _ in 0..FORGET_TRIES {
        fadvise(file, 0, None, Advice::DontNeed)?;
        // Without waiting for the disk: it succeeds only while the page is in memory.
        if preadv2(file, &mut [IoSliceMut::new(&mut byte)], 0, ReadWriteFlags::NOWAIT) != Ok(1) {
            return Ok(true);
        }
        std::thread::sleep(FORGET_PAUSE);
    }
    Ok(false)
}

/// Whether an error says that the medium has lost what it held.
fn is_damage(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    let lost = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::Other);
    lost || error.raw_os_error() == Some(EIO)
}

/// What the files right in `dir` take on disk.
pub(super) fn disk_bytes(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|f| f.metadata().ok()).map(|m| m.blocks() * 512).sum()
}

fn read_seal(dir: &Path, nonce: u64) -> Option<Seal> {
    let content = read_small(&dir.join(SEALED), LARGEST_SEAL).ok()?;
    let (crc, body) = content.split_first_chunk::<4>()?;
    let good = block::checksum(&[&nonce.to_le_bytes(), body]) == u32::from_le_bytes(*crc);
    good.then(|| postcard::from_bytes(body).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(row: &Path, blocks: u64) -> Generation {
        let mut generation = Generation::create(row, 1, 9).unwrap();
        let groups: Vec<_> =
            (1..=blocks).map(|s| vec![(s * 2 - 1, &[5u8; 500][..]), (s * 2, &[6u8; 500][..])]).collect();
        generation.write(&groups).unwrap();
        generation
    }

    #[test]
    fn only_a_lost_medium_is_damage_and_an_error_of_the_moment_is_not() {
        const EIO: i32 = 5;
        const ENOMEM: i32 = 12;
        const EMFILE: i32 = 24;
        assert!(is_damage(&io::Error::from_raw_os_error(EIO)));
        assert!(is_damage(&io::ErrorKind::UnexpectedEof.into()));
        assert!(![ENOMEM, EMFILE].iter().any(|code| is_damage(&io::Error::from_raw_os_error(*code))));
    }

    #[test]
    fn a_closed_generation_is_known_by_its_seal_and_read_from_its_file() {
        let row = tempfile::tempdir().unwrap();
        let mut generation = filled(row.path(), 40);
        generation.close(true);
        let mut again = Generation::found(&generation.dir).unwrap();
        assert_eq!((again.first, again.last, again.frames, again.is_sealed()), (1, 80, 80, true));
        assert_eq!(again.load(Sequence::MAX).unwrap(), 0);
        let entry = again.entries().unwrap()[39].clone();
        assert_eq!(again.block(&entry).unwrap().unwrap().frames[1], (80, vec![6; 500]));
    }

    #[test]
    fn an_unsealed_generation_counts_what_is_there_but_not_what_its_successor_wrote_again() {
        let row = tempfile::tempdir().unwrap();
        let dir = filled(row.path(), 40).dir;
        let mut again = Generation::found(&dir).unwrap();
        assert!(!again.is_sealed());
        again.load(Sequence::MAX).unwrap();
        assert_eq!((again.last, again.frames), (80, 80));
        let mut cut = Generation::found(&dir).unwrap();
        cut.load(78).unwrap();
        assert_eq!((cut.last, cut.frames), (76, 76));
    }

    #[test]
    fn what_a_killed_process_left_is_read_from_the_disk_and_not_from_the_cache() {
        use rustix::io::Errno;
        let row = tempfile::tempdir().unwrap();
        let dir = filled(row.path(), 40).dir;
        let file = File::open(dir.join("db")).unwrap();
        let mut bytes = [0; 100];
        let mut cached = || preadv2(&file, &mut [IoSliceMut::new(&mut bytes)], 0, ReadWriteFlags::NOWAIT);
        if cached() == Err(Errno::OPNOTSUPP) {
            println!("this file system can't tell what is cached: not tested");
            return;
        }
        assert_eq!(cached(), Ok(100));
        assert!(settle(&dir, &file).unwrap());
    }

    #[test]
    fn a_torn_file_reports_the_frames_its_seal_promised() {
        let row = tempfile::tempdir().unwrap();
        let mut generation = filled(row.path(), 40);
        generation.close(true);
        fs::write(generation.dir.join("db"), b"").unwrap();
        let mut again = Generation::found(&generation.dir).unwrap();
        assert_eq!(again.load(Sequence::MAX).unwrap(), 80);
        assert!(again.damaged && again.frames == 0);
    }
}
