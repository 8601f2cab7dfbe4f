//! Starting the gateway again by command, and the switches of its watchdogs.

use super::{After, Done, Orders, taken};
use crate::agent::dogs::Paws;
use crate::config;
use crate::config::change::Origin as Who;
use crate::watchdog::{Cause, Hands, Refusal, Step};

/// Reboots the gateway when this is dropped, within the watchdog's limit.
pub(in crate::agent) struct Reboot(Option<(Paws, String)>);

impl Drop for Reboot {
    fn drop(&mut self) {
        let Some((mut paws, who)) = self.0.take() else { return };
        tokio::spawn(async move {
            let dog = paws.evidence.dogs.dog.clone();
            if let Err(error) = dog.reboot(Cause::Command(&who), &mut paws).await {
                tracing::error!(%error, "the gateway could not be rebooted");
            }
        });
    }
}

fn paws(orders: &Orders) -> Paws {
    Paws { evidence: orders.evidence.clone(), store: orders.teller.store().clone() }
}

/// Reboots once the answer is on its way.
pub(super) fn reset(orders: &Orders, who: &Who) -> Done {
    let paws = paws(orders);
    let allowed = match paws.busy() {
        Some(why) => Err(format!("{why}; a reboot would spoil that, try again later")),
        None => {
            paws.can(Step::Reboot).and_then(|()| paws.evidence.dogs.dog.may_reboot().map_err(|error| error.to_string()))
        }
    };
    match allowed {
        Ok(()) => {
            let reboot = Reboot(Some((paws, who.to_string())));
            Done { told: Ok("the gateway starts anew".to_owned()), after: Some(After::Reboot(Box::new(reboot))) }
        }
        Err(why) => Err(why).into(),
    }
}

/// Resets the modem as the watchdog does: by its line where the board has one, as a modem that hangs obeys no command.
pub(super) async fn reset_modem(orders: &Orders) -> Result<(), String> {
    let mut paws = paws(orders);
    paws.can(Step::ModemReset).map_err(|why| format!("{why}; set [modem] in weir.toml"))?;
    paws.act(Step::ModemReset, Cause::Ladder).await.map_err(|(Refusal::Cannot(why) | Refusal::Failed(why))| why)
}

/// The daily reset: a change of the configuration, on trial.
pub(super) async fn daily_reset(orders: &Orders, minute: Option<u16>, who: Who) -> Done {
    let time = minute.map_or_else(|| "off".to_owned(), |minute| format!("{:02}:{:02}", minute / 60, minute % 60));
    change(orders, &[("watchdog.daily_reset", &time)], who).await
}

/// All that tests the way to the world, on or off; the same.
pub(super) async fn watchdog(orders: &Orders, on: bool, who: Who) -> Done {
    let text = match orders.changer() {
        Ok(changer) => changer.text(),
        Err(why) => return Err(why).into(),
    };
    let has_ping = config::parse(&text).is_ok_and(|loaded| loaded.settings.watchdog.is_some_and(|w| w.ping.is_some()));
    let mut changes = vec![("watchdog.enabled", if on { "true" } else { "false" })];
    if on && !has_ping {
        // Without it nothing would be tested.
        changes.push(("watchdog.ping.after", "35m"));
    }
    change(orders, &changes, who).await
}

async fn change(orders: &Orders, changes: &[(&str, &str)], who: Who) -> Done {
    match orders.changer() {
        Ok(changer) => taken(changer.set(changes, who, "by command", None).await),
        Err(why) => Err(why).into(),
    }
}
