//! DLMS/COSEM (IEC 62056-5-3 and its parts): a client that reads meters over HDLC and over the wrapper.
//!
//! Storeys, each knowing only those below it: `link` carries one APDU there and one back;
//! `association` agrees with the meter who this client is, and ciphers; `service` reads, writes and
//! acts on attributes, in blocks when they are long; `session` makes values of objects. What
//! comes from the meter is looked at by `wire::dlms`.

use super::{Driver, MeterSettings, Protocol};
use crate::setting::Problems;

mod association;
mod clock;
pub(super) mod explore;
mod image;
mod inspect;
mod known;
mod link;
mod object;
mod profile;
pub mod push;
mod reading;
mod rekey;
mod service;
mod session;
mod settings;
mod table;
mod write;

pub use settings::{
    DlmsAuthentication, DlmsCiphering, DlmsClockSettings, DlmsLink, DlmsReferencing, DlmsSecurity, DlmsSettings,
};

/// The row of this protocol in the table of protocols.
pub const ROW: Protocol = Protocol { name: "dlms", driver: Driver::Asks(session::session), check };

/// Says everything in a meter's settings that can't work with this protocol.
fn check(settings: &MeterSettings, problems: &mut Problems) {
    if let Err(fault) = session::session(settings) {
        problems.error(settings.protocol.span(), fault);
    }
    if let Ok(dlms) = dlms(settings) {
        association::check(settings, &dlms, problems);
    }
}

/// The meter's `[meter.dlms]`, or what its keys are without one.
fn dlms(settings: &MeterSettings) -> Result<DlmsSettings, String> {
    use crate::setting::Setting;
    settings.dlms.clone().or_else(DlmsSettings::stand_in).ok_or_else(|| "dlms has a key without a default".to_owned())
}
