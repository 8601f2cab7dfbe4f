//! Finds DLMS/COSEM meters: HDLC at the usual speeds and addresses, HDLC after a sign-on that announces mode E,
//! and over TCP the wrapper. As the public client only: a password is never sent, so no meter can lock itself.

use std::time::Duration;

use tokio::time::Instant;

use super::found::tidy;
use super::{Address, Bench, Depth, Found, More, Pass, Probe, Step, Wish, Work, iec62056};
use crate::meter::dlms::explore::{Knock, Portrait, introduce, knock};
use crate::meter::{MeterError, MeterSettings};
use crate::os::line::{Endpoint, Framing, LineError, Speed};

pub(super) const PROBE: Probe = Probe { name: NAME, protocols: &[NAME], steps, run };

/// The protocol's word.
pub(super) const NAME: &str = "dlms";

/// The speeds meters are delivered with, the commonest first.
const USUAL: &[(u32, &str)] =
    &[(9600, "8N1"), (115_200, "8N1"), (2400, "8N1"), (4800, "8N1"), (19_200, "8N1"), (38_400, "8N1")];
/// What only a thorough scan tries.
const RARE: &[(u32, &str)] = &[(57_600, "8N1"), (1200, "8N1"), (300, "8N1")];
/// Physical devices that meters are delivered with.
const COMMON: [u32; 3] = [17, 16, 1];
/// What a thorough scan tries.
const MORE: std::ops::RangeInclusive<u32> = 1..=10;
const FURTHER: std::ops::RangeInclusive<u32> = 16..=18;
/// The highest physical device that is no address of all.
const HIGHEST: u32 = 0x3FFE;
/// SNRM and UA with all their parameters.
const CONNECTION: usize = 80;
/// What a serial server may add to each way, in characters: it may send only whole frames.
const WHOLE_FRAME: usize = 140;
/// The reaction of a meter to a sign-on (IEC 62056-21, clause 6.4.1) and what an adapter adds.
const REACTION: Duration = Duration::from_millis(1700);
/// The management logical device, which every meter has.
const MANAGEMENT: u16 = 1;
/// How many further logical devices are asked who they are.
const MOST_DEVICES: usize = 8;
/// The patience with a meter that has answered.
const PATIENT: Duration = Duration::from_secs(3);

/// How a meter is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    link: &'static str,
    physical: Option<u32>,
    four_bytes: bool,
    server: u16,
}

impl Way {
    /// The settings to ask with; `None` when they are none.
    fn settings(self, timeout: Duration, retries: u32) -> Option<MeterSettings> {
        let address = self.physical.map(|number| format!("address = {number}\n")).unwrap_or_default();
        let field = if retries == 0 { ", information_field = 128" } else { "" };
        let text = format!(
            "name = \"scan\"\nport = \"scan\"\nprotocol = \"dlms\"\ntimeout = \"{}ms\"\nretries = {retries}\n{address}dlms = {{ {}{field} }}\n",
            timeout.as_millis(),
            self.keys()
        );
        MeterSettings::parse(&text).ok()
    }

    /// The keys of `[meter.dlms]`.
    fn keys(self) -> String {
        let bytes = if self.four_bytes { ", address_bytes = 4" } else { "" };
        format!("link = \"{}\", server = {}, client = 16{bytes}", self.link, self.server)
    }

    const fn has_wrapper(self) -> bool {
        matches!(self.link.as_bytes(), b"wrapper")
    }
}

