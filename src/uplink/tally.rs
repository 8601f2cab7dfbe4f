//! Counts what really goes over the connections: every byte of TCP, TLS handshakes included.
//!
//! Not seen from here are the headers of the packets (they are estimated: [`Amount::packets`]),
//! repeated packets of a bad link, and name lookups. A byte counts as sent when the kernel took it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

/// What one packet carries on a usual mobile link (MTU 1,500 less headers and tunnels).
const PACKET: usize = 1400;
/// SYN, SYN-ACK and ACK, FIN and ACK in both directions.
const PACKETS_OF_A_CONNECTION: u64 = 7;
/// A SYN that nobody answered and its first repetition.
const PACKETS_OF_A_FAILURE: u64 = 2;

/// What a TLS handshake sends and receives, about, with two certificates.
const HANDSHAKE: (usize, usize) = (600, 4000);
/// What TLS 1.3 adds to a record (RFC 8446, 5.2).
const RECORD: usize = 22;

/// How long a peer may take to say goodbye after weir hung up.
const GOODBYE: Duration = Duration::from_secs(5);

/// An amount of traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes written to TCP.
    pub sent: u64,
    /// Bytes read from TCP.
    pub received: u64,
    /// Packets that this took, both directions; estimated, the bare acknowledgements included.
    pub packets: u64,
}

impl Amount {
    /// Bytes of TCP, both directions.
    pub const fn bytes(self) -> u64 {
        self.sent.saturating_add(self.received)
    }

    /// What a carrier bills when each packet costs `headers` more bytes.
    pub const fn billed(self, headers: u64) -> u64 {
        self.bytes().saturating_add(self.packets.saturating_mul(headers))
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent.saturating_add(other.sent),
            received: self.received.saturating_add(other.received),
            packets: self.packets.saturating_add(other.packets),
        }
    }
}

/// Counters that connections add to and the books take from.
#[derive(Debug, Default)]
pub struct Tally {
    sent: AtomicU64,
    received: AtomicU64,
    /// Packets times two, because two packets with data make one bare acknowledgement.
    half_packets: AtomicU64,
    /// Bytes since the last look that let [`Tally::passed`] return; 0: nobody waits.
    alarm: AtomicU64,
    much: Notify,
}

impl Tally {
    /// Takes what was counted since the last time.
    pub fn take(&self) -> Amount {
        let halves = self.half_packets.swap(0, Ordering::Relaxed);
        self.half_packets.fetch_add(halves % 2, Ordering::Relaxed);
        Amount {
            sent: self.sent.swap(0, Ordering::Relaxed),
            received: self.received.swap(0, Ordering::Relaxed),
            packets: halves / 2,
        }
    }

    /// Returns when `bytes` have passed since they were last taken.
    pub(super) async fn passed(&self, bytes: u64) {
        self.alarm.store(bytes, Ordering::Relaxed);
        self.look();
        self.much.notified().await;
    }

    fn look(&self) {
        let bytes = self.sent.load(Ordering::Relaxed).saturating_add(self.received.load(Ordering::Relaxed));
        let alarm = self.alarm.load(Ordering::Relaxed);
        if alarm > 0 && bytes >= alarm {
            self.alarm.store(0, Ordering::Relaxed);
            self.much.notify_one();
        }
    }

    /// An attempt to connect came to nothing.
    pub(super) fn failed(&self) {
        self.half_packets.fetch_add(PACKETS_OF_A_FAILURE * 2, Ordering::Relaxed);
    }

    /// A TLS session of somebody else's began: its packets and its handshake, estimated, and what was asked there.
    pub(super) fn asked(&self, bytes: usize) {
        self.half_packets.fetch_add(PACKETS_OF_A_CONNECTION * 2, Ordering::Relaxed);
        let _ = self.wrote(Poll::Ready(Ok(HANDSHAKE.0 + bytes)));
        self.received(HANDSHAKE.1);
    }

    /// A piece came through it, in a record of TLS.
    pub(super) fn heard(&self, bytes: usize) {
        self.received(bytes + RECORD);
    }

