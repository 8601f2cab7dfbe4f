//! Reads, writes and acts on attributes (IEC 62056-5-3, clause 7), in as few APDUs as the meter allows.
//!
//! Invariants: an answer counts only when it has the number of its request; blocks are taken in their
//! order or not at all; what is put together of blocks never exceeds [`LONGEST_VALUE`]; a refusal of an attribute is a
//! value, not an error. Nothing is asked twice here: what may be repeated is repeated by the link. After
//! an error the association is of no use any more. Start with [`Services`].

use std::time::Duration;

use tokio::time::Instant;

use super::association::{Association, damaged};
use crate::meter::MeterError;
use crate::os::line::Line;
use crate::wire::dlms::secret::Secret;
use crate::wire::dlms::{
    Apdu, AttributeDescriptor, AttributeDescriptorWithSelection, Conformance, Data, DataAccessResult, DataBuf,
    GetDataResult, GetRequest, GetResponse, InvokeId, List, SelectiveAccess, ServiceError, decode, encode,
};

mod block;
mod refusal;
mod short;
#[cfg(test)]
mod tests;
mod veil;
mod write;

pub(super) use refusal::{action_words, quality, words};
pub(super) use veil::{is_secret, takes_secret};

/// The most bytes that the blocks of one answer may add up to.
pub(super) const LONGEST_VALUE: usize = 1024 * 1024;
/// The most attributes of one request.
const LONGEST_LIST: usize = 16;
/// What an element of a list in a request takes, and what stands before the list.
const LIST_ITEM: usize = 10;
const LIST_HEAD: usize = 4;

/// What a meter gives of an attribute: its value, or why there is none.
pub(super) type Answer = Result<Content, DataAccessResult>;

/// A value as the meter coded it; it takes no more memory than it had bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content(Vec<u8>);

impl Content {
    /// Takes the value at the beginning of `bytes`; what follows it is left out, as some meters let bytes
    /// follow that belong to nothing.
    ///
    /// # Errors
    /// [`MeterError::Damaged`] when there is none.
    pub(super) fn first_of(mut bytes: Vec<u8>) -> Result<Self, MeterError> {
        let (_, rest) = decode::<Data<'_>>(&bytes).map_err(damaged)?;
        let length = bytes.len() - rest.len();
        bytes.truncate(length);
        Ok(Self(bytes))
    }

    /// Codes a value.
    ///
    /// # Errors
    /// [`MeterError::Order`] when it is longer than its length field can say.
    pub(super) fn of(value: &DataBuf) -> Result<Self, MeterError> {
        encode(value).map(Self).map_err(|error| MeterError::Order(error.to_string()))
    }

    /// The value.
    pub(super) fn data(&self) -> Data<'_> {
        decode::<Data<'_>>(&self.0).map_or(Data::Null, |(data, _)| data)
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Which part of an attribute is wanted (IEC 62056-5-3, clause 7.4.1.6).
#[derive(Debug, Clone)]
pub(super) struct Selection {
    /// What the parameters mean: 1 a range, 2 entries, for a profile.
    pub(super) selector: u8,
    /// The parameters, coded.
    pub(super) parameters: Content,
}

/// How long a meter that could not answer a list is asked for each attribute by itself.
const WITHOUT_LISTS: Duration = Duration::from_hours(1);

/// What is remembered of a meter's services from one association to the next.
#[derive(Debug, Default)]
pub(super) struct Talk {
    number: u8,
    /// When the meter could not answer a list.
    unlisted: Option<Instant>,
}

impl Talk {
    /// Whether it is worth asking for several attributes together.
    fn lists(&self) -> bool {
        self.unlisted.is_none_or(|at| at.elapsed() >= WITHOUT_LISTS)
    }

    fn refuse_lists(&mut self) {
        self.unlisted = Some(Instant::now());
    }
}

/// The services of one association.
pub(super) struct Services<'a> {
    association: &'a mut Association,
    line: &'a mut Line,
    talk: &'a mut Talk,
}

impl<'a> Services<'a> {
    /// The services of an association that is open.
    pub(super) const fn new(association: &'a mut Association, line: &'a mut Line, talk: &'a mut Talk) -> Self {
        Self { association, line, talk }
    }

    /// Whether the meter grants all of this.
    pub(super) fn grants(&self, service: Conformance) -> bool {
        let short = self.association.has_short_names();
        self.association.granted().contains(if short { short::called(service) } else { service })
    }

    /// Reads one attribute.
    ///
    /// # Errors
    /// When the line fails, the answer can't be believed, or the meter refuses the service as such.
    pub(super) async fn get(&mut self, attribute: AttributeDescriptor) -> Result<Answer, MeterError> {
        Ok(self.get_part(attribute, None).await?.0)
    }

