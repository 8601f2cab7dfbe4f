//! What can only be checked when all rooms' settings are known.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Settings;
use crate::os::line::Endpoint;
use crate::setting::Problems;
use crate::{meter, radio, uplink};

/// Checks names, references and whatever the rooms check themselves.
pub(super) fn across_rooms(settings: &Settings, problems: &mut Problems) {
    unique("port", settings.port.iter().map(|p| (p.name.as_str(), p.name.span())), problems);
    unique("meter", settings.meter.iter().map(|m| (m.name.as_str(), m.name.span())), problems);
    unique("radio", settings.radio.iter().map(|r| (r.name.as_str(), r.name.span())), problems);
    settings.meter.iter().for_each(|m| meter::check(m, problems));
    settings.radio.iter().for_each(|r| radio::check(r, problems));
    uplink::check(&settings.broker, &settings.uplink, problems);
    for meter in settings.meter.iter().filter(|m| !m.port.is_empty()) {
        let port = settings.port.iter().find(|p| *p.name == *meter.port);
        let Some(port) = port else {
            let known: Vec<_> = settings.port.iter().map(|p| p.name.as_str()).collect();
            let known = if known.is_empty() { "there is no [[port]]".to_owned() } else { known.join(", ") };
            let message = format!(
                "meter \"{}\" names port \"{}\", which is not defined; known: {known}",
                *meter.name, *meter.port
            );
            problems.error(meter.port.span(), message);
            continue;
        };
        let over_tcp = port.device.as_ref().map(|d| matches!(Endpoint::parse(d), Endpoint::Tcp(_)));
        if *meter.protocol == "modbus-tcp" && over_tcp == Some(false) {
            problems.error(
                meter.protocol.span(),
                format!(
                    "meter \"{}\" speaks modbus-tcp, but port \"{}\" is a serial device; use modbus-rtu, or give the port device = \"tcp://host:502\"",
                    *meter.name, *port.name
                ),
            );
        }
    }
    for port in &settings.port {
        if !settings.meter.iter().any(|m| *m.port == *port.name) {
            problems.warning(port.name.span(), format!("port \"{}\" has no meter and will not be opened", *port.name));
        }
    }
}

fn unique<'s>(what: &str, names: impl Iterator<Item = (&'s str, Range<usize>)>, problems: &mut Problems) {
    let mut seen = BTreeMap::new();
    for (name, span) in names {
        // An empty name without a place stands in for one that could not be read.
        if name.is_empty() && span.is_empty() {
            continue;
        }
        if name.is_empty() {
            problems.error(span, format!("a {what} needs a name that is not empty"));
        } else if seen.insert(name, ()).is_some() {
            problems.error(span, format!("there is already a {what} named \"{name}\"; names must differ"));
        }
    }
}
