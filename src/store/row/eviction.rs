//! Giving up frames when the store is full: the oldest of the meters that hold most.
//!
//! What is left of a run of generations is written into a new one beside them (`next-...`), which
//! takes their place when the cursor that names it is durable ([`Swap`]). A power cut before that
//! leaves the run as it was, one after it is completed by the next start.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use super::super::block;
use super::super::ledger::Losses;
use super::super::source::{Census, Quotas, source_of};
use super::{Generation, Row, Swap};
use crate::model::Sequence;
use crate::os::file::sync_directory;

const NEXT: &str = "next";
/// The most generations replaced at a time.
const LONGEST_RUN: usize = 16;
/// What is kept is written in portions of this size.
const PORTION: usize = 256 * 1024;

/// What was given up, and what is to be removed when that is durable.
#[derive(Debug, Default)]
pub(in super::super) struct Eviction {
    pub(in super::super) losses: Losses,
    pub(in super::super) doomed: Vec<Generation>,
    /// `lane` is left for the caller to fill in.
    pub(in super::super) swap: Option<Swap>,
}

/// Takes a waiting frame: its number, its bytes and where to note that it is given up.
type Take<'t> = dyn FnMut(Sequence, Vec<u8>, &mut Losses) -> io::Result<()> + 't;

/// Undoes a swap that was not durable, and gives the other its name.
pub(super) fn complete(dir: &Path, swap: Option<Swap>) -> io::Result<()> {
    let mut changed = false;
    for path in fs::read_dir(dir)?.flatten().map(|e| e.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(NEXT) else { continue };
        changed = true;
        match swap.filter(|s| rest.ends_with(&format!("-{:016x}", s.nonce))) {
            Some(_) => fs::rename(&path, dir.join(format!("gen{rest}")))?,
            None => fs::remove_dir_all(&path)?,
        }
    }
    if changed { sync_directory(dir) } else { Ok(()) }
}

/// Frames on their way into the generation that replaces a run.
struct Kept<'a> {
    row: &'a Path,
    first: Sequence,
    nonce: u64,
    limit: u64,
    portion: Vec<(Sequence, Vec<u8>)>,
    bytes: usize,
    into: Option<Generation>,
}

impl Kept<'_> {
    fn add(&mut self, sequence: Sequence, bytes: Vec<u8>) -> io::Result<()> {
        self.bytes += bytes.len();
        self.portion.push((sequence, bytes));
        if self.bytes >= PORTION { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        let portion = std::mem::take(&mut self.portion);
        self.bytes = 0;
        let mut rest: Vec<_> = portion.iter().map(|(s, bytes)| (*s, bytes.as_slice())).collect();
        if rest.is_empty() {
            return Ok(());
        }
        let into = match &mut self.into {
            Some(into) => into,
            None => self.into.insert(Generation::create_as(NEXT, self.row, self.first, self.nonce)?),
        };
        let mut groups = Vec::new();
        while !rest.is_empty() {
            let count = block::take(rest.iter().map(|(_, bytes)| bytes.len())).clamp(1, rest.len());
            groups.push(rest.drain(..count).collect());
        }
        into.write(&groups)
    }

    fn is_full(&self) -> bool {
        self.into.as_ref().is_some_and(|g| g.payload >= self.limit)
    }
}

impl Row {
    /// Takes frames out of the row until about `wanted` bytes of disk are free: the oldest ones of
    /// the meters with the largest shares; the newest of each meter stays. `None`: nothing there.
    ///
    /// # Errors
    /// When what is to be kept can't be read or written; the row is then as it was.
    pub(in super::super) fn evict(
        &mut self,
        wanted: u64,
        limit: u64,
        nonce: &mut dyn FnMut() -> u64,
    ) -> io::Result<Option<Eviction>> {
        if self.generations.is_empty() {
            return Ok(None);
        }
        let mut quotas = self.quotas(wanted)?;
        let Some(run) = self.run(&quotas, limit)? else { return self.evict_oldest().map(Some) };
        let mut losses = Losses::default();
        let first = self.generations.get(run.start).map_or(0, |g| g.first);
        let nonce = nonce();
        let dir = self.dir.clone();
        let mut kept = Kept { row: &dir, first, nonce, limit, portion: Vec::new(), bytes: 0, into: None };
        let mut end = run.start;
        let outcome = (|| {
            for at in run.clone() {
                if kept.is_full() {
                    break;
                }
                self.sift(at, &mut losses, &mut |sequence, bytes, losses| {
                    let meter = source_of(&bytes);
                    if quotas.take(&meter, bytes.len() as u64) {
                        losses.add(sequence, &meter);
                        Ok(())
                    } else {
                        kept.add(sequence, bytes)
                    }
                })?;
                end = at + 1;
            }
            kept.write()
        })();
        let into = kept.into.take();
        if let Err(error) = outcome {
            if let Some(mut into) = into {
                into.close(false);
                let _ = fs::remove_dir_all(&into.dir);
            }
            return Err(error);
        }
        if losses.frames == 0 {
            // Shares too even, or frames too large: then age alone decides.
            if let Some(mut into) = into {
                into.close(false);
                fs::remove_dir_all(&into.dir)?;
            }
            return self.evict_oldest().map(Some);
        }
        Ok(Some(self.replace(run.start..end, into, nonce, losses)))
    }

