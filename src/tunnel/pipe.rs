//! Moves bytes between a line and a peer, whichever can.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connect::Stream;
use crate::os::line::Line;

/// No more is taken from one side while so many bytes wait for the other.
pub(super) const MOST: usize = 64 << 10;
const PIECE: usize = 4096;

/// What moved; what was read is in [`Pipe::read`].
#[derive(Debug)]
pub(super) enum Moved {
    FromLine(io::Result<usize>),
    /// With what was written.
    ToLine(io::Result<Vec<u8>>),
    FromPeer(io::Result<usize>),
    ToPeer(io::Result<usize>),
    Flushed,
}

/// The bytes under way between both.
pub(super) struct Pipe {
    pub(super) peer: Option<Box<dyn Stream>>,
    /// What waits for the line.
    pub(super) to_line: Vec<u8>,
    /// What waits for the peer, as it travels.
    pub(super) to_peer: Vec<u8>,
    scratch: Vec<u8>,
    /// TLS may hold what was written until it is flushed.
    unflushed: bool,
    /// Who is asked first: each in turn, so that nobody starves.
    turn: u8,
}

impl Pipe {
    pub(super) fn new() -> Self {
        Self {
            peer: None,
            to_line: Vec::new(),
            to_peer: Vec::new(),
            scratch: vec![0; PIECE],
            unflushed: false,
            turn: 0,
        }
    }

    /// Forgets the peer and all that was under way.
    pub(super) fn reset(&mut self, peer: Option<Box<dyn Stream>>) {
        self.peer = peer;
        self.to_line.clear();
        self.to_peer.clear();
        self.unflushed = false;
    }

    /// The first `count` bytes that were read last.
    pub(super) fn read(&self, count: usize) -> &[u8] {
        self.scratch.get(..count).unwrap_or_default()
    }

    /// Waits until something moved; of the line at most `from_line` bytes, of the peer only with `from_peer`. Dropping it loses nothing.
    pub(super) async fn moved(&mut self, mut line: Option<&mut Line>, from_line: usize, from_peer: bool) -> Moved {
        self.turn = self.turn.wrapping_add(1);
        let first = self.turn;
        poll_fn(|cx| {
            for step in 0..4 {
                let polled = match (first.wrapping_add(step)) % 4 {
                    0 => self.poll_from_line(cx, line.as_deref_mut(), from_line),
                    1 => self.poll_to_line(cx, line.as_deref_mut()),
                    2 => self.poll_to_peer(cx),
                    _ => self.poll_from_peer(cx, from_peer),
                };
                if polled.is_ready() {
                    return polled;
                }
            }
            Poll::Pending
        })
        .await
    }

    fn poll_from_line(&mut self, cx: &mut Context<'_>, line: Option<&mut Line>, most: usize) -> Poll<Moved> {
        let Some(line) = line.filter(|_| most > 0) else { return Poll::Pending };
        let room = most.min(PIECE);
        let mut buffer = ReadBuf::new(self.scratch.get_mut(..room).unwrap_or_default());
        let polled = Pin::new(line).poll_read(cx, &mut buffer);
        let count = buffer.filled().len();
        polled.map(|done| Moved::FromLine(done.map(|()| count)))
    }

    fn poll_to_line(&mut self, cx: &mut Context<'_>, line: Option<&mut Line>) -> Poll<Moved> {
        let Some(line) = line.filter(|_| !self.to_line.is_empty()) else { return Poll::Pending };
        let polled = Pin::new(line).poll_write(cx, &self.to_line);
        polled.map(|done| Moved::ToLine(done.map(|count| self.to_line.drain(..count).collect())))
    }

    fn poll_to_peer(&mut self, cx: &mut Context<'_>) -> Poll<Moved> {
        let Some(peer) = &mut self.peer else { return Poll::Pending };
        if self.to_peer.is_empty() {
            if !self.unflushed {
                return Poll::Pending;
            }
            return Pin::new(peer).poll_flush(cx).map(|done| {
                self.unflushed = false;
                done.map_or_else(|error| Moved::ToPeer(Err(error)), |()| Moved::Flushed)
            });
        }
        let polled = Pin::new(peer).poll_write(cx, &self.to_peer);
        polled.map(|done| {
            if let Ok(count) = &done {
                self.to_peer.drain(..*count);
                self.unflushed = true;
            }
            Moved::ToPeer(done)
        })
    }

    fn poll_from_peer(&mut self, cx: &mut Context<'_>, wanted: bool) -> Poll<Moved> {
        let Some(peer) = self.peer.as_mut().filter(|_| wanted) else { return Poll::Pending };
        let mut buffer = ReadBuf::new(&mut self.scratch);
        let polled = Pin::new(peer).poll_read(cx, &mut buffer);
        let count = buffer.filled().len();
        polled.map(|done| Moved::FromPeer(done.map(|()| count)))
    }
}
