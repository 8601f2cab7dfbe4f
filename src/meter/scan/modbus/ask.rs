//! One question to one Modbus unit, and what came after it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::meter::modbus::Framing;
use crate::os::line::{Line, LineError};
use crate::wire::modbus::{ascii, rtu, tcp};

/// The silence after which bytes that came are all there is.
pub(super) const PIECES: Duration = Duration::from_millis(30);
/// ASCII may hesitate between two characters, for a second by the standard; meters don't.
const HESITATION: Duration = Duration::from_millis(250);

/// What came after a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::meter::scan) enum Heard {
    Nothing,
    /// Bytes that are no answer.
    Noise(usize),
    /// Answers with their units; over RTU also the late one of a unit asked before.
    Answers(Vec<(u8, Vec<u8>)>),
}

impl Heard {
    /// The answer of one unit.
    pub(in crate::meter::scan) fn of(&self, unit: u8) -> Option<&[u8]> {
        match self {
            Self::Answers(answers) => answers.iter().find(|(from, _)| *from == unit).map(|(_, pdu)| pdu.as_slice()),
            Self::Nothing | Self::Noise(_) => None,
        }
    }
}

/// Sends a reading PDU and waits `wait` for the first byte of an answer.
pub(in crate::meter::scan) async fn ask(
    line: &mut Line,
    framing: Framing,
    unit: u8,
    pdu: &[u8],
    wait: Duration,
) -> Result<Heard, LineError> {
    line.discard_waiting().await?;
    match framing {
        Framing::Tcp => ask_tcp(line, unit, pdu, wait).await,
        Framing::Rtu | Framing::Ascii => ask_line(line, framing, unit, pdu, wait).await,
    }
}

async fn ask_line(line: &mut Line, framing: Framing, unit: u8, pdu: &[u8], wait: Duration) -> Result<Heard, LineError> {
    // 3.5 characters of silence before a question, rounded up.
    let gap = line.speed().time_of(4).max(Duration::from_millis(2));
    sleep_until(line.last_byte() + gap).await;
    let mut sent = Vec::new();
    let pieces = if framing == Framing::Ascii { HESITATION } else { PIECES };
    match framing {
        Framing::Ascii => ascii::encode(unit, pdu, &mut sent),
        Framing::Rtu | Framing::Tcp => rtu::encode(unit, pdu, &mut sent),
    }
    line.send(&sent).await?;
    let mut bytes = Vec::new();
    let mut until = line.last_byte() + wait;
    // An answer at 300 characters a second must not be cut.
    let longest = Instant::now() + wait + Duration::from_secs(2);
    let pause = pieces + line.speed().time_of(4);
    let mut piece = [0; 256];
    while bytes.len() < 1024 {
        match line.receive(&mut piece, until.min(longest)).await {
            Ok(count) => bytes.extend(piece.iter().take(count)),
            Err(LineError::Silent(_)) => break,
            Err(error) => return Err(error),
        }
        if bytes.starts_with(&sent) {
            // The adapter hears itself; the wait begins anew.
            bytes.drain(..sent.len());
            until = line.last_byte() + wait;
            continue;
        }
        if let Heard::Answers(answers) = answers_in(framing, &bytes, pdu)
            && answers.iter().any(|(from, _)| *from == unit)
        {
            return Ok(Heard::Answers(answers));
        }
        until = line.last_byte() + pause.max(if bytes.is_empty() { wait } else { pause });
    }
    Ok(answers_in(framing, &bytes, pdu))
}

fn answers_in(framing: Framing, bytes: &[u8], asked: &[u8]) -> Heard {
    let answers = match framing {
        Framing::Ascii => {
            let frames = ascii::Decoder::default().push(bytes);
            frames.into_iter().flatten().filter(|(_, pdu)| fits(pdu, asked)).collect()
        }
        Framing::Rtu | Framing::Tcp => answers_in_rtu(bytes, asked),
    };
    match (answers.is_empty(), bytes.len()) {
        (false, _) => Heard::Answers(answers),
        (true, 0) => Heard::Nothing,
        (true, bytes) => Heard::Noise(bytes),
    }
}

/// The answers among the bytes: frames whose check is right and whose function is the one asked for.
fn answers_in_rtu(bytes: &[u8], asked: &[u8]) -> Vec<(u8, Vec<u8>)> {
    const SHORTEST: usize = 5;
    let mut answers = Vec::new();
    let mut at = 0;
    while at + SHORTEST <= bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let frame = ends(rest, asked).find_map(|end| {
            let (unit, pdu) = rtu::decode(rest.get(..end)?).ok()?;
            fits(pdu, asked).then(|| (at + end, unit, pdu.to_vec()))
        });
        match frame {
            Some((end, unit, pdu)) => {
                answers.push((unit, pdu));
                at = end;
            }
            None => at += 1,
        }
    }
    answers
}

