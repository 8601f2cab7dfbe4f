//! What a simulated meter answers to an APDU: associations, and GET in all its forms.

use super::content::Content;
use crate::wire::dlms::{
    Aare, Aarq, Apdu, ApplicationContext, AssociationResult, AuthMechanism, Conformance, Diagnostic, GetRequest,
    InitiateResponse, UserDiagnostic, decode, encode,
};

/// The public client, which needs no password.
const PUBLIC: u16 = 16;
/// What stands before the bytes of a block, at the most.
const BLOCK_HEAD: usize = 14;
/// Service not supported (exception-response, IEC 62056-5-3, clause 9.5).
const UNKNOWN: [u8; 3] = [0xD8, 0x02, 0x02];

/// One association with one client.
#[derive(Debug, Default)]
pub(super) struct Server {
    associated: bool,
    longest: usize,
    /// What of a long value was not sent yet, and the number of the block before.
    rest: Vec<u8>,
    block: u32,
}

/// How a meter's associations are.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    pub(super) password: Option<Vec<u8>>,
    pub(super) max_pdu: u16,
    /// The mechanism's name is left out of the answer, as many meters do.
    pub(super) unnamed: bool,
}

impl Server {
    pub(super) fn answer(&mut self, content: &Content, manner: &Manner, client: u16, apdu: &[u8]) -> Vec<u8> {
        match apdu.first() {
            Some(0x60) => self.associate(manner, client, apdu).unwrap_or_else(|| UNKNOWN.to_vec()),
            Some(0x62) => {
                self.associated = false;
                vec![0x63, 0x03, 0x80, 0x01, 0x00]
            }
            // Service not allowed, operation not possible.
            Some(_) if !self.associated => vec![0xD8, 0x01, 0x01],
            Some(0xC0) => self.get(content, apdu).unwrap_or_else(|| UNKNOWN.to_vec()),
            _ => UNKNOWN.to_vec(),
        }
    }

    fn associate(&mut self, manner: &Manner, client: u16, apdu: &[u8]) -> Option<Vec<u8>> {
        let (request, _) = decode::<Aarq<'_>>(apdu).ok()?;
        let (Apdu::InitiateRequest(initiate), _) = decode::<Apdu<'_>>(request.user_information?).ok()? else {
            return None;
        };
        let known = client == PUBLIC || manner.password.as_deref() == request.calling_authentication_value;
        let named = request.application_context == Some(ApplicationContext::LogicalName);
        self.associated = known && named;
        let granted = Conformance::GET
            | Conformance::SELECTIVE_ACCESS
            | Conformance::BLOCK_TRANSFER_WITH_GET_OR_READ
            | Conformance::MULTIPLE_REFERENCES;
        let theirs = match initiate.client_max_receive_pdu_size {
            0 => u16::MAX,
            size => size,
        };
        self.longest = usize::from(theirs.min(manner.max_pdu)).max(32);
        let response = InitiateResponse {
            negotiated_quality_of_service: None,
            negotiated_dlms_version: 6,
            negotiated_conformance: granted & initiate.proposed_conformance,
            server_max_receive_pdu_size: manner.max_pdu,
            vaa_name: 7,
        };
        let response = encode(&Apdu::InitiateResponse(response)).ok()?;
        let diagnostic = match (known, named) {
            (true, true) => UserDiagnostic::Null,
            (true, false) => UserDiagnostic::ApplicationContextNameNotSupported,
            (false, _) => UserDiagnostic::AuthenticationFailure,
        };
        let result = if self.associated { AssociationResult::Accepted } else { AssociationResult::RejectedPermanent };
        let low = request.mechanism_name == Some(AuthMechanism::Low) && !manner.unnamed;
        let answer = Aare {
            application_context: Some(ApplicationContext::LogicalName),
            result,
            diagnostic: Diagnostic::User(diagnostic),
            responder_acse_requirements: low,
            mechanism_name: low.then_some(AuthMechanism::Low),
            user_information: Some(&response),
            ..Aare::default()
        };
        encode(&answer).ok()
    }

    fn get(&mut self, content: &Content, apdu: &[u8]) -> Option<Vec<u8>> {
        let (Apdu::GetRequest(request), _) = decode::<Apdu<'_>>(apdu).ok()? else { return None };
        match request {
            GetRequest::Normal { invoke_id, descriptor, access } => {
                let id = invoke_id.0;
                let mut value = vec![0];
                match content.value(descriptor, access.as_ref()) {
                    Ok(data) => value.extend(data),
                    Err(refusal) => return Some(vec![0xC4, 1, id, 1, refusal]),
                }
                if value.len() + 3 <= self.longest {
                    return Some([vec![0xC4, 1, id], value].concat());
                }
                value.remove(0);
                Some(self.long(id, value))
            }
            GetRequest::WithList { invoke_id, list } => {
                let mut count = 0u8;
                let mut values = Vec::new();
                for item in list.iter() {
                    let item = item.ok()?;
                    count = count.checked_add(1).filter(|count| *count < 0x80)?;
                    match content.value(item.descriptor, item.access.as_ref()) {
                        Ok(data) => values.extend([vec![0], data].concat()),
                        Err(refusal) => values.extend([1, refusal]),
                    }
                }
                let value = [vec![count], values].concat();
                if value.len() + 3 <= self.longest {
                    return Some([vec![0xC4, 3, invoke_id.0], value].concat());
                }
                Some(self.long(invoke_id.0, value))
            }
            GetRequest::Next { invoke_id, block_number } if block_number == self.block && !self.rest.is_empty() => {
                Some(self.next_block(invoke_id.0))
            }
            // Long get aborted.
            GetRequest::Next { invoke_id, .. } => Some(vec![0xC4, 1, invoke_id.0, 1, 15]),
        }
    }

    fn long(&mut self, id: u8, value: Vec<u8>) -> Vec<u8> {
        (self.rest, self.block) = (value, 0);
        self.next_block(id)
    }

    fn next_block(&mut self, id: u8) -> Vec<u8> {
        let size = (self.longest - BLOCK_HEAD).min(self.rest.len());
        let piece: Vec<u8> = self.rest.drain(..size).collect();
        self.block += 1;
        let last = u8::from(self.rest.is_empty());
        let mut answer = vec![0xC4, 2, id, last];
        answer.extend(self.block.to_be_bytes());
        answer.push(0);
        super::content::length(size, &mut answer);
        answer.extend(piece);
        answer
    }
}
