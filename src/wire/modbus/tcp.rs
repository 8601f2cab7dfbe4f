//! TCP framing: the MBAP header ("MODBUS Messaging on TCP/IP V1.0b", clause 3.1.3).
//!
//! Invariants: an answer is ours only by its transaction id; a header that can't be one ends the
//! connection, because the next boundary is unknown; at most one frame is kept.

use super::{Damage, Progress, Request};
use crate::wire::DecodeError;

const HEADER: usize = 7;

/// The header in front of a PDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Pairs an answer with its request.
    pub transaction: u16,
    /// The unit behind a gateway.
    pub unit: u8,
}

/// Appends header and PDU to `out`.
pub fn encode(header: Header, pdu: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(pdu.len().saturating_add(1)).unwrap_or(u16::MAX);
    out.extend(header.transaction.to_be_bytes());
    out.extend([0, 0]);
    out.extend(length.to_be_bytes());
    out.push(header.unit);
    out.extend(pdu);
}

/// Cuts a stream of bytes into header and PDU.
#[derive(Debug, Default)]
pub struct Decoder {
    seen: Vec<u8>,
    at: usize,
}

impl Decoder {
    /// Takes bytes from the connection.
    pub fn push(&mut self, bytes: &[u8]) {
        self.seen.drain(..self.at.min(self.seen.len()));
        self.at = 0;
        self.seen.extend(bytes);
    }

    /// The bytes that belong to no complete frame.
    pub fn unused(&self) -> usize {
        self.seen.len().saturating_sub(self.at)
    }

    /// Gives the next complete frame.
    ///
    /// # Errors
    /// When the header can't be one; the connection is then of no more use.
    #[expect(clippy::should_implement_trait, reason = "the verb of every stream codec here; it borrows")]
    pub fn next(&mut self) -> Option<Result<(Header, Vec<u8>), DecodeError>> {
        let rest = self.seen.get(self.at..)?;
        let &[t1, t2, p1, p2, l1, l2, ..] = rest else { return None };
        let (protocol, length) = (u16::from_be_bytes([p1, p2]), usize::from(u16::from_be_bytes([l1, l2])));
        if protocol != 0 {
            return Some(Err(DecodeError::new(2, "protocol 0 in the MBAP header", protocol.to_string())));
        }
        if !(2..=254).contains(&length) {
            return Some(Err(DecodeError::new(4, "a length from 2 to 254 in the MBAP header", length.to_string())));
        }
        let unit = *rest.get(HEADER - 1)?;
        let pdu = rest.get(HEADER..HEADER - 1 + length)?.to_vec();
        self.at += HEADER - 1 + length;
        Some(Ok((Header { transaction: u16::from_be_bytes([t1, t2]), unit }, pdu)))
    }
}

/// Finds the answer to one request: skips late answers to older ones.
#[derive(Debug)]
pub struct AnswerDecoder {
    header: Header,
    request: Request,
    frames: Decoder,
    /// How many answers to other requests were skipped.
    pub skipped: usize,
}

impl AnswerDecoder {
    /// Expects the answer to `request` that was sent with `header`.
    pub fn new(header: Header, request: Request) -> Self {
        Self { header, request, frames: Decoder::default(), skipped: 0 }
    }

    /// The bytes that belong to no complete frame.
    pub fn unused(&self) -> usize {
        self.frames.unused()
    }

    /// Takes bytes from the connection; what follows a complete answer is ignored.
    pub fn push(&mut self, bytes: &[u8]) -> Progress {
        // A frame at a time, so that many late answers in one piece need no more memory than one.
        for piece in bytes.chunks(HEADER) {
            self.frames.push(piece);
            while let Some(next) = self.frames.next() {
                match next {
                    Err(error) => return Progress::Damaged(Damage { error, whole: false }),
                    Ok((header, _)) if header.transaction != self.header.transaction => self.skipped += 1,
                    Ok((header, pdu)) => return self.judge(header, pdu),
                }
            }
        }
        Progress::More
    }

    fn judge(&self, header: Header, pdu: Vec<u8>) -> Progress {
        let damaged = |error| Progress::Damaged(Damage { error, whole: true });
        if header.unit != self.header.unit {
            let found = format!("unit {}, not {}", header.unit, self.header.unit);
            return damaged(DecodeError::new(6, "the unit of the request", found));
        }
        match self.request.decode_answer(&pdu) {
            Ok(_) => Progress::Answer(pdu),
            Err(mut error) => {
                error.offset += HEADER;
                damaged(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::modbus::Table;

    const OURS: Header = Header { transaction: 7, unit: 1 };

    fn decoder() -> AnswerDecoder {
        AnswerDecoder::new(OURS, Request::Read { table: Table::Holding, address: 0, quantity: 1 })
    }

    fn frame(header: Header, pdu: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(header, pdu, &mut out);
        out
    }

    #[test]
    fn late_answers_are_skipped_and_ours_is_found() {
        let mut bytes = frame(Header { transaction: 6, unit: 1 }, &[3, 2, 0xAA, 0xAA]);
        bytes.extend(frame(OURS, &[3, 2, 0, 5]));
        let mut decoder = decoder();
        assert_eq!(decoder.push(&bytes), Progress::Answer(vec![3, 2, 0, 5]));
        assert_eq!(decoder.skipped, 1);
    }

    #[test]
    fn a_header_that_cannot_be_one_is_damage_at_once() {
        for bad in [&[0, 7, 0, 1, 0, 5][..], &[0, 7, 0, 0, 0, 1], &[0, 7, 0, 0, 1, 0]] {
            assert!(matches!(decoder().push(bad), Progress::Damaged(Damage { whole: false, .. })));
        }
        let other_unit = frame(Header { unit: 2, ..OURS }, &[3, 2, 0, 5]);
        let longer = frame(OURS, &[3, 4, 0, 5, 0, 6]);
        for bad in [other_unit, longer] {
            assert!(matches!(decoder().push(&bad), Progress::Damaged(Damage { whole: true, .. })));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same_result(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(7)], 0..60),
            good in any::<bool>(),
            cut in 1usize..20,
        ) {
            let mut stream = if good { frame(Header { transaction: 3, unit: 9 }, &bytes) } else { bytes };
            stream.extend(frame(OURS, &[3, 2, 0, 5]));
            let whole = decoder().push(&stream);
            let mut pieces = decoder();
            let last = stream.chunks(cut).map(|c| pieces.push(c)).find(|p| *p != Progress::More);
            prop_assert_eq!(last.unwrap_or(Progress::More), whole);
        }
    }
}
