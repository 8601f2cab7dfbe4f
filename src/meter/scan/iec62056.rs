//! Finds IEC 62056-21 meters: a sign-on without address (or with those wished for), the choice of
//! the data readout, and what the readout says about the meter. Never programming mode.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::found::tidy;
use super::{Address, Bench, Depth, Found, More, Pass, Probe, Step, Wish, Work};
use crate::meter::iec62056::character;
use crate::os::line::{Endpoint, Framing, LineError, Speed};
use crate::wire::iec62056::data::{self, Line};
use crate::wire::iec62056::{
    Decoder, Event, Identification, Message, Mode, OptionSelect, Parity, SIGN_ON_BAUD, encode,
};

pub(super) const PROBE: Probe = Probe { name: NAME, protocols: &[NAME], steps, run };

/// The protocol's word.
pub(super) const NAME: &str = "iec62056-21";

/// The longest reaction of a meter, and what an adapter may add (clause 6.4.1).
const REACTION: Duration = Duration::from_millis(1700);
/// The pause inside a message that ends it.
const PAUSE: Duration = Duration::from_millis(700);
/// The longest identification at 300 Bd, and room.
const LONGEST_NAME: Duration = Duration::from_secs(3);
/// A readout is not waited for longer.
const LONGEST_READOUT: Duration = Duration::from_secs(90);
/// What a sign-on may take besides the wait for its answer.
const SETTLING: Duration = Duration::from_millis(500);
/// Rates that ports of meters are fixed to, the commonest first.
const FIXED: &[u32] = &[9600, 4800];
/// What only a thorough scan tries besides.
const RARELY_FIXED: &[u32] = &[9600, 4800, 2400, 19_200, 1200, 600];
/// NULs that wake a battery meter: 2.2 s at 300 Bd (clause 5: 2.1 s to 2.3 s), and the pause after them.
const WAKE_UP_CHARACTERS: usize = 66;
const WAKE_UP_PAUSE: Duration = Duration::from_millis(1600);
/// What both take.
const WAKE_UP_TIME: Duration = Duration::from_millis(3900);
/// After this a meter listens for a sign-on again.
const REST: Duration = Duration::from_millis(2000);
/// So many bytes that are no identification are more than noise.
const CROWD: usize = 5;
/// Ids under which meters put the address of this protocol, and their serial number.
const ADDRESS_IDS: [&str; 4] = ["0.0.0", "C.1.0", "0.0", "C.1"];

fn steps(wish: &Wish, endpoint: &Endpoint) -> Vec<Step> {
    let named: Vec<Address> = wish.addresses.iter().filter(|address| is_ours(address, wish)).cloned().collect();
    if named.is_empty() && !wish.addresses.is_empty() {
        return Vec::new();
    }
    let alone = !named.is_empty();
    let addresses = if alone { named } else { vec![Address::Text(String::new())] };
    let step = |baud: u32, more: More, pass: Pass| {
        let speed = Speed { baud, framing: Framing::EIGHT_N_ONE };
        let once = REACTION + SETTLING + if more == More::WakeUp { WAKE_UP_TIME } else { Duration::ZERO };
        let attempts = u32::try_from(parities(wish.depth, more).len()).unwrap_or(1);
        let estimate = once * attempts * u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        Step { probe: &PROBE, speed, addresses: addresses.clone(), wait: REACTION, pass, more, estimate }
    };
    if matches!(endpoint, Endpoint::Tcp(_)) {
        // The serial server has a speed of its own.
        return vec![step(SIGN_ON_BAUD, More::Nothing, Pass::SignOn)];
    }
    let mut given = wish.bauds.clone();
    given.retain(|baud| character(*baud).is_some());
    let (first, rarer): (Vec<u32>, &[u32]) = match (wish.bauds.is_empty(), wish.depth) {
        (false, _) => (given, &[]),
        (true, Depth::Quick) => (vec![SIGN_ON_BAUD], &[]),
        (true, Depth::Usual) if alone => (vec![SIGN_ON_BAUD], &[]),
        (true, Depth::Usual) => (vec![SIGN_ON_BAUD], FIXED),
        (true, Depth::Thorough) => (vec![SIGN_ON_BAUD], RARELY_FIXED),
    };
    let wakes = wish.depth != Depth::Quick && first.contains(&SIGN_ON_BAUD);
    let mut steps: Vec<Step> = first.iter().map(|baud| step(*baud, More::Nothing, Pass::SignOn)).collect();
    steps.extend(wakes.then(|| step(SIGN_ON_BAUD, More::WakeUp, Pass::Rarer)));
    steps.extend(rarer.iter().map(|baud| step(*baud, More::Nothing, Pass::Rarer)));
    steps
}

