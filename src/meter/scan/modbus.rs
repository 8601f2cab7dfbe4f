//! Finds Modbus meters: asks every unit for one register. An answer that fits the question is a
//! meter, be it a value or a refusal; only reading functions are sent.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Address, Bench, Depth, Found, Pass, Probe, Step, Wish, Work, identify};
use crate::os::line::{Endpoint, Line, LineError, Speed};
use crate::wire::modbus::{rtu, tcp};

pub(super) const RTU: Probe = Probe { name: ON_LINE, protocols: &[ON_LINE], steps: rtu_steps, run };

pub(super) const TCP: Probe = Probe { name: OVER_TCP, protocols: &[OVER_TCP], steps: tcp_steps, run };

const ON_LINE: &str = "modbus-rtu";
const OVER_TCP: &str = "modbus-tcp";

/// The speeds meters are delivered with, the commonest first.
const USUAL: &[(u32, &str)] = &[
    (9600, "8N1"),
    (19_200, "8E1"),
    (9600, "8E1"),
    (19_200, "8N1"),
    (38_400, "8N1"),
    (115_200, "8N1"),
    (4800, "8N1"),
    (2400, "8N1"),
    (38_400, "8E1"),
    (57_600, "8N1"),
    (4800, "8E1"),
    (2400, "8E1"),
];
/// What only a thorough scan tries.
const RARE: &[(u32, &str)] =
    &[(1200, "8N1"), (1200, "8E1"), (9600, "8O1"), (19_200, "8O1"), (57_600, "8E1"), (115_200, "8E1"), (600, "8N1")];
/// How many of the usual speeds a quick scan tries, and at how many every unit is asked.
const FIRST_SPEEDS: usize = 4;

const LAST_UNIT: u8 = 247;
/// The units that meters are delivered with or first get.
const COMMON_UNITS: u8 = 16;

/// What a question for one register and its answer take on the line, in characters.
const QUESTION: usize = 8;
/// The silence after which bytes that came are all there is.
const PIECES: Duration = Duration::from_millis(30);
/// The second, patient wait after something garbled.
const PATIENT: Duration = Duration::from_secs(1);
/// Read holding register 0.
pub(super) const HOLDING_0: [u8; 5] = [3, 0, 0, 0, 1];
/// Read input register 0.
const INPUT_0: [u8; 5] = [4, 0, 0, 0, 1];
/// Read the device identification, basic (function 43/14).
pub(super) const IDENTIFICATION: [u8; 4] = [43, 14, 1, 0];
/// So many units in a row that answer make it likely that the device does not look at the unit.
const ANY_UNIT: usize = 8;
/// So many units without any answer make it likely that a TCP server is none of Modbus TCP.
const STRANGER: usize = 4;

fn rtu_steps(wish: &Wish, endpoint: &Endpoint) -> Vec<Step> {
    let wait = |usual: u64| match wish.depth {
        // The second question's wait hears a late answer to the first.
        Depth::Thorough => Duration::from_millis(450),
        Depth::Quick | Depth::Usual => Duration::from_millis(usual),
    };
    let step = |speed: Speed, units: Vec<u8>, wait: Duration, pass: Pass| {
        let each = wait + speed.time_of(2 * QUESTION + 7) + Duration::from_millis(3);
        let count = u32::try_from(units.len()).unwrap_or(u32::MAX);
        let questions = if wish.depth == Depth::Thorough { 2 } else { 1 };
        let addresses = units.into_iter().map(|unit| Address::Number(unit.into())).collect();
        Step { probe: &RTU, speed, addresses, wait, pass, secondary: false, estimate: each * count * questions }
    };
    let mut speeds = wish.speeds(USUAL);
    if wish.depth == Depth::Thorough && wish.bauds.is_empty() && wish.framing.is_none() {
        speeds.extend(wish.speeds(RARE));
    }
    if matches!(endpoint, Endpoint::Tcp(_)) {
        // The serial server has a speed of its own.
        speeds.truncate(1);
    }
    let named = wish.numbers(LAST_UNIT).into_iter().filter(|unit| *unit > 0).collect::<Vec<_>>();
    if !wish.addresses.is_empty() {
        return match named.is_empty() {
            true => Vec::new(),
            false => speeds.iter().map(|speed| step(*speed, named.clone(), wait(300), Pass::Common)).collect(),
        };
    }
    let given = !wish.bauds.is_empty() || wish.framing.is_some();
    if wish.depth == Depth::Quick && !given {
        speeds.truncate(FIRST_SPEEDS);
    }
    let common = |speed: &Speed| step(*speed, (1..=COMMON_UNITS).chain([LAST_UNIT]).collect(), wait(250), Pass::Common);
    let rest = |speed: &Speed| step(*speed, (COMMON_UNITS + 1..LAST_UNIT).collect(), wait(150), Pass::Sweep);
    let swept = match wish.depth {
        Depth::Quick => 0,
        Depth::Usual if !given => FIRST_SPEEDS,
        Depth::Usual | Depth::Thorough => speeds.len(),
    };
    // The other speeds are swept only where a meter answered; that is not part of the estimate.
    let sweeps = speeds.iter().enumerate().map(|(n, speed)| {
        let mut step = rest(speed);
        if n >= swept {
            step.estimate = Duration::ZERO;
        }
        step
    });
    let sweeps: Vec<Step> = if wish.depth == Depth::Quick { Vec::new() } else { sweeps.collect() };
    speeds.iter().map(common).chain(sweeps).collect()
}

