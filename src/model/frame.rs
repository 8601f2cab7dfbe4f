//! Frames: one telegram heard or one meter read, the unit that is stored, published and counted.

use serde::{Deserialize, Serialize};

use super::{Stamp, Timestamp};

/// The gateway-wide number of a frame, given by the store, counting from 1, never reused.
pub type Sequence = u64;

/// What the store keeps and the uplink publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// When the telegram was received or the meter answered.
    pub time: Stamp,
    /// Which queue it waits in.
    pub lane: Lane,
    /// What it carries.
    pub body: Body,
    /// Where it comes from, when another gateway made it and its export was imported here.
    pub origin: Option<Origin>,
}

/// The gateway that made a frame, and the frame's number there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// That gateway's id.
    pub gateway: String,
    /// The frame's number on that gateway.
    pub sequence: Sequence,
}

/// The two queues of the cache: priority frames are stored and published first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// Alarms and events: durable at once, sent first, evicted last.
    Priority,
    /// Everything else.
    Ordinary,
}

/// What a frame carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// A radio telegram, byte for byte.
    Telegram(Telegram),
    /// The values of a wired meter.
    Reading(Reading),
    /// The gateway's own account of its numbers: a signed manifest as one line of JSON
    /// (docs/manifest.md).
    Manifest(String),
    /// One interval of a wired meter's load profile, or one entry of its event log.
    Interval(Interval),
    /// A radio telegram by its best reception, and how many receptions there were: two or more.
    Copies(Telegram, u16),
    /// The values of a radio telegram that was decoded on the gateway.
    Decoded(Decoded),
}

/// A radio telegram as it was received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telegram {
    /// Which link layer the bytes belong to.
    pub kind: TelegramKind,
    /// The bytes: an MBAL frame, or `L C M A CI ...` without link CRCs.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// The strength of the signal, when the receiver tells it.
    pub rssi: Option<Rssi>,
    /// Bits mended by forward error correction (`noofcorrectedbits`).
    pub corrected_bits: u16,
}

/// The link layer of a telegram; decides `frametype` in the frames JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TelegramKind {
    /// OpenlinkIQ: `bytes` is an MBAL frame (reference radio.md 1.4).
    OpenlinkIq,
    /// Wireless M-Bus (EN 13757-4): `bytes` starts with the L field, CRCs removed.
    WirelessMbus,
}

/// Signal strength as the receiver gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rssi {
    /// Decibels over one milliwatt.
    Dbm(i16),
    /// A figure on the receiver's own scale (rtl_wmbus, rtl_433), the greater the stronger, not comparable between receivers.
    Relative(i16),
}

/// What a radio telegram says, and how it was received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decoded {
    /// Who sent it, such as `KAM.12345678.1b.16`.
    pub meter: String,
    /// Whose values they are, when the transport layer names another meter than the sender.
    pub address: Option<String>,
    /// The values in the order of the wire.
    pub values: Vec<CodedValue>,
    /// The telegram's name, the same as that of the telegram forwarded as it is.
    pub id: [u8; 8],
    /// The strength of the best reception, when the receiver tells it.
    pub rssi: Option<Rssi>,
    /// Bits mended by forward error correction (`noofcorrectedbits`).
    pub corrected_bits: u16,
    /// How many receptions there were.
    pub copies: u16,
}

/// A value with its code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodedValue {
    /// The value.
    pub value: Value,
    /// Its OBIS code, such as `8-0:1.0.0*255`, when the standard gives it one.
    pub obis: Option<String>,
}

/// One reading of one wired meter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The meter's name from the configuration.
    pub meter: String,
    /// Its values in the order they were read; a value that could not be read is there, as null.
    pub values: Vec<Value>,
}

/// What a meter recorded by itself: one interval of a load profile, or one entry of an event log.
///
/// Its time is the meter's, never that of the read: the frame's own stamp says when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// The meter's name from the configuration.
    pub meter: String,
    /// What the meter calls the profile or log, such as `P.01` or `1-0:99.1.0*255`.
    pub profile: String,
    /// When the interval ended, or the event happened, by the meter's clock, in UTC.
    pub end: Timestamp,
    /// That time as the meter wrote it.
    pub meter_time: String,
    /// The length of the interval in seconds; 0 for an event.
    pub period: u32,
    /// The status that the meter gave the interval, as the meter wrote it; empty when there is none.
    pub status: String,
    /// The recorded values.
    pub values: Vec<Value>,
}

/// One value of a reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The name from the configuration or the meter's own code (OBIS).
    pub name: String,
    /// The exact text: a decimal number, or what the meter sent; `None` when there is none.
    pub value: Option<String>,
    /// The unit as the meter or the map spells it; empty when there is none.
    pub unit: String,
    /// Whether the value can be used, and why not.
    pub quality: Quality,
}

/// Whether a value can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quality {
    /// As the meter sent it.
    Good,
    /// The meter did not answer in time.
    NoAnswer,
    /// The meter answered with a refusal (Modbus exception, NAK).
    Refused,
    /// What came was damaged or could not be understood (checksum, length, not a number).
    Invalid,
    /// The meter says that it has no such value (SunSpec's "not implemented", a phase that is not connected).
    Unavailable,
}

impl Quality {
    /// Whether something went wrong: a meter without a value has said so soundly.
    pub const fn is_fault(self) -> bool {
        !matches!(self, Self::Good | Self::Unavailable)
    }

    /// The word used in the frames JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::NoAnswer => "no-answer",
            Self::Refused => "refused",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
        }
    }
}

/// A frame as it comes back from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its gateway-wide number.
    pub sequence: Sequence,
    /// The frame itself.
    pub frame: Frame,
}
