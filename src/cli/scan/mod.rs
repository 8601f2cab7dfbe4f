//! `weir scan PORT`: which meters are on this line?

mod place;
mod show;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;
use tracing::level_filters::LevelFilter;

use self::show::Screen;
use super::failure::{Failure, OTHER};
use super::{log, runtime};
use crate::meter::scan::{self, Depth, End, Event, Wish};
use crate::meter::{Address, Rs485Direction};
use crate::os::line::{Endpoint, Framing, LineError};

/// Find the meters on a line: protocol, speed, address, make. Proposes the configuration.
///
/// PORT is a name of the configuration or of the board, a device such as /dev/ttyUSB0, or
/// tcp://host:port; without PORT it lists what there is. It only reads, never writes anything to
/// a meter. What it found goes to standard error as it comes; the tables to paste into weir.toml
/// go to standard output. Ctrl-C ends it with what was found so far. Exits with 1 when nothing
/// was found.
#[derive(Debug, Args)]
pub(super) struct Scan {
    /// Where the meters hang.
    port: Option<String>,

    /// Look for these only: modbus-rtu, modbus-ascii, modbus-tcp, iec62056-21, dlms, m-bus, push (P1,
    /// SML, D0 and pushes of DLMS, by listening).
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = protocol)]
    protocol: Vec<String>,

    /// Try these speeds instead of the usual ones, e.g. 9600,19200.
    #[arg(long, value_name = "BAUD", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(50..=4_000_000))]
    baud: Vec<u32>,

    /// Try this framing only, e.g. 8E1.
    #[arg(long, value_name = "FRAMING", value_parser = framing)]
    framing: Option<Framing>,

    /// Ask these addresses only, e.g. 1-32,247; serial numbers for IEC 62056-21.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = addresses)]
    addresses: Vec<Addresses>,

    /// Who turns an RS485 transceiver around: kernel, auto (the transceiver itself) or none. Unset:
    /// what the configuration or the board says of PORT, else auto.
    #[arg(long, value_name = "WHO", value_parser = rs485)]
    rs485: Option<Rs485Direction>,

    /// The usual speeds and the first addresses only.
    #[arg(long, conflicts_with = "thorough")]
    quick: bool,

    /// Every speed and every address, with patience for slow meters; takes an hour or two.
    #[arg(long)]
    thorough: bool,

    /// End after this time at the latest.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    limit: Duration,

    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

const PSEUDO_TERMINAL: &str = "this is a pseudo-terminal, which carries no parity: framings can't be told apart on it, the first one that is tried is shown (on a wire they can)";

#[derive(Debug, Clone)]
struct Addresses(Vec<Address>);

fn protocol(text: &str) -> Result<String, String> {
    let known = |p: &&scan::Probe| p.name == text || p.protocols.contains(&text);
    let names = || scan::PROBES.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
    scan::PROBES.iter().find(known).map(|_| text.to_owned()).ok_or_else(|| format!("write one of {}", names()))
}

fn rs485(text: &str) -> Result<Rs485Direction, String> {
    let all = [Rs485Direction::Kernel, Rs485Direction::Auto, Rs485Direction::None];
    all.into_iter().find(|who| who.word() == text).ok_or_else(|| "write kernel, auto or none".to_owned())
}

fn framing(text: &str) -> Result<Framing, String> {
    Framing::parse(text).ok_or_else(|| "write it like 8N1, 8E1 or 7E1".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::setting::duration(text).filter(|d| !d.is_zero()).ok_or_else(|| "write it like 90s or 10m".to_owned())
}

/// One address, or a range of numbers.
fn addresses(text: &str) -> Result<Addresses, String> {
    const MOST: u32 = 1000;
    let number = |text: &str| text.parse::<u32>().ok();
    if let Some((from, to)) = text.split_once('-').and_then(|(a, b)| Some((number(a)?, number(b)?))) {
        if from > to || to - from >= MOST {
            return Err(format!("{text} is no range; write it like 1-32, with at most {MOST} addresses"));
        }
        return Ok(Addresses((from..=to).map(Address::Number).collect()));
    }
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err("write numbers, ranges or serial numbers, like 1-32,247".to_owned());
    }
    // A serial number keeps its leading zeros.
    let plain = number(text).filter(|n| n.to_string() == text).map(Address::Number);
    Ok(Addresses(vec![plain.unwrap_or_else(|| Address::Text(text.to_owned()))]))
}

