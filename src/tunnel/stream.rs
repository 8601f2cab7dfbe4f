//! Runs a numbered stream between messages of the broker and whoever has the bytes: a gateway's line, or a program.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::Request;
use super::once::{News, Peer, Reason};
use crate::wire::numbered;

/// Bytes handed over at once.
const PORTION: usize = 4096;
/// Portions that wait for whoever has the bytes; the window bounds the rest.
const PORTIONS_WAITING: usize = 2;
/// The longest wait for the other side to confirm an end.
const FAREWELL: Duration = Duration::from_secs(2);

/// The ends of one session for whoever has the bytes. A closed one means that the session is over; dropping them ends it.
#[derive(Debug)]
pub struct Wire {
    /// What came from the other side.
    pub requests: mpsc::Receiver<Request>,
    /// What goes there.
    pub answers: mpsc::Sender<Vec<u8>>,
}

/// The other ends.
#[derive(Debug)]
struct Held {
    to: mpsc::Sender<Request>,
    from: mpsc::Receiver<Vec<u8>>,
}

/// One numbered stream after the other.
#[derive(Debug)]
pub struct NumberedStream {
    peer: Peer,
    began: Instant,
    /// Messages from the other side.
    incoming: mpsc::Receiver<Request>,
    /// And to it.
    outgoing: mpsc::Sender<Vec<u8>>,
    wires: mpsc::Sender<Wire>,
    /// A wire that nobody took yet.
    unborn: Option<Wire>,
    held: Option<Held>,
}

impl NumberedStream {
    /// Joins a peer, messages and whoever has the bytes, who gets a [`Wire`] for each session.
    pub fn new(
        peer: Peer,
        incoming: mpsc::Receiver<Request>,
        outgoing: mpsc::Sender<Vec<u8>>,
        wires: mpsc::Sender<Wire>,
    ) -> Self {
        Self { peer, began: Instant::now(), incoming, outgoing, wires, unborn: None, held: None }
    }

    /// Runs until nobody is left on one side; `told` hears how sessions begin and end.
    pub async fn run(&mut self, mut told: impl FnMut(News)) {
        loop {
            while let Some(news) = self.peer.news() {
                self.follow(news);
                told(news);
            }
            if !self.step(&mut told).await {
                return;
            }
        }
    }

    /// Ends the session, and returns when the other side has confirmed that, or soon.
    pub async fn close(&mut self) {
        self.peer.end(self.began.elapsed(), Reason::Closed);
        self.held = None;
        let farewell = async {
            while let Some(message) = self.peer.next(self.began.elapsed()) {
                let mut bytes = Vec::new();
                numbered::encode(&message, &mut bytes);
                if self.outgoing.send(bytes).await.is_err() {
                    return;
                }
            }
            while let Some(Request { bytes, .. }) = self.incoming.recv().await {
                if numbered::decode(&bytes).is_ok_and(|heard| heard.kind == numbered::Kind::End(Reason::Closed)) {
                    return;
                }
            }
        };
        // Who does not hear it will find out.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }

    fn follow(&mut self, news: News) {
        match news {
            News::Begun => {
                let (to, requests) = mpsc::channel(PORTIONS_WAITING);
                let (answers, from) = mpsc::channel(1);
                self.unborn = Some(Wire { requests, answers });
                self.held = Some(Held { to, from });
            }
            News::Ended(_) => (self.unborn, self.held) = (None, None),
            News::Busy => {}
        }
    }

    /// Does the next thing. False: somebody has gone for good.
    async fn step(&mut self, told: &mut impl FnMut(News)) -> bool {
        let Self { peer, began, incoming, outgoing, wires, unborn, held } = self;
        let now = began.elapsed();
        let due = peer.due(now);
        let is_due = due.is_some_and(|due| due <= now);
        let later = *began + due.unwrap_or_default();
        let (to, from) = held.as_mut().map(|held| (&held.to, &mut held.from)).unzip();
        let mut gone = false;
        tokio::select! {
            heard = incoming.recv() => match heard {
                None => return false,
                Some(Request { bytes, .. }) => match numbered::decode(&bytes) {
                    Ok(message) => peer.hear(began.elapsed(), &message),
                    Err(error) => tracing::debug!(%error, "a message is not in the tunnel's numbered envelope and is dropped"),
                },
            },
            place = outgoing.reserve(), if is_due => {
                let Ok(place) = place else { return false };
                if let Some(message) = peer.next(began.elapsed()) {
                    let mut bytes = Vec::new();
                    numbered::encode(&message, &mut bytes);
                    place.send(bytes);
                }
            }
            () = sleep_until(later), if due.is_some() && !is_due => {}
            place = wires.reserve(), if unborn.is_some() => match (place, unborn.take()) {
                (Ok(place), Some(wire)) => place.send(wire),
                _ => return false,
            },
            bytes = receive(from), if peer.room() > 0 => match bytes {
                Some(bytes) => peer.push(&bytes),
                None => gone = true,
            },
            place = reserve(to), if peer.has_bytes() => match place {
                Ok(place) => place.send(Request { bytes: peer.take(began.elapsed(), PORTION), at: Instant::now() }),
                Err(_) => gone = true,
            },
        }
        if gone {
            // The line has gone: what was on its way there is lost, and the other side must know.
            peer.end(began.elapsed(), Reason::Line);
            self.follow(News::Ended(Reason::Line));
            told(News::Ended(Reason::Line));
        }
        true
    }
}

async fn receive(from: Option<&mut mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match from {
        Some(from) => from.recv().await,
        None => std::future::pending().await,
    }
}

async fn reserve(to: Option<&mpsc::Sender<Request>>) -> Result<mpsc::Permit<'_, Request>, mpsc::error::SendError<()>> {
    match to {
        Some(to) => to.reserve().await,
        None => std::future::pending().await,
    }
}
