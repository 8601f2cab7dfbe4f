//! ASCII framing: `:`, unit and PDU in hex, LRC in hex, CR LF ("MODBUS over Serial Line V1.02",
//! clause 2.5.2).
//!
//! Invariants: a colon always begins a frame anew; bit 7 of a character is ignored, so that 7E1
//! and 8N1 read alike (the LRC finds what parity would); what a stream looks like does not depend
//! on how it was cut into pieces; nothing beyond one frame is kept.

use data_encoding::HEXUPPER;

use super::{Damage, Progress, Request};
use crate::wire::DecodeError;

/// The longest frame: unit, PDU and LRC as two characters each, colon, CR and LF.
const LONGEST: usize = 513;
/// Skipped characters after which a line is given up.
const MOST_NOISE: usize = 2048;

/// How many characters a frame with a PDU of so many bytes has.
pub const fn length(pdu: usize) -> usize {
    2 * pdu + 7
}

/// The two's complement of the sum of the bytes (clause 2.5.2.2).
fn lrc(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)).wrapping_neg()
}

/// Appends the frame of unit and PDU to `out`.
pub fn encode(unit: u8, pdu: &[u8], out: &mut Vec<u8>) {
    let mut bytes = vec![unit];
    bytes.extend(pdu);
    bytes.push(lrc(&bytes));
    out.push(b':');
    out.extend(HEXUPPER.encode(&bytes).into_bytes());
    out.extend(*b"\r\n");
}

/// Reads what stands between colon and CR as unit and PDU.
///
/// # Errors
/// When it is no hex, too short, or the LRC is wrong.
pub fn decode(characters: &[u8]) -> Result<(u8, Vec<u8>), DecodeError> {
    let upper = characters.to_ascii_uppercase();
    let bytes = HEXUPPER.decode(&upper).map_err(|e| DecodeError::new(e.position, "pairs of hex digits", "others"))?;
    let [unit, pdu @ .., found] = &*bytes else {
        return Err(DecodeError::new(0, "at least 6 hex digits", format!("{} digits", upper.len())));
    };
    if pdu.is_empty() {
        return Err(DecodeError::new(2, "a function code", "the LRC"));
    }
    let body = bytes.get(..bytes.len().saturating_sub(1)).unwrap_or_default();
    if lrc(body) != *found {
        let found = format!("{found:#04x} where {:#04x} fits the bytes", lrc(body));
        return Err(DecodeError::new(upper.len().saturating_sub(2), "the LRC of the bytes before it", found));
    }
    Ok((*unit, pdu.to_vec()))
}

/// Cuts a stream of characters into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What came since the colon; `None` outside a frame.
    frame: Option<Vec<u8>>,
    /// Characters outside frames.
    pub noise: usize,
}

impl Decoder {
    /// Whether a frame has begun and not ended.
    pub const fn in_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// Takes one character; gives the content of a frame when it is complete.
    fn take(&mut self, character: u8) -> Option<Vec<u8>> {
        let character = character & 0x7F;
        if character == b':' {
            self.noise += self.frame.replace(Vec::new()).map_or(0, |cut| cut.len() + 1);
            return None;
        }
        let Some(frame) = &mut self.frame else {
            self.noise += 1;
            return None;
        };
        frame.push(character);
        if frame.len() > LONGEST {
            self.noise += frame.len();
            self.frame = None;
            return None;
        }
        if character != b'\n' {
            return None;
        }
        let content = frame.strip_suffix(b"\r\n").map(<[u8]>::to_vec);
        self.noise += if content.is_none() { frame.len() } else { 0 };
        self.frame = None;
        content
    }

    /// Takes characters; gives every complete frame as unit and PDU, or why it is none.
    pub fn push(&mut self, characters: &[u8]) -> Vec<Result<(u8, Vec<u8>), DecodeError>> {
        characters.iter().filter_map(|c| self.take(*c)).map(|content| decode(&content)).collect()
    }
}

/// Finds the answer to one request: skips its echo, answers of other units and noise.
#[derive(Debug)]
pub struct AnswerDecoder {
    unit: u8,
    request: Request,
    /// The request's PDU, while an echo of it may still come.
    echo_of: Option<Vec<u8>>,
    frames: Decoder,
    /// An answer of another unit was skipped.
    pub other_unit: Option<u8>,
    /// The request came back and was skipped.
    pub echo: bool,
}

impl AnswerDecoder {
    /// Expects the answer of `unit` to `request`; with `echoes` the request itself comes first.
    pub fn new(unit: u8, request: Request, echoes: bool) -> Self {
        let mut pdu = Vec::new();
        request.encode(&mut pdu);
        // Functions 5 and 6 are answered by their own request: only who knows of echoes may skip it.
        let skip = echoes || request.decode_answer(&pdu).is_err();
        let frames = Decoder::default();
        Self { unit, request, echo_of: skip.then_some(pdu), frames, other_unit: None, echo: false }
    }

    /// The characters that came and belong to no frame.
    pub fn unused(&self) -> usize {
        self.frames.noise + self.frames.frame.as_ref().map_or(0, Vec::len)
    }

