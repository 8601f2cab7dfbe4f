//! Texts and topics in which placeholders stand for the gateway's own names.

use super::{Node, Printed, Problems, Setting, Shape};

/// Who this gateway is: what the placeholders stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `{id}`.
    pub id: String,
    /// `{imei}` and `[IMEI]`, when known.
    pub imei: Option<String>,
}

/// A text in which `{id}`, `{imei}` and `[IMEI]` stand for the gateway's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(String);

const PLACEHOLDERS: [&str; 3] = ["{id}", "{imei}", "[IMEI]"];
const LONGEST_TEXT: usize = 1024;

impl Text {
    /// Takes the text as written; the error ends a sentence that starts with the key.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut plain = text.to_owned();
        for placeholder in PLACEHOLDERS {
            plain = plain.replace(placeholder, "");
        }
        if text.is_empty() {
            Err("must not be empty")
        } else if text.len() > LONGEST_TEXT {
            Err("must not be longer than 1024 bytes")
        } else if text.chars().any(char::is_control) {
            Err("must not hold control characters")
        } else if plain.contains(['{', '}']) {
            Err("has an unknown placeholder; known are {id}, {imei} and [IMEI]")
        } else {
            Ok(Self(text.to_owned()))
        }
    }

    /// The text with its placeholders.
    pub fn as_written(&self) -> &str {
        &self.0
    }

    /// Puts the gateway's own names in; `None` when the IMEI is needed but not known.
    pub fn of(&self, identity: &Identity) -> Option<String> {
        substituted(&self.0, identity)
    }
}

/// Replaces the placeholders in any text; `None` when the IMEI is needed but not known.
pub fn substituted(text: &str, identity: &Identity) -> Option<String> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((at, placeholder)) =
        PLACEHOLDERS.iter().filter_map(|p| rest.find(p).map(|at| (at, *p))).min_by_key(|(at, _)| *at)
    {
        let (before, after) = rest.split_at(at);
        result.push_str(before);
        result.push_str(if placeholder == "{id}" { &identity.id } else { identity.imei.as_deref()? });
        rest = after.strip_prefix(placeholder).unwrap_or("");
    }
    result.push_str(rest);
    Some(result)
}

impl Setting for Text {
    fn shape() -> Shape {
        Shape::Value("text; {id} and {imei} are replaced")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        let text = node.text("a text in quotes", problems)?;
        Self::parse(text).map_or_else(|why| node.refused(why, problems), Some)
    }

    fn printed(&self) -> Printed {
        Printed::text(&self.0)
    }
}

/// A topic to publish to (MQTT 3.1.1, 4.7): no wildcards, with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic(Text);

impl Topic {
    /// Takes the topic as written; the error ends a sentence that starts with the key.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains(['+', '#']) {
            return Err("must not hold the wildcards + and #: messages are published to one topic");
        }
        Text::parse(text).map(Self)
    }

    /// The topic with its placeholders.
    pub fn as_written(&self) -> &str {
        self.0.as_written()
    }

    /// Puts the gateway's own names in; `None` when the IMEI is needed but not known.
    pub fn of(&self, identity: &Identity) -> Option<String> {
        self.0.of(identity)
    }
}

impl Setting for Topic {
    fn shape() -> Shape {
        Shape::Value("topic without wildcards; {id} and {imei} are replaced")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        let text = node.text("a topic in quotes", problems)?;
        Self::parse(text).map_or_else(|why| node.refused(why, problems), Some)
    }

    fn printed(&self) -> Printed {
        self.0.printed()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn placeholders_stand_for_the_gateways_own_names() {
        let known = Identity { id: "gw{imei}".into(), imei: Some("3569".into()) };
        let topic = Topic::parse("a/{id}/{imei}/[IMEI]/z").unwrap();
        assert_eq!(topic.of(&known).unwrap(), "a/gw{imei}/3569/3569/z");
        assert_eq!(topic.of(&Identity { imei: None, ..known.clone() }), None);
        assert_eq!(Topic::parse("a/{id}").unwrap().of(&Identity { imei: None, ..known }).unwrap(), "a/gw{imei}");
    }

    #[test]
    fn topics_that_can_not_be_published_to_are_refused() {
        assert!(Topic::parse("a/+/b").unwrap_err().contains("wildcards"));
        assert!(Topic::parse("a/#").unwrap_err().contains("wildcards"));
        assert!(Topic::parse("").unwrap_err().contains("empty"));
        assert!(Topic::parse("a/{ide}").unwrap_err().contains("placeholder"));
        assert!(Topic::parse(&"a".repeat(2000)).unwrap_err().contains("1024"));
        assert!(Topic::parse("a\u{0}").unwrap_err().contains("control"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,40}") {
            let known = Identity { id: text.clone(), imei: None };
            let _ = (Text::parse(&text), Topic::parse(&text), substituted(&text, &known));
        }
    }
}
