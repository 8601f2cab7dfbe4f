//! `[[port]]` and `[[meter]]` of weir.toml.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::dlms::DlmsSettings;
use super::dlms::push::PushSettings;
use super::iec62056::{
    BlockCheck, IecAccess, IecPassword, IecProfileRead, IecRead, ProfileStamp, RequestTime, SummerTime,
};
use crate::model::Decimal;
use crate::os::line::{Echo, Framing, Turnaround};
use crate::setting::{At, Count, Node, Printed, Problems, SecretFile, Setting, Shape};
use crate::{choices, settings};

settings! {
    /// A serial port or serial server that meters hang on.
    pub struct PortSettings {
        /// The name that meters refer to.
        pub name: At<String>,
        /// A device such as `/dev/ttyS1`, or `tcp://host:port` for a serial server or a
        /// Modbus TCP meter. Unset: what the board calls this name.
        pub device: Option<At<String>>,
        /// Bits per second.
        pub baud: Count<50, 4_000_000> = 9600,
        /// Data bits, parity, stop bits.
        pub framing: Framing = "8N1",
        /// Who turns an RS485 transceiver around.
        pub rs485: Rs485Settings = {},
        /// Whether what is sent comes back, as with many RS485 adapters and optical heads.
        pub echo: EchoSetting = "auto",
        /// The silence kept on the line between one meter and another; where the protocol or a
        /// change of speed needs more, it is more.
        pub guard: Duration = "0ms",
    }
}

choices! {
    /// Whether what is sent comes back.
    pub enum EchoSetting {
        /// It is found out: two exchanges in which something else follows a copy of the request.
        Auto = "auto",
        /// All that is sent comes back; a damaged copy is a collision.
        Yes = "yes",
        /// Nothing comes back.
        No = "no",
    }
}

impl EchoSetting {
    /// What the line is told.
    pub const fn echo(self) -> Echo {
        match self {
            Self::Auto => Echo::Auto,
            Self::Yes => Echo::Yes,
            Self::No => Echo::No,
        }
    }
}

settings! {
    /// RS485 direction control.
    pub struct Rs485Settings {
        /// Who switches between sending and receiving.
        pub direction: Rs485Direction = "none",
        /// The level of RTS while the kernel's driver sends; it is the other one after the last
        /// bit.
        pub rts_on_send: Level = "high",
        /// The driver's wait between turning to sending and the first bit: whole milliseconds, at
        /// most "100ms".
        pub delay_before_send: Duration = "0ms",
        /// The driver's wait between the last bit and turning to receiving.
        pub delay_after_send: Duration = "0ms",
    }
}

impl Rs485Settings {
    /// What the kernel's driver is told.
    pub const fn turnaround(&self) -> Turnaround {
        Turnaround {
            high_on_send: matches!(self.rts_on_send, Level::High),
            before: self.delay_before_send,
            after: self.delay_after_send,
        }
    }

    /// What of it the kernel would not do as it is written.
    pub fn fault(&self) -> Option<&'static str> {
        let bad =
            |delay: Duration| !delay.subsec_nanos().is_multiple_of(1_000_000) || delay > Duration::from_millis(100);
        if bad(self.delay_before_send) || bad(self.delay_after_send) {
            return Some("delay_before_send and delay_after_send must be whole milliseconds, at most \"100ms\"");
        }
        let plain = self.turnaround() == Turnaround::PLAIN;
        (self.direction == Rs485Direction::Auto && !plain)
            .then_some("rts_on_send and the delays are for direction = \"kernel\"; the transceiver would not see them")
    }
}

choices! {
    /// The level of a wire.
    pub enum Level {
        /// Asserted.
        High = "high",
        /// Not asserted.
        Low = "low",
    }
}

choices! {
    /// Who turns an RS485 transceiver around.
    pub enum Rs485Direction {
        /// The kernel's driver (TIOCSRS485).
        Kernel = "kernel",
        /// The transceiver by itself.
        Auto = "auto",
        /// Nobody: RS232 or optical head.
        None = "none",
    }
}

