//! Lines to parameters: which line counts, what a known slip of the pen means, and what is told about it.
//!
//! The stated rule for a name that stands there twice: the last line counts, and both are named.

use std::collections::BTreeMap;

use super::table::{self, Found, MISSPELT};
use crate::wire::mtx::{self, Item};

/// What is told about a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lint {
    /// The line's number, counting from 1; 0 for the whole file.
    pub line: usize,
    /// Whether somebody should look; otherwise it is only noted.
    pub warning: bool,
    /// One sentence.
    pub message: String,
}

impl Lint {
    pub(super) fn warning(line: usize, message: impl Into<String>) -> Self {
        Self { line, warning: true, message: message.into() }
    }

    pub(super) fn note(line: usize, message: impl Into<String>) -> Self {
        Self { line, warning: false, message: message.into() }
    }
}

/// A parameter of the file as it was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Understood {
    /// The line's number, counting from 1.
    pub line: usize,
    /// The name as it was spelled.
    pub spelled: String,
    /// What it is; `None`: nobody knows.
    pub found: Option<Found>,
    /// Its value.
    pub value: String,
    /// The line that counts instead of this one.
    pub instead: Option<usize>,
}

impl Understood {
    /// The name in the vendor's spelling, as far as it is known.
    pub fn name(&self) -> &str {
        self.found.as_ref().map_or(&self.spelled, |found| &found.name)
    }

    fn is(&self, name: &str) -> bool {
        self.found.as_ref().is_some_and(|found| found.name == name)
    }
}

/// Reads a file.
pub(super) fn understand(bytes: &[u8]) -> (Vec<Understood>, Vec<Lint>) {
    let mut lints = Vec::new();
    let mut all: Vec<Understood> = Vec::new();
    let mut hints = MOST_HINTS;
    for line in mtx::in_windows_1252(bytes) {
        lints.push(Lint::warning(
            line,
            "is no UTF-8: read as Windows-1252; save the file as UTF-8 if other signs are meant",
        ));
    }
    for item in mtx::decode(bytes) {
        match item {
            Item::Stray { line, .. } => {
                lints.push(Lint::warning(line, "is no parameter: write Name: value; the line does not count"));
            }
            Item::Parameter(parameter) => {
                let (value, glued) = mtx::unglued(&parameter.value);
                all.push(named(parameter.line, &parameter.spelled, value, &mut hints, &mut lints));
                if let Some((name, value)) = glued {
                    let message = format!(
                        "two lines are glued together: understood as {}: {} and, on a line of its own, {name}",
                        parameter.name(),
                        shown(&parameter.spelled, all.last().map_or("", |p| &p.value))
                    );
                    lints.push(Lint::warning(parameter.line, message));
                    all.push(named(parameter.line, name, value, &mut hints, &mut lints));
                }
            }
        }
    }
    technology(&mut all, &mut lints);
    directions(&mut all, &mut lints);
    duplicates(&mut all, &mut lints);
    lints.sort_by_key(|lint| lint.line);
    (all, lints)
}

/// A value for a sentence.
fn shown<'a>(name: &str, value: &'a str) -> &'a str {
    if table::is_secret(name) { "***" } else { value }
}

/// For so many unknown names the nearest one is looked for.
const MOST_HINTS: usize = 100;

/// Finds out what a name is.
fn named(line: usize, spelled: &str, value: &str, hints: &mut usize, lints: &mut Vec<Lint>) -> Understood {
    let bare = mtx::bare(spelled);
    let misspelt = MISSPELT.iter().find(|(wrong, _)| wrong.eq_ignore_ascii_case(&bare));
    let found = misspelt.map_or_else(|| table::find(spelled), |(_, right)| table::find(right));
    match (&found, misspelt) {
        (Some(found), Some(_)) => {
            lints.push(Lint::warning(line, format!("{spelled} is misspelt: understood as {}", found.name)));
        }
        (Some(found), None) if spelled.contains(char::is_whitespace) => {
            lints.push(Lint::warning(line, format!("\"{spelled}\" has a blank in it: understood as {}", found.name)));
        }
        (Some(found), None) if found.name != bare && !found.row.name.ends_with('*') => {
            lints.push(Lint::note(
                line,
                format!("{spelled} is spelled {} by the vendor; capitals do not matter", found.name),
            ));
        }
        (Some(_), None) => {}
        (None, _) => {
            let near = if *hints > 0 { table::nearest(spelled) } else { None };
            *hints = hints.saturating_sub(1);
            let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            lints.push(Lint::warning(line, format!("{spelled} is unknown and does not count{hint}")));
        }
    }
    Understood { line, spelled: spelled.to_owned(), found, value: value.to_owned(), instead: None }
}

