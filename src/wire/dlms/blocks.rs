//! General block transfer (IEC 62056-5-3, clause 7.3.13): APDUs in numbered blocks, in windows, with lost ones
//! sent again.
//!
//! A block says whether more of its window follow at once ("streaming"); the last of a window is acknowledged
//! with the number of the last block that came in order, and the sender goes on behind that one. The
//! crate's own sender and receiver count the window instead of looking at that bit, and so acknowledge in
//! the middle of one when a peer announces a small window for itself; only its coding is used.

use super::{BlockControl, Encode, GeneralBlockTransfer};

/// The longest APDU that is put together.
const LONGEST: usize = 1 << 20;
/// How many blocks this side takes at once.
const WINDOW: u8 = 8;
/// What a block adds to its data: tag, control, two numbers, length.
const OVERHEAD: usize = 9;
const TAG: u8 = 0xE0;

/// What is wrong with a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an APDU in blocks is longer than a mebibyte or has more than 65,535 blocks")]
pub struct TooLong;

/// What to do after a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Another one follows by itself.
    More,
    /// The sender waits for an acknowledgement.
    Acknowledge,
    /// This is the APDU.
    Whole(Vec<u8>),
}

/// Puts an APDU together.
#[derive(Debug, Default)]
pub struct Incoming {
    apdu: Vec<u8>,
    received: u16,
    sent: u16,
}

impl Incoming {
    /// Begins with nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The last block that came in order.
    pub const fn acknowledged(&self) -> u16 {
        self.received
    }

    /// Takes a block; one that came before, or too early, changes nothing.
    ///
    /// # Errors
    /// When the APDU grows too long.
    pub fn push(&mut self, block: &GeneralBlockTransfer<'_>) -> Result<Step, TooLong> {
        let awaited = self.received.checked_add(1).ok_or(TooLong)?;
        if block.block_number == awaited {
            if self.apdu.len() + block.block_data.len() > LONGEST {
                return Err(TooLong);
            }
            self.apdu.extend_from_slice(block.block_data);
            self.received = awaited;
            if block.control.last_block() {
                return Ok(Step::Whole(std::mem::take(&mut self.apdu)));
            }
        }
        let more = block.control.streaming() && !block.control.last_block();
        Ok(if more { Step::More } else { Step::Acknowledge })
    }

    /// Tells the sender where to go on; an APDU.
    pub fn acknowledgement(&mut self) -> Vec<u8> {
        self.sent = self.sent.wrapping_add(1);
        bytes(&GeneralBlockTransfer {
            control: BlockControl::new(true, false, WINDOW),
            block_number: self.sent,
            block_number_ack: self.received,
            block_data: &[],
        })
    }
}

/// Cuts an APDU into blocks.
#[derive(Debug)]
pub struct Outgoing<'a> {
    apdu: &'a [u8],
    size: usize,
    blocks: u16,
    sent: u16,
    acknowledged: u16,
    window: u16,
}

impl<'a> Outgoing<'a> {
    /// Cuts `apdu` so that no block is longer than `longest` bytes; `None` when that takes too many blocks.
    pub fn new(apdu: &'a [u8], longest: usize) -> Option<Self> {
        let size = longest.checked_sub(OVERHEAD).filter(|size| *size > 0)?;
        let blocks = u16::try_from(apdu.len().div_ceil(size).max(1)).ok()?;
        // What the other side takes at once is known when it has acknowledged something.
        Some(Self { apdu, size, blocks, sent: 0, acknowledged: 0, window: 1 })
    }

    /// The next block of the window; `None` when an acknowledgement must come first.
    pub fn next_block(&mut self) -> Option<Vec<u8>> {
        if self.sent >= self.blocks || self.sent - self.acknowledged >= self.window {
            return None;
        }
        let start = usize::from(self.sent) * self.size;
        let data = self.apdu.get(start..(start + self.size).min(self.apdu.len()))?;
        self.sent += 1;
        let last = self.sent == self.blocks;
        let streams = !last && self.sent - self.acknowledged < self.window;
        Some(bytes(&GeneralBlockTransfer {
            control: BlockControl::new(last, streams, WINDOW),
            block_number: self.sent,
            block_number_ack: 0,
            block_data: data,
        }))
    }

