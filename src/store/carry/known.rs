//! Which frames of which gateway were imported: ranges of numbers, in one small file.
//!
//! Ranges are never merged over a gap: a frame wrongly thought to be known would be lost.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use tracing::warn;

use crate::model::{Origin, Sequence};
use crate::os::file::{read_small, write_atomic};
use crate::store::StoreError;
use crate::store::block::checksum;

const FILE: &str = "imports";
const ASIDE: &str = "imports.damaged";
const MAGIC: [u8; 4] = *b"wEI1";
/// The most ranges kept; beyond it the lowest of the gateway with the most are forgotten, and
/// a file that old would be taken again.
const MAX_RANGES: usize = 100_000;
/// The longest file: every range as two of postcard's longest numbers, and names.
const LONGEST: u64 = 4 * 1024 * 1024;

/// A set of numbers as ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges(BTreeMap<Sequence, Sequence>);

impl Ranges {
    fn contains(&self, number: Sequence) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    fn insert(&mut self, number: Sequence) {
        if self.contains(number) {
            return;
        }
        let before = self.0.range(..number).next_back().map(|(first, last)| (*first, *last));
        let first = before.filter(|(_, last)| last.checked_add(1) == Some(number)).map_or(number, |(first, _)| first);
        let after = number.checked_add(1).and_then(|next| self.0.remove(&next));
        self.0.insert(first, after.unwrap_or(number));
    }
}

/// The frames that are known, by the gateway that made them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    gateways: BTreeMap<String, Ranges>,
}

impl Known {
    /// Reads the record of the store in `path`; an unreadable one counts as none.
    pub(super) fn read(path: &Path) -> Result<Self, StoreError> {
        match load(path) {
            Ok(known) => Ok(known),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                warn!(path = %path.join(FILE).display(), "the record of imports is unreadable, only what waits is known");
                Ok(Self::default())
            }
            Err(source) => Err(StoreError::Directory { path: path.to_owned(), source }),
        }
    }

    /// Makes the record durable.
    pub(super) fn write(&mut self, path: &Path) -> io::Result<()> {
        self.shorten(MAX_RANGES);
        let ranges = |r: &Ranges| {
            let mut end = 0;
            let gaps = r.0.iter().map(|(first, last)| {
                let gap = first.wrapping_sub(end);
                end = *last;
                (gap, last - first)
            });
            gaps.collect::<Vec<_>>()
        };
        let content: Vec<(&str, Vec<(u64, u64)>)> =
            self.gateways.iter().map(|(name, r)| (name.as_str(), ranges(r))).collect();
        let body = postcard::to_stdvec(&content).map_err(io::Error::other)?;
        let content = [&MAGIC[..], &checksum(&[&body]).to_le_bytes(), &body].concat();
        write_atomic(&path.join(FILE), &content, 0o640)
    }

    /// Whether this frame was taken before.
    pub(super) fn contains(&self, origin: &Origin) -> bool {
        self.gateways.get(&origin.gateway).is_some_and(|r| r.contains(origin.sequence))
    }

    /// Notes that a frame is here.
    pub(super) fn insert(&mut self, origin: &Origin) {
        if let Some(ranges) = self.gateways.get_mut(&origin.gateway) {
            ranges.insert(origin.sequence);
        } else {
            self.gateways.entry(origin.gateway.clone()).or_default().insert(origin.sequence);
        }
    }

    fn shorten(&mut self, most: usize) {
        let mut excess = self.gateways.values().map(|r| r.0.len()).sum::<usize>().saturating_sub(most);
        if excess > 0 {
            warn!(excess, "too many ranges of imported frames, the oldest are forgotten and may be taken again");
        }
        while excess > 0 {
            let Some(longest) = self.gateways.values_mut().max_by_key(|r| r.0.len()) else { break };
            longest.0.pop_first();
            excess -= 1;
        }
        self.gateways.retain(|_, r| !r.0.is_empty());
    }
}

fn load(path: &Path) -> io::Result<Known> {
    let content = read_small(&path.join(FILE), LONGEST)?;
    decode(&content).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the record of imports is damaged"))
}

fn decode(content: &[u8]) -> Option<Known> {
    let (crc, body) = content.strip_prefix(&MAGIC)?.split_first_chunk::<4>()?;
    if checksum(&[body]).to_le_bytes() != *crc {
        return None;
    }
    let content: Vec<(String, Vec<(u64, u64)>)> = postcard::from_bytes(body).ok()?;
    let mut known = Known::default();
    for (name, gaps) in content {
        let ranges = known.gateways.entry(name).or_default();
        let mut end: Sequence = 0;
        for (gap, more) in gaps {
            let first = end.checked_add(gap)?;
            end = first.checked_add(more)?;
            ranges.0.insert(first, end);
        }
    }
    Some(known)
}

/// What is wrong with the record of the store in `path`, when something is.
pub(in crate::store) fn problem(path: &Path) -> Option<String> {
    load(path).err().filter(|e| e.kind() != io::ErrorKind::NotFound).map(|e| e.to_string())
}

/// Puts an unreadable record aside.
pub(in crate::store) fn put_aside(path: &Path) -> io::Result<()> {
    fs::rename(path.join(FILE), path.join(ASIDE))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn origin(gateway: &str, sequence: Sequence) -> Origin {
        Origin { gateway: gateway.into(), sequence }
    }

    proptest! {
        #[test]
        fn ranges_know_exactly_what_was_put_in(numbers in vec(0u64..200, 0..150)) {
            let mut ranges = Ranges::default();
            numbers.iter().for_each(|n| ranges.insert(*n));
            let set: BTreeSet<u64> = numbers.into_iter().collect();
            for n in 0..201 {
                prop_assert_eq!(ranges.contains(n), set.contains(&n), "{}", n);
            }
            let runs = set.iter().filter(|n| **n == 0 || !set.contains(&(**n - 1))).count();
            prop_assert_eq!(ranges.0.len(), runs, "neighbours are one range");
        }

        #[test]
        fn the_record_reads_back_and_any_bytes_are_refused(numbers in vec(any::<u64>(), 0..50), bytes in vec(any::<u8>(), 0..100)) {
            let dir = tempfile::tempdir().unwrap();
            let mut known = Known::default();
            numbers.iter().for_each(|n| known.insert(&origin(if n % 2 == 0 { "a" } else { "b" }, *n)));
            known.write(dir.path()).unwrap();
            prop_assert_eq!(Known::read(dir.path()).unwrap(), known);
            fs::write(dir.path().join(FILE), [&MAGIC[..], &bytes].concat()).unwrap();
            prop_assert!(problem(dir.path()).is_some());
            prop_assert_eq!(Known::read(dir.path()).unwrap(), Known::default());
        }
    }

    #[test]
    fn a_record_that_grows_too_long_forgets_the_oldest_and_invents_nothing() {
        let mut known = Known::default();
        (0..50).for_each(|n| known.insert(&origin("gaps", n * 2)));
        known.insert(&origin("whole", 7));
        known.shorten(11);
        assert!(known.contains(&origin("whole", 7)));
        assert_eq!(
            (0..100).filter(|n| known.contains(&origin("gaps", *n))).collect::<Vec<_>>(),
            (80..100).step_by(2).collect::<Vec<_>>()
        );
    }
}
