//! Keeps on disk what was delivered, and only once it is durable.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::state::{self, State};
use crate::os::file;

/// Asks to be told when every frame handed over before it is durable: with how many frames were
/// lost on the way since the start, or `None` when the disk refuses just now.
pub type Marker = oneshot::Sender<Option<u64>>;

/// After a disk that refused.
const AGAIN: Duration = Duration::from_secs(10);

/// The states of all profiles; clones share them.
#[derive(Debug, Clone)]
pub struct Keeper(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    /// What waits to be written, by meter; a newer state replaces an older one.
    waiting: Mutex<BTreeMap<String, Note>>,
    news: Notify,
    closed: AtomicBool,
    /// Wakes who waits for a disk that refused.
    closing: Notify,
}

#[derive(Debug)]
struct Note {
    state: State,
    lost: Arc<AtomicBool>,
}

impl Keeper {
    /// Keeps its files in `directory`, which is made when the first one is written.
    pub fn new(directory: PathBuf) -> Self {
        let (waiting, closed) = (Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Shared { directory, waiting, news: Notify::new(), closed, closing: Notify::new() }))
    }

    /// The state of a meter's profile; an empty one when there is none that can be used.
    pub fn load(&self, meter: &str, id: &str) -> State {
        let path = self.path(meter);
        match file::read_small(&path, state::LARGEST) {
            Ok(content) => State::decode(&content, id).unwrap_or_else(|| {
                warn!(meter, file = %path.display(), "what was delivered of the meter's profile is damaged or of another profile; its intervals are delivered again");
                State::new(id)
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    warn!(meter, file = %path.display(), %error, "what was delivered of the meter's profile can't be read; its intervals are delivered again");
                }
                State::new(id)
            }
        }
    }

    /// Has a state written as soon as every frame handed over until now is durable. When frames
    /// were lost on the way it is not written, and `lost` is set.
    /// A state whose `lost` is set already is not written either.
    pub(super) fn note(&self, meter: &str, state: State, lost: Arc<AtomicBool>) {
        self.waiting().insert(meter.to_owned(), Note { state, lost });
        self.0.news.notify_one();
    }

    /// Writes until it is closed and nothing waits any more, or nobody answers markers.
    pub async fn run(&self, markers: mpsc::Sender<Marker>) {
        let mut lost_before = 0;
        let mut refused = false;
        loop {
            if self.waiting().is_empty() {
                if self.0.closed.load(Ordering::Relaxed) {
                    return;
                }
                self.0.news.notified().await;
                continue;
            }
            let mut notes = std::mem::take(&mut *self.waiting());
            let (marker, durable) = oneshot::channel();
            if markers.send(marker).await.is_err() {
                return;
            }
            let written = match durable.await {
                Err(_) => return,
                Ok(None) => false,
                Ok(Some(lost)) if lost != lost_before => {
                    lost_before = lost;
                    notes.values().for_each(|note| note.lost.store(true, Ordering::Relaxed));
                    continue;
                }
                Ok(Some(_)) => {
                    // A bad card takes seconds to sync, and the lines must not wait for it.
                    let keeper = self.clone();
                    let work = move || (keeper.write(&notes), notes);
                    let Ok((outcome, back)) = tokio::task::spawn_blocking(work).await else { return };
                    notes = back;
                    match outcome {
                        Ok(()) => true,
                        Err(error) if refused => {
                            debug!(%error, "what was delivered of the profiles still can't be written");
                            false
                        }
                        Err(error) => {
                            warn!(%error, "what was delivered of the profiles can't be written; after a restart intervals are delivered again");
                            false
                        }
                    }
                }
            };
            refused = !written;
            if !written {
                self.put_back(notes);
                if self.0.closed.load(Ordering::Relaxed) {
                    return;
                }
                // Once it is closed there is one last attempt.
                tokio::select! {
                    () = sleep(AGAIN) => {}
                    () = self.0.closing.notified() => {}
                }
            }
        }
    }

    /// Has [`run`](Self::run) end when nothing waits any more.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
        self.0.news.notify_one();
        self.0.closing.notify_one();
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Note>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What could not be written waits again, unless something newer does.
    fn put_back(&self, notes: BTreeMap<String, Note>) {
        let mut waiting = self.waiting();
        for (meter, note) in notes {
            waiting.entry(meter).or_insert(note);
        }
    }

    fn write(&self, notes: &BTreeMap<String, Note>) -> io::Result<()> {
        if !self.0.directory.is_dir() {
            fs::create_dir_all(&self.0.directory)?;
            file::sync_directory(self.0.directory.parent().unwrap_or(Path::new(".")))?;
        }
        for (meter, note) in notes.iter().filter(|(_, note)| !note.lost.load(Ordering::Relaxed)) {
            file::write_atomic(&self.path(meter), &note.state.encode(), 0o600)?;
        }
        Ok(())
    }

    fn path(&self, meter: &str) -> PathBuf {
        self.0.directory.join(file_name(meter))
    }
}

