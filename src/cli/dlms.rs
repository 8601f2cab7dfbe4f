//! `weir dlms METER OBJECT`: one object of a DLMS/COSEM meter.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde_json::{Value as Json, json};
use tracing::level_filters::LevelFilter;

use super::failure::Failure;
use super::read::{hint, known, member, port_of};
use super::{log, patience, runtime, table};
use crate::agent;
use crate::agent::local::{Client, ClientError};
use crate::config::{self, Settings};
use crate::meter::bus::{self, Meter};
use crate::os::clock::Clock;

/// Show one object of a DLMS/COSEM meter with all its attributes, or change it.
///
/// OBJECT is an OBIS id such as 1.8.0, 0-0:96.1.0*255 or 7/1-0:99.1.0*255 (with the class, when the meter
/// does not show its list of objects), or "clock". While the agent runs it is asked; else the meter's port
/// is opened. Without --set, --action, --set-clock, --disconnect or --reconnect it only reads. What changes
/// something in the meter needs --yes; it is done once, and what is there afterwards is shown. Exits with 1
/// when the meter does not answer or refuses.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("deed").args(["set", "set_file", "action", "set_clock", "disconnect", "reconnect", "image", "transfer_key", "security_policy", "first_counter"]))]
pub(super) struct Dlms {
    /// The meter's name in the configuration.
    meter: String,

    /// The object.
    object: String,

    /// One attribute only; needed for buffers and lists, which are left out otherwise.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i8).range(1..))]
    attribute: Option<i8>,

    /// Write this value: a number in the unit of the register, a text, a time such as
    /// 2026-01-15T12:00:00+01:00, or TYPE:VALUE such as enum:1 or octet-string:00ff.
    #[arg(long, value_name = "VALUE", requires = "yes")]
    set: Option<String>,

    /// Write what this file holds: for a password, which others could see on the command line.
    #[arg(long, value_name = "FILE", requires = "yes")]
    set_file: Option<PathBuf>,

    /// Call this method.
    #[arg(long, value_name = "N", requires = "yes", value_parser = clap::value_parser!(i8).range(1..))]
    action: Option<i8>,

    /// The method's parameter as TYPE:VALUE; unset: integer:0, as most methods want it.
    #[arg(long, value_name = "TYPE:VALUE", requires = "action")]
    parameter: Option<String>,

    /// Set the meter's clock to the gateway's time, within dlms.clock.limit; the gateway's must be trusted.
    #[arg(long, requires = "yes")]
    set_clock: bool,

    /// Open the disconnector OBJECT (0-0:96.3.10*255): the customer is without supply then.
    #[arg(long, requires = "yes")]
    disconnect: bool,

    /// Close the disconnector OBJECT.
    #[arg(long, requires = "yes")]
    reconnect: bool,

    /// Give the meter this firmware: OBJECT is its image transfer (0-0:44.0.0*255). The meter verifies it. A transfer
    /// that broke off goes on where it ended. A running agent does it, in slices of a minute between the readings; it must
    /// be able to read FILE.
    #[arg(long, value_name = "FILE", requires = "yes")]
    image: Option<PathBuf>,

    /// What the image is called in the meter; unset: the file's name.
    #[arg(long, value_name = "TEXT", requires = "image")]
    identifier: Option<String>,

    /// Have the meter run the image once it is verified.
    #[arg(long, requires = "image")]
    activate: bool,

    /// Give the meter a new key: encryption=FILE, broadcast=FILE, authentication=FILE or master=FILE; may be repeated, the
    /// meter takes all or none. OBJECT is its security setup (0-0:43.0.0*255). The keys go wrapped by the master key.
    #[arg(long, value_name = "KEY=FILE", requires = "yes", requires = "master_key")]
    transfer_key: Vec<String>,

    /// The file with the meter's master key of now, which wraps new keys.
    #[arg(long, value_name = "FILE", requires = "transfer_key")]
    master_key: Option<PathBuf>,

    /// Activate this security policy in the security setup OBJECT; meters take stronger ones only.
    #[arg(long, value_name = "N", requires = "yes")]
    security_policy: Option<u8>,

    /// Begin the invocation counters of dlms.system_title at N, where nothing tells how far they were used: it must be
    /// beyond all that were ever used with this title and key. The meter is not asked.
    #[arg(long, value_name = "N", requires = "yes", value_parser = clap::value_parser!(u32).range(1..))]
    first_counter: Option<u32>,

