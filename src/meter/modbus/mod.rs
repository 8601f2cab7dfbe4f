//! Modbus meters over RTU, ASCII and TCP; RTU over TCP is RTU on a `tcp://` port.
//!
//! tokio-modbus is the client, but its transport is ours: `exchange` puts a request on the
//! line and gives back nothing but an answer that was checked against it (why:
//! docs/decisions/0002-modbus.md). Reading order: `map` (what to read), `point` (how registers
//! become a value), `plan` (in which requests), `session` (the dialogue), `exchange` (the line).
//! `sunspec` finds the map of a SunSpec device in the device, `write` changes a register,
//! `identify` asks who is there.

use super::{Driver, Protocol};

mod client;
mod exchange;
mod identify;
mod map;
mod once;
mod plan;
mod point;
#[expect(unreachable_pub, reason = "settings! makes public structs; the profile is read in here only")]
mod profile;
mod session;
#[expect(unreachable_pub, reason = "settings! makes public structs; the models are read in here only")]
mod sunspec;
mod write;

pub use exchange::Framing;
pub use identify::{Identification, identify};
pub use once::{Told, ask_once};
pub use write::broadcast;

/// Modbus RTU on a serial line or a serial server.
pub(super) const RTU: Protocol = Protocol { name: "modbus-rtu", driver: Driver::Asks(session::rtu), check: map::check };

/// Modbus ASCII on a serial line or a serial server.
pub(super) const ASCII: Protocol =
    Protocol { name: "modbus-ascii", driver: Driver::Asks(session::ascii), check: map::check };

/// Modbus TCP.
pub(super) const TCP: Protocol = Protocol { name: "modbus-tcp", driver: Driver::Asks(session::tcp), check: map::check };
