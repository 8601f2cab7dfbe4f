//! `[watchdog]` of weir.toml.

use std::time::Duration;

use super::host::Host;
use crate::setting::{At, Count, Problems};
use crate::{choices, settings};

settings! {
    /// Watchdogs (docs/watchdog.md).
    pub struct WatchdogSettings {
        /// Whether the way to the world is tested and mended; the daily reset has a switch of its own.
        pub enabled: bool = true,
        /// Tests the way to the world after a silence. Unset: it is not tested.
        pub ping: Option<PingSettings>,
        /// What is tried when it is broken, one after the other, each once: `modem-register`, `network-restart`, `modem-reset`, `agent-restart`,
        /// `reboot`.
        pub ladder: At<Vec<Step>> = ["modem-register", "network-restart", "modem-reset", "reboot"],
        /// The shortest time between two steps.
        pub pause: At<Duration> = "10m",
        /// Reboots in 24 hours at most, whatever their reason.
        pub reboots: Count<0, 24> = 3,
        /// The time of day (UTC) at which the gateway is rebooted, such as "03:30"; "off": never.
        pub daily_reset: At<String> = "off",
        /// How long the board's line `modem-reset` is active when the modem is reset by it.
        pub modem_pulse: Duration = "500ms",
        /// Whether weir feeds the board's hardware watchdog.
        pub hardware: Hardware = "auto",
    }
}

settings! {
    /// Tests the way to the world.
    pub struct PingSettings {
        /// After so long without a session with any broker.
        pub after: At<Duration> = "35m",
        /// The host that is asked: `8.8.8.8` by ICMP echo, `host:port` by a TCP connection.
        pub host: Option<At<String>>,
        /// The hosts that are asked in turn; one that answers is enough. Unset: the broker's host.
        pub hosts: At<Vec<String>> = [],
        /// So many failures in a row begin the ladder.
        pub failures: Count<1, 100> = 3,
        /// The pause between two tests.
        pub every: At<Duration> = "1m",
    }
}

choices! {
    /// What is tried.
    pub enum Step {
        /// The modem leaves the network and registers again.
        ModemRegister = "modem-register",
        /// The system's network service is restarted.
        NetworkRestart = "network-restart",
        /// The modem is reset, by its GPIO line where the board has one, else by command.
        ModemReset = "modem-reset",
        /// weir starts anew.
        AgentRestart = "agent-restart",
        /// The whole gateway is.
        Reboot = "reboot",
    }
}

choices! {
    /// Who feeds the hardware watchdog.
    pub enum Hardware {
        /// systemd, where `RuntimeWatchdogSec=` is set; weir leaves the device alone.
        Auto = "auto",
        /// weir, where the unit lets it (docs/watchdog.md).
        On = "on",
        /// Nobody here.
        Off = "off",
    }
}

impl PingSettings {
    /// All hosts that can be read, in their order.
    pub fn hosts(&self) -> Vec<Host> {
        self.named().filter_map(|host| Host::parse(host).ok()).collect()
    }

    fn named(&self) -> impl Iterator<Item = &String> {
        self.host.iter().map(|host| &**host).chain(self.hosts.iter())
    }
}

/// The minute of the day (UTC) that `text` names; `None` for "off".
///
/// # Errors
/// One sentence when it is neither.
pub fn minute_of_day(text: &str) -> Result<Option<u16>, String> {
    if text == "off" {
        return Ok(None);
    }
    let number = |text: &str, below: u16| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|number| digits && *number < below)
    };
    let time = text.split_once(':').and_then(|(hours, minutes)| Some(number(hours, 24)? * 60 + number(minutes, 60)?));
    time.map(Some)
        .ok_or_else(|| format!("is \"{text}\", but must be a time of day (UTC) such as \"03:30\", or \"off\""))
}

/// Sees what no single key can be checked for.
pub fn check(settings: &WatchdogSettings, problems: &mut Problems) {
    if let Err(why) = minute_of_day(&settings.daily_reset) {
        problems.error(settings.daily_reset.span(), why);
    }
    let mut steps: Vec<_> = settings.ladder.iter().map(|step| step.word()).collect();
    steps.sort_unstable();
    if steps.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
        problems.error(settings.ladder.span(), "names a step twice; each is tried once");
    }
    let Some(ping) = &settings.ping else { return };
    for host in ping.named() {
        if let Err(why) = Host::parse(host) {
            problems.error(ping.hosts.span(), why);
        }
    }
    for (time, least) in [(&ping.after, 1), (&ping.every, 1), (&settings.pause, 1)] {
        if **time < Duration::from_secs(least) {
            problems.error(time.span(), format!("must be at least {least} s"));
        }
    }
}
