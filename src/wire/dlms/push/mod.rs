//! Pushes of DLMS/COSEM meters from a stream of bytes (IEC 62056-5-3, clause 6.12): what customer interfaces (HAN,
//! P1, M-Bus) and meters with a modem send by themselves.
//!
//! [`Decoder`] finds by itself what carries them: HDLC frames, frames of wired M-Bus, wrapper units or nothing;
//! an APDU in several frames or blocks is put together. HDLC and M-Bus check what they carry: once one of their
//! frames was right, bytes that nothing checks are noise for good. Invariants: memory is bounded by
//! [`LONGEST`] and one push; the work for a byte is bounded, whatever the bytes; how the bytes are cut changes
//! nothing.

use std::collections::VecDeque;

use block::Blocks;
use carrier::{Extent, Look};
use segment::Segments;

mod block;
mod carrier;
mod segment;
#[cfg(test)]
mod tests;

pub use carrier::{Frame, Segment, is_apdu};

/// The longest APDU.
pub const LONGEST: usize = 0xFFFF;

/// What was found in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A frame of what carries APDUs. What it completes comes as the next events.
    Frame(Frame),
    /// A block of a general block transfer, in the frame before.
    Block {
        /// Its number, counting from 1.
        number: u16,
        /// Whether it is the last one.
        last: bool,
    },
    /// A whole APDU, blocks put together, still ciphered.
    Apdu(Vec<u8>),
    /// Something is lost.
    Damaged(Damage),
    /// So many bytes that are no part of any frame.
    Skipped {
        /// How many.
        bytes: usize,
    },
}

/// Why something is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The frame check sequence does not fit.
    #[error("the check sequence of an HDLC frame does not fit its bytes")]
    Check,
    /// The checksum or the stop character does not fit.
    #[error("the checksum of an M-Bus frame does not fit its bytes")]
    Sum,
    /// The line fell silent, or the next message began.
    #[error("a message breaks off")]
    Cut,
    /// A frame or block in the middle is missing.
    #[error("a part in the middle of a message is missing")]
    Gap,
    /// The first frame or block was not heard.
    #[error("the beginning of a message was not heard")]
    Headless,
    /// It is longer than [`LONGEST`].
    #[error("a message is longer than 65535 bytes")]
    Long,
    /// A block of general block transfer can't be read.
    #[error("a block of a general block transfer can't be read")]
    Block,
}

