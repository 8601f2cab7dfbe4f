//! Taking the frames of an export into a store.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::Path;

use super::format::{Batch, FormatError, Header, Reader, Totals};
use super::known::Known;
use super::owned;
use crate::model::{Frame, Lane, Origin, Sequence};
use crate::store::key::Public;
use crate::store::survey::{Survey, Tally, Visitor};
use crate::store::{Store, StoreError, StoreSettings, block};

/// Frames and bytes that become durable, and known, together. The store's memory takes as much
/// at any time.
const STEP_FRAMES: usize = 2_000;
const STEP_BYTES: usize = 384 * 1024;
/// The smallest store there is.
const SMALLEST: u64 = 4 * 1024 * 1024;
/// What the newest generations may take beside their frames.
const SLACK: u64 = 2 * 1024 * 1024;

/// What to import, and where to.
#[derive(Debug)]
pub struct ImportRequest<'a> {
    /// The store.
    pub store: &'a StoreSettings,
    /// This gateway's id.
    pub gateway: &'a str,
    /// The export.
    pub file: &'a Path,
    /// The key that must have signed it.
    pub key: Option<Public>,
    /// Only tell what would happen; an agent may run meanwhile.
    pub dry_run: bool,
}

/// What was imported, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Where it comes from.
    pub header: Header,
    /// What the file holds.
    pub totals: Totals,
    /// The key that signed it.
    pub signer: Public,
    /// Frames that are new here.
    pub taken: u64,
    /// Frames that were taken before or wait here.
    pub known: u64,
    /// Frames that are too large to carry their origin, by their numbers in the file: not taken.
    pub refused: Vec<Sequence>,
}

/// Takes the new frames of an export into a store; they are durable when this returns.
/// `progress` is told how many frames of the file are done.
///
/// # Errors
/// [`StoreError::Export`] and [`StoreError::Signer`] before anything is taken; [`StoreError::Room`]
/// when the store would have to give up frames; [`StoreError::Locked`], [`StoreError::Missing`],
/// [`StoreError::Owner`], [`StoreError::File`], [`StoreError::Directory`]; [`StoreError::Disk`]
/// in the middle: importing the same file again goes on where this ended.
pub async fn import(request: &ImportRequest<'_>, progress: &mut dyn FnMut(u64)) -> Result<Imported, StoreError> {
    let path = &request.store.path;
    Survey::open(path)?;
    let mut source = Source::open(request.file)?;
    let mut imported = source.verify(request.key)?;
    let store = if request.dry_run {
        None
    } else {
        owned(path)?;
        Some(Store::open(request.store)?)
    };
    let survey = Survey::open(path)?;
    let mut ask = Ask { known: Known::read(path)?, gateway: request.gateway };
    survey.walk(false, &mut ask)?;
    let mut known = ask.known;
    let needed = source.plan(&known, &mut imported)?;
    let room = request.store.max_size.bytes().max(SMALLEST).saturating_sub(survey.disk_bytes());
    if needed > room {
        return Err(StoreError::Room { needed });
    }
    if let Some(store) = store {
        imported.taken = source.pour(&store, path, &mut known, progress).await?;
        store.close().await?;
    }
    Ok(imported)
}

/// Adds what waits in the store to what is known: it may not have been recorded.
struct Ask<'a> {
    known: Known,
    gateway: &'a str,
}

impl Visitor for Ask<'_> {
    fn frame(&mut self, _: Lane, sequence: Sequence, bytes: &[u8]) -> Result<(), StoreError> {
        let origin = block::decode_frame(bytes).and_then(|frame| frame.origin);
        self.known.insert(&origin.unwrap_or_else(|| Origin { gateway: self.gateway.to_owned(), sequence }));
        Ok(())
    }

    fn generation(&mut self, _: Tally) {}
}