fn tcp_steps(wish: &Wish, endpoint: &Endpoint) -> Vec<Step> {
    let Endpoint::Tcp(_) = endpoint else { return Vec::new() };
    let wait = Duration::from_millis(if wish.depth == Depth::Thorough { 3000 } else { 700 });
    let step = |units: Vec<u8>, pass: Pass| {
        let estimate = wait * u32::try_from(units.len()).unwrap_or(u32::MAX);
        let addresses = units.into_iter().map(|unit| Address::Number(unit.into())).collect();
        let speed = Speed { baud: 9600, framing: crate::os::line::Framing::EIGHT_N_ONE };
        Step { probe: &TCP, speed, addresses, wait, pass, secondary: false, estimate }
    };
    let named = wish.numbers(u8::MAX);
    match (wish.addresses.is_empty(), wish.depth) {
        (false, _) if named.is_empty() => Vec::new(),
        (false, _) => vec![step(named, Pass::Common)],
        (true, Depth::Quick) => vec![step((1..=8).chain([u8::MAX]).collect(), Pass::Common)],
        (true, _) => {
            let first = (1..=COMMON_UNITS).chain([LAST_UNIT, u8::MAX, 0]).collect();
            vec![step(first, Pass::Common), step((COMMON_UNITS + 1..LAST_UNIT).collect(), Pass::Sweep)]
        }
    }
}

/// What came after a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    /// Bytes that are no answer.
    Noise(usize),
    /// Answers with their units; over RTU also the late one of a unit asked before.
    Answers(Vec<(u8, Vec<u8>)>),
}

impl Heard {
    /// The answer of one unit.
    pub(super) fn of(&self, unit: u8) -> Option<&[u8]> {
        match self {
            Self::Answers(answers) => answers.iter().find(|(from, _)| *from == unit).map(|(_, pdu)| pdu.as_slice()),
            Self::Nothing | Self::Noise(_) => None,
        }
    }
}

fn run<'a>(step: &'a Step, bench: &'a mut Bench<'_>) -> Work<'a> {
    Box::pin(search(step, bench))
}

async fn search(step: &Step, bench: &mut Bench<'_>) -> Result<(), LineError> {
    let tcp = step.probe.name == OVER_TCP;
    if step.pass == Pass::Sweep && step.estimate.is_zero() && !heard_at(step, bench) {
        return Ok(());
    }
    bench.line.set_speed(step.speed)?;
    let (mut in_a_row, mut answered) = (0, false);
    for (number, address) in step.addresses.iter().enumerate() {
        let Address::Number(number_on_bus) = address else { continue };
        let Ok(unit) = u8::try_from(*number_on_bus) else { continue };
        let speed = if tcp { String::new() } else { format!(" {} {}", step.speed.baud, step.speed.framing) };
        bench.progress(number, step.addresses.len(), format!("{}{speed} unit {unit}", step.probe.name));
        if bench.knows(step.probe.name, address, step.speed) {
            continue;
        }
        let before = bench.found.len();
        match one(step, bench, unit).await {
            Ok(said) => answered |= said,
            Err(error) => bench.survive(error).await?,
        }
        in_a_row = if bench.found.len() > before { in_a_row + 1 } else { 0 };
        // A TCP server that answers nobody, not even by a refusal, speaks something else.
        if tcp && !answered && number + 1 >= STRANGER && bench.depth != Depth::Thorough {
            return Ok(());
        }
        if tcp && in_a_row >= ANY_UNIT && all_the_same(bench) {
            keep_one(bench, unit);
            return Ok(());
        }
    }
    Ok(())
}

