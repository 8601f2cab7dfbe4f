//! `[[radio]]` of weir.toml.

use super::{RECEIVERS, keys, receiver};
use crate::os::line::Endpoint;
use crate::setting::{At, Count, Problems, SecretFile};
use crate::{choices, settings};

settings! {
    /// A radio receiver.
    pub struct RadioSettings {
        /// The name that logs and status give it.
        pub name: At<String>,
        /// What it is: rtl-wmbus (lines of that program or of what imitates it), hex-lines
        /// (wireless M-Bus in bare hex) or openlinkiq (MBAL frames in bare hex).
        pub receiver: At<String>,
        /// Where its lines come from: a device such as `/dev/ttyUSB0`, or `tcp://host:port`.
        /// Either this or `command`.
        pub device: Option<At<String>>,
        /// A program that prints the lines, with its arguments. It is started again whenever it
        /// ends. A pipeline needs a shell: `["sh", "-c", "rtl_sdr ... | rtl_wmbus"]`.
        pub command: Option<At<Vec<String>>>,
        /// Bits per second of a serial device; eight data bits, no parity, one stop bit. Unset: what this kind of
        /// receiver has from its maker, 115200 for those that print lines.
        pub baud: Option<Count<50, 4_000_000>>,
        /// What to listen to, e.g. "C+T", for receivers that can be told; those that print lines
        /// are set by their own options.
        pub mode: Option<String>,
        /// What becomes a frame.
        pub forward: At<Forward> = "raw",
        /// Keys for local decoding: a line `NUMBER = KEY`, `NUMBER.MAN = KEY` or
        /// `NUMBER.MAN.VERSION.TYPE = KEY` a meter; `#` starts a comment.
        pub keys_file: Option<At<SecretFile>>,
    }
}

choices! {
    /// What becomes a frame.
    pub enum Forward {
        /// The telegram as it was heard, encrypted or not.
        Raw = "raw",
        /// Its values, when they are proven to be right; else the telegram as it was heard.
        Decoded = "decoded",
        /// The telegram as it was heard, and its values when they are proven to be right.
        Both = "both",
    }
}

/// Receivers that the contract names and this version does not drive.
const LATER: &[&str] = &["im871a", "iu891a", "amb8465", "cul", "rc1180", "rtl-433"];

/// Says everything that is wrong with a receiver's settings.
pub fn check(settings: &RadioSettings, problems: &mut Problems) {
    let name = &settings.name;
    if name.trim().is_empty() {
        problems.error(name.span(), "the name of a radio must not be empty");
    }
    check_receiver(&settings.receiver, problems);
    match (&settings.device, &settings.command) {
        (Some(device), None) => check_device(device, problems),
        (None, Some(command)) => {
            if command.first().is_none_or(|program| program.trim().is_empty()) {
                problems.error(command.span(), "command names no program; write [\"PROGRAM\", \"ARGUMENT\", ...]");
            }
        }
        (Some(_), Some(command)) => problems.error(
            command.span(),
            format!("the radio \"{}\" has both a device and a command; keep one of them", **name),
        ),
        (None, None) => {
            problems.missing(name.span(), format!("the radio \"{}\" has no source; set device or command", **name))
        }
    }
    if let Some(file) = &settings.keys_file {
        keys::check(file, problems);
        if *settings.forward == Forward::Raw {
            problems.warning(file.span(), "keys_file has no effect while forward = \"raw\"");
        }
    }
}

fn check_receiver(named: &At<String>, problems: &mut Problems) {
    if receiver(named).is_some() {
        return;
    }
    let known = RECEIVERS.iter().map(|r| format!("\"{}\"", r.name)).collect::<Vec<_>>().join(", ");
    let message = if LATER.contains(&named.as_str()) {
        format!("this version of weir does not drive the receiver \"{}\" yet; available are {known}", **named)
    } else {
        format!("there is no receiver \"{}\"; available are {known}", **named)
    };
    problems.error(named.span(), message);
}

fn check_device(device: &At<String>, problems: &mut Problems) {
    if let Some(fault) = Endpoint::parse(device).fault() {
        problems.error(device.span(), format!("device \"{}\" {fault}", **device));
    }
}

#[cfg(test)]
mod tests {
    use toml::de::{DeTable, DeValue};

    use super::*;
    use crate::setting::{Node, Setting};

    fn problems(lines: &str) -> Vec<String> {
        let source = format!("name = \"roof\"\n{lines}");
        let document = DeTable::parse(&source).unwrap();
        let (span, table) = (document.span(), DeValue::Table(document.into_inner()));
        let mut problems = Problems::new();
        if let Some(settings) = RadioSettings::read(&Node::new(&table, span, "radio"), &mut problems) {
            check(&settings, &mut problems);
        }
        problems.located(&source).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_settings_have_no_problems() {
        for receiver in ["rtl-wmbus", "hex-lines", "openlinkiq"] {
            for source in
                ["device = '/dev/ttyUSB0'", "device = 'tcp://10.0.0.2:5000'", "command = ['sh', '-c', 'x | y']"]
            {
                let found = problems(&format!("receiver = '{receiver}'\n{source}\nmode = 'C+T'\nforward = 'raw'"));
                assert!(found.is_empty(), "{found:?}");
                let found = problems(&format!("receiver = '{receiver}'\n{source}\nforward = 'both'"));
                assert!(found.is_empty(), "{found:?}");
            }
        }
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let found = problems("receiver = 'im871a'\ndevice = 'ttyUSB0'\nforward = 'both'");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("2:") && found[0].contains("does not drive") && found[0].contains("hex-lines"));
        assert!(found[1].starts_with("3:") && found[1].contains("absolute path"));
        let source = |text: &str| problems(&format!("receiver = 'hex-lines'\n{text}")).join("\n");
        assert!(source("").contains("no source"));
        assert!(source("device = '/dev/a'\ncommand = ['a']").contains("both"));
        assert!(source("command = []").contains("names no program"));
        assert!(source("device = 'tcp://host'").contains("tcp://host:port"));
        assert!(problems("receiver = 'toaster'\ndevice = '/dev/a'").join("\n").contains("no receiver \"toaster\""));
        assert!(source("device = '/dev/a'\nkeys_file = '/k'").contains("warning"));
    }

    #[test]
    fn a_receiver_is_either_built_or_later() {
        assert!(LATER.iter().all(|name| receiver(name).is_none()));
    }
}
