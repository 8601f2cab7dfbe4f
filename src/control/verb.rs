//! The table of our own commands: how each is written, and how it is read.

use std::time::Duration;

use serde_json::Value as Json;

use super::{Change, Command, Modbus, Output, Place, Put, Restart};
use crate::setting::duration;
use crate::wire::at;

/// One of our own commands.
pub(super) struct Verb {
    /// Behind `AT^MTXTUNNEL=`.
    pub(super) name: &'static str,
    /// How its arguments are written.
    pub(super) usage: &'static str,
    /// What it does.
    pub(super) about: &'static str,
    /// Whether its arguments may hold a secret or somebody's words: then only its name is kept and echoed.
    pub(super) private: fn(&str) -> bool,
    /// Reads its arguments.
    pub(super) read: fn(&str) -> Option<Command>,
}

const OPEN: fn(&str) -> bool = |_| false;
const PRIVATE: fn(&str) -> bool = |_| true;

macro_rules! verb {
    ($name:literal $usage:literal $about:literal $read:expr) => {
        verb!($name $usage $about $read, OPEN)
    };
    ($name:literal $usage:literal $about:literal $read:expr, $private:expr) => {
        Verb { name: $name, usage: $usage, about: $about, private: $private, read: $read }
    };
}

/// All of them, in the order of docs/control.md.
pub(super) const VERBS: &[Verb] = &[
    verb!("VERSION" "" "the version of weir" |a| nothing(a, Command::Version)),
    verb!("HELP" "[,NAME]" "the commands, or how one is written" |a| Some(Command::Help(optional(a)))),
    verb!("CHALLENGE" "" "what a signed command may use as its nonce, once" |a| nothing(a, Command::Challenge)),
    verb!("STATUS" "" "the status message, now" |a| nothing(a, Command::Status)),
    verb!("GETPARAM" ",NAME[,NAME...]" "parameters, by MTX's names or weir.toml's keys" get),
    verb!("SETPARAM" ",NAME,VALUE" "changes a parameter, on trial" set, names_a_secret),
    verb!("SETPARAMS" ",{\"NAME\":\"VALUE\",...}" "changes several at once; \"confirm\":\"5m\" says how long they are on trial" set_many, names_a_secret),
    verb!("GETCONFIG" "" "the whole configuration, secrets masked" |a| nothing(a, Command::Configuration)),
    verb!("HISTORY" "" "the last configurations, by whom and why" |a| nothing(a, Command::History)),
    verb!("ROLLBACK" "[,NUMBER]" "back to an earlier configuration, on trial" rollback),
    verb!("SETBAUDRATE" ",PORT,SPEED[,FRAMING]" "another speed of a port until weir starts anew" speed),
    verb!("RS232" ",PORT,DATA" "bytes for a port; <HEX>0102</HEX> stands for bytes" send, PRIVATE),
    verb!("GETMODBUS" ",ADDRESS;REGISTER;COUNT;FUNCTION[;PORT]" "reads registers of a Modbus slave" read_modbus),
    verb!("SETMODBUS" ",ADDRESS;REGISTER;VALUE[,VALUE...][;FUNCTION[;PORT]]" "writes registers of a Modbus slave" write_modbus),
    verb!("READ" "[,METER]" "reads a meter, or all" |a| Some(Command::Read(optional(a)))),
    verb!("SETIO" ",OUTPUT,0|1" "sets a digital output, by its name or its number from 0" set_output),
    verb!("GETIOS" "" "the digital inputs and outputs" |a| nothing(a, Command::Ios)),
    verb!("SMS" ",NUMBER,TEXT" "sends an SMS" sms, PRIVATE),
    verb!("CALLBACK" ",PORT,HOST:PORT[,SECONDS]" "has a port's tunnel call a reading centre" call_back),
    verb!("TRACE" ",PORT[,SECONDS]" "the bytes on a port" trace),
    verb!("LOG" "[,LINES]" "the newest lines of the log" |a| lines(a).map(Command::Log)),
    verb!("AUDIT" "[,LINES]" "the newest commands and what became of them" |a| lines(a).map(Command::Audit)),
    verb!("RESET" "[,AGENT|MODEM|GATEWAY]" "starts weir, the modem or the whole gateway again" reset),
    verb!("AUTORESET" ",ON|OFF|HH:MM" "the daily reset of the gateway, UTC" daily_reset),
    verb!("WATCHDOG" ",ON|OFF" "switches the watchdogs" |a| on_off(a).map(Command::Watchdog)),
    verb!("LOCK" "" "locks the configuration" |a| nothing(a, Command::Lock)),
    verb!("UNLOCK" "" "unlocks it" |a| nothing(a, Command::Unlock)),
    verb!("CERT" ",CA|CLIENT|KEY,PEM" "loads a certificate or key, on trial" certificate, PRIVATE),
    verb!("UPDATEFW" ",URL,SHA256[,SIGNATURE]" "fetches, checks and installs a firmware, on trial" update),
];

