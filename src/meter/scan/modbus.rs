//! Finds Modbus meters: asks every unit for one register. An answer that fits the question is a
//! meter, be it a value or a refusal; only reading functions are sent.

use std::time::Duration;

use tokio::time::Instant;

use super::{Address, Bench, Depth, Found, More, Pass, Probe, Step, Wish, Work, identify};
use crate::meter::modbus::Framing;
use crate::os::line::{Endpoint, Line, LineError, Speed};
use crate::wire::modbus::ascii;

mod ask;

pub(super) use ask::{Heard, ask};

pub(super) const RTU: Probe = Probe { name: ON_LINE, protocols: &[ON_LINE], steps: rtu_steps, run };

pub(super) const ASCII: Probe = Probe { name: IN_HEX, protocols: &[IN_HEX], steps: ascii_steps, run };

pub(super) const TCP: Probe = Probe { name: OVER_TCP, protocols: &[OVER_TCP], steps: tcp_steps, run };

const ON_LINE: &str = "modbus-rtu";
const IN_HEX: &str = "modbus-ascii";
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
/// ASCII meters come with seven bits, as the standard has it, or with eight.
const USUAL_ASCII: &[(u32, &str)] =
    &[(9600, "7E1"), (9600, "8N1"), (19_200, "7E1"), (19_200, "8N1"), (4800, "7E1"), (2400, "7E1"), (38_400, "7E1")];
/// What only a thorough scan tries.
const RARE_ASCII: &[(u32, &str)] =
    &[(4800, "8N1"), (2400, "8N1"), (38_400, "8N1"), (1200, "7E1"), (9600, "7O1"), (115_200, "8N1"), (57_600, "7E1")];
/// Why a meter may answer at a second speed, where it is not shown again.
const SPEEDLESS: &str = "the same meters answer at several speeds: this port has no speed of its own (USB, pseudo-terminal), else two meters of one make have the same address; each is shown at the first";
/// How many of the usual speeds a quick scan tries, and at how many every unit is asked.
const FIRST_SPEEDS: usize = 4;

const LAST_UNIT: u8 = 247;
/// The units that meters are delivered with or first get.
const COMMON_UNITS: u8 = 16;

/// What a question for one register and its answer take on the line, in characters.
const QUESTION: usize = 8;
/// The second, patient wait after something garbled.
const PATIENT: Duration = Duration::from_secs(1);
/// Read holding register 0.
pub(super) const HOLDING_0: [u8; 5] = [3, 0, 0, 0, 1];
/// Read input register 0.
const INPUT_0: [u8; 5] = [4, 0, 0, 0, 1];
/// So many units in a row that answer make it likely that the device does not look at the unit.
const ANY_UNIT: usize = 8;
/// So many units without any answer make it likely that a TCP server is none of Modbus TCP.
const STRANGER: usize = 20;

fn rtu_steps(wish: &Wish, endpoint: &Endpoint) -> Vec<Step> {
    let swept = if wish.depth == Depth::Usual && !wish.has_speed() { FIRST_SPEEDS } else { usize::MAX };
    line_steps(&RTU, wish, endpoint, swept)
}

/// ASCII is rare: all units are asked only where one answered, or where a person asks for it by name.
fn ascii_steps(wish: &Wish, endpoint: &Endpoint) -> Vec<Step> {
    let named = wish.protocols.iter().any(|protocol| protocol == IN_HEX);
    line_steps(&ASCII, wish, endpoint, if named { usize::MAX } else { 0 })
}

