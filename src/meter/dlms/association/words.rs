//! What a meter's refusals mean, and what to do about them.

use crate::wire::dlms::{
    Aare, AssociationResult, ConfirmedServiceError, Diagnostic, ExceptionResponse, ServiceError, StateError,
    UserDiagnostic,
};

/// A refused association (IEC 62056-5-3, clause 6.2, associate-source-diagnostic).
pub(super) fn refusal(answer: &Aare<'_>) -> String {
    let why = match answer.diagnostic {
        Diagnostic::User(user) => match user {
            UserDiagnostic::Null | UserDiagnostic::NoReasonGiven => "it gives no reason".to_owned(),
            UserDiagnostic::ApplicationContextNameNotSupported => {
                "it does not support this context; check dlms.referencing and dlms.security".to_owned()
            }
            UserDiagnostic::AuthenticationMechanismNameNotRecognised => {
                "it does not know this authentication for this client; check dlms.client and dlms.authentication"
                    .to_owned()
            }
            UserDiagnostic::AuthenticationMechanismNameRequired | UserDiagnostic::AuthenticationRequired => {
                "this client must authenticate itself; set dlms.authentication".to_owned()
            }
            UserDiagnostic::AuthenticationFailure => "the password or key is wrong".to_owned(),
            UserDiagnostic::Other(3) => "it does not know the calling title; check dlms.system_title".to_owned(),
            UserDiagnostic::Other(code) => format!("its diagnostic is {code}"),
            other => format!("its diagnostic is {}", other.as_u8()),
        },
        Diagnostic::Provider(2) => "it supports no common version of the association's protocol".to_owned(),
        Diagnostic::Provider(code) => format!("its provider's diagnostic is {code}"),
    };
    let lasts = if answer.result == AssociationResult::RejectedTransient {
        "the association for now"
    } else {
        "the association"
    };
    format!("{lasts}: {why}")
}

/// A confirmed-service-error (clause 8.5): class and code of an error of the initiate or of a service.
pub(super) fn service_error(error: ConfirmedServiceError) -> String {
    let ConfirmedServiceError { service, error_class, error_code } = error;
    let meaning = match (error_class, error_code) {
        (0, 1) => "application reference: timeout elapsed",
        (0, 2) => "application reference: application unreachable",
        (0, 3) => "application reference: invalid; check dlms.server and dlms.client",
        (0, 4) => "application reference: unsupported by it",
        (0, 5) => "application reference: a provider error",
        (0, 6) => "it could not decipher what was sent; check key_file, authentication_key_file and dlms.suite",
        (1, 1) => "hardware: memory unavailable",
        (1, 2) => "hardware: processor resource unavailable",
        (1, 3) => "hardware: mass storage unavailable",
        (1, _) => "hardware: a fault",
        (2, _) => "VDE state: it is not ready",
        (3, 1) => "service: PDU size",
        (3, 2) => "service: unsupported",
        (4, _) => "definition: no such object",
        (5, 1) => "access: scope of access violated",
        (5, 2) => "access: object access violated",
        (5, 3) => "access: hardware fault",
        (5, 4) => "access: object unavailable",
        (6, 1) => "initiate: it supports no version of DLMS that is spoken here",
        (6, 2) => "initiate: it supports nothing of what was proposed; check dlms.referencing",
        (6, 3) => "initiate: the PDU size is too short; raise dlms.max_pdu",
        (6, 4) => "initiate: refused by its VDE handler",
        _ => "see the class and code",
    };
    format!("{meaning} (confirmed-service-error {service}, class {error_class}, code {error_code})")
}

/// An exception-response (clause 8.5).
pub(super) fn exception(exception: &ExceptionResponse) -> String {
    let state = match exception.state_error {
        StateError::ServiceNotAllowed => "the service is not allowed here",
        StateError::ServiceUnknown => "it does not know the service",
        _ => "its state does not allow it",
    };
    let why = match exception.service_error {
        ServiceError::OperationNotPossible => "the operation is not possible".to_owned(),
        ServiceError::ServiceNotSupported => "the service is not supported".to_owned(),
        ServiceError::OtherReason => "for another reason".to_owned(),
        ServiceError::PduTooLong => "the APDU is too long".to_owned(),
        ServiceError::DecipheringError => {
            "it could not decipher it; check key_file, authentication_key_file, dlms.security and dlms.suite".to_owned()
        }
        ServiceError::InvocationCounterError => "the invocation counter is stale".to_owned(),
        other => format!("code {}", other.as_u8()),
    };
    format!("{state}: {why} (exception-response)")
}