    /// Reads a part of an attribute, or all of it; tells also of how many blocks the answer was made.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(super) async fn get_part(
        &mut self,
        attribute: AttributeDescriptor,
        part: Option<&Selection>,
    ) -> Result<(Answer, u32), MeterError> {
        if is_secret(attribute) {
            // Nobody needs to see a password, and the answer would stand in traces.
            return Ok((Err(DataAccessResult::ReadWriteDenied), 1));
        }
        if self.association.has_short_names() {
            return Ok((self.get_short(attribute, part).await?, 1));
        }
        let invoke_id = self.number();
        let access = part.map(|part| SelectiveAccess { selector: part.selector, parameters: part.parameters.data() });
        let request = GetRequest::Normal { invoke_id, descriptor: attribute, access };
        let answer = self.say(&Apdu::GetRequest(request)).await?;
        match self.response(&answer, invoke_id)? {
            GetResponse::Normal { result, .. } => Ok((content(result)?, 1)),
            GetResponse::WithDataBlock { block, .. } => {
                let (bytes, blocks) = self.rest_of(invoke_id, block).await?;
                Ok((bytes.map_or_else(|refusal| Ok(Err(refusal)), |b| Content::first_of(b).map(Ok))?, blocks))
            }
            GetResponse::WithList { .. } => Err(damage("one value was asked for and a list came")),
        }
    }

    /// Reads several attributes: together where the meter grants that and can do it, else one by one. There are as
    /// many answers as attributes, unless an error ended it: then those before it.
    pub(super) async fn get_all(
        &mut self,
        attributes: &[AttributeDescriptor],
    ) -> (Vec<Answer>, Result<(), MeterError>) {
        let mut answers = Vec::with_capacity(attributes.len());
        let outcome = self.get_each(attributes, &mut answers).await;
        (answers, outcome)
    }

    /// As [`get_all`](Self::get_all), into `answers` as they come.
    ///
    /// # Errors
    /// As [`get`](Self::get); the answers before it are there.
    pub(super) async fn get_each(
        &mut self,
        attributes: &[AttributeDescriptor],
        answers: &mut Vec<Answer>,
    ) -> Result<(), MeterError> {
        let room = self.longest_request().saturating_sub(LIST_HEAD) / LIST_ITEM;
        for some in attributes.chunks(room.clamp(1, LONGEST_LIST)) {
            if self.asks_together(some)
                && let Some(together) = self.get_list(some).await?
            {
                answers.extend(together);
                continue;
            }
            for attribute in some {
                answers.push(self.get(*attribute).await?);
            }
        }
        Ok(())
    }

    /// Whether these attributes are asked for with one request.
    pub(super) fn asks_together(&self, attributes: &[AttributeDescriptor]) -> bool {
        attributes.len() > 1
            && !attributes.iter().any(|attribute| is_secret(*attribute))
            && self.talk.lists()
            && !self.association.has_short_names()
            && self.grants(Conformance::MULTIPLE_REFERENCES)
    }

    /// Reads several attributes with one request; `None` when the meter can't do that.
    async fn get_list(&mut self, attributes: &[AttributeDescriptor]) -> Result<Option<Vec<Answer>>, MeterError> {
        let invoke_id = self.number();
        let mut items = Vec::with_capacity(attributes.len() * LIST_ITEM);
        for descriptor in attributes {
            let item = AttributeDescriptorWithSelection { descriptor: *descriptor, access: None };
            items.extend(encode(&item).map_err(damaged)?);
        }
        let list = List::from_raw(attributes.len(), &items);
        let answer = match self.say(&Apdu::GetRequest(GetRequest::WithList { invoke_id, list })).await {
            Err(MeterError::Refused(_)) => {
                self.talk.refuse_lists();
                return Ok(None);
            }
            answer => answer?,
        };
        let response = match self.response(&answer, invoke_id) {
            Ok(response) => response,
            // A list that can't be cut into its values, as when bytes follow one of them, or a meter that grants more than it can do.
            Err(MeterError::Damaged(_) | MeterError::Refused(_)) if is_own(&answer, invoke_id) => {
                self.talk.refuse_lists();
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let answers = match response {
            GetResponse::WithList { results, .. } => answers_of(results.iter()),
            GetResponse::WithDataBlock { block, .. } => match self.rest_of(invoke_id, block).await?.0 {
                Ok(bytes) => match decode::<List<'_, GetDataResult<'_>>>(&bytes) {
                    Ok((results, _)) => answers_of(results.iter()),
                    Err(_) => None,
                },
                Err(_) => None,
            },
            // Meters that refuse the whole list say so with one result.
            GetResponse::Normal { .. } => None,
        };
        let answers = answers.filter(|answers| answers.len() == attributes.len());
        if answers.is_some() {
            self.talk.unlisted = None;
        } else {
            self.talk.refuse_lists();
        }
        Ok(answers)
    }

    /// Takes that the meter is another one than it was.
    pub(super) fn forget(&mut self) {
        self.talk.unlisted = None;
        self.association.forget_names();
    }

    /// The longest request that the meter takes, in bytes; 0 when ciphering leaves nothing of what it takes.
    fn longest_request(&self) -> usize {
        self.association.longest_request()
    }

    /// A number for the next request: an answer that comes late has another one.
    fn number(&mut self) -> InvokeId {
        self.talk.number = (self.talk.number + 1) % 16;
        InvokeId::confirmed(self.talk.number)
    }

    async fn say(&mut self, request: &Apdu<'_>) -> Result<Vec<u8>, MeterError> {
        self.say_with(request, false).await
    }

    /// Says what may hold a password or key, which no trace shows then.
    async fn say_with(&mut self, request: &Apdu<'_>, secret: bool) -> Result<Vec<u8>, MeterError> {
        let coded = encode(request).map_err(|error| MeterError::Order(error.to_string()))?;
        if !secret {
            return self.association.call(self.line, &coded).await;
        }
        let coded = Secret::new(coded);
        self.association.call_secret(self.line, coded.bytes()).await
    }

    /// The get-response in an answer.
    fn response<'d>(&self, answer: &'d [u8], invoke_id: InvokeId) -> Result<GetResponse<'d>, MeterError> {
        match self.believed(answer)? {
            Apdu::GetResponse(response) => {
                let (GetResponse::Normal { invoke_id: theirs, .. }
                | GetResponse::WithDataBlock { invoke_id: theirs, .. }
                | GetResponse::WithList { invoke_id: theirs, .. }) = response;
                self.same(invoke_id, theirs)?;
                Ok(response)
            }
            other => Err(self.foreign(&other)),
        }
    }

    /// An answer as an APDU; a refusal of the service as such is an error.
    fn believed<'d>(&self, answer: &'d [u8]) -> Result<Apdu<'d>, MeterError> {
        match decode::<Apdu<'_>>(answer).map_err(damaged)?.0 {
            Apdu::ExceptionResponse(exception) => {
                let why = match exception.service_error {
                    ServiceError::OperationNotPossible => "the operation is not possible",
                    ServiceError::ServiceNotSupported => "it does not know the service",
                    ServiceError::PduTooLong => "the request is too long for it",
                    ServiceError::DecipheringError => "it can't decipher the request",
                    ServiceError::InvocationCounterError => "the invocation counter is too low",
                    _ => "it gives no reason",
                };
                Err(MeterError::Refused(format!("the service: {why}")))
            }
            Apdu::ConfirmedServiceError(error) => Err(MeterError::Refused(format!("the service: {error:?}"))),
            apdu => Ok(apdu),
        }
    }

    fn same(&self, ours: InvokeId, theirs: InvokeId) -> Result<(), MeterError> {
        if ours.id() == theirs.id() {
            return Ok(());
        }
        Err(self.out_of_step(format!("request {} got the answer of request {}", ours.id(), theirs.id())))
    }

    fn foreign(&self, apdu: &Apdu<'_>) -> MeterError {
        self.out_of_step(format!("another kind of answer came: {:?}", apdu.tag()))
    }

    /// What else may be under way can't be known: a connection is opened again, a line is read away.
    fn out_of_step(&self, what: String) -> MeterError {
        if self.line.is_tcp() { MeterError::OutOfStep(what) } else { MeterError::Damaged(what) }
    }
}

