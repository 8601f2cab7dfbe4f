//! DLMS/COSEM (IEC 62056-5-3, -6-1, -6-2, -46, -47): APDUs, their values, and what carries them.
//!
//! The crate `dlms-cosem-rs` codes A-XDR, ACSE and the xDLMS services, HDLC frames and wrapper
//! headers; only this room names it (docs/decisions/0013-dlms.md). It allocates nothing while it decodes,
//! bounds the depth of a value, and never panics. Ours are the streams, the ciphering and what
//! real meters do differently.

/// An object's logical name (IEC 62056-6-1), written `1-0:1.8.0*255`.
pub use dlms_cosem_rs::Obis as LogicalName;
pub use dlms_cosem_rs::acse::{
    Aare, Aarq, ApplicationContext, AssociationResult, AuthMechanism, Diagnostic, Referencing, ReleaseReason, Rlre,
    Rlrq, UserDiagnostic,
};
pub use dlms_cosem_rs::axdr::{BitStr, ClockStatus, CompactArray, Data, DataBuf, Date, DateTime, Seq, Time};
pub use dlms_cosem_rs::codec::{Decode, Encode, Error as CodecError, ErrorKind as CodecFault, Reader, Writer};
pub use dlms_cosem_rs::cosem::{ClassDescriptor, describe};
pub use dlms_cosem_rs::xdlms::{
    ActionRequest, ActionResponse, ActionResponseWithOptionalData, ActionResult, Apdu, ApduTag, AttributeDescriptor,
    AttributeDescriptorWithSelection, BlockControl, CipheredService, ConfirmedServiceError, Conformance,
    DataAccessResult, DataBlockG, DataBlockSA, DataNotification, EventNotification, ExceptionResponse,
    GeneralBlockTransfer, GeneralCiphering, GeneralGloCiphering, GetDataResult, GetRequest, GetResponse,
    InitiateRequest, InitiateResponse, InvokeId, KeyInfo, List, MethodDescriptor, Protection, ReadResult,
    SecurityControl, SelectiveAccess, ServiceError, SetRequest, SetResponse, StateError, VariableAccess, WriteResult,
};

use super::DecodeError;

pub mod auth;
pub mod blocks;
pub mod entry;
pub mod hdlc;
pub mod notification;
pub mod open;
pub mod protect;
pub mod push;
pub mod secret;
pub mod shown;
pub mod veil;
pub mod vendor;
pub mod wrap;
pub mod wrapper;

/// Writes one APDU or value.
///
/// # Errors
/// When a part of it is longer than its length field can say.
pub fn encode(item: &impl Encode) -> Result<Vec<u8>, DecodeError> {
    let mut bytes = Vec::with_capacity(item.encoded_len());
    item.encode(&mut bytes).map_err(|error| fault(&error))?;
    Ok(bytes)
}

/// Reads one APDU or value from the beginning of `bytes`, and gives what stands behind it: some meters
/// let bytes follow that belong to nothing.
///
/// # Errors
/// Where and why the bytes are no such thing.
pub fn decode<'a, T: Decode<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), DecodeError> {
    let mut reader = Reader::new(bytes);
    let item = T::decode(&mut reader).map_err(|error| fault(&error))?;
    Ok((item, reader.take_rest()))
}

/// What the crate says of bytes, in our words.
fn fault(error: &dlms_cosem_rs::Error) -> DecodeError {
    DecodeError::new(error.offset, "DLMS", error.kind.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_with_what_follows_it_left_over() {
        let (value, rest) = decode::<Data<'_>>(&[0x06, 0, 0, 0, 7, 0x09, 0x0C]).unwrap();
        assert_eq!(value, Data::DoubleLongUnsigned(7));
        assert_eq!(rest, [0x09, 0x0C]);
        assert!(decode::<Data<'_>>(&[0x06, 0, 0]).is_err());
    }

    #[test]
    fn a_logical_name_is_written_as_the_standard_writes_it() {
        assert_eq!(LogicalName::new(1, 0, 1, 8, 0, 255).to_string(), "1-0:1.8.0*255");
    }
}
