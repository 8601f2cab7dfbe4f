//! tokio-modbus over a transport that lives for one exchange.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_modbus::client::{Client, rtu, tcp};
use tokio_modbus::{Request as Call, Response, Slave};

use super::exchange::{Framing, Guard};
use crate::meter::MeterError;
use crate::os::line::Line;
use crate::wire::modbus::{Exception, Request, Table};

/// Larger than any ADU.
const PIPE: usize = 512;

/// What a meter gave for one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// Registers, or bits as 0 and 1, as many as were asked for.
    Words(Vec<u16>),
    /// It refused.
    Refused(Exception),
}

/// Asks `unit` once. The client and its buffers end with the exchange, so that nothing an
/// earlier answer left behind can reach a later one.
pub(super) async fn ask(guard: &mut Guard, line: &mut Line, unit: u8, request: &Request) -> Result<Given, MeterError> {
    let (client_side, our_side) = tokio::io::duplex(PIPE);
    let mut client = match guard.framing() {
        Framing::Rtu => rtu::attach_slave(client_side, Slave(unit)),
        Framing::Tcp => tcp::attach_slave(client_side, Slave(unit)),
    };
    let Request::Read { table, address, quantity } = *request;
    let call = match table {
        Table::Coil => Call::ReadCoils(address, quantity),
        Table::Discrete => Call::ReadDiscreteInputs(address, quantity),
        Table::Holding => Call::ReadHoldingRegisters(address, quantity),
        Table::Input => Call::ReadInputRegisters(address, quantity),
    };
    // The transport ends with `carry`: after a failure the client sees its end and returns, too.
    let (carried, answer) = tokio::join!(carry(our_side, guard, line, unit, request), client.call(call));
    carried?;
    let unexpected = |what: String| MeterError::Damaged(format!("tokio-modbus did not take a checked answer: {what}"));
    match answer {
        Err(error) => Err(unexpected(error.to_string())),
        Ok(Err(exception)) => Ok(Given::Refused(Exception(exception.into()))),
        Ok(Ok(Response::ReadHoldingRegisters(words) | Response::ReadInputRegisters(words))) => Ok(Given::Words(words)),
        Ok(Ok(Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits))) => {
            Ok(Given::Words(bits.into_iter().take(quantity.into()).map(u16::from).collect()))
        }
        Ok(Ok(other)) => Err(unexpected(format!("{other:?}"))),
    }
}

/// Takes the client's request, does the exchange on the line, and hands back its answer.
async fn carry(
    mut pipe: DuplexStream,
    guard: &mut Guard,
    line: &mut Line,
    unit: u8,
    request: &Request,
) -> Result<(), MeterError> {
    let broken = |e: std::io::Error| MeterError::Damaged(format!("the pipe to tokio-modbus broke: {e}"));
    let mut adu = vec![0; guard.request_length(request)];
    pipe.read_exact(&mut adu).await.map_err(broken)?;
    let answer = guard.exchange(line, unit, request, &adu).await?;
    pipe.write_all(&answer).await.map_err(broken)
}
