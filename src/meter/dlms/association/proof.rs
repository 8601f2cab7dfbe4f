//! The third and the fourth pass of high level security (IEC 62056-5-3, clause 5.3.4): both sides show what they know.

use super::short::ASSOCIATION;
use super::{Agreed, Association, Care, Stumble, damaged, unexpected};
use crate::meter::MeterError;
use crate::os::line::Line;
use crate::wire::dlms::auth::{Handshake, Unproven};
use crate::wire::dlms::protect::SystemTitle;
use crate::wire::dlms::secret::Secret;
use crate::wire::dlms::{
    ActionRequest, ActionResponse, ActionResult, Apdu, AuthMechanism, Data, DataAccessResult, GetDataResult, InvokeId,
    LogicalName, MethodDescriptor, ReadResult, decode, encode,
};

/// `reply_to_HLS_authentication` of the current association (IEC 62056-6-2, class 15).
const REPLY: MethodDescriptor = MethodDescriptor::new(15, LogicalName::new(0, 0, 40, 0, 0, 255), 1);
/// The same by its short name (class 12, method 8).
const REPLY_SHORT: u16 = ASSOCIATION + 0x58;

/// What both sides know when the association was accepted.
pub(super) struct Proof {
    pub(super) mechanism: AuthMechanism,
    pub(super) secret: Secret,
    pub(super) client: SystemTitle,
    pub(super) server: Option<SystemTitle>,
    pub(super) ours: Vec<u8>,
    pub(super) theirs: Vec<u8>,
}

impl Proof {
    fn with<'a>(&'a self, agreed: &'a Agreed) -> Handshake<'a> {
        let cover = agreed.cover.as_ref();
        Handshake {
            mechanism: self.mechanism,
            secret: &self.secret,
            keys: cover.map(|cover| &cover.keys),
            client: self.client,
            server: self.server.or_else(|| cover?.peer()),
            to_server: &self.ours,
            to_client: &self.theirs,
        }
    }
}

impl Association {
    /// Proves who this client is and asks the same of the meter.
    pub(super) async fn prove(&mut self, line: &mut Line, agreed: &mut Agreed, proof: &Proof) -> Result<(), Stumble> {
        if proof.theirs.is_empty() {
            let message = "the meter opened the association without the authentication that the settings ask for";
            return Err(unexpected(message).into());
        }
        let counter = match &agreed.cover {
            Some(cover) if proof.mechanism == AuthMechanism::HighGmac => cover.counter(&mut self.memory).await?,
            _ => 0,
        };
        let unproven = |unproven: Unproven| MeterError::Damaged(unproven.to_string());
        let answer = proof.with(agreed).answer(counter).map_err(unproven)?;
        let by_names = agreed.context.is_logical_name();
        let request = if by_names { by_logical_name(&answer)? } else { by_short_name(&answer)? };
        self.show().await?;
        let care = Care { secret: false, once: true };
        let reply = self.say(line, agreed, &request, care).await.map_err(|stumble| self.suspect(stumble))?;
        let theirs = if by_names { action_reply(&reply) } else { read_reply(&reply) };
        let theirs = match theirs.map_err(|error| self.suspect(error.into()))? {
            Verdict::Proof(theirs) => theirs,
            Verdict::Wrong => {
                let message = "it does not take this client's proof: the secret or key is wrong";
                return Err(Stumble::Secret(message.to_owned()));
            }
            Verdict::Refused(code) => {
                let message = format!("it does not take this client's proof, with code {code}");
                return Err(self.suspect(MeterError::Refused(message).into()));
            }
        };
        if proof.with(agreed).proves(&theirs).map_err(unproven)? {
            return Ok(());
        }
        let message =
            "the meter could not prove that it knows the secret: it is another one, or its key or secret differs";
        Err(MeterError::Damaged(message.to_owned()).into())
    }
}

fn by_logical_name(answer: &[u8]) -> Result<Vec<u8>, MeterError> {
    let invoke_id = InvokeId::confirmed(1);
    let parameters = Some(Data::OctetString(answer));
    let request = ActionRequest::Normal { invoke_id, descriptor: REPLY, parameters };
    encode(&Apdu::ActionRequest(request)).map_err(damaged)
}

/// A read with parameterized access: only reading gives something back.
fn by_short_name(answer: &[u8]) -> Result<Vec<u8>, MeterError> {
    let [high, low] = REPLY_SHORT.to_be_bytes();
    let parameter = encode(&Data::OctetString(answer)).map_err(damaged)?;
    Ok([&[0x05, 1, 4, high, low, 0], &parameter[..]].concat())
}

/// What the meter says to our proof.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Its own.
    Proof(Vec<u8>),
    /// Ours is wrong.
    Wrong,
    /// It can't say now, or for another reason.
    Refused(u8),
}

fn action_reply(reply: &[u8]) -> Result<Verdict, MeterError> {
    match decode::<Apdu<'_>>(reply).map_err(damaged)?.0 {
        Apdu::ActionResponse(ActionResponse::Normal { response, .. }) => {
            match (response.result, response.return_parameters) {
                (ActionResult::Success, Some(GetDataResult::Data(Data::OctetString(proof)))) => {
                    Ok(Verdict::Proof(proof.to_vec()))
                }
                (ActionResult::Success, _) => Err(unexpected("the meter took our proof and gave none of its own")),
                (ActionResult::ReadWriteDenied | ActionResult::OtherReason, _) => Ok(Verdict::Wrong),
                (other, _) => Ok(Verdict::Refused(other.as_u8())),
            }
        }
        _ => Err(unexpected("an action-response was expected, something else came")),
    }
}

fn read_reply(reply: &[u8]) -> Result<Verdict, MeterError> {
    match decode::<Apdu<'_>>(reply).map_err(damaged)?.0 {
        Apdu::ReadResponse(response) => match response.results.iter().next() {
            Some(Ok(ReadResult::Data(Data::OctetString(proof)))) => Ok(Verdict::Proof(proof.to_vec())),
            Some(Ok(ReadResult::Error(DataAccessResult::ReadWriteDenied | DataAccessResult::OtherReason))) => {
                Ok(Verdict::Wrong)
            }
            Some(Ok(ReadResult::Error(other))) => Ok(Verdict::Refused(other.as_u8())),
            _ => Err(unexpected("the meter took our proof and gave none of its own")),
        },
        _ => Err(unexpected("a read-response was expected, something else came")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_denial_says_that_the_secret_is_wrong() {
        for (code, wrong) in [(1, false), (2, false), (3, true), (4, false), (12, false), (250, true)] {
            let by_name = action_reply(&[0xC7, 1, 1, code, 0]).unwrap();
            let by_number = read_reply(&[0x0C, 1, 1, code]).unwrap();
            let expected = if wrong { Verdict::Wrong } else { Verdict::Refused(code) };
            assert_eq!(by_name, expected, "{code}");
            assert_eq!(by_number, expected, "{code}");
        }
        assert_eq!(action_reply(&[0xC7, 1, 1, 0, 1, 0, 9, 1, 7]).unwrap(), Verdict::Proof(vec![7]));
    }
}
