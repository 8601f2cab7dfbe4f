//! One meter: who it is, what it says, how fast and how reliably.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::sheet::Check;
use crate::cli::table::count;
use crate::meter::bus::{self, Meter, Port};
use crate::meter::scan::{self, Depth, Event, Who, Wish};
use crate::meter::{MeterError, MeterSettings, Protocol, listen, protocol};
use crate::model::Value;
use crate::os::line::Speed;
use crate::setting::Count;

/// Who a meter is may take so long.
const IDENTIFY: Duration = Duration::from_secs(60);

/// How long a meter that sends by itself is waited for: DSMR 2.2 to 4 send each ten seconds, and without a
/// checksum only the second message counts.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the readings came to.
#[derive(Debug, Default)]
struct Tally {
    answered: u32,
    silent: u32,
    damaged: u32,
    refused: u32,
    retries: u32,
    took: Vec<Duration>,
    values: Vec<Value>,
    last_error: String,
    broken: bool,
}

/// Reads a meter `rounds` times over its port; what its session must remember stands in `kept`.
pub(super) async fn check(settings: &MeterSettings, port: Option<&Port>, rounds: u32, kept: &Path) -> Check {
    let subject = format!("meter {}", *settings.name);
    let Some(port) = port else {
        let told = format!("not read: port {} can't be opened", *settings.port);
        return Check::fail(subject, told, "do first what the port's line says", json!({}));
    };
    if protocol(&settings.protocol).is_some_and(Protocol::listens) {
        return heard(subject, settings, port).await;
    }
    // Repeated here, so that repetitions are counted.
    let once = MeterSettings { retries: Count::clamped(0), ..settings.clone() };
    let mut meter = match Meter::new(&once) {
        Ok(meter) => meter.kept_in(kept),
        Err(reason) => return Check::fail(subject, reason, "correct the configuration (weir check)", json!({})),
    };
    let who = identify(settings, port).await.filter(|who| !who.is_nobody());
    let mut tally = Tally::default();
    for _ in 0..rounds {
        round(&mut tally, port, &mut meter, settings.retries.value()).await;
        if tally.broken {
            break;
        }
    }
    judge(subject, settings, &tally, who.as_ref(), rounds)
}

/// A meter that sends by itself is only listened to, for one message that is right.
async fn heard(subject: String, settings: &MeterSettings, port: &Port) -> Check {
    let detail = |values: usize, took: Duration| {
        json!({ "protocol": settings.protocol.as_str(), "port": settings.port.as_str(), "baud": port.speed.baud,
                "values": values, "heard_after_ms": took.as_millis() })
    };
    let mut meter = match listen::Meter::new(settings) {
        Ok(meter) => meter,
        Err(reason) => {
            return Check::fail(subject, reason, "correct the configuration (weir check)", detail(0, Duration::ZERO));
        }
    };
    let began = Instant::now();
    let message = listen::read_once(port, &mut meter, PATIENCE).await;
    let (baud, protocol, took) = (port.speed.baud, &*settings.protocol, began.elapsed());
    let values = match message {
        Ok(values) => values,
        Err(error) => {
            let told = format!("no {protocol} message was right at {baud} within {} s: {error}", PATIENCE.as_secs());
            let todo = format!(
                "check the cable and the meter's customer interface (PIN, request line); weir scan {} listens at all speeds",
                *settings.port
            );
            return Check::fail(subject, told, todo, detail(0, took));
        }
    };
    let who = identify(settings, port).await.filter(|who| !who.is_nobody());
    let name = who.map_or_else(|| "make unknown".to_owned(), |who| who.to_string());
    let told =
        format!("{name}; {protocol} heard at {baud} after {} ms, {}", took.as_millis(), count(values.len(), "value"));
    let bad = values.iter().find(|v| v.quality.is_fault());
    let mut check = match bad {
        None => Check::pass(subject, told, detail(values.len(), took)),
        Some(first) => {
            let todo = format!("\"{}\" is {}: correct values in its [[meter]]", first.name, first.quality.word());
            Check::fail(subject, told, todo, detail(values.len(), took))
        }
    };
    check.values = values;
    check
}

/// One reading with its repetitions.
async fn round(tally: &mut Tally, port: &Port, meter: &mut Meter, retries: u32) {
    for attempt in 0..=retries {
        tally.retries += u32::from(attempt > 0);
        let began = Instant::now();
        match bus::read_once(port, meter).await {
            Ok(values) => {
                tally.answered += 1;
                tally.took.push(began.elapsed());
                tally.values = values;
                return;
            }
            Err(error) => {
                match &error {
                    MeterError::Line(line) if line.must_reopen() => tally.broken = true,
                    MeterError::Line(_) => tally.silent += 1,
                    MeterError::Refused(_) => tally.refused += 1,
                    _ => tally.damaged += 1,
                }
                tally.last_error = error.to_string();
                if tally.broken {
                    return;
                }
            }
        }
    }
}

