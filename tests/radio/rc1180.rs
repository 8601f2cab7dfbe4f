//! Radiocrafts' module: its memory is written only where it differs.

use weir::model::Rssi;
use weir::sim::rc1180_stick::Rc1180Stick;
use weir::sim::stick::plug;
use weir::wire::rc1180::Memory;

use super::Logged;
use super::sticks::{self, found, hear_all, stick, telegrams};

const RSSI: Option<Rssi> = Some(Rssi::Dbm(-90));

#[tokio::test(start_paused = true)]
async fn a_module_as_its_maker_sends_it_is_set_once_and_a_second_start_writes_nothing() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let first = (Rc1180Stick::new(), None, "RC1180-MBUS, address", [0x0C, 3, 1]);
    let first_s = (Rc1180Stick::new(), Some("S"), "RC1180-MBUS, address", [0x0B, 2, 0]);
    let third = (Rc1180Stick::third(), None, "RC1180-MBUS3, address", [1, 0, 10]);
    let third_c = (Rc1180Stick::third(), Some("C"), "RC1180-MBUS3, address", [1, 0, 9]);
    let mut start = 0;
    for (simulated, mode, who, memory) in [first, first_s, third, third_c] {
        let plugged = plug(simulated).unwrap();
        for _ in 0..2 {
            start += 1;
            let mut running = stick("rc1180", plugged.path(), mode, None);
            found(&logged, start, who).await;
            hear_all(&mut running, &plugged, &telegrams(3), 180, RSSI).await;
            // It starts again by itself, and goes on as before.
            plugged.restart();
            hear_all(&mut running, &plugged, &telegrams(5)[3..], 180, RSSI).await;
            sticks::end(running).await;
        }
        plugged.look(|stick| {
            assert_eq!(stick.writes, 1, "{who}");
            let set = [Memory::CHANNEL, Memory::RATE, Memory::MODE].map(|address| stick.memory.at(address));
            assert_eq!(set, memory, "{who} {mode:?}");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_telegram_that_comes_before_the_dialogue_is_heard_as_the_memory_was() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    for (start, rssi) in [0, 1].into_iter().enumerate() {
        let mut simulated = Rc1180Stick::new();
        simulated.memory.set(Memory::RSSI, rssi);
        let telegram = telegrams(1).remove(0);
        simulated.last = Some((telegram.clone(), 180));
        let plugged = plug(simulated).unwrap();
        let mut running = stick("rc1180", plugged.path(), None, None);
        found(&logged, start + 1, "RC1180-MBUS").await;
        let heard = running.telegram().await.1;
        assert_eq!((heard.bytes, heard.rssi), (telegram, RSSI.filter(|_| rssi == 1)));
        sticks::end(running).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_module_that_missed_the_first_byte_or_is_in_configuration_already_is_found() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let mut deaf = Rc1180Stick::new();
    deaf.deaf = 2;
    let mut left = Rc1180Stick::new();
    weir::sim::stick::Stick::take(&mut left, &[0]);
    for (start, simulated) in [deaf, left].into_iter().enumerate() {
        let plugged = plug(simulated).unwrap();
        let mut running = stick("rc1180", plugged.path(), None, None);
        found(&logged, start + 1, "RC1180-MBUS").await;
        hear_all(&mut running, &plugged, &telegrams(2), 180, RSSI).await;
        sticks::end(running).await;
    }
}

#[tokio::test(start_paused = true)]
async fn noise_and_cut_telegrams_cost_no_telegram_behind_a_silence() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let plugged = plug(Rc1180Stick::new()).unwrap();
    let mut running = stick("rc1180", plugged.path(), None, None);
    found(&logged, 1, "RC1180-MBUS").await;
    let mut skipped = 0;
    for (count, telegram) in telegrams(4).into_iter().enumerate() {
        // The second could be the beginning of a telegram, and only a silence tells that it is none.
        let noise = [&b"\x99\x9A\x9B"[..], b"\x50\x44\x2D"][count % 2];
        plugged.say(noise);
        skipped += noise.len() as u64;
        running.status(|s| s.skipped_bytes == skipped).await;
        hear_all(&mut running, &plugged, &[telegram], 180, RSSI).await;
    }
    sticks::end(running).await;
}

#[tokio::test(start_paused = true)]
async fn a_mode_that_the_module_has_not_and_what_is_no_module_are_told_in_one_sentence() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let plugged = plug(Rc1180Stick::new()).unwrap();
    let running = stick("rc1180", plugged.path(), Some("C+T"), None);
    running.status(|s| s.failures == 1).await;
    assert_eq!(logged.lines_with("hears modes T and S only, not C+T"), 1);
    // It listens again all the same.
    plugged.hears(&telegrams(1)[0], 0);
    assert_eq!(plugged.look(|stick| (stick.writes, stick.missed)), (0, 0));
    sticks::end(running).await;
    let other = plug(weir::sim::cul_stick::CulStick::new()).unwrap();
    let running = stick("rc1180", other.path(), None, None);
    running.status(|s| s.failures == 1).await;
    assert_eq!(logged.lines_with("as an RC1180 does"), 1);
    sticks::end(running).await;
}

#[tokio::test(start_paused = true)]
async fn a_module_that_is_pulled_and_plugged_in_again_is_heard_again() {
    crate::pace::hold();
    sticks::replug("rc1180", Rc1180Stick::new(), 180, RSSI).await;
}

#[tokio::test(start_paused = true)]
async fn every_real_telegram_arrives_byte_for_byte() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let plugged = plug(Rc1180Stick::third()).unwrap();
    let mut running = stick("rc1180", plugged.path(), None, None);
    found(&logged, 1, "RC1180-MBUS3").await;
    hear_all(&mut running, &plugged, &sticks::corpus(), 180, RSSI).await;
    assert_eq!(running.health.status().damaged, 0);
    sticks::end(running).await;
}
