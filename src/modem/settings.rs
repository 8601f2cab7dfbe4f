//! `[modem]` of weir.toml.

use std::path::PathBuf;
use std::time::Duration;

use crate::setting::{At, Count, Problems, SecretFile};
use crate::{choices, settings};

settings! {
    /// The cellular modem: its state in the status message, short messages and missed calls (docs/modem.md).
    pub struct ModemSettings {
        /// Its AT port, e.g. "/dev/ttyUSB2" or "tcp://host:port". Unset: what the board calls its modem.
        pub device: Option<At<String>>,
        /// Bits per second; what is behind USB takes any.
        pub baud: Count<300, 4_000_000> = 115200,
        /// Who speaks to the modem.
        pub manager: Manager = "auto",
        /// With "auto": how long a ModemManager that runs may take to find the modem before weir opens the port.
        pub manager_wait: At<Duration> = "60s",
        /// ModemManager's command-line tool.
        pub mmcli: PathBuf = "mmcli",
        /// The file with the SIM's PIN. A PIN that the SIM refuses is tried once, also over restarts: write another one into the
        /// file.
        pub pin_file: Option<At<SecretFile>>,
        /// How often signal, registration and operator are asked for.
        pub status_every: At<Duration> = "60s",
        /// How often the storage is looked through for messages that were not announced.
        pub messages_every: At<Duration> = "60s",
        /// How long the parts of a long message are kept when one never comes.
        pub parts_for: At<Duration> = "24h",
        /// How often a message is tried when the network is busy or away.
        pub send_attempts: Count<1, 10> = 3,
        /// The pause before the second attempt; each further one is twice as long.
        pub send_pause: At<Duration> = "10s",
        /// Whether calls are ended by weir once the number is known; they are told as missed calls either way.
        pub hang_up: bool = true,
        /// AT commands that may be passed on although they can cut the gateway off, by how they begin, e.g. ["AT+CFUN"].
        pub allow: Vec<String> = [],
    }
}

choices! {
    /// Who speaks to the modem.
    pub enum Manager {
        /// ModemManager when it runs and has the port, else weir.
        Auto = "auto",
        /// weir itself: ModemManager must not run or leave the port alone.
        None = "none",
        /// ModemManager; weir asks it by its tool mmcli and never opens the port.
        ModemManager = "modemmanager",
    }
}

/// Says everything that is wrong with the modem's settings.
pub fn check(settings: &ModemSettings, problems: &mut Problems) {
    if let Some(device) = &settings.device
        && let Some(fault) = crate::os::line::Endpoint::parse(device).fault()
    {
        problems.error(device.span(), format!("device \"{}\" {fault}", **device));
    }
    let mut within = |name: &str, at: &At<Duration>, least: u64, most: u64| {
        if !(Duration::from_secs(least)..=Duration::from_secs(most)).contains(&**at) {
            problems.error(at.span(), format!("{name} must be from {least} s to {most} s"));
        }
    };
    within("status_every", &settings.status_every, 1, 86_400);
    within("messages_every", &settings.messages_every, 1, 86_400);
    within("manager_wait", &settings.manager_wait, 0, 3600);
    within("parts_for", &settings.parts_for, 60, 30 * 86_400);
    within("send_pause", &settings.send_pause, 1, 3600);
    if settings.mmcli.as_os_str().is_empty() {
        problems.error(settings.status_every.span(), "mmcli is empty; write \"mmcli\" or its path");
    }
    if let Some(file) = &settings.pin_file
        && settings.manager == Manager::ModemManager
    {
        problems.warning(file.span(), "pin_file is given to ModemManager, which remembers no PIN that was refused");
    }
}

#[cfg(test)]
mod tests {
    use toml::de::{DeTable, DeValue};

    use super::*;
    use crate::setting::{Node, Setting};

    fn problems(source: &str) -> Vec<String> {
        let document = DeTable::parse(source).unwrap();
        let (span, table) = (document.span(), DeValue::Table(document.into_inner()));
        let mut problems = Problems::new();
        if let Some(settings) = ModemSettings::read(&Node::new(&table, span, "modem"), &mut problems) {
            check(&settings, &mut problems);
        }
        problems.located(source).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_settings_have_no_problems_and_every_mistake_is_named() {
        assert_eq!(problems(""), Vec::<String>::new());
        assert_eq!(
            problems("device = '/dev/ttyUSB2'\nmanager = 'none'\npin_file = '/etc/weir/pin'"),
            Vec::<String>::new()
        );
        let found = problems("device = 'ttyUSB2'\nstatus_every = '0s'\nparts_for = '1s'\nmanager = 'mm'");
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[0].starts_with("1:") && found[0].contains("absolute path"), "{found:?}");
        assert!(problems("manager = 'modemmanager'\npin_file = '/p'").join("").contains("warning"));
    }
}
