//! One question by hand, outside any meter's schedule.

use std::time::Duration;

use super::client::{self, Given};
use super::exchange::{Framing, Guard};
use crate::meter::MeterError;
use crate::os::line::Line;
use crate::wire::modbus::Request;

/// What a slave gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Registers, or bits as 0 and 1, as many as were asked for.
    Words(Vec<u16>),
    /// What was to be written was taken.
    Written,
}

/// Asks `unit` once and waits at most `timeout` for an answer that was checked against the question.
///
/// # Errors
/// What the line said; [`MeterError::Refused`] with the exception.
pub async fn ask_once(
    line: &mut Line,
    framing: Framing,
    unit: u8,
    request: &Request,
    timeout: Duration,
) -> Result<Told, MeterError> {
    let mut guard = Guard::named(framing, "command", timeout, Duration::ZERO);
    match client::ask(&mut guard, line, unit, request).await? {
        Given::Words(words) => Ok(Told::Words(words)),
        Given::Written => Ok(Told::Written),
        Given::Refused(why) => Err(MeterError::Refused(why.to_string())),
        Given::Identity(_) => Err(MeterError::Damaged("an answer to another question".to_owned())),
    }
}
