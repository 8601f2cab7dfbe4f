//! Every command and what became of it, in a file that survives restarts.
//!
//! A JSON object a line; two files of at most 256 KiB each, the older one `.1`. A line is on the disk before its answer leaves.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value as Json, json};

use super::desk::Entry;
use crate::model::{ClockState, Stamp};

/// The most bytes of one file.
const LARGEST: u64 = 256 << 10;

/// The audit of a gateway; clones write the same file.
#[derive(Debug, Clone)]
pub struct Audit {
    path: PathBuf,
    writing: Arc<Mutex<()>>,
}

impl Audit {
    /// The audit in a file, which is made with its folder when the first line is written.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), writing: Arc::default() }
    }

    /// Appends a line and waits until it is durable. Blocks on the disk.
    ///
    /// # Errors
    /// The system's error.
    pub fn append(&self, entry: &Entry, now: &Stamp) -> io::Result<()> {
        let line = json!({
            "who": entry.who.whole(),
            "key": entry.key,
            "command": entry.command,
            "outcome": entry.outcome,
            "detail": entry.detail,
        });
        self.write(vec![line], now)?.sync_data()
    }

    /// Appends a line of another kind without waiting until it is durable. Blocks on the disk.
    ///
    /// # Errors
    /// The system's error.
    pub fn record(&self, line: Json, now: &Stamp) -> io::Result<()> {
        self.records(vec![line], now)
    }

    /// Appends several such lines at once.
    ///
    /// # Errors
    /// The system's error.
    pub fn records(&self, lines: Vec<Json>, now: &Stamp) -> io::Result<()> {
        self.write(lines, now).map(|_| ())
    }

    fn write(&self, lines: Vec<Json>, now: &Stamp) -> io::Result<File> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if fs::metadata(&self.path).is_ok_and(|meta| meta.len() >= LARGEST) {
            fs::rename(&self.path, self.older())?;
        }
        let mut file = self.open()?;
        // A line that a power cut left half is ended, so that the next one can be read.
        let torn = ends_torn(&mut file)?;
        let mut text = String::from(if torn { "\n" } else { "" });
        for mut line in lines {
            if let Some(members) = line.as_object_mut() {
                members.insert("time".into(), json!(now.wall.to_string()));
                let clock = if now.clock == ClockState::Synced { "synced" } else { "unsynced" };
                members.insert("clock".into(), json!(clock));
            }
            text.push_str(&line.to_string());
            text.push('\n');
        }
        file.write_all(text.as_bytes())?;
        Ok(file)
    }

    /// The newest lines, the oldest of them first. Blocks on the disk.
    ///
    /// # Errors
    /// The system's error.
    pub fn newest(&self, lines: usize) -> io::Result<Vec<Json>> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        for path in [self.older(), self.path.clone()] {
            match fs::read(&path) {
                Ok(content) => {
                    let text = String::from_utf8_lossy(&content);
                    found.extend(text.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok()));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found.split_off(found.len().saturating_sub(lines)))
    }

    fn older(&self) -> PathBuf {
        self.path.with_extension("1")
    }

    fn open(&self) -> io::Result<File> {
        let open = || OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path);
        match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(self.path.parent().unwrap_or(Path::new(".")))?;
                open()
            }
            other => other,
        }
    }
}

fn ends_torn(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Origin;
    use crate::model::Timestamp;

    fn entry(command: &str) -> Entry {
        Entry {
            who: Origin::Phone("+34666123456".into()),
            key: None,
            command: command.into(),
            outcome: "done",
            detail: String::new(),
        }
    }

    #[test]
    fn the_newest_lines_survive_a_torn_one_and_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control/audit");
        let now = Stamp::synced(Timestamp::from_millis(0));
        Audit::new(&path).append(&entry("one"), &now).unwrap();
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"half").unwrap();
        let again = Audit::new(&path);
        again.append(&entry("two"), &now).unwrap();
        let commands: Vec<_> = again.newest(5).unwrap().iter().map(|line| line["command"].clone()).collect();
        assert_eq!(commands, ["one", "two"]);
        assert_eq!(again.newest(1).unwrap().len(), 1);
        assert_eq!(again.newest(1).unwrap()[0]["who"], "sms:+34666123456", "who did it can be told");
        assert_eq!(entry("one").who.to_string(), "sms:+34*******56", "and is not told to everybody");
    }

    #[test]
    fn it_never_grows_beyond_its_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        let audit = Audit::new(&path);
        let now = Stamp::synced(Timestamp::from_millis(0));
        for _ in 0..4 {
            audit.append(&entry("x"), &now).unwrap();
            fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&vec![b'x'; 256 << 10]).unwrap();
        }
        let sizes: u64 = fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(sizes < 2 * LARGEST + 4096, "{sizes}");
    }
}
