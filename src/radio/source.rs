//! Where a receiver's bytes come from: a serial device, a TCP server, a program, standard input, datagrams, or
//! senders that connect to weir.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::{sleep, timeout};

use super::{RadioError, RadioSettings, receiver};
use crate::os::arrival::Arrival;
use crate::os::child::Child;
use crate::os::line::{Direction, Endpoint, Framing, Line, Speed};
use crate::os::stdin::Stdin;

/// The speed of a kind that has none of its own.
const DEFAULT_BAUD: u32 = 115_200;
/// A device that has just come gets its link and its rights in this time.
const SETTLE: Duration = Duration::from_millis(200);
/// The longest datagram.
const DATAGRAM: usize = 65_536;
/// What is read at once of anything else.
const CHUNK: usize = 4096;

/// What the setting `device` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A serial device or a TCP server.
    Line(Endpoint),
    /// `-`.
    Stdin,
    /// `udp://address:port`: datagrams that come there.
    Datagrams(SocketAddr),
    /// `tcp-listen://address:port`: whoever connects there.
    Senders(SocketAddr),
}

impl Place {
    /// Reads the setting; an address of none (`udp://:5000`) is any of IPv4.
    ///
    /// # Errors
    /// What it must be, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let own = |address: &str| {
            let address = if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() };
            address.parse().ok().filter(|address: &SocketAddr| address.port() > 0)
        };
        if text == "-" {
            Ok(Self::Stdin)
        } else if let Some(address) = text.strip_prefix("udp://") {
            own(address).map(Self::Datagrams).ok_or("must be udp://0.0.0.0:port, with an address of this machine")
        } else if let Some(address) = text.strip_prefix("tcp-listen://") {
            own(address).map(Self::Senders).ok_or("must be tcp-listen://0.0.0.0:port, with an address of this machine")
        } else {
            let endpoint = Endpoint::parse(text);
            endpoint.fault().map_or(Ok(Self::Line(endpoint)), Err)
        }
    }

    /// The device file, when it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Line(Endpoint::Device(path)) => Some(path),
            _ => None,
        }
    }
}

/// A source that can be opened again and again.
#[derive(Debug)]
pub(super) enum Source {
    Place(Place, Speed),
    Command(Vec<String>),
}

/// What opening gives.
pub(super) enum Opened {
    /// A source that can be read.
    Source(Box<Open>),
    /// A door; each connection is a source.
    Door(TcpListener),
}

/// An open source.
pub enum Open {
    /// A serial line or a TCP connection, which can be told something.
    Line(Line),
    /// A program, which can't.
    Child(Child),
    /// Standard input.
    Stdin(Stdin),
    /// Datagrams of whoever sends some.
    Datagrams(UdpSocket),
}

impl Source {
    pub(super) fn of(settings: &RadioSettings) -> Result<Self, RadioError> {
        let fault = || RadioError::Source(settings.name.to_string());
        match (&settings.device, &settings.command) {
            (Some(device), None) => {
                let usual = receiver(&settings.receiver).map_or(DEFAULT_BAUD, |row| row.baud);
                let baud = settings.baud.map_or(usual, |baud| baud.value());
                let speed = Speed { baud, framing: Framing::EIGHT_N_ONE };
                Place::parse(device).map(|place| Self::Place(place, speed)).map_err(|_| fault())
            }
            (None, Some(command)) if !command.is_empty() => Ok(Self::Command(command.to_vec())),
            _ => Err(fault()),
        }
    }

    /// Opens it, or says why that failed.
    pub(super) async fn open(&self) -> Result<Opened, String> {
        match self {
            Self::Place(Place::Line(endpoint), speed) => {
                let line = Line::open(endpoint, *speed, Direction::Automatic).await;
                line.map(Open::Line).map_err(|e| e.to_string())
            }
            Self::Place(Place::Stdin, _) => Stdin::open().map(Open::Stdin).map_err(|e| e.to_string()),
            Self::Place(Place::Datagrams(address), _) => {
                let socket = UdpSocket::bind(address).await;
                socket.map(Open::Datagrams).map_err(|e| taken(*address, &e))
            }
            Self::Place(Place::Senders(address), _) => {
                return TcpListener::bind(address).await.map(Opened::Door).map_err(|e| taken(*address, &e));
            }
            Self::Command(command) => Child::spawn(command).map(Open::Child).map_err(|e| e.to_string()),
        }
        .map(|open| Opened::Source(Box::new(open)))
    }

    /// The speed of a serial line.
    pub(super) const fn speed(&self) -> Speed {
        match self {
            Self::Place(_, speed) => *speed,
            Self::Command(_) => Speed { baud: DEFAULT_BAUD, framing: Framing::EIGHT_N_ONE },
        }
    }

    /// The device file, when it is one.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::Place(place, _) => place.file(),
            Self::Command(_) => None,
        }
    }

    /// Whether it can be opened again after its end.
    pub(super) const fn comes_again(&self) -> bool {
        !matches!(self, Self::Place(Place::Stdin, _))
    }

    /// Waits a pause, or until its device comes.
    pub(super) async fn wait(&self, pause: Duration) {
        let missing = self.file().filter(|file| !file.exists());
        let Some(mut arrival) = missing.and_then(|file| Arrival::of(file).ok()) else { return sleep(pause).await };
        let came = async {
            arrival.come().await;
            sleep(SETTLE).await;
        };
        let _ = timeout(pause, came).await;
    }

    /// Waits at most so long until its device is there.
    pub(super) async fn come_back(&self, limit: Duration) {
        let Some(file) = self.file().map(PathBuf::from) else { return };
        let there = async {
            while !file.exists() {
                self.wait(limit).await;
            }
        };
        let _ = timeout(limit, there).await;
    }
}

fn taken(address: SocketAddr, error: &io::Error) -> String {
    format!(
        "cannot listen at {address}: {error}; check that the address is this machine's and nobody else has the port"
    )
}

impl Open {
    /// The line, when it is one.
    pub const fn line(&mut self) -> Option<&mut Line> {
        match self {
            Self::Line(line) => Some(line),
            _ => None,
        }
    }

    /// Room for what one [`Open::read`] may bring.
    pub(super) const fn room(&self) -> usize {
        if self.is_whole() { DATAGRAM } else { CHUNK }
    }

    /// Whether what is read is never continued by what is read next.
    pub(super) const fn is_whole(&self) -> bool {
        matches!(self, Self::Datagrams(_))
    }

    /// Reads what is there, waiting for at least one byte; 0 at the end.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Line(line) => line.read(buffer).await,
            Self::Child(child) => child.read(buffer).await,
            Self::Stdin(stdin) => stdin.read(buffer).await,
            Self::Datagrams(socket) => loop {
                // An empty datagram says nothing; it is no end.
                if let (count @ 1.., _sender) = socket.recv_from(buffer).await? {
                    return Ok(count);
                }
            },
        }
    }

    /// Closes it and says in words how it ended; `error` is what reading said.
    pub(super) async fn ending(self, error: Option<io::Error>) -> String {
        match (self, error) {
            // A driver's sentence, not the system's.
            (_, Some(error)) if error.kind() == io::ErrorKind::Other => error.to_string(),
            (_, Some(error)) => format!("reading failed: {error}"),
            (Self::Child(child), None) => child.ending().await,
            (Self::Stdin(_), None) => "standard input has ended".to_owned(),
            (_, None) => "the other side closed the line".to_owned(),
        }
    }
}
