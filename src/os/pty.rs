//! A pseudo-terminal for programs that want a serial port.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_serial::{SerialPort, SerialStream};

/// The near end of a pseudo-terminal; the far end is a device file that a program opens.
#[derive(Debug)]
pub struct Pty {
    near: SerialStream,
    path: PathBuf,
    /// Held so that the line does not hang up while no program has it open.
    _device: File,
}

impl Pty {
    /// Opens one in raw mode. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The system's error, for instance when there are no more pseudo-terminals.
    pub fn open() -> io::Result<Self> {
        let (near, device) = SerialStream::pair()?;
        let name = device.name().ok_or_else(|| io::Error::other("the pseudo-terminal has no name"))?;
        // The stream locks the device; a plain handle keeps the line up and lets programs lock it.
        let held = File::options().read(true).write(true).open(&name)?;
        drop(device);
        Ok(Self { near, path: name.into(), _device: held })
    }

    /// The device file that a program opens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Receives what the program sent, waiting for at least one byte.
    ///
    /// # Errors
    /// The system's error.
    pub async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.near.read(buffer).await
    }

    /// Sends all bytes to the program.
    ///
    /// # Errors
    /// The system's error.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.near.write_all(bytes).await
    }
}
