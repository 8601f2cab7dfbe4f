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

/// A generation's file open for writing.
#[derive(Debug)]
pub(super) struct Writer {
    dir: PathBuf,
    nonce: u64,
    file: File,
    /// Where the next write goes.
    end: u64,
    buffer: Vec<u8>,
    /// The directory entries are durable too.
    settled: bool,
}

impl Writer {
    /// Creates the file in `dir`, which must not exist.
    pub(super) fn create(dir: &Path, nonce: u64) -> io::Result<Self> {
        fs::create_dir(dir)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(dir.join("db"))?;
        Ok(Self { dir: dir.to_owned(), nonce, file, end: 0, buffer: Vec::new(), settled: false })
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
        self.buffer.clear();
        Ok(())
    }

    /// Makes every block durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.write()?;
        self.file.sync_data()?;
        if !self.settled {
            sync_directory(&self.dir)?;
            sync_directory(self.dir.parent().unwrap_or(Path::new(".")))?;
            self.settled = true;
        }
        Ok(())
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
            let now = fs::read(at.join("db")).unwrap();
            assert!(now.len() > before.len() && now.starts_with(&before));
            before = now;
        }
    }
}
