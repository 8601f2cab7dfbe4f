//! Parameters by command: weir.toml's keys, and MTX's names by the table of `config::mtx`.

use crate::agent::change::Changer;
use crate::config::edit::{self, Edit};
use crate::config::mtx::parameter;
use crate::control::Change;

/// The values, a line each.
pub(super) fn get(changer: &Changer, names: &[String]) -> Result<String, String> {
    let mut lines = Vec::new();
    for name in names {
        let value = if parameter::is_meant(name) {
            parameter::value(&changer.text(), name)?
        } else {
            changer.get(name).map_err(|why| format!("{name}: {why}"))?.unwrap_or_default()
        };
        lines.push(format!("{name}: {value}"));
    }
    Ok(lines.join("\n"))
}

/// The edits that changes ask for, each of the text that those before it leave: two may be parts of one key.
pub(super) fn edits(text: &str, changes: &[Change]) -> Result<Vec<Edit>, String> {
    let mut text = text.to_owned();
    let mut all = Vec::new();
    for change in changes {
        let edits = if parameter::is_meant(&change.name) {
            parameter::edits(&text, &change.name, &change.value)?
        } else {
            vec![Edit::Set(change.name.clone(), change.value.clone())]
        };
        text = edit::edited(&text, &edits).map_err(|why| why.to_string())?;
        all.extend(edits);
    }
    Ok(all)
}
