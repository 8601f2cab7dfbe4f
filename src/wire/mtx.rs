//! `config.txt` of the vendor's modems: a `Name: value` a line, as their published examples show it.
//!
//! A name ends at the first colon, because values hold colons, too; blanks in it are slips of the pen (`UDP_ localPort`).
//! Letter case is kept here and means nothing. Any bytes are read: what is no parameter is a [`Item::Stray`] line.

use std::borrow::Cow;

/// One line that says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A parameter.
    Parameter(Parameter),
    /// A line that is no parameter and no comment.
    Stray {
        /// Its number, counting from 1.
        line: usize,
        /// What it says, without blanks around it.
        text: String,
    },
}

/// A parameter as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The line's number, counting from 1.
    pub line: usize,
    /// The name as it was spelled, blanks included.
    pub spelled: String,
    /// What follows the colon, without blanks around it; empty means unset.
    pub value: String,
}

impl Parameter {
    /// The name without blanks.
    pub fn name(&self) -> String {
        bare(&self.spelled)
    }
}

/// A name without blanks.
pub fn bare(name: &str) -> String {
    name.chars().filter(|c| !c.is_whitespace()).collect()
}

/// Whether two names mean the same: neither blanks nor capitals count.
pub fn is_same(one: &str, other: &str) -> bool {
    bare(one).eq_ignore_ascii_case(&bare(other))
}

/// Whether a text can be a parameter's name: letters, digits and underscores, and blanks among them.
fn is_name(text: &str) -> bool {
    let bare = bare(text);
    bare.starts_with(|c: char| c.is_ascii_alphabetic()) && bare.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Reads all lines, with LF, CR LF or CR behind them. Lines that begin with `#`, `;` or `//` are comments. A line that is no
/// UTF-8 is read as Windows-1252.
pub fn decode(bytes: &[u8]) -> Vec<Item> {
    lines(bytes).filter_map(|(line, content)| item(line, text_of(content).trim())).collect()
}

/// The numbers of the lines that are no UTF-8.
pub fn in_windows_1252(bytes: &[u8]) -> Vec<usize> {
    lines(bytes).filter(|(_, content)| std::str::from_utf8(content).is_err()).map(|(line, _)| line).collect()
}

/// The lines with their numbers, counting from 1: CR LF is one end of a line, so that the numbers are those that an editor shows.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut rest = Some(bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes));
    let lines = std::iter::from_fn(move || {
        let bytes = rest?;
        let Some(at) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else { return rest.take() };
        let (line, behind) = bytes.split_at(at);
        rest = behind.strip_prefix(b"\r\n").or_else(|| behind.get(1..));
        Some(line)
    });
    (1..).zip(lines)
}

fn text_of(line: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(line) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(line.iter().map(|byte| of_windows_1252(*byte)).collect()),
    }
}

fn of_windows_1252(byte: u8) -> char {
    /// What stands from 0x80 on instead of Latin-1's control characters; where nothing does, they stay.
    const OTHERS: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ";
    let other = byte.checked_sub(0x80).and_then(|at| OTHERS.chars().nth(usize::from(at)));
    other.unwrap_or(char::from(byte))
}

