//! What to read from a meter: its profile and its own registers, checked.

use super::plan::Limits;
use super::point::{Point, points_of};
use super::profile;
use crate::meter::{Address, MeterSettings};
use crate::setting::Problems;

/// What a meter's settings mean.
#[derive(Debug, Clone)]
pub(super) struct Map {
    pub(super) unit: u8,
    pub(super) points: Vec<Point>,
    pub(super) limits: Limits,
    /// More points are found in the device.
    pub(super) sunspec: bool,
}

/// Tells every mistake in the Modbus settings of one meter.
pub(super) fn check(settings: &MeterSettings, problems: &mut Problems) {
    read(settings, problems);
}

/// Makes the map, or gives the mistakes as one text.
pub(super) fn load(settings: &MeterSettings) -> Result<Map, String> {
    let mut problems = Problems::new();
    let map = read(settings, &mut problems);
    if !problems.has_errors() {
        return Ok(map);
    }
    Err(problems.located("").into_iter().map(|p| p.message).collect::<Vec<_>>().join("; "))
}

fn read(settings: &MeterSettings, problems: &mut Problems) -> Map {
    let mut points = Vec::new();
    let mut limits = Limits::STANDARD;
    let sunspec = settings.profile.as_ref().is_some_and(|name| **name == profile::SUNSPEC);
    if sunspec {
        // All registers of a model can be read, and a value and its exponent should come together.
        limits.gap = Limits::STANDARD.registers;
    } else if let Some(name) = &settings.profile {
        match profile::load(name) {
            Ok(profile) => {
                points.extend(profile.points);
                limits = profile.limits;
            }
            Err(sentence) => problems.error(name.span(), sentence),
        }
    }
    if let Some(most) = settings.max_registers.as_ref().and_then(|n| u16::try_from(n.value()).ok()) {
        limits.registers = most;
    }
    if let Some(gap) = settings.max_gap.as_ref().and_then(|n| u16::try_from(n.value()).ok()) {
        limits.gap = gap;
    }
    let own = points_of(&settings.register, problems);
    // The meter's own registers add to the profile and replace those of the same name.
    points.retain(|p: &Point| own.iter().all(|o| o.name != p.name));
    points.extend(own);
    if settings.profile.is_none() && settings.register.is_empty() {
        let known = profile::known();
        let message =
            format!("meter \"{}\" has no registers; give it a profile ({known}) or [[meter.register]]", *settings.name);
        problems.error(settings.name.span(), message);
    }
    if let Some(name) = twice(&points) {
        let message = format!("meter \"{}\" has two registers named \"{name}\"; rename one", *settings.name);
        problems.error(settings.name.span(), message);
    }
    Map { unit: unit(settings, problems), points, limits, sunspec }
}

/// A name that two points have.
pub(super) fn twice(points: &[Point]) -> Option<&str> {
    let mut names: Vec<&str> = points.iter().map(|p| p.name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).find_map(|pair| (pair.first() == pair.last()).then(|| pair.first().copied())).flatten()
}

