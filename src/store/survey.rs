//! Reads a whole store without opening it, whether an agent runs or not: nothing is locked,
//! written or kept in memory beyond the tables of one generation.
//!
//! The counters are read before the generations, so that what an agent does meanwhile can only
//! make frames look waiting that are not, never the other way round.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cursor::{self, Cursor, Found, LaneCursor, Swap};
use super::generation::Generation;
use super::row;
use super::scan::Entry;
use super::{StoreError, block, index};
use crate::model::{Lane, Sequence};

/// The names of the lanes' directories.
pub(super) const LANES: [(Lane, &str); 2] = [(Lane::Priority, "priority"), (Lane::Ordinary, "ordinary")];

/// What is known of a store before its generations are read.
#[derive(Debug)]
pub(super) struct Survey {
    path: PathBuf,
    pub(super) cursor: Cursor,
}

/// How complete a generation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its number of frames is sealed.
    Sealed,
    /// The newest of a lane, being written or left by an unclean stop.
    Open,
    /// It was removed while it was read: an agent is at work.
    Gone,
}

/// What a generation holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Its lane.
    pub lane: Lane,
    /// The name of its directory.
    pub name: String,
    /// How complete it is.
    pub state: State,
    /// Frames found in it.
    pub frames: u64,
    /// Those that wait and can be read.
    pub waiting: u64,
    /// Frames that waited and can't be read, and frames its seal promised that are not there.
    pub damaged: u64,
    /// A seal is there, but unreadable.
    pub torn_seal: bool,
    /// What it takes on disk.
    pub bytes: u64,
}

/// Receives what a walk finds.
pub(super) trait Visitor {
    /// A frame that waits, still encoded, in order within its lane.
    fn frame(&mut self, lane: Lane, sequence: Sequence, bytes: &[u8]) -> Result<(), StoreError>;

    /// A generation is read.
    fn generation(&mut self, tally: Tally);
}

impl Survey {
    /// Reads the counters of the store in `path`; unreadable ones count as none.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let unusable = |source| StoreError::Directory { path: path.to_owned(), source };
        let cursor = match cursor::read(&path.join("cursor")).map_err(unusable)? {
            Found::Good(cursor) => *cursor,
            Found::Damaged => Cursor::default(),
            Found::Nothing if LANES.iter().any(|(_, name)| path.join(name).is_dir()) => Cursor::default(),
            Found::Nothing => return Err(StoreError::Missing { path: path.to_owned() }),
        };
        Ok(Self { path: path.to_owned(), cursor })
    }

    /// Passes every waiting frame to `visitor`, priority frames first. With `thorough`, blocks
    /// that are done are read too.
    pub(super) fn walk(&self, thorough: bool, visitor: &mut dyn Visitor) -> Result<(), StoreError> {
        for (lane, name) in LANES {
            let row = self.path.join(name);
            let unusable = |source| StoreError::Directory { path: row.clone(), source };
            let cursor = self.cursor.lanes.get(index(lane)).cloned().unwrap_or_default();
            let done = Done::of(cursor);
            let swap = self.cursor.swap.filter(|s| s.lane == index(lane));
            let mut generations = generations(&row, swap).map_err(unusable)?.into_iter().peekable();
            while let Some(mut generation) = generations.next() {
                let end = generations.peek().map_or(Sequence::MAX, |next| next.first);
                let newest = generations.peek().is_none();
                let mut walk = Walk { lane, done: &done, thorough, visitor };
                let tally = walk.generation(&mut generation, end, newest)?;
                visitor.generation(tally);
            }
        }
        Ok(())
    }

    /// What the generations take on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        let rows = LANES.iter().map(|(_, name)| generations(&self.path.join(name), None).unwrap_or_default());
        rows.flatten().map(|g| g.bytes).sum()
    }
}

/// The generations of a row. Those that a durable `swap` has replaced are left out, unless what
/// replaces them is still to be given its name.
fn generations(row: &Path, swap: Option<Swap>) -> io::Result<Vec<Generation>> {
    let listed = match fs::read_dir(row) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut generations: Vec<_> = listed.flatten().filter_map(|e| Generation::found(&e.path())).collect();
    let here = |s: &Swap| s.nonce == 0 || generations.iter().any(|g| g.nonce == s.nonce);
    if let Some(s) = swap.filter(here) {
        generations.retain(|g| !(s.first..=s.last).contains(&g.first) || g.nonce == s.nonce);
    }
    generations.sort_by(|a, b| (a.first, &a.dir).cmp(&(b.first, &b.dir)));
    row::drop_twins(&mut generations)?;
    Ok(generations)
}

/// Which frames are done.
struct Done {
    low: Sequence,
    partial: BTreeMap<Sequence, u32>,
}

impl Done {
    fn of(cursor: LaneCursor) -> Self {
        Self { low: cursor.low, partial: cursor.partial.into_iter().collect() }
    }

    /// One bit for each frame of the block.
    fn bits(&self, entry: &Entry) -> u32 {
        if entry.first < self.low { u32::MAX } else { self.partial.get(&entry.first).copied().unwrap_or(0) }
    }
}

struct Walk<'a> {
    lane: Lane,
    done: &'a Done,
    thorough: bool,
    visitor: &'a mut dyn Visitor,
}

impl Walk<'_> {
    fn generation(&mut self, generation: &mut Generation, end: Sequence, newest: bool) -> Result<Tally, StoreError> {
        let dir = generation.dir.clone();
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let sealed = generation.is_sealed();
        let state = if sealed || !newest { State::Sealed } else { State::Open };
        let (lane, bytes) = (self.lane, generation.bytes);
        let torn_seal = !sealed && dir.join("sealed").exists();
        let mut tally = Tally { lane, name, state, frames: 0, waiting: 0, damaged: 0, torn_seal, bytes };
        let missing = generation.load(end).map_err(|source| StoreError::Directory { path: dir.clone(), source })?;
        if !dir.exists() {
            return Ok(Tally { state: State::Gone, torn_seal: false, ..tally });
        }
        tally.damaged = missing;
        for entry in generation.entries().unwrap_or_default() {
            tally.frames += u64::from(entry.count);
            let waiting = u64::from(entry.count.saturating_sub((self.done.bits(entry) & full(entry)).count_ones()));
            if waiting == 0 && !self.thorough {
                continue;
            }
            let block = generation.block(entry);
            match block.map_err(|source| StoreError::Directory { path: dir.clone(), source })? {
                Some(block) => self.block(entry, &block.frames, &mut tally)?,
                // Nobody waits for a block that is done.
                None => tally.damaged += waiting,
            }
        }
        generation.unload();
        Ok(tally)
    }

    fn block(&mut self, entry: &Entry, frames: &[(Sequence, Vec<u8>)], tally: &mut Tally) -> Result<(), StoreError> {
        let bits = self.done.bits(entry);
        for ((sequence, bytes), bit) in frames.iter().zip(0u32..) {
            if bits & 1u32.checked_shl(bit).unwrap_or(0) != 0 {
                continue;
            }
            if block::decode_frame(bytes).is_none() {
                tally.damaged += 1;
                continue;
            }
            tally.waiting += 1;
            self.visitor.frame(self.lane, *sequence, bytes)?;
        }
        Ok(())
    }
}

fn full(entry: &Entry) -> u32 {
    u32::MAX.checked_shr(32u32.saturating_sub(entry.count)).unwrap_or(0)
}
