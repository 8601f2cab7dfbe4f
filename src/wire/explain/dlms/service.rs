//! Requests, answers and what surrounds ciphered APDUs, in words.

use data_encoding::HEXUPPER;
use serde_json::{Value, json};

use super::names::{self, attribute, class, name, spelt, spelt_or, title_in_words};
use super::{Json, Part, row};
use crate::wire::dlms::notification::Node;
use crate::wire::dlms::open::{self, Sealed};
use crate::wire::dlms::{
    ActionRequest, ActionResponse, Apdu, AttributeDescriptor, Conformance, Data, DataBlockG, DataBlockSA, Diagnostic,
    GetDataResult, GetRequest, GetResponse, InvokeId, LogicalName, MethodDescriptor, SelectiveAccess, SetRequest,
    SetResponse, UserDiagnostic, decode, shown, veil,
};
use crate::wire::explain::{Layer, Row};

/// Whether the bytes are an APDU that can be read.
pub(super) fn is_readable(apdu: &[u8]) -> bool {
    decode::<Apdu<'_>>(apdu).is_ok()
}

/// What stands around a ciphered APDU.
pub(super) fn ciphering(apdu: &[u8], sealed: &Sealed<'_>) -> Part {
    let mut json = Json::new();
    let control = sealed.control;
    let tag = apdu.first().copied().unwrap_or_default();
    let mut rows = vec![row("tag", &[tag], name(tag).to_owned())];
    if let Some(title) = sealed.title {
        json.insert("system_title".into(), json!(HEXUPPER.encode(title)));
        rows.push(row("system title", title, title_in_words(title)));
    }
    json.insert("security_control".into(), json!(format!("{:02x}", control.0)));
    json.insert("suite".into(), json!(control.suite()));
    json.insert("authenticated".into(), json!(control.authenticated()));
    json.insert("encrypted".into(), json!(control.encrypted()));
    json.insert("invocation_counter".into(), json!(sealed.counter));
    let words = [
        (control.authenticated(), "authenticated"),
        (control.encrypted(), "encrypted"),
        (control.broadcast_key(), "with the broadcast key"),
        (control.compressed(), "compressed"),
    ];
    let words: Vec<_> = words.into_iter().filter(|(set, _)| *set).map(|(_, word)| word).collect();
    let words = if words.is_empty() { "neither authenticated nor encrypted".to_owned() } else { words.join(", ") };
    rows.push(row("SC", &[control.0], format!("suite {}, {words}", control.suite())));
    rows.push(row("IC", &sealed.counter.to_be_bytes(), format!("invocation counter {}", sealed.counter)));
    Part { layer: Layer { title: "ciphering (IEC 62056-5-3)", rows }, json }
}

/// One line that says what a plain request or answer is.
pub(super) fn summary(apdu: &[u8]) -> Option<String> {
    let mut fields = Fields::default();
    let (decoded, _) = decode::<Apdu<'_>>(apdu).ok()?;
    fields.apdu(&decoded);
    let wanted = ["object", "result", "value", "error"];
    let told = fields.rows.iter().filter(|row| wanted.contains(&row.field)).take(3).map(|row| row.meaning.clone());
    let told: Vec<_> = told.collect();
    let name = name(apdu.first().copied().unwrap_or_default());
    Some(if told.is_empty() { name.to_owned() } else { format!("{name} {}", told.join(", ")) })
}

