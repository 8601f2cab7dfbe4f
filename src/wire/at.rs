//! The text of a command in AT style: `[#ID ]AT^MTXTUNNEL=NAME,arguments`, or a standard one such as `AT+CSQ`.
//!
//! MTX-style, not MTX-identical (docs/control.md). Letters' case does not count in the header and the name; what stands behind the name
//! is left as it is. The same commands stand inside tags on a line: `<MTXTUNNEL>AT...</MTXTUNNEL>`, see [`tags`].

use super::DecodeError;

pub mod tags;

/// The longest command: a certificate must fit.
pub const LONGEST: usize = 16 * 1024;
/// The longest correlation id.
pub const LONGEST_ID: usize = 64;

/// The headers of our own commands.
const HEADERS: [&str; 2] = ["AT^MTXTUNNEL", "AT^WEIR"];

/// A command as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// What the sender wants to find in the answer.
    pub id: Option<&'a str>,
    /// The command without it.
    pub text: &'a str,
    /// What is asked.
    pub spoken: Spoken<'a>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spoken<'a> {
    /// One of our own.
    Own {
        /// The header as it was written, such as `AT^MTXTUNNEL`.
        header: &'a str,
        /// In capitals; empty when only the header was sent.
        name: String,
        /// Behind the name's comma; `None` without one.
        arguments: Option<&'a str>,
    },
    /// Any other AT command.
    Standard(&'a str),
}

/// Reads a command.
///
/// # Errors
/// [`DecodeError`]: no AT command, control characters but line ends inside a value, too long.
pub fn decode(text: &str) -> Result<Line<'_>, DecodeError> {
    if text.len() > LONGEST {
        return Err(DecodeError::new(LONGEST, "a command of at most 16 KiB", format!("{} bytes", text.len())));
    }
    let text = text.trim();
    let (id, text) = match text.strip_prefix('#') {
        Some(rest) => {
            let (id, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            if !is_id(id) {
                return Err(DecodeError::new(1, "an id of 1 to 64 letters, digits, '.', '_', '-'", shown(id)));
            }
            (Some(id), rest.trim_start())
        }
        None => (None, text),
    };
    let is_at = text.get(..2).is_some_and(|head| head.eq_ignore_ascii_case("AT"));
    if !is_at {
        return Err(DecodeError::new(0, "a command that begins with AT", shown(text)));
    }
    if let Some(at) = text.find(|c: char| c.is_control() && !matches!(c, '\r' | '\n' | '\t')) {
        return Err(DecodeError::new(at, "printable characters", "a control character"));
    }
    Ok(Line { id, text, spoken: spoken(text)? })
}

/// Whether a text can be a correlation id.
pub fn is_id(text: &str) -> bool {
    (1..=LONGEST_ID).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn spoken(text: &str) -> Result<Spoken<'_>, DecodeError> {
    let begins = |header: &str| text.get(..header.len()).is_some_and(|head| head.eq_ignore_ascii_case(header));
    let length = HEADERS.iter().find(|header| begins(header)).map_or(0, |header| header.len());
    let Some((header, rest)) = text.split_at_checked(length).filter(|_| length > 0) else {
        return if text.contains(['\r', '\n']) {
            Err(DecodeError::new(0, "one line", "several"))
        } else {
            Ok(Spoken::Standard(text))
        };
    };
    let rest = rest.trim_start();
    if rest.is_empty() || rest == "?" || rest == "=?" {
        return Ok(Spoken::Own { header, name: String::new(), arguments: None });
    }
    let Some(rest) = rest.strip_prefix('=') else {
        return Err(DecodeError::new(header.len(), "= and a command's name", shown(rest)));
    };
    let (name, arguments) = match rest.split_once(',') {
        Some((name, arguments)) => (name, Some(arguments)),
        None => (rest, None),
    };
    Ok(Spoken::Own { header, name: name.trim().to_ascii_uppercase(), arguments })
}

fn shown(text: &str) -> String {
    let short: String = text.chars().take(24).flat_map(char::escape_default).collect();
    if short.is_empty() { "nothing".to_owned() } else { format!("\"{short}\"") }
}

/// The bytes of a text in which `<HEX>0102</HEX>` stands for bytes and everything else for itself, in UTF-8.
///
/// # Errors
/// [`DecodeError`]: no pairs of hexadecimal digits inside the tags, or a tag that does not end.
pub fn bytes(text: &str) -> Result<Vec<u8>, DecodeError> {
    const BEGIN: &str = "<HEX>";
    const END: &str = "</HEX>";
    let capitals = text.to_ascii_uppercase();
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(begin) = capitals.get(at..).and_then(|rest| rest.find(BEGIN)).map(|found| at + found) {
        out.extend_from_slice(text.get(at..begin).unwrap_or_default().as_bytes());
        let from = begin + BEGIN.len();
        let end = capitals.get(from..).and_then(|rest| rest.find(END)).map(|found| from + found);
        let end = end.ok_or_else(|| DecodeError::new(begin, "</HEX> behind <HEX>", "none"))?;
        let digits: String =
            capitals.get(from..end).unwrap_or_default().chars().filter(|c| !c.is_whitespace()).collect();
        let decoded = data_encoding::HEXUPPER.decode(digits.as_bytes());
        out.extend(
            decoded.map_err(|error| {
                DecodeError::new(from + error.position, "pairs of hexadecimal digits", shown(&digits))
            })?,
        );
        at = end + END.len();
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default().as_bytes());
    Ok(out)
}

/// Writes bytes so that [`bytes()`] reads them back: printable ASCII as it is, all else as `<HEX>`.
pub fn text(bytes: &[u8]) -> String {
    let plain = |b: &u8| (b' '..=b'~').contains(b) && *b != b'<';
    let mut out = String::new();
    for run in bytes.chunk_by(|a, b| plain(a) == plain(b)) {
        if run.first().is_some_and(plain) {
            out.push_str(&String::from_utf8_lossy(run));
        } else {
            out.push_str("<HEX>");
            out.push_str(&data_encoding::HEXUPPER.encode(run));
            out.push_str("</HEX>");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn own<'a>(header: &'a str, name: &str, arguments: Option<&'a str>) -> Spoken<'a> {
        Spoken::Own { header, name: name.to_owned(), arguments }
    }

    #[test]
    fn our_own_commands_have_a_name_and_what_stands_behind_it() {
        let line = decode("at^mtxtunnel=setparam, MQTT_server,ssl://a:8883,b\r\n").unwrap();
        assert_eq!(line.id, None);
        assert_eq!(line.spoken, own("at^mtxtunnel", "SETPARAM", Some(" MQTT_server,ssl://a:8883,b")));
        let line = decode("#q-7 AT^WEIR=VERSION").unwrap();
        assert_eq!((line.id, line.text), (Some("q-7"), "AT^WEIR=VERSION"));
        assert_eq!(line.spoken, own("AT^WEIR", "VERSION", None));
        assert_eq!(decode("AT^MTXTUNNEL?").unwrap().spoken, own("AT^MTXTUNNEL", "", None));
        assert_eq!(decode("AT+CSQ").unwrap().spoken, Spoken::Standard("AT+CSQ"));
        assert_eq!(decode("AT^SSIO=0,1").unwrap().spoken, Spoken::Standard("AT^SSIO=0,1"));
    }

    #[test]
    fn what_is_no_command_is_told() {
        for bad in ["", "hello", "#", "#a/b AT", "#x", "AT\u{0}", "AT+A\nAT+B", "AT^MTXTUNNEL VERSION", "é"] {
            assert!(decode(bad).is_err(), "{bad}");
        }
        assert!(decode(&format!("AT{}", "x".repeat(LONGEST))).unwrap_err().to_string().contains("16 KiB"));
    }

    #[test]
    fn bytes_and_text_are_mixed() {
        assert_eq!(bytes("<HEX>0102</HEX>OPE1<hex>03</hex>").unwrap(), b"\x01\x02OPE1\x03");
        assert_eq!(bytes("a<HEX></HEX>").unwrap(), b"a");
        for bad in ["<HEX>01", "<HEX>0</HEX>", "<HEX>xy</HEX>"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}", raw in any::<Vec<u8>>()) {
            let _ = (decode(&text), bytes(&text), decode(&format!("#1 AT^MTXTUNNEL={text}")));
            prop_assert_eq!(bytes(&super::text(&raw)).unwrap(), raw);
        }
    }
}
