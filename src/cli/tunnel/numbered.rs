//! The operator's side of a numbered tunnel: a stream that arrives exactly once, or ends where everybody sees it.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::near::Near;
use super::{Open, TOGETHER};
use crate::cli::failure::Failure;
use crate::os::random;
use crate::tunnel::once::{News, Peer, Reason};
use crate::tunnel::{NumberedStream, Request, Wire};
use crate::uplink::{Heard, Saying, Speaker};

/// The largest message.
const LARGEST: usize = 4096;
/// Messages that may wait each way.
const WAITING: usize = 4;

impl Open {
    /// Joins a program here and the gateway's line, one session after the other, until Ctrl-C.
    pub(super) async fn carry_numbered(
        &self,
        (mut heard, speaker): (mpsc::Receiver<Heard>, Speaker),
        rx: String,
        max_age: Duration,
    ) -> Result<(), Failure> {
        let (came, incoming) = mpsc::channel(WAITING);
        let (outgoing, mut goes) = mpsc::channel::<Vec<u8>>(WAITING);
        let (give, wires) = mpsc::channel(1);
        let peer = Peer::caller(max_age, LARGEST, random::generator());
        let mut stream = NumberedStream::new(peer, incoming, outgoing, give);
        let hear = async {
            while let Some(Heard { payload, at, .. }) = heard.recv().await {
                if came.send(Request { bytes: payload, at }).await.is_err() {
                    return;
                }
            }
        };
        let say = async {
            while let Some(payload) = goes.recv().await {
                let saying = Saying { topic: rx.clone(), payload, until: Some(Instant::now() + max_age) };
                if speaker.say(saying).await.is_err() {
                    return;
                }
            }
        };
        let work = async {
            tokio::select! {
                () = stream.run(|news| tell(&self.port, news)) => return Ok(()),
                done = self.serve(wires) => return done,
                _ = tokio::signal::ctrl_c() => {}
            }
            stream.close().await;
            Ok(())
        };
        tokio::select! {
            done = work => done,
            () = hear => Ok(()),
            () = say => Ok(()),
        }
    }

    async fn serve(&self, mut wires: mpsc::Receiver<Wire>) -> Result<(), Failure> {
        let mut near: Option<Near> = None;
        while let Some(mut wire) = wires.recv().await {
            let near = match &mut near {
                Some(near) => near,
                none => {
                    let opened = none.insert(Near::open(self.tcp, self.link.as_deref()).await?);
                    self.tell(opened);
                    opened
                }
            };
            near.join(&mut wire, TOGETHER).await?;
            near.hang_up()?;
            // A terminal has another name now.
            if self.tcp.is_none() {
                self.tell(near);
            }
        }
        Ok(())
    }
}

fn tell(port: &str, news: News) {
    match news {
        News::Begun => tracing::info!(port, "the session with the gateway has begun"),
        News::Busy => tracing::warn!(port, "somebody else has the gateway's line; weir waits until it is free"),
        News::Ended(reason) => {
            let reason = match reason {
                Reason::Closed => "the gateway closed it",
                Reason::Busy => "somebody else has the line",
                Reason::Unknown => "the gateway began anew",
                Reason::Cut => "nothing was heard for longer than max_age",
                Reason::Line => "the line has gone",
            };
            tracing::warn!(port, reason, "the session is over; what was under way is lost and a new stream begins");
        }
    }
}