/// A file name for any meter's name: letters, digits, `-` and `_` stay, other bytes become `%XX`;
/// a name too long for a file ends in its checksum.
fn file_name(meter: &str) -> String {
    use std::fmt::Write;
    const LONGEST: usize = 200;
    let mut name = String::new();
    for byte in meter.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "%{byte:02X}");
        }
    }
    if name.len() > LONGEST {
        let sum = crc::Crc::<u64>::new(&crc::CRC_64_XZ).checksum(meter.as_bytes());
        name.truncate(LONGEST);
        let _ = write!(name, "%{sum:016x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let mut state = State::new("P.01");
        state.covered.add(0, 900_000);
        state
    }

    #[test]
    fn every_meter_has_a_file_of_its_own_inside_the_directory() {
        let names = ["m", "M", "../m", "a/b", "a%2Fb", "", ".", "ß", "a.b", "a.new"];
        let files: std::collections::BTreeSet<_> = names.iter().map(|n| file_name(n)).collect();
        assert_eq!(files.len(), names.len());
        assert!(files.iter().all(|f| !f.contains('/') && !f.contains('.')));
        let (long, longer) = ("x".repeat(300), "x".repeat(301));
        assert!(file_name(&long).len() < 250 && file_name(&long) != file_name(&longer));
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_is_written_only_when_the_frames_before_it_are_durable() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("profiles");
        let keeper = Keeper::new(directory.clone());
        let lost = Arc::new(AtomicBool::new(false));
        let (markers, mut asked) = mpsc::channel::<Marker>(1);
        let running = tokio::spawn({
            let keeper = keeper.clone();
            async move { keeper.run(markers).await }
        });
        keeper.note("m/1", state(), lost.clone());
        let marker = asked.recv().await.unwrap();
        assert!(!directory.exists());
        // The disk refuses: it is asked again.
        marker.send(None).unwrap();
        let marker = asked.recv().await.unwrap();
        assert!(!directory.exists());
        marker.send(Some(0)).unwrap();
        keeper.note("other", state(), lost.clone());
        let marker = asked.recv().await.unwrap();
        assert_eq!(keeper.load("m/1", "P.01"), state());
        assert_eq!(keeper.load("m/1", "P.02"), State::new("P.02"));
        // A frame was lost: nothing is written, and the reader is told.
        marker.send(Some(1)).unwrap();
        keeper.close();
        running.await.unwrap();
        assert!(lost.load(Ordering::Relaxed));
        assert_eq!(keeper.load("other", "P.01"), State::new("P.01"));
    }

    #[tokio::test(start_paused = true)]
    async fn closing_does_not_wait_out_the_pause_after_a_disk_that_refused() {
        crate::pace::hold();
        let home = tempfile::tempdir().unwrap();
        // A file stands where the directory would be.
        let directory = home.path().join("profiles");
        fs::write(&directory, "").unwrap();
        let keeper = Keeper::new(directory.clone());
        let (markers, mut asked) = mpsc::channel::<Marker>(1);
        let running = tokio::spawn({
            let keeper = keeper.clone();
            async move { keeper.run(markers).await }
        });
        keeper.note("m", state(), Arc::default());
        asked.recv().await.unwrap().send(Some(0)).unwrap();
        // It waits once what could not be written waits again.
        while keeper.waiting().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
        fs::remove_file(&directory).unwrap();
        keeper.close();
        let last = async { asked.recv().await.unwrap().send(Some(0)).unwrap() };
        tokio::time::timeout(AGAIN / 3, last).await.expect("no pause is waited out");
        tokio::time::timeout(AGAIN / 3, running).await.unwrap().unwrap();
        assert_eq!(keeper.load("m", "P.01"), state(), "and it is written after all");
    }

    #[tokio::test]
    async fn a_disk_that_takes_long_does_not_hold_the_runtime_up() {
        let home = tempfile::tempdir().unwrap();
        let keeper = Keeper::new(home.path().join("profiles"));
        let (markers, mut asked) = mpsc::channel::<Marker>(1);
        let running = tokio::spawn({
            let keeper = keeper.clone();
            async move { keeper.run(markers).await }
        });
        for number in 0..300 {
            keeper.note(&format!("m{number}"), state(), Arc::default());
        }
        let turns = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counter = turns.clone();
        let others = tokio::spawn(async move {
            loop {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let marker = asked.recv().await.unwrap();
        let before = turns.load(Ordering::Relaxed);
        marker.send(Some(0)).unwrap();
        keeper.close();
        running.await.unwrap();
        let meanwhile = turns.load(Ordering::Relaxed) - before;
        others.abort();
        assert_eq!(keeper.load("m299", "P.01"), state());
        // Written by the runtime's own thread, the 300 files would leave no other task its turn.
        assert!(meanwhile > 50, "{meanwhile} turns of the others");
    }
}
