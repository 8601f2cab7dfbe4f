//! What surrounds the meters: clock, ports, receivers, store, brokers.

use std::time::Duration;

use serde_json::json;

use super::sheet::{Check, Sheet};
use crate::agent;
use crate::board::Board;
use crate::meter::PortSettings;
use crate::meter::bus::Port;
use crate::model::TimeQuality;
use crate::os::clock::Clock;
use crate::os::line::{Endpoint, Line};
use crate::setting::Identity;
use crate::store::{self, StoreError, StoreSettings};
use crate::uplink::{self, BrokerSettings, UplinkSettings};

/// The longest wait for a broker.
const BROKER_LIMIT: Duration = Duration::from_secs(30);

const MISSING: &str =
    "check the cable, the device's name (ls -l /dev/serial/by-id) and the group of the user (dialout)";

/// Whether the time can be believed.
pub(super) fn clock(clock: &Clock) -> Check {
    let health = clock.health();
    let detail = json!({ "time": health.time.to_string(), "basis": health.basis.word() });
    match health.state() {
        TimeQuality::Unsynced => Check::fail(
            "clock",
            format!("the time {} is not confirmed by anybody ({})", health.time, health.basis.word()),
            "start a time service (chrony or systemd-timesyncd) and wait until it has the time: docs/time.md",
            detail,
        ),
        _ => Check::pass("clock", format!("{}, confirmed ({})", health.time, health.basis.word()), detail),
    }
}

/// Opens a port and gives it for its meters; nothing is sent. What a running agent that can be asked holds is left to it.
pub(super) async fn port(
    settings: &PortSettings,
    board: &Board,
    running: bool,
    beside: bool,
    sheet: &mut Sheet,
) -> Option<Port> {
    let subject = format!("port {}", *settings.name);
    let port = match agent::resolve_port(settings, board) {
        Ok(port) => port,
        Err(error) => {
            sheet.add(Check::fail(subject, error.to_string(), "correct the configuration (weir check)", json!({})));
            return None;
        }
    };
    let detail = json!({
        "endpoint": port.endpoint.to_string(), "baud": port.speed.baud, "framing": port.speed.framing.to_string(),
    });
    if beside {
        let told = format!("{} belongs to the running agent; its meters tell whether it works", port.endpoint);
        match &port.endpoint {
            Endpoint::Device(path) if !path.exists() => {
                sheet.add(Check::fail(subject, format!("{} is not there", path.display()), MISSING, detail))
            }
            _ => sheet.add(Check::pass(subject, told, detail)),
        }
        return Some(port);
    }
    match Line::open(&port.endpoint, port.speed, port.direction).await {
        Ok(_) => {
            let speed = match port.endpoint {
                Endpoint::Tcp(_) => String::new(),
                Endpoint::Device(_) => format!(" at {} {}", port.speed.baud, port.speed.framing),
            };
            sheet.add(Check::pass(subject, format!("{}{speed} opens", port.endpoint), detail));
            Some(port)
        }
        Err(error) => {
            let todo = if running {
                "the agent holds it: stop it (systemctl stop weir), make the report, and start it again"
            } else {
                MISSING
            };
            sheet.add(Check::fail(subject, error.to_string(), todo, detail));
            None
        }
    }
}

/// What the cache says of itself.
pub(super) fn store(settings: &StoreSettings, running: bool) -> Check {
    let path = settings.path.display();
    match store::inspect(&settings.path) {
        Ok(status) => {
            let detail = json!({
                "received": status.received, "acknowledged": status.acknowledged, "cached": status.cached,
                "evicted": status.evicted, "damaged": status.damaged, "skipped": status.skipped,
            });
            let told = format!(
                "{path}: {} received, {} acknowledged, {} cached, {} evicted, {} unreadable",
                status.received, status.acknowledged, status.cached, status.evicted, status.damaged
            );
            if status.damaged > 0 {
                let todo = "frames could not be read back: look at the disk with weir store check, replace a worn card";
                Check::fail("store", told, todo, detail)
            } else {
                Check::pass("store", told, detail)
            }
        }
        Err(StoreError::Missing { .. }) if !running => {
            Check::pass("store", format!("{path} is not there yet; the agent makes it at its first start"), json!({}))
        }
        Err(error) => Check::fail(
            "store",
            error.to_string(),
            "check the directory and its owner, then weir store check",
            json!({}),
        ),
    }
}

/// Connects as the uplink does, and hangs up.
pub(super) async fn broker(
    broker: &BrokerSettings,
    settings: &UplinkSettings,
    identity: &Identity,
    clock: &Clock,
    running: bool,
) -> Check {
    let subject = format!("broker {}", *broker.url);
    let beside = if running { ", with client id ...-report beside the agent's" } else { "" };
    match uplink::rehearse(broker, settings, identity, clock, running, BROKER_LIMIT).await {
        Ok(took) => {
            let tls = if broker.url.tls { "TLS" } else { "no TLS" };
            let told = format!("accepted the session in {} ms ({tls}{beside})", took.as_millis());
            Check::pass(subject, told, json!({ "connect_ms": took.as_millis(), "tls": broker.url.tls }))
        }
        Err(failure) => {
            let kind = format!("{:?}", failure.kind);
            Check::fail(
                subject,
                failure.sentence,
                "do what the sentence says, then weir report again",
                json!({ "kind": kind }),
            )
        }
    }
}