    /// Whether a frame has begun and not ended.
    pub const fn in_frame(&self) -> bool {
        self.frames.in_frame()
    }

    /// Takes characters from the line; what follows a complete answer is ignored.
    pub fn push(&mut self, characters: &[u8]) -> Progress {
        for character in characters {
            let Some(content) = self.frames.take(*character) else {
                if self.frames.noise > MOST_NOISE {
                    let error = DecodeError::new(0, "an answer", format!("{MOST_NOISE} characters of noise"));
                    return Progress::Damaged(Damage { error, whole: false });
                }
                continue;
            };
            match self.judge(&content) {
                Progress::More => {}
                done => return done,
            }
        }
        Progress::More
    }

    fn judge(&mut self, content: &[u8]) -> Progress {
        let damaged = |error| Progress::Damaged(Damage { error, whole: true });
        let (unit, pdu) = match decode(content) {
            Ok(frame) => frame,
            Err(error) => return damaged(error),
        };
        if unit != self.unit {
            self.other_unit = Some(unit);
            return Progress::More;
        }
        if self.echo_of.as_ref() == Some(&pdu) {
            self.echo_of = None;
            self.echo = true;
            return Progress::More;
        }
        match self.request.decode_answer(&pdu) {
            Ok(_) => Progress::Answer(pdu),
            Err(error) => damaged(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::modbus::Table;

    fn request() -> Request {
        Request::Read { table: Table::Holding, address: 0, quantity: 1 }
    }

    fn decoder() -> AnswerDecoder {
        AnswerDecoder::new(0x11, request(), false)
    }

    fn frame(unit: u8, pdu: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(unit, pdu, &mut out);
        out
    }

    #[test]
    fn a_frame_is_hex_between_colon_and_line_end_with_the_lrc_of_the_standard() {
        assert_eq!(frame(0x11, &[3, 0, 0x6B, 0, 3]), b":1103006B00037E\r\n");
        assert_eq!(length(5), 17);
        assert_eq!(decode(b"1103006b00037e"), Ok((0x11, vec![3, 0, 0x6B, 0, 3])));
        assert!(decode(b"1103006B00037F").unwrap_err().to_string().contains("LRC"));
        assert!(decode(b"1103006B00037").is_err() && decode(b"11EF").is_err() && decode(b"").is_err());
    }

    #[test]
    fn parity_bits_echoes_and_other_units_do_not_hide_the_answer() {
        let mut bytes = frame(0x11, &[3, 0, 0, 0, 1]);
        bytes.extend(b"\x00\xFFnoise\r\n");
        bytes.extend(frame(9, &[3, 2, 1, 1]));
        bytes.extend(b":1103");
        bytes.extend(frame(0x11, &[3, 2, 0, 5]).iter().map(|b| b | 0x80));
        let mut decoder = decoder();
        assert_eq!(decoder.push(&bytes), Progress::Answer(vec![3, 2, 0, 5]));
        assert!(decoder.echo && decoder.other_unit == Some(9));
    }

    #[test]
    fn a_confirmation_that_equals_its_request_is_no_echo_unless_the_line_echoes() {
        let write = Request::WriteRegister { address: 1, word: 3 };
        let bytes = frame(7, &[6, 0, 1, 0, 3]);
        assert!(matches!(AnswerDecoder::new(7, write.clone(), false).push(&bytes), Progress::Answer(_)));
        let mut echoing = AnswerDecoder::new(7, write, true);
        assert_eq!(echoing.push(&bytes), Progress::More);
        assert!(matches!(echoing.push(&bytes), Progress::Answer(_)));
    }

    proptest! {
        #[test]
        fn any_characters_in_any_pieces_give_the_same_result(
            noise in prop::collection::vec(prop_oneof![any::<u8>(), Just(b':'), Just(b'\n'), Just(b'1')], 0..60),
            cut in 1usize..9,
        ) {
            let mut stream = noise;
            stream.extend(frame(0x11, &[3, 2, 0, 5]));
            let whole = decoder().push(&stream);
            let mut pieces = decoder();
            let last = stream.chunks(cut).map(|c| pieces.push(c)).find(|p| *p != Progress::More);
            prop_assert_eq!(last.unwrap_or(Progress::More), whole);
        }

        #[test]
        fn after_noise_without_a_frame_the_answer_is_found(
            noise in prop::collection::vec(any::<u8>().prop_filter("ends no frame", |b| b & 0x7F != b'\n'), 0..60),
        ) {
            let mut decoder = decoder();
            prop_assert_eq!(decoder.push(&noise), Progress::More);
            prop_assert_eq!(decoder.push(&frame(0x11, &[3, 2, 0, 5])), Progress::Answer(vec![3, 2, 0, 5]));
        }

        #[test]
        fn one_flipped_bit_never_gives_another_answer(bit in 0usize..13 * 8) {
            let mut bytes = frame(0x11, &[3, 2, 0, 5]);
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Progress::Answer(pdu) = decoder().push(&bytes) {
                prop_assert_eq!(pdu, [3, 2, 0, 5]);
            }
        }
    }
}