fn steps(wish: &Wish, endpoint: &Endpoint) -> Vec<Step> {
    let named = wish.addresses.iter().filter_map(|address| match address {
        Address::Number(number) => Some(*number).filter(|number| *number <= HIGHEST),
        Address::Text(_) => None,
    });
    let named: Vec<Address> = named.map(Address::Number).collect();
    if named.is_empty() && !wish.addresses.is_empty() {
        return Vec::new();
    }
    let wait = match wish.depth {
        Depth::Quick => Duration::from_millis(300),
        Depth::Usual => Duration::from_millis(400),
        Depth::Thorough => Duration::from_secs(1),
    };
    let numbers: Vec<u32> = match wish.depth {
        Depth::Thorough => MORE.chain(FURTHER).collect(),
        Depth::Quick | Depth::Usual => COMMON.to_vec(),
    };
    let all = [Address::Text(String::new())].into_iter().chain(numbers.into_iter().map(Address::Number)).collect();
    let addresses = if wish.addresses.is_empty() { all } else { named };
    let tcp = matches!(endpoint, Endpoint::Tcp(_));
    let step = |speed: Speed, more: More, pass: Pass| {
        let single = more != More::Nothing;
        let addresses = if single { vec![Address::Text(String::new())] } else { addresses.clone() };
        let ways = addresses.iter().map(|address| ways(address, more, wish.depth).len()).sum::<usize>();
        let once = match more {
            More::ModeE(_) => 2 * REACTION,
            More::Wrapper => wait,
            _ => wait + speed.time_of(if tcp { CONNECTION + WHOLE_FRAME } else { CONNECTION }),
        };
        let estimate = once * u32::try_from(ways).unwrap_or(u32::MAX);
        Step { probe: &PROBE, speed, addresses, wait, pass, more, estimate }
    };
    let mut speeds = wish.speeds(USUAL);
    if wish.depth == Depth::Thorough && !wish.has_speed() {
        speeds.extend(wish.speeds(RARE));
    }
    match (tcp, wish.depth) {
        // The serial server has a speed of its own.
        (true, _) => speeds.truncate(1),
        (false, Depth::Quick) if !wish.has_speed() => speeds.truncate(2),
        _ => {}
    }
    let first = if tcp { Pass::Rarer } else { Pass::SignOn };
    let pass = |number: usize| if number == 0 || wish.has_speed() { first } else { Pass::Rarer };
    let mut steps: Vec<Step> = Vec::new();
    let slowest = Speed { baud: 300, framing: Framing::EIGHT_N_ONE };
    if tcp && wish.addresses.is_empty() {
        steps.push(step(slowest, More::Wrapper, Pass::Common));
    }
    steps.extend(speeds.iter().enumerate().map(|(number, speed)| step(*speed, More::Nothing, pass(number))));
    if wish.addresses.is_empty() && (wish.bauds.is_empty() || wish.bauds.contains(&slowest.baud)) {
        // Where sign-ons are tried anyway, one must have announced it.
        let announced = wish.wants(&iec62056::PROBE);
        steps.push(step(slowest, More::ModeE(announced), Pass::Rarer));
    }
    steps
}

/// Every way to the meter with this address: of one byte without a physical device, of two and of four with one.
fn ways(address: &Address, more: More, depth: Depth) -> Vec<Way> {
    let link = match more {
        More::Wrapper => "wrapper",
        More::ModeE(_) => "hdlc-mode-e",
        _ => "hdlc",
    };
    let way = |physical, four_bytes| Way { link, physical, four_bytes, server: MANAGEMENT };
    match address {
        Address::Number(number @ ..=0x7E) if depth == Depth::Quick => vec![way(Some(*number), false)],
        Address::Number(number @ ..=0x7E) => vec![way(Some(*number), false), way(Some(*number), true)],
        Address::Number(number) => vec![way(Some(*number), true)],
        Address::Text(_) => vec![way(None, false)],
    }
}

fn run<'a>(step: &'a Step, bench: &'a mut Bench<'_>) -> Work<'a> {
    Box::pin(search(step, bench))
}

