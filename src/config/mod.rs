//! weir.toml: the settings of all rooms, read from one file with every mistake at once. A config.txt of the vendor's
//! modems is recognised by what stands in it and read as the weir.toml that it becomes ([`mtx`]).
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
pub mod mtx;

pub use crate::os::file::sealed_beside;
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
        /// Stands for {imei} and \[IMEI\] in topics and ids. Unset: what the modem says, where there is `[modem]`; it is kept in the
        /// store.
        pub imei: Option<String>,
        /// Where what needs root is asked for: `request` in this folder is weir's, the answers in it are the helper's
        /// (docs/watchdog.md). Where there is no such folder, such orders are refused.
        pub helper: PathBuf = "/run/weir",
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
    /// Nothing usable comes out of a config.txt.
    #[error("{} can't be used: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: mtx::NoBroker,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::Other => "nothing was started with it",
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

/// A configuration file as it was read.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its text as TOML, unchecked.
    pub text: String,
    /// What it was before, when it is a config.txt.
    pub translation: Option<mtx::Translation>,
}

impl Source {
    /// Checks it.
    ///
    /// # Errors
    /// Every mistake, warnings too; of a config.txt with its own lines.
    pub fn parse(&self) -> Result<Loaded, Vec<Problem>> {
        let Some(translation) = &self.translation else { return parse(&self.text) };
        let placed = |problems: Vec<Problem>| {
            let mut all = translation.warnings();
            all.extend(problems.into_iter().map(|problem| translation.place(problem)));
            all.sort_by_key(|problem| problem.line);
            all
        };
        match parse(&self.text) {
            Ok(loaded) => Ok(Loaded { warnings: placed(loaded.warnings), ..loaded }),
            Err(problems) => Err(placed(problems)),
        }
    }
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// [`ConfigError`], with all mistakes of the file.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    let source = source(path)?;
    source.parse().map_err(|problems| ConfigError::Wrong { path: path.to_owned(), problems })
}

/// Reads the file's text, unchecked; of a config.txt the weir.toml that it becomes.
///
/// # Errors
/// As [`source`].
pub fn read(path: &Path) -> Result<String, ConfigError> {
    source(path).map(|source| source.text)
}

/// Reads the gateway's own base file, as [`source`]; what this process writes from now on is sealed as that file is, or with mistakes in
/// it as the accepted configuration that runs instead. Other files, such as one to be applied, don't decide that: they are read by
/// [`source`].
///
/// # Errors
/// As [`source`].
pub fn own(path: &Path) -> Result<Source, ConfigError> {
    let source = source(path)?;
    let accepted = match source.parse() {
        Ok(_) => None,
        Err(_) => change::store_of(&source.text).and_then(|store| change::running_file(&store)),
    };
    match accepted {
        Some(runs) => os::seal::follow(&os::file::or_sealed(path), &runs),
        None => follow(path),
    }
    Ok(source)
}

/// Has this process seal what it writes as the gateway's own base file at `path` is sealed.
pub fn follow(path: &Path) {
    let path = os::file::or_sealed(path);
    os::seal::follow(&path, &path);
}

/// Reads the file, unchecked. A config.txt is translated, with the site.toml beside it.
///
/// # Errors
/// [`ConfigError::Unreadable`], [`ConfigError::NotText`]; [`ConfigError::Unusable`] and a wrong site.toml for a config.txt.
pub fn source(path: &Path) -> Result<Source, ConfigError> {
    let bytes = whole(path)?;
    if mtx::is_config_txt(&bytes) {
        let site = site(path)?;
        let translation = mtx::translate(&bytes, &site, &mtx::inside(path))
            .map_err(|why| ConfigError::Unusable { path: path.to_owned(), why })?;
        return Ok(Source { text: translation.text.clone(), translation: Some(translation) });
    }
    let text = String::from_utf8(bytes).map_err(|_| ConfigError::NotText(path.to_owned()))?;
    Ok(Source { text, translation: None })
}

/// A file's bytes; where it is not there, what its sealed one holds.
///
/// # Errors
/// [`ConfigError::Unreadable`].
pub fn whole(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let path = os::file::or_sealed(path);
    os::file::read_small(&path, LARGEST_FILE)
        .map_err(|source| ConfigError::Unreadable { path: path.into_owned(), source })
}

/// The site.toml beside a config.txt; there need not be one.
///
/// # Errors
/// When it can't be read or is no TOML.
pub fn site(config: &Path) -> Result<mtx::Site, ConfigError> {
    let path = config.with_file_name(mtx::SITE);
    match whole(&path) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes).map_err(|_| ConfigError::NotText(path.clone()))?;
            mtx::Site::parse(&text).map_err(|problems| ConfigError::Wrong { path, problems })
        }
        Err(ConfigError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(mtx::Site::default())
        }
        Err(error) => Err(error),
    }
}

/// Reads and checks what an agent with the file at `path` runs: the file, or the accepted change made from it. A file with mistakes
/// is no obstacle where an accepted configuration is kept: the agent runs that, too.
///
/// # Errors
/// As [`load`].
pub fn effective(path: &Path) -> Result<Loaded, ConfigError> {
    let source = own(path)?;
    let base = match source.parse() {
        Ok(base) => base,
        Err(problems) => {
            let kept = change::store_of(&source.text).and_then(|store| change::running(&store));
            let kept = kept.and_then(|text| parse(&text).ok());
            return kept.ok_or_else(|| ConfigError::Wrong { path: path.to_owned(), problems });
        }
    };
    let changed = change::effective(&base.settings.store.path, &source.text).and_then(|text| parse(&text).ok());
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
    /// Whether there is a modem: by `[modem]`, or because SMS are to come by one.
    pub const fn has_modem(&self) -> bool {
        self.modem.is_some() || self.control.sms.modem.is_some()
    }

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
