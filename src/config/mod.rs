//! weir.toml: the settings of all rooms, read from one file with every mistake at once.
//!
//! Invariants: the rooms own their settings, this room only composes them and checks what spans
//! rooms; a file with an error never yields [`Settings`]; no secret is read here, only the path
//! of its file. Start with [`load`].

use std::io;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::control::ControlSettings;
use crate::meter::{self, MeterSettings, PortSettings};
use crate::modem::ModemSettings;
use crate::os::clock::ClockSettings;
use crate::radio::{RadioSettings, TelegramsSettings};
use crate::setting::{At, Count, Node, Printed, Problem, Problems, Setting};
use crate::store::StoreSettings;
use crate::tunnel::TunnelSettings;
use crate::uplink::{Arrangement, Brokers, BudgetSettings, StatusSettings, UplinkSettings};
use crate::watchdog::WatchdogSettings;
use crate::{os, settings};

pub mod change;
mod check;
mod document;
pub mod edit;

pub use document::markdown;

/// Where the agent looks when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/weir/weir.toml";

/// Larger files are refused: a configuration of 1 MiB is a mistake.
const LARGEST_FILE: u64 = 1 << 20;

settings! {
    /// Everything weir is told, in one file.
    pub struct Settings {
        /// The version of this file's format.
        pub version: Count<1, 1> = 1,
        /// Who this gateway is.
        pub gateway: GatewaySettings = {},
        /// The MQTT brokers that frames go to.
        pub broker: Brokers,
        /// How frames travel to the broker.
        pub uplink: UplinkSettings = {},
        /// The data budget of the SIM.
        pub budget: BudgetSettings = {},
        /// The durable cache.
        pub store: StoreSettings = {},
        /// When the wall clock is believed (docs/time.md).
        pub clock: ClockSettings = {},
        /// Serial ports and serial servers.
        pub port: Vec<PortSettings> = [],
        /// Wired meters.
        pub meter: Vec<MeterSettings> = [],
        /// Radio receivers.
        pub radio: Vec<RadioSettings> = [],
        /// What becomes of the telegrams that the receivers hear.
        pub telegrams: TelegramsSettings = {},
        /// Transparent serial tunnels.
        pub tunnel: Vec<TunnelSettings> = [],
        /// The cellular modem.
        pub modem: Option<ModemSettings>,
        /// Remote control by MQTT and SMS.
        pub control: ControlSettings = {},
        /// The periodic status message.
        pub status: Option<StatusSettings>,
        /// Watchdogs.
        pub watchdog: Option<WatchdogSettings>,
    }
}

settings! {
    /// Who this gateway is.
    pub struct GatewaySettings {
        /// Stands for {id} in topics and ids. Unset: the board's serial number, then the
        /// machine id.
        pub id: Option<String>,
        /// The hardware: the name of a file in boards/ (`weir boards` lists them).
        pub board: At<String> = "generic",
        /// Stands for {imei} and \[IMEI\] in topics and ids.
        pub imei: Option<String>,
    }
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read {}: {source}; {}", path.display(), remedy(source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no text in UTF-8.
    #[error("{} is not a text file in UTF-8", .0.display())]
    NotText(PathBuf),
    /// The file has errors.
    #[error("{} has {} that must be corrected", path.display(), count(problems))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// All that was found, in the order of the file, warnings too.
        problems: Vec<Problem>,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "write it first (see docs/config.md) or name another with --config",
        io::ErrorKind::PermissionDenied => {
            "make it readable for the user that runs weir, or name another with --config"
        }
        _ => "name a TOML file with --config",
    }
}

fn count(problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|p| p.severity == crate::setting::Severity::Error).count();
    if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") }
}

/// A configuration without errors.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Warnings, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// [`ConfigError`], with all mistakes of the file.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    let text = read(path)?;
    parse(&text).map_err(|problems| ConfigError::Wrong { path: path.to_owned(), problems })
}

/// Reads the file's text, unchecked.
///
/// # Errors
/// [`ConfigError::Unreadable`], [`ConfigError::NotText`].
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let bytes = os::file::read_small(path, LARGEST_FILE)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|_| ConfigError::NotText(path.to_owned()))
}

/// Reads and checks what an agent with the file at `path` runs: the file, or the accepted change made from it.
///
/// # Errors
/// As [`load`].
pub fn effective(path: &Path) -> Result<Loaded, ConfigError> {
    let text = read(path)?;
    let base = parse(&text).map_err(|problems| ConfigError::Wrong { path: path.to_owned(), problems })?;
    let changed = change::effective(&base.settings.store.path, &text).and_then(|text| parse(&text).ok());
    Ok(changed.unwrap_or(base))
}

/// Gives each tunnel whose port has no [[port]] one with the defaults: its device is what the board calls the name.
fn imply_ports(settings: &mut Settings) {
    for tunnel in &settings.tunnel {
        let known = settings.port.iter().any(|port| *port.name == *tunnel.port);
        if !known && let Some(port) = PortSettings::stand_in() {
            settings.port.push(PortSettings { name: tunnel.port.clone(), ..port });
        }
    }
}

/// Reads and checks a configuration's text.
///
/// # Errors
/// Every mistake, in the order of the text; warnings too.
pub fn parse(text: &str) -> Result<Loaded, Vec<Problem>> {
    let mut problems = Problems::new();
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        problems.syntax(error.span(), format!("not valid TOML: {}", error.message().replace('\n', ", ")));
    }
    let root = toml::de::DeValue::Table(document.get_ref().clone());
    let mut settings = Settings::read(&Node::new(&root, 0..0, ""), &mut problems);
    settings.iter_mut().for_each(imply_ports);
    if let Some(settings) = &settings {
        check::across_rooms(settings, &mut problems);
    }
    let failed = problems.has_errors();
    let problems = problems.located(text);
    match settings {
        Some(settings) if !failed => Ok(Loaded { settings, warnings: problems }),
        _ => Err(problems),
    }
}

impl Settings {
    /// What the file asks for, in a few words.
    pub fn summary(&self) -> String {
        let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let meters = self.meter.len();
        let brokers: Vec<_> = self.broker.iter().map(|broker| broker.url.to_string()).collect();
        let between = if *self.uplink.brokers == Arrangement::Mirror { " and " } else { ", else " };
        format!(
            "{} on {}, {}, to {}",
            counted(meters, "meter"),
            counted(self.port.len(), "port"),
            counted(self.radio.len(), "receiver"),
            brokers.join(between)
        )
    }

    /// The effective values as TOML, defaults included, without any secret. Of a meter only what its
    /// protocol knows.
    pub fn effective(&self) -> String {
        let Printed::Table(mut tables) = self.printed() else { return String::new() };
        for (_, meters) in tables.iter_mut().filter(|(key, _)| *key == "meter") {
            *meters = Printed::List(self.meter.iter().map(meter::printed).collect());
        }
        Printed::Table(tables).document()
    }
}
