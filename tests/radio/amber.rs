//! AMBER's stick: its memory is written only where it differs, and nothing is lost meanwhile.

use weir::model::Rssi;
use weir::sim::amber_stick::AmberStick;
use weir::sim::stick::{Plugged, plug};
use weir::wire::amber::Parameters;

use super::sticks::{self, hear_all, stick, telegrams};
use super::{Logged, Running};

fn configured() -> AmberStick {
    let mut stick = AmberStick::new();
    for (address, value) in [(Parameters::FRAMED, 1), (Parameters::RSSI, 1), (Parameters::MODE, 9)] {
        stick.set(address, value);
    }
    weir::sim::stick::Radio::restart(&mut stick);
    stick
}

fn listen(plugged: &Plugged<AmberStick>, mode: Option<&str>) -> Running {
    stick("amb8465", plugged.path(), mode, None)
}

#[tokio::test(start_paused = true)]
async fn a_stick_as_its_maker_sends_it_is_set_once_and_a_second_start_writes_nothing() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let mut plugged = plug(AmberStick::new()).unwrap();
    for start in 1..=2 {
        let mut running = listen(&plugged, None);
        sticks::found(&logged, start, "AMB8465-M, AMB8665 or Metis, serial 1600213c, firmware 2.7.1").await;
        hear_all(&mut running, &plugged, &telegrams(3), 0xD0, Some(Rssi::Dbm(-98))).await;
        assert_eq!(plugged.look(|stick| (stick.writes, stick.resets, stick.mode)), (3, 1, 9), "start {start}");
        sticks::end(running).await;
    }
    // The mode is kept too: after a moment without power it still listens.
    plugged.restart();
    let mut running = listen(&plugged, None);
    sticks::found(&logged, 3, "AMB8465-M").await;
    plugged.restart();
    hear_all(&mut running, &plugged, &telegrams(2), 0x10, Some(Rssi::Dbm(-66))).await;
    assert_eq!(plugged.look(|stick| (stick.writes, stick.resets, stick.mode)), (3, 1, 9));
    sticks::end(running).await;
    // Another mode is one write more.
    let running = listen(&plugged, Some("S"));
    sticks::found(&logged, 4, "AMB8465-M").await;
    assert_eq!(plugged.look(|stick| (stick.writes, stick.resets, stick.mode)), (4, 2, 3));
    sticks::end(running).await;
    plugged = plug(plugged.unplug().await.unwrap()).unwrap();
    drop(plugged);
}

#[tokio::test(start_paused = true)]
async fn telegrams_of_every_form_that_come_during_the_dialogue_are_heard() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    for (start, (framed, rssi)) in [(0, 0), (0, 1), (1, 0), (1, 1)].into_iter().enumerate() {
        let mut simulated = AmberStick::new();
        simulated.set(Parameters::FRAMED, framed);
        simulated.set(Parameters::RSSI, rssi);
        weir::sim::stick::Radio::restart(&mut simulated);
        let telegrams = telegrams(12);
        simulated.meanwhile = telegrams.iter().map(|telegram| (telegram.clone(), 0xD0)).collect();
        let plugged = plug(simulated).unwrap();
        let mut running = listen(&plugged, None);
        sticks::found(&logged, start + 1, "AMB8465-M").await;
        // One before each answer; those before the reset are of the old form, the others of the new one.
        let told = telegrams.len() - plugged.look(|stick| stick.meanwhile.len());
        let written = 3 - usize::from(framed) - usize::from(rssi);
        assert_eq!(told, 3 + written + 3, "parameters, serial, firmware; writes; reset, parameters, mode");
        for (count, telegram) in telegrams[..told].iter().enumerate() {
            let heard = running.telegram().await.1;
            let strength = (rssi == 1 || count > 3 + written).then_some(Rssi::Dbm(-98));
            assert_eq!((&heard.bytes, heard.rssi), (telegram, strength), "{framed} {rssi} {count}");
        }
        let status = running.health.status();
        assert_eq!((status.damaged, status.skipped_bytes), (0, 0));
        sticks::end(running).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stick_whose_memory_is_worn_is_heard_as_it_is_and_not_reset_again() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let mut worn = AmberStick::new();
    worn.worn = true;
    let plugged = plug(worn).unwrap();
    let mut running = listen(&plugged, None);
    sticks::found(&logged, 1, "AMB8465-M").await;
    // Bare telegrams without strength, one behind another.
    hear_all(&mut running, &plugged, &telegrams(5), 0, None).await;
    assert_eq!(plugged.look(|stick| (stick.resets, stick.mode)), (1, 9));
    assert_eq!(logged.lines_with("does not keep its parameters"), 1);
    sticks::end(running).await;
}

