//! RTU framing: unit, PDU, CRC ("MODBUS over Serial Line V1.02", clause 2.5.1).
//!
//! Invariants: an answer ends with its last byte, whatever silence follows; what it looks like
//! does not depend on how its bytes were cut into pieces; nothing beyond 512 bytes is kept.

use crc::{CRC_16_MODBUS, Crc};

use super::{Damage, Identity, Progress, REFUSED, Request};
use crate::wire::DecodeError;

const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_MODBUS);
const MOST_NOISE: usize = 512;

/// Appends unit, PDU and CRC to `out`.
pub fn encode(unit: u8, pdu: &[u8], out: &mut Vec<u8>) {
    let mut digest = CRC.digest();
    digest.update(&[unit]);
    digest.update(pdu);
    out.push(unit);
    out.extend(pdu);
    out.extend(digest.finalize().to_le_bytes());
}

/// Reads a whole frame as unit and PDU.
///
/// # Errors
/// When it is too short or its CRC is wrong.
pub fn decode(frame: &[u8]) -> Result<(u8, &[u8]), DecodeError> {
    let [unit, rest @ .., low, high] = frame else {
        return Err(DecodeError::new(0, "at least 4 bytes", format!("{} bytes", frame.len())));
    };
    let body = frame.get(..frame.len().saturating_sub(2)).unwrap_or_default();
    let (computed, found) = (CRC.checksum(body), u16::from_le_bytes([*low, *high]));
    if rest.is_empty() {
        return Err(DecodeError::new(1, "a function code", "the CRC"));
    }
    if computed != found {
        let found = format!("{found:#06x} where {computed:#06x} fits the bytes");
        return Err(DecodeError::new(body.len(), "the CRC of the bytes before it", found));
    }
    Ok((*unit, rest))
}

/// How long a frame that starts like this is, as far as its function tells.
fn answer_length(start: &[u8]) -> Option<usize> {
    match start.get(1)? {
        function if function & REFUSED != 0 => Some(5),
        1..=4 | 23 => Some(5 + usize::from(*start.get(2)?)),
        5 | 6 | 15 | 16 => Some(8),
        43 => Identity::length(start.get(1..)?).map(|pdu| pdu + 3),
        _ => None,
    }
}

/// Finds the answer to one request in a stream of bytes: skips its echo, answers of other units
/// and noise in front of it.
#[derive(Debug)]
pub struct AnswerDecoder {
    unit: u8,
    request: Request,
    /// The request's frame, while an echo of it may still come.
    echo_of: Option<Vec<u8>>,
    /// Whether its answer may be the request itself (functions 5 and 6).
    alike: bool,
    seen: Vec<u8>,
    /// An answer of another unit was skipped.
    pub other_unit: Option<u8>,
    /// The request came back and was skipped.
    pub echo: bool,
}

impl AnswerDecoder {
    /// Expects the answer of `unit` to `request`; with `echoes` the request itself comes first.
    pub fn new(unit: u8, request: Request, echoes: bool) -> Self {
        let (mut pdu, mut sent) = (Vec::new(), Vec::new());
        request.encode(&mut pdu);
        encode(unit, &pdu, &mut sent);
        // Only who knows of echoes may skip what may be the answer.
        let alike = request.decode_answer(&pdu).is_ok();
        let echo_of = (echoes || !alike).then_some(sent);
        Self { unit, request, echo_of, alike, seen: Vec::new(), other_unit: None, echo: false }
    }

    /// The bytes that came and belong to nothing yet.
    pub fn unused(&self) -> usize {
        self.seen.len()
    }

    /// Takes bytes from the line; what follows a complete answer is ignored.
    pub fn push(&mut self, bytes: &[u8]) -> Progress {
        for byte in bytes {
            self.seen.push(*byte);
            match self.look() {
                Progress::More => {}
                done => return done,
            }
        }
        Progress::More
    }

    /// Judges after each byte, so that the way the bytes were cut can't matter.
    fn look(&mut self) -> Progress {
        // First: the beginning of an echo may look like an answer.
        if let Some(sent) = self.echo_of.as_ref().filter(|sent| sent.starts_with(&self.seen)) {
            if self.seen.len() == sent.len() {
                self.echo = true;
                self.seen.clear();
                self.echo_of.take_if(|_| self.alike);
            }
            return Progress::More;
        }
        if let Some(pdu) = self.answer_at_the_end() {
            return Progress::Answer(pdu);
        }
        if self.seen.first() == Some(&self.unit) {
            return self.our_start();
        }
        if answer_length(&self.seen) == Some(self.seen.len())
            && let Ok((unit, _)) = decode(&self.seen)
        {
            self.other_unit = Some(unit);
            self.seen.clear();
        }
        if self.seen.len() > MOST_NOISE {
            let error = DecodeError::new(0, "an answer", format!("{MOST_NOISE} bytes of noise"));
            return Progress::Damaged(Damage { error, whole: false });
        }
        Progress::More
    }