/// The layers of a plain APDU that is no notification, and of what names objects whether one of them is a secret. What
/// `hides` answers a request of a secret: no value of it is shown.
pub(super) fn explain(apdu: &[u8], hides: bool) -> (Vec<Part>, Option<bool>) {
    let mut fields = Fields { hides, ..Fields::default() };
    let tag = apdu.first().copied().unwrap_or_default();
    match decode::<Apdu<'_>>(apdu) {
        Ok((decoded, rest)) => {
            fields.apdu(&decoded);
            if !rest.is_empty() {
                fields.put(
                    "rest",
                    "left",
                    json!(rest.len()),
                    format!("{} bytes follow that belong to nothing", rest.len()),
                );
            }
        }
        Err(error) => {
            let sentence = error.to_string();
            fields.json.insert("error".into(), json!(sentence));
            // Nobody knows where in it a password or key stands.
            let row = if hides || names::may_hold_secret(tag) {
                row("APDU", &[], format!("{sentence}; {} bytes, not shown", apdu.len()))
            } else {
                row("APDU", apdu, sentence)
            };
            fields.rows.push(row);
        }
    }
    let asks = fields.json.contains_key("objects").then_some(fields.hides);
    (vec![Part { layer: Layer { title: name(tag), rows: fields.rows }, json: fields.json }], asks)
}

/// The value of a long answer whose blocks were put together; not shown when it `hides`.
pub(super) fn long(value: &Data<'_>, blocks: u32, bytes: usize, hides: bool) -> Part {
    let mut fields = Fields { hides, ..Fields::default() };
    fields.put("length", "length", json!(bytes), format!("{bytes} bytes in {blocks} blocks"));
    fields.value(value);
    Part { layer: Layer { title: "the whole answer", rows: fields.rows }, json: fields.json }
}

#[derive(Default)]
pub(super) struct Fields {
    rows: Vec<Row>,
    json: Json,
    /// One of the objects so far is a secret, or what was asked for is.
    hides: bool,
}

impl Fields {
    pub(super) fn put(&mut self, field: &'static str, key: &str, value: Value, meaning: impl Into<String>) {
        self.rows.push(Row { field, bytes: String::new(), meaning: meaning.into() });
        self.json.insert(key.to_owned(), value);
    }

    /// One of several under the same key.
    pub(super) fn list(&mut self, field: &'static str, key: &str, value: Value, meaning: impl Into<String>) {
        self.rows.push(Row { field, bytes: String::new(), meaning: meaning.into() });
        if let Some(list) = self.json.entry(key.to_owned()).or_insert_with(|| json!([])).as_array_mut() {
            list.push(value);
        }
    }

    fn text(&mut self, field: &'static str, key: &str, text: impl Into<String>) {
        let text = text.into();
        self.put(field, key, json!(text), text);
    }

    fn apdu(&mut self, apdu: &Apdu<'_>) {
        match apdu {
            Apdu::Aarq(aarq) => {
                self.text("context", "context", spelt_or(aarq.application_context, "not told"));
                self.text("mechanism", "mechanism", spelt_or(aarq.mechanism_name, "none"));
                self.octets("calling title", "calling_title", aarq.calling_ap_title);
                // The password, or a challenge: neither is shown.
                let secret = aarq.calling_authentication_value.map(<[u8]>::len);
                if let Some(length) = secret {
                    self.put(
                        "authentication",
                        "authentication_bytes",
                        json!(length),
                        format!("{length} bytes, not shown"),
                    );
                }
                self.information(aarq.user_information);
            }
            Apdu::Aare(aare) => {
                self.text("result", "result", spelt(aare.result));
                self.text("diagnostic", "diagnostic", diagnostic(aare.diagnostic));
                self.text("mechanism", "mechanism", spelt_or(aare.mechanism_name, "none"));
                self.octets("title", "responding_title", aare.responding_ap_title);
                self.information(aare.user_information);
            }
            Apdu::Rlrq(rlrq) => self.text("reason", "reason", spelt_or(rlrq.reason, "none")),
            Apdu::Rlre(rlre) => self.text("reason", "reason", spelt_or(rlre.reason, "none")),
            Apdu::InitiateRequest(_) | Apdu::InitiateResponse(_) => self.initiate(apdu),
            Apdu::GetRequest(request) => self.get(request),
            Apdu::GetResponse(response) => self.got(response),
            Apdu::SetRequest(request) => self.set(request),
            Apdu::SetResponse(response) => self.was_set(response),
            Apdu::ActionRequest(request) => self.act(request),
            Apdu::ActionResponse(response) => self.acted(response),
            Apdu::ExceptionResponse(exception) => {
                self.text("error", "state_error", spelt(exception.state_error));
                self.text("error", "service_error", spelt(exception.service_error));
                if let Some(counter) = exception.expected_invocation_counter {
                    self.put(
                        "counter",
                        "expected_counter",
                        json!(counter),
                        format!("expects invocation counter {counter}"),
                    );
                }
            }
            Apdu::ConfirmedServiceError(error) => {
                let sentence =
                    format!("service {}, class {}, code {}", error.service, error.error_class, error.error_code);
                self.text("error", "error", sentence);
            }
            Apdu::GeneralBlockTransfer(block) => {
                self.block(block.block_number.into(), block.control.last_block(), block.block_data.len());
            }
            other => self.short(other),
        }
    }

