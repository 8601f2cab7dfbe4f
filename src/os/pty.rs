//! A pseudo-terminal: one end is ours, the other a device file for whoever wants a serial port; we see the speed that was set.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_serial::{SerialPort, SerialStream};

/// Our end of a serial line; the other end is a device file.
#[derive(Debug)]
pub struct Pty {
    master: SerialStream,
    path: PathBuf,
    /// Held so that the line does not hang up while no reader has it open.
    _device: File,
}

impl Pty {
    /// Opens a pseudo-terminal pair in raw mode. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system's error, for instance when there are no more pseudo-terminals.
    pub fn open() -> io::Result<Self> {
        let (master, device) = SerialStream::pair()?;
        let name = device.name().ok_or_else(|| io::Error::other("the pseudo-terminal has no name"))?;
        // The stream locks the device; a plain handle keeps the line up and lets readers lock it.
        let held = File::options().read(true).write(true).open(&name)?;
        drop(device);
        Ok(Self { master, path: name.into(), _device: held })
    }

    /// The device file that a reader opens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bits per second that the reader has set.
    ///
    /// # Errors
    /// The system's error.
    pub fn baud(&self) -> io::Result<u32> {
        Ok(self.master.baud_rate()?)
    }

    /// Receives what the reader sent, waiting for at least one byte.
    ///
    /// # Errors
    /// The system's error.
    pub async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.master.read(buffer).await
    }

    /// Sends all bytes to the reader.
    ///
    /// # Errors
    /// The system's error.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.master.write_all(bytes).await
    }
}

impl AsyncRead for Pty {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.master).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Pty {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.master).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.master).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.master).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::os::line::{Direction, Endpoint, Framing, Line, LineError, Speed};

    #[tokio::test]
    async fn both_ends_talk_and_the_simulator_sees_the_speed() {
        let mut pty = Pty::open().unwrap();
        let endpoint = Endpoint::Device(pty.path().to_owned());
        let slow = Speed { baud: 300, framing: Framing::EIGHT_N_ONE };
        for _reopened in 0..2 {
            let mut line = Line::open(&endpoint, slow, Direction::Automatic).await.unwrap();
            assert_eq!(pty.baud().unwrap(), 300);
            line.set_speed(Speed { baud: 9600, ..slow }).unwrap();
            assert_eq!(pty.baud().unwrap(), 9600);
            line.send(b"ask").await.unwrap();
            let mut buffer = [0; 16];
            assert_eq!(pty.receive(&mut buffer).await.unwrap(), 3);
            pty.send(b"stale").await.unwrap();
            // The kernel carries it over when it comes to it.
            let mut stale = 0;
            while stale < 5 {
                sleep(Duration::from_millis(1)).await;
                stale += line.discard_waiting().await.unwrap();
            }
            assert_eq!(stale, 5);
            pty.send(b"answer").await.unwrap();
            let deadline = Instant::now() + Duration::from_secs(60);
            assert_eq!(line.receive(&mut buffer, deadline).await.unwrap(), 6);
            assert!(matches!(line.receive(&mut buffer, Instant::now()).await, Err(LineError::Silent(_))));
        }
    }
}
