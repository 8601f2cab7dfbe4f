//! A text in which names in braces stand for fields.
//!
//! When the text is JSON but for its fields, values are put in so that it stays JSON: inside quotes as escaped text, elsewhere as
//! JSON values. In any other text they stand as they are; what is not known is empty.

use serde_json::Value as Json;

use super::fields::{Field, PortField};

/// A longer text is a mistake.
const LONGEST: usize = 16 * 1024;
/// Names that are offered for one that is not known.
const OFFERED: usize = 3;

/// What is to be put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placeholder {
    /// A figure of the gateway.
    Gateway(Field),
    /// A figure of the port of this name.
    Port(String, PortField),
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As it is.
    Plain,
    /// Inside quotes of JSON.
    Quoted,
    /// As a value of JSON.
    Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Value(Placeholder, Form),
}

/// A text with fields, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

impl Template {
    /// Takes a template; `ports` are the names there are. Second, what somebody should look at.
    ///
    /// # Errors
    /// Everything that is wrong with it, a sentence each.
    pub fn parse(text: &str, ports: &[&str]) -> Result<(Self, Option<String>), Vec<String>> {
        if text.len() > LONGEST {
            return Err(vec![format!("the template must not be longer than {LONGEST} bytes")]);
        }
        let (mut pieces, mut faults) = (Vec::new(), Vec::new());
        let mut rest = text;
        while let Some((before, name, after)) = next_name(rest) {
            pieces.push(Piece::Literal(before.to_owned()));
            match known(name, ports) {
                Ok(placeholder) => pieces.push(Piece::Value(placeholder, Form::Plain)),
                Err(fault) => faults.push(fault),
            }
            rest = after;
        }
        pieces.push(Piece::Literal(rest.to_owned()));
        if !faults.is_empty() {
            return Err(faults);
        }
        if pieces.len() < 2 {
            return Err(vec![format!(
                "the template \"{}\" has no field; write \"weir\", \"mtx\" or a text with fields such as {{imei}} (docs/status.md)",
                text.chars().take(40).collect::<String>()
            )]);
        }
        let warning = into_json(&mut pieces);
        Ok((Self(pieces), warning))
    }

    /// The text with its values.
    pub fn fill(&self, value: impl Fn(&Placeholder) -> Json) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Value(placeholder, Form::Value) => text.push_str(&value(placeholder).to_string()),
                Piece::Value(placeholder, Form::Plain) => text.push_str(&plain(value(placeholder))),
                Piece::Value(placeholder, Form::Quoted) => {
                    let quoted = Json::String(plain(value(placeholder))).to_string();
                    text.push_str(quoted.get(1..quoted.len() - 1).unwrap_or_default());
                }
            }
        }
        text
    }
}

fn plain(value: Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => text,
        other => other.to_string(),
    }
}

/// The first name in braces: what is before it, the name, what is behind it. `[IMEI]` is MTX's way.
fn next_name(text: &str) -> Option<(&str, &str, &str)> {
    const MTX: &str = "[IMEI]";
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.find(['{', '['])?;
        let (before, rest) = text.split_at_checked(at)?;
        if let Some(after) = rest.strip_prefix(MTX) {
            return Some((before, "imei", after));
        }
        let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic())
                && !name.contains(|c: char| c.is_control() || "\":{,".contains(c))
                && (name.starts_with("port.") || !name.contains(char::is_whitespace))
        };
        match inside {
            Some((name, after)) if is_name(name) => return Some((before, name, after)),
            _ => from = at + 1,
        }
    }
}

fn known(name: &str, ports: &[&str]) -> Result<Placeholder, String> {
    let field = |name: &str| Field::ALL.iter().find(|field| field.name().eq_ignore_ascii_case(name));
    if let Some(field) = field(name) {
        return Ok(Placeholder::Gateway(*field));
    }
    let Some((port, figure)) = name.strip_prefix("port.").and_then(|name| name.rsplit_once('.')) else {
        let near = nearest(name, Field::ALL.iter().map(|field| field.name()));
        return Err(format!("the template has an unknown field {{{name}}}; {near}"));
    };
    if !ports.contains(&port) {
        let near = nearest(port, ports.iter().copied());
        return Err(format!("the template has {{{name}}}, but there is no port \"{port}\"; {near}"));
    }
    let found = PortField::ALL.iter().find(|field| field.name() == figure);
    found.map(|field| Placeholder::Port(port.to_owned(), *field)).ok_or_else(|| {
        let near = nearest(figure, PortField::ALL.iter().map(|field| field.name()));
        format!("the template has {{{name}}}, but a port has no \"{figure}\"; {near}")
    })
}

