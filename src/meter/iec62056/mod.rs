//! IEC 62056-21: reads the table of values that a meter sends after its sign-on (modes A, B, C), single
//! values and load profiles in programming mode, and opens mode E for DLMS.
//!
//! The line runs at 8N1 and the parity is done here: whether a meter (or the converter before it)
//! sends even parity is seen on its identification and enforced from then on; until then a sign-on
//! carries even parity, and every second one none. A value is named by its id; further values of
//! the same id are `id#2`, `id#3` ... in the order of the readout, a set without an id continues
//! the one before. With `values` set, exactly those ids are given, in that order and under those
//! names; `1.8.0` is also found as `1-0:1.8.0` or `1-0:1.8.0*255`. An id that the meter does not
//! send, or refuses with `(ER..)`, is null and refused, as an unknown register is in Modbus.
//!
//! What can't be noticed: a block check is an exclusive-or of seven bits, so without parity two
//! errors in the same bit of two characters hide each other unless a line loses its shape; a wrong
//! answer of programming mode that names no id and comes alone; another meter's readout, unless
//! `serial` is set. Start with `Reader`, then [`programming`] and `dialogue`.

use std::time::Duration;

use super::{Address, Driver, MeterSettings, Protocol, Session};

mod check;
mod dialogue;
mod ladder;
mod link;
mod mode_e;
pub(super) mod pick;
mod profile;
pub mod programming;
mod reader;
pub(super) mod season;
mod settings;

pub use check::check;
pub(super) use ladder::character;
pub use mode_e::{Opening, open_mode_e};
pub use settings::{
    BlockCheck, IecAccess, IecPassword, IecProfileRead, IecRead, ProfileStamp, RequestTime, SummerTime,
};

/// The row of this protocol in the table of protocols.
pub const ROW: Protocol = Protocol { name: "iec62056-21", driver: Driver::Asks(session), check };

/// The shortest time in which a meter may answer (clause 6.4.1): the rate must be changed before.
const REACTION: Duration = Duration::from_millis(200);

fn session(settings: &MeterSettings) -> Result<Box<dyn Session>, String> {
    let address = address(settings);
    match check::address_fault(&address) {
        Some(fault) => Err(format!("the address \"{address}\" {fault}")),
        None => Ok(Box::new(reader::Reader::new(settings))),
    }
}

fn address(settings: &MeterSettings) -> String {
    settings.address.as_deref().map(Address::to_string).unwrap_or_default()
}