async fn search(step: &Step, bench: &mut Bench<'_>) -> Result<(), LineError> {
    if step.more == More::ModeE(true) && !bench.mode_e {
        return Ok(());
    }
    for (number, address) in step.addresses.iter().enumerate() {
        for way in ways(address, step.more, bench.depth) {
            let whom = way.physical.map_or_else(|| "one byte".to_owned(), |n| format!("address {n}"));
            bench.progress(number, step.addresses.len(), format!("{NAME} {} {}, {whom}", step.speed.baud, way.link));
            let known = |f: &Found| f.protocol == NAME && way.physical.is_some() && f.address.as_ref() == Some(address);
            if bench.found.iter().any(known) {
                continue;
            }
            bench.line.set_speed(step.speed)?;
            if let Err(error) = one(step, bench, way).await {
                bench.survive(error).await?;
            }
        }
    }
    Ok(())
}

/// Looks for a meter in one way.
async fn one(step: &Step, bench: &mut Bench<'_>, way: Way) -> Result<(), LineError> {
    let wait = if matches!(step.more, More::ModeE(_)) { REACTION } else { step.wait };
    let (Some(brief), Some(patient)) = (way.settings(wait, 0), way.settings(PATIENT, 2)) else { return Ok(()) };
    let asked = Instant::now();
    let mut answered_in = Duration::ZERO;
    let mut refused = None;
    if !way.has_wrapper() {
        match knock(&mut bench.line, &brief).await? {
            Knock::Nobody => return Ok(()),
            Knock::Refused(why) => refused = Some(MeterError::Refused(why)),
            Knock::Open => {}
        }
        answered_in = asked.elapsed();
    }
    let said = match refused {
        Some(why) => Err(why),
        // Without a connection of its own the association is what tells whether anybody is there.
        None if way.has_wrapper() => introduce(&mut bench.line, &brief).await,
        None => introduce(&mut bench.line, &patient).await,
    };
    let mut found = Found::new(NAME, step.speed, way.physical.map(Address::Number), answered_in);
    found.also.push(format!("dlms = {{ {} }}", way.keys()));
    let broken = matches!(&said, Err(error) if error.must_reopen());
    let mut others = Vec::new();
    match said {
        Ok(portrait) => {
            others.extend(portrait.devices.iter().map(|(sap, _)| *sap).filter(|sap| *sap != MANAGEMENT));
            describe(&mut found, portrait);
        }
        Err(MeterError::Refused(why)) => refuse(&mut found, &why),
        Err(_) if way.has_wrapper() => {
            return if broken && bench.line.is_tcp() { bench.reopen().await } else { Ok(()) };
        }
        Err(error) => found.notes.push(format!("it accepted the HDLC connection, but then: {error}")),
    }
    let same = |f: &Found| f.protocol == NAME && f.who == found.who && !found.who.is_nobody();
    if bench.found.iter().any(same) {
        return Ok(());
    }
    bench.add(found);
    if broken && bench.line.is_tcp() {
        bench.reopen().await?;
    }
    further(step, bench, way, &others).await
}

/// Asks the other logical devices of a meter who they are; the meter has told that they are there.
async fn further(step: &Step, bench: &mut Bench<'_>, way: Way, servers: &[u16]) -> Result<(), LineError> {
    for server in servers.iter().take(MOST_DEVICES) {
        let way = Way { server: *server, ..way };
        let Some(settings) = way.settings(PATIENT, 2) else { continue };
        let said = introduce(&mut bench.line, &settings).await;
        let mut found = Found::new(NAME, step.speed, way.physical.map(Address::Number), Duration::ZERO);
        found.also.push(format!("dlms = {{ {} }}", way.keys()));
        match said {
            Ok(portrait) => describe(&mut found, portrait),
            Err(MeterError::Refused(why)) => refuse(&mut found, &why),
            Err(MeterError::Line(error)) if error.must_reopen() => return Err(error),
            Err(_) => {
                bench.warn(format!("a DLMS meter names a logical device {server}, which does not answer"));
                continue;
            }
        }
        bench.add(found);
    }
    Ok(())
}

/// Whether it is reached by the wrapper: such a server speaks nothing else.
pub(super) fn has_wrapper(found: &Found) -> bool {
    has_link(found, "wrapper")
}