    /// Takes an acknowledgement with the window that the other side announces; false when it can't be one.
    pub fn acknowledge(&mut self, number: u16, window: u8) -> bool {
        if number > self.sent || number < self.acknowledged {
            return false;
        }
        (self.acknowledged, self.sent) = (number, number);
        self.window = u16::from(window.max(1));
        true
    }

    /// The last block that was acknowledged.
    pub const fn acknowledged(&self) -> u16 {
        self.acknowledged
    }

    /// Goes back to what was acknowledged last.
    pub const fn again(&mut self) {
        self.sent = self.acknowledged;
    }

    /// Whether everything has arrived.
    pub const fn is_done(&self) -> bool {
        self.acknowledged >= self.blocks
    }
}

fn bytes(block: &GeneralBlockTransfer<'_>) -> Vec<u8> {
    let mut bytes = vec![TAG];
    // A block is never longer than its length field can say.
    let _ = block.encode(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::dlms::decode;

    /// Carries an APDU over a way that loses those blocks whose turn in `lost` is true; what came of it.
    fn carry(apdu: &[u8], longest: usize, lost: &[bool]) -> Option<Vec<u8>> {
        let mut lost = lost.iter().copied().chain(std::iter::repeat(false));
        let (mut out, mut incoming) = (Outgoing::new(apdu, longest)?, Incoming::new());
        for _ in 0..100_000 {
            let mut told = false;
            while let Some(block) = out.next_block() {
                assert!(block.len() <= longest);
                if lost.next()? {
                    continue;
                }
                let (block, _) = decode::<GeneralBlockTransfer<'_>>(&block[1..]).unwrap();
                match incoming.push(&block).unwrap() {
                    Step::Whole(apdu) => return Some(apdu),
                    Step::More => {}
                    Step::Acknowledge => told = true,
                }
            }
            // Where the end of a window is lost nobody says anything, and either side begins again.
            if told && !lost.next()? {
                let answer = incoming.acknowledgement();
                let (answer, _) = decode::<GeneralBlockTransfer<'_>>(&answer[1..]).unwrap();
                assert!(out.acknowledge(answer.block_number_ack, answer.control.window()));
            } else {
                out.again();
            }
        }
        None
    }

    #[test]
    fn an_acknowledgement_is_what_meters_expect() {
        let mut incoming = Incoming::new();
        let block = GeneralBlockTransfer {
            control: BlockControl::new(false, false, 1),
            block_number: 1,
            block_number_ack: 1,
            block_data: &[0xC4],
        };
        assert_eq!(incoming.push(&block), Ok(Step::Acknowledge));
        assert_eq!(incoming.acknowledgement(), [0xE0, 0x88, 0, 1, 0, 1, 0]);
    }

    proptest! {
        #[test]
        fn an_apdu_arrives_whole_whatever_is_lost_on_the_way(
            apdu in prop::collection::vec(any::<u8>(), 0..2000),
            longest in 10usize..300,
            lost in prop::collection::vec(any::<bool>(), 0..40),
        ) {
            prop_assert_eq!(carry(&apdu, longest, &lost), Some(apdu));
        }

        #[test]
        fn any_blocks_are_taken_without_a_panic(
            blocks in prop::collection::vec((any::<u8>(), 0u16..5, any::<u16>(), prop::collection::vec(any::<u8>(), 0..9)), 0..30),
        ) {
            let (mut incoming, mut out) = (Incoming::new(), Outgoing::new(&[1; 100], 20).unwrap());
            for (control, block_number, block_number_ack, data) in &blocks {
                let control = BlockControl(*control);
                let block = GeneralBlockTransfer {
                    control, block_number: *block_number, block_number_ack: *block_number_ack, block_data: data,
                };
                let _ = incoming.push(&block);
                let _ = (out.next_block(), out.acknowledge(*block_number_ack, control.window()));
            }
        }
    }
}