/// `MTX_mode: 2G` is a slip for `GPRS_mode`.
fn technology(all: &mut [Understood], lints: &mut Vec<Lint>) {
    for parameter in all.iter_mut().filter(|p| p.is("MTX_mode")) {
        if ["2g", "3g", "4g", "auto"].contains(&parameter.value.to_ascii_lowercase().as_str()) {
            parameter.found = table::find("GPRS_mode");
            let message = format!("MTX_mode: {} names a radio technology: understood as GPRS_mode", parameter.value);
            lints.push(Lint::warning(parameter.line, message));
        }
    }
}

/// Two `MQTT_commrxtopic` and no `MQTT_commtxtopic`: the second is the other direction.
fn directions(all: &mut [Understood], lints: &mut Vec<Lint>) {
    for (name, sister) in [("MQTT_commrxtopic", "MQTT_commtxtopic"), ("MQTT_commtxtopic", "MQTT_commrxtopic")] {
        if all.iter().any(|p| p.is(sister)) {
            continue;
        }
        let places: Vec<_> = all.iter().enumerate().filter(|(_, p)| p.is(name)).map(|(at, p)| (at, p.line)).collect();
        let [(first, first_line), (second, line)] = places.as_slice() else { continue };
        if all.get(*first).map(|p| &p.value) == all.get(*second).map(|p| &p.value) {
            continue;
        }
        if let Some(parameter) = all.get_mut(*second) {
            parameter.found = table::find(sister);
            let message = format!(
                "there are two {name} (lines {first_line} and {line}) and no {sister}: line {line} is understood as {sister}"
            );
            lints.push(Lint::warning(*line, message));
            return;
        }
    }
}

/// The last line of a name counts.
fn duplicates(all: &mut [Understood], lints: &mut Vec<Lint>) {
    let mut last: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for parameter in all.iter_mut().rev() {
        let Some(found) = &parameter.found else { continue };
        match last.get(&found.name) {
            Some((line, value)) => {
                parameter.instead = Some(*line);
                let same = *value == parameter.value;
                let what = if same { ", with the same value" } else { ": line " };
                let counts = if same { String::new() } else { format!("{line} counts") };
                let message =
                    format!("{} stands there twice, in lines {} and {line}{what}{counts}", found.name, parameter.line);
                lints.push(if same { Lint::note(*line, message) } else { Lint::warning(*line, message) });
            }
            None => drop(last.insert(found.name.clone(), (parameter.line, parameter.value.clone()))),
        }
    }
}