/// The names most like this one, as the end of a sentence.
fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> String {
    let name = name.to_ascii_lowercase();
    let mut near: Vec<_> = names.map(|known| (strsim::damerau_levenshtein(&name, known), known)).collect();
    near.sort_unstable();
    let likely = near.iter().take(OFFERED).filter(|(distance, _)| *distance <= (name.len() / 2).max(2));
    let likely: Vec<_> = likely.map(|(_, known)| format!("\"{known}\"")).collect();
    match likely.is_empty() {
        true => "docs/status.md lists them".to_owned(),
        false => format!("nearest are {}", likely.join(", ")),
    }
}

/// When the text is JSON, has its values written as JSON; says when it only looks like it.
fn into_json(pieces: &mut [Piece]) -> Option<String> {
    let mut probe = String::new();
    let mut forms = Vec::new();
    let (mut quoted, mut escaped) = (false, false);
    for piece in pieces.iter() {
        let Piece::Literal(literal) = piece else {
            // A value outside quotes may be anything, `null` included: `-{rssi}` is no JSON.
            probe.push_str(if quoted { "0" } else { "null" });
            forms.push(if quoted { Form::Quoted } else { Form::Value });
            continue;
        };
        probe.push_str(literal);
        for c in literal.chars() {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                _ => {}
            }
        }
    }
    if !probe.trim_start().starts_with(['{', '[']) {
        return None;
    }
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&probe) {
        return Some(format!(
            "the template looks like JSON but is none, so its values are put in as they are: {error}"
        ));
    }
    let places = pieces.iter_mut().filter_map(|piece| match piece {
        Piece::Value(_, form) => Some(form),
        Piece::Literal(_) => None,
    });
    places.zip(forms).for_each(|(place, form)| *place = form);
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn filled(text: &str, value: Json) -> String {
        let (template, warning) = Template::parse(text, &["com-1"]).unwrap();
        assert_eq!(warning, None, "{text}");
        template.fill(|_| value.clone())
    }

    #[test]
    fn values_are_written_as_their_place_needs() {
        assert_eq!(filled("{\"a\":{csq},\"b\":\"n {csq}\"}", json!(20)), "{\"a\":20,\"b\":\"n 20\"}");
        assert_eq!(filled("{\"a\":{csq},\"b\":\"{csq}\"}", Json::Null), "{\"a\":null,\"b\":\"\"}");
        assert_eq!(
            filled("{\"a\":{operator},\"b\":\"{operator}\"}", json!("O\"2\n")),
            "{\"a\":\"O\\\"2\\n\",\"b\":\"O\\\"2\\n\"}"
        );
        assert_eq!(filled("gw {id}: {Operator} [IMEI]", json!("O\"2")), "gw O\"2: O\"2 O\"2");
        assert_eq!(filled("{\"p\":{ports}}", json!({"x": 1})), "{\"p\":{\"x\":1}}");
        assert_eq!(filled("{port.com-1.to_port} B", json!(7)), "7 B");
    }

    #[test]
    fn what_is_unknown_is_told_with_its_nearest_names() {
        let faults = Template::parse("{imie} {rsp} {port.com-2.to_port} {port.com-1.toport}", &["com-1"]).unwrap_err();
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(faults[0].contains("{imie}") && faults[0].contains("\"imei\""), "{faults:?}");
        assert!(faults[1].contains("\"rsrp\""), "{faults:?}");
        assert!(faults[2].contains("no port \"com-2\"") && faults[3].contains("\"to_port\""), "{faults:?}");
        assert!(Template::parse("wier", &[]).unwrap_err()[0].contains("has no field"));
        for text in ["{\"a\":{csq},}", "{\"a\":-{rssi}}", "{\"a\":1{csq}}", "{{id}:1}"] {
            let (_, warning) = Template::parse(text, &[]).unwrap();
            assert!(warning.unwrap().contains("looks like JSON"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_json_template_stays_json_whatever_the_values_are(value in ".{0,20}", key in "[a-z\"\\\\{}]{0,6}") {
            let key = json!(key).to_string();
            let text = format!("{{{key}:{{id}},\"b\":[\"x{{ip}}y\",{{csq}}]}}");
            if let Ok((template, None)) = Template::parse(&text, &[]) {
                let told = template.fill(|_| json!(value));
                prop_assert!(serde_json::from_str::<Json>(&told).is_ok(), "{told}");
            }
        }

        #[test]
        fn any_text_is_taken_or_refused_without_a_panic(text in ".{0,60}", braces in "[\\{\\}\\[\\]\"a-z.:,\\\\]{0,40}") {
            for text in [text, braces] {
                if let Ok((template, _)) = Template::parse(&text, &["a"]) {
                    let _ = template.fill(|_| Json::Null);
                }
            }
        }
    }
}