    /// Takes the oldest generation out of the row, whatever waits in it.
    pub(in super::super) fn evict_oldest(&mut self) -> io::Result<Eviction> {
        let mut losses = Losses::default();
        let read = self.sift(0, &mut losses, &mut |sequence, bytes, losses| {
            losses.add(sequence, &source_of(&bytes));
            Ok(())
        });
        let Some(mut oldest) = self.remove(0) else { return Ok(Eviction::default()) };
        oldest.close(false);
        let waiting = oldest.frames.saturating_sub(oldest.done);
        if read.is_err() || losses.frames != waiting {
            losses = Losses::default();
            losses.add_unread(oldest.first, oldest.last, waiting);
        }
        Ok(Eviction { losses, doomed: vec![oldest], swap: None })
    }

    /// What each meter has to give up.
    fn quotas(&mut self, wanted: u64) -> io::Result<Quotas> {
        let mut all = Census::default();
        for at in 0..self.generations.len() {
            all.merge(&self.census(at)?);
        }
        let payload = all.total();
        // What is wanted is disk, which is more than payload.
        let share = u128::from(wanted) * u128::from(payload) / u128::from(self.bytes().max(1));
        Ok(all.quotas(u64::try_from(share).unwrap_or(u64::MAX).min(payload)))
    }

    /// Whose frames a generation holds. Without a seal its blocks tell, which counts what is missing.
    fn census(&mut self, at: usize) -> io::Result<Census> {
        if let Some(known) = self.generations.get(at).map_or(Ok(None), Generation::census)? {
            return Ok(known);
        }
        self.load(at)?;
        Ok(self.generations.get(at).map_or(Ok(None), Generation::census)?.unwrap_or_default())
    }

    /// The oldest generations that hold something to give. Small ones before them come along, so that
    /// leftovers do not pile up.
    fn run(&mut self, quotas: &Quotas, limit: u64) -> io::Result<Option<Range<usize>>> {
        let mut start = None;
        let mut found = false;
        for at in 0..self.generations.len() {
            let census = self.census(at)?;
            let (whole, worth) = (census.total(), quotas.of(&census) > 0);
            if start.is_some_and(|s| at - s >= LONGEST_RUN) || (found && !worth) {
                return Ok(start.map(|s| s..at));
            }
            if worth {
                found = true;
                start = start.or(Some(at));
            } else if whole < limit / 2 {
                start = start.or(Some(at));
            } else {
                start = None;
            }
        }
        Ok(start.filter(|_| found).map(|s| s..self.generations.len()))
    }

    /// Passes every waiting frame of a generation to `take`, oldest first.
    fn sift(&mut self, at: usize, losses: &mut Losses, take: &mut Take<'_>) -> io::Result<()> {
        self.load(at)?;
        let count = self.generations.get(at).and_then(Generation::entries).map_or(0, <[_]>::len);
        for i in 0..count {
            let Some(entry) = self.entry(at, i).filter(|e| !self.is_done(e)) else { continue };
            let Some(block) = self.block(at, &entry)? else {
                self.give_up(at, &entry);
                continue;
            };
            let bits = self.bits(&entry);
            for ((sequence, bytes), bit) in block.frames.into_iter().zip(0u32..) {
                if bits & (1 << bit) == 0 {
                    take(sequence, bytes, losses)?;
                }
            }
        }
        Ok(())
    }

    /// Puts `into` in the place of a run.
    fn replace(&mut self, run: Range<usize>, into: Option<Generation>, nonce: u64, losses: Losses) -> Eviction {
        let start = run.start;
        let mut doomed: Vec<_> = self.generations.drain(run).collect();
        doomed.iter_mut().for_each(|g| g.close(false));
        let first = doomed.first().map_or(0, |g| g.first);
        let last = doomed.iter().map(|g| g.last.max(g.first)).max().unwrap_or(0);
        self.partial.retain(|block, _| !(first..=last).contains(block));
        if let Some(mut into) = into {
            into.close(true);
            self.generations.insert(start, into);
        } else if start == 0 {
            self.pass(last);
        }
        Eviction { losses, doomed, swap: Some(Swap { lane: 0, nonce, first, last }) }
    }

