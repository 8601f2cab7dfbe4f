//! A modem that ModemManager owns: its port is never opened. A script stands in for mmcli, in mmcli's words.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use weir::modem::{Incoming, ModemError, Sent, State};
use weir::sim::modem::{Make, Modem as Simulated};

use super::rig::{QUIET, Room, name, plug};

/// ModemManager as the script has it.
struct Managed {
    folder: tempfile::TempDir,
}

impl Managed {
    fn new(port: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let managed = Self { folder };
        let state = json!({ "running": true, "locked": false, "pin": "4711", "pins": [], "debug": true, "port": port,
            "sms": {}, "calls": {}, "sent": [], "refuse": [], "asked": [] });
        fs::write(managed.state_file(), state.to_string()).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/mmcli.py");
        let text = format!("#!/bin/sh\nexec python3 {} {} \"$@\"\n", script.display(), managed.state_file().display());
        fs::write(managed.program(), text).unwrap();
        fs::set_permissions(managed.program(), fs::Permissions::from_mode(0o755)).unwrap();
        managed
    }

    fn state_file(&self) -> PathBuf {
        self.folder.path().join("state.json")
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("mmcli")
    }

    /// The script holds the file's lock while it changes it.
    fn locked<T>(&self, work: impl FnOnce(&mut Json) -> T) -> T {
        let file = fs::File::options().read(true).write(true).open(self.state_file()).unwrap();
        file.lock().unwrap();
        let mut state: Json = serde_json::from_str(&fs::read_to_string(self.state_file()).unwrap()).unwrap();
        let told = work(&mut state);
        fs::write(self.state_file(), state.to_string()).unwrap();
        told
    }

    fn room(&self, manager: &str, more: &str) -> Room {
        let more = format!(
            "manager = '{manager}'\nmmcli = '{}'\nmessages_every = '3s'\nsend_pause = '1s'\n{more}",
            self.program().display()
        );
        Room::new(&name(self.folder.path()), self.folder.path(), &more, 16)
    }

    fn asked(&self, option: &str) -> usize {
        let count = |state: &mut Json| {
            let calls = state["asked"].as_array().unwrap().clone();
            calls.iter().filter(|call| call.as_array().unwrap().iter().any(|o| o == option)).count()
        };
        self.locked(count)
    }
}

#[tokio::test]
async fn state_messages_and_calls_come_from_modemmanager() {
    let managed = Managed::new("ttyMODEM");
    let mut room = managed.room("modemmanager", "");
    let status = room.until(|status| status.state == State::Ready && status.registration.is_some()).await;
    assert_eq!((status.by, status.model.as_deref()), ("modemmanager", Some("EC25")));
    assert_eq!((status.csq, status.rssi, status.rsrp), (Some(23), Some(-67), Some(-95)));
    assert_eq!((status.operator.as_deref(), status.technology), (Some("Movistar"), Some("4g")));
    assert_eq!((status.area.as_deref(), status.cell.as_deref()), (Some("00C3"), Some("0001A2B3")));
    assert_eq!(
        (status.imei.as_deref(), status.iccid.as_deref()),
        (Some("356938035643809"), Some("8934071100123456789"))
    );
    managed.locked(|state| {
        let sms = json!({ "number": "+34666123456", "text": "it's \"жизнь\"", "state": "received", "timestamp": "2026-11-22T16:00:00+01" });
        state["sms"]["/org/freedesktop/ModemManager1/SMS/1"] = sms;
        state["sms"]["/org/freedesktop/ModemManager1/SMS/2"] = json!({ "number": "+34", "text": "half", "state": "receiving" });
    });
    let expected =
        Incoming::Sms { from: "+34666123456".into(), text: "it's \"жизнь\"".into(), at: super::rig::at() };
    assert_eq!(room.next().await, expected);
    managed.locked(|state| {
        state["calls"]["/org/freedesktop/ModemManager1/Call/1"] =
            json!({ "number": "+34600000001", "state": "ringing-in" });
    });
    assert!(matches!(room.next().await, Incoming::Call { from: Some(from), .. } if from == "+34600000001"));
    room.until(|status| status.counters.received == 1 && status.counters.calls == 1).await;
    let sent = room.handle.send("+34666123456", "reply, with 'quotes' = 1").await;
    assert_eq!(sent, Ok(Sent::Accepted { parts: 1 }));
    managed.locked(|state| {
        assert_eq!(state["sent"][0]["text"], "reply, with 'quotes' = 1");
        assert_eq!(state["sent"][0]["number"], "+34666123456");
        // What was handed over and what was sent is gone, what is not whole stays.
        assert_eq!(
            state["sms"].as_object().unwrap().keys().collect::<Vec<_>>(),
            ["/org/freedesktop/ModemManager1/SMS/2"]
        );
        assert_eq!(state["calls"], json!({}));
    });
    assert!(room.incoming.try_recv().is_err());
}