fn unit(settings: &MeterSettings, problems: &mut Problems) -> u8 {
    const FIRST: u8 = 1;
    let Some(address) = &settings.address else { return FIRST };
    let tcp = *settings.protocol == super::TCP.name;
    // Behind Modbus TCP, 0 and 255 mean "the device itself".
    let allowed = |unit: u8| (1..=247).contains(&unit) || (tcp && matches!(unit, 0 | 255));
    match &**address {
        Address::Number(number) => match u8::try_from(*number).ok().filter(|n| allowed(*n)) {
            Some(unit) => unit,
            None => {
                let message = format!("address is {number}, but a Modbus unit must be from 1 to 247");
                problems.error(address.span(), message);
                FIRST
            }
        },
        Address::Text(text) => {
            let message = format!("address is \"{text}\", but a Modbus unit is a number from 1 to 247 without quotes");
            problems.error(address.span(), message);
            FIRST
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use toml::de::{DeTable, DeValue};

    use super::*;
    use crate::setting::{Node, Setting};

    /// Reads one meter as it stands in weir.toml.
    pub(in crate::meter) fn meter(text: &str) -> (Option<MeterSettings>, Problems) {
        let document = DeTable::parse(text).unwrap();
        let value = DeValue::Table(document.get_ref().clone());
        let mut problems = Problems::new();
        let settings = MeterSettings::read(&Node::new(&value, 0..0, "meter"), &mut problems);
        (settings, problems)
    }

    fn mistakes(text: &str) -> Vec<String> {
        let (settings, mut problems) = meter(text);
        crate::meter::check(&settings.unwrap(), &mut problems);
        problems.located(text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_mistakes_of_a_meter_are_told_at_once_with_their_places() {
        let told = mistakes(
            "name = \"m\"\nport = \"p\"\nprotocol = \"modbus-rtu\"\naddress = 248\nprofile = \"eastron-sdm999\"\n\
             [[register]]\nname = \"a\"\nregister = \"inptu:0\"\ntype = \"f16\"\n\
             [[register]]\nname = \"b\"\nregister = \"coil:1\"\n\
             [[register]]\nname = \"c\"\nregister = \"input:65535\"\ntype = \"f32\"\n",
        );
        let starts = ["4:11", "5:11", "8:12", "9:8", "12:12", "15:12"];
        assert_eq!(told.len(), starts.len(), "{told:#?}");
        for (message, start) in told.iter().zip(starts) {
            assert!(message.starts_with(start), "{message} at {start}");
        }
        assert!(told[0].contains("from 1 to 247") && told[1].contains("eastron-sdm630"), "{told:#?}");
    }

    #[test]
    fn unknown_protocols_empty_maps_and_names_used_twice_are_told() {
        assert!(mistakes("name = \"m\"\nport = \"p\"\nprotocol = \"modbus\"\n")[0].contains("modbus-rtu"));
        assert!(mistakes("name = \"m\"\nport = \"p\"\nprotocol = \"modbus-tcp\"\n")[0].contains("no registers"));
        let twice = "name = \"m\"\nport = \"p\"\nprotocol = \"modbus-tcp\"\naddress = 255\n\
            register = [{ name = \"a\", register = \"input:0\" }, { name = \"a\", register = \"input:1\" }]\n";
        assert!(mistakes(twice)[0].contains("two registers named \"a\""));
        let replaced = "name = \"m\"\nport = \"p\"\nprotocol = \"modbus-rtu\"\nprofile = \"eastron-sdm120\"\n\
            register = [{ name = \"voltage\", register = \"holding:7\" }]\n";
        assert_eq!(mistakes(replaced), Vec::<String>::new(), "a register of one's own replaces the profile's");
        let zero = "name = \"m\"\nport = \"p\"\nprotocol = \"modbus-rtu\"\nprofile = \"eastron-sdm120\"\n\
            timeout = \"0s\"\nevery = \"0s\"\n";
        assert_eq!(mistakes(zero).len(), 2);
    }

    #[test]
    fn mistakes_in_bits_exponents_and_names_are_told_with_their_places() {
        let told = mistakes(
            "name = \"m\"\nport = \"p\"\nprotocol = \"modbus-ascii\"\n\
             [[register]]\nname = \"a\"\nregister = \"input:0\"\nbits = \"9..16\"\n\
             [[register]]\nname = \"b\"\nregister = \"input:1\"\nexponent = \"holding:2\"\n\
             [[register]]\nname = \"c\"\nregister = \"input:2\"\nunavailable = [\"0xZZ\"]\n\
             [[register]]\nname = \"d\"\nregister = \"input:3\"\nscale = 2\nnames = { 0 = \"off\" }\n",
        );
        assert_eq!(told.len(), 4, "{told:#?}");
        for (message, start) in told.iter().zip(["7:8", "11:12", "15:16", "17:8"]) {
            assert!(message.starts_with(start), "{message} at {start}");
        }
        let iec = "name = \"m\"\nport = \"p\"\nprotocol = \"iec62056-21\"\nmax_registers = 5\n";
        assert!(mistakes(iec)[0].contains("max_registers is for Modbus"));
        let modbus =
            "name = \"m\"\nport = \"p\"\nprotocol = \"modbus-tcp\"\nprofile = \"sunspec\"\nvalues = [\"1.8.0\"]\n";
        assert!(mistakes(modbus)[0].contains("write a profile or [[meter.register]]"));
    }

    #[test]
    fn a_profile_can_be_a_file_and_its_mistakes_are_told_with_their_places() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.toml");
        let text =
            "title = \"t\"\nsource = \"s\"\n[[register]]\nname = \"v\"\nregister = \"input:0\"\ntype = \"f32\"\n";
        std::fs::write(&path, text).unwrap();
        assert_eq!(profile::load(path.to_str().unwrap()).unwrap().points.len(), 1);
        std::fs::write(&path, text.replace("input:0", "input")).unwrap();
        assert!(profile::load(path.to_str().unwrap()).unwrap_err().contains("5:12"));
        assert!(profile::load("/nowhere/x.toml").unwrap_err().contains("cannot read"));
    }
}
