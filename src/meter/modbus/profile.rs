//! Register maps: those that come with weir, and files.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::map::twice;
use super::plan::Limits;
use super::point::{Point, points_of};
use crate::meter::RegisterSettings;
use crate::os::file;
use crate::setting::{Count, Node, Problems, Setting};
use crate::settings;

/// The profile that is found in the device.
pub(super) const SUNSPEC: &str = "sunspec";

/// Rows of the table below: the file's name is the profile's.
macro_rules! profiles {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("../../../meters/", $name, ".toml")))),*] };
}

/// The register maps that come with weir. To add one: write `meters/<name>.toml`, add a row.
const PROFILES: &[(&str, &str)] = profiles![
    "abb-b23",
    "carlo-gavazzi-em24",
    "carlo-gavazzi-em340",
    "chint-dtsu666",
    "eastron-sdm120",
    "eastron-sdm230",
    "eastron-sdm630",
    "eastron-sdm72d-m-v2",
    "finder-7m24",
    "inepro-pro380",
    "janitza-umg96rm",
    "orno-we-516",
    "schneider-iem3000",
    "schneider-pm5000",
    "siemens-pac2200",
    "siemens-pac3200",
    "socomec-countis-e",
];

const LARGEST_PROFILE: u64 = 256 * 1024;

settings! {
    /// A register map, `meters/<name>.toml`.
    pub struct ProfileSettings {
        /// What the meter is called.
        pub title: String,
        /// Where the map comes from.
        pub source: String,
        /// The most registers that one request may ask this meter for.
        pub max_registers: Count<1, 125> = 125,
        /// How many registers without a value here may be read along, because this meter answers them.
        pub max_gap: Count<0, 124> = 0,
        /// Its registers.
        pub register: Vec<RegisterSettings>,
    }
}

/// A register map, read.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) points: Vec<Point>,
    pub(super) limits: Limits,
}

/// The profiles there are, for a person.
pub(super) fn known() -> String {
    let names = PROFILES.iter().map(|(name, _)| *name).chain([SUNSPEC]);
    names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// Reads a profile by name, or by path when it looks like one.
pub(super) fn load(name: &str) -> Result<Profile, String> {
    let path = Path::new(name);
    if name.contains('/') || path.extension().is_some_and(|e| e == "toml") {
        let bytes = file::read_small(path, LARGEST_PROFILE)
            .map_err(|e| format!("cannot read the register map {name}: {e}; check the path and its permissions"))?;
        let text = String::from_utf8(bytes).map_err(|_| format!("the register map {name} is not UTF-8 text"))?;
        return parse(name, &text);
    }
    match PROFILES.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => parse(name, text),
        None => Err(format!("profile \"{name}\" is not known; write one of {}, or the path of a file", known())),
    }
}

fn parse(name: &str, text: &str) -> Result<Profile, String> {
    let mut problems = Problems::new();
    let settings: Option<ProfileSettings> = read(text, &mut problems);
    let points = settings.as_ref().map(|profile| points_of(&profile.register, &mut problems)).unwrap_or_default();
    if let Some(name) = twice(&points) {
        problems.error(0..0, format!("two registers are named \"{name}\"; rename one"));
    }
    match settings {
        Some(settings) if !problems.has_errors() => {
            let short = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
            let (registers, gap) = (short(settings.max_registers.value()), short(settings.max_gap.value()));
            Ok(Profile { points, limits: Limits { registers, gap } })
        }
        _ => Err(mistakes(name, text, problems)),
    }
}

/// Reads a table of TOML from a text.
pub(super) fn read<T: Setting>(text: &str, problems: &mut Problems) -> Option<T> {
    match DeTable::parse(text) {
        Ok(document) => {
            let span = document.span();
            let value = DeValue::Table(document.into_inner());
            T::read(&Node::new(&value, span, ""), problems)
        }
        Err(error) => {
            problems.syntax(error.span(), error.message());
            None
        }
    }
}

