//! Carries APDUs to one logical device of one meter and back.

use super::dlms;
use super::settings::DlmsLink;
use crate::meter::{MeterError, MeterSettings};
use crate::os::line::Line;

mod wrapper;

/// A way to a meter's logical device; open between [`Link::open`] and [`Link::close`].
pub(super) enum Link {
    /// Over TCP.
    Wrapper(wrapper::Wrapper),
}

impl Link {
    /// Prepares it.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the settings.
    pub(super) fn new(settings: &MeterSettings) -> Result<Self, String> {
        match dlms(settings)?.link {
            DlmsLink::Wrapper => Ok(Self::Wrapper(wrapper::Wrapper::new(settings)?)),
            DlmsLink::Hdlc | DlmsLink::HdlcModeE => Err("HDLC is not built yet".to_owned()),
        }
    }

    /// Opens it as this client: what a link that broke off left on the line is read away first.
    ///
    /// # Errors
    /// When the meter does not answer or does not want to.
    pub(super) async fn open(&mut self, line: &mut Line, client: u16) -> Result<(), MeterError> {
        match self {
            Self::Wrapper(wrapper) => wrapper.open(line, client).await,
        }
    }

    /// Sends one APDU, repeated by the link as far as that can't do it twice.
    ///
    /// # Errors
    /// When the line fails.
    pub(super) async fn send(&mut self, line: &mut Line, apdu: &[u8]) -> Result<(), MeterError> {
        match self {
            Self::Wrapper(wrapper) => wrapper.send(line, apdu).await,
        }
    }

    /// Sends one APDU that shows a password: a trace of the line gets asterisks.
    ///
    /// # Errors
    /// When the line fails.
    pub(super) async fn send_secret(&mut self, line: &mut Line, apdu: &[u8]) -> Result<(), MeterError> {
        match self {
            Self::Wrapper(wrapper) => wrapper.send_secret(line, apdu).await,
        }
    }

    /// Receives the next APDU whole.
    ///
    /// # Errors
    /// When nothing comes in time, or not whole.
    pub(super) async fn receive(&mut self, line: &mut Line) -> Result<Vec<u8>, MeterError> {
        match self {
            Self::Wrapper(wrapper) => wrapper.receive(line).await,
        }
    }

    /// Closes it as far as the meter still listens; the next open works whatever came of it.
    pub(super) async fn close(&mut self, line: &mut Line) {
        match self {
            Self::Wrapper(_) => {
                let _ = line;
            }
        }
    }
}