/// Finds pushes in a stream. Call [`next`](Self::next) until it is empty after every
/// [`push`](Self::push) and every [`silence`](Self::silence).
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// What stands before it is dealt with.
    start: usize,
    /// Before it no frame begins that carries a check.
    scan: usize,
    /// Whether a message must begin at `start`.
    begins: bool,
    /// Whether a frame that carries a check was right.
    checked: bool,
    noise: usize,
    segments: Segments,
    blocks: Blocks,
    ready: VecDeque<Event>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// Begins between two messages.
    pub fn new() -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            scan: 0,
            begins: true,
            checked: false,
            noise: 0,
            segments: Segments::default(),
            blocks: Blocks::default(),
            ready: VecDeque::new(),
        }
    }

    /// Takes bytes as they come.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start >= self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.scan -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next thing in what was pushed.
    #[expect(clippy::should_implement_trait, reason = "the verb of every codec; a stream may go on after nothing")]
    pub fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if !self.advance() {
                return None;
            }
        }
    }

    /// Tells that the line was silent for longer than a pause inside a message lasts (seconds, with some
    /// meters): what is not complete now never will be.
    pub fn silence(&mut self) {
        while self.start < self.buffer.len() {
            while self.advance() {}
            let Some(rest) = self.buffer.get(self.start..).filter(|rest| !rest.is_empty()) else { break };
            if !self.checked
                && let Extent::Unit(length) | Extent::Bare(length) = carrier::unchecked(rest, self.begins)
                && self.scan < self.start + length
            {
                // It is whole: what at its end looks like the head of another message is not, as nothing follows.
                self.scan = self.start + length;
                continue;
            }
            let plain = matches!(rest, [carrier::PLAIN_PUSH | carrier::PLAIN_EVENT | carrier::BLOCK, ..]);
            if plain && self.begins && !self.checked {
                let apdu = rest.to_vec();
                self.leave(apdu.len());
                self.found(Frame::Bare(apdu));
            } else {
                if self.begins && !self.checked && self.scan > self.start {
                    // A unit that breaks off is not searched for another one: its length was believed.
                    let length = rest.len();
                    self.noise += length;
                    self.leave(length);
                    self.damaged(Damage::Cut);
                    break;
                }
                self.drop_one();
            }
        }
        if self.segments.drop_open() | self.blocks.drop_open() {
            self.damaged(Damage::Cut);
        }
        self.tell_noise();
        self.begins = true;
    }

    /// Does the next step; says whether there was one.
    fn advance(&mut self) -> bool {
        let extent = match self.buffer.get(self.start..) {
            Some(rest) if !self.checked => carrier::unchecked(rest, self.begins),
            _ => Extent::No,
        };
        let end = match extent {
            Extent::Unit(length) | Extent::Bare(length) => self.start + length,
            // Byte after byte: what is unchecked may begin at the next one.
            Extent::No if !self.checked => (self.start + 1).min(self.buffer.len()),
            Extent::No | Extent::More => self.buffer.len(),
        };
        // What carries a check is believed before what lies around it.
        while self.scan < end {
            match carrier::checked(self.buffer.get(self.scan..).unwrap_or_default()) {
                Look::No => self.scan += 1,
                Look::More => break,
                Look::Frame(frame, length) => {
                    self.skip(self.scan);
                    self.leave(length);
                    (self.checked, self.begins) = (true, true);
                    self.found(frame);
                    return true;
                }
                Look::Damaged(damage) => {
                    self.skip(self.scan + 1);
                    self.damaged(damage);
                    return true;
                }
            }
        }
        match extent {
            Extent::Unit(length) | Extent::Bare(length) if self.start + length <= self.scan => {
                let bytes = self.buffer.get(self.start..self.start + length).unwrap_or_default();
                let bare = matches!(extent, Extent::Bare(_));
                let frame = if bare { Some(Frame::Bare(bytes.to_vec())) } else { carrier::take_unit(bytes) };
                self.leave(length);
                self.begins = true;
                frame.into_iter().for_each(|frame| self.found(frame));
                true
            }
            Extent::Unit(_) | Extent::Bare(_) | Extent::More => false,
            Extent::No if self.checked => {
                self.skip(self.scan);
                false
            }
            Extent::No if self.start < self.scan => {
                self.drop_one();
                true
            }
            Extent::No => false,
        }
    }

    /// Drops what stands before `to` as noise; flags may fill the time between frames.
    fn skip(&mut self, to: usize) {
        let dropped = self.buffer.get(self.start..to).unwrap_or_default();
        self.noise += dropped.iter().filter(|b| **b != 0x7E).count();
        self.begins &= dropped.is_empty();
        self.start = to;
        self.scan = self.scan.max(to);
    }

    fn drop_one(&mut self) {
        self.skip(self.start + 1);
    }

    /// Goes past what was understood.
    fn leave(&mut self, length: usize) {
        self.start += length;
        self.scan = self.scan.max(self.start);
    }

    fn damaged(&mut self, damage: Damage) {
        self.tell_noise();
        self.ready.push_back(Event::Damaged(damage));
    }

    fn tell_noise(&mut self) {
        if self.noise > 0 {
            self.ready.push_back(Event::Skipped { bytes: std::mem::take(&mut self.noise) });
        }
    }

    fn found(&mut self, frame: Frame) {
        self.tell_noise();
        let apdu = match &frame {
            Frame::Wrapper(unit) => Some(unit.apdu.clone()),
            Frame::Bare(apdu) => Some(apdu.clone()),
            Frame::Hdlc(_) | Frame::Mbus(_) => None,
        };
        let joined = match &frame {
            Frame::Hdlc(frame) => self.segments.hdlc(frame),
            Frame::Mbus(segment) => self.segments.mbus(segment),
            Frame::Wrapper(_) | Frame::Bare(_) => block::Joined { damage: None, apdu },
        };
        self.ready.push_back(Event::Frame(frame));
        self.ready.extend(joined.damage.map(Event::Damaged));
        let Some(apdu) = joined.apdu else { return };
        let Some((&carrier::BLOCK, content)) = apdu.split_first() else {
            self.ready.push_back(Event::Apdu(apdu));
            return;
        };
        if let &[control, high, low, ..] = content {
            let (number, last) = (u16::from_be_bytes([high, low]), control & 0x80 != 0);
            self.ready.push_back(Event::Block { number, last });
        }
        let joined = self.blocks.push(content);
        self.ready.extend(joined.damage.map(Event::Damaged));
        self.ready.extend(joined.apdu.map(Event::Apdu));
    }
}

/// Whether an APDU is one that meters push: a notification, plain or under a cipher.
pub fn is_push(apdu: &[u8]) -> bool {
    apdu.first().is_some_and(|tag| carrier::is_push(*tag))
}
