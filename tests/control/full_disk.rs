//! A change of the configuration on a disk that takes nothing more, from the command to the answer, the alert and the frames.

use std::collections::BTreeSet;
use std::process::Command;

use tokio::time::timeout;
use weir::sim::modbus_meter::ModbusMeters;
use weir::sim::modem::{Make, Modem};
use weir::sim::stick::plug;

use super::peers::broker::{LIMIT, Mosquitto, Relay, Subscriber};
use super::rig::{self, Agent, Home, weir};
use super::{CONTROL, Json, Platform, meter_on};

/// No file of the agent may take one byte more, or as many as it likes.
fn fill(agent: &Agent, is_full: bool) {
    let limit = format!("--fsize={}:", if is_full { "0" } else { "unlimited" });
    let status = Command::new("prlimit").args(["--pid", &agent.pid().to_string(), &limit]).status();
    assert!(status.expect("prlimit comes with util-linux").success());
}

/// The next reading that the consumer gets.
async fn reading(subscriber: &mut Subscriber) -> u64 {
    subscriber.next_of("data/gw1").await.sequences().into_iter().max().unwrap()
}

#[tokio::test]
async fn a_full_disk_costs_the_change_and_not_the_frames() {
    let meters = ModbusMeters::new(&[7]);
    let (line, _served) = meters.serve_rtu().unwrap();
    let modem = plug(Modem::new(Make::default())).unwrap();
    let home = Home::new();
    let broker = Mosquitto::start(home.directory.path(), "allow_anonymous true").await;
    let mut platform = Platform::listen(&broker).await;
    let relay = Relay::start(broker.port, true).await;
    let mut subscriber = Subscriber::start(broker.port, &["-q", "1"]).await;
    let more = format!(
        "{}[modem]\ndevice = \"{}\"\nmanager = \"none\"\n{CONTROL}[[control.sms.alert]]\non = \"disk\"\nto = [\"+34666123456\"]\nafter = \"0s\"\n",
        meter_on(&line, "500ms"),
        modem.path().display()
    );
    home.configure(&format!("url = \"tcp://127.0.0.1:{}\"", relay.port), &more);
    // What a file can't take is an error then, and no signal that kills.
    let mut command = Command::new("env");
    command.arg("--ignore-signal=XFSZ").arg(weir().get_program());
    let agent = home.run_as(command, "debug", &[]);
    rig::until("it listens", || !agent.said(&["the broker lets weir listen"]).is_empty()).await;
    reading(&mut subscriber).await;
    fill(&agent, true);
    let refused = platform.ask("AT^WEIR=SETPARAM,uplink.batch,400").await;
    assert!(refused.contains("ERROR: ") && refused.contains("/store/config can't be written: "), "{refused}");
    assert!(refused.ends_with("nothing was changed"), "{refused}");
    assert!(platform.ask("AT^WEIR=GETPARAM,uplink.batch").await.contains("uplink.batch: 500"));
    agent.until_said(&["the audit can't be written; see to the disk"]).await;
    // A phone is told of it before the store itself has something to write, which with a broker it has every 90 s.
    let told = timeout(LIMIT / 2, modem.until(|modem| modem.sent.len() == 1)).await;
    told.expect("the disk is told of by SMS");
    let told = modem.stick().sent[0].data.body.text();
    assert!(told.starts_with("gw1: disk "), "{told}");
    // Frames go on. While there is no broker they wait in memory instead of on the disk.
    let before = reading(&mut subscriber).await;
    relay.set_open(false);
    agent.until_said(&["no session with the broker"]).await;
    relay.set_open(true);
    let mut came = BTreeSet::from([before]);
    while came.last() < Some(&(before + 8)) {
        came.extend(subscriber.next_of("data/gw1").await.sequences());
    }
    assert!((before..=before + 8).all(|number| came.contains(&number)), "a frame is missing: {came:?}");
    // With room again the same command is taken, kept, and on the disk.
    fill(&agent, false);
    let connected = || agent.said(&["the broker lets weir listen"]).len();
    rig::until("it listens again", || connected() == 2).await;
    let taken = platform.ask("AT^WEIR=SETPARAM,uplink.batch,400").await;
    assert!(taken.contains("configuration 2 is on trial"), "{taken}");
    agent.until_said(&["was confirmed", "number=2"]).await;
    assert!(platform.ask("AT^WEIR=GETPARAM,uplink.batch").await.contains("uplink.batch: 400"));
    let audit = platform.ask("AT^WEIR=AUDIT,100").await;
    let outcomes = |outcome: &str| {
        let lines = audit.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
        lines.filter(|line| line["outcome"] == outcome && line["command"].to_string().contains("SETPARAM")).count()
    };
    assert_eq!((outcomes("begun"), outcomes("done")), (1, 1), "{audit}");
    let last = reading(&mut subscriber).await;
    while reading(&mut subscriber).await < last + 3 {}
}