/// The mistakes of a file in one sentence.
pub(super) fn mistakes(name: &str, text: &str, problems: Problems) -> String {
    let told = problems.located(text).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    format!("the register map {name} has mistakes: {told}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::meter::modbus::plan;

    /// Every unit that a map may use: a typing mistake must not become a unit of its own.
    const UNITS: &[&str] = &[
        "", "V", "A", "W", "kW", "var", "kvar", "VA", "kVA", "Hz", "Wh", "kWh", "varh", "kvarh", "VAh", "kVAh", "°",
        "°C", "%", "s", "h",
    ];

    #[test]
    fn every_profile_that_comes_with_weir_is_sound_and_names_its_source() {
        for (name, text) in PROFILES {
            let profile = parse(name, text).unwrap();
            assert!(profile.points.len() >= 10, "{name}");
            let settings: ProfileSettings = read(text, &mut Problems::new()).unwrap();
            assert!(!settings.title.is_empty() && settings.source.len() > 40, "{name}");
            for point in &profile.points {
                let sound_name = point.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
                assert!(sound_name && !point.name.is_empty(), "{name}: {}", point.name);
                assert!(UNITS.contains(&point.unit.as_str()), "{name}: {} in \"{}\"", point.name, point.unit);
                let expected = expected_units(&point.name);
                assert!(
                    expected.is_none_or(|units| units.contains(&point.unit.as_str())),
                    "{name}: {} in {}",
                    point.name,
                    point.unit
                );
            }
            let overlap = overlapping(&profile.points);
            assert_eq!(overlap, None, "{name}");
            let blocks = plan::blocks(&profile.points, profile.limits);
            assert!(blocks.iter().all(|b| b.quantity <= profile.limits.registers), "{name}");
        }
        let names: BTreeSet<_> = std::fs::read_dir("meters")
            .unwrap()
            .filter_map(|e| e.unwrap().file_name().to_string_lossy().strip_suffix(".toml").map(str::to_owned))
            .collect();
        assert_eq!(names, PROFILES.iter().map(|(name, _)| (*name).to_owned()).collect());
        assert!(PROFILES.len() >= 12);
    }

    /// What the first word of a name says about the unit.
    fn expected_units(name: &str) -> Option<&'static [&'static str]> {
        let starts = |word: &str| name.starts_with(word);
        Some(match name {
            _ if starts("voltage") => &["V", "%"],
            _ if starts("current") => &["A", "%"],
            _ if starts("power_factor") => &[""],
            _ if starts("power") => &["W", "kW"],
            _ if starts("reactive_power") => &["var", "kvar"],
            _ if starts("apparent_power") => &["VA", "kVA"],
            _ if starts("frequency") => &["Hz"],
            _ if starts("energy") => &["Wh", "kWh"],
            _ if starts("reactive_energy") => &["varh", "kvarh"],
            _ if starts("apparent_energy") => &["VAh", "kVAh"],
            _ => return None,
        })
    }

    /// Two whole values that share a register: one of the addresses is wrong.
    fn overlapping(points: &[Point]) -> Option<String> {
        let mut spans: Vec<_> = points
            .iter()
            .filter(|p| p.bits.is_none())
            .map(|p| (p.register.table, p.register.address, p.coding.registers(), &p.name))
            .collect();
        spans.sort();
        spans.windows(2).find_map(|pair| {
            let [(table, address, quantity, name), (next_table, next, _, other)] = pair else { return None };
            let meet = table == next_table && u32::from(*next) < u32::from(*address) + u32::from(*quantity);
            meet.then(|| format!("{name} and {other}"))
        })
    }

    #[test]
    fn a_map_may_say_its_own_limits() {
        let text = "title = \"t\"\nsource = \"s\"\nmax_registers = 11\nmax_gap = 3\n\
            register = [{ name = \"v\", register = \"input:0\" }]\n";
        assert_eq!(parse("x", text).unwrap().limits, Limits { registers: 11, gap: 3 });
        assert!(parse("x", &text.replace("11", "126")).is_err());
        let twice = text.replace("[{", "[{ name = \"v\", register = \"input:9\" }, {");
        assert!(parse("x", &twice).unwrap_err().contains("two registers are named"));
    }
}
