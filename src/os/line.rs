//! A line to a meter or receiver: a serial port, or a serial server reached by TCP.
//!
//! Invariants: writing never waits in the kernel (`tcdrain` would block the runtime's thread);
//! a read of zero bytes means the port is gone; every wait has an end.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_serial::{ClearBuffer, SerialPort, SerialPortBuilderExt, SerialStream};

use super::alarm::Alarm;
use super::rs485;

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
                (!usable).then_some("must be tcp://host:port")
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

/// Parity of a serial character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parity {
    /// No parity bit.
    None,
    /// An even number of ones.
    Even,
    /// An odd number of ones.
    Odd,
}

/// How a character is framed, written `8N1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Framing {
    /// 7 or 8.
    pub data_bits: u8,
    /// The parity bit.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
}

impl Framing {
    /// Eight data bits, no parity, one stop bit.
    pub const EIGHT_N_ONE: Self = Self { data_bits: 8, parity: Parity::None, stop_bits: 1 };

    /// Reads `8N1`, `7E1`, `8N2` ...
    pub fn parse(text: &str) -> Option<Self> {
        let [data, parity, stop] = text.as_bytes() else { return None };
        Some(Self {
            data_bits: match data {
                b'7' => 7,
                b'8' => 8,
                _ => return None,
            },
            parity: match parity {
                b'N' | b'n' => Parity::None,
                b'E' | b'e' => Parity::Even,
                b'O' | b'o' => Parity::Odd,
                _ => return None,
            },
            stop_bits: match stop {
                b'1' => 1,
                b'2' => 2,
                _ => return None,
            },
        })
    }

    /// Bits on the wire for one character, start bit included.
    pub const fn bits_per_character(self) -> u32 {
        let parity = match self.parity {
            Parity::None => 0,
            Parity::Even | Parity::Odd => 1,
        };
        1 + self.data_bits as u32 + parity + self.stop_bits as u32
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parity = match self.parity {
            Parity::None => 'N',
            Parity::Even => 'E',
            Parity::Odd => 'O',
        };
        write!(f, "{}{parity}{}", self.data_bits, self.stop_bits)
    }
}

/// Who turns an RS485 transceiver from receiving to sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The kernel, by TIOCSRS485.
    Kernel,
    /// Nobody: RS232, or a transceiver that does it itself.
    Automatic,
}

/// Speed and framing of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Speed {
    /// Bits per second.
    pub baud: u32,
    /// Character framing.
    pub framing: Framing,
}

impl Speed {
    /// How long `count` characters take on the wire.
    pub fn time_of(self, count: usize) -> Duration {
        let bits = u64::from(self.framing.bits_per_character()).saturating_mul(count as u64);
        Duration::from_micros(bits.saturating_mul(1_000_000) / u64::from(self.baud.max(1)))
    }
}

/// Why a line failed.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It could not be opened.
    #[error("cannot open {endpoint}: {reason}")]
    Open {
        /// Where it should lead.
        endpoint: String,
        /// What the system said and what to do about it.
        reason: String,
    },
    /// The port or connection went away; it must be opened again.
    #[error("the line is gone (unplugged or closed by the other side)")]
    Gone,
    /// Nothing came within the time allowed.
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
    /// Any other failure of the system; the line must be opened again.
    #[error("the line failed: {0}")]
    System(#[source] io::Error),
}

impl LineError {
    /// Tells whether the line must be closed and opened again.
    pub const fn must_reopen(&self) -> bool {
        !matches!(self, Self::Silent(_))
    }

    fn from_io(error: io::Error) -> Self {
        const EIO: i32 = 5;
        const ENXIO: i32 = 6;
        const ENODEV: i32 = 19;
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset, _)
            | (_, Some(EIO | ENXIO | ENODEV)) => Self::Gone,
            _ => Self::System(error),
        }
    }
}

enum Io {
    Serial(SerialStream),
    Tcp(TcpStream),
}

/// An open line with its speed.
pub struct Line {
    io: Io,
    speed: Speed,
    /// When the last byte was sent or received, for silence rules such as Modbus t3.5.
    last_byte: Instant,
    number: u16,
    alarm: Alarm,
}

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

