//! What to read from a meter: its profile and its own registers, checked.

use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::meter::{Address, MeterSettings, RegisterSettings};
use crate::model::Decimal;
use crate::os::file;
use crate::setting::{Node, Problems, Setting};
use crate::settings;
use crate::wire::modbus::{Coding, Register};

/// The register maps that come with weir. To add one: write `meters/<name>.toml`, add a row.
const PROFILES: &[(&str, &str)] = &[
    ("eastron-sdm120", include_str!("../../../meters/eastron-sdm120.toml")),
    ("eastron-sdm630", include_str!("../../../meters/eastron-sdm630.toml")),
];

const LARGEST_PROFILE: u64 = 256 * 1024;

settings! {
    /// A register map, `meters/<name>.toml`.
    pub struct Profile {
        /// What the meter is called.
        pub title: String,
        /// Where the map comes from.
        pub source: String,
        /// Its registers.
        pub register: Vec<RegisterSettings>,
    }
}

/// One value to read.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) register: Register,
    pub(super) coding: Coding,
    pub(super) scale: Decimal,
    pub(super) offset: Decimal,
}

/// What a meter's settings mean.
#[derive(Debug, Clone)]
pub(super) struct Map {
    pub(super) unit: u8,
    pub(super) points: Vec<Point>,
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
    if let Some(name) = &settings.profile {
        match profile(name) {
            Ok(profile) => points.extend(profile),
            Err(sentence) => problems.error(name.span(), sentence),
        }
    }
    let own = points_of(&settings.register, problems);
    // The meter's own registers add to the profile and replace those of the same name.
    points.retain(|p: &Point| own.iter().all(|o| o.name != p.name));
    points.extend(own);
    if settings.profile.is_none() && settings.register.is_empty() {
        let known = known_profiles();
        let message =
            format!("meter \"{}\" has no registers; give it a profile ({known}) or [[meter.register]]", *settings.name);
        problems.error(settings.name.span(), message);
    }
    let mut names: Vec<&str> = points.iter().map(|p| p.name.as_str()).collect();
    names.sort_unstable();
    let twice =
        names.windows(2).find_map(|pair| (pair.first() == pair.last()).then(|| pair.first().copied())).flatten();
    if let Some(name) = twice {
        let message = format!("meter \"{}\" has two registers named \"{name}\"; rename one", *settings.name);
        problems.error(settings.name.span(), message);
    }
    Map { unit: unit(settings, problems), points }
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

fn points_of(registers: &[RegisterSettings], problems: &mut Problems) -> Vec<Point> {
    registers.iter().filter_map(|r| point(r, problems)).collect()
}

fn point(settings: &RegisterSettings, problems: &mut Problems) -> Option<Point> {
    let name = &*settings.name;
    let mut wrong = |span: Range<usize>, why: String| problems.error(span, format!("register \"{name}\": {why}"));
    let register = settings.register.parse::<Register>();
    if let Err(hint) = register {
        wrong(settings.register.span(), format!("register is \"{}\"; {hint}", *settings.register));
    }
    let coding = settings.r#type.parse::<Coding>();
    if let Err(hint) = coding {
        wrong(settings.r#type.span(), format!("type is \"{}\"; {hint}", *settings.r#type));
    }
    let (register, coding) = (register.ok()?, coding.ok()?);
    let mut sound = true;
    if register.table.is_bits() && !coding.is_bool() {
        let word = register.table.word();
        wrong(settings.register.span(), format!("a {word} is a single bit; write type = \"bool\""));
        sound = false;
    }
    if u32::from(register.address) + u32::from(coding.registers()) > 0x1_0000 {
        wrong(settings.register.span(), format!("{coding} from {register} reaches beyond register 65535"));
        sound = false;
    }
    if coding.is_text() && (settings.scale != Decimal::from(1u64) || settings.offset != Decimal::from(0u64)) {
        wrong(settings.r#type.span(), "a text takes no scale and no offset".to_owned());
        sound = false;
    }
    sound.then(|| Point {
        name: name.clone(),
        unit: settings.unit.clone(),
        register,
        coding,
        scale: settings.scale,
        offset: settings.offset,
    })
}

fn known_profiles() -> String {
    PROFILES.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// Reads a profile by name, or by path when it looks like one.
fn profile(name: &str) -> Result<Vec<Point>, String> {
    let path = Path::new(name);
    if name.contains('/') || path.extension().is_some_and(|e| e == "toml") {
        let bytes = file::read_small(path, LARGEST_PROFILE)
            .map_err(|e| format!("cannot read the register map {name}: {e}; check the path and its permissions"))?;
        let text = String::from_utf8(bytes).map_err(|_| format!("the register map {name} is not UTF-8 text"))?;
        return parse(name, &text);
    }
    match PROFILES.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => parse(name, text),
        None => {
            let known = known_profiles();
            Err(format!("profile \"{name}\" is not known; write one of {known}, or the path of a file"))
        }
    }
}

fn parse(name: &str, text: &str) -> Result<Vec<Point>, String> {
    let mut problems = Problems::new();
    let points = match DeTable::parse(text) {
        Err(error) => {
            problems.syntax(error.span(), error.message());
            Vec::new()
        }
        Ok(document) => {
            let value = DeValue::Table(document.get_ref().clone());
            let node = Node::new(&value, 0..0, "");
            let profile = Profile::read(&node, &mut problems);
            profile.map(|p| points_of(&p.register, &mut problems)).unwrap_or_default()
        }
    };
    if !problems.has_errors() {
        return Ok(points);
    }
    let told = problems.located(text).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Err(format!("the register map {name} has mistakes: {told}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

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
    fn every_profile_that_comes_with_weir_is_sound_and_names_its_source() {
        for (name, text) in PROFILES {
            assert!(parse(name, text).unwrap().len() >= 10, "{name}");
            assert!(text.contains("source = "), "{name}");
        }
        let names: Vec<_> = std::fs::read_dir("meters").unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.iter().filter(|n| n.to_string_lossy().ends_with(".toml")).count(), PROFILES.len());
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
    fn a_profile_can_be_a_file_and_its_mistakes_are_told_with_their_places() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.toml");
        let text =
            "title = \"t\"\nsource = \"s\"\n[[register]]\nname = \"v\"\nregister = \"input:0\"\ntype = \"f32\"\n";
        std::fs::write(&path, text).unwrap();
        assert_eq!(profile(path.to_str().unwrap()).unwrap().len(), 1);
        std::fs::write(&path, text.replace("input:0", "input")).unwrap();
        assert!(profile(path.to_str().unwrap()).unwrap_err().contains("5:12"));
        assert!(profile("/nowhere/x.toml").unwrap_err().contains("cannot read"));
    }
}
