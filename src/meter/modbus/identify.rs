//! Who is there: device identification, function 43 with MEI type 14.

use std::time::Duration;

use tracing::debug;

use super::client::{self, Given};
use super::exchange::{Framing, Guard};
use crate::meter::MeterError;
use crate::os::line::Line;
use crate::wire::modbus::{Level, Request};

/// What a device says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identification {
    /// What it can tell: 1 to 3 as the levels; with 128 added single objects, too.
    pub conformity: u8,
    /// Objects by number with their texts, in the order they came.
    pub objects: Vec<(u8, String)>,
}

/// More answers than an identification has.
const MOST_ANSWERS: usize = 64;

/// Asks `unit` for its identification, however many answers it takes.
///
/// # Errors
/// What the line said; [`MeterError::Refused`] with the exception, which most meters give.
pub async fn identify(
    line: &mut Line,
    framing: Framing,
    unit: u8,
    level: Level,
    timeout: Duration,
) -> Result<Identification, MeterError> {
    let mut guard = Guard::named(framing, "identification", timeout, Duration::ZERO);
    let mut found = Identification::default();
    let mut object = 0;
    for _ in 0..MOST_ANSWERS {
        let request = Request::Identify { level, object };
        let piece = match client::ask(&mut guard, line, unit, &request).await? {
            Given::Identity(piece) => piece,
            Given::Refused(why) => return Err(MeterError::Refused(why.to_string())),
            Given::Words(_) | Given::Written => {
                return Err(MeterError::Damaged("an answer to another question".to_owned()));
            }
        };
        debug!(unit, objects = piece.objects.len(), more_from = ?piece.more_from, "a piece of an identification");
        found.conformity = piece.conformity;
        let texts = piece.objects.iter().map(|(id, bytes)| (*id, String::from_utf8_lossy(bytes).into_owned()));
        found.objects.extend(texts);
        match piece.more_from {
            // One that names an object again would go on for ever.
            Some(next) if next > object && level != Level::One => object = next,
            _ => break,
        }
    }
    Ok(found)
}
