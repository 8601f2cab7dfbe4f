//! Finds meters that send by themselves, by listening only: P1, SML, D0 and pushes of DLMS. Whatever speed they
//! send at, their bytes show on a listening port as something; only then the speeds are tried.

use std::time::Duration;

use super::found::tidy;
use super::{Bench, Depth, Found, More, Pass, Probe, Step, Wish, Work, dlms_push};
use crate::os::line::{Endpoint, Framing, LineError, Speed};

pub(super) const PROBE: Probe =
    Probe { name: "push", protocols: &["dsmr-p1", "iec-d0", "sml", dlms_push::NAME], steps, run };

/// P1 since DSMR 4, SML and older P1, D0; HAN ports and M-Bus outputs have parity.
const SPEEDS: [(u32, &str); 7] =
    [(115_200, "8N1"), (9600, "8N1"), (2400, "8N1"), (2400, "8E1"), (300, "8N1"), (4800, "8N1"), (19_200, "8N1")];
/// A meter that sends at least every 10 s (P1 before DSMR 5) has begun again by then.
const PERIOD: Duration = Duration::from_secs(11);
/// The pause after which a telegram is over.
const PAUSE: Duration = Duration::from_millis(400);
/// What begins every SML file.
const SML_START: [u8; 8] = [0x1B, 0x1B, 0x1B, 0x1B, 1, 1, 1, 1];
/// How many bytes of something unknown are shown.
const SHOWN: usize = 16;

fn steps(wish: &Wish, _endpoint: &Endpoint) -> Vec<Step> {
    let named = wish.protocols.iter().any(|p| p == PROBE.name || PROBE.protocols.contains(&p.as_str()));
    // Addresses are for meters that are asked.
    if !named && !wish.addresses.is_empty() {
        return Vec::new();
    }
    let wait = match wish.depth {
        Depth::Quick => Duration::from_secs(3),
        Depth::Usual => PERIOD,
        Depth::Thorough => PERIOD + Duration::from_secs(5),
    };
    let baud = if named { wish.bauds.first().copied() } else { None }.unwrap_or(115_200);
    let speed = Speed { baud, framing: Framing::EIGHT_N_ONE };
    vec![Step {
        probe: &PROBE,
        speed,
        addresses: Vec::new(),
        wait,
        pass: Pass::Listen,
        more: More::Nothing,
        estimate: wait,
    }]
}

fn run<'a>(step: &'a Step, bench: &'a mut Bench<'_>) -> Work<'a> {
    Box::pin(listen(step, bench))
}

async fn listen(step: &Step, bench: &mut Bench<'_>) -> Result<(), LineError> {
    let usual = SPEEDS.iter().filter_map(|(baud, text)| Some(Speed { baud: *baud, framing: Framing::parse(text)? }));
    let others = usual.filter(|speed| *speed != step.speed);
    let mut heard: Vec<u8> = Vec::new();
    for (number, speed) in std::iter::once(step.speed).chain(others).enumerate() {
        bench.line.set_speed(speed)?;
        bench.line.discard_waiting().await?;
        bench.progress(number, SPEEDS.len() + 1, format!("listening at {} {}", speed.baud, speed.framing));
        let mut bytes = Vec::new();
        // The first may be the rest of a telegram that had begun before.
        for _ in 0..2 {
            bench.gather(&mut bytes, step.wait, PAUSE, step.wait + PERIOD).await?;
            if let Some(found) = recognise(&bytes, speed) {
                bench.add(found);
                return Ok(());
            }
            if bytes.is_empty() {
                break;
            }
        }
        if bytes.is_empty() && heard.is_empty() {
            return Ok(());
        }
        if heard.is_empty() {
            heard = bytes;
        }
        if bench.line.is_tcp() {
            break;
        }
    }
    let shown: Vec<String> = heard.iter().take(SHOWN).map(|b| format!("{b:02x}")).collect();
    bench.warn(format!(
        "{} bytes came without a question and are no known telegram ({} ...): another master may be asking on this line; stop it and scan again",
        heard.len(),
        shown.join(" ")
    ));
    Ok(())
}

