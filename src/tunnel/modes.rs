//! Which settings of a tunnel belong to which mode, and what else must hold.

use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use super::settings::{Mode, TunnelSettings, When};
use crate::setting::Problems;

/// The modes that a key is for; keys that are not here are for all.
const KEYS: &[(&str, &[Mode])] = &[
    ("rx_topic", &[Mode::Mqtt]),
    ("tx_topic", &[Mode::Mqtt]),
    ("envelope", &[Mode::Mqtt]),
    ("listen", &[Mode::TcpServer]),
    ("takeover", &[Mode::TcpServer]),
    ("allow", &[Mode::TcpServer, Mode::Udp]),
    ("idle", &[Mode::TcpServer, Mode::TcpClient, Mode::CallBack]),
    ("flush", &[Mode::TcpServer, Mode::TcpClient, Mode::CallBack]),
    ("rfc2217", &[Mode::TcpServer, Mode::TcpClient, Mode::CallBack]),
    ("connect", &[Mode::TcpClient]),
    ("when", &[Mode::TcpClient]),
    ("identify", &[Mode::TcpClient, Mode::CallBack]),
    ("tls", &[Mode::TcpClient, Mode::CallBack]),
    ("ca_file", &[Mode::TcpClient, Mode::CallBack]),
    ("client_certificate_file", &[Mode::TcpClient, Mode::CallBack]),
    ("client_key_file", &[Mode::TcpClient, Mode::CallBack]),
    ("targets", &[Mode::CallBack]),
    ("local", &[Mode::Udp]),
    ("remote_port", &[Mode::Udp]),
    ("routes", &[Mode::Udp]),
];

impl TunnelSettings {
    /// Whether TLS is spoken: a call-back does unless it is told not to.
    pub fn speaks_tls(&self) -> bool {
        match (&self.tls, *self.mode) {
            (Some(tls), Mode::TcpClient | Mode::CallBack) => **tls,
            (None, mode) => mode == Mode::CallBack,
            _ => false,
        }
    }

    /// Whether it needs the line all the time, so that no meter can be read on the same port.
    pub fn needs_the_line(&self) -> bool {
        match *self.mode {
            Mode::TcpClient => *self.when == When::Data,
            Mode::Udp => !self.routes.is_empty(),
            Mode::Mqtt | Mode::TcpServer | Mode::CallBack => false,
        }
    }
}

/// Says what does not fit together.
pub(super) fn check(settings: &TunnelSettings, problems: &mut Problems) {
    let mode = *settings.mode;
    for (key, modes) in KEYS.iter().filter(|(_, modes)| !modes.contains(&mode)) {
        if let Some(place) = settings.written.place(key) {
            let modes: Vec<_> = modes.iter().map(|mode| format!("\"{}\"", mode.word())).collect();
            let message =
                format!("{key} is for mode = {}, but this tunnel's mode is \"{}\"", modes.join(" or "), mode.word());
            problems.error(place, message);
        }
    }
    let needed = match mode {
        Mode::TcpServer if settings.listen.is_none() => "listen = \"address:port\", where it listens",
        Mode::TcpClient if settings.connect.is_none() => "connect = \"host:port\", where it connects to",
        Mode::CallBack if settings.targets.is_empty() => "targets = [\"host:port\"], the places that an order may name",
        Mode::Udp if settings.local.is_none() => "local = \"address:port\", where datagrams are heard",
        Mode::Mqtt | Mode::TcpServer | Mode::TcpClient | Mode::CallBack | Mode::Udp => "",
    };
    if !needed.is_empty() {
        problems.error(settings.mode.span(), format!("mode = \"{}\" needs {needed}", mode.word()));
    }
    match mode {
        Mode::Mqtt => {}
        Mode::TcpServer => tcp_server(settings, problems),
        Mode::TcpClient | Mode::CallBack => tls(settings, problems),
        Mode::Udp => udp(settings, problems),
    }
    if *settings.idle > Duration::from_hours(24) {
        problems.error(
            settings.idle.span(),
            "idle is longer than a day; write \"0s\" for a connection that is never ended",
        );
    }
    if let Some(identify) = settings.identify.as_ref().filter(|text| text.len() > 1024 || text.is_empty()) {
        problems.error(identify.span(), "identify must be from 1 to 1024 bytes long");
    }
}

