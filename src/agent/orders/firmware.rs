//! New firmware by command: fetched, judged, and left to the helper, which installs it on trial.
//!
//! Invariants: nothing is run before its hash is the one that was asked for; the helper judges the hash again; what was fetched and is
//! not taken is removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::Orders;
use crate::agent::dogs::{Paws, hash};
use crate::os::child::{Child, ChildError};
use crate::os::request::{Request, RequestError};
use crate::uplink::{self, TlsFiles, Url};
use crate::watchdog::Hands;

/// The name under which the helper looks for it.
const NAME: &str = "weir.new";
/// A program that does not tell its version in so long is none.
const VERSION_WITHIN: Duration = Duration::from_secs(30);
/// Pieces that wait for the disk.
const PIECES: usize = 4;
/// What of the head of a program tells the machine it is for (ELF: `e_ident`, `e_type`, `e_machine`).
const HEAD: usize = 20;

/// Fetches a firmware, judges it and has it installed.
pub(super) async fn update(
    orders: &Orders,
    url: &str,
    sha256: &str,
    signature: Option<String>,
) -> Result<String, String> {
    let dogs = &orders.evidence.dogs;
    let (settings, limit) = &*dogs.firmware;
    if !dogs.helper.is_there() {
        return Err(RequestError::NoHelper.to_string());
    }
    let paws = Paws { evidence: orders.evidence.clone(), store: orders.teller.store().clone() };
    if let Some(why) = paws.busy() {
        return Err(format!("{why}; a new firmware must wait for that"));
    }
    let _updating = dogs.begin_update().ok_or("a firmware is being fetched already")?;
    settings.judge(sha256, signature.as_deref())?;
    let file = settings.folder.join(NAME);
    let removed = Removed(file.clone());
    get(orders, url, &file, *limit).await?;
    let (looked_at, wanted) = (file.clone(), sha256.to_owned());
    let judged = tokio::task::spawn_blocking(move || judge(&looked_at, &wanted)).await;
    judged.map_err(|error| error.to_string())??;
    let version = version(&file).await?;
    if orders.lock.is_locked() && !orders.unlock {
        return Err("the gateway was locked meanwhile; nothing was installed".to_owned());
    }
    orders.teller.store().sync().await.map_err(|error| error.to_string())?;
    let minutes = settings.minutes();
    let request = Request::Update { sha256: sha256.to_owned(), minutes, signature };
    dogs.helper.ask(&request).await.map_err(|error| error.to_string())?;
    drop(removed);
    Ok(format!(
        "{version} is installed and on trial; unless it reaches a broker within {minutes} minutes the one before is taken again"
    ))
}

/// Removes what was fetched when it is not needed any more.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Brings the file to its place, durable.
async fn get(orders: &Orders, url: &str, file: &Path, limit: u64) -> Result<(), String> {
    let unwritable = |error: io::Error| format!("the firmware can't be kept: {error}; see control.firmware.folder");
    let target = file.to_owned();
    if let Some(path) = url.strip_prefix("file://") {
        let source = PathBuf::from(path);
        let copied = tokio::task::spawn_blocking(move || copy(&source, &target, limit)).await;
        return copied.map_err(|error| error.to_string())?;
    }
    let url = Url::parse(url)?;
    let (give, mut pieces) = mpsc::channel::<Vec<u8>>(PIECES);
    let writer = tokio::task::spawn_blocking(move || {
        let mut out = create(&target)?;
        while let Some(piece) = pieces.blocking_recv() {
            out.write_all(&piece)?;
        }
        out.sync_all()
    });
    let ca = orders.evidence.dogs.firmware.0.ca_file.as_ref().map(|path| path.to_path_buf());
    let files = TlsFiles { ca, client: None };
    let fetched = uplink::fetch(&url, (&files, &orders.evidence.clock, &orders.evidence.traffic), limit, give).await;
    // A disk that is full is what the other side saw as an end.
    writer.await.map_err(|error| error.to_string())?.map_err(unwritable)?;
    fetched.map(drop)
}

fn create(file: &Path) -> io::Result<File> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let _ = fs::remove_file(file);
    OpenOptions::new().write(true).create_new(true).mode(0o755).open(file)
}

fn copy(source: &Path, target: &Path, limit: u64) -> Result<(), String> {
    let failed = |error: io::Error| format!("{} can't be copied: {error}", source.display());
    // A device or a pipe might never end, or never begin.
    if !fs::metadata(source).map_err(failed)?.is_file() {
        return Err(format!("{} is no file", source.display()));
    }
    let mut input = File::open(source).map_err(failed)?.take(limit.saturating_add(1));
    let mut out = create(target).map_err(failed)?;
    let copied = io::copy(&mut input, &mut out).map_err(failed)?;
    if copied > limit {
        return Err(format!("the file has more than the {limit} bytes that this board has room for"));
    }
    out.sync_all().map_err(failed)
}

