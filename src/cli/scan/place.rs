//! Which line a person means.

use std::fs;
use std::path::Path;

use crate::cli::failure::Failure;
use crate::config::{self, Settings};
use crate::meter::bus::Port;
use crate::meter::scan::{Known, Place};
use crate::meter::{MeterSettings, PortSettings, Rs485Direction};
use crate::os::line::{Direction, Endpoint, Turnaround};
use crate::{agent, board};

/// Where the kernel keeps names that stay with an adapter.
const BY_ID: &str = "/dev/serial/by-id";

/// Finds the line called `word`: a port of the configuration, a device or server, a port of the board.
///
/// Who turns an RS485 transceiver around is what `rs485` says; without it what is configured, or known
/// of the board, else the transceiver itself.
pub(super) fn find(word: &str, config: &Path, rs485: Option<Rs485Direction>) -> Result<(Place, Direction), Failure> {
    let (mut place, mut direction) = found(word, config)?;
    if let Some(wished) = rs485 {
        if matches!(place.endpoint, Endpoint::Tcp(_)) {
            return Err(Failure::usage("--rs485 is for serial devices; a server turns its transceiver around itself"));
        }
        place.direction = Some(wished.word());
        direction = match (wished, direction) {
            (Rs485Direction::Kernel, Direction::Automatic) => Direction::Kernel(Turnaround::PLAIN),
            (Rs485Direction::Kernel, configured) => configured,
            (Rs485Direction::Auto | Rs485Direction::None, _) => Direction::Automatic,
        };
    }
    Ok((place, direction))
}

/// Whether it is one of the kernel's pseudo-terminals, as simulators and socat have them.
pub(super) fn is_pseudo_terminal(endpoint: &Endpoint) -> bool {
    let Endpoint::Device(path) = endpoint else { return false };
    fs::canonicalize(path).is_ok_and(|real| real.starts_with("/dev/pts"))
}

fn found(word: &str, config: &Path) -> Result<(Place, Direction), Failure> {
    let settings = settings(config);
    if let Some(settings) = &settings
        && let Some(found) = configured(word, settings)?
    {
        return Ok(found);
    }
    if word.starts_with('/') || word.contains("://") {
        return by_path(word);
    }
    let boards = match &settings {
        Some(settings) => board::load(&settings.gateway.board).into_iter().collect(),
        None => board::survey(Path::new(board::DIRECTORY)).0,
    };
    // Without a configuration nobody has named the board: one whose device is there.
    let known = boards.iter().filter_map(|board| board.port(word));
    let found = known.clone().find(|port| port.device.exists()).or_else(|| known.clone().next());
    let Some(port) = found else { return Err(unknown(word, settings.as_ref())) };
    let place = Place {
        name: word.to_owned(),
        device: settings.is_none().then(|| port.device.display().to_string()),
        endpoint: Endpoint::Device(port.device.clone()),
        direction: Some(port.direction.word()),
        known: None,
    };
    Ok((place, port.direction.direction()))
}

/// The configuration, when there is a good one: a scan needs none.
fn settings(config: &Path) -> Option<Settings> {
    config::effective(config).ok().map(|loaded| loaded.settings)
}

fn configured(word: &str, settings: &Settings) -> Result<Option<(Place, Direction)>, Failure> {
    let board = board::load(&settings.gateway.board).map_err(|e| Failure::config(e.to_string()))?;
    let wanted = Endpoint::parse(word);
    for port in &settings.port {
        let resolved = agent::resolve_port(port, &board).map_err(|e| Failure::config(e.to_string()))?;
        if *port.name == word || resolved.endpoint == wanted {
            let direction = resolved.direction;
            return Ok(Some((place_of(port, resolved, &settings.meter), direction)));
        }
    }
    Ok(None)
}