settings! {
    /// A wired meter.
    pub struct MeterSettings {
        /// The name its readings carry.
        pub name: At<String>,
        /// The port it hangs on.
        pub port: At<String>,
        /// How it speaks: modbus-rtu, modbus-ascii, modbus-tcp, iec62056-21 or m-bus; dlms-push, dsmr-p1, iec-d0 or sml when
        /// it sends by itself.
        pub protocol: At<String>,
        /// Its address on the bus: a number for Modbus (unit), a text for IEC 62056-21, a number
        /// (primary) or a text (secondary, "12345678" or "12345678.LUG.04.07") for M-Bus. Unset: 1 for
        /// Modbus, any meter for IEC 62056-21, the only meter on the line (254) for M-Bus.
        pub address: Option<At<Address>>,
        /// How often it is read, aligned to the clock: "15m" means :00, :15, :30 and :45. Of a meter
        /// that sends by itself, the last message before each of these times is published.
        pub every: At<Duration> = "15m",
        /// How many times longer it is left alone when it stays silent: the interval doubles with
        /// every three silent readings up to this factor, but not beyond an hour, and is restored
        /// by its first answer. Its readings come as nulls meanwhile. 1 asks it every time.
        pub stretch: Count<1, 64> = 8,
        /// Bits per second, when they differ from the port's.
        pub baud: Option<Count<50, 4_000_000>>,
        /// Data bits, parity and stop bits, when they differ from the port's.
        pub framing: Option<Framing>,
        /// The longest wait for an answer.
        pub timeout: Duration = "1s",
        /// How often a failed request is repeated before the reading is given up.
        pub retries: Count<0, 10> = 1,
        /// The silence kept on the line before a request; Modbus never goes below 3.5 characters.
        pub pause: Duration = "0ms",
        /// Modbus: a register map, by name or as a path of a file; "sunspec" finds the models of a SunSpec
        /// device by itself.
        pub profile: Option<At<String>>,
        /// Modbus: registers to read besides those of the profile; one with a name of the profile
        /// replaces it.
        pub register: Vec<RegisterSettings> = [],
        /// Modbus: the most registers that one request asks for. Unset: what the register map says, or 125.
        pub max_registers: Option<At<Count<1, 125>>>,
        /// Modbus: how many registers nobody wants are read along when that saves a request. Unset: what the
        /// register map says, or 0: a meter may refuse a request, or stay silent, for one it does not have.
        pub max_gap: Option<At<Count<0, 124>>>,
        /// The ids to keep from a readout or message, e.g. "1.8.0" or "energy" for M-Bus; empty keeps all. For Modbus
        /// the registers say it. DLMS: "1.8.0", "1-0:1.8.0*255", ":3" behind it for another attribute than 2, "3/" before
        /// it for the class; empty reads every register, datum and clock of the meter's list.
        pub values: Vec<String> = [],
        /// IEC 62056-21: the highest rate to accept from the meter.
        pub max_baud: Count<300, 19_200> = 19200,
        /// IEC 62056-21: the wait between the acknowledgement's last bit and the change of rate.
        pub baud_change_delay: Duration = "0ms",
        /// DSMR P1, DLMS pushes: the file with the encryption key of a meter that ciphers its messages
        /// (Luxembourg, Austria), as 32 hexadecimal digits; 64 for DLMS pushes of security suite 2.
        pub key_file: Option<At<SecretFile>>,
        /// DSMR P1, DLMS pushes: the file with its authentication key, as many digits.
        pub authentication_key_file: Option<At<SecretFile>>,
        /// M-Bus: the application reset sent before each reading; its number chooses the sub-telegrams
        /// (EN 13757-3, table 3). Unset: none.
        pub application_reset: Option<Count<0, 255>>,
        /// M-Bus: the rate that the meter is told to use during a reading, and back after it.
        pub switch_baud: Option<Count<300, 38_400>>,
        /// M-Bus: the most telegrams of one reading, for meters that never say which is the last.
        pub max_telegrams: Count<1, 64> = 64,
        /// IEC 62056-21: the rate to ask for whatever the meter announces (300, 600, 1200 ... 19200).
        pub force_baud: Option<At<Count<300, 19_200>>>,
        /// IEC 62056-21: the rate of the sign-on. Other than 300 for meters whose port keeps to one rate, as some have
        /// it on RS485; nothing changes the rate then but force_baud.
        pub sign_on_baud: At<Count<300, 19_200>> = 300,
        /// IEC 62056-21: sign-on texts to try in turn, such as "/?12345678!" or "/1Bla0!"; empty
        /// sends "/?", the address and "!".
        pub sign_on: Vec<String> = [],
        /// IEC 62056-21: wake a battery meter with NUL characters before each sign-on.
        pub wake_up: bool = false,
        /// IEC 62056-21: whether a readout must end with ETX and a block check.
        pub block_check: BlockCheck = "required",
        /// IEC 62056-21: a text that the readout must show as the value of one of its ids, such as
        /// the serial number of C.1.0; a readout without it is another meter's. In programming mode and before a load
        /// profile the identification or one of C.1.0, 0.0.0, 0.0.9 and 96.1.0 must show it. Leading zeros don't count.
        pub serial: Option<String>,
        /// IEC 62056-21: how values are read.
        pub access: IecAccess = "readout",
        /// IEC 62056-21: the command that reads a value in programming mode.
        pub read_command: IecRead = "R1",
        /// IEC 62056-21: the file with the password of programming mode. Unset: none is sent.
        pub password_file: Option<At<SecretFile>>,
        /// IEC 62056-21: how the password is sent.
        pub password_command: IecPassword = "P1",
        /// IEC 62056-21: the time without traffic after which the meter ends programming mode by itself.
        pub session_timeout: Duration = "30s",
        /// The difference between the meter's clock and UTC without summer time, "+01:00" in
        /// Vienna; summer time is added where the meter says that it is on.
        pub utc_offset: UtcOffset = "+00:00",
        /// DLMS: how the meter is reached, and as whom.
        pub dlms: Option<DlmsSettings>,
        /// DLMS pushes: what they must have to be believed.
        pub push: Option<PushSettings>,
        /// The load profile to read, with what was missed while weir did not run.
        pub load_profile: Option<LoadProfileSettings>,
    }
    remembers written
}

