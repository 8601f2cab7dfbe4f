//! Registers of a Modbus slave by command.

use std::time::Duration;

use super::Orders;
use super::serial::borrow;
use crate::control::{Modbus, Place, Put};
use crate::meter::MeterError;
use crate::meter::modbus::{self, Framing, Told};
use crate::os::line::Speed;
use crate::wire::modbus::{Request, Table};

/// A slave may take so long for an answer.
const ANSWER: Duration = Duration::from_secs(2);
/// A borrowed line is given back after so long at the latest.
const LIMIT: Duration = Duration::from_secs(15);

/// Reads registers or bits; gives them in decimal, separated by `;`.
pub(super) async fn read(orders: &Orders, wanted: &Modbus) -> Result<String, String> {
    let table = match wanted.function {
        1 => Table::Coil,
        2 => Table::Discrete,
        3 => Table::Holding,
        _ => Table::Input,
    };
    let request = Request::Read { table, address: wanted.register, quantity: wanted.count };
    match ask(orders, wanted.place.as_ref(), wanted.unit, (request, None)).await? {
        Told::Words(words) => Ok(words.iter().map(u16::to_string).collect::<Vec<_>>().join(";")),
        Told::Written => Err("the slave confirmed a writing that nobody asked for".to_owned()),
    }
}

/// Writes registers or coils, and reads them back unless they were for all slaves.
pub(super) async fn write(orders: &Orders, put: &Put) -> Result<String, String> {
    let (address, values) = (put.register, put.values.clone());
    let first = values.first().copied().unwrap_or_default();
    let bits = || values.iter().map(|value| *value != 0).collect::<Vec<_>>();
    let (request, table) = match put.function {
        5 => (Request::WriteCoil { address, on: first != 0 }, Table::Coil),
        6 => (Request::WriteRegister { address, word: first }, Table::Holding),
        15 => (Request::WriteCoils { address, states: bits() }, Table::Coil),
        _ => (Request::WriteRegisters { address, words: values.clone() }, Table::Holding),
    };
    if put.unit == 0 {
        broadcast(orders, put.place.as_ref(), request).await?;
        return Ok("sent to all slaves; none of them answers".to_owned());
    }
    let quantity = u16::try_from(put.values.len()).unwrap_or(u16::MAX);
    let reading = Request::Read { table, address, quantity };
    // In one lease: what is read back is what this command wrote, not what somebody wrote after it.
    match ask(orders, put.place.as_ref(), put.unit, (request, Some(reading))).await? {
        Told::Words(words) if words == put.values => Ok(String::new()),
        Told::Words(words) => {
            let words = words.iter().map(u16::to_string).collect::<Vec<_>>().join(";");
            Err(format!("the slave took it, but {words} is there now"))
        }
        Told::Written => Ok("written; it could not be read back".to_owned()),
    }
}

/// The port that is meant: the one that is named, else the first one with Modbus meters, else the first one.
fn port<'a>(orders: &'a Orders, place: Option<&Place>) -> Result<(&'a str, Speed, Framing), String> {
    let (name, speed) = match place {
        Some(place) => orders.port(place)?,
        None => match orders.modbus.first() {
            Some((port, _)) => orders.port(&Place::Name(port.clone()))?,
            None => orders.port(&Place::Number(0))?,
        },
    };
    let framing = orders.modbus.iter().find(|(port, _)| port == name).map_or(Framing::Rtu, |(_, framing)| *framing);
    Ok((name, speed, framing))
}

/// Asks once, and then again with `after`; when only that fails, the first answer is given.
async fn ask(
    orders: &Orders,
    place: Option<&Place>,
    unit: u8,
    (request, after): (Request, Option<Request>),
) -> Result<Told, String> {
    let (port, speed, framing) = port(orders, place)?;
    let answer = borrow(orders, port, LIMIT, move |line| {
        Box::pin(async move {
            if line.speed() != speed {
                line.set_speed(speed)?;
            }
            let first = modbus::ask_once(line, framing, unit, &request, ANSWER).await?;
            let Some(after) = after else { return Ok(first) };
            let second = modbus::ask_once(line, framing, unit, &after, ANSWER).await;
            Ok::<_, MeterError>(second.unwrap_or(first))
        })
    });
    answer.await?.map_err(|error| format!("slave {unit} on port \"{port}\": {error}"))
}

async fn broadcast(orders: &Orders, place: Option<&Place>, request: Request) -> Result<(), String> {
    let (port, speed, framing) = port(orders, place)?;
    let sent = borrow(orders, port, LIMIT, move |line| {
        Box::pin(async move {
            if line.speed() != speed {
                line.set_speed(speed)?;
            }
            modbus::broadcast(line, framing, &request).await
        })
    });
    sent.await?.map_err(|error: MeterError| format!("port \"{port}\": {error}"))
}
