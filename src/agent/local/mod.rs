//! The local door: a socket beside the store, through which this machine asks the running agent.
//!
//! Invariants: only the agent's own user (and root) gets in; one question is one line of JSON of
//! at most [`LONGEST`] bytes, every answer line is `{"ok": ...}` or `{"error": "sentence"}`; no
//! client holds the agent up: there are at most `CLIENTS`, and one that does not read or write for
//! a while is hung up on. The socket is replaced only by who holds the store's lock.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::ask::{Answer, Ask, Desk, Trace};
use super::transfer::Transfer;
use crate::config::change::Origin;
use crate::os::file::read_small;

mod client;

pub use client::{Client, ClientError};

/// The longest question in bytes: a whole configuration fits.
pub const LONGEST: u64 = 256 * 1024;
/// Clients at once.
const CLIENTS: usize = 8;
/// Who says nothing for so long is hung up on; who takes no answer for [`PATIENCE`], too.
const SILENCE: Duration = Duration::from_mins(1);
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two words about how far something has come.
const BREATH: Duration = Duration::from_millis(100);

/// Why the door can't be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum DoorError {
    /// Something else has its name.
    #[error("{0} is there and is no socket; remove it, then weir can be asked from this machine")]
    InTheWay(PathBuf),
    /// The system refuses.
    #[error("the socket {path} can't be opened: {source}; weir works, but can't be asked from this machine")]
    System {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Where the socket of the agent with this store is.
pub fn socket(store: &Path) -> PathBuf {
    store.join("weir.sock")
}

/// Opens the door and serves whoever comes, for ever. Only the holder of the store's lock may call it.
pub(super) async fn run(path: PathBuf, desk: Desk) -> Result<(), DoorError> {
    let listener = open(&path)?;
    let places = Arc::new(Semaphore::new(CLIENTS));
    let mut clients = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(source) => return Err(DoorError::System { path, source }),
        };
        while clients.try_join_next().is_some() {}
        if let Ok(place) = places.clone().try_acquire_owned() {
            let desk = desk.clone();
            clients.spawn(async move {
                let _place = place;
                // The client went away: no fault.
                let _ = serve(stream, &desk).await;
            });
        } else {
            let full = json!({ "error": format!("{CLIENTS} others are asking already; try again when one has ended") });
            let _ = stream.try_write(format!("{full}\n").as_bytes());
        }
    }
}

/// Replaces what an earlier agent left behind. The name is given only when the socket has its mode.
fn open(path: &Path) -> Result<UnixListener, DoorError> {
    let failed = |source| DoorError::System { path: path.to_owned(), source };
    if fs::symlink_metadata(path).is_ok_and(|m| !m.file_type().is_socket()) {
        return Err(DoorError::InTheWay(path.to_owned()));
    }
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&beside).map_err(failed)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    fs::rename(&beside, path).map_err(failed)?;
    Ok(listener)
}

async fn serve(stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let user = stream.peer_cred().map_or_else(|_| "unknown".to_owned(), |peer| user(peer.uid()));
    let desk = &Desk { who: Origin::local(&user), ..desk.clone() };
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = String::new();
        let mut bounded = (&mut read).take(LONGEST);
        match timeout(SILENCE, bounded.read_line(&mut line)).await {
            Err(_) | Ok(Ok(0)) => return Ok(()),
            Ok(result) => result?,
        };
        if !line.ends_with('\n') {
            let error = format!("a question is one line of at most {LONGEST} bytes");
            return tell(&mut write, &json!({ "error": error })).await;
        }
        let answer = tokio::select! {
            answer = answer(&line, desk) => answer,
            // Who hangs up while a meter is being read does not want it any more.
            () = hung_up(&mut read) => return Ok(()),
        };
        match answer {
            Ok(Answer::Whole(whole)) => tell(&mut write, &json!({ "ok": whole })).await?,
            Ok(Answer::Taken(told, started)) => {
                tell(&mut write, &json!({ "ok": told })).await?;
                drop(started);
            }
            Ok(Answer::Transfer(transfer)) => follow(transfer, &mut read, &mut write).await?,
            Ok(Answer::Trace(trace)) => return relay(trace, &mut read, &mut write).await,
            Err(error) => tell(&mut write, &json!({ "error": error })).await?,
        }
    }
}

/// A user of this machine by name, where /etc/passwd knows it.
pub fn user(uid: u32) -> String {
    const LARGEST: u64 = 1 << 20;
    let passwd = read_small(Path::new("/etc/passwd"), LARGEST).unwrap_or_default();
    let name = named(&String::from_utf8_lossy(&passwd), uid);
    name.unwrap_or_else(|| if uid == 0 { "root".to_owned() } else { format!("uid {uid}") })
}

/// The name of a user id in passwd(5).
fn named(passwd: &str, uid: u32) -> Option<String> {
    let name = passwd.lines().find_map(|line| {
        let mut parts = line.split(':');
        let (name, id) = (parts.next()?, parts.nth(1)?);
        (id.parse() == Ok(uid)).then_some(name)
    });
    name.filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic())).map(str::to_owned)
}

async fn answer(line: &str, desk: &Desk) -> Result<Answer, String> {
    desk.answer(Ask::parse(line)?).await
}

/// Gives the events of a trace until the client hangs up.
async fn relay(mut trace: Trace, read: &mut BufReader<OwnedReadHalf>, write: &mut OwnedWriteHalf) -> io::Result<()> {
    tell(write, &json!({ "ok": "listening" })).await?;
    loop {
        tokio::select! {
            event = trace.next() => match event {
                Some(event) => tell(write, &json!({ "ok": event })).await?,
                None => return Ok(()),
            },
            () = hung_up(read) => return Ok(()),
        }
    }
}

/// Tells how far a transfer has come, at most ten times a second, and its answer, unless the client hangs up.
async fn follow(
    mut transfer: Transfer,
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
) -> io::Result<()> {
    loop {
        let next = tokio::select! {
            next = transfer.next() => next,
            () = hung_up(read) => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        match next {
            Some(Ok(told)) => tell(write, &json!({ "ok": told })).await?,
            Some(Err(error)) => tell(write, &json!({ "error": error })).await?,
            None => return Ok(()),
        }
        tokio::time::sleep(BREATH).await;
    }
}

/// Returns when the client has gone; a further question waits.
async fn hung_up(read: &mut BufReader<OwnedReadHalf>) {
    match read.fill_buf().await {
        Ok([]) | Err(_) => {}
        Ok(_) => std::future::pending().await,
    }
}

async fn tell(write: &mut OwnedWriteHalf, answer: &Json) -> io::Result<()> {
    let line = format!("{answer}\n");
    timeout(PATIENCE, write.write_all(line.as_bytes())).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_name_that_passwd_gives() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nhalf\nweir:x:998:998::/:/bin/false\n:x:7:7::/:\n";
        assert_eq!(named(passwd, 998).as_deref(), Some("weir"));
        assert_eq!((named(passwd, 7), named(passwd, 1)), (None, None));
        assert_eq!(user(0), "root");
    }
}