impl Scan {
    pub(super) fn run(self, config: &Path, level: Option<LevelFilter>) -> Result<(), Failure> {
        log::start(level.unwrap_or(LevelFilter::WARN));
        let Some(port) = &self.port else { return Err(place::candidates(config)) };
        let (place, direction) = place::find(port, config, self.rs485)?;
        let wish = self.wish();
        let steps = scan::plan(&wish, &place.endpoint);
        if steps.is_empty() {
            return Err(Failure::usage(
                "there is nothing to do: no protocol asked for fits this port and these addresses (see weir scan --help)",
            ));
        }
        let mut screen = Screen::new(self.json, std::io::stderr().is_terminal());
        screen.begin(&place.endpoint, scan::estimate(&steps), self.limit);
        if place::is_pseudo_terminal(&place.endpoint) {
            screen.take(Event::Warning(PSEUDO_TERMINAL.to_owned()));
        }
        let ended = runtime()?.block_on(async {
            let began = Instant::now();
            let mut tell = |event| screen.take(event);
            let work = scan::run(&place.endpoint, direction, &wish, &steps, self.limit, &mut tell);
            let ended = tokio::select! {
                ended = work => ended.map(Some),
                _ = tokio::signal::ctrl_c() => Ok(None),
            };
            (ended, began.elapsed())
        });
        let (ended, took) = ended;
        let (ended, failure) = match ended {
            Ok(ended) => (ended, None),
            Err(error) => (None, Some(failed(&error, &place.endpoint))),
        };
        screen.end(&place, ended, took, failure.is_some());
        match failure {
            Some(failure) => Err(failure),
            None if screen.found.is_empty() => Err(self.nothing(ended, &place.endpoint)),
            None => Ok(()),
        }
    }

    fn wish(&self) -> Wish {
        let depth = match (self.quick, self.thorough) {
            (true, _) => Depth::Quick,
            (_, true) => Depth::Thorough,
            _ => Depth::Usual,
        };
        Wish {
            protocols: self.protocol.clone(),
            bauds: self.baud.clone(),
            framing: self.framing,
            addresses: self.addresses.iter().flat_map(|list| list.0.clone()).collect(),
            depth,
        }
    }

    /// What to try when there is no meter.
    fn nothing(&self, ended: Option<End>, endpoint: &Endpoint) -> Failure {
        if self.json {
            return Failure::silent(OTHER);
        }
        let early = match ended {
            Some(End::Finished) => "",
            Some(End::OutOfTime) => " before the time was over",
            None => " before it was stopped",
        };
        let deeper = match (self.quick, self.thorough) {
            (true, _) => "scan without --quick",
            (_, true) => "scan with another adapter",
            _ => "scan with --thorough --limit 3h",
        };
        let wires = match endpoint {
            Endpoint::Device(_) => {
                "is the meter powered? swap the wires A and B; is the line terminated, and does the adapter turn around by itself (else --rs485 kernel)?"
            }
            Endpoint::Tcp(_) => {
                "is it the right port (502 for Modbus TCP), and do speed and framing of the serial server fit the meter?"
            }
        };
        Failure::other(format!("no meter answered on {endpoint}{early}; {wires} Then {deeper}"))
    }
}

/// Says who holds the line, when that is why it can't be opened.
fn failed(error: &LineError, endpoint: &Endpoint) -> Failure {
    match error {
        LineError::Open { reason, .. }
            if reason.contains("another program holds it") || reason.contains("exclusive lock") =>
        {
            Failure::other(format!(
                "another program holds {endpoint}, most likely the agent: stop it with \"systemctl stop weir\", scan, and start it again (fuser -v {endpoint} names who it is)"
            ))
        }
        LineError::Gone => {
            Failure::other(format!("{endpoint} went away during the scan (unplugged, or closed by the other side)"))
        }
        other => Failure::other(other.to_string()),
    }
}

/// Prints to standard output; a closed pipe is no failure.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numbers_ranges_and_serial_numbers() {
        let of = |text: &str| addresses(text).map(|list| list.0.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(of("1-3").unwrap(), ["1", "2", "3"]);
        assert_eq!(addresses("7").unwrap().0, [Address::Number(7)]);
        assert_eq!(addresses("00123456").unwrap().0, [Address::Text("00123456".into())]);
        assert!(["", "5-1", "1-5000", "a!"].iter().all(|text| of(text).is_err()));
    }

    #[test]
    fn protocols_are_those_of_the_probes() {
        assert!(protocol("modbus-rtu").is_ok() && protocol("push").is_ok() && protocol("sml").is_ok());
        assert!(protocol("modbus").unwrap_err().contains("modbus-rtu, modbus-ascii, iec62056-21"));
    }
}
