//! Receivers over TCP, a serial line and a program: what they hear reaches the frames channel,
//! whatever happens to the source.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may fail loudly, and says when its data is missing"
)]

#[path = "radio/amber.rs"]
mod amber;
#[path = "radio/cul.rs"]
mod cul;
#[path = "radio/imst.rs"]
mod imst;
#[path = "tools/pace.rs"]
mod pace;
#[path = "radio/rc1180.rs"]
mod rc1180;
#[path = "radio/sticks.rs"]
mod sticks;

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use weir::model::{Body, Frame, Lane, Rssi, Telegram, TelegramKind, Timestamp};
use weir::os::clock::{self, Clock, ClockSettings, Trust};
use weir::os::pty::Pty;
use weir::radio::{
    self, Forward, Health, OnSilence, RadioError, RadioSettings, Rules, SourceState, Status, Survey, TelegramsSettings,
};
use weir::setting::{At, Count};
use weir::sim::radio_replay::{Lines, RadioReplay};

#[path = "radio/openlinkiq.rs"]
mod openlinkiq;
#[path = "radio/rtl_433.rs"]
mod rtl_433;
#[path = "radio/silence.rs"]
mod silence;
#[path = "radio/sources.rs"]
mod sources;

const LIMIT: Duration = Duration::from_secs(120);

fn settings(receiver: &str, device: Option<String>, command: Option<&[&str]>) -> RadioSettings {
    RadioSettings {
        name: At::nowhere("roof".to_owned()),
        receiver: At::nowhere(receiver.to_owned()),
        device: device.map(At::nowhere),
        command: command.map(|words| At::nowhere(words.iter().map(|w| (*w).to_owned()).collect())),
        baud: Some(Count::clamped(9600)),
        mode: None,
        forward: At::nowhere(Forward::Raw),
        keys_file: None,
        silence: At::nowhere(OnSilence::Reset),
    }
}

/// This machine's clock, whoever keeps it.
fn trusted() -> Clock {
    let settings = ClockSettings { trust: Trust::Always, ..ClockSettings::default() };
    Clock::open(&settings, Path::new("/there-is-no-book"))
}

/// A running receiver and the end of its frames channel.
struct Running {
    frames: mpsc::Receiver<Frame>,
    health: Health,
    task: JoinHandle<Result<(), RadioError>>,
}

fn start(settings: RadioSettings, room: usize) -> Running {
    start_by(settings, room, Rules::default(), Path::new("/sys"))
}

fn start_by(settings: RadioSettings, room: usize, rules: Rules, sys: &Path) -> Running {
    let (sender, frames) = mpsc::channel(room);
    let health = Health::new();
    let (out, heard) = mpsc::channel(1);
    // Nothing waits, and a second is long enough between two of the same.
    let desk = TelegramsSettings {
        gather: At::nowhere(Duration::ZERO),
        window: At::nowhere(Duration::from_secs(1)),
        ..TelegramsSettings::default()
    };
    tokio::spawn(radio::gather(heard, sender, desk, Survey::new()));
    let (sys, of) = (sys.to_owned(), health.clone());
    let task = tokio::spawn(async move { radio::run_by(settings, out, trusted(), of, rules, &sys).await });
    Running { frames, health, task }
}

impl Running {
    async fn telegram(&mut self) -> (Frame, Telegram) {
        let frame = timeout(LIMIT, self.frames.recv()).await.expect("a frame within the limit").unwrap();
        let Body::Telegram(telegram) = frame.body.clone() else { panic!("{frame:?}") };
        (frame, telegram)
    }

    async fn status(&self, wanted: impl FnMut(&Status) -> bool) -> Status {
        let mut watch = self.health.watch();
        timeout(LIMIT, watch.wait_for(wanted)).await.expect("the status within the limit").unwrap().clone()
    }
}

