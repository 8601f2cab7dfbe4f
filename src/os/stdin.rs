//! Standard input as something that can be awaited and let go of at any moment.
//!
//! A thread reads it, because a file can't be polled, and switching a terminal to non-blocking would switch it for
//! the shell too. The thread ends with the input, or with the process: nothing waits for it.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

/// What comes on standard input. Only one may be open at a time; what it did not give yet is lost with it.
#[derive(Debug)]
pub struct Stdin {
    chunks: mpsc::Receiver<io::Result<Vec<u8>>>,
    rest: Vec<u8>,
}

/// What is read at once; so much waits, and as much is under way.
const CHUNK: usize = 4096;

impl Stdin {
    /// Starts reading.
    ///
    /// # Errors
    /// The system's error when there is no room for a thread.
    pub fn open() -> io::Result<Self> {
        Self::reading(io::stdin())
    }

    fn reading(mut input: impl Read + Send + 'static) -> io::Result<Self> {
        let (sender, chunks) = mpsc::channel(1);
        thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            let mut buffer = vec![0; CHUNK];
            loop {
                let chunk = match input.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => Ok(buffer.get(..count).unwrap_or_default().to_vec()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let last = chunk.is_err();
                if sender.blocking_send(chunk).is_err() || last {
                    return;
                }
            }
        })?;
        Ok(Self { chunks, rest: Vec::new() })
    }
}

impl AsyncRead for Stdin {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stdin = self.get_mut();
        if stdin.rest.is_empty() {
            match ready!(stdin.chunks.poll_recv(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(chunk) => stdin.rest = chunk?,
            }
        }
        let count = stdin.rest.len().min(buf.remaining());
        buf.put_slice(stdin.rest.get(..count).unwrap_or_default());
        stdin.rest.drain(..count);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn everything_comes_in_order_and_its_end_is_an_end() {
        let all: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let mut stdin = Stdin::reading(io::Cursor::new(all.clone())).unwrap();
        let mut read = Vec::new();
        let mut buffer = [0; 1000];
        loop {
            let count = stdin.read(&mut buffer).await.unwrap();
            if count == 0 {
                break;
            }
            read.extend_from_slice(&buffer[..count]);
        }
        assert!(read == all);
        assert_eq!(stdin.read(&mut buffer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn an_input_that_says_nothing_holds_nobody() {
        let (reader, _writer) = io::pipe().unwrap();
        let mut stdin = Stdin::reading(reader).unwrap();
        let mut buffer = [0; 16];
        let read = tokio::time::timeout(std::time::Duration::from_millis(20), stdin.read(&mut buffer));
        assert!(read.await.is_err());
        // Dropped here, with its thread still in read(2): the test must end all the same.
    }
}
