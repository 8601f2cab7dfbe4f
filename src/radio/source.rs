//! Where a receiver's lines come from: a serial device, a TCP server, or a program.

use std::io;

use tokio::io::AsyncReadExt;

use super::{RadioError, RadioSettings, receiver};
use crate::os::child::Child;
use crate::os::line::{Direction, Endpoint, Framing, Line, Speed};

/// The speed of a kind that has none of its own.
const DEFAULT_BAUD: u32 = 115_200;

/// A source that can be opened again and again.
#[derive(Debug)]
pub(super) enum Source {
    Line(Endpoint, Speed),
    Command(Vec<String>),
}

/// An open source.
pub enum Open {
    /// A serial line or a TCP server, which can be told something.
    Line(Line),
    /// A program, which can't.
    Child(Child),
}

impl Source {
    pub(super) fn of(settings: &RadioSettings) -> Result<Self, RadioError> {
        match (&settings.device, &settings.command) {
            (Some(device), None) => {
                let usual = receiver(&settings.receiver).map_or(DEFAULT_BAUD, |row| row.baud);
                let baud = settings.baud.map_or(usual, |baud| baud.value());
                let speed = Speed { baud, framing: Framing::EIGHT_N_ONE };
                Ok(Self::Line(Endpoint::parse(device), speed))
            }
            (None, Some(command)) if !command.is_empty() => Ok(Self::Command(command.to_vec())),
            _ => Err(RadioError::Source(settings.name.to_string())),
        }
    }

    /// Opens it, or says why that failed.
    pub(super) async fn open(&self) -> Result<Open, String> {
        match self {
            Self::Line(endpoint, speed) => {
                let line = Line::open(endpoint, *speed, Direction::Automatic).await;
                line.map(Open::Line).map_err(|e| e.to_string())
            }
            Self::Command(command) => Child::spawn(command).map(Open::Child).map_err(|e| e.to_string()),
        }
    }
}

impl Open {
    /// The line, when it is one.
    pub const fn line(&mut self) -> Option<&mut Line> {
        match self {
            Self::Line(line) => Some(line),
            Self::Child(_) => None,
        }
    }

    /// Reads what is there, waiting for at least one byte; 0 at the end.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Line(line) => line.read(buffer).await,
            Self::Child(child) => child.read(buffer).await,
        }
    }

    /// Closes it and says in words how it ended; `error` is what reading said.
    pub(super) async fn ending(self, error: Option<io::Error>) -> String {
        match (self, error) {
            // A driver's sentence, not the system's.
            (_, Some(error)) if error.kind() == io::ErrorKind::Other => error.to_string(),
            (_, Some(error)) => format!("reading failed: {error}"),
            (Self::Line(_), None) => "the other side closed the line".to_owned(),
            (Self::Child(child), None) => child.ending().await,
        }
    }
}