/// Everything logged at DEBUG and above by this thread while the guard lives.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let logged = Self::default();
        let writer = logged.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (logged, tracing::subscriber::set_default(subscriber))
    }

    fn lines_with(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).lines().filter(|line| line.contains(text)).count()
    }
}

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn listener() -> (TcpListener, Option<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let device = format!("tcp://{}", listener.local_addr().unwrap());
    (listener, Some(device))
}

#[tokio::test(start_paused = true)]
async fn rtl_wmbus_over_tcp_gives_each_telegram_once_with_its_own_time() {
    pace::hold();
    let (listener, device) = listener().await;
    let mut running = start(settings("rtl-wmbus", device, None), 4);
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut replay = RadioReplay::new(Lines::RtlWmbus);
    for _ in 0..100 {
        let received = clock::now().plus(Duration::from_mins(2));
        let step = replay.next(received);
        stream.write_all(step.text.as_bytes()).await.unwrap();
        let (frame, telegram) = running.telegram().await;
        assert_eq!((telegram.kind, &telegram.bytes), (TelegramKind::WirelessMbus, &step.telegram));
        assert!(matches!(telegram.rssi, Some(Rssi::Relative(60..100))));
        assert_eq!(frame.lane, Lane::Ordinary);
        assert_eq!(frame.time.wall.as_millis(), received.as_millis() / 1000 * 1000 + 250);
    }
    let tally = replay.tally();
    let status = running.status(|s| s.heard == tally.telegrams + tally.duplicates).await;
    assert_eq!((status.forwarded, status.duplicates), (tally.telegrams, tally.duplicates));
    assert_eq!((status.damaged, status.noise), (tally.damaged, tally.noise));
    assert_eq!((status.opened, status.source), (1, SourceState::Open));
    assert!(running.frames.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_receivers_clock_that_is_days_off_is_not_believed() {
    pace::hold();
    let (listener, device) = listener().await;
    let mut running = start(settings("rtl-wmbus", device, None), 4);
    let (mut stream, _) = listener.accept().await.unwrap();
    let before = clock::now();
    let step = RadioReplay::new(Lines::RtlWmbus).next(Timestamp::parse("1970-01-02T00:00:00Z").unwrap());
    stream.write_all(step.text.as_bytes()).await.unwrap();
    let (frame, _) = running.telegram().await;
    assert!(frame.time.wall >= before && frame.time.wall <= clock::now());
}

#[tokio::test(start_paused = true)]
async fn openlinkiq_over_a_serial_line_keeps_priority_strength_and_corrected_bits() {
    pace::hold();
    let mut pty = Pty::open().unwrap();
    let device = Some(pty.path().to_string_lossy().into_owned());
    let mut running = start(settings("openlinkiq", device, None), 4);
    running.status(|s| s.source == SourceState::Open).await;
    assert_eq!(pty.baud().unwrap(), 9600);
    let mut replay = RadioReplay::new(Lines::OpenlinkIq);
    for number in 1..=40u32 {
        let step = replay.next(clock::now());
        pty.send(step.text.as_bytes()).await.unwrap();
        let (frame, telegram) = running.telegram().await;
        assert_eq!((telegram.kind, &telegram.bytes), (TelegramKind::OpenlinkIq, &step.telegram));
        assert_eq!(frame.lane == Lane::Priority, step.priority);
        assert_eq!(u32::from(telegram.corrected_bits), number % 6);
        assert!(matches!(telegram.rssi, Some(Rssi::Dbm(-100..-59))));
    }
    let (status, tally) = (running.status(|s| s.heard == 40).await, replay.tally());
    assert_eq!((tally.priority, status.damaged, status.noise), (4, tally.damaged, tally.noise));
}

#[tokio::test(start_paused = true)]
async fn a_program_that_ends_is_started_again_and_its_last_line_needs_no_end() {
    pace::hold();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lines");
    let step = RadioReplay::new(Lines::HexLines).next(clock::now());
    std::fs::write(&file, format!("log text\n{}", step.text.trim_end())).unwrap();
    let file = file.to_string_lossy().into_owned();
    let mut running = start(settings("hex-lines", None, Some(&["cat", &file])), 4);
    assert_eq!(running.telegram().await.1.bytes, step.telegram);
    // The pause before the next start is as long as duplicates are remembered.
    assert_eq!(running.telegram().await.1.bytes, step.telegram);
    let status = running.status(|s| s.opened >= 2).await;
    assert!(status.failures >= 1 && status.noise >= 1, "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_is_missing_is_counted_and_tried_again() {
    pace::hold();
    let running = start(settings("rtl-wmbus", None, Some(&["/nowhere/rtl_wmbus", "-f"])), 4);
    let status = running.status(|s| s.failures >= 2).await;
    assert_eq!((status.opened, status.source), (0, SourceState::Waiting));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_vanishes_is_opened_again_and_a_cut_telegram_is_not_forwarded() {
    pace::hold();
    let (logged, _guard) = Logged::start();
    let (listener, device) = listener().await;
    let mut running = start(settings("hex-lines", device, None), 4);
    let mut replay = RadioReplay::new(Lines::HexLines);
    for round in 1..=2u64 {
        let (mut stream, _) = listener.accept().await.unwrap();
        let whole = replay.next(clock::now());
        stream.write_all(whole.text.as_bytes()).await.unwrap();
        assert_eq!(running.telegram().await.1.bytes, whole.telegram);
        let cut = replay.next(clock::now());
        stream.write_all(&cut.text.as_bytes()[..40]).await.unwrap();
        drop(stream);
        let status = running.status(|s| s.failures == round).await;
        assert_eq!((status.damaged, status.forwarded, status.source), (round, round, SourceState::Waiting));
    }
    assert_eq!((logged.lines_with("WARN"), logged.lines_with("receiver is gone")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stick_that_is_pulled_and_plugged_in_again_is_heard_again() {
    pace::hold();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("by-id");
    let device = Some(path.to_string_lossy().into_owned());
    let mut running = start(settings("hex-lines", device, None), 4);
    let mut replay = RadioReplay::new(Lines::HexLines);
    for round in 1..=2u64 {
        let mut pty = Pty::open().unwrap();
        symlink(pty.path(), &path).unwrap();
        running.status(|s| s.opened == round && s.source == SourceState::Open).await;
        let step = replay.next(clock::now());
        pty.send(step.text.as_bytes()).await.unwrap();
        assert_eq!(running.telegram().await.1.bytes, step.telegram);
        std::fs::remove_file(&path).unwrap();
        drop(pty);
        running.status(|s| s.source == SourceState::Waiting).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_garbage_is_counted_and_the_next_telegram_is_heard() {
    pace::hold();
    let (logged, _guard) = Logged::start();
    let (listener, device) = listener().await;
    let mut running = start(settings("rtl-wmbus", device, None), 4);
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(&[0xA5; 300_000]).await.unwrap();
    stream.write_all(&b"\xFF\x00;;;\r".repeat(5_000)).await.unwrap();
    let step = RadioReplay::new(Lines::RtlWmbus).next(clock::now());
    stream.write_all(b"\n").await.unwrap();
    stream.write_all(step.text.as_bytes()).await.unwrap();
    assert_eq!(running.telegram().await.1.bytes, step.telegram);
    let status = running.health.status();
    // The flood's line ends with the first of the short ones.
    assert_eq!((status.skipped_bytes, status.noise), (300_005, 4_999), "{status:?}");
    assert_eq!((logged.lines_with("nothing but noise"), logged.lines_with("telegrams again")), (1, 1));
    assert!(logged.lines_with("") < 10, "the log must not be flooded");
}

#[tokio::test(start_paused = true)]
async fn a_telegram_now_and_then_among_noise_is_told_of_once() {
    pace::hold();
    let (logged, _guard) = Logged::start();
    let (listener, device) = listener().await;
    let mut running = start(settings("hex-lines", device, None), 4);
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut replay = RadioReplay::new(Lines::HexLines);
    for _ in 0..20 {
        let step = replay.next(clock::now());
        stream.write_all("a neighbour's thermometer\n".repeat(150).as_bytes()).await.unwrap();
        stream.write_all(step.text.as_bytes()).await.unwrap();
        assert_eq!(running.telegram().await.1.bytes, step.telegram);
    }
    let noise = 20 * 150 + replay.tally().noise;
    running.status(|status| status.noise == noise).await;
    assert_eq!((logged.lines_with("nothing but noise"), logged.lines_with("telegrams again")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_full_channel_holds_the_receiver_back_and_loses_nothing() {
    pace::hold();
    let (listener, device) = listener().await;
    let mut running = start(settings("hex-lines", device, None), 1);
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut replay = RadioReplay::new(Lines::HexLines);
    let steps: Vec<_> = (0..500).map(|_| replay.next(clock::now())).collect();
    let text: String = steps.iter().map(|s| s.text.as_str()).collect();
    let writer = tokio::spawn(async move { stream.write_all(text.as_bytes()).await.map(|()| stream) });
    // Nobody takes frames yet: one is in the channel, one at the desk, one before it, one at the receiver.
    running.status(|s| s.heard == 4 && s.forwarded == 1).await;
    for step in &steps {
        assert_eq!(running.telegram().await.1.bytes, step.telegram);
    }
    writer.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_receiver_ends_and_takes_its_program_with_it_when_nobody_takes_frames() {
    pace::hold();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("echo $$ > '{}'; echo started; exec sleep 1000", file.display());
    let running = start(settings("rtl-wmbus", None, Some(&["sh", "-c", &script])), 4);
    running.status(|s| s.noise == 1).await;
    let process = format!("/proc/{}/stat", std::fs::read_to_string(&file).unwrap().trim());
    assert!(std::path::Path::new(&process).exists());
    drop(running.frames);
    assert!(timeout(LIMIT, running.task).await.unwrap().unwrap().is_ok());
    let gone = async {
        while std::fs::read_to_string(&process).is_ok_and(|s| !s.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, gone).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn settings_that_cannot_be_used_are_an_error_that_names_them() {
    pace::hold();
    let (sender, _frames) = mpsc::channel(1);
    let run = |settings| radio::run(settings, sender.clone(), trusted(), Health::new());
    let error = run(settings("im8710", Some("/dev/null".into()), None)).await.unwrap_err();
    assert!(error.to_string().contains("im8710"), "{error}");
    let error = run(settings("rtl-wmbus", None, None)).await.unwrap_err();
    assert!(error.to_string().contains("roof"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_the_demo_plays_arrives_complete_and_once() {
    pace::hold();
    for (receiver, lines) in
        [("rtl-wmbus", Lines::RtlWmbus), ("hex-lines", Lines::HexLines), ("openlinkiq", Lines::OpenlinkIq)]
    {
        let (listener, device) = listener().await;
        let mut running = start(settings(receiver, device, None), 8);
        let (mut stream, _) = listener.accept().await.unwrap();
        let player = tokio::spawn(async move {
            let mut replay = RadioReplay::new(lines);
            replay.play(&mut stream, 300, Duration::ZERO, clock::now).await.unwrap();
            (replay.tally(), stream)
        });
        let mut priority = 0;
        for _ in 0..300 {
            priority += u64::from(running.telegram().await.0.lane == Lane::Priority);
        }
        let (tally, _stream) = player.await.unwrap();
        let status = running.status(|s| s.heard == tally.telegrams + tally.duplicates).await;
        assert_eq!((status.forwarded, priority), (tally.telegrams, tally.priority), "{receiver}");
        assert_eq!((status.damaged, status.noise, status.duplicates), (tally.damaged, tally.noise, tally.duplicates));
    }
}

#[tokio::test(start_paused = true)]
async fn two_receivers_that_hear_the_same_street_give_each_telegram_once_by_its_best_reception() {
    pace::hold();
    let (sender, mut frames) = mpsc::channel(8);
    let (out, heard) = mpsc::channel(4);
    let survey = Survey::new();
    tokio::spawn(radio::gather(heard, sender, TelegramsSettings::default(), survey.clone()));
    let mut streams = Vec::new();
    for _ in 0..2 {
        let (listener, device) = listener().await;
        tokio::spawn(radio::run(settings("hex-lines", device, None), out.clone(), trusted(), Health::new()));
        streams.push(listener.accept().await.unwrap().0);
    }
    let mut replay = RadioReplay::new(Lines::HexLines);
    let steps: Vec<_> = (0..50).map(|_| replay.next(clock::now())).collect();
    for step in &steps {
        let hex = data_encoding::HEXLOWER.encode(&step.telegram);
        for (stream, rssi) in streams.iter_mut().zip([-91, -62]) {
            stream.write_all(format!("{hex};{rssi}\n").as_bytes()).await.unwrap();
        }
    }
    for step in &steps {
        let frame = timeout(LIMIT, frames.recv()).await.unwrap().unwrap();
        let Body::Copies(telegram, 2) = frame.body else { panic!("{frame:?}") };
        assert_eq!((&telegram.bytes, telegram.rssi), (&step.telegram, Some(Rssi::Dbm(-62))));
    }
    let sights = survey.page(None, 100).0;
    assert_eq!(
        sights.iter().map(|sight| (sight.telegrams, sight.copies)).fold((0, 0), |(a, b), (c, d)| (a + c, b + d)),
        (50, 50)
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_demo_plays_over_a_serial_line_arrives_too() {
    pace::hold();
    let mut pty = Pty::open().unwrap();
    let device = Some(pty.path().to_string_lossy().into_owned());
    let mut running = start(settings("openlinkiq", device, None), 8);
    running.status(|s| s.source == SourceState::Open).await;
    let player = tokio::spawn(async move {
        let mut replay = RadioReplay::new(Lines::OpenlinkIq);
        replay.play_serial(&mut pty, 100, Duration::ZERO, clock::now).await.unwrap();
        pty
    });
    for _ in 0..100 {
        running.telegram().await;
    }
    drop(player.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn weir_radio_without_an_agent_listens_itself_and_shows_who_is_heard() {
    pace::hold();
    let folder = tempfile::tempdir().unwrap();
    let (listener, device) = listener().await;
    let config = folder.path().join("weir.toml");
    let text = format!(
        "[broker]\nurl = \"tcp://127.0.0.1:1\"\n[store]\npath = \"{}\"\n[[radio]]\nname = \"roof\"\nreceiver = \"hex-lines\"\ndevice = \"{}\"\n\
         [telegrams]\ndeny = [\"KAW\"]\n",
        folder.path().join("store").display(),
        device.unwrap()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(["radio", "--json", "--for", "5s", "--config"]).arg(&config).kill_on_drop(true);
    let output = tokio::spawn(async move { command.output().await.unwrap() });
    let (mut stream, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    let mut replay = RadioReplay::new(Lines::HexLines);
    for _ in 0..30 {
        stream.write_all(replay.next(clock::now()).text.as_bytes()).await.unwrap();
    }
    let output = timeout(LIMIT, output).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let meters = told["meters"].as_array().unwrap();
    let heard: u64 = meters.iter().map(|meter| meter["telegrams"].as_u64().unwrap()).sum();
    assert_eq!((heard, told["receivers"]["roof"]["heard"].as_u64()), (30, Some(30)));
    for meter in meters {
        assert_eq!(meter["forwarded"], meter["manufacturer"] != "KAW", "{meter}");
        assert!(meter["rssi_best"].is_i64(), "{meter}");
    }
}
