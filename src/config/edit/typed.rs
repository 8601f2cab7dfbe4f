//! A value given as text, typed by what the setting takes.

use toml_edit::{Array, Value};

use crate::setting::Shape;

/// Longer values are refused.
const LONGEST: usize = 16 * 1024;

/// Makes the value; the error ends a sentence that starts with the key.
pub(super) fn value(shape: &Shape, text: &str) -> Result<Value, String> {
    if text.len() > LONGEST {
        return Err(format!("has a value of more than {LONGEST} bytes"));
    }
    let text = text.trim();
    match shape {
        Shape::Choice(_) => Ok(string(text)),
        Shape::List(_) if text.starts_with('[') => raw(text, "a list such as [\"a\", \"b\"]"),
        Shape::List(inner) => {
            let mut list = Array::new();
            for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
                list.push_formatted(value(inner, part)?);
            }
            list.fmt();
            Ok(Value::Array(list))
        }
        Shape::Table { .. } => raw(text, "a table such as { key = \"value\" }"),
        Shape::Value(phrase) => by_phrase(phrase, text),
    }
}

/// The phrases are those of `Setting::shape`; what is none of these is a text.
fn by_phrase(phrase: &str, text: &str) -> Result<Value, String> {
    if phrase.starts_with("true or false") {
        return match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" | "1" => Ok(Value::from(true)),
            "false" | "off" | "no" | "0" => Ok(Value::from(false)),
            _ => Err(format!("is \"{}\", but must be on or off", brief(text))),
        };
    }
    if phrase.starts_with("whole number, or text") {
        return Ok(number(text).unwrap_or_else(|| string(text)));
    }
    if phrase.starts_with("whole number") || phrase.starts_with("exact decimal number") {
        return number(text).ok_or_else(|| format!("is \"{}\", but must be a number", brief(text)));
    }
    if phrase.starts_with("table") {
        return raw(text, "a table such as { 1 = \"one\" }");
    }
    if phrase.starts_with("not acted on") {
        return Ok(raw(text, "").unwrap_or_else(|_| string(text)));
    }
    Ok(string(text))
}

/// A number with its digits as they are.
fn number(text: &str) -> Option<Value> {
    let value: Value = text.parse().ok()?;
    matches!(value, Value::Integer(_) | Value::Float(_)).then_some(value)
}

/// A text, also when it was given in quotes.
fn string(text: &str) -> Value {
    match text.parse() {
        Ok(Value::String(quoted)) => Value::from(quoted.value().as_str()),
        _ => Value::from(text),
    }
}

/// A value written as in the file.
fn raw(text: &str, what: &str) -> Result<Value, String> {
    let mut value: Value = text.parse().map_err(|_| format!("is \"{}\", but must be {what}", brief(text)))?;
    // The usual blank goes before it, as before every other value.
    value.decor_mut().clear();
    Ok(value)
}

/// A default as it stands in the settings, without its quotes.
pub(super) fn plain(text: &str) -> String {
    match text.parse() {
        Ok(Value::String(quoted)) => quoted.value().clone(),
        _ => text.to_owned(),
    }
}

fn brief(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}
