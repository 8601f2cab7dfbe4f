//! The same services by short names (IEC 62056-5-3, clause 9).

use super::write::Done;
use super::{Answer, Content, Selection, Services, is_secret, takes_secret};
use crate::meter::MeterError;
use crate::meter::dlms::association::short;
use crate::wire::dlms::{
    ActionResult, AttributeDescriptor, Conformance, DataAccessResult, DataBuf, LogicalName, MethodDescriptor,
};

/// What a service by logical names is called where short names are used.
pub(super) fn called(service: Conformance) -> Conformance {
    let pairs = [
        (Conformance::GET, Conformance::READ),
        (Conformance::SET, Conformance::WRITE),
        (Conformance::SELECTIVE_ACCESS, Conformance::PARAMETERIZED_ACCESS),
    ];
    let mut theirs = service;
    for (logical, short) in pairs {
        if theirs.contains(logical) {
            theirs = (theirs - logical) | short;
        }
    }
    theirs
}

impl Services<'_> {
    /// All objects where short names are used: class, version, name; `None` where they are not.
    ///
    /// # Errors
    /// When the line fails or the list can't be believed.
    pub(in crate::meter::dlms) async fn short_objects(
        &mut self,
    ) -> Result<Option<Vec<(u16, u8, LogicalName)>>, MeterError> {
        if !self.association.has_short_names() {
            return Ok(None);
        }
        Ok(Some(short::names(self.association, self.line).await?.objects().collect()))
    }

    pub(super) async fn get_short(
        &mut self,
        attribute: AttributeDescriptor,
        part: Option<&Selection>,
    ) -> Result<Answer, MeterError> {
        let part = part.map(|part| buffered(&part.parameters).map(|parameters| (part.selector, parameters)));
        let part = part.transpose()?;
        let part = part.as_ref().map(|(selector, parameters)| (*selector, parameters));
        let answer = short::read_attribute(self.association, self.line, attribute, part).await?;
        answer.map_or_else(|refusal| Ok(Err(refusal)), |value| Content::of(&value).map(Ok))
    }

    pub(super) async fn set_short(
        &mut self,
        attribute: AttributeDescriptor,
        value: &Content,
    ) -> Result<Result<(), DataAccessResult>, MeterError> {
        let secret = is_secret(attribute);
        short::write_attribute(self.association, self.line, attribute, &buffered(value)?, secret).await
    }

    /// A method that gives nothing back is written.
    pub(super) async fn act_short(
        &mut self,
        method: MethodDescriptor,
        parameter: Option<&Content>,
    ) -> Result<Done, MeterError> {
        let names = short::names(self.association, self.line).await?;
        let index = u8::try_from(method.method_id).unwrap_or(0);
        let Some(name) = names.method(method.class_id, method.instance_id, index) else {
            return Ok(Err(ActionResult::ObjectUndefined));
        };
        let parameter = parameter.map_or(Ok(DataBuf::Integer(0)), buffered)?;
        let done = short::write(self.association, self.line, name, &parameter, takes_secret(method)).await?;
        Ok(done.map(|()| None).map_err(|refusal| ActionResult::from_u8(refusal.as_u8())))
    }
}

fn buffered(content: &Content) -> Result<DataBuf, MeterError> {
    DataBuf::from_data(&content.data()).map_err(|error| MeterError::Order(error.to_string()))
}
