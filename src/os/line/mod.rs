//! A line to a meter or receiver: a serial port, or a serial server reached by TCP.
//!
//! Invariants: writing never waits in the kernel (`tcdrain` would block the runtime's thread);
//! a read of zero bytes means the port is gone; every wait has an end; an echo of what was sent is
//! removed here, once for all protocols. [`AsyncRead`] and [`AsyncWrite`] move the raw bytes.

use std::borrow::Cow;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_serial::{ClearBuffer, SerialPort};

use super::alarm::Alarm;

mod echo;
mod notes;
mod open;
mod speed;
mod tap;
mod wires;

pub use echo::Echo;
pub use notes::{Exchange, Notes};
use open::Io;
pub use open::{Endpoint, watch_peer};
pub use speed::{Direction, Framing, Parity, Speed, Turnaround};
pub use tap::{Listener, Tap, Traced, What};
pub use wires::{Held, Wire};

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
    /// What was sent did not come back as it was sent.
    #[error(
        "the echo of the request came back damaged: two senders at once, or an adapter that does not echo (echo = \"no\")"
    )]
    Collision,
    /// Any other failure of the system; the line must be opened again.
    #[error("the line failed: {0}")]
    System(#[source] io::Error),
}

impl LineError {
    /// Tells whether the line must be closed and opened again.
    pub const fn must_reopen(&self) -> bool {
        !matches!(self, Self::Silent(_) | Self::Collision)
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

/// An open line with its speed.
pub struct Line {
    io: Io,
    /// Where it leads and who turns the transceiver; `None` when somebody else opened it.
    place: Option<(Endpoint, Direction)>,
    speed: Speed,
    /// When the last byte was sent or received, for silence rules such as Modbus t3.5.
    last_byte: Instant,
    alarm: Alarm,
    /// What was sent last is a secret.
    veiled: bool,
    /// When the last byte of the last request was sent.
    sent: Instant,
    number: u16,
    echo: echo::Filter,
    /// What is no echo and was not taken yet.
    ready: Vec<u8>,
    notes: Notes,
    /// Bytes that nobody took, since they were asked for.
    read_away: u64,
    tap: Tap,
}

impl Line {
    /// Opens a line. Takes exclusive hold of a serial device.
    ///
    /// # Errors
    /// [`LineError::Open`] with the reason.
    pub async fn open(endpoint: &Endpoint, speed: Speed, direction: Direction) -> Result<Self, LineError> {
        open::open(endpoint, speed, direction)
            .await
            .map(|io| Self::over(io, Some((endpoint.clone(), direction)), speed))
    }

    /// Takes a connection that somebody else opened.
    ///
    /// # Errors
    /// [`LineError::System`] when it has gone already.
    pub fn accepted(stream: TcpStream, speed: Speed) -> Result<Self, LineError> {
        open::connected(stream).map(|io| Self::over(io, None, speed)).map_err(LineError::System)
    }

    fn over(io: Io, place: Option<(Endpoint, Direction)>, speed: Speed) -> Self {
        Self {
            io,
            place,
            speed,
            last_byte: Instant::now(),
            alarm: Alarm::new(),
            veiled: false,
            sent: Instant::now(),
            number: 0,
            echo: echo::Filter::new(Echo::Auto),
            ready: Vec::new(),
            notes: Notes::default(),
            read_away: 0,
            tap: Tap::new(),
        }
    }

    /// Ends a TCP connection and makes a new one to the same place, so that no answer that is still under way comes any
    /// more. A serial device is left as it is: what is under way there can be waited for and read away.
    ///
    /// # Errors
    /// [`LineError::Open`], or [`LineError::Gone`] when the other side had made the connection; the line is gone then.
    pub async fn reopen(&mut self) -> Result<(), LineError> {
        let Io::Tcp(stream) = &mut self.io else { return Ok(()) };
        let (endpoint, direction) = self.place.clone().ok_or(LineError::Gone)?;
        // Many serial servers take one connection only.
        let _ = timeout(Duration::from_secs(1), stream.shutdown()).await;
        self.tap.tell(|| What::Closed);
        self.forget();
        self.veiled = false;
        self.io = open::open(&endpoint, self.speed, direction).await?;
        self.last_byte = Instant::now();
        self.tap.tell(|| What::Opened(self.speed));
        Ok(())
    }

    /// Lets the listeners of `tap` hear this line from now on, instead of any tap before.
    pub fn put_tap(&mut self, tap: &Tap) {
        self.tap = tap.clone();
        self.tap.tell(|| What::Opened(self.speed));
    }

    /// Says what is known of the line's echo; a change forgets what was learnt.
    pub fn set_echo(&mut self, echo: Echo) {
        if echo != self.echo.mode() {
            self.echo = echo::Filter::new(echo);
        }
    }

    /// Whether what is sent comes back, when that is known. A request whose answer may equal it (a
    /// Modbus write) is best sent when it is known: any read before it teaches.
    pub const fn echoes(&self) -> Option<bool> {
        self.echo.known()
    }

    /// Takes what was noted since the last call.
    pub fn take_notes(&mut self) -> Notes {
        self.notes.end();
        let mut notes = std::mem::take(&mut self.notes);
        notes.echoes = std::mem::take(&mut self.echo.echoes);
        notes.collisions = std::mem::take(&mut self.echo.collisions);
        notes
    }

    /// Takes how many bytes were read away since the last call.
    pub const fn take_read_away(&mut self) -> u64 {
        std::mem::replace(&mut self.read_away, 0)
    }

    /// Counts an answer that was damaged; for the evidence, also when asking again mended it.
    pub const fn note_damage(&mut self) {
        self.notes.damaged = self.notes.damaged.saturating_add(1);
    }

    /// Tells whether an adapter was unplugged, without waiting and without taking any bytes; over
    /// TCP only reading tells.
    pub fn is_gone(&self) -> bool {
        // A line that hung up refuses every request with EIO.
        matches!(&self.io, Io::Serial(port) if port.bytes_to_read().is_err())
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
        if speed != self.speed {
            if let Io::Serial(port) = &mut self.io {
                open::set_speed(port, speed)?;
            }
            self.tap.tell(|| What::Speed(speed));
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
        self.veiled = false;
        self.transmit(bytes).await
    }

    /// Sends a password: notes and tap get asterisks for it and for what comes back, which may be its echo.
    ///
    /// # Errors
    /// As [`Line::send`].
    pub async fn send_secret(&mut self, bytes: &[u8]) -> Result<(), LineError> {
        self.veiled = true;
        self.transmit(bytes).await
    }

    async fn transmit(&mut self, bytes: &[u8]) -> Result<(), LineError> {
        let wire_time = if self.is_tcp() { Duration::ZERO } else { self.speed.time_of(bytes.len()) };
        let limit = wire_time + Duration::from_secs(1);
        let start = Instant::now();
        self.notes.begin();
        self.echo.sent(bytes);
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
        self.sent = self.last_byte;
        Ok(())
    }

    /// Receives what is there into `buffer`, echoes removed, waiting for the first byte at most
    /// until `deadline`. May be dropped at any moment: nothing is lost then.
    ///
    /// # Errors
    /// [`LineError::Silent`] when nothing came, [`LineError::Collision`]; otherwise the line must
    /// be opened again.
    pub async fn receive(&mut self, buffer: &mut [u8], deadline: Instant) -> Result<usize, LineError> {
        let asked = Instant::now();
        loop {
            if !self.ready.is_empty() {
                return Ok(self.take_ready(buffer));
            }
            // What is given back is never more than what came and what was held before it.
            match self.receive_raw(buffer, deadline, asked).await {
                Ok(count) => {
                    let came = buffer.get(..count).unwrap_or_default();
                    self.echo.push(came, &mut self.ready).map_err(|echo::Collision| LineError::Collision)?;
                    if !self.ready.is_empty() {
                        self.notes.answered(self.last_byte.saturating_duration_since(self.sent));
                    }
                }
                Err(error @ LineError::Silent(_)) => {
                    self.echo.silence(&mut self.ready);
                    if self.ready.is_empty() {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn take_ready(&mut self, buffer: &mut [u8]) -> usize {
        let count = self.ready.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(self.ready.drain(..count)) {
            *to = from;
        }
        count
    }

    async fn receive_raw(&mut self, buffer: &mut [u8], deadline: Instant, asked: Instant) -> Result<usize, LineError> {
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
        dropped += self.forget();
        self.read_away += dropped as u64;
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
            let now = Instant::now();
            match self.receive_raw(&mut scratch, (now + silence).min(give_up), now).await {
                Ok(count) => dropped += count,
                Err(LineError::Silent(_)) => break,
                Err(error) => return Err(error),
            }
        }
        dropped += self.forget();
        self.read_away += dropped as u64;
        Ok(dropped)
    }

    /// Nothing that came or was sent so far matters any more.
    fn forget(&mut self) -> usize {
        self.echo.forget();
        std::mem::take(&mut self.ready).len()
    }

    fn bytes_in_output_queue(&self) -> u32 {
        match &self.io {
            Io::Serial(port) => port.bytes_to_write().unwrap_or(0),
            Io::Tcp(_) => 0,
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Io::Serial(port) = &self.io {
            // Closing waits in the kernel for what is not sent yet, up to half a minute.
            let _ = port.clear(ClearBuffer::Output);
        }
        self.tap.tell(|| What::Closed);
    }
}

/// Bytes as notes and tap may see them.
fn shown(bytes: &[u8], veiled: bool) -> Cow<'_, [u8]> {
    if veiled { Cow::Owned(vec![b'*'; bytes.len()]) } else { Cow::Borrowed(bytes) }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let line = self.get_mut();
        let before = buf.filled().len();
        let polled = match &mut line.io {
            Io::Serial(port) => Pin::new(port).poll_read(cx, buf),
            Io::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        let came = buf.filled().get(before..).unwrap_or_default();
        if !came.is_empty() {
            let shown = shown(came, line.veiled);
            line.notes.received(&shown);
            line.tap.tell(|| What::Received(shown[..].into()));
        }
        polled
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let line = self.get_mut();
        let polled = match &mut line.io {
            Io::Serial(port) => Pin::new(port).poll_write(cx, bytes),
            Io::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        if let Poll::Ready(Ok(count)) = polled {
            let taken = bytes.get(..count).unwrap_or_default();
            let shown = shown(taken, line.veiled);
            line.notes.sent(&shown);
            line.tap.tell(|| What::Sent(shown[..].into()));
        }
        polled
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
