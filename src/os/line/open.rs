//! Where a line leads, and how it is opened.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_serial::{SerialPort, SerialPortBuilderExt, SerialStream};

use super::{Direction, Framing, LineError, Parity, Speed};
use crate::os::rs485;

/// Where a line leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// A serial device such as `/dev/ttyS1`.
    Device(PathBuf),
    /// A serial server, `host:port`.
    Tcp(String),
}

impl Endpoint {
    /// Reads `tcp://host:port` or a device path.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix("tcp://") {
            Some(address) => Self::Tcp(address.to_owned()),
            None => Self::Device(text.into()),
        }
    }

    /// What it must be, when it can't lead anywhere as it is written.
    pub fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Tcp(address) => {
                let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
                let usable = port.is_some_and(|port| port.parse::<u16>().is_ok_and(|number| number > 0));
                (!usable).then_some("must be tcp://host:port (DLMS over the wrapper has port 4059, Modbus TCP 502)")
            }
            Self::Device(path) => (!path.is_absolute()).then_some("must be an absolute path or tcp://host:port"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Lets the kernel find out within a minute that the other side vanished without a word; who only
/// listens would wait for ever.
///
/// # Errors
/// The system's error.
pub fn watch_peer(stream: &TcpStream) -> rustix::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(30))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepcnt(stream, 3)
}

fn explain_open(error: &tokio_serial::Error) -> String {
    use tokio_serial::ErrorKind;
    match error.kind {
        ErrorKind::NoDevice | ErrorKind::Io(io::ErrorKind::NotFound) => {
            format!("{error}; check the cable and the name (ls -l /dev/serial/by-id)")
        }
        ErrorKind::Io(io::ErrorKind::PermissionDenied) => {
            format!("{error}; the user needs the group of the device (usually dialout)")
        }
        _ if error.description.contains("exclusive") => {
            "another program holds it; stop that program (fuser -v DEVICE names it)".to_owned()
        }
        _ => error.to_string(),
    }
}

const fn data_bits(framing: Framing) -> tokio_serial::DataBits {
    if framing.data_bits == 7 { tokio_serial::DataBits::Seven } else { tokio_serial::DataBits::Eight }
}

const fn parity(framing: Framing) -> tokio_serial::Parity {
    match framing.parity {
        Parity::None => tokio_serial::Parity::None,
        Parity::Even => tokio_serial::Parity::Even,
        Parity::Odd => tokio_serial::Parity::Odd,
    }
}

const fn stop_bits(framing: Framing) -> tokio_serial::StopBits {
    if framing.stop_bits == 2 { tokio_serial::StopBits::Two } else { tokio_serial::StopBits::One }
}

/// The two ways bytes travel.
pub(super) enum Io {
    Serial(SerialStream),
    Tcp(TcpStream),
}

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Opens a device or connects to a serial server.
pub(super) async fn open(endpoint: &Endpoint, speed: Speed, direction: Direction) -> Result<Io, LineError> {
    let failed = |reason: String| LineError::Open { endpoint: endpoint.to_string(), reason };
    match endpoint {
        Endpoint::Device(path) => device(&path.to_string_lossy(), speed, direction).map_err(failed).map(Io::Serial),
        Endpoint::Tcp(address) => {
            let stream = timeout(CONNECT_LIMIT, TcpStream::connect(address.as_str())).await;
            let stream = stream
                .map_err(|_| failed("no connection within 5 s; check the address and the cable".to_owned()))?
                .map_err(|e| failed(format!("{e}; check the address and that the serial server is on")))?;
            connected(stream).map_err(|e| failed(e.to_string()))
        }
    }
}

/// A connection with a peer whose death is noticed.
pub(super) fn connected(stream: TcpStream) -> io::Result<Io> {
    stream.set_nodelay(true)?;
    watch_peer(&stream)?;
    Ok(Io::Tcp(stream))
}

fn device(name: &str, speed: Speed, direction: Direction) -> Result<SerialStream, String> {
    let builder = tokio_serial::new(name, speed.baud)
        .data_bits(data_bits(speed.framing))
        .parity(parity(speed.framing))
        .stop_bits(stop_bits(speed.framing));
    let stream = builder.open_native_async().map_err(|e| explain_open(&e))?;
    if let Direction::Kernel(turnaround) = direction {
        rs485::enable(&stream, turnaround).map_err(|e| {
            format!(
                "the driver cannot switch RS485 direction ({e}); if the transceiver does it itself, set rs485 = {{ direction = \"auto\" }}"
            )
        })?;
    }
    Ok(stream)
}

/// Changes speed and framing of an open device.
pub(super) fn set_speed(port: &mut SerialStream, speed: Speed) -> Result<(), LineError> {
    let set = |port: &mut SerialStream| {
        port.set_baud_rate(speed.baud)?;
        port.set_data_bits(data_bits(speed.framing))?;
        port.set_parity(parity(speed.framing))?;
        port.set_stop_bits(stop_bits(speed.framing))
    };
    set(port).map_err(|e| LineError::from_io(e.into()))
}
