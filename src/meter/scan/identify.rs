//! Asks a Modbus meter who it is: its device identification (43/14), its SunSpec block, and the
//! registers by which meters are known that have neither (meters/identify/modbus.toml).

use std::sync::OnceLock;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::found::tidy;
use super::modbus::{Heard, ask};
use super::{Found, Who};
use crate::meter::modbus::{Framing, identify};
use crate::meter::{MeterError, MeterSettings};
use crate::os::line::{Line, LineError};
use crate::setting::{At, Node, Problems, Setting};
use crate::settings;
use crate::wire::modbus::{Coding, Content, Level, Register, Table};

/// The wait for an answer of a meter that is there.
const WAIT: Duration = Duration::from_millis(600);

const FINGERPRINTS: &str = include_str!("../../../meters/identify/modbus.toml");

settings! {
    /// How meters are known that do not say who they are.
    pub struct Fingerprints {
        /// The meters.
        pub meter: Vec<Fingerprint> = [],
    }
}

settings! {
    /// A register and what it holds in one model.
    pub struct Fingerprint {
        /// The maker's name.
        pub maker: String,
        /// The model.
        pub model: String,
        /// The name of its register map, if there is one.
        pub profile: Option<String>,
        /// Which register, "holding:64514".
        pub register: At<String>,
        /// How it is coded: u16, u32 or string:N.
        pub r#type: At<String> = "u16",
        /// What it holds; a text that ends in * stands for all that begin so.
        pub is: String,
        /// Where this is known from.
        pub source: String,
    }
}

/// The fingerprints that come with weir.
fn fingerprints() -> &'static [Fingerprint] {
    static READ: OnceLock<Vec<Fingerprint>> = OnceLock::new();
    READ.get_or_init(|| read(FINGERPRINTS).unwrap_or_default())
}

