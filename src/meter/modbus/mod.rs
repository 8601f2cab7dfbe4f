//! Modbus meters over RTU and TCP; RTU over TCP is RTU on a `tcp://` port.
//!
//! tokio-modbus is the client, but its transport is ours: [`exchange`] puts a request on the
//! line and gives back nothing but an answer that was checked against it (why:
//! docs/decisions/0002-modbus.md). Reading order: [`map`] (what to read), [`plan`] (in which
//! requests), [`session`] (the dialogue), [`exchange`] (the line).

use super::{Driver, Protocol};

mod client;
mod exchange;
#[expect(unreachable_pub, reason = "settings! makes public structs; the profile is read in here only")]
mod map;
mod plan;
mod session;

/// Modbus RTU on a serial line or a serial server.
pub(super) const RTU: Protocol = Protocol { name: "modbus-rtu", driver: Driver::Asks(session::rtu), check: map::check };

/// Modbus TCP.
pub(super) const TCP: Protocol = Protocol { name: "modbus-tcp", driver: Driver::Asks(session::tcp), check: map::check };
