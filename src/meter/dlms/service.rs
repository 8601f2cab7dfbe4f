//! Reads, writes and acts on attributes (IEC 62056-5-3, clause 7), in as few APDUs as the meter allows.

use super::association::{Association, damaged, short};
use crate::meter::MeterError;
use crate::os::line::Line;
use crate::wire::dlms::{
    Apdu, AttributeDescriptor, DataAccessResult, DataBuf, GetDataResult, GetRequest, GetResponse, InvokeId, decode,
    encode,
};

/// What a meter gives of an attribute: its value, or why there is none.
pub(super) type Answer = Result<DataBuf, DataAccessResult>;

/// Reads one attribute.
///
/// # Errors
/// When the line fails or the answer can't be believed; a refusal of the attribute is in the answer.
pub(super) async fn get(
    association: &mut Association,
    line: &mut Line,
    attribute: AttributeDescriptor,
) -> Result<Answer, MeterError> {
    if association.has_short_names() {
        return short::read_attribute(association, line, attribute).await;
    }
    let invoke_id = InvokeId::confirmed(1);
    let request = GetRequest::Normal { invoke_id, descriptor: attribute, access: None };
    let request = encode(&Apdu::GetRequest(request)).map_err(damaged)?;
    let answer = association.call(line, &request).await?;
    match decode::<Apdu<'_>>(&answer).map_err(damaged)?.0 {
        Apdu::GetResponse(GetResponse::Normal { result: GetDataResult::Data(data), .. }) => {
            let data = DataBuf::from_data(&data).map_err(|error| MeterError::Damaged(error.to_string()))?;
            Ok(Ok(data))
        }
        Apdu::GetResponse(GetResponse::Normal { result: GetDataResult::Error(refusal), .. }) => Ok(Err(refusal)),
        other => Err(MeterError::Damaged(format!("a get-response was expected, {:?} came", other.tag()))),
    }
}
