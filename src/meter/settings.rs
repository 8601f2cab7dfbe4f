//! `[[port]]` and `[[meter]]` of weir.toml.

use std::fmt;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use crate::model::Decimal;
use crate::os::line::{Echo, Framing, Turnaround};
use crate::setting::{At, Count, Node, Printed, Problems, Setting, Shape};
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
        /// How it speaks: modbus-rtu, modbus-tcp or iec62056-21.
        pub protocol: At<String>,
        /// Its address on the bus: a number for Modbus (unit), a text for IEC 62056-21. Unset:
        /// 1 for Modbus, any meter for IEC 62056-21.
        pub address: Option<At<Address>>,
        /// How often it is read, aligned to the clock: "15m" means :00, :15, :30 and :45.
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
        /// Modbus: a register map, by name or as a path of a file.
        pub profile: Option<At<String>>,
        /// Modbus: registers to read besides those of the profile; one with a name of the profile
        /// replaces it.
        pub register: Vec<RegisterSettings> = [],
        /// IEC 62056-21: the ids to keep from a readout, e.g. "1.8.0"; empty keeps all.
        pub values: Vec<String> = [],
        /// IEC 62056-21: the highest rate to accept from the meter.
        pub max_baud: Count<300, 19_200> = 19200,
        /// IEC 62056-21: the wait between the acknowledgement's last bit and the change of rate.
        pub baud_change_delay: Duration = "0ms",
        /// The difference between the meter's clock and UTC without summer time, "+01:00" in
        /// Vienna; summer time is added where the meter says that it is on.
        pub utc_offset: UtcOffset = "+00:00",
        /// The load profile to read, with what was missed while weir did not run.
        pub load_profile: Option<LoadProfileSettings>,
    }
}

settings! {
    /// A load profile that the meter keeps by itself.
    pub struct LoadProfileSettings {
        /// What the meter calls it: "P.01" with IEC 62056-21.
        pub id: At<String>,
        /// The length of its intervals; "0s" for an event log.
        pub period: Duration = "15m",
        /// How often it is asked for new intervals, aligned to the clock.
        pub every: At<Duration> = "1h",
        /// How far back the first read goes, and the longest outage that is made up for.
        pub history: Duration = "40d",
        /// The most time on the bus that reading back may take in an hour.
        pub budget: Duration = "6m",
    }
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
        /// How it is coded: u16 i16 u32 i32 u64 i64 f32 f64 bool bcd16 bcd32 string:N (N
        /// characters); values of more than one register come high word first, with "-swapped"
        /// low word first. A truth value is published as 0 or 1.
        pub r#type: At<String> = "u16",
        /// The unit of the value.
        pub unit: String = "",
        /// An exact factor.
        pub scale: Decimal = 1,
        /// An exact summand, added after the factor.
        pub offset: Decimal = 0,
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