/// Whether it is reached by a sign-on, whatever the speed of the port.
pub(super) fn signs_on(found: &Found) -> bool {
    has_link(found, "hdlc-mode-e")
}

fn has_link(found: &Found, link: &str) -> bool {
    found.protocol == NAME && found.also.iter().any(|line| line.contains(&format!("link = \"{link}\"")))
}

/// Tells that it needs somebody else.
fn refuse(found: &mut Found, why: &str) {
    let why = tidy(why.as_bytes()).unwrap_or_default();
    found.notes.push(format!(
        "it is there, but refuses the public client ({why}): it needs another dlms.client and a password or key, see its papers"
    ));
}

/// Takes what the meter says of itself.
fn describe(found: &mut Found, portrait: Portrait) {
    let tidied = |text: Option<String>| text.and_then(|text| tidy(text.as_bytes()));
    let name = tidied(portrait.name);
    found.who.maker = name
        .as_deref()
        .and_then(|n| n.get(..3))
        .filter(|l| l.chars().all(|c| c.is_ascii_uppercase()))
        .map(str::to_owned);
    found.who.version = tidied(portrait.firmware);
    let rest = name.as_deref().and_then(|n| n.get(3..)).filter(|rest| !rest.is_empty()).map(str::to_owned);
    found.who.serial = tidied(portrait.serial).or_else(|| rest.filter(|_| found.who.maker.is_some()));
    found.notes.extend(name.map(|name| format!("its logical device name is {name}")));
    if portrait.devices.len() > 1 {
        let list = portrait.devices.iter().filter_map(|(sap, name)| {
            Some(format!("{sap} {}", tidy(name.as_bytes()).unwrap_or_default()).trim_end().to_owned())
                .filter(|t| !t.is_empty())
        });
        let list = list.collect::<Vec<_>>().join(", ");
        found.notes.push(format!("behind its address are several logical devices ({list})"));
    }
    match portrait.objects {
        Some(count) => found.notes.push(format!("the public client sees {count} objects")),
        None => found.notes.push(
            "it shows the public client no list of its objects; most values need another dlms.client and a password"
                .to_owned(),
        ),
    }
    if !portrait.values.is_empty() {
        let list = portrait.values.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        found.also.push(format!("values = [{list}]"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_has_settings_that_are_right_and_show_no_password() {
        for more in [More::Nothing, More::Wrapper, More::ModeE(true)] {
            for address in [Address::Text(String::new()), Address::Number(17), Address::Number(1234)] {
                for way in ways(&address, more, Depth::Usual) {
                    if way.physical.is_some() && more != More::Nothing {
                        continue;
                    }
                    let settings = way.settings(PATIENT, 2).unwrap();
                    assert!(settings.password_file.is_none() && settings.key_file.is_none());
                    assert!(crate::meter::protocol(NAME).unwrap().session(&settings).is_ok(), "{way:?}");
                }
            }
        }
    }

    #[test]
    fn a_plan_is_bounded_and_uses_the_wrapper_over_tcp_only() {
        for (depth, most) in [(Depth::Quick, 10), (Depth::Usual, 60), (Depth::Thorough, 600)] {
            let wish = Wish { protocols: vec![NAME.into()], ..Wish::new(depth) };
            for endpoint in ["/dev/ttyS1", "tcp://127.0.0.1:4059"] {
                let endpoint = Endpoint::parse(endpoint);
                let steps = steps(&wish, &endpoint);
                let total: Duration = steps.iter().map(|step| step.estimate).sum();
                assert!(total.as_secs() <= most && !total.is_zero(), "{depth:?} {endpoint}: {total:?}");
                let wrapper = steps.iter().any(|step| step.more == More::Wrapper);
                assert_eq!(wrapper, matches!(endpoint, Endpoint::Tcp(_)));
            }
        }
    }
}