/// How a sign-on carries parity, one attempt after the other.
const fn parities(depth: Depth, more: More) -> &'static [Parity] {
    match (depth, more) {
        // A wake-up takes its time, and the standard's parity is the likeliest.
        (Depth::Quick, _) | (_, More::WakeUp) => &[Parity::Even],
        _ => &[Parity::Even, Parity::Absent],
    }
}

/// Small numbers are units of a bus, unless nothing else is looked for.
fn is_ours(address: &Address, wish: &Wish) -> bool {
    let alone = wish.protocols.iter().all(|p| p == NAME) && !wish.protocols.is_empty();
    match address {
        Address::Number(number) => alone || *number > 255,
        Address::Text(_) => true,
    }
}

fn run<'a>(step: &'a Step, bench: &'a mut Bench<'_>) -> Work<'a> {
    Box::pin(search(step, bench))
}

async fn search(step: &Step, bench: &mut Bench<'_>) -> Result<(), LineError> {
    for (number, address) in step.addresses.iter().enumerate() {
        let text = address.to_string();
        let whom = if text.is_empty() { "any meter".to_owned() } else { format!("address {text}") };
        let how = if step.more == More::WakeUp { "wake-up and sign-on" } else { "sign-on" };
        bench.progress(number, step.addresses.len(), format!("{NAME} {} {how}, {whom}", step.speed.baud));
        if bench.found.iter().any(|f| f.protocol == NAME && f.address.as_ref() == Some(address)) {
            continue;
        }
        let mut garbled = 0;
        for parity in parities(bench.depth, step.more) {
            match sign_on(step, bench, &text, *parity).await? {
                Answer::Meter(mut found) => {
                    // The rate may have been missed on a busy machine; once more, then it stays.
                    if found.own_address.is_none()
                        && let Answer::Meter(again) = sign_on(step, bench, &text, *parity).await?
                    {
                        found = again;
                    }
                    bench.add(*found);
                    garbled = 0;
                    break;
                }
                Answer::Garbled(bytes) => garbled += bytes,
                Answer::Silence => {}
            }
        }
        if garbled >= CROWD {
            bench.warn(format!(
                "{garbled} garbled bytes came after the IEC 62056-21 sign-on of {whom}: several meters answer at once; sign on to one at a time with --addresses SERIAL1,SERIAL2"
            ));
        }
    }
    Ok(())
}

enum Answer {
    Meter(Box<Found>),
    Garbled(usize),
    Silence,
}

async fn sign_on(step: &Step, bench: &mut Bench<'_>, address: &str, parity: Parity) -> Result<Answer, LineError> {
    bench.line.set_speed(step.speed)?;
    if step.more == More::WakeUp {
        wake(bench).await?;
    }
    bench.line.discard_waiting().await?;
    let request = Message::Request { address: address.to_owned() };
    send(bench, &request, parity).await?;
    let asked = Instant::now();
    let mut decoder = Decoder::new();
    let (event, bytes) = wait_for(bench, &mut decoder, step.wait, LONGEST_NAME, |message| match message {
        Message::Identification(ident) => Some(ident),
        _ => None,
    })
    .await?;
    let Some((ident, heard)) = event else {
        return Ok(if bytes == 0 { Answer::Silence } else { Answer::Garbled(bytes) });
    };
    if ident.enhanced.contains(&'2') {
        bench.mode_e = true;
    }
    let own = (!address.is_empty()).then(|| Address::Text(address.to_owned()));
    let mut found = Found::new(NAME, step.speed, own, asked.elapsed());
    found.who.maker = tidy(ident.manufacturer.as_bytes());
    found.who.model = tidy(ident.model.as_bytes());
    if step.more == More::WakeUp {
        found.also.push("wake_up = true".to_owned());
        found.notes.push("it answers only after a wake-up: a battery meter, read it seldom".to_owned());
    }
    if step.speed.baud != SIGN_ON_BAUD {
        found.also.push(format!("sign_on_baud = {}", step.speed.baud));
        found.notes.push(format!("it signs on at {} Bd, not at 300", step.speed.baud));
    }
    decoder.expect(heard);
    bench.progress(1, 2, format!("{} readout of {}", NAME, found.who));
    match readout(bench, &mut decoder, &ident, heard).await? {
        Some(body) => describe(&mut found, &data::decode(&body)),
        None => found.notes.push(
            "it identified itself, but its values could not be read; try baud_change_delay or max_baud = 300"
                .to_owned(),
        ),
    }
    bench.line.wait_for_silence(REST, LONGEST_READOUT).await?;
    Ok(Answer::Meter(Box::new(found)))
}

/// Wakes a battery meter (clause 5): NULs for 2.2 s, then a pause.
async fn wake(bench: &mut Bench<'_>) -> Result<(), LineError> {
    bench.line.send(&[0; WAKE_UP_CHARACTERS]).await?;
    sleep(WAKE_UP_PAUSE).await;
    Ok(())
}

