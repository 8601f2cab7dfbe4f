//! GETPARAM and SETPARAM by the vendor's names, on any configuration: by the table, there and back.

use super::form::{Around, Form, is_zero, list};
use super::table::{self, Becomes, Row};
use crate::config::Settings;
use crate::config::edit::{self, Edit};

/// Whether a name is meant as one of the vendor's: `MQTT_keepalive`, also one that nobody knows.
pub fn is_meant(name: &str) -> bool {
    table::find(name).is_some() || table::is_grouped(name)
}

/// A parameter and the key that it is.
struct Mapped {
    name: String,
    key: String,
    form: Form,
    number: Option<usize>,
    comm: String,
}

/// The value of a parameter in a configuration's text; empty when it is unset, `***` when it is a secret.
///
/// # Errors
/// One sentence that names the parameter: it is unknown, or no setting of weir.
pub fn value(text: &str, name: &str) -> Result<String, String> {
    let found = table::find(name).ok_or_else(|| unknown(name))?;
    if let Becomes::Secret(key) = found.row.becomes {
        let set = edit::value(text, key).ok().flatten().is_some();
        return Ok(if set { "***" } else { "" }.to_owned());
    }
    let mapped = mapped(text, name)?;
    if mapped.form == Form::Mode && !has_tunnel(text, &mapped.comm) {
        return Ok("none".to_owned());
    }
    if !has_parent(text, &mapped.key) {
        return Ok(String::new());
    }
    let old = edit::value(text, &mapped.key).map_err(|why| format!("{}: {why}", mapped.name))?;
    if mapped.form == Form::OnOff && old.is_none() {
        return Ok(String::new());
    }
    let around = Around { old: None, number: mapped.number, comm: &mapped.comm };
    Ok(old.map_or_else(String::new, |old| mapped.form.to_mtx(&old, around)))
}

/// The edits that give a parameter a value; `text` is the configuration before them.
///
/// # Errors
/// One sentence that names the parameter.
pub fn edits(text: &str, name: &str, value: &str) -> Result<Vec<Edit>, String> {
    let found = table::find(name).ok_or_else(|| unknown(name))?;
    if let Becomes::Secret(key) = found.row.becomes {
        return Err(format!("{} is a secret: write it into the file that {key} names, or into config.txt", found.name));
    }
    let mapped = mapped(text, name)?;
    let (key, comm) = (&mapped.key, &mapped.comm);
    if mapped.form == Form::Mode && !has_tunnel(text, comm) {
        return from_none(value, &mapped);
    }
    let old = edit::value(text, key).map_err(|why| format!("{}: {why}", mapped.name))?;
    if mapped.form == Form::Routes && !value.is_empty() && !value.contains('@') {
        let addresses = list(value.split(',').map(str::trim));
        return Ok(vec![Edit::Set(format!("tunnel[\"{comm}\"].allow"), addresses), Edit::Unset(key.clone())]);
    }
    if mapped.form == Form::Mode && value.eq_ignore_ascii_case("none") {
        return Ok(vec![Edit::Unset(format!("tunnel[\"{comm}\"]"))]);
    }
    let around = Around { old: old.as_deref(), number: mapped.number, comm };
    let new = mapped.form.to_weir(value, around).map_err(|why| format!("{} {why}", mapped.name))?;
    if mapped.form == Form::Minutes && new.as_deref().is_none_or(is_zero) {
        // No ping at all.
        return Ok(vec![Edit::Unset(key.rsplit_once('.').map_or(key.as_str(), |(parent, _)| parent).to_owned())]);
    }
    let mut edits = Vec::new();
    // A server listens somewhere.
    let listen = format!("tunnel[\"{comm}\"].listen");
    if new.as_deref() == Some("tcp-server") && edit::value(text, &listen).ok().flatten().is_none() {
        edits.push(Edit::Set(listen.clone(), "0.0.0.0:20010".to_owned()));
    } else if mapped.form == Form::Mode && new.as_deref() != Some("tcp-server") {
        edits.push(Edit::Unset(listen));
    }
    edits.push(match new {
        Some(new) => Edit::Set(key.clone(), new),
        None => Edit::Unset(key.clone()),
    });
    Ok(edits)
}

fn has_tunnel(text: &str, port: &str) -> bool {
    edit::value(text, &format!("tunnel[\"{port}\"].port")).is_ok()
}

/// The edits that make a tunnel where there is none.
fn from_none(value: &str, mapped: &Mapped) -> Result<Vec<Edit>, String> {
    let around = Around { old: None, number: None, comm: &mapped.comm };
    if value.is_empty() || value.eq_ignore_ascii_case("none") {
        return Err(format!("{} is none already", mapped.name));
    }
    let mode = mapped.form.to_weir(value, around).map_err(|why| format!("{} {why}", mapped.name))?.unwrap_or_default();
    let new = format!("tunnel[+\"{}\"]", mapped.comm);
    let mut edits = vec![Edit::Set(format!("{new}.mode"), mode.clone())];
    if mode == "tcp-server" {
        edits.push(Edit::Set(format!("{new}.listen"), "0.0.0.0:20010".to_owned()));
    }
    Ok(edits)
}

/// Whether the table of a key that there need not be is there: without it its defaults do not count.
fn has_parent(text: &str, key: &str) -> bool {
    let optional = ["watchdog.ping.", "status."].into_iter().find(|table| key.starts_with(table));
    optional.is_none_or(|table| edit::value(text, table.trim_end_matches('.')).ok().flatten().is_some())
}

fn unknown(name: &str) -> String {
    let hint = table::nearest(name).map_or_else(String::new, |near| format!("; did you mean {near}?"));
    format!("{} is no parameter that weir knows (docs/mtx.md){hint}", brief(name))
}

fn brief(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(60).collect()
}

/// Finds the key of a parameter in a configuration's text.
fn mapped(text: &str, name: &str) -> Result<Mapped, String> {
    let found = table::find(name).ok_or_else(|| unknown(name))?;
    let Row { becomes, about, .. } = *found.row;
    let (key, form) = match becomes {
        Becomes::Key(key, form) => (key, form),
        Becomes::Part => {
            return Err(format!(
                "{} is no setting of its own, it decides what a config.txt becomes ({about})",
                found.name
            ));
        }
        Becomes::Nothing | Becomes::Secret(_) => {
            return Err(format!("{} does nothing on weir: {about}", found.name));
        }
    };
    let ports = super::super::parse(text).map(|loaded| ports(&loaded.settings)).unwrap_or_default();
    let at = usize::from(key.contains("{comm2}"));
    if key.contains("{comm") && ports.get(at).is_none() {
        let which = if at == 0 { "no port" } else { "no second port" };
        return Err(format!("{}: this configuration has {which}", found.name));
    }
    let port = ports.get(at).map_or("", String::as_str);
    // In quotes a name of digits is a name, too.
    let key = key.replace("{comm2}", &format!("\"{port}\"")).replace("{comm}", &format!("\"{port}\""));
    let comm = ports.first().cloned().unwrap_or_default();
    Ok(Mapped { name: found.name, key, form, number: found.number, comm })
}

/// The ports in the order of the configuration: the vendor's numbers count them.
fn ports(settings: &Settings) -> Vec<String> {
    settings.port.iter().map(|port| port.name.to_string()).collect()
}
