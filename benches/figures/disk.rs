//! A small ext4 of its own in a loop device, so that what reaches the device can be counted: the
//! file system's journal and tables too, which no process is charged for.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use tempfile::TempDir;

use crate::rig::directory;

/// Large enough for the workloads, its journal is 16 MiB.
const SIZE: &str = "256M";
const SECTOR: u64 = 512;

/// What was written up to a moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Written {
    /// Bytes to the device; where there is none of its own, what the process is charged for
    /// (`write_bytes`: without the journal, and with whole folios where a page was written).
    pub device: u64,
    /// Transactions that ext4 has committed.
    pub commits: u64,
}

impl Written {
    pub fn since(self, earlier: Self) -> Self {
        Self { device: self.device - earlier.device, commits: self.commits - earlier.commits }
    }
}

/// A file system for one workload.
#[derive(Debug)]
pub struct Disk {
    /// Where files go.
    pub path: PathBuf,
    /// The name of the loop device.
    device: Option<String>,
    _home: TempDir,
}

impl Disk {
    /// Makes the file system; where that is not allowed, says so once and uses a directory.
    pub fn make() -> Self {
        static SAID: Once = Once::new();
        let home = directory();
        let image = home.path().join("image");
        let path = home.path().join("mount");
        fs::create_dir(&path).unwrap();
        let device = mounted(&image, &path)
            .inspect_err(|error| {
                SAID.call_once(|| {
                    eprintln!("no file system in a loop device ({error}): write_bytes of the process stands in for it");
                });
            })
            .ok();
        Self { path, device, _home: home }
    }

    /// What the bytes were counted by.
    pub fn counted_by(&self) -> &'static str {
        if self.device.is_some() { "ext4 of its own" } else { "write_bytes only, no loop device" }
    }

    /// Lets everything reach the device and counts; `io` is the process's file in /proc.
    pub fn written(&self, io: &Path) -> Written {
        rustix::fs::syncfs(File::open(&self.path).unwrap()).unwrap();
        let Some(name) = &self.device else { return Written { device: write_bytes(io), commits: 0 } };
        let stat = fs::read_to_string(format!("/sys/block/{name}/stat")).unwrap();
        let sectors: u64 = stat.split_whitespace().nth(6).unwrap().parse().unwrap();
        let journal = fs::read_to_string(format!("/proc/fs/jbd2/{name}-8/info")).unwrap_or_default();
        let commits = journal.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
        Written { device: sectors * SECTOR, commits }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.device.is_some() && done(Command::new("umount").arg(&self.path)).is_err() {
            let _ = done(Command::new("umount").arg("-l").arg(&self.path));
        }
    }
}

/// Makes and mounts the image and returns the name of its device.
fn mounted(image: &Path, path: &Path) -> Result<String, String> {
    done(Command::new("fallocate").args(["-l", SIZE]).arg(image))?;
    // Nothing is left to be initialised while it is measured.
    let tables = ["-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
    done(Command::new("mkfs.ext4").args(tables).arg(image))?;
    done(Command::new("mount").args(["-o", "loop"]).args([image, path]))?;
    let name = done(Command::new("losetup").args(["-n", "-O", "NAME", "-j"]).arg(image))?;
    name.trim().strip_prefix("/dev/").map(str::to_owned).ok_or_else(|| format!("no loop device: {name}"))
}

/// Runs a command; its output, or what it complains about.
fn done(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{program}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn write_bytes(io: &Path) -> u64 {
    let text = fs::read_to_string(io).unwrap();
    text.lines().find_map(|l| l.strip_prefix("write_bytes: ")).unwrap().parse().unwrap()
}
