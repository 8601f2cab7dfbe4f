//! One lane on disk: a row of generations, written at its end, acknowledged at its head.

mod eviction;

pub(super) use self::eviction::Eviction;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::block::{self, Block};
use super::cursor::{LaneCursor, Swap};
use super::generation::{Generation, disk_bytes};
use super::ledger::Losses;
use super::scan::Entry;
use crate::model::Sequence;
use crate::os::file::sync_directory;

/// Sealed generations whose blocks are known in memory: the head and the one being peeked.
const LOADED: usize = 2;
/// A newest generation without waiting frames is removed once it has taken this much.
const RETIRE: u64 = 256 * 1024;

/// The generations of one lane and what was acknowledged of them.
#[derive(Debug)]
pub(super) struct Row {
    dir: PathBuf,
    generations: VecDeque<Generation>,
    /// Every block that starts below it is done.
    low: Sequence,
    partial: BTreeMap<Sequence, u32>,
    /// Durable frames that turned out unreadable since the last [`Row::take_damaged`].
    damaged: Losses,
}

fn full(entry: &Entry) -> u32 {
    u32::MAX.checked_shr(32u32.saturating_sub(entry.count)).unwrap_or(0)
}

impl Row {
    /// Finds what is in `dir` and counts what waits there. A `swap` of this lane that was durable is
    /// completed, one that was not is undone. Returns what a swap has replaced, too.
    pub(super) fn open(dir: &Path, cursor: LaneCursor, swap: Option<Swap>) -> io::Result<(Self, Vec<Generation>)> {
        fs::create_dir_all(dir)?;
        eviction::complete(dir, swap)?;
        let mut generations: Vec<_> =
            fs::read_dir(dir)?.flatten().filter_map(|e| Generation::found(&e.path())).collect();
        let is_replaced =
            |g: &mut Generation| swap.is_some_and(|s| (s.first..=s.last).contains(&g.first) && g.nonce != s.nonce);
        let replaced = generations.extract_if(.., is_replaced).collect();
        generations.sort_by(|a, b| (a.first, &a.dir).cmp(&(b.first, &b.dir)));
        drop_twins(&mut generations)?;
        let (low, partial) = (cursor.low, cursor.partial.into_iter().collect());
        let mut row =
            Self { dir: dir.to_owned(), generations: generations.into(), low, partial, damaged: Losses::default() };
        for at in 0..row.generations.len() {
            row.count(at)?;
        }
        Ok((row, replaced))
    }

    /// Finds out how much of a generation is done and seals it if that was not done.
    fn count(&mut self, at: usize) -> io::Result<()> {
        let low = self.low;
        let Some(generation) = self.generations.get_mut(at) else { return Ok(()) };
        if generation.is_sealed() && generation.last < low {
            generation.done = generation.frames;
            return Ok(());
        }
        let mut touching = self.partial.range(generation.first..).take_while(|(first, _)| **first <= generation.last);
        let touched = generation.first < low || touching.next().is_some();
        if generation.is_sealed() && !touched {
            return Ok(());
        }
        self.load(at)?;
        let Some(generation) = self.generations.get(at) else { return Ok(()) };
        let entries = generation.entries().unwrap_or_default();
        let done = entries.iter().map(|e| u64::from((self.bits(e) & full(e)).count_ones())).sum();
        if let Some(generation) = self.generations.get_mut(at) {
            generation.done = done;
            if !generation.is_sealed() {
                generation.seal_found()?;
            }
        }
        Ok(())
    }

    fn bits(&self, entry: &Entry) -> u32 {
        if entry.first < self.low { u32::MAX } else { self.partial.get(&entry.first).copied().unwrap_or(0) }
    }

    fn is_done(&self, entry: &Entry) -> bool {
        self.bits(entry) & full(entry) == full(entry)
    }

    /// Loads the blocks of a generation and forgets those of others beyond [`LOADED`].
    fn load(&mut self, at: usize) -> io::Result<()> {
        if self.generations.get(at).is_none_or(|g| g.entries().is_some()) {
            return Ok(());
        }
        let loaded: Vec<_> = (0..self.generations.len())
            .filter(|i| self.generations.get(*i).is_some_and(|g| !g.is_open() && g.entries().is_some()))
            .collect();
        // The head goes last: commits fall there.
        for i in loaded.iter().rev().take((loaded.len() + 1).saturating_sub(LOADED)) {
            if let Some(generation) = self.generations.get_mut(*i) {
                generation.unload();
            }
        }
        let end = self.generations.get(at + 1).map_or(Sequence::MAX, |next| next.first);
        let missing = self.generations.get_mut(at).map_or(Ok(0), |generation| generation.load(end))?;
        if missing > 0 {
            self.miss(at, missing);
        }
        Ok(())
    }

