//! What is asked regularly: signal, registration, operator.

use super::Status;
use super::dialogue::{Broken, Dialogue};
use super::start::Found;
use crate::wire::modem::{Network, Operator, operator, registration, signal, strength};

/// Asks for everything that changes.
pub(super) async fn inquire(dialogue: &mut Dialogue, found: &Found, status: &mut Status) -> Result<(), Broken> {
    let heard = dialogue.ask("AT+CSQ").await?.find(signal);
    status.csq = heard.and_then(|signal| signal.csq);
    status.rssi = heard.and_then(|signal| signal.rssi());
    if let Some(command) = found.strength {
        let strength = dialogue.ask(command).await?.find(strength).unwrap_or_default();
        (status.rsrp, status.rsrq) = (strength.rsrp, strength.rsrq);
    }
    let mut best: Option<Network> = None;
    for command in ["AT+CREG?", "AT+CEREG?"] {
        let network = dialogue.ask(command).await?.find(registration);
        let serves = |network: &Option<Network>| network.as_ref().is_some_and(|n| n.registration.serves());
        // LTE knows the tracking area and the cell; without LTE the older answer counts.
        if serves(&network) || best.is_none() {
            best = network.or(best);
        }
    }
    let operator = dialogue.ask("AT+COPS?").await?.find(operator);
    note(best, operator, status);
    Ok(())
}

/// Writes down where the modem is registered.
fn note(network: Option<Network>, operator: Option<Operator>, status: &mut Status) {
    let technology = operator.as_ref().and_then(|operator| operator.technology);
    let technology = technology.or_else(|| network.as_ref().and_then(|network| network.technology));
    status.technology = technology.map(|technology| technology.word());
    status.operator = operator.map(|operator| operator.name);
    status.registration = network.as_ref().map(|network| network.registration.word());
    (status.area, status.cell) = network.map_or((None, None), |network| (network.area, network.cell));
}