    /// The answer, when it ends with the last byte seen.
    fn answer_at_the_end(&self) -> Option<Vec<u8>> {
        // Where it begins is known from its length, but for an identification, which tells it itself.
        let fixed = self.request.answer_bytes().is_some() || self.request.writes();
        let lengths = if fixed { self.request.longest_answer() + 3 } else { 10 }..=self.request.longest_answer() + 3;
        lengths.chain([5]).find_map(|length| {
            let frame = self.seen.get(self.seen.len().checked_sub(length)?..)?;
            let starts_right = frame.first() == Some(&self.unit);
            let pdu = frame.get(1..length.checked_sub(2)?)?;
            let answers = starts_right && self.request.decode_answer(pdu).is_ok() && decode(frame).is_ok();
            answers.then(|| pdu.to_vec())
        })
    }

    /// Judges bytes that start with our unit: whatever is wrong with them is damage.
    fn our_start(&self) -> Progress {
        let pdu = self.seen.get(1..).unwrap_or_default();
        if let Err(mut error) = self.request.check_start(pdu) {
            error.offset += 1;
            return Progress::Damaged(Damage { error, whole: false });
        }
        if answer_length(&self.seen).is_none_or(|length| length > self.seen.len()) {
            return Progress::More;
        }
        match decode(&self.seen) {
            Err(error) => Progress::Damaged(Damage { error, whole: true }),
            Ok(_) => Progress::More,
        }
    }
}

/// Finds requests in a stream of bytes, as a server does.
#[derive(Debug, Default)]
pub struct RequestDecoder {
    seen: Vec<u8>,
}

