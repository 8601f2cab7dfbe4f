//! The near end of a tunnel: a pseudo-terminal, or a TCP port for one program at a time.

use std::future::pending;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};

use crate::cli::failure::Failure;
use crate::os::pty::Pty;
use crate::tunnel::{Moved, Wire, move_bytes};

/// The largest message.
const LARGEST: usize = 4096;

/// What a program on this machine opens.
pub(super) struct Near {
    end: End,
    link: Option<PathBuf>,
    /// What the program sent and nobody took yet.
    gathered: Vec<u8>,
}

enum End {
    Pty(Pty),
    Tcp(TcpListener, Option<TcpStream>),
}

impl Near {
    pub(super) async fn open(tcp: Option<SocketAddr>, link: Option<&Path>) -> Result<Self, Failure> {
        if let Some(address) = tcp {
            let listener = TcpListener::bind(address).await.map_err(|error| {
                Failure::other(format!("cannot listen on {address}: {error}; name another with --tcp"))
            })?;
            return Ok(Self { end: End::Tcp(listener, None), link: None, gathered: Vec::new() });
        }
        let pty = Pty::open().map_err(|error| Failure::other(format!("no pseudo-terminal can be had: {error}")))?;
        if let Some(link) = link {
            std::os::unix::fs::symlink(pty.path(), link).map_err(|error| {
                Failure::other(format!("cannot make the link {}: {error}; remove it or name another", link.display()))
            })?;
        }
        Ok(Self { end: End::Pty(pty), link: link.map(Path::to_owned), gathered: Vec::new() })
    }

    /// What a person calls it.
    pub(super) fn name(&self) -> String {
        match (&self.end, &self.link) {
            (_, Some(link)) => link.display().to_string(),
            (End::Pty(pty), None) => pty.path().display().to_string(),
            (End::Tcp(listener, _), None) => listener.local_addr().map_or_else(|_| "TCP".into(), |at| at.to_string()),
        }
    }

    /// What the program sends, until it pauses for `together`. Cancelling it loses nothing.
    pub(super) async fn receive(&mut self, together: Duration) -> Result<Vec<u8>, Failure> {
        let mut buffer = [0; LARGEST];
        while self.gathered.len() < LARGEST {
            let room = buffer.get_mut(..LARGEST - self.gathered.len()).unwrap_or_default();
            let count = if self.gathered.is_empty() {
                read(&mut self.end, room).await?
            } else {
                match timeout(together, read(&mut self.end, room)).await {
                    Ok(count) => count?,
                    Err(_elapsed) => break,
                }
            };
            self.gathered.extend_from_slice(room.get(..count).unwrap_or_default());
        }
        Ok(std::mem::take(&mut self.gathered))
    }

    /// Gives the program all bytes; without one they are nobody's.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.end {
            End::Pty(pty) => {
                pty.send(bytes).await.map_err(|error| Failure::other(format!("the pseudo-terminal failed: {error}")))
            }
            End::Tcp(_, client) => {
                if let Some(stream) = client
                    && stream.write_all(bytes).await.is_err()
                {
                    *client = None;
                }
                Ok(())
            }
        }
    }
}

impl Near {
    /// Joins the program and a numbered session until either ends.
    pub(super) async fn join(&mut self, wire: &mut Wire, together: Duration) -> Result<(), Failure> {
        let (mut to_program, mut last) = (Vec::new(), Instant::now());
        let mut buffer = [0; LARGEST];
        loop {
            if let End::Tcp(listener, client @ None) = &mut self.end {
                tokio::select! {
                    accepted = listener.accept() => *client = accepted.ok().map(|(stream, _)| stream),
                    () = wire.answers.closed() => return Ok(()),
                }
                continue;
            }
            let room = buffer.get_mut(..LARGEST - self.gathered.len()).unwrap_or_default();
            let is_full = room.is_empty();
            let due = Some(last + together).filter(|_| !self.gathered.is_empty());
            let is_due = is_full || due.is_some_and(|due| due <= Instant::now());
            tokio::select! {
                place = wire.answers.reserve(), if is_due => match place {
                    Ok(place) => place.send(std::mem::take(&mut self.gathered)),
                    Err(_) => return Ok(()),
                },
                () = wire.answers.closed() => return Ok(()),
                request = wire.requests.recv(), if to_program.len() < LARGEST => match request {
                    Some(request) => to_program.extend(request.bytes),
                    None => return Ok(()),
                },
                moved = exchange(&mut self.end, &to_program, room) => match (moved, &mut self.end) {
                    (Ok(Moved::Read(count)), _) if count > 0 => {
                        self.gathered.extend_from_slice(buffer.get(..count).unwrap_or_default());
                        last = Instant::now();
                    }
                    (Ok(Moved::Wrote(count)), _) => drop(to_program.drain(..count)),
                    (Err(error), End::Pty(_)) => return Err(Failure::other(format!("the pseudo-terminal failed: {error}"))),
                    // The program has gone: its session is over.
                    _ => return Ok(()),
                },
                () = sleep_until(due.unwrap_or(last)), if due.is_some() && !is_due => {}
            }
        }
    }

    /// Lets the program notice that the stream is over: a terminal hangs up and another takes its place, a connection is closed.
    pub(super) fn hang_up(&mut self) -> Result<(), Failure> {
        self.gathered.clear();
        match &mut self.end {
            End::Tcp(_, client) => *client = None,
            End::Pty(pty) => {
                *pty =
                    Pty::open().map_err(|error| Failure::other(format!("no pseudo-terminal can be had: {error}")))?;
                if let Some(link) = &self.link {
                    let aside = link.with_added_extension("new");
                    let linked = std::os::unix::fs::symlink(pty.path(), &aside);
                    linked
                        .and_then(|()| std::fs::rename(&aside, link))
                        .map_err(|error| Failure::other(format!("cannot make the link {}: {error}", link.display())))?;
                }
            }
        }
        Ok(())
    }
}

async fn exchange(end: &mut End, pending: &[u8], buffer: &mut [u8]) -> std::io::Result<Moved> {
    match end {
        End::Pty(pty) => move_bytes(pty, pending, buffer).await,
        End::Tcp(_, Some(stream)) => move_bytes(stream, pending, buffer).await,
        End::Tcp(_, None) => std::future::pending().await,
    }
}

/// At least one byte. Cancelling it loses nothing.
async fn read(end: &mut End, buffer: &mut [u8]) -> Result<usize, Failure> {
    match end {
        End::Pty(pty) => match pty.receive(buffer).await {
            Ok(0) => pending().await,
            Ok(count) => Ok(count),
            Err(error) => Err(Failure::other(format!("the pseudo-terminal failed: {error}"))),
        },
        End::Tcp(listener, client) => loop {
            let Some(stream) = client else {
                *client = listener.accept().await.ok().map(|(stream, _)| stream);
                if let Some(stream) = client {
                    let _ = stream.set_nodelay(true);
                }
                continue;
            };
            match stream.read(buffer).await {
                Ok(count) if count > 0 => return Ok(count),
                // The program has gone; the next one may come.
                _ => *client = None,
            }
        },
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        if let Some(link) = &self.link {
            let _ = std::fs::remove_file(link);
        }
    }
}
