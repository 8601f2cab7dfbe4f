//! The configuration to paste: complete `[[port]]` and `[[meter]]` tables that `weir check` accepts.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use super::{Found, dlms, iec62056};
use crate::meter::{Address, protocol};
use crate::os::line::{Endpoint, Framing, Speed};

/// Answers slower than this need a longer `timeout` than the default.
const SLOW: Duration = Duration::from_millis(600);

/// The line that was scanned, as the configuration calls it.
#[derive(Debug, Clone)]
pub struct Place {
    /// The port's name.
    pub name: String,
    /// Where it leads; `None` when the board knows it by its name.
    pub device: Option<String>,
    /// Where it led during the scan.
    pub endpoint: Endpoint,
    /// The word for who turns an RS485 transceiver around, when it is known.
    pub direction: Option<&'static str>,
    /// What the configuration has already.
    pub known: Option<Known>,
}

/// A port that is in the configuration already.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its speed there.
    pub speed: Speed,
    /// The word for who turns its transceiver around there.
    pub direction: &'static str,
    /// Its meters: name, protocol and address.
    pub meters: Vec<(String, String, Option<String>)>,
    /// The names of all meters of the file.
    pub names: Vec<String>,
}

/// What to paste, and what to think of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// TOML; what can't be used as it is stands in comments.
    pub text: String,
    /// One sentence each.
    pub warnings: Vec<String>,
    /// How many meters: one that answers two protocols is one.
    pub meters: usize,
}

/// Makes the tables for what was found at `place`.
pub fn configuration(place: &Place, found: &[Found]) -> Proposal {
    let mut warnings = conflicts(found);
    let speed = speed_of_line(found);
    let mut text = String::new();
    let meters = found.iter().filter(|one| alternative(one, found).is_none()).count();
    let count = if meters == 1 { "1 meter".to_owned() } else { format!("{meters} meters") };
    let _ = writeln!(
        text,
        "# weir scan found {count} on {}. Change the names as you like, then run: weir check",
        place.endpoint
    );
    let speed_matters = found.is_empty() || !found.iter().all(signs_on);
    port(place, speed_matters.then_some(speed), &mut text, &mut warnings);
    let mut names: BTreeSet<String> = place.known.iter().flat_map(|known| known.names.iter().cloned()).collect();
    for one in found {
        let own = meter(place, one, speed, &mut names);
        let why_not = unusable(place, one).or_else(|| alternative(one, found).map(str::to_owned));
        if let Some(why) = &why_not {
            let _ = write!(text, "\n# {why}:");
        }
        text.push('\n');
        for line in own.lines() {
            let comment = if why_not.is_some() && !line.starts_with('#') { "# " } else { "" };
            let _ = writeln!(text, "{comment}{line}");
        }
    }
    Proposal { text, warnings, meters }
}

/// Meters that can't both be read as they are.
fn conflicts(found: &[Found]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (number, one) in found.iter().enumerate() {
        let same = |other: &&Found| {
            one.address.is_some() && other.address == one.address && other.protocol == one.protocol
                // Logical devices share the address.
                && (one.protocol != dlms::NAME || other.also.first() == one.also.first())
        };
        if let (Some(other), Some(address)) = (found.iter().skip(number + 1).find(same), &one.address) {
            warnings.push(format!(
                "two {} meters have the address {address} (at {} {} and at {} {}); give one of them another",
                one.protocol, one.speed.baud, one.speed.framing, other.speed.baud, other.speed.framing
            ));
        }
    }
    let mut speeds: Vec<Speed> = Vec::new();
    for speed in found.iter().filter(|f| !signs_on(f)).map(|f| f.speed) {
        if !speeds.contains(&speed) {
            speeds.push(speed);
        }
    }
    if speeds.len() > 1 && found.iter().all(|f| f.protocol != "modbus-tcp") {
        let list = speeds.iter().map(|s| format!("{} {}", s.baud, s.framing)).collect::<Vec<_>>().join(", ");
        warnings.push(format!(
            "the meters on this line speak at several speeds ({list}); weir changes the speed for each, but meters may take what is meant for others for noise: better set them all to the same"
        ));
    }
    warnings
}

