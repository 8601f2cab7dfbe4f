//! SET and ACTION, in blocks where the meter's APDUs are too short for them.

use super::block::Assembly;
use super::{Content, Services, damage, is_secret, takes_secret};
use crate::meter::MeterError;
use crate::wire::dlms::{
    ActionRequest, ActionResponse, ActionResponseWithOptionalData, ActionResult, Apdu, AttributeDescriptor,
    Conformance, Data, DataAccessResult, DataBlockSA, GetDataResult, InvokeId, MethodDescriptor, SetRequest,
    SetResponse, decode, encode,
};

/// What stands before the bytes of a block at most: tags, descriptor, no selection, number, length.
const BLOCK_HEAD: usize = 3 + 9 + 1 + 5 + 4;

/// What a method gives: its returned value if it has one, or why it was not done.
pub(in crate::meter::dlms) type Done = Result<Option<Content>, ActionResult>;

impl Services<'_> {
    /// Writes one attribute, once.
    ///
    /// # Errors
    /// As [`get`](Self::get); whether it was written is then not known. [`MeterError::Order`] when the meter grants no
    /// such service or takes no value so long.
    pub(in crate::meter::dlms) async fn set(
        &mut self,
        descriptor: AttributeDescriptor,
        value: &Content,
    ) -> Result<Result<(), DataAccessResult>, MeterError> {
        self.require(Conformance::SET, "SET")?;
        if self.association.has_short_names() {
            return self.set_short(descriptor, value).await;
        }
        let invoke_id = self.number();
        let request = SetRequest::Normal { invoke_id, descriptor, access: None, value: value.data() };
        let request = Apdu::SetRequest(request);
        if encode(&request).map_err(order)?.len() <= self.longest_request() {
            let answer = self.say_with(&request, is_secret(descriptor)).await?;
            return match self.set_response(&answer, invoke_id)? {
                SetResponse::Normal { result, .. } => Ok(result.ok()),
                _ => Err(damage("one value was written and the answer is about blocks or lists")),
            };
        }
        self.require(Conformance::BLOCK_TRANSFER_WITH_SET_OR_WRITE, "SET in blocks")?;
        for (block_number, last_block, raw_data) in self.cut(value)? {
            let block = DataBlockSA { last_block, block_number, raw_data };
            let request = if block_number == 1 {
                SetRequest::WithFirstDataBlock { invoke_id, descriptor, access: None, block }
            } else {
                SetRequest::WithDataBlock { invoke_id, block }
            };
            let answer = self.say_with(&Apdu::SetRequest(request), is_secret(descriptor)).await?;
            match self.set_response(&answer, invoke_id)? {
                SetResponse::DataBlock { block_number: theirs, .. } if !last_block && theirs == block_number => {}
                SetResponse::LastDataBlock { result, block_number: theirs, .. } if theirs == block_number => {
                    // Before the last block this is a refusal, whatever it says.
                    return Ok(if last_block { result.ok() } else { Err(result) });
                }
                SetResponse::Normal { result, .. } if last_block || !result.is_success() => return Ok(result.ok()),
                _ => return Err(damage("the meter confirms another block than it was given")),
            }
        }
        Err(damage("the meter did not confirm the last block"))
    }

    /// Has a method done, once.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub(in crate::meter::dlms) async fn action(
        &mut self,
        descriptor: MethodDescriptor,
        parameter: Option<&Content>,
    ) -> Result<Done, MeterError> {
        if self.association.has_short_names() {
            return self.act_short(descriptor, parameter).await;
        }
        self.require(Conformance::ACTION, "ACTION")?;
        let invoke_id = self.number();
        let request = ActionRequest::Normal { invoke_id, descriptor, parameters: parameter.map(Content::data) };
        let request = Apdu::ActionRequest(request);
        if encode(&request).map_err(order)?.len() <= self.longest_request() {
            let answer = self.say_with(&request, takes_secret(descriptor)).await?;
            return self.outcome(&answer, invoke_id).await;
        }
        self.require(Conformance::BLOCK_TRANSFER_WITH_ACTION, "ACTION in blocks")?;
        let Some(parameter) = parameter else { return Err(damage("the meter takes no request at all")) };
        for (block_number, last_block, raw_data) in self.cut(parameter)? {
            let block = DataBlockSA { last_block, block_number, raw_data };
            let request = if block_number == 1 {
                ActionRequest::WithFirstPblock { invoke_id, descriptor, block }
            } else {
                ActionRequest::WithPblock { invoke_id, block }
            };
            let answer = self.say_with(&Apdu::ActionRequest(request), takes_secret(descriptor)).await?;
            if last_block {
                return self.outcome(&answer, invoke_id).await;
            }
            match self.action_response(&answer, invoke_id)? {
                ActionResponse::NextPblock { block_number: theirs, .. } if theirs == block_number => {}
                ActionResponse::Normal { response, .. } if !response.result.is_success() => {
                    return Ok(Err(response.result));
                }
                _ => return Err(damage("the meter confirms another block than it was given")),
            }
        }
        Err(damage("the meter did not confirm the last block"))
    }

    /// What came of a method, also when its returned value comes in blocks.
    async fn outcome(&mut self, answer: &[u8], invoke_id: InvokeId) -> Result<Done, MeterError> {
        let mut assembly = Assembly::default();
        let (mut number, mut last) = match self.action_response(answer, invoke_id)? {
            ActionResponse::Normal { response, .. } => return done(&response),
            ActionResponse::WithPblock { block, .. } => {
                assembly.push(block.block_number, block.last_block, block.raw_data)?;
                (block.block_number, block.last_block)
            }
            _ => return Err(damage("one method was asked for and the answer is about others")),
        };
        while !last {
            let request = ActionRequest::NextPblock { invoke_id, block_number: number };
            let answer = self.say(&Apdu::ActionRequest(request)).await?;
            match self.action_response(&answer, invoke_id)? {
                ActionResponse::WithPblock { block, .. } => {
                    assembly.push(block.block_number, block.last_block, block.raw_data)?;
                    (number, last) = (block.block_number, block.last_block);
                }
                ActionResponse::Normal { response, .. } if !response.result.is_success() => {
                    return Ok(Err(response.result));
                }
                _ => return Err(damage("something else came instead of a block")),
            }
        }
        let (bytes, _) = assembly.finish();
        // The blocks hold result and value; some meters leave the result out.
        match decode::<ActionResponseWithOptionalData<'_>>(&bytes) {
            Ok((response, [])) => done(&response),
            _ => Content::first_of(bytes).map(|content| Ok(Some(content))),
        }
    }

    /// A long value in blocks: number, whether it is the last, bytes.
    ///
    /// # Errors
    /// [`MeterError::Order`] when the meter takes nothing so long as the head of a block.
    fn cut<'v>(&self, value: &'v Content) -> Result<impl Iterator<Item = (u32, bool, &'v [u8])> + use<'v>, MeterError> {
        let size = self.longest_request().saturating_sub(BLOCK_HEAD);
        if size == 0 {
            return Err(MeterError::Order(
                "the meter takes no request that is long enough to write anything".to_owned(),
            ));
        }
        let count = value.bytes().len().div_ceil(size);
        let blocks = value.bytes().chunks(size).enumerate();
        Ok(blocks.map(move |(n, bytes)| (u32::try_from(n + 1).unwrap_or(u32::MAX), n + 1 == count, bytes)))
    }

    fn require(&self, service: Conformance, name: &str) -> Result<(), MeterError> {
        let refused = || MeterError::Order(format!("the meter grants this client no {name}"));
        if self.grants(service) { Ok(()) } else { Err(refused()) }
    }

    fn set_response<'d>(&self, answer: &'d [u8], invoke_id: InvokeId) -> Result<SetResponse<'d>, MeterError> {
        match self.believed(answer)? {
            Apdu::SetResponse(response) => {
                let (SetResponse::Normal { invoke_id: theirs, .. }
                | SetResponse::DataBlock { invoke_id: theirs, .. }
                | SetResponse::LastDataBlock { invoke_id: theirs, .. }
                | SetResponse::LastDataBlockWithList { invoke_id: theirs, .. }
                | SetResponse::WithList { invoke_id: theirs, .. }) = response;
                self.same(invoke_id, theirs)?;
                Ok(response)
            }
            other => Err(self.foreign(&other)),
        }
    }

    fn action_response<'d>(&self, answer: &'d [u8], invoke_id: InvokeId) -> Result<ActionResponse<'d>, MeterError> {
        match self.believed(answer)? {
            Apdu::ActionResponse(response) => {
                let (ActionResponse::Normal { invoke_id: theirs, .. }
                | ActionResponse::WithPblock { invoke_id: theirs, .. }
                | ActionResponse::WithList { invoke_id: theirs, .. }
                | ActionResponse::NextPblock { invoke_id: theirs, .. }) = response;
                self.same(invoke_id, theirs)?;
                Ok(response)
            }
            other => Err(self.foreign(&other)),
        }
    }
}

fn done(response: &ActionResponseWithOptionalData<'_>) -> Result<Done, MeterError> {
    if !response.result.is_success() {
        return Ok(Err(response.result));
    }
    match response.return_parameters {
        None | Some(GetDataResult::Data(Data::Null)) => Ok(Ok(None)),
        Some(GetDataResult::Data(data)) => Content::first_of(encode(&data).map_err(order)?).map(|c| Ok(Some(c))),
        // The method was done; it has nothing to say.
        Some(GetDataResult::Error(DataAccessResult::Success)) => Ok(Ok(None)),
        Some(GetDataResult::Error(refusal)) => Ok(Err(ActionResult::from_u8(refusal.as_u8()))),
    }
}

fn order(error: crate::wire::DecodeError) -> MeterError {
    MeterError::Order(error.to_string())
}