/// Every name of the vendor's that is known, in the vendor's capitals: `#` at the end is a number, `*` anything.
pub const NAMES: &str = "\
    COMM_baudrate COMM_bitsperchar COMM_parity COMM_stopbits COMM_autorts COMM_autocts COMM2_baudrate COMM2_bitsperchar \
    COMM2_parity COMM2_stopbits COMM2_autorts COMM2_autocts GPRS_apn GPRS_login GPRS_password GPRS_timeout GPRS_mode \
    GPRS_DNS MTX_PIN MTX_mode MTX_model MTX_ping MTX_pingIP MTX_numGSMErrors MTX_invertedCom MTX_msToSend MTX_portAux \
    MTX_ATMux MTX_ATEmbedded MTX_te* MTX_ATLimited MTX_urc MTX_TPProtocol MTX_TPServer MTX_TPServer2 MTX_TPFormat \
    MTX_latitude MTX_longitude MTX_flushSerialBuffers MTX_radioBand SMS_sendIP SMS_ATEnabled SMS_ATResponse SMS_allPhones \
    SMS_validPhone# SMS_tunnelString SMS_alias# SMS_aliasResponse SMS_aliasError MQTT_enabled MQTT_server MQTT_id MQTT_login \
    MQTT_password MQTT_attopic# MQTT_atrtopic MQTT_qos MQTT_keepalive MQTT_persistent MQTT_commrxtopic MQTT_commtxtopic \
    MQTT_defaultOTopic MQTT_defaultIOQos DNS_enabled DNS_mode DNS_mqttTopic DNS_extended DNS_period FIREWALL_enabled \
    FIREWALL_IP# TELNET_enabled TELNET_login TELNET_password TELNET_port TELNET_firewall TCP_port UDP_IP UDP_localPort \
    UDP_remotePort WEBSERVER_enabled CSD_enabled CSD_commPort MODBUS_address MODBUS_start MODBUS_numWords MODBUS_period \
    MODBUS_readCommand MODBUS_custom LOGGER_enabled LOGGER_password LOGGER_server LOGGER_serverLogin LOGGER_serverPassword \
    LOGGER_httpMode LOGGER_registerSize LOGGER_numRegistersFlash LOGGER_numRegistersRam LOGGER_ioPeriod LOGGER_serialData# \
    GPIO_mode# GPIO_config# ADC_mode# ADC_config# OUTPUT_mode# OUTPUT_config# ALARM_gpioEnabled ALARM_gpioValue \
    ALARM_gpioMessage ALARM_gpioMessage1 ALARM_gpioPause ALARM_smsNumber#";

/// Whether a name is a known one, letter for letter.
fn is_known(name: &str) -> bool {
    NAMES.split(' ').any(|known| match (known.strip_suffix('#'), known.strip_suffix('*')) {
        (Some(stem), _) => name
            .strip_prefix(stem)
            .is_some_and(|number| number.parse::<usize>().is_ok_and(|value| value.to_string() == number)),
        (_, Some(stem)) => name.starts_with(stem),
        _ => known == name,
    })
}

/// What a lost line feed left is two short lines.
const LONGEST_GLUED: usize = 200;

/// Parts a value that another parameter was glued to by a lost line feed: `serverTELNET_port: 20023`. The second is that one's
/// name and value.
pub fn unglued(value: &str) -> (&str, Option<(&str, &str)>) {
    if value.len() > LONGEST_GLUED {
        return (value, None);
    }
    let begins = |at: usize| {
        let rest = value.get(at..)?;
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        let behind = behind.trim_start();
        let value = if behind.is_empty() { "" } else { behind.strip_prefix(':')?.trim() };
        // The vendor's capitals only: a topic may well be called mqtt_id.
        is_known(name).then_some((at, name, value))
    };
    let starts = value.char_indices().map(|(at, _)| at).filter(|at| *at > 0 || value.contains(':'));
    // In front of a name stands a word, not a path: `a/MQTT_id` is a topic.
    let plain = |at: &usize| value.get(..*at).is_some_and(|head| head.chars().all(|c| c.is_ascii_alphanumeric()));
    match starts.filter(plain).find_map(begins) {
        Some((at, name, rest)) => (value.get(..at).unwrap_or_default().trim(), Some((name, rest))),
        None => (value, None),
    }
}

fn item(line: usize, content: &str) -> Option<Item> {
    if content.is_empty() || ["#", ";", "//"].iter().any(|mark| content.starts_with(mark)) {
        return None;
    }
    let parameter = content.split_once(':').filter(|(name, _)| is_name(name));
    Some(match parameter {
        Some((name, value)) => {
            Item::Parameter(Parameter { line, spelled: name.trim().to_owned(), value: value.trim().to_owned() })
        }
        None => Item::Stray { line, text: content.to_owned() },
    })
}