/// Meters of IEC 62056-21, and those of mode E, are asked at 300 Bd whatever the speed of the port.
fn signs_on(found: &Found) -> bool {
    found.protocol == iec62056::NAME || dlms::signs_on(found)
}

/// The speed of most meters; of the first of them when there is a tie.
fn speed_of_line(found: &[Found]) -> Speed {
    let fixed = || found.iter().filter(|f| !signs_on(f));
    let votes = |speed: Speed| fixed().filter(|f| f.speed == speed).count();
    let mut best: Option<Speed> = None;
    for speed in fixed().map(|f| f.speed) {
        if best.is_none_or(|b| votes(speed) > votes(b)) {
            best = Some(speed);
        }
    }
    let first = found.first().map(|f| f.speed);
    best.or(first).unwrap_or(Speed { baud: 9600, framing: Framing::EIGHT_N_ONE })
}

fn port(place: &Place, speed: Option<Speed>, text: &mut String, warnings: &mut Vec<String>) {
    let tcp = matches!(place.endpoint, Endpoint::Tcp(_));
    if let Some(known) = &place.known {
        let _ = writeln!(text, "# [[port]] \"{}\" is in the configuration already.", place.name);
        if let Some(word) = place.direction.filter(|word| (*word == "kernel") != (known.direction == "kernel") && !tcp)
        {
            warnings.push(format!(
                "port \"{}\" is configured with rs485 direction \"{}\", but was scanned with \"{word}\": set rs485 = {{ direction = \"{word}\" }} there",
                place.name, known.direction
            ));
        }
        if let Some(speed) = speed.filter(|speed| *speed != known.speed && !tcp) {
            warnings.push(format!(
                "port \"{}\" is configured with {} {}, but its meters answer at {} {}: set baud = {} and framing = \"{}\" there",
                place.name, known.speed.baud, known.speed.framing, speed.baud, speed.framing, speed.baud, speed.framing
            ));
        }
        return;
    }
    let _ = writeln!(text, "\n[[port]]\nname = {}", quoted(&place.name));
    if let Some(device) = &place.device {
        let _ = writeln!(text, "device = {}", quoted(device));
    }
    if !tcp {
        if let Some(speed) = speed {
            let _ = writeln!(text, "baud = {}\nframing = \"{}\"", speed.baud, speed.framing);
        }
        match place.direction {
            Some(word) => drop(writeln!(text, "rs485 = {{ direction = \"{word}\" }}")),
            None => {
                text.push_str("# rs485 = { direction = \"kernel\" }   # when the kernel must turn the transceiver\n")
            }
        }
    }
}

/// Why a meter can't be pasted as it is.
fn unusable(place: &Place, found: &Found) -> Option<String> {
    if let Some(name) = place.known.as_ref().and_then(|known| configured(known, found)) {
        return Some(format!("In the configuration already, as \"{name}\""));
    }
    if protocol(found.protocol).is_none() {
        return Some(format!("This build of weir can't read {} yet", found.protocol));
    }
    None
}

/// Why one is not proposed besides the other way to ask the same meter: a sign-on without address that announces mode E is
/// answered by the meter that then speaks DLMS. Proposed is what can be read with what is known.
fn alternative(one: &Found, all: &[Found]) -> Option<&'static str> {
    let readout = |f: &Found| f.protocol == iec62056::NAME && f.address.is_none();
    let readable = |f: &&Found| f.also.iter().any(|line| line.starts_with("values = "));
    let by_dlms = || all.iter().find(|f| dlms::signs_on(f));
    match by_dlms() {
        Some(other) if readout(one) && readable(&other) => Some(
            "The same meter, which mode E asks by DLMS: or its readout, with fewer values and without a load profile",
        ),
        Some(_) if dlms::signs_on(one) && !readable(&one) && all.iter().any(readout) => {
            Some("The same meter by DLMS, for which its papers must tell the client and the password")
        }
        _ => None,
    }
}

fn configured<'a>(known: &'a Known, found: &Found) -> Option<&'a str> {
    let address = found.address.as_ref().map(ToString::to_string);
    let own = found.own_address.as_deref();
    let same = |theirs: &Option<String>| {
        *theirs == address
            || (theirs.is_some() && theirs.as_deref() == own)
            || (theirs.is_none() && address.as_deref() == Some("1"))
    };
    let hit = known.meters.iter().find(|(_, protocol, theirs)| protocol == found.protocol && same(theirs));
    hit.map(|(name, ..)| name.as_str())
}

