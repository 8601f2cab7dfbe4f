//! Finds M-Bus meters: by primary address (SND_NKE and REQ_UD2), and by a search of the secondary
//! addresses, which finds also those that nobody has given a primary one. Only selects and reads.

use std::time::Duration;

use tokio::time::Instant;

use super::found::tidy;
use super::{Address, Bench, Depth, Found, More, Pass, Probe, Step, Wish, Work};
use crate::meter::MeterError;
use crate::meter::mbus::{Secondary, identify, search as search_secondary};
use crate::os::line::{Endpoint, LineError, Speed};
use crate::wire::wmbus::Meter;

pub(super) const PROBE: Probe = Probe { name: NAME, protocols: &[NAME], steps, run };

/// The protocol's word.
const NAME: &str = "m-bus";
/// What every meter speaks, then what some are switched to; the standard's automatic rate is 300 to 9600.
const USUAL: &[(u32, &str)] = &[(2400, "8E1"), (9600, "8E1"), (300, "8E1")];
const RARE: &[(u32, &str)] = &[(4800, "8E1"), (1200, "8E1"), (600, "8E1"), (19_200, "8E1"), (38_400, "8E1")];
const LAST_PRIMARY: u8 = 250;
/// The primary addresses that meters get first; 0 is that of a new one.
const COMMON_LAST: u8 = 5;
/// How long a search with several meters may go on; with none it ends at once.
const SEARCH: Duration = Duration::from_mins(3);

fn steps(wish: &Wish, endpoint: &Endpoint) -> Vec<Step> {
    let mut speeds = wish.speeds(USUAL);
    let given = !wish.bauds.is_empty() || wish.framing.is_some();
    match wish.depth {
        Depth::Thorough if !given => speeds.extend(wish.speeds(RARE)),
        Depth::Quick if !given => speeds.truncate(2),
        _ => {}
    }
    if matches!(endpoint, Endpoint::Tcp(_)) {
        speeds.truncate(1);
    }
    let named = wish.numbers(LAST_PRIMARY);
    let secondary = wish.addresses.is_empty();
    if named.is_empty() && !secondary {
        return Vec::new();
    }
    let step = |speed: Speed, addresses: Vec<u8>, pass: Pass| {
        let wait = wait(speed, wish.depth);
        let requests =
            u32::try_from(addresses.len()).unwrap_or(u32::MAX) + u32::from(pass == Pass::SignOn && secondary);
        let addresses = addresses.into_iter().map(|n| Address::Number(n.into())).collect();
        let estimate = (wait + speed.time_of(17)) * requests;
        let more = if pass == Pass::SignOn && secondary { More::Secondary } else { More::Nothing };
        Step { probe: &PROBE, speed, addresses, wait, pass, more, estimate }
    };
    let first = |speed: &Speed| {
        step(*speed, if named.is_empty() { (0..=COMMON_LAST).collect() } else { named.clone() }, Pass::SignOn)
    };
    let mut all: Vec<Step> = speeds.iter().map(first).collect();
    if secondary && wish.depth == Depth::Thorough {
        all.extend(speeds.iter().map(|speed| step(*speed, (COMMON_LAST + 1..=LAST_PRIMARY).collect(), Pass::Sweep)));
    }
    all
}

/// The longest a meter takes (EN 13757-2, clause 5.5.1): 330 bit times and 50 ms; and the adapter.
fn wait(speed: Speed, depth: Depth) -> Duration {
    let standard = Duration::from_millis(330_000 / u64::from(speed.baud.max(1)) + 50);
    standard + Duration::from_millis(if depth == Depth::Thorough { 300 } else { 80 })
}

fn run<'a>(step: &'a Step, bench: &'a mut Bench<'_>) -> Work<'a> {
    Box::pin(search(step, bench))
}

async fn search(step: &Step, bench: &mut Bench<'_>) -> Result<(), LineError> {
    bench.line.set_speed(step.speed)?;
    let whole = step.addresses.len() + 1;
    let what = format!("{NAME} {} {}", step.speed.baud, step.speed.framing);
    for (number, address) in step.addresses.iter().enumerate() {
        let Address::Number(primary) = address else { continue };
        let Ok(primary) = u8::try_from(*primary) else { continue };
        bench.progress(number, whole, format!("{what} address {primary}"));
        if bench.knows(NAME, address, step.speed) {
            continue;
        }
        let asked = Instant::now();
        if let Some(meter) = line_only(identify(&mut bench.line, step.wait, primary).await)?.flatten() {
            let mut found = Found::new(NAME, step.speed, Some(address.clone()), asked.elapsed());
            describe(&mut found, &meter);
            // A new meter has the address 0, as any other new one; its secondary one is its own.
            if primary == 0 {
                found.address = Some(Address::Text(secondary(&meter)));
                found
                    .notes
                    .push("has the primary address 0 of a new meter; it is asked by its secondary address".to_owned());
            }
            // A meter that finds out the rate by itself answers at several.
            let known = |f: &Found| f.protocol == NAME && f.who == found.who;
            if !bench.found.iter().any(known) {
                bench.add(found);
            }
        }
    }
    // Addresses that a person wished for are all that is asked.
    if step.more == More::Secondary { by_secondary(step, bench, &what).await } else { Ok(()) }
}

/// Adds the meters that have no primary address of their own.
async fn by_secondary(step: &Step, bench: &mut Bench<'_>, what: &str) -> Result<(), LineError> {
    bench.progress(step.addresses.len(), step.addresses.len() + 1, format!("{what} secondary search"));
    let began = Instant::now();
    let until = began + SEARCH * if bench.depth == Depth::Thorough { 10 } else { 1 };
    let result = search_secondary(&mut bench.line, step.wait, until, |_| {}).await;
    let Some(result) = line_only(result)? else { return Ok(()) };
    for meter in &result.meters {
        let mut found = Found::new(NAME, step.speed, Some(Address::Text(secondary(meter))), step.wait);
        describe(&mut found, meter);
        // Two makers, or two media of one, may have given out the same number.
        if !bench.found.iter().any(|f| f.protocol == NAME && f.who == found.who) {
            bench.add(found);
        }
    }
    if !result.unclear.is_empty() {
        bench.warn(format!(
            "{} M-Bus addresses give garbled answers: two meters with the same identification number, or too many for the level converter",
            result.unclear.len()
        ));
    }
    if !result.complete {
        bench.warn("the M-Bus search was not finished in its time; scan again with --thorough".to_owned());
    }
    Ok(())
}

/// Keeps failures of the line; what a meter said wrong is no meter.
fn line_only<T>(result: Result<T, MeterError>) -> Result<Option<T>, LineError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MeterError::Line(error)) if error.must_reopen() => Err(error),
        Err(_) => Ok(None),
    }
}

/// The secondary address as weir.toml writes it: identification, maker, version and medium.
fn secondary(meter: &Meter) -> String {
    let whole = Secondary::of(meter).to_string();
    // A maker's code may be no letters; then the number alone must do.
    if Secondary::parse(&whole).is_some() { whole } else { meter.number().to_uppercase() }
}

fn describe(found: &mut Found, meter: &Meter) {
    found.who.maker = tidy(meter.letters().as_bytes());
    found.who.model = meter.device_name().map(|name| format!("{name} meter"));
    found.who.version = Some(meter.version.to_string());
    found.who.serial = Some(meter.number());
}