/// Whether a meter was found at the speed of the step.
fn heard_at(step: &Step, bench: &Bench<'_>) -> bool {
    bench.found.iter().any(|f| f.protocol == step.probe.name && f.speed == step.speed)
}

fn all_the_same(bench: &Bench<'_>) -> bool {
    let of_tcp: Vec<&Found> = bench.found.iter().filter(|f| f.protocol == OVER_TCP).collect();
    of_tcp.windows(2).all(|pair| match pair {
        [a, b] => a.who == b.who && a.register == b.register,
        _ => true,
    })
}

/// Tells that what was found is one device.
fn keep_one(bench: &mut Bench<'_>, last: u8) {
    bench.warn(format!(
        "the device answers at every unit asked (1 to {last}): it is one device that does not look at the unit; keep one of them and drop the others"
    ));
}

/// Asks one unit, and who it is when it answers; tells whether anybody said anything.
async fn one(step: &Step, bench: &mut Bench<'_>, unit: u8) -> Result<bool, LineError> {
    let tcp = step.probe.name == OVER_TCP;
    let asked = Instant::now();
    let mut heard = ask(&mut bench.line, tcp, unit, &HOLDING_0, step.wait).await?;
    if let Heard::Noise(bytes) = heard {
        // Perhaps the late answer of the unit before ran into this question.
        bench.line.wait_for_silence(PIECES * 2, PATIENT).await?;
        heard = ask(&mut bench.line, tcp, unit, &HOLDING_0, PATIENT).await?;
        if let Heard::Noise(again) = heard {
            bench.warn(format!(
                "garbled answers at {} {} unit {unit} ({bytes} and {again} bytes): two meters with this address, a second master, or missing termination",
                step.speed.baud, step.speed.framing
            ));
        }
    }
    if heard == Heard::Nothing && bench.depth == Depth::Thorough {
        heard = ask(&mut bench.line, tcp, unit, &INPUT_0, step.wait).await?;
    }
    let answered_in = asked.elapsed();
    let Heard::Answers(answers) = heard else { return Ok(heard != Heard::Nothing) };
    for (from, pdu) in answers {
        let address = Address::Number(from.into());
        let known_unit = step.addresses.contains(&address);
        if !known_unit || is_gateways(&pdu, tcp) || bench.knows(step.probe.name, &address, step.speed) {
            continue;
        }
        let mut found = Found::new(step.probe.name, step.speed, Some(address), answered_in);
        let asked = async {
            found.register = register_of(&mut bench.line, tcp, from, &pdu).await?;
            identify::modbus(&mut bench.line, tcp, from, &mut found).await
        };
        let asked = asked.await;
        // A server that hangs up on a question is a meter all the same.
        bench.add(found);
        asked?;
    }
    Ok(true)
}

/// Whether a gateway says that there is nobody behind it: exceptions 10 and 11; some say 4.
fn is_gateways(pdu: &[u8], tcp: bool) -> bool {
    tcp && matches!(pdu, [function, 4 | 10 | 11] if function & 0x80 != 0)
}

/// A register that can be read, by the answer to the question for holding register 0.
async fn register_of(line: &mut Line, tcp: bool, unit: u8, pdu: &[u8]) -> Result<Option<String>, LineError> {
    match pdu.first() {
        Some(3) => return Ok(Some("holding:0".to_owned())),
        Some(4) => return Ok(Some("input:0".to_owned())),
        _ => {}
    }
    let heard = ask(line, tcp, unit, &INPUT_0, PATIENT).await?;
    Ok(heard.of(unit).filter(|pdu| pdu.first() == Some(&4)).map(|_| "input:0".to_owned()))
}

