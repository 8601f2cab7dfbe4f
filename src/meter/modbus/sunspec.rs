//! SunSpec: the device says itself which models it has, and where ("SunSpec Device Information
//! Model Specification", version 1.1).
//!
//! A model's values are data, `meters/sunspec/*.toml`; addresses there count from the model's own id
//! register. What no file describes is passed over.

use tracing::{debug, warn};

use super::client::Given;
use super::point::{Point, points_of};
use super::profile;
use super::session::Modbus;
use crate::meter::{MeterError, RegisterSettings};
use crate::os::line::{Line, LineError};
use crate::setting::{Count, Problems};
use crate::settings;
use crate::wire::modbus::{Exception, Register, Request, Table};

/// Where the map may begin.
const BASES: [u16; 3] = [40_000, 50_000, 0];
/// "SunS".
const MARK: [u16; 2] = [0x5375, 0x6E53];
/// The id after the last model.
const END: u16 = 0xFFFF;
/// More models than a device has.
const MOST_MODELS: usize = 64;

/// The models that are described.
const MODELS: &[(&str, &str)] = &[
    ("common", include_str!("../../../meters/sunspec/common.toml")),
    ("inverter", include_str!("../../../meters/sunspec/inverter.toml")),
    ("inverter-float", include_str!("../../../meters/sunspec/inverter-float.toml")),
    ("meter", include_str!("../../../meters/sunspec/meter.toml")),
    ("meter-float", include_str!("../../../meters/sunspec/meter-float.toml")),
];

settings! {
    /// One layout of registers, `meters/sunspec/<name>.toml`.
    pub struct ModelSettings {
        /// What it describes.
        pub title: String,
        /// Where it comes from.
        pub source: String,
        /// The ids of the models that have this layout.
        pub model: Vec<Count<1, 65534>>,
        /// Its values; addresses count from the register with the model's id.
        pub register: Vec<RegisterSettings>,
    }
}

/// What was found in a device.
pub(super) struct Found {
    pub(super) points: Vec<Point>,
    /// The list of models was read to its end.
    pub(super) whole: bool,
}

/// Finds the points of every model that the device has and a file describes.
///
/// # Errors
/// What the line said, or that there is no SunSpec map.
pub(super) async fn discover(session: &mut Modbus, line: &mut Line) -> Result<Found, MeterError> {
    let mut silence = None;
    for base in BASES {
        match two(session, line, base).await {
            Ok(Two::Words(MARK)) => return walk(session, line, base + 2).await,
            Ok(_) => {}
            Err(error) if error.must_reopen() => return Err(error),
            Err(error) => silence = Some(error),
        }
    }
    let none = "there is no SunSpec map at register 40000, 50000 or 0; check the unit, or give another profile";
    Err(silence.unwrap_or_else(|| MeterError::Refused(none.to_owned())))
}

/// Two holding registers.
enum Two {
    Words([u16; 2]),
    Refused(Exception),
}

async fn two(session: &mut Modbus, line: &mut Line, address: u16) -> Result<Two, MeterError> {
    let request = Request::Read { table: Table::Holding, address, quantity: 2 };
    match session.ask(line, &request).await? {
        Given::Words(words) => match words.first_chunk() {
            Some(two) => Ok(Two::Words(*two)),
            None => Err(MeterError::Damaged("fewer registers came than were asked for".to_owned())),
        },
        Given::Refused(why) if why.is_gateways() => Err(LineError::Silent(session.guard.timeout()).into()),
        Given::Refused(why) => Ok(Two::Refused(why)),
        Given::Written | Given::Identity(_) => Err(MeterError::Damaged("no registers came".to_owned())),
    }
}

