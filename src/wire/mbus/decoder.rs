//! Frames from a stream of bytes.

use super::{Frame, Look, look};
use crate::wire::DecodeError;

/// What the bytes of a line were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole frame with a right checksum.
    Frame(Frame),
    /// A frame that is wrong.
    Damaged(DecodeError),
    /// Bytes that belong to no frame.
    Skipped {
        /// How many.
        bytes: usize,
    },
}

/// Finds frames in a stream; after a damaged one it looks for the next from its second byte on.
#[derive(Debug, Default)]
pub struct Decoder {
    seen: Vec<u8>,
    noise: usize,
}

impl Decoder {
    /// Starts with nothing seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the line; call [`Decoder::next`] until it gives nothing, then not more
    /// than the start of one frame is kept.
    pub fn push(&mut self, bytes: &[u8]) {
        self.seen.extend(bytes);
    }

    /// Whether a frame has begun and not ended.
    pub const fn in_frame(&self) -> bool {
        !self.seen.is_empty()
    }

    /// The next event, as far as the bytes tell; it does not depend on how they were cut.
    #[expect(clippy::should_implement_trait, reason = "the verb of every codec; a stream may go on after nothing")]
    pub fn next(&mut self) -> Option<Event> {
        let mut at = 0;
        let event = loop {
            let rest = self.seen.get(at..).unwrap_or_default();
            match look(rest) {
                Look::More => break None,
                Look::Noise => {
                    at += 1;
                    self.noise += 1;
                }
                Look::Frame(..) | Look::Damaged(_) if self.noise > 0 => {
                    break Some(Event::Skipped { bytes: std::mem::take(&mut self.noise) });
                }
                Look::Frame(frame, length) => {
                    at += length;
                    break Some(Event::Frame(frame));
                }
                Look::Damaged(error) => {
                    at += 1;
                    self.noise += 1;
                    break Some(Event::Damaged(error));
                }
            }
        };
        self.seen.drain(..at.min(self.seen.len()));
        event
    }

    /// Tells that the line was silent: what has begun will not end, and gives what was in it.
    pub fn silence(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while !self.seen.is_empty() {
            self.seen.remove(0);
            self.noise += 1;
            events.extend(std::iter::from_fn(|| self.next()));
        }
        if self.noise > 0 {
            events.push(Event::Skipped { bytes: std::mem::take(&mut self.noise) });
        }
        events
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.seen.clear();
        self.noise = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{decode, encode};
    use super::*;

    fn frame() -> impl Strategy<Value = Frame> {
        let long = (any::<u8>(), any::<u8>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..=252))
            .prop_map(|(control, address, ci, data)| Frame::Long { control, address, ci, data });
        let short = (any::<u8>(), any::<u8>()).prop_map(|(control, address)| Frame::Short { control, address });
        prop_oneof![Just(Frame::Acknowledge), short, long]
    }

    fn events(chunks: &[&[u8]]) -> Vec<Event> {
        let mut decoder = Decoder::new();
        let mut found = Vec::new();
        for chunk in chunks {
            decoder.push(chunk);
            found.extend(std::iter::from_fn(|| decoder.next()));
            assert!(decoder.seen.len() < super::super::LONGEST_FRAME);
        }
        found.extend(decoder.silence());
        found
    }

    proptest! {
        #[test]
        fn a_frame_comes_back_from_its_bytes(frame in frame()) {
            let mut bytes = Vec::new();
            encode(&frame, &mut bytes);
            prop_assert_eq!(decode(&bytes), Ok(frame));
        }

        #[test]
        fn any_bytes_never_panic_and_cutting_them_changes_nothing(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0x68), Just(0x10), Just(4)], 0..600),
            size in 1_usize..40,
        ) {
            let _ = decode(&bytes);
            let chunks: Vec<_> = bytes.chunks(size).collect();
            prop_assert_eq!(events(&chunks), events(&[&bytes]));
        }

        #[test]
        fn after_noise_the_next_good_frame_is_found(noise in proptest::collection::vec(any::<u8>(), 0..300), frame in frame()) {
            let mut bytes = noise;
            encode(&frame, &mut bytes);
            prop_assert!(events(&[&bytes]).contains(&Event::Frame(frame)));
        }

        #[test]
        fn one_changed_byte_never_gives_another_frame_of_the_same_length(frame in frame(), at in any::<usize>(), by in 1_u8..) {
            let mut bytes = Vec::new();
            encode(&frame, &mut bytes);
            let at = at % bytes.len();
            bytes[at] ^= by;
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