settings! {
    /// A load profile that the meter keeps by itself.
    pub struct LoadProfileSettings {
        /// What the meter calls it: "P.01" with IEC 62056-21, "1-0:99.1.0*255" with DLMS.
        pub id: At<String>,
        /// The length of its intervals; "0s" for an event log.
        pub period: Duration = "15m",
        /// How often it is asked for new intervals, aligned to the clock.
        pub every: At<Duration> = "1h",
        /// How far back the first read goes, and the longest outage that is made up for.
        pub history: Duration = "40d",
        /// The most time on the bus that reading back may take in an hour.
        pub budget: Duration = "6m",
        /// IEC 62056-21: the command that reads it.
        pub command: IecProfileRead = "R5",
        /// IEC 62056-21: with R6, the rows that the meter shall put into each block.
        pub records: Option<Count<1, 999>>,
        /// IEC 62056-21, DLMS: which end of its interval a time stamp of the meter tells.
        pub stamp: ProfileStamp = "end",
        /// IEC 62056-21: how the times of a request are written.
        pub request_time: RequestTime = "season",
        /// IEC 62056-21, and DLMS where the meter tells no deviation: who knows whether the meter's clock is on summer time.
        pub summer_time: SummerTime = "meter",
    }
    remembers written
}

/// A difference from UTC in whole minutes, written "+01:00".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UtcOffset(i16);

impl UtcOffset {
    /// Its minutes, positive east of Greenwich, within a day.
    pub const fn minutes(self) -> i16 {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let (sign, digits) = match text.split_at_checked(1)? {
            ("+", digits) => (1, digits),
            ("-", digits) => (-1, digits),
            _ => return None,
        };
        let (hours, minutes) = digits.split_once(':')?;
        let two = |part: &str| (part.len() == 2).then(|| part.parse::<i16>().ok()).flatten();
        let (hours, minutes) = (two(hours)?, two(minutes)?);
        (hours <= 14 && minutes < 60).then_some(Self(sign * (hours * 60 + minutes)))
    }
}

impl Setting for UtcOffset {
    fn shape() -> Shape {
        Shape::Value("difference from UTC, e.g. \"+01:00\"")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        let what = "a difference from UTC such as \"+01:00\"";
        let text = node.text(what, problems)?;
        Self::parse(text).or_else(|| node.refused(&format!("is \"{text}\", but must be {what}"), problems))
    }

    fn printed(&self) -> Printed {
        let (sign, minutes) = (if self.0 < 0 { '-' } else { '+' }, self.0.unsigned_abs());
        Printed::text(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60))
    }
}

impl MeterSettings {
    /// Reads one meter from the text that stands below its `[[meter]]`.
    ///
    /// # Errors
    /// Every mistake with its line and column, one a line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut problems = Problems::new();
        let settings = match DeTable::parse(text) {
            Ok(table) => {
                let value = DeValue::Table(table.get_ref().clone());
                Self::read(&Node::new(&value, table.span(), "meter"), &mut problems)
            }
            Err(error) => {
                problems.syntax(error.span(), error.message());
                None
            }
        };
        match settings {
            Some(settings) if !problems.has_errors() => Ok(settings),
            _ => Err(problems.located(text).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
        }
    }
}

