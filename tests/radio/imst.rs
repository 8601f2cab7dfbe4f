//! IMST's sticks: told what differs and nothing else, and heard whatever happens to them.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;
use weir::model::{Rssi, TelegramKind};
use weir::radio::{RadioSettings, Rules, SourceState};
use weir::sim::im871a::Im871a;
use weir::sim::iu891a::Iu891a;
use weir::sim::radio_replay::{Lines, RadioReplay};
use weir::sim::stick::{Plugged, Radio, Stick, plug};
use weir::wire::imst_hci::{Field, device};
use weir::wire::iu891a::{Config as IuConfig, DEVICE, GATEWAY, gateway};
use weir::wire::wmbus;

use super::{LIMIT, Logged, Running, start, start_by};

fn settings(receiver: &str, path: &Path, mode: Option<&str>) -> RadioSettings {
    RadioSettings {
        baud: None,
        mode: mode.map(str::to_owned),
        ..super::settings(receiver, Some(path.to_string_lossy().into_owned()), None)
    }
}

/// The next telegram of made-up meters.
fn telegrams() -> impl Iterator<Item = Vec<u8>> {
    let mut replay = RadioReplay::new(Lines::HexLines);
    std::iter::from_fn(move || Some(replay.next(weir::os::clock::now()).telegram))
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.expect("the stick within the limit")
}

/// Ends a receiver and waits until its line is closed.
async fn end(running: Running) {
    drop(running.frames);
    within(running.task).await.unwrap().unwrap();
}

/// Waits for the reason why a receiver can't be heard.
async fn reason(running: &Running, logged: &Logged) -> String {
    running.status(|status| status.failures > 0).await;
    let all = String::from_utf8_lossy(&logged.0.lock().unwrap()).into_owned();
    all.lines().find(|line| line.contains("receiver is gone")).unwrap().to_owned()
}

const PING: u8 = device::PING;
const INFO: u8 = device::INFO;
const GET: u8 = device::GET_CONFIG;
const SET: u8 = device::SET_CONFIG;

async fn heard(running: &mut Running, stick: &Plugged<Im871a>, telegram: &[u8]) -> Option<Rssi> {
    stick.hears(telegram, -77);
    let (_, got) = running.telegram().await;
    assert_eq!((got.kind, &got.bytes[..], got.corrected_bits), (TelegramKind::WirelessMbus, telegram, 0));
    got.rssi
}

#[tokio::test(start_paused = true)]
async fn an_im871a_is_told_what_differs_once_and_never_in_its_flash() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let stick = plug(Im871a::new(0x33, 0x14, 0x0011_2233)).unwrap();
    let factory = stick.look(|stick| stick.flash.clone());
    let mut telegrams = telegrams();
    let mut running = start(settings("im871a", stick.path(), None), 4);
    within(stick.until(|stick| stick.ids() == [PING, INFO, GET, SET, GET])).await;
    assert_eq!(heard(&mut running, &stick, &telegrams.next().unwrap()).await, Some(Rssi::Dbm(-77)));
    assert_eq!(stick.look(|stick| stick.told[3].clone()), [0xA5, 0x01, 0x03, 0x06, 0x00, 0x02, 0x0A, 0x30, 0x01, 0x00]);
    assert_eq!(logged.lines_with("iM871A, firmware 1.4, serial 00112233, mode C+T"), 1);
    end(running).await;
    stick.look(|stick| stick.told.clear());

    let mut running = start(settings("im871a", stick.path(), Some("C+T")), 4);
    within(stick.until(|stick| stick.ids() == [PING, INFO, GET])).await;
    assert_eq!(heard(&mut running, &stick, &telegrams.next().unwrap()).await, Some(Rssi::Dbm(-77)));
    assert_eq!(stick.look(|stick| stick.ids()), [PING, INFO, GET], "the second start writes nothing");
    end(running).await;

    let mut running = start(settings("im871a", stick.path(), Some("T")), 4);
    within(stick.until(|stick| stick.config.field(Field::LinkMode) == Some(3))).await;
    heard(&mut running, &stick, &telegrams.next().unwrap()).await;
    assert_eq!(stick.look(|stick| stick.flash.clone()), factory);
}