#[tokio::test(start_paused = true)]
async fn a_stick_that_does_not_hear_every_command_is_asked_again_without_a_reset() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let mut deaf = configured();
    deaf.deaf = 2;
    let plugged = plug(deaf).unwrap();
    let mut running = listen(&plugged, None);
    sticks::found(&logged, 1, "serial 1600213c").await;
    hear_all(&mut running, &plugged, &telegrams(2), 0xD0, Some(Rssi::Dbm(-98))).await;
    assert_eq!(plugged.look(|stick| (stick.writes, stick.resets)), (0, 0));
    sticks::end(running).await;
}

#[tokio::test(start_paused = true)]
async fn noise_and_cut_telegrams_cost_no_telegram_behind_them() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let plugged = plug(configured()).unwrap();
    let mut running = listen(&plugged, None);
    sticks::found(&logged, 1, "AMB8465-M").await;
    for (count, telegram) in telegrams(6).into_iter().enumerate() {
        plugged.say([&b"\xFF\x03"[..], b"\x00\xFF\xFF\x03\x40\x44", b"noise"][count % 3]);
        hear_all(&mut running, &plugged, &[telegram], 0xD0, Some(Rssi::Dbm(-98))).await;
    }
    sticks::end(running).await;
}

#[tokio::test(start_paused = true)]
async fn a_stick_for_169_mhz_keeps_its_mode_and_another_one_is_refused_in_one_sentence() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let plugged = plug(AmberStick::for_169()).unwrap();
    let mut running = listen(&plugged, Some("N"));
    sticks::found(&logged, 1, "AMB3665, serial").await;
    hear_all(&mut running, &plugged, &telegrams(2), 0xD0, Some(Rssi::Dbm(-98))).await;
    assert_eq!(plugged.look(|stick| (stick.writes, stick.mode)), (2, 3));
    sticks::end(running).await;
    let running = listen(&plugged, Some("T"));
    running.status(|s| s.failures == 1).await;
    assert_eq!(logged.lines_with("hears no mode T; write mode = "), 1);
    sticks::end(running).await;
}

#[tokio::test(start_paused = true)]
async fn another_speed_and_another_kind_are_told_in_one_sentence() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let plugged = plug(configured()).unwrap();
    let running = stick("amb8465", plugged.path(), None, Some(57_600));
    running.status(|s| s.failures == 1).await;
    assert_eq!(logged.lines_with("the stick is set to 9600 baud; write baud = 9600"), 1);
    sticks::end(running).await;
    let other = plug(weir::sim::cul_stick::CulStick::new()).unwrap();
    let running = stick("amb8465", other.path(), None, None);
    running.status(|s| s.failures == 1).await;
    assert_eq!(logged.lines_with("not as an AMBER or Metis stick does") + logged.lines_with("nothing answers as"), 1);
    assert_eq!(plugged.look(|stick| (stick.writes, stick.resets)), (0, 0));
    sticks::end(running).await;
}

#[tokio::test(start_paused = true)]
async fn a_stick_that_is_pulled_and_plugged_in_again_is_heard_again() {
    crate::pace::hold();
    sticks::replug("amb8465", configured(), 0xD0, Some(Rssi::Dbm(-98))).await;
}

#[tokio::test(start_paused = true)]
async fn every_real_telegram_arrives_byte_for_byte() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let plugged = plug(configured()).unwrap();
    let mut running = listen(&plugged, None);
    sticks::found(&logged, 1, "AMB8465-M").await;
    hear_all(&mut running, &plugged, &sticks::corpus(), 0xB2, Some(Rssi::Dbm(-113))).await;
    assert_eq!(running.health.status().damaged, 0);
    sticks::end(running).await;
}
