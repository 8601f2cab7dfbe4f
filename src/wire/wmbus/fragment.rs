//! Joins the fragments of long messages (EN 13757-7, 6.3).
//!
//! A message comes in up to 255 numbered telegrams of one meter, in order; the fields of the
//! authentication layer may stand in any of them. Invariants: at most 32 messages of 4096
//! bytes are kept, and the one that waited longest makes room; a gap or another meter's
//! fragment never ends up inside a message.

use super::afl::Afl;
use super::keys::Keys;
use super::layers::upper;
use super::meter::Meter;
use super::security::{Locked, Opened, open, open_link};

/// So many messages are joined at a time.
const MESSAGES: usize = 32;
/// The longest message that is joined, in bytes.
const LONGEST: usize = 4096;

/// Messages that wait for their other fragments, the one that waits longest first.
#[derive(Debug, Default)]
pub struct Fragments {
    waiting: Vec<Message>,
}

#[derive(Debug)]
struct Message {
    sender: Meter,
    /// The number of its newest fragment.
    newest: u8,
    message_control: Option<u8>,
    key_information: Option<[u8; 2]>,
    counter: Option<u32>,
    mac: Vec<u8>,
    message_length: Option<u16>,
    bytes: Vec<u8>,
}

impl Fragments {
    /// Opens a telegram's layers as [`open`] does, and joins it with the fragments before it: the last
    /// one gives the whole message.
    ///
    /// # Errors
    /// As [`open`]; [`Locked::Fragment`] while others are missing.
    pub fn open(&mut self, sender: Meter, layers: &[u8], offset: usize, keys: &Keys) -> Result<Opened, Locked> {
        let number = match open(sender, layers, offset, keys) {
            Err(Locked::Fragment(number)) => number,
            other => return other,
        };
        let (layers, _) = open_link(sender, layers, keys)?;
        let found = upper(&layers, offset);
        let Some(afl) = found.afl else { return Err(Locked::Fragment(number)) };
        match self.join(sender, afl, found.message) {
            Some(whole) => open(sender, &whole, 0, keys),
            None => Err(Locked::Fragment(number)),
        }
    }

    /// Adds a fragment; the last one gives the message with its authentication layer before it.
    fn join(&mut self, sender: Meter, afl: Afl<'_>, piece: &[u8]) -> Option<Vec<u8>> {
        let at = self.waiting.iter().position(|message| message.sender == sender);
        let mut message = match (at.map(|at| self.waiting.remove(at)), afl.fragment()) {
            (_, 1) => Message::new(sender),
            (Some(message), number) if message.newest.checked_add(1) == Some(number) => message,
            // The same fragment again, by a repeater.
            (Some(message), number) if message.newest == number => {
                self.waiting.push(message);
                return None;
            }
            _ => return None,
        };
        message.add(afl, piece);
        if message.bytes.len() > LONGEST {
            return None;
        }
        if afl.more_fragments() {
            if self.waiting.len() >= MESSAGES {
                self.waiting.remove(0);
            }
            self.waiting.push(message);
            return None;
        }
        Some(message.whole())
    }
}

impl Message {
    fn new(sender: Meter) -> Self {
        Self {
            sender,
            newest: 0,
            message_control: None,
            key_information: None,
            counter: None,
            mac: Vec::new(),
            message_length: None,
            bytes: Vec::new(),
        }
    }

    fn add(&mut self, afl: Afl<'_>, piece: &[u8]) {
        self.newest = afl.fragment();
        self.message_control = self.message_control.or(afl.message_control);
        self.key_information = self.key_information.or(afl.key_information);
        self.counter = self.counter.or(afl.counter);
        self.message_length = self.message_length.or(afl.message_length);
        if self.mac.is_empty() {
            self.mac = afl.mac.to_vec();
        }
        self.bytes.extend_from_slice(piece);
    }