fn meter(place: &Place, found: &Found, line: Speed, names: &mut BTreeSet<String>) -> String {
    let mut text = String::new();
    let speed = match place.endpoint {
        Endpoint::Tcp(_) => String::new(),
        Endpoint::Device(_) => found.at().map_or_else(String::new, |speed| format!(" at {speed}")),
    };
    let answered = if found.answered_in.is_zero() {
        "heard".to_owned()
    } else {
        format!("answered in {} ms", found.answered_in.as_millis())
    };
    let _ = writeln!(text, "# {}: {answered}{speed}", found.who);
    for note in &found.notes {
        let _ = writeln!(text, "# ({note})");
    }
    let _ = writeln!(text, "[[meter]]\nname = {}\nport = {}", quoted(&name(found, names)), quoted(&place.name));
    let _ = writeln!(text, "protocol = \"{}\"", found.protocol);
    match &found.address {
        Some(Address::Number(number)) => drop(writeln!(text, "address = {number}")),
        Some(Address::Text(address)) => drop(writeln!(text, "address = {}", quoted(address))),
        None => {
            if let Some(own) = found.own_address.as_deref().filter(|own| own.chars().all(|c| c.is_ascii_alphanumeric()))
            {
                let _ = writeln!(text, "# address = {}   # needed when several meters share the line", quoted(own));
            }
        }
    }
    if !signs_on(found) && found.speed != line && matches!(place.endpoint, Endpoint::Device(_)) {
        let _ = writeln!(text, "baud = {}\nframing = \"{}\"", found.speed.baud, found.speed.framing);
    }
    for line in &found.also {
        let _ = writeln!(text, "{line}");
    }
    text.push_str("every = \"15m\"\n");
    if found.answered_in > SLOW {
        let _ = writeln!(text, "timeout = \"{}s\"", (3 * found.answered_in).as_secs().max(2));
    }
    registers(found, &mut text);
    text
}

/// A Modbus meter needs a map; without a known one it gets one register to begin with.
fn registers(found: &Found, text: &mut String) {
    if !found.protocol.starts_with("modbus") {
        return;
    }
    if let Some(profile) = &found.profile {
        let _ = writeln!(text, "profile = {}", quoted(profile));
        return;
    }
    let register = found.register.as_deref().unwrap_or("holding:0");
    text.push_str("# Its register map is not known: name one of meters/ or write your own (docs/adding-a-meter.md).\n");
    text.push_str("# profile = \"...\"\n");
    let what = if found.register.is_some() { "answers" } else { "refused register 0 of both tables" };
    let _ = writeln!(text, "[[meter.register]]   # {what}; what it means stands in the meter's manual");
    let _ = writeln!(text, "name = \"first\"\nregister = \"{register}\"\ntype = \"u16\"");
}

/// A name that nobody has: model or protocol, and the address or a number.
fn name(found: &Found, names: &mut BTreeSet<String>) -> String {
    let model: String = found.who.model.as_deref().map(slug).unwrap_or_default();
    let base = if model.is_empty() { slug(found.protocol) } else { model };
    let number = match &found.address {
        Some(address) => Some(slug(&address.to_string())),
        None => found.own_address.as_deref().map(slug),
    };
    let wished = number.filter(|n| !n.is_empty()).map_or_else(|| base.clone(), |number| format!("{base}-{number}"));
    let others = (2..).map(|n| format!("{wished}-{n}"));
    let free = std::iter::once(wished.clone()).chain(others).find(|name| !names.contains(name)).unwrap_or(wished);
    names.insert(free.clone());
    free
}

/// Small letters, digits and single dashes.
fn slug(text: &str) -> String {
    const MOST: usize = 24;
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
        if out.len() >= MOST {
            break;
        }
    }
    out.trim_end_matches('-').to_owned()
}

