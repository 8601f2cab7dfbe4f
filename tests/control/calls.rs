//! `mtxtunnel on` and a missed call: the broker is tried at once, whatever the back-off says.

use std::fs;
use std::sync::atomic::Ordering;

use tokio::time::timeout;
use weir::sim::modem::{Make, Modem};
use weir::sim::stick::plug;

use super::peers::broker::{LIMIT, Mosquitto, Relay};
use super::rig::{self, Home};
use super::texts;

#[tokio::test]
async fn a_known_phone_ends_the_back_off_by_a_message_and_by_a_call_and_a_stranger_does_not() {
    let modem = plug(Modem::new(Make::default())).unwrap();
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let relay = Relay::start(broker.port, false).await;
    let room = format!("[modem]\ndevice = \"{}\"\nmanager = \"none\"\n", modem.path().display());
    let sms = "[control.sms]\nallow = [\"+34666123456\"]\nsend_ip = true\nreply = true\n";
    home.configure(&format!("url = \"tcp://127.0.0.1:{}\"", relay.port), &format!("{room}{sms}"));
    // By itself it comes back when this test is long over.
    let usual = "backoff = { first = \"100ms\", max = \"500ms\", jitter = \"50ms\" }";
    let text = fs::read_to_string(home.config()).unwrap();
    assert!(text.contains(usual));
    fs::write(home.config(), text.replace(usual, "backoff = { first = \"12h\", max = \"12h\", jitter = \"50ms\" }"))
        .unwrap();
    let agent = home.run_with("debug", &[]);
    agent.until_said(&["the modem is ready"]).await;
    let failures = || agent.said(&["WARN", "broker"]).len();
    rig::until("it could not connect", || failures() > 0).await;
    let accepted = || relay.accepted.load(Ordering::SeqCst);
    let nudged = || agent.said(&["the broker is tried at once, as somebody asked"]).len();
    relay.set_open(true);
    let say = |from: &str, text: &str| {
        let said = modem.stick().deliver(from, text, weir::os::clock::now());
        modem.say(said);
    };
    let ring = |from: Option<&str>| {
        let said = modem.stick().ring(from);
        modem.say(said);
    };
    say("+34600000000", "mtxtunnel on");
    ring(Some("+34600000000"));
    agent.until_said(&["a call of nobody who is known"]).await;
    // Messages are heard in their order.
    say("+34600000000", "good morning");
    agent.until_said(&["an SMS that is no command was heard"]).await;
    assert_eq!((nudged(), accepted()), (0, 0));
    say("+34666123456", "MTXTunnel ON");
    agent.until_said(&["connected to the broker"]).await;
    assert_eq!((nudged(), accepted()), (1, 1));
    timeout(LIMIT, modem.until(|modem| modem.sent.len() == 1)).await.expect("the address is told");
    let told = texts(&modem.stick());
    assert!(
        told[0].starts_with("gw1: ") && told[0].ends_with(&format!("connected to tcp://127.0.0.1:{}", relay.port)),
        "{told:?}"
    );
    // The session breaks, and a call that is not even answered has it back.
    let before = failures();
    relay.set_open(false);
    rig::until("the session is broken", || failures() > before).await;
    relay.set_open(true);
    ring(Some("666123456"));
    rig::until("it is connected again", || agent.said(&["connected to the broker"]).len() == 2).await;
    assert_eq!((nudged(), accepted()), (2, 2));
    timeout(LIMIT, modem.until(|modem| modem.hung_up >= 2)).await.expect("nobody is spoken to");
}
