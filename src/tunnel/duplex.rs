//! Reads and writes one thing at the same time, without losing bytes when that is interrupted.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What moved, and how many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// From the line into the buffer; 0: the other side closed it.
    Read(usize),
    /// Of what waits, to the line.
    Wrote(usize),
}

/// Reads what is there, else writes what waits; returns when either moved. Without a buffer nothing is read. Cancelling it
/// loses nothing.
///
/// # Errors
/// The system's error.
pub async fn move_bytes(
    line: &mut (impl AsyncRead + AsyncWrite + Unpin),
    pending: &[u8],
    buffer: &mut [u8],
) -> io::Result<Moved> {
    let mut read = ReadBuf::new(buffer);
    poll_fn(|cx: &mut Context<'_>| {
        if read.remaining() > 0 {
            match Pin::new(&mut *line).poll_read(cx, &mut read) {
                Poll::Ready(done) => return Poll::Ready(done.map(|()| Moved::Read(read.filled().len()))),
                Poll::Pending => {}
            }
        }
        if pending.is_empty() {
            return Poll::Pending;
        }
        Pin::new(&mut *line).poll_write(cx, pending).map(|done| done.map(Moved::Wrote))
    })
    .await
}
