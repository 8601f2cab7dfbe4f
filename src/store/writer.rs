//! The newest generation of a lane: a file that only grows, and only by this process.
//!
//! A value once synced is never written over or moved, so a power cut can only cost what was
//! written since. That is why this is no database: docs/decisions/0006-append-only.md.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::block;
use super::scan::{self, Entry, Place};
use crate::model::Sequence;
use crate::os::file::sync_directory;

/// Values that wait to be written together.
const BUFFER: usize = 128 * 1024;
/// A sync of so little pays more for the file's growth (a commit of the file system's journal) than
/// for itself: then the file grows ahead, in zeros.
const LITTLE: u64 = 4096;
/// How far it grows ahead.
const AHEAD: usize = 128 * 1024;

/// A generation's file open for writing.
#[derive(Debug)]
pub(super) struct Writer {
    dir: PathBuf,
    nonce: u64,
    file: File,
    /// Where the next write goes.
    end: u64,
    /// The file is this long; behind `end` there are zeros.
    length: u64,
    buffer: Vec<u8>,
    /// The directory entries are durable too.
    settled: bool,
}

impl Writer {
    /// Creates the file in `dir`, which must not exist.
    pub(super) fn create(dir: &Path, nonce: u64) -> io::Result<Self> {
        fs::create_dir(dir)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(dir.join("db"))?;
        Ok(Self { dir: dir.to_owned(), nonce, file, end: 0, length: 0, buffer: Vec::new(), settled: false })
    }

    /// Adds a block and returns what will be known of it once it is durable.
    pub(super) fn insert(&mut self, frames: &[(Sequence, &[u8])]) -> io::Result<Entry> {
        let too_large = || io::Error::other("a block does not fit its pieces");
        let values = block::encode(self.nonce, frames).ok_or_else(too_large)?;
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return Err(too_large()) };
        let mut places = Vec::with_capacity(values.len());
        for value in values {
            places.push(Place { offset: self.end + self.buffer.len() as u64, length: value.len() });
            self.buffer.extend_from_slice(&value);
            if self.buffer.len() >= BUFFER {
                self.write()?;
            }
        }
        let count = u32::try_from(frames.len()).unwrap_or(u32::MAX);
        Ok(Entry { first: first.0, last: last.0, count, places })
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.end)?;
        self.end += self.buffer.len() as u64;
        self.length = self.length.max(self.end);
        self.buffer.clear();
        Ok(())
    }

    /// Lets the file grow ahead, if it has just grown for the sake of a few bytes. Not the first
    /// time: a file of zeros alone would look damaged.
    fn grow(&mut self, little: bool) -> io::Result<()> {
        if little && self.settled && self.length == self.end {
            self.file.write_all_at(&vec![0; AHEAD], self.end)?;
            self.length += AHEAD as u64;
        }
        Ok(())
    }

    /// Makes every block durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let little = self.buffer.len() as u64 <= LITTLE;
        self.write()?;
        self.grow(little)?;
        self.file.sync_data()?;
        if !self.settled {
            sync_directory(&self.dir)?;
            sync_directory(self.dir.parent().unwrap_or(Path::new(".")))?;
            self.settled = true;
        }
        Ok(())
    }

    /// Closes the file without the zeros behind its end.
    pub(super) fn close(self) {
        if self.length > self.end {
            let _ = self.file.set_len(self.end);
        }
    }

    /// Reads the joined payload of a durable block; `None` when it is damaged.
    pub(super) fn body(&self, entry: &Entry) -> io::Result<Option<Vec<u8>>> {
        scan::body(&self.file, self.nonce, entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_writer_has_synced_the_scan_finds_in_the_raw_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("gen");
        let mut writer = Writer::create(&at, 77).unwrap();
        let mut added = Vec::new();
        for s in 0..600u64 {
            let frame = vec![s as u8; if s == 300 { 60_000 } else { 3_000 }];
            let block = &[(s * 10 + 1, frame.as_slice()), (s * 10 + 2, b"second")][..1 + usize::from(s != 300)];
            added.push(writer.insert(block).unwrap());
            if s % 7 == 0 {
                writer.sync().unwrap();
            }
        }
        writer.sync().unwrap();
        let file = File::open(at.join("db")).unwrap();
        let entries = scan::blocks(&file, 77).unwrap();
        assert_eq!(entries, added);
        for entry in &entries {
            assert!(writer.body(entry).unwrap().is_some());
        }
    }

    #[test]
    fn what_was_synced_is_never_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("gen");
        let mut writer = Writer::create(&at, 77).unwrap();
        let mut before = Vec::new();
        for s in 1..200u64 {
            writer.insert(&[(s, vec![s as u8; 5_000].as_slice())]).unwrap();
            writer.sync().unwrap();
            let mut now = fs::read(at.join("db")).unwrap();
            assert!(writer.end > before.len() as u64 && now.starts_with(&before));
            now.truncate(usize::try_from(writer.end).unwrap());
            before = now;
        }
    }

    #[test]
    fn little_by_little_the_file_grows_ahead_and_every_block_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("gen");
        let mut writer = Writer::create(&at, 77).unwrap();
        let mut lengths = std::collections::BTreeSet::new();
        for s in 1..=300u64 {
            // Now and then much at once.
            let size = if s % 70 == 0 { 6_000 } else { 900 };
            writer.insert(&[(s, vec![s as u8; size].as_slice())]).unwrap();
            writer.sync().unwrap();
            lengths.insert(fs::metadata(at.join("db")).unwrap().len());
        }
        assert!(lengths.len() < 12, "the file has grown {} times", lengths.len());
        let found = |at: &Path| scan::blocks(&File::open(at.join("db")).unwrap(), 77).unwrap();
        let entries = found(&at);
        assert_eq!(entries.iter().map(|e| e.first).collect::<Vec<_>>(), (1..=300).collect::<Vec<_>>());
        let end = writer.end;
        writer.close();
        assert_eq!((fs::metadata(at.join("db")).unwrap().len(), found(&at)), (end, entries));
    }
}
