//! Changes registers, and looks what is there afterwards.
//!
//! Invariants: a write is sent once, whatever comes of it: a lost answer is no reason to do a thing
//! twice; what is there now is read, never concluded from the confirmation. Functions 5, 6 and 16; a
//! meter that does not know 5 or 6 (exception 1) is asked with 15 or 16.

use std::time::Duration;

use super::client::Given;
use super::exchange::{Framing, Guard};
use super::point::Point;
use super::session::Modbus;
use crate::meter::{MeterError, WriteOutcome, WriteReply, Writer, Written};
use crate::model::{Decimal, Quality};
use crate::os::line::{Line, LineError};
use crate::wire::modbus::{Coding, Exception, Register, Request, Table};

/// The exception of a meter that does not know a function.
const ILLEGAL_FUNCTION: Exception = Exception(1);

/// Sends `request`, which must be a write, to every meter on the line (unit 0) and waits until they
/// have had the time to do it (200 ms). Nobody answers; read back what matters.
///
/// # Errors
/// What the line said; [`MeterError::Order`] for a request that is no write.
pub async fn broadcast(line: &mut Line, framing: Framing, request: &Request) -> Result<(), MeterError> {
    if !request.writes() || matches!(request, Request::ReadWrite { .. }) {
        return Err(MeterError::Order("only a write can be sent to all meters, because nobody answers".to_owned()));
    }
    Guard::named(framing, "broadcast", Duration::from_secs(1), Duration::ZERO).broadcast(line, request).await
}

impl Writer for Modbus {
    fn write<'a>(&'a mut self, line: &'a mut Line, name: &'a str, text: &'a str) -> WriteReply<'a> {
        Box::pin(self.write_point(line, name, text))
    }
}

impl Modbus {
    async fn write_point(&mut self, line: &mut Line, name: &str, text: &str) -> Result<Written, MeterError> {
        let point = self.target(name)?;
        // What was there before; this also shows whether the line echoes requests, which a
        // confirmation by function 5 or 6 could not be told from.
        let (before, power) = self.look(line, &point).await?;
        let power = power.map_err(|_| order("its exponent could not be read"))?;
        let words = self.words(&point, text, before.as_deref().ok(), power)?;
        let outcome = self.send(line, &point, &words).await?;
        let (now, power_now) = self.look(line, &point).await?;
        let value = |words: &Result<Vec<u16>, Quality>, power| match words {
            Ok(words) => point.value(words, power),
            Err(quality) => point.empty(*quality),
        };
        let outcome = match (outcome, &now) {
            (Some(why), _) => WriteOutcome::Refused(why.to_string()),
            (None, Ok(now)) if *now == words => WriteOutcome::Done,
            (None, Ok(_)) => WriteOutcome::Different,
            (None, Err(_)) => WriteOutcome::Unverified,
        };
        Ok(Written { outcome, before: value(&before, power), now: value(&now, power_now.unwrap_or(power)) })
    }

    /// The point of that name, or the register itself: `holding:5`, `coil:3`, `holding:7 u32`.
    fn target(&self, name: &str) -> Result<Point, MeterError> {
        let known = self.shown().iter().find(|p| p.name == name).cloned();
        let point = known.or_else(|| {
            let (register, coding) = name.split_once(' ').map_or((name, None), |(r, c)| (r, Some(c)));
            let register: Register = register.parse().ok()?;
            let plain = if register.table.is_bits() { Coding::BOOL } else { Coding::U16 };
            let coding = coding.map_or(Ok(plain), str::parse).ok()?;
            let fits = u32::from(register.address) + u32::from(coding.registers()) <= 0x1_0000;
            (fits && register.table.is_bits() == coding.is_bool()).then(|| Point::bare(name, register, coding))
        });
        let point =
            point.ok_or_else(|| order("no value of that name; write one of the map's, or \"holding:5 u32\""))?;
        match point.register.table {
            Table::Holding | Table::Coil => Ok(point),
            Table::Input | Table::Discrete => Err(order("inputs can't be written, only holding registers and coils")),
        }
    }

    /// The words of a point and its power of ten as they are now; a refusal is a quality.
    async fn look(
        &mut self,
        line: &mut Line,
        point: &Point,
    ) -> Result<(Result<Vec<u16>, Quality>, Result<Option<i16>, Quality>), MeterError> {
        let words = self.read_words(line, point.register, point.coding.registers()).await?;
        let power = match point.exponent {
            None => Ok(None),
            Some(register) => {
                let power = self.read_words(line, register, 1).await?;
                power.and_then(|p| p.first().map(|p| Some(p.cast_signed())).ok_or(Quality::Invalid))
            }
        };
        Ok((words, power))
    }

    async fn read_words(
        &mut self,
        line: &mut Line,
        register: Register,
        quantity: u16,
    ) -> Result<Result<Vec<u16>, Quality>, MeterError> {
        let request = Request::Read { table: register.table, address: register.address, quantity };
        match self.ask(line, &request).await? {
            Given::Words(words) => Ok(Ok(words)),
            Given::Refused(_) => Ok(Err(Quality::Refused)),
            Given::Written | Given::Identity(_) => Ok(Err(Quality::Invalid)),
        }
    }

    /// What the registers must hold for `text`.
    fn words(
        &self,
        point: &Point,
        text: &str,
        before: Option<&[u16]>,
        power: Option<i16>,
    ) -> Result<Vec<u16>, MeterError> {
        let unfit = || order(&format!("\"{text}\" does not fit {} exactly", point.coding));
        let named = point.names.number(text).map(|number| number.to_string());
        let raw = match named {
            Some(number) => number,
            None if point.coding.is_text() => text.to_owned(),
            None => {
                let number: Decimal = text.parse().map_err(|_| unfit())?;
                let scale = point.factor(power).ok_or_else(unfit)?;
                let raw = number.minus(point.offset).ok().and_then(|n| n.divided_by(scale)).ok_or_else(unfit)?;
                // Only a float has a place for what comes after the point.
                raw.whole().unwrap_or_else(|| raw.to_string())
            }
        };
        let Some(bits) = point.bits else { return point.coding.encode(&raw).ok_or_else(unfit) };
        let before = before.and_then(|words| point.coding.raw(words));
        let before = before.ok_or_else(|| order("the other bits of its register could not be read"))?;
        let merged = raw.parse().ok().and_then(|field| bits.put(before, field)).ok_or_else(unfit)?;
        point.coding.encode(&merged.to_string()).ok_or_else(unfit)
    }

    /// Writes once; gives the exception when it was refused. Silence is not the end: what is there
    /// now tells.
    async fn send(&mut self, line: &mut Line, point: &Point, words: &[u16]) -> Result<Option<Exception>, MeterError> {
        let address = point.register.address;
        let several = match point.register.table {
            Table::Coil => Request::WriteCoils { address, states: words.iter().map(|w| *w != 0).collect() },
            _ => Request::WriteRegisters { address, words: words.to_vec() },
        };
        let request = match (point.register.table, words) {
            (Table::Coil, [state]) => Request::WriteCoil { address, on: *state != 0 },
            (Table::Holding, [word]) => Request::WriteRegister { address, word: *word },
            _ => several.clone(),
        };
        let mut given = self.ask(line, &request).await;
        if matches!(given, Ok(Given::Refused(ILLEGAL_FUNCTION))) && several != request {
            given = self.ask(line, &several).await;
        }
        match given {
            Ok(Given::Refused(why)) => Ok(Some(why)),
            Ok(_) | Err(MeterError::Line(LineError::Silent(_)) | MeterError::Damaged(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn order(why: &str) -> MeterError {
    MeterError::Order(why.to_owned())
}