/// Sees that it is the one that was meant, and for this machine.
fn judge(file: &Path, sha256: &str) -> Result<(), String> {
    let unreadable = |error: io::Error| format!("the firmware can't be read: {error}");
    let found = hash(&mut File::open(file).map_err(unreadable)?).map_err(unreadable)?;
    if found != sha256 {
        return Err(format!("the firmware's SHA-256 is {found}, not what was asked for; nothing was installed"));
    }
    let kind = |path: &Path| -> io::Result<Option<[u8; 4]>> {
        let mut head = [0; HEAD];
        File::open(path)?.read_exact(&mut head)?;
        Ok(machine(&head))
    };
    let own = kind(Path::new("/proc/self/exe")).map_err(unreadable)?;
    match kind(file) {
        Ok(Some(theirs)) if Some(theirs) == own => Ok(()),
        Ok(Some(_)) => Err("the firmware is for another kind of machine; nothing was installed".to_owned()),
        Ok(None) | Err(_) => Err("the file is no program; nothing was installed".to_owned()),
    }
}

/// Word length, byte order and machine of an ELF file; `None` when it is none.
fn machine(head: &[u8; HEAD]) -> Option<[u8; 4]> {
    let [0x7F, b'E', b'L', b'F', class, order, .., low, high] = *head else { return None };
    Some([class, order, low, high])
}

/// Starts a program that was just written: another one that is being started may still hold it open for writing.
async fn start(command: &[String]) -> Result<Child, String> {
    const BUSY: u32 = 600;
    for _ in 0..BUSY {
        match Child::spawn(command) {
            Err(ChildError::Start { reason, .. }) if reason.kind() == io::ErrorKind::ExecutableFileBusy => {
                sleep(Duration::from_millis(50)).await;
            }
            started => return started.map_err(|error| error.to_string()),
        }
    }
    Err("the firmware can't be started: somebody still writes it".to_owned())
}

/// What a program says of itself.
async fn version(file: &Path) -> Result<String, String> {
    let command = [file.display().to_string(), "--version".to_owned()];
    let mut child = start(&command).await?;
    let mut said = vec![0; 256];
    let mut count = 0;
    let listen = async {
        while let Some(rest) = said.get_mut(count..).filter(|rest| !rest.is_empty()) {
            match child.read(rest).await {
                Ok(more) if more > 0 => count += more,
                _ => return,
            }
        }
    };
    let in_time = timeout(VERSION_WITHIN, listen).await.is_ok();
    let text = String::from_utf8_lossy(said.get(..count).unwrap_or_default()).trim().to_owned();
    if in_time && text.starts_with("weir ") && !text.contains('\n') {
        return Ok(text);
    }
    let ending = timeout(VERSION_WITHIN, child.ending()).await.unwrap_or_else(|_| "it does not end".to_owned());
    Err(format!("the firmware does not tell its version ({ending}); nothing was installed"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_program_for_this_machine_with_the_right_hash_is_taken() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("weir.new");
        let put = |content: &[u8]| {
            fs::write(&file, content).unwrap();
            hash(&mut File::open(&file).unwrap()).unwrap()
        };
        let mut own = vec![0; 64];
        File::open("/proc/self/exe").unwrap().read_exact(&mut own).unwrap();
        let right = put(&own);
        judge(&file, &right).unwrap();
        assert!(judge(&file, &"0".repeat(64)).unwrap_err().contains(&right));
        own[18] ^= 0x55;
        let other = put(&own);
        assert!(judge(&file, &other).unwrap_err().contains("another kind of machine"));
        let text = put(b"#!/bin/sh\necho weir 9; touch evil\n");
        assert!(judge(&file, &text).unwrap_err().contains("no program"));
        let short = put(b"");
        assert!(judge(&file, &short).unwrap_err().contains("no program"));
    }

    #[tokio::test]
    async fn what_does_not_say_that_it_is_weir_is_not_installed() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("weir.new");
        for (script, good) in
            [("echo weir 9.9.9", true), ("echo other 1", false), ("exit 3", false), ("yes weir", false)]
        {
            fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            assert_eq!(version(&file).await.is_ok(), good, "{script}");
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let (source, target) = (home.path().join("a"), home.path().join("new/b"));
        fs::write(&source, [7; 100]).unwrap();
        copy(&source, &target, 100).unwrap();
        assert_eq!(fs::read(&target).unwrap(), [7; 100]);
        assert!(copy(&source, &target, 99).unwrap_err().contains("more than the 99 bytes"));
    }
}
