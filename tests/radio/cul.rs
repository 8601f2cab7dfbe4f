//! A stick with culfw: every CRC is checked here, and what is cut is counted.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;
use weir::model::{Rssi, TelegramKind};
use weir::radio::{RadioSettings, Rules};
use weir::sim::cul_stick::CulStick;
use weir::sim::stick::{Radio, plug};
use weir::wire::wmbus::format::{self, FrameFormat};

use super::sticks::{self, found, hear_all, stick, telegrams};
use super::{LIMIT, Logged, settings, start_by};

async fn within(what: impl Future<Output = ()>) {
    timeout(LIMIT, what).await.expect("the stick within the limit");
}

#[tokio::test(start_paused = true)]
async fn a_stick_is_told_its_mode_and_to_report_strength() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    for (start, (mode, letter)) in
        [(None, 'c'), (Some("C"), 'c'), (Some("T"), 't'), (Some("S"), 's')].iter().enumerate()
    {
        let plugged = plug(CulStick::new()).unwrap();
        let mut running = stick("cul", plugged.path(), *mode, None);
        let who = format!("CUL, V 1.67 nanoCUL868, mode {}", mode.unwrap_or("C+T"));
        found(&logged, start + 1, &who).await;
        sticks::ready(&logged, &plugged).await;
        assert_eq!(plugged.look(|stick| (stick.mode, stick.report)), (Some(*letter), 0x21));
        hear_all(&mut running, &plugged, &telegrams(3), 0xD0, Some(Rssi::Dbm(-98))).await;
        sticks::end(running).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stick_that_restarts_by_itself_is_told_everything_again_over_the_same_line() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    for greets in [true, false] {
        let mut simulated = CulStick::new();
        simulated.greets = greets;
        let plugged = plug(simulated).unwrap();
        let device = Some(plugged.path().to_string_lossy().into_owned());
        let settings = RadioSettings { baud: None, ..settings("cul", device, None) };
        // One that greets is not waited for; the other is told again after a silence.
        let retell = Duration::from_millis(if greets { 3_600_000 } else { 300 });
        let mut running = start_by(settings, 16, Rules { retell, ..Rules::default() }, Path::new("/sys"));
        within(plugged.until(|stick| stick.report == 0x21)).await;
        for telegram in telegrams(3) {
            hear_all(&mut running, &plugged, &[telegram], 0xD0, Some(Rssi::Dbm(-98))).await;
            let greeting = plugged.look(CulStick::restart);
            plugged.say(greeting);
            within(plugged.until(|stick| (stick.mode, stick.report) == (Some('c'), 0x21))).await;
        }
        let status = running.health.status();
        assert_eq!((status.opened, status.failures, status.heard), (1, 0, 3), "{greets}");
        sticks::end(running).await;
    }
    assert_eq!(logged.lines_with("restarted by itself"), 1, "of the one that says so, once");
    assert_eq!(logged.lines_with("WARN"), 1);
}

#[tokio::test(start_paused = true)]
async fn old_firmware_without_mode_c_hears_mode_t_unless_c_was_asked_for() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let mut old = CulStick::new();
    (old.has_c, old.version) = (false, "V 1.61 CUL868".to_owned());
    let plugged = plug(old).unwrap();
    let running = stick("cul", plugged.path(), None, None);
    found(&logged, 1, "CUL, V 1.61 CUL868, mode T").await;
    sticks::end(running).await;
    let running = stick("cul", plugged.path(), Some("C+T"), None);
    running.status(|s| s.failures == 1).await;
    assert_eq!(logged.lines_with("no mode C+T; put culfw r571 or newer on it"), 1);
    sticks::end(running).await;
}

#[tokio::test(start_paused = true)]
async fn telegrams_that_come_during_the_dialogue_are_heard() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let mut simulated = CulStick::new();
    // Another program had told it before.
    (simulated.mode, simulated.report) = (Some('t'), 0x01);
    let telegrams = telegrams(2);
    simulated.meanwhile = telegrams.iter().map(|telegram| (telegram.clone(), 0)).collect();
    let plugged = plug(simulated).unwrap();
    let mut running = stick("cul", plugged.path(), None, None);
    found(&logged, 1, "CUL").await;
    for telegram in &telegrams {
        let heard = running.telegram().await.1;
        assert_eq!((&heard.bytes, heard.rssi), (telegram, None));
    }
    sticks::end(running).await;
}

