//! From data sets to values: names, and the ids that are wanted.

use std::collections::HashMap;

use crate::model::{Quality, Value};
use crate::wire::iec62056::data::Line;

/// The meter's error text when the block is an error message, `(ER...)` (clause 6.3.11).
pub(super) fn refusal(lines: &[Line]) -> Option<String> {
    let [line] = lines else { return None };
    let [set] = line.as_slice() else { return None };
    let text = &set.values.first()?.text;
    (set.id.is_empty() && text.starts_with("ER")).then(|| text.clone())
}

/// All values of a readout, named `id`, `id#2` ...
pub(in crate::meter) fn values(lines: &[Line]) -> Vec<Value> {
    let mut count: HashMap<String, usize> = HashMap::new();
    let mut current = String::new();
    let mut values = Vec::new();
    for set in lines.iter().flatten() {
        if !set.id.is_empty() {
            current.clone_from(&set.id);
        }
        for value in &set.values {
            let number = count.entry(current.clone()).and_modify(|n| *n += 1).or_insert(1);
            let name = if *number == 1 { current.clone() } else { format!("{current}#{number}") };
            let (text, unit) = (value.text.clone(), value.unit.clone());
            values.push(Value { name, value: Some(text), unit, quality: Quality::Good });
        }
    }
    values
}

/// The values whose ids are wanted, under the wanted names and in that order; a missing one is
/// null and refused.
pub(in crate::meter) fn wanted(all: &[Value], ids: &[String]) -> Vec<Value> {
    let mut kept = Vec::new();
    for id in ids {
        let before = kept.len();
        for value in all {
            let (theirs, number) =
                value.name.split_once('#').map_or((value.name.as_str(), None), |(i, n)| (i, Some(n)));
            if same_id(id, theirs) {
                let name = number.map_or_else(|| id.clone(), |n| format!("{id}#{n}"));
                // Of two meters behind one reduced id the second keeps its whole name.
                let taken = kept.get(before..).unwrap_or_default().iter().any(|v: &Value| v.name == name);
                kept.push(if taken { value.clone() } else { Value { name, ..value.clone() } });
            }
        }
        if kept.len() == before {
            kept.push(Value { name: id.clone(), value: None, unit: String::new(), quality: Quality::Refused });
        }
    }
    kept
}

/// The values of one answer of programming mode, named `id`, `id#2` ...; those of other ids are not
/// what was asked for. `None` when there is none.
pub(super) fn answered(lines: &[Line], id: &str) -> Option<Vec<Value>> {
    let sets = lines.iter().flatten().filter(|set| set.id.is_empty() || same_id(id, &set.id));
    let values: Vec<Value> = (1..)
        .zip(sets.flat_map(|set| &set.values))
        .map(|(number, value)| Value {
            name: if number == 1 { id.to_owned() } else { format!("{id}#{number}") },
            value: Some(value.text.clone()),
            unit: value.unit.clone(),
            quality: Quality::Good,
        })
        .collect();
    (!values.is_empty()).then_some(values)
}

/// Whether a readout shows `serial` as the value of one of its ids; leading zeros don't count.
pub(super) fn shows(lines: &[Line], serial: &str) -> bool {
    let significant = |text: &str| text.trim().trim_start_matches('0').to_owned();
    let wanted = significant(serial);
    lines.iter().flatten().flat_map(|set| &set.values).any(|value| significant(&value.text) == wanted)
}

/// Whether an identification names `serial`; a short one may stand there by chance and does not count.
pub(super) fn identifies(model: &str, serial: &str) -> bool {
    const SHORTEST: usize = 6;
    let wanted = serial.trim().trim_start_matches('0');
    let digits = wanted.bytes().all(|b| b.is_ascii_digit());
    let part = |c: char| if digits { c.is_ascii_digit() } else { c.is_ascii_alphanumeric() };
    wanted.len() >= SHORTEST && model.split(|c| !part(c)).any(|found| found.trim_start_matches('0') == wanted)
}

/// Compares by exact text; what the meter puts around a reduced id (`1-0:` and `*255`, "not
/// used") does not count when `wanted` has none of it.
pub(super) fn same_id(wanted: &str, theirs: &str) -> bool {
    let medium = if wanted.contains(':') { None } else { theirs.split_once(':').map(|(_, reduced)| reduced) };
    let reduced = medium.unwrap_or(theirs);
    theirs == wanted || reduced == wanted || reduced.strip_suffix("*255") == Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::iec62056::data::decode;

    fn ids(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn shown(values: &[Value]) -> Vec<(&str, Option<&str>, &str)> {
        values.iter().map(|v| (v.name.as_str(), v.value.as_deref(), v.unit.as_str())).collect()
    }

    #[test]
    fn several_values_of_an_id_are_numbered() {
        let all = values(&decode(b"1.6.1(02.345*kW)(2601121545)\r\nP.01(1)\r\n(0.25)(0.10)\r\n1.8.0(1*kWh)\r\n!"));
        let names: Vec<_> = all.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["1.6.1", "1.6.1#2", "P.01", "P.01#2", "P.01#3", "1.8.0"]);
    }

    #[test]
    fn wanted_ids_match_standard_and_reduced_spelling_and_missing_ones_are_null() {
        let all =
            values(&decode(b"1-0:1.8.0*255(001.5*kWh)\r\n1-0:1.8.0*01(1*kWh)\r\n1.6.1(2*kW)(99)\r\nC.1.0(5)\r\n!"));
        let kept = wanted(&all, &ids(&["1.6.1", "1.8.0", "9.9.9", "1-0:1.8.0*01"]));
        let expected = [
            ("1.6.1", Some("2"), "kW"),
            ("1.6.1#2", Some("99"), ""),
            ("1.8.0", Some("001.5"), "kWh"),
            ("9.9.9", None, ""),
            ("1-0:1.8.0*01", Some("1"), "kWh"),
        ];
        assert_eq!(shown(&kept), expected);
        assert_eq!(kept[3].quality, Quality::Refused);
        assert!(!same_id("8.0", "1.8.0") && !same_id("1.8.0", "1.8.0*01") && !same_id("1-1:1.8.0", "1-0:1.8.0"));
    }

    #[test]
    fn two_meters_behind_one_reduced_id_keep_apart() {
        let all = values(&decode(b"0-1:24.2.1(1*m3)\r\n0-2:24.2.1(2*m3)\r\n!"));
        let kept = wanted(&all, &ids(&["24.2.1"]));
        assert_eq!(shown(&kept), [("24.2.1", Some("1"), "m3"), ("0-2:24.2.1", Some("2"), "m3")]);
    }

    #[test]
    fn an_error_message_is_a_refusal_and_a_readout_is_none() {
        assert_eq!(refusal(&decode(b"(ER06)")).as_deref(), Some("ER06"));
        assert_eq!(refusal(&decode(b"F.F(ER06)\r\n!")), None);
    }
}
