//! The file in which a mirror remembers over a restart what each broker has acknowledged.
//!
//! It only saves repeats: without it, or with an old one, every frame still in the store is sent
//! to every broker again. It is dangerous only with another store than its own, where the same
//! numbers are other frames. Hence nothing above the store's durable number is ever written,
//! and a file that holds a number above the durable one is of another store and not believed: a store
//! never gives a number twice, so its durable number never falls.

use std::io;
use std::path::Path;

use crc::{CRC_32_ISCSI, Crc};
use tracing::{debug, warn};

use super::ledger::Lanes;
use crate::model::Sequence;
use crate::os::file::{read_small, write_atomic};

const MAGIC: [u8; 4] = *b"wMP1";
/// Eight brokers of two lanes of 256 spans of at most 20 bytes.
const LARGEST: u64 = 128 * 1024;
const CHECK: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Each broker's key and what it has acknowledged.
pub(super) type Progress = Vec<(u64, Lanes)>;

fn encode(progress: &Progress) -> io::Result<Vec<u8>> {
    let body = postcard::to_stdvec(progress).map_err(io::Error::other)?;
    Ok([&MAGIC[..], &CHECK.checksum(&body).to_le_bytes(), &body].concat())
}

fn decode(content: &[u8]) -> Option<Progress> {
    let (check, body) = content.strip_prefix(&MAGIC)?.split_first_chunk::<4>()?;
    if CHECK.checksum(body) != u32::from_le_bytes(*check) {
        return None;
    }
    let progress: Progress = postcard::from_bytes(body).ok()?;
    progress.iter().flat_map(|(_, lanes)| lanes).all(super::intervals::Intervals::is_sane).then_some(progress)
}

/// Reads the file; nothing when there is none, it is damaged, or it is of a store that had given
/// out more numbers than `durable`. A file that is not believed is removed.
pub(super) fn read(path: &Path, durable: Sequence) -> Progress {
    let content = match read_small(path, LARGEST) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Progress::new(),
        Err(error) => {
            warn!(%error, path = %path.display(), "what the brokers acknowledged can't be read; frames are repeated");
            forget(path);
            return Progress::new();
        }
    };
    let Some(progress) = decode(&content) else {
        warn!(path = %path.display(), "the record of what the brokers acknowledged is damaged; frames are repeated");
        forget(path);
        return Progress::new();
    };
    if progress.iter().flat_map(|(_, lanes)| lanes).any(|lane| lane.highest() > durable) {
        warn!(path = %path.display(), "the record of what the brokers acknowledged is of another store and not used");
        forget(path);
        return Progress::new();
    }
    progress
}

/// Replaces the file.
///
/// # Errors
/// The system's error; the old file is then untouched.
pub(super) fn write(path: &Path, progress: &Progress) -> io::Result<()> {
    write_atomic(path, &encode(progress)?, 0o640)
}

/// Removes the file, because nobody keeps it up to date any more.
pub(super) fn forget(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!(%error, path = %path.display(), "the record of what the brokers acknowledged can't be removed");
        }
        outcome => debug!(removed = outcome.is_ok(), "no record of what the brokers acknowledged is kept"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::intervals::{Intervals, Span};
    use super::*;

    fn progress(last: Sequence) -> Progress {
        let mut lane = Intervals::default();
        lane.insert(Span { after: 0, last });
        vec![(7, [lane, Intervals::default()])]
    }

    #[test]
    fn what_was_written_is_read_and_a_store_with_smaller_numbers_does_not_believe_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mirror");
        assert!(read(&path, 0).is_empty());
        write(&path, &progress(1000)).unwrap();
        assert_eq!(read(&path, 1000), progress(1000));
        assert!(read(&path, 999).is_empty(), "numbers start again");
        assert!(!path.exists(), "or it would be believed once the numbers have grown");
    }

    #[test]
    fn a_torn_file_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mirror");
        write(&path, &progress(1000)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(read(&path, 5000).is_empty(), "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            std::fs::write(&path, &flipped).unwrap();
            assert!(read(&path, 5000).is_empty(), "flipped at {at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(content in prop::collection::vec(any::<u8>(), 0..60), sound in any::<bool>()) {
            let content = if sound {
                [&MAGIC[..], &CHECK.checksum(&content).to_le_bytes(), &content].concat()
            } else {
                content
            };
            let _ = decode(&content);
        }
    }
}