    fn octets(&mut self, field: &'static str, key: &str, octets: Option<&[u8]>) {
        if let Some(octets) = octets {
            self.text(field, key, HEXUPPER.encode(octets));
        }
    }

    /// What an association's APDU carries: the proposed or granted conformance, maybe ciphered.
    fn information(&mut self, information: Option<&[u8]>) {
        let Some(information) = information else { return };
        // What is ciphered comes as a layer of its own.
        if let Ok(None) = open::sealed(information)
            && let Ok((inside, _)) = decode::<Apdu<'_>>(information)
        {
            self.initiate(&inside);
        }
    }

    fn initiate(&mut self, apdu: &Apdu<'_>) {
        let (conformance, pdu) = match apdu {
            Apdu::InitiateRequest(request) => (request.proposed_conformance, request.client_max_receive_pdu_size),
            Apdu::InitiateResponse(response) => (response.negotiated_conformance, response.server_max_receive_pdu_size),
            Apdu::ConfirmedServiceError(_) => return self.apdu(apdu),
            _ => return,
        };
        let words = conformance_in_words(conformance);
        self.put("conformance", "conformance", json!(words), words.join(", "));
        self.put("max PDU", "max_pdu", json!(pdu), format!("{pdu} bytes"));
    }

    fn invoke(&mut self, kind: &'static str, id: InvokeId) {
        self.text("kind", "kind", kind);
        self.put("invoke id", "invoke_id", json!(id.id()), id.id().to_string());
    }

    fn object(&mut self, d: AttributeDescriptor) {
        let (id, name, number) = (d.class_id, d.instance_id.to_string(), d.attribute_id);
        let json = json!({ "class": id, "name": name, "attribute": number });
        self.list(
            "object",
            "objects",
            json,
            format!("{name} attribute {} (class {})", attribute(id, number), class(id)),
        );
        self.hides |= veil::is_secret(id, number);
    }

    fn method(&mut self, d: MethodDescriptor) {
        let (id, name, number) = (d.class_id, d.instance_id.to_string(), d.method_id);
        let json = json!({ "class": id, "name": name, "method": number });
        let method = names::method(id, number);
        self.list("object", "objects", json, format!("{name} method {method} (class {})", class(id)));
        self.hides |= veil::takes_secret(id, number);
    }

    fn selection(&mut self, access: Option<&SelectiveAccess<'_>>) {
        let Some(access) = access else { return };
        let words = format!("selector {}: {}", access.selector, data(&access.parameters));
        self.text("selection", "selection", words);
    }

    pub(super) fn value(&mut self, value: &Data<'_>) {
        match value {
            _ if self.hides => self.list("value", "values", json!(null), "a secret, not shown"),
            // A buffer or a list of objects: one row each.
            Data::Array(parts) => {
                for part in parts.iter().flatten() {
                    let text = data(&part);
                    self.list("value", "values", json!(text), text);
                }
            }
            other => {
                let text = data(other);
                self.list("value", "values", json!(text), text);
            }
        }
    }

