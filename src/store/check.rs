//! Looks at a store from outside: is everything in it as it was written?

use std::fs;
use std::path::Path;

use super::cursor::{self, Slot};
use super::key::{self, Key};
pub use super::survey::{State, Tally};
use super::survey::{Survey, Visitor};
use super::{StoreError, generation};
use crate::model::{Lane, Sequence};

/// What was found in a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Every generation, priority first, oldest first.
    pub generations: Vec<Tally>,
    /// Neither slot of the counters can be read.
    pub counters_lost: bool,
    /// How many slots of the counters are good: one is enough, the other is torn by a power cut.
    pub counters_good: usize,
    /// Directories put aside because of damage found before, with their size in bytes.
    pub quarantine: Vec<(String, u64)>,
    /// Directories that are being removed, with their size in bytes.
    pub trash: Vec<(String, u64)>,
    /// What is wrong with the signing key.
    pub key: Option<String>,
    /// What is wrong with the record of imports.
    pub imports: Option<String>,
}

impl Report {
    /// Frames that wait and can be read.
    pub fn waiting(&self) -> u64 {
        self.generations.iter().map(|g| g.waiting).sum()
    }

    /// Frames that are lost.
    pub fn damaged(&self) -> u64 {
        self.generations.iter().map(|g| g.damaged).sum()
    }

    /// Whether nothing is damaged. What was put aside before is no damage any more.
    pub fn is_sound(&self) -> bool {
        let torn = self.generations.iter().any(|g| g.torn_seal);
        self.damaged() == 0 && !self.counters_lost && !torn && self.key.is_none() && self.imports.is_none()
    }
}

struct Count<'a> {
    report: Report,
    progress: &'a mut dyn FnMut(u64),
    bytes: u64,
}

impl Visitor for Count<'_> {
    fn frame(&mut self, _: Lane, _: Sequence, _: &[u8]) -> Result<(), StoreError> {
        Ok(())
    }

    fn generation(&mut self, tally: Tally) {
        self.bytes += tally.bytes;
        (self.progress)(self.bytes);
        self.report.generations.push(tally);
    }
}

/// Returns what the generations of the store in `path` take on disk: how much [`check`] has to read.
///
/// # Errors
/// [`StoreError::Missing`], [`StoreError::Directory`].
pub fn size(path: &Path) -> Result<u64, StoreError> {
    Ok(Survey::open(path)?.disk_bytes())
}

/// Reads everything in the store in `path` block by block, changing nothing, and tells
/// `progress` how many bytes are done. An agent may run meanwhile.
///
/// # Errors
/// [`StoreError::Missing`]; [`StoreError::Directory`] when the system refuses.
pub fn check(path: &Path, progress: &mut dyn FnMut(u64)) -> Result<Report, StoreError> {
    let unusable = |source| StoreError::Directory { path: path.to_owned(), source };
    let survey = Survey::open(path)?;
    let slots = cursor::slots(&path.join("cursor")).map_err(unusable)?;
    let mut count = Count { report: Report::default(), progress, bytes: 0 };
    survey.walk(true, &mut count)?;
    let mut report = count.report;
    report.counters_good = slots.iter().filter(|s| matches!(s, Slot::Good(_))).count();
    report.counters_lost =
        report.counters_good == 0 && !(slots.iter().all(|s| *s == Slot::Empty) && report.generations.is_empty());
    for entry in fs::read_dir(path).map_err(unusable)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = generation::disk_bytes(&entry.path());
        if name.starts_with("quarantine-") {
            report.quarantine.push((name, size));
        } else if name.starts_with("trash-") {
            report.trash.push((name, size));
        }
    }
    report.quarantine.sort();
    report.trash.sort();
    let absent = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
    report.key = Key::open(&key::path_in(path)).err().filter(|e| !absent(e)).map(|e| e.to_string());
    report.imports = super::carry::known_problem(path);
    Ok(report)
}