settings! {
    /// One Modbus register or group of registers that make one value.
    pub struct RegisterSettings {
        /// The name of the value.
        pub name: At<String>,
        /// Which: "input:0", "holding:100", "coil:3", "discrete:7"; addresses count from 0 as on
        /// the wire.
        pub register: At<String>,
        /// How it is coded: u16 i16 u32 i32 u64 i64 f32 f64 bool bcd16 bcd32 bcd64 string:N (N
        /// characters); values of more than one register come high word first (ABCD), with "-swapped"
        /// low word first (CDAB), with "-bytes-swapped" low byte first in each word (BADC), with "-reversed"
        /// both (DCBA). A truth value is published as 0 or 1.
        pub r#type: At<String> = "u16",
        /// The unit of the value.
        pub unit: String = "",
        /// An exact factor.
        pub scale: Decimal = 1,
        /// An exact summand, added after the factor.
        pub offset: Decimal = 0,
        /// The bits that make the value, of an unsigned number: "4..7", or "3" for one; 0 is the lowest.
        pub bits: Option<At<String>>,
        /// Texts for numbers: `{ 0 = "off", 1 = "on" }`; a number without one is published as it is.
        pub names: Names = {},
        /// What the registers hold when the meter has no value, before factor and bits: numbers such as "0x8000", or
        /// "nan" for a float. The value is then null with quality "unavailable".
        pub unavailable: Vec<At<String>> = [],
        /// A register with the power of ten of the value as an i16, SunSpec's sunssf: "holding:40083".
        pub exponent: Option<At<String>>,
    }
}

/// Texts that stand for numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names(BTreeMap<u64, String>);

impl Names {
    /// The text for a number.
    pub fn of(&self, number: u64) -> Option<&str> {
        self.0.get(&number).map(String::as_str)
    }

    /// The number that a text stands for.
    pub fn number(&self, text: &str) -> Option<u64> {
        self.0.iter().find(|(_, name)| *name == text).map(|(number, _)| *number)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Setting for Names {
    fn shape() -> Shape {
        Shape::Value("table of number = \"text\"")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        let DeValue::Table(entries) = node.value() else {
            return node.expected("a table such as { 0 = \"off\", 1 = \"on\" }", problems);
        };
        let mut names = BTreeMap::new();
        for (key, value) in entries {
            let key: &str = key.get_ref();
            let entry = Node::new(value.get_ref(), value.span(), format!("{}.{key}", node.path()));
            let Ok(number) = key.parse() else {
                return entry.refused("has a key that is no whole number", problems);
            };
            names.insert(number, entry.text("a text in quotes", problems)?.to_owned());
        }
        Some(Self(names))
    }

    fn stand_in() -> Option<Self> {
        Some(Self::default())
    }

    fn printed(&self) -> Printed {
        let entries = self.0.iter().map(|(number, name)| format!("{number} = {name:?}"));
        Printed::Value(format!("{{ {} }}", entries.collect::<Vec<_>>().join(", ")))
    }
}

impl Setting for Framing {
    fn shape() -> Shape {
        Shape::Value("data bits, parity and stop bits, e.g. \"8N1\" or \"7E1\"")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        let what = "data bits, parity and stop bits such as \"8N1\", \"8E1\" or \"7E1\"";
        let text = node.text(what, problems)?;
        Self::parse(text).or_else(|| node.refused(&format!("is \"{text}\", but must be {what}"), problems))
    }

    fn printed(&self) -> Printed {
        Printed::text(&self.to_string())
    }
}

/// A meter's address: a number, or a text where the protocol has texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A number, as Modbus and M-Bus have it.
    Number(u32),
    /// A text, as IEC 62056-21 has it.
    Text(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Setting for Address {
    fn shape() -> Shape {
        Shape::Value("whole number, or text in quotes")
    }

    fn read(node: &Node<'_>, problems: &mut Problems) -> Option<Self> {
        match node.value() {
            DeValue::String(text) => Some(Self::Text(text.as_ref().to_owned())),
            DeValue::Integer(number) => match u32::from_str_radix(number.as_str(), number.radix()) {
                Ok(value) => Some(Self::Number(value)),
                Err(_) => node.refused(&format!("is {}, which is no meter address", number.as_str()), problems),
            },
            _ => node.expected("a number, or a text in quotes", problems),
        }
    }

    fn printed(&self) -> Printed {
        match self {
            Self::Number(number) => Printed::Value(number.to_string()),
            Self::Text(text) => Printed::text(text),
        }
    }
}

/// Every mistake in the lines of one meter, for the tests of the protocols.
#[cfg(test)]
pub(super) fn checked(protocol: &str, toml: &str) -> Vec<String> {
    let source = format!("name = \"m\"\nport = \"p\"\nprotocol = \"{protocol}\"\n{toml}");
    let table = DeTable::parse(&source).unwrap();
    let value = DeValue::Table(table.get_ref().clone());
    let mut problems = Problems::new();
    let settings = MeterSettings::read(&Node::new(&value, table.span(), "meter"), &mut problems).unwrap();
    super::check(&settings, &mut problems);
    problems.located(&source).iter().map(ToString::to_string).collect()
}