/// Chooses the data readout and waits for its block.
async fn readout(
    bench: &mut Bench<'_>,
    decoder: &mut Decoder,
    ident: &Identification,
    parity: Parity,
) -> Result<Option<Vec<u8>>, LineError> {
    let baud = match ident.mode() {
        Mode::B(baud) => baud,
        Mode::C(baud) => {
            // A serial server can't change its rate, and who signs on at another rate keeps to it.
            let first = bench.line.speed().baud;
            let baud = if bench.line.is_tcp() || first != SIGN_ON_BAUD { first } else { baud };
            let z = character(baud).unwrap_or('0');
            sleep(Duration::from_millis(if ident.reacts_fast() { 90 } else { 220 })).await;
            send(bench, &Message::OptionSelect(OptionSelect { protocol: '0', baud: z, mode: '0' }), parity).await?;
            baud
        }
        Mode::A | Mode::Reserved => bench.line.speed().baud,
    };
    bench.line.set_speed(Speed { baud, framing: Framing::EIGHT_N_ONE })?;
    let block = |message| if let Message::Block(body) = message { Some(body) } else { None };
    let (event, _) = wait_for(bench, decoder, REACTION, LONGEST_READOUT, block).await?;
    Ok(event.map(|(body, _)| body))
}

/// Receives until a message is wanted; also gives how many bytes came in vain.
async fn wait_for<T>(
    bench: &mut Bench<'_>,
    decoder: &mut Decoder,
    begin: Duration,
    limit: Duration,
    wanted: impl Fn(Message) -> Option<T>,
) -> Result<(Option<(T, Parity)>, usize), LineError> {
    let end = Instant::now() + limit.max(begin);
    let mut until = Instant::now() + begin;
    let mut wasted = 0;
    let mut piece = [0; 512];
    let mut ended = false;
    loop {
        while let Some(event) = decoder.next() {
            match event {
                Event::Message(message, parity) => {
                    if let Some(found) = wanted(message) {
                        return Ok((Some((found, parity)), wasted));
                    }
                }
                Event::Damaged { bytes, .. } | Event::Skipped { bytes } => wasted += bytes,
            }
        }
        if ended {
            return Ok((None, wasted));
        }
        match bench.line.receive(&mut piece, until.min(end)).await {
            Ok(count) => decoder.push(piece.get(..count).unwrap_or_default()),
            Err(LineError::Silent(_)) => {
                decoder.silence();
                ended = true;
            }
            Err(error) => return Err(error),
        }
        if Instant::now() >= end {
            decoder.silence();
            ended = true;
        }
        // The echo of our own words comes before the meter's reaction.
        let quiet = if decoder.in_message() { Instant::now() + PAUSE } else { until };
        until = until.max(quiet);
    }
}

async fn send(bench: &mut Bench<'_>, message: &Message, parity: Parity) -> Result<(), LineError> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes);
    parity.apply(&mut bytes);
    bench.line.send(&bytes).await
}

/// Takes the serial number, which is also the address, from a readout.
fn describe(found: &mut Found, lines: &[Line]) {
    let sets = || lines.iter().flatten();
    let value = |id: &str| {
        let set = sets().find(|set| set.id == id || set.id.strip_prefix("1-0:").is_some_and(|rest| rest == id))?;
        tidy(set.values.first()?.text.as_bytes())
    };
    found.who.serial = ADDRESS_IDS.iter().find_map(|id| value(id));
    found.own_address = found.who.serial.clone();
    found.notes.push(format!("its readout has {} values", sets().map(|set| set.values.len()).sum::<usize>()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_are_units_of_a_bus_unless_only_this_protocol_is_looked_for() {
        let wish = |protocols: &[&str]| Wish {
            protocols: protocols.iter().map(ToString::to_string).collect(),
            addresses: vec![Address::Number(7), Address::Number(12_345_678)],
            ..Wish::new(Depth::Usual)
        };
        let count = |wish: &Wish| steps(wish, &Endpoint::parse("/dev/x"))[0].addresses.len();
        assert_eq!(count(&wish(&[])), 1);
        assert_eq!(count(&wish(&["iec62056-21"])), 2);
    }

    #[test]
    fn a_readout_tells_the_serial_number() {
        let mut found = Found::new(NAME, Speed { baud: 300, framing: Framing::EIGHT_N_ONE }, None, PAUSE);
        describe(&mut found, &data::decode(b"1-0:0.0.0(00123456)\r\n1.8.0(1*kWh)\r\n!"));
        assert_eq!(found.own_address.as_deref(), Some("00123456"));
        assert_eq!(found.notes, ["its readout has 2 values"]);
    }
}