/// Whether an answer, readable or not, is a get-response or a refusal of this request.
fn is_own(answer: &[u8], invoke_id: InvokeId) -> bool {
    const GET_RESPONSE: u8 = 0xC4;
    const EXCEPTION: u8 = 0xD8;
    const SERVICE_ERROR: u8 = 0x0E;
    match answer {
        [GET_RESPONSE, _, theirs, ..] => InvokeId(*theirs).id() == invoke_id.id(),
        [EXCEPTION | SERVICE_ERROR, ..] => true,
        _ => false,
    }
}

fn content(result: GetDataResult<'_>) -> Result<Answer, MeterError> {
    match result {
        GetDataResult::Data(data) => Ok(Ok(Content(encode(&data).map_err(damaged)?))),
        GetDataResult::Error(DataAccessResult::Success) => Err(damage("neither a value nor a refusal came")),
        GetDataResult::Error(refusal) => Ok(Err(refusal)),
    }
}

fn answers_of<'d, E>(results: impl Iterator<Item = Result<GetDataResult<'d>, E>>) -> Option<Vec<Answer>> {
    results.map(|result| content(result.ok()?).ok()).collect()
}

/// The answer can't be what it should.
pub(super) fn damage(what: &str) -> MeterError {
    MeterError::Damaged(what.to_owned())
}