#[tokio::test(start_paused = true)]
async fn telegrams_that_the_firmwares_buffer_cuts_are_counted_and_the_next_is_heard() {
    crate::pace::hold();
    for (limit, odd) in [(110, false), (110, true), (148, false), (148, true)] {
        let (logged, _guard) = Logged::start();
        let mut simulated = CulStick::new();
        (simulated.limit, simulated.cuts_odd) = (Some(limit), odd);
        let plugged = plug(simulated).unwrap();
        let mut running = stick("cul", plugged.path(), None, None);
        sticks::ready(&logged, &plugged).await;
        let mut long = vec![200, 0x44];
        long.extend((0..199u8).map(|n| n ^ 0x5A));
        plugged.hears(&long, 0xD0);
        plugged.say(b"LOVF\r\n\xFF\x00");
        hear_all(&mut running, &plugged, &telegrams(1), 0xD0, Some(Rssi::Dbm(-98))).await;
        let status = running.health.status();
        assert_eq!((status.damaged, status.noise, status.heard), (1, 1, 1), "{limit} {odd}");
        sticks::end(running).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_flipped_bit_in_a_frame_of_either_format_is_refused() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let plugged = plug(CulStick::new()).unwrap();
    let mut running = stick("cul", plugged.path(), None, None);
    sticks::ready(&logged, &plugged).await;
    let telegrams = telegrams(2);
    let mut flipped = 0;
    for (format, start) in [(FrameFormat::A, "b"), (FrameFormat::B, "bY")] {
        let mut frame = Vec::new();
        format::encode(format, &telegrams[0], &mut frame).unwrap();
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            plugged.say(format!("{start}{}\r\n", data_encoding::HEXUPPER.encode(&frame)).as_bytes());
            frame[bit / 8] ^= 1 << (bit % 8);
            flipped += 1;
        }
    }
    hear_all(&mut running, &plugged, &telegrams[1..], 0xD0, Some(Rssi::Dbm(-98))).await;
    let status = running.health.status();
    assert_eq!((status.damaged, status.heard, status.noise), (flipped, 1, 0));
    sticks::end(running).await;
}

#[tokio::test(start_paused = true)]
async fn every_real_telegram_in_frames_of_either_format_arrives_byte_for_byte() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let plugged = plug(CulStick::new()).unwrap();
    let mut running = stick("cul", plugged.path(), None, None);
    sticks::ready(&logged, &plugged).await;
    for (count, telegram) in sticks::corpus().iter().enumerate() {
        let format = if count % 2 == 0 { FrameFormat::A } else { FrameFormat::B };
        plugged.look(|stick| stick.format = format);
        plugged.hears(telegram, 0x81);
        let heard = running.telegram().await.1;
        assert_eq!((heard.kind, &heard.bytes), (TelegramKind::WirelessMbus, telegram));
        assert_eq!(heard.rssi, Some(Rssi::Dbm(-137)));
    }
    assert_eq!(running.health.status().damaged, 0);
    sticks::end(running).await;
}

#[tokio::test(start_paused = true)]
async fn another_speed_and_another_kind_are_told_in_one_sentence() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let plugged = plug(CulStick::new()).unwrap();
    let running = stick("cul", plugged.path(), None, Some(9600));
    running.status(|s| s.failures == 1).await;
    assert_eq!(logged.lines_with("talks at 38400 baud; write baud = 38400"), 1);
    sticks::end(running).await;
    let other = plug(weir::sim::amber_stick::AmberStick::new()).unwrap();
    let running = stick("cul", other.path(), None, None);
    running.status(|s| s.failures == 1).await;
    assert_eq!(logged.lines_with("nothing answers as culfw does"), 1);
    sticks::end(running).await;
}

#[tokio::test(start_paused = true)]
async fn a_stick_that_is_pulled_and_plugged_in_again_is_told_everything_again() {
    crate::pace::hold();
    sticks::replug("cul", CulStick::new(), 0xD0, Some(Rssi::Dbm(-98))).await;
}
