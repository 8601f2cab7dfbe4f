//! What is known of the modem.

use serde::Serialize;

/// Whether the modem can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its port can't be opened, or ModemManager has no modem.
    #[default]
    Absent,
    /// The port is open, but it does not answer as modems do.
    Silent,
    /// It answers, but the SIM is missing or wants something.
    Locked,
    /// It works.
    Ready,
}

impl State {
    /// The word that status and JSON use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Silent => "silent",
            Self::Locked => "locked",
            Self::Ready => "ready",
        }
    }
}

/// Everything that is known of the modem; what is not known is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Status {
    /// Whether it can be used.
    pub state: State,
    /// Why not, in a sentence without numbers and texts.
    pub fault: Option<String>,
    /// Who speaks to it: `weir` or `modemmanager`.
    pub by: &'static str,
    /// Its maker.
    pub maker: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// Its firmware.
    pub firmware: Option<String>,
    /// Its own number.
    pub imei: Option<String>,
    /// The SIM's number.
    pub iccid: Option<String>,
    /// What the SIM wants: `ready`, `pin`, `puk` or the modem's words.
    pub sim: Option<String>,
    /// Signal, 0 to 31.
    pub csq: Option<u8>,
    /// Signal in dBm.
    pub rssi: Option<i16>,
    /// RSRP of LTE in dBm.
    pub rsrp: Option<i16>,
    /// RSRQ of LTE in dB.
    pub rsrq: Option<i16>,
    /// `home`, `roaming`, `searching`, `denied`, `idle` or `unknown`.
    pub registration: Option<&'static str>,
    /// `2g`, `3g`, `4g`, `lte-m`, `nb-iot` or `5g`.
    pub technology: Option<&'static str>,
    /// The network's name or number.
    pub operator: Option<String>,
    /// Location or tracking area, in hex.
    pub area: Option<String>,
    /// Cell, in hex.
    pub cell: Option<String>,
    /// Messages in the storage, and how many it can hold.
    pub storage: Option<(u32, u32)>,
    /// What was counted since the start.
    pub counters: Counters,
}

impl Status {
    /// Whether it is in a network, where that is known.
    pub fn is_registered(&self) -> Option<bool> {
        self.registration.map(|word| matches!(word, "home" | "roaming"))
    }

    /// Forgets what only a modem that answers can tell.
    pub(super) fn forget_network(&mut self) {
        (self.csq, self.rssi, self.rsrp, self.rsrq) = (None, None, None, None);
        (self.registration, self.technology, self.operator) = (None, None, None);
        (self.area, self.cell) = (None, None);
    }
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counters {
    /// Messages handed over.
    pub received: u64,
    /// Messages sent whole.
    pub sent: u64,
    /// Messages that could not be sent.
    pub not_sent: u64,
    /// Messages that are none, deleted.
    pub undecodable: u64,
    /// Parts of long messages that never became whole, deleted.
    pub incomplete: u64,
    /// Missed calls.
    pub calls: u64,
    /// Missed calls that nobody took because too much was waiting; messages wait in the storage instead.
    pub calls_lost: u64,
    /// How often the dialogue began anew.
    pub starts: u64,
    /// How often an answer did not come.
    pub silences: u64,
}
