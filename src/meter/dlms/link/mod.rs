//! Carries APDUs to one logical device of one meter and back.

use super::dlms;
use super::settings::DlmsLink;
use crate::meter::{MeterError, MeterSettings};
use crate::os::line::Line;

mod address;
mod hdlc;
mod station;
mod wrapper;

/// A way to a meter's logical device; open between [`Link::open`] and [`Link::close`].
pub(super) enum Link {
    /// Over a serial line or a serial server.
    Hdlc(Box<hdlc::Hdlc>),
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
            DlmsLink::Hdlc | DlmsLink::HdlcModeE => Ok(Self::Hdlc(Box::new(hdlc::Hdlc::new(settings)?))),
        }
    }

    /// Opens it as this client: what a link that broke off left on the line is read away first.
    ///
    /// # Errors
    /// When the meter does not answer or does not want to.
    pub(super) async fn open(&mut self, line: &mut Line, client: u16) -> Result<(), MeterError> {
        match self {
            Self::Hdlc(hdlc) => hdlc.open(line, client).await,
            Self::Wrapper(wrapper) => wrapper.open(line, client).await,
        }
    }

    /// The longest APDU to ask for: at most `longest` bytes, and as many as fill whole frames, so that no frame is spent
    /// on a few bytes that are left over.
    pub(super) fn fitting(&self, longest: u16) -> u16 {
        match self {
            Self::Hdlc(hdlc) => hdlc.fitting(longest),
            Self::Wrapper(_) => longest,
        }
    }

    /// Sends one APDU, repeated by the link as far as that can't do it twice.
    ///
    /// # Errors
    /// When the line fails.
    pub(super) async fn send(&mut self, line: &mut Line, apdu: &[u8]) -> Result<(), MeterError> {
        match self {
            Self::Hdlc(hdlc) => hdlc.send(line, apdu).await,
            Self::Wrapper(wrapper) => wrapper.send(line, apdu).await,
        }
    }

    /// Sends one APDU that shows a password: a trace of the line gets asterisks.
    ///
    /// # Errors
    /// When the line fails.
    pub(super) async fn send_secret(&mut self, line: &mut Line, apdu: &[u8]) -> Result<(), MeterError> {
        match self {
            Self::Hdlc(hdlc) => hdlc.send_secret(line, apdu).await,
            Self::Wrapper(wrapper) => wrapper.send_secret(line, apdu).await,
        }
    }

    /// What is sent next is not sent again over a new link, nor on the meter's silence: a password that is wrong would
    /// count twice.
    pub(super) const fn only_once(&mut self) {
        match self {
            Self::Hdlc(hdlc) => hdlc.only_once(),
            // It never repeats anything.
            Self::Wrapper(_) => {}
        }
    }

    /// Receives the next APDU whole.
    ///
    /// # Errors
    /// When nothing comes in time, or not whole.
    pub(super) async fn receive(&mut self, line: &mut Line) -> Result<Vec<u8>, MeterError> {
        match self {
            Self::Hdlc(hdlc) => hdlc.receive(line).await,
            Self::Wrapper(wrapper) => wrapper.receive(line).await,
        }
    }

    /// Closes it as far as the meter still listens; the next open works whatever came of it.
    pub(super) async fn close(&mut self, line: &mut Line) {
        match self {
            Self::Hdlc(hdlc) => hdlc.close(line).await,
            Self::Wrapper(_) => {}
        }
    }

    /// Keeps it open while nothing is asked: to be called within the meter's inactivity time, often 120 s, at
    /// the least 25 s.
    ///
    /// # Errors
    /// When the meter does not answer any more.
    #[expect(dead_code, reason = "the services call it when they wait for a meter that is busy")]
    pub(super) async fn keep_alive(&mut self, line: &mut Line) -> Result<(), MeterError> {
        match self {
            Self::Hdlc(hdlc) => hdlc.keep_alive(line).await,
            Self::Wrapper(_) => Ok(()),
        }
    }

    /// Whether the last error came because the meter gave the connection up: all may be well with a new one.
    pub(super) fn was_dropped(&self) -> bool {
        matches!(self, Self::Hdlc(hdlc) if hdlc.was_dropped())
    }
}
