//! The book and the texts in `<store>/config/`, so that a power cut leaves the old or the new, never neither.
//!
//! ```text
//! <store>/config/lock      flock: who may change anything here
//! <store>/config/N.toml    the text of configuration N
//! <store>/config/book      what became of each (JSON), replaced whole
//! ```
//! A new text is written before the book that speaks of it, and removed after the book that no longer does.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use rustix::fs::{FlockOperation, flock};
use tracing::{error, info};

use super::Refusal;
use super::book::{Book, Proposal};
use crate::config::{LARGEST_FILE, edit};
use crate::model::Stamp;
use crate::os::file::{read_small, write_atomic};
use crate::os::seal::write_secret;

/// The folder in the store's directory.
const FOLDER: &str = "config";
const BOOK: &str = "book";
/// A book of ten entries is a few KiB.
const LARGEST_BOOK: u64 = 256 * 1024;

/// What is done to the folder, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A file is replaced whole.
    Write(String, Vec<u8>),
    /// A file that nothing speaks of any more is removed.
    Remove(String),
}

/// The hash a text is known by.
pub(super) fn hash(text: &str) -> String {
    HEXLOWER.encode(digest(&SHA256, text.as_bytes()).as_ref())
}

/// The file of a configuration's text.
pub(super) fn file_of(number: u64) -> String {
    format!("{number}.toml")
}

/// What must be done so that the folder says what `book` says; `present` are the files that are there.
pub(super) fn steps(book: &Book, text: Option<(u64, &str)>, present: &[String]) -> serde_json::Result<Vec<Step>> {
    let mut steps = Vec::new();
    if let Some((number, text)) = text {
        steps.push(Step::Write(file_of(number), text.as_bytes().to_vec()));
    }
    steps.push(Step::Write(BOOK.to_owned(), serde_json::to_vec_pretty(book)?));
    let spoken_of: Vec<String> = book.entries().iter().map(|entry| file_of(entry.number)).collect();
    let is_text = |name: &&String| name.strip_suffix(".toml").is_some_and(|n| n.parse::<u64>().is_ok());
    let left_over = present.iter().filter(is_text).filter(|name| !spoken_of.contains(name));
    steps.extend(left_over.map(|name| Step::Remove(name.clone())));
    Ok(steps)
}

/// Does one of them.
pub(super) fn take(folder: &Path, step: &Step) -> io::Result<()> {
    match step {
        // Texts are sealed where the base file is; of the book numbers and reasons can be seen.
        Step::Write(name, content) if name == BOOK => write_atomic(&folder.join(name), content, 0o600),
        Step::Write(name, content) => write_secret(&folder.join(name), content),
        // Lost in a power cut, it is removed with the next change.
        Step::Remove(name) => fs::remove_file(folder.join(name)),
    }
}

/// What the folder says, unless there is nothing or nothing sensible.
fn read(folder: &Path) -> io::Result<Option<Book>> {
    let bytes = match read_small(&folder.join(BOOK), LARGEST_BOOK) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let book: Option<Book> = serde_json::from_slice(&bytes).ok().filter(Book::is_sound);
    book.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is damaged"))
}

/// The text of a configuration, when it is what was written.
fn text_of(folder: &Path, book: &Book, number: u64) -> Result<String, Refusal> {
    let entry = book.entry(number).ok_or_else(|| Refusal::unknown(number, book))?;
    let file = folder.join(file_of(number));
    let damaged = |source| Refusal::Disk { what: format!("{} can't be read", file.display()), source };
    let bytes = read_small(&file, LARGEST_FILE).map_err(damaged)?;
    let wrong = || damaged(io::Error::new(io::ErrorKind::InvalidData, "it is damaged"));
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    if hash(&text) == entry.hash { Ok(text) } else { Err(wrong()) }
}

/// The configuration that an agent with this store and this base file runs, when it is not the base file itself; looks only.
pub fn effective(store: &Path, base: &str) -> Option<String> {
    let folder = store.join(FOLDER);
    let book = read(&folder).ok().flatten().filter(|book| book.base == hash(base))?;
    let text = text_of(&folder, &book, book.current()).ok()?;
    (text != base).then_some(text)
}