/// Sends a reading PDU and waits `wait` for the first byte of an answer.
pub(super) async fn ask(line: &mut Line, tcp: bool, unit: u8, pdu: &[u8], wait: Duration) -> Result<Heard, LineError> {
    line.discard_waiting().await?;
    if tcp { ask_tcp(line, unit, pdu, wait).await } else { ask_rtu(line, unit, pdu, wait).await }
}

async fn ask_rtu(line: &mut Line, unit: u8, pdu: &[u8], wait: Duration) -> Result<Heard, LineError> {
    // 3.5 characters of silence before a question, rounded up.
    let gap = line.speed().time_of(4).max(Duration::from_millis(2));
    sleep_until(line.last_byte() + gap).await;
    let mut sent = Vec::new();
    rtu::encode(unit, pdu, &mut sent);
    line.send(&sent).await?;
    let mut bytes = Vec::new();
    let mut until = line.last_byte() + wait;
    // An answer at 300 characters a second must not be cut.
    let longest = Instant::now() + wait + Duration::from_secs(2);
    let pause = PIECES + line.speed().time_of(4);
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
        if let Heard::Answers(answers) = answers_in(&bytes, pdu)
            && answers.iter().any(|(from, _)| *from == unit)
        {
            return Ok(Heard::Answers(answers));
        }
        until = line.last_byte() + pause.max(if bytes.is_empty() { wait } else { pause });
    }
    Ok(answers_in(&bytes, pdu))
}

/// The answers among the bytes: frames whose check is right and whose function is the one asked for.
fn answers_in(bytes: &[u8], asked: &[u8]) -> Heard {
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
    match (answers.is_empty(), bytes.len()) {
        (false, _) => Heard::Answers(answers),
        (true, 0) => Heard::Nothing,
        (true, bytes) => Heard::Noise(bytes),
    }
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

    fn frame(unit: u8, pdu: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        rtu::encode(unit, pdu, &mut out);
        out
    }

    #[test]
    fn a_value_a_refusal_and_a_late_answer_are_heard_and_other_functions_are_not() {
        assert_eq!(answers_in(&frame(7, &[3, 2, 0, 1]), &HOLDING_0).of(7), Some(&[3, 2, 0, 1][..]));
        assert_eq!(answers_in(&frame(7, &[0x83, 2]), &HOLDING_0).of(7), Some(&[0x83, 2][..]));
        assert_eq!(answers_in(&frame(7, &[4, 2, 0, 1]), &HOLDING_0).of(7), Some(&[4, 2, 0, 1][..]), "a late one");
        assert_eq!(answers_in(&frame(7, &[1, 1, 0]), &HOLDING_0), Heard::Noise(6));
        assert_eq!(answers_in(&frame(7, &[3, 4, 0, 1, 0, 2]), &HOLDING_0), Heard::Noise(9));
        assert_eq!(answers_in(&[], &HOLDING_0), Heard::Nothing);
        let both = [vec![0xFF], frame(6, &[3, 2, 0, 1]), frame(7, &[3, 2, 0, 2])].concat();
        let Heard::Answers(answers) = answers_in(&both, &HOLDING_0) else { panic!() };
        assert_eq!(answers.iter().map(|(unit, _)| *unit).collect::<Vec<_>>(), [6, 7]);
    }

    #[test]
    fn an_absent_meter_behind_a_gateway_is_none() {
        assert!(is_gateways(&[0x83, 11], true) && !is_gateways(&[0x83, 11], false) && !is_gateways(&[0x83, 2], true));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = answers_in(&bytes, &HOLDING_0);
            let _ = answers_in(&bytes, &IDENTIFICATION);
        }

        #[test]
        fn after_noise_the_answer_is_found(noise in prop::collection::vec(any::<u8>(), 0..60)) {
            let bytes = [noise, frame(9, &[3, 2, 1, 2])].concat();
            prop_assert!(matches!(answers_in(&bytes, &HOLDING_0), Heard::Answers(a) if !a.is_empty()));
        }
    }
}
