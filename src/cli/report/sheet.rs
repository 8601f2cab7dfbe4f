//! The report as it is printed and as JSON.

use std::fmt::Write;

use serde_json::{Value as Json, json};

use crate::cli::table;
use crate::model::{Quality, Value};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Fail,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that was tried.
#[derive(Debug)]
pub(super) struct Check {
    /// What: `meter incomer`, `broker ssl://...`.
    pub(super) subject: String,
    pub(super) verdict: Verdict,
    /// What was seen.
    pub(super) told: String,
    /// What to do about it; empty when it passed.
    pub(super) todo: String,
    /// The figures, for machines.
    pub(super) detail: Json,
    /// The values of a meter.
    pub(super) values: Vec<Value>,
}

impl Check {
    pub(super) fn pass(subject: impl Into<String>, told: impl Into<String>, detail: Json) -> Self {
        let (subject, told) = (subject.into(), told.into());
        Self { subject, verdict: Verdict::Pass, told, todo: String::new(), detail, values: Vec::new() }
    }

    pub(super) fn fail(
        subject: impl Into<String>,
        told: impl Into<String>,
        todo: impl Into<String>,
        detail: Json,
    ) -> Self {
        let (subject, told, todo) = (subject.into(), told.into(), todo.into());
        Self { subject, verdict: Verdict::Fail, told, todo, detail, values: Vec::new() }
    }
}

/// The whole report.
#[derive(Debug)]
pub(super) struct Sheet {
    head: Vec<(&'static str, String)>,
    checks: Vec<Check>,
    warnings: usize,
}

impl Sheet {
    pub(super) const fn new(head: Vec<(&'static str, String)>, warnings: usize) -> Self {
        Self { head, checks: Vec::new(), warnings }
    }

    pub(super) fn add(&mut self, check: Check) {
        self.checks.push(check);
    }

    pub(super) fn failed(&self) -> usize {
        self.checks.iter().filter(|check| check.verdict == Verdict::Fail).count()
    }

    /// The verdict of all in a few words.
    pub(super) fn summary(&self) -> String {
        match self.failed() {
            0 => format!("PASS: all {} checks passed", self.checks.len()),
            failed => format!("FAIL: {failed} of {} checks failed", self.checks.len()),
        }
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::from("ACCEPTANCE REPORT\n\n");
        out += &table::pairs(&self.head);
        out += "\nCHECKS\n";
        for check in &self.checks {
            let _ = writeln!(out, "{}  {}: {}", check.verdict.word(), check.subject, table::printable(&check.told));
            if !check.todo.is_empty() {
                let _ = writeln!(out, "      -> {}", table::printable(&check.todo));
            }
        }
        if self.warnings > 0 {
            let _ = writeln!(
                out,
                "note  configuration: {} (weir check shows them)",
                table::count(self.warnings, "warning")
            );
        }
        for check in self.checks.iter().filter(|check| !check.values.is_empty()) {
            let _ = writeln!(out, "\nVALUES of {}", check.subject);
            let rows: Vec<_> = check.values.iter().map(row).collect();
            out += &table::render(&["name", "value", "unit", "quality"], &rows);
        }
        let _ = writeln!(out, "\n{}", self.summary());
        out += "\nPlace ______________________________   Date ____________________\n\n";
        out += "Installed by (name, signature) _________________________________\n\n";
        out += "Accepted by (name, signature) __________________________________\n";
        out
    }

    pub(super) fn object(&self) -> Json {
        let head: serde_json::Map<String, Json> =
            self.head.iter().map(|(name, value)| ((*name).replace(' ', "_"), json!(value))).collect();
        let checks = self.checks.iter().map(|check| {
            let values = check
                .values
                .iter()
                .map(|v| json!({ "name": v.name, "value": v.value, "unit": v.unit, "quality": v.quality.word() }));
            json!({
                "subject": check.subject, "verdict": check.verdict.word(), "told": check.told,
                "todo": check.todo, "detail": check.detail, "values": values.collect::<Vec<_>>(),
            })
        });
        json!({
            "report": head, "checks": checks.collect::<Vec<_>>(), "failed": self.failed(),
            "verdict": if self.failed() == 0 { "PASS" } else { "FAIL" }, "configuration_warnings": self.warnings,
        })
    }
}

fn row(value: &Value) -> Vec<String> {
    let quality = if value.quality == Quality::Good { "good" } else { value.quality.word() };
    let text = value.value.as_deref().unwrap_or("-");
    vec![table::printable(&value.name), table::printable(text), table::printable(&value.unit), quality.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_to_do_and_turns_the_verdict() {
        let mut sheet = Sheet::new(vec![("gateway", "G1".into())], 1);
        sheet.add(Check::pass("clock", "synced", json!({})));
        assert!(sheet.summary().starts_with("PASS"));
        sheet.add(Check::fail("meter m", "no answer", "look at the wires", json!({ "answers": 0 })));
        let text = sheet.text();
        assert!(text.contains("FAIL  meter m: no answer\n      -> look at the wires\n"), "{text}");
        assert!(
            text.contains("FAIL: 1 of 2") && text.contains("Accepted by") && text.contains("1 warning ("),
            "{text}"
        );
        let object = sheet.object();
        assert_eq!(
            (object["verdict"].as_str(), object["checks"][1]["detail"]["answers"].as_u64()),
            (Some("FAIL"), Some(0))
        );
    }
}
