//! Modbus: PDUs, and the three ways they travel.

use weir::wire::modbus::tcp::{self, Header};
use weir::wire::modbus::{Answer, Coding, Identity, Level, Progress, Register, Request, Table, ascii, rtu};

use super::stream::How;

const UNIT: u8 = 1;

/// What the answers are to.
fn request(how: How) -> Request {
    how.pick(&[0, 1, 2, 3, 4, 5, 6]).into_request()
}

trait IntoRequest {
    fn into_request(self) -> Request;
}

impl IntoRequest for u8 {
    fn into_request(self) -> Request {
        match self {
            0 => Request::Read { table: Table::Holding, address: 0, quantity: 4 },
            1 => Request::Read { table: Table::Coil, address: 3, quantity: 11 },
            2 => Request::WriteCoil { address: 1, on: true },
            3 => Request::WriteRegister { address: 1, word: 0x1234 },
            4 => Request::WriteRegisters { address: 1, words: vec![1, 2, 3] },
            5 => Request::ReadWrite { address: 0, quantity: 2, write_address: 5, words: vec![7] },
            _ => Request::Identify { level: Level::Basic, object: 0 },
        }
    }
}

/// What a decoder of answers says to pieces of bytes; what follows a verdict is not given to it.
fn progress<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, push: impl FnMut(&[u8]) -> Progress) -> Progress {
    let mut verdicts = pieces.into_iter().map(push);
    verdicts.find(|verdict| *verdict != Progress::More).unwrap_or(Progress::More)
}

/// Asserts that cutting changes nothing, and that an answer is one.
fn steady<D>(how: How, bytes: &[u8], new: impl Fn() -> D, push: fn(&mut D, &[u8]) -> Progress) {
    let run = |pieces: Vec<&[u8]>| {
        let mut decoder = new();
        progress(pieces, |piece| push(&mut decoder, piece))
    };
    let at_once = run(vec![bytes]);
    assert_eq!(at_once, run(how.pieces(bytes)), "pieces of {bytes:02x?}");
    assert_eq!(at_once, run(bytes.chunks(1).collect()), "single bytes of {bytes:02x?}");
    if let Progress::Answer(pdu) = at_once {
        assert!(pdu.len() <= bytes.len());
        request(how).decode_answer(&pdu).expect("an answer is one");
    }
}

/// Whatever answers the request comes through.
fn answers(how: How, bytes: &[u8]) -> Option<Vec<u8>> {
    let request = request(how);
    request.decode_answer(bytes).is_ok().then(|| bytes.to_vec())
}

pub fn rtu(how: How, bytes: &[u8]) {
    if let Ok((unit, pdu)) = rtu::decode(bytes) {
        let mut again = Vec::new();
        rtu::encode(unit, pdu, &mut again);
        assert_eq!(again, bytes);
    }
    let new = || rtu::AnswerDecoder::new(UNIT, request(how), how.flag(7));
    steady(how, bytes, new, rtu::AnswerDecoder::push);
    if let Some(pdu) = answers(how, bytes) {
        let mut frame = Vec::new();
        rtu::encode(UNIT, &pdu, &mut frame);
        let mut decoder = rtu::AnswerDecoder::new(UNIT, request(how), false);
        assert_ne!(decoder.push(&frame), Progress::More);
    }
    let requests = |pieces: Vec<&[u8]>| {
        let mut decoder = rtu::RequestDecoder::default();
        pieces.into_iter().flat_map(|piece| decoder.push(piece)).collect::<Vec<_>>()
    };
    let at_once = requests(vec![bytes]);
    assert_eq!(at_once, requests(how.pieces(bytes)));
    for (unit, request) in at_once {
        let (mut pdu, mut frame) = (Vec::new(), Vec::new());
        request.encode(&mut pdu);
        rtu::encode(unit, &pdu, &mut frame);
        assert_eq!(requests(vec![&frame]), [(unit, request)]);
    }
}