/// The file, read several times through the same handle.
struct Source<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> Source<'a> {
    fn open(path: &'a Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(|source| StoreError::File { path: path.to_owned(), source })?;
        Ok(Self { path, file })
    }

    fn wrong(&self, problem: FormatError) -> StoreError {
        StoreError::Export { path: self.path.to_owned(), problem }
    }

    fn read(&self) -> Result<Reader<BufReader<&File>>, StoreError> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).map_err(|e| self.wrong(FormatError::Read(e)))?;
        Reader::begin(BufReader::new(file)).map_err(|e| self.wrong(e))
    }

    /// Reads all of it and believes it only then.
    fn verify(&mut self, key: Option<Public>) -> Result<Imported, StoreError> {
        let mut reader = self.read()?;
        while reader.next().map_err(|e| self.wrong(e))?.is_some() {}
        let (totals, signer) = reader.verified().ok_or_else(|| self.wrong(FormatError::Forged))?;
        if let Some(expected) = key.filter(|k| *k != signer) {
            let [found, expected] = [signer, expected].map(|k| data_encoding::BASE64.encode(&k));
            return Err(StoreError::Signer { path: self.path.to_owned(), found, expected });
        }
        let header = reader.header().clone();
        Ok(Imported { header, totals, signer, taken: 0, known: 0, refused: Vec::new() })
    }

    /// Counts what is new and returns what that takes on disk, in bytes.
    fn plan(&mut self, known: &Known, imported: &mut Imported) -> Result<u64, StoreError> {
        let mut reader = self.read()?;
        let gateway = reader.header().gateway.clone();
        let mut bytes = 0u64;
        while let Some(batch) = reader.next().map_err(|e| self.wrong(e))? {
            for (sequence, size, frame) in frames(batch, &gateway) {
                if frame.origin.as_ref().is_some_and(|o| known.contains(o)) {
                    imported.known += 1;
                } else if size > block::MAX_FRAME {
                    imported.refused.push(sequence);
                } else {
                    imported.taken += 1;
                    bytes = bytes.saturating_add(size as u64);
                }
            }
        }
        // With room to spare: the writer takes little more than the payload.
        Ok(if bytes == 0 { 0 } else { bytes.saturating_mul(5) / 2 + SLACK })
    }

    async fn pour(
        &mut self,
        store: &Store,
        path: &Path,
        known: &mut Known,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64, StoreError> {
        let mut reader = self.read()?;
        let gateway = reader.header().gateway.clone();
        let (mut step, mut bytes, mut done, mut taken) = (Vec::new(), 0, 0, 0);
        loop {
            let batch = reader.next().map_err(|e| self.wrong(e))?;
            let last = batch.is_none();
            for (_, size, frame) in batch.into_iter().flat_map(|batch| frames(batch, &gateway)) {
                done += 1;
                if size <= block::MAX_FRAME && !frame.origin.as_ref().is_some_and(|o| known.contains(o)) {
                    bytes += size;
                    step.push(frame);
                }
                if step.len() >= STEP_FRAMES || bytes >= STEP_BYTES {
                    taken += append(store, path, std::mem::take(&mut step), known).await?;
                    bytes = 0;
                }
            }
            if last {
                taken += append(store, path, step, known).await?;
                progress(done);
                return Ok(taken);
            }
            progress(done);
        }
    }
}

/// The frames of a batch with their numbers in the file, each with its origin, and at most so
/// many bytes encoded.
fn frames(batch: Batch, gateway: &str) -> impl Iterator<Item = (Sequence, usize, Frame)> {
    // The name, its length, and a number at its longest; and a stamp where an older one had none.
    let more = gateway.len() + 5 + 10 + 32;
    batch.frames.into_iter().map(move |(sequence, length, mut frame)| {
        frame.origin.get_or_insert_with(|| Origin { gateway: gateway.to_owned(), sequence });
        let size = match length.saturating_add(more) {
            close if close > block::MAX_FRAME => block::encode_frame(&frame).map_or(usize::MAX, |f| f.len()),
            small => small,
        };
        (sequence, size, frame)
    })
}

/// Makes frames durable, then known.
async fn append(store: &Store, path: &Path, frames: Vec<Frame>, known: &mut Known) -> Result<u64, StoreError> {
    if frames.is_empty() {
        return Ok(0);
    }
    let origins: Vec<_> = frames.iter().filter_map(|f| f.origin.clone()).collect();
    let before = store.status().borrow().evicted;
    for outcome in store.append_all(frames).await {
        outcome?;
    }
    store.sync().await?;
    let evicted = store.status().borrow().evicted - before;
    origins.iter().for_each(|o| known.insert(o));
    known.write(path).map_err(|source| StoreError::Directory { path: path.to_owned(), source })?;
    if evicted > 0 {
        return Err(StoreError::Room { needed: SLACK });
    }
    Ok(origins.len() as u64)
}