/// Whether a file is a config.txt, by what stands in it: its first line that says something is a parameter of a known
/// group, or most lines are, or one is a known parameter and none looks like TOML. TOML has no such lines.
pub fn is_config_txt(bytes: &[u8]) -> bool {
    let items = mtx::decode(bytes);
    let grouped = |item: &Item| match item {
        Item::Parameter(parameter) => {
            table::find(&parameter.spelled).is_some() || table::is_grouped(&parameter.spelled)
        }
        Item::Stray { .. } => false,
    };
    let count = items.iter().filter(|item| grouped(item)).count();
    let known = |item: &Item| matches!(item, Item::Parameter(p) if table::find(&p.spelled).is_some());
    let is_toml = |item: &Item| matches!(item, Item::Stray { text, .. } if text.starts_with('[') || text.contains('='));
    items.first().is_some_and(grouped)
        || count * 2 > items.len()
        || items.iter().any(known) && !items.iter().any(is_toml)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> (Vec<(String, String)>, String) {
        let (all, lints) = understand(text.as_bytes());
        let counting = all.iter().filter(|p| p.instead.is_none()).map(|p| (p.name().to_owned(), p.value.clone()));
        let lints = lints.iter().map(|lint| format!("{}:{} {}", lint.line, lint.warning, lint.message));
        (counting.collect(), lints.collect::<Vec<_>>().join("\n"))
    }

    fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
        wanted.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_second_rx_topic_is_the_tx_topic_when_that_is_missing() {
        let (all, lints) = told("MQTT_commrxtopic: rxmaster\nMQTT_commrxtopic: txmaster\n");
        assert_eq!(all, pairs(&[("MQTT_commrxtopic", "rxmaster"), ("MQTT_commtxtopic", "txmaster")]));
        assert!(lints.contains("2:true") && lints.contains("lines 1 and 2"), "{lints}");
        let (all, lints) = told("MQTT_commrxtopic: a\nMQTT_commrxtopic: b\nMQTT_commtxtopic: c\n");
        assert_eq!(all, pairs(&[("MQTT_commrxtopic", "b"), ("MQTT_commtxtopic", "c")]));
        assert!(lints.contains("line 2 counts"), "{lints}");
    }

    #[test]
    fn the_last_of_two_lines_counts_and_both_are_named() {
        let (all, lints) = told("MQTT_keepalive: 60\nmqtt_KEEPALIVE: 300\nDNS_period: 5\nDNS_period: 5");
        assert_eq!(all, pairs(&[("MQTT_keepalive", "300"), ("DNS_period", "5")]));
        assert!(lints.contains("2:true MQTT_keepalive stands there twice, in lines 1 and 2: line 2 counts"), "{lints}");
        assert!(lints.contains("4:false") && lints.contains("with the same value"), "{lints}");
    }

    #[test]
    fn slips_of_the_published_examples_are_understood_and_told() {
        let text = "MTX_mode: 2G\nMTX_mode: serverTELNET_port: 20023\nDNS_exdended: on\nUDP_ localPort: 20010\nMTX_pin: 0000\n";
        let (all, lints) = told(text);
        let wanted = [
            ("GPRS_mode", "2G"),
            ("MTX_mode", "server"),
            ("TELNET_port", "20023"),
            ("DNS_extended", "on"),
            ("UDP_localPort", "20010"),
            ("MTX_PIN", "0000"),
        ];
        assert_eq!(all, pairs(&wanted));
        for part in
            ["1:true MTX_mode: 2G", "2:true two lines", "3:true DNS_exdended", "4:true \"UDP_ localPort\"", "5:false"]
        {
            assert!(lints.contains(part), "{part}: {lints}");
        }
        assert_eq!(told("MQTT_attopic1: a/MQTT_id").0, pairs(&[("MQTT_attopic1", "a/MQTT_id")]), "a topic is a topic");
    }

    #[test]
    fn what_nobody_knows_is_named_with_what_is_near() {
        let (all, lints) = told("MQTT_keepalife: 3\nFOO_bar: 1\nnoise\n");
        assert_eq!(all, pairs(&[("MQTT_keepalife", "3"), ("FOO_bar", "1")]));
        assert!(
            lints.contains("did you mean MQTT_keepalive?") && lints.contains("2:true FOO_bar is unknown"),
            "{lints}"
        );
        assert!(lints.contains("3:true is no parameter"), "{lints}");
    }

    #[test]
    fn a_config_txt_is_recognised_by_what_stands_in_it() {
        assert!(is_config_txt(b"\xEF\xBB\xBF# mine\r\nCOMM_baudrate: 9600\r\n"));
        assert!(is_config_txt(b"title: mine\nMTX_mode: mqtt\nMQTT_will: x\n"));
        assert!(is_config_txt(b"FOO_a: 1\nBAR_b: 2\nBAZ_c: 3\nMTX_mode: mqtt\n"));
        for toml in [
            "",
            "FOO_a: 1\n",
            "version = 1\n[broker]\nurl = \"ssl://h\"\nMTX_mode: mqtt\n",
            "version = 1\n[broker]\nurl = \"ssl://h:8883\"\n",
            "# MTX_mode: mqtt\n[broker]\n",
        ] {
            assert!(!is_config_txt(toml.as_bytes()), "{toml}");
        }
    }
}