    /// Counts `missing` frames of a generation just loaded as damaged, but for those that were done
    /// with, and seals what is left: a later start must not count them again.
    fn miss(&mut self, at: usize, missing: u64) {
        let Some(generation) = self.generations.get(at) else { return };
        let entries = generation.entries().unwrap_or_default();
        let done = entries.iter().map(|e| u64::from((self.bits(e) & full(e)).count_ones())).sum();
        let is_gone = |first: &Sequence| entries.binary_search_by_key(first, |e| e.first).is_err();
        let touched = self.partial.range(generation.first..).take_while(|(first, _)| **first <= generation.last);
        let told: u64 = touched.filter(|(first, _)| is_gone(first)).map(|(_, bits)| u64::from(bits.count_ones())).sum();
        // At a start nobody has counted yet what was done with.
        let over = generation.done.saturating_sub(done).max(told);
        let (first, last) = (generation.first, generation.last);
        self.damaged.add_unread(first, last, missing.saturating_sub(over));
        if let Some(generation) = self.generations.get_mut(at) {
            generation.done = done;
            generation.seal_again();
        }
    }

    /// Writes frames as blocks, makes them durable and tells the last number of which that is
    /// true. After an error the others are not in the row, and the generation that failed is closed.
    pub(super) fn write(
        &mut self,
        frames: &[(Sequence, &[u8])],
        limit: u64,
        nonce: &mut dyn FnMut() -> u64,
        durable: &mut Sequence,
    ) -> io::Result<()> {
        let mut rest = frames;
        while let Some((first, _)) = rest.first() {
            match self.generations.back_mut() {
                Some(newest) if newest.is_open() && newest.payload >= limit => newest.close(true),
                Some(newest) if newest.is_open() => {}
                _ => self.generations.push_back(Generation::create(&self.dir, *first, nonce())?),
            }
            let Some(newest) = self.generations.back_mut().filter(|g| g.is_open()) else { continue };
            let mut room = limit.saturating_sub(newest.payload);
            let mut groups = Vec::new();
            while room > 0 && !rest.is_empty() {
                let count = block::take(rest.iter().map(|(_, bytes)| bytes.len()));
                let (group, after) = rest.split_at(count.clamp(1, rest.len()));
                room = room.saturating_sub(group.iter().map(|(_, bytes)| bytes.len() as u64).sum());
                groups.push(group.to_vec());
                rest = after;
            }
            if let Err(error) = newest.write(&groups) {
                self.abandon();
                return Err(error);
            }
            *durable = newest.last;
        }
        Ok(())
    }

    /// Closes the newest generation after an error. Without durable frames it is finished, and
    /// removed like any other: until that works, not just once.
    fn abandon(&mut self) {
        if let Some(newest) = self.generations.back_mut() {
            newest.close(newest.frames > 0);
        }
    }

    /// Passes waiting frames above `after` to `take`, oldest first, until it says false.
    pub(super) fn peek(&mut self, after: Sequence, take: &mut dyn FnMut(Sequence, &[u8]) -> bool) -> io::Result<bool> {
        for at in 0..self.generations.len() {
            if self.generations.get(at).is_none_or(|g| g.last <= after || g.done >= g.frames) {
                continue;
            }
            self.load(at)?;
            let entries = self.generations.get(at).and_then(|g| g.entries()).unwrap_or_default();
            let start = entries.partition_point(|e| e.last <= after);
            for i in start..entries.len() {
                let Some(entry) = self.entry(at, i).filter(|e| !self.is_done(e)) else { continue };
                let Some(block) = self.block(at, &entry)? else {
                    self.give_up(at, &entry);
                    continue;
                };
                let bits = self.bits(&entry);
                for ((sequence, bytes), bit) in block.frames.iter().zip(0u32..) {
                    if *sequence > after && bits & (1 << bit) == 0 && !take(*sequence, bytes) {
                        return Ok(false);
                    }
                }
            }
        }
        self.advance();
        Ok(true)
    }