impl Line {
    /// Opens a line. Takes exclusive hold of a serial device.
    ///
    /// # Errors
    /// [`LineError::Open`] with the reason.
    pub async fn open(endpoint: &Endpoint, speed: Speed, direction: Direction) -> Result<Self, LineError> {
        let failed = |reason: String| LineError::Open { endpoint: endpoint.to_string(), reason };
        let io = match endpoint {
            Endpoint::Device(path) => {
                let name = path.to_string_lossy();
                let builder = tokio_serial::new(name, speed.baud)
                    .data_bits(data_bits(speed.framing))
                    .parity(parity(speed.framing))
                    .stop_bits(stop_bits(speed.framing));
                let stream = builder.open_native_async().map_err(|e| failed(explain_open(&e)))?;
                if direction == Direction::Kernel {
                    rs485::enable(&stream).map_err(|e| {
                        failed(format!(
                            "the driver cannot switch RS485 direction ({e}); if the transceiver does it itself, set rs485 = {{ direction = \"auto\" }}"
                        ))
                    })?;
                }
                Io::Serial(stream)
            }
            Endpoint::Tcp(address) => {
                let stream = timeout(CONNECT_LIMIT, TcpStream::connect(address.as_str())).await;
                let stream = stream
                    .map_err(|_| failed("no connection within 5 s; check the address and the cable".to_owned()))?
                    .map_err(|e| failed(format!("{e}; check the address and that the serial server is on")))?;
                stream.set_nodelay(true).map_err(|e| failed(e.to_string()))?;
                watch_peer(&stream).map_err(|e| failed(e.to_string()))?;
                Io::Tcp(stream)
            }
        };
        Ok(Self { io, speed, last_byte: Instant::now(), number: 0, alarm: Alarm::new() })
    }

    /// The present speed; over TCP what the serial server is assumed to use.
    pub const fn speed(&self) -> Speed {
        self.speed
    }

    /// A running number for those who number what they send over this line: never the same twice
    /// in a row of 65,536, whoever asks.
    pub const fn next_number(&mut self) -> u16 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// Tells whether bytes travel over TCP, where character times mean little.
    pub const fn is_tcp(&self) -> bool {
        matches!(self.io, Io::Tcp(_))
    }

    /// When the last byte was sent or received.
    pub const fn last_byte(&self) -> Instant {
        self.last_byte
    }

    /// Changes speed and framing; over TCP it is only remembered.
    ///
    /// # Errors
    /// [`LineError::Gone`] or [`LineError::System`] when the driver refuses.
    pub fn set_speed(&mut self, speed: Speed) -> Result<(), LineError> {
        if let Io::Serial(port) = &mut self.io
            && speed != self.speed
        {
            let set = |port: &mut SerialStream| {
                port.set_baud_rate(speed.baud)?;
                port.set_data_bits(data_bits(speed.framing))?;
                port.set_parity(parity(speed.framing))?;
                port.set_stop_bits(stop_bits(speed.framing))
            };
            set(port).map_err(|e| LineError::from_io(e.into()))?;
        }
        self.speed = speed;
        Ok(())
    }

    /// Waits until `moment`, exact to some ten microseconds, as short silences need it.
    pub async fn pause_until(&mut self, moment: Instant) {
        self.alarm.until(moment).await;
    }