/// The configuration that was run last with a store, whatever the base file says by now; looks only.
pub fn running(store: &Path) -> Option<String> {
    let folder = store.join(FOLDER);
    let book = read(&folder).ok().flatten()?;
    text_of(&folder, &book, book.current()).ok()
}

/// The file of that configuration.
pub fn running_file(store: &Path) -> Option<PathBuf> {
    let folder = store.join(FOLDER);
    let number = read(&folder).ok().flatten()?.current();
    Some(folder.join(file_of(number)))
}

/// Where the store is that a base file names, also when the file has mistakes elsewhere.
pub fn store_of(base: &str) -> Option<PathBuf> {
    let (document, _mistakes) = toml::de::DeTable::parse_recoverable(base);
    let store = document.get_ref().get("store").and_then(|store| store.get_ref().as_table()?.get("path"));
    let written = store.and_then(|path| path.get_ref().as_str()).map(PathBuf::from);
    written.or_else(|| edit::value("", "store.path").ok().flatten().map(PathBuf::from))
}

/// Whether there is a book in a store.
pub fn is_kept(store: &Path) -> bool {
    store.join(FOLDER).join(BOOK).exists()
}

/// How often and how long after each other the lock is tried: a weir that is just ending gives it back in a moment.
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

fn wait_for(lock: &File) -> Result<(), Refusal> {
    for _ in 0..LOCK_TRIES {
        if flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(());
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Err(Refusal::Held)
}

/// The configurations of one store; held by one process at a time.
#[derive(Debug)]
pub struct History {
    folder: PathBuf,
    book: Book,
    /// Held as long as this lives; without it nothing is written.
    lock: Option<File>,
    /// What the book says could not be written: it counts until this process ends, and is tried again.
    unwritten: bool,
}

impl History {
    /// Opens the folder, makes it when there is none, and takes up `base`, the base file's text: a first book
    /// begins with it. Tells whether the base file is another one than the book knows.
    ///
    /// # Errors
    /// [`Refusal::Held`], [`Refusal::Disk`]. A damaged book is put aside and begun anew.
    pub fn open(store: &Path, base: &str, now: &Stamp) -> Result<(Self, bool), Refusal> {
        let folder = store.join(FOLDER);
        let failed = |source| Refusal::Disk { what: format!("{} can't be used", folder.display()), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(folder.join("lock"));
        let lock = lock.map_err(failed)?;
        wait_for(&lock)?;
        let found = match read(&folder) {
            Ok(found) => found,
            Err(problem) if problem.kind() == io::ErrorKind::InvalidData => {
                let aside = folder.join("book.damaged");
                error!(file = %aside.display(), "the book of configurations is damaged and was put aside; the base file counts again");
                fs::rename(folder.join(BOOK), aside).map_err(failed)?;
                None
            }
            Err(problem) => return Err(failed(problem)),
        };
        let first = found.is_none();
        let book = found.unwrap_or_else(|| Book::first(hash(base), now));
        let edited = book.base != hash(base);
        let mut history = Self { folder, book: book.clone(), lock: Some(lock), unwritten: false };
        if first {
            history.save(book, Some((1, base)))?;
        }
        Ok((history, edited))
    }

    /// Looks at the folder without holding it: nothing can be changed by this.
    ///
    /// # Errors
    /// [`Refusal::Disk`].
    pub fn look(store: &Path, base: &str, now: &Stamp) -> Result<Self, Refusal> {
        let folder = store.join(FOLDER);
        let failed = |source| Refusal::Disk { what: format!("{} can't be read", folder.join(BOOK).display()), source };
        let book = read(&folder).map_err(failed)?.unwrap_or_else(|| Book::first(hash(base), now));
        Ok(Self { folder, book, lock: None, unwritten: false })
    }

    /// What became of each configuration.
    pub const fn book(&self) -> &Book {
        &self.book
    }

    /// The text of one.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::Disk`].
    pub fn text(&self, number: u64) -> Result<String, Refusal> {
        text_of(&self.folder, &self.book, number)
    }

    /// Takes a proposal; a running trial ends first when `instead` says why, else it refuses.
    ///
    /// # Errors
    /// [`Refusal::OnTrial`], [`Refusal::Disk`].
    pub fn propose(&mut self, text: &str, what: Proposal, instead: Option<&str>, now: &Stamp) -> Result<u64, Refusal> {
        let mut book = self.book.clone();
        if let (Some(trial), None) = (book.trial(), instead) {
            return Err(Refusal::OnTrial { number: trial.number, left: trial.left(now) });
        }
        book.go_back(instead.unwrap_or_default());
        let number = book.propose(what, now);
        self.save(book, Some((number, text)))?;
        Ok(number)
    }

    /// Whether this is the base file that was taken up last.
    pub fn knows(&self, base: &str) -> bool {
        self.book.base == hash(base)
    }

    /// Begins a new book with the base file, because nothing else can be read.
    ///
    /// # Errors
    /// [`Refusal::Disk`].
    pub fn begin_anew(&mut self, base: &str) -> Result<(), Refusal> {
        let mut book = self.book.clone();
        let number = book.begin_anew(hash(base));
        self.save(book, Some((number, base)))
    }

    /// Notes that this base file was seen, and is what is accepted already.
    ///
    /// # Errors
    /// [`Refusal::Disk`].
    pub fn agree(&mut self, base: &str) -> Result<(), Refusal> {
        let mut book = self.book.clone();
        book.base = hash(base);
        self.save(book, None)
    }

    /// Counts a start; a trial that ended by it: its number and why.
    ///
    /// # Errors
    /// [`Refusal::Held`].
    pub fn begin(&mut self, now: &Stamp) -> Result<Option<(u64, String)>, Refusal> {
        self.update(|book| book.begin(now))
    }

    /// Keeps the one on trial; `how` in one phrase.
    ///
    /// # Errors
    /// [`Refusal::Held`].
    pub fn confirm(&mut self, how: &str) -> Result<Option<u64>, Refusal> {
        self.update(|book| book.confirm(how))
    }

    /// Takes the one before again.
    ///
    /// # Errors
    /// [`Refusal::Held`].
    pub fn go_back(&mut self, why: &str) -> Result<Option<(u64, String)>, Refusal> {
        self.update(|book| book.go_back(why))
    }

    /// Notes with which configuration the broker was reached, and on which ports a meter answered; writes only what is new.
    ///
    /// # Errors
    /// [`Refusal::Held`].
    pub fn note(&mut self, reached: Option<u64>, answered: &[String]) -> Result<(), Refusal> {
        self.update(|book| {
            if let Some(number) = reached {
                book.reach(number);
            }
            book.answered.extend(answered.iter().cloned());
        })
    }

    /// Whether something waits for a disk that refuses.
    pub const fn is_unwritten(&self) -> bool {
        self.unwritten
    }

    /// Tries again to write what could not be written; true when nothing waits any more.
    pub fn write_again(&mut self) -> bool {
        if self.unwritten && self.save(self.book.clone(), None).is_ok() {
            info!("what became of the configurations can be written again");
        }
        !self.unwritten
    }

    /// Changes what became of configurations. What is decided counts also where the disk refuses, or a full one would have a trial
    /// neither end nor be kept.
    fn update<T>(&mut self, change: impl FnOnce(&mut Book) -> T) -> Result<T, Refusal> {
        let mut book = self.book.clone();
        let result = change(&mut book);
        if book != self.book {
            match self.save(book.clone(), None) {
                Err(problem @ Refusal::Disk { .. }) => {
                    if !std::mem::replace(&mut self.unwritten, true) {
                        error!(%problem, "what became of the configurations can't be written; it counts until weir ends, and is tried again; see to the disk");
                    }
                    self.book = book;
                }
                saved => saved?,
            }
        }
        Ok(result)
    }

    fn save(&mut self, book: Book, text: Option<(u64, &str)>) -> Result<(), Refusal> {
        if self.lock.is_none() {
            return Err(Refusal::Held);
        }
        let failed = |source| Refusal::Disk { what: format!("{} can't be written", self.folder.display()), source };
        let names = fs::read_dir(&self.folder).map_err(failed)?;
        let present: Vec<String> = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        for step in steps(&book, text, &present).map_err(|e| failed(e.into()))? {
            match (take(&self.folder, &step), &step) {
                (Err(source), Step::Write(..)) => return Err(failed(source)),
                // It is tried again with the next change.
                (_, Step::Remove(_)) | (Ok(()), Step::Write(..)) => {}
            }
        }
        self.book = book;
        self.unwritten = false;
        Ok(())
    }
}