fn place_of(port: &PortSettings, resolved: Port, meters: &[MeterSettings]) -> Place {
    let own = meters.iter().filter(|meter| *meter.port == *port.name);
    let known = own.map(|m| (m.name.to_string(), m.protocol.to_string(), m.address.as_ref().map(|a| a.to_string())));
    Place {
        name: port.name.to_string(),
        device: None,
        endpoint: resolved.endpoint,
        direction: None,
        known: Some(Known {
            speed: resolved.speed,
            direction: port.rs485.direction.word(),
            meters: known.collect(),
            names: meters.iter().map(|meter| meter.name.to_string()).collect(),
        }),
    }
}

fn by_path(word: &str) -> Result<(Place, Direction), Failure> {
    let endpoint = Endpoint::parse(word);
    if word.contains("://") && !word.starts_with("tcp://") {
        return Err(Failure::usage(format!(
            "\"{word}\" is no port; write a device such as /dev/ttyUSB0, or tcp://host:port"
        )));
    }
    if let Some(fault) = endpoint.fault() {
        return Err(Failure::usage(format!("the port \"{word}\" {fault}")));
    }
    let (name, device) = match &endpoint {
        Endpoint::Tcp(address) => (address.clone(), word.to_owned()),
        Endpoint::Device(path) => {
            let name = path.file_name().map_or_else(|| "line".to_owned(), |n| n.to_string_lossy().into_owned());
            (name, stable_name(path).unwrap_or_else(|| word.to_owned()))
        }
    };
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    Ok((Place { name, device: Some(device), endpoint, direction: None, known: None }, Direction::Automatic))
}

/// The name under which an adapter is found again after a restart, whatever was plugged in first.
fn stable_name(device: &Path) -> Option<String> {
    let wanted = fs::canonicalize(device).ok()?;
    if device.starts_with("/dev/serial") {
        return None;
    }
    let same = |path: &Path| fs::canonicalize(path).is_ok_and(|real| real == wanted);
    let found = fs::read_dir(BY_ID).ok()?.flatten().map(|entry| entry.path()).find(|path| same(path))?;
    Some(found.display().to_string())
}

fn unknown(word: &str, settings: Option<&Settings>) -> Failure {
    let known = names(settings);
    let known = if known.is_empty() { String::new() } else { format!("; there are: {}", known.join(", ")) };
    Failure::usage(format!(
        "no port is called \"{word}\"; write a device such as /dev/ttyUSB0, or tcp://host:port{known}"
    ))
}

/// What could be scanned.
pub(super) fn candidates(config: &Path) -> Failure {
    let names = names(settings(config).as_ref());
    if names.is_empty() {
        return Failure::usage(
            "name the port to scan: a device such as /dev/ttyUSB0, or tcp://host:port (no serial adapter is plugged in)",
        );
    }
    Failure::usage(format!("name the port to scan, for instance one of these:\n  {}", names.join("\n  ")))
}

/// Ports of the configuration, ports of the board that are there, adapters.
fn names(settings: Option<&Settings>) -> Vec<String> {
    let mut names: Vec<String> = settings.iter().flat_map(|s| s.port.iter().map(|p| p.name.to_string())).collect();
    if let Some(board) = settings.and_then(|s| board::load(&s.gateway.board).ok()) {
        let there = board.description.port.iter().filter(|port| port.device.exists());
        names.extend(there.map(|port| port.name.clone()).filter(|name| !names.contains(name)).collect::<Vec<_>>());
    }
    let listed = |directory: &str| fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut adapters: Vec<String> = listed(BY_ID).map(|path| path.display().to_string()).collect();
    if adapters.is_empty() {
        let adapter = |name: &str| ["ttyUSB", "ttyACM", "ttyAMA", "ttymxc"].iter().any(|start| name.starts_with(start));
        let plugged = listed("/dev").filter(|p| p.file_name().is_some_and(|n| adapter(&n.to_string_lossy())));
        adapters = plugged.map(|path| path.display().to_string()).collect();
    }
    adapters.sort();
    names.extend(adapters);
    names
}
