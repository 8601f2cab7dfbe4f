//! What weir tells by SMS by itself, and that no rule tells more than it may.

use tokio::time::timeout;
use weir::sim::modbus_meter::{Fault, ModbusMeters};
use weir::sim::modem::{Make, Modem};
use weir::sim::stick::{Plugged, plug};

use super::peers::broker::{LIMIT, Mosquitto, Relay};
use super::rig::{self, Home, weir};
use super::{CONTROL, meter_on, texts};

/// Waits until so many messages were sent, and gives them.
async fn told(modem: &Plugged<Modem>, count: usize) -> Vec<String> {
    let sent = timeout(LIMIT, modem.until(|modem| modem.sent.len() >= count)).await;
    assert!(sent.is_ok(), "{count} messages; it sent {:?}", texts(&modem.stick()));
    texts(&modem.stick())
}

fn rule(on: &str) -> String {
    format!("[[control.sms.alert]]\non = \"{on}\"\nto = [\"+34666123456\"]\nafter = \"0s\"\n")
}

#[tokio::test]
async fn each_event_is_told_once_in_its_pause_also_over_a_restart() {
    let meters = ModbusMeters::new(&[7]);
    let (line, _served) = meters.serve_rtu().unwrap();
    let modem = plug(Modem::new(Make::default())).unwrap();
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let relay = Relay::start(broker.port, false).await;
    // All rest for the hour that is usual.
    let rules = ["offline", "online", "meter-silent", "config"].map(rule).concat();
    let more = format!(
        "{}[modem]\ndevice = \"{}\"\nmanager = \"none\"\n{CONTROL}{rules}",
        meter_on(&line, "500ms"),
        modem.path().display()
    );
    home.configure(&format!("url = \"tcp://127.0.0.1:{}\"", relay.port), &more);
    let mut agent = home.run_with("debug", &[]);
    let messages = told(&modem, 1).await;
    assert!(messages[0].starts_with("gw1: offline tcp://127.0.0.1:"), "with the reason: {messages:?}");
    relay.set_open(true);
    let second = told(&modem, 2).await.remove(1);
    assert!(second.starts_with("gw1: online after ") && second.ends_with(" min"), "{second}");
    // Away again, which must not be told; the meter's silence, which begins later, is, so the first was looked at.
    relay.set_open(false);
    agent.until_said(&["WARN", "broker"]).await;
    meters.set_fault(7, Some(Fault::Silent));
    assert_eq!(told(&modem, 3).await[2], "gw1: meter-silent m");
    // Nor after a restart: what was sent is written down. Whatever is tried, the next one is of the configuration.
    agent.stop().await;
    let agent = home.run_with("debug", &[]);
    agent.until_said(&["ready"]).await;
    let mut command = weir();
    command.arg("--config").arg(home.config()).args(["config", "set", "uplink.batch", "400", "--no-wait"]);
    let changed = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(changed.status.success(), "{}", rig::stderr(&changed));
    let messages = told(&modem, 4).await;
    assert_eq!(messages[3..], ["gw1: config configuration 2 is on trial"]);
    assert_eq!(messages.len(), 4, "{messages:?}");
}
