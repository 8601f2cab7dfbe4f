//! What a board's file says.

use std::path::PathBuf;

use crate::model::Decimal;
use crate::os::line;
use crate::setting::Size;
use crate::{choices, settings};

settings! {
    /// A gateway board.
    pub struct Description {
        /// The name of the hardware in words.
        pub title: String,
        /// The Rust targets it runs, the usual one first.
        pub targets: Vec<String>,
        /// The largest firmware binary, stripped, that its flash has room for.
        pub size_budget: Size = "6MiB",
        /// The file that holds the board's serial number.
        pub serial_number: Option<PathBuf>,
        /// The hardware watchdog; systemd feeds it (`RuntimeWatchdogSec=`).
        pub watchdog: Option<PathBuf>,
        /// The AT port of the cellular modem.
        pub modem: Option<PathBuf>,
        /// The serial ports by the names that weir.toml uses.
        pub port: Vec<Port> = [],
        /// Lamps.
        pub led: Vec<Led> = [],
        /// Digital inputs and outputs.
        pub gpio: Vec<Gpio> = [],
        /// Analog inputs.
        pub adc: Vec<Adc> = [],
    }
}

settings! {
    /// A serial port of a board.
    pub struct Port {
        /// The name that weir.toml uses, e.g. "rs485-1".
        pub name: String,
        /// The device, e.g. "/dev/ttyS1".
        pub device: PathBuf,
        /// Who turns an RS485 transceiver around.
        pub direction: Turn = "none",
        /// Where its wires come out.
        pub about: String = "",
    }
}

choices! {
    /// Who turns an RS485 transceiver around.
    pub enum Turn {
        /// The kernel's driver (TIOCSRS485).
        Kernel = "kernel",
        /// The transceiver by itself.
        Auto = "auto",
        /// Nobody: RS232 or optical head.
        None = "none",
    }
}

impl Turn {
    /// How the line is to be opened.
    pub const fn direction(self) -> line::Direction {
        match self {
            Self::Kernel => line::Direction::Kernel(line::Turnaround::PLAIN),
            Self::Auto | Self::None => line::Direction::Automatic,
        }
    }
}

settings! {
    /// A lamp of a board.
    pub struct Led {
        /// What it shows, e.g. "status".
        pub name: String,
        /// Its folder, e.g. "/sys/class/leds/ACT".
        pub path: PathBuf,
    }
}

settings! {
    /// A digital input or output of a board.
    pub struct Gpio {
        /// What it is for, e.g. "relay-1"; an output called "modem-reset" resets the modem while it is on.
        pub name: String,
        /// The line by the name the kernel gives it (`gpioinfo` shows them): chip numbers move
        /// between kernels, names stay.
        pub line: String,
        /// Which way it goes.
        pub direction: Way,
        /// Whether it is on at the low level.
        pub active_low: bool = false,
    }
}

settings! {
    /// An analog input of a board.
    pub struct Adc {
        /// What it measures, e.g. "tank".
        pub name: String,
        /// The file with its count, e.g. "/sys/bus/iio/devices/iio:device0/in_voltage0_raw" (Linux's industrial I/O).
        pub path: PathBuf,
        /// The value is the count times this.
        pub factor: Decimal = "1",
        /// The value's unit, e.g. "mV" or "uA".
        pub unit: String = "mV",
    }
}

choices! {
    /// Which way a digital line goes.
    pub enum Way {
        /// It is read.
        In = "in",
        /// It is set.
        Out = "out",
    }
}
