//! What can be asked of a gateway.

use std::time::Duration;

use super::Right;

/// A port as a command names it: its name in weir.toml, or MTX's number (0 is the first port, 1 the second).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// MTX's number.
    Number(u8),
    /// The name.
    Name(String),
}

/// A parameter and its new value, both as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// A key of weir.toml such as `broker.url`, or an MTX name such as `MQTT_server`.
    pub name: String,
    /// Its value as text.
    pub value: String,
}

/// Registers of a Modbus slave (Modbus application protocol 1.1b3, 6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modbus {
    /// Where it hangs; `None`: the first port that has a meter that speaks Modbus, else the first port.
    pub place: Option<Place>,
    /// The slave's address, 1 to 247.
    pub unit: u8,
    /// The first register, as on the wire (counted from 0).
    pub register: u16,
    /// 1 to 4.
    pub function: u8,
    /// How many, 1 to 125.
    pub count: u16,
}

/// Values for registers of a Modbus slave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Where it hangs, as in [`Modbus`].
    pub place: Option<Place>,
    /// The slave's address, 0 (all) to 247.
    pub unit: u8,
    /// The first register, as on the wire.
    pub register: u16,
    /// 5, 6, 15 or 16.
    pub function: u8,
    /// One a register (or coil: 0 and 1).
    pub values: Vec<u16>,
}

/// A digital output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its name on the board, or its number among the outputs.
    pub name: String,
    /// On or off.
    pub on: bool,
}

/// What is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// weir itself.
    Agent,
    /// The cellular modem.
    Modem,
    /// The whole gateway.
    Gateway,
}

/// What a person or a platform asks of this gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Nothing: whether somebody is there (`AT`).
    Ping,
    /// A challenge for a signed command; answered where commands are judged.
    Challenge,
    /// Which commands there are, or how one is used.
    Help(Option<String>),
    /// The version of weir.
    Version,
    /// The values of parameters.
    Get(Vec<String>),
    /// New values of parameters, on trial for `confirm` (the configuration's usual time when `None`).
    Set {
        /// All of them are changed together.
        changes: Vec<Change>,
        /// How long the change has to prove itself.
        confirm: Option<Duration>,
    },
    /// The whole configuration, secrets masked.
    Configuration,
    /// Back to an earlier configuration; `None`: to the one before.
    Rollback(Option<u64>),
    /// What was changed, by whom.
    History,
    /// Another speed of a port until weir ends or it is set anew.
    Speed {
        /// The port.
        place: Place,
        /// Bits per second.
        baud: u32,
        /// Such as "7E1"; `None`: as it is.
        framing: Option<String>,
    },
    /// Bytes for a port; answered by what comes back.
    Send {
        /// The port.
        place: Place,
        /// As they are.
        bytes: Vec<u8>,
    },
    /// Reads registers.
    ReadModbus(Modbus),
    /// Writes registers, and reads them back where that is possible.
    WriteModbus(Put),
    /// Sets a digital output.
    SetOutput(Output),
    /// All digital inputs and outputs.
    Ios,
    /// Sends an SMS.
    Sms {
        /// To whom, such as +34666123456.
        number: String,
        /// What.
        text: String,
    },
    /// Starts something again.
    Restart(Restart),
    /// Nothing is changed any more but by those who may unlock.
    Lock,
    /// Ends that.
    Unlock,
    /// The daily reset: `Some` with its time of the day in minutes, or `None` when it is switched off.
    DailyReset(Option<u16>),
    /// Whether the way to the world is tested and mended: a change of the configuration.
    Watchdog(bool),
    /// Fetches a firmware, checks and installs it.
    Update {
        /// `https://...`, or `file:///...` for one that is on the gateway already.
        url: String,
        /// SHA-256 of the file, in small hex digits.
        sha256: String,
        /// An Ed25519 signature in base64.
        signature: Option<String>,
    },
    /// Loads a certificate or key into the file that a setting names.
    Certificate {
        /// `ca`, `client` or `key`.
        which: String,
        /// PEM.
        pem: String,
    },
    /// The status message, now.
    Status,
    /// A reading of one meter, now; of all with `None`.
    Read(Option<String>),
    /// The bytes on a port.
    Trace {
        /// The port.
        place: Place,
        /// For so long.
        within: Duration,
    },
    /// The newest lines of the log.
    Log(u16),
    /// The newest lines of the audit.
    Audit(u16),
    /// Has a port's tunnel open a session to a reading centre.
    CallBack {
        /// The port.
        place: Place,
        /// `host:port`.
        target: String,
        /// At most so long.
        within: Option<Duration>,
    },
    /// Any other AT command (`AT+CSQ`), for the modem.
    Modem(String),
}

impl Command {
    /// What one must be allowed to do to have it carried out.
    pub fn right(&self) -> Right {
        match self {
            Self::Ping
            | Self::Challenge
            | Self::Help(_)
            | Self::Version
            | Self::Get(_)
            | Self::Configuration
            | Self::History
            | Self::Ios
            | Self::Status
            | Self::Log(_)
            | Self::Audit(_) => Right::Observe,
            Self::Modem(text) if only_asks(text) => Right::Observe,
            Self::ReadModbus(_) | Self::Read(_) | Self::Trace { .. } => Right::Read,
            Self::Send { .. }
            | Self::Speed { .. }
            | Self::WriteModbus(_)
            | Self::SetOutput(_)
            | Self::Sms { .. }
            | Self::Restart(_)
            | Self::CallBack { .. }
            | Self::Modem(_) => Right::Write,
            Self::Set { .. }
            | Self::Rollback(_)
            | Self::Lock
            | Self::Unlock
            | Self::DailyReset(_)
            | Self::Watchdog(_)
            | Self::Certificate { .. } => Right::Configure,
            Self::Update { .. } => Right::Firmware,
        }
    }
}

/// Whether an AT command only asks the modem (3GPP TS 27.007): `AT+COPS?`, or one that has no other form.
fn only_asks(text: &str) -> bool {
    const SIGNS: [char; 7] = ['+', '^', '#', '$', '%', '*', '!'];
    const ASKS: [&str; 15] = [
        "ATI", "AT+CSQ", "AT+CESQ", "AT+CGSN", "AT+GSN", "AT+CIMI", "AT+CCID", "AT+ICCID", "AT+CGMI", "AT+CGMM",
        "AT+CGMR", "AT+GMI", "AT+GMM", "AT+GMR", "AT+CNUM",
    ];
    let text = text.trim().to_ascii_uppercase();
    // Exactly one command: another one could stand behind a basic one, as in ATH+COPS?.
    let extended = |text: &str| text.starts_with(SIGNS) && !text.get(1..).unwrap_or_default().contains(SIGNS);
    let one = text.strip_prefix("AT").is_some_and(extended) && !text.contains([';', '=', '\r', '\n']);
    ASKS.contains(&text.as_str()) || one && text.ends_with('?')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_observes_asks_the_modem_and_changes_nothing() {
        for (text, right) in [
            ("AT+CSQ", Right::Observe),
            ("at+cops?", Right::Observe),
            ("AT+COPS=2", Right::Write),
            ("AT+CSQ;+CFUN=0", Right::Write),
            ("ATH", Right::Write),
            ("ATH+COPS?", Right::Write),
            ("AT+CSQ+CFUN?", Right::Write),
        ] {
            assert_eq!(Command::Modem(text.to_owned()).right(), right, "{text}");
        }
    }
}