    fn whole(&self) -> Vec<u8> {
        let afl = Afl {
            control: 0,
            message_control: self.message_control,
            key_information: self.key_information,
            counter: self.counter,
            mac: &self.mac,
            message_length: self.message_length,
        };
        [afl.whole(), self.bytes.clone()].concat()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::aes::Aes128;

    fn sender(id: u32) -> Meter {
        Meter { manufacturer: 0x2C2D, id, version: 1, device: 7 }
    }

    /// A clear message of `bytes` in fragments of `size`, as layers of telegrams.
    fn fragments(bytes: &[u8], size: usize) -> Vec<Vec<u8>> {
        let message = [&[0x78], bytes].concat();
        let pieces: Vec<_> = message.chunks(size).collect();
        let number = |at: usize| u8::try_from(at + 1).unwrap();
        let flags = |at: usize| if at + 1 == pieces.len() { 0 } else { 0x40 };
        pieces.iter().enumerate().map(|(at, piece)| [&[0x90, 2, number(at), flags(at)], *piece].concat()).collect()
    }

    fn all(fragments: &mut Fragments, id: u32, pieces: &[Vec<u8>]) -> Vec<Result<Opened, Locked>> {
        pieces.iter().map(|piece| fragments.open(sender(id), piece, 10, &Keys::none())).collect()
    }

    #[test]
    fn a_message_is_whole_with_its_last_fragment_whatever_comes_between() {
        let mut joining = Fragments::default();
        let pieces = fragments(b"0123456789", 4);
        assert_eq!(pieces.len(), 3);
        assert_eq!(joining.open(sender(1), &pieces[0], 10, &Keys::none()), Err(Locked::Fragment(1)));
        assert_eq!(joining.open(sender(2), &pieces[0], 10, &Keys::none()), Err(Locked::Fragment(1)));
        assert_eq!(joining.open(sender(1), &pieces[1], 10, &Keys::none()), Err(Locked::Fragment(2)));
        assert_eq!(joining.open(sender(1), &pieces[1], 10, &Keys::none()), Err(Locked::Fragment(2)), "relayed");
        let whole = joining.open(sender(1), &pieces[2], 10, &Keys::none()).unwrap();
        assert_eq!((whole.ci, whole.body.as_slice()), (0x78, &b"0123456789"[..]));
        assert_eq!(joining.waiting.len(), 1, "the other meter's");
    }

    #[test]
    fn a_message_with_a_gap_is_given_up_and_the_next_one_counts() {
        let mut joining = Fragments::default();
        let pieces = fragments(b"0123456789", 4);
        let found = all(&mut joining, 1, &[pieces[0].clone(), pieces[2].clone(), pieces[1].clone()]);
        assert!(found.iter().all(|f| matches!(f, Err(Locked::Fragment(_)))));
        assert!(all(&mut joining, 1, &pieces)[2].is_ok());
    }

    #[test]
    fn a_first_fragment_that_is_also_the_last_is_a_whole_message() {
        let opened = Fragments::default().open(sender(1), &fragments(b"01", 9)[0], 10, &Keys::none()).unwrap();
        assert_eq!(opened.body, b"01");
    }

    /// An authenticated message whose code is in its last fragment and the rest in its first.
    #[test]
    fn the_code_over_a_joined_message_is_checked() {
        let key = Aes128::new(&[1; 16]);
        let derived = |purpose| Aes128::new(&key.cmac(&[&[purpose, 5, 0, 0, 0, 1, 0, 0, 0], &[7; 7]]));
        let mut body = [0x2F; 64];
        derived(0).cbc_encrypt([0; 16], &mut body);
        let message = [&[0x7A, 9, 0, 0x40, 0x07, 0x10][..], &body].concat();
        let mac = derived(1).cmac(&[&[0x25, 5, 0, 0, 0], &message]);
        let first = [&[0x90, 7, 1, 0x68, 0x25, 5, 0, 0, 0], &message[..40]].concat();
        let last = [&[0x90, 10, 2, 0x04], &mac[..8], &message[40..]].concat();
        let keys = Keys::for_any([1; 16]);
        let mut joining = Fragments::default();
        assert_eq!(joining.open(sender(1), &first, 10, &keys), Err(Locked::Fragment(1)));
        assert_eq!(joining.open(sender(1), &last, 10, &keys).map(|o| o.body), Ok(vec![0x2F; 64]));
        let mut altered = last;
        *altered.last_mut().unwrap() ^= 1;
        let _ = joining.open(sender(1), &first, 10, &keys);
        assert!(matches!(joining.open(sender(1), &altered, 10, &keys), Err(Locked::WrongKey { .. })));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut joining = Fragments::default();
        for id in 0..1000 {
            let _ = joining.open(sender(id), &fragments(&[7; 100], 50)[0], 10, &Keys::none());
        }
        assert_eq!(joining.waiting.len(), MESSAGES);
        let endless = fragments(&[7; 240 * 30], 240);
        assert!(all(&mut joining, 999, &endless).iter().all(Result::is_err));
    }

    proptest! {
        #[test]
        fn any_fragments_in_any_order_give_a_sent_message_or_none(
            order in prop::collection::vec((0..3_u32, 0..4_usize), 0..40),
        ) {
            let mut joining = Fragments::default();
            let text = |id: u32| vec![u8::try_from(id).unwrap(); 13];
            for (id, piece) in order {
                let pieces = fragments(&text(id), 4);
                if let Ok(opened) = joining.open(sender(id), &pieces[piece], 10, &Keys::none()) {
                    prop_assert_eq!(opened.body, text(id));
                }
            }
        }

        #[test]
        fn any_bytes_are_joined_or_refused(telegrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 0..10)) {
            let mut joining = Fragments::default();
            for mut telegram in telegrams {
                telegram.insert(0, 0x90);
                let _ = joining.open(sender(1), &telegram, 10, &Keys::for_any([1; 16]));
            }
            prop_assert!(joining.waiting.len() <= MESSAGES);
        }
    }
}
