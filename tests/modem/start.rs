//! How a modem is started: its state, its PIN.

use weir::modem::State;
use weir::sim::modem::{Make, Modem as Simulated};

use super::rig::{QUIET, Rig, Room, name, plug};

#[tokio::test]
async fn the_state_of_a_modem_is_told_whole() {
    let rig = Rig::ready(Make { registration: 5, ..Make::default() }, QUIET).await;
    let status = rig.room.until(|status| status.operator.is_some()).await;
    assert_eq!((status.state, status.fault.clone(), status.by), (State::Ready, None, "weir"));
    assert_eq!((status.maker.as_deref(), status.model.as_deref()), (Some("weir"), Some("SIM-1")));
    assert_eq!(status.imei.as_deref(), Some("356938035643809"));
    assert_eq!(status.iccid.as_deref(), Some("8934071100123456789"));
    assert_eq!((status.csq, status.rssi, status.rsrp, status.rsrq), (Some(20), Some(-73), Some(-95), Some(-10)));
    assert_eq!((status.registration, status.technology), (Some("roaming"), Some("4g")));
    assert_eq!((status.operator.as_deref(), status.is_registered()), (Some("Movistar"), Some(true)));
    assert_eq!((status.area.as_deref(), status.cell.as_deref()), (Some("00C3"), Some("0001A2B3")));
    assert_eq!((status.sim.as_deref(), status.storage), (Some("ready"), Some((0, 20))));
}

#[tokio::test]
async fn the_state_follows_the_modem() {
    let rig = Rig::ready(Make::default(), "manager = 'none'\nstatus_every = '1s'").await;
    rig.plugged.stick().make.csq = 99;
    rig.room.until(|status| status.csq.is_none() && status.rssi.is_none()).await;
    rig.plugged.stick().make.registration = 2;
    rig.room.until(|status| status.registration == Some("searching")).await;
}

fn with_pin(folder: &std::path::Path, pin: &str) -> String {
    let file = folder.join("pin");
    std::fs::write(&file, format!("{pin}\n")).unwrap();
    format!("{QUIET}pin_file = '{}'", file.display())
}

#[tokio::test]
async fn the_sim_gets_its_pin() {
    let folder = tempfile::tempdir().unwrap();
    let plugged = plug(folder.path(), Simulated::new(Make { pin: Some("4711".into()), ..Make::default() }));
    let room = Room::new(&name(folder.path()), folder.path(), &with_pin(folder.path(), "4711"), 4);
    room.until(|status| status.state == State::Ready).await;
    assert_eq!(plugged.stick().pins_shown, 1);
}

#[tokio::test]
async fn a_wrong_pin_is_shown_once_however_often_weir_starts() {
    let folder = tempfile::tempdir().unwrap();
    let plugged = plug(folder.path(), Simulated::new(Make { pin: Some("4711".into()), ..Make::default() }));
    let more = with_pin(folder.path(), "0000");
    for start in 0..4 {
        let room = Room::new(&name(folder.path()), folder.path(), &more, 4);
        let status = room.until(|status| status.state == State::Locked).await;
        assert!(status.fault.clone().unwrap().contains("refused the PIN"), "{status:?}");
        assert!(!format!("{status:?}").contains("0000"), "a PIN must not be told");
        assert_eq!(plugged.stick().pins_shown, 1, "start {start}");
        room.end().await;
    }
    // The operator corrects it.
    let room = Room::new(&name(folder.path()), folder.path(), &with_pin(folder.path(), "4711"), 4);
    room.until(|status| status.state == State::Ready).await;
    assert_eq!(plugged.stick().pins_shown, 2);
}