#[tokio::test]
async fn orders_go_through_modemmanager_and_its_refusals_are_told() {
    let managed = Managed::new("ttyMODEM");
    let room = managed.room("modemmanager", "");
    room.until(|status| status.state == State::Ready).await;
    assert_eq!(room.handle.command("AT+CSQ").await.unwrap(), ["+CSQ: 20,99", "OK"]);
    managed.locked(|state| state["debug"] = json!(false));
    let refused = room.handle.command("AT+CSQ").await.unwrap_err();
    assert!(matches!(&refused, ModemError::Refused { reason, .. } if reason.contains("debug mode")), "{refused}");
    room.handle.reregister().await.unwrap();
    room.handle.reset().await.unwrap();
    assert_eq!((managed.asked("--3gpp-register-home"), managed.asked("--reset")), (1, 1));
    managed.locked(|state| state["refuse"] = json!(["couldn't send the SMS: busy"]));
    assert_eq!(room.handle.send("+34666123456", "x").await, Ok(Sent::Accepted { parts: 1 }));
    managed.locked(|state| state["refuse"] = json!(["no", "no", "couldn't send the SMS: network"]));
    let refused = Sent::Refused { parts: 0, reason: "couldn't send the SMS: network".into() };
    assert_eq!(room.handle.send("+34666123456", "x").await, Ok(refused));
    assert_eq!(room.handle.send("+34666123456", "both ' and \"").await, Err(ModemError::Quotes));
}

#[tokio::test]
async fn the_port_is_left_alone_when_modemmanager_has_it_and_used_when_it_has_not() {
    for (port, by) in [("ttyMODEM", "modemmanager"), ("ttyUSB9", "weir")] {
        let managed = Managed::new("");
        // ModemManager tells the kernel's name; the settings name a link to it.
        let plugged = plug(managed.folder.path(), Simulated::new(Make::default()));
        let real = plugged.path().file_name().unwrap().to_string_lossy().into_owned();
        managed.locked(|state| state["port"] = json!(if port == "ttyMODEM" { &real } else { port }));
        let room = managed.room("auto", "manager_wait = '3s'");
        let status = room.until(|status| status.state == State::Ready && status.registration.is_some()).await;
        assert_eq!(status.by, by);
        assert_eq!(plugged.stick().asked.is_empty(), by == "modemmanager");
    }
}

#[tokio::test]
async fn the_port_is_not_opened_while_modemmanager_may_still_be_looking_at_it() {
    let managed = Managed::new("");
    let plugged = plug(managed.folder.path(), Simulated::new(Make::default()));
    let real = plugged.path().file_name().unwrap().to_string_lossy().into_owned();
    let room = managed.room("auto", "manager_wait = '1h'");
    room.until(|status| status.fault.as_ref().is_some_and(|fault| fault.contains("still be looking"))).await;
    managed.locked(|state| state["port"] = json!(real));
    let status = room.until(|status| status.state == State::Ready).await;
    assert_eq!((status.by, plugged.stick().asked.len()), ("modemmanager", 0));
}

#[tokio::test]
async fn without_modemmanager_the_port_is_opened() {
    let managed = Managed::new("ttyMODEM");
    managed.locked(|state| state["running"] = json!(false));
    let plugged = plug(managed.folder.path(), Simulated::new(Make::default()));
    let room = managed.room("auto", "");
    room.until(|status| status.state == State::Ready).await;
    assert!(plugged.stick().was_asked("AT+CSQ") || plugged.stick().was_asked("AT+CGMI"));
    // There is no such tool at all.
    let folder = tempfile::tempdir().unwrap();
    let _plugged = plug(folder.path(), Simulated::new(Make::default()));
    let quiet = QUIET.replace("manager = 'none'", "manager = 'auto'\nmmcli = '/nowhere/mmcli'");
    let room = Room::new(&name(folder.path()), folder.path(), &quiet, 4);
    room.until(|status| status.state == State::Ready).await;
}

#[tokio::test]
async fn a_sim_that_is_too_busy_for_its_pin_gets_it_again_through_modemmanager() {
    let managed = Managed::new("ttyMODEM");
    managed.locked(|state| (state["locked"], state["busy"]) = (json!(true), json!(2)));
    let file = managed.folder.path().join("pin");
    fs::write(&file, "4711").unwrap();
    let room = managed.room("modemmanager", &format!("pin_file = '{}'", file.display()));
    room.until(|status| status.state == State::Ready).await;
    managed.locked(|state| assert_eq!(state["pins"], json!(["4711", "4711", "4711"])));
}

#[tokio::test]
async fn a_wrong_pin_is_given_to_modemmanager_once() {
    let managed = Managed::new("ttyMODEM");
    managed.locked(|state| state["locked"] = json!(true));
    let file = managed.folder.path().join("pin");
    fs::write(&file, "0000").unwrap();
    for _ in 0..3 {
        let room = managed.room("modemmanager", &format!("pin_file = '{}'", file.display()));
        room.until(|status| status.fault.as_ref().is_some_and(|fault| fault.contains("refused the PIN"))).await;
        room.end().await;
    }
    managed.locked(|state| assert_eq!(state["pins"], json!(["0000"])));
    fs::write(&file, "4711").unwrap();
    let room = managed.room("modemmanager", &format!("pin_file = '{}'", file.display()));
    room.until(|status| status.state == State::Ready).await;
}
