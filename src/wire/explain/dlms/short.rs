//! Requests and answers by short names, and what is seen seldom, in words.

use serde_json::json;

use super::names::spelt;
use super::service::{Fields, data};
use crate::wire::dlms::{Apdu, Data, List, ReadResult, VariableAccess, WriteResult};

impl Fields {
    /// Services by short names; of all others what they are is told by their name.
    pub(super) fn short(&mut self, apdu: &Apdu<'_>) {
        match apdu {
            Apdu::ReadRequest(request) => self.variables(&request.specification),
            Apdu::ReadResponse(response) => response.results.iter().flatten().for_each(|one| self.was_read(&one)),
            Apdu::WriteRequest(request) => {
                self.variables(&request.specification);
                self.written(&request.values);
            }
            Apdu::WriteResponse(response) => response.results.iter().flatten().for_each(|one| self.was_written(&one)),
            Apdu::UnconfirmedWriteRequest(request) => {
                self.variables(&request.specification);
                self.written(&request.values);
            }
            Apdu::InformationReportRequest(report) => {
                self.variables(&report.specification);
                report.values.iter().flatten().for_each(|value| self.value(&value));
            }
            Apdu::Gateway { network_id, payload, .. } => {
                let words = format!("an APDU of {} bytes for network {network_id}", payload.len());
                self.put("gateway", "network", json!(network_id), words);
            }
            _ => self.put("content", "explained", json!(false), "not explained further"),
        }
    }

    fn variables(&mut self, list: &List<'_, VariableAccess<'_>>) {
        for one in list.iter().flatten() {
            match &one {
                VariableAccess::VariableName(_) => self.variable(&one, String::new()),
                VariableAccess::Parameterized { selector, parameter, .. } => {
                    self.variable(&one, format!(", selector {selector}: {}", data(parameter)));
                }
                VariableAccess::BlockNumber(number) | VariableAccess::WriteDataBlock { block_number: number, .. } => {
                    self.next((*number).into());
                }
                VariableAccess::ReadDataBlock { last_block, block_number, raw_data } => {
                    self.block((*block_number).into(), *last_block, raw_data.len());
                }
            }
        }
    }

    fn variable(&mut self, access: &VariableAccess<'_>, more: String) {
        if let Some(name) = access.name() {
            let name = format!("{name:04X}");
            self.list("object", "objects", json!({ "short_name": name }), format!("short name {name}{more}"));
        }
    }

    /// What short names write can be the secret of an association: nobody sees by the number which it is.
    fn written(&mut self, values: &List<'_, Data<'_>>) {
        for value in values.iter().flatten() {
            match value {
                Data::OctetString(secret) | Data::VisibleString(secret) => {
                    let words = format!("{} bytes, not shown: they may be a password", secret.len());
                    self.list("value", "values", json!(null), words);
                }
                other => self.value(&other),
            }
        }
    }

    fn was_read(&mut self, result: &ReadResult<'_>) {
        match result {
            ReadResult::Data(value) => self.value(value),
            ReadResult::Error(error) => self.list("result", "results", json!(spelt(error)), spelt(error)),
            ReadResult::Block { last_block, block_number, raw_data } => {
                self.block((*block_number).into(), *last_block, raw_data.len());
            }
            ReadResult::BlockNumber(number) => self.next((*number).into()),
        }
    }

    fn was_written(&mut self, result: &WriteResult) {
        match result {
            WriteResult::BlockNumber(number) => self.next((*number).into()),
            other => self.list("result", "results", json!(spelt(other)), spelt(other)),
        }
    }
}
