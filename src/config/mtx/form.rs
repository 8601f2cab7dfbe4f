//! How values are written on either side: seconds and `"300s"`, on and true, the third phone and a list.

use std::time::Duration;

use toml_edit::{Array, Value};

use crate::os::line::{Framing, Parity};
use crate::setting::duration;

/// How a parameter's value becomes a setting's, and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A text as it is.
    Text,
    /// A text in which `[IMEI]` may stand.
    Name,
    /// A topic in a list.
    Topic,
    /// An element of a list.
    Element,
    /// A whole number.
    Number,
    /// on or off.
    OnOff,
    /// Milliseconds.
    Millis,
    /// Seconds.
    Seconds,
    /// Minutes.
    Minutes,
    /// A broker's address; without a scheme it is plain.
    Url,
    /// The data bits of a framing.
    DataBits,
    /// The parity of a framing.
    Parity,
    /// The stop bits of a framing.
    StopBits,
    /// What a tunnel's mode is called.
    Mode,
    /// Whether the first port is in a list.
    LinePort,
    /// A port number on all addresses.
    Listen,
    /// `ip@n,ip@n`.
    Routes,
}

/// The words for a tunnel's mode on both sides.
pub(super) const MODES: [(&str, &str); 4] =
    [("mqtt", "mqtt"), ("server", "tcp-server"), ("client", "tcp-client"), ("udp", "udp")];

/// What a value depends on besides itself.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// The setting's value as it is, as text.
    pub old: Option<&'a str>,
    /// The parameter's number, counting from 1.
    pub number: Option<usize>,
    /// The name of the first port.
    pub comm: &'a str,
}

impl Form {
    /// The setting's value as `weir config set` takes it; `None` when it is to be unset. An empty value means unset.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence that begins with the name.
    pub fn to_weir(self, value: &str, around: Around<'_>) -> Result<Option<String>, String> {
        let value = value.trim();
        match self {
            Self::Element | Self::Topic => return element(value, around),
            Self::LinePort => return line_port(value, around),
            _ if value.is_empty() => return Ok(None),
            _ => {}
        }
        let number = || value.parse::<u64>().map_err(|_| "must be a whole number".to_owned());
        let text = match self {
            Self::Text | Self::Name => quoted(value),
            Self::Number => number()?.to_string(),
            Self::OnOff => on_off(value)?.to_string(),
            Self::Millis => format!("{}ms", number()?),
            Self::Seconds => format!("{}s", number()?),
            Self::Minutes => format!("{}m", number()?),
            Self::Url => match value.split_once("://") {
                Some((scheme, rest)) => quoted(&format!("{}://{rest}", scheme.to_ascii_lowercase())),
                None => quoted(&format!("tcp://{value}")),
            },
            Self::DataBits | Self::Parity | Self::StopBits => self.framed(value, around.old)?,
            Self::Mode => {
                let word = MODES.into_iter().find(|(theirs, _)| theirs.eq_ignore_ascii_case(value));
                word.ok_or("must be mqtt, server, client, udp or none")?.1.to_owned()
            }
            Self::Listen => {
                let port = number()?;
                if !(1..=65_535).contains(&port) {
                    return Err("must be a port from 1 to 65535".to_owned());
                }
                format!("0.0.0.0:{port}")
            }
            Self::Routes => list(value.split(',').map(str::trim).filter(|route| !route.is_empty())),
            Self::Element | Self::Topic | Self::LinePort => return Ok(None),
        };
        Ok(Some(text))
    }