    fn result(&mut self, result: &GetDataResult<'_>) {
        match result {
            GetDataResult::Data(value) => self.value(value),
            GetDataResult::Error(error) => {
                self.list("result", "results", json!(spelt(error)), spelt(error));
            }
        }
    }

    pub(super) fn block(&mut self, number: u32, last: bool, bytes: usize) {
        let more = if last { ", the last" } else { ", more follow" };
        self.put("block", "block", json!(number), format!("number {number}{more}, {bytes} bytes"));
    }

    fn block_got(&mut self, block: &DataBlockG<'_>) {
        self.block(block.block_number, block.last_block, block.result.map_or(0, <[u8]>::len));
        if let Err(error) = block.result {
            self.list("result", "results", json!(spelt(error)), spelt(error));
        }
    }

    fn block_given(&mut self, block: &DataBlockSA<'_>) {
        self.block(block.block_number, block.last_block, block.raw_data.len());
    }

    pub(super) fn next(&mut self, number: u32) {
        self.put("block", "block", json!(number), format!("after number {number}"));
    }

    fn get(&mut self, request: &GetRequest<'_>) {
        match request {
            GetRequest::Normal { invoke_id, descriptor, access } => {
                self.invoke("normal", *invoke_id);
                self.object(*descriptor);
                self.selection(access.as_ref());
            }
            GetRequest::Next { invoke_id, block_number } => {
                self.invoke("next block", *invoke_id);
                self.next(*block_number);
            }
            GetRequest::WithList { invoke_id, list } => {
                self.invoke("with list", *invoke_id);
                for one in list.iter().flatten() {
                    self.object(one.descriptor);
                    self.selection(one.access.as_ref());
                }
            }
        }
    }

    fn got(&mut self, response: &GetResponse<'_>) {
        match response {
            GetResponse::Normal { invoke_id, result } => {
                self.invoke("normal", *invoke_id);
                self.result(result);
            }
            GetResponse::WithDataBlock { invoke_id, block } => {
                self.invoke("with a block", *invoke_id);
                self.block_got(block);
            }
            GetResponse::WithList { invoke_id, results } => {
                self.invoke("with list", *invoke_id);
                results.iter().flatten().for_each(|result| self.result(&result));
            }
        }
    }

    fn set(&mut self, request: &SetRequest<'_>) {
        match request {
            SetRequest::Normal { invoke_id, descriptor, access, value } => {
                self.invoke("normal", *invoke_id);
                self.object(*descriptor);
                self.selection(access.as_ref());
                self.value(value);
            }
            SetRequest::WithFirstDataBlock { invoke_id, descriptor, access, block } => {
                self.invoke("with the first block", *invoke_id);
                self.object(*descriptor);
                self.selection(access.as_ref());
                self.block_given(block);
            }
            SetRequest::WithDataBlock { invoke_id, block } => {
                self.invoke("with a block", *invoke_id);
                self.block_given(block);
            }
            SetRequest::WithList { invoke_id, descriptors, values } => {
                self.invoke("with list", *invoke_id);
                descriptors.iter().flatten().for_each(|one| self.object(one.descriptor));
                values.iter().flatten().for_each(|value| self.value(&value));
            }
            SetRequest::WithListAndFirstDataBlock { invoke_id, descriptors, block } => {
                self.invoke("with list and the first block", *invoke_id);
                descriptors.iter().flatten().for_each(|one| self.object(one.descriptor));
                self.block_given(block);
            }
        }
    }

    fn outcome(&mut self, result: impl std::fmt::Debug) {
        let text = spelt(result);
        self.list("result", "results", json!(text), text);
    }

