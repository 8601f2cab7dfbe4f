//! The newest generation of a lane: a sled database that this process has created.
//!
//! sled never opens a file here that it did not create in the same process, so its recovery,
//! which writes into what it recovers and panics on some damage, never runs. Reading what an
//! earlier process left is [`super::scan`]'s work.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::block;
use crate::model::Sequence;
use crate::os::file::sync_directory;

const CACHE_BYTES: u64 = 1024 * 1024;
/// A sync of fewer bytes costs less than the commit of the file system's journal that a growing
/// file brings with it: then the file grows ahead, by so much.
const SMALL: u64 = 4 * 1024;
const AHEAD: usize = 128 * 1024;

/// A sled database open for writing.
pub(super) struct Writer {
    dir: PathBuf,
    nonce: u64,
    db: sled::Db,
    tree: sled::Tree,
    file: File,
    /// Bytes of values since the last sync.
    unsynced: u64,
    /// The file was filled with zeros up to here.
    filled: u64,
    /// The directory entries are durable too.
    settled: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Writer {
    /// Creates the database in `dir`, which must not exist.
    pub(super) fn create(dir: &Path, nonce: u64) -> io::Result<Self> {
        fs::create_dir(dir)?;
        contained(|| {
            let config = sled::Config::new()
                .path(dir)
                .cache_capacity(CACHE_BYTES)
                .mode(sled::Mode::LowSpace)
                .flush_every_ms(None);
            let db = config.open()?;
            let tree = db.open_tree("blocks")?;
            let file = OpenOptions::new().read(true).write(true).open(dir.join("db"))?;
            Ok(Self { dir: dir.to_owned(), nonce, db, tree, file, unsynced: 0, filled: 0, settled: false })
        })
    }

    /// Adds a block and returns the bytes of its values. Not durable yet.
    pub(super) fn insert(&mut self, frames: &[(Sequence, &[u8])]) -> io::Result<u64> {
        let too_large = || io::Error::other("a block does not fit its pieces");
        let values = block::encode(self.nonce, frames).ok_or_else(too_large)?;
        let first = frames.first().ok_or_else(too_large)?.0;
        let bytes = values.iter().map(|v| v.len() as u64).sum();
        self.unsynced += bytes;
        // The first piece goes last: where it stands, the others stand.
        for (piece, value) in (0u8..).zip(values).collect::<Vec<_>>().into_iter().rev() {
            contained(|| Ok(self.tree.insert(block::key(first, piece), value)?))?;
        }
        Ok(bytes)
    }

    /// Makes every block durable: sled's own flush asks no barrier of the disk, so ours follows.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        contained(|| Ok(self.tree.flush()?))?;
        self.file.sync_data()?;
        if !self.settled {
            File::open(self.dir.join("conf"))?.sync_all()?;
            self.file.sync_all()?;
            sync_directory(&self.dir.join("blobs"))?;
            sync_directory(&self.dir)?;
            sync_directory(self.dir.parent().unwrap_or(Path::new(".")))?;
            self.settled = true;
        }
        self.grow();
        Ok(())
    }

    /// Writes zeros behind the end of the file when little is written at a time. What sled writes
    /// next then changes no block map and no length, so that its fdatasync is one page and not a
    /// commit of the journal. sled is at rest after its flush, and what it has written ends within
    /// the file: zeros behind that meet nothing of it. Nothing depends on them.
    fn grow(&mut self) {
        let small = std::mem::take(&mut self.unsynced) <= SMALL;
        let length = self.file.metadata().map_or(0, |m| m.len());
        if small && length > self.filled && self.file.write_all_at(&[0; AHEAD], length).is_ok() {
            self.filled = length + AHEAD as u64;
        }
    }

    /// Reads the joined payload of the block that starts with `first`; `None` when it is damaged.
    pub(super) fn body(&self, first: Sequence) -> io::Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        let mut pieces = 1;
        let mut piece = 0;
        while piece < pieces {
            let Some(bytes) = contained(|| Ok(self.tree.get(block::key(first, piece))?))? else { return Ok(None) };
            let Some(value) = block::decode_value(self.nonce, &bytes) else { return Ok(None) };
            body.extend_from_slice(value.payload);
            pieces = value.pieces;
            piece += 1;
        }
        Ok(Some(body))
    }

    /// Closes the database.
    pub(super) fn close(self) {
        let Self { tree, db, .. } = self;
        let _ = contained(|| {
            drop(tree);
            drop(db);
            Ok(())
        });
    }
}

/// Runs sled so that its panic becomes an error of the disk. In a build with `panic = "abort"`
/// the agent restarts instead; docs/decisions/0001-sled.md says why that is bearable.
fn contained<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(io::Error::other("sled has panicked")))
}

#[cfg(test)]
mod tests {
    use super::super::scan;
    use super::*;

    #[test]
    fn what_the_writer_has_synced_the_scan_finds_in_the_raw_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("gen");
        let mut writer = Writer::create(&at, 77).unwrap();
        for s in 0..600u64 {
            let frame = vec![s as u8; if s == 300 { 60_000 } else { 3_000 }];
            writer
                .insert(&[(s * 10 + 1, frame.as_slice()), (s * 10 + 2, b"second")][..1 + usize::from(s != 300)])
                .unwrap();
            if s % 7 == 0 {
                writer.sync().unwrap();
            }
        }
        writer.sync().unwrap();
        let file = File::open(at.join("db")).unwrap();
        let entries = scan::blocks(&file, 77).unwrap();
        assert_eq!(entries.len(), 600);
        for entry in &entries {
            assert_eq!(scan::body(&file, 77, entry).unwrap(), writer.body(entry.first).unwrap());
        }
        assert!(fs::read_dir(at.join("blobs")).unwrap().next().is_none(), "sled has written blob files");
        writer.close();
        assert_eq!(scan::blocks(&file, 77).unwrap().len(), 600);
    }

    #[test]
    fn small_syncs_let_the_file_grow_ahead_and_lose_nothing_to_the_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("gen");
        let mut writer = Writer::create(&at, 77).unwrap();
        let mut lengths = std::collections::BTreeSet::new();
        for s in 1..=400u64 {
            // Now and then as much as to jump over what was filled, and over sled's segments.
            let values = if s % 100 == 0 { 40 } else { 1 };
            for v in 0..values {
                writer.insert(&[(s * 100 + v, &[s as u8; 1500])]).unwrap();
            }
            writer.sync().unwrap();
            lengths.insert(fs::metadata(at.join("db")).unwrap().len());
        }
        assert!(lengths.len() < 40, "the file has grown with {} of 400 syncs", lengths.len());
        let file = File::open(at.join("db")).unwrap();
        let entries = scan::blocks(&file, 77).unwrap();
        assert_eq!(entries.len(), 396 + 4 * 40);
        for entry in &entries {
            assert_eq!(scan::body(&file, 77, entry).unwrap(), writer.body(entry.first).unwrap());
        }
    }

    #[test]
    fn a_panic_inside_becomes_an_error() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let outcome = contained(|| -> io::Result<()> { panic!("as sled does") });
        std::panic::set_hook(hook);
        assert!(outcome.is_err());
    }
}