    fn block(&self, at: usize, entry: &Entry) -> io::Result<Option<Block>> {
        self.generations.get(at).map_or(Ok(None), |generation| generation.block(entry))
    }

    fn entry(&self, at: usize, i: usize) -> Option<Entry> {
        self.generations.get(at)?.entries()?.get(i).cloned()
    }

    /// Counts what is left of an unreadable block as damaged.
    fn give_up(&mut self, at: usize, entry: &Entry) {
        let left = u64::from((full(entry) & !self.bits(entry)).count_ones());
        self.partial.insert(entry.first, full(entry));
        self.damaged.add_unread(entry.first, entry.last, left);
        if let Some(generation) = self.generations.get_mut(at) {
            generation.done += left;
            generation.damaged = true;
        }
    }

    /// Marks frames as acknowledged and adds to `count` how many were waiting here. `sequences`
    /// ascend. After an error the others are marked all the same.
    pub(super) fn commit(&mut self, sequences: &[Sequence], count: &mut u64) -> io::Result<()> {
        let mut outcome = Ok(());
        let mut open: Option<(usize, Entry, Vec<Sequence>)> = None;
        for &sequence in sequences {
            if !open.as_ref().is_some_and(|(_, e, _)| (e.first..=e.last).contains(&sequence)) {
                open = self.locate(sequence).unwrap_or_else(|error| {
                    outcome = Err(error);
                    None
                });
            }
            let Some((at, entry, members)) = &open else { continue };
            let Ok(bit) = members.binary_search(&sequence) else { continue };
            let bit = 1u32 << bit;
            if self.bits(entry) & bit == 0 {
                *self.partial.entry(entry.first).or_default() |= bit;
                *count += 1;
                if let Some(generation) = self.generations.get_mut(*at) {
                    generation.done += 1;
                }
            }
        }
        self.advance();
        outcome
    }

    fn locate(&mut self, sequence: Sequence) -> io::Result<Option<(usize, Entry, Vec<Sequence>)>> {
        let at = self.generations.partition_point(|g| g.last < sequence);
        if self.generations.get(at).is_none_or(|g| g.first > sequence || g.done >= g.frames) {
            return Ok(None);
        }
        self.load(at)?;
        let entries = self.generations.get(at).and_then(|g| g.entries()).unwrap_or_default();
        let i = entries.partition_point(|e| e.last < sequence);
        let Some(entry) = self.entry(at, i).filter(|e| e.first <= sequence && !self.is_done(e)) else {
            return Ok(None);
        };
        match self.block(at, &entry)? {
            Some(block) => Ok(Some((at, entry, block.frames.into_iter().map(|f| f.0).collect()))),
            None => {
                self.give_up(at, &entry);
                Ok(None)
            }
        }
    }

    /// Moves `low` over the blocks at the head that are done.
    fn advance(&mut self) {
        let Some(entries) = self.generations.front().and_then(|g| g.entries()) else { return };
        let start = entries.partition_point(|e| e.first < self.low);
        let done = entries.get(start..).unwrap_or_default().iter().take_while(|e| self.is_done(e));
        if let Some(last) = done.last().map(|e| e.last) {
            self.pass(last);
        }
    }

    fn pass(&mut self, last: Sequence) {
        self.low = self.low.max(last.saturating_add(1));
        self.partial = self.partial.split_off(&self.low);
    }

    /// Takes the generations out of the row that hold nothing waiting. The newest stays until it
    /// has grown, so that an outage of a second does not cost a database, or until the `ending`.
    pub(super) fn finished(&mut self, ending: bool) -> Vec<Generation> {
        let mut finished = Vec::new();
        let mut at = 0;
        while let Some(generation) = self.generations.get_mut(at) {
            if generation.done < generation.frames || (generation.is_open() && generation.payload < RETIRE && !ending) {
                at += 1;
                continue;
            }
            generation.close(false);
            finished.extend(self.remove(at));
        }
        finished
    }

    fn remove(&mut self, at: usize) -> Option<Generation> {
        let generation = self.generations.remove(at)?;
        if at == 0 {
            self.pass(generation.last);
        } else {
            self.partial.retain(|first, _| !(generation.first..=generation.last).contains(first));
        }
        Some(generation)
    }

    /// Seals the newest generation.
    pub(super) fn close(&mut self) {
        if let Some(newest) = self.generations.back_mut() {
            newest.close(true);
        }
    }

