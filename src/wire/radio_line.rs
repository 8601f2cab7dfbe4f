//! Receivers that print one telegram a line: cutting the stream, and what a line can be.

use std::collections::VecDeque;

use data_encoding::HEXLOWER_PERMISSIVE;

use super::DecodeError;
use crate::model::{Rssi, TelegramKind, Timestamp};

/// The longest line; longer ones are skipped. A full telegram takes about 600 characters.
pub const LONGEST_LINE: usize = 4096;

/// What a line holds. A line with several telegrams gives several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A telegram with a sound link layer.
    Heard(Reception),
    /// Something that claims to be a telegram but is damaged.
    Damaged(DecodeError),
    /// Log text of the receiver, or garbage.
    Noise,
    /// So many bytes that can't be a telegram, thrown away.
    Skipped {
        /// How many.
        bytes: usize,
    },
}

/// A telegram with what the receiver says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reception {
    /// The link layer.
    pub kind: TelegramKind,
    /// The telegram, byte for byte.
    pub bytes: Vec<u8>,
    /// Signal strength.
    pub rssi: Option<Rssi>,
    /// Bits mended by error correction.
    pub corrected_bits: u16,
    /// When it was received, by the receiver's own clock.
    pub time: Option<Timestamp>,
}

/// A piece of a stream of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A line without its end, never empty, at most [`LONGEST_LINE`] bytes.
    Line(Vec<u8>),
    /// Bytes of a line that is too long, thrown away.
    Skipped {
        /// How many; a line without end gives one such piece every [`LONGEST_LINE`] bytes.
        bytes: usize,
    },
}

/// Cuts a stream into lines that end with CR, LF or both. Holds at most one unfinished line and
/// the pieces not yet taken.
#[derive(Debug, Default)]
pub struct LineDecoder {
    line: Vec<u8>,
    /// Bytes thrown away of the present line, when it is too long, that were not told yet.
    skipped: Option<usize>,
    ready: VecDeque<Piece>,
}

impl LineDecoder {
    /// Starts at the beginning of a line.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes as they came; take the pieces with [`Self::next`] before pushing more.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, behind) = rest.split_at(end);
            self.add(line);
            self.finish();
            rest = behind.get(1..).unwrap_or_default();
        }
        self.add(rest);
    }

    /// Takes a part of the present line.
    fn add(&mut self, mut bytes: &[u8]) {
        if self.skipped.is_none() {
            let (fits, rest) = bytes.split_at(bytes.len().min(LONGEST_LINE.saturating_sub(self.line.len())));
            self.line.extend_from_slice(fits);
            if rest.is_empty() {
                return;
            }
            self.ready.push_back(Piece::Skipped { bytes: self.line.len() });
            self.line.clear();
            (self.skipped, bytes) = (Some(0), rest);
        }
        let Some(skipped) = &mut self.skipped else { return };
        *skipped += bytes.len();
        while *skipped >= LONGEST_LINE {
            self.ready.push_back(Piece::Skipped { bytes: LONGEST_LINE });
            *skipped -= LONGEST_LINE;
        }
    }

    /// Ends the present line, as when the source has closed.
    pub fn finish(&mut self) {
        let line = std::mem::take(&mut self.line);
        match self.skipped.take() {
            Some(0) => {}
            Some(bytes) => self.ready.push_back(Piece::Skipped { bytes }),
            None if line.is_empty() => {}
            None => self.ready.push_back(Piece::Line(line)),
        }
    }

    /// Takes the next piece, if there is one.
    #[expect(clippy::should_implement_trait, reason = "the codecs' verb; it gives more after the next push")]
    pub fn next(&mut self) -> Option<Piece> {
        self.ready.pop_front()
    }
}

