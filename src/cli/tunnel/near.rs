//! The near end of a tunnel: a pseudo-terminal, or a TCP port for one program at a time.

use std::future::pending;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::cli::failure::Failure;
use crate::os::pty::Pty;

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
