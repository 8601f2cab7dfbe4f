//! Opening: the lock, the cursor, the rows. Nothing an earlier process wrote is changed, so that
//! a power cut in the middle leaves everything for the next start.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tracing::error;

use super::StoreError;
use super::cursor::{self, Cursor, CursorFile, Found};
use super::generation::Generation;
use super::row::{self, Row};
use crate::model::Sequence;
use crate::os::file::sync_directory;

/// Numbers left out when nobody knows any more which were given: frames that were acknowledged
/// in memory left no other trace than the cursor.
const LEAP: Sequence = 1 << 32;

/// What was found in the directory.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) lock: File,
    pub(super) cursor_file: CursorFile,
    pub(super) cursor: Cursor,
    pub(super) rows: [Row; 2],
    /// What a swap cut off by a crash had replaced; still to be removed.
    pub(super) replaced: Vec<Generation>,
    /// The highest number that may have been given, as far as the directory tells beside the cursor.
    pub(super) highest: Sequence,
}

/// Opens the directory, creating what is missing.
pub(super) fn open(path: &Path) -> Result<Recovered, StoreError> {
    let unusable = |source| StoreError::Directory { path: path.to_owned(), source };
    create(path).map_err(unusable)?;
    let lock = lock(path)?;
    let cursor_path = path.join("cursor");
    let mut leap = 0;
    let cursor = match cursor::read(&cursor_path).map_err(unusable)? {
        Found::Good(cursor) => *cursor,
        Found::Nothing => Cursor::default(),
        Found::Damaged => {
            leap = LEAP;
            error!(path = %cursor_path.display(), "the counters are unreadable, everything cached is sent again");
            fs::rename(&cursor_path, path.join("cursor.damaged")).map_err(unusable)?;
            Cursor::default()
        }
    };
    let cursor_file = CursorFile::open(&cursor_path).map_err(unusable)?;
    row::sweep(path, usize::MAX).map_err(unusable)?;
    let [priority, ordinary] = cursor.lanes.clone();
    let swap = |lane| cursor.swap.filter(|s| s.lane == lane);
    let (priority, mut replaced) = Row::open(&path.join("priority"), priority, swap(0)).map_err(unusable)?;
    let (ordinary, more) = Row::open(&path.join("ordinary"), ordinary, swap(1)).map_err(unusable)?;
    replaced.extend(more);
    sync_directory(path).map_err(unusable)?;
    let highest = priority.highest().max(ordinary.highest()).saturating_add(leap);
    Ok(Recovered { lock, cursor_file, cursor, rows: [priority, ordinary], replaced, highest })
}

/// Creates the directory and makes its name durable: what lies in it is only as durable as that.
fn create(path: &Path) -> io::Result<()> {
    let missing = path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).count();
    fs::create_dir_all(path)?;
    // Its own parent in any case: an earlier start may have been cut off between the two.
    for parent in path.ancestors().skip(1).take(missing.max(1)) {
        match sync_directory(parent) {
            // A directory that is not ours to read was there before.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// How often and how long after each other the lock is tried: a weir that is just ending, or a
/// program it was just starting (which holds a copy until it runs), gives it back in a moment.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Takes the lock, which the system frees with the process; waits up to a second for it.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let unusable = |source| StoreError::Directory { path: path.to_owned(), source };
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path.join("lock")).map_err(unusable)?;
    for tried in 1..=LOCK_TRIES {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if tried == LOCK_TRIES => {}
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            Err(errno) => return Err(unusable(io::Error::from(errno))),
        }
    }
    Err(StoreError::Locked { path: path.to_owned() })
}

/// Whether a weir holds the store now.
pub(super) fn is_held(path: &Path) -> bool {
    let Ok(file) = OpenOptions::new().read(true).open(path.join("lock")) else { return false };
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}