fn tcp_server(settings: &TunnelSettings, problems: &mut Problems) {
    let Some(listen) = &settings.listen else { return };
    if settings.allow.is_empty() && !listen.0.ip().is_loopback() {
        let message = format!(
            "whoever reaches {} can talk to what is on the port; set allow = [\"address\"] to those who may",
            **listen
        );
        problems.warning(listen.span(), message);
    }
}

fn tls(settings: &TunnelSettings, problems: &mut Problems) {
    let files = ["ca_file", "client_certificate_file", "client_key_file"];
    if !settings.speaks_tls() {
        let written = files.into_iter().filter_map(|key| settings.written.place(key).map(|place| (key, place)));
        for (key, place) in written {
            problems.error(place, format!("{key} is for TLS: set tls = true, or leave it out"));
        }
        let span = settings.tls.as_ref().map_or(settings.mode.span(), crate::setting::At::span);
        problems
            .warning(span, "the tunnel has no TLS: its bytes travel readable, and anybody on the way can change them");
    }
    let pair = [("client_certificate_file", "client_key_file"), ("client_key_file", "client_certificate_file")];
    for (one, other) in pair {
        if let Some(place) = settings.written.place(one).filter(|_| settings.written.place(other).is_none()) {
            problems.error(place, format!("{one} needs {other}"));
        }
    }
}

fn udp(settings: &TunnelSettings, problems: &mut Problems) {
    let routes = &settings.routes;
    let mut seen = std::collections::BTreeSet::new();
    if let Some(twice) = routes.iter().find(|route| !seen.insert(route.unit)) {
        problems.error(routes.span(), format!("routes names the unit {} twice; a unit is in one place", twice.unit));
    }
    match &settings.remote_port {
        None if !routes.is_empty() => {
            problems.error(routes.span(), "routes needs remote_port, the port that the datagrams are sent to");
        }
        Some(port) if routes.is_empty() => problems.error(
            port.span(),
            "remote_port is for routes; without them an answer goes back to where its request came from",
        ),
        _ => {}
    }
    if routes.is_empty() && settings.allow.is_empty() {
        problems.error(
            settings.mode.span(),
            "mode = \"udp\" needs routes = [\"ip@unit\"] with a Modbus master on the port, or allow = [\"address\"] with units on it",
        );
    }
    if !routes.is_empty() && !settings.allow.is_empty() {
        problems.error(
            settings.allow.span(),
            "allow is not for a tunnel with routes: only the addresses of its routes are heard",
        );
    }
}

/// Says which tunnels want the same port of this gateway.
pub fn check_together(tunnels: &[TunnelSettings], problems: &mut Problems) {
    let mut taken: Vec<(bool, std::net::SocketAddr)> = Vec::new();
    for tunnel in tunnels {
        let (udp, at) = match (*tunnel.mode, &tunnel.listen, &tunnel.local) {
            (Mode::TcpServer, Some(at), _) => (false, at),
            (Mode::Udp, _, Some(at)) => (true, at),
            _ => continue,
        };
        let clash = |one: IpAddr, other: IpAddr| one == other || one.is_unspecified() || other.is_unspecified();
        let double = at.0.port() != 0
            && taken
                .iter()
                .any(|(kind, other)| *kind == udp && other.port() == at.0.port() && clash(other.ip(), at.0.ip()));
        if double {
            let span: Range<usize> = at.span();
            problems.error(span, format!("another tunnel has {} already; each needs a port of its own", **at));
        }
        taken.push((udp, at.0));
    }
}
