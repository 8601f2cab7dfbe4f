//! What can only be checked when all rooms' settings are known.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Settings;
use crate::meter::{MeterSettings, PortSettings};
use crate::os::line::{Endpoint, Parity};
use crate::setting::{Identity, Problems, substituted};
use crate::tunnel::TunnelSettings;
use crate::{board, control, meter, modem, radio, tunnel, uplink, watchdog};

/// Checks names, references and whatever the rooms check themselves.
pub(super) fn across_rooms(settings: &Settings, problems: &mut Problems) {
    unique("port", settings.port.iter().map(|p| (p.name.as_str(), p.name.span())), problems);
    unique("meter", settings.meter.iter().map(|m| (m.name.as_str(), m.name.span())), problems);
    unique("radio", settings.radio.iter().map(|r| (r.name.as_str(), r.name.span())), problems);
    settings.meter.iter().for_each(|m| meter::check(m, problems));
    radio::check(&settings.radio, &settings.telegrams, problems);
    settings.modem.iter().for_each(|m| modem::check(m, problems));
    uplink::check(&settings.broker, &settings.uplink, problems);
    uplink::check_budget(&settings.budget, problems);
    let ports: Vec<_> = settings.port.iter().map(|port| port.name.as_str()).collect();
    settings.status.iter().for_each(|status| uplink::check_status(status, &ports, problems));
    control::check(&settings.control, problems);
    settings.watchdog.iter().for_each(|w| watchdog::check(w, problems));
    by_phone(settings, problems);
    names(settings, problems);
    devices(settings, problems);
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
    tunnels(settings, &identity(settings), problems);
    settings.port.iter().for_each(|port| listeners(port, settings, problems));
    for port in &settings.port {
        if let Some(fault) = port.rs485.fault() {
            problems.error(port.name.span(), format!("rs485 of port \"{}\": {fault}", *port.name));
        }
        let is_used = settings.meter.iter().any(|m| *m.port == *port.name)
            || settings.tunnel.iter().any(|tunnel| *tunnel.port == *port.name);
        if !is_used {
            let message = format!("port \"{}\" has no meter and no tunnel, and will not be opened", *port.name);
            problems.warning(port.name.span(), message);
        }
    }
}

/// Sees that what is to come and go by SMS has a modem, and a port.
fn by_phone(settings: &Settings, problems: &mut Problems) {
    let sms = &settings.control.sms;
    let wanted = !sms.allow.is_empty() || !sms.alert.is_empty() || sms.tunnel_prefix.is_some() || sms.send_ip;
    if wanted && !settings.has_modem() {
        problems.warning(sms.allow.span(), "nothing comes or goes by SMS: there is no [modem]");
    }
    if sms.tunnel_prefix.is_some() && settings.tunnel.is_empty() {
        problems.warning(sms.allow.span(), "tunnel_prefix is of no use without a [[tunnel]]");
    }
}

/// Sees that each tunnel has a port that can be lent, and topics of its own.
fn tunnels(settings: &Settings, identity: &Identity, problems: &mut Problems) {
    let mut topics = BTreeMap::new();
    for tunnel in &settings.tunnel {
        tunnel::check(tunnel, problems);
        let port = &**tunnel.port;
        network_end(settings, tunnel, identity, problems);
        let by_topics = *tunnel.mode == tunnel::Mode::Mqtt;
        let named = [&tunnel.rx_topic, &tunnel.tx_topic].into_iter().find(|topic| topic.of(identity).is_none());
        if let Some(topic) = named.filter(|_| by_topics) {
            let message = "the tunnel's topic uses {imei}, but the IMEI is not known: set gateway.imei, or the tunnel will not be opened";
            problems.warning(topic.span(), message);
        }
        let listens = |m: &&MeterSettings| meter::protocol(&m.protocol).is_some_and(meter::Protocol::listens);
        if let Some(meter) = settings.meter.iter().filter(|m| **m.port == *port).find(listens) {
            let message = format!(
                "port \"{port}\" has the meter \"{}\", which sends by itself; a tunnel needs another port",
                *meter.name
            );
            problems.error(tunnel.port.span(), message);
        }
        for topic in [&tunnel.rx_topic, &tunnel.tx_topic].into_iter().filter(|_| by_topics) {
            if topics.insert((*topic).clone().as_written().to_owned(), ()).is_some() {
                let message =
                    format!("the topic \"{}\" is used twice by tunnels; bytes would get mixed up", topic.as_written());
                problems.error(topic.span(), message);
            }
        }
    }
    line_ports(settings, problems);
    tunnel::check_together(&settings.tunnel, problems);
    unique("tunnel on port", settings.tunnel.iter().map(|t| (t.port.as_str(), t.port.span())), problems);
}

