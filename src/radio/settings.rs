//! `[[radio]]` of weir.toml.

use super::source::Place;
use super::telegrams::{self, TelegramsSettings};
use super::{RECEIVERS, keys, receiver};
use crate::setting::{At, Count, Problems, SecretFile};
use crate::{choices, settings};

settings! {
    /// A radio receiver.
    pub struct RadioSettings {
        /// The name that logs and status give it.
        pub name: At<String>,
        /// What it is: rtl-wmbus or rtl-433 (lines of those programs or of what imitates them), hex-lines
        /// (wireless M-Bus in bare hex), openlinkiq (a front end's messages, or MBAL frames in bare hex), im871a (IMST's
        /// iM871A-USB or iM170A), iu891a (its iU891A-XL), amb8465 (AMBER's sticks and Wuerth's Metis), cul (culfw and a-culfw)
        /// or rc1180 (Radiocrafts).
        pub receiver: At<String>,
        /// Where its bytes come from: a device such as `/dev/ttyUSB0`, `tcp://host:port`, `tcp-listen://0.0.0.0:port` and
        /// `udp://0.0.0.0:port` for what connects or sends to weir, or `-`, standard input. Either this or `command`.
        pub device: Option<At<String>>,
        /// A program that prints the lines, with its arguments. It is started again whenever it
        /// ends. A pipeline needs a shell: `["sh", "-c", "rtl_sdr ... | rtl_wmbus"]`.
        pub command: Option<At<Vec<String>>>,
        /// Bits per second of a serial device; eight data bits, no parity, one stop bit. Unset: what this kind of
        /// receiver has from its maker, 115200 for those that print lines.
        pub baud: Option<Count<50, 4_000_000>>,
        /// What to listen to, e.g. "C+T", for receivers that can be told (docs/radio.md has the words
        /// of each); those that print lines are set by their own options. Of openlinkiq "lines" or "frames", what comes;
        /// "auto" finds out.
        pub mode: Option<String>,
        /// What becomes a frame.
        pub forward: At<Forward> = "raw",
        /// Keys for local decoding: a line `NUMBER = KEY`, `NUMBER.MAN = KEY` or
        /// `NUMBER.MAN.VERSION.TYPE = KEY` a meter; `#` starts a comment.
        pub keys_file: Option<At<SecretFile>>,
        /// How far weir goes when it falls silent against its own usual rate.
        pub silence: At<OnSilence> = "reset",
    }
}

