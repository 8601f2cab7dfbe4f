//! Commands of what hangs on a line, inside tags in its bytes, and their answers in between what the platform sends.
//!
//! Bytes that may be a tag's beginning are held back until it is clear, or until the line was silent: for as long as ends a message,
//! or [`UNFINISHED`] once a tag has begun. A line without commands has none of this.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::wire::at::tags::{Decoder, Item, encode};

/// A tag that has begun waits so long for its next byte; then it is bytes like any others.
const UNFINISHED: Duration = Duration::from_secs(2);
/// Commands and answers of a line that may wait.
pub const TAGGED_WAITING: usize = 4;

/// The doors for the commands of one line.
#[derive(Debug)]
pub struct Tags {
    /// What the tags are called.
    pub name: String,
    /// Where commands go; one that finds no place is dropped.
    pub commands: mpsc::Sender<String>,
    /// Where their answers come from.
    pub answers: mpsc::Receiver<String>,
}

/// Takes the commands out of what comes from a line.
pub(super) struct Tagged {
    tags: Tags,
    decoder: Decoder,
    /// When the last byte came from the line.
    last: Instant,
    /// What is for the platform and was not taken yet.
    ready: Vec<u8>,
}

impl Tagged {
    pub(super) fn new(tags: Tags) -> Self {
        Self { decoder: Decoder::new(&tags.name), last: Instant::now(), ready: Vec::new(), tags }
    }

    /// Takes what came from the line at `now`.
    pub(super) fn hear(&mut self, bytes: &[u8], now: Instant) {
        self.decoder.push(bytes);
        self.last = now;
        self.sort();
    }

    /// Takes what is for the platform, at most so many bytes; `gap` ends a message. With it when the last byte came.
    pub(super) fn take(&mut self, most: usize, gap: Duration) -> (Vec<u8>, Instant) {
        if self.due(gap).is_some_and(|due| due <= Instant::now()) {
            self.decoder.release();
            self.sort();
        }
        (self.ready.drain(..most.min(self.ready.len())).collect(), self.last)
    }

    /// Whether more is to be taken.
    pub(super) const fn is_full(&self) -> bool {
        !self.ready.is_empty()
    }

    fn sort(&mut self) {
        while let Some(item) = self.decoder.next() {
            match item {
                Item::Bytes(bytes) => self.ready.extend(bytes),
                Item::Command(text) => {
                    if self.tags.commands.try_send(text).is_err() {
                        tracing::debug!("too many commands of a line wait; one is dropped");
                    }
                }
            }
        }
    }

    /// When what is held back is given up if nothing more comes; `gap` ends a message.
    pub(super) fn due(&self, gap: Duration) -> Option<Instant> {
        let wait = if self.decoder.is_inside() { gap.max(UNFINISHED) } else { gap };
        self.decoder.holds().then(|| self.last + wait)
    }
}

/// The next answer as it goes onto the line; never without commands on it.
pub(super) async fn answer(tagged: &mut Option<Tagged>) -> Vec<u8> {
    let Some(Tagged { tags, .. }) = tagged else { return std::future::pending().await };
    match tags.answers.recv().await {
        Some(text) => {
            let mut bytes = Vec::new();
            encode(&tags.name, &text, &mut bytes);
            bytes
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_only_begins_like_a_tag_is_given_back_after_silence() {
        let (commands, mut asked) = mpsc::channel(TAGGED_WAITING);
        let (_give, answers) = mpsc::channel(TAGGED_WAITING);
        let mut tagged = Tagged::new(Tags { name: "T".into(), commands, answers });
        let gap = Duration::from_millis(100);
        tagged.hear(b"data", Instant::now());
        assert_eq!((tagged.take(3, gap).0, tagged.is_full()), (b"dat".to_vec(), true));
        assert_eq!((tagged.take(3, gap).0, tagged.is_full()), (b"a".to_vec(), false));
        assert_eq!(tagged.due(gap), None, "nothing is held back");
        tagged.hear(b"x<", Instant::now());
        assert_eq!(tagged.take(9, gap).0, b"x");
        assert_eq!(tagged.due(gap), Some(Instant::now() + gap));
        tokio::time::advance(gap).await;
        assert_eq!(tagged.take(9, gap).0, b"<");
        tagged.hear(b"<T>AT", Instant::now());
        tokio::time::advance(gap).await;
        assert_eq!(tagged.take(9, gap).0, b"", "a tag that has begun is waited for");
        tagged.hear(b"</T>y", Instant::now());
        assert_eq!(tagged.take(9, gap).0, b"y");
        assert_eq!(asked.try_recv().as_deref(), Ok("AT"));
        tagged.hear(b"<T>AT", Instant::now());
        tokio::time::advance(UNFINISHED).await;
        assert_eq!(tagged.take(9, gap).0, b"<T>AT");
    }
}