#[tokio::test]
async fn a_sim_that_wants_its_puk_is_told_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let plugged = plug(folder.path(), Simulated::new(Make { pin: Some("4711".into()), ..Make::default() }));
    for wrong in ["0001", "0002", "0003"] {
        let room = Room::new(&name(folder.path()), folder.path(), &with_pin(folder.path(), wrong), 4);
        room.until(|status| status.state == State::Locked).await;
        room.end().await;
    }
    let room = Room::new(&name(folder.path()), folder.path(), &with_pin(folder.path(), "4711"), 4);
    let status = room.until(|status| status.state == State::Locked).await;
    assert!(status.fault.unwrap().contains("PUK"));
    assert_eq!((status.sim.as_deref(), plugged.stick().pins_shown), (Some("puk"), 3));
    // What a person asks is still passed on.
    assert_eq!(room.handle.command("AT+CPIN?").await.unwrap(), ["+CPIN: SIM PUK", "OK"]);
    let error = room.handle.send("+34666123456", "x").await.unwrap_err();
    assert!(error.to_string().contains("PUK"), "{error}");
}

#[tokio::test]
async fn a_modem_without_a_sim_says_so() {
    let rig = Rig::new(Make { sim: false, ..Make::default() }, QUIET, 4);
    let status = rig.room.until(|status| status.state == State::Locked).await;
    assert!(status.fault.unwrap().contains("no SIM"), "{:?}", status.sim);
}

async fn locked(folder: &std::path::Path, more: &str) -> String {
    let room = Room::new(&name(folder), folder, more, 4);
    let status = room.until(|status| status.state == State::Locked).await;
    room.end().await;
    status.fault.unwrap()
}

#[tokio::test]
async fn a_pin_that_the_sim_may_have_counted_is_not_shown_again_and_one_it_did_not_look_at_is() {
    for (code, shown, told) in
        [(13, 1, "may have"), (15, 1, "may have"), (10, 5, "did not look"), (14, 5, "did not look")]
    {
        let folder = tempfile::tempdir().unwrap();
        let make = Make { pin: Some("4711".into()), pin_fault: Some(code), ..Make::default() };
        let plugged = plug(folder.path(), Simulated::new(make));
        let more = with_pin(folder.path(), "4711");
        for _ in 0..5 {
            let why = locked(folder.path(), &more).await;
            assert!(why.contains(told), "CME ERROR {code}: {why}");
        }
        assert_eq!(plugged.stick().pins_shown, shown, "CME ERROR {code}");
        if shown > 1 {
            plugged.stick().make.pin_fault = None;
            let room = Room::new(&name(folder.path()), folder.path(), &more, 4);
            room.until(|status| status.state == State::Ready).await;
        }
    }
}

#[tokio::test]
async fn a_pin_whose_answer_never_came_is_not_shown_again_but_one_that_this_sim_took_before_is() {
    let folder = tempfile::tempdir().unwrap();
    let plugged = plug(folder.path(), Simulated::new(Make { pin: Some("4711".into()), ..Make::default() }));
    let more = with_pin(folder.path(), "4711");
    let room = Room::new(&name(folder.path()), folder.path(), &more, 4);
    room.until(|status| status.state == State::Ready).await;
    room.end().await;
    // Without power for a moment; the SIM hears nothing of its PIN.
    plugged.stick().restart();
    plugged.stick().make.mute_to = vec!["AT+CPIN=".into()];
    assert!(locked(folder.path(), &more).await.contains("no clear answer"));
    plugged.stick().make.mute_to.clear();
    let room = Room::new(&name(folder.path()), folder.path(), &more, 4);
    room.until(|status| status.state == State::Ready).await;
    room.end().await;
    // Another PIN, never taken by anybody.
    plugged.stick().restart();
    plugged.stick().make.mute_to = vec!["AT+CPIN=".into()];
    let more = with_pin(folder.path(), "0815");
    let before = plugged.stick().asked.iter().filter(|asked| asked.starts_with("AT+CPIN=")).count();
    for _ in 0..3 {
        locked(folder.path(), &more).await;
    }
    let after = plugged.stick().asked.iter().filter(|asked| asked.starts_with("AT+CPIN=")).count();
    assert_eq!(after - before, 1);
}