fn nothing(arguments: &str, command: Command) -> Option<Command> {
    arguments.trim().is_empty().then_some(command)
}

fn optional(arguments: &str) -> Option<String> {
    let text = arguments.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The first argument and what stands behind its comma.
fn first(arguments: &str) -> Option<(&str, &str)> {
    let (head, rest) = arguments.split_once(',')?;
    Some((head.trim(), rest)).filter(|(head, _)| !head.is_empty())
}

/// The first argument, and the second one if there is one.
fn one_or_two(arguments: &str) -> (&str, Option<&str>) {
    arguments.split_once(',').map_or((arguments.trim(), None), |(head, rest)| (head.trim(), Some(rest.trim())))
}

fn place(text: &str) -> Option<Place> {
    let text = text.trim();
    match text.parse() {
        Ok(number) => Some(Place::Number(number)),
        Err(_) => (!text.is_empty()).then(|| Place::Name(text.to_owned())),
    }
}

fn get(arguments: &str) -> Option<Command> {
    let names: Vec<_> = arguments.split(',').map(|name| name.trim().to_owned()).collect();
    names.iter().all(|name| !name.is_empty()).then_some(Command::Get(names))
}

fn set(arguments: &str) -> Option<Command> {
    let (name, value) = first(arguments)?;
    let change = Change { name: name.to_owned(), value: value.trim().to_owned() };
    Some(Command::Set { changes: vec![change], confirm: None })
}

fn set_many(arguments: &str) -> Option<Command> {
    let Json::Object(members) = serde_json::from_str(arguments.trim()).ok()? else { return None };
    let mut confirm = None;
    let mut changes = Vec::new();
    for (name, value) in members {
        let value = match value {
            Json::String(text) => text,
            Json::Number(_) | Json::Bool(_) => value.to_string(),
            _ => return None,
        };
        if name == "confirm" {
            confirm = Some(duration(&value)?);
        } else {
            changes.push(Change { name, value });
        }
    }
    (!changes.is_empty()).then_some(Command::Set { changes, confirm })
}

/// Whether a parameter's value must not be shown: MTX's configuration holds passwords.
fn names_a_secret(arguments: &str) -> bool {
    let lower = arguments.to_ascii_lowercase();
    ["password", "login", "pin", "secret", "key", "phone", "smsnumber", "control.sms"]
        .iter()
        .any(|word| lower.contains(word))
}

fn rollback(arguments: &str) -> Option<Command> {
    match optional(arguments) {
        None => Some(Command::Rollback(None)),
        Some(number) => number.parse().ok().map(|number| Command::Rollback(Some(number))),
    }
}

fn speed(arguments: &str) -> Option<Command> {
    let (port, rest) = first(arguments)?;
    let (baud, framing) = one_or_two(rest);
    let baud = baud.parse().ok().filter(|baud| (50..=4_000_000).contains(baud))?;
    Some(Command::Speed { place: place(port)?, baud, framing: framing.map(str::to_owned) })
}

fn send(arguments: &str) -> Option<Command> {
    let (port, data) = first(arguments)?;
    let bytes = at::bytes(data).ok().filter(|bytes| !bytes.is_empty())?;
    Some(Command::Send { place: place(port)?, bytes })
}

fn read_modbus(arguments: &str) -> Option<Command> {
    let parts: Vec<&str> = arguments.split(';').map(str::trim).collect();
    let (unit, register, count, function, port) = match *parts.as_slice() {
        [unit, register, count, function] => (unit, register, count, function, None),
        [unit, register, count, function, port] => (unit, register, count, function, Some(place(port)?)),
        _ => return None,
    };
    let function = function.parse().ok().filter(|function| (1..=4).contains(function))?;
    let most = if function <= 2 { 2000 } else { 125 };
    Some(Command::ReadModbus(Modbus {
        place: port,
        unit: unit.parse().ok().filter(|unit| (1..=247).contains(unit))?,
        register: register.parse().ok()?,
        function,
        count: count.parse().ok().filter(|count| (1..=most).contains(count))?,
    }))
}

fn write_modbus(arguments: &str) -> Option<Command> {
    let parts: Vec<&str> = arguments.split(';').map(str::trim).collect();
    let (unit, register, values, function, port) = match *parts.as_slice() {
        [unit, register, values] => (unit, register, values, None, None),
        [unit, register, values, function] => (unit, register, values, Some(function), None),
        [unit, register, values, function, port] => (unit, register, values, Some(function), Some(place(port)?)),
        _ => return None,
    };
    let values: Vec<u16> = values.split(',').map(|value| value.trim().parse().ok()).collect::<Option<_>>()?;
    let usual = if values.len() == 1 { 6 } else { 16 };
    let function = function.map_or(Some(usual), |function| function.parse().ok())?;
    let fits = match function {
        5 => values.len() == 1 && values.iter().all(|value| *value <= 1),
        6 => values.len() == 1,
        15 => values.len() <= 1968 && values.iter().all(|value| *value <= 1),
        16 => values.len() <= 123,
        _ => false,
    };
    let unit = unit.parse().ok().filter(|unit| *unit <= 247)?;
    fits.then_some(Command::WriteModbus(Put { place: port, unit, register: register.parse().ok()?, function, values }))
}

fn set_output(arguments: &str) -> Option<Command> {
    let (name, value) = first(arguments)?;
    let on = match value.trim() {
        "1" => true,
        "0" => false,
        _ => return None,
    };
    Some(Command::SetOutput(Output { name: name.to_owned(), on }))
}

/// Whether a text can be a phone number: digits, perhaps behind a plus.
pub(super) fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or(text);
    (3..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
}

fn sms(arguments: &str) -> Option<Command> {
    let (number, text) = first(arguments)?;
    let fits = is_number(number) && !text.is_empty() && text.chars().count() <= 1000;
    fits.then(|| Command::Sms { number: number.to_owned(), text: text.to_owned() })
}

/// Seconds as a plain number, or a duration such as `5m`.
fn seconds(text: &str) -> Option<Duration> {
    const LONGEST: Duration = Duration::from_hours(24);
    let given = text.parse().ok().map(Duration::from_secs).or_else(|| duration(text));
    given.filter(|given| !given.is_zero() && *given <= LONGEST)
}

fn call_back(arguments: &str) -> Option<Command> {
    let (port, rest) = first(arguments)?;
    let (target, within) = one_or_two(rest);
    let within = match within {
        Some(text) => Some(seconds(text)?),
        None => None,
    };
    let (host, number) = target.rsplit_once(':')?;
    (!host.is_empty() && number.parse::<u16>().is_ok_and(|number| number > 0)).then_some(())?;
    Some(Command::CallBack { place: place(port)?, target: target.to_owned(), within })
}

/// A trace by command is short: its answer is one message.
const LONGEST_TRACE: Duration = Duration::from_mins(5);

fn trace(arguments: &str) -> Option<Command> {
    let (port, within) = one_or_two(arguments);
    let within = within.map_or(Some(Duration::from_secs(10)), seconds)?;
    (within <= LONGEST_TRACE).then_some(Command::Trace { place: place(port)?, within })
}

fn lines(arguments: &str) -> Option<u16> {
    match arguments.trim() {
        "" => Some(20),
        number => number.parse().ok().filter(|lines| (1..=500).contains(lines)),
    }
}

fn reset(arguments: &str) -> Option<Command> {
    let what = match arguments.trim().to_ascii_uppercase().as_str() {
        "AGENT" => Restart::Agent,
        "MODEM" => Restart::Modem,
        "" | "GATEWAY" => Restart::Gateway,
        _ => return None,
    };
    Some(Command::Restart(what))
}

fn on_off(arguments: &str) -> Option<bool> {
    match arguments.trim().to_ascii_uppercase().as_str() {
        "ON" | "1" => Some(true),
        "OFF" | "0" => Some(false),
        _ => None,
    }
}

fn daily_reset(arguments: &str) -> Option<Command> {
    const USUAL: u16 = 3 * 60 + 30;
    if let Some(on) = on_off(arguments) {
        return Some(Command::DailyReset(on.then_some(USUAL)));
    }
    let (hours, minutes) = arguments.trim().split_once(':')?;
    let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
    (hours < 24 && minutes < 60).then_some(Command::DailyReset(Some(hours * 60 + minutes)))
}

fn certificate(arguments: &str) -> Option<Command> {
    let (which, pem) = first(arguments)?;
    let which = which.to_ascii_lowercase();
    let known = matches!(which.as_str(), "ca" | "client" | "key") && pem.contains("-----BEGIN ");
    // A PEM that went through a single line has its line ends written out.
    known.then(|| Command::Certificate { which, pem: pem.replace("\\n", "\n") })
}

fn update(arguments: &str) -> Option<Command> {
    let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let (rest, last) = arguments.rsplit_once(',')?;
    let (url, sha256, signature) = if is_hash(last.trim()) {
        (rest, last, None)
    } else {
        let (url, sha256) = rest.rsplit_once(',')?;
        (url, sha256, Some(last.trim().to_owned()))
    };
    let (url, sha256) = (url.trim(), sha256.trim());
    let reachable = url.starts_with("https://") || url.starts_with("file:///");
    let signed = signature.as_ref().is_none_or(|signature| signature.len() == 88);
    let fits = reachable && signed && is_hash(sha256);
    fits.then(|| Command::Update { url: url.to_owned(), sha256: sha256.to_ascii_lowercase(), signature })
}

#[cfg(test)]
#[path = "verb_tests.rs"]
mod tests;
