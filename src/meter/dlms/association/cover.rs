//! Ciphers what goes to one meter and deciphers what comes from it.

use super::material::{Mark, unasked};
use super::memory::Memory;
use crate::meter::MeterError;
use crate::meter::dlms::settings::{DlmsCiphering, DlmsSecurity, DlmsSettings};
use crate::wire::dlms::SecurityControl;
use crate::wire::dlms::protect::{Fault, Form, How, KeyName, Keys, Receiver, SystemTitle, is_ciphered};
use crate::wire::dlms::secret::Secret;

/// The keys of one association and where its counters stand.
#[derive(Debug)]
pub(super) struct Cover {
    pub(super) keys: Keys,
    how: How,
    receiver: Receiver,
    mark: Mark,
    ciphered: bool,
}

impl Cover {
    /// Begins with the global key, each service in its own tag: what every meter takes.
    pub(super) fn new(keys: Keys, dlms: &DlmsSettings, title: SystemTitle, mark: Mark) -> Self {
        let (authenticated, encrypted) = match dlms.security {
            DlmsSecurity::None => (false, false),
            DlmsSecurity::Authenticated => (true, false),
            DlmsSecurity::Encrypted => (false, true),
            DlmsSecurity::AuthenticatedEncrypted => (true, true),
        };
        let control = SecurityControl::new(keys.suite().number(), authenticated, encrypted);
        let form = if dlms.ciphering == DlmsCiphering::General { Form::General } else { Form::Service };
        let how = How { form, name: KeyName::Global, control, title };
        let ciphered = dlms.security != DlmsSecurity::None;
        Self { keys, how, receiver: Receiver::new(control, title), mark, ciphered }
    }

    /// Whether APDUs are ciphered at all; without it the keys are for the authentication only.
    pub(super) const fn ciphered(&self) -> bool {
        self.ciphered
    }

    /// The meter's title, once it is known.
    pub(super) const fn peer(&self) -> Option<SystemTitle> {
        self.receiver.peer()
    }

    /// Learns the meter's title.
    ///
    /// # Errors
    /// When it is ours.
    pub(super) fn meet(&mut self, title: SystemTitle) -> Result<(), MeterError> {
        self.receiver.meet(title).map_err(fault)
    }

    /// Goes on as the settings say and the meter grants, once the association is complete.
    ///
    /// # Errors
    /// When the dedicated key is none.
    pub(super) fn settle(
        &mut self,
        ciphering: DlmsCiphering,
        general: bool,
        dedicated: Option<&Secret>,
    ) -> Result<(), MeterError> {
        self.how.form = match ciphering {
            DlmsCiphering::General => Form::General,
            DlmsCiphering::Service => Form::Service,
            DlmsCiphering::Auto | DlmsCiphering::Dedicated if general => Form::General,
            DlmsCiphering::Auto | DlmsCiphering::Dedicated => Form::Service,
        };
        if let Some(key) = dedicated {
            self.keys.set_dedicated(Some(key)).map_err(fault)?;
            self.how.name = KeyName::Dedicated;
        }
        Ok(())
    }

    /// A counter of the global key that was never used.
    ///
    /// # Errors
    /// When it can't be stored.
    pub(super) async fn counter(&self, memory: &mut Memory) -> Result<u32, MeterError> {
        memory.counters.take(self.mark).await
    }

    /// Goes on with the counter that the meter expects; whether that is possible.
    pub(super) fn jump(&self, memory: &mut Memory, expected: Option<u32>) -> bool {
        expected.is_some_and(|expected| memory.counters.raise(self.mark, expected.saturating_add(1)))
    }

    /// Ciphers an APDU. One row of counters serves the global and the dedicated key: a meter may look at either.
    ///
    /// # Errors
    /// When no counter is left or can be stored.
    pub(super) async fn over(&self, plain: &[u8], memory: &mut Memory) -> Result<Vec<u8>, MeterError> {
        if !self.ciphered {
            return Ok(plain.to_vec());
        }
        self.keys.protect(plain, &self.how, self.counter(memory).await?).map_err(|fault| unasked(fault.to_string()))
    }

    /// Ciphers the initiate-request, which has one form only.
    ///
    /// # Errors
    /// As [`Self::over`].
    pub(super) async fn initiate(&self, plain: &[u8], memory: &mut Memory) -> Result<Vec<u8>, MeterError> {
        let how = How { form: Form::Service, name: KeyName::Global, ..self.how };
        let counter = self.counter(memory).await?;
        self.keys.protect(plain, &how, counter).map_err(|fault| unasked(fault.to_string()))
    }

    /// Deciphers an APDU, whichever form it has. A refusal may come plain: a meter that can't decipher can't cipher.
    ///
    /// # Errors
    /// When it can't be believed.
    pub(super) fn off(&mut self, apdu: Vec<u8>) -> Result<Vec<u8>, MeterError> {
        if !self.ciphered || matches!(apdu.first(), Some(&(0xD8 | 0x0E))) {
            return off_nothing(apdu);
        }
        let opened = self.keys.unprotect(&apdu, self.receiver.peer());
        opened.and_then(|opened| self.receiver.take(opened)).map_err(fault)
    }
}

/// An APDU of an association that ciphers nothing.
///
/// # Errors
/// When it is ciphered.
pub(super) fn off_nothing(apdu: Vec<u8>) -> Result<Vec<u8>, MeterError> {
    if is_ciphered(&apdu) {
        let message = "a ciphered answer came, but the settings name no security; set dlms.security and key_file";
        return Err(MeterError::Damaged(message.to_owned()));
    }
    Ok(apdu)
}

fn fault(fault: Fault) -> MeterError {
    MeterError::Damaged(fault.to_string())
}