    #[cfg(test)]
    pub(super) fn spend(&self, sent: u64) {
        self.sent.fetch_add(sent, Ordering::Relaxed);
        self.look();
    }

    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = polled {
            self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
            self.data_packets(bytes);
        }
        polled
    }

    fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.data_packets(bytes);
    }

    fn data_packets(&self, bytes: usize) {
        self.half_packets.fetch_add(bytes.div_ceil(PACKET) as u64 * 3, Ordering::Relaxed);
        self.look();
    }
}

/// A TCP connection whose bytes are counted.
#[derive(Debug)]
pub(super) struct Counted {
    /// There until it is dropped.
    stream: Option<TcpStream>,
    tally: Arc<Tally>,
    prompt: bool,
}

impl Counted {
    /// Takes over a connection that was just made.
    pub(super) fn new(stream: TcpStream, tally: Arc<Tally>) -> Self {
        tally.half_packets.fetch_add(PACKETS_OF_A_CONNECTION * 2, Ordering::Relaxed);
        Self { stream: Some(stream), tally, prompt: false }
    }

    /// Acknowledges what comes at once when `prompt`. A broker that does not switch Nagle's algorithm off (mosquitto's
    /// default) holds a message back until the PUBACK before it is acknowledged, which a kernel likes to put off by 40 ms.
    pub(super) fn acknowledging(mut self, prompt: bool) -> Self {
        self.prompt = prompt;
        self
    }

    fn with<T>(
        self: Pin<&mut Self>,
        act: impl FnOnce(Pin<&mut TcpStream>, &Tally) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let this = self.get_mut();
        match &mut this.stream {
            Some(stream) => act(Pin::new(stream), &this.tally),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl Drop for Counted {
    /// The peer's goodbye comes when nobody reads any more, and has to be paid for all the same.
    fn drop(&mut self) {
        if let (Some(stream), Ok(runtime)) = (self.stream.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(timeout(GOODBYE, hear_out(stream, Arc::clone(&self.tally))));
        }
    }
}

/// Hangs up and counts what still comes.
async fn hear_out(mut stream: TcpStream, tally: Arc<Tally>) {
    let _ = stream.shutdown().await;
    let mut rest = [0; 512];
    while let Ok(bytes @ 1..) = stream.read(&mut rest).await {
        tally.received(bytes);
    }
}

impl AsyncRead for Counted {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let prompt = self.prompt;
        self.with(|mut stream, tally| {
            let before = buffer.filled().len();
            let polled = stream.as_mut().poll_read(cx, buffer);
            let came = buffer.filled().len().saturating_sub(before);
            tally.received(came);
            if prompt && came > 0 {
                // The kernel forgets it. Without, everything only takes longer.
                let _ = stream.set_quickack(true);
            }
            polled
        })
    }
}

impl AsyncWrite for Counted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|stream, tally| tally.wrote(stream.poll_write(cx, bytes)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream, tally| tally.wrote(stream.poll_write_vectored(cx, slices)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream, _| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream, _| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn every_byte_is_counted_once_in_its_direction_and_unread_ones_at_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tally = Arc::new(Tally::default());
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut near = Counted::new(near, Arc::clone(&tally));
        let (mut far, _) = listener.accept().await.unwrap();
        near.write_all(&[1; 3000]).await.unwrap();
        let slices = [IoSlice::new(&[2; 10]), IoSlice::new(&[3; 20])];
        assert_eq!(near.write_vectored(&slices).await.unwrap(), 30);
        far.read_exact(&mut [0; 3030]).await.unwrap();
        far.write_all(&[4; 500]).await.unwrap();
        near.read_exact(&mut [0; 100]).await.unwrap();
        let first = tally.take();
        assert_eq!((first.sent, first.received), (3030, 100));
        // 7 of the connection; 3 + 1 + 1 with data and half as many acknowledgements.
        assert_eq!(first.packets, 7 + 7);
        drop(near);
        far.write_all(&[5; 24]).await.unwrap();
        // The end comes when everything before it was heard out.
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
        drop(far);
        let mut rest = Amount::default();
        let heard = async {
            while rest.received < 424 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                rest = rest.plus(tally.take());
            }
        };
        timeout(Duration::from_secs(30), heard).await.expect("the rest is counted");
        assert_eq!((rest.sent, rest.received), (0, 424));
        assert_eq!(tally.take(), Amount::default());
    }
}