/// Goes from model to model. Only a register that is not there ends the list as an end mark does; after
/// any other refusal it is not whole, and the next reading goes the way again.
async fn walk(session: &mut Modbus, line: &mut Line, first: u16) -> Result<Found, MeterError> {
    let mut points: Vec<Point> = Vec::new();
    let mut whole = true;
    let mut at = first;
    for _ in 0..MOST_MODELS {
        let [id, length] = match two(session, line, at).await? {
            Two::Words(words) => words,
            Two::Refused(why) if why.is_about_range() => {
                warn!(unit = session.unit, register = at, "the list of SunSpec models ends without an end mark");
                break;
            }
            Two::Refused(why) => {
                debug!(unit = session.unit, register = at, %why, "the list of SunSpec models breaks off");
                whole = false;
                break;
            }
        };
        if id == END {
            break;
        }
        debug!(unit = session.unit, model = id, register = at, length, "a SunSpec model");
        points.extend(model(id).into_iter().filter_map(|point| placed(point, at, length)));
        let Some(next) = at.checked_add(2).and_then(|a| a.checked_add(length)) else { break };
        at = next;
    }
    if points.is_empty() && !whole {
        return Err(MeterError::Refused("the list of SunSpec models can't be read just now".to_owned()));
    }
    distinct(&mut points);
    Ok(Found { points, whole })
}

/// The points of a model as its file has them; none when no file describes it.
fn model(id: u16) -> Vec<Point> {
    MODELS.iter().find_map(|(_, text)| parse(text).ok().filter(|(ids, _)| ids.contains(&id))).unwrap_or_default().1
}

/// The ids and points of a file.
fn parse(text: &str) -> Result<(Vec<u16>, Vec<Point>), String> {
    let mut problems = Problems::new();
    let settings: Option<ModelSettings> = profile::read(text, &mut problems);
    let points = settings.as_ref().map(|s| points_of(&s.register, &mut problems)).unwrap_or_default();
    match settings {
        Some(settings) if !problems.has_errors() => {
            Ok((settings.model.iter().filter_map(|id| u16::try_from(id.value()).ok()).collect(), points))
        }
        _ => Err(profile::mistakes("of a SunSpec model", text, problems)),
    }
}

/// Moves a point to where its model stands; `None` when this device's model is too short for it.
fn placed(mut point: Point, at: u16, length: u16) -> Option<Point> {
    let inside = |offset: u16, registers: u16| u32::from(offset) + u32::from(registers) <= 2 + u32::from(length);
    let moved = |register: Register| Some(Register { address: at.checked_add(register.address)?, ..register });
    if !inside(point.register.address, point.coding.registers()) {
        return None;
    }
    if let Some(exponent) = point.exponent {
        point.exponent = Some(moved(exponent).filter(|_| inside(exponent.address, 1))?);
    }
    point.register = moved(point.register)?;
    Some(point)
}

/// Gives the values of a second model of the same kind names of their own.
fn distinct(points: &mut [Point]) {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for point in points {
        let count = counts.entry(point.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            point.name = format!("{}_{count}", point.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_that_comes_with_weir_is_sound_and_stands_inside_its_length() {
        // Model ids and the lengths that the specification gives them.
        let lengths = [(1, 66), (101, 50), (102, 50), (103, 50), (111, 60), (112, 60), (113, 60)];
        let meters = [(201, 105), (202, 105), (203, 105), (204, 105), (211, 124), (212, 124), (213, 124), (214, 124)];
        for (id, length) in lengths.into_iter().chain(meters) {
            let points = model(id);
            assert!(points.len() >= 5, "model {id}");
            for point in points {
                assert!(point.register.address >= 2, "model {id}: {}", point.name);
                let name = point.name.clone();
                assert!(placed(point, 40_002, length).is_some(), "model {id}: {name}");
            }
        }
        for (name, text) in MODELS {
            assert!(parse(text).is_ok() && text.contains("source = "), "{name}: {:?}", parse(text));
        }
        assert!(model(64_000).is_empty());
    }

    #[test]
    fn what_stands_beyond_a_shorter_model_is_left_away() {
        let all = model(1).len();
        let short = model(1).into_iter().filter_map(|p| placed(p, 40_002, 48)).count();
        assert!(short < all, "{short} of {all}");
    }
}
