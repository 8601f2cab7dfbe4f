//! tokio-modbus over a transport that lives for one exchange.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_modbus::client::{Client, rtu as rtu_client, tcp as tcp_client};
use tokio_modbus::{Request as Call, Response, Slave};

use super::exchange::{Framing, Guard};
use crate::meter::MeterError;
use crate::os::line::Line;
use crate::wire::modbus::{Answer, Exception, Identity, Request, Table, rtu, tcp};

/// Larger than any ADU.
const PIPE: usize = 512;

/// What a meter gave for one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// Registers, or bits as 0 and 1, as many as were asked for.
    Words(Vec<u16>),
    /// What was to be written was taken.
    Written,
    /// A piece of its identification.
    Identity(Identity),
    /// It refused.
    Refused(Exception),
}

/// Asks `unit` once. The client and its buffers end with the exchange, so that nothing an
/// earlier answer left behind can reach a later one.
pub(super) async fn ask(guard: &mut Guard, line: &mut Line, unit: u8, request: &Request) -> Result<Given, MeterError> {
    let Some(call) = call(request) else {
        return without_client(guard, line, unit, request).await;
    };
    let (client_side, our_side) = tokio::io::duplex(PIPE);
    // tokio-modbus has no ASCII: its RTU client asks, and what crosses the line is hex all the same.
    let as_tcp = guard.framing() == Framing::Tcp;
    let mut client = if as_tcp {
        tcp_client::attach_slave(client_side, Slave(unit))
    } else {
        rtu_client::attach_slave(client_side, Slave(unit))
    };
    // The transport ends with `carry`: after a failure the client sees its end and returns, too.
    let (carried, answer) = tokio::join!(carry(our_side, guard, line, unit, request), client.call(call));
    carried?;
    let unexpected = |what: String| MeterError::Damaged(format!("tokio-modbus did not take a checked answer: {what}"));
    match answer {
        Err(error) => Err(unexpected(error.to_string())),
        Ok(Err(exception)) => Ok(Given::Refused(Exception(exception.into()))),
        Ok(Ok(response)) => given(response, request).map_err(|other| unexpected(format!("{other:?}"))),
    }
}

/// The client's own word for a request; `None` when it has none.
fn call(request: &Request) -> Option<Call<'static>> {
    Some(match request.clone() {
        Request::Read { table: Table::Coil, address, quantity } => Call::ReadCoils(address, quantity),
        Request::Read { table: Table::Discrete, address, quantity } => Call::ReadDiscreteInputs(address, quantity),
        Request::Read { table: Table::Holding, address, quantity } => Call::ReadHoldingRegisters(address, quantity),
        Request::Read { table: Table::Input, address, quantity } => Call::ReadInputRegisters(address, quantity),
        Request::WriteCoil { address, on } => Call::WriteSingleCoil(address, on),
        Request::WriteRegister { address, word } => Call::WriteSingleRegister(address, word),
        Request::WriteCoils { address, states } => Call::WriteMultipleCoils(address, states.into()),
        Request::WriteRegisters { address, words } => Call::WriteMultipleRegisters(address, words.into()),
        Request::ReadWrite { address, quantity, write_address, words } => {
            Call::ReadWriteMultipleRegisters(address, quantity, write_address, words.into())
        }
        Request::Identify { .. } => return None,
    })
}

fn given(response: Response, request: &Request) -> Result<Given, Response> {
    match response {
        Response::ReadHoldingRegisters(words)
        | Response::ReadInputRegisters(words)
        | Response::ReadWriteMultipleRegisters(words) => Ok(Given::Words(words)),
        Response::ReadCoils(bits) | Response::ReadDiscreteInputs(bits) => {
            let Request::Read { quantity, .. } = request else { return Err(Response::ReadCoils(bits)) };
            Ok(Given::Words(bits.into_iter().take((*quantity).into()).map(u16::from).collect()))
        }
        Response::WriteSingleCoil(..)
        | Response::WriteSingleRegister(..)
        | Response::WriteMultipleCoils(..)
        | Response::WriteMultipleRegisters(..) => Ok(Given::Written),
        other => Err(other),
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
    let mut pdu = Vec::new();
    request.encode(&mut pdu);
    let as_tcp = guard.framing() == Framing::Tcp;
    let mut asked = vec![0; pdu.len() + if as_tcp { 7 } else { 3 }];
    pipe.read_exact(&mut asked).await.map_err(broken)?;
    let pdu = guard.exchange(line, unit, request).await?;
    let mut answer = Vec::new();
    if as_tcp {
        // The client has an id of its own, new with each client; it must see that one.
        let theirs = asked.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
        tcp::encode(tcp::Header { transaction: theirs, unit }, &pdu, &mut answer);
    } else {
        rtu::encode(unit, &pdu, &mut answer);
    }
    pipe.write_all(&answer).await.map_err(broken)
}

/// What tokio-modbus has no words for: function 43.
async fn without_client(guard: &mut Guard, line: &mut Line, unit: u8, request: &Request) -> Result<Given, MeterError> {
    let pdu = guard.exchange(line, unit, request).await?;
    match request.decode_answer(&pdu) {
        Ok(Answer::Identity(identity)) => Ok(Given::Identity(identity)),
        Ok(Answer::Refused(exception)) => Ok(Given::Refused(exception)),
        Ok(Answer::Written) => Ok(Given::Written),
        Ok(Answer::Data(_)) => Err(MeterError::Damaged("data came where none was asked for".to_owned())),
        Err(error) => Err(MeterError::Damaged(error.to_string())),
    }
}