#[tokio::test(start_paused = true)]
async fn an_im170a_listens_to_its_own_modes_and_a_meter_s_role_is_taken_from_it() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let mut module = Im871a::new(0x36, 0x13, 7);
    module.config = module.config.with(Field::DeviceMode, 1).with(Field::PowerSaving, 1).with(Field::Stamp, 1);
    let stick = plug(module).unwrap();
    let mut running = start(settings("im871a", stick.path(), Some("N1c")), 4);
    within(stick.until(|stick| stick.ids() == [PING, INFO, GET, SET, GET])).await;
    let config = stick.look(|stick| stick.config.clone());
    let fields = [Field::LinkMode, Field::DeviceMode, Field::PowerSaving, Field::Rssi, Field::Stamp];
    assert_eq!(fields.map(|field| config.field(field)), [Some(0x0E), Some(0), Some(0), Some(1), Some(0)]);
    heard(&mut running, &stick, &telegrams().next().unwrap()).await;
    assert_eq!(logged.lines_with("iM170A, firmware 1.3"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_heard_while_a_stick_is_asked_is_not_lost_and_noise_and_lost_requests_are_survived() {
    crate::pace::hold();
    let sent: Vec<_> = telegrams().take(6).collect();
    let mut module = Im871a::new(0x33, 0x14, 1);
    module.deaf = 2;
    // Stale bytes that look like the beginning of a long message.
    let mut says = vec![0x00, 0xA5, 0x82, 0x03, 0xFF, 0x44];
    says.extend(module.hears(&sent[0], -60));
    module.chatter.push_back(says);
    for telegram in &sent[1..4] {
        let says = [module.hears(telegram, -60), vec![0x55, 0xA5]].concat();
        module.chatter.push_back(says);
    }
    let stick = plug(module).unwrap();
    let mut running = start(settings("im871a", stick.path(), None), 8);
    for telegram in &sent[..4] {
        assert_eq!(running.telegram().await.1.bytes, *telegram);
    }
    within(stick.until(|stick| stick.ids().ends_with(&[GET, SET, GET]))).await;
    for telegram in &sent[4..] {
        assert_eq!(heard(&mut running, &stick, telegram).await, Some(Rssi::Dbm(-77)));
    }
    let status = running.health.status();
    assert_eq!((status.opened, status.failures), (1, 0), "{status:?}");
    assert!(status.skipped_bytes >= 5, "{status:?}");

    let mut module = Iu891a::new(1);
    module.deaf = 2;
    module.config = IuConfig { mode: 2, ..module.config };
    for telegram in &sent[..5] {
        let says = [b"\xDBstale\xC0".to_vec(), module.hears(telegram, -60), b"\xC0\x09\x20stale".to_vec()].concat();
        module.chatter.push_back(says);
    }
    let stick = plug(module).unwrap();
    let mut running = start(settings("iu891a", stick.path(), None), 8);
    for telegram in &sent[..5] {
        assert_eq!(running.telegram().await.1.bytes, *telegram);
    }
    let status = running.health.status();
    assert_eq!((status.opened, status.failures), (1, 0), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_module_that_restarts_by_itself_is_told_its_settings_again_over_the_same_line() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let stick = plug(Im871a::new(0x33, 0x15, 1)).unwrap();
    let mut telegrams = telegrams();
    let mut running = start(settings("im871a", stick.path(), None), 4);
    within(stick.until(|stick| stick.ids() == [PING, INFO, GET, SET, GET])).await;
    for _ in 0..2 {
        assert_eq!(heard(&mut running, &stick, &telegrams.next().unwrap()).await, Some(Rssi::Dbm(-77)));
        stick.look(|stick| {
            stick.restart();
            stick.told.clear();
        });
        assert_eq!(heard(&mut running, &stick, &telegrams.next().unwrap()).await, None);
        within(stick.until(|stick| stick.ids() == [PING, INFO, GET, SET, GET])).await;
    }
    assert_eq!(heard(&mut running, &stick, &telegrams.next().unwrap()).await, Some(Rssi::Dbm(-77)));
    let status = running.health.status();
    assert_eq!((status.heard, status.opened, status.failures), (5, 1, 0));
    assert_eq!(logged.lines_with("restarted by itself"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stick_that_restarts_and_says_nothing_is_told_its_settings_again_after_a_silence() {
    crate::pace::hold();
    let rules = Rules { retell: Duration::from_millis(300), ..Rules::default() };
    let mut telegrams = telegrams();
    let stick = plug(Im871a::new(0x33, 0x15, 1)).unwrap();
    let mut running = start_by(settings("im871a", stick.path(), None), 4, rules.clone(), Path::new("/sys"));
    within(stick.until(|stick| stick.config.field(Field::LinkMode) == Some(0x0A))).await;
    heard(&mut running, &stick, &telegrams.next().unwrap()).await;
    stick.look(Radio::restart);
    assert_ne!(stick.look(|stick| stick.config.field(Field::LinkMode)), Some(0x0A));
    within(stick.until(|stick| stick.config.field(Field::LinkMode) == Some(0x0A))).await;
    assert_eq!(heard(&mut running, &stick, &telegrams.next().unwrap()).await, Some(Rssi::Dbm(-77)));
    assert_eq!(running.health.status().opened, 1);

    let stick = plug(Iu891a::new(1)).unwrap();
    let mut running = start_by(settings("iu891a", stick.path(), None), 4, rules, Path::new("/sys"));
    within(stick.until(|stick| stick.config.mode == 3)).await;
    iu_heard(&mut running, &stick, &telegrams.next().unwrap()).await;
    stick.look(Radio::restart);
    assert_eq!(stick.look(|stick| stick.config.mode), 0);
    within(stick.until(|stick| stick.config.mode == 3)).await;
    iu_heard(&mut running, &stick, &telegrams.next().unwrap()).await;
    assert_eq!(running.health.status().opened, 1);
}

#[tokio::test(start_paused = true)]
async fn a_module_that_never_tells_the_strength_is_not_asked_for_ever() {
    crate::pace::hold();
    let stick = plug(Im871a::new(0x33, 0x14, 1)).unwrap();
    let mut telegrams = telegrams();
    let mut running = start(settings("im871a", stick.path(), None), 4);
    within(stick.until(|stick| stick.ids() == [PING, INFO, GET, SET, GET])).await;
    assert_eq!(heard(&mut running, &stick, &telegrams.next().unwrap()).await, Some(Rssi::Dbm(-77)));
    stick.look(|stick| stick.told.clear());
    for _ in 0..4 {
        let telegram = telegrams.next().unwrap();
        let says = stick.look(|stick| {
            let config = std::mem::take(&mut stick.config);
            let says = stick.hears(&telegram, -60);
            stick.config = config;
            says
        });
        stick.say(says);
        assert_eq!(running.telegram().await.1.rssi, None);
        within(stick.until(|stick| stick.ids().ends_with(&[PING, INFO, GET]))).await;
    }
    heard(&mut running, &stick, &telegrams.next().unwrap()).await;
    assert_eq!(stick.look(|stick| stick.ids()), [PING, INFO, GET]);
}

#[tokio::test(start_paused = true)]
async fn a_stick_that_is_pulled_is_told_its_settings_when_it_is_plugged_in_again() {
    crate::pace::hold();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("by-id");
    let mut running = start(settings("im871a", &path, Some("C")), 4);
    let mut telegrams = telegrams();
    for round in 1..=2 {
        let stick = plug(Im871a::new(0x33, 0x14, 1)).unwrap();
        std::os::unix::fs::symlink(stick.path(), &path).unwrap();
        within(stick.until(|stick| stick.ids() == [PING, INFO, GET, SET, GET])).await;
        assert_eq!(heard(&mut running, &stick, &telegrams.next().unwrap()).await, Some(Rssi::Dbm(-77)), "{round}");
        std::fs::remove_file(&path).unwrap();
        drop(stick);
        running.status(|status| status.source == SourceState::Waiting).await;
    }
}

#[tokio::test(start_paused = true)]
async fn damaged_messages_are_counted_and_the_next_is_heard() {
    crate::pace::hold();
    let stick = plug(Im871a::new(0x33, 0x14, 1)).unwrap();
    let mut telegrams = telegrams();
    let mut running = start(settings("im871a", stick.path(), None), 4);
    within(stick.until(|stick| stick.ids() == [PING, INFO, GET, SET, GET])).await;
    heard(&mut running, &stick, &telegrams.next().unwrap()).await;
    for (at, dropped) in [(20, false), (20, true), (1, true), (0, true)] {
        let mut says = stick.look(|stick| stick.hears(&telegrams.next().unwrap(), -60));
        if dropped {
            says.remove(at);
        } else {
            says[at] ^= 0x10;
        }
        stick.say(says);
        heard(&mut running, &stick, &telegrams.next().unwrap()).await;
    }
    let status = running.health.status();
    assert_eq!(status.heard, 5);
    assert!(status.damaged >= 2, "{status:?}");
}

async fn refused<S: Stick>(stick: S, receiver: &str, mode: Option<&str>) -> String {
    let (logged, _guard) = Logged::start();
    let stick = plug(stick).unwrap();
    reason(&start(settings(receiver, stick.path(), mode), 4), &logged).await
}

#[tokio::test(start_paused = true)]
async fn a_stick_of_another_kind_or_speed_or_without_the_mode_is_told_in_a_sentence() {
    crate::pace::hold();
    let told = refused(Iu891a::new(1), "im871a", None).await;
    assert!(told.contains("an iU891A-XL is there instead; set receiver = \\\"iu891a\\\""), "{told}");
    let told = refused(Im871a::new(0x33, 0x14, 1), "iu891a", None).await;
    assert!(told.contains("an iM871A or iM170A is there instead; set receiver = \\\"im871a\\\""), "{told}");
    let mut slow = Im871a::new(0x33, 0x14, 1);
    slow.baud = 9_600;
    let told = refused(slow, "im871a", None).await;
    assert!(told.contains("set baud = 9600"), "{told}");
    let mut deaf = Im871a::new(0x33, 0x14, 1);
    deaf.deaf = 1_000;
    let told = refused(deaf, "im871a", None).await;
    assert!(told.contains("nothing answers as an iM871A or iM170A at 57600 baud"), "{told}");
    let told = refused(Im871a::new(0x33, 0x14, 1), "im871a", Some("N1a")).await;
    assert!(told.contains("set mode to one of C+T"), "{told}");
    let told = refused(Im871a::new(0x33, 0x13, 1), "im871a", Some("C+T")).await;
    assert!(told.contains("firmware 1.3"), "{told}");
    let mut other = Iu891a::new(1);
    other.module = 0x10;
    let told = refused(other, "iu891a", None).await;
    assert!(told.contains("kind 10"), "{told}");
    let mut strict = Iu891a::new(1);
    strict.refuses = Some(3);
    let told = refused(strict, "iu891a", None).await;
    assert!(told.contains("status 3 (a wrong parameter)"), "{told}");
}

const IU_START: [(u8, u8); 6] = [
    (DEVICE, 0x01),
    (DEVICE, 0x03),
    (DEVICE, 0x05),
    (GATEWAY, gateway::GET_CONFIG),
    (GATEWAY, gateway::SET_CONFIG),
    (GATEWAY, gateway::GET_CONFIG),
];

async fn iu_heard(running: &mut Running, stick: &Plugged<Iu891a>, telegram: &[u8]) {
    stick.hears(telegram, -25);
    let (_, got) = running.telegram().await;
    assert_eq!((&got.bytes[..], got.rssi), (telegram, Some(Rssi::Dbm(-25))));
}

#[tokio::test(start_paused = true)]
async fn an_iu891a_is_woken_told_what_differs_once_and_again_after_a_restart() {
    crate::pace::hold();
    let (logged, _guard) = Logged::start();
    let stick = plug(Iu891a::new(0x0055_6677)).unwrap();
    let default = stick.look(|stick| stick.default);
    let mut telegrams = telegrams();
    let mut running = start(settings("iu891a", stick.path(), None), 4);
    within(stick.until(|stick| stick.ids() == IU_START)).await;
    assert_eq!(stick.look(|stick| stick.config), IuConfig { mode: 3, options: IuConfig::TELL, ..default });
    iu_heard(&mut running, &stick, &telegrams.next().unwrap()).await;
    assert_eq!(logged.lines_with("iU891A-XL, firmware 1.2, serial 00556677, mode C+T"), 1);

    iu_heard(&mut running, &stick, &telegrams.next().unwrap()).await;
    let telegram = telegrams.next().unwrap();
    let says = stick.look(|stick| {
        stick.restart();
        stick.told.clear();
        let listening = IuConfig { mode: 2, ..stick.config };
        let config = std::mem::replace(&mut stick.config, listening);
        let says = stick.hears(&telegram, -25);
        stick.config = config;
        says
    });
    stick.say(says);
    assert_eq!(running.telegram().await.1.bytes, telegram);
    within(stick.until(|stick| stick.ids() == IU_START)).await;
    iu_heard(&mut running, &stick, &telegrams.next().unwrap()).await;
    assert_eq!(running.health.status().opened, 1);
    end(running).await;

    stick.look(|stick| stick.told.clear());
    stick.look(|stick| stick.firmware = None);
    let mut running = start(settings("iu891a", stick.path(), None), 4);
    within(stick.until(|stick| stick.ids() == IU_START[..4])).await;
    iu_heard(&mut running, &stick, &telegrams.next().unwrap()).await;
    assert_eq!(stick.look(|stick| stick.ids()), IU_START[..4], "the second start writes nothing");
    assert_eq!(stick.look(|stick| stick.default), default);
}

/// The telegrams of the corpus, each once; none when it is not there, which is said.
#[expect(clippy::print_stderr, reason = "says when its data is missing")]
fn corpus() -> Vec<Vec<u8>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let places = [std::env::var_os("WEIR_DATA").map(Into::into), Some(beside), Some("/work/shared/data".into())];
    let files = places.into_iter().flatten().map(|place| place.join("wmbus/telegrams.jsonl"));
    let Some(text) = files.filter_map(|file| std::fs::read_to_string(file).ok()).next() else {
        eprintln!(
            "note: wmbus/telegrams.jsonl is not there (set WEIR_DATA to its directory); nothing was tested with it"
        );
        return Vec::new();
    };
    let telegram = |line: &str| {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        data_encoding::HEXLOWER_PERMISSIVE.decode(entry["telegram"].as_str().unwrap().as_bytes()).unwrap()
    };
    let mut telegrams: Vec<_> = text.lines().map(telegram).collect();
    telegrams.sort();
    telegrams.dedup();
    assert!(telegrams.len() > 50 && telegrams.iter().all(|telegram| wmbus::decode(telegram).is_ok()));
    telegrams
}

#[tokio::test(start_paused = true)]
async fn every_real_telegram_passes_both_sticks_byte_for_byte() {
    crate::pace::hold();
    let corpus = corpus();
    let im871a = plug(Im871a::new(0x33, 0x14, 1)).unwrap();
    let mut running = start(settings("im871a", im871a.path(), None), 4);
    within(im871a.until(|stick| stick.ids() == [PING, INFO, GET, SET, GET])).await;
    for telegram in &corpus {
        assert_eq!(heard(&mut running, &im871a, telegram).await, Some(Rssi::Dbm(-77)));
    }
    let iu891a = plug(Iu891a::new(1)).unwrap();
    let mut running = start(settings("iu891a", iu891a.path(), None), 4);
    within(iu891a.until(|stick| stick.ids() == IU_START)).await;
    for telegram in &corpus {
        iu_heard(&mut running, &iu891a, telegram).await;
    }
    // Many in one write, as after a pause of the reader.
    let many: Vec<_> = telegrams().take(20).collect();
    let says: Vec<u8> = many.iter().flat_map(|telegram| iu891a.look(|stick| stick.hears(telegram, -30))).collect();
    iu891a.say(says);
    for telegram in &many {
        assert_eq!(running.telegram().await.1.bytes, *telegram);
    }
}
