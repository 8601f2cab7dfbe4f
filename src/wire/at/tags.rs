//! Commands inside tags in a stream of bytes: `<MTXTUNNEL>AT</MTXTUNNEL>`.
//!
//! What is tagged is no part of the stream; what only begins like a tag is held back until it is clear, or until the stream was
//! silent and [`Decoder::release`] lets it go.

use std::collections::VecDeque;

/// The longest tagged command; behind it the tag counts as bytes like any others.
pub const LONGEST: usize = 1024;

/// What was found in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Bytes as they are.
    Bytes(Vec<u8>),
    /// What stood between the tags.
    Command(String),
}

/// Takes tagged commands out of a stream.
#[derive(Debug)]
pub struct Decoder {
    open: Vec<u8>,
    close: Vec<u8>,
    held: Vec<u8>,
    found: VecDeque<Item>,
}

impl Decoder {
    /// Looks for tags of a name.
    pub fn new(name: &str) -> Self {
        let (open, close) = (format!("<{name}>").into_bytes(), format!("</{name}>").into_bytes());
        Self { open, close, held: Vec::new(), found: VecDeque::new() }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.held.push(byte);
            self.look();
        }
    }

    /// The next item, in order.
    #[expect(clippy::should_implement_trait, reason = "the decoders of all codecs are used like this")]
    pub fn next(&mut self) -> Option<Item> {
        self.found.pop_front()
    }

    /// Whether bytes are held back.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether a tag has begun and not ended.
    pub fn is_inside(&self) -> bool {
        self.held.starts_with(&self.open)
    }

    /// Gives what is held back: the stream was silent, so it will not become a command any more.
    pub fn release(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.give(&held);
    }

    fn look(&mut self) {
        if self.held.starts_with(&self.open) {
            if self.held.ends_with(&self.close) {
                let inner = self.held.get(self.open.len()..self.held.len() - self.close.len()).unwrap_or_default();
                let command = String::from_utf8_lossy(inner).into_owned();
                self.held.clear();
                self.found.push_back(Item::Command(command));
            } else if self.held.len() > LONGEST + self.open.len() + self.close.len() {
                self.release();
            }
            return;
        }
        // The shortest head of what is held that can't be the beginning of a tag is let go.
        let keep = (0..self.held.len()).find(|&at| self.held.get(at..).is_some_and(|rest| self.open.starts_with(rest)));
        let gone: Vec<u8> = self.held.drain(..keep.unwrap_or(self.held.len())).collect();
        self.give(&gone);
    }

    fn give(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if let Some(Item::Bytes(before)) = self.found.back_mut() {
            before.extend_from_slice(bytes);
        } else {
            self.found.push_back(Item::Bytes(bytes.to_vec()));
        }
    }
}

/// Appends a command or an answer between tags of a name.
pub fn encode(name: &str, text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("<{name}>{text}</{name}>").as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(chunks: &[&[u8]]) -> Vec<Item> {
        let mut decoder = Decoder::new("MTXTUNNEL");
        chunks.iter().for_each(|chunk| decoder.push(chunk));
        decoder.release();
        let mut items: Vec<Item> = Vec::new();
        while let Some(item) = decoder.next() {
            match (items.last_mut(), item) {
                (Some(Item::Bytes(before)), Item::Bytes(more)) => before.extend(more),
                (_, item) => items.push(item),
            }
        }
        items
    }

    #[test]
    fn a_tagged_command_is_taken_out_and_everything_else_stays() {
        let stream = b"ab<MTX<MTXTUNNEL>AT</MTXTUNNEL>c<MTXTUNNEL>never";
        let expected =
            [Item::Bytes(b"ab<MTX".to_vec()), Item::Command("AT".into()), Item::Bytes(b"c<MTXTUNNEL>never".to_vec())];
        assert_eq!(all(&[stream]), expected);
        assert_eq!(all(&stream.chunks(1).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn a_tag_that_never_ends_is_bytes_and_memory_is_bounded() {
        let mut decoder = Decoder::new("T");
        decoder.push(b"<T>");
        decoder.push(&[b'x'; 5000]);
        assert!(decoder.held.len() <= LONGEST + 8);
        let Some(Item::Bytes(bytes)) = decoder.next() else { panic!("bytes come") };
        assert_eq!(bytes.len(), 5003);
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_and_no_byte_is_lost(
            parts in proptest::collection::vec(prop_oneof![
                Just(b"<MTXTUNNEL>".to_vec()), Just(b"</MTXTUNNEL>".to_vec()), Just(b"<MTX".to_vec()), any::<Vec<u8>>(),
            ], 0..8),
            size in 1usize..40,
        ) {
            let stream = parts.concat();
            let whole = all(&[&stream]);
            prop_assert_eq!(&all(&stream.chunks(size).collect::<Vec<_>>()), &whole);
            let bytes: usize = whole.iter().map(|item| match item {
                Item::Bytes(bytes) => bytes.len(),
                Item::Command(_) => 0,
            }).sum();
            prop_assert!(bytes <= stream.len());
        }
    }
}