/// Writes a parameter as a line. False, and nothing is written, when it could not be read back as itself.
pub fn encode(name: &str, value: &str, out: &mut Vec<u8>) -> bool {
    let fits = is_name(name) && name.trim() == name && value.trim() == value && !name.contains(['\r', '\n']);
    if !fits || value.contains(['\r', '\n']) {
        return false;
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
    true
}

/// The value that counts of a parameter: the last one of its name, without what was glued to it.
pub fn value_of(bytes: &[u8], name: &str) -> Option<String> {
    decode(bytes).into_iter().rev().find_map(|item| {
        let Item::Parameter(parameter) = item else { return None };
        let (value, glued) = unglued(&parameter.value);
        let behind = glued.filter(|(glued, _)| is_same(glued, name)).map(|(_, value)| value);
        behind.or_else(|| is_same(&parameter.spelled, name).then_some(value)).map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parameter(line: usize, spelled: &str, value: &str) -> Item {
        Item::Parameter(Parameter { line, spelled: spelled.into(), value: value.into() })
    }

    #[test]
    fn lines_keep_their_numbers_names_their_spelling_and_values_their_colons() {
        let text = b"\xEF\xBB\xBFCOMM_baudrate: 9600\r\n\r\n# a comment: none\nUDP_ localPort : 20010\rMQTT_server: ssl://h:8883\n// x\n; y: z\nMQTT_login:\n\xFFnoise\n: nothing\n";
        assert_eq!(
            decode(text),
            [
                parameter(1, "COMM_baudrate", "9600"),
                parameter(4, "UDP_ localPort", "20010"),
                parameter(5, "MQTT_server", "ssl://h:8883"),
                parameter(8, "MQTT_login", ""),
                Item::Stray { line: 9, text: "ÿnoise".into() },
                Item::Stray { line: 10, text: ": nothing".into() },
            ]
        );
        assert_eq!(value_of(text, "udp_localport").as_deref(), Some("20010"));
        assert_eq!(value_of(b"MTX_PIN: 1\nMTX_pin: 2", "MTX_PIN").as_deref(), Some("2"));
        assert_eq!(value_of(text, "MTX_PIN"), None);
    }

    #[test]
    fn a_line_that_is_no_utf_8_is_read_as_windows_1252() {
        let text = b"MQTT_login: \xC3\xA9\nMQTT_password: p\xE4ss\x80\r\n\nMTX_PIN: 1";
        assert_eq!(
            decode(text),
            [parameter(1, "MQTT_login", "é"), parameter(2, "MQTT_password", "päss€"), parameter(4, "MTX_PIN", "1")]
        );
        assert_eq!(in_windows_1252(text), [2]);
        assert_eq!((of_windows_1252(0x9F), of_windows_1252(0xA0), of_windows_1252(0x7F)), ('Ÿ', '\u{a0}', '\u{7f}'));
    }

    #[test]
    fn what_was_glued_to_a_value_is_none_of_it() {
        let text = b"MQTT_password: s3cretMTX_mode: mqtt\nMTX_mode: serverMTX_PIN: 1234\nMQTT_id: a/MQTT_login\n";
        for (name, value) in
            [("MQTT_password", "s3cret"), ("MTX_PIN", "1234"), ("MTX_mode", "server"), ("MQTT_id", "a/MQTT_login")]
        {
            assert_eq!(value_of(text, name).as_deref(), Some(value), "{name}");
        }
        assert!(is_known("SMS_alias18") && !is_known("SMS_alias") && !is_known("SMS_alias018") && !is_known("MTX_pin"));
    }

    #[test]
    fn what_could_not_be_read_back_is_not_written() {
        let mut out = Vec::new();
        assert!(encode("MQTT_server", "ssl://h:1", &mut out));
        for (name, value) in [("", "x"), ("A:b", "x"), ("A", "x\ny"), ("A", " x"), ("#A", "x"), ("A ", "x")] {
            assert!(!encode(name, value, &mut out), "{name} {value}");
        }
        assert_eq!(out, b"MQTT_server: ssl://h:1\n");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_lines_only_grow(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut last = 0;
            for item in decode(&bytes) {
                let (Item::Parameter(Parameter { line, .. }) | Item::Stray { line, .. }) = item;
                prop_assert!(line > last && line <= bytes.len() + 1);
                last = line;
            }
        }

        #[test]
        fn what_was_written_is_read_back(name in "[A-Za-z][A-Za-z0-9_]{0,12}", value in "[ -~]{0,40}") {
            let mut out = Vec::new();
            if encode(&name, &value, &mut out) {
                prop_assert_eq!(decode(&out), [parameter(1, &name, &value)]);
            } else {
                prop_assert!(value.trim() != value);
            }
        }
    }
}