    /// Sends all bytes and returns when the last one should have left the wire.
    ///
    /// # Errors
    /// [`LineError::Silent`] when the port takes no bytes for a second longer than they need;
    /// otherwise the line must be opened again.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), LineError> {
        let wire_time = if self.is_tcp() { Duration::ZERO } else { self.speed.time_of(bytes.len()) };
        let limit = wire_time + Duration::from_secs(1);
        let start = Instant::now();
        timeout(limit, self.write_all(bytes))
            .await
            .map_err(|_| LineError::Silent(limit))?
            .map_err(LineError::from_io)?;
        self.alarm.until(start + wire_time).await;
        let give_up = start + limit;
        while self.bytes_in_output_queue() > 0 && Instant::now() < give_up {
            sleep(self.speed.time_of(1).max(Duration::from_millis(1))).await;
        }
        self.last_byte = Instant::now();
        Ok(())
    }

    /// Receives what is there into `buffer`, waiting for the first byte at most until `deadline`.
    ///
    /// # Errors
    /// [`LineError::Silent`] when nothing came; otherwise the line must be opened again.
    pub async fn receive(&mut self, buffer: &mut [u8], deadline: Instant) -> Result<usize, LineError> {
        let asked = Instant::now();
        match tokio::time::timeout_at(deadline, self.read(buffer)).await {
            Err(_) => Err(LineError::Silent(deadline.saturating_duration_since(asked))),
            Ok(Err(error)) => Err(LineError::from_io(error)),
            Ok(Ok(0)) => Err(LineError::Gone),
            Ok(Ok(count)) => {
                self.last_byte = Instant::now();
                Ok(count)
            }
        }
    }

    /// Throws away what already waits in the kernel and returns how many bytes were read away;
    /// does not wait for more.
    ///
    /// # Errors
    /// [`LineError::Gone`] or [`LineError::System`].
    pub async fn discard_waiting(&mut self) -> Result<usize, LineError> {
        let mut dropped = 0;
        let mut scratch = [0; 256];
        // Bounded: a port that babbles without end must not hold us here.
        for _ in 0..64 {
            // Looked at once: a timer that is due at once still rings a millisecond later.
            let mut buffer = ReadBuf::new(&mut scratch);
            let look = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *self).poll_read(cx, &mut buffer))).await;
            match (look, buffer.filled().len()) {
                (Poll::Pending, _) => break,
                (Poll::Ready(Err(error)), _) => return Err(LineError::from_io(error)),
                (Poll::Ready(Ok(())), 0) => return Err(LineError::Gone),
                (Poll::Ready(Ok(())), count) => {
                    self.last_byte = Instant::now();
                    dropped += count;
                }
            }
        }
        if let Io::Serial(port) = &self.io {
            port.clear(ClearBuffer::Input).map_err(|e| LineError::from_io(e.into()))?;
        }
        Ok(dropped)
    }

    /// Reads away everything until the line was silent for `silence`, at most for `limit`;
    /// returns how many bytes were dropped.
    ///
    /// # Errors
    /// [`LineError::Gone`] or [`LineError::System`].
    pub async fn wait_for_silence(&mut self, silence: Duration, limit: Duration) -> Result<usize, LineError> {
        let give_up = Instant::now() + limit;
        let mut dropped = 0;
        let mut scratch = [0; 256];
        while Instant::now() < give_up {
            let until = (Instant::now() + silence).min(give_up);
            match self.receive(&mut scratch, until).await {
                Ok(count) => dropped += count,
                Err(LineError::Silent(_)) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(dropped)
    }

    fn bytes_in_output_queue(&self) -> u32 {
        match &self.io {
            Io::Serial(port) => port.bytes_to_write().unwrap_or(0),
            Io::Tcp(_) => 0,
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Serial(port) => Pin::new(port).poll_read(cx, buf),
            Io::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Serial(port) => Pin::new(port).poll_write(cx, bytes),
            Io::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Deliberately nothing: tokio-serial flushes by tcdrain, which blocks the thread.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Serial(_) => Poll::Ready(Ok(())),
            Io::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Lets the kernel find out within a minute that the other side vanished without a word; who only
/// listens would wait for ever.
fn watch_peer(stream: &TcpStream) -> rustix::io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_reads_what_it_prints_and_counts_its_bits() {
        for (text, bits) in [("8N1", 10), ("7E1", 10), ("8E1", 11), ("8N2", 11), ("7O2", 11)] {
            let framing = Framing::parse(text).unwrap();
            assert_eq!((framing.to_string().as_str(), framing.bits_per_character()), (text, bits));
        }
        assert!(["", "8N", "9N1", "8X1", "8N3", "8N1 "].iter().all(|t| Framing::parse(t).is_none()));
    }

    #[test]
    fn a_character_takes_its_bits_at_the_baud_rate() {
        let speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
        assert_eq!(speed.time_of(96), Duration::from_millis(100));
    }
}