    /// Do change something in the meter.
    #[arg(long)]
    yes: bool,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Dlms {
    pub(super) fn run(self, config: PathBuf, level: Option<LevelFilter>) -> Result<(), Failure> {
        log::start(level.unwrap_or(LevelFilter::WARN));
        let settings = config::effective(&config)?.settings;
        let meter = known(&settings, &self.meter)?;
        if *meter.protocol != "dlms" {
            return Err(Failure::usage(format!("meter \"{}\" speaks {}, not dlms", self.meter, *meter.protocol)));
        }
        let order = self.order()?;
        let answer = match Client::connect(&settings.store.path) {
            Ok(mut agent) => {
                let answer = agent.ask(&json!({ "ask": "dlms", "meter": self.meter, "order": order }));
                followed(&mut agent, answer).map_err(|e| Failure::other(e.to_string()))?
            }
            Err(ClientError::NotRunning(_)) => runtime()?.block_on(alone(&settings, &self.meter, &order))?,
            Err(error) => return Err(Failure::other(error.to_string())),
        };
        let text = if self.json { format!("{answer}\n") } else { shown(&answer) };
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
        fault(&answer)
    }

    fn order(&self) -> Result<Json, Failure> {
        let object = self.attribute.map_or_else(|| self.object.clone(), |number| format!("{}:{number}", self.object));
        let word = if self.disconnect { Some("disconnect") } else { self.reconnect.then_some("reconnect") };
        let filed = self.set_file.as_ref().map(|path| {
            let content = std::fs::read_to_string(path);
            content.map_err(|error| Failure::usage(format!("{} can't be read: {error}", path.display())))
        });
        let filed = filed.transpose()?;
        let set = self.set.as_deref().or(word).or(filed.as_deref().map(str::trim_end));
        let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
        let key = |text: &String| match text.split_once('=') {
            Some((key, file)) if ["encryption", "broadcast", "authentication", "master"].contains(&key) => {
                Ok(json!({ "key": key, "file": whole(Path::new(file)) }))
            }
            _ => {
                Err(Failure::usage("--transfer-key is encryption=, broadcast=, authentication= or master= and a file"))
            }
        };
        let keys = self.transfer_key.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        let master = self.master_key.as_deref().map(whole);
        let rekey = (!keys.is_empty() || self.security_policy.is_some())
            .then(|| json!({ "keys": keys, "master": master, "policy": self.security_policy }));
        let image = self.image.as_ref().map(|path| {
            // The agent has another working directory.
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            json!({ "path": path.display().to_string(), "identifier": self.identifier, "activate": self.activate })
        });
        Ok(json!({
            "object": object, "set": set, "action": self.action, "parameter": self.parameter,
            "set_clock": self.set_clock, "image": image, "rekey": rekey, "first_counter": self.first_counter,
        }))
    }
}

/// How often a port that can't be opened is tried again during a transfer, and after which pause.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(10);

/// The answer of the agent; before that of a transfer it tells how far that has come.
fn followed(agent: &mut Client, first: Result<Json, ClientError>) -> Result<Json, ClientError> {
    let (mut answer, mut shown) = (first?, None);
    let part = |answer: &Json, name: &str| answer.get(name).and_then(Json::as_u64).and_then(|n| u32::try_from(n).ok());
    while let (Some(done), Some(all), None) = (part(&answer, "done"), part(&answer, "all"), answer.get("outcome")) {
        bar(&mut shown, done, all);
        answer = agent.answer()?.ok_or_else(|| ClientError::Broken(std::io::ErrorKind::UnexpectedEof.into()))?;
    }
    Ok(answer)
}

/// Shows on a terminal how far a transfer has come.
fn bar(shown: &mut Option<u64>, done: u32, all: u32) {
    let mut out = std::io::stderr();
    let percent = u64::from(done) * 100 / u64::from(all.max(1));
    if !out.is_terminal() || shown.replace(percent) == Some(percent) {
        return;
    }
    let full = usize::try_from(percent / 4).unwrap_or(0).min(25);
    let end = if done == all { "\n" } else { "" };
    let _ = write!(out, "\r[{}{}] {percent} %{end}", "#".repeat(full), ".".repeat(25 - full));
    let _ = out.flush();
}

/// Opens the meter's port and carries the order out.
async fn alone(settings: &Settings, name: &str, order: &Json) -> Result<Json, Failure> {
    let meter = known(settings, name)?;
    let port = port_of(settings, meter)?;
    let kept = settings.store.path.join(agent::SESSIONS);
    let clock = Clock::open(&settings.clock, &settings.store.path);
    let mut session = Meter::new(meter).map_err(Failure::config)?.kept_in(&kept);
    let mut shown = None;
    let mut tell = |done: u32, all: u32| bar(&mut shown, done, all);
    let is_image = order.get("image").is_some_and(|image| !image.is_null());
    let mut left = if is_image { ATTEMPTS } else { 0 };
    let asking = format!("asking \"{name}\" on {}", port.endpoint);
    let answer = loop {
        let work = bus::inspect_once(&port, &mut session, &clock, order, &mut tell);
        // An image has a bar.
        let answer = if is_image { work.await } else { patience::told(&asking, work).await };
        match &answer {
            // A transfer goes on in the next slice.
            Ok(told) if member(told, "outcome") == "more" => continue,
            Err(error) if left > 0 && (error.is_silence() || error.must_reopen()) => {
                left -= 1;
                tokio::time::sleep(PAUSE).await;
            }
            _ => break answer,
        }
    };
    answer.map_err(|e| Failure::other(format!("meter \"{name}\" on {}: {e}{}", port.endpoint, hint(&e, &port.name))))
}

/// Whether something that was asked for was not had.
fn fault(answer: &Json) -> Result<(), Failure> {
    match member(answer, "outcome") {
        "refused" => Err(Failure::other(format!("the meter refused: {}", member(answer, "words")))),
        "different" => Err(Failure::other("the meter did not refuse, but something else is there now")),
        _ => match answer.get("attributes").and_then(Json::as_array).map(Vec::as_slice) {
            Some([only]) if only.get("value").is_none_or(Json::is_null) && !member(only, "words").is_empty() => {
                Err(Failure::other(format!("the meter refused: {}", member(only, "words"))))
            }
            _ => Ok(()),
        },
    }
}

fn shown(answer: &Json) -> String {
    let number = |value: &Json, name: &str| value.get(name).map(Json::to_string).unwrap_or_default();
    let Some(attributes) = answer.get("attributes").and_then(Json::as_array) else { return outcome(answer) };
    let class = format!("class {} version {}", number(answer, "class"), number(answer, "version"));
    let mut out = format!("{}  {}  {class}\n\n", member(answer, "object"), member(answer, "class_name"));
    // One line has room for so many characters of a list; a longer one is a table below.
    const LONGEST: usize = 60;
    let is_below = |a: &Json| {
        let fits = a.get("value").and_then(Json::as_str).is_some_and(|text| text.chars().count() <= LONGEST);
        a.get("rows").is_some() && (!fits || attributes.len() == 1)
    };
    let row = |a: &Json| {
        let count = a.get("rows").and_then(Json::as_array).map_or(0, Vec::len);
        let value = match is_below(a) {
            true => table::count(count, "row"),
            false => a.get("value").and_then(Json::as_str).unwrap_or("-").to_owned(),
        };
        let quality = if member(a, "quality") == "good" { "" } else { member(a, "quality") };
        let said = if is_below(a) { "" } else { member(a, "words") };
        let words = [quality, said].iter().filter(|w| !w.is_empty()).copied().collect::<Vec<_>>().join(": ");
        let cells =
            [number(a, "number").as_str(), member(a, "name"), &value, member(a, "unit"), &words].map(table::printable);
        cells.to_vec()
    };
    out += &table::render(&["", "attribute", "value", "unit", ""], &attributes.iter().map(row).collect::<Vec<_>>());
    for attribute in attributes.iter().filter(|a| is_below(a)) {
        out += &format!("\n{}\n", member(attribute, "name"));
        out += &rows(attribute);
    }
    let methods = answer.get("methods").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    if !methods.is_empty() {
        let row = |m: &Json| vec![number(m, "number"), table::printable(member(m, "name"))];
        out.push('\n');
        out += &table::render(&["", "method"], &methods.iter().map(row).collect::<Vec<_>>());
    }
    out
}

/// A value that is a table.
fn rows(attribute: &Json) -> String {
    let list = |value: Option<&Json>| value.and_then(Json::as_array).cloned().unwrap_or_default();
    let text = |cell: &Json| table::printable(cell.as_str().unwrap_or("-"));
    let heads: Vec<String> = list(attribute.get("columns")).iter().map(text).collect();
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> =
        list(attribute.get("rows")).iter().map(|row| list(Some(row)).iter().map(text).collect()).collect();
    let more = attribute.get("further_rows").and_then(Json::as_u64).unwrap_or(0);
    let more = if more > 0 { format!("... and {more} more\n") } else { String::new() };
    table::render(&heads, &rows) + &more
}

/// What came of a change.
fn outcome(answer: &Json) -> String {
    if let Some(blocks) = answer.get("blocks") {
        return format!("{}: {blocks} blocks are there; {}\n", member(answer, "object"), member(answer, "words"));
    }
    if let Some(ahead) = answer.get("is_ahead_by_seconds") {
        let was = answer.get("was_ahead_by_seconds").map(Json::to_string).unwrap_or_default();
        return format!("the meter's clock was {was} s ahead of the gateway's; it is {ahead} s ahead now\n");
    }
    if answer.get("before").is_none() {
        let pairs = [("outcome", member(answer, "outcome")), ("", member(answer, "words"))];
        let pairs = pairs.map(|(name, text)| (name, table::printable(text)));
        return table::printable(member(answer, "object")) + "\n" + &table::pairs(&pairs);
    }
    let value = |side: &str| {
        let side = answer.get(side).unwrap_or(&Json::Null);
        format!("{} {}", side.get("value").and_then(Json::as_str).unwrap_or("-"), member(side, "unit"))
            .trim()
            .to_owned()
    };
    let pairs = [("before", value("before")), ("now", value("now")), ("outcome", member(answer, "outcome").to_owned())];
    table::printable(member(answer, "object"))
        + "\n"
        + &table::pairs(&pairs.map(|(name, text)| (name, table::printable(&text))))
}