    /// The parameter's value of a setting's, given as `weir config get` prints it.
    pub fn to_mtx(self, text: &str, around: Around<'_>) -> String {
        let unit = |millis: u128| match duration(text) {
            Some(span) if span.as_millis().is_multiple_of(millis) => (span.as_millis() / millis).to_string(),
            _ => text.to_owned(),
        };
        match self {
            Self::Text | Self::Name | Self::Number | Self::Url => text.to_owned(),
            Self::OnOff => if text == "true" { "on" } else { "off" }.to_owned(),
            Self::Millis => unit(1),
            Self::Seconds => unit(1000),
            Self::Minutes => unit(60_000),
            Self::DataBits => Framing::parse(text).map_or_else(String::new, |f| f.data_bits.to_string()),
            Self::StopBits => Framing::parse(text).map_or_else(String::new, |f| f.stop_bits.to_string()),
            Self::Parity => Framing::parse(text).map_or("", |f| spoken(f.parity)).to_owned(),
            Self::Mode => {
                MODES.into_iter().find(|(_, ours)| *ours == text).map_or(text, |(theirs, _)| theirs).to_owned()
            }
            Self::Listen => text.rsplit(':').next().unwrap_or_default().to_owned(),
            Self::Routes => elements(text).join(","),
            Self::LinePort => {
                if elements(text).iter().any(|port| port == around.comm) { "on" } else { "off" }.to_owned()
            }
            Self::Element | Self::Topic => {
                let at = around.number.and_then(|number| number.checked_sub(1));
                at.and_then(|at| elements(text).into_iter().nth(at)).unwrap_or_default()
            }
        }
    }

    /// A framing with one of its parts changed.
    fn framed(self, value: &str, old: Option<&str>) -> Result<String, String> {
        let mut framing =
            old.and_then(Framing::parse).unwrap_or(Framing { data_bits: 8, parity: Parity::None, stop_bits: 1 });
        match (self, value.to_ascii_lowercase().as_str()) {
            (Self::DataBits, "7") => framing.data_bits = 7,
            (Self::DataBits, "8") => framing.data_bits = 8,
            (Self::DataBits, _) => return Err("must be 7 or 8".to_owned()),
            (Self::StopBits, "1") => framing.stop_bits = 1,
            (Self::StopBits, "2") => framing.stop_bits = 2,
            (Self::StopBits, _) => return Err("must be 1 or 2".to_owned()),
            (_, "none" | "n") => framing.parity = Parity::None,
            (_, "even" | "e") => framing.parity = Parity::Even,
            (_, "odd" | "o") => framing.parity = Parity::Odd,
            _ => return Err("must be none, even or odd".to_owned()),
        }
        Ok(framing.to_string())
    }
}

const fn spoken(parity: Parity) -> &'static str {
    match parity {
        Parity::None => "none",
        Parity::Even => "even",
        Parity::Odd => "odd",
    }
}

/// on or off, whatever the capitals.
pub(super) fn on_off(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("must be on or off".to_owned()),
    }
}

/// A text as TOML writes it, so that no sign in it means anything.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).decorated("", "").to_string()
}

/// A text with something else where `[IMEI]` stands, whatever its capitals.
pub(super) fn with_imei(text: &str, instead: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut parts = lower.split("[imei]").map(str::len);
    let mut at = parts.next().unwrap_or_default();
    let mut new = text.get(..at).unwrap_or_default().to_owned();
    for length in parts {
        at += "[imei]".len();
        new.push_str(instead);
        new.push_str(text.get(at..at + length).unwrap_or_default());
        at += length;
    }
    new
}

/// A list as TOML writes it.
pub(super) fn list<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.collect::<Array>().to_string().trim().to_owned()
}

