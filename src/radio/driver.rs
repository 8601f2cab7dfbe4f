//! What a kind of receiver must do; one file a kind, one row of [`super::RECEIVERS`] each.

use std::future::{Future, ready};
use std::pin::Pin;
use std::time::Duration;

use super::source::Open;
use crate::wire::radio_line::{Item, LineDecoder, Piece};

/// What starting a receiver gives: who it is, when it says so.
pub type Starting<'a> = Pin<Box<dyn Future<Output = Result<Option<String>, String>> + Send + 'a>>;

/// Something that takes long and gives an item.
pub type Work = Box<dyn FnOnce() -> Item + Send>;

/// A dialogue with one receiver, and the reading of what it says. Knows nothing of what is done with telegrams.
pub trait Driver: Send {
    /// Brings a receiver whose source was just opened to listen: finds out what it is and changes only what is not
    /// as the settings want it. What it hears meanwhile is not lost: [`Driver::next`] gives it. An error is one
    /// sentence that says what to do; the source is then opened again after a pause.
    fn start<'a>(&'a mut self, _source: &'a mut Open) -> Starting<'a> {
        Box::pin(ready(Ok(None)))
    }

    /// Takes bytes as they came; holds no more than one telegram and what was pushed last.
    fn push(&mut self, bytes: &[u8]);

    /// How long the rest of what is incomplete may take to come; `None` when nothing is, or when it may take for ever.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// Tells that the source has ended, or that nothing came for that long: what is incomplete is given up.
    fn silence(&mut self);

    /// The next thing in what was pushed.
    fn next(&mut self) -> Option<Item>;

    /// Whether what was pushed shows that the receiver restarted and forgot what [`Driver::start`] told it; that
    /// is done again then, with the source as it is.
    fn restarted(&self) -> bool {
        false
    }

    /// Whether the receiver forgets what [`Driver::start`] told it when it restarts, and may then hear nothing and say nothing:
    /// that is done again after a long silence, with the source as it is.
    fn forgets(&self) -> bool {
        false
    }

    /// What is too much work for the runtime's thread, when that comes next; asked when [`Driver::next`] has nothing. It is
    /// done on another thread, and nothing is read meanwhile.
    fn work(&mut self) -> Option<Work> {
        None
    }

    /// How long before its bytes came was heard what [`Driver::next`] or [`Driver::work`] gave last.
    fn age(&self) -> Duration {
        Duration::ZERO
    }

    /// Who the receiver is, once after it said so by itself.
    fn introduced(&mut self) -> Option<String> {
        None
    }
}

/// A receiver that prints lines and takes no orders.
pub(super) struct Lines {
    decoder: LineDecoder,
    decode: fn(&[u8]) -> Vec<Item>,
    ready: std::collections::VecDeque<Item>,
}

impl Lines {
    /// Reads each line by `decode`.
    pub(super) fn new(decode: fn(&[u8]) -> Vec<Item>) -> Self {
        Self { decoder: LineDecoder::new(), decode, ready: std::collections::VecDeque::new() }
    }
}

impl Driver for Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.decoder.push(bytes);
    }

    fn silence(&mut self) {
        self.decoder.finish();
    }

    fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            match self.decoder.next()? {
                Piece::Line(line) => self.ready.extend((self.decode)(&line)),
                Piece::Skipped { bytes } => return Some(Item::Skipped { bytes }),
            }
        }
    }
}
