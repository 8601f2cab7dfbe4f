//! Who is there, when the receiver that the settings name does not answer.
//!
//! Only questions are asked, nothing is changed; the source is opened anew afterwards.

use std::time::Duration;

use super::dialogue;
use super::source::Open;
use crate::wire::{imst_hci, iu891a};

/// So long a stranger may take to answer.
const PATIENCE: Duration = Duration::from_millis(250);
/// More of an answer is not looked at.
const ENOUGH: usize = 1024;

/// A kind of receiver that tells who it is.
struct Kind {
    /// The word in `receiver = "..."`.
    name: &'static str,
    /// What people call it.
    words: &'static str,
    /// Its maker's speed.
    baud: u32,
    /// A harmless question.
    question: &'static [u8],
    /// Tells whether such bytes answer it.
    answers: fn(&[u8]) -> bool,
}

/// Who is it? Thirty `C0` wake it up.
const IU891A_QUESTION: &[u8] = b"\xC0\xC0\xC0\xC0\xC0\xC0\xC0\xC0\xC0\xC0\xC0\xC0\xC0\xC0\xC0\xC0\
    \xC0\xC0\xC0\xC0\xC0\xC0\xC0\xC0\xC0\xC0\xC0\xC0\xC0\xC0\x01\x03\x04\x24\xC0";

const KINDS: &[Kind] = &[
    Kind {
        name: "im871a",
        words: "an iM871A or iM170A",
        baud: 57_600,
        question: &[0xA5, 0x01, 0x01, 0x00],
        answers: is_im871a,
    },
    Kind { name: "iu891a", words: "an iU891A-XL", baud: 115_200, question: IU891A_QUESTION, answers: is_iu891a },
    Kind {
        name: "amb8465",
        words: "an AMBER or Metis stick",
        baud: 9_600,
        question: &[0xFF, 0x0B, 0x00, 0xF4],
        answers: |bytes| bytes.windows(3).any(|three| three == [0xFF, 0x8B, 0x04]),
    },
    Kind {
        name: "cul",
        words: "a CUL",
        baud: 38_400,
        question: b"V\r\n",
        answers: |bytes| bytes.windows(3).any(|three| matches!(three, [b'V', b' ', digit] if digit.is_ascii_digit())),
    },
];

fn is_im871a(bytes: &[u8]) -> bool {
    let mut decoder = imst_hci::Decoder::new();
    decoder.push(bytes);
    decoder.silence();
    std::iter::from_fn(|| decoder.next())
        .any(|event| matches!(event, imst_hci::Event::Message(message) if message.endpoint == imst_hci::DEVICE))
}

fn is_iu891a(bytes: &[u8]) -> bool {
    let mut decoder = iu891a::Decoder::new();
    decoder.push(bytes);
    std::iter::from_fn(|| decoder.next()).any(|event| matches!(event, iu891a::Event::Message(_)))
}

/// Says in one sentence who is there instead of the receiver `wanted`, and what to do about it. Other speeds
/// than `baud` are tried where weir can change it.
///
/// # Errors
/// When the line is gone.
pub(super) async fn name(open: &mut Open, wanted: &str, baud: u32, something_came: bool) -> Result<String, String> {
    let before = open.line().map(|line| line.speed().baud);
    let own = KINDS.iter().find(|kind| kind.name == wanted);
    let other_speeds = [57_600, 115_200, 38_400, 9_600].into_iter().filter(|speed| Some(*speed) != before);
    let own_elsewhere = own.into_iter().flat_map(|kind| other_speeds.clone().map(move |speed| (kind, speed)));
    let others = KINDS.iter().filter(|kind| kind.name != wanted).map(|kind| (kind, kind.baud));
    for (kind, speed) in others.chain(own_elsewhere) {
        let settable = dialogue::set_baud(open, speed);
        if !settable && kind.name == wanted {
            continue;
        }
        let mut all = Vec::new();
        let answered = dialogue::ask(open, kind.question, PATIENCE, |bytes| {
            all.extend(bytes.iter().take(ENOUGH - all.len().min(ENOUGH)));
            (kind.answers)(&all).then_some(())
        });
        if answered.await?.is_some() {
            return Ok(found(kind, wanted, speed, settable));
        }
    }
    let words = own.map_or(wanted, |kind| kind.words);
    Ok(if something_came {
        format!(
            "something came, but no answer of {words} at {baud} baud; check receiver and baud, and that nothing else uses the line"
        )
    } else {
        format!(
            "nothing answers as {words} at {baud} baud; check receiver, device and baud, then unplug and plug it in again"
        )
    })
}

fn found(kind: &Kind, wanted: &str, speed: u32, settable: bool) -> String {
    let words = kind.words;
    if kind.name == wanted {
        format!("{words} answers, but at {speed} baud; set baud = {speed}")
    } else if settable {
        format!("{words} is there instead; set receiver = \"{}\" and baud = {speed}, or leave baud out", kind.name)
    } else {
        format!("{words} is there instead; set receiver = \"{}\"", kind.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_is_what_the_codecs_write_and_no_kind_takes_another_s_answer() {
        let mut ping = Vec::new();
        imst_hci::encode(&imst_hci::Message::request(imst_hci::device::PING, &[]), &mut ping).unwrap();
        assert_eq!(KINDS[0].question, ping);
        let mut info = iu891a::WAKE[1..].to_vec();
        iu891a::encode(&iu891a::Message::new(iu891a::DEVICE, iu891a::device::INFO, &[]), &mut info).unwrap();
        assert_eq!(KINDS[1].question, info);
        let mut device = Vec::new();
        iu891a::encode(&iu891a::Message::new(1, 4, &[0, 0x6E, 1, 2, 3, 4]), &mut device).unwrap();
        let answers: [&[u8]; 4] =
            [&[0xA5, 0x81, 2, 0, 0x4C, 0xA3], &device, &[0xFF, 0x8B, 4, 1, 2, 3, 4, 0x70], b"V 1.67 nanoCUL868\r\n"];
        for (at, answer) in answers.iter().enumerate() {
            let takers: Vec<_> = KINDS.iter().filter(|kind| (kind.answers)(answer)).map(|kind| kind.name).collect();
            assert_eq!(takers, [KINDS[at].name]);
        }
    }
}
