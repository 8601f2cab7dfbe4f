//! A configuration for others to read.

use toml_edit::{DocumentMut, Item, Value};

use crate::control::masked_number;

/// A configuration's text for others to read: the user names of brokers, user info in addresses and phone numbers are
/// masked, wherever they stand and however they are quoted. Secrets are names of files in any case. A text that is no TOML is not shown.
pub fn masked(text: &str) -> String {
    let Ok(mut document) = text.parse::<DocumentMut>() else {
        return "# not shown: it is not valid TOML\n".to_owned();
    };
    for (key, item) in document.iter_mut() {
        mask_item(key.get(), item);
    }
    document.to_string()
}

fn mask_item(key: &str, item: &mut Item) {
    match item {
        Item::None => {}
        Item::Value(value) => mask_value(key, value),
        Item::Table(table) => table.iter_mut().for_each(|(key, item)| mask_item(key.get(), item)),
        Item::ArrayOfTables(tables) => {
            for table in tables.iter_mut() {
                table.iter_mut().for_each(|(key, item)| mask_item(key.get(), item));
            }
        }
    }
}

fn mask_value(key: &str, value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some(hidden) = hidden(key, text.value()) {
                let decor = value.decor().clone();
                *value = Value::from(hidden);
                *value.decor_mut() = decor;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| mask_value(key, value)),
        Value::InlineTable(table) => table.iter_mut().for_each(|(key, value)| mask_value(key.get(), value)),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
}

/// What is shown instead of a text; `None` when it may be shown.
fn hidden(key: &str, text: &str) -> Option<String> {
    if key == "username" {
        return Some("***".to_owned());
    }
    if let Some((scheme, (_, host))) =
        text.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?)))
    {
        return Some(format!("{scheme}://***@{host}"));
    }
    let begin = text.find('+')?;
    let (before, number) = text.split_at_checked(begin)?;
    let end = number
        .char_indices()
        .skip(1)
        .find(|(_, c)| !c.is_ascii_digit() && *c != ' ')
        .map_or(number.len(), |(at, _)| at);
    let (number, behind) = number.split_at_checked(end)?;
    (number.len() > 6).then(|| format!("{before}{}{behind}", masked_number(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_it_is_written_it_is_masked() {
        let text = "broker = { url = \"ssl://u:p@h\", username = 'meters' }\n[control.sms]\nallow = ['+34666123456']\nalias = [\"go>AT^WEIR=SMS,+34666123456,x\"]\n[[control.grant]]\nwho = \"sms:+34666123456\"\nrights = []\n";
        let shown = masked(text);
        for secret in ["u:p", "meters", "666123456"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("ssl://***@h") && shown.contains("sms:+34"), "{shown}");
        assert!(!masked("username = 'meters").contains("meters"));
    }
}