pub fn ascii(how: How, bytes: &[u8]) {
    let mut decoder = ascii::Decoder::default();
    let at_once = decoder.push(bytes);
    let mut other = ascii::Decoder::default();
    let in_pieces: Vec<_> = how.pieces(bytes).into_iter().flat_map(|piece| other.push(piece)).collect();
    assert_eq!((&at_once, decoder.noise, decoder.in_frame()), (&in_pieces, other.noise, other.in_frame()));
    assert!(decoder.noise <= bytes.len());
    for (unit, pdu) in at_once.into_iter().flatten() {
        let mut frame = Vec::new();
        ascii::encode(unit, &pdu, &mut frame);
        assert_eq!(frame.len(), ascii::length(pdu.len()));
        assert_eq!(ascii::Decoder::default().push(&frame), [Ok((unit, pdu))]);
    }
    let new = || ascii::AnswerDecoder::new(UNIT, request(how), how.flag(7));
    steady(how, bytes, new, ascii::AnswerDecoder::push);
}

pub fn tcp(how: How, bytes: &[u8]) {
    let header = Header { transaction: 1, unit: UNIT };
    steady(how, bytes, || tcp::AnswerDecoder::new(header, request(how)), tcp::AnswerDecoder::push);
    let frames = |pieces: Vec<&[u8]>| {
        let (mut decoder, mut found) = (tcp::Decoder::default(), Vec::new());
        for piece in pieces {
            decoder.push(piece);
            // An error stays: the connection is of no more use.
            while let Some(frame) = decoder.next() {
                let broken = frame.is_err();
                found.push(frame);
                if broken {
                    return found;
                }
            }
        }
        found
    };
    let at_once = frames(vec![bytes]);
    assert_eq!(at_once, frames(how.pieces(bytes)));
    for (header, pdu) in at_once.into_iter().flatten() {
        let mut frame = Vec::new();
        tcp::encode(header, &pdu, &mut frame);
        assert_eq!(frames(vec![&frame]), [Ok((header, pdu))]);
    }
}

pub fn pdu(how: How, bytes: &[u8]) {
    if let Ok(request) = Request::decode(bytes) {
        let mut again = Vec::new();
        request.encode(&mut again);
        assert_eq!(Request::decode(&again).as_ref(), Ok(&request));
        assert_eq!((Request::length(bytes), again.len()), (Some(bytes.len()), bytes.len()));
    }
    let request = request(how);
    if let Ok(answer) = request.decode_answer(bytes) {
        assert!(request.check_start(bytes).is_ok(), "an answer begins like one");
        assert!(bytes.len() <= request.longest_answer() || matches!(answer, Answer::Refused(_)));
        let mut again = Vec::new();
        answer.encode(&request, &mut again);
        assert_eq!(request.decode_answer(&again), Ok(answer));
    }
    if let Ok(identity) = Identity::decode(bytes) {
        let mut again = Vec::new();
        identity.encode(&mut again);
        assert_eq!(Identity::decode(&again), Ok(identity));
        assert_eq!(Identity::length(bytes), Some(bytes.len()));
    }
    registers(how, bytes);
}

/// Any words in any coding; an integer is written back as the same words.
fn registers(how: How, bytes: &[u8]) {
    const WORDS: [&str; 12] =
        ["u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bool", "bcd16", "bcd32", "string:9"];
    const ORDERS: [&str; 4] = ["", "-swapped", "-bytes-swapped", "-reversed"];
    let coding = format!("{}{}", how.pick(&WORDS), ORDERS[usize::from(how.cuts) % ORDERS.len()]);
    let text = String::from_utf8_lossy(bytes);
    let _ = (text.parse::<Coding>().map(|coding| coding.to_string()), text.parse::<Register>());
    let Ok(coding) = coding.parse::<Coding>() else { return };
    let words: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
    let (raw, content) = (coding.raw(&words), coding.decode(&words));
    let Some(content) = content else { return };
    assert!(raw.is_some() || coding.is_text());
    let one = weir::model::Decimal::from(1u64);
    if let Ok(text) = content.scaled(one, weir::model::Decimal::from(0u64))
        && coding.is_integer()
    {
        assert_eq!(coding.encode(&text).as_deref(), words.get(..usize::from(coding.registers())));
    }
}