fn read(text: &str) -> Result<Vec<Fingerprint>, String> {
    let mut problems = Problems::new();
    let document = DeTable::parse(text).map_err(|e| e.to_string())?;
    let value = DeValue::Table(document.get_ref().clone());
    let read = Fingerprints::read(&Node::new(&value, 0..0, ""), &mut problems);
    match read {
        Some(read) if !problems.has_errors() => Ok(read.meter),
        _ => Err(problems.located(text).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    }
}

/// Completes what is known of a meter that answered; a meter that does not say is left as it is.
pub(super) async fn modbus(line: &mut Line, framing: Framing, unit: u8, found: &mut Found) -> Result<(), LineError> {
    match identify(line, framing, unit, Level::Basic, WAIT).await {
        Ok(said) => found.who.complete(names(&said.objects)),
        Err(MeterError::Line(error)) if error.must_reopen() => return Err(error),
        // Most meters refuse, and some are silent: nothing is known then.
        Err(_) => {}
    }
    if let Some(who) = sunspec(line, framing, unit).await? {
        found.notes.push("speaks SunSpec, whose registers begin at holding:40000".to_owned());
        found.who.complete(who);
    }
    fingerprint(line, framing, unit, found).await
}

/// Vendor, product code and revision among the objects of a device identification.
fn names(objects: &[(u8, String)]) -> Who {
    let text = |id: u8| objects.iter().find(|(object, _)| *object == id).and_then(|(_, text)| tidy(text.as_bytes()));
    Who { maker: text(0), model: text(1), version: text(2), serial: None }
}

async fn words(
    line: &mut Line,
    framing: Framing,
    unit: u8,
    register: Register,
    count: u16,
) -> Result<Option<Vec<u16>>, LineError> {
    let [a, b] = register.address.to_be_bytes();
    let [c, d] = count.to_be_bytes();
    let function = register.table.read_function();
    let heard = ask(line, framing, unit, &[function, a, b, c, d], WAIT).await?;
    Ok(match (heard.of(unit), &heard) {
        (Some([f, _, data @ ..]), _) if *f == function => {
            Some(data.chunks_exact(2).map(|pair| pair.iter().fold(0, |word, b| word << 8 | u16::from(*b))).collect())
        }
        (_, Heard::Nothing | Heard::Noise(_) | Heard::Answers(_)) => None,
    })
}

/// The maker, model, version and serial number of the common model (SunSpec model 1), when the
/// registers from 40000 begin with "SunS".
async fn sunspec(line: &mut Line, framing: Framing, unit: u8) -> Result<Option<Who>, LineError> {
    const MARK: [u16; 2] = [0x5375, 0x6E53];
    let at = |address| Register { table: Table::Holding, address };
    if words(line, framing, unit, at(40_000), 2).await?.as_deref() != Some(&MARK) {
        return Ok(None);
    }
    let block = words(line, framing, unit, at(40_002), 66).await?;
    let Some([1, _length, rest @ ..]) = block.as_deref() else { return Ok(None) };
    let text = |from: usize, length: usize| {
        let words = rest.get(from..from + length)?;
        tidy(&words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>())
    };
    Ok(Some(Who { maker: text(0, 16), model: text(16, 16), version: text(40, 8), serial: text(48, 16) }))
}

async fn fingerprint(line: &mut Line, framing: Framing, unit: u8, found: &mut Found) -> Result<(), LineError> {
    let mut read: Vec<(&str, Option<String>)> = Vec::new();
    for print in fingerprints() {
        let (Ok(register), Ok(coding)) = (print.register.parse::<Register>(), print.r#type.parse::<Coding>()) else {
            continue;
        };
        let known = read.iter().find(|(name, _)| *name == print.register.as_str()).map(|(_, value)| value.clone());
        let value = match known {
            Some(value) => value,
            None => {
                let words = words(line, framing, unit, register, coding.registers()).await?;
                let content = words.and_then(|words| coding.decode(&words));
                let value = content.and_then(text);
                read.push((print.register.as_str(), value.clone()));
                value
            }
        };
        if value.is_some_and(|value| matches(&print.is, &value)) {
            found.profile = print.profile.clone().filter(|profile| is_known(profile));
            found.who.complete(Who {
                maker: Some(print.maker.clone()),
                model: Some(print.model.clone()),
                ..Who::default()
            });
            return Ok(());
        }
    }
    Ok(())
}

fn text(content: Content) -> Option<String> {
    let plain = content.scaled(1u64.into(), 0u64.into()).ok()?;
    tidy(plain.as_bytes())
}

fn matches(pattern: &str, value: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == value, |start| value.starts_with(start))
}

/// Whether this build has the register map.
fn is_known(profile: &str) -> bool {
    let text = format!("name = \"m\"\nport = \"p\"\nprotocol = \"modbus-rtu\"\nprofile = \"{profile}\"\n");
    let row = crate::meter::protocol("modbus-rtu");
    let settings = MeterSettings::parse(&text);
    matches!((row, settings), (Some(row), Ok(settings)) if row.session(&settings).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fingerprint_is_sound_and_names_its_source() {
        let prints = read(FINGERPRINTS).unwrap();
        assert!(prints.len() >= 5);
        for print in &prints {
            assert!(print.register.parse::<Register>().is_ok(), "{print:?}");
            assert!(print.r#type.parse::<Coding>().is_ok(), "{print:?}");
            assert!(!print.source.is_empty() && !print.is.is_empty(), "{print:?}");
        }
        assert!(prints.iter().filter_map(|p| p.profile.as_deref()).any(is_known), "no profile is known");
        assert!(!is_known("nobody-knows"));
    }

    #[test]
    fn a_device_identification_gives_maker_model_and_version() {
        let object = |id, text: &str| (id, text.to_owned());
        let who = names(&[object(0, "ABB"), object(2, "2\0"), object(1, "B23"), object(4, "x")]);
        assert_eq!(who.to_string(), "ABB B23 version 2");
        assert!(names(&[]).is_nobody());
    }

    #[test]
    fn a_pattern_with_a_star_stands_for_what_begins_so() {
        assert!(matches("112", "112") && !matches("112", "1121") && matches("B23*", "B23 112-100"));
    }
}