/// Steps on a line; every unit is asked at the first `swept` speeds.
fn line_steps(probe: &'static Probe, wish: &Wish, endpoint: &Endpoint, swept: usize) -> Vec<Step> {
    let (usual, rare) = if probe.name == IN_HEX { (USUAL_ASCII, RARE_ASCII) } else { (USUAL, RARE) };
    let question = if probe.name == IN_HEX { ascii::length(QUESTION - 3) } else { QUESTION };
    let wait = |usual: u64| match wish.depth {
        // The second question's wait hears a late answer to the first.
        Depth::Thorough => Duration::from_millis(450),
        Depth::Quick | Depth::Usual => Duration::from_millis(usual),
    };
    let step = |speed: Speed, units: Vec<u8>, wait: Duration, pass: Pass| {
        let each = wait + speed.time_of(2 * question + 7) + Duration::from_millis(3);
        let count = u32::try_from(units.len()).unwrap_or(u32::MAX);
        let questions = if wish.depth == Depth::Thorough { 2 } else { 1 };
        let addresses = units.into_iter().map(|unit| Address::Number(unit.into())).collect();
        Step { probe, speed, addresses, wait, pass, more: More::Nothing, estimate: each * count * questions }
    };
    let mut speeds = wish.speeds(usual);
    if wish.depth == Depth::Thorough && !wish.has_speed() {
        speeds.extend(wish.speeds(rare));
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
    if wish.depth == Depth::Quick && !wish.has_speed() {
        speeds.truncate(FIRST_SPEEDS);
    }
    let common = |speed: &Speed| step(*speed, (1..=COMMON_UNITS).chain([LAST_UNIT]).collect(), wait(250), Pass::Common);
    let rest = |speed: &Speed| step(*speed, (COMMON_UNITS + 1..LAST_UNIT).collect(), wait(150), Pass::Sweep);
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
        Step { probe: &TCP, speed, addresses, wait, pass, more: More::Nothing, estimate }
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

fn run<'a>(step: &'a Step, bench: &'a mut Bench<'_>) -> Work<'a> {
    Box::pin(search(step, bench))
}

async fn search(step: &Step, bench: &mut Bench<'_>) -> Result<(), LineError> {
    let tcp = step.probe.name == OVER_TCP;
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

/// How the step's protocol frames.
fn framing(step: &Step) -> Framing {
    match step.probe.name {
        IN_HEX => Framing::Ascii,
        OVER_TCP => Framing::Tcp,
        _ => Framing::Rtu,
    }
}

/// Whether it asks all units at a speed that is worth it only where a meter answered, and none did.
pub(super) fn is_for_nothing(step: &Step, bench: &Bench<'_>) -> bool {
    let heard = || bench.found.iter().any(|f| f.protocol == step.probe.name && f.speed == step.speed);
    step.pass == Pass::Sweep && step.estimate.is_zero() && !heard()
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
    let framing = framing(step);
    let tcp = framing == Framing::Tcp;
    let asked = Instant::now();
    let mut heard = ask(&mut bench.line, framing, unit, &HOLDING_0, step.wait).await?;
    if let Heard::Noise(bytes) = heard {
        // Perhaps the late answer of the unit before ran into this question.
        bench.line.wait_for_silence(ask::PIECES * 2, PATIENT).await?;
        heard = ask(&mut bench.line, framing, unit, &HOLDING_0, PATIENT).await?;
        if let Heard::Noise(again) = heard {
            bench.warn(format!(
                "garbled answers at {} {} unit {unit} ({bytes} and {again} bytes): two meters with this address, a second master, or missing termination",
                step.speed.baud, step.speed.framing
            ));
        }
    }
    if heard == Heard::Nothing && bench.depth == Depth::Thorough {
        heard = ask(&mut bench.line, framing, unit, &INPUT_0, step.wait).await?;
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
            found.register = register_of(&mut bench.line, framing, from, &pdu).await?;
            identify::modbus(&mut bench.line, framing, from, &mut found).await
        };
        let asked = asked.await;
        // A server that hangs up on a question is a meter all the same.
        if bench.has_elsewhere(&found) {
            bench.warn(SPEEDLESS.to_owned());
        } else {
            bench.add(found);
        }
        asked?;
    }
    Ok(true)
}

/// Whether a gateway says that there is nobody behind it: exceptions 10 and 11; some say 4.
fn is_gateways(pdu: &[u8], tcp: bool) -> bool {
    tcp && matches!(pdu, [function, 4 | 10 | 11] if function & 0x80 != 0)
}

/// A register that can be read, by the answer to the question for holding register 0.
async fn register_of(line: &mut Line, framing: Framing, unit: u8, pdu: &[u8]) -> Result<Option<String>, LineError> {
    match pdu.first() {
        Some(3) => return Ok(Some("holding:0".to_owned())),
        Some(4) => return Ok(Some("input:0".to_owned())),
        _ => {}
    }
    let heard = ask(line, framing, unit, &INPUT_0, PATIENT).await?;
    Ok(heard.of(unit).filter(|pdu| pdu.first() == Some(&4)).map(|_| "input:0".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_meter_behind_a_gateway_is_none() {
        assert!(is_gateways(&[0x83, 11], true) && !is_gateways(&[0x83, 11], false) && !is_gateways(&[0x83, 2], true));
    }
}
