//! Starts the tunnels whose other end is in the network, and hands them the TLS door.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::commands::Told;
use super::{Agent, TunnelDoor, lines};
use crate::config::Settings;
use crate::os::clock::Clock;
use crate::setting::{Identity, substituted};
use crate::tunnel::{self, Book, Connecting, Connector, Mode, NetworkEnd, Place, Stream, TunnelSettings};
use crate::uplink::{self, TlsFiles};

/// Starts them; the ports' buses run already.
pub(super) fn start(agent: &mut Agent, settings: &Settings, identity: &Identity, doors: (&mpsc::Sender<Told>, &Book)) {
    for tunnel in settings.tunnel.iter().filter(|tunnel| *tunnel.mode != Mode::Mqtt) {
        start_one(agent, settings, tunnel, identity, doors);
    }
}

fn start_one(
    agent: &mut Agent,
    settings: &Settings,
    tunnel: &TunnelSettings,
    identity: &Identity,
    (door, book): (&mpsc::Sender<Told>, &Book),
) {
    let Some(port) = agent.evidence.buses.iter().find(|bus| bus.port() == tunnel.port.as_str()).cloned() else {
        return;
    };
    let greeting = tunnel.identify.as_ref().map_or("", |text| text.as_str());
    let Some(greeting) = substituted(greeting, identity) else {
        if settings.has_modem() {
            tracing::warn!(
                port = port.port(),
                "a tunnel is not opened yet: it needs the IMEI, which the modem is asked for"
            );
        } else {
            tracing::error!(port = port.port(), "a tunnel is not opened: the IMEI is not known; set gateway.imei");
        }
        return;
    };
    let (orders, asked) = mpsc::channel(tunnel::ORDERS_WAITING);
    let health = tunnel::Health::new();
    agent.evidence.tunnels.push(TunnelDoor { port: tunnel.port.to_string(), health: health.clone(), orders });
    let shared = settings.meter.iter().any(|meter| *meter.port == *tunnel.port);
    let connector = connector(tunnel, &agent.evidence.clock);
    let end = NetworkEnd::new(tunnel, (port, shared), (connector, greeting.as_bytes()), (asked, health))
        .with_book(book.clone());
    let end = match lines::tags(&settings.control, &tunnel.port, door) {
        Some(tags) => end.with_tags(tags),
        None => end,
    };
    agent.inputs.start(format!("tunnel {}", *tunnel.port), move || end.clone().run());
}

/// Makes the connections of a tunnel, by the one TLS door when it speaks TLS.
fn connector(tunnel: &TunnelSettings, clock: &Clock) -> Connector {
    if !tunnel.speaks_tls() {
        return Arc::new(|place: Place| -> Connecting {
            Box::pin(async move { Ok(Box::new(tunnel::dial(&place).await?) as Box<dyn Stream>) })
        });
    }
    let client = tunnel.client_certificate_file.as_ref().zip(tunnel.client_key_file.as_ref());
    let files = TlsFiles {
        ca: tunnel.ca_file.as_ref().map(|path| path.to_path_buf()),
        client: client.map(|(certificate, key)| (certificate.to_path_buf(), key.path().to_owned())),
    };
    let (files, clock) = (Arc::new(files), clock.clone());
    Arc::new(move |place: Place| -> Connecting {
        let (files, clock) = (files.clone(), clock.clone());
        Box::pin(async move {
            let stream = tunnel::dial(&place).await?;
            let secured = uplink::secured(stream, &place.host, (&files, &clock)).await?;
            Ok(Box::new(secured) as Box<dyn Stream>)
        })
    })
}
