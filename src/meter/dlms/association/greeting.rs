//! The request for an association and its answer (IEC 62056-5-3, clause 6.2; ISO/IEC 8650).

use super::super::association::damaged;
use crate::meter::MeterError;
use crate::meter::dlms::settings::{DlmsAuthentication, DlmsReferencing, DlmsSecurity, DlmsSettings};
use crate::wire::dlms::protect::SystemTitle;
use crate::wire::dlms::secret::Secret;
use crate::wire::dlms::{Aarq, Apdu, ApplicationContext, AuthMechanism, Conformance, InitiateRequest, encode};

/// How this client will show who it is.
pub(super) const fn mechanism(authentication: DlmsAuthentication) -> AuthMechanism {
    match authentication {
        DlmsAuthentication::None => AuthMechanism::None,
        DlmsAuthentication::Low => AuthMechanism::Low,
        DlmsAuthentication::Manufacturer => AuthMechanism::HighManufacturer,
        DlmsAuthentication::Md5 => AuthMechanism::HighMd5,
        DlmsAuthentication::Sha1 => AuthMechanism::HighSha1,
        DlmsAuthentication::Gmac => AuthMechanism::HighGmac,
        DlmsAuthentication::Sha256 => AuthMechanism::HighSha256,
        DlmsAuthentication::Ecdsa => AuthMechanism::HighEcdsa,
    }
}

/// The context that the settings ask for.
pub(super) fn context(dlms: &DlmsSettings) -> ApplicationContext {
    match (dlms.referencing, dlms.security) {
        (DlmsReferencing::LogicalNames, DlmsSecurity::None) => ApplicationContext::LogicalName,
        (DlmsReferencing::LogicalNames, _) => ApplicationContext::LogicalNameCiphered,
        (DlmsReferencing::ShortNames, DlmsSecurity::None) => ApplicationContext::ShortName,
        (DlmsReferencing::ShortNames, _) => ApplicationContext::ShortNameCiphered,
    }
}

/// The services that are proposed: those that are spoken here.
pub(super) fn proposal(context: ApplicationContext, general_blocks: bool) -> Conformance {
    let mut proposed = if context.is_logical_name() {
        Conformance::CLIENT_DEFAULT - Conformance::ACCESS - Conformance::GENERAL_PROTECTION
    } else {
        Conformance::READ
            | Conformance::WRITE
            | Conformance::BLOCK_TRANSFER_WITH_GET_OR_READ
            | Conformance::MULTIPLE_REFERENCES
            | Conformance::PARAMETERIZED_ACCESS
    };
    proposed.set(Conformance::GENERAL_PROTECTION, context.is_ciphered());
    proposed.set(Conformance::GENERAL_BLOCK_TRANSFER, general_blocks);
    proposed
}

/// The initiate-request, plain.
///
/// # Errors
/// When the dedicated key is longer than its length can say.
pub(super) fn initiate(proposed: Conformance, max_pdu: u16, dedicated: Option<&Secret>) -> Result<Vec<u8>, MeterError> {
    let request = InitiateRequest {
        dedicated_key: dedicated.map(Secret::bytes),
        response_allowed: None,
        proposed_quality_of_service: None,
        proposed_dlms_version: 6,
        proposed_conformance: proposed,
        client_max_receive_pdu_size: max_pdu,
    };
    encode(&Apdu::InitiateRequest(request)).map_err(damaged)
}

/// The whole request; `value` is the password or the challenge.
///
/// # Errors
/// When a field is longer than its length can say.
pub(super) fn aarq(
    context: ApplicationContext,
    mechanism: AuthMechanism,
    title: SystemTitle,
    value: &[u8],
    information: &[u8],
) -> Result<Vec<u8>, MeterError> {
    let authenticated = mechanism != AuthMechanism::None;
    // Only these make something of the title; older meters don't know the field.
    let titled = context.is_ciphered() || mechanism.arc() >= AuthMechanism::HighGmac.arc();
    let request = Aarq {
        application_context: Some(context),
        calling_ap_title: titled.then_some(&title[..]),
        sender_acse_requirements: authenticated,
        mechanism_name: authenticated.then_some(mechanism),
        calling_authentication_value: authenticated.then_some(value),
        user_information: Some(information),
        ..Aarq::default()
    };
    encode(&request).map_err(damaged)
}