impl RequestDecoder {
    /// Takes bytes; gives the requests that are complete, each with its unit, for any unit.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<(u8, Request)> {
        const LONGEST: usize = 256;
        let mut found = Vec::new();
        for byte in bytes {
            self.seen.push(*byte);
            if self.seen.len() > LONGEST {
                self.seen.remove(0);
            }
            if let Some(request) = self.request_at_the_end() {
                found.push(request);
                self.seen.clear();
            }
        }
        found
    }

    /// The request that ends with the last byte seen: the longest, should two do.
    fn request_at_the_end(&self) -> Option<(u8, Request)> {
        (0..self.seen.len()).find_map(|start| {
            let frame = self.seen.get(start..)?;
            let whole = Request::length(frame.get(1..)?)? + 3 == frame.len();
            let (unit, pdu) = whole.then(|| decode(frame).ok()).flatten()?;
            Some((unit, Request::decode(pdu).ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::modbus::{Answer, Level, Table};

    fn request() -> Request {
        Request::Read { table: Table::Input, address: 0, quantity: 2 }
    }

    fn answer(unit: u8) -> Vec<u8> {
        let (mut pdu, mut frame) = (Vec::new(), Vec::new());
        Answer::Data(vec![0x43, 0x66, 0x80, 0]).encode(&request(), &mut pdu);
        encode(unit, &pdu, &mut frame);
        frame
    }

    #[test]
    fn the_crc_is_the_one_of_the_standard() {
        // Request 01 04 00 00 00 02 as mbpoll sends it.
        let mut frame = Vec::new();
        encode(1, &[4, 0, 0, 0, 2], &mut frame);
        assert_eq!(frame, [1, 4, 0, 0, 0, 2, 0x71, 0xCB]);
        assert_eq!(decode(&frame), Ok((1, &[4, 0, 0, 0, 2][..])));
        frame[3] ^= 1;
        assert!(decode(&frame).unwrap_err().to_string().contains("CRC"));
    }

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let mut decoder = AnswerDecoder::new(1, request(), false);
        let frame = answer(1);
        assert_eq!(decoder.push(&frame[..8]), Progress::More);
        assert_eq!(decoder.push(&frame[8..]), Progress::Answer(vec![4, 4, 0x43, 0x66, 0x80, 0]));
        let mut refusal = Vec::new();
        encode(1, &[0x84, 2], &mut refusal);
        assert_eq!(AnswerDecoder::new(1, request(), false).push(&refusal), Progress::Answer(vec![0x84, 2]));
    }

    #[test]
    fn damage_is_told_with_the_byte_that_shows_it() {
        let mut flipped = answer(1);
        flipped[8] ^= 0x10;
        let Progress::Damaged(damage) = AnswerDecoder::new(1, request(), false).push(&flipped) else { panic!() };
        assert!(damage.whole && damage.error.expected.contains("CRC"));
        for start in [&[1, 3][..], &[1, 4, 2], &[1, 0x83]] {
            let Progress::Damaged(damage) = AnswerDecoder::new(1, request(), false).push(start) else {
                panic!("{start:?}")
            };
            assert!(!damage.whole);
        }
    }

    #[test]
    fn echo_and_other_units_are_skipped() {
        let mut decoder = AnswerDecoder::new(1, request(), false);
        let mut bytes = vec![1, 4, 0, 0, 0, 2, 0x71, 0xCB];
        bytes.extend(answer(9));
        bytes.extend(answer(1));
        assert!(matches!(decoder.push(&bytes), Progress::Answer(_)));
        assert!(decoder.echo && decoder.other_unit == Some(9));
    }

    #[test]
    fn a_confirmation_that_equals_its_request_is_no_echo_unless_the_line_echoes() {
        let write = Request::WriteCoil { address: 1, on: true };
        let (mut pdu, mut bytes) = (Vec::new(), Vec::new());
        write.encode(&mut pdu);
        encode(7, &pdu, &mut bytes);
        assert!(matches!(AnswerDecoder::new(7, write.clone(), false).push(&bytes), Progress::Answer(_)));
        let mut echoing = AnswerDecoder::new(7, write, true);
        assert_eq!(echoing.push(&bytes), Progress::More);
        assert!(echoing.echo && matches!(echoing.push(&bytes), Progress::Answer(_)));
    }

    #[test]
    fn an_identification_is_found_though_only_it_knows_its_length() {
        let request = Request::Identify { level: Level::Basic, object: 0 };
        let identity = [43, 14, 1, 1, 0, 0, 2, 0, 1, b'A', 1, 2, b'B', b'C'];
        let mut bytes = Vec::from(*b"\xFF\x00");
        encode(7, &identity, &mut bytes);
        let mut decoder = AnswerDecoder::new(7, request.clone(), false);
        assert_eq!(decoder.push(&bytes[..bytes.len() - 1]), Progress::More);
        assert_eq!(decoder.push(&bytes[bytes.len() - 1..]), Progress::Answer(identity.to_vec()));
        bytes[6] ^= 0x40;
        let damaged = AnswerDecoder::new(7, request, false).push(&bytes[2..]);
        assert!(matches!(damaged, Progress::Damaged(_)));
    }

    #[test]
    fn a_line_that_babbles_is_not_kept() {
        let mut decoder = AnswerDecoder::new(1, request(), false);
        assert!(matches!(decoder.push(&[0xFF; 2000]), Progress::Damaged(_)));
        assert!(decoder.unused() <= MOST_NOISE + 1);
    }

    proptest! {
        #[test]
        fn after_noise_the_answer_is_found(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assume!(noise.first().is_none_or(|b| *b != 1));
            let mut decoder = AnswerDecoder::new(1, request(), false);
            if decoder.push(&noise) == Progress::More && decoder.unused() == noise.len() {
                prop_assert!(matches!(decoder.push(&answer(1)), Progress::Answer(_)));
            }
        }

        #[test]
        fn any_chunking_gives_the_same_result(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(1), Just(4)], 0..80),
            good in any::<bool>(),
            cuts in prop::collection::vec(1usize..9, 1..90),
        ) {
            let mut stream = bytes;
            if good {
                stream.extend(answer(1));
            }
            let whole = AnswerDecoder::new(1, request(), false).push(&stream);
            let mut decoder = AnswerDecoder::new(1, request(), false);
            let mut rest = &stream[..];
            let mut last = Progress::More;
            for cut in cuts.iter().cycle() {
                if rest.is_empty() || last != Progress::More {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                last = decoder.push(piece);
                rest = after;
            }
            prop_assert_eq!(last, whole);
        }

        #[test]
        fn one_flipped_bit_never_gives_an_answer(bit in 0usize..72) {
            let mut frame = answer(1);
            frame[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!matches!(AnswerDecoder::new(1, request(), false).push(&frame), Progress::Answer(_)));
        }

        #[test]
        fn a_request_is_found_after_noise(noise in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut decoder = RequestDecoder::default();
            decoder.push(&noise);
            let found = decoder.push(&[1, 4, 0, 0, 0, 2, 0x71, 0xCB]);
            prop_assert_eq!(found.last(), Some(&(1, request())));
        }
    }
}
