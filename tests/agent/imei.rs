//! Topics and ids with `{imei}`: the gateway comes to know its modem's number by itself, and loses nothing meanwhile.

use std::time::Duration;

use weir::sim::modem::{Make, Modem};
use weir::sim::radio_replay::Lines;
use weir::sim::stick::plug;

use super::rig::{Consumer, Feed, Home, Mosquitto, Subscriber, until};

#[tokio::test]
async fn a_gateway_asks_its_modem_who_it_is_and_loses_nothing_meanwhile() {
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let feed = Feed::start(Lines::RtlWmbus, Duration::from_millis(5), 5).await;
    let modem = plug(Modem::new(Make { mute: true, ..Make::default() })).unwrap();
    home.configure(
        &format!("url = \"tcp://127.0.0.1:{}\"\nclient_id = \"[IMEI]\"", broker.port),
        &format!(
            "[modem]\ndevice = \"{}\"\nmanager = \"none\"\n[status]\ntopic = \"{{imei}}/dns\"\ntemplate = \"mtx\"\n{}",
            modem.path().display(),
            feed.radio("roof", "rtl-wmbus")
        ),
    );
    let check = home.weir(&["check"]);
    assert!(check.status.success(), "{check:?}");
    let mut agent = home.run("info");
    agent.until_said(&["nothing is published yet"]).await;
    until("all telegrams are kept", || home.counters()["received"] == 5).await;
    modem.stick().make.mute = false;
    agent.until_said(&["the modem has told its IMEI"]).await;
    let mut consumer = Consumer::default();
    let dns = "356938035643809/dns";
    consumer.listen(&mut subscriber, |c| c.frames.len() == 5 && c.others.iter().any(|heard| heard.topic == dns)).await;
    let told = consumer.others.iter().find(|heard| heard.topic == dns).unwrap().json();
    assert_eq!((&told["IMEI"], &told["RESET"]), (&"356938035643809".into(), &"imei".into()));
    assert_eq!(agent.said(&["weir starts anew"]).len(), 1);
    agent.stop().await;
    // The next start has it at once; another modem's number counts from when it is told.
    let mut agent = home.run("info");
    agent.until_said(&["connected to the broker"]).await;
    assert!(agent.said(&["nothing is published yet"]).is_empty());
    modem.stick().make.imei = "490154203237518".to_owned();
    let said = modem.stick().restart();
    modem.say(said);
    agent.until_said(&["another IMEI than the one before"]).await;
    consumer.listen(&mut subscriber, |c| c.others.iter().any(|heard| heard.topic == "490154203237518/dns")).await;
    agent.stop().await;
}