/// The texts of a list that TOML wrote.
pub(super) fn elements(text: &str) -> Vec<String> {
    let list = match text.parse::<Value>() {
        Ok(Value::Array(list)) => list,
        _ => return Vec::new(),
    };
    list.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

/// Puts an element into a list: in its place when there is one, else at the end; an empty one is taken out.
fn element(value: &str, around: Around<'_>) -> Result<Option<String>, String> {
    let mut texts = around.old.map(elements).unwrap_or_default();
    let at = around.number.and_then(|number| number.checked_sub(1)).ok_or("must have a number from 1")?;
    match (texts.get_mut(at), value) {
        (Some(_), "") => drop(texts.remove(at)),
        (Some(there), value) => value.clone_into(there),
        (None, "") => {}
        (None, value) => texts.push(value.to_owned()),
    }
    Ok((!texts.is_empty()).then(|| list(texts.iter().map(String::as_str))))
}

/// Puts the first port into a list, or takes it out.
fn line_port(value: &str, around: Around<'_>) -> Result<Option<String>, String> {
    let on = !value.is_empty() && on_off(value)?;
    let mut ports = around.old.map(elements).unwrap_or_default();
    ports.retain(|port| port != around.comm);
    if on {
        ports.push(around.comm.to_owned());
    }
    Ok((!ports.is_empty()).then(|| list(ports.iter().map(String::as_str))))
}

/// How long a duration of the vendor's unit is, for those who only want to know whether it is none.
pub(super) fn is_zero(text: &str) -> bool {
    duration(text).is_some_and(|span| span == Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(old: Option<&str>) -> Around<'_> {
        Around { old, number: Some(2), comm: "rs485-1" }
    }

    #[test]
    fn values_go_there_and_back() {
        for (form, theirs, ours) in [
            (Form::Seconds, "300", "300s"),
            (Form::Minutes, "35", "35m"),
            (Form::Millis, "100", "100ms"),
            (Form::OnOff, "on", "true"),
            (Form::OnOff, "off", "false"),
            (Form::Number, "9600", "9600"),
            (Form::Mode, "server", "tcp-server"),
            (Form::Listen, "20010", "0.0.0.0:20010"),
        ] {
            assert_eq!(form.to_weir(theirs, around(None)).unwrap().unwrap(), ours, "{form:?}");
            assert_eq!(form.to_mtx(ours, around(None)), theirs, "{form:?}");
        }
        assert_eq!(Form::Seconds.to_mtx("5m", around(None)), "300", "whoever wrote it");
        assert_eq!(Form::Minutes.to_mtx("90s", around(None)), "90s", "nothing is rounded");
        assert_eq!(Form::Url.to_weir("host:1883", around(None)).unwrap().unwrap(), "\"tcp://host:1883\"");
        assert_eq!(Form::Url.to_weir("SSL://Host:8883", around(None)).unwrap().unwrap(), "\"ssl://Host:8883\"");
        assert_eq!(Form::Text.to_weir("", around(None)).unwrap(), None);
        assert_eq!(with_imei("É[imei]/a/[Imei]", "{id}"), "É{id}/a/{id}");
        assert_eq!(with_imei("a[IMEI", "{id}"), "a[IMEI");
    }

    #[test]
    fn a_framing_is_changed_in_parts() {
        let even = Form::Parity.to_weir("even", around(Some("8N1"))).unwrap().unwrap();
        let seven = Form::DataBits.to_weir("7", around(Some(&even))).unwrap().unwrap();
        assert_eq!(seven, "7E1");
        assert_eq!(Form::StopBits.to_weir("2", around(Some("7E1"))).unwrap().unwrap(), "7E2");
        let parts = [Form::DataBits, Form::Parity, Form::StopBits].map(|form| form.to_mtx("7E1", around(None)));
        assert_eq!(parts, ["7", "even", "1"]);
        assert!(
            Form::Parity.to_weir("mark", around(None)).is_err() && Form::DataBits.to_weir("9", around(None)).is_err()
        );
    }

    #[test]
    fn elements_have_places() {
        let both = r#"["+341", "+342"]"#;
        assert_eq!(Form::Element.to_mtx(both, around(None)), "+342");
        assert_eq!(Form::Element.to_weir("+349", around(Some(both))).unwrap().unwrap(), r#"["+341", "+349"]"#);
        assert_eq!(Form::Element.to_weir("", around(Some(both))).unwrap().unwrap(), r#"["+341"]"#);
        assert_eq!(Form::Element.to_weir("+341", around(None)).unwrap().unwrap(), r#"["+341"]"#);
        let ports = Form::LinePort.to_weir("on", around(Some(r#"["x"]"#))).unwrap().unwrap();
        assert_eq!(ports, r#"["x", "rs485-1"]"#);
        assert_eq!(Form::LinePort.to_mtx(&ports, around(None)), "on");
        assert_eq!(Form::LinePort.to_weir("off", around(Some(r#"["rs485-1"]"#))).unwrap(), None);
    }

    #[test]
    fn nothing_in_a_value_is_taken_for_toml() {
        let text = Form::Text.to_weir("a\"b\\c", around(None)).unwrap().unwrap();
        assert_eq!(text.parse::<Value>().unwrap().as_str(), Some("a\"b\\c"));
        for form in [Form::Seconds, Form::Minutes, Form::Millis, Form::Number, Form::Listen] {
            assert!(form.to_weir("-1", around(None)).is_err() && form.to_weir("1 # x", around(None)).is_err());
        }
    }
}