/// The meter whose whole telegram is among the bytes.
fn recognise(bytes: &[u8], speed: Speed) -> Option<Found> {
    let found = |protocol| Found::new(protocol, speed, None, Duration::ZERO);
    if bytes.windows(SML_START.len()).any(|window| window == SML_START) {
        return Some(found("sml"));
    }
    let seven: Vec<u8> = bytes.iter().map(|b| b & 0x7F).collect();
    let Some((name, body, after)) = telegram(&seven) else { return dlms_push::recognise(bytes, speed) };
    let text = String::from_utf8_lossy(body);
    let is_p1 =
        text.contains("0-0:96.1.1(") || text.contains("1-3:0.2.8(") || after.first().is_some_and(u8::is_ascii_hexdigit);
    let mut meter = found(if is_p1 { "dsmr-p1" } else { "iec-d0" });
    meter.who.maker = tidy(name.get(..3)?);
    meter.who.model = tidy(name.get(4..)?);
    meter.who.serial = serial(&text, is_p1);
    if bytes.iter().any(|b| *b > 0x7F) {
        meter.notes.push("its characters carry a parity bit (7E1)".to_owned());
    }
    Some(meter)
}

/// The identification, the lines and what follows the `!` of a telegram `/XXXZ... !`.
fn telegram(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let starts = bytes.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at + 1);
    starts.into_iter().find_map(|start| {
        let rest = bytes.get(start..)?;
        let line_end = rest.iter().position(|b| matches!(b, b'\r' | b'\n'))?;
        let name = rest.get(..line_end)?;
        let letters = name.get(..3)?.iter().all(u8::is_ascii_alphabetic);
        let printable = name.iter().all(|b| b.is_ascii_graphic() || *b == b' ');
        let after = rest.get(line_end..)?;
        let end = after.windows(2).position(|pair| matches!(pair, [b'\r' | b'\n', b'!']))?;
        let body = after.get(..end)?;
        // A telegram that was lost in the middle has another beginning in it.
        (letters && printable && name.len() >= 4 && !body.contains(&b'/')).then_some(())?;
        Some((name, body, after.get(end + 2..)?))
    })
}

/// The serial number, where the kind of telegram has its place for it.
fn serial(text: &str, is_p1: bool) -> Option<String> {
    let ids: &[&str] = if is_p1 { &["0-0:96.1.1("] } else { &["C.1.0(", "0.0.0(", "0.0.0*255(", "96.1.0*255("] };
    ids.iter().find_map(|id| {
        let (_, rest) = text.split_once(id)?;
        let (value, _) = rest.split_once(')')?;
        let spelt = if is_p1 { hex_text(value) } else { None };
        spelt.or_else(|| tidy(value.as_bytes()))
    })
}

/// P1 writes its texts in hex.
fn hex_text(value: &str) -> Option<String> {
    let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(value.as_bytes()).ok()?;
    tidy(&bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPEED: Speed = Speed { baud: 9600, framing: Framing::EIGHT_N_ONE };
    const P1: &str =
        "/KFM5KAIFA-METER\r\n\r\n1-3:0.2.8(42)\r\n0-0:96.1.1(4530303236)\r\n1-0:1.8.1(000001.000*kWh)\r\n!1A2B\r\n";
    const D0: &str =
        "/ESY5Q3DA1004 V3.04\r\n\r\n1-0:0.0.0*255(0273011003684)\r\n1-0:1.8.0*255(00026107.77*kWh)\r\n!\r\n";

    #[test]
    fn each_push_is_told_apart_and_says_who_it_is() {
        let p1 = recognise(P1.as_bytes(), SPEED).unwrap();
        assert_eq!((p1.protocol, p1.who.to_string().as_str()), ("dsmr-p1", "KFM KAIFA-METER serial number E0026"));
        let d0 = recognise(D0.as_bytes(), SPEED).unwrap();
        assert_eq!((d0.protocol, d0.who.serial.as_deref()), ("iec-d0", Some("0273011003684")));
        let sml = [&[0xFF][..], &SML_START, &[0x76]].concat();
        assert_eq!(recognise(&sml, SPEED).unwrap().protocol, "sml");
        let mut parity = D0.as_bytes().to_vec();
        crate::wire::iec62056::Parity::Even.apply(&mut parity);
        assert_eq!(recognise(&parity, SPEED).unwrap().protocol, "iec-d0");
    }

    #[test]
    fn a_telegram_that_began_before_is_not_taken_and_the_next_one_is() {
        let torn = P1.split_at(40).1;
        assert!(recognise(torn.as_bytes(), SPEED).is_none());
        assert!(recognise(format!("{torn}{P1}").as_bytes(), SPEED).is_some());
        assert!(recognise(P1.split_at(80).0.as_bytes(), SPEED).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = recognise(&bytes, SPEED);
        }
    }
}