choices! {
    /// How far weir goes when a receiver falls silent.
    pub enum OnSilence {
        /// It only says so.
        Report = "report",
        /// It also closes and opens it again; a program is started again.
        Reopen = "reopen",
        /// It also takes its USB device off the bus and puts it back, as unplugging does.
        Reset = "reset",
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

/// Says everything that is wrong with the settings of all receivers and of what becomes of their telegrams.
pub fn check(radios: &[RadioSettings], telegrams: &TelegramsSettings, problems: &mut Problems) {
    radios.iter().for_each(|radio| check_one(radio, problems));
    let decoding = radios.iter().find(|radio| *radio.forward != Forward::Raw);
    telegrams::check(telegrams, decoding.is_some(), problems);
    let mut files = radios.iter().filter_map(|radio| radio.keys_file.as_ref());
    match (files.next(), decoding) {
        // The keys of each receiver are for the telegrams of all.
        (Some(file), None) => {
            problems.warning(file.span(), "keys_file has no effect while every [[radio]] has forward = \"raw\"");
        }
        (None, Some(radio)) => problems.warning(
            radio.forward.span(),
            format!(
                "forward = \"{}\" without any keys_file gives values of meters that send in clear text only; name a keys_file",
                radio.forward.word()
            ),
        ),
        _ => {}
    }
}

fn check_one(settings: &RadioSettings, problems: &mut Problems) {
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
    if is_known_mode(settings, problems)
        && let Some(row) = receiver(&settings.receiver)
        && let Err(reason) = (row.make)(settings)
    {
        problems.error(settings.receiver.span(), reason);
    }
    if let Some(file) = &settings.keys_file {
        keys::check(file, problems);
    }
}

/// The word of `words` that `mode` names, for receivers that must be told what to listen to; `None` when it is not set.
///
/// # Errors
/// One sentence when it is none of them, or when the receiver is a program, which can't be told anything.
pub(super) fn told(settings: &RadioSettings, words: &[&'static str]) -> Result<Option<&'static str>, String> {
    if settings.command.is_some() {
        return Err(
            "this kind of receiver must be told what to do, which a program can't be; set device instead of command"
                .to_owned(),
        );
    }
    let Some(mode) = &settings.mode else { return Ok(None) };
    let known = words.iter().find(|word| word.eq_ignore_ascii_case(mode.trim())).copied();
    known.map(Some).ok_or_else(|| format!("this kind of receiver has no mode \"{mode}\"; it has {}", words.join(", ")))
}

fn check_receiver(named: &At<String>, problems: &mut Problems) {
    if receiver(named).is_some() {
        return;
    }
    let known = RECEIVERS.iter().map(|r| format!("\"{}\"", r.name)).collect::<Vec<_>>().join(", ");
    problems.error(named.span(), format!("there is no receiver \"{}\"; available are {known}", **named));
}

fn is_known_mode(settings: &RadioSettings, problems: &mut Problems) -> bool {
    let Some((mode, row)) = settings.mode.as_ref().zip(receiver(&settings.receiver)) else { return true };
    let known = row.modes.is_empty() || row.modes.iter().any(|word| word.eq_ignore_ascii_case(mode.trim()));
    if !known {
        let known = row.modes.iter().map(|mode| format!("\"{mode}\"")).collect::<Vec<_>>().join(", ");
        let message = format!("the receiver \"{}\" has no mode \"{mode}\"; available are {known}", row.name);
        problems.error(settings.receiver.span(), message);
    }
    known
}

fn check_device(device: &At<String>, problems: &mut Problems) {
    if let Err(fault) = Place::parse(device) {
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
            check(&[settings], &TelegramsSettings::default(), &mut problems);
        }
        problems.located(&source).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_settings_have_no_problems() {
        for receiver in ["rtl-wmbus", "rtl-433", "hex-lines", "openlinkiq"] {
            for source in [
                "device = '/dev/ttyUSB0'",
                "device = 'tcp://10.0.0.2:5000'",
                "command = ['sh', '-c', 'x | y']",
                "device = '-'",
                "device = 'udp://[::]:5000'",
                "device = 'tcp-listen://127.0.0.1:5000'",
                "device = 'udp://:5000'",
            ] {
                let found = problems(&format!("receiver = '{receiver}'\n{source}\nforward = 'raw'"));
                assert!(found.is_empty(), "{found:?}");
            }
        }
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let found = problems("receiver = 'rtl434'\ndevice = 'ttyUSB0'\nforward = 'both'");
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("2:") && found[0].contains("no receiver") && found[0].contains("hex-lines"));
        assert!(found[1].starts_with("3:") && found[1].contains("absolute path"));
        assert!(found[2].starts_with("4:11: warning") && found[2].contains("without any keys_file"), "{found:?}");
        let source = |text: &str| problems(&format!("receiver = 'hex-lines'\n{text}")).join("\n");
        assert!(source("").contains("no source"));
        assert!(source("device = '/dev/a'\ncommand = ['a']").contains("both"));
        let mode = problems("receiver = 'openlinkiq'\ndevice = '/dev/a'\nmode = 'T1'").join("\n");
        assert!(mode.contains("no mode \"T1\"") && mode.contains("\"frames\""), "{mode}");
        assert!(source("command = []").contains("names no program"));
        assert!(source("device = 'tcp://host'").contains("tcp://host:port"));
        for device in ["udp://", "udp://host:5000", "udp://0.0.0.0:0", "udp://:x"] {
            assert!(source(&format!("device = '{device}'")).contains("udp://0.0.0.0:port"), "{device}");
        }
        assert!(source("device = 'tcp-listen://5000'").contains("tcp-listen://0.0.0.0:port"));
        assert!(source("device = '/dev/a'\nsilence = 'panic'").contains("report"));
        assert!(problems("receiver = 'toaster'\ndevice = '/dev/a'").join("\n").contains("no receiver \"toaster\""));
        assert!(source("device = '/dev/a'\nkeys_file = '/k'").contains("warning"));
    }

    #[test]
    fn a_mode_must_be_one_of_the_receivers_and_a_receiver_with_modes_is_no_program() {
        // A front end of openlinkiq may be a program: it is told nothing.
        for row in RECEIVERS.iter().filter(|row| !row.modes.is_empty() && row.name != "openlinkiq") {
            let device = format!("receiver = '{}'\ndevice = '/dev/ttyUSB0'", row.name);
            assert!(problems(&device).is_empty());
            for mode in row.modes {
                assert!(problems(&format!("{device}\nmode = '{mode}'")).is_empty());
            }
            let wrong = problems(&format!("{device}\nmode = 'Z9'")).join("\n");
            assert!(wrong.starts_with("2:") && wrong.contains("Z9") && wrong.contains(row.modes[0]), "{wrong}");
            let program = problems(&format!("receiver = '{}'\ncommand = ['a']", row.name)).join("\n");
            assert!(program.contains("set device"), "{program}");
        }
    }
}