/// A TOML text.
fn quoted(text: &str) -> String {
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speed(baud: u32) -> Speed {
        Speed { baud, framing: Framing::EIGHT_N_ONE }
    }

    fn found(protocol: &'static str, baud: u32, unit: u32) -> Found {
        let mut found = Found::new(protocol, speed(baud), Some(Address::Number(unit)), Duration::from_millis(20));
        found.register = Some("holding:0".into());
        found
    }

    fn place(known: Option<Known>) -> Place {
        let device = "/dev/ttyS1";
        Place {
            name: "rs485-1".into(),
            device: Some(device.into()),
            endpoint: Endpoint::parse(device),
            direction: Some("kernel"),
            known,
        }
    }

    #[test]
    fn a_meter_at_another_speed_gets_its_own_and_is_warned_about() {
        let meters = [found("modbus-rtu", 9600, 1), found("modbus-rtu", 9600, 2), found("modbus-rtu", 2400, 1)];
        let proposal = configuration(&place(None), &meters);
        assert!(proposal.text.contains("baud = 9600"), "{}", proposal.text);
        let last = proposal.text.rsplit("[[meter]]").find(|part| part.contains("address = 1")).unwrap();
        assert!(last.contains("baud = 2400\nframing = \"8N1\"\nevery"), "{}", proposal.text);
        assert_eq!(proposal.warnings.len(), 2, "{:?}", proposal.warnings);
        assert!(proposal.warnings[0].contains("have the address 1") && proposal.warnings[1].contains("several speeds"));
    }

    #[test]
    fn a_meter_with_a_readout_and_mode_e_is_proposed_once_with_the_other_way_as_a_comment() {
        let readout = Found::new("iec62056-21", speed(300), None, Duration::from_millis(200));
        let mut dlms = Found::new("dlms", speed(300), None, Duration::from_millis(200));
        dlms.also.push("dlms = { link = \"hdlc-mode-e\", server = 1, client = 16 }".into());
        let proposed = |meters: &[Found]| {
            let text = configuration(&place(None), meters).text;
            let active: Vec<String> =
                text.lines().filter(|line| line.starts_with("protocol = ")).map(str::to_owned).collect();
            (active, text)
        };
        // It refuses the public client: its readout needs no papers.
        let (active, text) = proposed(&[readout.clone(), dlms.clone()]);
        assert_eq!(active, ["protocol = \"iec62056-21\""], "{text}");
        assert!(
            text.contains("found 1 meter ") && text.contains("# protocol = \"dlms\"") && text.contains("papers"),
            "{text}"
        );
        dlms.also.push("values = [\"1-0:1.8.0*255\"]".into());
        let (active, text) = proposed(&[readout.clone(), dlms.clone()]);
        assert_eq!(active, ["protocol = \"dlms\""], "{text}");
        assert!(text.contains("# protocol = \"iec62056-21\""), "{text}");
        let named = Found { address: Some(Address::Text("123".into())), ..readout };
        assert_eq!(proposed(&[named, dlms]).0.len(), 2, "one with an address of its own may be another");
    }

    #[test]
    fn what_is_configured_already_is_not_proposed_again() {
        let known = Known {
            speed: speed(19_200),
            direction: "none",
            meters: vec![("incomer".into(), "modbus-rtu".into(), None)],
            names: vec!["incomer".into(), "modbus-rtu-2".into()],
        };
        let meters = [found("modbus-rtu", 9600, 1), found("modbus-rtu", 9600, 2)];
        let proposal = configuration(&place(Some(known)), &meters);
        assert!(!proposal.text.contains("\n[[port]]"), "{}", proposal.text);
        assert!(proposal.text.contains("as \"incomer\""), "{}", proposal.text);
        assert!(proposal.text.contains("name = \"modbus-rtu-2-2\""), "{}", proposal.text);
        assert!(proposal.warnings[0].contains("set rs485 = { direction = \"kernel\" }"), "{:?}", proposal.warnings);
        assert!(proposal.warnings[1].contains("set baud = 9600"), "{:?}", proposal.warnings);
    }

    #[test]
    fn names_and_texts_from_meters_are_safe_in_toml() {
        let mut meter = found("modbus-rtu", 9600, 1);
        meter.who.model = Some("A\"B\\ [x]\nSDM".into());
        assert_eq!(name(&meter, &mut BTreeSet::new()), "a-b-x-sdm-1");
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\"");
    }
}
