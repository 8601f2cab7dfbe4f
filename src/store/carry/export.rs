//! Writing what waits into a signed file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::format::{Header, Reader, Totals, Writer};
use super::owned;
use crate::model::{Lane, Sequence, Timestamp};
use crate::os::file::sync_directory;
use crate::store::key::{self, Key, Public};
use crate::store::survey::{Survey, Tally, Visitor};
use crate::store::{Store, StoreError, StoreSettings};

/// What to export, and where to.
#[derive(Debug)]
pub struct ExportRequest<'a> {
    /// The store.
    pub store: &'a StoreSettings,
    /// This gateway's id.
    pub gateway: &'a str,
    /// The time now.
    pub time: Timestamp,
    /// The file, which must not exist.
    pub to: &'a Path,
    /// Take the frames out of the store; no agent may run then.
    pub take: bool,
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// What the file holds; without frames no file is written.
    pub totals: Totals,
    /// The length of the file.
    pub bytes: u64,
    /// Frames that wait and could not be read: they stay where they are.
    pub damaged: u64,
    /// Frames that were taken out of the store.
    pub taken: u64,
    /// The key that signed.
    pub signer: Public,
}

/// The file under another name until it is whole; removed when it does not become so.
struct Part {
    path: PathBuf,
    done: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.path);
        }
    }
}

struct Pour<'a> {
    writer: Writer<BufWriter<File>>,
    path: &'a Path,
    damaged: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Visitor for Pour<'_> {
    fn frame(&mut self, lane: Lane, sequence: Sequence, bytes: &[u8]) -> Result<(), StoreError> {
        let written = self.writer.push(lane, sequence, bytes);
        (self.progress)(self.writer.totals().frames);
        written.map_err(|source| StoreError::File { path: self.path.to_owned(), source })
    }

    fn generation(&mut self, tally: Tally) {
        self.damaged += tally.damaged;
    }
}

/// Writes what waits in a store into a file that is durable and has been read again when this
/// returns. `progress` is told the number of frames written.
///
/// # Errors
/// [`StoreError::Missing`], [`StoreError::Exists`], [`StoreError::NoKey`], [`StoreError::Key`],
/// [`StoreError::File`], [`StoreError::Directory`]; with `take` also [`StoreError::Locked`],
/// [`StoreError::Owner`] and [`StoreError::Disk`]: then the file is whole, and what the store
/// did not note as taken is sent again.
pub async fn export(request: &ExportRequest<'_>, progress: &mut dyn FnMut(u64)) -> Result<Exported, StoreError> {
    let path = &request.store.path;
    Survey::open(path)?;
    let failed = |source| StoreError::File { path: request.to.to_owned(), source };
    if fs::symlink_metadata(request.to).is_ok() {
        return Err(StoreError::Exists { path: request.to.to_owned() });
    }
    let store = if request.take {
        owned(path)?;
        Some(Store::open(request.store)?)
    } else {
        None
    };
    let key = signing_key(path, request.take)?;
    let mut part = Part { path: beside(request.to), done: false };
    let file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part.path).map_err(failed)?;
    let header = Header { gateway: request.gateway.to_owned(), time: request.time.to_string(), taken: request.take };
    let writer = Writer::begin(BufWriter::new(file), &header).map_err(failed)?;
    let mut pour = Pour { writer, path: request.to, damaged: 0, progress };
    // Again, because opening may have counted anew.
    Survey::open(path)?.walk(false, &mut pour)?;
    let damaged = pour.damaged;
    let mut exported = Exported { totals: pour.writer.totals(), bytes: 0, damaged, taken: 0, signer: key.public() };
    if exported.totals.frames > 0 {
        let (out, totals) = pour.writer.finish(&key).map_err(failed)?;
        let file = out.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(failed)?;
        exported.bytes = file.metadata().map_err(failed)?.len();
        reread(&part.path, request.to, totals, key.public())?;
        fs::rename(&part.path, request.to).map_err(failed)?;
        part.done = true;
        sync_directory(request.to.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    }
    if let Some(store) = store {
        if exported.totals.frames > 0 {
            exported.taken = take(&store, request.to).await?;
        }
        store.close().await?;
    }
    Ok(exported)
}

fn signing_key(store: &Path, create: bool) -> Result<Key, StoreError> {
    let path = key::path_in(store);
    let key = if create { Key::open_or_create(&path) } else { Key::open(&path) };
    key.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => StoreError::NoKey { path },
        _ => StoreError::Key { path, source },
    })
}

fn beside(to: &Path) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_os_string();
    name.push(".part");
    to.with_file_name(name)
}

/// Reads what was written once more, before anything depends on it.
fn reread(written: &Path, named: &Path, totals: Totals, signer: Public) -> Result<(), StoreError> {
    let wrong = |problem| StoreError::Export { path: named.to_owned(), problem };
    let file = File::open(written).map_err(|source| StoreError::File { path: named.to_owned(), source })?;
    let mut reader = Reader::begin(BufReader::new(file)).map_err(wrong)?;
    while reader.next().map_err(wrong)?.is_some() {}
    match reader.verified() {
        Some(found) if found == (totals, signer) => Ok(()),
        _ => Err(wrong(super::FormatError::Totals)),
    }
}

/// Commits exactly what the file holds and returns how many frames waited for that.
async fn take(store: &Store, from: &Path) -> Result<u64, StoreError> {
    let wrong = |problem| StoreError::Export { path: from.to_owned(), problem };
    let file = File::open(from).map_err(|source| StoreError::File { path: from.to_owned(), source })?;
    let mut reader = Reader::begin(BufReader::new(file)).map_err(wrong)?;
    let before = store.status().borrow().acknowledged;
    while let Some(batch) = reader.next().map_err(wrong)? {
        store.commit(batch.lane, batch.frames.into_iter().map(|(sequence, ..)| sequence).collect()).await?;
    }
    store.sync().await?;
    let after = store.status().borrow().acknowledged;
    Ok(after.saturating_sub(before))
}