/// Sees that commands on a line have a tunnel that hears it.
fn line_ports(settings: &Settings, problems: &mut Problems) {
    let allowed = &settings.control.line_ports;
    for port in allowed.iter() {
        let tunnel = settings.tunnel.iter().find(|tunnel| **tunnel.port == **port);
        let meter = settings.meter.iter().any(|meter| **meter.port == **port);
        match tunnel {
            None => problems
                .error(allowed.span(), format!("there is no [[tunnel]] on port \"{port}\" that would hear commands")),
            Some(tunnel) if *tunnel.mode == tunnel::Mode::Udp => {
                problems.error(
                    allowed.span(),
                    format!("the tunnel on port \"{port}\" has mode = \"udp\", which hears no commands on the line"),
                );
            }
            Some(_) if meter => problems.warning(
                allowed.span(),
                format!("port \"{port}\" has meters; commands on it are heard only while the tunnel has the line"),
            ),
            Some(_) => {}
        }
    }
}

/// What a tunnel in the network needs of other rooms.
fn network_end(settings: &Settings, tunnel: &TunnelSettings, identity: &Identity, problems: &mut Problems) {
    let client = tunnel.client_certificate_file.as_ref().zip(tunnel.client_key_file.as_ref());
    if tunnel.speaks_tls() {
        uplink::check_tls_files(tunnel.ca_file.as_ref(), client, problems);
    }
    if let Some(text) = tunnel.identify.as_ref().filter(|text| substituted(text, identity).is_none()) {
        let message =
            "identify uses {imei}, but the IMEI is not known: set gateway.imei, or the tunnel will not be opened";
        problems.warning(text.span(), message);
    }
    if let Some(meter) = settings.meter.iter().find(|m| tunnel.needs_the_line() && **m.port == **tunnel.port) {
        let message = format!(
            "port \"{}\" has the meter \"{}\", but this tunnel must hear the port all the time; it needs a port of its own",
            *tunnel.port, *meter.name
        );
        problems.error(tunnel.port.span(), message);
    }
}

/// Sees that a meter that sends by itself has its port for itself, and its bits as they come.
fn listeners(port: &PortSettings, settings: &Settings, problems: &mut Problems) {
    let on_port = || settings.meter.iter().filter(|m| !port.name.is_empty() && *m.port == *port.name);
    let listens = |m: &&MeterSettings| meter::protocol(&m.protocol).is_some_and(meter::Protocol::listens);
    let Some(listener) = on_port().find(listens) else { return };
    for other in on_port().filter(|m| *m.name != *listener.name) {
        let message = format!(
            "port \"{}\" has the meter \"{}\", which sends by itself ({}); meter \"{}\" needs a port of its own",
            *port.name, *listener.name, *listener.protocol, *other.name
        );
        problems.error(other.port.span(), message);
    }
    let eight_bits = port.framing.data_bits == 8;
    if *listener.protocol == "dlms-push" {
        // HAN ports and wired M-Bus send even parity besides eight bits: who leaves it out hears noise.
        if !eight_bits {
            let message = format!(
                "port \"{}\" has framing \"{}\", but DLMS has eight data bits; write \"8N1\", or \"8E1\" for wired M-Bus and most HAN ports",
                *port.name, port.framing
            );
            problems.error(port.name.span(), message);
        }
        return;
    }
    if port.framing.parity != Parity::None || !eight_bits {
        let message = format!(
            "port \"{}\" has framing \"{}\", but weir checks the parity of a {} meter itself, which the kernel would take away; leave framing at \"8N1\"",
            *port.name, port.framing, *listener.protocol
        );
        problems.error(port.name.span(), message);
    }
}