/// Reads bytes in hex digits of either case; spaces, tabs, `_`, `:` and `|` may stand between them and `0x` in front. `None` when
/// anything else is there or nothing at all.
///
/// # Errors
/// When the number of digits is odd: one was lost, and nobody knows which.
pub(super) fn bytes_in_hex(text: &str) -> Option<Result<Vec<u8>, DecodeError>> {
    let text = text.trim();
    let text = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    // Most receivers put nothing between the bytes.
    if let Ok(bytes) = HEXLOWER_PERMISSIVE.decode(text.as_bytes()) {
        return (!bytes.is_empty()).then_some(Ok(bytes));
    }
    let separator = |c: &u8| matches!(c, b' ' | b'\t' | b'_' | b':' | b'|');
    let digits: Vec<u8> = text.bytes().filter(|c| !separator(c)).collect();
    let hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    hex.then(|| bytes_of(&digits))
}

/// Turns hex digits into bytes.
///
/// # Errors
/// When their number is odd: a digit was lost, and nobody knows which.
pub(super) fn bytes_of(digits: &[u8]) -> Result<Vec<u8>, DecodeError> {
    HEXLOWER_PERMISSIVE
        .decode(digits)
        .map_err(|e| DecodeError::new(e.position / 2, "pairs of hex digits", format!("{} digits", digits.len())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(chunks: &[&[u8]]) -> Vec<Piece> {
        let mut decoder = LineDecoder::new();
        let mut found = Vec::new();
        for chunk in chunks {
            decoder.push(chunk);
            found.extend(std::iter::from_fn(|| decoder.next()));
        }
        decoder.finish();
        found.extend(std::iter::from_fn(|| decoder.next()));
        found
    }

    #[test]
    fn lines_end_with_any_line_end_and_empty_ones_are_nothing() {
        let line = |text: &str| Piece::Line(text.into());
        assert_eq!(pieces(&[b"a\nb\r\n\r\nc\rd"]), [line("a"), line("b"), line("c"), line("d")]);
    }

    #[test]
    fn a_line_of_4096_bytes_is_a_line_and_one_more_byte_makes_it_skipped() {
        let longest = vec![b'x'; LONGEST_LINE];
        assert_eq!(pieces(&[&longest, b"\nok\n"]), [Piece::Line(longest.clone()), Piece::Line(b"ok".into())]);
        let found = pieces(&[&longest, b"y\nok\n"]);
        let expected = [Piece::Skipped { bytes: LONGEST_LINE }, Piece::Skipped { bytes: 1 }, Piece::Line(b"ok".into())];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_flood_without_line_ends_takes_no_memory_and_is_counted() {
        let mut decoder = LineDecoder::new();
        let mut skipped = 0;
        for _ in 0..100 {
            decoder.push(&[0xFF; 5000]);
            while let Some(piece) = decoder.next() {
                assert!(matches!(piece, Piece::Skipped { .. }));
                skipped += if let Piece::Skipped { bytes } = piece { bytes } else { 0 };
            }
            assert!(decoder.line.capacity() <= 2 * LONGEST_LINE && decoder.ready.is_empty());
        }
        assert!(500_000 - skipped < LONGEST_LINE, "{skipped}");
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_same_pieces_and_every_byte_is_accounted_for(
            bytes in proptest::collection::vec(prop_oneof![8 => any::<u8>(), 1 => Just(b'\n')], 0..600),
            repeat in 1usize..20,
            cuts in proptest::collection::vec(1usize..700, 1..20),
        ) {
            let stream = bytes.repeat(repeat);
            let whole = pieces(&[&stream]);
            let mut chunks = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                chunks.push(head);
                rest = tail;
            }
            chunks.push(rest);
            prop_assert_eq!(&pieces(&chunks), &whole);
            let counted: usize = whole.iter().map(|p| match p {
                Piece::Line(line) => line.len(),
                Piece::Skipped { bytes } => *bytes,
            }).sum();
            prop_assert_eq!(counted, stream.iter().filter(|b| !b"\r\n".contains(b)).count());
        }
    }
}