/// Where a frame that begins like this may end, as far as its function tells.
fn ends(bytes: &[u8], asked: &[u8]) -> std::ops::RangeInclusive<usize> {
    let wanted = asked.first().copied().unwrap_or(0);
    match *bytes {
        [_, function, ..] if function == wanted | 0x80 => 5..=5,
        [_, 0x83 | 0x84, ..] if matches!(wanted, 3 | 4) => 5..=5,
        [_, 3 | 4, count, ..] if matches!(wanted, 3 | 4) => 5 + usize::from(count)..=5 + usize::from(count),
        [_, 43, 14, ..] if wanted == 43 => 9..=bytes.len().min(256),
        #[expect(clippy::reversed_empty_ranges, reason = "there is no such place")]
        _ => 1..=0,
    }
}

/// Whether an answer has the form that the question asks for; one from the other table may be late.
fn fits(pdu: &[u8], asked: &[u8]) -> bool {
    match (pdu, asked) {
        ([function, _code], [wanted, ..]) if *function == wanted | 0x80 => true,
        ([0x83 | 0x84, _code], [3 | 4, ..]) => true,
        ([3 | 4, count, data @ ..], [3 | 4, _, _, high, low]) => {
            let bytes = 2 * usize::from(u16::from_be_bytes([*high, *low]));
            usize::from(*count) == bytes && data.len() == bytes
        }
        ([43, 14, _, _, more @ ..], [43, 14, ..]) => more.len() >= 3,
        _ => false,
    }
}

async fn ask_tcp(line: &mut Line, unit: u8, pdu: &[u8], wait: Duration) -> Result<Heard, LineError> {
    let header = tcp::Header { transaction: line.next_number(), unit };
    let mut sent = Vec::new();
    tcp::encode(header, pdu, &mut sent);
    line.send(&sent).await?;
    let until = Instant::now() + wait;
    let mut decoder = tcp::Decoder::default();
    let (mut piece, mut bytes) = ([0; 256], 0);
    loop {
        match line.receive(&mut piece, until).await {
            Ok(count) => {
                bytes += count;
                decoder.push(piece.get(..count).unwrap_or_default());
            }
            Err(LineError::Silent(_)) if bytes == 0 => return Ok(Heard::Nothing),
            Err(LineError::Silent(_)) => return Ok(Heard::Noise(bytes)),
            Err(error) => return Err(error),
        }
        while let Some(next) = decoder.next() {
            match next {
                Ok((theirs, answer)) if theirs.transaction == header.transaction && fits(&answer, pdu) => {
                    return Ok(Heard::Answers(vec![(unit, answer)]));
                }
                Ok(_) => {}
                Err(_) => return Ok(Heard::Noise(bytes)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::meter::scan::modbus::HOLDING_0;

    const IDENTIFICATION: [u8; 4] = [43, 14, 1, 0];

    fn frame(unit: u8, pdu: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        rtu::encode(unit, pdu, &mut out);
        out
    }

    #[test]
    fn a_value_a_refusal_and_a_late_answer_are_heard_and_other_functions_are_not() {
        assert_eq!(answers_in(Framing::Rtu, &frame(7, &[3, 2, 0, 1]), &HOLDING_0).of(7), Some(&[3, 2, 0, 1][..]));
        assert_eq!(answers_in(Framing::Rtu, &frame(7, &[0x83, 2]), &HOLDING_0).of(7), Some(&[0x83, 2][..]));
        assert_eq!(
            answers_in(Framing::Rtu, &frame(7, &[4, 2, 0, 1]), &HOLDING_0).of(7),
            Some(&[4, 2, 0, 1][..]),
            "a late one"
        );
        assert_eq!(answers_in(Framing::Rtu, &frame(7, &[1, 1, 0]), &HOLDING_0), Heard::Noise(6));
        assert_eq!(answers_in(Framing::Rtu, &frame(7, &[3, 4, 0, 1, 0, 2]), &HOLDING_0), Heard::Noise(9));
        assert_eq!(answers_in(Framing::Rtu, &[], &HOLDING_0), Heard::Nothing);
        let both = [vec![0xFF], frame(6, &[3, 2, 0, 1]), frame(7, &[3, 2, 0, 2])].concat();
        let Heard::Answers(answers) = answers_in(Framing::Rtu, &both, &HOLDING_0) else { panic!() };
        assert_eq!(answers.iter().map(|(unit, _)| *unit).collect::<Vec<_>>(), [6, 7]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = answers_in(Framing::Rtu, &bytes, &HOLDING_0);
            let _ = answers_in(Framing::Ascii, &bytes, &HOLDING_0);
            let _ = answers_in(Framing::Rtu, &bytes, &IDENTIFICATION);
        }

        #[test]
        fn after_noise_an_answer_in_hex_is_found(noise in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut bytes = noise;
            ascii::encode(9, &[3, 2, 1, 2], &mut bytes);
            let heard = answers_in(Framing::Ascii, &bytes, &HOLDING_0);
            prop_assert_eq!(heard.of(9), Some(&[3, 2, 1, 2][..]));
        }

        #[test]
        fn after_noise_the_answer_is_found(noise in prop::collection::vec(any::<u8>(), 0..60)) {
            let bytes = [noise, frame(9, &[3, 2, 1, 2])].concat();
            prop_assert!(matches!(answers_in(Framing::Rtu, &bytes, &HOLDING_0), Heard::Answers(a) if !a.is_empty()));
        }
    }
}
