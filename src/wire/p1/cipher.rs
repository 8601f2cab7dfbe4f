//! Messages inside DLMS general-glo-ciphering, as meters in Luxembourg and Austria send them.
//!
//! `DB 08 title(8) length 30 counter(4) ciphertext tag(12)`: AES-128-GCM, the initialization vector
//! is title and counter, the associated data is the control byte and the authentication key
//! (IEC 62056-5-3, clause 5.3.7). Only "authenticated and encrypted" (30) is taken: without a tag
//! anybody could write values.

use super::{Damage, MESSAGE_LIMIT};
use crate::wire::gcm::{KEY, Key, TAG};

const GENERAL_GLO: u8 = 0xDB;
const TITLE: usize = 8;
const AUTHENTICATED_AND_ENCRYPTED: u8 = 0x30;

/// The two keys of a meter; never shown.
#[derive(Debug)]
pub struct Keys {
    encryption: Key,
    /// The control byte and the authentication key.
    associated: Associated,
}

struct Associated([u8; 1 + KEY]);

impl std::fmt::Debug for Associated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Associated")
    }
}

impl Keys {
    /// Makes them of the global unicast encryption key and the authentication key; `None` only if
    /// the provider refuses them.
    pub fn new(encryption: &[u8; KEY], authentication: &[u8; KEY]) -> Option<Self> {
        let mut associated = [AUTHENTICATED_AND_ENCRYPTED; 1 + KEY];
        for (to, from) in associated.iter_mut().skip(1).zip(authentication) {
            *to = *from;
        }
        Some(Self { encryption: Key::new(encryption)?, associated: Associated(associated) })
    }

    /// Puts a message under these keys; `None` when it is longer than a length of two bytes.
    pub fn seal(&self, title: [u8; TITLE], counter: u32, text: &[u8]) -> Option<Vec<u8>> {
        let mut cipher = text.to_vec();
        let tag = self.encryption.seal(nonce(title, counter), &self.associated.0, &mut cipher)?;
        let length = u16::try_from(1 + 4 + cipher.len() + TAG).ok()?;
        let mut frame = vec![GENERAL_GLO, 0x08];
        frame.extend(title);
        frame.push(0x82);
        frame.extend(length.to_be_bytes());
        frame.push(AUTHENTICATED_AND_ENCRYPTED);
        frame.extend(counter.to_be_bytes());
        frame.extend(cipher);
        frame.extend(tag);
        Some(frame)
    }
}

fn nonce(title: [u8; TITLE], counter: u32) -> [u8; 12] {
    let mut nonce = [0; 12];
    for (to, from) in nonce.iter_mut().zip(title.into_iter().chain(counter.to_be_bytes())) {
        *to = from;
    }
    nonce
}

/// What a stream of ciphered messages held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sealed {
    /// A message that the meter wrote.
    Opened(Vec<u8>),
    /// One that it did not write so, or not now.
    Damaged(Damage),
}

/// Opens the ciphered messages of a stream. Call [`next`](Self::next) until it is empty after
/// every [`push`](Self::push).
#[derive(Debug)]
pub struct Unsealer {
    keys: Keys,
    buffer: Vec<u8>,
    silent: bool,
    /// Title and counter of the newest message that was opened.
    newest: Option<([u8; TITLE], u32)>,
}

/// What the beginning of the buffer is.
enum Head {
    More,
    No,
    Frame { title: [u8; TITLE], content: usize, end: usize },
}

impl Unsealer {
    /// Starts between two messages.
    pub const fn new(keys: Keys) -> Self {
        Self { keys, buffer: Vec::new(), silent: false, newest: None }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.silent = false;
    }

    /// Says that the line fell silent: what is not complete now never will be.
    pub fn silence(&mut self) {
        self.silent = true;
    }

