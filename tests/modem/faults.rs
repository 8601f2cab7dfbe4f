//! What modems do wrong.

use tokio::time::timeout;
use weir::modem::{ModemError, State};
use weir::sim::modem::{Make, Modem as Simulated};

use super::rig::{LIMIT, QUIET, Rig, Room, at, name, plug};

#[tokio::test]
async fn a_modem_that_is_not_there_is_told_and_used_when_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let mut room = Room::new(&name(folder.path()), folder.path(), QUIET, 4);
    room.until(|status| status.state == State::Absent && status.fault.is_some()).await;
    let refused = timeout(LIMIT, room.handle.send("+34666123456", "x")).await.expect("who asks does not wait");
    assert!(matches!(refused, Err(ModemError::Absent(_))), "{refused:?}");
    let plugged = plug(folder.path(), Simulated::new(Make::default()));
    room.until(|status| status.state == State::Ready).await;
    // Unplugged, and another one plugged in under the same name.
    std::fs::remove_file(name(folder.path())).unwrap();
    drop(plugged);
    let status = room.until(|status| status.state == State::Absent).await;
    assert_eq!((status.csq, status.registration, status.operator), (None, None, None));
    let plugged = plug(folder.path(), Simulated::new(Make::default()));
    room.until(|status| status.state == State::Ready).await;
    plugged.stick().deliver("+34666123456", "after", at());
    let said = plugged.stick().deliver("+34666123456", "more", at());
    plugged.say(said);
    assert_eq!(room.message().await.1, "after");
}

#[tokio::test]
async fn a_modem_that_hangs_delays_nobody_and_is_used_when_it_wakes() {
    let rig = Rig::new(Make { mute: true, ..Make::default() }, QUIET, 4);
    rig.room.until(|status| status.state == State::Silent).await;
    let refused = timeout(LIMIT, rig.room.handle.command("AT+CSQ")).await.expect("who asks does not wait");
    assert!(matches!(refused, Err(ModemError::Absent(_) | ModemError::Interrupted)), "{refused:?}");
    rig.plugged.stick().make.mute = false;
    rig.room.until(|status| status.state == State::Ready).await;
}

#[tokio::test]
async fn garbage_without_end_is_no_modem_until_it_ends() {
    let rig = Rig::new(Make { babbles: true, ..Make::default() }, QUIET, 4);
    rig.room.until(|status| status.state == State::Silent).await;
    rig.plugged.stick().make.babbles = false;
    rig.room.until(|status| status.state == State::Ready).await;
}

#[tokio::test]
async fn a_modem_that_is_silent_to_one_command_is_used_without_it() {
    let rig = Rig::ready(Make { mute_to: vec!["AT+CESQ".into()], ..Make::default() }, QUIET).await;
    let status = rig.room.handle.status().borrow().clone();
    assert_eq!((status.rsrp, status.csq), (None, Some(20)));
}

#[tokio::test]
async fn a_modem_that_started_by_itself_is_set_up_again() {
    let mut rig = Rig::ready(Make::default(), QUIET).await;
    let said = rig.plugged.stick().restart();
    rig.plugged.say(said);
    rig.room.until(|status| status.counters.starts == 2).await;
    rig.deliver("+34666123456", "announced again").await;
    assert_eq!(rig.room.message().await.1, "announced again");
}

#[tokio::test]
async fn a_modem_that_falls_silent_while_sending_ends_the_order() {
    let rig = Rig::ready(Make { mute_to: vec!["AT+CMGS".into()], ..Make::default() }, QUIET).await;
    let sent = timeout(LIMIT, rig.room.handle.send("+34666123456", "x")).await.expect("who asks does not wait");
    assert!(matches!(sent, Err(ModemError::Silent(_))), "{sent:?}");
    // It is used again.
    rig.room.until(|status| status.counters.starts == 2 && status.state == State::Ready).await;
}

#[tokio::test]
async fn a_modem_that_starts_anew_while_it_is_set_up_is_set_up_again() {
    // After its storage was chosen; what was set before is lost.
    let mut rig = Rig::new(Make { restarts_at: vec!["AT+CPMS=".into()], ..Make::default() }, QUIET, 4);
    rig.room.until(|status| status.state == State::Ready).await;
    rig.deliver("+34666123456", "announced").await;
    assert_eq!(rig.room.message().await.1, "announced");
    assert_eq!(rig.plugged.stick().restarts, 1);
}
