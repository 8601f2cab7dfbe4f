//! Agrees with a meter who this client is (IEC 62056-5-3, clause 6), and ciphers what is said then.

use super::dlms;
use super::link::Link;
use super::settings::{DlmsAuthentication, DlmsSecurity};
use crate::meter::{MeterError, MeterSettings};
use crate::os::line::Line;
use crate::wire::dlms::{
    Aare, Aarq, Apdu, ApplicationContext, Conformance, InitiateRequest, ReleaseReason, Rlrq, decode, encode,
};

/// An association with one logical device.
pub(super) struct Association {
    link: Link,
    client: u16,
    max_pdu: u16,
    granted: Conformance,
    server_max_pdu: usize,
}

impl Association {
    /// Prepares it.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the settings.
    pub(super) fn new(settings: &MeterSettings) -> Result<Self, String> {
        let dlms = dlms(settings)?;
        if dlms.authentication != DlmsAuthentication::None || dlms.security != DlmsSecurity::None {
            return Err("authentication and security are not built yet".to_owned());
        }
        Ok(Self {
            link: Link::new(settings)?,
            client: u16::try_from(dlms.client.value()).unwrap_or(16),
            max_pdu: u16::try_from(dlms.max_pdu.value()).unwrap_or(u16::MAX),
            granted: Conformance::default(),
            server_max_pdu: 0,
        })
    }

    /// Opens link and association.
    ///
    /// # Errors
    /// When the meter does not answer, or refuses this client ([`MeterError::Refused`]).
    pub(super) async fn open(&mut self, line: &mut Line) -> Result<(), MeterError> {
        self.link.open(line, self.client).await?;
        let initiate = InitiateRequest {
            dedicated_key: None,
            response_allowed: None,
            proposed_quality_of_service: None,
            proposed_dlms_version: 6,
            proposed_conformance: Conformance::CLIENT_DEFAULT,
            client_max_receive_pdu_size: self.max_pdu,
        };
        let initiate = encode(&Apdu::InitiateRequest(initiate)).map_err(damaged)?;
        let request = Aarq {
            application_context: Some(ApplicationContext::LogicalName),
            user_information: Some(&initiate),
            ..Aarq::default()
        };
        let request = encode(&request).map_err(damaged)?;
        self.link.send(line, &request).await?;
        let answer = self.link.receive(line).await?;
        let (answer, _) = decode::<Aare<'_>>(&answer).map_err(damaged)?;
        if !answer.is_accepted() {
            return Err(MeterError::Refused(format!("the association: {:?}", answer.diagnostic)));
        }
        let information = answer.user_information.unwrap_or_default();
        let (information, _) = decode::<Apdu<'_>>(information).map_err(damaged)?;
        let Apdu::InitiateResponse(response) = information else {
            return Err(MeterError::Damaged("the association's answer tells nothing of what is granted".to_owned()));
        };
        self.granted = response.negotiated_conformance;
        self.server_max_pdu = usize::from(response.server_max_receive_pdu_size);
        Ok(())
    }

    /// Says one request and gives its answer, both plain; an answer is one APDU, whatever carried it.
    ///
    /// # Errors
    /// When the line fails, or what comes can't be believed.
    pub(super) async fn call(&mut self, line: &mut Line, request: &[u8]) -> Result<Vec<u8>, MeterError> {
        self.link.send(line, request).await?;
        self.link.receive(line).await
    }

    /// What the meter grants.
    pub(super) const fn granted(&self) -> Conformance {
        self.granted
    }

    /// The longest plain request that it takes, in bytes.
    pub(super) const fn longest_request(&self) -> usize {
        self.server_max_pdu
    }

    /// Releases association and link as far as the meter still listens.
    pub(super) async fn close(&mut self, line: &mut Line) {
        let release = Rlrq { reason: Some(ReleaseReason::Normal), user_information: None };
        if let Ok(request) = encode(&release)
            && self.link.send(line, &request).await.is_ok()
        {
            let _ = self.link.receive(line).await;
        }
        self.link.close(line).await;
    }
}

/// What came is not what it should be.
pub(super) fn damaged(error: crate::wire::DecodeError) -> MeterError {
    MeterError::Damaged(error.to_string())
}