    fn was_set(&mut self, response: &SetResponse<'_>) {
        match response {
            SetResponse::Normal { invoke_id, result } => {
                self.invoke("normal", *invoke_id);
                self.outcome(result);
            }
            SetResponse::DataBlock { invoke_id, block_number } => {
                self.invoke("block taken", *invoke_id);
                self.next(*block_number);
            }
            SetResponse::LastDataBlock { invoke_id, result, block_number } => {
                self.invoke("last block taken", *invoke_id);
                self.outcome(result);
                self.next(*block_number);
            }
            SetResponse::LastDataBlockWithList { invoke_id, results, block_number } => {
                self.invoke("last block taken, with list", *invoke_id);
                results.iter().flatten().for_each(|result| self.outcome(result));
                self.next(*block_number);
            }
            SetResponse::WithList { invoke_id, results } => {
                self.invoke("with list", *invoke_id);
                results.iter().flatten().for_each(|result| self.outcome(result));
            }
        }
    }

    fn act(&mut self, request: &ActionRequest<'_>) {
        match request {
            ActionRequest::Normal { invoke_id, descriptor, parameters } => {
                self.invoke("normal", *invoke_id);
                self.method(*descriptor);
                parameters.iter().for_each(|value| self.value(value));
            }
            ActionRequest::NextPblock { invoke_id, block_number } => {
                self.invoke("next block", *invoke_id);
                self.next(*block_number);
            }
            ActionRequest::WithList { invoke_id, descriptors, parameters } => {
                self.invoke("with list", *invoke_id);
                descriptors.iter().flatten().for_each(|one| self.method(one));
                parameters.iter().flatten().for_each(|value| self.value(&value));
            }
            ActionRequest::WithFirstPblock { invoke_id, descriptor, block } => {
                self.invoke("with the first block", *invoke_id);
                self.method(*descriptor);
                self.block_given(block);
            }
            ActionRequest::WithListAndFirstPblock { invoke_id, descriptors, block } => {
                self.invoke("with list and the first block", *invoke_id);
                descriptors.iter().flatten().for_each(|one| self.method(one));
                self.block_given(block);
            }
            ActionRequest::WithPblock { invoke_id, block } => {
                self.invoke("with a block", *invoke_id);
                self.block_given(block);
            }
        }
    }

    fn acted(&mut self, response: &ActionResponse<'_>) {
        match response {
            ActionResponse::Normal { invoke_id, response } => {
                self.invoke("normal", *invoke_id);
                self.outcome(response.result);
                response.return_parameters.iter().for_each(|result| self.result(result));
            }
            ActionResponse::WithPblock { invoke_id, block } => {
                self.invoke("with a block", *invoke_id);
                self.block_given(block);
            }
            ActionResponse::WithList { invoke_id, responses } => {
                self.invoke("with list", *invoke_id);
                for one in responses.iter().flatten() {
                    self.outcome(one.result);
                    one.return_parameters.iter().for_each(|result| self.result(result));
                }
            }
            ActionResponse::NextPblock { invoke_id, block_number } => {
                self.invoke("next block", *invoke_id);
                self.next(*block_number);
            }
        }
    }
}

/// A value as text; logical names as such.
pub(super) fn data(data: &Data<'_>) -> String {
    Node::of(data).map_or_else(|| "nested too deep".to_owned(), |node| node_text(&node))
}

fn node_text(node: &Node<'_>) -> String {
    match node {
        Node::Array(parts) | Node::Structure(parts) => {
            format!("[{}]", parts.iter().map(node_text).collect::<Vec<_>>().join(", "))
        }
        Node::Leaf(Data::OctetString([a @ 0..=15, b, c, d, e, 255])) => {
            LogicalName::new(*a, *b, *c, *d, *e, 255).to_string()
        }
        other => shown::text(other, 0).unwrap_or_else(|| "null".to_owned()),
    }
}

fn diagnostic(diagnostic: Diagnostic) -> String {
    match diagnostic {
        Diagnostic::User(UserDiagnostic::Null) => "none".to_owned(),
        Diagnostic::User(reason) => spelt(reason),
        Diagnostic::Provider(number) => format!("of the provider, {number}"),
    }
}

fn conformance_in_words(conformance: Conformance) -> Vec<String> {
    conformance.iter_names().map(|(name, _)| name.to_ascii_lowercase().replace('_', "-")).collect()
}