    /// Returns what comes next in the stream, or `None` when more bytes are needed. Noise between
    /// messages is dropped without a word; a beginning that comes to nothing is searched for
    /// another one.
    #[expect(
        clippy::should_implement_trait,
        reason = "every decoder of the house has push and next; it is no iterator"
    )]
    pub fn next(&mut self) -> Option<Sealed> {
        loop {
            let start = self.buffer.iter().position(|b| *b == GENERAL_GLO).unwrap_or(self.buffer.len());
            self.buffer.drain(..start);
            match self.head() {
                Head::More if self.silent && !self.buffer.is_empty() => {
                    self.buffer.drain(..1);
                    return Some(Sealed::Damaged(Damage::Truncated));
                }
                Head::More => return None,
                Head::No => drop(self.buffer.drain(..1)),
                Head::Frame { title, content, end } => {
                    let opened = self.open(title, content, end);
                    let used = if opened == Err(Damage::Tag) { 1 } else { end };
                    self.buffer.drain(..used);
                    return Some(opened.map_or_else(Sealed::Damaged, Sealed::Opened));
                }
            }
        }
    }

    fn head(&self) -> Head {
        let Some((&[tag, title_length], rest)) = self.buffer.split_first_chunk() else { return Head::More };
        if tag != GENERAL_GLO || usize::from(title_length) != TITLE {
            return Head::No;
        }
        let Some((&title, rest)) = rest.split_first_chunk() else { return Head::More };
        let (length, width) = match rest {
            [] | [0x81] | [0x82] | [0x82, _] => return Head::More,
            [0x81, length, ..] => (usize::from(*length), 2),
            [0x82, high, low, ..] => (usize::from(u16::from_be_bytes([*high, *low])), 3),
            [length, ..] if *length < 0x80 => (usize::from(*length), 1),
            _ => return Head::No,
        };
        let content = 2 + TITLE + width;
        let wrong_control = self.buffer.get(content).is_some_and(|b| *b != AUTHENTICATED_AND_ENCRYPTED);
        if wrong_control || length > MESSAGE_LIMIT || length <= 1 + 4 + TAG {
            return Head::No;
        }
        let end = content + length;
        if self.buffer.len() < end { Head::More } else { Head::Frame { title, content, end } }
    }

    fn open(&mut self, title: [u8; TITLE], content: usize, end: usize) -> Result<Vec<u8>, Damage> {
        let inside = self.buffer.get(content + 1..end).ok_or(Damage::Tag)?;
        let (&counter, rest) = inside.split_first_chunk::<4>().ok_or(Damage::Tag)?;
        let (cipher, tag) = rest.split_last_chunk::<TAG>().ok_or(Damage::Tag)?;
        let counter = u32::from_be_bytes(counter);
        let key = &self.keys.encryption;
        let text = key.open(nonce(title, counter), &self.keys.associated.0, cipher, tag).ok_or(Damage::Tag)?;
        match self.newest {
            Some((_, newest)) if counter <= newest => Err(Damage::Replay),
            Some((known, _)) if known != title => Err(Damage::Replay),
            _ => {
                self.newest = Some((title, counter));
                Ok(text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TITLE_OF_TEST: [u8; TITLE] = *b"SAG\0\x01\x02\x03\x04";

    fn keys() -> Keys {
        Keys::new(&[0xAA; KEY], &[0x11; KEY]).unwrap()
    }

    fn all(unsealer: &mut Unsealer) -> Vec<Sealed> {
        std::iter::from_fn(|| unsealer.next()).collect()
    }

    #[test]
    fn a_message_is_opened_once_and_its_replay_and_those_before_it_are_refused() {
        let frame = |counter| keys().seal(TITLE_OF_TEST, counter, b"/text!").unwrap();
        let mut unsealer = Unsealer::new(keys());
        for counter in [5, 5, 4, 6] {
            unsealer.push(&frame(counter));
        }
        let replay = Sealed::Damaged(Damage::Replay);
        let text = Sealed::Opened(b"/text!".to_vec());
        assert_eq!(all(&mut unsealer), [text.clone(), replay.clone(), replay, text]);
    }

    #[test]
    fn other_keys_open_nothing() {
        let frame = keys().seal(TITLE_OF_TEST, 5, b"/text!").unwrap();
        for (encryption, authentication) in [([0xAB; KEY], [0x11; KEY]), ([0xAA; KEY], [0x12; KEY])] {
            let mut unsealer = Unsealer::new(Keys::new(&encryption, &authentication).unwrap());
            unsealer.push(&frame);
            assert_eq!(all(&mut unsealer), [Sealed::Damaged(Damage::Tag)]);
        }
    }

    proptest! {
        #[test]
        fn after_any_noise_a_message_is_opened_and_nothing_else(
            noise in prop::collection::vec(any::<u8>(), 0..60),
            cut in 0..60_usize,
            chunk in 1..40_usize,
        ) {
            let text = b"/XXX5test\r\n\r\n1.8.0(1)\r\n!\r\n";
            let whole = keys().seal(TITLE_OF_TEST, 1, text).unwrap();
            let good = keys().seal(TITLE_OF_TEST, 2, text).unwrap();
            let mut unsealer = Unsealer::new(keys());
            let mut found = Vec::new();
            let stream = [&noise[..], &whole[..cut.min(whole.len() - 1)], &good].concat();
            for part in stream.chunks(chunk) {
                unsealer.push(part);
                found.extend(all(&mut unsealer));
            }
            unsealer.silence();
            found.extend(all(&mut unsealer));
            let opened: Vec<_> = found.into_iter().filter(|f| matches!(f, Sealed::Opened(_))).collect();
            prop_assert_eq!(opened, vec![Sealed::Opened(text.to_vec())]);
        }
    }
}
