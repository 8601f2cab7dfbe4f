//! The frames of one lane on their way from the store into messages.

use std::collections::VecDeque;

use super::caution::{Cargo, Caution};
use super::frames::{Added, Message};
use super::intervals::Span;
use super::source::Source;
use crate::model::{Lane, Sequence, Stored};
use crate::os::clock::Clock;
use crate::store::StoreError;

/// A message ready to be sent.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) payload: Vec<u8>,
    pub(super) cargo: Cargo,
    pub(super) sequences: Vec<Sequence>,
    /// What its PUBACK closes.
    pub(super) spans: Vec<Span>,
}

/// What one session has taken of one lane.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) lane: Lane,
    /// Everything up to here was taken from the store in this session.
    cursor: Sequence,
    /// The last frame that went into a message or was passed over; the next one stands behind it.
    edge: Sequence,
    frames: VecDeque<Stored>,
    /// The store may hold frames beyond the cursor.
    more: bool,
}

impl Queue {
    pub(super) fn new(lane: Lane, source: &Source) -> Self {
        let begin = source.begin(lane);
        Self { lane, cursor: begin, edge: begin, frames: VecDeque::new(), more: true }
    }

    /// Notes that the store has changed.
    pub(super) fn wake(&mut self) {
        self.more = true;
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Takes frames from the store when there are none here.
    pub(super) async fn refill(&mut self, source: &Source, caution: &Caution, limit: usize) -> Result<(), StoreError> {
        while self.frames.is_empty() && self.more && limit > 0 {
            let page = source.peek(self.lane, self.cursor, limit).await?;
            self.more = !page.frames.is_empty();
            self.cursor = page.through;
            self.frames = page.frames.into();
            self.pass_over(caution);
        }
        Ok(())
    }

    /// Drops the frames at the front that are sent another time.
    fn pass_over(&mut self, caution: &Caution) {
        while let Some(frame) = self.frames.front().filter(|f| caution.is_aside(self.lane, f.sequence)) {
            self.edge = frame.sequence;
            self.frames.pop_front();
        }
    }

    /// Makes the next message, of at most `limit` bytes unless one frame alone is longer; `None`
    /// when no frame is here.
    pub(super) fn pack(&mut self, limit: usize, caution: &Caution, clock: &Clock) -> Option<Parcel> {
        let mut message = Message::new(limit);
        let mut spans = Vec::<Span>::new();
        let mut first = None;
        loop {
            self.pass_over(caution);
            let Some(frame) = self.frames.front() else { break };
            let added = message.add(frame, clock.resolve(&frame.frame.time));
            if added == Added::Full {
                break;
            }
            let sequence = frame.sequence;
            first = first.or(Some((sequence, self.edge)));
            match spans.last_mut() {
                Some(span) if span.last == self.edge => span.last = sequence,
                _ => spans.push(Span { after: self.edge, last: sequence }),
            }
            self.edge = sequence;
            self.frames.pop_front();
            if added == Added::Oversized {
                break;
            }
        }
        let (payload, sequences) = message.finish();
        let (first, after) = first?;
        let cargo = Cargo::Frames { lane: self.lane, first, after, count: sequences.len() };
        Some(Parcel { payload, cargo, sequences, spans })
    }
}

/// Makes a message of one frame that was passed over, which stands behind `after`.
pub(super) fn pack_alone(stored: &Stored, lane: Lane, after: Sequence, clock: &Clock) -> Parcel {
    let mut message = Message::new(0);
    message.add(stored, clock.resolve(&stored.frame.time));
    let (payload, sequences) = message.finish();
    let first = stored.sequence;
    let cargo = Cargo::Frames { lane, first, after, count: 1 };
    Parcel { payload, cargo, sequences, spans: vec![Span { after, last: first }] }
}
