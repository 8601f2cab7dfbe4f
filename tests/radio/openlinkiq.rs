//! A front end that gives what follows the sync word: the published examples, wrong bits, noise, over both kinds of line.

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, MissedTickBehavior, interval};
use weir::sim::openlinkiq::FrontEnd;
use weir::wire::openlinkiq::{Rate, encode};
use weir::wire::openlinkiq_line::Time;

use super::*;

/// The four published examples: the frame after the sync word and its MBAL frame.
fn examples() -> Vec<(Vec<u8>, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/openlinkiq-rf");
    let mut found = Vec::new();
    for case in std::fs::read_dir(folder).unwrap() {
        let case = case.unwrap().path();
        let hex = std::fs::read_to_string(case.join("input.hex")).unwrap();
        let frame = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.split_whitespace().collect::<String>().as_bytes());
        let told: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(case.join("expected.json")).unwrap()).unwrap();
        let mbal = data_encoding::HEXLOWER_PERMISSIVE.decode(told["mbal"].as_str().unwrap().as_bytes());
        found.push((frame.unwrap(), mbal.unwrap()));
    }
    assert!(found.len() >= 4);
    found
}

fn frames(device: Option<String>, mode: Option<&str>) -> RadioSettings {
    RadioSettings { mode: mode.map(str::to_owned), ..settings("openlinkiq", device, None) }
}

#[tokio::test(start_paused = true)]
async fn the_examples_over_a_serial_line_are_exact_with_name_strength_time_and_corrected_bits() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let mut pty = Pty::open().unwrap();
    let device = Some(pty.path().to_string_lossy().into_owned());
    let mut running = start(frames(device, Some("frames")), 4);
    let mut front_end = FrontEnd::new("cc1200 at the mast");
    let mut buffer = [0; 64];
    let answer = loop {
        let count = timeout(LIMIT, pty.receive(&mut buffer)).await.unwrap().unwrap();
        let answer = front_end.answer(&buffer[..count]);
        if !answer.is_empty() {
            break answer;
        }
    };
    pty.send(&answer).await.unwrap();
    for (number, (frame, mbal)) in examples().into_iter().enumerate() {
        let heard = front_end.damaged(&frame, 12..12 + mbal.len(), 3 * number);
        let heard = front_end.damaged(&heard, 2..10, number);
        pty.send(&front_end.noise(40)).await.unwrap();
        let before = clock::now();
        let message = front_end.hears(&heard, Some(-87), Time::Ago(Duration::from_secs(5)), true);
        pty.send(&message).await.unwrap();
        let (made, telegram) = running.telegram().await;
        assert_eq!((telegram.kind, &telegram.bytes), (TelegramKind::OpenlinkIq, &mbal));
        assert_eq!((telegram.rssi, usize::from(telegram.corrected_bits)), (Some(Rssi::Dbm(-87)), 4 * number));
        assert!(made.lane == Lane::Priority || mbal[0] & 1 == 0);
        let late = clock::now().since(before);
        assert!(before.since(made.time.wall) <= Duration::from_millis(5_020), "{made:?}");
        assert!(before.since(made.time.wall) + late >= Duration::from_millis(4_980), "{made:?}");
    }
    assert_eq!(logged.lines_with("cc1200 at the mast"), 1);
    let status = running.health.status();
    assert!(status.skipped_bytes >= 120 && status.damaged == 0, "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn what_comes_over_tcp_is_known_by_its_bytes_and_survives_noise_and_cut_messages() {
    crate::pace::hold();
    let (listener, device) = listener().await;
    let mut running = start(frames(device, None), 4);
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut front_end = FrontEnd::new("sdr");
    stream.write_all(&front_end.noise(3000)).await.unwrap();
    for (frame, mbal) in examples() {
        let time = clock::now();
        let cut = front_end.hears(&frame, None, Time::Unknown, false);
        stream.write_all(&cut[..cut.len() - 9]).await.unwrap();
        stream.write_all(&front_end.hears_softly(&frame, Some(-101), Time::Utc(time))).await.unwrap();
        let (made, telegram) = running.telegram().await;
        assert_eq!((&telegram.bytes, telegram.rssi, telegram.corrected_bits), (&mbal, Some(Rssi::Dbm(-101)), 0));
        assert_eq!(made.time.wall, time);
        stream.write_all(&front_end.name()).await.unwrap();
    }
    // Lines that come afterwards are noise of a front end that sends messages.
    let step = RadioReplay::new(Lines::OpenlinkIq).next(clock::now());
    stream.write_all(step.text.as_bytes()).await.unwrap();
    running.status(|s| s.skipped_bytes as usize >= step.text.len()).await;
    assert_eq!(running.health.status().heard, 4);
}

#[tokio::test(start_paused = true)]
async fn a_line_is_known_as_a_line_and_the_mode_may_be_told() {
    crate::pace::hold();
    for mode in [None, Some("auto"), Some("lines")] {
        let (listener, device) = listener().await;
        let mut running = start(frames(device, mode), 4);
        let (mut stream, _) = listener.accept().await.unwrap();
        let step = RadioReplay::new(Lines::OpenlinkIq).next(clock::now());
        stream.write_all(b"booted\r\n").await.unwrap();
        stream.write_all(step.text.trim_end().as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(running.telegram().await.1.bytes, step.telegram);
        assert_eq!(stream.read(&mut [0; 20]).await.unwrap_or(0), 0, "nobody was asked");
    }
    let (sender, _frames) = mpsc::channel(1);
    let error =
        radio::run(frames(Some("/dev/null".into()), Some("T1")), sender, trusted(), Health::new()).await.unwrap_err();
    assert!(error.to_string().contains("no mode \"T1\""), "{error}");
}

#[tokio::test]
async fn frames_that_can_not_be_mended_do_not_hold_up_the_runtime() {
    const FRAMES: usize = 6;
    let (listener, device) = listener().await;
    let mut running = start(frames(device, None), 4);
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut front_end = FrontEnd::new("sdr");
    let (_, mbal) = examples().swap_remove(0);
    let mut frame = Vec::new();
    encode(&mbal, Rate::Third, &mut frame).unwrap();
    let hopeless = front_end.damaged(&frame, 12..frame.len(), 8 * (frame.len() - 12) / 2);
    for _ in 0..FRAMES {
        stream.write_all(&front_end.hears(&hopeless, None, Time::Unknown, true)).await.unwrap();
    }
    stream.write_all(&front_end.hears(&frame, None, Time::Unknown, false)).await.unwrap();
    let ticking = tokio::spawn(async {
        let mut ticks = interval(Duration::from_millis(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        loop {
            ticks.tick().await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
            tracing::trace!(?longest, "tick");
            TICKS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    });
    running.status(|s| s.damaged >= 1).await;
    let (began, before) = (Instant::now(), TICKS.load(std::sync::atomic::Ordering::Relaxed));
    assert_eq!(running.telegram().await.1.bytes, mbal);
    let ticks = TICKS.load(std::sync::atomic::Ordering::Relaxed) - before;
    let decoding = began.elapsed();
    ticking.abort();
    // On the runtime's own thread there would be one or two a frame.
    assert!(ticks > 3 * (FRAMES - 1), "{ticks} ticks while {} frames took {decoding:?}", FRAMES - 1);
    assert_eq!(running.health.status().damaged, FRAMES as u64);
}

static TICKS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
