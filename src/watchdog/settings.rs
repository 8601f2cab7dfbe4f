//! `[watchdog]` of weir.toml.

use std::time::Duration;

use crate::setting::{At, Count};
use crate::{choices, settings};

settings! {
    /// Watchdogs (docs/watchdog.md).
    pub struct WatchdogSettings {
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
        /// Whether weir feeds the board's hardware watchdog: "auto" leaves it to systemd where that does, "off" never touches it.
        pub hardware: Hardware = "auto",
    }
}

settings! {
    /// Tests the way to the world.
    pub struct PingSettings {
        /// After so long without any word from the broker.
        pub after: At<Duration> = "35m",
        /// The host that is asked.
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
        /// systemd where it does, else weir.
        Auto = "auto",
        /// weir.
        On = "on",
        /// Nobody here.
        Off = "off",
    }
}
