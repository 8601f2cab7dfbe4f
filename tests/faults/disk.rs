//! A small disk of its own for what the gateway keeps: to be filled, and to be torn.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;

const SIZE: u64 = 64 << 20;

/// What the gateway's directory is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Tmpfs,
    /// Nothing could be mounted: the disk can't be filled.
    Shared,
}

pub struct Disk {
    pub kind: Kind,
    root: PathBuf,
}

fn done(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    let status = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

impl Disk {
    /// Mounts one at `root`, its file is `image`; the best that this machine allows.
    pub fn mount(root: &Path, image: &Path) -> Self {
        fs::create_dir_all(root).unwrap();
        File::create(image).unwrap().set_len(SIZE).unwrap();
        let (at, file) = (root.to_str().unwrap(), image.to_str().unwrap());
        let size = format!("size={SIZE}");
        let kind = if done("mkfs.ext4", &["-q", "-m", "0", file]) && done("mount", &["-o", "loop", file, at]) {
            Kind::Ext4
        } else if done("mount", &["-t", "tmpfs", "-o", &size, "weir-chaos", at]) {
            Kind::Tmpfs
        } else {
            Kind::Shared
        };
        Self { kind, root: root.to_owned() }
    }

    fn filling(&self) -> PathBuf {
        self.root.join("filling")
    }

    /// Takes the last byte.
    pub fn fill(&self) {
        let mut file = File::create(self.filling()).unwrap();
        for size in [1 << 20, 4096, 512, 1] {
            let piece = vec![0xA5; size];
            while file.write_all(&piece).is_ok() {}
        }
    }

    /// Gives everything back.
    pub fn free(&self) {
        let _ = fs::remove_file(self.filling());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.kind != Kind::Shared {
            let _ = done("umount", &["-l", self.root.to_str().unwrap()]);
        }
    }
}

fn garbage(random: &mut StdRng, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; random.random_range(1..=most)];
    // What was allocated and never written reads as zeros.
    if random.random_bool(0.5) {
        random.fill(&mut bytes[..]);
    }
    bytes
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// The generations of a lane of weir's store, oldest first.
pub fn generations(store: &Path, lane: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(store.join(lane)) else { return Vec::new() };
    let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("gen-"));
    found.sort();
    found
}

/// Leaves weir's store as a power cut may leave it: torn is what was never synced. No number from
/// `beyond` on was durable.
pub fn tear_store(store: &Path, beyond: u64, random: &mut StdRng) {
    for lane in ["priority", "ordinary"] {
        // A generation that was being made.
        let unmade = store.join(lane).join(format!("gen-{beyond:020}-{:016x}", random.random::<u64>()));
        if store.join(lane).is_dir() && random.random_bool(0.3) {
            fs::create_dir(&unmade).unwrap();
            fs::write(unmade.join("conf"), garbage(random, 100)).unwrap();
            fs::write(unmade.join("db"), garbage(random, 20_000)).unwrap();
        }
        let Some(newest) = generations(store, lane).into_iter().rfind(|path| *path != unmade) else { continue };
        if newest.join("sealed").exists() {
            continue;
        }
        append(&newest.join("db"), &garbage(random, 100_000));
        fs::write(newest.join("snap.0000000000000ABC.generating"), garbage(random, 5000)).unwrap();
        fs::write(newest.join("sealed.new"), garbage(random, 20)).unwrap();
    }
    tear_cursor(&store.join("cursor"), random);
}

/// Spoils the older slot of the cursor, as if the next write of it had been cut off.
fn tear_cursor(path: &Path, random: &mut StdRng) {
    const SLOT: usize = 32 * 1024;
    const PAGE: usize = 4096;
    let Ok(bytes) = fs::read(path) else { return };
    // The serial is the first number of a slot's body, in postcard's variable length.
    let serial = |slot: &[u8]| {
        let body = slot.get(10..)?;
        let end = body.iter().position(|byte| byte & 0x80 == 0)?;
        Some(body[..=end].iter().rev().fold(0u64, |n, byte| n << 7 | u64::from(byte & 0x7F)))
    };
    let [Some(first), Some(second)] = [0, SLOT].map(|at| serial(bytes.get(at..at + SLOT)?)) else { return };
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(if first < second { 0 } else { SLOT as u64 })).unwrap();
    file.write_all(&garbage(random, PAGE)).unwrap();
}

/// The same for mosquitto, which writes a new file and renames it.
pub fn tear_database(directory: &Path, random: &mut StdRng) {
    fs::write(directory.join("mosquitto.db.new"), garbage(random, 100_000)).unwrap();
}

/// Flips bits in `count` places of a file.
pub fn damage(path: &Path, count: usize, random: &mut StdRng) {
    let mut bytes = fs::read(path).unwrap();
    for _ in 0..count {
        if let Some(at) = (0..bytes.len()).choose(random) {
            bytes[at] ^= 1 << random.random_range(0..8);
        }
    }
    fs::write(path, bytes).unwrap();
}