fn judge(subject: String, settings: &MeterSettings, tally: &Tally, who: Option<&Who>, rounds: u32) -> Check {
    let bad: Vec<&Value> = tally.values.iter().filter(|v| v.quality.is_fault()).collect();
    let mut took = tally.took.clone();
    took.sort_unstable();
    let middle = took.get(took.len() / 2).copied().unwrap_or_default().as_millis();
    let longest = took.last().copied().unwrap_or_default().as_millis();
    let detail = json!({
        "protocol": settings.protocol.as_str(), "port": settings.port.as_str(),
        "address": settings.address.as_ref().map(|a| a.to_string()),
        "maker": who.and_then(|w| w.maker.as_ref()), "model": who.and_then(|w| w.model.as_ref()),
        "version": who.and_then(|w| w.version.as_ref()), "serial": who.and_then(|w| w.serial.as_ref()),
        "readings": rounds, "answered": tally.answered, "silent": tally.silent, "damaged": tally.damaged,
        "refused": tally.refused, "retries": tally.retries, "read_ms": middle, "longest_ms": longest,
    });
    let name = who.map_or_else(|| "make unknown".to_owned(), Who::to_string);
    let told = format!(
        "{name}; {} of {}, {}, {} retries, {} damaged answers, read in {middle} ms (at most {longest} ms)",
        tally.answered,
        count(usize::try_from(rounds).unwrap_or(0), "reading"),
        count(tally.values.len(), "value"),
        tally.retries,
        tally.damaged
    );
    let mut check = if tally.answered == 0 {
        let known = who.map_or_else(String::new, |who| format!("{who}; "));
        let told = format!("{known}no reading of {rounds}: {}", tally.last_error);
        Check::fail(subject, told, advice(settings, tally), detail)
    } else if let Some(first) = bad.first() {
        let told = format!("{told}; {} without a value", bad.len());
        let todo =
            format!("\"{}\" is {}: correct the profile or the registers, or drop it", first.name, first.quality.word());
        Check::fail(subject, told, todo, detail)
    } else if tally.damaged > 0 || tally.answered < rounds {
        Check::fail(subject, told, advice(settings, tally), detail)
    } else {
        Check::pass(subject, told, detail)
    };
    check.values = tally.values.clone();
    check
}

/// What to do about a meter that does not answer well.
fn advice(settings: &MeterSettings, tally: &Tally) -> String {
    if tally.damaged > 0 {
        "answers are damaged: check termination, shield and the wires A and B; look for a second meter with this address"
            .to_owned()
    } else if tally.refused > 0 {
        "the meter is there but refuses: check profile, registers or password".to_owned()
    } else {
        format!("check power, wires and address; weir scan {} finds what is there", *settings.port)
    }
}

/// Asks the meter who it is, as a scan does.
async fn identify(settings: &MeterSettings, port: &Port) -> Option<Who> {
    let address = settings.address.as_deref().cloned();
    let modbus = settings.protocol.starts_with("modbus");
    let listens = protocol(&settings.protocol).is_some_and(Protocol::listens);
    let addresses = match address {
        Some(address) => vec![address],
        None if modbus => vec![crate::meter::Address::Number(1)],
        None => Vec::new(),
    };
    let speed = Speed {
        baud: settings.baud.as_ref().map_or(port.speed.baud, |baud| baud.value()),
        framing: settings.framing.unwrap_or(port.speed.framing),
    };
    let wish = Wish {
        protocols: vec![settings.protocol.to_string()],
        bauds: vec![if *settings.protocol == "iec62056-21" { settings.sign_on_baud.value() } else { speed.baud }],
        framing: modbus.then_some(speed.framing),
        addresses,
        // A meter that sends every 10 s needs the longer wait.
        ..Wish::new(if listens { Depth::Usual } else { Depth::Quick })
    };
    let steps = scan::plan(&wish, &port.endpoint);
    let mut who = None;
    let mut tell = |event| {
        if let Event::Found(found) = event {
            who = Some(found.who);
        }
    };
    // What fails here fails again, and is told, when the meter is read.
    let _ = scan::run(&port.endpoint, port.direction, &wish, &steps, IDENTIFY, &mut tell).await;
    who
}