    /// How many frames wait on disk.
    pub(super) fn waiting(&self) -> u64 {
        self.generations.iter().map(|g| g.frames.saturating_sub(g.done)).sum()
    }

    /// Where frames wait on disk: a number each lies in, a number behind which none lies, how many.
    pub(super) fn pending(&self) -> impl Iterator<Item = (Sequence, Sequence, u64)> {
        let waiting = self.generations.iter().filter(|g| g.frames > g.done);
        waiting.map(|g| (g.first.max(self.low), g.last, g.frames - g.done))
    }

    /// Numbers above `after` that stand on disk: blocks where they are known, else generations.
    pub(super) fn above(&self, after: Sequence) -> Vec<(Sequence, Sequence, u64)> {
        let mut found = Vec::new();
        for generation in self.generations.iter().filter(|g| g.last > after) {
            match generation.entries() {
                Some(entries) => found.extend(entries.iter().map(|e| (e.first, e.last, u64::from(e.count)))),
                None => found.push((generation.first, generation.last, generation.frames)),
            }
        }
        found.retain(|(first, ..)| *first > after);
        found
    }

    /// What the row takes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.generations.iter().map(|g| g.bytes).sum()
    }

    /// The highest number on disk.
    pub(super) fn highest(&self) -> Sequence {
        self.generations.iter().map(|g| g.last.max(g.first)).max().unwrap_or(0)
    }

    /// Which frames have turned out unreadable since the last call.
    pub(super) fn take_damaged(&mut self) -> Losses {
        std::mem::take(&mut self.damaged)
    }

    /// What the cursor file keeps of the row.
    pub(super) fn cursor(&self) -> LaneCursor {
        LaneCursor { low: self.low, partial: self.partial.iter().map(|(first, bits)| (*first, *bits)).collect() }
    }
}

/// Of generations that begin with the same number, writing all but one failed and could not even
/// be undone: leaves the one that holds most. The others go when its frames are done with.
pub(super) fn drop_twins(sorted: &mut Vec<Generation>) -> io::Result<()> {
    let firsts: Vec<_> = sorted.iter().map(|g| g.first).collect();
    let mut twins: Vec<_> = firsts.windows(2).filter(|w| w.first() == w.last()).flatten().copied().collect();
    twins.dedup();
    for first in twins {
        let mut best: Option<(u64, PathBuf)> = None;
        for twin in sorted.iter_mut().filter(|g| g.first == first) {
            twin.load(Sequence::MAX)?;
            if best.as_ref().is_none_or(|(frames, _)| twin.frames > *frames) {
                best = Some((twin.frames, twin.dir.clone()));
            }
        }
        let Some((_, dir)) = best else { continue };
        sorted.retain(|g| g.first != first || g.dir == dir);
        if let Some(kept) = sorted.iter_mut().find(|g| g.dir == dir)
            && let Some(unread) = Generation::found(&dir)
        {
            *kept = unread;
        }
    }
    Ok(())
}

/// Removes a generation's directory; a damaged one is kept aside, the `keep` newest of them.
pub(super) fn discard(root: &Path, generation: &Generation, keep: usize) -> io::Result<()> {
    let name = generation.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let prefix = if generation.damaged { "quarantine" } else { "trash" };
    let aside = root.join(format!("{prefix}-{name}"));
    match fs::rename(&generation.dir, &aside) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return sweep(root, keep),
        renamed => renamed?,
    }
    sync_directory(generation.dir.parent().unwrap_or(root))?;
    sync_directory(root)?;
    sweep(root, keep)
}

/// What is kept aside takes on disk.
pub(super) fn aside_bytes(root: &Path) -> u64 {
    let aside = fs::read_dir(root).into_iter().flatten().flatten();
    let quarantine = aside.filter(|e| e.file_name().to_string_lossy().starts_with("quarantine-"));
    quarantine.map(|e| disk_bytes(&e.path())).sum()
}

/// Removes what is trash, and the oldest of what was kept aside beyond `keep`.
pub(super) fn sweep(root: &Path, keep: usize) -> io::Result<()> {
    let mut aside = Vec::new();
    for path in fs::read_dir(root)?.flatten().map(|e| e.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("trash-") {
            fs::remove_dir_all(&path)?;
        } else if name.starts_with("quarantine-") {
            aside.push((fs::metadata(&path).and_then(|m| m.modified()).ok(), path));
        }
    }
    aside.sort();
    for (_, path) in aside.iter().rev().skip(keep) {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}