    /// Gives generations that have replaced others their name; the cursor that says so is durable.
    pub(in super::super) fn settle(&mut self) -> io::Result<()> {
        for generation in &mut self.generations {
            let name = generation.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix(NEXT) else { continue };
            let named = self.dir.join(format!("gen{rest}"));
            fs::rename(&generation.dir, &named)?;
            generation.dir = named;
            sync_directory(&self.dir)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::block::encode_frame;
    use super::super::LaneCursor;
    use super::*;
    use crate::model::{Body, Frame, Lane, Reading, Stamp, Timestamp};

    fn reading(meter: &str, number: u64) -> Vec<u8> {
        let body = Body::Reading(Reading { meter: format!("{meter}{:300}", ""), values: Vec::new() });
        encode_frame(&Frame {
            time: Stamp::synced(Timestamp::from_millis(number as i64)),
            lane: Lane::Ordinary,
            body,
            origin: None,
        })
        .unwrap()
    }

    /// A row in which every tenth frame is of "quiet", and its frames.
    fn filled(dir: &Path) -> (Row, Vec<(Sequence, Vec<u8>)>) {
        let mut row = Row::open(dir, LaneCursor::default(), None).unwrap().0;
        let frames: Vec<_> = (1..=3000).map(|n| (n, reading(if n % 10 == 0 { "quiet" } else { "loud" }, n))).collect();
        let borrowed: Vec<_> = frames.iter().map(|(n, bytes)| (*n, bytes.as_slice())).collect();
        let (mut nonce, mut durable) = (0, 0);
        let mut next = || {
            nonce += 1;
            nonce
        };
        row.write(&borrowed, 128 * 1024, &mut next, &mut durable).unwrap();
        assert_eq!(durable, 3000);
        (row, frames)
    }

    fn contents(row: &mut Row) -> Vec<(Sequence, Vec<u8>)> {
        let mut found = Vec::new();
        let whole = row.peek(0, &mut |sequence, bytes| {
            found.push((sequence, bytes.to_vec()));
            true
        });
        assert!(whole.unwrap());
        found
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &target)
            } else {
                fs::copy(entry.path(), target).map(drop).unwrap()
            }
        }
    }

    #[test]
    fn a_replacement_counts_from_the_cursor_that_names_it_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("row");
        let (mut row, frames) = filled(&place);
        let eviction = row.evict(256 * 1024, 128 * 1024, &mut || 99).unwrap().unwrap();
        let swap = eviction.swap.unwrap();
        let left = contents(&mut row);
        assert!(eviction.losses.frames > 100 && left.len() as u64 == 3000 - eviction.losses.frames);
        assert!(frames.iter().filter(|(n, _)| n % 10 == 0).all(|quiet| left.contains(quiet)));

        let undone = dir.path().join("undone");
        copy(&place, &undone);
        let (mut before, replaced) = Row::open(&undone, LaneCursor::default(), None).unwrap();
        assert!(replaced.is_empty() && contents(&mut before) == frames, "without the cursor nothing has happened");

        let done = dir.path().join("done");
        copy(&place, &done);
        for again in 0..2 {
            let (mut after, replaced) = Row::open(&done, row.cursor(), Some(swap)).unwrap();
            assert_eq!(replaced.len(), eviction.doomed.len(), "start {again} removes what was replaced");
            assert!(contents(&mut after) == left);
        }
        row.settle().unwrap();
        assert!(contents(&mut row) == left);
    }

    #[test]
    fn damage_to_what_was_acknowledged_while_running_takes_no_waiting_frame_along() {
        let dir = tempfile::tempdir().unwrap();
        let (mut row, frames) = filled(dir.path());
        row.close();
        let second: Vec<_> = row.generations.get(1).map(|g| g.first..=g.last).unwrap().collect();
        let mut count = 0;
        row.commit(&second[..100], &mut count).unwrap();
        assert_eq!((count, contents(&mut row).len()), (100, 2900));
        assert!(row.generations[1].entries().is_none(), "others were read since");
        let db = row.generations[1].dir.join("db");
        let mut raw = fs::read(&db).unwrap();
        raw[..8192].fill(0xA5);
        fs::write(&db, raw).unwrap();
        row.commit(&second[100..second.len() - 10], &mut count).unwrap();
        assert_eq!(row.take_damaged().frames, 0);
        assert!(row.finished(false).is_empty());
        let left = contents(&mut row);
        assert_eq!(left.len() as u64, 3000 - count);
        assert!(left.ends_with(&frames[frames.len() - 500..]));
    }

    #[test]
    fn frames_acknowledged_out_of_order_do_not_come_back_by_a_replacement() {
        let dir = tempfile::tempdir().unwrap();
        let (mut row, _) = filled(dir.path());
        let acknowledged: Vec<_> = (1..=3000).filter(|n| n % 3 == 0).collect();
        let mut count = 0;
        row.commit(&acknowledged, &mut count).unwrap();
        let eviction = row.evict(256 * 1024, 128 * 1024, &mut || 99).unwrap().unwrap();
        let left = contents(&mut row);
        assert!(left.iter().all(|(n, _)| n % 3 != 0));
        assert_eq!(left.len() as u64 + eviction.losses.frames + count, 3000);
        assert_eq!(row.waiting(), left.len() as u64);
        let rest: Vec<_> = left.iter().map(|(n, _)| *n).collect();
        row.commit(&rest, &mut count).unwrap();
        assert_eq!((row.waiting(), contents(&mut row).len()), (0, 0));
    }
}
