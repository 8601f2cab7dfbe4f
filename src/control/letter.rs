//! How an answer is written: the one place for its words.
//!
//! MTX-style: the command, a space, the result; then `OK`, or `ERROR: ` and one sentence (docs/control.md).

use serde_json::{Map, Value as Json};

/// What an answer must show of its question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The sender's own id, given back.
    pub id: Option<String>,
    /// The command, without what is private in it.
    pub echo: String,
    /// The question was JSON, so is the answer.
    pub json: bool,
}

impl Letter {
    /// The answer of a command that was carried out; the result may have several lines, or none.
    pub fn done(&self, result: &str) -> String {
        let result = result.trim_end();
        if self.json {
            return self.as_json(true, "reply", result);
        }
        let (head, echo) = (self.head(), &self.echo);
        match result {
            "" => format!("{head}{echo} OK"),
            _ if result.contains('\n') => format!("{head}{echo}\n{result}\nOK"),
            _ => format!("{head}{echo} {result}\nOK"),
        }
    }

    /// The answer of a command that was not carried out: one sentence that says what to do.
    pub fn failed(&self, sentence: &str) -> String {
        if self.json {
            return self.as_json(false, "error", sentence);
        }
        format!("{}{} ERROR: {sentence}", self.head(), self.echo)
    }

    fn head(&self) -> String {
        self.id.as_ref().map(|id| format!("#{id} ")).unwrap_or_default()
    }

    fn as_json(&self, ok: bool, member: &str, text: &str) -> String {
        let mut members = Map::new();
        if let Some(id) = &self.id {
            members.insert("id".into(), Json::from(id.as_str()));
        }
        members.insert("at".into(), Json::from(self.echo.as_str()));
        members.insert("ok".into(), Json::from(ok));
        members.insert(member.into(), Json::from(text));
        Json::Object(members).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_shows_its_question_and_how_it_went() {
        let mut letter = Letter { id: None, echo: "AT".into(), json: false };
        assert_eq!(letter.done(""), "AT OK");
        assert_eq!(letter.done("weir 1"), "AT weir 1\nOK");
        assert_eq!(letter.done("a\nb\n"), "AT\na\nb\nOK");
        letter.id = Some("7".into());
        assert_eq!(letter.failed("no such port; name another"), "#7 AT ERROR: no such port; name another");
        letter.json = true;
        assert_eq!(letter.done("x"), r#"{"at":"AT","id":"7","ok":true,"reply":"x"}"#);
        assert_eq!(letter.failed("y"), r#"{"at":"AT","error":"y","id":"7","ok":false}"#);
    }
}