/// Sees that the names of the gateway fit into topics and ids, as far as the file tells them.
fn names(settings: &Settings, problems: &mut Problems) {
    uplink::check_names(&settings.broker, &settings.uplink, &identity(settings), problems);
    let mut without = Problems::new();
    let nameless = Identity { imei: None, ..identity(settings) };
    uplink::check_names(&settings.broker, &settings.uplink, &nameless, &mut without);
    if settings.gateway.imei.is_none() && settings.has_modem() && without.has_errors() {
        let message = "gateway.imei is unset, so the IMEI is not known before the modem has told it once; nothing is published before that";
        problems.warning(settings.gateway.board.span(), message);
    }
}

/// The gateway's names as far as the file tells them; an IMEI that the modem will tell is one of as many digits.
fn identity(settings: &Settings) -> Identity {
    let id = settings.gateway.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| "weir".to_owned());
    let asked = || settings.has_modem().then(|| "000000000000000".to_owned());
    Identity { id, imei: settings.gateway.imei.clone().or_else(asked) }
}

/// Sees that the board is known, and that every port leads somewhere nobody else leads to.
fn devices(settings: &Settings, problems: &mut Problems) {
    let board = board::load(&settings.gateway.board);
    if let Err(error) = &board {
        problems.error(settings.gateway.board.span(), error.to_string());
    }
    let mut owners: BTreeMap<Endpoint, String> = BTreeMap::new();
    let listens = |endpoint: &Endpoint| {
        let ports = settings.port.iter().filter(|p| p.device.as_ref().is_some_and(|d| Endpoint::parse(d) == *endpoint));
        let mut meters = ports.flat_map(|p| settings.meter.iter().filter(|m| *m.port == *p.name));
        meters.any(|m| meter::protocol(&m.protocol).is_some_and(meter::Protocol::listens))
    };
    let mut own = |endpoint: Endpoint, span: Range<usize>, owner: String, problems: &mut Problems| {
        // A server takes several connections, a serial device has one owner; so has what a meter
        // pushes by itself, because a serial server gives each byte to one of them or to all.
        if matches!(endpoint, Endpoint::Tcp(_)) && !listens(&endpoint) {
            return;
        }
        match owners.get(&endpoint) {
            Some(first) => problems
                .error(span, format!("{owner} has the device {endpoint} of {first}; only one of them can open it")),
            None => drop(owners.insert(endpoint, owner)),
        }
    };
    for port in settings.port.iter().filter(|p| !p.name.is_empty()) {
        let owner = format!("port \"{}\"", *port.name);
        if let Some(device) = &port.device {
            let endpoint = Endpoint::parse(device);
            match endpoint.fault() {
                Some(fault) => problems.error(device.span(), format!("device \"{}\" {fault}", **device)),
                None => own(endpoint, device.span(), owner, problems),
            }
        } else if let Ok(board) = &board {
            match board.port(&port.name) {
                Some(known) => own(Endpoint::Device(known.device.clone()), port.name.span(), owner, problems),
                None => {
                    let known: Vec<_> = board.description.port.iter().map(|p| p.name.as_str()).collect();
                    let message = format!(
                        "{owner} has no device: set device = \"/dev/...\", or a name that board \"{}\" knows: {}",
                        board.name,
                        known.join(", ")
                    );
                    problems.missing(port.name.span(), message);
                }
            }
        }
    }
    for radio in &settings.radio {
        if let Some(device) = &radio.device {
            own(Endpoint::parse(device), device.span(), format!("radio \"{}\"", *radio.name), problems);
        }
    }
    if let Some(device) = settings.modem.as_ref().and_then(|modem| modem.device.as_ref()) {
        own(Endpoint::parse(device), device.span(), "the modem".to_owned(), problems);
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
